"""Losses for one of several classes: softmax cross entropy and its kin, hinge, perceptron and sparsemax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.hyperparams import Fraction, Number
from gradtx.losses import arguments
from gradtx.losses.arguments import Axes
from gradtx.losses.stable import finite_maximum, log_softmax, shifted, sparsemax, times

__all__ = [
    "multiclass_hinge_loss",
    "multiclass_perceptron_loss",
    "multiclass_sparsemax_loss",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


# Softmax.


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The cross entropy between a distribution of labels and the softmax of logits.

        −Σᵢ yᵢ log pᵢ,  with pᵢ = exp xᵢ / Σⱼ exp xⱼ

    The classes extend over `axis`; the result has the remaining axes. `logits` (x) and `labels` (y, such as one-hot
    labels) have one shape; floating-point labels may lack the leading axes, if they are the same for all. `where` says
    which elements count: a mask of the shape of `logits`, whose axes may be 1, or of the shape of the result. A class
    that is left out has the probability 0, and its label does not count; where all are, the loss is 0.

    The loss of a class with the label 0 is 0 also if its logit is −∞; with another label it is infinite.

    Raises:
        TypeError: the logits are not a floating-point array, the labels not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> logits = jnp.array([[1.2, -0.8, -0.5], [0.9, -1.2, 1.1]])
    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(softmax_cross_entropy(logits, jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])))
    [0.2761 2.9518]
    """
    y, log_p, axes, dtype = _labels_and_log_softmax("softmax_cross_entropy", logits, labels, axis, where)
    return jnp.sum(times(y, -log_p), axes).astype(dtype)


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """`softmax_cross_entropy` over the last axis, which is safe with logits of −∞ as well.

        −Σᵢ yᵢ log pᵢ,  with pᵢ = exp xᵢ / Σⱼ exp xⱼ  and  0 log 0 = 0

    `logits` (x) and `labels` (y) have one shape; floating-point labels may lack the leading axes.

    Raises:
        TypeError: the logits are not a floating-point array, or the labels not real.
        ValueError: the shapes do not fit.

    >>> print(f"{safe_softmax_cross_entropy(jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([1.0, 0.0, 0.0])):.4f}")
    0.6931
    """
    y, log_p, axes, dtype = _labels_and_log_softmax("safe_softmax_cross_entropy", logits, labels, -1, None)
    return jnp.sum(times(y, -log_p), axes).astype(dtype)


