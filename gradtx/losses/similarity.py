"""The cosine of the angle between vectors, as a similarity and as a distance."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core import numerics
from gradtx.core.hyperparams import NonNegative
from gradtx.losses import arguments
from gradtx.losses.arguments import Axes
from gradtx.losses.stable import held

__all__ = ["cosine_distance", "cosine_similarity"]


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """The cosine of the angle between vectors, from −1 to 1.

        p · t / (max(‖p‖, ε) max(‖t‖, ε))

    The vectors extend over `axis`; the result has the remaining axes. `predictions` and `targets` have one shape.
    Axes beside `axis` may be of size 1, so that (n, 1, d) and (1, m, d) give all pairs, (n, m); and one of the arrays
    may lack the leading axes. `where` says which elements count: a mask of the same rank, whose axes may be 1.
    `epsilon` (ε, a number or a scalar array) is the smallest norm by which a vector is divided.

    The similarity to a vector of zeros is 0, and so is the derivative with respect to it if ε is 0. Squares of large
    and of tiny elements neither overflow nor vanish.

    Raises:
        TypeError: the vectors are not floating-point arrays, or `where` is not a mask of bools.
        ValueError: the shapes do not fit, there is no such axis, or `epsilon` is negative.

    >>> cosine_similarity(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[2.0, 0.0], [-1.0, 1.0]]))
    Array([1., 0.], dtype=float32)
    """
    loss = "cosine_similarity"
    arguments.floating(loss, predictions=predictions, targets=targets)
    (p, t), axes, dtype = arguments.vectors(loss, axis, predictions=predictions, targets=targets)
    shortest = arguments.scalar(loss, "epsilon", epsilon, NonNegative)
    included = arguments.mask(loss, where, p.shape)
    (p, _), (t, _) = (unit(_included(x, included), shortest, axes) for x in (p, t))
    return jnp.sum(p * t, axes).astype(dtype)


def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """One minus the cosine of the angle between vectors, from 0 to 2.

        1 − p · t / (max(‖p‖, ε) max(‖t‖, ε))

    It is computed as ½ ‖p / ‖p‖ − t / ‖t‖‖², which is exact for vectors of nearly the same direction. The arguments,
    and what is raised, are those of `cosine_similarity`. The distance to a vector of zeros is 1.

    Raises:
        TypeError: the vectors are not floating-point arrays, or `where` is not a mask of bools.
        ValueError: the shapes do not fit, there is no such axis, or `epsilon` is negative.

    >>> with jnp.printoptions(precision=3, suppress=True):
    ...     print(cosine_distance(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[2.0, 0.0], [-1.0, 1.0]])))
    [0. 1.]
    """
    loss = "cosine_distance"
    arguments.floating(loss, predictions=predictions, targets=targets)
    (p, t), axes, dtype = arguments.vectors(loss, axis, predictions=predictions, targets=targets)
    shortest = arguments.scalar(loss, "epsilon", epsilon, NonNegative)
    included = arguments.mask(loss, where, p.shape)
    (p, lack_of_p), (t, lack_of_t) = (unit(_included(x, included), shortest, axes) for x in (p, t))
    return (0.5 * (jnp.sum((p - t) ** 2, axes) + lack_of_p + lack_of_t)).astype(dtype)


def unit(x: Array, shortest: float | Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Vectors divided by their norm, or by `shortest` if that is larger, and 1 minus the squared norm of the result.

    The latter is 0 unless the vector is shorter. Of a vector of zeros the result is zero, with the derivative 0 if
    `shortest` is 0.
    """
    x = held(x)
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    scale = jnp.where(largest > 0, largest, 1)
    x = x / scale  # the squares of its elements are at most 1
    norm = numerics.sqrt(jnp.sum(x * x, axes, keepdims=True))
    floor = jnp.asarray(shortest, x.dtype) / scale
    is_short = norm <= floor
    length = jnp.where(is_short, floor, norm)
    inverse = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
    lack = jnp.where(is_short, 1 - (norm * inverse) ** 2, 0)
    return x * inverse, jnp.squeeze(lack, axes)


def _included(x: Array, mask: Array | None) -> Array:
    return x if mask is None else jnp.where(mask, x, 0)
