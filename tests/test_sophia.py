"""Sophia beyond its recorded and transcribed runs: when the estimator runs, what it is given, and what it estimates."""

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gx

PARAMS = {"b": jnp.array([0.5, -1.0, 2.0]), "w": jnp.array([[1.0, -2.0], [0.3, 0.1]])}


def loss(params):
    """Each leaf is coupled with itself; the Hessian of `b` is diagonal but for one pair."""
    b, w = params["b"], params["w"]
    return jnp.sum(b**3) + b[0] * b[1] + 0.5 * jnp.sum(w) ** 2 + jnp.sum(jnp.cos(w))


def hessian_diagonal(f, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return unravel(jnp.diag(jax.jit(jax.hessian(lambda x: f(unravel(x))))(flat)))


def estimates(tx, params, many, **extra):
    """The mean of many estimates, one after the other."""

    def step(state, _):
        return tx.update(params, state, params, **extra)[::-1]

    return jax.tree.map(lambda x: jnp.mean(x, 0), jax.lax.scan(step, tx.init(params), length=many)[1])


def test_hutchinson_estimates_the_diagonal_of_the_hessian():
    """Unbiased: off-diagonal entries vanish in the mean as 1 / √n. One estimate is exact if there are none."""
    tx = gx.hutchinson_estimator_diag_hessian(1)
    mean = estimates(tx, PARAMS, 1000, obj_fn=loss)
    chex.assert_trees_all_close(mean, hessian_diagonal(loss, PARAMS), atol=4 * np.sqrt(3 / 1000))
    cubes = lambda p: sum(jnp.sum(x**3) for x in jax.tree.leaves(p))  # noqa: E731
    once, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, obj_fn=cubes)
    chex.assert_trees_all_close(once, jax.tree.map(lambda x: 6 * x, PARAMS), rtol=1e-5)


def test_hutchinson_draws_the_signs_of_optax():
    ours, theirs = gx.hutchinson_estimator_diag_hessian(), optax.contrib.hutchinson_estimator_diag_hessian()
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    assert state._fields == their_state._fields
    for _ in range(3):
        np.testing.assert_array_equal(state.key, their_state.key)
        got, state = ours.update(PARAMS, state, PARAMS, obj_fn=loss)
        want, their_state = theirs.update(PARAMS, their_state, PARAMS, obj_fn=loss)
        chex.assert_trees_all_close(got, want, rtol=1e-5)


INPUTS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def logits(params):
    return INPUTS @ params["w"] + params["b"][None]


def drawn_loss(params, key):
    outputs = logits(params)
    labels = jax.random.categorical(key, jax.lax.stop_gradient(outputs))
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), labels[:, None], 1))


def test_gauss_newton_estimates_the_diagonal_of_its_matrix():
    """Of Jᵀ S J / B, where J are the derivatives of the logits and S is diag(p) − p pᵀ of each example."""
    params = {"b": jnp.array([0.2, -0.3]), "w": jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)), jnp.float32)}
    p = np.asarray(jax.nn.softmax(logits(params)), np.float64)
    curvature = p * (1 - p)  # logit j depends on column j of w and on b_j alone
    expected = {"b": curvature.mean(0), "w": (INPUTS**2).T @ curvature / 8}
    mean = estimates(gx.gauss_newton_estimator_diag_hessian(8), params, 4000, obj_fn=drawn_loss)
    chex.assert_trees_all_close(mean, jax.tree.map(np.float32, expected), atol=0.05)


@pytest.mark.parametrize(
    ("tx", "obj_fn"),
    [
        (gx.hutchinson_estimator_diag_hessian(3), loss),
        (gx.gauss_newton_estimator_diag_hessian(4, 3), lambda p, key: loss(p) + p["b"][0] * jax.random.normal(key)),
    ],
    ids=["hutchinson", "gauss-newton"],
)
def test_estimates_are_functions_of_the_key(tx, obj_fn):
    """Of that in the state, which moves on; or of one that is given, which leaves the state as it is."""
    state = tx.init(PARAMS)
    once = tx.update(PARAMS, state, PARAMS, obj_fn=obj_fn)
    chex.assert_trees_all_equal(once, tx.update(PARAMS, state, PARAMS, obj_fn=obj_fn))
    other, later = tx.update(PARAMS, once[1], PARAMS, obj_fn=obj_fn)
    assert not np.array_equal(once[1].key, later.key)
    assert not np.array_equal(once[0]["b"], other["b"])
    given, kept = tx.update(PARAMS, state, PARAMS, obj_fn=obj_fn, key=jax.random.key(5))
    chex.assert_trees_all_equal(given, tx.update(PARAMS, later, PARAMS, obj_fn=obj_fn, key=5)[0])
    chex.assert_trees_all_equal(kept, state)


