"""Norms of trees and of arrays, and sums over trees.

`total` is a sum over a whole tree; norms are roots of one. Squares of float32 overflow above 1.8e19 and underflow below
1e-19. Three norms differ in what they do about it:

- `norm`, of a whole tree, is right for all finite elements. Where the plain sum of squares is not to be trusted, two
  more are taken from scaled elements: one branch for the whole tree, however many leaves there are.
- `leaf_norm`, of one array, is right for all finite elements, by two passes without a branch.
- `plain_norm`, of one array, is the root of the plain sum of squares: one pass, which XLA fuses with what computes
  the array. It is meant for updates and parameters, whose sizes are moderate.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import numerics
from gradtx.core.dtypes import promote, upcast, varying_like
from gradtx.core.registry import register
from gradtx.core.substitution import anew
from gradtx.core.tree import Tree

__all__ = [
    "finite_norm",
    "inner_product",
    "leaf_norm",
    "norm",
    "norm_and_finite_norm",
    "plain_norm",
    "rms",
    "total",
    "total_dtype",
    "total_of_slot",
]


def norm(updates: Tree) -> Array:
    """√Σ|x|² over all leaves of a tree, accumulated in at least float32; 0 for an empty one, NaN if an element is NaN.

    It is right also where squares overflow or underflow. The tree may be one of updates, parameters or anything else.

    >>> norm({"a": jnp.array([3e30]), "b": jnp.array([4e30])})
    Array(5.e+30, dtype=float32)
    """
    return norm_and_finite_norm(updates)[0]


def finite_norm(tree: Tree) -> Array:
    """`norm` over those leaves that have no NaN and no infinity."""
    return norm_and_finite_norm(tree)[1]


register(norm, "global_norm")  # its public name, for configs of what measures it


def norm_and_finite_norm(tree: Tree) -> tuple[Array, Array]:
    """`norm` and `finite_norm`, at the cost of one of them."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    if nonempty := [numerics.unshared(x) for x in leaves if x.size]:
        return _norms(nonempty)
    zero = jnp.zeros((), _widest_real(leaves))
    return zero, zero


def _widest_real(leaves: list[Array]) -> Any:
    dtypes = [numerics.real_dtype(numerics.compute_dtype(x.dtype)) for x in leaves]
    return functools.reduce(np.promote_types, dtypes, np.dtype(np.float32))


def leaf_norm(x: Array) -> Array:
    """√Σ|x|² of one array, right also where squares overflow or underflow. NaN if an element is NaN, else ∞ if one is.

    >>> leaf_norm(jnp.array([3e30, 4e30]))
    Array(5.e+30, dtype=float32)
    """
    return _leaf_norm(upcast(x)) if x.size else plain_norm(x)


def plain_norm(x: Array) -> Array:
    """√Σ|x|² of one array, by the plain sum of squares: above 1.8e19 in float32 it is ∞, below 1e-19 it may be 0."""
    return numerics.sqrt(jnp.sum(numerics.abs_sq(upcast(x))))


def rms(x: Array) -> Array:
    """√mean |x|² of one array, by its `plain_norm`; 0 for an array of no elements."""
    return plain_norm(x) / max(x.size, 1) ** 0.5


def inner_product(a: Tree, b: Tree, dtype: Any) -> Array:
    """Re⟨a, b⟩ = Σ Re(x̄ y) over all leaves, added up in `dtype`.

    >>> inner_product({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}, jnp.float32)
    Array(11., dtype=float32)
    """
    products = jax.tree.map(lambda x, y: jnp.sum(jnp.real(jnp.conj(x) * y)), promote(a, b), promote(b, a))
    return sum((x.astype(dtype) for x in jax.tree.leaves(products)), jnp.zeros((), dtype))


def total(formula: Callable[..., Array], dtype: Any, *trees: Tree) -> Array:
    """Σ formula(x, y, …) over all elements of corresponding leaves, computed and added up in the real `dtype`.

    Complex leaves are complex numbers of that precision. A leaf whose sum is not finite does not count, so that it does
    not spoil a number that all leaves share. The formula is traced once for all leaves of the same shapes and dtypes.

    >>> total(lambda x, y: x * y, jnp.float32, {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])})
    Array(11., dtype=float32)
    """
    return _total(anew(_at_precision(formula, dtype)), dtype, trees)


def total_of_slot(formula: Callable[..., Array], dtype: Any, *trees: Tree) -> Array:
    """`total` of what the formula of each leaf computes for a slot, too: XLA writes the slot, and this sum reads it."""
    return _total(_at_precision(formula, dtype), dtype, trees)


def _at_precision(formula: Callable[..., Array], dtype: Any) -> Callable[..., Array]:
    """The formula of leaves in the real `dtype`, or in the complex one of that precision."""

    def converted(x: Array) -> Array:
        own = np.promote_types(dtype, np.complex64) if jnp.iscomplexobj(x) else dtype
        return x if x.dtype == own else numerics.again(x).astype(own)

    return lambda *leaves: formula(*map(converted, leaves))


