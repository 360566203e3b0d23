"""Assignment beside scipy, and perturbed functions beside what they estimate and beside optax."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.perturbations
import pytest
import scipy.optimize

from gradtx import assignment, perturbations

rng = np.random.default_rng(0)


class TestAssignment:
    @pytest.mark.parametrize("shape", [(1, 5), (4, 4), (7, 3), (12, 12)])
    def test_beside_scipy(self, shape, x64):
        """Many matrices of a shape: with ties, with negative costs, of very different sizes."""
        few = rng.integers(-3, 4, (40, *shape)).astype(float)
        costs = np.concatenate([rng.normal(size=(40, *shape)), few, 10 ** rng.uniform(-6, 6, (40, *shape))])
        rows, columns = jax.jit(jax.vmap(assignment.hungarian_algorithm))(jnp.asarray(costs))
        for cost, i, j in zip(costs, np.asarray(rows), np.asarray(columns), strict=True):
            want_i, want_j = scipy.optimize.linear_sum_assignment(cost)
            assert i.tolist() == sorted(set(i.tolist()))
            assert len(set(j.tolist())) == min(shape)
            np.testing.assert_allclose(cost[i, j].sum(), cost[want_i, want_j].sum(), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
    def test_nothing_to_assign(self, shape):
        chex.assert_trees_all_equal(assignment.hungarian_algorithm(jnp.zeros(shape)), (jnp.zeros(0, int),) * 2)

    def test_dtypes(self):
        for dtype in ("bfloat16", "float32", "int32", "uint8"):
            rows, columns = assignment.hungarian_algorithm(jnp.array([[5, 1], [1, 9]], dtype))
            assert rows.dtype == columns.dtype == jnp.int32
            assert columns.tolist() == [1, 0]

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"hungarian_algorithm: expected a matrix of costs, got float32\[2\]"):
            assignment.hungarian_algorithm(jnp.ones(2))
        for bad in (jnp.nan, jnp.inf):
            with pytest.raises(ValueError, match="hungarian_algorithm: costs must be finite"):
                assignment.hungarian_algorithm(jnp.array([[1.0, bad]]))
        with pytest.raises(TypeError, match="hungarian_algorithm: expected real numbers"):
            assignment.hungarian_algorithm(jnp.ones((2, 2), bool))

    def test_not_a_number_ends(self):
        """Under `jit` nothing can be refused; it comes to an end nevertheless."""
        rows, _ = jax.jit(assignment.hungarian_algorithm)(jnp.full((3, 3), jnp.nan))
        assert rows.shape == (3,)


X = {"a": jnp.array([0.3, -0.2]), "b": jnp.array([[0.5]])}


def smooth(x):
    return {"y": jnp.sum(x["a"] ** 2) * jnp.cos(x["b"][0, 0]), "z": x["b"]}


class TestPerturbations:
    @pytest.mark.parametrize(("noise", "use_baseline"), [("Gumbel", True), ("Normal", False)])
    def test_beside_optax(self, noise, use_baseline):
        """The same draws, and so the same estimates and derivatives, to rounding."""

        def run(module):
            f = module.make_perturbed_fun(smooth, 50, 0.5, getattr(module, noise)(), use_baseline)
            return jax.jit(lambda key: (f(key, X), jax.jacrev(f, 1)(key, X)))(jax.random.key(1))

        ours = run(perturbations)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = run(optax.perturbations)
        chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_argmax_becomes_softmax(self):
        """Of 200,000 draws, within five standard errors, those of the derivative measured as 0.006."""
        x = jnp.array([0.3, -0.4, 0.1])
        argmax = lambda x: jax.nn.one_hot(jnp.argmax(x), 3)  # noqa: E731
        soft = perturbations.make_perturbed_fun(argmax, 200_000, sigma=0.5)
        value, slope = jax.jit(lambda k, x: (soft(k, x), jax.jacrev(soft, 1)(k, x)))(jax.random.key(0), x)
        np.testing.assert_allclose(value, jax.nn.softmax(x / 0.5), atol=5 * 0.5 / 200_000**0.5)
        np.testing.assert_allclose(slope, jax.jacrev(lambda x: jax.nn.softmax(x / 0.5))(x), atol=0.03)

    def test_second_derivative(self):
        """Of Σ x² / 2 it is the identity."""
        f = perturbations.make_perturbed_fun(lambda x: 0.5 * jnp.sum(x * x), 100_000, 1.0, perturbations.Normal())
        hessian = jax.jit(jax.hessian(f, 1))(jax.random.key(0), jnp.zeros(2))
        np.testing.assert_allclose(hessian, np.eye(2), atol=0.05)

    def test_dtypes_and_trees(self):
        x = {"h": jnp.ones(3, jnp.bfloat16), "none": None}
        f = perturbations.make_perturbed_fun(lambda x: (x["h"] > 0).astype(jnp.bfloat16), 10)
        assert f(jax.random.key(0), x).dtype == jnp.bfloat16
        assert jax.grad(lambda x: f(jax.random.key(0), x).sum())(x)["h"].dtype == jnp.bfloat16
        counts = perturbations.make_perturbed_fun(jnp.argmax, 10)(jax.random.key(0), jnp.array([0.0, 9.0]))
        assert (counts.dtype, float(counts)) == (jnp.float32, 1.0)

    def test_bad_input(self):
        make = functools.partial(perturbations.make_perturbed_fun, jnp.sum)
        with pytest.raises(ValueError, match="make_perturbed_fun: num_samples must be an int of at least 1, got 0"):
            make(0)
        with pytest.raises(ValueError, match=r"make_perturbed_fun: sigma must be positive, got 0\.0"):
            make(sigma=0.0)
        with pytest.raises(TypeError, match="make_perturbed_fun: fun must be a function"):
            perturbations.make_perturbed_fun(3)
        with pytest.raises(TypeError, match=r"make_perturbed_fun: x\['a'\]: expected a floating-point array"):
            make()(jax.random.key(0), {"a": jnp.arange(2)})
