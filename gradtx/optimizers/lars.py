"""LARS: momentum with a trust ratio per layer, for large batches."""

import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, norms
from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Flag, Fraction, NonNegative, Positive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_trust_ratio
from gradtx.wrappers.masked import masked

__all__ = ["lars", "scale_by_lars"]


class scale_by_lars(Leafwise):
    """Decayed weights added, then each leaf scaled to the size of the leaf, with the norms taken apart as in the paper.

        u = c ‖θ‖ / (‖g‖ + λ ‖θ‖ + ε) · (g + λ θ),   the ratio being 1 where ‖θ‖ or ‖g‖ is 0

    You, Gitman & Ginsburg, 2017, Equation 6. https://arxiv.org/abs/1708.03888. Needs the parameters. The paper's
    optimizer is `chain(scale_by_lars(λ), scale_by_learning_rate(η), trace(0.9))`.
    """

    elementwise = False

    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay; 5e-4 is the paper's."
    trust_coefficient: Positive = 0.001
    "Ratio c of the size of a step to the size of the leaf, for a learning rate of 1; 0.001 is usual."
    eps: NonNegative = 0.0
    "Added to the norms in the denominator; usually 0."

    def leaf(self, g: Array, *, param: Array) -> Array:
        size, slope = norms.plain_norm(param), norms.plain_norm(g)
        zero = (size == 0) | (slope == 0)
        ratio = self.trust_coefficient * size / jnp.where(zero, 1, slope + self.weight_decay * size + self.eps)
        return dtypes.scaled(jnp.where(zero, 1, ratio), g + self.weight_decay * param)


class lars(Optimizer):
    """Gradient descent in which the step of each leaf is scaled to the size of the leaf; momentum follows.

        u = g + λ θ
        m ← μ m + η c ‖θ‖ / (‖u‖ + ε) u,   the ratio being 1 where either norm is 0
        θ ← θ − m

    You, Gitman & Ginsburg, 2017, Algorithm 1. https://arxiv.org/abs/1708.03888. The numbers are those of optax. The
    paper has ‖g‖ + λ ‖θ‖ in the place of ‖u‖, which `scale_by_lars` computes.
    """

    learning_rate: Rate
    "Step size; 1 to 10 are usual, after a warm-up."
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, inside the trust ratio; 1e-4 is usual."
    weight_decay_mask: Mask = True
    "The leaves to decay; usually not biases and norms."
    trust_coefficient: Positive = scale_by_lars.trust_coefficient
    eps: NonNegative = scale_by_trust_ratio.eps
    "ε, added to the norm of the update; usually 0."
    trust_ratio_mask: Mask = True
    "The leaves to scale; usually not biases and norms."
    momentum: Fraction = 0.9
    "Momentum μ of the steps; 0.9 is usual."
    nesterov: Flag = trace.nesterov

    def expand(self) -> chain:
        trust = scale_by_trust_ratio.of(self)
        return chain(
            add_decayed_weights.of(self, mask=self.weight_decay_mask),
            masked(trust, self.trust_ratio_mask),
            scale_by_learning_rate.of(self),
            trace.of(self, decay=self.momentum),
        )
