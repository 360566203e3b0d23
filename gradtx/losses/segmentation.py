"""Losses between a predicted mask of an image and the true one, by how far they overlap."""

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.check import describe
from gradtx.core.hyperparams import NonNegative
from gradtx.losses import arguments
from gradtx.losses.arguments import Axes
from gradtx.losses.stable import log_softmax

__all__ = ["binary_dice_loss", "dice_loss", "multiclass_generalized_dice_loss"]


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axes = None,
) -> Array:
    """One minus the Dice coefficient of each class, or the Tversky index if `alpha` and `beta` differ.

        wₖ (α Σ p (1 − t) + β Σ (1 − p) t) / (Σ p t + α Σ p (1 − t) + β Σ (1 − p) t + s)

    `predictions` and `targets` (t, 0 or 1, one-hot over the classes) have the shape (batch, …, classes); one of them
    may lack the last axis if it is 1. The sums are over `axis`, by default all axes but the first and the last. p is
    the softmax of the predictions over the classes, or their sigmoid if there is one class; with `apply_softmax=False`,
    p are the predictions themselves. `class_weights` (w) are an array [classes]. `smooth` (s), `alpha` (α) and `beta`
    (β) are numbers, or arrays that are broadcast to the losses of the classes. With `ignore_background`, class 0 is
    left out unless it is the only one.

    The losses of the classes are averaged (`reduction="mean"`), added ("sum") or returned ("none"). A class of which
    nothing is predicted and nothing is there has the loss 0, also without `smooth`.

    Milletari et al., 2016. https://arxiv.org/abs/1606.04797. Salehi et al., 2017. https://arxiv.org/abs/1706.05721

    Raises:
        TypeError: the predictions are not a floating-point array, or the targets not real.
        ValueError: the shapes differ, `axis` or `reduction` makes no sense, a number is negative, or predictions that
            are known are not probabilities with `apply_softmax=False`. (Inside `jax.jit` they are not known.)

    >>> masks = jnp.array([[[1.0], [0.0], [1.0], [0.0]]])  # one image of four pixels
    >>> with jnp.printoptions(precision=3, suppress=True):
    ...     print(dice_loss(jnp.array([[[9.0], [-9.0], [-9.0], [-9.0]]]), masks))
    [0.2]
    """
    x, t, dtype = _images("dice_loss", predictions, targets)
    p, q = _probabilities("dice_loss", predictions, x, apply_softmax)
    losses = _tversky("dice_loss", p, q, t, smooth, alpha, beta, axis)
    if class_weights is not None:
        losses = losses * _class_weights(class_weights, losses)
    return _reduced(_foreground(losses) if ignore_background else losses, reduction).astype(dtype)


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Array:
    """The mean of `dice_loss` over classes and batch, in which rare classes have a larger weight.

        wₖ = c / nₖ²,  nₖ = Σ tₖ over batch and pixels,  with the c that makes the mean of the weights 1

    `predictions` and `targets` have one shape, (batch, …, classes); the result is a scalar. The other arguments, and
    what is raised, are those of `dice_loss`. A class that does not occur has the largest weight of those that do.

    Sudre et al., 2017. https://arxiv.org/abs/1707.03237

    Raises:
        TypeError: the predictions are not a floating-point array, or the targets not real.
        ValueError: the shapes differ, or as `dice_loss` does.

    >>> targets = jax.nn.one_hot(jnp.array([[0, 0, 0, 1]]), 2)
    >>> print(f"{multiclass_generalized_dice_loss(9 * targets, targets):.3f}")
    0.000
    """
    loss = "multiclass_generalized_dice_loss"
    x, t, dtype = _images(loss, predictions, targets)
    p, q = _probabilities(loss, predictions, x, apply_softmax)
    losses = _tversky(loss, p, q, t, smooth, 0.5, 0.5, None) * _weights_of_classes(t)
    return jnp.mean(_foreground(losses) if ignore_background else losses).astype(dtype)


def _weights_of_classes(t: Array) -> Array:
    """The squared inverses of how often the classes occur, with the mean 1, in the shape of the losses."""
    count = jnp.sum(t, tuple(range(t.ndim - 1)))
    occurs = count > 0
    rarest = jnp.min(jnp.where(occurs, count, jnp.inf))
    weights = jnp.where(occurs, (rarest / jnp.where(occurs, count, 1)) ** 2, 1)
    weights = jnp.where(jnp.isinf(rarest), 1, weights)
    return jnp.broadcast_to(weights / jnp.mean(weights), (t.shape[0], t.shape[-1]) if t.ndim > 1 else t.shape)


