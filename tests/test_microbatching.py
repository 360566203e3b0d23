"""Functions evaluated by microbatches give what they give on the whole batch, in the memory of one microbatch."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.microbatching
import pytest
from helpers import shard_map
from jax.sharding import NamedSharding, PartitionSpec

import gradtx as gx
from gradtx.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
    reshape_batch_axis,
)

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(12, 3)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(3, 12)), jnp.float32)
MEAN, SUM, RUNNING_MEAN, CONCAT = AccumulationType


def of_batch(x, scale, *, y):
    """A sum, a mean, and one result for each example, of two arrays with different batch axes."""
    each = scale * jnp.sum(x["x"] * jnp.moveaxis(y, -1, 0), 1)
    return {"sum": jnp.sum(each), "mean": (jnp.mean(each), jnp.mean(each)), "each": (each, None)}


KINDS = {"sum": SUM, "mean": (MEAN, RUNNING_MEAN), "each": CONCAT}


@pytest.mark.parametrize("size", [1, 4, 12, None])
def test_the_result_is_that_of_the_whole_batch(size):
    """With trees of arguments, keyword arguments, an axis counted from the back, and a tree of accumulators."""
    by_parts = microbatch(of_batch, 0, size, KINDS, argnames="y", in_axes=(0, -1))
    got = jax.jit(by_parts)({"x": X}, 2.0, y=Y)
    chex.assert_trees_all_close(got, of_batch({"x": X}, 2.0, y=Y), rtol=1e-5, atol=1e-5)
    slope, want = (jax.grad(lambda x, f=f: f({"x": x}, 2.0, y=Y)["sum"])(X) for f in (by_parts, of_batch))
    np.testing.assert_allclose(slope, want, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_reshape_beside_optax(axis):
    tree = [jnp.arange(72).reshape(6, 6, 2), jnp.arange(36.0).reshape(6, 6, 1)]
    ours = reshape_batch_axis(tree, 2, axis)
    chex.assert_trees_all_equal(ours, optax.microbatching.reshape_batch_axis(tree, 2, axis % 3))


def test_half_precision_is_added_up_in_float32():
    """In bfloat16 a sum of ones stops at 256."""
    x = jnp.ones((1024, 1), jnp.bfloat16)
    for kind, want in {SUM: 1024, MEAN: 1, RUNNING_MEAN: 1}.items():
        result = microbatch(lambda x: x[0], 0, 1, kind)(x)
        assert result == jnp.array([want], jnp.bfloat16)
    huge = jnp.full(4, 40000.0, jnp.float16)
    assert microbatch(lambda x: x[0], 0, 1, MEAN)(huge) == jnp.float16(40000)


def test_keys_have_a_batch_axis_too():
    keys = jax.random.split(jax.random.key(0), 6)
    chex.assert_trees_all_equal(micro_vmap(jax.random.bits, microbatch_size=2)(keys), jax.vmap(jax.random.bits)(keys))


def test_vmap_as_that_of_jax():
    """With one axis for all arguments, with none for some, and without positional arguments."""

    def f(x, y, *, z=jnp.zeros(())):
        return {"sum": jnp.sum(x) * jnp.sum(y) + z}

    z, cases = jnp.arange(12.0), [(0, (X, X)), ((0, None), (X, Y)), ([0, 1], (X, Y)), ((0, -1), (X, Y))]
    for axes, args in cases:
        got = micro_vmap(f, axes, microbatch_size=3)(*args, z=z)
        chex.assert_trees_all_close(got, jax.vmap(f, axes)(*args, z=z), rtol=1e-6)
    by_name = micro_vmap(lambda *, z: -z, microbatch_size=4)
    np.testing.assert_array_equal(by_name(z=z), -z)
    total = micro_vmap(f, microbatch_size=3, accumulator={"sum": SUM})(X, X)
    np.testing.assert_allclose(total["sum"], np.sum(np.sum(X, 1) ** 2), rtol=1e-6)
    counted = micro_vmap(lambda x: x > 0, microbatch_size=4, accumulator=SUM)(X[:, 0])
    assert counted == np.sum(X[:, 0] > 0)


MAXIMUM = Accumulator(
    init=lambda x: jnp.full(x.shape, -jnp.inf, x.dtype),
    update=lambda carry, x, i: jnp.maximum(carry, x),
    finalize=lambda carry: 2 * carry,
    aggregate=functools.partial(jnp.max, axis=0),
)


def test_an_accumulator_of_ones_own():
    assert microbatch(jnp.max, 0, 4, MAXIMUM)(X) == 2 * jnp.max(X)
    assert micro_vmap(jnp.max, microbatch_size=4, accumulator=MAXIMUM)(X) == 2 * jnp.max(X)


class TestEarlyStop:
    """Of 4 microbatches of 3, only some are evaluated: microbatch i has the examples i, i + 4, i + 8."""

    @pytest.mark.parametrize("how", [lambda n: n, jnp.asarray], ids=["int", "array"])
    def test_results(self, how):
        x, kinds = jnp.arange(1.0, 13.0), (SUM, MEAN, RUNNING_MEAN, CONCAT)

        def run(n):
            return microbatch(lambda x: (x.sum(),) * 3 + (x,), 0, 3, kinds, num_real_microbatches=n)(x)

        done = np.where(np.arange(12) % 4 < 2, x, 0)
        for total, mean, running, joined in (run(how(2)), jax.jit(run)(2)):
            assert (total, mean, running) == (done.sum(), done.sum() / 4, done.sum() / 2)
            np.testing.assert_array_equal(joined, done)

    def test_too_many(self):
        run = jax.jit(lambda n: microbatch(jnp.sum, 0, 3, num_real_microbatches=n)(X))
        assert np.isfinite(run(4))
        for count in (5, -1):
            with pytest.raises(ValueError, match=rf"must be between 0 and the number of microbatches, 4, got {count}"):
                microbatch(jnp.sum, 0, 3, num_real_microbatches=count)(X)
            assert np.isnan(run(count))
        with pytest.raises(
            ValueError, match="microbatch: num_real_microbatches has no meaning without microbatch_size"
        ):
            microbatch(jnp.sum, 0, None, num_real_microbatches=2)


def loss(params, x, shift, *, weight=jnp.ones(())):
    return jnp.sum(weight * (x @ params["w"] - shift) ** 2)


class TestGradients:
    PARAMS = {"w": jnp.array([1.0, -2.0, 0.5])}

    def each(self, weight):
        grad = jax.value_and_grad(loss)
        return jax.vmap(lambda x, weight: grad(self.PARAMS, x, 0.25, weight=weight))(X, weight)

    @pytest.mark.parametrize("keep_batch_dim", [True, False])
    @pytest.mark.parametrize("size", [None, 4])
    def test_beside_vmap(self, keep_batch_dim, size):
        """Also with arguments that have no batch axis, behind those that have one, and with keyword arguments."""
        weight = jnp.arange(12.0)
        f = micro_grad(
            lambda *args, **kwargs: (loss(*args, **kwargs), {"shape": jnp.asarray(args[1].shape)}),
            has_aux=True,
            keep_batch_dim=keep_batch_dim,
            microbatch_size=size,
            metrics_fn=lambda g: jnp.max(g["w"]),
            transform_fn=lambda g: (g, g["w"] ** 2),
        )
        (total, square), (values, metrics, aux) = jax.jit(f)(self.PARAMS, X, 0.25, weight=weight)
        want, grads = self.each(weight)
        chex.assert_trees_all_close(total, jax.tree.map(lambda g: g.sum(0), grads), rtol=1e-5)
        chex.assert_trees_all_close(square, (grads["w"] ** 2).sum(0), rtol=1e-5)
        chex.assert_trees_all_close((values, metrics), (want, grads["w"].max(1)), rtol=1e-5)
        np.testing.assert_array_equal(aux["shape"], [[1, 3] if keep_batch_dim else [3]] * 12)

    def test_clipped_one_by_one(self):
        """What differential privacy adds its noise to."""
        _, grads = self.each(jnp.ones(12))

        def clip(g):
            return gx.per_example_global_norm_clip(jax.tree.map(lambda x: x[None], g), 2.0)[0]

        total, outputs = micro_grad(loss, microbatch_size=3, transform_fn=clip)(self.PARAMS, X, 0.25)
        chex.assert_trees_all_close(total, gx.per_example_global_norm_clip(grads, 2.0)[0], rtol=1e-5)
        assert outputs.aux is None


class TestSharded:
    @pytest.mark.skipif(
        not hasattr(jax, "shard_map"), reason="before JAX 0.6.1 zeros inside of it do not vary or agree"
    )
    def test_inside_shard_map(self):
        """A result that varies over the mesh, and one that does not."""
        mesh = jax.sharding.Mesh(jax.devices()[:2], ("d",))

        def f(x):
            kinds = (SUM, SUM, CONCAT)
            return microbatch(lambda x: (x.sum(0)[None], jax.lax.psum(x.sum(), "d"), x), 0, 2, kinds)(x)

        specs = PartitionSpec("d"), PartitionSpec(), PartitionSpec("d")
        parts, total, same = shard_map(f, mesh, PartitionSpec("d"), specs)(X)
        np.testing.assert_allclose(parts, X.reshape(2, 6, 3).sum(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(total, X.sum(), rtol=1e-5)
        np.testing.assert_array_equal(same, X)

    @pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="explicit meshes are set otherwise before JAX 0.6.1")
    @pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d"), PartitionSpec()])
    def test_on_an_explicit_mesh(self, spec):
        """The batch stays sharded, and so does what is joined."""
        mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
        with jax.set_mesh(mesh):
            x = jax.device_put(jnp.arange(48.0).reshape(12, 4), NamedSharding(mesh, spec))
            parts = reshape_batch_axis(x, 4)
            assert jax.typeof(parts).sharding.spec == PartitionSpec(None, *spec, *[None] * (2 - len(spec)))
            total, joined = jax.jit(microbatch(lambda x: (x.sum(0), 2 * x), 0, 4, (SUM, CONCAT)))(x)
            assert jax.typeof(joined) == jax.typeof(x)
            np.testing.assert_array_equal(joined, 2 * np.asarray(x))
            np.testing.assert_array_equal(total, np.asarray(x).sum(0))
            if spec == PartitionSpec("d"):
                with pytest.raises(ValueError, match="microbatch_size, 3, must be divisible by the 2 shards"):
                    reshape_batch_axis(x, 3)


class TestBadInput:
    def test_batches(self):
        tree = {"a": X, "b": X[:6]}
        with pytest.raises(ValueError, match=r"a batch of 12 .* is not divisible by microbatch_size, 8; .* 4"):
            microbatch(jnp.sum, 0, 8)(X)
        with pytest.raises(ValueError, match=r"argument 0\['b'\]: expected 12 examples .*, got float32\[6,3\]"):
            microbatch(lambda t: t["a"].sum(), 0, 2)(tree)
        with pytest.raises(ValueError, match=r"argument 0: expected an array with a batch axis 0, got .* float 1.0"):
            microbatch(jnp.negative, 0, 1)(1.0)
        with pytest.raises(ValueError, match="microbatch: argument 1 should have a batch axis, but 1 were given"):
            microbatch(jnp.sum, 1, 2)(X)
        with pytest.raises(ValueError, match="microbatch: the keyword argument 'y' should have a batch axis"):
            microbatch(jnp.sum, (), 2, argnames="y")(X)
        with pytest.raises(ValueError, match=r"micro_vmap: in_axes .* are for 2 arguments, but 1 were given"):
            micro_vmap(jnp.sum, (0, None))(X)
        with pytest.raises(ValueError, match="hold no array"):
            microbatch(lambda x: jnp.ones(()), 0, 2)(())

    def test_options(self):
        for size in (0, 2.0, True):
            with pytest.raises((TypeError, ValueError), match="microbatch_size must be an int of at least 1"):
                microbatch(jnp.sum, 0, size)
        with pytest.raises(TypeError, match=r"accumulator\['x'\] must be an AccumulationType or an Accumulator, got "):
            micro_vmap(jnp.sum, accumulator={"x": "sum"})
        with pytest.raises(TypeError, match="num_real_microbatches must be an int"):
            microbatch(jnp.sum, 0, 2, num_real_microbatches=1.5)
        with pytest.raises(TypeError, match="argnums must be ints"):
            microbatch(jnp.sum, "x", 2)
        with pytest.raises(ValueError, match="in_axes must be an int for each of the arguments"):
            microbatch(jnp.sum, (0, 1), 2, in_axes=(0,))
        with pytest.raises(ValueError, match="no argument has a batch axis"):
            microbatch(jnp.sum, (), 2)
        with pytest.raises(TypeError, match="micro_grad: batch_argnums must be an int or several"):
            micro_grad(loss, batch_argnums=())
        with pytest.raises(NotImplementedError, match="out_axes must be 0, got 1"):
            micro_vmap(jnp.sum, out_axes=1)

    def test_results(self):
        with pytest.raises(ValueError, match="the tree of accumulators is no prefix of what the function returns"):
            microbatch(jnp.sum, 0, 2, (SUM, SUM))(X)
        for kind in (MEAN, RUNNING_MEAN):
            with pytest.raises(TypeError, match=rf"{kind.name} of the result at \['n'\]: .* got int32\[\]"):
                microbatch(lambda x: {"n": jnp.sum(x)}, 0, 2, kind)(jnp.arange(4))
        with pytest.raises(TypeError, match=r"SUM of the result: .* cast bools to int32 .* got bool\[\]"):
            microbatch(jnp.any, 0, 2)(X > 0)
