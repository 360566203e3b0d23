"""Losses between real numbers: squared error, Huber, log cosh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.hyperparams import Positive
from gradtx.losses import arguments

__all__ = ["huber_loss", "l2_loss", "log_cosh", "squared_error"]


def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """The square of each error; its mean is the mean squared error.

        (p − t)²

    `predictions` and `targets` have one shape, which the result has, too; either may be a scalar. Without targets they
    are zero.

    Raises:
        TypeError: the predictions are not floating-point numbers, or the targets not real.
        ValueError: the shapes differ.

    >>> squared_error(jnp.array([1.0, 2.0]), jnp.array([1.5, 0.0]))
    Array([0.25, 4.  ], dtype=float32)
    """
    errors, dtype = _errors("squared_error", predictions, targets)
    return (errors * errors).astype(dtype)


def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """Half the square of each error, whose derivative is the error.

        ½ (p − t)²

    `predictions` and `targets` have one shape, which the result has, too; either may be a scalar. Without targets they
    are zero.

    Raises:
        TypeError: the predictions are not floating-point numbers, or the targets not real.
        ValueError: the shapes differ.

    >>> l2_loss(jnp.array([1.0, 2.0]), jnp.array([1.5, 0.0]))
    Array([0.125, 2.   ], dtype=float32)
    """
    errors, dtype = _errors("l2_loss", predictions, targets)
    return (0.5 * errors * errors).astype(dtype)


def huber_loss(predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: ArrayLike = 1.0) -> Array:
    """Half the square of a small error, and a straight line for a large one, so that outliers count less.

        ½ e²             if |e| ≤ δ,  with e = p − t
        δ (|e| − ½ δ)    otherwise

    Its derivative is that of `l2_loss`, clipped to ±δ. `predictions` and `targets` have one shape, which the result
    has, too; either may be a scalar. Without targets they are zero. `delta` (δ, 1 is usual) is a number, or an array
    that is broadcast to that shape.

    Huber, 1964, "Robust Estimation of a Location Parameter". https://doi.org/10.1214/aoms/1177703732

    Raises:
        TypeError: the predictions are not floating-point numbers, or the targets not real.
        ValueError: the shapes differ, or the number `delta` is not positive.

    >>> huber_loss(jnp.array([0.5, 3.0]))
    Array([0.125, 2.5  ], dtype=float32)
    """
    errors, dtype = _errors("huber_loss", predictions, targets)
    bound = arguments.parameter("huber_loss", "delta", delta, Positive, errors)
    size = jnp.abs(errors)
    quadratic = jnp.minimum(size, bound)
    return (0.5 * quadratic**2 + bound * (size - quadratic)).astype(dtype)


def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """The logarithm of the hyperbolic cosine of each error: smooth, and like a Huber loss elsewhere.

        log cosh e  ≈  ½ e²  for small e,  |e| − log 2  for large e,  with e = p − t

    `predictions` and `targets` have one shape, which the result has, too; either may be a scalar. Without targets they
    are zero. Small errors keep their relative precision, and large ones do not overflow.

    Chen et al., 2019, "Log Hyperbolic Cosine Loss Improves Variational Auto-Encoder".
    https://openreview.net/forum?id=rkglvsC9Ym

    Raises:
        TypeError: the predictions are not floating-point numbers, or the targets not real.
        ValueError: the shapes differ.

    >>> with jnp.printoptions(precision=3, suppress=True):
    ...     print(log_cosh(jnp.array([1.0, 1000.0])))
    [  0.434 999.307]
    """
    errors, dtype = _errors("log_cosh", predictions, targets)
    return _log_cosh(errors).astype(dtype)


@jax.custom_jvp
def _log_cosh(x: Array) -> Array:
    """log cosh x = log(1 + 2 sinh²(x / 2)); the derivative tanh x needs no case."""
    size = jnp.abs(x)
    half = jnp.sinh(0.5 * jnp.minimum(size, 1))
    return jnp.where(size < 1, jnp.log1p(2 * half * half), size + jnp.log1p(jnp.exp(-2 * size)) - np.log(2).item())


@_log_cosh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    return _log_cosh(x), jnp.tanh(x) * dx


def _errors(loss: str, predictions: Any, targets: Any) -> tuple[Array, np.dtype[Any]]:
    """The errors p − t in the dtype of the computation, and the dtype of the result."""
    arguments.floating(loss, predictions=predictions)
    if targets is None:
        (p,), dtype = arguments.elements(loss, predictions=predictions)
        return p, dtype
    (p, t), dtype = arguments.elements(loss, predictions=predictions, targets=targets)
    return p - t, dtype
