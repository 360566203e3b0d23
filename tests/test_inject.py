"""Hyper-parameters in the state: the same numbers, readable, changed without compiling again, whatever the dtypes."""

import pickle
from typing import Any

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"b": jnp.asarray([0.5, -1.0, 2.0]), "w": jnp.ones((4, 3))}


def grads(seed: int, dtype: Any = jnp.float32) -> Any:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=p.shape), dtype) for name, p in PARAMS.items()}


def run(tx: Any, steps: int = 25, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    params = gradtx.tree.cast(PARAMS, dtype)

    def step(carry: Any, g: Any) -> Any:
        params, state = carry
        updates, state = tx.update(g, state, params, **helpers.extra_for(tx, g) if hasattr(tx, "extras") else {})
        return (jax.tree.map(jnp.add, params, updates), state), None

    every = jax.tree.map(lambda *xs: jnp.stack(xs), *(grads(seed, dtype) for seed in range(steps)))
    return jax.lax.scan(step, (params, tx.init(params)), every)[0]


# The same numbers.


OPTIMIZERS = [
    gradtx.sgd(0.1, 0.9, nesterov=True),
    gradtx.adamw(0.01, 0.8, 0.95, weight_decay=0.1),
    gradtx.adafactor(0.05, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=0.01),
    gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(gradtx.cosine_decay_schedule(0.1, 10))),
]


@pytest.mark.parametrize("tx", OPTIMIZERS, ids=lambda tx: type(tx).__name__)
class TestNumbers:
    def test_all_injected(self, tx):
        """β₂ = 0.999 is another number in float32, by 1e-8; in 25 steps that comes to less than 1e-6."""
        plain, _ = run(tx)
        injected, state = run(gradtx.inject_hyperparams(tx))
        chex.assert_trees_all_close(injected, plain, rtol=2e-6, atol=1e-6)
        assert all(value.dtype == jnp.float32 and not value.weak_type for value in state.hyperparams.values())

    def test_only_the_rate_is_exact(self, tx):
        plain, _ = run(tx)
        injected, state = run(gradtx.inject_hyperparams(tx, names="learning_rate"))
        assert list(state.hyperparams) == ["learning_rate"]
        chex.assert_trees_all_close(injected, plain, rtol=2e-7, atol=6e-8)

    def test_in_double_precision(self, tx, x64):
        plain, _ = run(tx, dtype=jnp.float64)
        injected, state = run(gradtx.inject_hyperparams(tx), dtype=jnp.float64)
        assert {value.dtype for value in state.hyperparams.values()} == {jnp.dtype(jnp.float64)}
        chex.assert_trees_all_close(injected, plain, rtol=1e-12, atol=1e-12)

    def test_bfloat16(self, tx):
        plain, expected = run(tx, dtype=jnp.bfloat16)
        injected, state = run(gradtx.inject_hyperparams(tx), dtype=jnp.bfloat16)
        assert {value.dtype for value in state.hyperparams.values()} == {jnp.dtype(jnp.float32)}
        assert jax.tree.map(lambda x: x.dtype, state.inner_state) == jax.tree.map(lambda x: x.dtype, expected)
        chex.assert_trees_all_close(
            injected, plain, rtol=2**-7
        )  # one unit in the last place, where a float32 update was rounded the other way


def test_the_first_step_with_bfloat16_is_finite():
    """In optax β₂ = 0.999 becomes 1 in the dtype of the parameters, so that the first update is NaN."""
    params = jnp.ones(4, jnp.bfloat16)
    tx = gradtx.inject_hyperparams(gradtx.adamw)(learning_rate=1e-2)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates, np.float32), -0.01, rtol=1e-2)


REGISTERED = sorted(
    name
    for name, tx in helpers.transformations().items()
    if isinstance(tx, gradtx.Optimizer) and not jax.tree.leaves(tx)
)