def test_the_estimator_runs_at_its_steps_only():
    """In the program it stands in one condition, whatever the number of leaves; it runs before h is used."""
    calls = []

    @gx.stateless
    def estimator(updates, params):
        jax.debug.callback(lambda: calls.append(1))
        return jax.tree.map(jnp.ones_like, updates)

    tx = gx.scale_by_sophia(b1=0.0, b2=0.5, gamma=1.0, update_interval=3, hessian_diagonal_fn=estimator)
    state, seen = tx.init(PARAMS), []
    update = jax.jit(tx.update)
    for _ in range(7):
        _, state = update(PARAMS, state)
        jax.effects_barrier()
        seen.append((len(calls), float(state.nu["b"][0])))
    assert seen == [(1, 0.5)] * 3 + [(2, 0.75)] * 3 + [(3, 0.875)]
    with_hessian = gx.scale_by_sophia()
    program = jax.make_jaxpr(lambda s: with_hessian.update(PARAMS, s, PARAMS, obj_fn=loss))(with_hessian.init(PARAMS))
    outer = [eqn.primitive.name for eqn in program.eqns]
    assert outer.count("cond") == 1
    assert not {"random_split", "random_bits", "cos", "sin"} & {*outer}


def test_it_is_newtons_method_where_nothing_is_clipped():
    curvature = jnp.array([1.0, 4.0, 25.0])
    f = lambda x: 0.5 * jnp.sum(curvature * x**2)  # noqa: E731
    x = jnp.array([0.3, -0.2, 0.1])
    tx = gx.sophia(1.0, 0.0, 0.0, weight_decay=0.0, gamma=1.0)
    updates, _ = tx.update(jax.grad(f)(x), tx.init(x), x, obj_fn=f)
    np.testing.assert_allclose(updates, -x, rtol=1e-6)