def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Softmax cross entropy with another weight of the first term of its expansion in 1 − p, Poly-1.

        Σᵢ yᵢ (−log pᵢ + ε (1 − pᵢ)),  with pᵢ = exp xᵢ / Σⱼ exp xⱼ

    The arguments are those of `softmax_cross_entropy`. `epsilon` (ε) is a number, or an array that is broadcast to the
    shape of the result; the paper recommends 2 for classification and −1 for detection.

    Leng et al., 2022. https://arxiv.org/abs/2204.12511

    Raises:
        TypeError: the logits are not a floating-point array, the labels not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> print(f"{poly_loss_cross_entropy(jnp.array([4.0, 2.0, 1.0]), jnp.array([1.0, 0.0, 0.0])):.4f}")
    0.4823
    """
    loss = "poly_loss_cross_entropy"
    y, log_p, axes, dtype = _labels_and_log_softmax(loss, logits, labels, axis, where)
    cross_entropy = jnp.sum(times(y, -log_p), axes)
    weight = arguments.parameter(loss, "epsilon", epsilon, Number, cross_entropy)
    return (cross_entropy + weight * jnp.sum(y * -jnp.expm1(log_p), axes)).astype(dtype)


def _labels_and_log_softmax(
    loss: str, logits: Any, labels: Any, axis: Axes, where: Any
) -> tuple[Array, Array, tuple[int, ...], np.dtype[Any]]:
    """The labels, 0 where they do not count, and log p, −∞ there; the axes of the classes, and the result's dtype."""
    arguments.floating(loss, logits=logits)
    (x, y), axes, dtype = arguments.vectors(loss, axis, logits=logits, labels=labels)
    included = arguments.mask_of_items(loss, where, x.shape, axes)
    if included is not None:
        x, y = jnp.where(included, x, -jnp.inf), jnp.where(included, y, 0)
    return y, log_softmax(x, axes), axes, dtype


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: int | tuple[int, ...] = -1, where: ArrayLike | None = None
) -> Array:
    """The cross entropy between the numbers of the right classes and the softmax of logits.

        −log pₖ,  with pₖ = exp xₖ / Σⱼ exp xⱼ

    The classes extend over `axis`, and `labels` (k) has the remaining axes, as does the result. If `axis` is a tuple, a
    label is an index into these axes as a flat array, in the order of the tuple.

    Where a label is not in [0, number of classes), also if it is negative, the loss is NaN. For labels of −1 or −100
    that are to be ignored, give `where=labels >= 0`. `where` is a mask of the shape of the result, or of the shape of
    `logits`, whose axes may be 1. A class that is left out has the probability 0: where it is the right class, the loss
    is infinite; where all are left out, the loss is 0, whatever the label.

    Raises:
        TypeError: the logits are not a floating-point array, the labels not integers, or `where` is no mask of bools.
        ValueError: the shapes do not fit, there is no such axis, or `axis` is `None`.

    >>> logits = jnp.array([[1.2, -0.8, -0.5], [0.9, -1.2, 1.1], [1.0, 2.0, 3.0]])
    >>> labels = jnp.array([0, 1, -1])
    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(softmax_cross_entropy_with_integer_labels(logits, labels, where=labels >= 0))
    [0.2761 2.9518 0.    ]
    """
    loss = "softmax_cross_entropy_with_integer_labels"
    if axis is None:
        raise ValueError(f"{loss}: axis: expected an int or a tuple of ints, got None; name the axes of the classes")
    arguments.floating(loss, logits=logits)
    (x,), axes, dtype = arguments.vectors(loss, axis, logits=logits)
    included = arguments.mask_of_items(loss, where, x.shape, axes)
    x = _classes_last(x if included is None else jnp.where(included, x, -jnp.inf), axes)
    k, in_range = arguments.class_numbers(loss, labels, x.shape[:-1], x.shape[-1])
    difference, log_total = shifted(x, -1)
    result = log_total[..., 0] - _of_class(difference, k)
    result = jnp.where(in_range, result, jnp.nan)
    if included is not None:
        result = jnp.where(jnp.any(included, axes), result, 0)
    return result.astype(dtype)


def _classes_last(x: Array, axes: tuple[int, ...]) -> Array:
    """The array with the axes of the classes as one axis, the last."""
    others = tuple(i for i in range(x.ndim) if i not in axes)
    size = arguments.size_along(x.shape, axes)
    return jnp.transpose(x, others + axes).reshape(*(x.shape[i] for i in others), size)


def _of_class(x: Array, numbers: Array) -> Array:
    """The element along the last axis that has the number of the class. Every number is in range."""
    return jnp.take_along_axis(x, numbers[..., None], -1, mode="clip")[..., 0]


def smooth_labels(labels: ArrayLike, alpha: ArrayLike, *, axis: Axes = -1, where: ArrayLike | None = None) -> Array:
    """Labels with some of their probability spread evenly over all classes.

        (1 − α) y + α / K

    The K classes extend over `axis`; the result has the shape of `labels` (y). `alpha` (0.1 is usual) is a number, or
    an array that is broadcast to that shape. `where` says which classes count: a mask of the same rank, whose axes may
    be 1. K is the number of those that count, and the others get 0.

    Müller et al., 2019. https://arxiv.org/abs/1906.02629

    Raises:
        TypeError: the labels are not a floating-point array, or `where` is not a mask of bools.
        ValueError: there is no such axis, the mask does not fit, or `alpha` is outside [0, 1].

    >>> smooth_labels(jnp.array([0.0, 1.0, 0.0, 0.0]), 0.2)
    Array([0.05, 0.85, 0.05, 0.05], dtype=float32)
    """
    arguments.floating("smooth_labels", labels=labels)
    (y,), axes, dtype = arguments.vectors("smooth_labels", axis, labels=labels)
    share = arguments.parameter("smooth_labels", "alpha", alpha, Fraction, y)
    included = arguments.mask("smooth_labels", where, y.shape)
    if included is None:
        return ((1 - share) * y + share / max(arguments.size_along(y.shape, axes), 1)).astype(dtype)
    count = jnp.maximum(jnp.sum(included, axes, keepdims=True), 1).astype(y.dtype)
    return jnp.where(included, (1 - share) * y + share / count, 0).astype(dtype)


