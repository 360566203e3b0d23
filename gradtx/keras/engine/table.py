"""Classes that are tables: their annotated fields are the constructor's arguments, their attributes and the config.

    class SGD(Optimizer):
        learning_rate: Rate = 0.01
        momentum: Fraction = 0.0

From that follow `SGD(learning_rate=0.01, momentum=0.0, ..., what every Optimizer takes)`, with checks and messages,
`opt.momentum`, `opt.momentum = 0.9`, `repr`, `get_config` and `from_config`.
"""

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, dataclass_transform

import jax
import jax.core

from gradtx.core import check
from gradtx.core.hyperparams import Kind, NonNegative, Real, is_schedule, kind_of
from gradtx.core.registry import did_you_mean
from gradtx.keras.engine import describe
from gradtx.keras.engine.dialect import Dialect

__all__ = ["REQUIRED", "Table", "private"]

T = TypeVar("T")

REQUIRED: Any = inspect.Parameter.empty
"The default of an argument that has none."


def private(default: T, *, init: Literal[False] = False) -> T:
    """The default of an attribute that is no argument; `init` tells type checkers so."""
    return default


class Field(NamedTuple):
    """One argument of the constructor."""

    kind: Kind
    default: Any


class NameKind:
    """A string, or None for the name of the class."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> str | None:
        if value is not None and not (isinstance(value, str) and value):
            raise TypeError(f"{where} must be a string that is not empty, got {check.describe(value)}")
        return value


Name = Annotated[Any, NameKind()]
"What an optimizer is called in configs and in the names of its weights."


class EpsilonKind:
    """A number in [0, ∞), or None for 1e-7."""

    example = 1e-7
    may_vary = False

    def convert(self, where: str, value: Any) -> float:
        return 1e-7 if value is None else kind_of(NonNegative).convert(where, value)


Epsilon = Annotated[Any, EpsilonKind()]
"Added to a denominator; `None` is 1e-7."

_ENGINE = "gradtx.keras.engine", "gradtx.keras.holders.holder"
"The modules whose classes are not for users."
_SPELLINGS = {"lr": "learning_rate", "learning_rate": "lr"}
"Two names of one thing; each class has one of them, and takes both."
_ELSEWHERE = {
    "b1": "beta_1",
    "beta1": "beta_1",
    "b2": "beta_2",
    "beta2": "beta_2",
    "eps": "epsilon",
    "wd": "weight_decay",
}


def converted(where: str, kind: Kind, value: Any) -> Any:
    """The checked value of an argument, which is named by `where`; of one that must be a number, a Python number."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{where} is traced: an optimizer is made, and changed, outside of jax.jit")
    if is_schedule(value) and isinstance(getattr(kind, "kind", kind), Real):
        raise TypeError(f"{where} must be a number, got {check.describe(value)}")
    value = kind.convert(where, value)
    return value.item() if isinstance(value, jax.Array) else value


class _Shown(type):
    """The type of optimizer classes: `help` and completion show what users call, and leave out how the engine works."""

    @property
    def __signature__(cls) -> inspect.Signature:
        return describe.signature(cls)

    @property
    def __doc__(cls) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return describe.documentation(cls)

    def __dir__(cls) -> list[str]:
        names = {name for name in super().__dir__() if not name.startswith("_")}
        engine = [base for base in cls.__mro__ if base.__module__.startswith(_ENGINE)]
        return sorted(names - {name for base in engine for name in vars(base)} | (names & {*cls.for_users}))  # pyright: ignore


