"""What each wrapper promises beyond what every transformation does."""

import functools

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_close, every_other, extra_for, transformations

import gradtx as gx
from gradtx.core.compose import is_elementwise

PARAMS = {"b": jnp.array([0.5, -1.0, 2.0]), "w": jnp.arange(12, dtype=jnp.float32).reshape(4, 3) / 7 - 0.5}


def grads_at(step, scale=1.0):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), PARAMS)


def spoilt(grads, value=jnp.nan):
    return grads | {"b": grads["b"].at[1].set(value)}


def train(tx, steps, params=PARAMS, grads=grads_at, **extra):
    """Parameters after each step, and the last state."""
    state, update, path = tx.init(params), jax.jit(tx.update), []
    for step in range(steps):
        updates, state = update(grads(step), state, params, **extra)
        params = gx.apply_updates(params, updates)
        path.append(params)
    return path, state


def assert_trees(got, want, rtol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=rtol)


def temporaries(tx, dtype=jnp.float32, **extra):
    """Bytes per parameter that one donated, jitted step needs besides its inputs and outputs."""
    size = 1 << 16
    params = jnp.ones((256, size // 256), dtype)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra)
        return gx.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params)
    return lowered.compile(helpers.AS_BY_DEFAULT).memory_analysis().temp_size_in_bytes / size


def bytes_per_param(tree, size):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / size


class TestAccumulate:
    def test_is_the_step_of_the_mean(self):
        tx = gx.accumulate(gx.adam(0.1), 3)
        path, state = train(tx, 6)
        means = [jax.tree.map(lambda *g: sum(g) / 3, *map(grads_at, range(i, i + 3))) for i in (0, 3)]
        expected, _ = train(gx.adam(0.1), 2, grads=lambda step: means[step])
        assert_trees(path[1], PARAMS)
        assert_trees(path[2], expected[0])
        assert_trees(path[5], expected[1])
        assert int(state.gradient_step) == 2
        assert int(state.mini_step) == 0
        assert_trees(state.acc_grads, jax.tree.map(jnp.zeros_like, PARAMS))

    def test_sum(self):
        path, _ = train(gx.accumulate(gx.sgd(1.0), 2, use_grad_mean=False), 2)
        assert_trees(path[1], jax.tree.map(lambda p, a, b: p - a - b, PARAMS, grads_at(0), grads_at(1)))

    def test_schedules_count_windows(self):
        tx = gx.accumulate(gx.sgd(lambda count: jnp.where(count == 0, 1.0, 10.0)), 2)
        path, _ = train(tx, 4, grads=lambda step: grads_at(0))
        first = jax.tree.map(lambda p, g: p - g, PARAMS, grads_at(0))
        assert_trees(path[1], first)
        assert_trees(path[3], jax.tree.map(lambda p, g: p - 10 * g, first, grads_at(0)))

    def test_has_updated(self):
        tx = gx.accumulate(gx.sgd(1.0), 2)
        state, seen = tx.init(PARAMS), []
        for step in range(4):
            _, state = tx.update(grads_at(step), state, PARAMS)
            seen.append(bool(tx.has_updated(state)))
        assert seen == [False, True, False, True]

    def test_window_of_one_is_the_inner_transformation(self):
        tx = gx.accumulate(gx.adam(0.1), 1)
        path, state = train(tx, 3)
        expected, inner_state = train(gx.adam(0.1), 3)
        assert_trees(path, expected, rtol=0)
        assert_trees(state.inner_opt_state, inner_state, rtol=0)
        assert state.acc_grads == ()
        assert int(state.gradient_step) == 3
        assert bool(tx.has_updated(state))

    @pytest.mark.parametrize("k", [1, 3])
    @pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
    def test_skips_what_is_not_finite(self, k, bad):
        tx = gx.accumulate(gx.adam(0.1), k, should_skip_update_fn=gx.skip_not_finite)
        good = iter(range(6))
        grads = [spoilt(grads_at(9), bad) if i in (1, 4) else grads_at(next(good)) for i in range(8)]
        path, state = train(tx, 8, grads=lambda step: grads[step])
        expected, _ = train(gx.accumulate(gx.adam(0.1), k), 6)
        assert_trees(path[-1], expected[-1])
        assert int(state.gradient_step) == 6 // k
        _, state = tx.update(grads[1], state, PARAMS)
        assert bool(state.skip_state["should_skip"])
        assert int(state.skip_state["num_not_finite"]) == 1

    def test_skips_what_is_large(self):
        spelt = functools.partial(gx.skip_large_updates, max_squared_norm=100.0)
        tx = gx.accumulate(gx.sgd(1.0), 2, should_skip_update_fn=spelt)
        assert tx == gx.accumulate(gx.sgd(1.0), 2, should_skip_update_fn=gx.skip_large_updates(100.0))
        grads = [grads_at(0), grads_at(1, 1e6), spoilt(grads_at(2)), grads_at(3)]
        path, state = train(tx, 4, grads=lambda step: grads[step])
        assert_trees(path[3], jax.tree.map(lambda p, a, b: p - (a + b) / 2, PARAMS, grads[0], grads[3]))
        assert not bool(state.skip_state["should_skip"])
        squares = sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads[3]))
        np.testing.assert_allclose(float(state.skip_state["norm_squared"]), squares, rtol=1e-6)

    def test_skip_function_must_give_a_bool(self):
        tx = gx.accumulate(gx.sgd(1.0), 2, should_skip_update_fn=lambda g, step, p: (jnp.ones(2), ()))
        with pytest.raises(ValueError, match=r"should_skip_update_fn must give a scalar bool.*float32\[2\]"):
            tx.init(PARAMS)

    @pytest.mark.parametrize("given", [0, "yes", gx.skip_large_updates])
    def test_skip_function_must_be_a_function(self, given):
        with pytest.raises(TypeError, match="accumulate: should_skip_update_fn must be a function"):
            gx.accumulate(gx.sgd(1.0), 2, should_skip_update_fn=given)

    def test_flush(self):
        tx = gx.accumulate(gx.adam(0.1), 4)
        path, state = train(tx, 2)
        assert_trees(path[-1], PARAMS)
        updates, state = tx.flush(state, PARAMS)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, grads_at(0), grads_at(1))
        expected, inner_state = train(gx.adam(0.1), 1, grads=lambda step: mean)
        assert_trees(gx.apply_updates(PARAMS, updates), expected[0])
        assert_trees(state.inner_opt_state, inner_state)
        assert (int(state.mini_step), int(state.gradient_step)) == (0, 1)
        again, unchanged = jax.jit(tx.flush)(state, PARAMS)
        assert_trees(again, jax.tree.map(jnp.zeros_like, PARAMS), rtol=0)
        assert_trees(unchanged, state, rtol=0)

    def test_flush_without_accumulator_does_nothing(self):
        tx = gx.accumulate(gx.sgd(0.1), 1)
        _, state = train(tx, 2)
        updates, unchanged = tx.flush(state, PARAMS)
        assert_trees(updates, jax.tree.map(jnp.zeros_like, PARAMS), rtol=0)
        assert_trees(unchanged, state, rtol=0)

    def test_optax_spelling(self):
        tx = gx.MultiSteps(gx.sgd(0.1), every_k_schedule=2, use_grad_mean=False)
        assert tx.gradient_transformation() == gx.accumulate(gx.sgd(0.1), 2, use_grad_mean=False)

    def test_accumulator_dtype(self):
        tx = gx.accumulate(gx.sgd(1.0), 2, accumulator_dtype="bfloat16")
        assert tx.init(PARAMS).acc_grads["w"].dtype == jnp.bfloat16
        path, _ = train(tx, 2)
        expected, _ = train(gx.accumulate(gx.sgd(1.0), 2), 2)
        assert_trees(path[1], expected[1], rtol=2e-2)
        assert path[1]["w"].dtype == jnp.float32

    def test_bfloat16_gradients_are_summed_in_float32(self):
        params = jnp.zeros(1, jnp.bfloat16)
        tx = gx.accumulate(gx.sgd(1.0), 300)
        state, update = tx.init(params), jax.jit(tx.update)
        for step in range(299):
            _, state = update(jnp.array([1.0 if step % 2 else 1.0078125], jnp.bfloat16), state, params)
        np.testing.assert_allclose(float(state.acc_grads[0]), 1 + 0.0078125 * 150 / 299, rtol=1e-6)

    @helpers.of_todays_xla
    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
    def test_makes_no_parameter_sized_temporary(self, dtype):
        assert temporaries(gx.accumulate(gx.adam(0.1), 4), dtype) < 0.1
        assert temporaries(gx.accumulate(gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(0.1)), 4), dtype) < 0.1

    def test_window_of_one_costs_nothing(self):
        params = jnp.ones(1000)
        plain, wrapped = gx.adam(0.1), gx.accumulate(gx.adam(0.1), 1)
        assert bytes_per_param(wrapped.init(params), 1000) - bytes_per_param(plain.init(params), 1000) < 0.01
        assert temporaries(wrapped) < 0.1


