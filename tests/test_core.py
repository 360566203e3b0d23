"""How the core behaves: composition, schedules, hyper-parameters as arrays, precision, values, configs."""

import copy
import functools
import json
import pickle
from typing import NamedTuple

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from papers.adam import Adam

import gradtx
from gradtx.core import norms

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
GRADS = {"w": jnp.full((2, 3), 0.5), "b": jnp.array([1.0, -2.0, 3.0])}


def run(tx, steps=1, params=PARAMS, grads=GRADS, **extra):
    """The updates and the state of the last of several equal steps."""
    state, updates = tx.init(params), None
    for _ in range(steps):
        updates, state = tx.update(grads, state, params, **extra)
    return updates, state


# Composition.


class TestComposition:
    def test_a_chain_applies_left_to_right(self):
        tx = gradtx.chain(gradtx.clip(1.0), gradtx.scale(2.0))
        np.testing.assert_array_equal(run(tx)[0]["b"], [2.0, -2.0, 2.0])
        reverse = gradtx.chain(gradtx.scale(2.0), gradtx.clip(1.0))
        np.testing.assert_array_equal(run(reverse)[0]["b"], [1.0, -1.0, 1.0])

    def test_nested_chains_compute_what_flat_ones_do_and_stay_as_written(self):
        a, b, c = gradtx.clip(1.0), gradtx.scale_by_adam(), gradtx.scale(-0.1)
        nested, flat = gradtx.chain(a, gradtx.chain(b, c)), gradtx.chain(a, b, c)
        chex.assert_trees_all_equal(run(nested, 3)[0], run(flat, 3)[0])
        assert nested != flat
        assert repr(nested) == "chain(clip(1.0), chain(scale_by_adam(), scale(-0.1)))"
        assert [type(s) for s in nested.init(PARAMS)] == [gradtx.EmptyState, tuple]

    def test_a_named_chain_computes_what_a_chain_does(self):
        a, b = gradtx.clip(1.0), gradtx.trace(0.9)
        updates, state = run(gradtx.named_chain(("clip", a), ("momentum", b)), 3)
        plain_updates, plain_state = run(gradtx.chain(a, b), 3)
        chex.assert_trees_all_equal(updates, plain_updates)
        assert list(state) == ["clip", "momentum"]
        chex.assert_trees_all_equal(state["momentum"], plain_state[1])

    def test_identity_and_the_empty_chain_change_nothing(self):
        for tx in (gradtx.identity(), gradtx.chain(), gradtx.named_chain()):
            chex.assert_trees_all_equal(run(tx)[0], GRADS)
        assert gradtx.chain().init(PARAMS) == ()
        assert gradtx.named_chain().init(PARAMS) == {}

    def test_it_unpacks_into_two_functions(self):
        tx = gradtx.adam(0.1)
        init, update = tx
        chex.assert_trees_all_equal(update(GRADS, init(PARAMS), PARAMS), run(tx))

    def test_an_optimizer_is_its_expansion(self):
        tx = gradtx.adamw(0.1, weight_decay=0.1)
        chex.assert_trees_all_equal(run(tx, 3), run(tx.expanded, 3))

    def test_a_chain_casts_once_at_its_end(self):
        """Between stages half precision stays float32: 1e-3 then 1e4 would lose three digits on the way."""
        params = jnp.ones(3, jnp.bfloat16)
        grads = jnp.array([1.0, 2.0, 3.0], jnp.bfloat16)
        tx = gradtx.chain(gradtx.scale(1.001), gradtx.scale(1 / 1.001))
        np.testing.assert_array_equal(tx.update(grads, tx.init(params), params)[0], grads)


# Schedules among the hyper-parameters.


def counting(count):
    """0.5, 1.5, 2.5, ... at the updates 1, 2, 3, ..."""
    return count.astype(jnp.float32) + 0.5


