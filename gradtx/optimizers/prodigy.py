"""Prodigy: AdamW that finds its step size by an estimate of the distance to the solution."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import norms
from gradtx.core.compose import Optimizer
from gradtx.core.dtypes import scaled, upcast
from gradtx.core.hyperparams import (
    AtLeastOneOrInfinity,
    Decay,
    DecayPair,
    Flag,
    NonNegative,
    Positive,
    Rate,
)
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, zeros
from gradtx.core.tree import Tree
from gradtx.optimizers.adam import step_correction

__all__ = ["ProdigyState", "prodigy", "scale_by_prodigy"]


class ProdigyState(NamedTuple):
    """The moments of Prodigy, and what its estimate of the distance is made of."""

    exp_avg: Tree
    "Like the parameters: running mean of the gradient, times the estimate d of its step."
    exp_avg_sq: Tree
    "Like the parameters, real: running mean of the squared gradient, times d²."
    grad_sum: Tree
    "Like the parameters: weighted sum of the gradients."
    params0: Tree
    "Like the parameters: their values at `init`."
    estim_lr: Array
    "float32[]: the estimate d of the distance to the solution, by which the learning rate is multiplied."
    numerator_weighted: Array
    "float32[]: weighted sum of the inner products ⟨g, θ₀ − θ⟩."
    count: Array
    "int32[]: updates made so far."
    max_estim_lr: Array
    "float32[]: the largest estimate so far, which d follows as fast as `growth_rate` allows."


class scale_by_prodigy(Leafwise):
    """Adam's direction times an estimate d of the distance to the solution, which begins tiny and only grows.

        γ = d η,   with `use_bias_correction`  γ = d η √(1 − β₂ᵗ) / (1 − β₁ᵗ)
        r ← β₃ r + (d / d₀) γ ⟨g, θ₀ − θ⟩
        s ← β₃ s + (d / d₀) γ g,   with `safeguard_warmup`  s ← β₃ s + (d / d₀) d g
        m ← β₁ m + (1 − β₁) d g
        v ← β₂ v + (1 − β₂) d² |g|²
        d ← max(d, c r / ‖s‖₁)
        u = −γ (m / (√v + d ε) + λ θ)

    The sums ⟨g, θ₀ − θ⟩ and ‖s‖₁ are over the whole tree; a leaf in which they are not finite does not count. The
    updates are whole steps, which must not be scaled again. As long as s is zero, because every gradient or rate was,
    the parameters and d stay as they are, and an update at a rate of 0 makes no step. Needs the parameters.

    It computes what the authors' code does, which has no bias correction unless asked; optax always has it, and is NaN
    after a rate of 0 or zero gradients at the beginning.

    Mishchenko & Defazio, 2023, the form for Adam. https://arxiv.org/abs/2306.06101
    """

    State = ProdigyState
    observed = ("estim_lr", "numerator_weighted", "max_estim_lr")
    reported = {"count": "steps", "estim_lr": "estim_lr"}
    context = Leafwise.context | {"last_estim_lr", "step_size", "weight"}
    elementwise = False

    learning_rate: Rate = 1.0
    "Factor η of the estimated step size; 1, or a schedule that decays from 1 to 0, after a warm-up if need be."
    betas: DecayPair = (0.9, 0.999)
    "Decay rates (β₁, β₂) of the two moments; (0.9, 0.999) are usual."
    beta3: Decay | None = None
    "Decay rate β₃ of the sums that d is made of; √β₂ by default."
    eps: NonNegative = 1e-8
    "ε, added to the denominator, multiplied by d; 1e-8 is usual."
    estim_lr0: Positive = 1e-6
    "The first estimate d₀, which should be too small rather than too large; 1e-6 is usual."
    estim_lr_coef: Positive = 1.0
    "Factor c of the estimates; 0.5 to 2 are usual, and it is the first to tune."
    weight_decay: NonNegative = 0.0
    "Strength λ of the decoupled weight decay, multiplied by the step size; 1e-2 is usual."
    safeguard_warmup: Flag = False
    "Whether to leave the learning rate out of s, so that a long warm-up does not make the estimates too large."
    use_bias_correction: Flag = False
    "Whether steps have Adam's bias correction; without it the first ones are longer."
    growth_rate: AtLeastOneOrInfinity | None = None
    "The largest factor by which d grows in an update, once it has left d₀; 1.02 is usual, `None` is no limit."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        first = jnp.asarray(self.estim_lr0, norms.total_dtype(params))
        return {"estim_lr": first, "numerator_weighted": jnp.zeros_like(first), "max_estim_lr": first}

    def observe(self, updates: Tree, state: ProdigyState, *, params: Tree) -> dict[str, Array]:
        d, dtype = state.estim_lr, state.estim_lr.dtype
        step_size = d * self.learning_rate
        if self.use_bias_correction:
            step_size = step_size * step_correction(self.betas, state.count.astype(dtype) + 1)
        growth = d / self.estim_lr0
        weight = growth * (d if self.safeguard_warmup else step_size)
        along = norms.total(_along, dtype, updates, state.params0, params)
        numerator = self._b3 * state.numerator_weighted + growth * step_size * along
        norm = norms.total_of_slot(lambda g, s: jnp.abs(self._grad_sum(g, s, weight)), dtype, updates, state.grad_sum)
        has_moved = norm > 0
        estimate = self.estim_lr_coef * numerator / jnp.where(has_moved, norm, 1)
        largest = jnp.maximum(state.max_estim_lr, jnp.where(has_moved, estimate, 0))
        return {
            "estim_lr": self._limited(d, jnp.where(has_moved, estimate, 0), largest),
            "numerator_weighted": numerator,
            "max_estim_lr": largest,
            "last_estim_lr": d,
            "step_size": jnp.where(has_moved, step_size, 0),
            "weight": weight,
        }

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array, Array]:
        return zeros(param), jnp.real(zeros(param)), zeros(param), jnp.array(upcast(param), copy=True)

    def leaf(
        self,
        g: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        grad_sum: Array,
        params0: Array,
        *,
        last_estim_lr: Array,
        estim_lr: Array,
        step_size: Array,
        weight: Array,
        param: Array,
    ) -> tuple[Array, Array, Array, Array, Array]:
        b1, b2 = self.betas
        exp_avg = ema(exp_avg, scaled(last_estim_lr, g), b1)
        exp_avg_sq = ema(exp_avg_sq, last_estim_lr**2 * abs_sq(g), b2)
        direction = quotient(exp_avg, sqrt(exp_avg_sq) + estim_lr * self.eps, None)
        update = scaled(-step_size, direction + scaled(self.weight_decay, param))
        return update, exp_avg, exp_avg_sq, self._grad_sum(g, grad_sum, weight), params0

    def _grad_sum(self, g: Array, grad_sum: Array, weight: Array) -> Array:
        """The new s."""
        return scaled(self._b3, grad_sum) + scaled(weight, g)

    @property
    def _b3(self) -> Any:
        """β₃"""
        return self.betas[1] ** 0.5 if self.beta3 is None else self.beta3

    def _limited(self, d: Array, estimate: Array, largest: Array) -> Array:
        """The new d, which follows the largest estimate. The first estimate above d₀ is taken at once."""
        if self.growth_rate is None:
            return largest
        first = jnp.asarray(self.estim_lr0, d.dtype)
        d = jnp.where(d == first, jnp.maximum(d, estimate), d)
        return jnp.minimum(largest, d * self.growth_rate)


def _along(g: Array, params0: Array, param: Array) -> Array:
    """The summand of Re⟨g, θ₀ − θ⟩."""
    return jnp.real(jnp.conj(g) * (params0 - param))


class prodigy(Optimizer):
    """AdamW whose step size is found by Prodigy: `scale_by_prodigy`, whose updates are whole steps.

    Leave the learning rate at 1, or let it decay from 1 to 0.

    >>> import gradtx
    >>> tx = gradtx.prodigy(gradtx.cosine_decay_schedule(1.0, 1000))
    """

    learning_rate: Rate = scale_by_prodigy.learning_rate
    betas: DecayPair = scale_by_prodigy.betas
    beta3: Decay | None = scale_by_prodigy.beta3
    eps: NonNegative = scale_by_prodigy.eps
    estim_lr0: Positive = scale_by_prodigy.estim_lr0
    estim_lr_coef: Positive = scale_by_prodigy.estim_lr_coef
    weight_decay: NonNegative = scale_by_prodigy.weight_decay
    safeguard_warmup: Flag = scale_by_prodigy.safeguard_warmup
    use_bias_correction: Flag = scale_by_prodigy.use_bias_correction
    growth_rate: AtLeastOneOrInfinity | None = scale_by_prodigy.growth_rate

    def expand(self) -> scale_by_prodigy:
        return scale_by_prodigy.of(self)
