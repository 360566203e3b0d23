"""Losses between the scores of the items of a list and how relevant the items are."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.hyperparams import Number
from gradtx.losses import arguments
from gradtx.losses.stable import log_softmax, times

__all__ = ["ranking_softmax_loss"]


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., Any] | None = jnp.mean,
) -> Array:
    """The cross entropy between the relevance of the items of a list and the softmax of their scores.

        −Σᵢ wᵢ yᵢ log pᵢ,  with pᵢ = exp xᵢ / Σⱼ exp xⱼ

    The items of a list extend over the last axis of `logits` (x). `labels` (y, the relevance of each item, at least 0)
    have the same shape; `weights` (w) are a number, or an array that is broadcast to it. `where` says which items
    count: a mask of the same rank, whose axes may be 1. `reduce_fn` makes one number of the losses of the lists; lists
    without any item that counts are left out, and the mean over no list is 0. With `reduce_fn=None`, the losses of all
    lists are returned, and that of a list without items is 0.

    Cao et al., 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach".
    https://doi.org/10.1145/1273496.1273513

    Raises:
        TypeError: the logits are not a floating-point array, the labels not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit.

    >>> scores, labels = jnp.array([[2.0, 1.0, 0.0], [1.0, 0.5, 1.5]]), jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> print(f"{ranking_softmax_loss(scores, labels, where=jnp.array([[True, True, False], [True, True, True]])):.3f}")
    0.497
    """
    loss = "ranking_softmax_loss"
    arguments.floating(loss, logits=logits)
    (x, y), axes, dtype = arguments.vectors(loss, -1, logits=logits, labels=labels)
    if weights is not None:
        y = y * arguments.parameter(loss, "weights", weights, Number, y)
    included = arguments.mask(loss, where, x.shape)
    if included is not None:
        x, y = jnp.where(included, x, -jnp.inf), jnp.where(included, y, 0)
    losses = jnp.sum(times(y, -log_softmax(x, axes)), axes)
    lists = None if included is None else jnp.any(included, axes)
    return jnp.asarray(_reduced(losses, lists, reduce_fn)).astype(dtype)


def _reduced(losses: Array, lists: Array | None, reduce_fn: Callable[..., Any] | None) -> Any:
    """The losses of the lists that count as one number. The losses of the others are 0."""
    if reduce_fn is None:
        return losses
    if lists is None:
        return reduce_fn(losses)
    if reduce_fn is jnp.mean:
        return jnp.sum(losses) / jnp.maximum(jnp.sum(lists), 1).astype(losses.dtype)
    return reduce_fn(losses, where=lists)
