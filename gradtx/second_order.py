"""Products with the Hessian of a loss, its diagonal, and that of the Fisher information.

This module is public: use it as `gradtx.second_order`, with the names in its `__all__`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from gradtx.core import check, dtypes
from gradtx.core.tree import Tree

__all__ = ["fisher_diag", "hessian_diag", "hvp"]

Loss = Callable[[Tree, Any, Any], Array]

_AT_ONCE = 128
"Rows of the Hessian that are in memory at once."


def hvp(loss: Loss, v: Any, params: Tree, inputs: Any, targets: Any) -> Tree:
    """The product H v of the Hessian of a loss with a vector, at the cost of about two gradients.

        H v = d/dε ∇ loss(params + ε v, inputs, targets)   at ε = 0

    Args:
        loss: a function of the parameters, the inputs and the targets, that gives a scalar.
        v: a vector of as many elements as the parameters have, in the order of `jax.flatten_util.ravel_pytree`; or a
            tree like the parameters.
        params: a tree of floating-point arrays.
        inputs: what the loss takes for them.
        targets: what the loss takes for them.

    Returns:
        A tree like the parameters.

    Pearlmutter, 1994, Fast exact multiplication by the Hessian.

    Raises:
        ValueError: v has another number of elements, or another structure.
        TypeError: a parameter is not a floating-point array.

    >>> def loss(params, inputs, targets):
    ...     return jnp.sum(params["a"] ** 2 * params["b"])
    >>> params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    >>> hvp(loss, jnp.array([1.0, 0.0, 0.0]), params, None, None)
    {'a': Array([6., 0.], dtype=float32), 'b': Array(2., dtype=float32)}
    """
    params, unravel, size = _flattened("hvp", params)
    if jax.tree_util.all_leaves([v]) and jnp.ndim(v) == 1 and not check.is_alike(v, params):
        if jnp.size(v) != size:
            raise ValueError(f"hvp: v must have the {size} elements of the parameters, got {check.describe(v)}")
        v = unravel(v)
    check.same_structure("hvp: v", v, params, "the parameters; or give a vector of all elements")
    check.same_shapes("hvp: v", v, params, "the parameter")
    return _product(loss, params, dtypes.cast_like(v, params), inputs, targets)


def hessian_diag(loss: Loss, params: Tree, inputs: Any, targets: Any) -> Array:
    """The diagonal of the Hessian of a loss, as a vector in the order of `jax.flatten_util.ravel_pytree`.

        dᵢ = ∂² loss / ∂θᵢ²

    It costs a product with the Hessian for each parameter, of which 128 are in memory at once. Where a sample of it is
    enough, Hutchinson's estimate z · H z, for random signs z, costs one product.

    Args:
        loss: a function of the parameters, the inputs and the targets, that gives a scalar.
        params: a tree of floating-point arrays.
        inputs: what the loss takes for them.
        targets: what the loss takes for them.

    Raises:
        TypeError: a parameter is not a floating-point array.

    >>> hessian_diag(lambda p, x, y: jnp.sum(x * p**3), jnp.array([1.0, 2.0]), 2.0, None)
    Array([12., 24.], dtype=float32)
    """
    params, unravel, size = _flattened("hessian_diag", params)
    dtype = jax.eval_shape(lambda: ravel_pytree(params)[0]).dtype

    def element(i: Array) -> Array:
        unit = unravel(jnp.zeros(size, dtype).at[i].set(1))
        return ravel_pytree(_product(loss, params, unit, inputs, targets))[0][i]

    return jax.lax.map(element, jnp.arange(size), batch_size=_AT_ONCE)


def fisher_diag(negative_log_likelihood: Loss, params: Tree, inputs: Any, targets: Any) -> Array:
    """The square of the gradient: the diagonal of the empirical Fisher information of one example, as a vector.

        dᵢ = (∂ nll / ∂θᵢ)²

    Of a batch it is the square of the sum or mean of the gradients. For the mean of the squares, map it over the
    examples: `jax.vmap(fisher_diag, (None, None, 0, 0))`.

    Args:
        negative_log_likelihood: a function of the parameters, the inputs and the targets, that gives a scalar.
        params: a tree of floating-point arrays.
        inputs: what the loss takes for them.
        targets: what the loss takes for them.

    Raises:
        TypeError: a parameter is not a floating-point array.

    >>> fisher_diag(lambda p, x, y: jnp.sum(x * p**2), jnp.array([1.0, 2.0]), 0.5, None)
    Array([1., 4.], dtype=float32)
    """
    params, _, _ = _flattened("fisher_diag", params)
    grad = jax.grad(negative_log_likelihood)(params, inputs, targets)
    return jnp.square(ravel_pytree(grad)[0])


def _flattened(name: str, params: Tree) -> tuple[Tree, Callable[[Array], Tree], int]:
    """The parameters as strong arrays, what makes a tree like them of a vector, and how many elements they have."""
    check.inexact_leaves(f"{name}: params", params, "leave it out of the parameters")
    params = dtypes.strong(params)
    flat, unravel = ravel_pytree(params)
    return params, unravel, flat.size


def _product(loss: Loss, params: Tree, v: Tree, inputs: Any, targets: Any) -> Tree:
    return jax.jvp(jax.grad(lambda p: loss(p, inputs, targets)), (params,), (v,))[1]
