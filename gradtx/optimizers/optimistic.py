"""Optimistic gradient descent and optimistic Adam, for games and saddle points."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, Flag, NonNegative, Rate
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.scaling import scale, scale_by_learning_rate

__all__ = [
    "ScaleByOptimisticGradientState",
    "optimistic_adam",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "scale_by_optimistic_gradient",
]


class ScaleByOptimisticGradientState(NamedTuple):
    """The gradient of the update before."""

    is_initial_step: Array
    "bool[]: whether there was no update yet."
    previous_gradient: Tree
    "Like the parameters: gₜ₋₁."


class scale_by_optimistic_gradient(GradientTransformation):
    """Add its last change to the gradient, which predicts the next gradient.

        u = α g + β (g − gₜ₋₁),   g₀ = g₁

    Mokhtari, Ozdaglar & Pattathil, 2019, Section 1. https://arxiv.org/abs/1901.08511
    """

    State = ScaleByOptimisticGradientState
    elementwise = True

    alpha: NonNegative = 1.0
    "Weight α of the gradient; 1 is usual."
    beta: NonNegative = 1.0
    "Weight β of the change of the gradient, the optimism; 1 is usual."

    def init_fn(self, params: Tree) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(jnp.ones((), bool), jax.tree.map(numerics.zeros, params))

    def update_fn(self, updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, ScaleByOptimisticGradientState]:
        def change(g: Array, previous: Array) -> Array:
            return jnp.where(state.is_initial_step, 0, g - previous.astype(g.dtype))

        # XLA:CPU copies the previous gradient: only the parameters' loop reads it, for which the new one does not wait.
        changes = jax.tree.map(change, updates, state.previous_gradient)
        scaled, ahead = dtypes.scaled(self.alpha, updates), dtypes.scaled(self.beta, changes)
        new_state = ScaleByOptimisticGradientState(jnp.zeros((), bool), updates)
        return jax.tree.map(jnp.add, scaled, ahead), new_state


class optimistic_gradient_descent(Optimizer):
    """Gradient descent that looks ahead by the last change of the gradient.

        θ ← θ − η (α g + β (g − gₜ₋₁))

    In bilinear games its last iterate converges, where that of gradient descent moves in circles. Mokhtari, Ozdaglar &
    Pattathil, 2019. https://arxiv.org/abs/1901.08511
    """

    learning_rate: Rate
    "Step size; less than half the inverse of the gradient's Lipschitz constant."
    alpha: NonNegative = scale_by_optimistic_gradient.alpha
    beta: NonNegative = scale_by_optimistic_gradient.beta

    def expand(self) -> chain:
        return chain(scale_by_optimistic_gradient.of(self), scale_by_learning_rate.of(self))


class optimistic_adam(Optimizer):
    """Adam that looks ahead by the last change of its direction.

        r = Adam's direction
        θ ← θ − η r − o (r − rₜ₋₁)

    Daskalakis et al., 2017, Algorithm 1, https://arxiv.org/abs/1711.00141. By default r has Nesterov's form, as in
    optax; `nesterov=False` is the paper's form.
    """

    learning_rate: Rate
    "Step size η; 1e-3 is usual."
    optimism: NonNegative | None = None
    "Step size o of the optimism; by default η, as in the paper."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    nesterov: Flag = True
    "Whether r has Nesterov's form, which looks one step ahead."

    def expand(self) -> chain:
        optimism = self.learning_rate if self.optimism is None else self.optimism
        return chain(
            scale_by_adam.of(self),
            scale_by_optimistic_gradient(self.learning_rate, optimism),
            scale(-1.0),
        )


class optimistic_adam_v2(Optimizer):
    """`optimistic_adam` with an optimism that is relative to the learning rate.

        r = Adam's direction
        θ ← θ − η (α r + β (r − rₜ₋₁))

    Daskalakis et al., 2017. https://arxiv.org/abs/1711.00141
    """

    learning_rate: Rate
    "Step size η; 1e-3 is usual."
    alpha: NonNegative = scale_by_optimistic_gradient.alpha
    beta: NonNegative = scale_by_optimistic_gradient.beta
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    nesterov: Flag = optimistic_adam.nesterov

    def expand(self) -> chain:
        return chain(
            scale_by_adam.of(self),
            scale_by_optimistic_gradient.of(self),
            scale_by_learning_rate.of(self),
        )
