"""`make bench` on trees so small that it takes seconds: what it writes, not how long anything takes."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import gradtx

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture(scope="module")
def bench():
    """The modules of `benchmarks`, beside the package; torch, Keras and matplotlib pass for not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        modules = {
            name: importlib.import_module(f"benchmarks.{name}")
            for name in ("cases", "peers", "report", "run", "sections")
        }
        patch.setattr(modules["peers"], "is_installed", lambda package: package == "optax")
        yield SimpleNamespace(**modules)


@pytest.fixture(scope="module")
def results(bench, tmp_path_factory):
    """What the command writes for two optimizers, in the promotion of dtypes that users have."""
    out = tmp_path_factory.mktemp("bench")
    trial = ["--scale", "1e-4", "--seconds", "0", "--out", str(out)]
    sizes = {"LEAVES": (30_000,), "SIZES": (10**8,)}
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        for name, value in sizes.items():
            patch.setattr(bench.sections, name, value)
        patch.setattr(bench.sections, "imports", lambda: {"gradtx": 0.1})  # which takes seconds
        bench.run.main([*trial, "--trees", "one", "many", "--cases", "adamw", "clip + adamw"])
    return out, json.loads((out / "results.json").read_text())


def test_a_row_says_what_was_counted_and_timed(results):
    rows = results[1]["steps"]
    keys = [(row["case"], row["leaves"], row["dtype"]) for row in rows]
    assert keys == [
        (name, leaves, dtype)
        for leaves in (1, 2)
        for dtype in ("float32", "bfloat16")
        for name in ("clip + adamw", "adamw")
    ]
    for row in rows:
        assert row["limit_seconds"] > 0
        needed = {"float32": 28, "bfloat16": 24}[row["dtype"]] + 4 * (row["case"] != "adamw")
        assert row["needed_bytes"] == pytest.approx(needed, abs=0.05), "and the counters"
        for library in ("gradtx", "optax"):
            found = row["libraries"][library]
            assert min(found[key] for key in ("seconds", "trace_lower_seconds", "compile_seconds")) > 0
            assert found["bytes_moved"] >= row["needed_bytes"] / 2
            assert found["temporary_bytes"] >= 0
        assert row["libraries"]["gradtx"]["programs"] == 1
        assert row["libraries"]["gradtx"]["state_bytes"] == pytest.approx(8, abs=0.02)


def test_a_step_of_optax_that_changes_its_types_needs_two_programs(results):
    halves = [row for row in results[1]["steps"] if row["dtype"] == "bfloat16"]
    assert [row["libraries"]["optax"]["programs"] for row in halves] == [2] * 4


def test_the_other_parts(results):
    _, found = results
    assert found["machine"]["platform"] == jax.default_backend()
    assert found["versions"].keys() >= {"jax", "optax", "gradtx", "python"}
    assert [row["leaves"] for row in found["leaves"]] == [3]
    assert [row["parameters"] for row in found["parameters"]] == [10_000]
    assert len(found["facade"]) == 3
    for row in found["eager"]:
        ours, theirs = row["libraries"]["gradtx"], row["libraries"]["optax"]
        assert 0 < ours["programs"] < theirs["programs"]
        assert ours.keys() >= {"jitted_seconds", "update_seconds", "update_and_apply_seconds"}
    assert found["peak_bytes"] > 10**8
    assert found["seconds"] > 0


def test_the_report_has_a_table_of_every_part(bench, results):
    report = (results[0] / "report.md").read_text()
    measured = {name for name, (part, _) in bench.report.TABLES.items() if part != "flags"}
    assert {line[3:] for line in report.splitlines() if line.startswith("## ")} == measured
    row = next(line for line in report.splitlines() if line.startswith("| clip + adamw |"))
    assert row.count("|") == 9, "case, limit, gradtx, optax, torch fused and foreach, Keras, ratio"
    assert row.count("–") == 3, "torch and Keras are not there"


def test_the_page_is_filled_where_the_platform_is_that_of_the_results(bench, results):
    filled = bench.report.filled(PAGE.read_text(), "cpu", bench.report.tables(results[1]))
    assert "| clip + adamw |" in filled.split("<!-- results cpu steps -->")[1].split("<!-- end -->")[0]
    assert bench.report.filled(filled, "cpu", bench.report.tables(results[1])) == filled

    def gpu_blocks(page):
        return [block.split("<!-- end -->")[0] for block in page.split("<!-- results gpu")[1:]]

    assert gpu_blocks(filled) == gpu_blocks(PAGE.read_text()) != []


def test_a_block_that_no_table_has_is_refused(bench):
    with pytest.raises(KeyError, match="no table or chart is called stpes"):
        bench.report.filled("<!-- results cpu stpes -->\n<!-- end -->\n", "cpu", {})


def test_every_optimizer_that_both_libraries_have_is_timed(bench):
    found = bench.cases.optimizers()
    assert {"adafactor", "adam", "lbfgs", "madgrad", "muon", "schedule_free_adamw"} <= found.keys()
    assert "tiger" not in found, "optax does not have it"
    assert {*bench.cases.CORE, *bench.cases.CORE_IN_HALF} <= bench.cases.all_cases().keys()


@pytest.mark.parametrize("name", ["adamw", "if_finite(adamw)", "accumulate(adamw, 4)", "params_ema(adamw)"])
def test_a_case_is_the_same_in_both_libraries(bench, name):
    case = bench.cases.all_cases()[name]
    ours = trained(gradtx, case.gradtx)
    with jax.numpy_dtype_promotion("standard"):
        theirs = trained(bench.cases.optax, case.optax)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


def trained(library: Any, tx: Any) -> Any:
    """The parameters after five steps."""
    params = [np.linspace(0.1, 1, 6, dtype=np.float32).reshape(3, 2), np.ones(2, np.float32)]
    state, step = tx.init(params), jax.jit(tx.update)
    for i in range(5):
        updates, state = step([np.cos(i + x) for x in params], state, params)
        params = library.apply_updates(params, updates)
    return params


def test_needed_bytes(bench):
    """Of an accumulation, three of four steps only add the gradient to its sum."""
    cases = bench.cases.all_cases()
    needed = {name: bench.sections.needed_bytes(cases[name], "float32", 8) for name in ("adam", "clip + adamw")}
    assert needed == {"adam": 28, "clip + adamw": 32}
    assert bench.sections.needed_bytes(cases["accumulate(adamw, 4)"], "float32", 12) == 12 + 24 / 4


def test_gpt2_fits_into_the_memory(bench):
    whole = bench.cases.TreeOfShapes("", bench.cases.gpt2_shapes(768))
    assert (len(whole.shapes), whole.size) == (148, 124_439_808)
    assert bench.cases.gpt2_width(1e12) == 768
    assert bench.cases.gpt2_width(6e9) == 384