class TestSchedules:
    def test_the_first_update_uses_the_value_at_0(self):
        tx = gradtx.scale_by_schedule(counting)
        state = tx.init(jnp.zeros(()))
        for expected in (0.5, 1.5, 2.5):
            updates, state = tx.update(jnp.ones(()), state)
            assert float(updates) == expected

    def test_a_transformation_without_a_counter_gets_one(self):
        tx = gradtx.clip(counting)
        state = tx.init(jnp.zeros(()))
        assert isinstance(state, gradtx.ScheduledState)
        for expected in (0.5, 1.5, 2.5):
            updates, state = tx.update(jnp.array(9.0), state)
            assert float(updates) == expected
        assert int(state.count) == 3
        assert state.inner_state == gradtx.EmptyState()

    def test_one_with_a_counter_keeps_its_state(self):
        tx = gradtx.scale_by_adam(b1=gradtx.linear_schedule(0.0, 0.9, 10))
        assert jax.tree.structure(tx.init(PARAMS)) == jax.tree.structure(gradtx.scale_by_adam().init(PARAMS))

    def test_several_schedules_share_one_counter(self):
        tx = gradtx.scale_by_trust_ratio(min_norm=lambda count: 0.0, trust_coefficient=counting)
        _, state = run(tx, 2)
        assert int(state.count) == 2

    def test_under_accumulation_they_step_once_per_window(self):
        tx = gradtx.accumulate(gradtx.chain(gradtx.clip(counting), gradtx.scale_by_learning_rate(counting)), 2)
        state, seen = tx.init(jnp.zeros(())), []
        for _ in range(6):
            updates, state = tx.update(jnp.array(9.0), state)
            seen.append(float(updates))
        assert seen == [0, -0.25, 0, -2.25, 0, -6.25]

    def test_the_window_of_accumulation_may_follow_one_too(self):
        tx = gradtx.accumulate(gradtx.scale(1.0), lambda windows: windows + 1)
        state, seen = tx.init(jnp.zeros(())), []
        for _ in range(6):
            updates, state = tx.update(jnp.ones(()), state)
            seen.append(float(updates))
        assert seen == [1, 0, 1, 0, 0, 1]

    def test_under_a_mask(self):
        tx = gradtx.masked(gradtx.clip(counting), {"w": False, "b": True})
        updates, _ = run(tx, 2)
        np.testing.assert_array_equal(updates["b"], [1.0, -1.5, 1.5])
        np.testing.assert_array_equal(updates["w"], GRADS["w"])

    def test_inside_scan_and_jit(self):
        tx = gradtx.chain(gradtx.clip(counting), gradtx.sgd(counting))

        def step(state, _):
            updates, state = tx.update(jnp.array(9.0), state)
            return state, updates

        _, seen = jax.jit(lambda state: jax.lax.scan(step, state, length=3))(tx.init(jnp.zeros(())))
        np.testing.assert_array_equal(seen, [-0.25, -2.25, -6.25])

    def test_a_schedule_for_the_learning_rate_keeps_the_state_of_a_number(self):
        constant, scheduled = gradtx.adam(0.1), gradtx.adam(gradtx.constant_schedule(0.1))
        assert jax.tree.structure(constant.init(PARAMS)) == jax.tree.structure(scheduled.init(PARAMS))
        chex.assert_trees_all_equal(run(constant, 3), run(scheduled, 3))


# Hyper-parameters as arrays.


class TestArrays:
    def test_an_array_is_an_argument_of_the_program_and_not_a_constant_in_it(self):
        def lowered(rate):
            tx = gradtx.sgd(rate)
            return jax.jit(lambda tx, g, s: tx.update(g, s)).lower(tx, GRADS, tx.init(PARAMS)).as_text()

        assert lowered(jnp.array(0.125)) == lowered(jnp.array(0.25))
        assert lowered(0.125) != lowered(0.25)

    def test_changing_one_compiles_nothing(self):
        class probe(gradtx.Leafwise, name="test_core.probe"):
            rate: gradtx.core.hyperparams.Rate

            @chex.assert_max_traces(n=2)  # one for each shape of a leaf
            def leaf(self, g):
                return g * self.rate

        for rate in (0.1, 0.2, 0.3):
            tx = gradtx.chain(probe(jnp.array(rate)), gradtx.scale(-1.0))
            updates, _ = run(tx, 2)
            np.testing.assert_allclose(updates["w"], -rate * GRADS["w"], rtol=1e-6)

    def test_equal_transformations_share_a_program(self):
        class probe_of_numbers(gradtx.Leafwise, name="test_core.probe_of_numbers"):
            rate: gradtx.core.hyperparams.Rate

            @chex.assert_max_traces(n=1)
            def leaf(self, g):
                return g * self.rate

        for _ in range(3):
            run(probe_of_numbers(0.5), 2, params=jnp.zeros(5), grads=jnp.ones(5))

    @pytest.mark.parametrize(
        "make", [gradtx.sgd, gradtx.adam, gradtx.adamw, gradtx.lion, gradtx.lamb, gradtx.adafactor]
    )
    def test_traced_and_vmapped(self, make):
        rates = jnp.array([0.01, 0.1, 1.0])
        together = jax.vmap(lambda rate: run(make(rate), 2)[0])(rates)
        for i, rate in enumerate(rates):
            alone = run(make(float(rate)), 2)[0]
            for name in PARAMS:
                np.testing.assert_allclose(together[name][i], alone[name], rtol=1e-6)

    @pytest.mark.parametrize("name", ["b1", "b2", "eps"])
    def test_traced_hyper_parameters_give_what_numbers_do(self, name):
        value = {"b1": 0.8, "b2": 0.99, "eps": 1e-3}[name]
        traced = jax.jit(lambda x: run(gradtx.adam(0.1, **{name: x}), 3)[0])(value)
        plain = run(gradtx.adam(0.1, **{name: value}), 3)[0]
        for leaf in PARAMS:  # 1 − β is formed in float32 here: 0.99 leaves 6e-6, less the cancellation in v / (1 − βᵗ)
            np.testing.assert_allclose(traced[leaf], plain[leaf], rtol=1e-5)

    @pytest.mark.parametrize("make", [lambda rate: gradtx.sgd(rate, momentum=0.9), gradtx.adam], ids=["sgd", "adam"])
    def test_the_hypergradient_agrees_with_finite_differences(self, make, x64):
        target = jnp.array([1.0, -2.0, 0.5])

        def loss(x):
            return jnp.sum((x - target) ** 2)

        def after_five_steps(rate):
            tx = make(rate)
            x = jnp.zeros(3)
            state = tx.init(x)
            for _ in range(5):
                updates, state = tx.update(jax.grad(loss)(x), state, x)
                x = gradtx.apply_updates(x, updates)
            return loss(x)

        rate, h = jnp.array(0.05), 1e-6
        slope = jax.jit(jax.grad(after_five_steps))(rate)
        expected = (after_five_steps(rate + h) - after_five_steps(rate - h)) / (2 * h)
        np.testing.assert_allclose(slope, expected, rtol=1e-7)  # h² = 1e-12, rounding 1e-16 / h = 1e-10

    def test_an_optimizer_may_be_a_pytree_argument_of_jit(self):
        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(tx, state):
            return tx.update(GRADS, state)[0]

        for rate in (0.1, 0.2):
            tx = gradtx.sgd(jnp.array(rate))
            np.testing.assert_allclose(step(tx, tx.init(PARAMS))["w"], -rate * GRADS["w"], rtol=1e-6)

    def test_and_a_static_one(self):
        @functools.partial(jax.jit, static_argnums=0)
        @chex.assert_max_traces(n=1)
        def step(tx, state):
            return tx.update(GRADS, state)[0]

        for _ in range(3):
            tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))
            step(tx, tx.init(PARAMS))


