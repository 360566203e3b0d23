"""Rprop: every element has a step size, which is adapted by the signs of its gradients. For full batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import AtLeastOne, NonNegative, PositiveFraction, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import after, zeros
from gradtx.core.tree import Tree
from gradtx.transforms.scaling import scale

__all__ = ["ScaleByRpropState", "rprop", "scale_by_rprop"]


class ScaleByRpropState(NamedTuple):
    """The step size and the last gradient of every element."""

    step_sizes: Tree
    "Like the parameters: the current step size."
    prev_updates: Tree
    "Like the parameters: the last gradient, or 0 if its sign changed in the last update."


class scale_by_rprop(Leafwise):
    """Steps whose size grows while the gradient keeps its sign, and shrinks when the sign changes: iRprop−.

        s = sign(g gₜ₋₁)
        Δ ← min(max(Δ · (η⁺ if s > 0, η⁻ if s < 0, else 1), Δₘᵢₙ), Δₘₐₓ)
        u = Δ sign(g) where s ≥ 0;   where s < 0, u = 0 and g is remembered as 0

    The updates are step sizes with the sign of the gradient. As in the paper and in torch, a step uses the size that
    its own gradient has just adapted. Optax's Rprop begins with a zero update and stays one step late.

    Riedmiller & Braun, 1993; Igel & Hüsken, 2003, iRprop−. https://doi.org/10.1016/S0925-2312(01)00700-7
    """

    State = ScaleByRpropState

    learning_rate: Rate
    "The step size Δ of every element at the start; 1e-2 is usual."
    eta_minus: PositiveFraction = 0.5
    "Factor η⁻ by which a step size shrinks when its gradient changes sign; 0.5 is usual."
    eta_plus: AtLeastOne = 1.2
    "Factor η⁺ by which a step size grows while its gradient keeps its sign; 1.2 is usual."
    min_step_size: NonNegative = 1e-6
    "Smallest step size Δₘᵢₙ; 1e-6 is usual."
    max_step_size: NonNegative = 50.0
    "Largest step size Δₘₐₓ; 50 is usual, in units of the parameters."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        if jnp.iscomplexobj(param):
            raise TypeError(
                "scale_by_rprop: a complex gradient has no sign; make two leaves of real and imaginary part"
            )
        start = zeros(param)
        return start + jnp.asarray(self.learning_rate, start.dtype), start

    def leaf(self, g: Array, step_sizes: Array, prev_updates: Array) -> tuple[Array, Array, Array]:
        agreement = jnp.sign(g) * jnp.sign(prev_updates)
        factor = jnp.where(agreement > 0, self.eta_plus, jnp.where(agreement < 0, self.eta_minus, 1.0))
        moved = self._clipped(step_sizes * factor.astype(g.dtype))
        step_sizes = jnp.where(agreement == 0, self._clipped(step_sizes), moved)
        g = after(jnp.where(agreement < 0, 0, g), step_sizes)
        return step_sizes * jnp.sign(g), step_sizes, g

    def _clipped(self, step_sizes: Array) -> Array:
        return jnp.clip(step_sizes, self.min_step_size, self.max_step_size)


class rprop(Optimizer):
    """Rprop: `scale_by_rprop`, then a step against it. For full batches, because noisy signs ruin the step sizes."""

    learning_rate: Rate
    "The step size of every element at the start; 1e-2 is usual."
    eta_minus: PositiveFraction = scale_by_rprop.eta_minus
    eta_plus: AtLeastOne = scale_by_rprop.eta_plus
    min_step_size: NonNegative = scale_by_rprop.min_step_size
    max_step_size: NonNegative = scale_by_rprop.max_step_size

    def expand(self) -> chain:
        return chain(
            scale_by_rprop.of(self),
            scale(-1.0),
        )
