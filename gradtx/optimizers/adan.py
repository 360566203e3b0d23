"""Adan: Nesterov's momentum from the differences of consecutive gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, after, ema, quotient, sqrt, unbiased, zeros
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask, check_mask, mask_leaves
from gradtx.transforms.decay import unmasked
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ProximalDecayState", "ScaleByAdanState", "adan", "proximal_decay", "scale_by_adan"]


class ScaleByAdanState(NamedTuple):
    """The three moments of Adan, and the last gradient."""

    count: Array
    "int32[]: updates made so far."
    m: Tree
    "Like the parameters: running mean of the gradient."
    v: Tree
    "Like the parameters: running mean of the differences of consecutive gradients."
    n: Tree
    "Like the parameters, real: running mean of the square of the extrapolated gradient."
    g: Tree
    "Like the parameters: the last gradient."


class scale_by_adan(Leafwise):
    """Adam that looks ahead, as Nesterov's momentum does, by a running mean of the gradient's differences.

        d = gₜ − gₜ₋₁,   0 at first
        m ← β₁ m + (1 − β₁) g
        v ← β₂ v + (1 − β₂) d
        n ← β₃ n + (1 − β₃) |g + β₂ d|²
        u = (m̂ + β₂ v̂) / (√(n̂ + ε₀) + ε),   hats divide by 1 − βᵗ

    Xie et al., 2022, Algorithm 1. https://arxiv.org/abs/2208.06677. These β are those of the authors' code, and the
    paper's are 1 − β. Optax weighs d by 1 − β₂, where the authors' code weighs it by β₂.
    """

    State = ScaleByAdanState

    b1: Decay = 0.98
    "Decay rate β₁ of the mean gradient; 0.98 is usual."
    b2: Decay = 0.92
    "Decay rate β₂ of the mean difference, and the weight of the difference; 0.92 is usual."
    b3: Decay = 0.99
    "Decay rate β₃ of the second moment; 0.99 is usual."
    eps: NonNegative = 1e-8
    "ε, added to the denominator, outside the root; 1e-8 is usual."
    eps_root: NonNegative = 0.0
    "ε₀, added inside the root; usually 0."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array, Array]:
        return zeros(param), zeros(param), jnp.real(zeros(param)), zeros(param)

    def leaf(
        self, g: Array, m: Array, v: Array, n: Array, last: Array, *, t: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        difference = jnp.where(t > 1, g - last, 0)
        m = ema(m, g, self.b1)
        v = ema(v, difference, self.b2)
        n = ema(n, abs_sq(g + self.b2 * difference), self.b3)
        mean = unbiased(m, self.b1, t) + self.b2 * unbiased(v, self.b2, t)
        root = sqrt(unbiased(n, self.b3, t) + self.eps_root)
        return quotient(mean, root + self.eps, self.eps), m, v, n, after(g, v, n)


class ProximalDecayState(NamedTuple):
    """The counter of `proximal_decay`, for a schedule of the learning rate."""

    count: Array
    "int32[]: updates made so far."


class proximal_decay(GradientTransformation):
    """Weight decay by a proximal step, after the learning rate.

        u ← (θ + u) / (1 + η λ) − θ

    It shrinks the parameters as they will be after the step rather than as they are, and is stable for any η λ. It
    needs the parameters. Zhuang et al., 2022, https://arxiv.org/abs/2202.00089
    """

    State = ProximalDecayState
    elementwise = unmasked

    learning_rate: Rate
    "Step size η, the same as the optimizer's."
    weight_decay: NonNegative
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-2 is usual."
    mask: Mask = None
    "The leaves to decay, all by default."

    def init_fn(self, params: Tree) -> ProximalDecayState:
        check_mask("proximal_decay: mask", self.mask, params)
        return ProximalDecayState(numerics.counter())

    def update_fn(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, ProximalDecayState]:
        decay = self.learning_rate * self.weight_decay
        leaves, treedef = jax.tree.flatten(updates)
        moved = jax.tree.map(lambda u, d: u - d, updates, dtypes.scaled(decay, params))
        shrunk = jax.tree.leaves(dtypes.scaled(1 / (1 + decay), moved))
        mask = mask_leaves("proximal_decay: mask", self.mask, params)
        new = [after if on else u for u, after, on in zip(leaves, shrunk, mask, strict=True)]
        return treedef.unflatten(new), ProximalDecayState(numerics.increment(state.count))


class adan(Optimizer):
    """Adan: `scale_by_adan`, a step of size `learning_rate`, and the authors' proximal weight decay.

        θ ← (θ − η u) / (1 + η λ)

    Xie et al., 2022, Algorithm 1. https://arxiv.org/abs/2208.06677
    """

    learning_rate: Rate
    "Step size η; 1e-3 is usual, and 5 to 10 times that of Adam is stable."
    b1: Decay = scale_by_adan.b1
    b2: Decay = scale_by_adan.b2
    b3: Decay = scale_by_adan.b3
    eps: NonNegative = scale_by_adan.eps
    eps_root: NonNegative = scale_by_adan.eps_root
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; 2e-2 is usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_adan.of(self),
            scale_by_learning_rate.of(self),
            proximal_decay.of(self),
        )
