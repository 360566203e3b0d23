"""A decay rate whose half-life grows in a straight line: the warm-up of AdEMAMix's slow mean."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.hyperparams import PositiveDecay, PositiveInt
from gradtx.schedules.base import Count, Schedule, progress

__all__ = ["half_life_schedule"]


class half_life_schedule(Schedule):
    """From one decay rate to another, so that the half-life of the mean grows in a straight line.

        s(t) = exp(1 / ((1 − x) / log β₀ + x / log β₁)),   x = min(t / T, 1)

    A mean with the decay rate β forgets half of a gradient in log ½ / log β steps: 7 for 0.9, and 6931 for 0.9999. A
    straight line between the rates themselves would pass most half-lives in the last steps. Step 0 has `init_value`.

    Pagliardini et al., 2024, Section 3, for β₃ of AdEMAMix. https://arxiv.org/abs/2409.03137

    >>> schedule = half_life_schedule(0.9, 0.9999, 10_000)
    >>> [round(float(schedule(t)), 5) for t in (0, 100, 5_000, 10_000)]
    [0.9, 0.9909, 0.9998, 0.9999]
    """

    init_value: PositiveDecay
    "β₀, the decay rate at step 0; for AdEMAMix that of the fast mean, 0.9."
    end_value: PositiveDecay
    "β₁, the decay rate from step T on; 0.9999 is usual."
    transition_steps: PositiveInt
    "T, the steps from the one value to the other; for AdEMAMix the number of all steps."

    def at_count(self, count: Count) -> Any:
        x = progress(count, self.transition_steps)
        value = jnp.exp(1 / ((1 - x) * _per_log(self.init_value) + x * _per_log(self.end_value)))
        return jnp.where(count.reached(self.transition_steps), self.end_value, value)


def _per_log(decay: Any) -> Any:
    """1 / log β, in double precision if β is a Python number."""
    return 1 / jnp.log(decay) if isinstance(decay, jax.Array) else 1 / math.log(decay)
