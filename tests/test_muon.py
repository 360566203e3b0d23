"""Muon beyond its trajectories: what is made orthogonal, which leaves are matrices and how, what is refused."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import pytest
from golden import data
from optax.contrib._muon import orthogonalize_via_newton_schulz

import gradtx as gx
from gradtx.transforms.orthogonal import DION, STANDARD

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
CONV = jnp.asarray(RNG.normal(size=(3, 2, 5, 4)), jnp.float32)
STACK = jnp.asarray(RNG.normal(size=(2, 4, 6)), jnp.float32)


def update_of(tx, grads):
    return tx.update(grads, tx.init(grads), grads)[0]


def muon_of(numbers, **options):
    return gx.scale_by_muon(weight_dimension_numbers=numbers, **options)


# The iteration.


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 3), (3, 1)])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("complex64", marks=pytest.mark.long)])
def test_orthogonalize_keeps_the_singular_vectors(shape, dtype):
    """UᴴOV is diagonal, with values of about 1, whatever the size of the matrix."""
    x = RNG.normal(size=shape) if dtype == "float32" else RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    x = jnp.asarray(x, dtype)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    for scale in (1e-3, 1.0, 1e25):
        inner = u.conj().T @ np.asarray(gx.orthogonalize(scale * x)) @ vh.conj().T
        assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-4
        values = np.diag(inner).real[s > 0.05 * np.linalg.norm(s)]
        assert 0.6 < values.min() <= values.max() < 1.25


def test_more_triples_come_closer_to_orthogonal():
    far, near = (
        np.linalg.svd(gx.orthogonalize(KERNEL, coeffs=c), compute_uv=False) for c in ((3.4445, -4.775, 2.0315), DION)
    )
    assert np.abs(near - 1).max() < 0.06 < np.abs(far - 1).max()


def test_steps_are_as_many_as_triples():
    triples = [(3.4445, -4.775, 2.0315)] * 3
    ours = update_of(gx.scale_by_muon(triples, ns_steps=7), KERNEL)
    np.testing.assert_array_equal(ours, update_of(gx.scale_by_muon(ns_steps=3), KERNEL))
    np.testing.assert_array_equal(
        update_of(gx.scale_by_muon("dion"), KERNEL), update_of(gx.scale_by_muon(DION), KERNEL)
    )


def test_iteration_in_bfloat16():
    """Products take bfloat16 and sum in float32; singular values end where Jordan says; the result is float32 again."""
    program = jax.make_jaxpr(lambda x: gx.orthogonalize(x, 5, dtype="bfloat16"))(KERNEL)
    products = [equation for equation in program.eqns if equation.primitive.name == "dot_general"]
    assert len(products) == 15
    assert {x.aval.dtype.name for product in products for x in product.invars} == {"bfloat16"}
    assert {x.aval.dtype.name for product in products for x in product.outvars} == {"float32"}
    rough = update_of(gx.scale_by_muon(ns_dtype="bfloat16"), KERNEL)
    assert rough.dtype == jnp.float32
    values = np.linalg.svd(rough, compute_uv=False)
    assert 0.5 < values.min() <= values.max() < 1.5


def test_coefficients_are_not_rounded_to_bfloat16():
    """In bfloat16 3.4445 would be 3.4375, with a deviation of 6 %; in float32 the deviation is torch's, 1.6 %."""
    kernels = jnp.asarray(np.random.default_rng(0).normal(size=(8, 32, 64)), jnp.float32)
    rough, fine = (jax.vmap(lambda x, d=d: gx.orthogonalize(x, dtype=d))(kernels) for d in ("bfloat16", None))
    assert jnp.linalg.norm(rough - fine) / jnp.linalg.norm(fine) < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_iteration_takes_matrices_of_every_size(dtype):
    expected = gx.orthogonalize(KERNEL, dtype=dtype)
    for scale in (2.0**-60, 2.0**60):
        np.testing.assert_array_equal(gx.orthogonalize(scale * KERNEL, eps=1e-30, dtype=dtype), expected)
    np.testing.assert_array_equal(gx.orthogonalize(0 * KERNEL, dtype=dtype), 0 * KERNEL)


