"""Every optimizer, wrapper and schedule beside the trajectories of its authors, number by number."""

import functools
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import cases, data, record
from golden.record import of_optax

import gradtx as gx

QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
    "xla_cpu_use_fusion_emitters": False,
}
"Compiler options: these programs are compiled once and run once, on a few hundred numbers."

FUNCTIONS = {
    "quad": lambda x, matrix, vector: 0.5 * x @ matrix @ x - vector @ x,
    "rosen": lambda x, matrix, vector: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
    "logcosh": lambda x, matrix, vector: jnp.sum(jnp.log(jnp.cosh(matrix @ x - vector))) + 0.05 * x @ x,
}


@pytest.mark.parametrize("case", [*cases.TRAJECTORIES, *cases.FUNCTIONS])
def test_run(case: str):
    """25 updates with the recorded gradients, or those of a function, give the recorded parameters."""
    tx = (cases.TRAJECTORIES | cases.FUNCTIONS)[case]
    for name, deviation in deviations(case, tx).items():
        assert_small(deviation, f"{name}, row by row")


def assert_small(deviation: np.ndarray, where: str) -> None:
    by_row = ", ".join(f"{worst:.3g}" for worst in deviation.reshape(len(deviation), -1).max(axis=1))
    assert np.all(deviation <= 1), f"{where}: largest deviations, in units of the tolerance: {by_row}"


def deviations(case: str, tx: Any) -> dict[str, np.ndarray]:
    """How far all that was recorded of a run is from that of a transformation, in units of the tolerance."""
    if case.startswith("functions:"):
        function = data.function(case)
        return {"x": np.abs(walk(tx, function, cases.UPDATES_BY_ROW.get(case, 1)) - function.recorded) / function.bound}
    golden = data.trajectory(case)
    ours = run(tx, golden)
    return {name: np.abs(ours[name] - golden.recorded[name]) / golden.bounds[name] for name in golden.recorded}


def run(tx: Any, golden: data.Trajectory) -> dict[str, np.ndarray]:
    """Rows like the recorded ones: the parameters, and what else is read from the state, after each recorded step."""

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def scan(params: Any, grads: Any, losses: Any) -> Any:
        def step(carry: Any, inputs: Any) -> Any:
            params, state = carry
            grad, loss = inputs
            updates, state = tx.update(grad, state, params, value=loss)
            params = gx.apply_updates(params, updates)
            return (params, state), {name: cases.READ[name](state, params) for name in golden.recorded}

        return jax.lax.scan(step, (params, tx.init(params)), (grads, losses))[1]

    params, grads = jax.tree.map(lambda x: x.astype(golden.dtype), (golden.params, golden.grads))
    every = scan(params, grads, golden.losses)
    return {name: rows(values, golden) for name, values in every.items()}


def rows(values: Any, golden: data.Trajectory) -> np.ndarray:
    """One row for each recorded step: the leaves in the order of the file, flattened."""
    leaves = [values[name] for name in golden.params] if isinstance(values, dict) else [values]
    at = golden.steps - 1
    whole = np.concatenate([np.asarray(x, np.float32).reshape(len(x), -1)[at] for x in leaves], axis=1)
    return whole[:, golden.columns]


def walk(tx: Any, golden: data.Function, updates_by_row: int) -> np.ndarray:
    """The vector after each recorded step of a method that evaluates the function itself."""

    def f(x: Any) -> Any:
        return FUNCTIONS[golden.kind](x, golden.matrix, golden.vector)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def scan(params: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            value, grad = jax.value_and_grad(f)(params)
            again = {"grad_fn": lambda params, i: jax.grad(f)(params)} if isinstance(tx, gx.sam) else {}
            updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=f, **again)
            params = gx.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, tx.init(params)), length=updates_by_row * len(golden.recorded))[1]

    return np.asarray(scan(golden.start))[updates_by_row - 1 :: updates_by_row]


@pytest.mark.parametrize("case", cases.SCHEDULES)
def test_schedule(case: str):
    """A schedule has the recorded values."""
    golden, bound = data.schedule(case)
    ours = np.asarray(jax.vmap(cases.SCHEDULES[case])(jnp.arange(len(golden))))
    assert_small(np.abs(ours - golden) / bound, "values by step")


