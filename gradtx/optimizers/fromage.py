"""Fromage: the size of a step is a fixed share of the size of the leaf."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_trust_ratio

__all__ = ["ContractState", "contract", "fromage"]


class ContractState(NamedTuple):
    """The counter of `contract`, for a schedule of the learning rate."""

    count: Array
    "int32[]: updates made so far."


class contract(Leafwise):
    """Undo the growth that steps of relative size η, orthogonal to the parameters, would cause.

        u ← (θ + u) / √(1 + η²) − θ

    It needs the parameters, and stands after the learning rate.
    """

    State = ContractState

    learning_rate: Rate
    "Step size η, the same as the optimizer's."

    def leaf(self, g: Array, *, param: Array) -> Array:
        square = self.learning_rate * self.learning_rate
        root = jnp.sqrt(jnp.asarray(1 + square, jnp.real(g).dtype))
        excess = square / (1 + root)  # √(1 + η²) − 1, without cancellation
        # XLA:CPU keeps parameters of half precision in float32, for this and for the norm before it.
        return (g - excess.astype(g.dtype) * param) * (1 / root).astype(g.dtype)


class fromage(Optimizer):
    """Gradient descent in which each step is a fixed share of the leaf's size, and the parameters do not grow.

        θ ← (θ − η ‖θ‖ / ‖g‖ g) / √(1 + η²),   the ratio being 1 where either norm is 0

    Bernstein et al., 2020, Algorithm 1. https://arxiv.org/abs/2002.03432
    """

    learning_rate: Rate
    "Relative size η of a step; 1e-2 is usual for all networks."
    min_norm: NonNegative = 1e-6
    "Lower bound of both norms, so that parameters can leave zero; 1e-6 is usual."

    def expand(self) -> chain:
        return chain(
            scale_by_trust_ratio.of(self),
            scale_by_learning_rate.of(self),
            contract.of(self),
        )