PRECONDITIONINGS = ["frobenius", "spectral", "aol", "schatten"]


@pytest.mark.parametrize("kind", PRECONDITIONINGS)
@pytest.mark.parametrize("x", [KERNEL, KERNEL.T], ids=["wide", "tall"])
def test_preconditionings_are_those_of_optax(kind, x):
    """By the first step, which tells them apart, and by all five."""
    for steps in (1, 5):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want = orthogonalize_via_newton_schulz(x, jnp.array(STANDARD), steps, kind)
        np.testing.assert_allclose(gx.orthogonalize(x, steps, preconditioning=kind), want, atol=1e-5)


@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_preconditionings_of_complex_matrices(kind):
    """One step in complex128. optax's "schatten" lacks the conjugate."""
    x = RNG.normal(size=(3, 5)) + 1j * RNG.normal(size=(3, 5))
    gram = x @ x.conj().T
    divisor = {
        "frobenius": np.linalg.norm(x),
        "spectral": np.linalg.norm(x, 2),
        "aol": np.sqrt(np.abs(gram).sum(1, keepdims=True)),
        "schatten": np.linalg.norm(np.linalg.svd(x, compute_uv=False), 4),
    }[kind]
    x0 = x / divisor
    a = x0 @ x0.conj().T
    want = 3.4445 * x0 + (-4.775 * a + 2.0315 * a @ a) @ x0
    ours = gx.orthogonalize(jnp.asarray(x, jnp.complex64), 1, preconditioning=kind)
    np.testing.assert_allclose(ours, want, atol=1e-5)


@pytest.mark.parametrize("kind", PRECONDITIONINGS)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_preconditionings_take_matrices_of_every_size(kind, dtype):
    """Also where squares overflow or underflow."""
    for x in (KERNEL, KERNEL.T):
        expected = gx.orthogonalize(x, dtype=dtype, eps=1e-30, preconditioning=kind)
        for scale in (2.0**-60, 2.0**60):
            ours = gx.orthogonalize(scale * x, dtype=dtype, eps=1e-30, preconditioning=kind)
            np.testing.assert_allclose(ours, expected, atol=1e-6 if dtype is None else 0.02)
    for shape in ((4, 6), (0, 3), (3, 0)):
        np.testing.assert_array_equal(gx.orthogonalize(jnp.zeros(shape), preconditioning=kind, dtype=dtype), 0)


def test_a_gradient_of_1e_5_is_not_shrunk():
    for kind in PRECONDITIONINGS:
        small, large = (gx.orthogonalize(scale * KERNEL, preconditioning=kind) for scale in (1e-5, 1.0))
        np.testing.assert_allclose(small, large, atol=2e-3)