class TestIfFinite:
    @pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
    def test_leaves_out_for_ever_and_counts(self, bad):
        tx = gx.if_finite(gx.adam(0.1))
        path, state = train(tx, 40, grads=lambda step: grads_at(0) if step == 0 else spoilt(grads_at(step), bad))
        expected, inner_state = train(gx.adam(0.1), 1)
        assert_trees(path[-1], expected[0], rtol=0)
        assert_trees(state.inner_state, inner_state, rtol=0)
        assert (int(state.notfinite_count), int(state.total_notfinite)) == (39, 39)
        assert not bool(state.last_finite)
        _, state = tx.update(grads_at(1), state, path[-1])
        assert (int(state.notfinite_count), int(state.total_notfinite)) == (0, 39)
        assert bool(state.last_finite)

    def test_stops_at_the_limit_and_shows_it(self):
        tx = gx.apply_if_finite(gx.sgd(1.0), 3)
        within, state = train(tx, 5, grads=lambda step: grads_at(0) if step in (0, 4) else spoilt(grads_at(0)))
        assert_trees(within[-1], jax.tree.map(lambda p, g: p - 2 * g, PARAMS, grads_at(0)))
        assert int(state.notfinite_count) == 0
        beyond, state = train(tx, 9, grads=lambda step: spoilt(grads_at(0)) if 1 <= step <= 4 else grads_at(0))
        assert_trees(beyond[-1], jax.tree.map(lambda p, g: p - g, PARAMS, grads_at(0)))
        assert (int(state.notfinite_count), int(state.total_notfinite)) == (4, 4)
        go_on = state._replace(notfinite_count=jnp.zeros((), jnp.int32))
        updates, _ = tx.update(grads_at(0), go_on, PARAMS)
        assert_trees(updates, jax.tree.map(jnp.negative, grads_at(0)))

    def test_mixed_precision(self):
        """bfloat16 parameters with float32 gradients, in a scan."""
        params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
        tx = gx.if_finite(gx.adamw(0.1))
        grads = jax.tree.map(lambda *g: jnp.stack(g), grads_at(0), spoilt(grads_at(1)), grads_at(2))

        def step(carry, grads):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (gx.apply_updates(carry[0], updates), state), None

        (moved, state), _ = jax.lax.scan(step, (params, tx.init(params)), grads)
        assert int(state.total_notfinite) == 1
        assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(moved))
        chex.assert_tree_all_finite(moved)

    def test_other_leaves_pass(self):
        params = {"step": jnp.array(3), "w": jnp.ones(2)}
        tx = gx.if_finite(gx.masked(gx.sgd(1.0), {"step": False, "w": True}))
        grads = {"step": jnp.array(0), "w": jnp.array([1.0, jnp.nan])}
        updates, _ = tx.update(grads, tx.init(params), params)
        assert_trees(updates, {"step": jnp.array(0), "w": jnp.zeros(2)})

    @pytest.mark.parametrize("name", every_other(helpers.optimizers()))
    def test_it_is_the_inner_update_or_nothing(self, name):
        """The state is kept where its slots are computed, in whatever optimizer there is inside."""
        inner = helpers.example(helpers.optimizers()[name])
        tx = gx.if_finite(inner)
        start = tx.init(PARAMS)
        kinds, functions = helpers.extra_kinds(inner, grads_at(0))

        @jax.jit
        def both(grads, state):
            expected = inner.update(grads, state.inner_state, PARAMS, **kinds, **functions)
            return expected, tx.update(grads, state, PARAMS, **kinds, **functions)

        (expected, inner_state), (updates, state) = both(grads_at(0), start)
        assert_close((updates, state.inner_state), (expected, inner_state), rtol=1e-5)
        _, (updates, kept) = both(spoilt(grads_at(1)), state)
        assert_close((updates, kept.inner_state), (jax.tree.map(jnp.zeros_like, updates), state.inner_state))

    def test_derivative_is_finite(self):
        def step(rate, grad):
            tx = gx.if_finite(gx.adam(rate))
            return jnp.sum(tx.update(grad, tx.init(jnp.ones(1)))[0])

        assert float(jax.grad(step)(0.1, jnp.array([jnp.nan]))) == 0
        assert float(jax.grad(step)(0.1, jnp.array([2.0]))) == pytest.approx(-1)


