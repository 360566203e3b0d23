"""Constants, powers, exponentials and steps."""

from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparams import Flag, NonNegativeInt, Number, Positive, PositiveInt, scalar
from gradtx.schedules.base import Schedule

__all__ = [
    "constant_schedule",
    "exponential_decay",
    "linear_schedule",
    "piecewise_constant_schedule",
    "polynomial_schedule",
]


class constant_schedule(Schedule):
    """s(t) = s₀"""

    value: Number
    "s₀."

    def at(self, t: Array) -> Any:
        return self.value


class polynomial_schedule(Schedule):
    """From `init_value` to `end_value` along a power of the remaining time.

        s(t) = s₁ + (s₀ − s₁) (1 − x)ᵖ,   x = (t − t₀) / T, held between 0 and 1

    Step 0 has `init_value`.
    """

    init_value: Number
    "s₀."
    end_value: Number
    "s₁, reached at step t₀ + T and kept."
    power: Positive
    "p; 1 is linear."
    transition_steps: PositiveInt
    "T."
    transition_begin: NonNegativeInt = 0
    "t₀."

    def at(self, t: Array) -> Any:
        x = jnp.clip((t - self.transition_begin) / self.transition_steps, 0, 1)
        return self.end_value + (self.init_value - self.end_value) * (1 - x) ** self.power


class linear_schedule(Schedule):
    """From `init_value` to `end_value` in a straight line.

        s(t) = s₀ + (s₁ − s₀) x,   x = (t − t₀) / T, held between 0 and 1

    Step 0 has `init_value`: a warm-up from 0 makes a first update of size 0.
    """

    init_value: Number
    "s₀."
    end_value: Number
    "s₁, reached at step t₀ + T and kept."
    transition_steps: PositiveInt
    "T."
    transition_begin: NonNegativeInt = 0
    "t₀."

    def at(self, t: Array) -> Any:
        x = jnp.clip((t - self.transition_begin) / self.transition_steps, 0, 1)
        return self.init_value + (self.end_value - self.init_value) * x


class exponential_decay(Schedule):
    """Multiply by `decay_rate` every `transition_steps` steps, smoothly or in stairs.

        s(t) = s₀ r^x,   x = (t − t₀) / T from t₀ on, its integer part if `staircase`

    Step 0 has `init_value`.
    """

    init_value: Number
    "s₀."
    transition_steps: PositiveInt
    "T."
    decay_rate: Positive
    "r."
    transition_begin: NonNegativeInt = 0
    "t₀; the value is constant before."
    staircase: Flag = False
    "Whether to step down every T steps instead of sliding."
    end_value: Number | None = None
    "Where to stop: a lower bound for r < 1, an upper one for r > 1."

    def at(self, t: Array) -> Any:
        x = jnp.maximum(t - self.transition_begin, 0) / self.transition_steps
        value = self.init_value * self.decay_rate ** (jnp.floor(x) if self.staircase else x)
        if self.end_value is None:
            return value
        falling = jnp.asarray(self.decay_rate) < 1
        return jnp.where(falling, jnp.maximum(value, self.end_value), jnp.minimum(value, self.end_value))


class _Boundaries:
    """A dict from steps to factors, kept as it was written."""

    numeric = False

    @property
    def example(self) -> dict[int, float]:
        return {2: 0.5}

    def convert(self, where: str, value: Any) -> dict[int, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"{where} must be a dict from steps to factors, got {type(value).__name__}")
        for step in value:
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise ValueError(f"{where} must have steps (ints from 0 on) for keys, got {step!r}")
        return {step: scalar(f"{where}[{step}]", factor) for step, factor in sorted(value.items())}


class piecewise_constant_schedule(Schedule):
    """Multiply by a factor at each boundary.

        s(t) = s₀ · Π rᵢ over the boundaries tᵢ ≤ t

    Step 0 has `init_value`.
    """

    init_value: Number
    "s₀."
    boundaries_and_scales: Annotated[Any, _Boundaries()] | None = None
    "Boundaries tᵢ and their factors rᵢ."

    def at(self, t: Array) -> Any:
        value = jnp.asarray(self.init_value, t.dtype)
        for boundary, factor in (self.boundaries_and_scales or {}).items():
            value = jnp.where(t >= boundary, factor * value, value)
        return value
