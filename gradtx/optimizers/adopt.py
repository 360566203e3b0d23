"""ADOPT: Adam that divides by the second moment of the gradients before, so that every β₂ converges."""

from collections.abc import Callable
from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, Flag, Function, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, after, ema, quotient, sqrt, zeros
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.schedules.base import constant_schedule
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["adopt", "scale_by_adopt"]

ClipValue = Annotated[Callable[..., Any], Function("of the number of updates made before", constant_schedule(1.0))]
"The bound c of the elements as a function of the step."


class scale_by_adopt(Leafwise):
    """Divide the gradient by the root mean square of the gradients before it, then take a running mean.

        t = 1:   v ← |g|²,   u = 0
        t > 1:   d = g / max(√v, ε),   clipped to ±c,   c = (t − 1)^¼
                 m ← β₁ m + (1 − β₁) d
                 v ← β₂ v + (1 − β₂) |g|²
                 u = m,   Nesterov: u = β₁ m + (1 − β₁) d

    The first gradient only measures the size of the gradients, and makes no step. A complex d is clipped to |d| ≤ c.
    The updates are of order one.

    Raises:
        ValueError: there is a `clip_value_fn`, but nothing is clipped.

    Taniguchi et al., 2024, Algorithm 2, with the clipping of the authors' code. https://arxiv.org/abs/2411.02853
    """

    State = ScaleByAdamState

    b1: Decay = scale_by_adam.b1
    b2: Decay = 0.9999
    "Decay rate β₂ of the second moment; 0.9999 is usual, and every value converges."
    eps: NonNegative = 1e-6
    "ε, the least denominator; 1e-6 is usual. Where the denominator is 0, the gradient counts as 0."
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    nesterov: Flag = scale_by_adam.nesterov
    use_clipping: Flag = True
    "Whether to clip the divided gradient; without it, an element whose gradient was 0 at first may leap."
    clip_value_fn: ClipValue | None = None
    "The bound c, a function of the number t − 1 of updates made before, as a float; by default its fourth root."

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unused_bound(self)

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        is_first = t == 1
        divided = quotient(g, jnp.maximum(sqrt(nu), self.eps), self.eps)
        if self.use_clipping:
            divided = _clipped(divided, self._bound(t - 1).astype(nu.dtype))
        mu = jnp.where(is_first, mu, ema(mu, divided, self.b1))
        update = jnp.where(is_first, 0, ema(mu, divided, self.b1)) if self.nesterov else mu
        nu = jnp.where(is_first, abs_sq(g), ema(nu, abs_sq(g), self.b2))
        return update, mu, after(nu, mu)

    def _bound(self, before: Array) -> Array:
        return jnp.asarray(before**0.25 if self.clip_value_fn is None else self.clip_value_fn(before))


def _refuse_unused_bound(tx: "scale_by_adopt | adopt") -> None:
    if tx.clip_value_fn is not None and not tx.use_clipping:
        raise ValueError(
            f"{type(tx).__name__}: clip_value_fn is given, but use_clipping=False clips nothing: leave out one"
        )


def _clipped(x: Array, bound: Array) -> Array:
    """The elements of `x`, those larger than the bound shrunk to it."""
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -bound, bound)
    size = jnp.abs(x)
    return x * jnp.where(size > bound, bound / jnp.where(size > 0, size, 1), 1)


class adopt(Optimizer):
    """ADOPT: `scale_by_adopt`, then a step of size `learning_rate`. The first update is 0.

    For weight decay, put `add_decayed_weights` between the two stages, as `adamw` does.

    >>> import gradtx
    >>> gradtx.adopt(1e-3).expanded
    chain(scale_by_adopt(), scale_by_learning_rate(0.001))
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_adopt.b1
    b2: Decay = scale_by_adopt.b2
    eps: NonNegative = scale_by_adopt.eps
    mu_dtype: DType | None = scale_by_adopt.mu_dtype
    nesterov: Flag = scale_by_adopt.nesterov
    use_clipping: Flag = scale_by_adopt.use_clipping
    clip_value_fn: ClipValue | None = scale_by_adopt.clip_value_fn

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unused_bound(self)

    def expand(self) -> chain:
        return chain(
            scale_by_adopt.of(self),
            scale_by_learning_rate.of(self),
        )