@dataclass_transform(eq_default=False, field_specifiers=(private,))
class Table(metaclass=_Shown):
    """Base of classes whose annotated fields say what their constructor takes."""

    for_users: ClassVar[tuple[str, ...]] = ("from_config", "get_config")
    "The methods of the engine that `help` and completion show."

    dialect: ClassVar[Dialect] = Dialect()
    "The ways of its generation."
    rate_name: ClassVar[str] = "learning_rate"
    "What the generation calls the learning rate; tables declare it as `learning_rate`, and users may say either."
    positional: ClassVar[tuple[str, ...]] = ()
    "The first arguments, where their order is not that of their declaration."
    last: ClassVar[tuple[str, ...]] = ()
    "The arguments behind all others that configs show."
    quiet: ClassVar[frozenset[str]] = frozenset()
    "Fields that the config leaves out while they have their defaults."
    spellings: ClassVar[Mapping[str, str]] = {}
    "Other names of arguments."
    unknown_argument: ClassVar[type[Exception]] = TypeError
    "What an argument that does not exist raises."

    _defaults: ClassVar[dict[str, Any]] = {}
    _abstract: ClassVar[bool] = True
    _made: bool = False

    def __init_subclass__(cls, *, abstract: bool = False, kw_only: bool = False, **kwargs: Any) -> None:
        """`abstract` bases have arguments that come after those of the classes derived from them.

        Type checkers are told so by `kw_only`, and take these arguments by their names only.
        """
        super().__init_subclass__(**kwargs)
        cls._abstract = abstract
        declared = [name for name, hint in _annotations(cls).items() if _is_field(name, hint)]
        cls._defaults = {name: vars(cls)[name] for name in declared if name in vars(cls)}
        for name in cls._defaults:  # properties of a base class shall be seen, not these
            delattr(cls, name)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = _bound(type(self), args, kwargs)
        for name, field in self.fields().items():
            value = given.get(name, field.default)
            if name == "name" and value is None:
                value = self.dialect.default_name(type(self).__name__)
            if value is inspect.Parameter.empty:
                raise TypeError(f"{type(self).__name__}: {name} is missing")
            setattr(self, name, value)
        self.check_settings()
        object.__setattr__(self, "_made", True)

    __init__.takes_fields = True  # pyright: ignore[reportFunctionMemberAccess]

    def check_settings(self) -> None:
        """Refuse arguments that do not go together."""

    @classmethod
    def fields(cls) -> Mapping[str, Field]:
        """Kind and default of every argument of the constructor, in order."""
        return _fields(cls)

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of an argument, for classes that have the same."""
        return cls.fields()[cls.rate_name if name in _SPELLINGS else name].default

    def __setattr__(self, name: str, value: Any) -> None:
        field = self.fields().get(name)
        object.__setattr__(self, name, value if field is None else self.convert(name, field.kind, value))

    def convert(self, name: str, kind: Kind, value: Any) -> Any:
        """The checked value of a field."""
        return converted(f"{type(self).__name__}: {name}", kind, value)

    def settings(self) -> dict[str, Any]:
        """The value of every field."""
        return {name: getattr(self, name) for name in self.fields()}

    def get_config(self) -> dict[str, Any]:
        """The fields as plain data, from which `from_config` makes an equal one."""
        fields = self.fields()
        return {
            name: value
            for name, value in self.settings().items()
            if name not in self.quiet or value != fields[name].default
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The optimizer of a config. `custom_objects` is taken for Keras's sake."""
        return cls(**config)

    def __repr__(self) -> str:
        fields = self.fields().items()
        values = self.settings()
        shown = [f"{name}={values[name]!r}" for name, field in fields if self._is_told(name, field, values[name])]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _is_told(self, name: str, field: Field, value: Any) -> bool:
        if field.default is inspect.Parameter.empty:
            return True
        is_name = name == "name" and field.default is None
        default = self.dialect.default_name(type(self).__name__) if is_name else field.default
        return value is not default and value != self.convert(name, field.kind, default)


def _annotations(cls: type) -> dict[str, Any]:
    """What declares fields: annotations in our own classes. In a user's they are annotations."""
    return inspect.get_annotations(cls) if cls.__module__.startswith("gradtx.") else {}


def _is_field(name: str, hint: Any) -> bool:
    return not name.startswith("_") and typing.get_origin(hint) is not ClassVar


@functools.cache
def _fields(cls: type[Table]) -> dict[str, Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    owners = [owner for owner in cls.__mro__ if issubclass(owner, Table)]
    owners.reverse()
    in_order = sorted(owners, key=lambda owner: owner._abstract)  # classes before their bases
    names = dict.fromkeys(name for owner in in_order for name in _annotations(owner))
    order = {name: i for i, name in enumerate(cls.positional)}
    names = sorted(
        (name for name in names if _is_field(name, hints[name])),
        key=lambda name: (order.get(name, len(order)), name in cls.quiet, name in cls.last),  # else as declared
    )
    defaults = {name: value for owner in owners for name, value in owner._defaults.items()}
    return {
        cls.rate_name if name == "learning_rate" else name: Field(
            kind_of(hints[name]), defaults.get(name, inspect.Parameter.empty)
        )
        for name in names
    }


def _bound(cls: type[Table], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their names."""
    names = list(_fields(cls))
    if len(args) > len(names):
        raise TypeError(f"{cls.__name__} takes at most {len(names)} arguments, got {len(args)}")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        own = name if name in names else {**_SPELLINGS, **cls.spellings}.get(name, name)
        if own not in names:
            raise cls.unknown_argument(_unknown(cls, name))
        if own in given:
            both = (
                "lr and learning_rate are two names of one argument" if own in _SPELLINGS else f"{own} is given twice"
            )
            raise TypeError(f"{cls.__name__}: {both}: give one")
        given[own] = value
    return given


def _unknown(cls: type[Table], name: str) -> str:
    names = list(_fields(cls))
    other = _ELSEWHERE.get(name)
    hint = f"did you mean {other}?" if other in names else did_you_mean(name, names)
    hint = hint or f"it has {', '.join(names)}"
    return f"{cls.__name__}: unexpected argument {name}; {hint}"
