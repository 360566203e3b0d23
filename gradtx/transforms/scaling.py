"""Multiplication of the updates: by a constant, by a schedule, by the learning rate, by a trust ratio."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, norms
from gradtx.core.hyperparams import Flag, NonNegative, Number, Positive, Rate
from gradtx.core.leafwise import Leafwise

__all__ = [
    "ScaleByLearningRateState",
    "ScaleByScheduleState",
    "scale",
    "scale_by_learning_rate",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_schedule",
    "scale_by_trust_ratio",
]


class scale(Leafwise):
    """Multiply the updates by a number.

        u = s g

    A step against the gradient has a negative factor.
    """

    step_size: Number
    "The factor s; negative, as in `scale(-0.1)`, at the end of an optimizer."

    def leaf(self, g: Array) -> Array:
        return self.step_size * g


class ScaleByScheduleState(NamedTuple):
    """The clock of a schedule."""

    count: Array
    "int32[]: updates made so far."


class scale_by_schedule(Leafwise):
    """Multiply the updates by a schedule's value at the number of updates made before.

        u = s(t − 1) g,   t = 1, 2, …

    The first update uses s(0). For a learning rate, which is subtracted, see `scale_by_learning_rate`.
    """

    State = ScaleByScheduleState

    step_size_fn: Number
    "The schedule s of the factor, a function of the number of updates made before; its values may be negative."

    def leaf(self, g: Array) -> Array:
        return self.step_size_fn * g


class ScaleByLearningRateState(NamedTuple):
    """The clock and the rate in use; the same fields for a number and a schedule, so that a checkpoint fits both."""

    count: Array
    "int32[]: updates made so far."
    learning_rate: Array
    "float32[]: the rate of the last update; before the first update, the rate that it will have."


class scale_by_learning_rate(Leafwise):
    """Take a step of size `learning_rate` against the updates.

        u = −η g

    Given a schedule, the rate of the t-th update is η(t − 1). The rate in use can be read from the state.
    """

    State = ScaleByLearningRateState
    observed = ("learning_rate",)
    reported = {"count": "steps", "learning_rate": "learning_rate"}

    learning_rate: Rate
    "Learning rate η, the size of a step: a number or a schedule."
    flip_sign: Flag = True
    "Whether to step against the updates, which is descent, or along them."

    def leaf(self, g: Array) -> Array:
        return dtypes.scaled(-self.learning_rate if self.flip_sign else self.learning_rate, g)


class scale_by_param_block_norm(Leafwise):
    """Scale each leaf's update by the L2 norm of the leaf itself.

        u = max(‖θ‖, μ) g

    Needs the parameters.
    """

    elementwise = False

    min_scale: NonNegative = 1e-3
    "Lower bound μ of the factor, so that parameters may leave zero."

    def leaf(self, g: Array, *, param: Array) -> Array:
        return dtypes.scaled(jnp.maximum(norms.plain_norm(param), self.min_scale), g)


class scale_by_param_block_rms(Leafwise):
    """Scale each leaf's update by the root mean square of the leaf itself.

        u = max(rms(θ), μ) g,   rms(θ) = ‖θ‖ / √size

    Shazeer & Stern, 2018, Section 8. https://arxiv.org/abs/1804.04235. Needs the parameters.
    """

    elementwise = False

    min_scale: NonNegative = 1e-3
    "Lower bound μ of the factor, so that parameters may leave zero."

    def leaf(self, g: Array, *, param: Array) -> Array:
        return dtypes.scaled(jnp.maximum(norms.rms(param), self.min_scale), g)


class scale_by_trust_ratio(Leafwise):
    """Scale each leaf's update to the size of the leaf itself: the layer-wise adaptation of LARS and LAMB.

        u = c · max(‖θ‖, μ) / (‖g‖ + ε) · g,   and u = g where ‖θ‖ or ‖g‖ is 0

    You, Gitman & Ginsburg, 2017, https://arxiv.org/abs/1708.03888; You et al., 2019,
    https://arxiv.org/abs/1904.00962. Needs the parameters.
    """

    elementwise = False

    min_norm: NonNegative = 0.0
    "Lower bound μ of both norms; 0 is usual."
    trust_coefficient: Positive = 1.0
    "The ratio c of the update's norm to the parameter's; 1 in LAMB, 0.001 in LARS."
    eps: NonNegative = 0.0
    "Added to the update's norm, ε; 0 is usual."

    def leaf(self, g: Array, *, param: Array, copy: Array) -> Array:
        param_norm = jnp.maximum(norms.plain_norm(param), self.min_norm)
        update_norm = jnp.maximum(norms.plain_norm(copy), self.min_norm)
        zero = (param_norm == 0) | (update_norm == 0)
        ratio = self.trust_coefficient * param_norm / jnp.where(zero, 1, update_norm + self.eps)
        return dtypes.scaled(jnp.where(zero, 1, ratio), g)
