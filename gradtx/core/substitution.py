"""Formulas in which a result is replaced by another value, also for what is computed from it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics

__all__ = ["anew", "with_results_replaced"]


def anew(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, for which XLA shares nothing with what it computes elsewhere.

    Its arguments and constants are behind barriers, as by `numerics.again`. So XLA:CPU writes none of them to memory,
    neither to share it nor, as it does before it adds up an array, to have a number in the shape of that array.
    """
    return lambda *args: with_results_replaced(function, numerics.again(args), lambda i, x: x, numerics.again)


def with_results_replaced(
    function: Callable[..., Any],
    args: Sequence[Any],
    replace: Callable[[int, Any], Any],
    constant: Callable[[Array], Array] | None = None,
) -> Any:
    """`function(*args)`, of which the i-th leaf of the result is `replace(i, leaf)`, also for what depends on it.

    Every number and array x that the function does not take as an argument is `constant(x)`, if that is given.

    >>> def powers(x):
    ...     square = x * x
    ...     return square, square * x
    >>> with_results_replaced(powers, [jnp.ones(2) * 3], lambda i, leaf: 10 * leaf if i == 0 else leaf)
    (Array([90., 90.], dtype=float32), Array([270., 270.], dtype=float32))
    """
    from jax.extend.core import Literal  # which loads much that `import jax` does not

    program, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, replaced = program.jaxpr, set[int]()
    place = {var: i for i, var in enumerate(jaxpr.outvars) if not isinstance(var, Literal)}
    consts = program.consts if constant is None else map(constant, program.consts)
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *jax.tree.leaves(args)), strict=True))

    def value_of(var: Any) -> Any:
        if not isinstance(var, Literal):
            return values[var]
        return var.val if constant is None else constant(jnp.asarray(var.val, var.aval.dtype))  # pyright: ignore

    for equation in jaxpr.eqns:
        values |= zip(equation.outvars, _results(jaxpr, equation, list(map(value_of, equation.invars))), strict=True)
        for var in place.keys() & set(equation.outvars):
            values[var] = replace(place[var], values[var])
            replaced.add(place[var])
    leaves = enumerate(map(value_of, jaxpr.outvars))
    return jax.tree.structure(shapes).unflatten([x if i in replaced else replace(i, x) for i, x in leaves])


def _results(jaxpr: Any, equation: Any, inputs: list[Any]) -> list[Any]:
    """What one equation gives for these inputs: the results of the program that consists of it."""
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

    variables = [jax.make_jaxpr(lambda x: x)(x).jaxpr.invars[0] for x in inputs]
    alone = equation.replace(invars=variables)
    program = jaxpr.replace(constvars=[], invars=variables, outvars=equation.outvars, eqns=[alone])
    return jaxpr_as_fun(ClosedJaxpr(program, ()))(*inputs)
