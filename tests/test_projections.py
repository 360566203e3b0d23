"""Projections beside their definition, optax and scipy in float64; at the corners; and `project`."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import every_other
from jax.test_util import check_grads
from optax import projections as theirs

import gradtx as gx
from gradtx import projections as ours

TREE = {"w": np.array([[0.5, -2.1], [3.5, 0.0]]), "b": (np.array(1.25), np.array([-0.65, 0.25, 0.25]))}
NORMAL = {"w": np.array([[1.0, -2.0], [0.5, 0.0]]), "b": (np.array(3.0), np.array([1.0, 0.0, -1.0]))}
RADIUS = dict.fromkeys(("hypercube", "simplex", "l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball"), (0.75,))
LARGE = {f"{name}, inside": (name, (40.0,)) for name in ("l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball")}
CASES = {name: (name, arguments) for name, arguments in RADIUS.items()} | LARGE
CASES |= {
    "non_negative": ("non_negative", ()),
    "box": ("box", (jax.tree.map(lambda a: -abs(a), NORMAL), jax.tree.map(abs, NORMAL))),
    "vector": ("vector", (NORMAL,)),
    "hyperplane": ("hyperplane", (NORMAL, 1.5)),
    "halfspace": ("halfspace", (NORMAL, -1.5)),
    "halfspace, inside": ("halfspace", (NORMAL, 50.0)),
}
every_case = pytest.mark.parametrize("case", CASES)

simplex, l1_sphere, l2_sphere, l2_ball = (
    jax.jit(getattr(ours, f"projection_{name}")) for name in ("simplex", "l1_sphere", "l2_sphere", "l2_ball")
)
"Compiled, which takes less time than one operation after the other."


def of(module, case):
    name, arguments = CASES[case]
    return functools.partial(
        lambda f, tree: f(tree, *jax.tree.map(jnp.asarray, arguments)), getattr(module, f"projection_{name}")
    )


def concrete(case):
    """Ours, with the arguments as they are written."""
    name, arguments = CASES[case]
    arguments = jax.tree.map(lambda x: jnp.asarray(x) if np.ndim(x) else x, arguments)
    return lambda tree: getattr(ours, f"projection_{name}")(tree, *arguments)


def tree():
    return jax.tree.map(jnp.asarray, TREE)


def without_zeros():
    return jax.tree.map(lambda leaf: jnp.asarray(np.where(leaf == 0, 0.125, leaf)), TREE)


def flat(x):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(x)])


def test_all_of_optax_are_there():
    assert {name for name in dir(theirs) if name.startswith("projection_")} == {*ours.__all__}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in CASES if case != "hypercube"])
def test_beside_optax(case):
    """The same where no element is 0: there optax's l1 spheres miss their radius. Its cubes are for single arrays."""

    @jax.jit
    def both(x):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            want = of(theirs, case)(x)
        return of(ours, case)(x), want

    chex.assert_trees_all_close(*both(without_zeros()), rtol=1e-13, atol=1e-13)


SETS = {
    "box": [(-abs(a), abs(a)) for a in flat(NORMAL)],
    "hypercube": [(0, 0.75)] * 8,
    "linf_ball": [(-0.75, 0.75)] * 8,
    "non_negative": [(0, None)] * 8,
    "simplex": {"type": "eq", "fun": lambda p: np.sum(p) - 0.75},
    "hyperplane": {"type": "eq", "fun": lambda p: p @ flat(NORMAL) - 1.5},
    "halfspace": {"type": "ineq", "fun": lambda p: -1.5 - p @ flat(NORMAL)},
    "l2_ball": {"type": "ineq", "fun": lambda p: 0.75**2 - p @ p},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SETS)
