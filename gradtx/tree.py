"""Arithmetic on trees, and the fields of states, under the names of `optax.tree`.

This module is public: use it as `gradtx.tree`, with the names in its `__all__`. (`gradtx.core.tree` is private to the
library and may change.)

Half-precision leaves are computed in float32 and keep their dtype. Sums, products and norms over all elements are
accumulated and returned in at least float32. A `None` is not a leaf.

>>> import gradtx
>>> gradtx.tree.add_scale({"w": jnp.ones(2)}, -0.5, {"w": jnp.array([1.0, 2.0])})
{'w': Array([0.5, 0. ], dtype=float32)}
"""

import builtins
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree import map

from gradtx.core import dtypes as core
from gradtx.core import norms, numerics
from gradtx.core.dtypes import cast_like
from gradtx.core.tree import Tree
from gradtx.states.fields import get, get_all_with_path, map_params
from gradtx.states.fields import replace as set

__all__ = [
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "map",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "sum",
    "unwrap_random_key_data",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]

# Element by element.


def _elementwise(f: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """`f` of each leaf and its corresponding leaves, computed in at least float32 and cast to the first one's dtype."""

    def apply(x: Any, *beside: Any) -> Array:
        if not core.is_inexact(x):
            return f(x, *beside)
        dtypes = [numerics.compute_dtype(core.dtype_of(y)) for y in (x, *beside) if core.is_inexact(y)]
        widest = functools.reduce(np.promote_types, [numerics.real_dtype(dtype) for dtype in dtypes])
        result = jnp.asarray(f(*(_at_precision(y, widest) for y in (x, *beside))))
        return result.astype(_complex_like(core.dtype_of(x), result.dtype))

    return jax.tree.map(apply, tree, *others)


def _at_precision(x: Any, dtype: Any) -> Any:
    """`x` in the precision of `dtype`, complex if `x` is; integers stay as they are."""
    return jnp.asarray(x, _complex_like(dtype, core.dtype_of(x))) if core.is_inexact(x) else x


def _complex_like(dtype: Any, other: Any) -> Any:
    """The dtype with the precision of `dtype` that is complex if `other` is, and real if that is real."""
    is_complex = jnp.issubdtype(other, jnp.complexfloating)
    if is_complex == jnp.issubdtype(dtype, jnp.complexfloating):
        return dtype
    return np.promote_types(dtype, np.complex64) if is_complex else numerics.real_dtype(dtype)


def add(tree_x: Tree, tree_y: Tree, *other_trees: Tree) -> Tree:
    """The sum x + y + …"""
    return _elementwise(lambda *leaves: functools.reduce(operator.add, leaves), tree_x, tree_y, *other_trees)


def sub(tree_x: Tree, tree_y: Tree) -> Tree:
    """The difference x − y."""
    return _elementwise(operator.sub, tree_x, tree_y)


def mul(tree_x: Tree, tree_y: Tree) -> Tree:
    """The product x · y of elements."""
    return _elementwise(operator.mul, tree_x, tree_y)


def div(tree_x: Tree, tree_y: Tree) -> Tree:
    """The quotient x / y of elements."""
    return _elementwise(operator.truediv, tree_x, tree_y)


def scale(scalar: Any, tree: Tree) -> Tree:
    """The multiple s · x of every leaf, in the dtypes of x, for a number or a scalar array s."""
    return _elementwise(lambda x: _scalar_for(x, scalar) * x, tree)


def add_scale(tree_x: Tree, scalar: Any, tree_y: Tree) -> Tree:
    """The sum x + s · y, for a number or a scalar array s; `None` where x is `None`."""
    tree_y = _without(tree_y, tree_x)
    return _elementwise(lambda x, y: x + _scalar_for(x, scalar) * y, tree_x, tree_y)


def _without(tree: Tree, other: Tree) -> Tree:
    """The tree with `None` in the place of whatever stands where the other tree has `None`."""
    return jax.tree.map(lambda x, y: None if x is None else y, other, tree, is_leaf=lambda x: x is None)


def _scalar_for(x: Any, scalar: Any) -> Any:
    """The scalar in a dtype in which it may be multiplied by `x` under strict promotion."""
    if not core.is_inexact(x) or not isinstance(scalar, jax.Array | np.ndarray | np.generic):
        return scalar
    return jnp.asarray(scalar).astype(_complex_like(x.dtype, scalar.dtype))


def clip(tree: Tree, min_value: Any = None, max_value: Any = None) -> Tree:
    """Every element clipped to the bounds, min(max(x, low), high). `None` stands for no bound."""
    return _elementwise(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Tree) -> Tree:
    """The complex conjugate."""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """The real part."""
    return jax.tree.map(jnp.real, tree)


def where(condition: Any, tree_x: Tree, tree_y: Tree) -> Tree:
    """The elements of x where the condition is true, and those of y elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Every leaf cast to a dtype; for `None`, the tree as it is."""
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


# New trees.


def zeros_like(tree: Tree, dtype: Any = None) -> Tree:
    """Zeros of the same shapes and, unless told otherwise, dtypes."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: Tree, dtype: Any = None) -> Tree:
    """Ones of the same shapes and, unless told otherwise, dtypes."""
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Tree, fill_value: Any, dtype: Any = None) -> Tree:
    """Leaves of one value, of the same shapes and, unless told otherwise, dtypes."""
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """Every leaf broadcast along new leading axes of this shape."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def split_key_like(rng_key: Array, target_tree: Tree) -> Tree:
    """A key of its own for every leaf."""
    treedef = jax.tree.structure(target_tree)
    return treedef.unflatten(jax.random.split(rng_key, treedef.num_leaves))


def random_like(
    rng_key: Array, target_tree: Tree, sampler: Callable[..., Array] = jax.random.normal, dtype: Any = None
) -> Tree:
    """Random numbers of the same shapes: `sampler(key, shape, dtype)` for each leaf, each with its own key."""
    keys = split_key_like(rng_key, target_tree)
    return jax.tree.map(lambda x, key: sampler(key, jnp.shape(x), dtype or core.dtype_of(x)), target_tree, keys)


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """The same tree, in which typed random keys are replaced by the integers that they are made of."""

    def unwrap(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(unwrap, input_tree)


# Over all elements.


def norm(tree: Tree, ord: int | float | str | None = None, squared: bool = False) -> Array:
    """The norm of all elements as one vector, of order 2 unless `ord` is 1 or infinity; 0 for an empty tree.

    The norm of order 2 is right also where the squares of its elements overflow or underflow.

    Raises:
        ValueError: the order is not 1, 2 or infinity.

    >>> norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
    Array(5., dtype=float32)
    """
    if ord in (None, 2):
        value = norms.norm(tree)
    elif ord == 1:
        value = sum(jax.tree.map(lambda x: jnp.abs(core.upcast(x)), tree)) + 0.0
    elif ord in (math.inf, "inf", "infinity"):
        value = jnp.maximum(max(jax.tree.map(lambda x: jnp.abs(core.upcast(x)), tree)), 0.0)
    else:
        raise ValueError(f"tree.norm: ord must be 1, 2 or inf, got {ord!r}")
    value = jnp.asarray(value)
    return value * value if squared else value


def vdot(tree_x: Tree, tree_y: Tree) -> Any:
    """Σ x̄ y over all elements; 0 for an empty tree."""
    highest = jax.lax.Precision.HIGHEST

    def dot(x: Any, y: Any) -> Array:
        return jnp.tensordot(jnp.conj(_to_be_summed(x)), _to_be_summed(y), jnp.ndim(x), precision=highest)

    return _reduce(operator.add, jax.tree.leaves(jax.tree.map(dot, tree_x, tree_y)), 0)


def sum(tree: Tree, associative_reduction: bool = False) -> Any:
    """Σ x over all elements; 0 for an empty tree. `associative_reduction` adds the leaves' sums in pairs."""
    sums = [jnp.sum(_to_be_summed(x)) for x in jax.tree.leaves(tree)]
    if associative_reduction:
        while len(sums) > 1:
            pairs = [sums[i : i + 2] for i in range(0, len(sums), 2)]
            sums = [_reduce(operator.add, pair, 0) for pair in pairs]
    return _reduce(operator.add, sums, 0)


def max(tree: Tree) -> Any:
    """The largest element; −∞ if there is none."""
    return _reduce(jnp.maximum, [jnp.max(x) for x in jax.tree.leaves(tree) if jnp.size(x)], -math.inf)


def min(tree: Tree) -> Any:
    """The smallest element; ∞ if there is none."""
    return _reduce(jnp.minimum, [jnp.min(x) for x in jax.tree.leaves(tree) if jnp.size(x)], math.inf)


def size(tree: Tree) -> int:
    """The number of elements."""
    return builtins.sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


def dtype(tree: Tree, mixed_dtype_handler: str | None = None) -> Any:
    """The dtype that all leaves have; of several the `"highest"`, the `"lowest"`, or what they `"promote"` to.

    The last need not be one of them: bfloat16 and float16 promote to float32. Of no leaves it is the default float.

    Raises:
        ValueError: there are several dtypes and `mixed_dtype_handler` does not say which; or none of them holds the
            numbers of all others, as with bfloat16 and float16.
    """
    dtypes = builtins.set(core.dtype_of(leaf) for leaf in jax.tree.leaves(tree))
    if len(dtypes) < 2:
        return next(iter(dtypes), jnp.zeros(()).dtype)
    names = ", ".join(sorted(str(dtype) for dtype in dtypes))
    if mixed_dtype_handler == "promote":
        with jax.numpy_dtype_promotion("standard"):
            return functools.reduce(jnp.promote_types, dtypes)
    if mixed_dtype_handler not in ("highest", "lowest"):
        raise ValueError(
            f"tree.dtype: the leaves have several dtypes ({names}); ask for 'highest', 'lowest' or 'promote', "
            f"got {mixed_dtype_handler!r}"
        )
    among = [
        d for d in dtypes if all(_can_hold(*((d, o) if mixed_dtype_handler == "highest" else (o, d))) for o in dtypes)
    ]
    if not among:
        raise ValueError(f"tree.dtype: no {mixed_dtype_handler} dtype among {names}")
    return among[0]


def _can_hold(wide: Any, narrow: Any) -> bool:
    """Whether promotion of the two dtypes gives the first."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(wide, narrow) == wide


def allclose(a: Tree, b: Tree, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Whether all elements agree within the tolerances, |x − y| ≤ atol + rtol |y|; true for empty trees."""
    close = jax.tree.map(lambda x, y: jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b)
    return functools.reduce(operator.and_, jax.tree.leaves(close), True)


def _to_be_summed(x: Any) -> Array:
    """`x` as an array, of at least float32 if it is floating-point."""
    return core.upcast(x) if core.is_inexact(x) else jnp.asarray(x)


def _reduce(f: Callable[[Any, Any], Any], terms: list[Any], of_none: Any) -> Any:
    """`f` over all terms in the widest of their dtypes; `of_none` if there are none."""
    if not terms:
        return of_none
    widest = functools.reduce(np.promote_types, [term.dtype for term in terms])
    return functools.reduce(f, [term.astype(widest) for term in terms])


# Moments.


def update_moment(updates: Tree, moments: Tree, decay: Any, order: int) -> Tree:
    """β m + (1 − β) gᵖ, where p is `order`; `None` where g is `None`."""
    moments = _without(moments, updates)
    return _elementwise(lambda m, g: numerics.ema(m, g**order, decay), moments, updates)


def update_moment_per_elem_norm(updates: Tree, moments: Tree, decay: Any, order: int) -> Tree:
    """β m + (1 − β) |g|ᵖ for complex leaves, gᵖ for real ones, where p is `order`; `None` where g is `None`."""
    moments = _without(moments, updates)

    def power(g: Array) -> Array:
        return numerics.abs_sq(g) ** (order / 2) if jnp.iscomplexobj(g) else g**order

    return _elementwise(lambda m, g: numerics.ema(m, power(g), decay), moments, updates)


def update_infinity_moment(updates: Tree, moments: Tree, decay: Any, eps: float) -> Tree:
    """The larger of β m and |g| + ε; `None` where g is `None`."""
    moments = _without(moments, updates)
    return _elementwise(lambda m, g: jnp.maximum(jnp.abs(g) + eps, decay * m), moments, updates)


def bias_correction(moment: Tree, decay: Any, count: Any) -> Tree:
    """The debiased mean m / (1 − βᵗ) of a mean that began at zero, where t is `count`, at least 1."""
    t = jnp.asarray(count).astype(jnp.result_type(float))
    return _elementwise(lambda m: numerics.unbiased(m, decay, t), moment)
