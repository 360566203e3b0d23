"""Losses for two classes, element by element: logistic, focal, hinge, perceptron and sparsemax."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.core.hyperparams import Fraction, NonNegative
from gradtx.losses import arguments
from gradtx.losses.stable import times

__all__ = ["hinge_loss", "perceptron_loss", "sigmoid_binary_cross_entropy", "sigmoid_focal_loss", "sparsemax_loss"]

_SIGNS = "the classes are −1 and 1: give 2 * targets.astype(jnp.int32) - 1"


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """The cross entropy of independent decisions between two classes.

        −y log σ(x) − (1 − y) log(1 − σ(x)),  with σ(x) = 1 / (1 + exp(−x))

    `logits` (x) and `labels` (y, the probability of class 1: 0, 1 or between) have one shape, which the result has as
    well; either may be a scalar. Labels may be integers or bools. Tiny losses keep their relative precision, too, and
    where the logit is infinite on the side of the label, the loss is 0.

    Raises:
        TypeError: the logits are not floating-point numbers, or the labels not real.
        ValueError: the shapes differ.

    >>> with jnp.printoptions(precision=3, suppress=True):
    ...     print(sigmoid_binary_cross_entropy(jnp.array([0.0, 100.0, -100.0]), jnp.array([1, 1, 1])))
    [  0.693   0.    100.   ]
    """
    arguments.floating("sigmoid_binary_cross_entropy", logits=logits)
    (x, y), dtype = arguments.elements("sigmoid_binary_cross_entropy", logits=logits, labels=labels)
    return _cross_entropy(x, y).astype(dtype)


def _cross_entropy(x: Array, y: Array) -> Array:
    return times(y, jax.nn.softplus(-x)) + times(1 - y, jax.nn.softplus(x))


def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike | None = None, gamma: ArrayLike = 2.0
) -> Array:
    """Binary cross entropy in which decisions that are already right count less.

        αₜ (1 − pₜ)^γ H,  with pₜ = y p + (1 − y) (1 − p),  p = σ(x),  αₜ = α y + (1 − α) (1 − y)

    H is `sigmoid_binary_cross_entropy`; without `alpha`, αₜ is 1. `logits` (x) and `labels` (y) have one shape, which
    the result has, too; either may be a scalar. Labels are 0, 1 or between; elsewhere the loss is NaN. `alpha` (0.25 is
    usual) and `gamma` (2 is usual) are numbers, or arrays that are broadcast to that shape. The power is taken in
    logarithms, so that for no finite logit the gradient is NaN.

    Lin et al., 2017. https://arxiv.org/abs/1708.02002

    Raises:
        TypeError: the logits are not floating-point numbers, or the labels not real.
        ValueError: the shapes differ, `alpha` is outside [0, 1] or `gamma` negative.

    >>> with jnp.printoptions(precision=4, suppress=True):
    ...     print(sigmoid_focal_loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0])))
    [0.1733 0.0018]
    """
    loss = "sigmoid_focal_loss"
    arguments.floating(loss, logits=logits)
    (x, y), dtype = arguments.elements(loss, logits=logits, labels=labels)
    y = jnp.where((y >= 0) & (y <= 1), y, jnp.nan)
    power = arguments.parameter(loss, "gamma", gamma, NonNegative, x)
    result = jnp.exp(times(power, _log_of_miss(x, y))) * _cross_entropy(x, y)
    if alpha is not None:
        share = arguments.parameter(loss, "alpha", alpha, Fraction, x)
        result = (share * y + (1 - share) * (1 - y)) * result
    return result.astype(dtype)


def _log_of_miss(x: Array, y: Array) -> Array:
    """log(1 − pₜ) = log((1 − y) σ(x) + y σ(−x)), also where the sum underflows."""
    log_p = jnp.where(y < 1, -jax.nn.softplus(-x), -jnp.inf)
    log_q = jnp.where(y > 0, -jax.nn.softplus(x), -jnp.inf)
    larger = jax.lax.stop_gradient(jnp.maximum(log_p, log_q))
    larger = jnp.where(jnp.isinf(larger), 0, larger)
    log_miss = larger + jnp.log((1 - y) * jnp.exp(log_p - larger) + y * jnp.exp(log_q - larger))
    return jnp.where(log_miss == 0, 0, log_miss)  # its derivative vanishes there, and may meet an infinite factor


def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """How far a score is from the right side of a margin.

        max(0, 1 − x t)

    `predictor_outputs` (x) and `targets` (t, −1 or 1) have one shape, which the result has, too; either may be
    a scalar.

    Cortes & Vapnik, 1995, "Support-vector networks". https://doi.org/10.1007/BF00994018

    Raises:
        TypeError: the scores are not floating-point numbers, or the targets bools or not real.
        ValueError: the shapes differ.

    >>> hinge_loss(jnp.array([0.5, 2.0, -1.0]), jnp.array([1, 1, 1]))
    Array([0.5, 0. , 2. ], dtype=float32)
    """
    arguments.floating("hinge_loss", predictor_outputs=predictor_outputs)
    arguments.not_boolean("hinge_loss", _SIGNS, targets=targets)
    (x, t), dtype = arguments.elements("hinge_loss", predictor_outputs=predictor_outputs, targets=targets)
    return jnp.maximum(0, 1 - x * t).astype(dtype)


def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """How far a score is from the right sign.

        max(0, −x t)

    `predictor_outputs` (x) and `targets` (t, −1 or 1) have one shape, which the result has, too; either may be
    a scalar.

    Rosenblatt, 1958, "The perceptron". https://doi.org/10.1037/h0042519

    Raises:
        TypeError: the scores are not floating-point numbers, or the targets bools or not real.
        ValueError: the shapes differ.

    >>> perceptron_loss(jnp.array([0.5, -1.0]), jnp.array([1, 1]))
    Array([0., 1.], dtype=float32)
    """
    arguments.floating("perceptron_loss", predictor_outputs=predictor_outputs)
    arguments.not_boolean("perceptron_loss", _SIGNS, targets=targets)
    (x, t), dtype = arguments.elements("perceptron_loss", predictor_outputs=predictor_outputs, targets=targets)
    return jnp.maximum(0, -x * t).astype(dtype)


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> Array:
    """The binary sparsemax loss, which is 0 if and only if the score is beyond 1 on the side of the label.

        0             if s ≤ −1,  with s = −x for class 1 and s = x for class 0
        ¼ (s + 1)²    between
        s             if s ≥ 1

    `logits` (x) and `labels` (0 or 1, as numbers or bools) have one shape, which the result has, too; either may be a
    scalar. With any other label the loss is NaN.

    Blondel, Martins & Niculae, 2020, section 4.4. https://arxiv.org/abs/1901.02324

    Raises:
        TypeError: the logits are not floating-point numbers, or the labels not real.
        ValueError: the shapes differ.

    >>> sparsemax_loss(jnp.array([2.0, 0.0, -3.0]), jnp.array([1, 1, 1]))
    Array([0.  , 0.25, 3.  ], dtype=float32)
    """
    arguments.floating("sparsemax_loss", logits=logits)
    (x, y), dtype = arguments.elements("sparsemax_loss", logits=logits, labels=labels)
    wrong = jnp.where(y == 1, -x, x)
    loss = jnp.where(wrong >= 1, wrong, 0.25 * (jnp.clip(wrong, -1, 1) + 1) ** 2)
    return jnp.where((y == 0) | (y == 1), loss, jnp.nan).astype(dtype)