def _total(formula: Callable[..., Array], dtype: Any, trees: tuple[Tree, ...]) -> Array:
    @jax.jit
    def part(*leaves: Array) -> Array:
        added = jnp.sum(formula(*leaves))
        return jnp.where(jnp.isfinite(added), added, 0)

    parts = [part(*leaves) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)]
    return functools.reduce(operator.add, parts, jnp.zeros((), dtype))


def total_dtype(params: Tree) -> np.dtype[Any]:
    """The dtype of numbers of the whole tree: the real one of its widest leaf, at least float32."""
    return _widest_real(jax.tree.leaves(params))


# The norm of a tree.


@jax.custom_jvp
def _norms(leaves: list[Array]) -> tuple[Array, Array]:
    """`norm` and `finite_norm` of leaves that are not empty."""
    widest = _widest_real(leaves)
    power = jnp.finfo(widest).maxexp * 5 // 8
    scales = jnp.asarray([2.0**-power, 1.0, 2.0**power], widest)
    plain = jnp.stack([_plain_square(x).astype(widest) for x in leaves])
    others = _squares_if_needed if jax.default_backend() == "cpu" else _squares_at_once
    scaled = others(plain, scales, leaves)
    squares = jnp.stack([scaled[0], plain, scaled[1]])
    finite = jnp.isfinite(squares[0])  # at the smallest scale only a non-finite element makes a sum non-finite
    totals = jnp.sum(jnp.where(finite, squares, 0), axis=1)
    best = jnp.argmax(_is_safe(totals))
    finite_norm = jnp.sqrt(totals[best]) / scales[best]
    return jnp.where(jnp.all(finite), finite_norm, jnp.sum(squares[0])), finite_norm


@_norms.defjvp
def _(primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> Any:
    (leaves,), (dleaves,) = primals, tangents
    values = _norms(leaves)
    derivative = _derivative_of_norm(values[0], leaves, dleaves)
    return values, (derivative, derivative)


def _squares_if_needed(plain: Array, scales: Array, leaves: list[Array]) -> Array:
    """Sums of squares at the first and the last scale, by scale and leaf; zeros if the plain sums are safe.

    On a CPU every sum reads the leaves from memory again.
    """

    def at(scale: Array) -> Array:
        return jax.lax.concatenate([_square_at(scale, x) for x in leaves], 0)

    zeros = functools.reduce(varying_like, leaves, jnp.zeros((2, len(leaves)), scales.dtype))
    return jax.lax.cond(_is_safe(jnp.sum(plain)), lambda: zeros, lambda: jax.lax.map(at, scales[::2]))


def _squares_at_once(plain: Array, scales: Array, leaves: list[Array]) -> Array:
    """The same, without a branch.

    On accelerators the sums of a leaf share one pass over it, while a branch would make the host wait for what decides
    it.
    """
    return jnp.stack(
        [jax.lax.concatenate([_square_at(scale, x) for x in leaves], 0) for scale in (scales[0], scales[2])]
    )


@jax.jit
def _plain_square(x: Array) -> Array:
    return jnp.sum(numerics.abs_sq(upcast(x)))


@jax.jit
def _square_at(scale: Array, x: Array) -> Array:
    """Σ |scale · x|², as an array of one element; the scale is a power of two."""
    # without the barrier XLA writes the scale, and half-precision leaves in float32, out to memory
    scale, x = jax.lax.optimization_barrier((scale, x))
    x = x.astype(np.promote_types(x.dtype, scale.dtype))
    return jnp.sum(numerics.abs_sq(x * scale.astype(x.dtype)))[None]


def _is_safe(total: Array) -> Array:
    """Whether no overflow or underflow can have spoilt a sum of squares; false for NaN."""
    limits = jnp.finfo(total.dtype)
    return (total >= limits.tiny / limits.eps) & (total <= limits.max)


# The norm of an array.


@jax.custom_jvp
def _leaf_norm(x: Array) -> Array:
    """The norm of an array that is not empty: its elements are divided by a power of two near the largest first."""
    half, other = numerics.factors_to_one(jnp.max(jnp.abs(x)))
    scaled = x * half.astype(x.dtype) * other.astype(x.dtype)
    return jnp.sqrt(jnp.sum(numerics.abs_sq(scaled))) / half / other


@_leaf_norm.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    value = _leaf_norm(x)
    return value, _derivative_of_norm(value, [x], [dx])


def _derivative_of_norm(value: Array, leaves: list[Array], dleaves: list[Array]) -> Array:
    """Re⟨x, dx⟩ / ‖x‖; at the origin it is taken as 0."""
    inverse = jnp.where(value > 0, 1 / value, 0)
    pairs = zip(map(upcast, leaves), map(upcast, dleaves), strict=True)
    terms = [jnp.sum(jnp.real(jnp.conj(inverse.astype(x.dtype) * x) * dx)) for x, dx in pairs]
    widest = max((x.dtype for x in terms), key=lambda dtype: dtype.itemsize)
    return functools.reduce(operator.add, [x.astype(widest) for x in terms])