class TestDynamicLossScale:
    def tx(self, **kwargs):
        return gx.dynamic_loss_scale(gx.sgd(1.0), **kwargs)

    def test_unscales(self):
        tx = self.tx(init_scale=1024.0)
        state = tx.init(PARAMS)

        def loss(params):
            return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

        grads = jax.grad(lambda params: gx.scale_loss(state, loss(params)))(PARAMS)
        updates, _ = tx.update(grads, state, PARAMS)
        assert_trees(updates, jax.tree.map(lambda p: -2 * p, PARAMS))

    def test_saves_small_half_precision_gradients(self):
        params = jnp.full(3, 1e-2, jnp.float16)
        tx = gx.dynamic_loss_scale(gx.scale(1.0), init_scale=2.0**15)
        state = tx.init(params)

        def loss(params):
            return jnp.sum(params.astype(jnp.float32) ** 2) * 1e-7

        assert not jnp.any(jax.grad(loss)(params))
        grads = jax.grad(lambda params: gx.scale_loss(state, loss(params)))(params)
        updates, _ = tx.update(grads.astype(jnp.float32), state)
        np.testing.assert_allclose(updates, np.full(3, 2e-9), rtol=1e-2)

    def test_scaled_loss_does_not_overflow(self):
        state = self.tx().init(PARAMS)
        assert float(gx.scale_loss(state, jnp.array(100.0, jnp.float16))) == 100 * 2**15

    def test_falls_to_its_minimum_and_says_so(self):
        tx = self.tx(init_scale=8.0, min_scale=1.0)
        path, state = train(tx, 160, grads=lambda step: spoilt(grads_at(0), jnp.inf))
        assert_trees(path[-1], PARAMS, rtol=0)
        assert float(state.loss_scale) == 1
        assert (int(state.total_notfinite), int(state.exhausted)) == (160, 157)
        updates, state = tx.update(grads_at(0), state, PARAMS)
        assert_trees(updates, jax.tree.map(jnp.negative, grads_at(0)))
        assert int(state.exhausted) == 0

    def test_grows_to_its_maximum(self):
        _, state = train(self.tx(init_scale=4.0, growth_interval=3, max_scale=20.0), 5)
        assert (float(state.loss_scale), int(state.growth_count)) == (8, 2)
        _, state = train(self.tx(init_scale=4.0, growth_interval=3, max_scale=20.0), 30)
        assert float(state.loss_scale) == 20

    def test_overflow_interrupts_growth(self):
        tx = self.tx(init_scale=4.0, growth_interval=3)
        _, state = train(tx, 4, grads=lambda step: spoilt(grads_at(0)) if step == 2 else grads_at(0, 4.0))
        assert (float(state.loss_scale), int(state.growth_count)) == (2, 1)

    def test_scale_loss_finds_the_state(self):
        tx = gx.chain(gx.identity(), gx.accumulate(self.tx(init_scale=16.0), 2))
        assert float(gx.scale_loss(tx.init(PARAMS), 2.0)) == 32
        with pytest.raises(ValueError, match="expected the state of one dynamic_loss_scale, found 0"):
            gx.scale_loss(gx.adam(0.1).init(PARAMS), 1.0)

    @pytest.mark.parametrize(
        "wrong", [{"factor": 1.0}, {"min_scale": 0.0}, {"growth_interval": 0}, {"init_scale": 0.5}]
    )
    def test_bad_arguments(self, wrong):
        with pytest.raises(ValueError, match="dynamic_loss_scale"):
            self.tx(**wrong)


class TestLookahead:
    def test_follows_the_paper(self):
        path, state = train(gx.lookahead(gx.sgd(0.5), 3, 0.25), 7)
        fast = slow = PARAMS
        for step in range(7):
            fast = jax.tree.map(lambda p, g: p - 0.5 * g, fast, grads_at(step))
            if step % 3 == 2:
                slow = fast = jax.tree.map(lambda s, f: s + 0.25 * (f - s), slow, fast)
            assert_trees(path[step], fast)
        assert_trees(state.slow, slow)
        assert_trees(gx.eval_params(state, path[-1]), slow)
        assert int(state.steps_since_sync) == 1

    def test_reset(self):
        _, state = train(gx.lookahead(gx.adam(0.5), 3, 0.25, reset_state=True), 3)
        assert_trees(state.fast_state, gx.adam(0.5).init(PARAMS), rtol=0)

    def test_half_precision_keeps_the_slow_weights(self):
        params = jnp.ones(2, jnp.bfloat16)
        tx = gx.lookahead(gx.sgd(1e-3), 2, 0.5)
        state = tx.init(params)
        for _ in range(8):
            updates, state = tx.update(jnp.ones(2, jnp.bfloat16), state, params)
            params = gx.apply_updates(params, updates)
        assert state.slow.dtype == jnp.float32
        assert float(state.slow[0]) < 1  # the parameters themselves cannot move by so little

    def test_needs_parameters(self):
        tx = gx.lookahead(gx.sgd(1.0), 2, 0.5)
        with pytest.raises(ValueError, match="lookahead needs the parameters"):
            tx.update(PARAMS, tx.init(PARAMS))


