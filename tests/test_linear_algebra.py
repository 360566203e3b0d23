"""Norms with a floor, eigenvalues, roots, least squares, clipping by example: beside NumPy, scipy and optax."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats
from jax.test_util import check_grads

import gradtx as gx

rng = np.random.default_rng(0)


def lenient(f):
    """`f` under the promotion that optax needs."""

    @functools.wraps(f)
    def run(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return f(*args, **kwargs)

    return run


@jax.jit
def norms_of(x):
    return (
        gx.safe_norm(x, 0.0),
        gx.safe_norm(x, 0.0, axis=1),
        jax.grad(gx.safe_norm)(x, 0.0),
        gx.safe_root_mean_squares(x, 0.0),
    )


class TestSafeNorm:
    @pytest.mark.parametrize(
        ("ord", "axis"), [(None, None), (2, 1), (1, 0), (np.inf, 1), (-np.inf, 0), (1.5, 1), (0, 0)]
    )
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_beside_numpy(self, ord, axis, keepdims, x64):
        x = jnp.asarray(rng.normal(size=(4, 3)))
        want = np.linalg.norm(np.asarray(x), ord, axis, keepdims)
        for floor in (0.0, 1.25):
            got = jax.jit(gx.safe_norm, static_argnums=(2, 3, 4))(x, floor, ord, axis, keepdims)
            np.testing.assert_allclose(got, np.maximum(want, floor), rtol=1e-14)

    @pytest.mark.parametrize("ord", ["fro", "nuc", -2, np.inf])
    def test_norms_of_matrices(self, ord, x64):
        x = rng.normal(size=(4, 3))
        np.testing.assert_allclose(gx.safe_norm(jnp.asarray(x), 0.0, ord), np.linalg.norm(x, ord), rtol=1e-13)
        slope = jax.jit(jax.grad(lambda x: gx.safe_norm(x, 0.0, ord)))(jnp.zeros((4, 3)))
        np.testing.assert_array_equal(slope, 0)

    def test_derivatives(self, x64):
        x = jnp.asarray(rng.normal(size=(4, 3)))
        check_grads(jax.jit(lambda x: gx.safe_norm(x, 0.0)), (x,), order=1, modes=("fwd", "rev"))
        check_grads(jax.jit(lambda x: gx.safe_norm(x, 0.0, 1.5, axis=1)), (x,), order=1, modes=("rev",))
        check_grads(jax.jit(lambda x: gx.safe_root_mean_squares(x, 0.0)), (x,), order=1, modes=("fwd", "rev"))
        for f in (gx.safe_norm, gx.safe_root_mean_squares):
            slopes = jax.jit(jax.grad(f, argnums=(0, 1)))
            for floor in (0.0, 3.0):
                np.testing.assert_array_equal(slopes(jnp.zeros(3), floor)[0], 0)
            assert slopes(jnp.ones(3), 9.0)[1] == 1

    @pytest.mark.parametrize("size", [1e30, 1e-30])
    def test_squares_out_of_range(self, size):
        x = jnp.full((2, 2), size, jnp.float32)
        whole, rows, slope, rms = norms_of(x)
        np.testing.assert_allclose(whole, 2 * size, rtol=1e-6)
        np.testing.assert_allclose(rows, [2**0.5 * size] * 2, rtol=1e-6)
        np.testing.assert_allclose(slope, np.full((2, 2), 0.5), rtol=1e-6)
        np.testing.assert_allclose(rms, size, rtol=1e-6)

    def test_dtypes(self):
        half = jnp.full(4096, 256, jnp.float16)  # squares are infinite in half precision
        for f in (gx.safe_norm, gx.safe_root_mean_squares):
            assert jax.eval_shape(f, half, 0.0).dtype == jnp.float16
            assert jax.eval_shape(f, jnp.array([3, 4]), 0.0).dtype == jnp.float32
            assert jax.eval_shape(f, jnp.array([3j, 4.0 + 0j]), 0.0).dtype == jnp.float32
        assert jax.jit(gx.safe_norm)(half, 0.0) == 16384
        assert jax.jit(gx.safe_root_mean_squares)(half, 0.0) == 256
        assert gx.safe_root_mean_squares(jnp.zeros(0), 0.5) == 0.5

    def test_bad_floors(self):
        for f, name in ((gx.safe_norm, "min_norm"), (gx.safe_root_mean_squares, "min_rms")):
            with pytest.raises(ValueError, match=f"{f.__name__}: {name} must be at least 0, got -1"):
                f(jnp.ones(2), -1.0)
            with pytest.raises(TypeError, match=f"{f.__name__}: {name} must be a real scalar"):
                f(jnp.ones(2), jnp.ones(2))


def symmetric(n, eigenvalues):
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return basis @ np.diag(eigenvalues) @ basis.T


class TestPowerIteration:
    @pytest.mark.parametrize("eigenvalues", [[5, 2, 1, -1], [-5, 2, 1, 0], [1e30, 1e29, 0, 0]])
    def test_beside_numpy(self, eigenvalues, x64):
        matrix = symmetric(4, eigenvalues)
        value, vector = jax.jit(functools.partial(gx.power_iteration, error_tolerance=1e-9))(jnp.asarray(matrix))
        np.testing.assert_allclose(value, eigenvalues[0], rtol=1e-12)
        np.testing.assert_allclose(matrix @ vector, eigenvalues[0] * vector, atol=1e-8 * abs(eigenvalues[0]))

    def test_on_trees(self):
        """The Hessian of a function of a tree, in half precision for one leaf."""
        v0 = {"a": jnp.ones(3), "b": jnp.ones(2, jnp.bfloat16)}
        value, vector = jax.jit(lambda v0: gx.power_iteration(lambda v: {"a": -7 * v["a"], "b": 2 * v["b"]}, v0=v0))(v0)
        np.testing.assert_allclose(value, -7, rtol=1e-5)
        chex.assert_trees_all_equal_dtypes(vector, v0)
        np.testing.assert_allclose(jnp.abs(vector["a"]), 3**-0.5, rtol=1e-5)

    def test_beginnings_and_ends(self):
        value, vector = jax.jit(gx.power_iteration)(jnp.zeros((3, 3)))
        assert value == 0
        assert jnp.linalg.norm(vector) == pytest.approx(1)
        matrix = jnp.asarray(symmetric(6, [3, 2.9, 1, 1, 1, 1]), jnp.float32)
        largest = jax.jit(lambda n, key: gx.power_iteration(matrix, num_iters=n, key=key)[0])
        few = largest(1, jax.random.key(0))
        assert abs(largest(1000, jax.random.key(0)) - 3) < 1e-5 < abs(few - 3)
        assert largest(1, jax.random.key(1)) != few
        batch = jax.jit(jax.vmap(lambda m: gx.power_iteration(m)[0]))(jnp.stack([jnp.eye(2), 2 * jnp.eye(2)]))
        np.testing.assert_allclose(batch, [1, 2], rtol=1e-6)

    def test_beside_optax(self):
        matrix = jnp.asarray(symmetric(5, [3, 2, 1, 1, 1]), jnp.float32)
        theirs = lenient(jax.jit(optax.power_iteration))(matrix)
        ours = jax.jit(gx.power_iteration)(matrix)
        chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"power_iteration: a function does not tell .* give v0"):
            gx.power_iteration(lambda v: v)
        with pytest.raises(ValueError, match=r"power_iteration: matrix must be square, .* got float32\[2,3\]"):
            gx.power_iteration(jnp.ones((2, 3)))
        with pytest.raises(TypeError, match="power_iteration: matrix: expected a floating-point array"):
            gx.power_iteration(jnp.eye(2, dtype=int))


class TestInverseRoot:
    @pytest.mark.parametrize("p", [1, 4, 7])
    def test_beside_eigenvalues(self, p, x64):
        """Every p, not only the powers of two."""
        eigenvalues = np.array([1e3, 10.0, 1.0, 1e-2])
        matrix = symmetric(4, eigenvalues)
        solve = functools.partial(gx.matrix_inverse_pth_root, p=p, ridge_epsilon=0.0, error_tolerance=1e-11)
        root, error = jax.jit(solve)(jnp.asarray(matrix))
        assert error < 1e-11
        np.testing.assert_allclose(np.linalg.matrix_power(np.asarray(root), p) @ matrix, np.eye(4), atol=1e-8)

    def test_beside_optax(self):
        matrix = jnp.asarray(symmetric(6, [9, 3, 1, 0.5, 0.1, 0.1]), jnp.float32)
        ours, error = jax.jit(lambda m: gx.matrix_inverse_pth_root(m, 4))(matrix)
        theirs, _ = lenient(jax.jit(lambda m: optax.matrix_inverse_pth_root(m, 4)))(matrix)
        assert error < 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)

    def test_corners(self):
        root, _ = jax.jit(gx.matrix_inverse_pth_root, static_argnums=1)(jnp.full((1, 1), 16.0, jnp.bfloat16), 4)
        assert (root.dtype, float(root[0, 0])) == (jnp.bfloat16, 0.5)
        batch = jax.jit(jax.vmap(lambda a: gx.matrix_inverse_pth_root(a, 4)))
        roots, errors = batch(jnp.stack([jnp.eye(3), 16 * jnp.eye(3), jnp.zeros((3, 3)), jnp.ones((3, 3))]))
        np.testing.assert_allclose(roots[:2], np.stack([np.eye(3), np.eye(3) / 2]), rtol=1e-5, atol=1e-6)
        assert np.isfinite(roots).all()  # of singular ones, too, where the ridge decides
        assert (errors < 1e-2).all()

    def test_bad_input(self):
        with pytest.raises(TypeError, match="matrix_inverse_pth_root: p must be a Python int, got the Python float"):
            gx.matrix_inverse_pth_root(jnp.eye(2), 2.0)
        with pytest.raises(ValueError, match="matrix_inverse_pth_root: p must be at least 1, got 0"):
            gx.matrix_inverse_pth_root(jnp.eye(2), 0)
        with pytest.raises(ValueError, match="matrix_inverse_pth_root: matrix must be square"):
            gx.matrix_inverse_pth_root(jnp.ones(2), 2)


class TestNnls:
    def test_beside_scipy(self, x64):
        for m, n in ((8, 5), (5, 5)):
            matrix, target = rng.normal(size=(m, n)), rng.normal(size=(m, 3))
            want = np.stack([scipy.optimize.nnls(matrix, b)[0] for b in target.T], 1)
            solve = jax.jit(functools.partial(gx.nnls, iters=20_000))
            np.testing.assert_allclose(solve(matrix, target), want, atol=1e-8)
            np.testing.assert_allclose(solve(matrix, target[:, 0]), want[:, 0], atol=1e-8)

    def test_beside_optax(self, x64):
        matrix, target = rng.normal(size=(6, 4)), rng.normal(size=6)
        for extra in ({}, {"L": 40.0}):
            theirs = lenient(optax.nnls)(jnp.asarray(matrix), jnp.asarray(target), 30, **extra)
            np.testing.assert_allclose(gx.nnls(matrix, target, 30, **extra), theirs, rtol=1e-12, atol=1e-14)

    def test_half_precision_and_zeros(self):
        x = gx.nnls(jnp.ones((3, 2), jnp.bfloat16), jnp.ones(3, jnp.bfloat16), 50)
        assert x.dtype == jnp.bfloat16
        np.testing.assert_array_equal(gx.nnls(jnp.zeros((3, 2)), jnp.ones(3), 5), 0)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"nnls: expected .* got float32\[3,2\] and float32\[2\]"):
            gx.nnls(jnp.ones((3, 2)), jnp.ones(2), 5)
        with pytest.raises(ValueError, match="nnls: L must be positive"):
            gx.nnls(jnp.ones((3, 2)), jnp.ones(3), 5, L=0.0)
        with pytest.raises(TypeError, match="nnls: b: expected real numbers"):
            gx.nnls(jnp.ones((3, 2)), jnp.ones(3, complex), 5)


class TestScaleGradient:
    @pytest.mark.parametrize("scale", [0.0, 1.0, -2.5])
    def test_derivatives(self, scale):
        x = {"a": jnp.array([1.0, 2.0]), "n": 3}

        def f(a, scale):
            tree = gx.scale_gradient(x | {"a": a}, scale)
            return jnp.sum(tree["a"] ** 2) * tree["n"]

        assert f(x["a"], scale) == 15
        for run in (f, jax.jit(f)):
            np.testing.assert_allclose(jax.grad(run)(x["a"], scale), scale * 6 * x["a"])
        _, forward = jax.jvp(lambda a: f(a, scale), (x["a"],), (jnp.array([1.0, 0.0]),))
        assert forward == scale * 6
        assert jax.grad(f, argnums=1)(x["a"], jnp.asarray(scale)) == 0

    def test_half_precision_and_stop(self):
        slope = jax.grad(lambda x: gx.scale_gradient(x, 0.5).sum())(jnp.ones(2, jnp.bfloat16))
        assert slope.dtype == jnp.bfloat16
        assert jax.grad(lambda x: jnp.log(gx.scale_gradient(x, 0)))(0.0) == 0
        with pytest.raises(TypeError, match="scale_gradient: scale must be a real scalar"):
            gx.scale_gradient(jnp.ones(2), jnp.ones(2))


class TestMultiNormal:
    def test_beside_scipy_and_optax(self, x64):
        loc, log_scale = rng.normal(size=(2, 3)), rng.normal(size=3)
        x = rng.normal(size=(4, 2, 3))
        ours = gx.multi_normal(jnp.asarray(loc), jnp.asarray(log_scale))
        want = scipy.stats.norm.logpdf(x, loc, np.exp(log_scale)).sum((1, 2))
        np.testing.assert_allclose(ours.log_prob(x), want, rtol=1e-13)
        theirs = optax.multi_normal(jnp.asarray(loc), jnp.asarray(log_scale))
        key = jax.random.key(3)
        np.testing.assert_allclose(ours.sample((5,), key), lenient(theirs.sample)((5,), key), rtol=1e-13)
        chex.assert_trees_all_equal(ours.params, theirs.params)
        np.testing.assert_array_equal(ours.log_scale, log_scale)

    def test_derivative_of_a_sample(self):
        def draw(loc, log_scale):
            return jnp.sum(gx.multi_normal(loc, log_scale).sample((), jax.random.key(0)))

        check_grads(draw, (jnp.zeros(3), jnp.zeros(3)), order=1, modes=("rev",), rtol=1e-2)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"multi_normal: expected the last axes \(3,\), got float32\[1\]"):
            gx.multi_normal(jnp.zeros(3), jnp.zeros(3)).log_prob(jnp.zeros(1))
        with pytest.raises(TypeError, match="multi_normal: loc must be real numbers"):
            gx.multi_normal(1j, 0.0)


BATCH = {"w": rng.normal(size=(6, 3, 2)), "b": rng.normal(size=(6,)), "e": np.zeros((6, 0))}
GRADS = {name: jnp.asarray(x, jnp.float32) for name, x in BATCH.items()}


class TestPerExample:
    @pytest.mark.parametrize("bound", [0.0, 1.0, 2.5, np.inf])
    def test_by_the_global_norm(self, bound):
        norms = np.sqrt(sum((BATCH[name].reshape(6, -1) ** 2).sum(1) for name in BATCH))
        factors = np.minimum(1, bound / norms)
        sums, clipped = jax.jit(gx.per_example_global_norm_clip)(GRADS, bound)
        assert (int(clipped), clipped.dtype) == (int((norms > bound).sum()), jnp.int32)
        want = {name: np.tensordot(factors, x, 1) for name, x in BATCH.items()}
        chex.assert_trees_all_close(sums, want, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("uniform", [True, False])
    def test_by_layers_beside_optax(self, uniform):
        grads = {name: x for name, x in GRADS.items() if x.size}
        ours = jax.jit(lambda g: gx.per_example_layer_norm_clip(g, 1.5, uniform))(grads)
        theirs = lenient(jax.jit(lambda g: optax.per_example_layer_norm_clip(g, 1.5, uniform)))(grads)
        chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_corners(self):
        """Zeros, numbers whose squares overflow, half precision, integers, what is not finite, and no leaf at all."""
        clip = jax.jit(functools.partial(gx.per_example_global_norm_clip, l2_norm_clip=1.0))
        sums, clipped = clip([jnp.array([[0.0, 0.0], [3e30, 4e30]])])
        np.testing.assert_allclose(sums[0], [0.6, 0.8], rtol=1e-6)
        assert clipped == 1
        many = jnp.full((4096, 1), 0.25, jnp.bfloat16)
        assert clip(many)[0] == jnp.array([1024], jnp.bfloat16)
        sums, _ = jax.eval_shape(clip, jnp.array([[3, 4]]))
        assert sums.dtype == jnp.float32
        for bad in (jnp.nan, jnp.inf):
            assert np.isnan(clip(jnp.array([[bad], [1.0]]))[0]).all()
        assert gx.per_example_global_norm_clip({}, 1.0) == ({}, 0)
        assert gx.per_example_layer_norm_clip({}, 1.0) == ({}, {})

    @pytest.mark.parametrize("f", [gx.per_example_global_norm_clip, gx.per_example_layer_norm_clip])
    def test_bad_input(self, f):
        where = f.__name__
        with pytest.raises(ValueError, match=rf"{where}: grads\['b'\]: expected a first axis of .* of length 2"):
            f({"a": jnp.ones(2), "b": jnp.ones(3)}, 1.0)
        with pytest.raises(ValueError, match=rf"{where}: grads: expected a first axis of examples, got float32\[\]"):
            f(jnp.ones(()), 1.0)
        with pytest.raises(TypeError, match=rf"{where}: grads: expected an array of numbers, got the Python float"):
            f(1.0, 1.0)
        for bad in (-1.0, float("nan")):
            with pytest.raises(ValueError, match=rf"{where}: (global_)?l2_norm_clip must be at least 0"):
                f(jnp.ones((2, 2)), bad)


def test_the_sum_is_that_of_single_examples():
    """As `vmap` of `grad` gives them."""
    params, xs = {"w": jnp.array([1.0, -1.0])}, jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    grads = jax.jit(jax.vmap(jax.grad(lambda p, x: jnp.sum(p["w"] * x) ** 2), (None, 0)))(params, xs)
    clip = jax.jit(functools.partial(gx.per_example_global_norm_clip, l2_norm_clip=0.5))
    each = [clip({"w": grads["w"][i : i + 1]})[0]["w"] for i in range(3)]
    np.testing.assert_allclose(clip(grads)[0]["w"], np.sum(each, 0), rtol=1e-6)
