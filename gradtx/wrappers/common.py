"""What several wrappers use: zeros, a test for finite elements, copies."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.tree import Tree

__all__ = ["all_finite", "copy", "zeros_unless"]


def zeros_unless(condition: Array, updates: Tree) -> Tree:
    """The updates where the scalar condition holds, else zeros; leaves that are not floating-point stay as they are."""

    def pick(x: Any) -> Any:
        return jax.lax.select(condition, x, jnp.zeros_like(x)) if dtypes.is_inexact(x) else x

    return jax.tree.map(pick, updates)


def all_finite(updates: Tree) -> Array:
    """Whether no element of any floating-point leaf is infinite or NaN.

    The sum of x − x is 0 or NaN; unlike a test of each element, XLA:CPU computes it without an array of answers.
    """
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(updates) if dtypes.is_inexact(x)]
    leaves = [dtypes.upcast(numerics.unshared(x)) for x in leaves]
    return functools.reduce(operator.and_, [jnp.isfinite(jnp.sum(x - x)) for x in leaves], jnp.asarray(True))


def copy(params: Tree) -> Tree:
    """The parameters in buffers of their own and in compute dtype, so that they and the state may both be donated."""
    return jax.tree.map(lambda x: jnp.copy(dtypes.upcast(x)), params)
