"""Half a cosine, alone or after a warm-up."""

from typing import Any, Self

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparams import Fraction, NonNegativeInt, Number, Positive, PositiveInt
from gradtx.schedules.base import Schedule
from gradtx.schedules.basic import linear_schedule

__all__ = ["cosine_decay_schedule", "warmup_cosine_decay_schedule"]


class cosine_decay_schedule(Schedule):
    """Fall along half a cosine.

        s(t) = s₀ ((1 − α) c + α),   c = (½ (1 + cos π x))ᵖ,   x = t / T, at most 1

    Step 0 has `init_value`. Loshchilov & Hutter, 2016, without restarts. https://arxiv.org/abs/1608.03983
    """

    init_value: Number
    "s₀."
    decay_steps: PositiveInt
    "T."
    alpha: Fraction = 0.0
    "What remains at the end, as a share of s₀."
    exponent: Positive = 1.0
    "p."

    def at(self, t: Array) -> Any:
        x = jnp.clip(t / self.decay_steps, 0, 1)
        cosine = (0.5 * (1 + jnp.cos(jnp.pi * x))) ** self.exponent
        return self.init_value * ((1 - self.alpha) * cosine + self.alpha)


class warmup_cosine_decay_schedule(Schedule):
    """A linear warm-up, then half a cosine down.

        s(t) = s₀ + (s₁ − s₀) t / W                      for t < W
        s(t) = s₁ ((1 − α) c + α), α = s₂ / s₁           after, c as in `cosine_decay_schedule`, x = (t − W) / (T − W)

    With `init_value` 0, as is usual, the first update has size 0.
    """

    init_value: Number
    "s₀."
    peak_value: Positive
    "s₁."
    warmup_steps: NonNegativeInt
    "W."
    decay_steps: PositiveInt
    "T: all steps, those of the warm-up included."
    end_value: Number = 0.0
    "s₂."
    exponent: Positive = 1.0
    "p."

    @classmethod
    def example(cls) -> Self:
        return cls(0.0, 0.1, 2, 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"warmup_cosine_decay_schedule: decay_steps must exceed warmup_steps, which it includes; "
                f"got {self.decay_steps} and {self.warmup_steps}"
            )

    def at(self, t: Array) -> Any:
        alpha = self.end_value / self.peak_value
        decay = cosine_decay_schedule(self.peak_value, self.decay_steps - self.warmup_steps, 0.0, self.exponent)
        x = decay.at(t - self.warmup_steps) * (1 - alpha) + self.end_value
        if self.warmup_steps == 0:
            return x
        return jnp.where(
            t < self.warmup_steps, linear_schedule(self.init_value, self.peak_value, self.warmup_steps).at(t), x
        )
