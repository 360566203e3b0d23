"""MoMo and MoMo-Adam: momentum whose step size is cut where a model of the loss says that it would go too far."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import norms
from gradtx.core.check import describe
from gradtx.core.compose import Optimizer
from gradtx.core.dtypes import scaled
from gradtx.core.hyperparams import Decay, Flag, NonNegative, Number, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, again, ema, one_minus_power, quotient, sqrt, unbiased, zeros
from gradtx.core.run import name_of
from gradtx.core.substitution import anew
from gradtx.core.tree import Tree
from gradtx.optimizers.adam import scale_by_adam

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam", "scale_by_momo", "scale_by_momo_adam"]


class MomoState(NamedTuple):
    """The running means of MoMo."""

    exp_avg: Tree
    "Like the parameters: running mean of the gradient."
    barf: Array
    "float32[]: running mean of the loss."
    gamma: Array
    "float32[]: running mean of the inner product ⟨g, θ⟩ over the whole tree."
    lb: Array
    "float32[]: lower bound of the loss."
    count: Array
    "int32[]: updates made so far."


class scale_by_momo(Leafwise):
    """Momentum with a step size of at most η, cut so that a model of the loss does not fall below a lower bound of it.

        d ← β d + (1 − β) g,   f̄ ← β f̄ + (1 − β) f,   γ ← β γ + (1 − β) ⟨g, θ⟩
        τ = min(η / ρ, max((1 + η λ) (f̄ − ρ f* − γ) + ⟨d, θ⟩, 0) / ‖d‖²)
        u = (θ − τ d) / (1 + η λ) − θ

    The means begin at their first terms and ρ is 1; with `bias_correction` they begin at 0 and ρ is 1 − βᵗ. With
    `adapt_lower_bound`, f* is raised to the value of the model after each step, and lowered where it is too high. The
    sums ⟨g, θ⟩, ⟨d, θ⟩ and ‖d‖² are over the whole tree; a leaf in which they are not finite does not count.

    The updates are whole steps, which must not be scaled again. It needs the parameters and the extra argument `value`,
    the loss. It computes what the authors' code does; optax does not divide τ d by 1 + η λ.

    Schaipp et al., 2023, Algorithm 1. https://arxiv.org/abs/2305.07583
    """

    State = MomoState
    observed = ("barf", "gamma", "lb")
    reported = {"count": "steps"}
    context = Leafwise.context | {"keep", "share", "step_size", "decay"}
    elementwise = False

    learning_rate: Rate = 1.0
    "The largest step size η; 1 is usual, larger than without MoMo."
    beta: Decay = 0.9
    "Decay rate β of the running means; 0.9 is usual."
    lower_bound: Number = 0.0
    "Lower bound f* of the loss, or the first one; 0 is usual."
    weight_decay: NonNegative = 0.0
    "Strength λ of a weight decay multiplied by η; 1e-4 to 1e-2 are usual."
    adapt_lower_bound: Flag = False
    "Whether to estimate the lower bound, for losses whose least value is not known."
    bias_correction: Flag = False
    "Whether the means begin at 0 and are debiased, rather than begin at their first terms."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        return _first_observed(self.lower_bound, params)

    def observe(self, updates: Tree, state: MomoState, *, params: Tree, value: Array) -> dict[str, Array]:
        dtype = state.barf.dtype
        keep, share = self._weights(state.count == 0, dtype)
        barf = keep * state.barf + share * _loss(self, value, dtype)
        gamma = keep * state.gamma + share * norms.total(_product, dtype, updates, params)

        def mean(g: Array, d: Array) -> Array:
            return scaled(keep, d) + scaled(share, g)

        apart = again(params)  # else XLA writes half-precision parameters in float32, for this and for the step
        along = norms.total_of_slot(lambda g, d, p: _product(mean(g, d), p), dtype, updates, state.exp_avg, apart)
        square = norms.total_of_slot(lambda g, d: abs_sq(mean(g, d)), dtype, updates, state.exp_avg)
        t = state.count.astype(dtype) + 1
        rho = one_minus_power(self.beta, t) if self.bias_correction else jnp.ones((), dtype)
        model = _Model(barf, gamma, along, square, rho)
        step_size, lb = _step_size(self, model, state.lb)
        decay = jnp.asarray(self.learning_rate * self.weight_decay, dtype)
        return {
            "barf": barf,
            "gamma": gamma,
            "lb": lb,
            "keep": keep,
            "share": share,
            "step_size": step_size / (1 + decay),
            "decay": decay / (1 + decay),
        }

    def leaf(
        self, g: Array, exp_avg: Array, *, keep: Array, share: Array, step_size: Array, decay: Array, param: Array
    ) -> tuple[Array, Array]:
        exp_avg = scaled(keep, exp_avg) + scaled(share, g)
        return -scaled(step_size, exp_avg) - scaled(decay, param), exp_avg

    def _weights(self, is_first: Array, dtype: Any) -> tuple[Array, Array]:
        """The weights of the old mean and of the new term."""
        keep, share = jnp.asarray(self.beta, dtype), jnp.asarray(1 - self.beta, dtype)
        if self.bias_correction:
            return keep, share
        return jnp.where(is_first, 0, keep), jnp.where(is_first, 1, share)


class MomoAdamState(NamedTuple):
    """The running means of MoMo-Adam."""

    exp_avg: Tree
    "Like the parameters: running mean of the gradient."
    exp_avg_sq: Tree
    "Like the parameters, real: running mean of the squared gradient."
    barf: Array
    "float32[]: running mean of the loss."
    gamma: Array
    "float32[]: running mean of the inner product ⟨g, θ⟩ over the whole tree."
    lb: Array
    "float32[]: lower bound of the loss."
    count: Array
    "int32[]: updates made so far."


class scale_by_momo_adam(Leafwise):
    """Adam with a step size of at most η, cut so that a model of the loss does not fall below a lower bound of it.

        d ← β₁ d + (1 − β₁) g,   f̄ ← β₁ f̄ + (1 − β₁) f,   γ ← β₁ γ + (1 − β₁) ⟨g, θ⟩
        v ← β₂ v + (1 − β₂) |g|²,   D = √(v / (1 − β₂ᵗ)) + ε,   ρ = 1 − β₁ᵗ
        τ = min(η / ρ, max((1 + η λ) (f̄ − ρ f* − γ) + ⟨d, θ⟩, 0) / ⟨d, d / D⟩)
        u = (θ − τ d / D) / (1 + η λ) − θ,   or with `divide=False`  −η λ θ − τ d / D

    With `adapt_lower_bound`, f* is raised to the value of the model after each step, and lowered where it is too high.
    The inner products are over the whole tree; a leaf in which they are not finite does not count.

    The updates are whole steps, which must not be scaled again. It needs the parameters and the extra argument `value`,
    the loss. It computes what the authors' code does; optax does not divide τ d / D by 1 + η λ.

    Schaipp et al., 2023, Algorithm 2. https://arxiv.org/abs/2305.07583
    """

    State = MomoAdamState
    observed = ("barf", "gamma", "lb")
    reported = {"count": "steps"}
    context = Leafwise.context | {"step_size", "decay"}
    elementwise = False

    learning_rate: Rate = 1e-2
    "The largest step size η; 1e-2 is usual, larger than without MoMo."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    lower_bound: Number = scale_by_momo.lower_bound
    weight_decay: NonNegative = scale_by_momo.weight_decay
    adapt_lower_bound: Flag = scale_by_momo.adapt_lower_bound
    divide: Flag = True
    "Whether to decay by a division by 1 + η λ, rather than subtract η λ θ as AdamW does."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        return _first_observed(self.lower_bound, params)

    def observe(self, updates: Tree, state: MomoAdamState, *, params: Tree, value: Array) -> dict[str, Array]:
        dtype = state.barf.dtype
        t = state.count.astype(dtype) + 1
        barf = ema(state.barf, _loss(self, value, dtype), self.b1)
        gamma = ema(state.gamma, norms.total(_product, dtype, updates, params), self.b1)

        def energy(d: Array, v: Array) -> Array:
            return quotient(abs_sq(d), self._root(v, t), self.eps)

        means = updates, state.exp_avg
        along = norms.total_of_slot(lambda g, d, p: _product(ema(d, g, self.b1), p), dtype, *means, again(params))
        square = norms.total_of_slot(
            lambda g, d, v: anew(energy)(ema(d, g, self.b1), ema(v, abs_sq(g), self.b2)),
            dtype,
            *means,
            state.exp_avg_sq,
        )
        model = _Model(barf, gamma, along, square, one_minus_power(self.b1, t))
        step_size, lb = _step_size(self, model, state.lb)
        decay = jnp.asarray(self.learning_rate * self.weight_decay, dtype)
        growth = 1 + decay if self.divide else jnp.ones((), dtype)
        return {"barf": barf, "gamma": gamma, "lb": lb, "step_size": step_size / growth, "decay": decay / growth}

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param), jnp.real(zeros(param))

    def leaf(
        self, g: Array, exp_avg: Array, exp_avg_sq: Array, *, t: Array, step_size: Array, decay: Array, param: Array
    ) -> tuple[Array, Array, Array]:
        exp_avg = ema(exp_avg, g, self.b1)
        exp_avg_sq = ema(exp_avg_sq, abs_sq(g), self.b2)
        step = scaled(step_size, quotient(exp_avg, self._root(exp_avg_sq, t), self.eps))
        return -step - scaled(decay, param), exp_avg, exp_avg_sq

    def _root(self, exp_avg_sq: Array, t: Array) -> Array:
        """D"""
        return sqrt(unbiased(exp_avg_sq, self.b2, t)) + self.eps


class _Model(NamedTuple):
    """What the model of the loss is made of: running means and inner products, and the sum ρ of the means' weights."""

    barf: Array
    gamma: Array
    along: Array
    square: Array
    rho: Array


