"""What the files look like: imports run downwards, public names are sorted, complete, documented; import is light."""

import ast
import functools
import graphlib
import importlib.metadata
import inspect
import itertools
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

import gradtx
import gradtx.keras
from gradtx.core.spec import Spec

PACKAGE = pathlib.Path(gradtx.__file__).parent
FLOORS = [
    {"core"},
    {"assignment", "linear_algebra", "masks", "perturbations", "projections"},
    {"schedules", "states"},
    {"transforms"},
    {"wrappers"},
    {"optimizers"},
    {"interop"},
]
"The rooms from the ground up: a module imports its own floor and those below."
ROOF = len(FLOORS)
"Files outside the rooms, such as `gradtx.tree`, may import all rooms. The facade may import these files, too."
ASIDE = {"losses"}
"Rooms that import the core alone, and that no other room imports."
FLOOR = {room: floor for floor, rooms in enumerate([*FLOORS, set(), {"keras"}]) for room in rooms}
NAMESPACES = ("gradtx.losses", "gradtx.schedules", "gradtx.transforms")
"Packages that are public namespaces."
TENSORFLOW = ("gradtx.keras.tf1", "gradtx.keras.tf1.contrib")
"Packages whose modules are reached by TensorFlow's paths, `tf.train` and `tf.contrib.opt`."
OPTIONAL = ("chex", "flax", "h5py", "keras", "matplotlib", "optax", "orbax", "safetensors", "scipy", "sklearn", "tqdm")


@functools.cache
def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {name: path for name, path in MODULES.items() if path.name != "__init__.py"}
every_module = pytest.mark.parametrize("module", ROOMS)


def room_of(module: str) -> str:
    return module.split(".")[1]


def floor_of(module: str) -> int:
    return FLOOR.get(room_of(module), ROOF)


def imports(nodes: Any) -> set[str]:
    """The modules that these statements import: of `from a import b` it is `a.b` where that is one of ours."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in below}
    return found


def imports_of(module: str) -> set[str]:
    """All that a module imports, in functions too."""
    return imports(ast.walk(parse(MODULES[module])))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "gradtx"}


# Imports.


@every_module
def test_imports_run_downwards(module):
    for imported in ours(imports_of(module)):
        assert imported in ROOMS, f"{module} imports {imported}: import the module that defines what it needs"
        if room_of(module) in ASIDE or room_of(imported) in ASIDE:
            assert room_of(imported) in {"core", room_of(module)}, f"{module} imports {imported}"
        else:
            assert floor_of(imported) <= floor_of(module), f"{module} imports {imported}"


def test_imports_have_no_cycle():
    graph = {module: ours(imports_of(module)) for module in ROOMS}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # or CycleError, which names the modules


@every_module
def test_what_is_imported_from_elsewhere(module):
    """At the top of a file jax, numpy and the standard library; what is optional, in the function that uses it."""
    names = imports_of(module) if room_of(module) == "core" else imports(parse(MODULES[module]).body)
    roots = {name.split(".")[0] for name in names - ours(names)}
    allowed = {"jax", "numpy"} | ({"keras"} if room_of(module) == "keras" else set())
    assert roots <= allowed | sys.stdlib_module_names


# Bounds.


BOUNDED = {"Choice", "Integer", "OrInfinity", "OwnSchedule", "Real"}
"Kinds that are made of bounds or words. core/hyperparams.py gives a name to each kind that it makes of them."


@every_module
def test_bounds_stand_in_one_file(module):
    """Elsewhere they are used by name, and words are a `Literal`. The facade may have bounds that only Keras has."""
    if module == "gradtx.core.hyperparams" or room_of(module) == "keras":
        return
    annotations = [node.annotation for node in ast.walk(parse(MODULES[module])) if isinstance(node, ast.AnnAssign)]
    aliases = [node.value for node in parse(MODULES[module]).body if isinstance(node, ast.Assign)]
    made = {
        str(getattr(node.func, "id", ""))
        for tree in [*annotations, *aliases]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }
    assert not made & BOUNDED, f"{module}: give the bounds a name in core/hyperparams.py"


# Public names.


def exported(module: str) -> list[str]:
    """`__all__`, as it is written."""
    for node in parse(MODULES[module]).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{module} has no __all__")


def starred() -> list[str]:
    """The modules whose names `gradtx` exports."""
    nodes = [node for node in parse(PACKAGE / "__init__.py").body if isinstance(node, ast.ImportFrom)]
    return [str(node.module) for node in nodes if node.names[0].name == "*"]


def sort_key(name: str) -> tuple[Any, ...]:
    """As ruff sorts `__all__`: constants, classes, the rest; numbers in names by their value."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@every_module