def test_is_the_nearest_point_that_scipy_finds(name):
    x, constraint = flat(TREE), SETS[name]
    bounds = constraint if isinstance(constraint, list) else [(0, None)] * 8 if name == "simplex" else None
    constraints = () if isinstance(constraint, list) else [constraint]
    start = np.full(8, 0.01)
    found = scipy.optimize.minimize(
        lambda p: np.sum((p - x) ** 2),
        start,
        bounds=bounds,
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    np.testing.assert_allclose(flat(jax.jit(concrete(name))(tree())), found.x, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", every_other(CASES))
def test_derivatives(case):
    """Forward and reverse, beside finite differences; no element is on an edge."""
    x = without_zeros()
    check_grads(jax.jit(of(ours, case)), (x,), order=1, modes=("fwd", "rev"), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RADIUS)
def test_derivative_by_the_radius(name):
    function = getattr(ours, f"projection_{name}")
    check_grads(
        jax.jit(lambda radius: function(tree(), radius)), (jnp.asarray(0.75),), order=1, modes=("rev",), rtol=1e-5
    )


@every_case
def test_inside_nothing_changes(case):
    """A second projection changes no bit where sums are exact, and only the last bits elsewhere."""
    nearest = jax.jit(concrete(case))
    once = nearest(jax.tree.map(lambda x: x.astype(jnp.float32), tree()))
    twice = nearest(once)
    chex.assert_trees_all_close(twice, once, rtol=3e-7, atol=3e-7)
    if case.endswith("inside") and "sphere" not in case:
        chex.assert_trees_all_equal(once, jax.tree.map(lambda x: x.astype(jnp.float32), tree()))
    if case in ("box", "non_negative", "hypercube", "linf_ball"):
        chex.assert_trees_all_equal(twice, once)


def test_points_of_the_simplex_stay():
    points = [jnp.array([0.25, 0.25, 0.5]), jnp.array([0.0, 1.0]), jnp.full(8, 0.125)]
    every = jax.jit(lambda: [(ours.projection_simplex(x), jax.jacobian(ours.projection_simplex)(x)) for x in points])()
    for x, (nearest, slope) in zip(points, every, strict=True):
        chex.assert_trees_all_equal(nearest, x)
        np.testing.assert_allclose(np.sum(slope, 0), 0, atol=1e-7)


@every_case
def test_dtypes(case):
    """Each leaf keeps its dtype, and half precision is the rounded result of float32."""
    x = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), tree())
    wide = jax.tree.map(lambda leaf: leaf.astype("float32"), x)
    got, want, name = *jax.jit(lambda *trees: tuple(map(concrete(case), trees)))(x, wide), CASES[case][0]
    want = jax.tree.map(lambda a, b: a.astype(b.dtype), want, x)
    chex.assert_trees_all_equal_dtypes(got, x)
    exact = name != "vector" and not name.startswith("h")  # the normal has the dtype of the leaf
    chex.assert_trees_all_close(got, want, rtol=0 if exact else 0.01)


def test_dtypes_may_differ(x64):
    x = {"a": jnp.ones(2, "bfloat16"), "b": jnp.ones(2, "float64")}
    got = simplex(x)
    chex.assert_trees_all_equal_dtypes(got, x)
    assert got["b"][0] == 0.25


# Corners.


@jax.jit
def of_equal_elements(size):
    x = jnp.full(9, size)
    return (
        ours.projection_l2_sphere(x),
        ours.projection_l2_sphere(x, size),
        ours.projection_l2_ball(x, size),
        ours.projection_simplex(x),
        ours.projection_l1_sphere(-x),
        ours.projection_l1_ball(x, size),
        ours.projection_vector(jnp.arange(9.0), x),
        ours.projection_hyperplane(jnp.zeros(9), x, size),
    )