# Precision.


class TestPrecision:
    @pytest.mark.parametrize("make", [gradtx.adam, gradtx.amsgrad, lambda rate: gradtx.adamw(rate, weight_decay=0.0)])
    def test_bfloat16_moves_like_float32(self, make):
        """A second moment in bfloat16 stalls at half its value, and the parameter with it."""
        full, half = jnp.ones(1), jnp.ones(1, jnp.bfloat16)
        state_full, state_half = make(0.125).init(full), make(0.125).init(half)
        for _ in range(300):
            updates, state_full = make(0.125).update(jnp.ones(1), state_full, full)
            half_updates, state_half = make(0.125).update(jnp.ones(1, jnp.bfloat16), state_half, half)
            np.testing.assert_array_equal(half_updates, updates.astype(jnp.bfloat16))
        chex.assert_trees_all_equal(state_full, state_half)

    def test_constants_are_exact_in_float32(self):
        """1e-6 from step 1: 1 − 0.999 formed in float32 is wrong by 1.3e-5; what is left is float32's rounding."""
        grads = np.random.default_rng(0).normal(size=(25, 50))
        tx, params = gradtx.adam(0.1), jnp.zeros(50)
        state = tx.init(params)
        for grad, expected in zip(grads, map(Adam(0.1), np.float64(np.float32(grads))), strict=True):
            updates, state = tx.update(jnp.asarray(grad, jnp.float32), state, params)
            np.testing.assert_allclose(updates, expected, rtol=1e-6, atol=1e-8)  # atol: m crosses 0

    def test_double_precision_is_double_precision(self, x64):
        grads = np.random.default_rng(1).normal(size=(25, 50))
        tx, params = gradtx.adam(0.1), jnp.zeros(50)
        state = tx.init(params)
        for grad, expected in zip(grads, map(Adam(0.1), grads), strict=True):
            updates, state = tx.update(jnp.asarray(grad), state, params)
            assert updates.dtype == jnp.float64
            np.testing.assert_allclose(updates, expected, rtol=1e-14, atol=1e-15)

    def test_a_schedule_in_double_precision(self, x64):
        tx = gradtx.sgd(gradtx.exponential_decay(0.1, 10, 0.5))
        state = tx.init(jnp.zeros(()))
        for t in range(5):
            updates, state = tx.update(jnp.ones(()), state)
            assert float(updates) == pytest.approx(-0.1 * 0.5 ** (t / 10), rel=1e-14)


NORMS = {
    "float16, 512": (jnp.full((64, 64), 8.0, jnp.float16), 512.0),
    "float16, beyond its range": (jnp.full(10_000, 60_000.0, jnp.float16), 6e6),
    "bfloat16, one large leaf": (jnp.ones(2_000_000, jnp.bfloat16), 2_000_000**0.5),
    "bfloat16, many leaves": ([jnp.ones(1000, jnp.bfloat16)] * 200, 200_000**0.5),
    "mixed dtypes": ([jnp.full(9, 1.0, jnp.bfloat16), jnp.full(16, 1.0, jnp.float16), jnp.ones(11)], 6.0),
    "large": ([jnp.array([3e20]), jnp.array([-4e20])], 5e20),
    "very large": ([jnp.array([3e37]), jnp.array([-4e37])], 5e37),
    "small": ([jnp.array([3e-30]), jnp.array([4e-30])], 5e-30),
    "large beside small": ([jnp.array([1e30]), jnp.array([1e-30])], 1e30),
    "zero": (jnp.zeros(3), 0.0),
    "complex": (jnp.array([3 + 4j, 0j], jnp.complex64), 5.0),
    "complex, large": (jnp.array([3e30 + 4e30j], jnp.complex64), 5e30),
    "scalar": (jnp.array(-2.0), 2.0),
    "empty leaf": ([jnp.zeros((0, 3)), jnp.array([2.0])], 2.0),
    "empty tree": ({}, 0.0),
}


