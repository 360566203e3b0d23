"""Products with Hessians and diagonals, beside `jax.hessian` and optax."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.second_order
import pytest
from jax.flatten_util import ravel_pytree

from gradtx import second_order
from gradtx.second_order import fisher_diag, hessian_diag, hvp

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2))


def params(dtype, width=24):
    """By default of 152 elements: more than one chunk of rows."""
    rng = np.random.default_rng(1)
    shapes = {"in": (3, width), "bias": (width,), "out": (width, 2), "scale": (4, 2)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def loss(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params["in"] + params["bias"][None])
    return jnp.mean((hidden @ params["out"] - targets) ** 2) + jnp.sum(params["scale"] ** 4)


@pytest.mark.usefixtures("x64")
def test_beside_the_hessian_of_jax():
    start = params(jnp.float64)
    flat, unravel = ravel_pytree(start)
    hessian = jax.jit(jax.hessian(lambda flat: loss(unravel(flat), X, Y)))(flat)
    v = jnp.asarray(RNG.normal(size=flat.size))
    for product in jax.jit(lambda v: (hvp(loss, v, start, X, Y), hvp(loss, unravel(v), start, X, Y)))(v):
        np.testing.assert_allclose(ravel_pytree(product)[0], hessian @ v, rtol=1e-12)
        assert jax.tree.structure(product) == jax.tree.structure(start)
    diagonal = jax.jit(lambda: hessian_diag(loss, start, X, Y))()
    np.testing.assert_allclose(diagonal, jnp.diagonal(hessian), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_beside_optax():
    start, x, y = params(jnp.float32, width=2), jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
    v = jnp.asarray(RNG.normal(size=20), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(lib):
        product, _ = ravel_pytree(lib.hvp(loss, v, start, x, y))
        return product, lib.hessian_diag(loss, start, x, y), lib.fisher_diag(loss, start, x, y)

    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = run(second_order), run(optax.second_order)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_one_leaf_and_leaves_of_several_dtypes():
    def cubes(p, x, y):
        return sum(jnp.sum(x.astype(jnp.float32) ** 3) for x in jax.tree.leaves(p))

    vector = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(hvp(cubes, vector, vector, None, None), 6 * vector * vector)
    mixed = [jnp.ones(2, jnp.bfloat16), jnp.full((), 2.0)]
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_array_equal(jax.jit(lambda: hessian_diag(cubes, mixed, None, None))(), [6, 6, 12])


def test_bad_input():
    start = params(jnp.float32)
    with pytest.raises(ValueError, match=r"hvp: v must have the 152 elements of the parameters, got float32\[3\]"):
        hvp(loss, jnp.ones(3), start, X, Y)
    with pytest.raises(ValueError, match=r"hvp: v\['bias'\]: expected float32\[24\] like the parameter"):
        hvp(loss, start | {"bias": jnp.ones(3)}, start, X, Y)
    for f in (hessian_diag, fisher_diag):
        with pytest.raises(
            TypeError, match=rf"{f.__name__}: params\['n'\]: expected a floating-point array, got int32"
        ):
            f(loss, start | {"n": jnp.arange(3)}, X, Y)
