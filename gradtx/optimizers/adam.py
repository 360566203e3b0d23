"""Adam, AdamW and AMSGrad."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, DType, Flag, NonNegative, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, one_minus_power, quotient, sqrt, unbiased, zeros
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights, decay_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = [
    "ScaleByAdamState",
    "ScaleByAmsgradState",
    "adam",
    "adamw",
    "adamw_tf1",
    "amsgrad",
    "scale_by_adam",
    "scale_by_amsgrad",
]


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

    Nesterov's form (Dozat, 2016) has m̂ = β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ). With `eps_hat`, ε is added
    before the bias correction, u = m̂ √(1 − β₂ᵗ) / (√v + ε), as in Section 2 of the paper, TensorFlow and Keras; torch
    and optax follow Algorithm 1. The updates are of order one.

    Kingma & Ba, 2014, Algorithm 1. https://arxiv.org/abs/1412.6980
    """

    State = ScaleByAdamState

    b1: Decay = 0.9
    "Decay rate β₁ of the first moment; 0.9 is usual."
    b2: Decay = 0.999
    "Decay rate β₂ of the second moment; 0.999 is usual, 0.95 for large language models."
    eps: NonNegative = 1e-8
    "ε, added to the denominator, outside the root; 1e-8 is usual. Where the denominator is 0, the update is 0."
    eps_root: NonNegative = 0.0
    "ε₀, added inside the root; usually 0."
    mu_dtype: DType | None = None
    "Dtype of the first moment, `'bfloat16'` for instance; by default that of the computation."
    nesterov: Flag = False
    "Whether to look one step ahead, as Nesterov's momentum does."
    eps_hat: Flag = False
    "Whether ε is added before the bias correction of the root, as in TensorFlow and Keras."

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, *, t: Array) -> tuple[Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        root = sqrt(unbiased(nu, self.b2, t) + self.eps_root)
        eps = _corrected_eps(self.eps, self.b2, t) if self.eps_hat else self.eps
        mean = corrected_mean(mu, g, self.b1, t, self.nesterov)
        return quotient(mean, root + eps, self.eps), mu, nu


def corrected_mean(mu: Array, g: Array, b1: Any, t: Array, nesterov: bool) -> Array:
    """m̂ = m / (1 − β₁ᵗ), or Nesterov's β₁ m / (1 − β₁ᵗ⁺¹) + (1 − β₁) g / (1 − β₁ᵗ)."""
    if not nesterov:
        return unbiased(mu, b1, t)
    return b1 * unbiased(mu, b1, t + 1) + (1 - b1) * unbiased(g, b1, t)


def step_correction(betas: tuple[Any, Any], t: Array) -> Array:
    """√(1 − β₂ᵗ) / (1 − β₁ᵗ), a factor of the step size in the place of two debiased means."""
    b1, b2 = betas
    return jnp.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)