def test_public_names_are_sorted(module):
    names = exported(module)
    assert names == sorted(set(names), key=sort_key)
    assert not [name for name in names if name.startswith("_")]
    assert not [name for name in names if not hasattr(importlib.import_module(module), name)]


@every_module
def test_public_names_are_complete(module):
    """What has no underscore is in `__all__`, is used by another of our files, or is a kind of hyper-parameter."""
    nodes = [node for node in parse(MODULES[module]).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    public = {node.name for node in nodes if not node.name.startswith("_")}
    kinds = {name for name in public if hasattr(getattr(importlib.import_module(module), name), "convert")}
    elsewhere = set[str]().union(*(names_used(other) for other in ROOMS if other != module))
    hidden = public - {*exported(module)} - elsewhere - (kinds | {"Kind"})
    assert not hidden, f"{module}: {', '.join(sorted(hidden))}: add it to __all__, or an underscore"


@functools.cache
def names_used(module: str) -> set[str]:
    """Names that a module imports, and names behind a dot."""
    nodes = list(ast.walk(parse(MODULES[module])))
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return imported | {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_the_package_is_a_list_of_modules():
    """One line a module, sorted, besides the few lines that say what is public."""
    lines = [node for node in parse(PACKAGE / "__init__.py").body if isinstance(node, ast.ImportFrom)]
    assert [ast.unparse(line) for line in lines] == [
        "from gradtx import assignment, authoring, microbatching, perturbations, projections, second_order, tree",
        *sorted([*(f"from {module} import *" for module in starred()), "from gradtx.core.namespaces import absence"]),
    ]
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module not in ("gradtx", "gradtx.keras", *NAMESPACES, *TENSORFLOW):
            assert path.read_text() == "", f"{module} has code: the package lists all names"


@pytest.mark.parametrize("room", ["schedules", "transforms"])
def test_a_public_room_has_the_names_of_all_its_modules(room):
    names = {name for module in ROOMS if module.startswith(f"gradtx.{room}.") for name in exported(module)}
    assert names <= vars(getattr(gradtx, room)).keys()


def test_completion_shows_what_users_use():
    """Completion hides the rooms of the package, the classes of states, and what only authors need."""
    assert {*dir(gradtx)} == {*gradtx.__all__, "keras", "losses", "__version__"}
    assert {"adam", "chain", "ema", "GradientTransformation", "keras", "metrics", "tree"} <= {*dir(gradtx)}
    internal = {"Container", "LeafRule", "Leafwise", "Spec", "ScaleByAdamState", "core", "inject_factory", "lookup"}
    assert not internal & {*dir(gradtx)}
    modules = {name for name in gradtx.__all__ if inspect.ismodule(getattr(gradtx, name))}
    assert modules == {
        "assignment",
        "authoring",
        "microbatching",
        "perturbations",
        "projections",
        "second_order",
        "tree",
    }
    assert gradtx.keras.Adam(lr=0.1).lr == pytest.approx(0.1)
    with pytest.raises(AttributeError, match="module 'gradtx' has no attribute 'adm'"):
        gradtx.adm  # noqa: B018


def test_the_version_is_that_of_the_package():
    assert gradtx.__version__ == importlib.metadata.version("gradtx")


def test_no_name_is_exported_twice():
    by_module = [(module, name) for module in starred() for name in exported(module)]
    names = [name for _, name in by_module]
    assert not [(module, name) for module, name in by_module if names.count(name) > 1]


def is_of_a_module_of_ours(thing: Any) -> bool:
    """Whether it is defined in one of our modules, rather than in an example of a docstring there."""
    return thing.__module__.startswith("gradtx.") and thing.__qualname__ in vars(sys.modules[thing.__module__])


def test_what_is_registered_is_public():
    """By its own name, so that its repr evaluates; the class of a pair of functions has the name of its base."""
    things = {name: thing for name, thing in gradtx.registry().items() if is_of_a_module_of_ours(thing)}
    facade = {name: things.pop(name) for name in list(things) if name.startswith("keras.")}
    projections = {name: things.pop(name) for name in list(things) if name.startswith("projections.")}
    assert {
        f"projections.{name}": getattr(gradtx.projections, name) for name in exported("gradtx.projections")
    } == projections
    known = vars(gradtx.keras) | vars(gradtx.keras.schedules)
    assert {name: known.get(name.removeprefix("keras.")) for name in facade} == facade
    pair = things.pop("GradientTransformation")
    assert issubclass(pair, gradtx.GradientTransformation)
    assert {name: vars(gradtx).get(name) for name in things} == things


# Documentation.


def public() -> dict[str, Any]:
    return {name: getattr(gradtx, name) for module in starred() for name in exported(module)}


def strings_after(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The names assigned or annotated in `body` that a string follows."""
    pairs = itertools.pairwise(body)
    return {_target(a): a for a, b in pairs if _target(a) and isinstance(b, ast.Expr) and _is_string(b.value)}


def _target(node: ast.stmt) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return getattr(target, "id", "")


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value.strip())


@every_module
def test_modules_are_documented(module):
    assert ast.get_docstring(parse(MODULES[module]))


@pytest.mark.parametrize("name", sorted(public()))
def test_public_names_are_documented(name):
    """Classes and functions have docstrings, constants a string beneath, and methods at least inherit a docstring."""
    thing = public()[name]
    if not callable(thing) or (inspect.isclass(thing) and thing.__name__ != name):  # a constant, or another name
        modules = [module for module in starred() if name in exported(module)]
        assert name in strings_after(parse(MODULES[modules[0]]).body)
        return
    assert (vars(thing)["__doc__"] if inspect.isclass(thing) else thing.__doc__) not in (None, "")
    if inspect.isclass(thing):
        kinds = property, functools.cached_property, classmethod, staticmethod
        methods = [k for k, v in vars(thing).items() if inspect.isfunction(v) or isinstance(v, kinds)]
        documented = {key for cls in thing.__mro__ for key, value in vars(cls).items() if value.__doc__}
        undocumented = [key for key in methods if not key.startswith("_") and key not in documented]
        assert not undocumented, f"{name}: {', '.join(undocumented)}"


@every_module
def test_fields_are_documented(module):
    """Fields have a string beneath them, or a default that is a field of another class, whose string they share."""
    for node in (node for node in parse(MODULES[module]).body if isinstance(node, ast.ClassDef)):
        cls = vars(importlib.import_module(module))[node.name]
        if node.name in exported(module) and issubclass(cls, Spec | tuple):
            documented = strings_after(node.body)
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and not _target(f).startswith("_")]
            missing = [_target(f) for f in fields if _target(f) not in documented and not _refers(f)]
            assert not missing, f"{module}.{node.name}: {', '.join(missing)}"


def _refers(field: ast.AnnAssign) -> bool:
    """Whether the default is another class's: `b1: Decay = scale_by_adam.b1`."""
    return isinstance(field.value, ast.Attribute) and isinstance(field.value.value, ast.Name | ast.Attribute)


# Importing.


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_does_no_work_and_loads_nothing_optional():
    program = f"""
import sys, jax
before = set(sys.modules)
import gradtx
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded & {set(OPTIONAL)!r}), [n for n in sys.modules if n.startswith(("gradtx.keras", "gradtx.losses"))])
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), len(jax.live_arrays()))
"""
    assert run(program) == "[] []\nFalse 0\n"


def test_import_loads_our_modules_and_what_jax_has_loaded():
    """Importing costs what is loaded: at most ten modules besides our own, without the facade and the losses."""
    program = """
import sys, jax.numpy
before = set(sys.modules)
import gradtx
print(*sorted(set(sys.modules) - before), sep="\\n")
"""
    loaded = run(program).split()
    foreign = [name for name in loaded if name.split(".")[0] != "gradtx"]
    assert {*loaded} - {*foreign} <= {
        name.removesuffix(".__init__") for name in MODULES if room_of(f"{name}.") not in {"keras", *ASIDE}
    }
    assert len(foreign) <= 10