@pytest.mark.parametrize(("h", "expected"), [(2.0, 0.25), (0.0, 0.7), (-3.0, 0.7), (1e-30, 0.7), (np.nan, np.nan)])
def test_the_update_is_bounded_whatever_the_curvature(h, expected):
    """A step of ρ along the sign where the curvature is negative or 0, NaN where it is: it is not hidden."""
    estimator = gx.stateless_with_tree_map(lambda g, _: jnp.full_like(g, h))
    tx = gx.scale_by_sophia(0.0, 0.0, 0.0, 1.0, 0.7, hessian_diagonal_fn=estimator)
    updates, _ = tx.update(jnp.array([0.5, -0.5]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [expected, -expected], rtol=1e-6)


def test_skipped_steps_leave_the_key_and_the_curvature():
    """What `if_finite` leaves out estimates nothing, and the next step is that of the state before."""
    tx = gx.if_finite(gx.scale_by_sophia())
    start = tx.init(PARAMS)
    bad = PARAMS | {"b": jnp.full(3, jnp.nan)}
    _, state = jax.jit(lambda g, s: tx.update(g, s, PARAMS, obj_fn=loss))(bad, start)
    chex.assert_trees_all_equal(state.inner_state, start.inner_state)


def test_in_half_precision_the_loss_is_given_the_parameters_as_they_are():
    dtypes = set()

    def f(params):
        dtypes.update(x.dtype.name for x in jax.tree.leaves(params))
        return jnp.sum(params["w"].astype(jnp.float32) ** 2)

    params = {"w": jnp.ones((2, 2), jnp.bfloat16)}
    tx = gx.sophia(0.1)
    updates, state = tx.update(params, tx.init(params), params, obj_fn=f)
    assert dtypes == {"bfloat16"}
    assert (updates["w"].dtype, state[0].nu["w"].dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(state[0].nu["w"], 0.01 * 2 * np.ones((2, 2)), rtol=1e-5)


def test_the_win_rate_is_printed(capfd):
    estimator = gx.stateless_with_tree_map(lambda g, _: jnp.ones_like(g))
    tx = gx.sophia(
        0.1, 0.0, 0.0, gamma=1.0, hessian_diagonal_fn=estimator, verbose=True, print_win_rate_every_n_steps=2
    )
    g, state = jnp.array([0.5, -0.5, 3.0, 0.1]), tx.init(jnp.zeros(4))
    for _ in range(3):
        _, state = tx.update(g, state, g)
    jax.effects_barrier()
    assert capfd.readouterr().out.splitlines() == ["sophia: 0.750 of the elements are not clipped"]


def test_state_has_the_fields_of_optax():
    ours, theirs = gx.scale_by_sophia(), optax.contrib.sophia(0.1)
    assert ours.init(PARAMS)._fields == theirs.init(PARAMS)[0]._fields


def complex_leaf():
    params = {"z": jnp.ones(2, jnp.complex64)}
    return gx.sophia(0.1).init(params)


REFUSED = {
    "complex": (
        complex_leaf,
        TypeError,
        r"scale_by_sophia: params\['z'\]: .*complex64\[2\]; .*split_real_and_imaginary",
    ),
    "no-loss": (
        lambda: gx.sophia(0.1).update(PARAMS, gx.sophia(0.1).init(PARAMS), PARAMS),
        TypeError,
        "sophia needs the extra argument obj_fn",
    ),
    "state-of-another-model": (
        lambda: gx.sophia(0.1).update(PARAMS, gx.sophia(0.1).init(PARAMS | {"b": jnp.ones(4)}), PARAMS, obj_fn=loss),
        ValueError,
        r"scale_by_sophia: state.nu\['b'\]: expected float32\[3\] .* got float32\[4\]; the state belongs to another",
    ),
    "no-params": (
        lambda: gx.sophia(0.1).update(PARAMS, gx.sophia(0.1).init(PARAMS), obj_fn=loss),
        ValueError,
        "scale_by_sophia needs the parameters",
    ),
    "with-aux": (
        lambda: gx.sophia(0.1).update(PARAMS, gx.sophia(0.1).init(PARAMS), PARAMS, obj_fn=lambda p: (loss(p), 0)),
        TypeError,
        "hutchinson_estimator_diag_hessian: obj_fn must give the loss alone, a real scalar, got a tuple",
    ),
    "not-scalar": (
        lambda: gx.sophia(0.1).update(PARAMS, gx.sophia(0.1).init(PARAMS), PARAMS, obj_fn=lambda p: p["b"]),
        TypeError,
        r"obj_fn must give the loss alone, a real scalar, got float32\[3\]",
    ),
    "verbose-never": (
        lambda: gx.sophia(0.1, verbose=True),
        ValueError,
        "sophia: verbose .*print_win_rate_every_n_steps",
    ),
    "verbose-unclipped": (
        lambda: gx.scale_by_sophia(clip_threshold=None, verbose=True, print_win_rate_every_n_steps=5),
        ValueError,
        "scale_by_sophia: verbose .*clip_threshold",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_complex_parameters_as_pairs_of_real_ones():
    z = {"z": jnp.array([1 + 2j, -0.5j], jnp.complex64)}
    f = lambda p: jnp.sum(jnp.real(p["z"]) ** 2 + 3 * jnp.imag(p["z"]) ** 2)  # noqa: E731
    tx = gx.split_real_and_imaginary(gx.scale_by_sophia(b2=0.0))
    _, state = tx.update(z, tx.init(z), z, obj_fn=f)
    chex.assert_trees_all_close(tuple(state.inner_state.nu["z"]), (2 * jnp.ones(2), 6 * jnp.ones(2)), rtol=1e-5)


def test_training_in_a_scan_is_training_step_by_step():
    """And it descends: the loss of a quadratic of bad condition falls as one of good condition would."""
    scales = jnp.array([1.0, 10.0, 1000.0])
    f = lambda p: 0.5 * jnp.sum(scales * p["b"] ** 2)  # noqa: E731
    tx, params = gx.sophia(0.3, 0.9, 0.9, weight_decay=0.0, gamma=1.0), {"b": jnp.array([1.0, -1.0, 1.0])}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(f)(params), state, params, obj_fn=f)
        return (gx.apply_updates(params, updates), state), None

    start = (params, tx.init(params))
    scanned, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=60))(start)
    by_hand = start
    for _ in range(60):
        by_hand, _ = jax.jit(step)(by_hand, None)
    helpers.assert_close(scanned, by_hand, rtol=1e-5)
    assert float(f(scanned[0])) < 1e-3 * float(f(params))
