"""Line searches where they are hard: steep functions, failures, and minima that are flat to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gx
from gradtx import tree

STEPS = 60
QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"Compiler options: these programs are compiled once and run once, on a few numbers."


def steep(x, height):
    return height * jnp.sum((x - 1) ** 2)


def descend(make, library, f, steps=STEPS):
    """The function's values and the evaluations of each step, from 0."""
    tx = make(library)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(x):
        def step(carry, _):
            x, state = carry
            value, grad = jax.value_and_grad(f)(x)
            updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
            x = x + updates
            return (x, state), (f(x), tree.get(state, "num_linesearch_steps"))

        return jax.lax.scan(step, (x, tx.init(x)), length=steps)[1]

    values, evaluations = run(jnp.zeros(8))
    return np.asarray(values), np.asarray(evaluations)


def backtracking(library):
    return library.chain(library.sgd(1.0), library.scale_by_backtracking_linesearch(15))


def zoom(library):
    return library.chain(library.sgd(1.0), library.scale_by_zoom_linesearch(20, initial_guess_strategy="keep"))


@pytest.mark.parametrize(("make", "height", "reached"), [(backtracking, 1e4, 1e-6), (zoom, 1e8, 1e-6)])
def test_a_search_that_found_no_step_goes_on_where_it_stopped(make, height, reached):
    """If the next search began anew, it would try the same step sizes for ever."""
    values, evaluations = descend(make, gx, functools.partial(steep, height=height))
    assert values[0] == 8 * height, "no step decreases in the first search"
    assert values[-1] < reached
    assert evaluations.max() == evaluations[0], "the first search is the longest"


def test_without_growth_a_failed_search_goes_on_too():
    tx = gx.chain(gx.sgd(1.0), gx.scale_by_backtracking_linesearch(1, increase_factor=None, decrease_factor=0.5))
    f, x = functools.partial(steep, height=4.0), jnp.zeros(2)
    state, tried = tx.init(x), []

    @jax.jit
    def step(x, state):
        value, grad = jax.value_and_grad(f)(x)
        updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
        return x + updates, state

    for _ in range(4):
        x, state = step(x, state)
        tried.append(float(state[-1].learning_rate))
    assert tried == [0.0, 0.0, 0.0, 0.125], "1, ½ and ¼ are too long"
    assert float(state[-1].restart) == 0.0, "the next search begins at the largest again"


@pytest.mark.parametrize(
    ("search", "first"), [(gx.scale_by_backtracking_linesearch(3), 0.1875), (gx.scale_by_zoom_linesearch(3), 0.125)]
)
def test_a_start_that_is_not_finite_leaves_the_step_size(search, first):
    """One bad batch says nothing about step sizes."""
    x, nan = jnp.ones(2), jnp.asarray(jnp.nan)
    state = search.init(x)._replace(learning_rate=jnp.asarray(0.125))
    updates, state = search.update(nan * x, state, x, value=nan, grad=nan * x, value_fn=jnp.sum)
    np.testing.assert_array_equal(updates, np.zeros(2))
    assert float(state.learning_rate) == 0.0
    assert float(state.restart) == first


@pytest.mark.parametrize("name", ["scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"])
def test_a_verbose_search_prints_if_it_fails(name, capfd):
    """Of a batch, those that fail."""
    x = jnp.full(2, 2.0)
    search = getattr(gx, name)(2, verbose=True)

    @jax.jit
    @jax.vmap
    def step(updates):
        value, grad = jax.value_and_grad(steep)(x, 1.0)
        return search.update(updates, search.init(x), x, value=value, grad=grad, value_fn=lambda x: steep(x, 1.0))

    jax.block_until_ready(step(jnp.array([[-1.0, -1.0], [1.0, 1.0]])))
    jax.effects_barrier()
    (printed,) = capfd.readouterr().out.splitlines()
    assert printed.startswith(
        f"{name}: no step size met the conditions. The search began at the value 2.0 with the slope"
    )
    assert " 4.0 along the updates" in printed
    assert "after 2 evaluations: decrease_error " in printed
    assert ("curvature_error" in printed) == ("zoom" in name)


def test_a_decrease_below_rounding_is_none():
    """f(θ + η u) = f(θ), across the minimum: c η ⟨∇f, u⟩ is lost in a sum with f(θ), and the step would pass."""
    values, _ = descend(backtracking, gx, lambda x: 1 + steep(x, 1.0))
    assert values[-1] == 1.0


def minimize(library):
    """L-BFGS to minima of quadratic functions whose rounding is larger than what is left to gain, and beyond."""
    rng = np.random.default_rng(0)
    roots, vectors = rng.normal(size=(64, 8, 8)), jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
    matrices = jnp.asarray(roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(8), jnp.float32)
    tx = library.lbfgs()

    def run(matrix, vector):
        def f(x):
            return 0.5 * x @ matrix @ x - vector @ x

        def step(carry, _):
            x, state = carry
            value, grad = jax.value_and_grad(f)(x)
            updates, state = tx.update(grad, state, x, value=value, grad=grad, value_fn=f)
            return (x + updates, state), tree.get(state, "num_linesearch_steps")

        (x, _), evaluations = jax.lax.scan(step, (jnp.zeros(8), tx.init(jnp.zeros(8))), length=100)
        return x, evaluations.sum()

    x, evaluations = jax.jit(jax.vmap(run), compiler_options=QUICKLY)(matrices, vectors)
    return distances(*(np.asarray(array, np.float64) for array in (matrices, vectors, x))), int(evaluations.sum())


def distances(matrices, vectors, x):
    """How far the values are above their minima, relative to these, in double precision."""
    least = np.linalg.solve(matrices, vectors[..., None])[..., 0]
    above = 0.5 * np.einsum("ki,kij,kj->k", x - least, matrices, x - least)
    return above / (0.5 * np.einsum("ki,ki->k", vectors, least))


def test_a_flat_minimum_costs_no_more_than_in_optax():
    """Where values are noise, the search goes by slopes, and accepts a point that satisfies both conditions."""
    (above, evaluations), (_, theirs) = minimize(gx), minimize(optax)
    assert evaluations <= theirs
    assert above.max() < np.finfo(np.float32).eps
