"""Logarithms of sums of exponentials, and products with them, that neither overflow nor make NaN of 0 · ∞.

Values and derivatives are finite for all finite arguments, as far as the result is representable, and right for −∞.
"""

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.losses.arguments import Axes

__all__ = []


@jax.custom_jvp
def held(x: Array) -> Array:
    """`x`, but not as a constant, for which XLA would make x² / c² of (x / c)², and x² may overflow."""
    return jax.lax.optimization_barrier(x)


@held.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return held(*primals), tangents[0]


def times(weight: Array, x: Array) -> Array:
    """w x, and 0 where w is 0 and x infinite, as 0 log 0 is taken for 0."""
    return weight * jnp.where((weight == 0) & jnp.isinf(x), 0, x)


def times_log(x: Array) -> Array:
    """x log x, and 0 where x is 0. There the derivative is taken for 0, too."""
    return jnp.where(x == 0, 0, x * jnp.log(jnp.where(x == 0, 1, x)))


def logaddexp(a: Array, b: Array) -> Array:
    """log(eᵃ + eᵇ), which is −∞ if both are, with the derivative 0 there."""
    return logsumexp(jnp.stack([a, b]), 0)


def logsumexp(x: Array, axes: Axes) -> Array:
    """log Σ eˣ over some axes, which is −∞ if every x is, with the derivative 0 there."""
    largest = finite_maximum(x, axes)
    total = jnp.sum(jnp.exp(x - largest), axes)
    is_zero = total == 0
    return jnp.where(is_zero, -jnp.inf, jnp.log(jnp.where(is_zero, 1, total)) + jnp.squeeze(largest, axes))


def shifted(x: Array, axes: Axes) -> tuple[Array, Array]:
    """x − max x, and log Σ exp(x − max x) over some axes, which are kept with size 1.

    Their difference is log softmax. Where every x is −∞, they are −∞ and 0.
    """
    difference = x - finite_maximum(x, axes)
    total = jnp.sum(jnp.exp(difference), axes, keepdims=True)
    return difference, jnp.log(jnp.where(total == 0, 1, total))


def log_softmax(x: Array, axes: Axes) -> Array:
    """xᵢ − log Σⱼ exp xⱼ over some axes; −∞ where every x is −∞."""
    difference, log_total = shifted(x, axes)
    return difference - log_total


def finite_maximum(x: Array, axes: Axes) -> Array:
    """The largest x over some axes, which are kept with size 1, and 0 where that is infinite. A constant to `grad`."""
    largest = jnp.max(jax.lax.stop_gradient(x), axes, keepdims=True, initial=-jnp.inf)
    return jnp.where(jnp.isinf(largest), 0, largest)


def sparsemax(scores: Array) -> Array:
    """The projection of each vector along the last axis onto the probability simplex: max(z − τ, 0), with the sum 1.

    Martins & Astudillo, 2016, Algorithm 1. https://arxiv.org/abs/1602.02068
    """
    z = jnp.maximum(scores - finite_maximum(scores, -1), -1)  # what lies lower than 1 below the maximum gets 0 anyway
    descending = -jnp.sort(-jax.lax.stop_gradient(z), -1)
    ranks = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype).reshape((1,) * (z.ndim - 1) + (-1,))
    is_large = 1 + ranks * descending > jnp.cumsum(descending, -1)
    least = jnp.min(jnp.where(is_large, descending, jnp.inf), -1, keepdims=True)
    support = z >= least
    size = jnp.sum(support, -1, keepdims=True).astype(z.dtype)
    threshold = (jnp.sum(jnp.where(support, z, 0), -1, keepdims=True) - 1) / size
    return jnp.where(support, jnp.maximum(z - threshold, 0), 0)
