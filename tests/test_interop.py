"""optax in gradtx, gradtx in optax, and programs that were written for optax."""

import functools
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) / 6, "b": jnp.ones(3)}
GRADS = {"w": jnp.full((2, 3), 0.5), "b": jnp.array([1.0, -2.0, 3.0])}
MASK = {"w": True, "b": False}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax mixes integers and floats, which the strict promotion of the other tests refuses."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(tx, steps=3, params=PARAMS, grads=GRADS, **extra):
    """The updates and the state of the last of several equal steps."""
    state, updates = tx.init(params), None
    for _ in range(steps):
        updates, state = tx.update(grads, state, params, **extra)
    return updates, state


close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-9)
"Optax forms 1 − β₂ in float32, which moves its updates by up to 7e-6."


# optax inside gradtx.

FOREIGN = {
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1),
    "sgd": optax.sgd(0.1, momentum=0.9),
    "rmsprop": optax.rmsprop(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1),
    "yogi": optax.yogi(0.1),
    "adabelief": optax.adabelief(0.1),
    "schedule": optax.scale_by_schedule(optax.cosine_decay_schedule(0.1, 10)),
    "inject": optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)(0.1),  # else b2 is 1 in bfloat16
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9), optax.scale(-0.1)),
}
each_foreign = pytest.mark.parametrize("tx", FOREIGN.values(), ids=FOREIGN)


@each_foreign
def test_an_optax_transformation_in_our_chain(tx):
    ours = gradtx.chain(gradtx.identity(), tx, gradtx.scale(2.0))
    expected = jax.tree.map(lambda u: 2 * u, run(tx)[0])
    close(run(ours)[0], expected, rtol=1e-6)


@each_foreign
def test_an_optax_transformation_under_our_wrappers(tx):
    shown = {"w": PARAMS["w"]}
    alone, _ = run(tx, params=shown, grads={"w": GRADS["w"]})
    updates, _ = run(gradtx.masked(tx, MASK))
    close(updates["w"], alone["w"], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], GRADS["b"])
    accumulated, state = run(gradtx.accumulate(tx, 2), steps=4)
    close(accumulated, run(tx, steps=2)[0], rtol=1e-6)
    assert int(state.gradient_step) == 2
    named, _ = run(gradtx.named_chain(("theirs", tx)))
    close(named, run(tx)[0], rtol=1e-6)


