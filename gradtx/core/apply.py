"""The last step of an iteration: add the updates to the parameters."""

from typing import Any

import jax
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.compose import TransformationKind, chain
from gradtx.core.extras import refuse_misspelt
from gradtx.core.run import are_concrete, compiled_form, name_of, update_for_user
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree

__all__ = ["apply_updates", "step"]


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """params + updates, computed in at least float32 and rounded once to the parameters' dtypes.

    A parameter stays as it is if its update is `None`, or has the dtype `float0` that JAX gives to the gradients of
    integer parameters. Outside `jax.jit` the call runs a compiled program.

    Raises:
        ValueError: the structures or the shapes differ.
        TypeError: a leaf that is to be changed, or its update, is not a floating-point array.

    >>> import jax.numpy as jnp
    >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.array([0.5, -0.5])})
    {'w': Array([1.5, 0.5], dtype=float32)}
    """
    if any(map(_is_no_update, jax.tree.leaves(updates, is_leaf=_is_none))):
        return _apply_to_some(params, updates)
    return _apply_to_all(params, updates)


def step(tx: Transformation, grads: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
    """One step of training, `tx.update` and `apply_updates`: returns the new parameters and the new state.

        grads = grad_fn(params, batch)
        params, state = gradtx.step(tx, grads, state, params)

    Outside `jax.jit` it is one compiled program, to which the old parameters and the old state are donated: their
    memory holds the new ones, and they cannot be used any more. Inside, and where an extra argument is a function, it
    is just the two calls. Extra arguments are those of `tx.update`.

    Raises:
        TypeError: not a transformation; and as `tx.update` and `apply_updates` do.
        ValueError: as these do.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx, params = gradtx.sgd(0.5), jnp.array([1.0, 2.0])
    >>> params, state = step(tx, jnp.array([0.5, 0.5]), tx.init(params), params)
    >>> params
    Array([0.75, 1.75], dtype=float32)
    """
    tx = TransformationKind().convert("step: tx", tx)
    if not isinstance(tx, GradientTransformation):
        new, (state,) = step(chain(tx), grads, (state,), params, **extra)
        return new, state
    refuse_misspelt(name_of(tx), tx.extras, extra)
    if are_concrete((grads, state, params, extra)):
        return _compiled_step(compiled_form(tx), grads, state, params, extra)
    return _step(tx, grads, state, params, extra)


def _step(tx: Any, grads: Tree, state: Any, params: Tree, extra: dict[str, Any]) -> tuple[Tree, Any]:
    updates, state = update_for_user(tx, grads, state, params, extra)
    return apply_updates(params, updates), state


_compiled_step = jax.jit(_step, donate_argnums=(2, 3))


def _apply_to_some(params: Tree, updates: Tree) -> Tree:
    """`apply_updates` where some parameters stay as they are."""
    check.same_structure(_WHERE, _none_as_leaves(updates, params), _none_as_leaves(params, updates), "params")
    moving = jax.tree.map(lambda u, p: None if _is_no_update(u) else p, updates, params, is_leaf=_is_none)
    given = jax.tree.map(lambda u: None if _is_no_update(u) else u, updates)
    moved = _apply_to_all(moving, given)
    return jax.tree.map(lambda p, new: p if new is None else new, params, moved, is_leaf=_is_none)


def _apply_to_all(params: Tree, updates: Tree) -> Tree:
    """`apply_updates` where every leaf of both trees counts; as a compiled program, if none of them is traced."""
    return (_compiled_sum if are_concrete((params, updates)) else _checked_sum)(params, updates)


def _checked_sum(params: Tree, updates: Tree) -> Tree:
    check.same_structure(_WHERE, updates, params, "params")
    check.inexact_leaves(_WHERE, updates, "give None for a parameter that shall stay as it is")
    check.inexact_leaves("apply_updates: params", params, "give None as its update")
    check.same_shapes(_WHERE, updates, params, "the parameter")
    return jax.tree.map(_sum, params, updates)


_compiled_sum = jax.jit(_checked_sum)
_WHERE = "apply_updates: updates"


def _sum(param: Any, update: Any) -> Array:
    dtype = dtypes.dtype_of(param)
    wide = numerics.compute_dtype(dtype)
    return dtypes.cast(dtypes.cast(param, wide) + dtypes.cast(update, wide), dtype)


def _is_none(x: Any) -> bool:
    return x is None


def _is_no_update(update: Any) -> bool:
    """Whether the parameter stays as it is."""
    return update is None or getattr(update, "dtype", None) == jax.dtypes.float0


def _none_as_leaves(tree: Tree, other: Tree) -> Tree:
    """The tree with a leaf for every `None` in it, unless one of the two trees is `None` as a whole."""
    if tree is None or other is None:
        return tree
    return jax.tree.map(lambda x: 0 if x is None else x, tree, is_leaf=_is_none)
