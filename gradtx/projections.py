"""Euclidean projections: the point of a set that is nearest to a tree, where the whole tree counts as one vector.

This module is public: use it as `gradtx.projections`, with the names in its `__all__`. The transformation `project`
keeps the parameters of a training in such a set.

What lies in the set already is returned as it is, where rounding permits. Every leaf keeps its dtype; half-precision
leaves are computed in float32. Radii and bounds may be traced: a negative radius and an empty set cannot be refused
then, and the result is NaN. On the boundary of a box or a ball the derivative is that of the inside.

>>> from gradtx import projections
>>> projections.projection_simplex({"a": jnp.array([0.5, 2.0]), "b": jnp.array(1.5)})
{'a': Array([0.  , 0.75], dtype=float32), 'b': Array(0.25, dtype=float32)}
"""

import functools
import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.registry import register
from gradtx.core.tree import Tree, path_str

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


# Element by element.


def projection_non_negative(tree: Tree) -> Tree:
    """The nearest tree without negative elements.

        p = max(x, 0)

    Raises:
        TypeError: a leaf is not a real floating-point array.

    >>> projection_non_negative({"w": jnp.array([-1.0, 2.0])})
    {'w': Array([0., 2.], dtype=float32)}
    """
    tree = _real_leaves("projection_non_negative: tree", tree)
    return jax.tree.map(lambda x: jnp.where(x < 0, jnp.zeros_like(x), x), tree)


def projection_box(tree: Tree, lower: Any, upper: Any) -> Tree:
    """The nearest tree between two bounds.

        p = min(max(x, l), h)

    A bound is a number for all elements; or a tree like the first one, in which each leaf is a number for the whole
    leaf or has a number for each element. −∞ and ∞ stand for no bound.

    Raises:
        TypeError: a leaf, or one of a bound, is not a real floating-point array or a number.
        ValueError: a lower bound is above the upper one or NaN; or a bound has another structure or shape.

    >>> projection_box({"w": jnp.array([-1.0, 0.5, 3.0])}, 0.0, 2.0)
    {'w': Array([0. , 0.5, 2. ], dtype=float32)}
    """
    return _box("projection_box", tree, lower, upper)


