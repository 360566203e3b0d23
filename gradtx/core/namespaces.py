"""Namespaces: modules that have names of the package's top besides their own, and say where a missing name is."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gradtx.core.registry import did_you_mean

__all__ = ["absence", "from_the_top"]


def from_the_top(module: str, names: Sequence[str] = ()) -> Callable[[str], Any]:
    """The `__getattr__` of a module that has these names of `gradtx`, though some come from rooms above its own.

    Of another name it says where it is.
    """

    def find(name: str) -> Any:
        top = importlib.import_module("gradtx")
        if name in names:
            return getattr(top, name)
        hint = f"; it is gradtx.{name}" if not name.startswith("_") and hasattr(top, name) else ""
        raise AttributeError(f"module {module!r} has no attribute {name!r}{hint}", name=name)

    return find


ABSENT = {
    "LookaheadParams": "the parameters of lookahead are plain; eval_params(state, params) returns the slow ones",
    "experimental": "what it has is not in gradtx",
}
"What optax has and gradtx has not, and what to do instead."


def absence(name: str, known: Iterable[str]) -> str:
    """The end of the message for a name that is not at the top of gradtx."""
    hint = ABSENT.get(name, "") or did_you_mean(name, known)
    return f": {hint}" if hint else ""
