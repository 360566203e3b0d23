"""Write the reference: one page per room of the library, from what its modules make public.

Docstrings are Markdown already (equations are indented); what is added here is the signature, the table of
hyper-parameters with the sentences that stand beneath the fields, and fences around the examples.
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

from gradtx.core.documentation import field_meanings
from gradtx.core.spec import Spec
from gradtx.keras.engine.describe import argument_meanings
from gradtx.keras.engine.table import Table

ROOMS = {
    "optimizers": "Optimizers",
    "transforms": "Transformations",
    "wrappers": "Wrappers",
    "schedules": "Schedules",
    "masks": "Masks and labels",
    "core": "Core",
    "states": "States",
    "interop": "Interoperation",
    "losses": "Losses",
    "keras": "Keras",
    "tools": "Trees, projections, linear algebra, and what authors need",
}
TOOLS = (
    "gradtx.tree",
    "gradtx.projections",
    "gradtx.linear_algebra",
    "gradtx.assignment",
    "gradtx.perturbations",
    "gradtx.microbatching",
    "gradtx.second_order",
    "gradtx.authoring",
)  # modules that are files rather than rooms


def write_reference(folder: Path) -> None:
    """Write `folder`/ROOM.md for every room, each module a section, each public name an entry."""
    folder.mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        (folder / f"{room}.md").write_text(f"# {title}\n\n{about(room)}" + "\n".join(map(section, modules(room))))


def about(room: str) -> str:
    """What the docstring of a room's package says of all its modules."""
    doc = "" if room == "tools" else inspect.getdoc(importlib.import_module(f"gradtx.{room}"))
    return f"{markdown(doc)}\n\n" if doc else ""


def modules(room: str) -> list[Any]:
    """The modules of a room, by name."""
    if room == "tools":
        return [importlib.import_module(name) for name in TOOLS]
    package = importlib.import_module(f"gradtx.{room}")
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    every = [importlib.import_module(info.name) for info in sorted(found, key=lambda info: info.name) if not info.ispkg]
    return [module for module in every if getattr(module, "__all__", True)]


def section(module: Any) -> str:
    """A module: its docstring, and the classes and functions that it makes public."""
    public = {name: getattr(module, name) for name in getattr(module, "__all__", [])}
    ours = {name: item for name, item in public.items() if getattr(item, "__module__", "").startswith("gradtx")}
    entries = [entry(name, item) for name, item in ours.items() if callable(item)]
    return f"## {module.__name__}\n\n{inspect.getdoc(module)}\n\n" + "\n".join(entries)


def entry(name: str, item: Any) -> str:
    """A class or function: its signature, docstring, and table of hyper-parameters."""
    does = re.split(r"\n\n(?:Arguments|Hyper-parameters):\n", inspect.getdoc(item) or "")[0]  # which are in the table
    parts = [f"### {name}", signature(name, item), markdown(does)]
    if inspect.isclass(item) and is_declared(item):
        parts.append(table(item))
    return "\n\n".join(parts) + "\n"


def is_declared(cls: type) -> bool:
    """Whether the constructor follows from the class's fields."""
    return (issubclass(cls, Table) and bool(cls.fields())) or (
        issubclass(cls, Spec) and "__dataclass_fields__" in vars(cls)
    )


def signature(name: str, item: Any) -> str:
    """How it is called, without annotations."""
    try:
        parameters = [p.replace(annotation=p.empty) for p in inspect.signature(item).parameters.values()]
    except ValueError:
        return ""
    return f"```python\n{name}{inspect.Signature(parameters)}\n```"


def markdown(docstring: str) -> str:
    """Fence the examples; the rest is Markdown as it stands."""
    return re.sub(r"^(>>> (?:.+\n?)+)", lambda match: f"```pycon\n{match[1].rstrip()}\n```\n", docstring, flags=re.M)


def table(cls: type[Spec] | type[Table]) -> str:
    """The hyper-parameters: name, default, kind, and the sentence beneath the field."""
    rows = [
        f"| `{name}` | {default(parameter)} | {kind(cls, name)} | {documentation(cls, name)} |"
        for name, parameter in inspect.signature(cls).parameters.items()
    ]
    return "| hyper-parameter | default | kind | |\n| --- | --- | --- | --- |\n" + "\n".join(rows) if rows else ""


def documentation(cls: type[Spec] | type[Table], name: str) -> str:
    """The sentence beneath a field."""
    if issubclass(cls, Table):
        return argument_meanings(cls).get("learning_rate" if name == "lr" else name, "")
    return field_meanings(cls).get(name, "")


def default(parameter: inspect.Parameter) -> str:
    """A default as it would be written."""
    return "" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def kind(cls: type[Spec] | type[Table], name: str) -> str:
    """The interval of a number, the words of a choice, the kind of anything else."""
    found = cls.fields()[name].kind if issubclass(cls, Table) else cls.field_kinds().get(name)
    found = getattr(found, "kind", found)
    return getattr(found, "interval", None) or ", ".join(getattr(found, "options", ())) or type(found).__name__
