"""The kinds of hyper-parameter. Bounds and their messages are written here, once; the names of kinds are at the end.

A number that may vary from step to step is given as a Python number, a scalar JAX array (concrete or traced) or a
schedule: a function from the number of updates made so far to a number. Concrete numbers are checked when the
transformation is constructed.

A kind is written as the annotation `Annotated[type, kind]`: type checkers read the type, and the constructor reads
the kind. `Literal["a", "b"]` and `bool` are kinds, too.
"""

import dataclasses
import functools
import math
import types
import typing
from typing import Annotated, Any, Protocol

import jax
import jax.core
import numpy as np

from gradtx.core.check import describe

__all__ = [
    "AtLeastOne",
    "AtLeastOneOrInfinity",
    "Axes",
    "Axis",
    "Choice",
    "CycleGrowth",
    "DType",
    "Decay",
    "DecayOrSchedule",
    "DecayPair",
    "FactorsByStep",
    "Flag",
    "Fraction",
    "Function",
    "GrowthFactor",
    "IncreasingSteps",
    "Names",
    "NonNegative",
    "NonNegativeInt",
    "NonNegativeOrInfinity",
    "NonPositive",
    "Number",
    "Positive",
    "PositiveDecay",
    "PositiveFraction",
    "PositiveInt",
    "Rate",
    "RateOrSchedule",
    "Scalar",
    "ScheduleFunction",
    "ShareOfSteps",
    "ShrinkFactor",
    "StepCount",
    "is_schedule",
    "is_stateful",
]


class ScheduleFunction(Protocol):
    """A function from the number of updates made so far, an int32 scalar, to a number.

    To type checkers, a field of this type reads as `Any`, because a formula is given the schedule's value and never the
    schedule. (They use `__get__`, which every function has, as the type of what is read.)
    """

    def __call__(self, count: Any, /) -> Any: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...


Scalar = float | jax.Array | ScheduleFunction
"What type checkers accept for a number. At run time NumPy scalars are accepted, too."


class Kind(Protocol):
    """Checks and converts one hyper-parameter. A message begins with `where`, which is "transformation: argument"."""

    @property
    def example(self) -> Any:
        """A sane value, for tests and docs."""

    @property
    def may_vary(self) -> bool:
        """Whether its value may change from step to step, so that a schedule may be given."""
        ...

    def convert(self, where: str, value: Any) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Anything:
    """Any value that cannot be changed in place."""

    example: Any = None
    may_vary: bool = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, np.ndarray | set):
            raise TypeError(f"{where} is a mutable {type(value).__name__}: give a JAX array or a tuple")
        return value


ANYTHING = Anything()


@dataclasses.dataclass(frozen=True)
class Optional:
    """`None`, or a value of another kind."""

    kind: Kind
    example: Any = None

    @property
    def may_vary(self) -> bool:
        return self.kind.may_vary

    def convert(self, where: str, value: Any) -> Any:
        return None if value is None else self.kind.convert(where, value)


@dataclasses.dataclass(frozen=True)
class Real:
    """A finite number in an interval, which is written as in mathematics: `"[0, 1)"`.

    If it may not vary, only a Python number is accepted, no array and no schedule.

    If `argument` is true, Python numbers are arguments of the programs that eager calls compile, so that another
    number needs no compilation. Otherwise they are constants there: 1 − β is formed in double precision, and a decay
    of zero may leave a stage out.
    """

    interval: str
    example: float
    may_vary: bool = True
    argument: bool = False
    low: float = dataclasses.field(init=False)
    high: float = dataclasses.field(init=False)

    @property
    def range(self) -> str:
        """Which values it accepts, in words, for the documentation."""
        return "any finite number" if self.interval == "(-∞, ∞)" else f"in {self.interval}"

    def __post_init__(self) -> None:
        low, high = self.interval[1:-1].split(",")
        object.__setattr__(self, "low", -math.inf if "∞" in low else float(low))
        object.__setattr__(self, "high", math.inf if "∞" in high else float(high))

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, type):
            raise TypeError(f"{where} is the class {value.__name__}: call it, {value.__name__}(...)")
        if self.may_vary and is_schedule(value):
            return value
        value = _scalar(where, value)
        if not self.may_vary and isinstance(value, jax.Array):
            raise TypeError(
                f"{where} must be a Python number, because compiled code depends on it, got {_describe(value)}"
            )
        if not isinstance(value, jax.core.Tracer) and not self.holds(float(value)):
            raise ValueError(f"{where} must lie in {self.interval}, got {float(value):g}")
        return value

    def holds(self, x: float) -> bool:
        above = x > self.low if self.interval[0] == "(" else x >= self.low
        below = x < self.high if self.interval[-1] == ")" else x <= self.high
        return math.isfinite(x) and above and below


