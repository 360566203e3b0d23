"""Losses made of a function such as log Σ exp, whose gradient is the prediction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.check import describe
from gradtx.losses import arguments
from gradtx.losses.stable import times

__all__ = ["make_fenchel_young_loss"]


def make_fenchel_young_loss(max_fun: Callable[..., Any]) -> Callable[..., Array]:
    """A loss made of a convex function of a vector of scores.

        Ω*(s) − ⟨t, s⟩

    `max_fun` (Ω*) maps a vector to a scalar, such as log Σ exp. The loss is a function of `scores` (s) and `targets`
    (t), of one shape, and has their axes but the last; either may lack the leading axes. Further arguments are passed
    to `max_fun`. The gradient is ∇Ω*(s) − t. The Fenchel–Young loss of the paper has the term Ω(t) besides, which
    does not depend on the scores, and is 0 for one-hot targets if Ω is an entropy.

    Blondel, Martins & Niculae, 2020. https://arxiv.org/abs/1901.02324

    Raises:
        TypeError: `max_fun` is not a function; the scores are not a floating-point array, or the targets not real.
        ValueError: the shapes do not fit, or `max_fun` does not return a scalar.

    >>> loss = make_fenchel_young_loss(jax.nn.logsumexp)
    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(loss(jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])))
    [0.3133 0.6931]
    """
    name = "make_fenchel_young_loss"
    if not callable(max_fun):
        raise TypeError(f"{name}: max_fun: expected a function of a vector of scores, got {describe(max_fun)}")

    def fenchel_young_loss(scores: ArrayLike, targets: ArrayLike, *args: Any, **kwargs: Any) -> Array:
        """Ω*(s) − ⟨t, s⟩ over the last axis."""
        arguments.floating("fenchel_young_loss", scores=scores)
        (s, t), _, dtype = arguments.vectors("fenchel_young_loss", -1, scores=scores, targets=targets)
        rows = s.reshape(-1, s.shape[-1]) if s.size else s.reshape(int(np.prod(s.shape[:-1])), s.shape[-1])
        values = jax.vmap(lambda row: max_fun(row, *args, **kwargs))(rows)
        if np.shape(values) != rows.shape[:1]:
            raise ValueError(f"{name}: max_fun: expected a scalar for each vector, got the shape {values.shape[1:]}")
        return (values.reshape(s.shape[:-1]) - jnp.sum(times(t, s), -1)).astype(dtype)

    return fenchel_young_loss
