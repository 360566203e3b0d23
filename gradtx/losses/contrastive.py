"""Losses between embeddings: like ones shall be near each other, and unlike ones far apart."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.check import describe
from gradtx.core.hyperparams import AtLeastOne, NonNegative, Number, Positive
from gradtx.losses import arguments
from gradtx.losses.arguments import Axes
from gradtx.losses.similarity import unit
from gradtx.losses.stable import held, logsumexp

__all__ = ["ntxent", "triplet_margin_loss"]


def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07) -> Array:
    """Normalized temperature-scaled cross entropy, a contrastive loss: the mean over all pairs i ≠ j of one label of

        −log (exp sᵢⱼ / (exp sᵢⱼ + Σₖ exp sᵢₖ)),  k over all of another label,  with sᵢⱼ = cos(zᵢ, zⱼ) / τ

    `embeddings` (z) are float[n, d], `labels` are numbers [n]; the result is a scalar. `temperature` (τ) is a positive
    number or a scalar array; 0.07 to 0.5 are usual. Without any pair of one label the loss is 0. The similarity to an
    embedding of zeros is 0.

    Chen et al., 2020, SimCLR. https://arxiv.org/abs/2002.05709

    Raises:
        TypeError: the embeddings are not a floating-point array.
        ValueError: the embeddings are not a matrix, there is not one label for each, or `temperature` is not positive.

    >>> embeddings = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> print(f"{ntxent(embeddings, jnp.array([0, 0, 1, 1]), 0.5):.4f}")
    0.2899
    """
    arguments.floating("ntxent", embeddings=embeddings)
    _one_label_each(embeddings, labels)
    (z,), dtype = arguments.elements("ntxent", embeddings=embeddings)
    tau = arguments.parameter("ntxent", "temperature", temperature, Positive, z[:0, :0].sum())
    z, _ = unit(z, 0.0, (1,))
    similarity = jnp.matmul(z, z.T, precision=jax.lax.Precision.HIGHEST) / tau
    labels = jnp.asarray(labels)
    is_alike = labels[:, None] == labels[None, :]
    of_others = logsumexp(jnp.where(is_alike, -jnp.inf, similarity), 1)
    is_pair = is_alike & ~jnp.eye(z.shape[0], dtype=bool)
    losses = jax.nn.softplus(of_others[:, None] - similarity)
    pairs = jnp.maximum(jnp.sum(is_pair), 1).astype(z.dtype)
    return (jnp.sum(losses, where=is_pair) / pairs).astype(dtype)


def _one_label_each(embeddings: Any, labels: Any) -> None:
    if np.ndim(embeddings) != 2:
        raise ValueError(f"ntxent: embeddings: expected a matrix [n, d], got {describe(embeddings)}")
    if np.shape(labels) != np.shape(embeddings)[:1]:
        raise ValueError(
            f"ntxent: labels: expected the shape {np.shape(embeddings)[:1]}, one number for each embedding, "
            f"got {describe(labels)}"
        )


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: Axes = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
) -> Array:
    """How far an anchor is from being nearer to the positive than to the negative by a margin.

        max(0, d(a, p) − d(a, n) + m),  with d(x, y) = (Σᵢ |xᵢ − yᵢ|ᵖ + ε)^(1 / p)

    The vectors extend over `axis`; the result has the remaining axes. `anchors` (a), `positives` (p) and `negatives`
    (n) have one shape. Axes beside `axis` may be of size 1, such as anchors (n, 1, d) and negatives (1, m, d), and
    arrays may lack the leading axes.
    `norm_degree` (p, at least 1) and `eps` (ε) are numbers or scalar arrays, `margin` (m) is a number, or an array that
    is broadcast to the shape of the result. Where two vectors are equal and ε is 0, the derivative of their distance is
    taken for 0.

    Balntas et al., 2016, "Learning local feature descriptors with triplets". https://doi.org/10.5244/C.30.119

    Raises:
        TypeError: the vectors are not floating-point arrays.
        ValueError: the shapes do not fit, there is no such axis, `norm_degree` is below 1 or `eps` negative.

    >>> anchors, positives = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([[0.1, 0.1], [1.1, 1.1]])
    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(triplet_margin_loss(anchors, positives, jnp.array([[1.0, 0.0], [0.0, 1.0]])))
    [0.1414 0.1414]
    """
    loss = "triplet_margin_loss"
    given = {"anchors": anchors, "positives": positives, "negatives": negatives}
    arguments.floating(loss, **given)
    (a, p, n), axes, dtype = arguments.vectors(loss, axis, **given)
    degree = arguments.scalar(loss, "norm_degree", norm_degree, AtLeastOne)
    least = jnp.asarray(arguments.scalar(loss, "eps", eps, NonNegative), a.dtype)
    ahead = _distance(a - p, degree, least, axes) - _distance(a - n, degree, least, axes)
    return jnp.maximum(0, ahead + arguments.parameter(loss, "margin", margin, Number, ahead)).astype(dtype)


def _distance(difference: Array, degree: Any, least: Array, axes: tuple[int, ...]) -> Array:
    """(Σ |x|ᵖ + ε)^(1 / p), computed from x / c, so that no power overflows or vanishes."""
    degree = jnp.asarray(degree, difference.dtype)
    size = jnp.abs(held(difference))
    largest = jnp.max(jax.lax.stop_gradient(size), axes, keepdims=True, initial=0)
    c = jnp.maximum(largest, jax.lax.stop_gradient(least ** (1 / degree)))
    c = jnp.where(c > 0, c, 1)
    total = jnp.sum(_power(size / c, degree), axes, keepdims=True) + _power(least ** (1 / degree) / c, degree)
    return jnp.squeeze(c * _power(total, 1 / degree), axes)


def _power(x: Array, exponent: Array) -> Array:
    """xᵖ for x ≥ 0 and p > 0, whose derivative at 0 is taken for 0."""
    return jnp.where(x > 0, jnp.where(x > 0, x, 1) ** exponent, 0)