@each_foreign
@pytest.mark.parametrize("wrap", [gradtx.chain, lambda tx: gradtx.accumulate(tx, 2)], ids=["chain", "accumulate"])
def test_their_states_keep_their_dtypes_in_bfloat16(tx, wrap):
    """Most states of optax become float32 here, and then fail in `lax.scan`; inside gradtx they keep their dtypes."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    ours = wrap(tx)
    state = ours.init(params)

    def step(carry, _):
        params, state = carry
        updates, state = ours.update(GRADS, state, params)
        return (gradtx.apply_updates(params, updates), state), ()

    (after, end), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=3))((params, state))
    assert jax.tree.map(jnp.dtype, jax.tree.map(lambda x: x.dtype, (after, end))) == jax.tree.map(
        lambda x: x.dtype, (params, state)
    )
    for leaf in jax.tree.leaves(after):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_extra_arguments_reach_optax():
    """The plateau transformation is given the `value` that it needs; its neighbour, which takes none, is given none."""
    tx = gradtx.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1, factor=0.5))
    updates, _ = run(tx, steps=4, value=jnp.array(1.0))
    assert float(updates["b"][0]) > -0.1
    polyak = gradtx.masked(optax.polyak_sgd(), {"w": True, "b": True})
    assert np.isfinite(run(polyak, value=jnp.array(1.0))[0]["w"]).all()


# gradtx inside optax.

OURS = {
    "adam": gradtx.adam(0.1),
    "adamw": gradtx.adamw(0.1),
    "chain": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9)),
    "adafactor": gradtx.adafactor(0.1),
    "scheduled": gradtx.adam(gradtx.cosine_decay_schedule(0.1, 10)),
}
each_of_ours = pytest.mark.parametrize("tx", OURS.values(), ids=OURS)


@pytest.fixture(params=["as it is", "to_optax"])
def converted(request):
    return (lambda tx: tx) if request.param == "as it is" else gradtx.to_optax


@each_of_ours
class TestOursInOptax:
    def test_chain(self, tx, converted):
        theirs = optax.chain(optax.identity(), converted(tx), optax.scale(2.0))
        close(run(theirs)[0], jax.tree.map(lambda u: 2 * u, run(tx)[0]), rtol=1e-6)

    def test_named_chain(self, tx, converted):
        theirs = optax.named_chain(("a", optax.identity()), ("b", converted(tx)))
        close(run(theirs)[0], run(tx)[0], rtol=1e-6)

    def test_masked(self, tx, converted):
        alone, _ = run(tx, params={"w": PARAMS["w"]}, grads={"w": GRADS["w"]})
        close(run(optax.masked(converted(tx), MASK))[0]["w"], alone["w"], rtol=1e-6)

    def test_partition(self, tx, converted):
        theirs = optax.partition({"a": converted(tx), "b": optax.set_to_zero()}, {"w": "a", "b": "b"})
        alone, _ = run(tx, params={"w": PARAMS["w"]}, grads={"w": GRADS["w"]})
        updates, _ = run(theirs)
        close(updates["w"], alone["w"], rtol=1e-6)
        np.testing.assert_array_equal(updates["b"], 0)

    def test_multi_steps(self, tx, converted):
        theirs = optax.MultiSteps(converted(tx), 2)
        theirs = optax.GradientTransformation(theirs.init, jax.jit(theirs.update))  # else each step compiles its branch
        close(run(theirs, steps=4)[0], run(tx, steps=2)[0], rtol=1e-6)

    def test_apply_if_finite(self, tx, converted):
        theirs = optax.apply_if_finite(converted(tx), 5)
        state, update = theirs.init(PARAMS), jax.jit(theirs.update)
        bad = {**GRADS, "b": GRADS["b"].at[0].set(jnp.nan)}
        updates, state = update(bad, state, PARAMS)
        np.testing.assert_array_equal(updates["w"], 0)
        updates, state = update(GRADS, state, PARAMS)
        close(updates, run(tx, steps=1)[0], rtol=1e-6)
        assert int(state.total_notfinite) == 1

    def test_lookahead(self, tx, converted):
        theirs = optax.lookahead(converted(tx), sync_period=2, slow_step_size=0.5)
        params = optax.LookaheadParams.init_synced(PARAMS)
        state = theirs.init(params)
        for _ in range(2):
            updates, state = theirs.update(GRADS, state, params)
            params = optax.apply_updates(params, updates)
        close(params.fast, params.slow)

    def test_in_scan_with_bfloat16(self, tx, converted):
        params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
        theirs = optax.chain(converted(tx))

        def step(carry, _):
            params, state = carry
            updates, state = theirs.update(GRADS, state, params)
            return (optax.apply_updates(params, updates), state), ()

        (after, _), _ = jax.lax.scan(step, (params, theirs.init(params)), length=2)
        assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("bfloat16")}


def test_inject_hyperparams_of_optax_makes_our_optimizers():
    theirs = optax.inject_hyperparams(gradtx.adam, static_args=("nesterov", "mu_dtype"))(learning_rate=0.1)
    close(run(theirs)[0], run(gradtx.adam(0.1))[0])
    state = theirs.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.array(0.2)
    close(theirs.update(GRADS, state, PARAMS)[0], run(gradtx.adam(0.2), steps=1)[0])


def test_tools_for_states_of_optax_find_our_fields():
    _, state = run(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.scale_by_adam()))
    assert int(optax.tree.get(state, "count")) == 3
    assert jax.tree.structure(optax.tree.get(state, "mu")) == jax.tree.structure(PARAMS)
    assert float(optax.tree.get(state, "grad_norm")) > 0
    changed = optax.tree.set(state, count=jnp.array(7, jnp.int32))
    assert int(changed[1].count) == 7
    _, scheduled = run(gradtx.adam(gradtx.constant_schedule(0.25)))
    assert float(optax.tree.get(scheduled, "learning_rate")) == 0.25


def test_map_params_of_optax_over_our_state():
    tx = gradtx.adam(0.1)
    state = optax.tree_map_params(tx, lambda leaf: leaf + 1, tx.init(PARAMS))
    np.testing.assert_array_equal(state[0].mu["w"], 1)
    assert int(state[0].count) == 0


def test_apply_updates_of_optax_takes_our_updates():
    updates, _ = run(gradtx.adam(0.1))
    close(optax.apply_updates(PARAMS, updates), gradtx.apply_updates(PARAMS, updates), rtol=1e-7)


def test_schedules_of_each_in_the_other():
    theirs, ours = optax.cosine_decay_schedule(0.1, 10), gradtx.cosine_decay_schedule(0.1, 10)
    close(run(gradtx.adam(theirs))[0], run(gradtx.adam(ours))[0])
    close(run(optax.adam(ours))[0], run(optax.adam(theirs))[0], rtol=1e-6)
    joined = optax.join_schedules([ours, theirs], [5])
    assert float(joined(7)) == pytest.approx(float(theirs(2)), rel=1e-6)


# to_optax.


class TestToOptax:
    def test_it_is_an_instance_of_optax_classes(self):
        tx = gradtx.to_optax(gradtx.adam(0.1))
        assert isinstance(tx, optax.GradientTransformationExtraArgs)
        assert isinstance(tx, optax.GradientTransformation)
        init, update = tx
        close(update(GRADS, init(PARAMS), PARAMS), run(gradtx.adam(0.1), steps=1), rtol=1e-7)

    def test_extra_arguments_reach_ours_and_strangers_pass_by(self):
        class needs_loss(gradtx.Leafwise, name="test_interop.needs_loss"):
            def leaf(self, g, *, loss):
                return g * loss

        theirs = optax.chain(gradtx.to_optax(needs_loss()), gradtx.to_optax(gradtx.scale(-1.0)))
        updates, _ = run(theirs, steps=1, loss=jnp.array(2.0), meant_for_another=3.0)
        np.testing.assert_array_equal(updates["b"], -2 * GRADS["b"])
        with pytest.raises(TypeError, match="needs_loss needs the extra argument loss"):
            run(theirs, steps=1)

    def test_it_comes_back_into_a_chain_of_ours(self):
        tx = gradtx.chain(gradtx.to_optax(gradtx.adam(0.1)))
        close(run(tx)[0], run(gradtx.adam(0.1))[0], rtol=1e-7)

    @pytest.mark.parametrize("value", [gradtx.adam, optax.adam(0.1), None, lambda params: ()])
    def test_only_ours_need_it(self, value):
        with pytest.raises(TypeError, match="to_optax: expected a gradtx transformation, got"):
            gradtx.to_optax(value)

    def test_without_optax_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optax", None)
        with pytest.raises(ImportError, match=r"gradtx\[optax\]"):
            gradtx.to_optax(gradtx.adam(0.1))


# A script written for optax.


def train(lib):
    """Fit a line, with everything under the name that optax gives it."""
    x = jnp.linspace(-1, 1, 32)
    y = 3 * x - 1
    params = {"slope": jnp.zeros(()), "offset": jnp.zeros(())}
    schedule = lib.warmup_cosine_decay_schedule(init_value=0.0, peak_value=0.1, warmup_steps=10, decay_steps=200)
    optimizer = lib.chain(
        lib.clip_by_global_norm(1.0),
        lib.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        lib.add_decayed_weights(1e-4, mask={"slope": True, "offset": False}),
        lib.scale_by_schedule(schedule),
        lib.scale(-1.0),
    )
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((p["slope"] * x + p["offset"] - y) ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return lib.apply_updates(params, updates), opt_state, loss

    losses = []
    for _ in range(200):
        params, opt_state, loss = step(params, opt_state)
        losses.append(float(loss))
    return params, losses


def test_an_optax_script_gives_the_same_numbers():
    params, losses = train(gradtx)
    expected, expected_losses = train(optax)
    assert losses[-1] < 1e-3
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-3, atol=1e-6)  # 7e-6 a step, 200 steps
    close(params, expected, rtol=1e-4)


ALIASES = ["adam", "adamw", "amsgrad", "lion", "lamb", "sgd", "adafactor"]


@pytest.mark.parametrize("name", ALIASES)
def test_our_optimizers_take_the_steps_of_optax(name):
    theirs, ours = getattr(optax, name)(0.01), getattr(gradtx, name)(0.01)
    close(run(ours, steps=5)[0], run(theirs, steps=5)[0])
