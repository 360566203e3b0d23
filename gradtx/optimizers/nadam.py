"""Nadam: Adam with Nesterov's momentum, in the forms of torch, Keras, optax and AlgoPerf."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, Flag, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, unbiased, zeros
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = [
    "ScaleByAlgoperfNadamState",
    "ScaleByNadamState",
    "nadam",
    "nadamw",
    "nadamw_algoperf",
    "scale_by_algoperf_nadam",
    "scale_by_nadam",
]


class ScaleByNadamState(NamedTuple):
    """The moments of Nadam, and the product of the values that its momentum has had."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of its square."
    mu_product: Array
    "float32[]: the product of the values that the momentum has had."


class scale_by_nadam(Leafwise):
    """Adam with Nesterov's momentum, which grows from about β₁ / 2 to β₁.

        μₜ = β₁ (1 − ½ · 0.96^(ψ t)),   Pₜ = μ₁ μ₂ … μₜ
        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) |g|²      v̂ = v / (1 − β₂ᵗ)
        u = [μₜ₊₁ m / (1 − Pₜ μₜ₊₁) + (1 − μₜ) g / (1 − Pₜ)] / (√(v̂ + ε₀) + ε)

    In torch and Keras 2 ψ is 0.004, and the momentum grows over about 25 000 steps; in Keras 3 it is 1, about 100
    steps. With a constant momentum it is `scale_by_adam(nesterov=True)`. Dozat, 2016,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """

    State = ScaleByNadamState
    observed = ("mu_product",)

    b1: Decay = scale_by_adam.b1
    "Decay rate β₁ of the first moment, and the final value of the momentum; 0.9 is usual."
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    momentum_decay: NonNegative = 4e-3
    "ψ, the pace at which the momentum grows: 0.004 for about 25 000 steps, 1 for about 100."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        return {"mu_product": jnp.ones((), jnp.result_type(float))}

    def observe(self, updates: Tree, state: ScaleByNadamState) -> dict[str, Array]:
        t = state.count.astype(state.mu_product.dtype) + 1
        return {"mu_product": state.mu_product * self._momentum(t)}

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array, mu_product: Array) -> tuple[Array, Array, Array]:
        now, ahead = self._momentum(t), self._momentum(t + 1)
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        of_mu, of_g = ahead / (1 - mu_product * ahead), (1 - now) / (1 - mu_product)
        mean = of_mu.astype(mu.dtype) * mu + of_g.astype(g.dtype) * g
        root = sqrt(unbiased(nu, self.b2, t) + self.eps_root)
        return quotient(mean, root + self.eps, self.eps), mu, nu

    def _momentum(self, t: Array) -> Array:
        return self.b1 * (1 - 0.5 * 0.96 ** (self.momentum_decay * t))


class nadam(Optimizer):
    """Adam with Nesterov's momentum, then a step of size `learning_rate`.

    The momentum is constant, as in optax, unless `momentum_decay` is given. In torch and Keras 2 that is 0.004, in
    Keras 3 it is 1.

    Raises:
        ValueError: `momentum_decay` without `nesterov`.

    >>> import gradtx
    >>> gradtx.nadam(2e-3, momentum_decay=4e-3).expanded
    chain(scale_by_nadam(), scale_by_learning_rate(0.002))
    """

    learning_rate: Rate
    "Step size; 1e-3 to 2e-3 are usual."
    b1: Decay = scale_by_nadam.b1
    b2: Decay = scale_by_nadam.b2
    eps: NonNegative = scale_by_nadam.eps
    eps_root: NonNegative = scale_by_nadam.eps_root
    mu_dtype: DType | None = scale_by_nadam.mu_dtype
    nesterov: Flag = True
    "Whether to look one step ahead, usually so; without it this is `adam`."
    momentum_decay: NonNegative | None = None
    "ψ, the pace at which the momentum grows; 0.004 in torch, 1 in Keras 3, and `None` for a constant momentum."

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pace_without_nesterov(self)

    def expand(self) -> chain:
        return chain(_nesterov_adam(self), scale_by_learning_rate.of(self))


class nadamw(Optimizer):
    """`nadam` with decoupled weight decay, as `adamw` has it.

        θ ← θ − η (u + λ θ)

    where u is the update of `scale_by_nadam`, or that of `scale_by_adam(nesterov=True)`.

    Raises:
        ValueError: `momentum_decay` without `nesterov`.
    """

    learning_rate: Rate
    "Step size; 1e-3 to 2e-3 are usual."
    b1: Decay = scale_by_nadam.b1
    b2: Decay = scale_by_nadam.b2
    eps: NonNegative = scale_by_nadam.eps
    eps_root: NonNegative = scale_by_nadam.eps_root
    mu_dtype: DType | None = scale_by_nadam.mu_dtype
    weight_decay: NonNegative = 1e-4
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-4 to 1e-2 are usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."
    nesterov: Flag = nadam.nesterov
    momentum_decay: NonNegative | None = nadam.momentum_decay

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pace_without_nesterov(self)

    def expand(self) -> chain:
        return chain(
            _nesterov_adam(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )


def _refuse_pace_without_nesterov(tx: nadam | nadamw) -> None:
    if tx.momentum_decay is not None and not tx.nesterov:
        raise ValueError(
            f"{type(tx).__name__}: momentum_decay is the pace of Nesterov's momentum: leave out nesterov=False, or "
            "momentum_decay"
        )


def _nesterov_adam(tx: nadam | nadamw) -> Transformation:
    """The first stage, with or without a growing momentum."""
    return scale_by_adam.of(tx) if tx.momentum_decay is None else scale_by_nadam.of(tx)


class ScaleByAlgoperfNadamState(NamedTuple):
    """The two moments of AlgoPerf's Nadam."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of its square."


class scale_by_algoperf_nadam(Leafwise):
    """Adam with Nesterov's momentum, of which both terms have the same bias correction.

        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) |g|²      v̂ = v / (1 − β₂ᵗ)
        u = [β₁ m + (1 − β₁) g] / (1 − β₁ᵗ) / (√(v̂ + ε₀) + ε)

    `scale_by_adam(nesterov=True)` divides the term of m by 1 − β₁ᵗ⁺¹, so that its first updates are smaller. This is
    the form of the NadamW baseline of the AlgoPerf benchmark: Dahl et al., 2023, https://arxiv.org/abs/2306.07179
    """

    State = ScaleByAlgoperfNadamState

    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        mean = unbiased(ema(mu, g, self.b1), self.b1, t)
        root = sqrt(unbiased(nu, self.b2, t) + self.eps_root)
        return quotient(mean, root + self.eps, self.eps), mu, nu


class nadamw_algoperf(Optimizer):
    """The NadamW baseline of the AlgoPerf benchmark: `scale_by_algoperf_nadam` with decoupled weight decay."""

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_algoperf_nadam.b1
    b2: Decay = scale_by_algoperf_nadam.b2
    eps: NonNegative = scale_by_algoperf_nadam.eps
    eps_root: NonNegative = scale_by_algoperf_nadam.eps_root
    mu_dtype: DType | None = scale_by_algoperf_nadam.mu_dtype
    weight_decay: NonNegative = 1e-2
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-4 to 1e-2 are usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_algoperf_nadam.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