@pytest.mark.long
@pytest.mark.parametrize("name", REGISTERED)
def test_every_optimizer_may_be_injected(name):
    tx = helpers.transformations()[name]
    plain, _ = run(tx, 3)
    injected, state = run(gradtx.inject_hyperparams(tx), 3)
    own = f"{type(tx).__name__}."  # where a part has hyper-parameters of the same names
    assert set(helpers.numbers(tx)) <= {name.removeprefix(own) for name in state.hyperparams}
    chex.assert_trees_all_close(injected, plain, rtol=1e-5, atol=1e-5)


def test_like_optax(x64):
    schedule = {"init_value": 0.1, "decay_steps": 10}
    for name, arguments in [("sgd", {"momentum": 0.9}), ("adam", {"b1": 0.8}), ("adamw", {"weight_decay": 0.1})]:
        ours = gradtx.inject_hyperparams(getattr(gradtx, name))(
            learning_rate=gradtx.cosine_decay_schedule(**schedule), **arguments
        )
        theirs = optax.inject_hyperparams(getattr(optax, name))(
            learning_rate=optax.cosine_decay_schedule(**schedule), **arguments
        )
        with jax.numpy_dtype_promotion("standard"):
            (a, state), (b, expected) = run(ours, dtype=jnp.float64), run(theirs, dtype=jnp.float64)
        chex.assert_trees_all_close(a, b, rtol=1e-9, atol=1e-9)
        assert type(state).__name__ == type(expected).__name__
        assert state._fields == expected._fields
        assert state.hyperparams.keys() <= expected.hyperparams.keys() | {"eps_root"}
        for key, value in state.hyperparams.items():
            np.testing.assert_allclose(value, expected.hyperparams[key], rtol=1e-9)


# Reading and changing.


class TestChanging:
    def test_no_recompilation(self):
        tx = gradtx.inject_hyperparams(gradtx.adam(0.1))

        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(params, state, g):
            updates, state = tx.update(g, state, params)
            return gradtx.apply_updates(params, updates), state

        params, state = step(PARAMS, tx.init(PARAMS), grads(0))
        for rate in (0.01, np.float32(0.02), jnp.asarray(0.03), 1):
            state = gradtx.set_hyperparams(state, learning_rate=rate)
            assert state.hyperparams["learning_rate"].dtype == jnp.float32
            params, state = step(params, state, grads(1))
            np.testing.assert_allclose(state.hyperparams["learning_rate"], rate, rtol=1e-6)

    def test_assignment_works_too(self):
        tx = gradtx.inject_hyperparams(gradtx.sgd(0.5))
        state = tx.init(PARAMS)
        state.hyperparams["learning_rate"] = 0.25
        updates, state = tx.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: -0.25 * p, PARAMS))
        assert float(gradtx.tree.get(state, "learning_rate")) == 0.25
        updates, _ = tx.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: -0.25 * p, PARAMS))

    def test_what_a_change_does_is_what_the_other_optimizer_does(self):
        tx = gradtx.inject_hyperparams(gradtx.adam(0.1))
        state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.01, b1=0.5)
        a, state = tx.update(PARAMS, state, PARAMS)
        a, _ = tx.update(PARAMS, state, PARAMS)
        other = gradtx.adam(0.01, 0.5)
        b, state = other.update(PARAMS, other.init(PARAMS), PARAMS)
        b, _ = other.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_close(a, b, rtol=2e-6)

    def test_a_value_out_of_bounds_is_refused_where_it_is_known(self):
        tx = gradtx.inject_hyperparams(gradtx.adam(0.1))
        state = gradtx.set_hyperparams(tx.init(PARAMS), b1=1.5)
        with jax.disable_jit(), pytest.raises(ValueError, match=r"adam: b1 must lie in \[0, 1\), got 1.5"):
            tx.update_fn(PARAMS, state, PARAMS)


