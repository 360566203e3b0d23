"""The Python in the README and in the guides runs, block after block, each page in a namespace of its own."""

import re
from pathlib import Path

import jax
import pytest

import gradtx

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"docs.{page.stem}"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in blocks(page):
            exec(compile(block, str(page), "exec"), namespace)


def test_there_are_blocks_to_run():
    assert sum(len(blocks(page)) for page in PAGES) > 5


def test_the_readme_lists_every_optimizer():
    section = (ROOT / "README.md").read_text().split("## What there is")[1].split("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", section))
    optimizers = {name for name, item in gradtx.registry().items() if is_optimizer(item)}
    assert optimizers <= listed
    assert {name for name in listed if not hasattr(gradtx, name)} == set()


def is_optimizer(item):
    return isinstance(item, type) and issubclass(item, gradtx.Optimizer) and item.__module__.startswith("gradtx.")
