"""Extra arguments of an update: which there are is read off the signatures, and the outermost call checks them."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gradtx.core.registry import closest

__all__ = ["STANDARD_EXTRAS", "Extras", "extras_of", "refuse_misspelt"]

STANDARD_EXTRAS = ("value", "grad", "value_fn", "obj_fn", "loss", "key")
"Extra arguments that many updates take, and none of which may be misspelt."


class Extras(NamedTuple):
    """Which extra arguments an update needs and which it knows."""

    required: frozenset[str] = frozenset()
    "The names without which an update is refused."
    known: frozenset[str] = frozenset()
    "The names that are passed on, the required ones among them."
    open: bool = False
    "Whether all other names are passed on, too."

    @classmethod
    def of(cls, function: Callable[..., Any], skip: int, context: frozenset[str] = frozenset()) -> "Extras":
        """Those of a function's signature: its parameters after the first `skip`, without the names in `context`."""
        parameters = list(inspect.signature(function).parameters.values())
        named = [p for p in parameters[skip:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = [p for p in named if p.name not in context]
        required = frozenset(p.name for p in named if p.default is p.empty)
        return cls(required, frozenset(p.name for p in named), any(p.kind is p.VAR_KEYWORD for p in parameters))

    @staticmethod
    def union(transformations: Any) -> "Extras":
        """All that several transformations need and know."""
        return functools.reduce(Extras.joined, map(extras_of, transformations), Extras())

    def joined(self, other: "Extras") -> "Extras":
        """What both need and know."""
        return Extras(self.required | other.required, self.known | other.known, self.open or other.open)

    def select(self, name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the given arguments that the transformation called `name` takes.

        Raises:
            TypeError: an argument that it needs is missing.
        """
        if missing := sorted(self.required - extra.keys()):
            given = ", ".join(f"{argument}=..." for argument in missing)
            raise TypeError(f"{name} needs the extra argument {', '.join(missing)}: update(..., params, {given})")
        return dict(extra) if self.open else {key: extra[key] for key in extra if key in self.known}


def extras_of(tx: Any) -> Extras:
    """The extra arguments that `tx.update` needs and knows; for foreign transformations, read off its signature."""
    declared = getattr(tx, "extras", None)
    return declared if isinstance(declared, Extras) else Extras.of(tx.update, skip=3)


def refuse_misspelt(name: str, extras: Extras, extra: Mapping[str, Any]) -> None:
    """Refuse extra arguments that nothing in the transformation called `name` takes and that resemble one of those.

    Others are ignored: programs hand all that they know to whatever transformation they are given.
    """
    if extras.open or not extra:
        return
    known = {*extras.known, *STANDARD_EXTRAS}
    for argument in extra.keys() - known:
        if meant := closest(argument, known, 0.75):
            raise TypeError(f"{name}: nothing here takes the extra argument {argument!r}; did you mean {meant}?")
