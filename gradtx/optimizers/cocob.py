"""COCOB: gradient descent without a learning rate, as bets on the outcomes of coins."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.dtypes import upcast
from gradtx.core.hyperparams import NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import quotient, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["COCOBState", "cocob", "scale_by_cocob"]


class COCOBState(NamedTuple):
    """The bets of COCOB, for each element."""

    init_particles: Tree
    "Like the parameters: their values at `init`."
    cumulative_gradients: Tree
    "Like the parameters: the sum C of the negative gradients."
    scale: Tree
    "Like the parameters, real: the largest magnitude L of a gradient so far."
    subgradients: Tree
    "Like the parameters, real: the sum G of the magnitudes of the gradients."
    reward: Tree
    "Like the parameters, real: the money R won so far."


class scale_by_cocob(Leafwise):
    """Move each parameter from its start by a bet on its gradient, which is as large as the money won so far allows.

        L ← max(L, |g|),   G ← G + |g|,   C ← C − g
        R ← max(R − g (θ − θ₀), 0)
        u = θ₀ + C (1 + R / L) / max(G + L, α L) − θ

    L begins at ε. The updates are whole steps, which must not be scaled again. `init` must be given the parameters from
    which the training starts. Needs the parameters.

    Orabona & Tommasi, 2017, Algorithm 2. https://arxiv.org/abs/1705.07795
    """

    State = COCOBState

    alpha: NonNegative = 100.0
    "α, roughly the number of updates in which the bets are held small; 100 is usual."
    eps: NonNegative = 1e-8
    "ε, the least scale of the gradients; 1e-8 is usual."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array, Array, Array]:
        start, real = jnp.array(upcast(param), copy=True), jnp.real(zeros(param))
        return start, zeros(param), jnp.full_like(real, self.eps), real, real

    def leaf(
        self,
        g: Array,
        init_particles: Array,
        cumulative_gradients: Array,
        scale: Array,
        subgradients: Array,
        reward: Array,
        *,
        param: Array,
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        scale = jnp.maximum(scale, jnp.abs(g))
        subgradients = subgradients + jnp.abs(g)
        money = reward - jnp.real(jnp.conj(g) * (param - init_particles))
        reward = jnp.where(money > 0, money, 0)  # for max(money, 0) XLA:CPU keeps copies of what it is made of
        total = cumulative_gradients - g
        share = quotient(total, jnp.maximum(subgradients + scale, self.alpha * scale), self.eps)
        step = share * (1 + quotient(reward, scale, self.eps))
        return init_particles + step - param, init_particles, total, scale, subgradients, reward


class cocob(Optimizer):
    """COCOB: `scale_by_cocob`, whose updates are whole steps, after an L2 penalty.

    >>> import gradtx
    >>> tx = gradtx.cocob()
    """

    learning_rate: Rate = 1.0
    "Factor of the gradients; as the steps hardly depend on their scale, it is of use only as a schedule."
    alpha: NonNegative = scale_by_cocob.alpha
    eps: NonNegative = scale_by_cocob.eps
    weight_decay: NonNegative = 0.0
    "Strength λ of an L2 penalty; usually none."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            add_decayed_weights.of(self),
            scale_by_learning_rate(self.learning_rate, flip_sign=False),
            scale_by_cocob.of(self),
        )
