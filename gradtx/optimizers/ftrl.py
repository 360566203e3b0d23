"""FTRL-Proximal: online learning of sparse linear models."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import NonNegative, NonPositive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, after, bounded, zeros
from gradtx.core.tree import Tree

__all__ = ["ScaleByFtrlState", "ftrl", "scale_by_ftrl"]


class ScaleByFtrlState(NamedTuple):
    """The two sums of FTRL, under Keras's names."""

    accumulator: Tree
    "Like the parameters, real: n, the sum of the squares of the gradients."
    linear: Tree
    "Like the parameters: z, the sum of the gradients, corrected for the steps made."


class scale_by_ftrl(Leafwise):
    """Go to the minimum of the sum of all past losses, linearized, with a proximal term and with L1 and L2 penalties.

        n' = n + |g|²,   z ← z + g + 2 s θ − (n'ᵖ − nᵖ) / η · θ
        θ ← − soft(z, λ₁) / (n'ᵖ / η + β / η + 2 λ₂)
        soft(z, λ) = z − λ sign(z) where |z| > λ, else 0

    The updates are whole steps, which must not be scaled again. It needs the parameters.

    FTRL computes the parameters from z, which begins at 0. Therefore an element whose gradients were all zero is
    **set to 0** by the first update, whatever it was. Keras and TensorFlow do the same, because the method is so: start
    from zero parameters, or mask those that must keep their initial values. A rate of 0 leaves parameters and state as
    they are.

    Gradients are clipped to √max (1.8e19 in float32) and n to max, the largest number of its dtype.

    McMahan et al., 2013, Algorithm 1, https://research.google/pubs/pub41159/, with Keras's names and its 2 before λ₂.
    """

    State = ScaleByFtrlState

    learning_rate: Rate
    "Step size η; 1e-3 is Keras's, 0.1 is usual for linear models."
    learning_rate_power: NonPositive = -0.5
    "Exponent −p by which the step size falls with n; −0.5 is usual, and with 0 it does not fall."
    initial_accumulator_value: NonNegative = 0.1
    "The sum of squares n at the start; 0.1 is Keras's."
    l1: NonNegative = 0.0
    "Strength λ₁ of the L1 penalty, which makes parameters exactly zero."
    l2: NonNegative = 0.0
    "Strength λ₂ of the L2 penalty, which makes parameters small."
    l2_shrinkage: NonNegative = 0.0
    "Strength s of an L2 penalty that is added to the gradient, and so does not change the denominator; usually 0."
    beta: NonNegative = 0.0
    "β, added to nᵖ, which makes the first steps smaller; McMahan has 1, Keras 0."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        n = jnp.real(zeros(param))
        return n + jnp.asarray(self.initial_accumulator_value, n.dtype), zeros(param)

    def leaf(self, g: Array, accumulator: Array, linear: Array, *, param: Array) -> tuple[Array, Array, Array]:
        g = bounded(g)
        n = accumulator + abs_sq(g)
        n = jnp.minimum(n, jnp.finfo(n.dtype).max)
        rate = jnp.asarray(self.learning_rate, n.dtype)
        moves = rate > 0
        inverse = jnp.where(moves, 1 / jnp.where(moves, rate, 1), 0)
        growth = self._power(n) - self._power(accumulator)
        z = linear + g + 2 * self.l2_shrinkage * param - growth * inverse * param
        z = jnp.where(moves, z, linear)
        n = after(jnp.where(moves, n, accumulator), z)
        magnitude = jnp.abs(z)
        pull = jnp.where(magnitude > self.l1, z - self.l1 * jnp.sign(z), 0)
        stiffness = (self._power(n) + self.beta) * inverse + 2 * self.l2
        new = -pull / jnp.where(stiffness > 0, stiffness, 1)
        return jnp.where(moves, new - param, 0), n, z

    def _power(self, n: Array) -> Array:
        """nᵖ, where the derivative at 0 is taken as 0."""
        p = -self.learning_rate_power
        return jnp.where(n > 0, jnp.where(n > 0, n, 1) ** p, 0.0**p)


class ftrl(Optimizer):
    """FTRL-Proximal, as in Keras and TensorFlow: `scale_by_ftrl`, whose updates are whole steps."""

    learning_rate: Rate
    "Step size η; 1e-3 is Keras's, 0.1 is usual for linear models."
    learning_rate_power: NonPositive = scale_by_ftrl.learning_rate_power
    initial_accumulator_value: NonNegative = scale_by_ftrl.initial_accumulator_value
    l1: NonNegative = scale_by_ftrl.l1
    l2: NonNegative = scale_by_ftrl.l2
    l2_shrinkage: NonNegative = scale_by_ftrl.l2_shrinkage
    beta: NonNegative = scale_by_ftrl.beta

    def expand(self) -> chain:
        return chain(scale_by_ftrl.of(self))
