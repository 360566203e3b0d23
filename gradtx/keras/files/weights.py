"""The weights of an optimizer to a file, and from one: whose file it is, and all of it or nothing."""

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from gradtx.core.tree import Tree
from gradtx.keras.engine.variable import unique
from gradtx.keras.files.saved import SavedOptimizer, read_optimizer, write_optimizer

__all__ = ["load", "save"]


def save(opt: Any, path: str | os.PathLike[str], overwrite: bool) -> None:
    """Write what an optimizer remembers in the layout of its generation.

    Raises:
        FileExistsError: the file is there, and `overwrite` is false.
    """
    names = unique([weight.name for weight in opt.weight_list()])
    config = {} if str(path).endswith(".weights.h5") else opt.get_config()  # which has no place for it
    name = getattr(opt, "name", None) or ""
    about = opt.dialect.generation, type(opt).__name__, config, tuple(names), tuple(opt.get_weights()), name
    write_optimizer(path, SavedOptimizer(*about), overwrite=overwrite)


def load(opt: Any, path: str | os.PathLike[str], params: Tree) -> None:
    """Let an optimizer go on from a file; `params` are what it is for, if it has not seen them yet.

    Raises:
        ValueError: the file is damaged, or another optimizer's; nothing is changed then.
    """
    saved = read_optimizer(path)
    _check(opt, path, saved)
    before = [(thing, dict(vars(thing))) for one in _with_parts(opt) for thing in (one, one.keeper)]
    try:
        if params is not None:
            opt.build(params)
        opt.set_weights(saved.weights)
    except BaseException:
        for thing, attributes in before:
            vars(thing).clear()
            vars(thing).update(attributes)
        raise


def _check(opt: Any, path: Any, saved: SavedOptimizer) -> None:
    own, cure = type(opt).__name__, "gradtx.keras.load_optimizer makes the optimizer that belongs to a file"
    if saved.class_name not in ("", own):
        raise ValueError(f"{path}: holds the weights of {saved.class_name}, this is {own}: {cure}")
    if other := _other_class(opt, saved.name):
        raise ValueError(f"{path}: holds the weights of an optimizer called {saved.name}: {other}, it seems")
    generation = opt.dialect.generation
    if "" not in (saved.generation, generation) and saved.generation != generation:
        raise ValueError(
            f"{path}: written by {saved.generation}, this is {generation}, whose weights are others: {cure}"
        )


def _with_parts(opt: Any) -> Iterator[Any]:
    """The optimizer, and those that it holds."""
    yield opt
    for part in opt.parts:
        yield from _with_parts(part)


def _other_class(opt: Any, name: str) -> str | None:
    """The other class that an optimizer of this name is, if one is called so: `adam_1` is an Adam."""
    plain = re.sub(r"_\d+$", "", name).replace("_", "").lower()
    beside = [item for item in vars(sys.modules[type(opt).__module__]).values() if isinstance(item, type)]
    called = {cls.__name__.lower(): cls for cls in beside if hasattr(cls, "weight_list")}
    own = {type(opt).__name__.lower(), str(getattr(opt, "name", "")).replace("_", "").lower()}
    return called[plain].__name__ if plain in called.keys() - own else None
