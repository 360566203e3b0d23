"""What goes wrong in other libraries, each as a test of what is right here."""

import decimal

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx as gx
from gradtx.schedules.rectified import _independent_gradients


def first_update(tx, grads, params, **extra):
    return tx.update(grads, tx.init(params), params, **extra)[0]


def takes_a_rate(cls):
    if not (isinstance(cls, type) and issubclass(cls, gx.Optimizer) and cls.__module__.startswith("gradtx.")):
        return False
    needs_functions = "value_fn" in cls.example().extras.required  # a line search makes its own rate
    return "learning_rate" in cls.field_kinds() and not needs_functions


RATED = [name for name, cls in gx.registry().items() if takes_a_rate(cls)]


@pytest.mark.parametrize("name", helpers.every_other(RATED))
def test_a_warm_up_from_zero_leaves_no_nan(name):
    """The rate of the first step is 0. Prodigy, D-Adaptation and schedule-free have divided by it."""
    optimizer = gx.registry()[name].example()
    tx = optimizer.replace(learning_rate=gx.linear_schedule(0.0, 0.1, 4))
    params = {"w": jnp.ones((4, 3)), "b": jnp.zeros(2), "s": jnp.ones(())}
    grads = jax.tree.map(lambda p: 0.5 * jnp.ones_like(p), params)
    extra, state = helpers.extra_for(tx, grads), tx.init(params)
    for _ in range(3):
        updates, state = tx.update(helpers.with_examples(tx, grads), state, params, **extra)
        params = gx.apply_updates(params, updates)
        chex.assert_tree_all_finite((params, state))


@pytest.mark.parametrize("optimizer", [gx.prodigy, gx.dadapt_adamw])
def test_estimates_of_the_distance_begin_with_the_first_gradient(optimizer):
    """Optax's are NaN after a rate of 0 at the beginning, and after gradients of 0; here nothing moves until then."""
    tx = optimizer(gx.linear_schedule(0.0, 1.0, 3), weight_decay=0.1)
    params = start = {"w": jnp.array([3.0, -4.0]), "b": jnp.zeros(())}
    state = tx.init(params)
    for grad in (1.0, 0.0, 0.0):  # the rates are 0, 1/3 and 2/3
        updates, state = tx.update(jax.tree.map(lambda p, g=grad: g * jnp.sign(p), params), state, params)
        params = gx.apply_updates(params, updates)
        chex.assert_trees_all_equal(params, start)
    before = helpers.squares(params)
    for _ in range(200):
        updates, state = tx.update(params, state, params)
        params = gx.apply_updates(params, updates)
    assert float(state.estim_lr) > 0.1
    assert helpers.squares(params) < 0.1 * before


@pytest.mark.parametrize("optimizer", [gx.prodigy, gx.dadapt_adamw])
def test_no_estimate_and_no_decay_without_a_gradient(optimizer):
    tx, params = optimizer(weight_decay=0.1), {"w": jnp.array([3.0, -4.0])}
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    assert float(state.estim_lr) == float(jnp.float32(1e-6))


@pytest.mark.parametrize("tx", [gx.normalize(), gx.normalize_by_update_norm(), gx.sam(gx.sgd(0.1), gx.sgd(0.05))])
def test_zero_gradients_are_not_divided_by_their_norm(tx):
    params = {"w": jnp.ones(3)}
    updates = first_update(tx, {"w": jnp.zeros(3)}, params)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_sm3_takes_every_shape(shape):
    """Optax fails with an index error on scalars and empty leaves."""
    updates = first_update(gx.sm3(0.1, momentum=0.0), jnp.full(shape, 2.0), jnp.ones(shape))
    np.testing.assert_allclose(updates, np.full(shape, -0.1), rtol=1e-6)


def test_rprop_steps_at_once():
    """Optax makes the step of the gradient before, so that its first update is 0."""
    updates = first_update(gx.rprop(0.01), jnp.array([2.0, -3.0, 0.0]), jnp.ones(3))
    np.testing.assert_allclose(updates, [-0.01, 0.01, 0.0], rtol=1e-6)