class TestMechanize:
    def test_starts_from_the_parameters_of_the_first_update(self):
        """They may have been loaded after `init`; the first updates must not bring the old ones back."""
        tx, loaded = gx.mechanize(gx.sgd(1.0)), jax.tree.map(lambda x: x + 100, PARAMS)
        updates, state = tx.update(grads_at(0), tx.init(PARAMS), loaded)
        assert all(float(jnp.max(jnp.abs(u))) < 1e-3 for u in jax.tree.leaves(updates))
        assert_trees(state.x0, loaded, rtol=0)

    def test_small_steps_of_half_precision_are_not_lost(self):
        """The parameters are the start plus the whole way, so that what was rounded off comes with a later step."""
        params = jnp.ones(2, jnp.bfloat16)
        tx = gx.mechanize(gx.sgd(1.0), s_init=1e-4)
        state = tx.init(params)
        for _ in range(30):
            updates, state = tx.update(jnp.ones(2, jnp.bfloat16), state, params)
            params = gx.apply_updates(params, updates)
        way = jnp.sum(state.s) * state.delta
        assert float(way[0]) < -0.01
        np.testing.assert_allclose(params.astype(jnp.float32), state.x0 + way, rtol=2**-8)

    def test_needs_parameters(self):
        tx = gx.mechanize(gx.sgd(1.0))
        with pytest.raises(ValueError, match="mechanize needs the parameters"):
            tx.update(PARAMS, tx.init(PARAMS))


class TestAverages:
    def test_ema(self):
        path, state = train(gx.params_ema(gx.sgd(0.5), 0.75), 5)
        mean = path[0]
        for params in path[1:]:
            mean = jax.tree.map(lambda m, p: 0.75 * m + 0.25 * p, mean, params)
        assert_trees(state.ema, mean)
        assert_trees(path, train(gx.sgd(0.5), 5)[0], rtol=0)

    def test_debiased_ema(self):
        path, state = train(gx.params_ema(gx.sgd(0.5), 0.75, debias=True), 5)
        weights = 0.75 ** np.arange(4, -1, -1)
        mean = jax.tree.map(lambda *ps: sum(w * p for w, p in zip(weights, ps, strict=True)) / weights.sum(), *path)
        assert_trees(state.ema, mean)

    def test_stochastic_weight_averaging(self):
        tx = gx.params_average(gx.sgd(0.5), start=3, every=2)
        path, state = train(tx, 9)
        assert_trees(state.average, jax.tree.map(lambda *ps: sum(ps) / 3, path[4], path[6], path[8]))
        path, state = train(tx, 4)
        assert_trees(gx.eval_params(state, path[-1]), path[-1])

    def test_polynomial_average(self):
        path, state = train(gx.params_average(gx.sgd(0.5), gamma=8.0), 6)
        mean = path[0]
        for n, params in enumerate(path[1:], start=2):
            mean = jax.tree.map(lambda m, p, n=n: m + 9 / (8 + n) * (p - m), mean, params)
        assert_trees(state.average, mean)

    def test_averages_what_the_rounded_parameters_are(self):
        params = jnp.ones(1, jnp.bfloat16)
        tx = gx.params_average(gx.sgd(1e-3))
        updates, state = tx.update(jnp.ones(1, jnp.bfloat16), tx.init(params), params)
        assert float(gx.apply_updates(params, updates)[0]) == 1
        assert float(state.average[0]) == 1
        assert state.average.dtype == jnp.float32
        assert gx.eval_params(state, params).dtype == jnp.bfloat16

    def test_eval_params_before_the_first_update(self):
        for tx in (gx.params_ema(gx.sgd(1.0), 0.9), gx.params_average(gx.sgd(1.0)), gx.schedule_free_sgd()):
            assert_trees(gx.eval_params(tx.init(PARAMS), PARAMS), PARAMS)

    def test_eval_params_of_several_groups(self):
        tx = gx.partition(
            {"ema": gx.params_ema(gx.sgd(1.0), 0.5), "free": gx.schedule_free_sgd(0.5), "plain": gx.sgd(1.0)},
            {"b": "ema", "v": "plain", "w": "free"},
        )
        params = {"b": jnp.ones(1), "v": jnp.ones(1), "w": jnp.ones(1)}
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params)
            params = gx.apply_updates(params, updates)
        averaged = gx.eval_params(state, params)
        assert float(averaged["v"][0]) == float(params["v"][0]) == 0
        assert float(params["b"][0]) == 0
        assert_trees(averaged["b"], jnp.zeros(1))
        # y: 1 → 0.5 → 0.5 − 0.25 (1 − 0.45) = 0.3625;  x: the mean of z = 0.5 and z = 0.25
        assert_trees(params["w"], jnp.array([0.3625]))
        assert_trees(averaged["w"], jnp.array([0.375]))

    def test_outer_average_is_taken(self):
        path, state = train(gx.params_average(gx.lookahead(gx.sgd(0.5), 2, 0.5)), 4)
        assert_trees(gx.eval_params(state, path[-1]), jax.tree.map(lambda *ps: sum(ps) / 4, *path))

    def test_without_average(self):
        with pytest.raises(ValueError, match="eval_params: nothing in the state averages parameters"):
            gx.eval_params(gx.adam(0.1).init(PARAMS), PARAMS)
        assert gx.eval_params(gx.adam(0.1).init(PARAMS), PARAMS, default=PARAMS) is PARAMS

    def test_two_averages_of_the_same_leaf(self):
        tx = gx.chain(gx.params_ema(gx.sgd(1.0), 0.5), gx.params_average(gx.identity()))
        _, state = train(tx, 1)
        with pytest.raises(ValueError, match="two averages of the same parameters"):
            gx.eval_params(state, PARAMS)

    def test_makes_no_temporary(self):
        assert temporaries(gx.params_ema(gx.adam(0.1), 0.9)) < 0.1
        assert temporaries(gx.lookahead(gx.adam(0.1), 5, 0.5)) < 0.1
        assert temporaries(gx.schedule_free_sgd()) < 0.1


