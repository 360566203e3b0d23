"""Adafactor: the second moment of a matrix is stored as a row and a column."""

from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import (
    Decay,
    DType,
    Flag,
    Function,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Rate,
)
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, again, ema, quotient, rsqrt, sqrt, zeros, zeros_over
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms import momentum as running
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale, scale_by_learning_rate, scale_by_param_block_rms

__all__ = ["FactoredState", "adafactor", "scale_by_factored_rms"]


DecayRateFunction = Annotated[Any, Function("(step, decay_rate)")]
"A function of the number of steps made before and of the exponent, which gives the decay rate of a running mean."


class FactoredState(NamedTuple):
    """Second moments, factored for leaves with two large axes. A field that a leaf does not use has shape (1,)."""

    count: Array
    "int32[]: updates made so far."
    v_row: Tree
    "Running mean of g² over the largest axis."
    v_col: Tree
    "Running mean of g² over the second largest axis."
    v: Tree
    "Running mean of g² itself, for leaves that are not factored."


class scale_by_factored_rms(Leafwise):
    """Divide by a root mean square of the gradients, which is stored as the product of a row and a column.

        β = 1 − max(t − t₀, 1)^(−c)
        R ← β R + (1 − β) mean_cols(|g|² + ε)
        C ← β C + (1 − β) mean_rows(|g|² + ε)
        u = g / √(R Cᵀ / mean(R))

    Leaves without two axes of at least `min_dim_size_to_factor` keep a full second moment. An n × m matrix needs
    memory for n + m numbers. Shazeer & Stern, 2018, Algorithms 4 and 5. https://arxiv.org/abs/1804.04235
    """

    State = FactoredState
    elementwise = False

    factored: Flag = True
    "Whether to factor the second moments of leaves with two large axes."
    decay_rate: NonNegative = 0.8
    "Exponent c of the decay rate β; 0.8 is usual."
    step_offset: NonNegativeInt = 0
    "Step t₀ from which the decay rate counts, for fine-tuning; usually 0."
    min_dim_size_to_factor: PositiveInt = 128
    "Smallest size that both axes of a factored leaf must have; 128 is usual."
    epsilon: NonNegative = 1e-30
    "ε, added to the squared gradient; 1e-30 is usual."
    decay_rate_fn: DecayRateFunction | None = None
    """A function (t − 1 − t₀, c) that gives β, by default the one above. Because that tends to 1, a bound is usual in
    long runs: Zhai et al., https://arxiv.org/abs/2106.04560"""
    axes: Literal["largest", "last"] = "largest"
    "Which two axes to factor of a leaf that has more: the largest, or the last, as in the paper's code and in Keras."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        unused = [jnp.real(zeros(param, shape=(1,))) for _ in range(3)]
        axes = self._factored_axes(param.shape)
        if axes is None:
            return unused[0], unused[1], jnp.real(zeros(param))
        second, first = axes
        return zeros_over(param, first), zeros_over(param, second), unused[2]

    def leaf(self, g: Array, v_row: Array, v_col: Array, v: Array, *, t: Array) -> tuple[Array, Array, Array, Array]:
        beta = self._decay_rate_at(jnp.maximum(t - self.step_offset, 1))
        axes = self._factored_axes(g.shape)
        if axes is None:
            v = ema(v, abs_sq(g) + self.epsilon, beta)
            return quotient(g, sqrt(v), self.epsilon), v_row, v_col, v
        second, first = axes
        v_row = ema(v_row, jnp.mean(abs_sq(g), first) + self.epsilon, beta)
        v_col = ema(v_col, jnp.mean(abs_sq(again(g)), second) + self.epsilon, beta)
        rows = rsqrt(v_row) * sqrt(jnp.mean(v_row, second - (first < second), keepdims=True))
        factors = jnp.expand_dims(rows, first) * jnp.expand_dims(rsqrt(v_col), second)
        return g * factors, v_row, v_col, v

    def _decay_rate_at(self, t: Array) -> Array:
        """β in the t-th step, t = 1, 2, …"""
        if self.decay_rate_fn is None:
            return 1 - t**-self.decay_rate
        return jnp.asarray(self.decay_rate_fn(t - 1, self.decay_rate)).astype(t.dtype)

    def _factored_axes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The second largest and the largest axis (or the last two), if both are large enough to be factored."""
        if not self.factored or len(shape) < 2:
            return None
        axes = list(range(len(shape)))
        second, first = (axes if self.axes == "last" else sorted(axes, key=lambda axis: shape[axis]))[-2:]
        return (second, first) if min(shape[second], shape[first]) >= self.min_dim_size_to_factor else None


class adafactor(Optimizer):
    """Adafactor: updates relative to the size of the parameters, with second moments in sublinear memory.

    The updates of `scale_by_factored_rms` are clipped to `clipping_threshold`, then multiplied by the learning rate and
    by the scale of the parameters. Momentum follows, and weight decay that is *not* multiplied by the learning rate.
    The numbers are those of optax and Keras; `torch_adafactor` has torch's. A schedule may begin at 0.
    """

    learning_rate: Rate | None = None
    "Step size relative to the scale of each leaf; 1e-3 to 1e-2 are usual. `None` is 1, for updates scaled elsewhere."
    min_dim_size_to_factor: PositiveInt = scale_by_factored_rms.min_dim_size_to_factor
    decay_rate: NonNegative = scale_by_factored_rms.decay_rate
    decay_offset: NonNegativeInt = scale_by_factored_rms.step_offset
    multiply_by_parameter_scale: Flag = True
    "Whether the learning rate is relative to the root mean square of each leaf."
    clipping_threshold: Positive | None = 1.0
    "Largest root mean square d of a leaf's update, before the learning rate; 1 is usual. `None` does not clip."
    momentum: Decay | None = None
    "Decay rate of a running mean of the updates, 0.9 for instance; usually `None`, which keeps no mean."
    dtype_momentum: DType = "float32"
    "Dtype of the running mean of the updates; float32 is usual."
    weight_decay_rate: NonNegative | None = None
    "Strength λ of the weight decay, not multiplied by the learning rate; `None` decays nothing."
    eps: NonNegative = scale_by_factored_rms.epsilon
    factored: Flag = scale_by_factored_rms.factored
    weight_decay_mask: Mask = None
    "The leaves to decay, all by default."
    axes: Literal["largest", "last"] = scale_by_factored_rms.axes

    def expand(self) -> chain:
        stages: list[Transformation] = [scale_by_factored_rms.of(self, step_offset=self.decay_offset, epsilon=self.eps)]
        if self.clipping_threshold is not None:
            stages.append(clip_by_block_rms(self.clipping_threshold))
        rate = 1.0 if self.learning_rate is None else self.learning_rate
        stages.append(scale_by_learning_rate(rate, flip_sign=False))
        if self.multiply_by_parameter_scale:
            stages.append(scale_by_param_block_rms())
        if self.momentum is not None:
            stages.append(running.ema(self.momentum, debias=False, accumulator_dtype=self.dtype_momentum))
        if self.weight_decay_rate is not None:
            stages.append(add_decayed_weights(self.weight_decay_rate, self.weight_decay_mask))
        return chain(*stages, scale(-1.0))
