"""GaLore beyond its recorded runs: memory, which leaves are matrices, the side and the pace of the projection."""

import copy
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx as gx

RNG = np.random.default_rng(0)


def normal(*shape, dtype="float32"):
    return jnp.asarray(RNG.normal(size=shape), dtype)


PARAMS = {"bias": normal(3), "conv": normal(2, 3, 4, 5), "kernel": normal(6, 4), "stack": normal(2, 4, 6)}
GRADS = [jax.tree.map(lambda x: normal(*x.shape), PARAMS) for _ in range(4)]
NUMBERS = {
    "bias": None,
    "conv": gx.GaLoreDimensionNumbers(None, -1),
    "kernel": gx.GaLoreDimensionNumbers(),
    "stack": gx.GaLoreDimensionNumbers(-2, -1),
}


def run(tx, params, grads):
    """All updates, and the state after each."""
    state, every = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        every.append((updates, state))
    return every


def test_the_state_has_the_projected_shapes():
    """Of an m × n matrix P and the two moments of Adam, (2 m + n) r numbers where Adam alone has 2 m n."""
    params = {"kernel": jnp.zeros((1024, 256), jnp.bfloat16), "wide": jnp.zeros((256, 1024)), "bias": jnp.zeros(256)}
    state = jax.eval_shape(gx.scale_by_galore(8).init, params)
    assert {name: x.shape for name, x in state.projector.items()} == {
        "kernel": (256, 8),
        "wide": (256, 8),
        "bias": (0, 0),
    }
    assert state.projector["kernel"].dtype == jnp.bfloat16
    for moment in (state.base_optimizer_state.mu, state.base_optimizer_state.nu):
        assert {name: x.shape for name, x in moment.items()} == {"kernel": (1024, 8), "wide": (8, 1024), "bias": (256,)}
        assert {x.dtype for x in jax.tree.leaves(moment)} == {jnp.dtype("float32")}
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    adam = jax.eval_shape(gx.scale_by_adam().init, params)
    assert count(state) == 2 * (2 * 1024 + 256) * 8 + 2 * 256 + 2
    assert count(state) < 0.04 * count(adam)


@pytest.mark.parametrize("proj_type", ["std", "reverse_std", "left", "right"])
def test_the_side_that_is_projected(proj_type):
    shapes = {"tall": (6, 4), "square": (5, 5), "wide": (4, 6)}
    rows = {"std": {"wide"}, "reverse_std": {"tall", "square"}, "left": {*shapes}, "right": set()}[proj_type]
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    state = jax.eval_shape(gx.scale_by_galore(2, proj_type=proj_type).init, params)
    for name, (m, n) in shapes.items():
        assert state.projector[name].shape == ((m if name in rows else n), 2)
        assert state.base_optimizer_state.mu[name].shape == ((2, n) if name in rows else (m, 2))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("proj_type", ["left", "right"])
def test_a_projection_of_full_rank_loses_nothing(proj_type, dtype):
    with jax.numpy_dtype_promotion("standard"):
        g = normal(4, 6) + (1j * normal(4, 6) if dtype == "complex64" else 0)
    tx = gx.scale_by_galore(10, base_optimizer=gx.identity(), proj_type=proj_type)
    updates, state = tx.update(g, tx.init(g))
    chex.assert_trees_all_close(tx.update(g, state)[0], updates, rtol=1e-5)
    chex.assert_trees_all_close(updates, g, rtol=1e-4, atol=1e-5)
    assert state.projector.shape == ({"left": 4, "right": 6}[proj_type], 4)


def test_the_projection_is_the_best_of_its_rank():
    """Eckart & Young: without an optimizer, the first update is the nearest matrix of rank r."""
    g = normal(7, 5)
    u, s, v = np.linalg.svd(np.asarray(g, np.float64), full_matrices=False)
    tx = gx.scale_by_galore(2, base_optimizer=gx.identity(), scale=0.5)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], 0.5 * (u[:, :2] * s[:2]) @ v[:2], atol=1e-5)


def test_the_subspace_changes_every_so_many_updates():
    tx = gx.scale_by_galore(2, 3)
    projectors = [state.projector["kernel"] for _, state in run(tx, PARAMS, GRADS)]
    for i, stays in [(1, True), (2, True), (3, False)]:
        assert bool(jnp.all(projectors[i] == projectors[i - 1])) is stays


def test_one_condition_for_all_matrices():
    """The singular value decompositions stand in it, and nowhere else."""
    params = [jnp.ones((4, 3))] * 3
    tx = gx.scale_by_galore(2)
    program = jax.make_jaxpr(tx.update)(params, jax.eval_shape(tx.init, params), params)
    outer = [eqn.primitive.name for eqn in program.eqns]
    assert outer.count("cond") == 1
    assert "svd" not in outer