def bowl(x):
    return 0.5 * jnp.sum(x * x * jnp.arange(1, x.size + 1, dtype=x.dtype))


class TestSam:
    @pytest.mark.parametrize("adaptive", [False, True])
    def test_modes_agree(self, adaptive):
        def make(opaque):
            return gx.sam(gx.sgd(0.05, 0.9), gx.sharpness_step(0.1, adaptive, 0.01), opaque_mode=opaque)

        slope = jax.grad(bowl)
        x = y = jnp.array([1.0, -2.0, 0.5])
        opaque, transparent = make(True), make(False)
        s, t = opaque.init(x), transparent.init(y)
        for _ in range(5):
            updates, s = opaque.update(slope(x), s, x, grad_fn=lambda params, i: slope(params))
            x = gx.apply_updates(x, updates)
            for _ in range(2):
                updates, t = transparent.update(slope(y), t, y)
                y = gx.apply_updates(y, updates)
            assert_trees(y, x, rtol=2e-6)
        assert int(t.steps_since_sync) == 0
        assert s.cache is None

    def test_perturbation(self):
        g = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
        step, _ = gx.sharpness_step(0.5).update(g, gx.EmptyState())
        assert_trees(step, {"a": jnp.array([-0.3]), "b": jnp.array([-0.4])})
        params = {"a": jnp.array([-2.0]), "b": jnp.array([0.0])}
        step, _ = gx.sharpness_step(0.5, adaptive=True).update(g, gx.EmptyState(), params)
        assert_trees(step, {"a": jnp.array([-1.0]), "b": jnp.array([0.0])})

    @pytest.mark.parametrize("adaptive", [False, True])
    def test_zero_gradients(self, adaptive):
        tx = gx.sam(gx.sgd(0.1), gx.sharpness_step(0.1, adaptive), opaque_mode=True)
        zeros = jnp.zeros(3)
        updates, _ = tx.update(zeros, tx.init(zeros), zeros, grad_fn=lambda params, i: jnp.zeros_like(params))
        assert_trees(updates, zeros, rtol=0)

    def test_longer_periods_see_every_step(self):
        seen = []
        tx = gx.sam(gx.sgd(0.1), gx.sgd(0.1), sync_period=4, opaque_mode=True)

        def grad_fn(params, i):
            seen.append(i)
            return jax.grad(bowl)(params)

        x = jnp.ones(2)
        tx.update(jax.grad(bowl)(x), tx.init(x), x, grad_fn=grad_fn)
        assert seen == [0, 1, 2]

    def test_adversary_keeps_its_state_unless_reset(self):
        x = jnp.ones(2)
        for reset, count in ((True, 0), (False, 1)):
            tx = gx.sam(gx.sgd(0.1), gx.adam(0.1), reset_state=reset)
            _, state = train(tx, 2, x, lambda step: jnp.ones(2))
            assert int(state.adv_state[0].count) == count

    def test_gradients_of_a_mapped_batch_are_averaged(self):
        """The same update on each device, and that of the whole batch."""
        batch, x = jnp.arange(8.0).reshape(4, 2), jnp.ones(2)
        tx = gx.sam(gx.sgd(0.1), opaque_mode=True, batch_axis_name="batch")
        alone = tx.replace(batch_axis_name=None)

        slope = jax.grad(lambda x, example: jnp.mean((x * example - 1) ** 4))

        def mean(x):
            return jax.vmap(slope, (None, 0))(x, batch).mean(0)

        def update(example):
            return tx.update(mean(x), tx.init(x), x, grad_fn=lambda params, i: slope(params, example))[0]

        each = jax.vmap(update, axis_name="batch")(batch)
        want, _ = alone.update(mean(x), alone.init(x), x, grad_fn=lambda params, i: mean(params))
        np.testing.assert_allclose(each, jnp.broadcast_to(want, (4, 2)), rtol=1e-5)
        with pytest.raises(ValueError, match=r"sam: batch_axis_name is for opaque_mode.*jax\.lax\.pmean"):
            gx.sam(gx.sgd(0.1), batch_axis_name="batch")

    def test_opaque_mode_needs_the_gradient_function(self):
        tx = gx.sam(gx.sgd(0.1), opaque_mode=True)
        with pytest.raises(TypeError, match="sam needs the extra argument grad_fn"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)


