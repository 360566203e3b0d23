"""Divergences between distributions, of which the predicted one is given by its logarithm."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses import arguments
from gradtx.losses.arguments import Axes
from gradtx.losses.stable import times, times_log

__all__ = ["convex_kl_divergence", "generalized_kl_divergence", "kl_divergence", "kl_divergence_with_log_targets"]


def kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The Kullback–Leibler divergence of a predicted distribution from a target.

        Σᵢ tᵢ (log tᵢ − log pᵢ)

    The distributions extend over `axis`; the result has the remaining axes. `log_predictions` (log p) and `targets` (t)
    have one shape; axes beside `axis` may be of size 1, and one of the arrays may lack the leading axes, if it is the
    same for all. `where` says which elements count: a mask of the same rank, whose axes may be 1.

    Where a target is 0, its term is 0, also if log p is −∞, and the derivative of t log t is taken for 0.

    Kullback & Leibler, 1951, "On Information and Sufficiency". https://doi.org/10.1214/aoms/1177729694

    Raises:
        TypeError: the predictions are not a floating-point array, the targets not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> print(f"{kl_divergence(jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.array([0.5, 0.5, 0.0])):.4f}")
    0.3466
    """
    log_p, t, included, axes, dtype = _distributions("kl_divergence", log_predictions, targets, axis, where)
    terms = times_log(t) - times(t, log_p)
    return jnp.sum(terms, axes, where=included).astype(dtype)


def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The Kullback–Leibler divergence of a predicted distribution from a target that is given by its logarithm, too.

        Σᵢ tᵢ (log tᵢ − log pᵢ)

    The arguments are those of `kl_divergence`. Where log t is −∞, the term is 0, also if log p is −∞.

    Kullback & Leibler, 1951, "On Information and Sufficiency". https://doi.org/10.1214/aoms/1177729694

    Raises:
        TypeError: the arguments are not floating-point arrays, or `where` is not a mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> print(f"{kl_divergence_with_log_targets(jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([1.0, 0.0]))):.4f}")
    0.6931
    """
    loss = "kl_divergence_with_log_targets"
    arguments.floating(loss, log_predictions=log_predictions, log_targets=log_targets)
    given = {"log_predictions": log_predictions, "log_targets": log_targets}
    (log_p, log_t), axes, dtype = arguments.vectors(loss, axis, **given)
    included = arguments.mask(loss, where, log_p.shape)
    is_zero = log_t == -jnp.inf
    if included is not None:
        is_zero |= ~included
    terms = times(jnp.exp(jnp.where(is_zero, -jnp.inf, log_t)), jnp.where(is_zero, 0, log_t - log_p))
    return jnp.sum(terms, axes).astype(dtype)


def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The Kullback–Leibler divergence for distributions whose sum need not be 1: the Bregman divergence of x log x − x.

        Σᵢ tᵢ (log tᵢ − log pᵢ) + pᵢ − tᵢ

    The arguments are those of `kl_divergence`.

    Bregman, 1967, "The relaxation method of finding the common point of convex sets".
    https://doi.org/10.1016/0041-5553(67)90040-7

    Raises:
        TypeError: the predictions are not a floating-point array, the targets not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> print(f"{generalized_kl_divergence(jnp.log(jnp.array([2.0, 1.0])), jnp.array([1.0, 1.0])):.4f}")
    0.3069
    """
    log_p, t, included, axes, dtype = _distributions("generalized_kl_divergence", log_predictions, targets, axis, where)
    terms = times_log(t) - times(t, log_p) + (jnp.exp(log_p) - t)
    return jnp.sum(terms, axes, where=included).astype(dtype)


def convex_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The older name of `generalized_kl_divergence`; a call of it gives a DeprecationWarning.

        Σᵢ tᵢ (log tᵢ − log pᵢ) + pᵢ − tᵢ

    The arguments are those of `kl_divergence`.

    Raises:
        TypeError: the predictions are not a floating-point array, the targets not real, or `where` is no mask of bools.
        ValueError: the shapes do not fit, or there is no such axis.

    >>> with warnings.catch_warnings(action="ignore"):
    ...     print(f"{convex_kl_divergence(jnp.log(jnp.array([2.0, 1.0])), jnp.array([1.0, 1.0])):.4f}")
    0.3069
    """
    warnings.warn("convex_kl_divergence is deprecated: use generalized_kl_divergence", DeprecationWarning, stacklevel=2)
    return generalized_kl_divergence(log_predictions, targets, axis, where)


def _distributions(
    loss: str, log_predictions: Any, targets: Any, axis: Axes, where: Any
) -> tuple[Array, Array, Array | None, tuple[int, ...], np.dtype[Any]]:
    """log p and t, with 1 for both where they do not count; the mask, the axes, and the dtype of the result."""
    arguments.floating(loss, log_predictions=log_predictions)
    (log_p, t), axes, dtype = arguments.vectors(loss, axis, log_predictions=log_predictions, targets=targets)
    included = arguments.mask(loss, where, log_p.shape)
    if included is not None:
        log_p, t = jnp.where(included, log_p, 0), jnp.where(included, t, 1)
    return log_p, t, included, axes, dtype