class TestCorners:
    @pytest.mark.parametrize(
        "name", ["l1_ball", "l1_sphere", "l2_ball", "l2_sphere", "linf_ball", "simplex", "hypercube"]
    )
    def test_a_radius_of_zero(self, name):
        run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(getattr(ours, f"projection_{name}")(x, 0.0))))
        for x in (jnp.array([3.0, -1.0]), jnp.zeros(2)):
            got, slope = run(x)
            assert got == 0
            assert np.isfinite(slope).all()

    def test_zero_on_spheres(self):
        """A point of the sphere, where optax gives NaN and 0."""
        zero = {"a": jnp.zeros(3), "b": jnp.zeros(())}
        assert np.linalg.norm(flat(l2_sphere(zero, 2.0))) == 2
        assert np.sum(np.abs(flat(l1_sphere(zero, 2.0)))) == 2
        slope = jax.jit(jax.grad(lambda x: gx.tree.sum(ours.projection_l2_sphere(x))))(zero)
        chex.assert_trees_all_equal(slope, zero)
        chex.assert_trees_all_equal(l1_sphere(jnp.array([0.0, -0.5])), jnp.array([0.25, -0.75]))

    def test_derivatives_at_the_origin(self):
        for f in (ours.projection_l2_ball, ours.projection_l1_ball, ours.projection_linf_ball):
            chex.assert_trees_all_equal(jax.jit(jax.jacobian(f))(jnp.zeros(2)), jnp.eye(2))

    def test_ties_of_the_simplex(self):
        x = jnp.array([2.0, 2.0, 2.0, -1.0, -1.0])
        got = simplex(x)
        np.testing.assert_allclose(got, [1 / 3, 1 / 3, 1 / 3, 0, 0], rtol=2e-7)
        assert got[0] == got[1] == got[2]

    @pytest.mark.parametrize("size", [1e38, 1e30, 1e-30, 1e-36])
    def test_huge_and_tiny_elements(self, size):
        """Sums of squares, and sums of elements, leave the range of float32."""
        third = np.full(9, 1 / 3, np.float32)
        want = [third, size * third, size * third, third / 3, -third / 3, size / 9 * np.ones(9), 4, 1 / 9]
        for got, exact in zip(of_equal_elements(np.float32(size)), want, strict=True):
            np.testing.assert_allclose(got, np.broadcast_to(exact, 9), rtol=1e-6)

    def test_elements_far_apart(self):
        """What a running sum would lose beside a large element."""
        x = jnp.array([1e8, 1e8, 5.0, -1e8, -jnp.inf])
        np.testing.assert_array_equal(simplex(x), [0.5, 0.5, 0, 0, 0])
        many = np.linspace(0.0, 1e-3, 100_000, dtype=np.float32) + 1000
        assert abs(float(np.sum(np.asarray(simplex(many), np.float64))) - 1) < 1e-5

    def test_a_normal_of_zero(self):
        x, zero = jnp.array([1.0, 2.0]), jnp.zeros(2)
        chex.assert_trees_all_equal(ours.projection_vector(x, zero), zero)
        chex.assert_trees_all_equal(ours.projection_hyperplane(x, zero, 0.0), x)
        chex.assert_trees_all_equal(ours.projection_halfspace(x, zero, 1.0), x)
        for f, b in ((ours.projection_hyperplane, 1.0), (ours.projection_halfspace, -1.0)):
            with pytest.raises(ValueError, match=r"a is zero, and no tree has the inner product b = -?1"):
                f(x, zero, b)
            assert np.isnan(jax.jit(f)(x, zero, b)).all()

    def test_nothing_to_project(self):
        for empty in ({}, {"a": None}, {"a": jnp.zeros((0, 2))}):
            for case in (name for name in RADIUS):
                chex.assert_trees_all_equal(concrete(case)(empty), empty)
            chex.assert_trees_all_equal(ours.projection_hyperplane(empty, empty, 0.0), empty)

    def test_nan_is_not_hidden(self):
        x = jnp.array([jnp.nan, 2.0])
        np.testing.assert_array_equal(ours.projection_non_negative(x), x)
        np.testing.assert_array_equal(ours.projection_box(x, 0.0, 1.0), [np.nan, 1.0])
        for f in (jax.jit(ours.projection_l1_ball), l1_sphere, l2_ball, l2_sphere, simplex):
            assert np.isnan(f(x)).all(), f

    def test_complex_leaves(self):
        x = jnp.array([3j, 4.0 + 0j])
        np.testing.assert_allclose(ours.projection_l2_ball(x), [0.6j, 0.8], rtol=1e-6)
        np.testing.assert_allclose(ours.projection_l2_sphere(x, 10.0), [6j, 8], rtol=1e-6)

    def test_batches(self):
        """Radii may differ along a batch; an infinite one is no bound."""
        x, radii = jnp.array([[3.0, 4.0]] * 3), jnp.array([1.0, 5.0, jnp.inf])
        np.testing.assert_allclose(jax.vmap(l2_ball)(x, radii), [[0.6, 0.8], [3, 4], [3, 4]], rtol=1e-6)
        slopes = jax.jit(jax.vmap(jax.grad(lambda x, r: jnp.sum(ours.projection_l2_ball(x, r)))))(x, radii)
        assert np.isfinite(slopes).all()
        np.testing.assert_array_equal(jax.vmap(simplex)(x, jnp.array([1.0, 1.0, 5.0]))[2], [2.0, 3.0])


# Bad input.