def _scalar(where: str, value: Any) -> Any:
    """A real number as a Python float, or as the scalar JAX array that it is."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, jax.Array):
        if not jax.numpy.issubdtype(value.dtype, np.number) or jax.numpy.iscomplexobj(value):
            raise TypeError(f"{where} must be a real scalar, got an array {value.dtype}{list(value.shape)}")
        if value.shape != ():
            raise TypeError(
                f"{where} must be a real scalar, got an array {value.dtype}{list(value.shape)}: "
                "to try several values, use jax.vmap over a function that makes the transformation"
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} must be a number, a scalar array or a schedule, got {_describe(value)}")
    return float(value)


def is_schedule(value: Any) -> bool:
    """Whether a hyper-parameter is a schedule, that is, a function of the number of updates rather than a number."""
    return callable(value) and not isinstance(value, jax.Array | type)


def is_stateful(schedule: Any) -> bool:
    """Whether a schedule is a `StatefulSchedule`, which follows a state of its own rather than a count of updates."""
    return all(callable(getattr(schedule, name, None)) for name in ("init", "update", "__call__"))


@dataclasses.dataclass(frozen=True)
class Integer:
    """A Python integer of at least `low`, which compiled code depends on. If it may vary, it may be a schedule."""

    low: int
    example: int
    may_vary: bool = False

    @property
    def range(self) -> str:
        """Which values it accepts, in words, for the documentation."""
        return f"at least {self.low}"

    def convert(self, where: str, value: Any) -> Any:
        if self.may_vary and is_schedule(value):
            return value
        if isinstance(value, np.integer):
            value = int(value)
        if not _is_whole(value):
            raise TypeError(f"{where} must be a Python int, got {_describe(value)}")
        if value < self.low:
            raise ValueError(f"{where} must be at least {self.low}, got {value}")
        return value


@dataclasses.dataclass(frozen=True)
class Boolean:
    """`True` or `False`."""

    example: bool = False
    may_vary: bool = False

    def convert(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{where} must be True or False, got {_describe(value)}")
        return bool(value)


@dataclasses.dataclass(frozen=True)
class Function:
    """A function; `signature` says in the message how it is called."""

    signature: str
    example: Any = None
    may_vary: bool = dataclasses.field(default=False, init=False)

    def convert(self, where: str, value: Any) -> Any:
        """The function. A partial of a class is called, so that optax's `partial(skip_large_updates, ...)` works."""
        if isinstance(value, functools.partial) and isinstance(value.func, type):
            return value()
        if not callable(value) or isinstance(value, type):
            raise TypeError(f"{where} must be a function {self.signature}, got {describe(value)}")
        return value


class Choice:
    """One of a few words: the kind of `Literal["a", "b"]`."""

    may_vary = False

    def __init__(self, *options: str) -> None:
        self.options = options

    @property
    def example(self) -> str:
        return self.options[0]

    def convert(self, where: str, value: Any) -> str:
        if value not in self.options:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, self.options))}, got {value!r}")
        return value


@dataclasses.dataclass(frozen=True)
class FloatingDType:
    """A floating-point dtype, by name or as NumPy and JAX spell it."""

    example: str = "float32"
    may_vary: bool = False

    def convert(self, where: str, value: Any) -> np.dtype[Any]:
        try:
            if not isinstance(value, str | type | np.dtype) and not hasattr(value, "dtype"):
                raise TypeError
            dtype = jax.numpy.dtype(value)
        except TypeError:
            raise TypeError(f"{where} must be a floating dtype such as 'bfloat16', got {_describe(value)}") from None
        if not jax.numpy.issubdtype(dtype, jax.numpy.floating):
            raise ValueError(f"{where} must be a floating dtype such as 'bfloat16', got {dtype.name!r}")
        return dtype