class TestNorms:
    @pytest.mark.parametrize("name", NORMS)
    def test_norm(self, name):
        self.check_norm(jax.jit(norms.norm), name)

    @pytest.mark.parametrize("name", helpers.every_other(NORMS))
    def test_norm_outside_jit(self, name):
        self.check_norm(norms.norm, name)

    def check_norm(self, function, name):
        leaves, expected = NORMS[name]
        norm = function(leaves)
        assert norm.dtype == jnp.float32
        assert float(norm) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_norms_with_a_bad_leaf(self, bad):
        leaves = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "bad": jnp.array([1.0, bad])}
        norm, finite = norms.norm_and_finite_norm(leaves)
        assert not np.isfinite(norm)
        assert float(finite) == 5.0
        assert float(norms.finite_norm(leaves)) == 5.0

    @pytest.mark.parametrize("total", [norms.total, norms.total_of_slot])
    def test_a_total_leaves_out_what_is_not_finite(self, total):
        """Half precision is added up in the dtype asked for, and complex leaves have the formula's real values."""
        leaves = {"a": jnp.full(4096, 16.0, jnp.float16), "bad": jnp.array([1.0, np.nan]), "c": jnp.array([3 + 4j])}
        got = jax.jit(lambda tree: total(lambda x, y: jnp.abs(x) * jnp.abs(y), jnp.float32, tree, tree))(leaves)
        assert got.dtype == jnp.float32
        assert float(got) == 4096 * 256 + 25
        assert float(total(jnp.abs, jnp.float32, {})) == 0

    def test_the_derivative(self):
        slopes = jax.grad(lambda x: norms.norm(x))({"a": jnp.array([3.0]), "b": jnp.array([-4.0])})
        np.testing.assert_allclose([slopes["a"][0], slopes["b"][0]], [0.6, -0.8], rtol=1e-6)
        np.testing.assert_array_equal(jax.grad(norms.norm)(jnp.zeros(3)), 0)

    @pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
    def test_clipping_a_complex_tree(self, max_norm):
        grads = {"z": jnp.array([3j, 0j], jnp.complex64), "x": jnp.array([4.0])}
        updates, state = run(gradtx.clip_by_global_norm(max_norm), params=grads, grads=grads)
        factor = min(1.0, max_norm / 5)
        np.testing.assert_allclose(updates["z"], factor * grads["z"], rtol=1e-6)
        np.testing.assert_allclose(updates["x"], factor * grads["x"], rtol=1e-6)
        assert (float(state.grad_norm), int(state.clipped)) == (5.0, int(max_norm < 5))

    def test_a_gradient_at_the_bound_is_left_alone(self):
        updates, state = run(gradtx.clip_by_global_norm(5.0), params=jnp.zeros(2), grads=jnp.array([3.0, 4.0]))
        np.testing.assert_array_equal(updates, [3.0, 4.0])
        assert int(state.clipped) == 0


# Values: equality, hash, repr, pickle, copies.


def half(count):
    return 0.5


def another_half(count):
    return 0.5


def init_nothing(params):
    return ()


def update_sign(updates, state, params=None):
    return jax.tree.map(jnp.sign, updates), state


CATALOGUE = [
    gradtx.adam(1e-3),
    gradtx.adam(gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100), mu_dtype="bfloat16"),
    gradtx.adam(jnp.array(0.25)),
    gradtx.adamw(1e-3, weight_decay=0.1, mask={"w": True, "b": [False, True]}),
    gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.chain(gradtx.trace(0.9), gradtx.scale(-1e-3))),
    gradtx.named_chain(("clip", gradtx.clip(1.0)), ("sgd", gradtx.sgd(0.1, momentum=0.9, nesterov=True))),
    gradtx.accumulate(gradtx.masked(gradtx.lion(1e-4), {"w": True, "b": False}), 4),
    gradtx.chain(),
    gradtx.identity(),
    gradtx.join_schedules([gradtx.linear_schedule(0.0, 1.0, 5), gradtx.constant_schedule(1.0)], [5]),
    gradtx.piecewise_constant_schedule(1.0, {3: 0.5, 7: 0.1}),
]
each = pytest.mark.parametrize("value", CATALOGUE, ids=lambda value: type(value).__name__)