class TestScheduleFree:
    def test_first_rate_of_zero(self):
        """A warm-up from 0: no weight yet, and no 0 / 0."""
        rate = gx.linear_schedule(0.0, 0.5, 2)
        path, state = train(gx.schedule_free(gx.sgd(rate), rate), 3)
        assert_trees(path[0], PARAMS, rtol=0)
        chex.assert_tree_all_finite((path, state))
        z1 = jax.tree.map(lambda p, g: p - 0.25 * g, PARAMS, grads_at(1))
        z2 = jax.tree.map(lambda z, g: z - 0.5 * g, z1, grads_at(2))
        assert_trees(state.z, z2)
        x = jax.tree.map(lambda a, b: a + 0.8 * (b - a), z1, z2)  # 0.5² / (0.25² + 0.5²)
        assert_trees(gx.eval_params(state, path[-1]), x)
        assert_trees(gx.schedule_free_eval_params((state,), path[-1]), x)

    def test_rate_is_asked_for_the_same_step_as_the_base_optimizers(self):
        seen = []

        def rate(count):
            seen.append(int(count))
            return jnp.asarray(0.1)

        with jax.disable_jit():
            tx = gx.schedule_free(gx.sgd(rate), rate)
            state = tx.init(PARAMS)
            seen.clear()
            tx.update(grads_at(0), state, PARAMS)
        assert set(seen) == {0}

    @pytest.mark.parametrize("b1", [0.5, 1.0])
    def test_interpolates(self, b1):
        path, state = train(gx.schedule_free_sgd(0.1, b1=b1), 6)
        x = gx.eval_params(state, path[-1])
        assert_trees(path[-1], jax.tree.map(lambda x, z: b1 * x + (1 - b1) * z, x, state.z))

    def test_interpolation_may_have_a_schedule(self):
        def b1(count):
            return 0.5 + 0.1 * jnp.asarray(count).astype(jnp.float32)

        path, state = train(gx.schedule_free(gx.sgd(0.1), 0.1, b1), 4)
        x = z = PARAMS
        for step in range(4):
            z = jax.tree.map(lambda z, g: z - 0.1 * g, z, grads_at(step))
            x = jax.tree.map(lambda x, z, c=1 / (step + 1): (1 - c) * x + c * z, x, z)
            assert_trees(path[step], jax.tree.map(lambda x, z, b=0.5 + 0.1 * step: b * x + (1 - b) * z, x, z), 3e-6)
        assert_trees(gx.eval_params(state, path[-1]), x, rtol=3e-6)

    def test_state_dtype(self):
        tx = gx.schedule_free_sgd(0.1, state_dtype="bfloat16")
        _, state = train(tx, 2)
        assert state.z["w"].dtype == jnp.bfloat16

    def test_warm_up_and_schedule_do_not_mix(self):
        with pytest.raises(TypeError, match="warmup_steps needs a number"):
            gx.schedule_free_adamw(gx.constant_schedule(0.1), warmup_steps=3).init(PARAMS)

    def test_beta_of_zero_is_refused(self):
        with pytest.raises(ValueError, match=r"schedule_free: b1 must lie in \(0, 1\]"):
            gx.schedule_free(gx.sgd(1.0), 1.0, b1=0.0)


class TestReduceOnPlateau:
    def scales(self, tx, values):
        state, scales = tx.init(PARAMS), []
        for value in values:
            _, state = tx.update(PARAMS, state, value=value)
            scales.append(float(state.scale))
        return scales

    def test_patience_and_cooldown(self):
        tx = gx.reduce_on_plateau(factor=0.5, patience=2, cooldown=2)
        values = [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 1.0, 1.0]
        assert self.scales(tx, values) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]

    def test_means(self):
        tx = gx.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=2)
        assert self.scales(tx, [4.0, 2.0, 1.0, 4.0, 4.0, 2.0]) == [1, 1, 1, 1, 1, 0.5]

    def test_minimum(self):
        tx = gx.reduce_on_plateau(factor=0.5, patience=1, min_scale=0.3)
        assert self.scales(tx, [1.0] * 5) == pytest.approx([1, 0.5, 0.3, 0.3, 0.3])

    def test_nan_is_no_improvement(self):
        tx = gx.reduce_on_plateau(factor=0.5, patience=2)
        assert self.scales(tx, [1.0, jnp.nan, jnp.nan, 0.5]) == [1, 1, 0.5, 0.5]

    def test_needs_a_scalar_value(self):
        tx = gx.chain(gx.sgd(1.0), gx.reduce_on_plateau())
        with pytest.raises(TypeError, match="needs the extra argument value"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        with pytest.raises(ValueError, match=r"value must be a real scalar, got float32\[2\]"):
            tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.ones(2))


class TestFlatten:
    def test_is_the_same(self):
        inner = gx.chain(gx.clip(0.5), gx.adamw(0.1, weight_decay=0.01))
        path, state = train(gx.flatten(inner), 4)
        assert_trees(path, train(inner, 4)[0])
        assert state.inner_state[1][0].mu["float32"].shape == (15,)

    def test_mixed_dtypes(self, x64):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3, "float64"), "c": jnp.ones((), "float32")}
        tx = gx.flatten(gx.sgd(0.5, momentum=0.9))
        state = tx.init(params)
        assert {name: v.shape for name, v in state.inner_state[0].trace.items()} == {"float32": (3,), "float64": (3,)}
        updates, _ = tx.update(params, state, params)
        assert_trees(updates, jax.tree.map(lambda p: -0.5 * p, params))
        assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)

    @pytest.mark.parametrize(
        ("inner", "culprit"),
        [
            (gx.clip_by_global_norm(1.0), "clip_by_global_norm"),
            (gx.chain(gx.clip(1.0), gx.lamb(0.1)), "scale_by_trust_ratio"),
            (gx.adafactor(0.1), "scale_by_factored_rms"),
            (gx.adamw(0.1, mask={"b": False, "w": True}), "add_decayed_weights"),
            (gx.masked(gx.sgd(0.1), {"b": False, "w": True}), "masked"),
            (gx.GradientTransformation(lambda p: (), lambda g, s, p=None: (g, s)), "GradientTransformation"),
        ],
    )
    def test_refuses_by_name(self, inner, culprit):
        with pytest.raises(TypeError, match=f"flatten: {culprit} does not act on each element alone"):
            gx.flatten(inner)

    @pytest.mark.parametrize("inner", [gx.params_ema(gx.sgd(0.1), 0.9), gx.schedule_free_sgd(0.1)])
    def test_refuses_averages_that_could_not_be_evaluated(self, inner):
        with pytest.raises(TypeError, match=r"wrap (params_ema|schedule_free) around flatten"):
            gx.flatten(inner)


ELEMENTWISE = {name: tx for name, tx in transformations().items() if is_elementwise(tx)}