def kind_of(hint: Any) -> Kind:
    """The kind that a field's annotation says; `K | None` also accepts `None`."""
    if hint is bool:
        return Boolean()
    if typing.get_origin(hint) is typing.Literal:
        return Choice(*typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return Optional(kind_of(inner[0])) if len(inner) == 1 else ANYTHING
    if typing.get_origin(hint) is Annotated:
        return next((m for m in hint.__metadata__ if hasattr(m, "convert")), ANYTHING)
    return ANYTHING


@dataclasses.dataclass(frozen=True)
class OrInfinity:
    """A number of another kind, or infinity, which is stored as `None`."""

    kind: Kind

    @property
    def example(self) -> Any:
        return self.kind.example

    @property
    def may_vary(self) -> bool:
        return self.kind.may_vary

    def convert(self, where: str, value: Any) -> Any:
        return None if isinstance(value, float) and value == math.inf else self.kind.convert(where, value)


@dataclasses.dataclass(frozen=True)
class OwnSchedule:
    """A number of another kind, or a schedule of it that the owner of the field evaluates itself."""

    kind: Kind
    may_vary: bool = dataclasses.field(default=False, init=False)

    @property
    def example(self) -> Any:
        return self.kind.example

    def convert(self, where: str, value: Any) -> Any:
        return self.kind.convert(where, value)


class AxisKind:
    """The number of an axis, counted from the front or, negative, from the back."""

    example = -1
    may_vary = False

    def convert(self, where: str, value: Any) -> int:
        if not _is_whole(value):
            raise TypeError(f"{where} must be an axis (a Python int), got {value!r}")
        return value


class AxesKind:
    """An axis, or several as a tuple."""

    example = -1
    may_vary = False

    def convert(self, where: str, value: Any) -> int | tuple[int, ...]:
        axes = value if isinstance(value, list | tuple) else (value,)
        if any(not _is_whole(axis) for axis in axes):
            raise TypeError(f"{where} must be an axis or a tuple of axes (Python ints), got {value!r}")
        return tuple(axes) if isinstance(value, list | tuple) else value


class IncreasingStepsKind:
    """Increasing steps, as a tuple."""

    example = (2,)
    may_vary = False

    def convert(self, where: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where} must be a list of steps, got {value!r}")
        steps = tuple(value)
        if any(not _is_whole(step) for step in steps):
            raise TypeError(f"{where} must be Python ints, got {list(steps)}")
        if list(steps) != sorted(set(steps)) or any(step < 1 for step in steps):
            raise ValueError(f"{where} must increase and be positive, got {list(steps)}")
        return steps


class FactorsByStepKind:
    """A dict from steps to factors. It is kept in the order of the steps."""

    may_vary = False
    factor = Real("[0, ∞)", 0.5)

    @property
    def example(self) -> dict[int, float]:
        return {2: 0.5}

    def convert(self, where: str, value: Any) -> dict[int, Any]:
        if not isinstance(value, dict):
            raise TypeError(f"{where} must be a dict from steps to factors, got {type(value).__name__}")
        for step in value:
            if not _is_whole(step) or step < 0:
                raise ValueError(f"{where} must have steps (ints from 0 on) for keys, got {step!r}")
        for scale in value.values():
            if is_schedule(scale):
                raise TypeError(f"{where} must have numbers for values, got the schedule {scale!r}")
        return {step: self.factor.convert(f"{where}[{step}]", scale) for step, scale in sorted(value.items())}


@dataclasses.dataclass(frozen=True)
class PairOf:
    """Two numbers of another kind, as a tuple; they may be arrays, but no schedules."""

    kind: Real
    example: tuple[float, float]
    may_vary: bool = dataclasses.field(default=False, init=False)

    def convert(self, where: str, value: Any) -> tuple[Any, Any]:
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{where} must be a pair of numbers, got {_describe(value)}")
        for i, number in enumerate(value):
            if is_schedule(number):
                raise TypeError(f"{where}[{i}] must be a number or a scalar array, got the schedule {number!r}")
        return self.kind.convert(f"{where}[0]", value[0]), self.kind.convert(f"{where}[1]", value[1])


class NamesKind:
    """Names, as a tuple. A single name may be given as a string."""

    example = ()
    may_vary = False

    def convert(self, where: str, value: Any) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else tuple(value)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"{where} must be names of hyper-parameters, got {wrong[0]!r}")
        return names


