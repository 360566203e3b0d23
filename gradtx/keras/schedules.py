"""Keras's learning rate schedules. Each is a table of fields, and a name for one of gradtx's schedules.

Like all schedules of gradtx they print as the Python that made them, compare, hash, pickle and may stand wherever a
schedule is wanted. Keras evaluates them at the number of updates made before this one: 0, 1, 2, ….
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

import jax
import numpy as np

from gradtx.core.check import describe
from gradtx.core.config import from_config, to_config
from gradtx.core.hyperparams import Flag, Fraction, NonNegative, Number, Positive, kind_of
from gradtx.core.registry import closest
from gradtx.keras.engine.config import checked, entry, own_class
from gradtx.keras.engine.table import Name
from gradtx.schedules.base import Count, Schedule, constant_schedule
from gradtx.schedules.basic import (
    exponential_decay,
    inverse_time_decay,
    polynomial_cycle_schedule,
    polynomial_schedule,
)
from gradtx.schedules.cosine import cosine_decay_restarts_schedule, cosine_decay_schedule
from gradtx.schedules.join import join_schedules
from gradtx.schedules.warmup import warmup_cosine_decay_schedule

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]


class LearningRateSchedule:
    """A learning rate that depends on the step. Derive from it to write your own, as in Keras.

    >>> class Inverse(LearningRateSchedule):
    ...     def __init__(self, initial_learning_rate):
    ...         self.initial_learning_rate = initial_learning_rate
    ...     def __call__(self, step):
    ...         return self.initial_learning_rate / (step + 1)
    ...     def get_config(self):
    ...         return {"initial_learning_rate": self.initial_learning_rate}
    >>> deserialize(serialize(Inverse(0.5)), custom_objects={"Inverse": Inverse})(4)
    0.1
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` updates; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, step)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data; to be overridden where the schedule is to be saved."""
        raise NotImplementedError(f"{type(self).__name__} must define get_config(self) to be saved")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The schedule that `get_config` describes."""
        return cls(**config)


class _Named(Schedule, LearningRateSchedule, abstract=True):
    """A name for a schedule of gradtx."""

    @property
    def schedule(self) -> Schedule:
        """The schedule of gradtx that this one is."""
        raise NotImplementedError

    def at_count(self, count: Count) -> Any:
        return self.schedule.at_count(count)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain data."""
        return {name: _plain(getattr(self, name)) for name in self.field_kinds()}


def _plain(value: Any) -> Any:
    """The value as JSON holds it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, jax.Array) else value


# Kinds of field that only Keras has.


class StepsKind:
    """A whole number of steps, which may be written as a float: 1e5 is one."""

    may_vary = False

    def __init__(self, low: int) -> None:
        self.low = self.example = low

    def convert(self, where: str, value: Any) -> int:
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{where} must be a number of steps, got {describe(value)}")
        if not value >= self.low or not math.isfinite(value):
            raise ValueError(f"{where} must be a number of steps of at least {self.low}, got {value}")
        if value != int(value):
            raise ValueError(f"{where} must be a whole number of steps, got {value}: round it")
        return int(value)


class ListKind:
    """A list of numbers; of steps if it is to increase."""

    may_vary = False

    def __init__(self, *example: float, increasing: bool = False) -> None:
        self.example, self.increasing = example, increasing

    def convert(self, where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) != 1:
            raise TypeError(f"{where} must be a list of numbers, got {describe(value)}")
        if self.increasing:
            steps = tuple(StepsKind(0).convert(f"{where}[{i}]", item) for i, item in enumerate(value))
            if list(steps) != sorted(set(steps)):
                raise ValueError(f"{where} must increase, got {list(steps)}")
            return steps
        return tuple(kind_of(Number).convert(f"{where}[{i}]", item) for i, item in enumerate(value))

    def shown(self, value: tuple[Any, ...]) -> list[Any]:
        """As it was written."""
        return list(value)


PositiveSteps = Annotated[int, StepsKind(1)]
"A number of steps, at least 1."
Steps = Annotated[int, StepsKind(0)]
"A number of steps."


# The schedules.


class ExponentialDecay(_Named, name="keras.ExponentialDecay"):
    """Multiply by `decay_rate` every `decay_steps` steps: `gradtx.exponential_decay`.

        s(t) = s₀ r^x,   x = t / T, its integer part if `staircase`

    Step 0 has `initial_learning_rate`.
    """

    initial_learning_rate: Number
    "s₀, the learning rate at step 0."
    decay_steps: PositiveSteps
    "T, the steps in which the rate is multiplied by `decay_rate` once."
    decay_rate: Positive
    "r, the factor for T steps; 0.9 to 0.99 are usual."
    staircase: Flag = False
    "Whether to change at once, every T steps, instead of a little at every step."
    name: Name = "ExponentialDecay"
    "What Keras calls the operation."

    @property
    def schedule(self) -> exponential_decay:
        return exponential_decay(
            self.initial_learning_rate, self.decay_steps, self.decay_rate, staircase=self.staircase
        )


class PiecewiseConstantDecay(_Named, name="keras.PiecewiseConstantDecay"):
    """The first of `values` up to the first of `boundaries`, that step included, then the next: `join_schedules`.

    Raises:
        ValueError: not exactly one value more than boundaries.

    >>> schedule = PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.25])
    >>> [float(schedule(step)) for step in (0, 10, 11, 20, 21)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    boundaries: Annotated[Any, ListKind(10, increasing=True)]
    "The last step of each value but the last one; they increase."
    values: Annotated[Any, ListKind(0.1, 0.01)]
    "The learning rates: one more than there are boundaries."
    name: Name = "PiecewiseConstant"
    "What Keras calls the operation."

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"PiecewiseConstantDecay: {len(self.boundaries)} boundaries need {len(self.boundaries) + 1} values, "
                f"got {len(self.values)}"
            )

    @property
    def schedule(self) -> join_schedules:
        return join_schedules([constant_schedule(value) for value in self.values], [b + 1 for b in self.boundaries])


class PolynomialDecay(_Named, name="keras.PolynomialDecay"):
    """Down to `end_learning_rate` along a power of the remaining time: `gradtx.polynomial_schedule`.

        s(t) = s₁ + (s₀ − s₁) (1 − min(t, T) / T)ᵖ,   or with `cycle`
        s(t) = s₁ + (s₀ − s₁) (1 − t / (k T))ᵖ,   k = ⌈t / T⌉, at least 1

    With `cycle` it begins again, over a longer time, whenever it has ended: `gradtx.polynomial_cycle_schedule`.
    """

    initial_learning_rate: Number
    "s₀, the learning rate at step 0."
    decay_steps: PositiveSteps
    "T, the steps until the end; of the first cycle with `cycle`."
    end_learning_rate: Number = 0.0001
    "s₁, the learning rate at the end."
    power: Positive = 1.0
    "p, the power of the share that is left: 1 is a straight line."
    cycle: Flag = False
    "Whether to begin again at the end of each cycle."
    name: Name = "PolynomialDecay"
    "What Keras calls the operation."

    @property
    def schedule(self) -> polynomial_schedule | polynomial_cycle_schedule:
        kind = polynomial_cycle_schedule if self.cycle else polynomial_schedule
        return kind(self.initial_learning_rate, self.end_learning_rate, self.power, self.decay_steps)


class InverseTimeDecay(_Named, name="keras.InverseTimeDecay"):
    """Divide by a number that grows with the steps: `gradtx.inverse_time_decay`.

        s(t) = s₀ / (1 + r x),   x = t / T, its integer part if `staircase`

    Step 0 has `initial_learning_rate`.
    """

    initial_learning_rate: Number
    "s₀, the learning rate at step 0."
    decay_steps: PositiveSteps
    "T, the steps that count as one unit of time."
    decay_rate: NonNegative
    "r, what T steps add to the denominator; 0.5 is usual."
    staircase: Flag = False
    "Whether to change at once, every T steps, instead of a little at every step."
    name: Name = "InverseTimeDecay"
    "What Keras calls the operation."

    @property
    def schedule(self) -> inverse_time_decay:
        return inverse_time_decay(self.initial_learning_rate, self.decay_rate, self.decay_steps, self.staircase)


class CosineDecay(_Named, name="keras.CosineDecay"):
    """Down half a cosine: `gradtx.cosine_decay_schedule`.

        s(t) = s₀ ((1 − α) ½ (1 + cos π x) + α),   x = t / T, at most 1

    Given `warmup_target`, first along a line from `initial_learning_rate` to it, in `warmup_steps` steps, to which the
    `decay_steps` are added: `gradtx.warmup_cosine_decay_schedule`, which counts them all.
    """

    initial_learning_rate: Number
    "s₀, the learning rate at step 0."
    decay_steps: PositiveSteps
    "T, the steps of the fall, those of the warm-up not included."
    alpha: Fraction = 0.0
    "α, what remains at the end, as a share of the rate at which the fall begins."
    name: Name = "CosineDecay"
    "What Keras calls the operation."
    warmup_target: Number | None = None
    "The learning rate at the end of the warm-up; `None` for no warm-up."
    warmup_steps: Steps = 0
    "The steps of the warm-up, without effect where `warmup_target` is `None`."

    @property
    def schedule(self) -> cosine_decay_schedule | warmup_cosine_decay_schedule:
        if self.warmup_target is None:
            return cosine_decay_schedule(self.initial_learning_rate, self.decay_steps, self.alpha)
        return warmup_cosine_decay_schedule(
            self.initial_learning_rate,
            self.warmup_target,
            self.warmup_steps,
            self.warmup_steps + self.decay_steps,
            self.alpha * self.warmup_target,
        )


class CosineDecayRestarts(_Named, name="keras.CosineDecayRestarts"):
    """Down half a cosine, and again, each time longer and from lower: `gradtx.cosine_decay_restarts_schedule`.

        s(t) = s₀ ((1 − α) mⁱ ½ (1 + cos π x) + α),   i the number of restarts so far, x the share of the present fall

    The restarts are exact, also where those of Keras are a step late or early.
    """

    initial_learning_rate: Number
    "s₀, the learning rate at step 0."
    first_decay_steps: PositiveSteps
    "T, the steps of the first fall."
    t_mul: Annotated[Any, cosine_decay_restarts_schedule.field_kinds()["t_mul"]] = 2.0
    "How many times longer each fall is than the one before, at least 1."
    m_mul: Positive = 1.0
    "m, the factor between the rate at one restart and at the next; 1 keeps them equal."
    alpha: Fraction = 0.0
    "α, what remains at the end of each fall, as a share of `initial_learning_rate`."
    name: Name = "SGDRDecay"
    "What Keras calls the operation."

    @property
    def schedule(self) -> cosine_decay_restarts_schedule:
        return cosine_decay_restarts_schedule(
            self.initial_learning_rate, self.first_decay_steps, self.t_mul, self.m_mul, self.alpha
        )


# Schedules as data, and back.

_BUILT_IN: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls
    for cls in (
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
    )
}
_OURS = ("keras", "tf_keras", "tensorflow")
"The packages whose schedules of these names are meant."


def serialize(learning_rate_schedule: Any, use_legacy_format: bool = False) -> dict[str, Any]:
    """A schedule as plain data, as Keras 3 writes it, or as tf.keras did: `{class_name, config}`.

    A schedule of gradtx goes by its gradtx config, in the form of Keras 3. One of Keras itself is written as Keras
    writes it; reading gives ours of that name.

    Raises:
        TypeError: not a schedule that can be written.

    >>> serialize(InverseTimeDecay(0.1, 5, 0.5), use_legacy_format=True)["class_name"]
    'InverseTimeDecay'
    """
    if _is_of_keras(type(learning_rate_schedule)):
        name, config = type(learning_rate_schedule).__name__, learning_rate_schedule.get_config()
        if use_legacy_format:
            return {"class_name": name, "config": config}
        if _is_built_in(type(learning_rate_schedule)):
            return entry("keras.optimizers.schedules", name, config, None)
        return entry(None, name, config, name)
    if isinstance(learning_rate_schedule, Schedule):
        name = learning_rate_schedule.registered_name
        return entry("gradtx", name, to_config(learning_rate_schedule), f"gradtx>{name}")
    raise TypeError(
        f"serialize: expected a LearningRateSchedule or a gradtx schedule, got {_shown(learning_rate_schedule)}"
    )


def _is_of_keras(cls: type) -> bool:
    """Whether it is a LearningRateSchedule, ours or Keras's, or derived from one."""
    return any(base.__name__ == "LearningRateSchedule" and hasattr(base, "from_config") for base in cls.__mro__)


def _is_built_in(cls: type) -> bool:
    """Whether it is one of Keras's schedules: ours, or that of an installed Keras."""
    ours = _BUILT_IN.get(cls.__name__)
    return ours is not None and (cls is ours or cls.__module__.partition(".")[0] in _OURS)


def _shown(thing: Any) -> str:
    """A description for a message; for a function, which has no config, with the cure."""
    if isinstance(thing, type) or not callable(thing):
        return describe(thing)
    what = (
        f"the function {thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else describe(thing)
    )
    return (
        f"{what}, which has no config: use a schedule of gradtx.keras.schedules or gradtx, "
        "or save the weights alone, in a .weights.h5 file"
    )


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The schedule that `serialize`, Keras 3 or tf.keras wrote. Names are looked up; nothing is imported or executed.

    Your own classes are found in `custom_objects`, a dict from their names.

    Raises:
        ValueError: an unknown name or key, or arguments that the schedule refuses.
        TypeError: not a config, or arguments that the schedule does not have.

    >>> deserialize({"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 100}})
    CosineDecay(0.1, 100)
    """
    name, arguments = checked(config, {"shared_object_id"})
    if config.get("module") == "gradtx" and name not in (custom_objects or {}):
        return _from_gradtx(arguments)
    cls = _find(name, config, custom_objects or {})
    return cls.from_config(arguments)


def _find(name: str, config: Mapping[str, Any], custom_objects: Mapping[str, Any]) -> Any:
    """The class of this name, of the user's or of Keras's."""
    if own := own_class("deserialize", name, config.get("registered_name"), custom_objects):
        return own
    module = config.get("module")
    if name in _BUILT_IN and (module is None or str(module).split(".")[0] in _OURS):
        return _BUILT_IN[name]
    close = closest(name, _BUILT_IN)
    hint = f"did you mean {close!r}? " if close not in (None, name) else ""
    where = "" if module is None else f" in {module!r}"
    raise ValueError(
        f"deserialize: no schedule {name!r}{where}; {hint}There are {_listed(_BUILT_IN)}; "
        f"for a class of your own, custom_objects={{{name!r}: the_class}}"
    )


def _from_gradtx(config: Mapping[str, Any]) -> Schedule:
    schedule = from_config(config)
    if not isinstance(schedule, Schedule):
        raise ValueError(f"deserialize: expected a schedule, got the config of {schedule!r}")
    return schedule


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(repr, names)))