@pytest.mark.parametrize("case", every_other(ELEMENTWISE))
def test_elementwise_transformations_do_not_see_leaves(case):
    """A transformation that calls itself elementwise does the same to one vector of all leaves as to the leaves."""
    tx = ELEMENTWISE[case]

    def run(params, grads):
        state, path = tx.init(params), []
        for g in grads:
            updates, state = tx.update(g, state, params, **extra_for(tx, g))
            params = gx.apply_updates(params, updates)
            path.append(updates)
        return path

    def joined(tree):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])

    grads = [grads_at(0), grads_at(1)]
    apart = jax.jit(run)(PARAMS, grads)
    together = jax.jit(run)(joined(PARAMS), [joined(g) for g in grads])
    assert_close([joined(updates) for updates in apart], together, ulps=4)


class TestSplitRealAndImaginary:
    PARAMS = {"r": jnp.array([0.5, -1.0]), "z": jnp.array([1 - 2j, 3 + 0.5j], jnp.complex64)}
    GRADS = {"r": jnp.array([0.1, 3.0]), "z": jnp.array([0.2 - 4j, -0.3j], jnp.complex64)}

    @staticmethod
    def three_updates(tx, params, grads):
        state, every = tx.init(params), []
        for _ in range(3):
            updates, state = tx.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
            every.append(updates)
        return every, state

    def test_the_parts_are_leaves_of_their_own(self):
        """Each part is clipped by its own norm, and has an Adam of its own: as with two real leaves."""
        tx = gx.chain(gx.clip_by_norm(1.0), gx.adam(0.1))
        split, _ = self.three_updates(gx.split_real_and_imaginary(tx), self.PARAMS, self.GRADS)
        parts = [{"r": t["r"], "x": t["z"].real, "y": t["z"].imag} for t in (self.PARAMS, self.GRADS)]
        expected = [u | {"z": jax.lax.complex(u["x"], u["y"])} for u in self.three_updates(tx, *parts)[0]]
        chex.assert_trees_all_close(split, [{"r": u["r"], "z": u["z"]} for u in expected], rtol=1e-6)

    def test_updates_and_state_are_those_of_optax(self):
        ours, state = self.three_updates(gx.split_real_and_imaginary(gx.adam(0.1)), self.PARAMS, self.GRADS)
        with jax.numpy_dtype_promotion("standard"):
            theirs, their_state = self.three_updates(
                optax.contrib.split_real_and_imaginary(optax.adam(0.1)), self.PARAMS, self.GRADS
            )
        chex.assert_trees_all_close(ours, theirs, rtol=1e-5)
        for moment in ("mu", "nu"):
            pair, their_pair = (getattr(s.inner_state[0], moment)["z"] for s in (state, their_state))
            assert (type(pair).__name__, pair._fields) == (type(their_pair).__name__, their_pair._fields)
            chex.assert_trees_all_close(tuple(pair), tuple(their_pair), rtol=1e-5)

    def test_masks_see_the_paths_of_the_parts(self):
        tx = gx.split_real_and_imaginary(gx.masked(gx.scale(-1.0), "z/imaginary"))
        updates, _ = tx.update(self.GRADS, tx.init(self.PARAMS))
        chex.assert_trees_all_equal(updates, self.GRADS | {"z": jnp.conj(self.GRADS["z"])})

    def test_a_line_search_calls_the_loss_with_complex_parameters(self):
        """L-BFGS has inner products of real vectors, and reaches the minimum of a quadratic in a few steps."""
        target = jnp.array([2 + 1j, -1j], jnp.complex64)

        def loss(z):
            difference = z - target
            return jnp.sum(jnp.array([1.0, 10.0]) * jnp.real(difference * jnp.conj(difference)))

        tx, z = gx.split_real_and_imaginary(gx.lbfgs()), jnp.zeros(2, jnp.complex64)
        state = tx.init(z)
        for _ in range(8):
            value, grad = jax.value_and_grad(loss)(z)
            grad = jnp.conj(grad)
            updates, state = tx.update(grad, state, z, value=value, grad=grad, value_fn=loss)
            z = gx.apply_updates(z, updates)
        np.testing.assert_allclose(z, target, atol=1e-4)


class TestConditions:
    def test_transform_passes_others_through(self):
        tx = gx.conditionally_transform(gx.scale(10.0), gx.every_k_steps(2))
        state = tx.init(PARAMS)
        once, state = tx.update(PARAMS, state)
        twice, state = tx.update(PARAMS, state)
        assert_trees(once, PARAMS)
        assert_trees(twice, jax.tree.map(lambda p: 10 * p, PARAMS))
        assert int(state.step) == 2

    def test_mask_zeroes_others_and_keeps_the_state(self):
        tx = gx.conditionally_mask(gx.adam(0.1), lambda step: step >= 2)
        path, state = train(tx, 3)
        assert_trees(path[1], PARAMS, rtol=0)
        assert_trees(path[2], train(gx.adam(0.1), 1, grads=lambda _: grads_at(2))[0][0])
        assert int(state.inner_state[0].count) == 1
        assert int(state.step) == 3

    def test_extra_arguments(self):
        tx = gx.conditionally_mask(gx.sgd(1.0), lambda step, *, value: value < 1.0, forward_extra_args=True)
        for value, expected in ((0.5, -1.0), (2.0, 0.0)):
            updates, _ = tx.update(PARAMS, tx.init(PARAMS), value=jnp.asarray(value))
            assert_trees(updates, jax.tree.map(lambda p, e=expected: e * p, PARAMS))
        with pytest.raises(TypeError, match="needs the extra argument value"):
            tx.update(PARAMS, tx.init(PARAMS))

    def test_condition_must_be_a_bool(self):
        tx = gx.conditionally_transform(gx.sgd(1.0), lambda step: step)
        with pytest.raises(ValueError, match=r"should_transform_fn must give a scalar bool, got int32\[\]"):
            tx.update(PARAMS, tx.init(PARAMS))