@pytest.mark.parametrize("name", RADIUS)
def test_radii_are_checked(name):
    f, x = getattr(ours, f"projection_{name}"), jnp.array([3.0, 4.0])
    for bad in (-1.0, float("nan"), jnp.array(-0.5)):
        with pytest.raises(ValueError, match=f"projection_{name}: scale"):
            f(x, bad)
    for bad in ("1", None, True, 1j, [1.0]):
        with pytest.raises((TypeError, ValueError), match=f"projection_{name}: scale"):
            f(x, bad)
    assert np.isnan(jax.jit(f)(x, -1.0)).all()


@pytest.mark.parametrize("name", ["l1_sphere", "l2_sphere", "simplex"])
def test_a_sphere_has_a_finite_radius(name):
    with pytest.raises(ValueError, match="must be finite, got inf"):
        getattr(ours, f"projection_{name}")(jnp.ones(2), float("inf"))


def test_leaves_are_checked():
    for f in (ours.projection_non_negative, ours.projection_simplex, ours.projection_l2_ball, ours.projection_l1_ball):
        with pytest.raises(
            TypeError, match=rf"{f.__name__}: tree\['a'\]: expected a floating-point array, got int32\[2\]"
        ):
            f({"a": jnp.arange(2)})
    for f in (
        ours.projection_non_negative,
        ours.projection_simplex,
        ours.projection_linf_ball,
        ours.projection_l1_ball,
    ):
        with pytest.raises(TypeError, match=rf"{f.__name__}: tree: expected real numbers, got complex64\[\]"):
            f(jnp.asarray(1j))


def test_bounds_are_checked():
    x = {"a": jnp.zeros(2)}
    with pytest.raises(
        ValueError, match=r"projection_box: lower\['a'\]: expected a number or float32\[2\], got float32\[1\]"
    ):
        ours.projection_box(x, {"a": jnp.zeros(1)}, 1.0)
    with pytest.raises(ValueError, match=r"projection_box: upper: missing 'a'|projection_box: upper.*'a'"):
        ours.projection_box(x, 0.0, {"b": 1.0})
    with pytest.raises(ValueError, match=r"projection_box: upper\['a'\]: the upper bound must not be below"):
        ours.projection_box(x, {"a": jnp.array([0.0, 2.0])}, 1.0)
    with pytest.raises(TypeError, match="projection_box: upper must be a real scalar, got the Python str"):
        ours.projection_box(x, 0.0, "1")
    assert np.isnan(jax.jit(ours.projection_box)(jnp.ones(2), jnp.array([0.0, 2.0]), 1.0)).tolist() == [False, True]


def test_pairs_are_checked():
    with pytest.raises(
        ValueError, match=r"projection_vector: a\['a'\]: expected float32\[2\] like the leaf of x, got float32\[1\]"
    ):
        ours.projection_vector({"a": jnp.zeros(2)}, {"a": jnp.zeros(1)})
    with pytest.raises(ValueError, match="projection_hyperplane: a"):
        ours.projection_hyperplane({"a": jnp.zeros(2)}, jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match="projection_halfspace: b must be a real scalar"):
        ours.projection_halfspace(jnp.zeros(2), jnp.ones(2), jnp.ones(2))


# The transformation.


PARAMS = {"head": jnp.array([3.0, -4.0]), "bias": jnp.array([-1.0])}