@pytest.mark.parametrize("form", ["debiased", "mean", "sum"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_size_of_the_gradients_does_not_matter(form, nesterov):
    tx = gx.scale_by_muon(form=form, nesterov=nesterov)
    np.testing.assert_allclose(update_of(tx, 1e4 * KERNEL), update_of(tx, KERNEL), atol=1e-5)


def test_mean_and_sum_differ_in_what_they_remember_only():
    means, sums = (gx.scale_by_muon(form=form, beta=0.75) for form in ("mean", "sum"))
    state, other = means.init(KERNEL), sums.init(KERNEL)
    for scale in (1.0, -2.0, 3.0):
        grads = scale * KERNEL + 1
        (update, state), (twin, other) = means.update(grads, state), sums.update(grads, other)
        np.testing.assert_allclose(update, twin, atol=1e-5)
        np.testing.assert_allclose(state.mu, 0.25 * other.mu, rtol=1e-5)


@pytest.mark.parametrize("leaf", [jnp.zeros((3, 4)), jnp.zeros((0, 3)), jnp.zeros((3, 0)), jnp.zeros((0, 0))])
def test_nothing_comes_of_nothing(leaf):
    for tx in (gx.muon(0.1), gx.muon(0.1, adaptive=True, consistent_rms=0.2, form="sum")):
        update = update_of(tx, leaf)
        assert update.shape == leaf.shape
        np.testing.assert_array_equal(update, 0)


# How arrays are matrices.


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        (((0, 1, 2), 3), {}),
        (((1, 3), 0), {"nesterov": False}),
        ((-1, (0, -2)), {}),
        ((2, (3, 0)), {"nesterov": False, "adaptive": True}),
    ],
)
def test_dimension_numbers_are_those_of_optax(numbers, options):
    theirs = optax.contrib.scale_by_muon(
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(*numbers), **options
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        want = update_of(theirs, CONV)
    np.testing.assert_allclose(update_of(muon_of(numbers, **options), CONV), want, atol=2e-5 * np.abs(want).max())


def test_a_convolution_is_a_matrix_to_its_outputs():
    flat = update_of(gx.scale_by_muon(), CONV.reshape(-1, 4)).reshape(CONV.shape)
    for numbers in (gx.MuonDimensionNumbers(None, -1), gx.MuonDimensionNumbers((0, 1, 2), 3)):
        np.testing.assert_allclose(update_of(muon_of(numbers), CONV), flat, atol=1e-6)


def test_matrices_may_be_stacked():
    each = jnp.stack([update_of(gx.scale_by_muon(), x) for x in STACK])
    np.testing.assert_allclose(update_of(muon_of((-2, -1)), STACK), each, atol=1e-5)
    assert update_of(muon_of((-2, -1)), STACK[:0]).shape == (0, 4, 6)


MIXED = {"bias": jnp.ones(4), "conv": CONV, "dense": {"kernel": KERNEL, "twin": 2 * KERNEL + 1}, "stack": STACK}


def numbers_of(library, spec=(((0, 1, 2), 3), (0, 1), (-2, -1))):
    """Dimension numbers for each leaf of `MIXED`: `None` for Adam's, one for the whole of `dense`."""
    conv, dense, stack = itertools.starmap(library.MuonDimensionNumbers, spec)
    return {"bias": None, "conv": conv, "dense": dense, "stack": stack}


@pytest.mark.parametrize("spell", [lambda tree: tree, lambda tree: lambda params: tree], ids=["tree", "function"])
def test_dimension_numbers_for_each_leaf_are_those_of_optax(spell):
    """Several steps: the momentum of each leaf must find its way back to it."""
    options = {"ns_steps": 2, "weight_decay": 0.1, "preconditioning": "schatten"}
    ours = gx.muon(0.1, muon_weight_dimension_numbers=spell(numbers_of(gx)), **options)
    theirs = optax.contrib.muon(0.1, muon_weight_dimension_numbers=spell(numbers_of(optax.contrib)), **options)
    state, other = ours.init(MIXED), theirs.init(MIXED)
    step = jax.jit(theirs.update)
    for scale in (1.0, -0.5, 2.0):
        grads = jax.tree.map(lambda x, s=scale: s * x + 1, MIXED)
        updates, state = ours.update(grads, state, MIXED)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want, other = step(grads, other, MIXED)
        chex.assert_trees_all_close(updates, want, atol=2e-5, rtol=1e-5)
    own, other = (each.inner_states["muon"].inner_state[0] for each in (state, other))
    assert int(own.count) == 3
    chex.assert_trees_all_close(own.mu, _with_our_nodes(other.mu), rtol=1e-5)


def test_stages_take_dimension_numbers_for_each_leaf():
    """Without a partition around them, and with a schedule."""
    params = {name: x for name, x in MIXED.items() if name != "bias"}
    numbers = {name: own for name, own in numbers_of(gx).items() if name != "bias"}
    tx = gx.chain(muon_of(numbers, ns_steps=2, beta=gx.linear_schedule(0.9, 0.5, 3)), gx.scale_by_shape(numbers))
    updates, state = jax.jit(tx.update)(params, tx.init(params))
    for name, own in numbers.items():
        alone = gx.chain(muon_of(own, ns_steps=2, beta=0.9), gx.scale_by_shape(own))
        chex.assert_trees_all_close(updates[name], update_of(alone, params[name]), atol=1e-5)
    assert int(state[0].count) == 1
    assert gx.from_config(gx.to_config(tx)) == tx == eval(repr(tx), vars(gx))


def test_a_tree_of_dimension_numbers_may_leave_muon_without_a_leaf():
    tx = gx.muon(0.1, muon_weight_dimension_numbers={"bias": None})
    params = {"bias": jnp.ones(3)}
    chex.assert_trees_all_close(update_of(tx, params), update_of(gx.adam(0.1, nesterov=True), params), rtol=1e-5)


@pytest.mark.parametrize(
    ("error", "message", "make"),
    [
        (ValueError, "muon_mask: leave out one", lambda: gx.muon(0.1, muon_mask="w", muon_weight_dimension_numbers={})),
        (TypeError, r"\['w'\] must be MuonDimensionNumbers.*the Python int 1", lambda: muon_of({"w": 1})),
        (ValueError, r"\['w'\].*no dimension numbers", lambda: muon_of({"w": None}).init({"w": KERNEL})),
        (
            ValueError,
            r"missing \['w'\]",
            lambda: muon_of({"v": gx.MuonDimensionNumbers()}).init({"v": KERNEL, "w": KERNEL}),
        ),
        (
            TypeError,
            "muon_weight_dimension_numbers.*must be Muon.*got the Python str",
            lambda: gx.muon(0.1, muon_weight_dimension_numbers=lambda params: "kernel").init({"w": KERNEL}),
        ),
        (ValueError, "preconditioning must be one of", lambda: gx.muon(0.1, preconditioning="schatten4")),
    ],
)
def test_wrong_trees_of_dimension_numbers_are_refused(error, message, make):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("tx", "factor"),
    [
        (gx.scale_by_shape(), 1.5**0.5),
        (gx.scale_by_shape((1, 0)), 1.0),
        (gx.scale_by_shape((-2, -1)), 1.5**0.5),
        (gx.scale_by_shape(consistent_rms=0.2), 0.2 * 6**0.5),
    ],
)
def test_scale_by_shape(tx, factor):
    np.testing.assert_allclose(update_of(tx, KERNEL), factor * KERNEL, rtol=1e-6)