def _is_whole(value: Any) -> bool:
    """Whether a value is a Python int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _describe(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}" if value is not None else "None"


# Numbers that may vary from step to step.

Rate = Annotated[Scalar, Real("[0, ∞)", 0.1, argument=True)]
"A step size."
Decay = Annotated[Scalar, Real("[0, 1)", 0.9)]
"The decay rate of a running mean."
DecayPair = Annotated[Any, PairOf(Real("[0, 1)", 0.9), (0.8, 0.95))]
"The decay rates of two running means."
PositiveDecay = Annotated[Scalar, Real("(0, 1)", 0.9)]
"The decay rate of a running mean that may not be zero."
Fraction = Annotated[Scalar, Real("[0, 1]", 0.5)]
"A share: 0, 1 or a number between them."
PositiveFraction = Annotated[Scalar, Real("(0, 1]", 0.5)]
"A share that may not be zero, or a factor that does not make its argument larger."
ShrinkFactor = Annotated[Scalar, Real("(0, 1)", 0.5)]
"A factor below 1 that may not be zero."
GrowthFactor = Annotated[Scalar, Real("(1, ∞)", 2.0)]
"A factor above 1."
AtLeastOne = Annotated[Scalar, Real("[1, ∞)", 1.2)]
"A factor of at least 1."
AtLeastOneOrInfinity = Annotated[Scalar, OrInfinity(Real("[1, ∞)", 1.5))]
"A factor of at least 1; infinity is stored as `None`."
NonNegative = Annotated[Scalar, Real("[0, ∞)", 0.5)]
"A number of at least zero."
NonNegativeOrInfinity = Annotated[Scalar, OrInfinity(Real("[0, ∞)", 0.9))]
"A number of at least zero; infinity is stored as `None`."
NonPositive = Annotated[Scalar, Real("(-∞, 0]", -0.5)]
"A number of at most zero."
Positive = Annotated[Scalar, Real("(0, ∞)", 0.5)]
"A number above zero."
Number = Annotated[Scalar, Real("(-∞, ∞)", 0.5, argument=True)]
"Any finite number."
StepCount = Annotated[int | ScheduleFunction, Integer(1, 2, may_vary=True)]
"A number of steps, at least one, or a schedule of it."

# Numbers that a schedule is made of and that may themselves be schedules, which it evaluates at its own count.

RateOrSchedule = Annotated[Any, OwnSchedule(Real("[0, ∞)", 0.1))]
"A step size, or a schedule of it."
DecayOrSchedule = Annotated[Any, OwnSchedule(Real("[0, 1)", 0.9))]
"The decay rate of a running mean, or a schedule of it."

# What compiled code depends on, so that only Python values are accepted.

PositiveInt = Annotated[int, Integer(1, 2)]
"A whole number of at least one."
NonNegativeInt = Annotated[int, Integer(0, 2)]
"A whole number of at least zero."
ShareOfSteps = Annotated[float, Real("(0, 1)", 0.3, may_vary=False)]
"A share of all steps: more than none of them and fewer than all."
CycleGrowth = Annotated[float, Real("[1, ∞)", 2.0, may_vary=False)]
"How many times longer each cycle is than the one before."
IncreasingSteps = Annotated[Any, IncreasingStepsKind()]
"Increasing steps, `[100, 1000]` for instance."
FactorsByStep = Annotated[Any, FactorsByStepKind()]
"A dict from steps to factors, `{1000: 0.1}` for instance."
Axis = Annotated[int, AxisKind()]
"The number of an axis."
Axes = Annotated[Any, AxesKind()]
"The number of an axis, or a tuple of them."
Flag = Annotated[bool, Boolean()]
"`True` or `False`."
DType = Annotated[str | type | np.dtype[Any], FloatingDType()]
"A floating-point dtype, `'bfloat16'` for instance."
Names = Annotated[Any, NamesKind()]
"Names of hyper-parameters: several strings, or one."