class TestValues:
    @each
    def test_repr_evaluates_back(self, value):
        names = vars(gradtx) | {"jnp": jnp}
        assert eval(repr(value), names) == value

    @each
    def test_copies_are_equal(self, value):
        for twin in (
            pickle.loads(pickle.dumps(value)),
            copy.copy(value),
            copy.deepcopy(value),
            value.replace(),
            gradtx.from_config(json.loads(json.dumps(gradtx.to_config(value)))),
            jax.tree.unflatten(jax.tree.structure(value), jax.tree.leaves(value)),
        ):
            assert twin == value
            assert hash(twin) == hash(value)
            assert repr(twin) == repr(value)

    @each
    def test_a_value_equals_nothing_else(self, value):
        assert value != repr(value)
        assert sum(value == other for other in CATALOGUE) == 1

    def test_every_kind_of_number_is_the_same_number(self):
        assert gradtx.adam(1) == gradtx.adam(1.0) == gradtx.adam(np.float64(1))
        assert hash(gradtx.adam(1)) == hash(gradtx.adam(1.0))
        assert repr(gradtx.adam(1)) == "adam(1.0)"
        assert repr(gradtx.adam(1e-3, 0.9, b2=0.999)) == "adam(0.001)"

    def test_arrays_are_equal_by_value_and_dtype_but_not_to_numbers(self):
        one = gradtx.adam(jnp.array(0.5))
        assert one == gradtx.adam(jnp.array(0.5))
        assert hash(one) == hash(gradtx.adam(jnp.array(0.5)))
        assert one != gradtx.adam(jnp.array(0.25))
        assert one != gradtx.adam(jnp.array(0.5, jnp.bfloat16))
        assert one != gradtx.adam(0.5)

    def test_functions_are_equal_by_identity(self):
        assert gradtx.adam(half) == gradtx.adam(half)
        assert gradtx.adam(half) != gradtx.adam(another_half)
        assert gradtx.adam(half) != gradtx.adam(0.5)

    def test_kinds_differ_though_their_numbers_agree(self):
        assert gradtx.clip(1.0) != gradtx.clip_by_norm(1.0)
        assert gradtx.chain(gradtx.clip(1.0)) != gradtx.clip(1.0)

    def test_replace(self):
        tx = gradtx.adam(1e-3)
        assert tx.replace(b1=0.8) == gradtx.adam(1e-3, b1=0.8)
        assert tx == gradtx.adam(1e-3)
        assert tx.replace(b1=0.8).expanded != tx.expanded

    def test_a_used_value_pickles_like_a_fresh_one(self):
        tx = gradtx.adam(half)
        fresh = pickle.dumps(tx)
        run(tx)
        assert pickle.dumps(tx) == fresh

    def test_a_short_chain_prints_on_one_line(self):
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
        assert repr(tx) == "chain(clip_by_global_norm(1.0), adam(0.001))"

    def test_a_long_chain_prints_one_stage_per_line(self):
        tx = gradtx.chain(
            gradtx.clip_by_global_norm(1.0),
            gradtx.masked(gradtx.add_decayed_weights(0.01), {"bias": False, "kernel": True}),
            gradtx.chain(gradtx.scale_by_adam(b2=0.95), gradtx.scale_by_learning_rate(0.001)),
        )
        assert repr(tx) == (
            "chain(\n"
            "    clip_by_global_norm(1.0),\n"
            "    masked(add_decayed_weights(weight_decay=0.01), {'bias': False, 'kernel': True}),\n"
            "    chain(scale_by_adam(b2=0.95), scale_by_learning_rate(0.001)),\n"
            ")"
        )
        assert eval(repr(tx), vars(gradtx)) == tx
        assert max(map(len, repr(gradtx.chain(tx, tx)).splitlines())) <= 92

    def test_a_traced_hyper_parameter_prints(self):
        printed = []
        jax.jit(lambda rate: printed.append(repr(gradtx.adam(rate))) or rate)(0.1)
        assert printed == ["adam(<traced float32[]>)"]

    def test_as_dict_keys_and_in_sets(self):
        assert len({gradtx.adam(1.0), gradtx.adam(1), gradtx.adam(2.0), gradtx.adam(half)}) == 3


# Configs.

FROZEN = """
{"format": 1, "name": "chain", "stages": [
    {"name": "clip_by_global_norm", "max_norm": 1.0},
    {"name": "masked",
     "inner": {"name": "add_decayed_weights", "weight_decay": 0.01, "mask": null},
     "mask": {"dict": [["w", true], ["b", false]]}},
    {"name": "adam",
     "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.001, "decay_steps": 100, "alpha": 0.0,
                       "exponent": 1.0},
     "b1": {"array": 0.5, "dtype": "float32"}, "b2": 0.999, "eps": 1e-08, "eps_root": 0.0, "mu_dtype": "bfloat16",
     "nesterov": false}
]}
"""