class TestSchedules:
    tx = gradtx.inject_hyperparams(gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 4), b1=0.8))

    def test_values_are_recorded(self):
        state, seen = self.tx.init(PARAMS), []
        assert float(state.hyperparams["learning_rate"]) == 1.0
        for _ in range(3):
            _, state = self.tx.update(PARAMS, state, PARAMS)
            seen.append(float(state.hyperparams["learning_rate"]))
        assert seen == [1.0, 0.75, 0.5]
        assert int(state.hyperparams_states["learning_rate"].count) == int(state.count) == 3

    def test_setting_one_is_an_error(self):
        state = self.tx.init(PARAMS)
        with pytest.raises(ValueError, match=r"hyperparams\.learning_rate follows a schedule: give a number instead"):
            gradtx.set_hyperparams(state, learning_rate=0.1)
        assert float(gradtx.set_hyperparams(state, b1=0.5).hyperparams["b1"]) == 0.5
        with pytest.raises(ValueError, match="learning_rate follows a schedule"):
            gradtx.tree.set(state, learning_rate=0.1)

    @pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
    def test_assigning_one_is_an_error(self, jit):
        state = self.tx.init(PARAMS)
        state.hyperparams["learning_rate"] = 0.1
        with pytest.raises(ValueError, match="learning_rate was set by hand, but follows the schedule linear_schedule"):
            jit(self.tx.update)(PARAMS, state, PARAMS)

    def test_a_schedule_that_is_a_lambda(self):
        tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=lambda count: 1 / (1 + count.astype(jnp.float32)))
        state = tx.init(PARAMS)
        for rate in (1.0, 0.5):
            updates, state = tx.update(PARAMS, state, PARAMS)
            chex.assert_trees_all_equal(updates, jax.tree.map(lambda p, rate=rate: -rate * p, PARAMS))

    def test_a_schedule_of_something_else(self):
        tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=lambda count: jnp.ones(3))
        with pytest.raises(ValueError, match=r"learning_rate must be a real scalar, got float32\[3\]"):
            tx.init(PARAMS)


# The two spellings.


@gradtx.register
def clipped(learning_rate, max_norm=1.0, kind="adam", every=2):
    return gradtx.chain(gradtx.clip_by_global_norm(max_norm), getattr(gradtx, kind)(learning_rate))


