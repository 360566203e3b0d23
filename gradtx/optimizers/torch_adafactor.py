"""Adafactor as torch has it; `adafactor` is that of optax and Keras."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import NonNegative, Positive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, bounded, ema, quotient, rsqrt, zeros, zeros_over
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_param_block_rms

__all__ = [
    "LimitRelativeStepState",
    "TorchFactoredState",
    "limit_relative_step",
    "scale_by_torch_factored_rms",
    "torch_adafactor",
]


class TorchFactoredState(NamedTuple):
    """Second moments, factored along the last two axes. A field that a leaf does not use has shape (1,)."""

    count: Array
    "int32[]: updates made so far."
    row_var: Tree
    "Running mean of |g|² over the last axis, for leaves of two axes or more."
    col_var: Tree
    "Running mean of |g|² over the last axis but one, for leaves of two axes or more."
    variance: Tree
    "Running mean of |g|² itself, for scalars and vectors."


class scale_by_torch_factored_rms(Leafwise):
    """Divide by a factored root mean square of the gradients, which has a lower bound.

        β = 1 − t^(−c)
        R ← β R + (1 − β) mean_cols |g|²
        C ← β C + (1 − β) mean_rows |g|²
        u = g / √max(R Cᵀ / max(mean R, ε), ε²)

    Before they are squared, gradients are clipped to √(max / size), where max is the largest number of the dtype, so
    that sums of squares do not overflow. Scalars and vectors keep a full second moment; every other leaf is factored,
    however small. This is torch's form of Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235;
    `scale_by_factored_rms` is that of optax and Keras.
    """

    State = TorchFactoredState
    elementwise = False

    decay_rate: NonNegative = 0.8
    "Exponent c of the decay rate; 0.8 is usual. Torch has its negative as `beta2_decay`."
    eps: NonNegative | None = None
    "Lower bound ε of the denominator; by default the spacing of numbers at 1 in the dtype of the computation."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        if param.ndim >= 2:
            return zeros_over(param, -1), zeros_over(param, -2), jnp.real(zeros(param, shape=(1,)))
        unused = [jnp.real(zeros(param, shape=(1,))) for _ in range(2)]
        return unused[0], unused[1], jnp.real(zeros(param))

    def leaf(
        self, g: Array, row_var: Array, col_var: Array, variance: Array, *, t: Array
    ) -> tuple[Array, Array, Array, Array]:
        beta = 1 - t**-self.decay_rate
        squares = abs_sq(bounded(g, g.size))  # kept by XLA:CPU, whose sums take in products but no bounds or choices
        eps: Any = jnp.finfo(squares.dtype).eps if self.eps is None else self.eps
        if g.ndim < 2:
            v = variance = ema(variance, squares, beta)
        else:
            row_var = ema(row_var, _mean_or_zero(squares, -1), beta)
            col_var = ema(col_var, _mean_or_zero(squares, -2), beta)
            mean = jnp.maximum(_mean_or_zero(row_var, -1)[..., None], eps)
            v = jnp.expand_dims(quotient(row_var, mean, eps), -1) * jnp.expand_dims(col_var, -2)
        return g * rsqrt(jnp.maximum(v, eps * eps)), row_var, col_var, variance


def _mean_or_zero(x: Array, axis: int) -> Array:
    """The mean over an axis, or 0 if that is empty."""
    return jnp.sum(x, axis) * (1 / max(x.shape[axis], 1))


class LimitRelativeStepState(NamedTuple):
    """The counter of `limit_relative_step`."""

    count: Array
    "int32[]: updates made so far."


class limit_relative_step(Leafwise):
    """Scale the updates so that the learning rate η, which follows, becomes min(η, 1 / √t).

        u = min(1, 1 / (η √t)) g

    Shazeer & Stern, 2018, Section 8, https://arxiv.org/abs/1804.04235. Keras calls it `relative_step`.
    """

    State = LimitRelativeStepState

    learning_rate: Rate
    "Step size η, the same as the optimizer's."

    def leaf(self, g: Array, *, t: Array) -> Array:
        rate = self.learning_rate * jnp.sqrt(t)
        return jnp.where(rate > 1, 1 / jnp.maximum(rate, 1), 1).astype(g.dtype) * g


class torch_adafactor(Optimizer):
    """Adafactor in torch's form: every matrix is factored, and the decoupled weight decay has the learning rate.

        u = g / √v,   v factored, at least ε²
        θ ← (1 − η λ) θ − min(η, 1 / √t) · max(rms(θ), ε₂) · u / max(1, rms(u) / d)

    Shazeer & Stern, 2018, https://arxiv.org/abs/1804.04235. Take it to reproduce a recipe from torch, and `adafactor`
    for a new one.
    """

    learning_rate: Rate
    "Step size η, relative to the scale of each leaf; 1e-2 is torch's default."
    decay_rate: NonNegative = scale_by_torch_factored_rms.decay_rate
    eps: NonNegative | None = scale_by_torch_factored_rms.eps
    eps_scale: NonNegative = scale_by_param_block_rms.min_scale
    "Lower bound ε₂ of the scale of a leaf, so that parameters can leave zero; 1e-3 is usual."
    clipping_threshold: Positive = 1.0
    "Largest root mean square d of a leaf's update, before the learning rate; 1 is usual."
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; usually 0."
    mask: Mask = None
    "The leaves to decay, all by default."

    def expand(self) -> chain:
        return chain(
            scale_by_torch_factored_rms.of(self),
            clip_by_block_rms(self.clipping_threshold),
            scale_by_param_block_rms(self.eps_scale),
            limit_relative_step.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
