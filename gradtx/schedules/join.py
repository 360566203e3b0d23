"""One schedule after another."""

from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array

from gradtx.schedules.base import Schedule, ScheduleKind, constant_schedule

__all__ = ["join_schedules"]


class _Schedules:
    numeric = False

    @property
    def example(self) -> tuple[Schedule, ...]:
        return (constant_schedule(0.1), constant_schedule(0.01))

    def convert(self, where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where} must be a list of schedules, got {value!r}")
        return tuple(ScheduleKind().convert(f"{where}[{i}]", schedule) for i, schedule in enumerate(value))


class _Increasing:
    example = (2,)
    numeric = False

    def convert(self, where: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where} must be a list of steps, got {value!r}")
        steps = tuple(value)
        if any(isinstance(step, bool) or not isinstance(step, int) for step in steps):
            raise TypeError(f"{where} must be Python ints, got {list(steps)}")
        if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
            raise ValueError(f"{where} must increase and be positive, got {list(steps)}")
        return steps


class join_schedules(Schedule):
    """Use each schedule up to its boundary, the next one, from its own step 0, after it.

        s(t) = sᵢ(t − bᵢ)   for bᵢ ≤ t < bᵢ₊₁, b₀ = 0

    Raises:
        ValueError: not exactly one boundary between each two schedules.
    """

    schedules: Annotated[Any, _Schedules()]
    "Functions of the step."
    boundaries: Annotated[Any, _Increasing()]
    "Steps b₁ < b₂ < … at which the next one begins; one fewer than schedules."

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"join_schedules: {len(self.schedules)} schedules need {len(self.schedules) - 1} boundaries, "
                f"got {len(self.boundaries)}"
            )

    def at(self, t: Array) -> Any:
        value = jnp.asarray(self.schedules[0](t.astype(jnp.int32)), t.dtype)
        for boundary, schedule in zip(map(float, self.boundaries), self.schedules[1:], strict=True):
            value = jnp.where(t < boundary, value, schedule(jnp.maximum(t - boundary, 0).astype(jnp.int32)))
        return value
