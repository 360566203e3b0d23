"""Every public name of optax leads to an object of gradtx, one for all of its paths, or the page says why not."""

import pathlib
import re
import runpy

import optax_suite
import pytest

import gradtx

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "coming-from-optax.md").read_text(encoding="utf-8")
names = runpy.run_path(str(DOCS / "names.py"))
SPELLINGS = {
    f"{space}.{name}".lstrip("."): (space, name) for space, own in names["optax_names"]().items() for name in own
}


def absent() -> set[str]:
    """The names that the page lists as not there."""
    (section,) = re.findall(r"### Not there\n(.*?)\n#", PAGE, re.DOTALL)
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([\w.]+)`", " ".join(first_cells)))


def test_every_name_is_here_or_said_to_be_absent():
    missing = {spelling for spelling, (space, name) in SPELLINGS.items() if names["ours"](space, name) is None}
    assert {spelling.split(".")[-1] for spelling in missing if not spelling.startswith("experimental.")} == {
        name for name in absent() if not name.startswith("experimental.")
    }


def test_an_object_is_the_same_at_all_its_paths():
    """But `gradtx.scale` is a transformation, and `gradtx.tree.scale` is a function of trees."""
    for space, name in SPELLINGS.values():
        at_the_top = getattr(gradtx, name, None)
        if space != "tree" and at_the_top is not None:
            assert names["ours"](space, name) is at_the_top


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (lambda: gradtx.adm, "module 'gradtx' has no attribute 'adm': did you mean adam?"),
        (lambda: gradtx.LookaheadParams, "no attribute 'LookaheadParams': the parameters of lookahead"),
        (lambda: gradtx.contrib.adam, "module 'gradtx.contrib' has no attribute 'adam'; it is gradtx.adam"),
        (lambda: gradtx.schedules.adam, "module 'gradtx.schedules' has no attribute 'adam'; it is gradtx.adam"),
        (lambda: gradtx.transforms.nothing, "module 'gradtx.transforms' has no attribute 'nothing'$"),
    ],
)  # fmt: skip
def test_a_missing_name_says_where_it_is(look_up, message):
    with pytest.raises(AttributeError, match=message):
        look_up()


def test_the_page_has_the_whole_table():
    assert names["with_optax_names"](PAGE) == PAGE, "`make format` writes the table"


def test_the_page_names_the_differences_that_make_tests_of_optax_fail():
    """`make test-optax` checks them and their numbers."""
    assert optax_suite.counts_on_the_page().keys() == optax_suite.differences().keys()
