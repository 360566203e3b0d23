"""Assignment: pairs of rows and columns of a matrix of costs, at the least total cost.

This module is public: use it as `gradtx.assignment`, with the names in its `__all__`.
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes

__all__ = ["base_hungarian_algorithm", "hungarian_algorithm"]


def hungarian_algorithm(cost_matrix: Any) -> tuple[Array, Array]:
    """The pairs of rows and columns, each in at most one pair, of which the sum of the costs is least.

        minimise Σᵢ Cᵢⱼ₍ᵢ₎ over all injective j

    There are min(n, m) pairs. It works under `jax.jit` and `jax.vmap`, in O(min(n, m)² max(n, m)) steps, of which the
    innermost are done at once. For a matching of greatest weight give −C. A large cost stands for a pair that is not
    allowed: infinite ones have no finite sum.

    Args:
        cost_matrix: float[n, m] or int[n, m]; computed in at least float32, in which integers are exact up to 2²⁴.

    Returns:
        Two arrays int32[min(n, m)], the rows and the columns; the rows increase, as those of scipy do.

    Kuhn, 1955; Jonker & Volgenant, 1987; Crouse, 2016, On implementing 2D rectangular assignment algorithms.

    Raises:
        ValueError: it has not two axes, or, unless it is traced, an element is infinite or NaN.
        TypeError: the elements are not real numbers.

    >>> cost = jnp.array([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
    >>> rows, columns = hungarian_algorithm(cost)
    >>> print(rows, columns, cost[rows, columns].sum())
    [0 1 3] [0 2 1] 15
    """
    costs = _costs(cost_matrix)
    if not costs.size:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32)
    if costs.shape[0] <= costs.shape[1]:
        return jnp.arange(costs.shape[0], dtype=jnp.int32), _column_of_each_row(costs)
    rows = _column_of_each_row(costs.T)
    order = jnp.argsort(rows).astype(jnp.int32)
    return rows[order], order


base_hungarian_algorithm = hungarian_algorithm
"Another name of the same function."


def _costs(costs: Any) -> Array:
    costs = jnp.asarray(costs)
    if costs.ndim != 2:
        raise ValueError(f"hungarian_algorithm: expected a matrix of costs, got {check.describe(costs)}")
    if not (jnp.issubdtype(costs.dtype, jnp.floating) or jnp.issubdtype(costs.dtype, jnp.integer)):
        raise TypeError(f"hungarian_algorithm: expected real numbers, got {check.describe(costs)}")
    if not isinstance(costs, jax.core.Tracer) and not np.isfinite(np.asarray(costs, np.float64)).all():
        raise ValueError("hungarian_algorithm: costs must be finite; give a large one for a pair that is not allowed")
    return dtypes.upcast(costs) if dtypes.is_inexact(costs) else costs.astype(jnp.result_type(float))


def _column_of_each_row(costs: Array) -> Array:
    """int32[n]: the assignment of a matrix with no more rows than columns, made row by row."""
    n, m = costs.shape
    start = jnp.full(m, -1, jnp.int32), jnp.zeros(n, costs.dtype), jnp.zeros(m, costs.dtype)
    row_of, _, _ = jax.lax.fori_loop(0, n, lambda row, state: _with_row(costs, row, *state), start)
    return jnp.zeros(n, jnp.int32).at[jnp.where(row_of < 0, n, row_of)].set(jnp.arange(m, dtype=jnp.int32), mode="drop")


def _with_row(costs: Array, row: Any, row_of: Array, u: Array, v: Array) -> tuple[Array, Array, Array]:
    """The assignment with one more row, and new prices of rows and columns.

    A shortest path leads from the row to a free column, alternately by a pair that might be and by one that is; along
    it pairs are exchanged. Lengths are reduced costs C − u − v, which are at least 0. (Dijkstra's algorithm.)
    """
    m = costs.shape[1]

    def goes_on(state: tuple[Array, ...]) -> Array:
        *_, column, _ = state
        return (column < 0) | (row_of[column] >= 0)

    def extend(state: tuple[Array, ...]) -> tuple[Array, ...]:
        length, before, done, column, travelled = state
        at = jnp.where(column < 0, row, row_of[column])
        through = travelled + costs[at] - u[at] - v
        shorter = ~done & (through < length)
        length, before = jnp.where(shorter, through, length), jnp.where(shorter, column, before)
        # a bound below infinity: where traced costs are not finite, a new column must be taken nevertheless
        open_length = jnp.where(done, jnp.inf, jnp.minimum(length, jnp.finfo(length.dtype).max))
        column = jnp.argmin(open_length).astype(column.dtype)
        return length, before, done.at[column].set(True), column, open_length[column]

    nowhere = jnp.asarray(-1, row_of.dtype)
    start = (
        jnp.full(m, jnp.inf, costs.dtype),
        jnp.full(m, nowhere),
        jnp.zeros(m, bool),
        nowhere,
        jnp.zeros((), costs.dtype),
    )
    length, before, done, column, total = jax.lax.while_loop(goes_on, extend, start)
    gain = jnp.where(done, total - length, 0)
    owners = jnp.where(done & (row_of >= 0), row_of, len(u))
    u = u.at[owners].add(gain, mode="drop").at[row].add(total)
    v = v - gain

    def exchange(state: tuple[Array, Array]) -> tuple[Array, Array]:
        row_of, column = state
        previous = before[column]
        new_owner = jnp.where(previous < 0, jnp.asarray(row, row_of.dtype), row_of[previous])
        return row_of.at[column].set(new_owner), previous

    row_of, _ = jax.lax.while_loop(lambda state: state[1] >= 0, exchange, (row_of, column))
    return row_of, u, v