class TestConfigs:
    def test_the_format_is_for_ever(self):
        """Never change the string: a config that this version writes must be read by all later ones."""
        tx = gradtx.chain(
            gradtx.clip_by_global_norm(1.0),
            gradtx.masked(gradtx.add_decayed_weights(0.01), {"w": True, "b": False}),
            gradtx.adam(gradtx.cosine_decay_schedule(0.001, 100), b1=jnp.array(0.5), mu_dtype="bfloat16"),
        )
        assert gradtx.from_config(json.loads(FROZEN)) == tx

    def test_what_is_written_is_strict_json(self):
        for value in CATALOGUE:
            config = gradtx.to_config(value)
            assert config["format"] == 1
            assert json.loads(json.dumps(config, allow_nan=False)) == config

    def test_defaults_may_be_left_out(self):
        assert gradtx.from_config({"name": "adam", "learning_rate": 0.1}) == gradtx.adam(0.1)

    def test_reading_does_not_change_the_config(self):
        config = gradtx.to_config(CATALOGUE[4])
        before = copy.deepcopy(config)
        gradtx.from_config(config)
        assert config == before

    @pytest.mark.parametrize("name", [None, "test_core.linear_up"])
    def test_a_registered_function(self, name):
        def linear_up(count):
            return 0.1 * count

        gradtx.register(linear_up, name)
        for tx in (gradtx.sgd(linear_up), gradtx.chain(gradtx.scale_by_schedule(linear_up))):
            assert gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx)))) == tx

    def test_two_registered_functions_make_a_transformation_with_a_config(self):
        gradtx.register(init_nothing)
        gradtx.register(update_sign)
        tx = gradtx.GradientTransformation(init_nothing, update_sign)
        assert gradtx.from_config(gradtx.to_config(tx)) == tx

    def test_a_definition_run_again_replaces_its_earlier_self(self):
        def define():
            @gradtx.register
            def defined_again(count):
                return 0.1

            return defined_again

        first, second = define(), define()
        assert gradtx.registry()["defined_again"] is second is not first

    def test_the_registry_is_a_copy(self):
        gradtx.registry().clear()
        assert "adam" in gradtx.registry()
        assert list(gradtx.registry()) == sorted(gradtx.registry())


# Your own transformation.


class LastState(NamedTuple):
    count: Array
    last: object


class mean_of_two(gradtx.Leafwise, name="test_core.mean_of_two"):
    """(gₜ + gₜ₋₁) / 2, scaled by the loss."""

    State = LastState

    weight: gradtx.core.hyperparams.Positive = 1.0
    "An overall factor."

    def leaf(self, g, last, *, t, param, loss_weight=1.0):
        return self.weight * loss_weight * (g + last) / 2 + 0 * t * param, g


class needs_temperature(gradtx.GradientTransformation, name="test_core.needs_temperature"):
    """Multiply by an extra argument."""

    def update_fn(self, updates, state, params=None, *, temperature):
        return jax.tree.map(lambda u: temperature * u, updates), state


class TestOwn:
    def test_of_two_functions(self):
        tx = gradtx.GradientTransformation(init_nothing, update_sign)
        assert repr(tx) == "GradientTransformation(init_nothing, update_sign)"
        assert tx == gradtx.GradientTransformation(init_nothing, update_sign)
        assert pickle.loads(pickle.dumps(tx)) == tx
        assert isinstance(tx, gradtx.GradientTransformation)
        chex.assert_trees_all_equal(
            run(gradtx.chain(tx, gradtx.scale(2.0)))[0], jax.tree.map(lambda g: 2 * jnp.sign(g), GRADS)
        )

    def test_of_two_functions_with_a_state_of_any_kind(self):
        def init_fn(params):
            return {"sum": jnp.zeros(()), "steps": 0}

        def update_fn(updates, state, params=None, **extra):
            total = state["sum"] + sum(jnp.sum(u) for u in jax.tree.leaves(updates))
            return updates, {"sum": total, "steps": state["steps"] + 1}

        tx = gradtx.GradientTransformation(init_fn, update_fn)
        _, state = run(tx, 3)
        assert float(state["sum"]) == pytest.approx(3 * 5.0)
        assert int(state["steps"]) == 3

    def test_half_precision_arrives_as_float32(self):
        seen = []

        def update_fn(updates, state, params=None):
            seen.append((updates.dtype, params.dtype))
            return updates * 1.5, state

        tx = gradtx.GradientTransformation(init_nothing, update_fn)
        x = jnp.ones(3, jnp.bfloat16)
        assert tx.update(x, tx.init(x), x)[0].dtype == jnp.bfloat16
        assert set(seen) == {(jnp.dtype("float32"), jnp.dtype("float32"))}

    def test_as_a_formula(self):
        tx = mean_of_two(weight=2.0)
        state = tx.init(PARAMS)
        updates, state = tx.update(GRADS, state, PARAMS)
        chex.assert_trees_all_equal(updates, GRADS)
        updates, state = tx.update(GRADS, state, PARAMS)
        chex.assert_trees_all_equal(updates, jax.tree.map(lambda g: 2 * g, GRADS))
        assert int(state.count) == 2
        with pytest.raises(ValueError, match="weight must lie in"):
            mean_of_two(weight=0.0)

    def test_a_formula_that_needs_parameters_says_so(self):
        tx = mean_of_two()
        with pytest.raises(ValueError, match="mean_of_two needs the parameters"):
            tx.update(GRADS, tx.init(PARAMS))

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda tx: tx,
            lambda tx: gradtx.chain(gradtx.clip(100.0), tx),
            lambda tx: gradtx.chain(gradtx.chain(tx)),
            lambda tx: gradtx.named_chain(("own", tx)),
            lambda tx: gradtx.masked(tx, {"w": True, "b": True}),
            lambda tx: gradtx.accumulate(tx, 1),
            lambda tx: gradtx.accumulate(gradtx.masked(gradtx.chain(tx), {"w": True, "b": True}), 1),
        ],
    )
    def test_extra_arguments_flow_through_everything(self, wrap):
        tx = wrap(needs_temperature())
        chex.assert_trees_all_equal(run(tx, temperature=jnp.array(3.0))[0], jax.tree.map(lambda g: 3 * g, GRADS))
        chex.assert_trees_all_equal(run(tx, temperature=3.0, value=1.0)[0], jax.tree.map(lambda g: 3 * g, GRADS))
        tx = wrap(mean_of_two())
        chex.assert_trees_all_equal(run(tx, loss_weight=4.0)[0], jax.tree.map(lambda g: 2 * g, GRADS))
        chex.assert_trees_all_equal(run(tx)[0], jax.tree.map(lambda g: 0.5 * g, GRADS))

    def test_extras_say_what_an_update_needs(self):
        tx = gradtx.chain(gradtx.adam(0.1), needs_temperature(), mean_of_two())
        assert tx.extras.required == {"temperature"}
        assert tx.extras.known == {"temperature", "loss_weight"}