# Which leaves.

PARAMS = {"dense": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}, "token_Embedding": jnp.ones((5, 2))}


@pytest.mark.parametrize(
    ("rule", "selected"),
    [
        (gx.matrices_only(), {"dense/kernel", "token_Embedding"}),
        (gx.matrices_only(embeddings=False), {"dense/kernel"}),
        (gx.matrices_only("dense"), {"token_Embedding"}),
        (gx.matrices_only("dense", embeddings=False), set()),
    ],
)
def test_matrices_only(rule, selected):
    leaves = jax.tree_util.tree_leaves_with_path(rule(PARAMS))
    assert {jax.tree_util.keystr(path, simple=True, separator="/") for path, on in leaves if on} == selected


def test_muon_leaves_the_rest_to_adam():
    tx = gx.muon(0.1, adam_learning_rate=0.01, muon_mask=gx.matrices_only(embeddings=False), nesterov=False)
    updates, adam = update_of(tx, PARAMS), update_of(gx.adam(0.01), PARAMS)
    np.testing.assert_allclose(updates["dense"]["bias"], adam["dense"]["bias"], rtol=1e-6)
    np.testing.assert_allclose(updates["token_Embedding"], adam["token_Embedding"], rtol=1e-6)
    kernel = gx.orthogonalize(PARAMS["dense"]["kernel"])
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.1 * 1.5**0.5 * kernel, rtol=1e-5)


