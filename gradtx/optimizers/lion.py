"""Lion: the sign of an interpolation between momentum and gradient."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, NonNegative, Positive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import ema, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleByLionState", "lion", "scale_by_lion"]


class ScaleByLionState(NamedTuple):
    """The momentum of Lion."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."


class scale_by_lion(Leafwise):
    """The sign of an interpolation between the momentum and the gradient; the momentum itself decays more slowly.

        u = sign(β₁ m + (1 − β₁) g)
        m ← β₂ m + (1 − β₂) g

    The updates are −1, 0 or 1; in the modes `"smooth"` and `"refined"` small ones stay small. Unless β₂ < β₁ / 2, they
    are computed from the new m as sign(ρ m + (1 − ρ) g) with ρ = β₁ / β₂, which is the same: the old m need not be kept
    then, and the update writes no temporary.

    Chen et al., 2023, Algorithm 2. https://arxiv.org/abs/2302.06675
    """

    State = ScaleByLionState

    b1: Decay = 0.9
    "Weight β₁ of the momentum in the update; 0.9 to 0.95 are usual."
    b2: Decay = 0.99
    "Decay rate β₂ of the momentum; 0.98 to 0.99 are usual."
    mu_dtype: DType | None = None
    "Dtype of the momentum; by default that of the computation."
    mode: Literal["hard", "smooth", "refined"] = "hard"
    "What stands for the sign of x: the sign itself, tanh(κ x), or x clipped to magnitude 1."
    smooth_beta: Positive = 1.0
    "κ, how steep the tanh of the mode `'smooth'` is: 1 is usual; the larger, the nearer to the sign."

    def init_leaf(self, param: Array) -> tuple[Array]:
        return (zeros(param, self.mu_dtype),)

    def leaf(self, g: Array, mu: Array) -> tuple[Array, Array]:
        new = ema(mu, g, self.b2)
        x = ema(new, g, self.b1 / self.b2) if self._is_in_new_momentum() else ema(mu, g, self.b1)
        return self._sign(x), new

    def _sign(self, x: Array) -> Array:
        if self.mode == "smooth":
            return jnp.tanh(self.smooth_beta * x)
        return jnp.sign(x) if self.mode == "hard" else jnp.where(jnp.abs(x) < 1, x, jnp.sign(x))

    def _is_in_new_momentum(self) -> bool:
        """Whether the update can be computed from the new momentum. If β₁ or β₂ is an array, that is not known."""
        known = isinstance(self.b1, float) and isinstance(self.b2, float)
        return known and bool(self.b2 > 0 and self.b2 >= self.b1 / 2)


class lion(Optimizer):
    """Lion: `scale_by_lion`, decoupled weight decay, then a step of size `learning_rate`."""

    learning_rate: Rate
    "Step size; 3 to 10 times smaller than for AdamW, 1e-4 for instance."
    b1: Decay = scale_by_lion.b1
    b2: Decay = scale_by_lion.b2
    mu_dtype: DType | None = scale_by_lion.mu_dtype
    weight_decay: NonNegative = 1e-3
    "Strength λ of the weight decay, multiplied by the learning rate; 3 to 10 times larger than for AdamW."
    mask: Mask = None
    "The leaves to decay, all by default."

    def expand(self) -> chain:
        return chain(
            scale_by_lion.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
