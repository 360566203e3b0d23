"""Formulas in which a result is replaced by another value, also for what is computed from it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

__all__ = ["with_results_replaced"]


def with_results_replaced(function: Callable[..., Any], args: Sequence[Any], replace: Callable[[int, Any], Any]) -> Any:
    """`function(*args)`, of which the i-th leaf of the result is `replace(i, leaf)`, also for what depends on it.

    >>> import jax.numpy as jnp
    >>> def powers(x):
    ...     square = x * x
    ...     return square, square * x
    >>> with_results_replaced(powers, [jnp.ones(2) * 3], lambda i, leaf: 10 * leaf if i == 0 else leaf)
    (Array([90., 90.], dtype=float32), Array([270., 270.], dtype=float32))
    """
    from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun  # loads much that `import jax` does not

    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, replaced = program.jaxpr, set[int]()
    place = {var: i for i, var in enumerate(jaxpr.outvars) if not isinstance(var, Literal)}
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *jax.tree.leaves(args)), strict=True))
    for part in _parts(jaxpr, place):
        new = [var for equation in part for var in equation.outvars]
        known = list(values)
        run = jaxpr_as_fun(ClosedJaxpr(jaxpr.replace(constvars=[], invars=known, outvars=new, eqns=part), ()))
        values |= zip(new, run(*values.values()), strict=True)
        for var in place.keys() & set(new):
            values[var] = replace(place[var], values[var])
            replaced.add(place[var])
    results = [var.val if isinstance(var, Literal) else values[var] for var in jaxpr.outvars]
    leaves = [x if i in replaced else replace(i, x) for i, x in enumerate(results)]
    return jax.tree.structure(shapes).unflatten(leaves)


def _parts(jaxpr: Any, place: Any) -> list[list[Any]]:
    """The equations in order, cut behind each that computes a result."""
    parts: list[list[Any]] = [[]]
    for equation in jaxpr.eqns:
        parts[-1].append(equation)
        if any(var in place for var in equation.outvars):
            parts.append([])
    return [part for part in parts if part]
