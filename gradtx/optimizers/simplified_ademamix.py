"""Simplified AdEMAMix: one slow sum of gradients, and the last gradient once more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, counter, ema, increment, quotient, sqrt, unbiased, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleBySimplifiedAdEMAMixState", "scale_by_simplified_ademamix", "simplified_ademamix"]


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The sum of Simplified AdEMAMix, and its second moment."""

    t: Array
    "int32[]: updates made so far."
    m: Tree
    "Like the parameters: decaying sum of the gradients."
    n: Tree
    "Like the parameters, real: running mean of their squares."


class scale_by_simplified_ademamix(Leafwise):
    """Adam whose numerator is a decaying sum of the gradients plus a multiple of the last one.

        m ← β₁ m + g
        n ← β₂ n + (1 − β₂) |g|²      n̂ = n / (1 − β₂ᵗ)
        u = (m + α g) / (√(n̂ + ε₀) + ε)

    The sum is not divided by 1 / (1 − β₁), so that the updates are up to that many times larger than Adam's, 100 times
    with β₁ = 0.99: take a learning rate that is smaller by as much. With α = 0 it is Adam, apart from that factor and
    from the bias of m. For a β₁ near 1, the authors let its half-life grow from that of 0.9:
    `b1=half_life_schedule(0.9, 0.999, steps)`.

    Morwani et al., 2025, Algorithm 3. https://arxiv.org/abs/2502.02431
    """

    State = ScaleBySimplifiedAdEMAMixState
    observed = ("t",)
    clock = "t"
    context = Leafwise.context | {"steps"}

    b1: Decay = 0.99
    "Decay rate β₁ of the sum, or a schedule of it; 0.99 is usual, up to 0.9999 for small batches."
    b2: Decay = 0.95
    "Decay rate β₂ of the second moment; 0.95 is usual."
    alpha: NonNegative = 0.0
    "Weight α of the last gradient, or a schedule of it; 0 for large batches, up to 100 for small ones."
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param), jnp.real(zeros(param))

    def init_fn(self, params: Tree) -> ScaleBySimplifiedAdEMAMixState:
        leaves, treedef = jax.tree.flatten(params)
        return self._joined_state({"t": counter()}, treedef, list(map(self.init_leaf, leaves)))

    def observe(self, updates: Tree, state: ScaleBySimplifiedAdEMAMixState) -> dict[str, Any]:
        steps = increment(state.t)
        return {"t": steps, "steps": steps}

    def leaf(self, g: Array, m: Array, n: Array, *, steps: Array) -> tuple[Array, Array, Array]:
        m = self.b1 * m + g
        n = ema(n, abs_sq(g), self.b2)
        root = sqrt(unbiased(n, self.b2, steps) + self.eps_root)
        return quotient(m + self.alpha * g, root + self.eps, self.eps), m, n


class simplified_ademamix(Optimizer):
    """Simplified AdEMAMix: `scale_by_simplified_ademamix`, decoupled weight decay, and a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    >>> import gradtx
    >>> gradtx.simplified_ademamix(1e-5, alpha=10.0).expanded
    chain(
        scale_by_simplified_ademamix(alpha=10.0),
        add_decayed_weights(),
        scale_by_learning_rate(1e-05),
    )
    """

    learning_rate: Rate
    "Step size; about 1 − β₁ of Adam's, 1e-5 to 1e-4."
    b1: Decay = scale_by_simplified_ademamix.b1
    b2: Decay = scale_by_simplified_ademamix.b2
    alpha: NonNegative = scale_by_simplified_ademamix.alpha
    eps: NonNegative = scale_by_simplified_ademamix.eps
    eps_root: NonNegative = scale_by_simplified_ademamix.eps_root
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_simplified_ademamix.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