@pytest.mark.parametrize("case", cases.PLATEAUS)
def test_plateau(case: str):
    """The rate at each step, given the metric of the steps before."""
    golden, bound = data.schedule(case)
    metric, _ = data.schedule(f"{case}::metric")
    tx = gx.chain(gx.scale(0.1), cases.PLATEAUS[case])

    def step(state: Any, value: Any) -> Any:
        updates, state = tx.update(jnp.ones(()), state, value=value)
        return state, updates

    _, after = jax.lax.scan(step, tx.init(jnp.ones(())), metric.astype(np.float32))
    ours = np.concatenate([[0.1], np.asarray(after)[:-1]])
    assert_small(np.abs(ours - golden) / bound, "rate by step")


@pytest.mark.parametrize("case", cases.FACTORS)
def test_orthogonal_factor(case: str):
    """The iteration of Newton and Schulz has the recorded results, of matrices of several shapes."""
    arrays, bound = data.contents(data.file_of(case)), data.bound(data.peers()[case])
    _, _, name = case.partition(":")
    for result, options in cases.FACTORS[case].items():
        for shape in ("4x3", "8x16", "12x12"):
            ours = gx.orthogonalize(jnp.asarray(arrays[f"{name}::G_{shape}"]), eps=1e-7, **options)
            assert_small(np.abs(ours - arrays[f"{name}::{result}_{shape}"]) / bound, f"{result} of {shape}")


# What is left out.


@functools.cache
def deviating() -> dict[str, Any]:
    """The transformation that comes nearest, of each case that is not reproduced although gradtx has the method."""
    return {case: nearest for group in cases.DEVIATING.values() for case, nearest in group.items()}


@functools.cache
def missing() -> dict[str, str]:
    """The method, of each case whose method gradtx does not have."""
    found = {}
    for method, text in cases.MISSING.items():
        source = ""
        for word in text.split():
            source, name = word.split(":") if ":" in word else (source, word)
            assert found.setdefault(f"{source}:{name}", method) == method, f"{word} stands under two methods"
    return found


@pytest.mark.parametrize("case", deviating())
def test_what_is_left_out_deviates(case: str):
    """If a case passes, it goes into the tables of what is reproduced: the reason given is no longer true."""
    assert max(deviation.max() for deviation in deviations(case, deviating()[case]).values()) > 1


def test_methods_left_out_are_missing():
    """The cases of a method that gradtx has are reproduced, or it is said of each why it deviates."""
    registered = {name.replace("_", "").removeprefix("scaleby") for name in gx.registry()}

    def is_known(method: str) -> bool:
        return hasattr(gx, method) or hasattr(gx, f"scale_by_{method}") or method.replace("_", "") in registered

    assert {method: ids for method, ids in cases.MISSING.items() if is_known(method)} == {}


def decisions() -> Counter[str]:
    schedules = [case for case in cases.SCHEDULES if "::" not in case]
    reproduced = [*cases.TRAJECTORIES, *cases.FUNCTIONS, *schedules, *cases.PLATEAUS, *cases.FACTORS]
    return Counter([*reproduced, *deviating(), *missing()])


def test_no_case_is_decided_twice():
    assert [case for case, times in decisions().items() if times > 1] == []


def test_every_case_named_is_recorded():
    assert sorted(decisions().keys() - data.recorded()) == []


@pytest.mark.parametrize("source", sorted({case["source"] for case in data.peers().values()}))
def test_every_case_recorded_is_decided(source: str):
    """It is reproduced, or a table says why not."""
    recorded = {case for case in data.peers() if case.startswith(f"{source}:")}
    assert sorted(recorded - decisions().keys()) == []


def test_peers_known_to_be_wrong_are_not_followed():
    wrong = {case for case, about in data.peers().items() if about.get("deviation", "").startswith("DO NOT MATCH")}
    assert wrong <= deviating().keys()


# The recorders.


@pytest.mark.parametrize("case", ["optax:signum_0_A", "schedules:optax_polynomial_schedule_0"])
def test_a_fresh_recording_is_the_stored_one(case: str):
    """What `python -m golden.record optax` does for all cases of optax, and other packages for theirs."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        arrays = of_optax.record(case)
    assert {name: far for name, x in arrays.items() if (far := record.deviation(case, name, x)) > 1} == {}
