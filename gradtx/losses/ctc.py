"""Connectionist temporal classification: sequences of labels for longer sequences of frames, not aligned."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core import dtypes
from gradtx.core.check import describe
from gradtx.core.hyperparams import NonPositive
from gradtx.losses import arguments
from gradtx.losses.stable import log_softmax, logaddexp

__all__ = ["ctc_loss", "ctc_loss_with_forward_probs"]


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> Array:
    """The negative logarithm of the probability that the frames spell the labels.

        −log Σ Πₜ pₜ(πₜ)  over all paths π that are the labels once repetitions are merged and blanks removed

    p is the softmax of `logits`, float[B, T, K], over the last axis. `labels` are integers [B, N]; the result is
    float[B]. `logit_paddings` [B, T] and `label_paddings` [B, N] are 1 or true where a frame or a label is padding,
    else 0. Labels are padded at the end. `blank_id` is the class that stands for no label.

    Where no path exists, because there are fewer frames than labels and blanks between equal ones, the loss is
    −`log_epsilon`, with the gradient 0. It is NaN for a sequence with a label that is not a class or is the blank, and
    for one with a label after a padding.

    Graves et al., 2006. https://doi.org/10.1145/1143844.1143891

    Raises:
        TypeError: the logits are not a floating-point array, or the labels not integers.
        ValueError: the shapes do not fit, there is no frame, or `blank_id` is not a class.

    >>> logits = jnp.zeros((1, 2, 3))  # two frames: 1 1, 0 1 and 1 0 spell the label 1, of 9 equally likely paths
    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(jnp.exp(-ctc_loss(logits, jnp.zeros((1, 2)), jnp.array([[1]]), jnp.zeros((1, 1)))))
    [0.3333]
    """
    return _ctc("ctc_loss", logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)[0]


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> tuple[Array, Array, Array]:
    """`ctc_loss`, and the logarithms of the forward probabilities of which it is computed.

        log αₜ(n, blank):  the frames up to t spell n labels, and frame t is a blank;  float[T, B, N + 1]
        log αₜ(n, label):  the frames up to t spell n + 1 labels, and frame t is the last of them;  float[T, B, N]

    At the last frame, log α(n, blank) is that of both: the frames spell n labels. At a padded frame they are those of
    the frame before. `log_epsilon` stands for the logarithm of 0. The arguments, and what is raised, are those of
    `ctc_loss`.

    Graves et al., 2006. https://doi.org/10.1145/1143844.1143891

    Raises:
        TypeError: the logits are not a floating-point array, or the labels not integers.
        ValueError: the shapes do not fit, there is no frame, or `blank_id` is not a class.

    >>> zeros = jnp.zeros((1, 2))
    >>> loss, blank, label = ctc_loss_with_forward_probs(jnp.zeros((1, 2, 3)), zeros, jnp.array([[1, 2]]), zeros)
    >>> with jnp.printoptions(precision=4):
    ...     print(jnp.exp(blank[-1, 0]), jnp.exp(label[-1, 0]))
    [0.1111 0.3333 0.1111] [0.2222 0.1111]
    """
    given = logits, logit_paddings, labels, label_paddings
    return _ctc("ctc_loss_with_forward_probs", *given, blank_id, log_epsilon)


def _ctc(
    loss: str, logits: Any, logit_paddings: Any, labels: Any, label_paddings: Any, blank_id: int, log_epsilon: Any
) -> tuple[Array, Array, Array]:
    arguments.floating(loss, logits=logits)
    _check_shapes(loss, logits, logit_paddings, labels, label_paddings)
    (x,), dtype = arguments.elements(loss, logits=logits)
    blank, log_zero = _class_of_blank(loss, blank_id, x.shape[-1]), _log_zero(loss, log_epsilon, x)
    y, in_range = arguments.class_numbers(loss, labels, np.shape(labels), x.shape[-1])
    is_label = ~jnp.asarray(label_paddings).astype(bool)
    log_p = log_softmax(x, -1)
    log_p_of_labels = jnp.take_along_axis(log_p, y[:, None, :], 2, mode="clip")
    is_padding = jnp.asarray(logit_paddings).astype(bool)
    blanks, emitted = _forward(log_p[:, :, blank], log_p_of_labels, is_padding, _repeats(y))
    blanks = blanks.at[-1].set(_spelt(blanks[-1], emitted[-1]))

    blanks, emitted = (jnp.where(jnp.isneginf(part), log_zero, part) for part in (blanks, emitted))
    count = jnp.sum(is_label, 1, keepdims=True)
    losses = _not_negative(-jnp.take_along_axis(blanks[-1], count, 1, mode="clip")[:, 0])
    is_valid = jnp.all(~is_label | (in_range & (y != blank)), 1) & jnp.all(is_label[:, :-1] | ~is_label[:, 1:], 1)
    return jnp.where(is_valid, losses, jnp.nan).astype(dtype), blanks.astype(dtype), emitted.astype(dtype)


def _forward(log_p_of_blank: Array, log_p_of_labels: Array, is_padding: Array, repeats: Array) -> tuple[Array, Array]:
    """log αₜ(n, blank) and log αₜ(n, label) of all frames, which come first; −∞ where no path leads."""
    none = jnp.full_like(log_p_of_labels[:, 0], -jnp.inf)
    start = jnp.concatenate([jnp.zeros_like(log_p_of_blank[:, :1]), none], 1), none

    def frame(before: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        (blanks, emitted), (of_blank, of_labels, is_padding) = before, x
        spelt = _spelt(blanks, emitted)
        entered = jnp.where(repeats, blanks[:, :-1], spelt[:, :-1])  # between equal labels stands a blank
        now = spelt + of_blank[:, None], logaddexp(emitted, entered) + of_labels
        now = tuple(jnp.where(is_padding[:, None], old, new) for old, new in zip(before, now, strict=True))
        return now, now

    frames = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (log_p_of_blank, log_p_of_labels, is_padding))
    return jax.lax.scan(frame, tuple(dtypes.varying_like(part, log_p_of_labels) for part in start), frames)[1]


def _spelt(blanks: Array, emitted: Array) -> Array:
    """The logarithm of the probability that n labels are spelt, whether the frame is a blank or the last of them."""
    return jnp.concatenate([blanks[:, :1], logaddexp(blanks[:, 1:], emitted)], 1)


def _repeats(labels: Array) -> Array:
    """Whether a label is the same as the one before."""
    before = jnp.pad(labels, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return labels == before


def _not_negative(loss: Array) -> Array:
    """The loss, or 0 where it is negative by rounding; the derivative stays."""
    return loss + jnp.maximum(0, -jax.lax.stop_gradient(loss))


def _log_zero(loss: str, log_epsilon: Any, x: Array) -> Array:
    """What stands for the logarithm of 0 in the results."""
    if not (isinstance(log_epsilon, float) and log_epsilon == -math.inf):
        log_epsilon = arguments.scalar(loss, "log_epsilon", log_epsilon, NonPositive)
    return jnp.asarray(log_epsilon, x.dtype)


def _class_of_blank(loss: str, blank_id: Any, classes: int) -> int:
    try:
        blank = operator.index(blank_id)
    except TypeError:
        raise TypeError(f"{loss}: blank_id: expected an int, got {describe(blank_id)}") from None
    if not 0 <= blank < classes:
        raise ValueError(f"{loss}: blank_id: expected a class in [0, {classes}), got {blank}")
    return blank


def _check_shapes(loss: str, logits: Any, logit_paddings: Any, labels: Any, label_paddings: Any) -> None:
    if np.ndim(logits) != 3 or not np.shape(logits)[1]:
        raise ValueError(
            f"{loss}: logits: expected the shape (B, T, K) with at least one frame, got {describe(logits)}"
        )
    if np.ndim(labels) != 2 or np.shape(labels)[0] != np.shape(logits)[0]:
        raise ValueError(
            f"{loss}: labels: expected the shape ({np.shape(logits)[0]}, N), one row for each sequence, "
            f"got {describe(labels)}"
        )
    for name, x, shape in (
        ("logit_paddings", logit_paddings, np.shape(logits)[:2]),
        ("label_paddings", label_paddings, np.shape(labels)),
    ):
        if np.shape(x) != shape:
            raise ValueError(f"{loss}: {name}: expected the shape {shape}, 1 where padded, got {describe(x)}")
