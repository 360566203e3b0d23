"""AdaBelief: large steps where the gradient is as expected, small ones where it surprises."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, Flag, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, unbiased, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.optimizers.adam import corrected_mean, scale_by_adam
from gradtx.optimizers.radam import rectified, scale_by_radam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleByBeliefState", "adabelief", "scale_by_belief"]


class ScaleByBeliefState(NamedTuple):
    """The two moments of AdaBelief."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of the squared distance between the gradient and `mu`."


class scale_by_belief(Leafwise):
    """Divide a running mean of the gradient by a running root mean square of its distance from the gradient.

        m ← β₁ m + (1 − β₁) g                   m̂ = m / (1 − β₁ᵗ)
        s ← β₂ s + (1 − β₂) |g − m|² + ε₀       ŝ = s / (1 − β₂ᵗ)
        u = m̂ / (√ŝ + ε)

    Where the gradient is constant, only ε bounds the updates. Zhuang et al., 2020, Algorithm 2,
    https://arxiv.org/abs/2010.07468. The numbers are those of the authors' code, in which `rectify` is on by default.
    """

    State = ScaleByBeliefState

    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = 1e-16
    "ε, added to the denominator; 1e-16 suits transformers and GANs, 1e-8 suits convolutional networks."
    eps_root: NonNegative = 1e-16
    "ε₀, added to s at every update; 1e-16 is usual."
    nesterov: Flag = scale_by_adam.nesterov
    rectify: Flag = False
    "Whether to rectify the update as RAdam does, so that no warm-up is needed."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = self.b2 * nu + ((1 - self.b2) * abs_sq(g - mu) + self.eps_root)
        mean = corrected_mean(mu, g, self.b1, t, self.nesterov)
        root = sqrt(unbiased(nu, self.b2, t)) + self.eps
        if self.rectify:
            return rectified(mean, root, self.eps, self.b2, t, scale_by_radam.threshold), mu, nu
        return quotient(mean, root, self.eps), mu, nu


class adabelief(Optimizer):
    """AdaBelief: `scale_by_belief`, decoupled weight decay, then a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    where u is the update of `scale_by_belief`.
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_belief.b1
    b2: Decay = scale_by_belief.b2
    eps: NonNegative = scale_by_belief.eps
    eps_root: NonNegative = scale_by_belief.eps_root
    nesterov: Flag = scale_by_belief.nesterov
    rectify: Flag = scale_by_belief.rectify
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-2 is usual in the authors' code."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_belief.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