def _first_observed(lower_bound: Any, params: Tree) -> dict[str, Array]:
    lb = jnp.asarray(lower_bound, norms.total_dtype(params))
    return {"barf": jnp.zeros_like(lb), "gamma": jnp.zeros_like(lb), "lb": lb}


def _loss(tx: Leafwise, value: Any, dtype: Any) -> Array:
    """The extra argument `value`, if it is a real scalar."""
    value = jnp.asarray(value)
    if value.shape != () or jnp.iscomplexobj(value):
        raise ValueError(f"{name_of(tx)}: value must be a real scalar, the mean loss say, got {describe(value)}")
    return value.astype(dtype)


def _step_size(tx: scale_by_momo | scale_by_momo_adam, model: _Model, lb: Array) -> tuple[Array, Array]:
    """τ, and the next lower bound."""
    barf, gamma, along, square, rho = model
    growth = 1 + tx.learning_rate * tx.weight_decay
    height, least = growth * (barf - gamma) + along, jnp.asarray(tx.lower_bound, lb.dtype)
    if tx.adapt_lower_bound:
        lb = jnp.where(height < growth * rho * lb, jnp.maximum(height / (2 * growth * rho), least), lb)
    gap = jnp.maximum(height - growth * rho * lb, 0)
    limit = tx.learning_rate / rho
    is_whole = (gap >= limit * square) & (gap > 0)  # compared without a division, because the square may be 0
    step_size = jnp.where(is_whole, limit, gap / jnp.where(square > 0, square, 1))
    if tx.adapt_lower_bound:
        lb = jnp.maximum((barf + along - gamma - step_size * square / 2) / rho, least)
    return step_size, lb