class TestMonitor:
    def test_place_decides(self):
        tx = gx.named_chain(("before", gx.monitor()), ("step", gx.sgd(0.5)), ("after", gx.monitor()))
        _, state = tx.update(
            {"a": jnp.array([3.0]), "b": jnp.array([4.0])}, tx.init({"a": jnp.ones(1), "b": jnp.ones(1)})
        )
        assert float(state["before"].measurements["update_norm"]) == pytest.approx(5)
        assert float(state["after"].measurements["update_norm"]) == pytest.approx(2.5)

    def test_own_measurements(self):
        def largest(updates):
            return jnp.max(jnp.stack([jnp.max(jnp.abs(u)) for u in jax.tree.leaves(updates)]))

        tx = gx.monitor({"largest": largest, "copy": lambda updates: updates})
        state = tx.init(PARAMS)
        assert float(state.measurements["largest"]) == 0
        updates, state = tx.update(PARAMS, state)
        assert_trees(updates, PARAMS, rtol=0)
        assert float(state.measurements["largest"]) == 2
        assert_trees(state.measurements["copy"], PARAMS, rtol=0)

    def test_running_means(self):
        """Of a number, a condition and a tree; a measure may have a state of its own, as those of optax do."""

        def is_large(updates):
            return gx.global_norm(updates) > 2.0

        measures = {
            "mean": gx.measure_with_ema(gx.global_norm, 0.9),
            "biased": gx.measure_with_ema(gx.global_norm, 0.9, debias=False),
            "large": gx.measure_with_ema(is_large, 0.5, accumulator_dtype="bfloat16"),
            "leaves": gx.measure_with_ema(lambda updates: jax.tree.map(jnp.max, updates), lambda count: 0.5),
            "theirs": optax.measure_with_ema(optax.tree.norm, 0.9, debias=False),
        }
        tx = gx.chain(gx.monitor(measures), gx.sgd(0.1))
        params = {"w": jnp.zeros(2, jnp.float16)}
        state = tx.init(params)
        update = jax.jit(tx.update)
        for size in (1.0, 4.0):
            _, state = update({"w": jnp.array([size, 0.0], jnp.float16)}, state)
        found = gx.metrics(state)
        assert float(found["mean"]) == pytest.approx((0.09 * 1 + 0.1 * 4) / 0.19)
        assert float(found["biased"]) == pytest.approx(0.09 * 1 + 0.1 * 4)
        assert found["theirs"] == pytest.approx(float(found["biased"]), rel=1e-5)
        assert (float(found["large"]), found["large"].dtype) == (pytest.approx(2 / 3, rel=0.01), jnp.bfloat16)
        assert float(found["leaves/w"]) == pytest.approx((0.25 * 1 + 0.5 * 4) / 0.75)
        assert int(found["steps"]) == 2
        assert gx.tree.get(state, "large") is found["large"]

    def test_measures_with_a_state_are_no_stages(self):
        with pytest.raises(TypeError, match="chain: stage 0 must be a transformation"):
            gx.chain(gx.measure_with_ema(gx.global_norm, 0.9))
        with pytest.raises(ValueError, match=r"measure_with_ema: decay must lie in \[0, 1\)"):
            gx.measure_with_ema(gx.global_norm, 1.0)

    def test_snapshot(self):
        tx = gx.chain(gx.snapshot("before", gx.global_norm), gx.sgd(0.5), gx.snapshot("after", gx.global_norm))
        state = tx.init(PARAMS)
        assert float(gx.tree.get(state, "before")) == 0
        updates, state = tx.update(PARAMS, state)
        assert float(gx.tree.get(state, "after")) == pytest.approx(float(gx.global_norm(updates)))
        assert {"before", "after"} <= gx.metrics(state).keys()
        with pytest.raises(TypeError, match="snapshot: measure_name must be a name"):
            gx.snapshot(gx.global_norm, gx.global_norm)

    @pytest.mark.parametrize("wrong", [[], {}, {"a": 1}, {3: jnp.sum}])
    def test_measures_must_be_functions_by_name(self, wrong):
        with pytest.raises(TypeError, match="monitor: measures"):
            gx.monitor(wrong)

    @helpers.of_todays_xla
    def test_makes_no_temporary_before_an_optimizer(self):
        assert temporaries(gx.chain(gx.monitor(), gx.adam(0.1))) < 0.1


WRAPPED = {
    "accumulate": gx.accumulate(gx.adam(0.1), 2),
    "dynamic_loss_scale": gx.dynamic_loss_scale(gx.adam(0.1)),
    "if_finite": gx.if_finite(gx.adam(0.1)),
    "lookahead": gx.lookahead(gx.adam(0.1), 2, 0.5),
    "mechanize": gx.mechanize(gx.adam(0.1)),
    "params_average": gx.params_average(gx.adam(0.1)),
    "params_ema": gx.params_ema(gx.adam(0.1), 0.9),
    "sam": gx.sam(gx.adam(0.1)),
    "schedule_free": gx.schedule_free(gx.adam(0.1, b1=0.0), 0.1),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_fresh_state_and_parameters_may_be_donated(name):
    tx, params = WRAPPED[name], jax.tree.map(jnp.copy, PARAMS)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gx.apply_updates(params, updates), state

    moved, state = step(params, tx.init(params), grads_at(0))
    moved, _ = step(moved, state, grads_at(1))
    assert_trees(moved, train(tx, 2)[0][-1])


@pytest.mark.parametrize("name", WRAPPED)
def test_extra_arguments_reach_what_is_inside(name):
    tx = WRAPPED[name]
    fields = {"lookahead": "fast_optimizer", "mechanize": "base_optimizer", "sam": "optimizer"}
    field = (fields | {"schedule_free": "base_optimizer"}).get(name, "inner")
    tx = tx.replace(**{field: gx.chain(gx.sgd(0.1), gx.reduce_on_plateau())})
    with pytest.raises(TypeError, match="needs the extra argument value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(TypeError, match="did you mean value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, vlaue=1.0)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)
