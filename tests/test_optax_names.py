"""Every public name of optax leads to an object of gradtx, one for all of its paths, or the page says why not."""

import importlib
import inspect
import pathlib
import re

import optax
import optax.contrib
import pytest

import gradtx

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "coming-from-optax.md").read_text(encoding="utf-8")


def public(module):
    return {name: thing for name, thing in vars(module).items() if not name.startswith("_")}


NAMESPACES = sorted({name for name, thing in public(optax).items() if inspect.ismodule(thing)} - {"experimental"})


def names_in(namespace: str) -> list[str]:
    """What optax has in a namespace: its modules, and what they only import, are not meant."""
    found = public(importlib.import_module(f"optax.{namespace}" if namespace else "optax"))
    return [name for name, thing in found.items() if not inspect.ismodule(thing)]


SPELLINGS = [(namespace, name) for namespace in ["", *NAMESPACES] for name in names_in(namespace)]


def absent() -> set[str]:
    """The names that the page lists as not there."""
    (section,) = re.findall(r"### Not there\n(.*?)\n#", PAGE, re.DOTALL)
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([\w.]+)`", " ".join(first_cells)))


def look_up(namespace: str, name: str):
    return getattr(importlib.import_module(f"gradtx.{namespace}") if namespace else gradtx, name, None)


def test_what_the_page_calls_absent_is_absent():
    there = {f"{namespace}.{name}".lstrip(".") for namespace, name in SPELLINGS if look_up(namespace, name) is not None}
    assert not absent() & there


@pytest.mark.parametrize(("namespace", "name"), SPELLINGS, ids=[".".join(s).lstrip(".") for s in SPELLINGS])
def test_a_name_of_optax_is_here(namespace, name):
    if f"{namespace}.{name}".lstrip(".") in absent() or name in absent():
        return
    ours = look_up(namespace, name)
    assert ours is not None
    at_the_top = getattr(gradtx, name, None)
    if at_the_top is not None and namespace != "tree":  # gradtx.scale is not gradtx.tree.scale
        assert ours is at_the_top