# Margins.


def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """How far the score of the right class is from being larger than all others by 1.

        maxⱼ (zⱼ − zₖ + 1),  without the 1 for j = k

    The classes are the last axis of `scores` (z); `labels` (k) has the remaining axes, as does the result. Where a
    label is not in [0, number of classes), the loss is NaN.

    Crammer & Singer, 2001. https://jmlr.org/papers/v2/crammer01a.html

    Raises:
        TypeError: the scores are not a floating-point array, or the labels not integers.
        ValueError: the shapes do not fit.

    >>> multiclass_hinge_loss(jnp.array([[10.0, 3.0], [2.0, 2.5]]), jnp.array([0, 0]))
    Array([0. , 1.5], dtype=float32)
    """
    z, k, in_range, dtype = _scores_and_classes("multiclass_hinge_loss", scores, labels)
    ahead = z - _of_class(z, k)[..., None]
    is_right = jax.lax.broadcasted_iota(k.dtype, ahead.shape, ahead.ndim - 1) == k[..., None]
    loss = jnp.max(jnp.where(is_right, ahead, ahead + 1), -1)
    return jnp.where(in_range, loss, jnp.nan).astype(dtype)


def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """How far the score of the right class is below the largest.

        maxⱼ zⱼ − zₖ

    The classes are the last axis of `scores` (z); `labels` (k) has the remaining axes, as does the result. Where a
    label is not in [0, number of classes), the loss is NaN.

    Collins, 2002, "Discriminative Training Methods for Hidden Markov Models". https://aclanthology.org/W02-1001

    Raises:
        TypeError: the scores are not a floating-point array, or the labels not integers.
        ValueError: the shapes do not fit.

    >>> multiclass_perceptron_loss(jnp.array([[10.0, 3.0], [2.0, 2.5]]), jnp.array([0, 0]))
    Array([0. , 0.5], dtype=float32)
    """
    z, k, in_range, dtype = _scores_and_classes("multiclass_perceptron_loss", scores, labels)
    return jnp.where(in_range, jnp.max(z, -1) - _of_class(z, k), jnp.nan).astype(dtype)


def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """The loss whose gradient is sparsemax minus the one-hot label: 0 where the right class is 1 ahead of all others.

        Σⱼ pⱼ (zⱼ − zₖ) + ½ (1 − Σⱼ pⱼ²),  with p = sparsemax z, the projection of z onto the probability simplex

    The classes are the last axis of `scores` (z); `labels` (k) has the remaining axes, as does the result. Where a
    label is not in [0, number of classes), the loss is NaN.

    Martins & Astudillo, 2016. https://arxiv.org/abs/1602.02068

    Raises:
        TypeError: the scores are not a floating-point array, or the labels not integers.
        ValueError: the shapes do not fit.

    >>> multiclass_sparsemax_loss(jnp.array([[2.0, 0.5, 0.0], [0.5, 0.5, 0.0]]), jnp.array([0, 0]))
    Array([0.  , 0.25], dtype=float32)
    """
    z, k, in_range, dtype = _scores_and_classes("multiclass_sparsemax_loss", scores, labels)
    largest = finite_maximum(z, -1)
    loss = _sparsemax_conjugate(z - largest) + (largest[..., 0] - _of_class(z, k))
    return jnp.where(in_range, loss, jnp.nan).astype(dtype)


@jax.custom_jvp
def _sparsemax_conjugate(z: Array) -> Array:
    """max over p in the simplex of p · z − ½ ‖p‖² + ½, whose derivative is the p that attains it."""
    p = sparsemax(z)
    return jnp.sum(times(p, z), -1) + 0.5 * (1 - jnp.sum(p * p, -1))


@_sparsemax_conjugate.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    return _sparsemax_conjugate(z), jnp.sum(sparsemax(z) * dz, -1)


def _scores_and_classes(loss: str, scores: Any, labels: Any) -> tuple[Array, Array, Array, np.dtype[Any]]:
    """The scores; the numbers of the right classes, and whether they are in range; and the dtype of the result."""
    arguments.floating(loss, scores=scores)
    (z,), _, dtype = arguments.vectors(loss, -1, scores=scores)
    k, in_range = arguments.class_numbers(loss, labels, z.shape[:-1], z.shape[-1])
    return z, k, in_range, dtype
