"""Adam and its immediate family: AdamW and AMSGrad."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.base import Leafwise, Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, Flag, NonNegative, Rate
from gradtx.core.masks import Mask
from gradtx.core.numerics import abs_sq, ema, sqrt, unbiased, zeros
from gradtx.core.tree import Tree
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["ScaleByAdamState", "ScaleByAmsgradState", "adam", "adamw", "amsgrad", "scale_by_adam", "scale_by_amsgrad"]


class ScaleByAdamState(NamedTuple):
    """The two moments of Adam."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of its square."


class scale_by_adam(Leafwise):
    """Divide a running mean of the gradient by a running root mean square of it.

        m ← β₁ m + (1 − β₁) g         m̂ = m / (1 − β₁ᵗ)
        v ← β₂ v + (1 − β₂) |g|²      v̂ = v / (1 − β₂ᵗ)
        u = m̂ / (√(v̂ + ε₀) + ε)

    Nesterov's form (Dozat, 2016) has m̂ = β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ). The updates are of order one.

    Kingma & Ba, 2014, Algorithm 1. https://arxiv.org/abs/1412.6980
    """

    State = ScaleByAdamState

    b1: Decay = 0.9
    "Decay rate of the first moment."
    b2: Decay = 0.999
    "Decay rate of the second moment; 0.95 is usual for large language models."
    eps: NonNegative = 1e-8
    "Added to the denominator, outside the root."
    eps_root: NonNegative = 0.0
    "Added inside the root."
    mu_dtype: DType | None = None
    "Dtype of the first moment, `'bfloat16'` say; by default that of the computation."
    nesterov: Flag = False
    "Whether to look one step ahead."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        if self.nesterov:
            mean = self.b1 * unbiased(mu, self.b1, t + 1) + (1 - self.b1) * unbiased(g, self.b1, t)
        else:
            mean = unbiased(mu, self.b1, t)
        return mean / (sqrt(unbiased(nu, self.b2, t) + self.eps_root) + self.eps), mu, nu


class adam(Optimizer):
    """Adam: `scale_by_adam`, then a step of size `learning_rate`.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.adam(1e-3)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> updates, state = tx.update({"w": jnp.array([0.1, -3.0])}, tx.init(params), params)
    >>> gradtx.apply_updates(params, updates)
    {'w': Array([0.999, 2.001], dtype=float32)}
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    nesterov: Flag = scale_by_adam.nesterov

    def expand(self) -> chain:
        return chain(
            scale_by_adam(self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, self.nesterov),
            scale_by_learning_rate(self.learning_rate),
        )


class adamw(Optimizer):
    """Adam with decoupled weight decay.

        θ ← θ − η (u + λ θ)

    Loshchilov & Hutter, 2017, Algorithm 2. https://arxiv.org/abs/1711.05101
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    weight_decay: NonNegative = 1e-4
    "λ, multiplied by the learning rate. 1e-2 to 1e-1 are usual for transformers."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."
    nesterov: Flag = scale_by_adam.nesterov

    def expand(self) -> chain:
        return chain(
            scale_by_adam(self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, self.nesterov),
            add_decayed_weights(self.weight_decay, self.mask),
            scale_by_learning_rate(self.learning_rate),
        )


class ScaleByAmsgradState(NamedTuple):
    """The moments of AMSGrad."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters, real: running mean of its square."
    nu_max: Tree
    "Like the parameters, real: the largest bias-corrected `nu` so far."


class scale_by_amsgrad(Leafwise):
    """Adam whose denominator never shrinks.

        m ← β₁ m + (1 − β₁) g         m̂ = m / (1 − β₁ᵗ)
        v ← β₂ v + (1 − β₂) |g|²      v̂ ← max(v̂, v / (1 − β₂ᵗ))
        u = m̂ / (√(v̂ + ε₀) + ε)

    Reddi, Kale & Kumar, 2018, https://arxiv.org/abs/1904.09237, with bias correction before the maximum. Torch and
    Keras take the maximum of the uncorrected v and correct afterwards, which differs in the first steps.
    """

    State = ScaleByAmsgradState

    b1: Decay = scale_by_adam.b1
    "Decay rate of the first moment."
    b2: Decay = scale_by_adam.b2
    "Decay rate of the second moment."
    eps: NonNegative = scale_by_adam.eps
    "Added to the denominator, outside the root."
    eps_root: NonNegative = scale_by_adam.eps_root
    "Added inside the root."
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    "Dtype of the first moment; by default that of the computation."

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param)), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, nu_max: Array, *, t: Array) -> tuple[Array, Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        nu_max = jnp.maximum(nu_max, unbiased(nu, self.b2, t))
        return unbiased(mu, self.b1, t) / (sqrt(nu_max + self.eps_root) + self.eps), mu, nu, nu_max


class amsgrad(Optimizer):
    """AMSGrad: `scale_by_amsgrad`, then a step of size `learning_rate`."""

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_amsgrad.b1
    b2: Decay = scale_by_amsgrad.b2
    eps: NonNegative = scale_by_amsgrad.eps
    eps_root: NonNegative = scale_by_amsgrad.eps_root
    mu_dtype: DType | None = scale_by_amsgrad.mu_dtype

    def expand(self) -> chain:
        return chain(
            scale_by_amsgrad(self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype),
            scale_by_learning_rate(self.learning_rate),
        )
