"""AdEMAMix: Adam with a second, much slower mean of the gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, counter, ema, increment, quotient, sqrt, unbiased, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleByAdemamixState", "ademamix", "scale_by_ademamix"]


class ScaleByAdemamixState(NamedTuple):
    """The two means of AdEMAMix, and its second moment."""

    count: Array
    "int32[]: updates made so far, by which the fast mean and the second moment are debiased."
    count_m2: Array
    "int32[]: updates made so far, at which schedules are evaluated; set to 0, it begins their warm-up anew."
    m1: Tree
    "Like the parameters: fast running mean of the gradient."
    m2: Tree
    "Like the parameters: slow running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of its square."


class scale_by_ademamix(Leafwise):
    """Adam whose numerator is a fast mean of the gradient plus a multiple of a slow one.

        m₁ ← β₁ m₁ + (1 − β₁) g       m̂₁ = m₁ / (1 − β₁ᵗ)
        m₂ ← β₃ m₂ + (1 − β₃) g       not debiased
        v ← β₂ v + (1 − β₂) |g|²      v̂ = v / (1 − β₂ᵗ)
        u = (m̂₁ + α m₂) / (√(v̂ + ε₀) + ε)

    The slow mean remembers gradients of tens of thousands of steps, and fills as slowly. Over T steps of training the
    paper warms up both α and β₃, without which the early steps may diverge:

        alpha = linear_schedule(0.0, 5.0, T),   b3 = half_life_schedule(0.9, 0.9999, T)

    Unlike in optax, the slow mean and the second moment do not follow `mu_dtype`: in bfloat16 the former would stop
    at 1/20 of a constant gradient or before. Pagliardini et al., 2024, Algorithm 1. https://arxiv.org/abs/2409.03137
    """

    State = ScaleByAdemamixState
    observed = ("count_m2",)
    clock = "count_m2"

    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    b3: Decay = 0.9999
    "Decay rate β₃ of the slow mean, or a schedule of it; 0.9999 is usual, 0.999 in runs of few thousand steps."
    alpha: NonNegative = 6.0
    "Weight α of the slow mean, or a schedule of it; 4 to 10 are usual."
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = None
    "Dtype of the fast mean, `'bfloat16'` for instance; by default that of the computation."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        return zeros(param, self.mu_dtype), zeros(param), jnp.real(zeros(param))

    def init_fn(self, params: Tree) -> ScaleByAdemamixState:
        leaves, treedef = jax.tree.flatten(params)
        return self._joined_state(
            {"count": counter(), "count_m2": counter()}, treedef, list(map(self.init_leaf, leaves))
        )

    def observe(self, updates: Tree, state: ScaleByAdemamixState) -> dict[str, Any]:
        return {"count_m2": increment(state.count_m2)}

    def leaf(self, g: Array, m1: Array, m2: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array, Array]:
        m1 = ema(m1, g, self.b1)
        m2 = ema(m2, g, self.b3)
        nu = ema(nu, abs_sq(g), self.b2)
        mean = unbiased(m1, self.b1, t) + self.alpha * m2
        root = sqrt(unbiased(nu, self.b2, t) + self.eps_root)
        return quotient(mean, root + self.eps, self.eps), m1, m2, nu


class ademamix(Optimizer):
    """AdEMAMix: `scale_by_ademamix`, decoupled weight decay, and a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    >>> import gradtx
    >>> steps = 100_000
    >>> alpha = gradtx.linear_schedule(0.0, 5.0, steps)
    >>> tx = gradtx.ademamix(1e-3, b3=gradtx.half_life_schedule(0.9, 0.9999, steps), alpha=alpha, weight_decay=0.1)
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_ademamix.b1
    b2: Decay = scale_by_ademamix.b2
    b3: Decay = scale_by_ademamix.b3
    alpha: NonNegative = 5.0
    "Weight α of the slow mean, or a schedule of it; 4 to 10 are usual, 5 is the paper's."
    eps: NonNegative = scale_by_ademamix.eps
    eps_root: NonNegative = scale_by_ademamix.eps_root
    mu_dtype: DType | None = scale_by_ademamix.mu_dtype
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; 0.1 is usual for language models."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_ademamix.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