# apply_updates.


class TestApplyUpdates:
    def test_the_dtype_is_the_parameters(self):
        for dtype in ("float32", "bfloat16", "float16"):
            params = {"w": jnp.ones(2, dtype)}
            for update_dtype in ("float32", "bfloat16", "float16"):
                assert gradtx.apply_updates(params, {"w": jnp.ones(2, update_dtype)})["w"].dtype == dtype

    def test_it_rounds_once(self):
        """1 + 2⁻⁸ + 2⁻²⁰ lies just above a tie of bfloat16; with the update rounded first it would lie on the tie."""
        update = jnp.array([2.0**-8 + 2.0**-20])
        params = jnp.ones(1, jnp.bfloat16)
        assert float(gradtx.apply_updates(params, update)[0]) == 1 + 2.0**-7
        assert float(gradtx.apply_updates(params, update.astype(jnp.bfloat16))[0]) == 1.0

    def test_none_and_float0_leave_a_parameter_alone(self):
        params = {"w": jnp.ones(2), "n": jnp.array(3), "key": jax.random.key(0), "none": None}
        updates = {"w": None, "n": np.zeros((), jax.dtypes.float0), "key": None, "none": None}
        after = gradtx.apply_updates(params, updates)
        assert all(after[name] is params[name] for name in params)

    def test_under_jit(self):
        chex.assert_trees_all_equal(jax.jit(gradtx.apply_updates)(PARAMS, GRADS), gradtx.apply_updates(PARAMS, GRADS))


class TestStep:
    """`gradtx.step`: update and apply in one program."""

    TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))

    @staticmethod
    def two_calls(tx, grads, state, params, **extra):
        updates, state = tx.update(grads, state, params, **extra)
        return gradtx.apply_updates(params, updates), state

    def test_it_is_the_two_calls(self):
        expected = self.two_calls(self.TX, GRADS, self.TX.init(PARAMS), PARAMS)
        params = jax.tree.map(jnp.copy, PARAMS)
        inside = jax.jit(gradtx.step, static_argnums=0)(self.TX, GRADS, self.TX.init(params), params)
        chex.assert_trees_all_close(inside, expected, rtol=1e-6)
        assert not any(x.is_deleted() for x in jax.tree.leaves(params))
        chex.assert_trees_all_close(gradtx.step(self.TX, GRADS, self.TX.init(params), params), expected, rtol=1e-6)

    def test_it_donates_parameters_and_state_but_not_gradients(self):
        params, state = jax.tree.map(jnp.copy, PARAMS), self.TX.init(PARAMS)
        new = gradtx.step(self.TX, GRADS, state, params)
        assert all(x.is_deleted() for x in jax.tree.leaves((params, state[1][0].mu, state[1][0].nu)))
        assert not any(x.is_deleted() for x in jax.tree.leaves((new, GRADS)))

    def test_it_compiles_once_whatever_the_rate(self):
        params, state = jax.tree.map(jnp.copy, PARAMS), gradtx.sgd(0.1).init(PARAMS)
        params, state = gradtx.step(gradtx.sgd(0.1), GRADS, state, params)
        with helpers.compilations() as compiled:
            for i in range(5):
                params, state = gradtx.step(gradtx.sgd(0.1 / (i + 2)), GRADS, state, params)
        assert compiled == [0]

    def test_extra_arguments(self):
        tx = gradtx.polyak_sgd(0.5)
        expected = self.two_calls(tx, GRADS, tx.init(PARAMS), PARAMS, value=jnp.asarray(0.3))
        params = jax.tree.map(jnp.copy, PARAMS)
        chex.assert_trees_all_close(gradtx.step(tx, GRADS, tx.init(params), params, value=0.3), expected, rtol=1e-6)

        def loss(params):
            return sum(jnp.sum(x * x) for x in jax.tree.leaves(params))

        tx, extra = gradtx.lbfgs(), {"value": loss(PARAMS), "grad": jax.grad(loss)(PARAMS), "value_fn": loss}
        new, _ = gradtx.step(tx, extra["grad"], tx.init(PARAMS), PARAMS, **extra)
        assert float(loss(new)) < float(loss(PARAMS))

    def test_another_library(self):
        tx, params = optax.sgd(0.1, momentum=0.9), jax.tree.map(jnp.copy, PARAMS)
        updates, expected = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        new, state = gradtx.step(tx, GRADS, tx.init(params), params)
        chex.assert_trees_all_close((new, state), (gradtx.apply_updates(PARAMS, updates), expected), rtol=1e-6)

    def test_what_is_refused(self):
        state = self.TX.init(PARAMS)
        with pytest.raises(TypeError, match="step: tx is the class adam: call it"):
            gradtx.step(gradtx.adam, GRADS, state, PARAMS)
        with pytest.raises(TypeError, match="chain: nothing here takes the extra argument 'vlaue'; did you mean value"):
            gradtx.step(self.TX, GRADS, state, PARAMS, vlaue=1.0)
        with pytest.raises(ValueError, match="chain: updates: missing"):
            gradtx.step(self.TX, {}, state, PARAMS)


