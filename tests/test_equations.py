"""Equations in docstrings are mathematics: no formatter has capitalised their symbols or taken their indentation."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import gradtx

PACKAGE = Path(gradtx.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
EQUATION = re.compile(r"[←=≈√Σ·²ᵗ₁₂]| [+/−] ")
PROSE = re.compile(r"[a-z]{3,} [a-z]{2,}")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def documented(path):
    """Each class and function of a file with its docstring and the names that it takes or declares."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and (docstring := ast.get_docstring(node)):
            arguments = {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
            fields = {a.target.id for a in ast.walk(node) if isinstance(a, ast.AnnAssign) and hasattr(a.target, "id")}
            yield node.name, docstring, arguments | fields


def first_symbol(docstring):
    return re.match(r"[^\W_]+", docstring)


def misprints(docstring, names):
    """What a formatter would have done to a docstring's equations."""
    first = docstring.splitlines()[0]
    word = first_symbol(first)
    if word and EQUATION.search(first) and word[0][0].isupper():
        lowered = word[0].lower()
        if lowered in names - {word[0]}:
            yield f"{word[0]!r} is the argument {lowered!r}"
        if (
            len(word[0]) == 1
            and word[0] != "A"
            and re.search(rf"(?<!\w){lowered}(?!\w)", docstring)
            and docstring.count(word[0]) == 1
        ):
            yield f"{word[0]!r} begins an equation of {lowered!r}"
    for line in docstring.splitlines()[1:]:
        if re.match(r"[^\W\d]{1,2}[̂̄ᵢₜ₀₁₂]* (←|=) ", line) and not PROSE.search(line):
            yield f"the equation {line!r} is not indented"


@every_file
def test_equations_are_as_they_were_written(path):
    assert [
        (name, *misprints(text, names)) for name, text, names in documented(path) if [*misprints(text, names)]
    ] == []


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        ("V ← μ v − η g", set()),
        ("M / (1 − βᵗ): the mean freed of its start.", {"mean", "decay", "t", "m"}),
        ("Params + updates, rounded once.", {"params", "updates"}),
        ("Momentum.\n\nm ← β m + g", set()),
        ("A step.\n\nu = −η g\n", set()),
    ],
)
def test_a_rewritten_equation_is_noticed(docstring, names):
    assert [*misprints(docstring, names)]


LEAFWISE = {
    name: cls
    for name, cls in gradtx.registry().items()
    if isinstance(cls, type) and issubclass(cls, gradtx.authoring.Leafwise) and cls.__module__.startswith("gradtx.")
}


@pytest.mark.parametrize("name", LEAFWISE)
def test_a_formula_is_in_its_docstring(name):
    """With an update `u = ...`, and for what the state remembers an assignment `m ← ...` each."""
    cls = LEAFWISE[name]
    docstring = inspect.cleandoc(vars(cls)["__doc__"])
    equations = [line for line in docstring.splitlines() if line.startswith("    ") and not line.startswith("    >>>")]
    assert any(re.search(r"[=←]", line) for line in [docstring.splitlines()[0], *equations]), "no equation"
    remembered = [slot for slot in cls.slots if slot != "key"]
    assert not remembered or "←" in docstring or "ₜ₋₁" in docstring, f"how {', '.join(remembered)} change"
