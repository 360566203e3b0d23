"""What is known by name: every class of values, and every function that configs may refer to."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

__all__ = ["register", "registry"]

T = TypeVar("T", bound=Callable[..., Any])

_REGISTRY: dict[str, Any] = {}
_STATES: dict[type, Mapping[str, str]] = {}


def register(target: T, name: str | None = None) -> T:
    """Make a class or a function known by name, so that configs may refer to it. It works as a decorator, too.

    Classes of transformations and schedules are registered when they are defined. Only functions need this: schedules
    and masks that are functions, and the two functions of a `GradientTransformation`.

    Raises:
        ValueError: another class or function already has the name.

    >>> @register
    ... def inverse_time(count):
    ...     return 0.1 / (1 + count)
    >>> import gradtx
    >>> gradtx.to_config(gradtx.scale_by_schedule(inverse_time))["step_size_fn"]
    {'function': 'inverse_time'}
    """
    if not callable(target):
        raise TypeError(f"register: expected a class or function, got {target!r}")
    name = target.__name__ if name is None else name
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError(f"register: expected a name, got {name!r} for {target!r}: register(f, 'mine.f')")
    known = _REGISTRY.setdefault(name, target)
    if _origin(known) != _origin(target):
        raise ValueError(
            f"the name {name!r} is taken by {'.'.join(_origin(known))}: rename {'.'.join(_origin(target))}, "
            f"or give another name (class {name}(..., name='mine.{name}'), register(f, 'mine.{name}'))"
        )
    _REGISTRY[name] = target  # a definition run again (a notebook cell, a reload) replaces its earlier self
    return target


def registry() -> Mapping[str, Any]:
    """A new dict of every registered class and function by name, in sorted order.

    >>> "adam" in registry()
    True
    """
    return dict(sorted(_REGISTRY.items()))


def declare_state(state: type, reported: Mapping[str, str]) -> None:
    """Declare that a class is that of a transformation's state, so that tools for states look into its instances.

    `reported` are those of its fields that `gradtx.metrics` reports, with the names of the metrics.
    """
    _STATES[state] = {**_STATES.get(state, {}), **reported}


def is_declared_state(cls: type) -> bool:
    """Whether a class was declared to be that of a transformation's state."""
    return cls in _STATES


def reported_by(cls: type) -> Mapping[str, str]:
    """The fields of a state that `gradtx.metrics` reports, with the names of the metrics.

    The states of optax have the names and the fields of ours: one that is not declared is looked up by its name.
    """
    if cls in _STATES:
        return _STATES[cls]
    return next((reported for known, reported in _STATES.items() if known.__name__ == cls.__name__), {})


def lookup(name: str, where: str) -> Any:
    """What is registered under a name.

    Raises:
        ValueError: nothing is registered under it; the message suggests the closest name that there is.
    """
    if name not in _REGISTRY:
        hint = did_you_mean(repr(name), map(repr, _REGISTRY), "{}? If not, ")
        raise ValueError(
            f"{where}: nothing is registered under {name!r}; {hint}import the module that defines it first, "
            "or see gradtx.registry() for the names there are"
        )
    return _REGISTRY[name]


def name_of_function(function: Any) -> str | None:
    """The name under which a function was registered, or `None`."""
    return next((name for name, known in _REGISTRY.items() if known is function), None)


def _origin(target: Any) -> tuple[str, str]:
    """Where a class or function was defined: its module and its name there."""
    return target.__module__, target.__qualname__


def closest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that is most like `name`, or `None` if none is close; for names that are equal `likeness` is 1."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, likeness)), None)


def did_you_mean(name: str, known: Iterable[str], form: str = "{}?") -> str:
    """`did you mean adam?` for `adm`, and the empty string if no known name is close."""
    close = closest(name, known)
    return "did you mean " + form.format(close) if close else ""