def _product(x: Array, y: Array) -> Array:
    """The summand of Re⟨x, y⟩."""
    return jnp.real(jnp.conj(x) * y)


class momo(Optimizer):
    """Momentum with the step sizes of MoMo: `scale_by_momo`, whose updates are whole steps.

    It needs the extra argument `value`, the loss.

    >>> import gradtx
    >>> tx = momo()
    >>> params = jnp.array([3.0, 4.0])
    >>> tx.update(2 * params, tx.init(params), params, value=25.0)[0]
    Array([-1.5, -2. ], dtype=float32)
    """

    learning_rate: Rate = scale_by_momo.learning_rate
    beta: Decay = scale_by_momo.beta
    lower_bound: Number = scale_by_momo.lower_bound
    weight_decay: NonNegative = scale_by_momo.weight_decay
    adapt_lower_bound: Flag = scale_by_momo.adapt_lower_bound
    bias_correction: Flag = scale_by_momo.bias_correction

    def expand(self) -> scale_by_momo:
        return scale_by_momo.of(self)


class momo_adam(Optimizer):
    """Adam with the step sizes of MoMo: `scale_by_momo_adam`, whose updates are whole steps.

    It needs the extra argument `value`, the loss.
    """

    learning_rate: Rate = scale_by_momo_adam.learning_rate
    b1: Decay = scale_by_momo_adam.b1
    b2: Decay = scale_by_momo_adam.b2
    eps: NonNegative = scale_by_momo_adam.eps
    lower_bound: Number = scale_by_momo_adam.lower_bound
    weight_decay: NonNegative = scale_by_momo_adam.weight_decay
    adapt_lower_bound: Flag = scale_by_momo_adam.adapt_lower_bound
    divide: Flag = scale_by_momo_adam.divide

    def expand(self) -> scale_by_momo_adam:
        return scale_by_momo_adam.of(self)