def test_adan_weighs_the_difference_of_gradients_by_b2():
    """Xie et al.'s β₂ = 0.92 and not, as in optax, 1 − β₂: the second update in float64, by hand."""
    b1, b2, b3, rate, eps = 0.98, 0.92, 0.99, 0.01, 1e-8
    g1, g2 = np.array([0.3, -0.7]), np.array([0.5, 0.1])
    m = b1 * (1 - b1) * g1 + (1 - b1) * g2
    v = (1 - b2) * (g2 - g1)
    n = b3 * (1 - b3) * g1**2 + (1 - b3) * (g2 + b2 * (g2 - g1)) ** 2
    mean = m / (1 - b1**2) + b2 * v / (1 - b2**2)
    expected = -rate * mean / (np.sqrt(n / (1 - b3**2)) + eps)

    tx, params = gx.adan(rate, b1, b2, b3, eps=eps), jnp.zeros(2)
    _, state = tx.update(jnp.asarray(g1, jnp.float32), tx.init(params), params)
    updates, _ = tx.update(jnp.asarray(g2, jnp.float32), state, params)
    np.testing.assert_allclose(updates, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["yogi", "adam", "adamax", "amsgrad", "nadam", "radam", "adabelief", "rmsprop", "adan"]
)
def test_without_gradients_nothing_moves(name):
    """Optax's Yogi begins with a first moment of 1e-6 and drifts."""
    params = jnp.ones(3)
    tx = getattr(gx, name)(0.1)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(3), state, params)
        np.testing.assert_array_equal(updates, np.zeros(3))


@pytest.mark.parametrize(
    "name", ["adam", "adamw", "adamax", "amsgrad", "nadam", "adafactor", "adan", "novograd", "yogi"]
)
def test_half_precision_keeps_epsilon(name):
    """In float16, 1e-8 and the squares of small gradients are 0: others divide 0 by 0."""
    params = jnp.ones(3, jnp.float16)
    updates = first_update(getattr(gx, name)(0.01), jnp.array([0.0, 1e-4, 1.0], jnp.float16), params)
    assert updates.dtype == jnp.float16
    chex.assert_tree_all_finite(updates)


def test_bfloat16_second_moments_decay():
    """In bfloat16, 0.999 · v rounds back to v for ever."""
    params = jnp.ones((), jnp.bfloat16)
    tx = gx.scale_by_adam()
    state = tx.init(params)
    _, state = tx.update(jnp.ones((), jnp.bfloat16), state)
    before = float(state.nu)
    for _ in range(100):
        _, state = tx.update(jnp.zeros((), jnp.bfloat16), state)
    assert float(state.nu) == pytest.approx(before * 0.999**100, rel=1e-4)


def test_the_slow_mean_of_ademamix_is_not_lost_in_bfloat16():
    """In bfloat16 it would stop at 1/20 of a constant gradient; optax stores it, and the second moment, so."""
    tx, g = gx.scale_by_ademamix(mu_dtype="bfloat16"), jnp.ones(())

    def step(state, _):
        return tx.update(g, state)[1], None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, length=5000))(tx.init(g))
    assert (state.m1.dtype, state.m2.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    assert float(state.m2) == pytest.approx(1 - 0.9999**5000, rel=1e-3)


def test_one_nan_leaf_does_not_spoil_a_clipped_step():
    grads = {"sick": jnp.array([jnp.nan, 1.0]), "sound": jnp.array([3.0, 4.0])}
    updates, state = gx.clip_by_global_norm(1.0).update(grads, gx.clip_by_global_norm(1.0).init(grads))
    np.testing.assert_allclose(updates["sound"], [0.6, 0.8], rtol=1e-6)
    assert bool(jnp.isnan(state.grad_norm))


def test_adafactor_with_a_decay_offset_begins_finite():
    """Optax's decay_offset=1 gives 0 to the power of −0.8 in the first step."""
    updates = first_update(gx.adafactor(0.1, decay_offset=1), jnp.ones(3), jnp.ones(3))
    chex.assert_tree_all_finite(updates)


# Numbers at the edges of their ranges.


def without_eps(name):
    """The example with every ε at 0; `None` if it has none that may be 0."""
    tx, zero = helpers.example(helpers.registered(gx.GradientTransformation)[name]), {}
    for field, kind in tx.field_kinds().items():
        if field.startswith("eps") and field != "eps_scale":
            try:
                kind.convert(field, 0.0)
            except (TypeError, ValueError):
                return None
            zero[field] = 0.0 if not isinstance(getattr(tx, field), bool) else getattr(tx, field)
    return tx.replace(**zero) if zero else None


EPSILONS = {name: tx for name in helpers.registered(gx.GradientTransformation) if (tx := without_eps(name))}


def three_updates(tx, grads, params):
    """All updates and the last state."""
    kinds, functions = helpers.extra_kinds(tx, grads)

    @jax.jit
    def run(grads, params):
        def step(state, _):
            updates, state = tx.update(grads, state, params, **kinds, **functions)
            return state, updates

        return jax.lax.scan(step, tx.init(params), length=3)

    return run(grads, params)


@pytest.mark.parametrize("name", EPSILONS)
def test_zero_gradients_without_epsilon_are_no_nan(name):
    """0 / 0 is 0, in a leaf and in a single element."""
    params = {"some": jnp.ones((2, 3)), "none": jnp.ones(2)}
    grads = {"some": jnp.array([[0.0, 1.0, -2.0], [0.5, 0.0, 0.0]]), "none": jnp.zeros(2)}
    assert helpers.not_finite(three_updates(EPSILONS[name], grads, params)) == []


@pytest.mark.parametrize("name", ["ftrl", "torch_adafactor", "yogi", "scale_by_stddev"])
def test_gradients_whose_squares_overflow_leave_finite_updates(name):
    tx = gx.if_finite(helpers.example(helpers.registered(gx.GradientTransformation)[name]))
    params = {"some": jnp.ones((2, 3)), "all": jnp.ones(2)}
    grads = {"some": jnp.array([[0.0, 1e20, -2.0], [1e30, 0.0, 3e38]]), "all": jnp.full(2, -1e25)}
    assert helpers.not_finite(three_updates(tx, grads, params)) == []


@pytest.mark.parametrize("b2", [0.0, 1e-6, 0.1, 0.44, 0.46, 0.99])
def test_lion_has_the_signs_of_its_equation(b2):
    """Signs computed from the new momentum would be wrong where that has forgotten the old one."""
    g, m = (np.random.default_rng(i).normal(size=20_000).astype(np.float32) for i in (1, 2))
    tx = gx.scale_by_lion(0.9, b2)
    updates, state = tx.update(jnp.asarray(g), tx.init(jnp.asarray(g))._replace(mu=jnp.asarray(m)))
    mix, size = 0.9 * np.float64(m) + 0.1 * np.float64(g), np.abs(m) + np.abs(g)
    clear = np.abs(mix) > 1e-6 * size
    np.testing.assert_array_equal(updates[clear], np.sign(mix)[clear])
    np.testing.assert_allclose(state.mu, b2 * m + (1 - b2) * g, atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 1e-3, 0.5, 0.9, 0.999])