class TestSpellings:
    def test_a_class_makes_the_same_value(self):
        a = gradtx.inject_hyperparams(gradtx.adam)(learning_rate=1e-3, b1=0.8)
        b = gradtx.inject_hyperparams(gradtx.adam(1e-3, b1=0.8))
        assert a == b
        assert hash(a) == hash(b)
        assert repr(a) == "inject_hyperparams(adam(0.001, b1=0.8))"
        assert pickle.loads(pickle.dumps(a)) == a
        assert gradtx.from_config(gradtx.to_config(a)) == a
        assert a.replace(inner_factory=gradtx.sgd(0.1)) == gradtx.inject_hyperparams(gradtx.sgd(0.1))

    def test_static_args(self):
        a = gradtx.inject_hyperparams(gradtx.adamw, static_args=("b1", "mask"))(1e-3)
        assert "b1" not in a.init(PARAMS).hyperparams
        assert a == gradtx.inject_hyperparams(gradtx.adamw(1e-3), static_args="b1")
        for make in (gradtx.adamw, optax.adamw):  # as soon as they are given, before the transformation is made
            with pytest.raises(ValueError, match="static_args: adamw has no argument lr; it has learning_rate"):
                gradtx.inject_hyperparams(make, static_args="lr")

    @pytest.mark.parametrize("make", [gradtx.schedule_free_sgd, gradtx.schedule_free_adamw])
    def test_the_state_does_not_depend_on_values(self, make):
        """A weight decay of 0 that is injected is not known to be 0."""
        plain, injected = make(1.0, weight_decay=0.0), gradtx.inject_hyperparams(make)(1.0, weight_decay=0.0)
        states = plain.init(PARAMS), injected.init(PARAMS).inner_state
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])

    def test_names(self):
        tx = gradtx.inject_hyperparams(gradtx.adam(1e-3), names=("learning_rate", "b1"))
        assert tx.init(PARAMS).hyperparams.keys() == {"learning_rate", "b1"}
        with pytest.raises(ValueError, match="no hyper-parameter lr to inject; there is learning_rate, b1, b2"):
            gradtx.inject_hyperparams(gradtx.adam(1e-3), names="lr")

    def test_names_in_a_chain(self):
        tx = gradtx.inject_hyperparams(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
        assert tx.init(PARAMS).hyperparams.keys() == {"max_norm", "learning_rate"}
        tx = gradtx.inject_hyperparams(
            gradtx.partition({"b": gradtx.sgd(0.1), "w": gradtx.adam(0.2)}, {"b": "b", "w": "w"})
        )
        state = tx.init(PARAMS)
        assert {"sgd.learning_rate", "adam.learning_rate"} < state.hyperparams.keys()
        state = gradtx.set_hyperparams(state, **{"sgd.learning_rate": 0.5})
        updates, _ = tx.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_equal(updates["b"], -0.5 * PARAMS["b"])
        np.testing.assert_allclose(updates["w"], -0.2, rtol=1e-5)
        stages = ("a", gradtx.scale(1.0)), ("b", gradtx.scale(2.0))
        tx = gradtx.inject_hyperparams(gradtx.named_chain(*stages))
        assert tx.init(PARAMS).hyperparams.keys() == {"a.step_size", "b.step_size"}
        state = gradtx.set_hyperparams(tx.init(PARAMS), **{"b.step_size": 3.0})
        chex.assert_trees_all_equal(tx.update(PARAMS, state, PARAMS)[0], jax.tree.map(lambda p: 3 * p, PARAMS))
        assert pickle.loads(pickle.dumps(tx)) == tx
        tx = gradtx.inject_hyperparams(gradtx.chain(gradtx.scale(1.0), gradtx.scale(2.0)))
        assert tx.init(PARAMS).hyperparams.keys() == {"chain.0.scale.step_size", "chain.1.scale.step_size"}
        groups = {"b": ("slow", gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)))}
        tx = gradtx.inject_hyperparams(gradtx.param_groups(gradtx.sgd(0.2), groups))
        assert tx.init(PARAMS).hyperparams.keys() == {"learning_rate", "slow.learning_rate", "slow.max_delta"}

    def test_hyperparam_dtype(self, x64):
        tx = gradtx.inject_hyperparams(gradtx.adam, hyperparam_dtype="float32")(1e-3)
        assert tx.init(PARAMS).hyperparams["b1"].dtype == jnp.float32
        with pytest.raises(ValueError, match="hyperparam_dtype must be float32 or float64, got bfloat16"):
            gradtx.inject_hyperparams(gradtx.adam(1e-3), hyperparam_dtype="bfloat16")

    def test_functions(self):
        tx = gradtx.inject_hyperparams(clipped)(0.1)
        state = tx.init(PARAMS)
        assert {name: float(value) for name, value in state.hyperparams.items()} == pytest.approx(
            {"learning_rate": 0.1, "max_norm": 1.0}
        )
        chex.assert_trees_all_close(run(tx)[0], run(clipped(0.1))[0], rtol=2e-6, atol=1e-6)
        assert gradtx.from_config(gradtx.to_config(tx)) == tx
        assert pickle.loads(pickle.dumps(tx)) == tx
        assert repr(tx) == "inject_factory(clipped, {'learning_rate': 0.1})"

    def test_functions_of_optax(self):
        tx = gradtx.inject_hyperparams(optax.sgd, static_args="nesterov")(learning_rate=0.5, momentum=0.9)
        state = tx.init(PARAMS)
        state = gradtx.set_hyperparams(state, learning_rate=0.25)
        updates, _ = tx.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_equal(updates, jax.tree.map(lambda p: -0.25 * p, PARAMS))

    def test_a_function_that_makes_something_else(self):
        with pytest.raises(TypeError, match="inject_factory: what it made must be a transformation"):
            gradtx.inject_hyperparams(lambda learning_rate: learning_rate)(0.1).init(PARAMS)
        with pytest.raises(ValueError, match=r"static_args: .* has no argument b1; it has learning_rate"):
            gradtx.inject_hyperparams(clipped, static_args="b1")(0.1)

    def test_missing_and_unknown_arguments(self):
        with pytest.raises(TypeError, match="missing a required argument: 'learning_rate'"):
            gradtx.inject_hyperparams(clipped)()
        with pytest.raises(TypeError, match="lr"):
            gradtx.inject_hyperparams(gradtx.adam)(lr=0.1)

    def test_state_of_others(self):
        tx = gradtx.inject_hyperparams(gradtx.sgd(0.1))
        state = gradtx.inject_hyperparams(gradtx.adam(0.1)).init(PARAMS)
        with pytest.raises(ValueError, match="expected the hyper-parameters learning_rate in the state, got b1, b2"):
            tx.update(PARAMS, state, PARAMS)

    def test_inside_others(self):
        tx = gradtx.chain(gradtx.clip(10.0), gradtx.masked(gradtx.inject_hyperparams(gradtx.sgd(0.5)), "w"))
        state = gradtx.set_hyperparams(tx.init(PARAMS), learning_rate=0.25)
        updates, _ = tx.update(PARAMS, state, PARAMS)
        chex.assert_trees_all_equal(updates, {"b": PARAMS["b"], "w": -0.25 * PARAMS["w"]})

    def test_extra_arguments_reach_it(self):
        tx = gradtx.inject_hyperparams(gradtx.polyak_sgd(1.0))
        assert "value" in tx.extras.known
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(0.0))
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, PARAMS))