def test_the_state_has_the_shape_of_optax():
    """Under the same labels the same states, with the other's leaves hidden."""
    ours = gx.muon(0.1).init(PARAMS)
    theirs = optax.contrib.muon(0.1).init(PARAMS)
    assert type(ours).__name__ == type(theirs).__name__ == "PartitionState"
    assert ours.inner_states.keys() == theirs.inner_states.keys() == {"adam", "muon"}
    for label, fields in (("adam", ("mu", "nu")), ("muon", ("mu",))):
        own, other = (state.inner_states[label] for state in (ours, theirs))
        assert type(own).__name__ == type(other).__name__ == "MaskedState"
        for field in fields:
            own_slot, other_slot = (getattr(state.inner_state[0], field) for state in (own, other))
            assert jax.tree.map(jnp.shape, own_slot) == jax.tree.map(jnp.shape, _with_our_nodes(other_slot))


def _with_our_nodes(tree):
    is_theirs = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda x: gx.MaskedNode() if is_theirs(x) else x, tree, is_leaf=is_theirs)


@pytest.mark.parametrize(("mask", "wanted"), [(True, gx.orthogonalize(jnp.eye(2))), (False, jnp.ones((2, 2)))])
def test_muon_or_adam_may_be_without_a_leaf(mask, wanted):
    tx = gx.muon(1.0, muon_mask=mask, nesterov=False)
    grads = {"kernel": jnp.eye(2) if mask else jnp.ones((2, 2))}
    np.testing.assert_allclose(update_of(tx, grads)["kernel"], -wanted, rtol=1e-5)


# What is refused.


@pytest.mark.parametrize("tx", [gx.scale_by_muon(), gx.scale_by_shape(), gx.muon(0.1, muon_mask=None)])
def test_what_is_no_matrix_is_refused(tx):
    """By its path, with the cure."""
    with pytest.raises(
        ValueError, match=r"params\['dense'\]\['bias'\]: expected a matrix, got float32\[3\].*partition"
    ):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 2), r"\['w'\].*there is no axis 2"),
        ((0, -3), r"\['w'\].*there is no axis -3"),
        ((0, 0), r"\['w'\].*named twice"),
        ((0, (1, -1)), r"\['w'\].*named twice"),
    ],
)
def test_dimension_numbers_that_do_not_fit_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        muon_of(numbers).init({"w": KERNEL})


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "ns_coeffs must be three numbers", {"ns_coeffs": (1.0, 2.0)}),
        (TypeError, "ns_coeffs must be three numbers", {"ns_coeffs": []}),
        (TypeError, "ns_coeffs must be three numbers", {"ns_coeffs": 3.0}),
        (ValueError, "ns_coeffs must be finite", {"ns_coeffs": (1.0, 2.0, float("nan"))}),
        (ValueError, "ns_coeffs must be one of 'standard', 'dion'", {"ns_coeffs": "best"}),
        (TypeError, "must be MuonDimensionNumbers", {"weight_dimension_numbers": 0}),
        (TypeError, "output_axis must be an axis", {"weight_dimension_numbers": (0, "1")}),
        (TypeError, "reduction_axis must be an axis", {"weight_dimension_numbers": (True, 1)}),
        (ValueError, "form must be one of", {"form": "total"}),
    ],
)
def test_bad_hyperparameters_are_refused(error, message, options):
    with pytest.raises(error, match=message):
        gx.scale_by_muon(**options)


def test_keras_s_adam_is_why_its_muon_is_left_out():
    """The recorded vector, which Adam moves, lies further from Adam's equations in float64 than the tolerance."""
    golden = data.trajectory("keras:muon_0_A")
    x, m, v, rows = golden.params["v5"].astype(float), 0.0, 0.0, []
    for t, g in enumerate(golden.grads["v5"].astype(float), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x * (1 - 0.02 * 0.004) - 0.02 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
        rows.append(x)
    deviation = np.abs(np.stack(rows)[golden.steps - 1] - golden.recorded["params"][:, :5])
    assert deviation.max() > golden.bounds["params"].max()
