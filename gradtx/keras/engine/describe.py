"""What `help` and `inspect.signature` show of an optimizer class: read from its declaration, when it is asked for."""

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from gradtx.core.documentation import TypeName, constructor, declared_fields, kind_name
from gradtx.core.hyperparams import Boolean, Integer, Kind, Optional, Real

__all__ = ["argument_meanings", "documentation", "signature"]


def signature(cls: Any) -> inspect.Signature:
    """The arguments of a class as a person writes them, `(learning_rate: Rate = 0.01)`."""
    if not hasattr(cls.__init__, "takes_fields"):
        return constructor(cls)
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(name, keyword, default=default, annotation=TypeName(kind_name(kind, cls)))
            for name, (kind, default) in cls.fields().items()
        ]
    )


def documentation(cls: Any) -> str | None:
    """What a class does, then its arguments with meaning, bounds and default; of a user's, what the user wrote."""
    own = vars(cls).get("__doc__")
    if not cls.__module__.startswith("gradtx."):
        return own
    bases = sorted(cls.__mro__[1:-1], key=lambda base: base._abstract)  # first those that can be made
    text = own or next((text for base in bases if (text := vars(base).get("__doc__"))), None)
    if text is None or not hasattr(cls.__init__, "takes_fields"):
        return text
    meanings = argument_meanings(cls)
    lines = [
        textwrap.fill(
            f"{name}: {meanings.get(_declared(name), '')} {_bounds(field.kind)}; {_default(field.default)}.",
            width=100,
            initial_indent="    ",
            subsequent_indent="        ",
            break_on_hyphens=False,
        )
        for name, field in cls.fields().items()
    ]
    return "\n".join([inspect.cleandoc(text), "", "Arguments:", *lines])


def _declared(name: str) -> str:
    """The name of an argument where it is declared: whatever a generation calls it, the rate is `learning_rate`."""
    return "learning_rate" if name == "lr" else name


def argument_meanings(cls: Any) -> dict[str, str]:
    """The string beneath each field, in words of the nearest class that has some, by the name of its declaration."""
    owners = [owner for owner in reversed(cls.__mro__) if hasattr(owner, "fields")]
    return {name: meaning for owner in owners for name, meaning in _own_meanings(owner) if meaning}


def _own_meanings(owner: Any) -> Iterator[tuple[str, str]]:
    for name, meaning, default in declared_fields(owner):
        if not meaning and isinstance(default, ast.Call) and isinstance(default.func, ast.Attribute):
            other = _looked_up(owner, default.func.value)  # of Adam.default("beta_1")
            meaning = argument_meanings(other).get(_declared(ast.literal_eval(default.args[0])), "")
        yield name, meaning


def _looked_up(owner: Any, expression: ast.expr) -> Any:
    """The class that a dotted name stands for in the module of another."""
    if isinstance(expression, ast.Attribute):
        return getattr(_looked_up(owner, expression.value), expression.attr)
    return vars(sys.modules[owner.__module__])[typing.cast(ast.Name, expression).id]


def _bounds(kind: Kind) -> str:
    """What values an argument takes, in words."""
    if isinstance(kind, Optional):
        return f"{_bounds(kind.kind)}, or None"
    if isinstance(kind, Real):
        return f"In {kind.interval}"
    if isinstance(kind, Integer):
        return f"An integer of at least {kind.low}"
    if isinstance(kind, Boolean):
        return "True or False"
    return inspect.cleandoc(type(kind).__doc__ or "").partition("\n")[0].removesuffix(".")


def _default(default: Any) -> str:
    return "required" if default is inspect.Parameter.empty else f"{default!r} by default"