class halved_where_worse(gradtx.StatefulSchedule):
    """Half the rate wherever the loss rises."""

    def init(self):
        return {"loss": jnp.array(jnp.inf), "rate": jnp.array(0.5)}

    def update(self, state, *, value, **extra):
        rate = jnp.where(value > state["loss"], state["rate"] / 2, state["rate"])
        return {"loss": value, "rate": rate}

    def __call__(self, state, **extra):
        return state["rate"]


class TestStatefulSchedules:
    @pytest.mark.parametrize("factory", [gradtx.sgd, lambda learning_rate: gradtx.sgd(learning_rate)])
    def test_the_value_follows_a_state_of_its_own(self, factory):
        tx = gradtx.inject_hyperparams(factory)(learning_rate=halved_where_worse())

        def step(state, value):
            updates, state = tx.update({"w": jnp.ones(2)}, state, {"w": jnp.zeros(2)}, value=value)
            return state, updates["w"][0]

        state = tx.init({"w": jnp.zeros(2)})
        state, updates = jax.lax.scan(step, state, jnp.array([3.0, 4.0, 2.0, 5.0, 1.0]))
        np.testing.assert_array_equal(updates, [-0.5, -0.5, -0.25, -0.25, -0.125])
        assert float(state.hyperparams["learning_rate"]) == 0.125
        assert float(state.hyperparams_states["learning_rate"]["loss"]) == 1.0

    def test_its_arguments_are_asked_for(self):
        tx = gradtx.chain(gradtx.inject_hyperparams(gradtx.sgd)(halved_where_worse()))
        with pytest.raises(TypeError, match="needs the extra argument value"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)

    def test_elsewhere_it_is_refused(self):
        tx = gradtx.sgd(halved_where_worse())
        with pytest.raises(TypeError, match="learning_rate is a stateful schedule: wrap the transformation in inject"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)

    def test_a_function_of_the_count_may_be_wrapped(self):
        schedule = gradtx.linear_schedule(1.0, 0.0, 4)
        assert gradtx.WrappedSchedule(schedule) == gradtx.WrappedSchedule(schedule)
        plain, wrapped = (
            gradtx.inject_hyperparams(gradtx.sgd)(rate) for rate in (schedule, gradtx.WrappedSchedule(schedule))
        )
        chex.assert_trees_all_equal(run(plain, 3), run(wrapped, 3))


def test_a_whole_number_may_be_assigned():
    tx = gradtx.inject_hyperparams(gradtx.clip_by_global_norm)(0.1)
    state = tx.init(PARAMS)
    state.hyperparams["max_norm"] = 2
    updates, state = tx.update(jax.tree.map(lambda x: 100 * jnp.ones_like(x), PARAMS), state, PARAMS)
    assert float(gradtx.global_norm(updates)) == pytest.approx(2)
    assert int(state.hyperparams["max_norm"]) == 2
