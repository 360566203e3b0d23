"""Differential privacy: what one example can change, the law of the noise, and where its stage may stand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest

import gradtx as gx

RNG = np.random.default_rng(0)
PARAMS = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(())}
BATCH = {name: jnp.asarray(RNG.normal(size=(4, *x.shape)), jnp.float32) for name, x in PARAMS.items()}


def update(tx, grads=BATCH, params=PARAMS, steps=1):
    """The updates of the last of several steps."""
    state = tx.init(params)
    for _ in range(steps - 1):
        _, state = tx.update(grads, state, params)
    return tx.update(grads, state, params)[0]


@pytest.mark.usefixtures("x64")
class TestNoise:
    """In float64, of 65,536 numbers in each of two leaves: moments are right within four standard errors."""

    N = 2**16
    DEVIATION = 0.7 * 3.0 / 4

    def noise(self, key=1, steps=1):
        params = {"a": jnp.zeros(self.N, jnp.float64), "b": jnp.zeros(self.N, jnp.float64)}
        grads = jax.tree.map(lambda x: jnp.zeros((4, *x.shape), x.dtype), params)
        noise = update(gx.differentially_private_aggregate(3.0, 0.7, key), grads, params, steps)
        assert noise["a"].dtype == jnp.float64
        return jax.tree.map(lambda x: np.asarray(x) / self.DEVIATION, noise)

    def test_mean_and_deviation(self):
        for x in self.noise().values():
            assert abs(np.mean(x)) < 4 / np.sqrt(self.N)
            assert abs(np.mean(x**2) - 1) < 4 * np.sqrt(2 / self.N)
            assert abs(np.mean(x**4) - 3) < 4 * np.sqrt(96 / self.N)

    def test_leaves_steps_and_keys_are_independent(self):
        """Leaves of one shape, subsequent steps, and runs of other keys are not correlated; equal keys repeat."""
        first, second, other = self.noise(), self.noise(steps=2), self.noise(key=2)
        pairs = [(first["a"], first["b"]), *((first[name], x[name]) for x in (second, other) for name in first)]
        for x, y in pairs:
            assert abs(np.mean(x * y)) < 4 / np.sqrt(self.N)
        chex.assert_trees_all_equal(first, self.noise(), self.noise(key=jax.random.key(1)))


class TestClip:
    def test_one_example_changes_the_sum_by_at_most_the_bound(self):
        """The largest change is the bound itself: of an example that was longer."""
        tx, lengths = gx.differentially_private_aggregate(1.5, 0.0, 0), []
        total = jax.tree.map(lambda x: 4 * x, update(tx))
        for i in range(4):
            without = jax.tree.map(lambda g, i=i: g.at[i].set(0), BATCH)
            change = jax.tree.map(lambda a, b: a - 4 * b, total, update(tx, without))
            lengths.append(float(gx.global_norm(change)))
        assert max(lengths) == pytest.approx(1.5, rel=1e-5)

    @pytest.mark.filterwarnings('ignore:"seed" is deprecated')  # optax's dpsgd calls optax's stage with it
    @pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.9, True)])
    def test_without_noise_beside_optax(self, momentum, nesterov):
        ours, theirs = (lib.dpsgd(0.1, 1.5, 0.0, 7, momentum, nesterov) for lib in (gx, optax.contrib))
        want = update_of_optax(theirs)
        chex.assert_trees_all_close(update(ours, steps=3), want, rtol=1e-5)

    def test_the_noise_of_half_precision_is_that_of_single(self):
        """It is added in float32, and the sum is rounded once."""
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (PARAMS, BATCH))
        tx = gx.differentially_private_aggregate(1.5, 0.7, 3)
        wide = update(tx, jax.tree.map(lambda x: x.astype(jnp.float32), half[1]))
        chex.assert_trees_all_equal(update(tx, half[1], half[0]), jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide))

    def test_the_state_does_not_depend_on_the_gradients(self):
        """What it held of them would be published in clear with a checkpoint."""
        tx = gx.differentially_private_aggregate(1.0, 1.0, 5)
        states = [tx.update(jax.tree.map(lambda g, c=c: c * g, BATCH), tx.init(PARAMS))[1] for c in (0.0, 9.0)]
        chex.assert_trees_all_equal(*states)


def update_of_optax(tx):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return update(tx, steps=3)


class TestPlace:
    def test_first_in_a_chain(self):
        """Also in a chain in a chain, injected, and in a chain of optax: the update of stages by themselves."""
        tx = gx.dpsgd(0.5, 1.0, 0.3, seed=4)
        want = update(tx)
        stage = gx.differentially_private_aggregate(1.0, 0.3, 4)
        others = [
            gx.chain(gx.chain(stage, gx.identity()), gx.sgd(0.5)),
            gx.named_chain(("private", stage), ("step", gx.sgd(0.5))),
            gx.inject_hyperparams(tx),
            gx.inject_hyperparams(gx.dpsgd)(0.5, 1.0, 0.3, seed=4),
            optax.chain(gx.to_optax(stage), optax.scale(-0.5)),
        ]
        for other in others:
            chex.assert_trees_all_close(update(other), want, rtol=1e-5)
        params, _ = gx.step(tx, BATCH, tx.init(PARAMS), jax.tree.map(jnp.copy, PARAMS))
        chex.assert_trees_all_close(params, want, rtol=1e-5)

    @pytest.mark.parametrize(
        "make", [lambda tx: gx.chain(gx.clip(1.0), tx), lambda tx: gx.accumulate(tx, 2), gx.if_finite]
    )
    def test_elsewhere_it_is_refused(self, make):
        tx = gx.differentially_private_aggregate(1.0, 0.0, 0)
        with pytest.raises(
            ValueError, match="differentially_private_aggregate is given the gradients of single examples"
        ):
            make(tx).init(PARAMS)


class TestBadInput:
    TX = gx.dpsgd(0.1, 1.0, 1.0, 0)

    def test_gradients_that_were_added_up_already(self):
        mean = jax.tree.map(lambda g: g.mean(0), BATCH)
        with pytest.raises(ValueError, match=r"dpsgd: updates\['b'\]: expected a first axis of examples, .* jax.vmap"):
            update(self.TX, mean)
        with pytest.raises(
            ValueError, match=r"dpsgd: updates of one example\['w'\]: expected float32\[2,3\] like the "
        ):
            update(self.TX, BATCH | {"w": BATCH["w"][:, 0]})

    def test_numbers_of_examples(self):
        with pytest.raises(ValueError, match=r"updates\['w'\]: expected a first axis of examples of length 4"):
            update(self.TX, BATCH | {"w": BATCH["w"][:2]})
        with pytest.raises(ValueError, match="the updates have no examples"):
            update(self.TX, jax.tree.map(lambda g: g[:0], BATCH))

    def test_hyperparameters(self):
        with pytest.raises(TypeError, match="key"):
            gx.differentially_private_aggregate(1.0, 1.0)
        with pytest.raises(ValueError, match=r"dpsgd: noise_multiplier must lie in \[0, ∞\), got -1"):
            gx.dpsgd(0.1, 1.0, -1.0, 0)
        with pytest.raises(ValueError, match="dpsgd: nesterov changes the momentum"):
            gx.dpsgd(0.1, 1.0, 1.0, 0, nesterov=True)
