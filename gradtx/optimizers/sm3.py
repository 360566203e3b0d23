"""SM3: Adagrad that needs memory for one number per row and one per column."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, Fraction, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, again, ema, sqrt, zeros, zeros_over
from gradtx.core.tree import Tree
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleBySM3State", "scale_by_sm3", "sm3"]


class ScaleBySM3State(NamedTuple):
    """The accumulators and the momentum of SM3."""

    mu: Tree
    "For each leaf a tuple with a vector for each axis (or one scalar for a scalar): bounds of the sum of squares."
    nu: Tree
    "Like the parameters: running mean of the scaled gradients."


class scale_by_sm3(Leafwise):
    """Divide by the root of an upper bound of Adagrad's sum of squares, then average.

        ν = minᵢ μᵢ + |g|²,   the minimum over the axes, μᵢ broadcast along all others
        μᵢ ← max of ν over all axes but the i-th
        m ← β₁ m + (1 − β₁) g / √(ν + ε),   0 where ν is 0
        u = m

    Here μᵢ has one number for each index of axis i. With β₂ < 1 the sum is a running mean,
    ν = β₂ minᵢ μᵢ + (1 − β₂) |g|². Anil et al., 2019, Algorithm SM3-II. https://arxiv.org/abs/1901.11150
    """

    State = ScaleBySM3State
    elementwise = False

    b1: Decay = 0.9
    "Decay rate β₁ of the momentum; 0.9 is usual."
    b2: Fraction = 1.0
    "Decay rate β₂ of the accumulators; 1 is usual, with which they are sums."
    eps: NonNegative = 1e-8
    "ε, added inside the root; 1e-8 is usual."

    def init_leaf(self, param: Array) -> tuple[tuple[Array, ...], Array]:
        axes = tuple(zeros_over(param, *_other_axes(axis, param.ndim)) for axis in range(param.ndim))
        return axes or (jnp.real(zeros(param)),), zeros(param)

    def leaf(self, g: Array, mu: tuple[Array, ...], nu: Array) -> tuple[Array, tuple[Array, ...], Array]:
        maxima = self._maxima(g, mu)
        total = self._total(g, mu) if g.ndim > 1 else maxima[0]
        scaled = jnp.where(total > 0, g / sqrt(jnp.where(total > 0, total + self.eps, 1)), 0)
        nu = ema(nu, scaled, self.b1)
        return nu, maxima, nu

    def _total(self, g: Array, mu: tuple[Array, ...]) -> Array:
        """ν = minᵢ μᵢ + |g|²"""
        bound = functools.reduce(jnp.minimum, [_laid_along(axis, x, g.ndim) for axis, x in enumerate(mu)])
        share = jnp.where(jnp.asarray(self.b2) < 1, 1 - self.b2, 1).astype(bound.dtype)
        return self.b2 * bound + share * abs_sq(g)

    def _maxima(self, g: Array, mu: tuple[Array, ...]) -> tuple[Array, ...]:
        """The new μᵢ, for each of which ν is computed again rather than kept. For a vector it is ν itself."""
        if g.ndim < 2:
            return (self._total(g, mu),)
        maxima: list[Array] = []
        for axis in range(g.ndim):
            g, mu = again((g, mu))
            maxima.append(jnp.max(self._total(g, mu), _other_axes(axis, g.ndim), initial=0))
        return tuple(maxima)


def _laid_along(axis: int, x: Array, ndim: int) -> Array:
    """A vector as an array of `ndim` axes that broadcasts along all axes but one."""
    return jnp.expand_dims(x, _other_axes(axis, ndim))


def _other_axes(axis: int, ndim: int) -> tuple[int, ...]:
    """All axes but one."""
    return tuple(other for other in range(ndim) if other != axis)


class sm3(Optimizer):
    """SM3: `scale_by_sm3`, then a step of size `learning_rate`."""

    learning_rate: Rate
    "Step size; 0.1 is usual, after a warm-up."
    momentum: Decay = scale_by_sm3.b1

    def expand(self) -> chain:
        return chain(scale_by_sm3(self.momentum), scale_by_learning_rate.of(self))
