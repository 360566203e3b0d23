"""Averaged stochastic gradient descent."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.tree import Tree

__all__ = ["ScaleByAsgdState", "asgd", "scale_by_asgd"]


class ScaleByAsgdState(NamedTuple):
    """The average of ASGD."""

    count: Array
    "int32[]: updates made so far."
    ax: Tree
    "Like the parameters: their average since step t₀, for evaluation; before t₀, the parameters themselves."


class scale_by_asgd(Leafwise):
    """Steps of decreasing size, with an average of the parameters from step t₀ on.

        ηₜ = η / (1 + λ η (t − 1))ᵅ
        θ ← θ − ηₜ (g + λ θ)
        a ← a + (θ − a) / max(1, t − 1 − t₀)

    The updates are whole steps, which must not be scaled again. The average is `ax` in the state. It needs the
    parameters. Rule and names are those of torch.optim.ASGD.

    Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046; Bottou, 2010.
    """

    State = ScaleByAsgdState
    reported = {"count": "steps"}

    learning_rate: Rate = 1e-2
    "Step size η of the first step; 1e-2 is usual."
    lambd: NonNegative = 1e-4
    "λ, both the pace at which the steps shrink and the weight decay; 1e-4 is usual."
    alpha: NonNegative = 0.75
    "Exponent α by which the steps shrink; 0.75 is usual."
    t0: NonNegative = 1e6
    "Step t₀ at which averaging begins; torch's 1e6 is late for most runs."

    def leaf(self, g: Array, ax: Array, *, t: Array, param: Array) -> tuple[Array, Array]:
        rate = self.learning_rate * (1 + self.lambd * self.learning_rate * (t - 1)) ** -self.alpha
        update = -rate * (g + self.lambd * param)
        share = 1 / jnp.maximum(1, t - 1 - self.t0)
        # XLA:CPU copies parameters of half precision for this: what it reads is not yet rounded.
        return update, ax + share * (param + update - ax)


class asgd(Optimizer):
    """ASGD as in torch: `scale_by_asgd`, whose updates are whole steps."""

    learning_rate: Rate = scale_by_asgd.learning_rate
    lambd: NonNegative = scale_by_asgd.lambd
    alpha: NonNegative = scale_by_asgd.alpha
    t0: NonNegative = scale_by_asgd.t0

    def expand(self) -> chain:
        return chain(scale_by_asgd.of(self))
