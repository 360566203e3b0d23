"""The dtypes of leaves: casts to the dtype in which they are computed, and casts back."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import numerics
from gradtx.core.tree import Tree

__all__ = [
    "cast",
    "cast_like",
    "dtype_of",
    "is_complex",
    "is_inexact",
    "promote",
    "scaled",
    "strong",
    "upcast",
    "varying_like",
]


def upcast(x: Any) -> Array:
    """A strong array in the dtype that `x` is computed in: at least float32."""
    return cast(x, numerics.compute_dtype(dtype_of(x)))


def promote(tree: Tree, like: Tree) -> Tree:
    """Floating-point leaves as strong arrays of the dtype in which each is computed with its corresponding leaf."""

    def widened(x: Any, other: Any) -> Any:
        if not (is_inexact(x) and is_inexact(other)):
            return x
        return cast(x, np.promote_types(*(numerics.compute_dtype(dtype_of(leaf)) for leaf in (x, other))))

    return jax.tree.map(widened, tree, like)


def cast_like(tree: Tree, other_tree: Tree) -> Tree:
    """Leaves as strong arrays of the dtypes of the corresponding leaves of the other tree.

    Inside `shard_map` they vary over the mesh axes over which the corresponding leaves vary.
    """
    return jax.tree.map(lambda x, other: varying_like(cast(x, dtype_of(other)), other), tree, other_tree)


def varying_like(x: Any, other: Any) -> Any:
    """`x`, which inside `shard_map` varies over the mesh axes over which `other` varies, too."""
    missing = _varying_axes(other) - _varying_axes(x)
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, tuple(missing), to="varying")
    return vars(jax.lax)["pvary"](x, tuple(missing))  # its name before JAX 0.8


def _varying_axes(x: Any) -> frozenset[Any]:
    """The mesh axes of a surrounding `shard_map` along which the devices' values may differ."""
    if not isinstance(x, jax.core.Tracer):
        return frozenset()
    kind = jax.typeof(x)
    return frozenset(getattr(getattr(kind, "mat", kind), "varying", getattr(kind, "vma", ())))


def strong(tree: Tree) -> Tree:
    """Floating-point leaves, also numbers of Python and NumPy, as strong JAX arrays; other leaves as they are."""
    is_number = lambda x: is_inexact(x) and not isinstance(x, jax.ShapeDtypeStruct)  # noqa: E731
    return jax.tree.map(lambda x: cast(x, dtype_of(x)) if is_number(x) else x, tree)


def dtype_of(x: Any) -> Any:
    """The dtype of an array, or the dtype that JAX gives to a Python number."""
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def is_inexact(x: Any) -> bool:
    """Whether a leaf is a real or complex floating-point array, or a Python float."""
    if isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return _is_inexact_dtype(x.dtype)
    return isinstance(x, float | complex)


def is_complex(x: Any) -> bool:
    """Whether a leaf is a complex array or a Python number of that kind."""
    return is_inexact(x) and _is_complex_dtype(dtype_of(x))


@functools.cache
def _is_inexact_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def _is_complex_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def cast(x: Any, dtype: Any) -> Any:
    """A strong array of `dtype`. Keys and the `float0` gradients of integer parameters stay as they are."""
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:  # as it nearly always is
        return x
    if jnp.issubdtype(dtype_of(x), jax.dtypes.extended) or dtype_of(x) == jax.dtypes.float0:
        return x
    return jax.lax.convert_element_type(jnp.asarray(x), dtype)


def scaled(factor: Any, tree: Tree) -> Tree:
    """factor · x for every leaf, in the leaf's compute dtype.

    To divide, give the reciprocal: XLA fuses a multiplication into whatever uses its result, while it writes the
    result of an element-wise division out as a temporary of the size of the parameters.
    """

    def times(x: Array) -> Array:
        x = upcast(x)
        return jnp.asarray(factor, numerics.real_dtype(x.dtype)).astype(x.dtype) * x

    return jax.tree.map(times, tree)