def binary_dice_loss(
    predictions: ArrayLike, targets: ArrayLike, *, smooth: ArrayLike = 1.0, apply_sigmoid: bool = True
) -> Array:
    """`dice_loss` of one class: one minus the Dice coefficient of the foreground.

        (Σ p (1 − t) + Σ (1 − p) t) / (2 Σ p t + Σ p (1 − t) + Σ (1 − p) t + 2 s)

    `predictions` and `targets` (t, 0 or 1) have the shape (batch, …) or (batch, …, 1); the result is float[batch]. p is
    the sigmoid of the predictions, or with `apply_sigmoid=False` the predictions themselves. `smooth` is s.

    Milletari et al., 2016. https://arxiv.org/abs/1606.04797

    Raises:
        TypeError: the predictions are not a floating-point array, or the targets not real.
        ValueError: the shapes differ, or as `dice_loss` does.

    >>> binary_dice_loss(jnp.array([[1.0, 0.0, 0.0, 0.0]]), jnp.array([[1, 0, 1, 0]]), apply_sigmoid=False)
    Array([0.2], dtype=float32)
    """
    if np.ndim(predictions) == np.ndim(targets) and np.shape(predictions)[-1:] != (1,):
        predictions, targets = jnp.asarray(predictions)[..., None], jnp.asarray(targets)[..., None]
    x, t, dtype = _images("binary_dice_loss", predictions, targets)
    p, q = _probabilities("binary_dice_loss", predictions, x, apply_sigmoid)
    return jnp.mean(_tversky("binary_dice_loss", p, q, t, smooth, 0.5, 0.5, None), -1).astype(dtype)


def _tversky(loss: str, p: Array, q: Array, t: Array, smooth: Any, alpha: Any, beta: Any, axis: Axes) -> Array:
    """The losses of the classes, which are the last axis, from p and q = 1 − p."""
    axes = tuple(range(1, t.ndim - 1)) if axis is None else arguments.axes_of(loss, axis, t.ndim)
    if t.ndim - 1 in axes:
        raise ValueError(f"{loss}: axis: expected axes beside the last, which has the classes, got {axis!r}")
    hit, over, under = (jnp.sum(part, axes) for part in (p * t, p * (1 - t), q * t))
    a = arguments.parameter(loss, "alpha", alpha, NonNegative, hit)
    b = arguments.parameter(loss, "beta", beta, NonNegative, hit)
    wrong = a * over + b * under
    total = hit + wrong + arguments.parameter(loss, "smooth", smooth, NonNegative, hit)
    is_nothing = total < math.sqrt(float(jnp.finfo(total.dtype).tiny))  # the derivative would overflow
    return jnp.where(is_nothing, 0, wrong / jnp.where(is_nothing, 1, total))


def _foreground(losses: Array) -> Array:
    """The losses without that of class 0, unless it is the only one."""
    return losses[..., 1:] if losses.shape[-1] > 1 else losses


def _images(loss: str, predictions: Any, targets: Any) -> tuple[Array, Array, np.dtype[Any]]:
    """Predictions and targets of one shape, classes last, in the dtype of the computation; the result's dtype."""
    arguments.floating(loss, predictions=predictions)
    lacking = np.ndim(targets) - np.ndim(predictions)
    if lacking == 1:
        predictions = jnp.asarray(predictions)[..., None]
    elif lacking == -1:
        targets = jnp.asarray(targets)[..., None]
    if not np.ndim(predictions) or np.shape(predictions) != np.shape(targets):
        raise ValueError(
            f"{loss}: targets: expected the shape {np.shape(predictions)} of predictions, with the classes last, "
            f"got {describe(targets)}; for class numbers, give jax.nn.one_hot(targets, classes)"
        )
    (x, t), dtype = arguments.elements(loss, predictions=predictions, targets=targets)
    return x, t, dtype


def _probabilities(loss: str, predictions: Any, x: Array, are_logits: bool) -> tuple[Array, Array]:
    """p and 1 − p of logits: of a single class by the sigmoid, of several by the softmax; or x itself and 1 − x."""
    if not are_logits:
        _refuse_other_than_probabilities(loss, predictions, x.shape)
        return x, 1 - x
    if x.shape[-1] == 1:
        return jax.nn.sigmoid(x), jax.nn.sigmoid(-x)
    log_p = log_softmax(x, -1)
    return jnp.exp(log_p), -jnp.expm1(log_p)


def _refuse_other_than_probabilities(loss: str, predictions: Any, shape: tuple[int, ...]) -> None:
    """Look at values, which is possible only outside of traced functions."""
    if isinstance(predictions, jax.core.Tracer) or not getattr(predictions, "is_fully_addressable", True):
        return
    p = np.asarray(predictions, np.float64).reshape(shape)
    tolerance = 1e-5 + float(jnp.finfo(jnp.result_type(predictions)).eps)
    total = p.sum(-1) if shape[-1] > 1 else np.ones(shape[:-1])
    if np.all((p >= -tolerance) & (p <= 1 + tolerance)) and np.all(np.abs(total - 1) <= tolerance):
        return
    raise ValueError(
        f"{loss}: predictions: expected valid probability distributions over the last axis, got numbers in "
        f"[{p.min():.6g}, {p.max():.6g}] with sums in [{total.min():.6g}, {total.max():.6g}]; "
        "for logits, leave the softmax or sigmoid to the loss"
    )


def _class_weights(weights: Any, losses: Array) -> Array:
    """One weight for each class, in the shape of the losses."""
    if np.shape(weights) != losses.shape[-1:]:
        raise ValueError(
            f"dice_loss: class_weights: expected the shape {losses.shape[-1:]}, one number for each class, "
            f"got {describe(weights)}"
        )
    return arguments.parameter("dice_loss", "class_weights", weights, NonNegative, losses)


def _reduced(losses: Array, reduction: str) -> Array:
    """The losses of the classes, which are the last axis, as one."""
    if reduction == "none":
        return losses
    if reduction == "mean":
        return jnp.mean(losses, -1)
    if reduction == "sum":
        return jnp.sum(losses, -1)
    raise ValueError(f"dice_loss: reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