def _corrected_eps(eps: Any, b2: Any, t: Array) -> Array:
    """ε / √(1 − β₂ᵗ), which added to the debiased root is the same as ε added before the bias correction."""
    return eps / jnp.sqrt(one_minus_power(b2, t))


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
    eps_hat: Flag = scale_by_adam.eps_hat

    def expand(self) -> chain:
        return chain(
            scale_by_adam.of(self),
            scale_by_learning_rate.of(self),
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
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-2 to 1e-1 are usual for transformers."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."
    nesterov: Flag = scale_by_adam.nesterov
    eps_hat: Flag = scale_by_adam.eps_hat

    def expand(self) -> chain:
        return chain(
            scale_by_adam.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )


class adamw_tf1(Optimizer):
    """The `tf.contrib.opt.AdamWOptimizer` of TensorFlow 1: the learning rate does not multiply the weight decay.

        θ ← θ − η u − λ θ

    where u is the update of `scale_by_adam` with `eps_hat`. This is Algorithm 2 of Loshchilov & Hutter, 2017, with a
    schedule multiplier of 1. https://arxiv.org/abs/1711.05101
    """

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    weight_decay: NonNegative
    "Share λ of the parameters that each step takes away; 1e-5 to 1e-4 are usual."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    mask: Mask = None
    "The leaves to decay, all by default."

    def expand(self) -> chain:
        return chain(
            scale_by_adam.of(self, eps_hat=True),
            scale_by_learning_rate.of(self),
            decay_weights(self.weight_decay, self.mask),
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
    "Like the parameters, real: the largest `nu` so far, debiased if that is done before the maximum is taken."


class scale_by_amsgrad(Leafwise):
    """Adam whose denominator never shrinks.

        m ← β₁ m + (1 − β₁) g         m̂ = m / (1 − β₁ᵗ)
        v ← β₂ v + (1 − β₂) |g|²      v̂ ← max(v̂, v / (1 − β₂ᵗ))
        u = m̂ / (√(v̂ + ε₀) + ε)

    Reddi, Kale & Kumar, 2018, https://arxiv.org/abs/1904.09237. The bias is corrected before the maximum, as in optax.
    Torch takes the maximum of the uncorrected v and corrects that (`correct_maximum`), v̂ ← max(v̂, v) and
    u = m̂ / (√(v̂ / (1 − β₂ᵗ) + ε₀) + ε), which differs in the first steps. Keras does so with `eps_hat`.
    """

    State = ScaleByAmsgradState

    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    eps_root: NonNegative = scale_by_adam.eps_root
    mu_dtype: DType | None = scale_by_adam.mu_dtype
    bias_correction_mu: Flag = True
    "Whether to debias the first moment, m / (1 − β₁ᵗ)."
    bias_correction_nu: Flag = True
    "Whether to debias the second moment, v / (1 − β₂ᵗ)."
    correct_maximum: Flag = False
    "Whether to debias the maximum, as torch does, rather than the moment of which it is taken."
    eps_hat: Flag = scale_by_adam.eps_hat

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        return zeros(param, self.mu_dtype), jnp.real(zeros(param)), jnp.real(zeros(param))

    def leaf(self, g: Array, mu: Array, nu: Array, nu_max: Array, *, t: Array) -> tuple[Array, Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        nu = ema(nu, abs_sq(g), self.b2)
        corrected = unbiased if self.bias_correction_nu else lambda v, *_: v
        if self.correct_maximum:
            nu_max = jnp.maximum(nu_max, nu)
            largest = corrected(nu_max, self.b2, t)
        else:
            largest = nu_max = jnp.maximum(nu_max, corrected(nu, self.b2, t))
        mean = unbiased(mu, self.b1, t) if self.bias_correction_mu else mu
        eps = _corrected_eps(self.eps, self.b2, t) if self.eps_hat and self.bias_correction_nu else self.eps
        return quotient(mean, sqrt(largest + self.eps_root) + eps, self.eps), mu, nu, nu_max


class amsgrad(Optimizer):
    """AMSGrad: `scale_by_amsgrad`, then a step of size `learning_rate`."""

    learning_rate: Rate
    "Step size; 1e-3 is usual."
    b1: Decay = scale_by_amsgrad.b1
    b2: Decay = scale_by_amsgrad.b2
    eps: NonNegative = scale_by_amsgrad.eps
    eps_root: NonNegative = scale_by_amsgrad.eps_root
    mu_dtype: DType | None = scale_by_amsgrad.mu_dtype
    bias_correction_mu: Flag = scale_by_amsgrad.bias_correction_mu
    bias_correction_nu: Flag = scale_by_amsgrad.bias_correction_nu
    correct_maximum: Flag = scale_by_amsgrad.correct_maximum
    eps_hat: Flag = scale_by_amsgrad.eps_hat

    def expand(self) -> chain:
        moments = scale_by_amsgrad.of(self)
        return chain(moments, scale_by_learning_rate.of(self))