def projection_hypercube(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree in a cube with one corner at the origin.

        p = min(max(x, 0), s)

    The length s of the edges is a number; or a tree like the first one, in which each leaf is a number for the whole
    leaf or has a number for each element.

    Raises:
        TypeError: a leaf, or one of `scale`, is not a real floating-point array or a number.
        ValueError: `scale` is negative or NaN, or has another structure or shape.

    >>> projection_hypercube(jnp.array([-1.0, 0.5, 3.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return _box("projection_hypercube", tree, 0, scale, upper_name="scale")


def projection_linf_ball(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree in a ball of the maximum norm.

        p = min(max(x, −r), r)

    Raises:
        TypeError: a leaf is not a real floating-point array, or the radius r, `scale`, is not a real scalar.
        ValueError: the radius is negative or NaN.

    >>> projection_linf_ball(jnp.array([-3.0, 0.5]), 2.0)
    Array([-2. ,  0.5], dtype=float32)
    """
    radius = _radius("projection_linf_ball", scale)
    return _box("projection_linf_ball", tree, -radius, radius)


def _box(name: str, tree: Tree, lower: Any, upper: Any, upper_name: str = "upper") -> Tree:
    """The tree clipped to the bounds; NaN where these are traced and there is no number between them."""
    tree = _real_leaves(f"{name}: tree", tree)
    lows = _bounds(f"{name}: lower", lower, tree)
    highs = _bounds(f"{name}: {upper_name}", upper, tree)
    leaves, treedef = jax.tree.flatten(tree)
    paths = [path_str(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for path, low, high in zip(paths, lows, highs, strict=True):
        _refuse_empty(f"{name}: {upper_name}{path}", low, high)
    return treedef.unflatten(map(_clipped, leaves, lows, highs))


def _bounds(where: str, bound: Any, tree: Tree) -> list[Any]:
    """The bound of each leaf: a number, or an array of the leaf's shape."""
    leaves = jax.tree.leaves(tree)
    if jax.tree_util.all_leaves([bound]) and np.ndim(bound) == 0:
        return [_real_number(where, bound)] * len(leaves)
    check.same_structure(where, bound, tree, "tree")
    pairs = zip(jax.tree_util.tree_leaves_with_path(bound), leaves, strict=True)
    return [_bound(f"{where}{path_str(path)}", value, leaf) for (path, value), leaf in pairs]


def _bound(where: str, value: Any, leaf: Array) -> Any:
    if np.ndim(value) == 0:
        return _real_number(where, value)
    if np.shape(value) != leaf.shape:
        raise ValueError(f"{where}: expected a number or {check.describe(leaf)}, got {check.describe(value)}")
    if not _is_real(value):
        raise TypeError(f"{where}: expected real numbers, got {check.describe(value)}")
    return value


def _refuse_empty(where: str, low: Any, high: Any) -> None:
    if _is_concrete((low, high)) and not np.all(np.asarray(low) <= np.asarray(high)):
        raise ValueError(f"{where}: the upper bound must not be below the lower one, or NaN, and it is for an element")


def _clipped(x: Array, low: Any, high: Any) -> Array:
    wide = dtypes.upcast(x)
    low, high = (jnp.broadcast_to(jnp.asarray(bound, wide.dtype), x.shape) for bound in (low, high))
    clipped = jnp.where(wide < low, low, jnp.where(wide > high, high, wide))
    return jnp.where(low <= high, clipped, jnp.nan).astype(x.dtype)


# The simplex, and the norm that is the sum of sizes.


def projection_simplex(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree without negative elements whose elements add up to `scale`, in O(n log n).

        p = max(x − τ, 0),   with τ such that Σ p = s

    For s = 1 these are the probabilities. Equal elements stay equal; −∞ gives 0. With s = 0 the result is 0.

    Held, Wolfe & Crowder, 1974, Validation of subgradient optimization, Mathematical Programming 6; Duchi et al., 2008,
    Efficient projections onto the l1-ball for learning in high dimensions, Figure 1.

    Raises:
        TypeError: a leaf is not a real floating-point array, or `scale` is not a real scalar.
        ValueError: `scale` is negative, infinite or NaN.

    >>> projection_simplex(jnp.array([1.0, 1.0, -5.0]))
    Array([0.5, 0.5, 0. ], dtype=float32)
    """
    tree = _real_leaves("projection_simplex: tree", tree)
    scale = _finite_radius("projection_simplex", scale)
    return _on_one_vector(lambda x: _simplex(x, scale.astype(x.dtype)), tree)


def projection_l1_sphere(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree whose elements have absolute values that add up to `scale`.

        p = sign(x) · max(|x| − τ, 0),   with τ such that Σ|p| = r

    Inside the sphere τ is negative, and the elements grow. Where an element is 0, −p would be as near as p; the sign is
    taken as + there.

    Raises:
        TypeError: a leaf is not a real floating-point array, or the radius r, `scale`, is not a real scalar.
        ValueError: the radius is negative, infinite or NaN.

    >>> projection_l1_sphere(jnp.array([-3.0, 2.0]), 2.0)
    Array([-1.5,  0.5], dtype=float32)
    >>> projection_l1_sphere(jnp.array([0.0, 0.5]))
    Array([0.25, 0.75], dtype=float32)
    """
    tree = _real_leaves("projection_l1_sphere: tree", tree)
    radius = _finite_radius("projection_l1_sphere", scale)
    return _on_one_vector(lambda x: _l1_sphere(x, radius.astype(x.dtype)), tree)


def projection_l1_ball(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree whose elements have absolute values that add up to at most `scale`.

        p = x   where Σ|x| ≤ r, else sign(x) · max(|x| − τ, 0),   with τ such that Σ|p| = r

    It makes small elements zero. Duchi et al., 2008, Efficient projections onto the l1-ball for learning in high
    dimensions.

    Raises:
        TypeError: a leaf is not a real floating-point array, or the radius r, `scale`, is not a real scalar.
        ValueError: the radius is negative or NaN.

    >>> projection_l1_ball(jnp.array([-3.0, 2.0, 0.1]), 2.0)
    Array([-1.5,  0.5,  0. ], dtype=float32)
    """
    tree = _real_leaves("projection_l1_ball: tree", tree)
    radius = _radius("projection_l1_ball", scale)

    def nearest(x: Array) -> Array:
        r = radius.astype(x.dtype)
        return jnp.where(jnp.sum(jnp.abs(x)) <= r, x, _l1_sphere(x, r))

    return _on_one_vector(nearest, tree)


def _l1_sphere(x: Array, radius: Array) -> Array:
    sign = jnp.where(x < 0, -1, 1).astype(x.dtype)
    return sign * _simplex(sign * x, radius)


@jax.custom_jvp
def _simplex(x: Array, scale: Array) -> Array:
    """The projection of one vector. Where Σ x = s already, and nothing is negative, it is the vector itself.

    Elements that lie more than s below the largest are 0 in the result: so differences to the largest are taken first,
    and bounded, which leaves nothing to overflow or to cancel.
    """
    below = jnp.maximum(x - jnp.max(x), -scale)
    largest_first = -jnp.sort(-below)
    places = jnp.arange(1, x.size + 1, dtype=x.dtype)
    taken = (places * largest_first > jnp.cumsum(largest_first) - scale) & (largest_first > -scale)
    smallest = jnp.min(jnp.where(taken, largest_first, jnp.inf))
    kept = below >= smallest
    tau = (jnp.sum(jnp.where(kept, below, 0)) - scale) / jnp.maximum(jnp.sum(kept), 1).astype(x.dtype)
    nearest = jnp.where(kept, jnp.maximum(below - tau, 0), 0)
    inside = jnp.all(x >= 0) & (jnp.sum(x) == scale)
    is_bad = jnp.isnan(scale) | jnp.any(jnp.isnan(below))
    return jnp.where(is_bad, jnp.nan, jnp.where(inside, x, nearest))


@_simplex.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The elements above 0 share what keeps their sum at s."""
    dx, dscale = tangents
    projected = _simplex(*primals)
    kept = projected > 0
    size = jnp.maximum(jnp.sum(kept), 1).astype(dx.dtype)
    excess = jnp.sum(jnp.where(kept, dx, 0)) - dscale
    return projected, jnp.where(kept, dx - excess / size, 0)


def _on_one_vector(f: Any, tree: Tree) -> Tree:
    """`f` of all elements as one vector, in the widest compute dtype of the leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    if not sum(leaf.size for leaf in leaves):
        return tree
    widest = _compute_dtype(leaves)
    vector = f(jnp.concatenate([leaf.ravel().astype(widest) for leaf in leaves]))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = zip(jnp.split(vector, ends), leaves, strict=True)
    return treedef.unflatten([part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in parts])


# The Euclidean norm.


def projection_l2_sphere(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree of the Euclidean norm `scale`.

        p = x r / ‖x‖

    To x = 0 all points of the sphere are equally near; it becomes the one whose elements are all equal, r / √n, and the
    derivative is taken as 0 there. Norms are right also where squares overflow or underflow. Leaves may be complex.

    Raises:
        TypeError: a leaf is not a floating-point array, or the radius r, `scale`, is not a real scalar.
        ValueError: the radius is negative, infinite or NaN.

    >>> projection_l2_sphere({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, 10.0)
    {'a': Array([6.], dtype=float32), 'b': Array([8.], dtype=float32)}
    """
    tree = _leaves("projection_l2_sphere: tree", tree)
    radius = _finite_radius("projection_l2_sphere", scale)
    leaves, treedef = jax.tree.flatten(tree)
    size = sum(leaf.size for leaf in leaves)
    if not size:
        return tree
    scaled, norm, _ = _near_one(leaves)
    is_zero = norm == 0
    factor = radius.astype(norm.dtype) / jnp.where(is_zero, 1, norm)
    corner = radius.astype(norm.dtype) / math.sqrt(size)
    moved = [jnp.where(is_zero, corner.astype(x.dtype), x * factor.astype(x.dtype)) for x in scaled]
    return treedef.unflatten(map(dtypes.cast, moved, [leaf.dtype for leaf in leaves]))


def projection_l2_ball(tree: Tree, scale: Any = 1) -> Tree:
    """The nearest tree of a Euclidean norm of at most `scale`.

        p = x · min(1, r / ‖x‖)

    Norms are right also where squares overflow or underflow. Leaves may be complex.

    Raises:
        TypeError: a leaf is not a floating-point array, or the radius r, `scale`, is not a real scalar.
        ValueError: the radius is negative or NaN.

    >>> projection_l2_ball({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
    {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    """
    tree = _leaves("projection_l2_ball: tree", tree)
    radius = _radius("projection_l2_ball", scale)
    leaves, treedef = jax.tree.flatten(tree)
    if not leaves:
        return tree
    scaled, norm, shrink = _near_one(leaves)
    inside = norm <= shrink(radius.astype(norm.dtype))
    factor = jnp.where(inside, 1, radius.astype(norm.dtype)) / jnp.where(inside, 1, norm)
    moved = [x * factor.astype(x.dtype) for x in scaled]
    nearest = [jnp.where(inside, old, new.astype(old.dtype)) for old, new in zip(leaves, moved, strict=True)]
    return treedef.unflatten(nearest)


def _near_one(leaves: list[Array]) -> tuple[list[Array], Array, Any]:
    """The leaves times a power of two that brings the largest element near 1, their norm, and that multiplication."""
    widest = numerics.real_dtype(_compute_dtype(leaves))
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0).astype(widest) for x in leaves]))
    _, exponent = jnp.frexp(jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 1)))
    one = jnp.ones((), widest)
    halves = jnp.ldexp(one, -(exponent // 2)), jnp.ldexp(one, -(exponent - exponent // 2))

    def shrink(x: Array) -> Array:
        return x * halves[0].astype(x.dtype) * halves[1].astype(x.dtype)

    scaled = [shrink(dtypes.upcast(x)) for x in leaves]
    return scaled, numerics.sqrt(sum(jnp.sum(numerics.abs_sq(x)).astype(widest) for x in scaled)), shrink


# Lines and planes.


def projection_vector(x: Tree, a: Tree) -> Tree:
    """The multiple of the tree `a` that is nearest to the tree `x`.

        p = a ⟨a, x⟩ / ‖a‖²,   and p = 0 where a = 0

    Raises:
        TypeError: a leaf is not a real floating-point array.
        ValueError: the two trees differ in their structure or shapes.

    >>> projection_vector(jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0]))
    Array([0., 2.], dtype=float32)
    """
    x, a = _pair("projection_vector", x, a)
    unit, square, _ = _normal(a)
    product = _product(unit, x)
    return _moved(jax.tree.map(jnp.zeros_like, x), _quotient(product, square), unit)


def projection_hyperplane(x: Tree, a: Tree, b: Any) -> Tree:
    """The nearest tree in the hyperplane that the normal `a` and the number `b` define.

        p = x − a (⟨a, x⟩ − b) / ‖a‖²,   for which ⟨a, p⟩ = b

    With a = 0 and b = 0 all trees are in it; if a is traced and b is not 0, the result is NaN.

    Raises:
        TypeError: a leaf is not a real floating-point array, or `b` is not a real scalar.
        ValueError: the two trees differ in their structure or shapes; or a = 0 and b ≠ 0.

    >>> projection_hyperplane(jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0]), 3.0)
    Array([1., 1.], dtype=float32)
    """
    x, a = _pair("projection_hyperplane", x, a)
    return _onto_plane("projection_hyperplane", x, a, b, lambda distance: distance)


def projection_halfspace(x: Tree, a: Tree, b: Any) -> Tree:
    """The nearest tree in the half-space that the outward normal `a` and the number `b` define.

        p = x − a max(⟨a, x⟩ − b, 0) / ‖a‖²,   for which ⟨a, p⟩ ≤ b

    With a = 0 and b ≥ 0 all trees are in it; if a is traced and b is negative, the result is NaN.

    Raises:
        TypeError: a leaf is not a real floating-point array, or `b` is not a real scalar.
        ValueError: the two trees differ in their structure or shapes; or a = 0 and b < 0.

    >>> projection_halfspace(jnp.array([1.0, 2.0]), jnp.array([0.0, 3.0]), 9.0)
    Array([1., 2.], dtype=float32)
    """
    x, a = _pair("projection_halfspace", x, a)
    return _onto_plane(
        "projection_halfspace", x, a, b, lambda distance: jnp.where(distance > 0, distance, 0 * distance)
    )


def _onto_plane(name: str, x: Tree, a: Tree, b: Any, counted: Any) -> Tree:
    """`x`, moved along `a` by that much of its distance to the plane which is `counted`."""
    b = _real_number(f"{name}: b", b)
    unit, square, shrink = _normal(a)
    product = _product(unit, x)
    distance = counted(product - shrink(jnp.asarray(b, product.dtype)))
    is_empty = (square == 0) & (distance != 0)
    if _is_concrete(is_empty) and is_empty:
        raise ValueError(f"{name}: a is zero, and no tree has the inner product b = {float(b):g} with it")
    return _moved(x, jnp.where(is_empty, jnp.nan, -_quotient(distance, square)), unit)


def _normal(a: Tree) -> tuple[Tree, Array, Any]:
    """`a` times a power of two that brings its largest element near 1, its squared norm, and that multiplication."""
    leaves, treedef = jax.tree.flatten(a)
    if not leaves:
        return a, jnp.zeros(()), lambda x: x
    scaled, _, shrink = _near_one(leaves)
    return treedef.unflatten(scaled), _product(scaled, scaled), shrink


def _product(a: Tree, x: Tree) -> Array:
    """⟨a, x⟩ in the widest compute dtype."""
    widest = _compute_dtype([*jax.tree.leaves(a), *jax.tree.leaves(x)])
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(x), strict=True)
    return sum((jnp.sum(u.astype(widest) * v.astype(widest)) for u, v in pairs), jnp.zeros((), widest))


def _quotient(x: Array, square: Array) -> Array:
    return jnp.where(square > 0, x / jnp.where(square > 0, square, 1).astype(x.dtype), 0)


def _moved(x: Tree, step: Array, a: Tree) -> Tree:
    """x + step · a, in the dtypes of x."""

    def move(x: Array, a: Array) -> Array:
        return (x.astype(step.dtype) + step * a.astype(step.dtype)).astype(x.dtype)

    return jax.tree.map(move, x, a)


# What goes in.


def _leaves(where: str, tree: Tree) -> Tree:
    """The tree with strong arrays for leaves."""
    check.inexact_leaves(where, tree, "give floating-point numbers, or leave it out")
    return dtypes.strong(jax.tree.map(jnp.asarray, tree))


def _real_leaves(where: str, tree: Tree) -> Tree:
    tree = _leaves(where, tree)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.iscomplexobj(leaf):
            raise TypeError(f"{where}{path_str(path)}: expected real numbers, got {check.describe(leaf)}")
    return tree


def _pair(name: str, x: Tree, a: Tree) -> tuple[Tree, Tree]:
    """Two real trees of one structure and the same shapes."""
    check.same_structure(f"{name}: a", a, x, "x")
    check.same_shapes(f"{name}: a", a, x, "the leaf of x")
    return _real_leaves(f"{name}: x", x), _real_leaves(f"{name}: a", a)


def _real_number(where: str, value: Any) -> Any:
    if np.ndim(value) or not _is_real(value):
        raise TypeError(f"{where} must be a real scalar, got {check.describe(value)}")
    return value


def _is_real(value: Any) -> bool:
    """Whether a value is a number, or an array of numbers, that is neither complex nor a bool."""
    if not isinstance(value, int | float | np.ndarray | np.generic | jax.Array) or isinstance(value, bool):
        return False
    dtype = dtypes.dtype_of(value)
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _radius(name: str, scale: Any) -> Array:
    """A radius as a floating-point scalar; NaN for a traced one that is negative."""
    scale = _real_number(f"{name}: scale", scale)
    if _is_concrete(scale) and not scale >= 0:
        raise ValueError(f"{name}: scale must be at least 0, got {float(scale):g}")
    radius = jnp.asarray(scale)
    radius = radius if dtypes.is_inexact(radius) else radius.astype(jnp.result_type(float))
    return radius if _is_concrete(scale) else jnp.where(radius >= 0, radius, jnp.nan)


def _finite_radius(name: str, scale: Any) -> Array:
    radius = _radius(name, scale)
    if _is_concrete(scale) and not math.isfinite(scale):
        raise ValueError(f"{name}: scale must be finite, got {float(scale):g}")
    return radius


def _is_concrete(values: Any) -> bool:
    return not any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(values))


def _compute_dtype(leaves: list[Array]) -> Any:
    """The widest of the dtypes that the leaves are computed in."""
    found = [numerics.compute_dtype(leaf.dtype) for leaf in leaves]
    return functools.reduce(np.promote_types, found, np.dtype(np.float32))


for _projection in __all__:
    register(globals()[_projection], f"projections.{_projection}")