# Buffers and devices.


RATE = jnp.asarray(0.1, jnp.float32)


WRAPPERS = {
    "bare": lambda tx: tx,
    "if_finite": gradtx.if_finite,
    "dynamic_loss_scale": gradtx.dynamic_loss_scale,
    "accumulate": lambda tx: gradtx.accumulate(tx, 2),
    "params_ema": lambda tx: gradtx.params_ema(tx, 0.9),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("rate", [0.1, RATE, gradtx.linear_schedule(0.1, 0.0, 5)], ids=["number", "array", "schedule"])
@pytest.mark.parametrize("inject", [lambda tx: tx, gradtx.inject_hyperparams], ids=["plain", "injected"])
def test_a_fresh_state_shares_no_buffer(wrap, rate, inject):
    """A new state shares no buffer with parameters, given arrays or itself, so that it may be donated."""
    tx = wrap(inject(gradtx.adam(rate)))
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    leaves = [leaf for leaf in jax.tree.leaves((state, params, RATE)) if leaf.size]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
    donated = jax.jit(tx.update, donate_argnums=(1, 2))
    donated(jax.tree.map(jnp.copy, params), state, params)
    assert float(RATE) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.sgd(0.1),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)),
        gradtx.accumulate(gradtx.sgd(0.1), 2),
    ],
    ids=repr,
)
def test_a_state_of_each_device_goes_through_a_scan(tx):
    """In `shard_map`, the new state varies over the same mesh axes as the old one."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("x",))
    spec = jax.sharding.PartitionSpec("x")
    params = jnp.arange(8.0).reshape(2, 4)
    state = jax.tree.map(lambda x: jnp.stack([x, x]), tx.init(params[0]))

    def steps(params, state):
        own, params = jax.tree.map(lambda x: x[0], state), params[0]
        own, _ = jax.lax.scan(lambda s, _: (tx.update(params, s, params)[1], None), own, length=3)
        return jax.tree.map(lambda x: x[None], own)

    together = helpers.shard_map(steps, mesh=mesh, in_specs=spec, out_specs=spec)(params, state)
    for i in range(2):
        alone = tx.init(params[i])
        for _ in range(3):
            _, alone = tx.update(params[i], alone, params[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-6), together, alone)


def test_fields_of_other_types_are_other_values():
    class shift(gradtx.Leafwise, name="test_core.shift"):
        by: object = None

        def leaf(self, g):
            return g + 1 if self.by is True else g + 2

    one, true = shift(1), shift(True)
    assert one != true
    grads = jnp.zeros(1)
    assert float(one.update(grads, one.init(grads))[0][0]) == 2
    assert float(true.update(grads, true.init(grads))[0][0]) == 1
    with pytest.raises(TypeError, match=r"shift: by is a mutable ndarray: give a JAX array or a tuple"):
        shift(np.ones(3))


def test_a_leafwise_that_does_not_fit_its_state_is_refused_where_it_is_defined():
    class OneSlot(NamedTuple):
        slot: Array

    with pytest.raises(TypeError, match=r"odd: leaf must take, after g, one parameter for each slot of OneSlot"):

        class odd(gradtx.Leafwise, name="test_core.odd"):
            State = OneSlot

            def leaf(self, g):
                return g

    with pytest.raises(TypeError, match="timeless: leaf asks for t: add the field count to OneSlot"):

        class timeless(gradtx.Leafwise, name="test_core.timeless"):
            State = OneSlot

            def leaf(self, g, slot, *, t):
                return g * t, slot

    with pytest.raises(TypeError, match="plain: State must be a NamedTuple"):

        class plain(gradtx.Leafwise, name="test_core.plain"):
            State = dict

            def leaf(self, g):
                return g
