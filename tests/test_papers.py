"""What gradtx computes beside transcriptions of the papers in float64: eight steps, number by number."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import papers
import pytest
from papers.noise import Draws

STEPS = 8


def start() -> papers.Arrays:
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=shape) for name, shape in {"bias": (3,), "kernel": (4, 3), "scale": ()}.items()}


def gradients(spoilt: tuple[int, ...], axes: tuple[int, ...] = ()) -> list[papers.Arrays]:
    """Gradients of sizes from 0.1 to 10, with exact zeros, a zero bias in step 5, and a NaN if they are spoilt.

    `axes` come before those of the parameters.
    """
    rng, steps = np.random.default_rng(6), []
    for step in range(STEPS):
        grads = {name: 10 ** rng.uniform(-1, 1) * rng.normal(size=(*axes, *x.shape)) for name, x in start().items()}
        grads["kernel"][0] = 0
        grads["bias"] *= step != 5
        if step in spoilt:
            grads["bias"][1] = np.nan
        steps.append(grads)
    return steps


LOSSES = np.linspace(2.0, 1.0, STEPS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", papers.all_cases())
def test_transformation(name: str):
    """Parameters, and what is read from the state, after every step."""
    case = papers.all_cases()[name]
    theirs, ours = start(), jax.tree.map(jnp.asarray, start())
    update = jax.jit(functools.partial(case.tx.update, **case.extra))
    transcription, state = case.make(), case.tx.init(ours)
    for step, grads in enumerate(gradients(case.spoilt, case.axes)):
        loss = {"value": LOSSES[step]} if "value" in case.tx.extras.required else {}
        theirs = papers.each(np.add, theirs, transcription(grads, theirs, **loss))
        updates, state = update(jax.tree.map(jnp.asarray, grads), state, ours, **loss)
        ours = jax.tree.map(jnp.add, ours, updates)
        assert_close(ours, theirs, case.tolerance, f"parameters after step {step}")
        for attribute, found in case.read.items():
            want = getattr(transcription, attribute)
            assert_close(found(state), want, case.tolerance, f"{attribute} after step {step}")


def assert_close(ours: Any, theirs: Any, tolerance: float, where: str) -> None:
    for (path, got), want in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        atol = tolerance * np.max(np.abs(want), initial=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=f"{where} {jax.tree_util.keystr(path)}")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", papers.all_schedules())
def test_schedule(name: str):
    """A schedule has the values of its transcription at the steps 0 to 60."""
    schedule, formula = papers.all_schedules()[name]
    steps = np.arange(61)
    assert_close(jax.vmap(schedule)(jnp.asarray(steps)), formula(steps), papers.TOLERANCE, name)


def test_noise_is_standard_normal():
    """In each of two steps, mean, variance and kurtosis of 65,536 numbers are right within four standard errors."""
    draws, n = Draws(1), 2**16
    first, second = (draws({"x": np.zeros(n)})["x"] for _ in range(2))
    for x in (first, second):
        assert abs(np.mean(x)) < 4 / np.sqrt(n)
        assert abs(np.mean(x**2) - 1) < 4 * np.sqrt(2 / n)
        assert abs(np.mean(x**4) - 3) < 4 * np.sqrt(96 / n)
    assert abs(np.mean(first * second)) < 4 / np.sqrt(n)