def test_adadelta_from_its_new_means_is_that_of_its_equation(rho):
    """Solved for the new mean, the update has no cancellation and no underflow, whatever the size of the gradients."""
    rng, eps = np.random.default_rng(0), 1e-7
    grads = rng.normal(size=(50, 2000)) * 10.0 ** rng.uniform(-14, 17, 2000) * rng.integers(0, 2, (50, 1))
    grads = grads.astype(np.float32)
    tx = gx.scale_by_adadelta(rho, eps)
    ours = np.asarray(jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], tx.init(grads[0]), grads)[1])
    v = w = np.zeros(2000)
    for g, u in zip(np.float64(grads), ours, strict=True):
        v = rho * v + (1 - rho) * g**2
        expected = np.sqrt(w + eps) / np.sqrt(v + eps) * g
        w = rho * w + (1 - rho) * expected**2
        visible = np.abs(g) > 1e-18
        np.testing.assert_allclose(u[visible], expected[visible], rtol=2e-6)


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999])
def test_radam_counts_gradients_to_double_precision(b2, x64):
    """ρ by the series that is used while β₂ᵗ is near 1, beside its plain formula in 40 digits."""
    with decimal.localcontext(prec=40):
        b = decimal.Decimal(b2)
        for t in (2, 3, 5, 9):
            rho = 2 / (1 - b) - 1 - 2 * t * b**t / (1 - b**t)
            ours = _independent_gradients(b2, jnp.asarray(float(t)))[1]
            assert float(ours) == pytest.approx(float(rho), rel=1e-12)


@pytest.mark.parametrize(
    ("count", "after"),
    [
        (np.int32(7), 8),
        (np.int8(127), 127),
        (np.uint32(2**32 - 1), 2**32 - 1),
        (np.uint8(3), 4),
        (np.float32(1.5), 2.5),
        (np.float32(np.finfo(np.float32).max), np.finfo(np.float32).max),
    ],
)
def test_a_counter_of_any_dtype_stops_at_its_largest(count, after):
    ours = gx.safe_increment(jnp.asarray(count))
    assert ours.dtype == count.dtype
    assert float(ours) == float(after)


@pytest.mark.parametrize("count", [jnp.array(True), jnp.array(1j)])
def test_a_counter_is_a_real_number(count):
    with pytest.raises(ValueError, match=r"safe_increment: count must be an integer or a real number, got (bool|comp)"):
        gx.safe_increment(count)
