"""Runs optax's own tests with gradtx in optax's place: `make test-optax`. They are read from the installed package.

`import optax` in a test gives gradtx, and a private module such as `optax._src.alias` gives the names that gradtx has.
What a test may not use is anything of the real optax, except for its helpers for tests. Each test that fails must be
listed in `optax_suite.toml` under the difference that makes it fail, and docs/coming-from-optax.md names each of these.

    python tests/optax_suite.py               all tests, and the comparison with the list
    python tests/optax_suite.py FILE -k NAME  some of them, with tracebacks
    python tests/optax_suite.py --peer        all tests with the real optax
"""

import fnmatch
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import tomllib
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "coming-from-optax.md"
LIST = pathlib.Path(__file__).with_suffix(".toml")
ANNOTATIONS = {"ArrayLike", "ArrayTree", "Numeric", "PRNGKey", "Shape"}
"Names of optax's private modules that its tests use in annotations alone."
HELPERS = {"optax._src.test_utils", "optax._src.alias_test"}
"Modules of optax that are part of its tests, rather than tested."


def optax_folder() -> pathlib.Path:
    """Where optax is installed."""
    spec = importlib.util.find_spec("optax")
    assert spec is not None
    assert spec.origin is not None
    return pathlib.Path(spec.origin).parent


# gradtx in optax's place.


def stand_in(folder: pathlib.Path) -> None:
    """Let every import of optax, and of its private modules, give gradtx."""
    import gradtx

    namespaces = sorted(path.name for path in folder.iterdir() if (path / "__init__.py").exists())
    public = {"optax": gradtx} | {f"optax.{name}": _namespace(gradtx, name) for name in namespaces}
    sys.modules.update(public)
    tests = [path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"]
    for path in tests:
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        if name in HELPERS or not name.endswith("_test"):
            parent, _, own = name.rpartition(".")
            module = _Helper(name, path) if name in HELPERS else _PrivateModule(name, public.get(parent, gradtx))
            sys.modules[name] = module
            setattr(sys.modules.setdefault(parent, _PrivateModule(parent, gradtx)), own, module)


def _namespace(gradtx: types.ModuleType, name: str) -> types.ModuleType:
    """The module of that name, or an empty one where gradtx has none."""
    try:
        return importlib.import_module(f"gradtx.{name}")
    except ModuleNotFoundError:
        return types.ModuleType(f"gradtx.{name}")


class _PrivateModule(types.ModuleType):
    """The names of gradtx that optax has in one of its private modules."""

    def __init__(self, name: str, public: types.ModuleType) -> None:
        super().__init__(name)
        self.public = public

    def __getattr__(self, name: str) -> Any:
        import gradtx

        if name in ANNOTATIONS:
            return Any
        if name == "x64_precision":  # a context for tests
            return jax.enable_x64
        for module in (self.public, gradtx, gradtx.authoring):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"gradtx has no {name}, which is in optax's {self.__name__}")


class _Helper(types.ModuleType):
    """A module of optax's tests, loaded when it is first used."""

    def __init__(self, name: str, path: pathlib.Path) -> None:
        super().__init__(name)
        self.path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "loaded" not in self.__dict__:
            self.loaded = load(self.__name__, self.path)
        return getattr(self.loaded, name)


def load(name: str, path: pathlib.Path) -> types.ModuleType:
    """Run a file as a module of this name, without importing the package that it is in."""
    spec = importlib.util.spec_from_file_location(f"{name} (read by gradtx)", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# As a plugin of pytest.


class TestsOfOptax(pytest.Module):
    """A file of tests, loaded with gradtx in optax's place."""

    def _getobj(self) -> types.ModuleType:
        return load(self.path.stem, self.path)


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--peer"):
        stand_in(optax_folder())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peer", action="store_true", help="use the real optax")


def pytest_pycollect_makemodule(module_path: pathlib.Path, parent: pytest.Collector) -> pytest.Module | None:
    if parent.config.getoption("--peer"):
        return None
    return TestsOfOptax.from_parent(parent, path=module_path)


# The comparison with the list.


class Outcomes:
    """What came of each test."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed or report.when == "call" or report.skipped:
            before = self.by_test.get(report.nodeid, "passed")
            self.by_test[report.nodeid] = before if before == "failed" else report.outcome

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.by_test[report.nodeid] = "failed"


def differences() -> dict[str, list[str]]:
    """By name of a deliberate difference, patterns of the tests that fail because of it."""
    return {entry["name"]: entry["tests"] for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["difference"]}


def counts_on_the_page() -> dict[str, int]:
    """By name of a difference, how many tests the page says that it makes fail."""
    section = PAGE.read_text(encoding="utf-8").split("\n## optax's own tests\n")[1].split("\n## ")[0]
    return {name: int(count) for name, count in re.findall(r"^\| ([^|]+) \| (\d+) \|", section, re.MULTILINE)}


def disagreements(by_test: Mapping[str, str]) -> list[str]:
    """What the list or the page says that is not so, and what they do not say."""
    wrong = []
    failed = {test for test, outcome in by_test.items() if outcome == "failed"}
    listed = set()
    on_the_page = counts_on_the_page()
    for name, patterns in differences().items():
        before = len(listed)
        for pattern in patterns:
            matched = {test for test in by_test if fnmatch.fnmatchcase(test, pattern.replace("[", "[[]"))}
            listed |= matched
            if not matched:
                wrong.append(f"{name}: there is no test {pattern}")
            wrong += [f"{name}: passes: {test}" for test in sorted(matched - failed)]
        if len(listed) - before != on_the_page.get(name):
            wrong.append(f"{name}: {len(listed) - before} tests, on the page {on_the_page.get(name)}")
    return wrong + [f"not listed: {test}" for test in sorted(failed - listed)]


def main(arguments: Sequence[str]) -> int:
    """Run the tests; without arguments, compare what fails with the list."""
    folder = optax_folder()
    some = [argument for argument in arguments if argument != "--peer"]
    files = [argument for argument in some if argument.endswith("_test.py")]
    options = ["--peer"] if "--peer" in arguments else []
    options += ["-c", os.devnull, "--rootdir", str(folder.parent), "-o", "python_files=*_test.py"]
    options += ["-p", "optax_suite", "-p", "no:cacheprovider", "--import-mode=importlib", "-q", "-W", "ignore"]
    options += [] if some else ["-n", "auto", "--tb=no"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(LIST.parent), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(LIST.parent))
    given = [str(folder / argument) if argument in files else argument for argument in some]
    outcomes = Outcomes()
    pytest.main([*options, *given, *([] if files else [str(folder)])], plugins=[outcomes])
    print(dict(Counter(outcomes.by_test.values())))
    if some or options[0] == "--peer":
        return 0
    wrong = disagreements(outcomes.by_test)
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
