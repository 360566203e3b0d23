"""Clipping of the gradients of single examples, before they are added up: what differential privacy needs."""

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, norms
from gradtx.core.tree import Tree, path_str

__all__ = ["per_example_global_norm_clip", "per_example_layer_norm_clip"]


def per_example_global_norm_clip(grads: Tree, l2_norm_clip: Any) -> tuple[Tree, Array]:
    """The sum of the gradients of the examples of a batch, each clipped to the L2 norm `l2_norm_clip`.

        Σᵢ gᵢ · min(1, c / ‖gᵢ‖),   where ‖gᵢ‖ is the norm of the whole tree of example i

    Half precision is added up in float32 and keeps its dtype, and integers become float32. A gradient of 0 is not
    clipped; where one is not finite, the sum is NaN, because no multiple of it has a known norm.

    Args:
        grads: a tree whose leaves have the examples along their first axis, as from `jax.vmap(jax.grad(loss), ...)`.
        l2_norm_clip: the largest norm c of one example's gradient, at least 0; 1 is usual.

    Returns:
        The sums, and how many gradients were clipped: int32[].

    Abadi et al., 2016, Algorithm 1. https://arxiv.org/abs/1607.00133

    Raises:
        ValueError: a leaf has no first axis, or one of another length; or the bound is negative or NaN.
        TypeError: a leaf is not an array of numbers, or the bound is not a real scalar.

    >>> per_example_global_norm_clip({"w": jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.5]])}, 1.0)
    ({'w': Array([0.6, 1.3], dtype=float32)}, Array(1, dtype=int32))
    """
    grads = batch_of_examples("per_example_global_norm_clip: grads", grads)
    return clipped_sum(grads, _bound("per_example_global_norm_clip: l2_norm_clip", l2_norm_clip))


def per_example_layer_norm_clip(grads: Tree, global_l2_norm_clip: Any, uniform: bool = True) -> tuple[Tree, Tree]:
    """The sum of the gradients of the examples of a batch, each leaf of each clipped by its own norm.

        Σᵢ gᵢ · min(1, cₗ / ‖gᵢ‖)   for each leaf l,   cₗ = c / √L,  or c √(nₗ / n) unless `uniform`

    The bounds cₗ on the L leaves, of nₗ elements out of n, are such that the gradient of an example has at most the
    norm c. Otherwise as `per_example_global_norm_clip`.

    Args:
        grads: a tree whose leaves have the examples along their first axis.
        global_l2_norm_clip: the largest norm c of one example's gradient, at least 0; 1 is usual.
        uniform: whether all leaves have the same bound; otherwise it grows with the root of their sizes.

    Returns:
        The sums, and for each leaf how many gradients were clipped: int32[].

    McMahan et al., 2017, Section 3. https://arxiv.org/abs/1710.06963

    Raises:
        ValueError: a leaf has no first axis, or one of another length; or the bound is negative or NaN.
        TypeError: a leaf is not an array of numbers, or the bound is not a real scalar.

    >>> per_example_layer_norm_clip([jnp.array([[3.0, 4.0], [0.0, 0.5]])], 1.0)
    ([Array([0.6, 1.3], dtype=float32)], [Array(1, dtype=int32)])
    """
    grads = batch_of_examples("per_example_layer_norm_clip: grads", grads)
    bound = _bound("per_example_layer_norm_clip: global_l2_norm_clip", global_l2_norm_clip)
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [math.prod(leaf.shape[1:]) for leaf in leaves]
    shares = [1 / len(leaves) if uniform else size / max(sum(sizes), 1) for size in sizes]
    pairs = [clipped_sum(leaf, bound * math.sqrt(share)) for leaf, share in zip(leaves, shares, strict=True)]
    return treedef.unflatten([total for total, _ in pairs]), treedef.unflatten([clipped for _, clipped in pairs])


def clipped_sum(grads: Tree, bound: Array) -> tuple[Tree, Array]:
    """Σᵢ gᵢ · min(1, c / ‖gᵢ‖), and how many of the factors are less than 1."""
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return grads, jnp.zeros((), jnp.int32)
    sizes = jnp.stack([jax.vmap(norms.leaf_norm)(leaf).astype(bound.dtype) for leaf in leaves], 1)
    norm = jax.vmap(norms.leaf_norm)(sizes)
    is_long = norm > bound
    factor = jnp.where(is_long, bound / jnp.where(is_long, norm, 1), 1)
    factor = jnp.where(jnp.isfinite(norm), factor, jnp.nan)

    def total(leaf: Array) -> Array:
        wide = dtypes.upcast(leaf)
        weights = factor.astype(wide.dtype).reshape((-1,) + (1,) * (leaf.ndim - 1))
        return jnp.sum(weights * wide, 0).astype(leaf.dtype)

    return jax.tree.map(total, grads), jnp.sum(is_long, dtype=jnp.int32)


def batch_of_examples(name: str, grads: Tree) -> Tree:
    """The gradients as floating-point arrays that all have the same first axis."""
    length = None
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        where = f"{name}{path_str(path)}"
        if not isinstance(leaf, jax.Array | np.ndarray) or not jnp.issubdtype(leaf.dtype, np.number):
            raise TypeError(f"{where}: expected an array of numbers, got {check.describe(leaf)}")
        length = leaf.shape[0] if length is None and leaf.ndim else length
        if not leaf.ndim or leaf.shape[0] != length:
            expected = "" if length is None else f" of length {length}, as of the other leaves"
            raise ValueError(f"{where}: expected a first axis of examples{expected}, got {check.describe(leaf)}")
    return jax.tree.map(lambda g: dtypes.strong(g) if dtypes.is_inexact(g) else jnp.asarray(g, jnp.float32), grads)


def _bound(where: str, bound: Any) -> Array:
    if np.ndim(bound) or not isinstance(bound, int | float | np.ndarray | np.generic | jax.Array):
        raise TypeError(f"{where} must be a real scalar, got {check.describe(bound)}")
    if not isinstance(bound, jax.core.Tracer) and not float(bound) >= 0:
        raise ValueError(f"{where} must be at least 0, got {float(bound):g}")
    return jnp.asarray(bound).astype(jnp.result_type(float))