class TestProject:
    def test_parameters_stay_in_the_set(self):
        target = jnp.array([0.7, 0.9, -0.4])
        tx = gx.chain(gx.sgd(0.05, 0.9), gx.project(ours.projection_simplex))
        params = jnp.ones(3) / 3
        state = tx.init(params)

        @jax.jit
        def step(params, state):
            updates, state = tx.update(params - target, state, params)
            return gx.apply_updates(params, updates), state

        for _ in range(200):
            params, state = step(params, state)
            np.testing.assert_allclose(jnp.sum(params), 1, rtol=1e-6)
            assert (params >= 0).all()
        np.testing.assert_allclose(params, ours.projection_simplex(target), atol=1e-3)

    def test_an_update_that_stays_inside_is_passed_on(self):
        """As it is, though (θ + u) − θ is another number."""
        params, updates = jnp.array([1.0, 3.0]), jnp.array([1e-9, -4.0])
        tx = gx.project(ours.projection_non_negative)
        got, _ = tx.update(updates, tx.init(params), params)
        chex.assert_trees_all_equal(got, jnp.array([1e-9, -3.0]))

    def test_mask(self):
        """Hidden leaves do not count in the norm; a tree among the arguments is masked, too."""
        zero = jax.tree.map(jnp.zeros_like, PARAMS)
        tx = gx.project(ours.projection_l2_ball, mask="head")
        moved = gx.apply_updates(PARAMS, tx.update(zero, tx.init(PARAMS), PARAMS)[0])
        np.testing.assert_allclose(moved["head"], [0.6, -0.8], rtol=1e-6)
        assert moved["bias"] == -1
        normal = {"head": jnp.array([1.0, 0.0]), "bias": jnp.array([100.0])}
        tx = gx.project(ours.projection_halfspace, {"a": normal, "b": 2.0}, {"head": True, "bias": False})
        moved = gx.apply_updates(PARAMS, tx.update(zero, tx.init(PARAMS), PARAMS)[0])
        chex.assert_trees_all_equal(moved, PARAMS | {"head": jnp.array([2.0, -4.0])})

    def test_is_keep_params_nonnegative(self):
        params = jnp.array([0.5, 0.25, 2.0])
        updates = jnp.array([-1.0, 1.0, -0.5])
        for tx in (gx.keep_params_nonnegative(), gx.project(ours.projection_non_negative)):
            got, _ = tx.update(updates, tx.init(params), params)
            chex.assert_trees_all_equal(got, jnp.array([-0.5, 1.0, -0.5]))

    def test_half_precision_reaches_the_set(self):
        params = jnp.linspace(-3, 3, 50).astype(jnp.bfloat16)
        tx = gx.project(ours.projection_non_negative)
        moved = gx.apply_updates(params, tx.update(jnp.zeros_like(params), tx.init(params), params)[0])
        assert moved.dtype == jnp.bfloat16
        chex.assert_trees_all_equal(moved, jnp.maximum(params, 0))

    def test_derivative(self, x64):
        tx = gx.chain(gx.sgd(0.1), gx.project(ours.projection_l2_ball))

        def after(g, p):
            return p + tx.update(g, tx.init(p), p)[0]

        check_grads(jax.jit(after), (jnp.array([5.0, -9.0]), jnp.array([0.6, 0.8])), order=1, modes=("fwd", "rev"))

    def test_own_function(self):
        """Each leaf by itself."""
        tx = gx.project(lambda tree: jax.tree.map(ours.projection_l2_sphere, tree))
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        moved = gx.apply_updates(PARAMS, updates)
        np.testing.assert_allclose([gx.tree.norm(x) for x in jax.tree.leaves(moved)], 1, rtol=1e-6)

    def test_is_a_value(self):
        tx = gx.project(ours.projection_hyperplane, {"a": jnp.ones(2), "b": 1.0}, mask="head")
        assert "projections.projection_hyperplane," in repr(tx)
        assert eval(repr(tx), {**vars(gx), "jnp": jnp}) == tx
        assert gx.from_config(json.loads(json.dumps(gx.to_config(tx)))) == tx
        assert gx.to_config(tx)["projection"] == {"function": "projections.projection_hyperplane"}

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match=r"project: arguments: projection_l2_ball of the parameters .* 'radius'"):
            gx.project(ours.projection_l2_ball, {"radius": 1.0})
        with pytest.raises(
            TypeError, match=r"project: arguments: projection_box .*missing a required argument: 'lower'"
        ):
            gx.project(ours.projection_box)
        with pytest.raises(TypeError, match="project: arguments must be a dict"):
            gx.project(ours.projection_l2_ball, 2.0)
        with pytest.raises(TypeError, match="mutable NumPy array"):
            gx.project(ours.projection_vector, {"a": np.ones(2)})
        with pytest.raises(ValueError, match="projection_l2_ball: scale must be at least 0"):
            gx.project(ours.projection_l2_ball, {"scale": -1.0}).init(PARAMS)
        with pytest.raises(ValueError, match="project: what the projection returned"):
            gx.project(lambda tree: tree["head"]).init(PARAMS)
        with pytest.raises(ValueError, match="project: mask: the pattern 'haed' matches no path"):
            gx.project(ours.projection_simplex, mask="haed").init(PARAMS)
        tx = gx.project(ours.projection_simplex)
        with pytest.raises(ValueError, match="project needs the parameters"):
            tx.update(PARAMS, tx.init(PARAMS))
