"""Write the lists that follow from the code: the README's of optimizers, and optax's names. `make format` runs this."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import gradtx

README = Path(__file__).parent.parent / "README.md"
OPTAX = Path(__file__).parent / "coming-from-optax.md"


def optimizers() -> list[str]:
    """The names of gradtx's own optimizers, sorted."""
    ours = {name: item for name, item in gradtx.registry().items() if item.__module__.startswith("gradtx.")}
    return sorted(name for name, item in ours.items() if isinstance(item, type) and issubclass(item, gradtx.Optimizer))


def with_names(readme: str) -> str:
    """The README with the names that the registry has now."""
    names = " ".join(f"`{name}`" for name in optimizers())
    return re.sub(r"^(\| optimizers \| )[^,]*(,.*)$", rf"\g<1>{names}\g<2>", readme, flags=re.MULTILINE)


def public(module: ModuleType) -> dict[str, object]:
    """What a module has under a name without an underscore."""
    return {name: thing for name, thing in sorted(vars(module).items()) if not name.startswith("_")}


def optax_names() -> dict[str, list[str]]:
    """optax's public names by namespace; its top is called the empty string."""
    top = public(importlib.import_module("optax"))
    spaces = ["", *(name for name, thing in top.items() if inspect.ismodule(thing))]
    found = {space: public(importlib.import_module(f"optax.{space}" if space else "optax")) for space in spaces}
    return {space: [name for name, thing in own.items() if not inspect.ismodule(thing)] for space, own in found.items()}


def ours(space: str, name: str) -> object:
    """What gradtx has under a name of optax, or `None`."""
    try:
        return getattr(importlib.import_module(f"gradtx.{space}") if space else gradtx, name, None)
    except ModuleNotFoundError:
        return None


def with_optax_names(page: str) -> str:
    """The page with the table of all names of optax that gradtx has."""
    rows = ["| in `optax` | in `gradtx` | names |", "| --- | --- | --- |"]
    for space, names in optax_names().items():
        there = " ".join(f"`{name}`" for name in names if ours(space, name) is not None)
        dotted = f".{space}" if space else ""
        rows += [f"| `optax{dotted}` | `gradtx{dotted}` | {there} |"] if there else []
    table = "\n".join(rows)
    return re.sub(r"(## All names\n\n.*?\n\n)\| in `optax`.*", lambda m: f"{m[1]}{table}\n", page, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(with_names(README.read_text()))
    OPTAX.write_text(with_optax_names(OPTAX.read_text()))
