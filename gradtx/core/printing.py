"""How a value prints: as the Python expression that makes it, on several lines where one is too short."""

import math
from typing import Any

import jax
import jax.core
import numpy as np

from gradtx.core.documentation import constructor
from gradtx.core.registry import name_of_function

__all__ = ["as_python"]

_WIDTH = 88


def as_python(value: Any, depth: int = 0) -> str:
    """The Python expression that makes `value`; `depth` is the number of levels by which it is indented."""
    if hasattr(type(value), "registered_name"):
        return _layout(type(value).__name__ + "(", _arguments(value, depth + 1), ")", depth)
    if isinstance(value, jax.core.Tracer):
        return f"<traced {value.aval.str_short()}>"
    if isinstance(value, jax.Array):
        return f"jnp.array({np.asarray(value).tolist()!r}, dtype={value.dtype.name!r})"
    if isinstance(value, np.dtype):
        return repr(value.name)
    if type(value) in (list, tuple):
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        return _layout(opening, [as_python(item, depth + 1) for item in value], closing, depth)
    if type(value) is dict:
        items = [f"{as_python(key, depth + 1)}: {as_python(item, depth + 1)}" for key, item in value.items()]
        return _layout("{", items, "}", depth)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if callable(value):
        registered = None if isinstance(value, type) else name_of_function(value)
        return registered or getattr(value, "__qualname__", repr(value))
    return repr(value)


def _arguments(spec: Any, depth: int) -> list[str]:
    """The arguments that make `spec`: required ones by position, others by name unless they have their default."""
    arguments: list[str] = []
    for name, parameter in constructor(type(spec)).parameters.items():
        value = getattr(spec, name)
        shown = getattr(spec.field_kinds()[name], "shown", lambda value: value)(value)
        if parameter.kind is parameter.VAR_POSITIONAL:
            arguments += [as_python(item, depth) for item in shown]
        elif parameter.default is parameter.empty:
            arguments.append(as_python(shown, depth))
        elif not _is_default(spec, name, value, parameter.default):
            arguments.append(f"{name}={as_python(shown, depth)}")
    return arguments


def _is_default(spec: Any, name: str, value: Any, default: Any) -> bool:
    if isinstance(value, jax.Array):
        return False
    return value is default or bool(value == spec.field_kinds()[name].convert(name, default))


def _layout(opening: str, items: list[str], closing: str, depth: int) -> str:
    """The items between brackets: on one line if it is short enough, else on a line each."""
    line = opening + ", ".join(items) + closing
    if not items or ("\n" not in line and len(line) + 4 * depth <= _WIDTH):
        return line
    indent = "\n" + "    " * (depth + 1)
    return opening + "".join(f"{indent}{item}," for item in items) + "\n" + "    " * depth + closing.lstrip(",")