@pytest.mark.parametrize(
    "of_leaves", [NUMBERS, lambda params: {name: NUMBERS[name] for name in params}], ids=["tree", "function"]
)
def test_dimension_numbers_of_each_leaf(of_leaves):
    """A convolution is the matrix that it is flattened to, stacked matrices are matrices each, None is left alone."""
    tx = gx.scale_by_galore(2, 2, weight_dimension_numbers=of_leaves)
    alone = {
        "bias": gx.scale_by_adam(),
        "conv": gx.scale_by_galore(2, 2),
        "kernel": gx.scale_by_galore(2, 2),
        "stack": gx.scale_by_galore(2, 2),
    }
    shape = {"bias": (3,), "conv": (24, 5), "kernel": (6, 4)}
    together = run(tx, PARAMS, GRADS)
    for name, size in shape.items():
        own = run(alone[name], PARAMS[name].reshape(size), [g[name].reshape(size) for g in GRADS])
        for (ours, _), (theirs, _) in zip(together, own, strict=True):
            np.testing.assert_allclose(ours[name].reshape(size), theirs, rtol=1e-4, atol=1e-5)
    for i in range(2):
        own = run(alone["stack"], PARAMS["stack"][i], [g["stack"][i] for g in GRADS])
        for (ours, _), (theirs, _) in zip(together, own, strict=True):
            np.testing.assert_allclose(ours["stack"][i], theirs, rtol=1e-4, atol=1e-5)


def test_dimension_numbers_may_be_a_prefix():
    params = {"layers": [{"w": jnp.ones((4, 3))}, {"w": jnp.ones((4, 3))}], "head": {"w": jnp.ones((4, 3))}}
    prefix = {"layers": gx.GaLoreDimensionNumbers(1, 0), "head": None}
    state = gx.galore(0.1, 1, weight_dimension_numbers=prefix).init(params)[0]
    assert [x.shape for x in jax.tree.leaves(state.projector)] == [(0, 0), (3, 1), (3, 1)]
    visible = gx.masked(gx.scale_by_galore(1, weight_dimension_numbers=prefix), "layers").init(params)
    assert [x.shape for x in jax.tree.leaves(visible.inner_state.projector)] == [(3, 1), (3, 1)]


def test_a_tree_of_dimension_numbers_is_part_of_the_value():
    tx = gx.galore(0.1, 4, weight_dimension_numbers=NUMBERS)
    for twin in (
        eval(repr(tx), {**vars(gx)}),
        gx.from_config(json.loads(json.dumps(gx.to_config(tx)))),
        copy.deepcopy(tx),
    ):
        assert (twin, hash(twin)) == (tx, hash(tx))
    assert tx != tx.replace(weight_dimension_numbers=NUMBERS | {"kernel": None})


def test_state_and_numbers_have_the_fields_of_optax():
    assert gx.GaLoreState._fields == optax.contrib.GaLoreState._fields
    fields = tuple(gx.GaLoreDimensionNumbers.field_kinds())
    assert fields == optax.contrib.GaLoreDimensionNumbers._fields


REFUSED = {
    "base-needs-params": (
        lambda: gx.galore(0.1, base_optimizer=gx.adamw(1.0)).expanded,
        "base_optimizer: add_decayed_weights needs the parameters.*weight_decay",
    ),
    "fits-no-leaf": (
        lambda: gx.galore(0.1, weight_dimension_numbers=gx.GaLoreDimensionNumbers(0, (1, 2))).init(
            {"a": {"w": jnp.ones((4, 3))}}
        ),
        r"scale_by_galore: params\['a'\]\['w'\]: float32\[4,3\] is no matrix.*no axis 2.*None for such leaves",
    ),
    "vector": (
        lambda: gx.galore(0.1, weight_dimension_numbers={"b": gx.GaLoreDimensionNumbers()}).init({"b": jnp.ones(3)}),
        r"params\['b'\]: float32\[3\] is no matrix.*no axis 1",
    ),
    "axis-twice": (
        lambda: gx.galore(0.1, weight_dimension_numbers=gx.GaLoreDimensionNumbers(0, 0)).init(jnp.ones((4, 3))),
        "an axis is named twice",
    ),
    "another-tree": (
        lambda: gx.galore(0.1, weight_dimension_numbers={"w": gx.GaLoreDimensionNumbers()}).init(
            {"v": jnp.ones((4, 3))}
        ),
        r"scale_by_galore: weight_dimension_numbers.*missing \['v'\]",
    ),
}


def with_state_of(other, params, grads):
    tx = gx.scale_by_galore(2)
    return lambda: tx.update(grads, other.init(params))


REFUSED |= {
    "state-of-another-rank": (
        with_state_of(gx.scale_by_galore(3), {"w": jnp.ones((6, 4))}, {"w": jnp.ones((6, 4))}),
        r"scale_by_galore: state.projector\['w'\]: expected float32\[4,2\] .* got float32\[4,3\]; .*another model",
    ),
    "state-of-another-model": (
        with_state_of(gx.scale_by_galore(2), {"v": jnp.ones((6, 4))}, {"w": jnp.ones((6, 4))}),
        r"scale_by_galore: state.projector: missing \['w'\].*another model",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_are_no_dimension_numbers():
    with pytest.raises(
        TypeError,
        match=r"galore: weight_dimension_numbers\['w'\] must be GaLoreDimensionNumbers.* got the Python int 3",
    ):
        gx.galore(0.1, weight_dimension_numbers={"w": 3})
    with pytest.raises(
        TypeError, match=r"weight_dimension_numbers must be GaLoreDimensionNumbers.* got the Python bool"
    ):
        gx.galore(0.1, weight_dimension_numbers=lambda params: True).init(jnp.ones((4, 3)))
