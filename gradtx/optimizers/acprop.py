"""ACProp: each gradient divided by the spread of those before it around their running mean."""

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, unbiased, zeros
from gradtx.masks.masks import Mask
from gradtx.optimizers.adabelief import ScaleByBeliefState, scale_by_belief
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["acprop", "scale_by_acprop"]


class scale_by_acprop(Leafwise):
    """Divide the gradient by the root mean square of what earlier gradients were off their running mean.

        u = g / (√(s / (1 − β₂ᵗ⁻¹)) + ε),   u = g while s = 0, as at t = 1
        m ← β₁ m + (1 − β₁) g
        s ← β₂ s + (1 − β₂) |g − m|² + ε₀

    The spread s is centred, as in AdaBelief, and used one step late, which makes the numerator independent of the
    denominator; there is no momentum. The first update is the gradient itself, in its own units: later ones are of
    order one, so that a large first gradient makes a large first step. Where gradients do not vary, only ε bounds the
    updates.

    Zhuang et al., 2021, Algorithm 2, https://arxiv.org/abs/2110.05454, and the authors' code. Optax measures the
    gradient from the mean before it, g − mₜ₋₁, against its documentation: its updates are β₁ times these.
    """

    State = ScaleByBeliefState

    b1: Decay = scale_by_belief.b1
    b2: Decay = scale_by_belief.b2
    eps: NonNegative = 1e-16
    "ε, added to the denominator; 1e-16 is the authors' default, 1e-8 what they train with."
    eps_root: NonNegative = 1e-16
    "ε₀, added to s at every update; usually equal to ε."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        root = sqrt(unbiased(nu, self.b2, jnp.maximum(t - 1, 1)))
        update = jnp.where(nu > 0, quotient(g, root + self.eps, self.eps), g)
        mu = ema(mu, g, self.b1)
        nu = self.b2 * nu + ((1 - self.b2) * abs_sq(g - mu) + self.eps_root)
        return update, mu, nu


class acprop(Optimizer):
    """ACProp: `scale_by_acprop`, decoupled weight decay, and a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    >>> import gradtx
    >>> gradtx.acprop(1e-3, eps=1e-8, eps_root=1e-8).expanded
    chain(
        scale_by_acprop(eps=1e-08, eps_root=1e-08),
        add_decayed_weights(),
        scale_by_learning_rate(0.001),
    )
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_acprop.b1
    b2: Decay = scale_by_acprop.b2
    eps: NonNegative = scale_by_acprop.eps
    eps_root: NonNegative = scale_by_acprop.eps_root
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-4 to 1e-2 are usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_acprop.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
