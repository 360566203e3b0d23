"""Adadelta: steps in the units of the parameters, from the ratio of two running means."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleByAdaDeltaState", "adadelta", "scale_by_adadelta"]


class ScaleByAdaDeltaState(NamedTuple):
    """The two means of Adadelta."""

    e_g: Tree
    "Like the parameters, real: running mean of the squared gradient."
    e_x: Tree
    "Like the parameters, real: running mean of the squared update."


class scale_by_adadelta(Leafwise):
    """Scale by the root mean square of past updates over that of the gradients.

        v ← ρ v + (1 − ρ) |g|²
        u = √(w + ε) / √(v + ε) · g
        w ← ρ w + (1 − ρ) |u|²

    The first updates are of order √ε. Zeiler, 2012, Algorithm 1. https://arxiv.org/abs/1212.5701
    """

    State = ScaleByAdaDeltaState

    rho: Decay = 0.9
    "Decay rate ρ of both means; 0.9 to 0.95 are usual."
    eps: NonNegative = 1e-6
    "ε, by which the updates begin: the larger it is, the larger are the first updates; 1e-6 is usual."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return jnp.real(zeros(param)), jnp.real(zeros(param))

    def leaf(self, g: Array, e_g: Array, e_x: Array) -> tuple[Array, Array, Array]:
        e_g = ema(e_g, abs_sq(g), self.rho)
        u = quotient(sqrt(e_x + self.eps), sqrt(e_g + self.eps), self.eps) * g
        e_x = ema(e_x, abs_sq(u), self.rho)
        return self._from_new_means(g, e_g, e_x), e_g, e_x

    def _from_new_means(self, g: Array, e_g: Array, e_x: Array) -> Array:
        """u = √(w + ρ ε) / √(ρ v + (1 − ρ) |g|² + ρ ε) · g: the same, but the old w need not be kept for it."""
        kept = self.rho * self.eps
        square = self.rho * e_g + (1 - self.rho) * abs_sq(g)
        return quotient(sqrt(e_x + kept), sqrt(square + kept), kept) * g


class adadelta(Optimizer):
    """Adadelta: an L2 penalty, `scale_by_adadelta`, then a step of `learning_rate` times the update."""

    learning_rate: Rate | None = None
    "Factor of the step, by default the paper's 1. Keras has 1e-3, with which the parameters hardly move."
    rho: Decay = scale_by_adadelta.rho
    eps: NonNegative = scale_by_adadelta.eps
    weight_decay: NonNegative = 0.0
    "Strength λ of an L2 penalty, whose gradient λ θ is added before the scaling; usually 0."
    weight_decay_mask: Mask = None
    "The leaves to decay, all by default."

    def expand(self) -> chain:
        return chain(
            add_decayed_weights.of(self, mask=self.weight_decay_mask),
            scale_by_adadelta.of(self),
            scale_by_learning_rate(1.0 if self.learning_rate is None else self.learning_rate),
        )
