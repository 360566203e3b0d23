"""D-Adaptation for AdamW: the step size is found by a lower bound on the distance to the solution."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import norms
from gradtx.core.compose import Optimizer
from gradtx.core.dtypes import scaled
from gradtx.core.hyperparams import AtLeastOneOrInfinity, DecayPair, Flag, NonNegative, Positive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, after, ema, quotient, sqrt, zeros
from gradtx.core.tree import Tree
from gradtx.optimizers.adam import step_correction

__all__ = ["DAdaptAdamWState", "dadapt_adamw", "scale_by_dadapt_adamw"]


class DAdaptAdamWState(NamedTuple):
    """The moments of AdamW by D-Adaptation, and what its estimate of the distance is made of."""

    exp_avg: Tree
    "Like the parameters: running mean of the gradient, times the step size of its update."
    exp_avg_sq: Tree
    "Like the parameters, real: running mean of the squared gradient."
    grad_sum: Tree
    "Like the parameters: running mean of the gradient, times the step size of its update, over a longer time."
    estim_lr: Array
    "float32[]: the estimate d of the distance to the solution, by which the learning rate is multiplied."
    numerator_weighted: Array
    "float32[]: running mean of the numerators of the estimates."
    count: Array
    "int32[]: updates made so far."


class scale_by_dadapt_adamw(Leafwise):
    """Adam's direction times an estimate d of the distance to the solution, which begins tiny and only grows.

        γ = d η,   with `use_bias_correction`  γ = d η √(1 − β₂ᵗ) / (1 − β₁ᵗ)
        r ← √β₂ r + (1 − √β₂) γ ⟨g, s / (√v + ε)⟩
        m ← β₁ m + (1 − β₁) γ g
        v ← β₂ v + (1 − β₂) |g|²
        s ← √β₂ s + (1 − √β₂) γ g
        d ← max(d, r / ((1 − √β₂) ‖s‖₁))
        u = −(m / (√v + ε) + λ γ θ)

    The sums ⟨g, s / (√v + ε)⟩ and ‖s‖₁ are over the whole tree; a leaf in which they are not finite does not count. The
    updates are whole steps, which must not be scaled again. As long as s is zero, because every gradient or rate was,
    the parameters and d stay as they are. Needs the parameters.

    It computes what the authors' code does, which has no bias correction unless asked; optax always has it, and is NaN
    after a rate of 0 or zero gradients at the beginning.

    Defazio & Mishchenko, 2023, the form for Adam. https://arxiv.org/abs/2301.07733
    """

    State = DAdaptAdamWState
    observed = ("estim_lr", "numerator_weighted")
    reported = {"count": "steps", "estim_lr": "estim_lr"}
    context = Leafwise.context | {"step_size", "decay"}
    elementwise = False

    learning_rate: Rate = 1.0
    "Factor η of the estimated step size; 1, or a schedule that decays from 1 to 0, after a warm-up if need be."
    betas: DecayPair = (0.9, 0.999)
    "Decay rates (β₁, β₂) of the two moments; (0.9, 0.999) are usual."
    eps: NonNegative = 1e-8
    "ε, added to the denominator; 1e-8 is usual."
    estim_lr0: Positive = 1e-6
    "The first estimate of the distance, which should be too small rather than too large; 1e-6 is usual."
    weight_decay: NonNegative = 0.0
    "Strength λ of the decoupled weight decay, multiplied by the step size; 1e-2 is usual."
    use_bias_correction: Flag = False
    "Whether steps have Adam's bias correction; without it the first ones are longer."
    growth_rate: AtLeastOneOrInfinity | None = None
    "The largest factor by which d grows in an update; 1.02 is usual, `None` is no limit."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        first = jnp.asarray(self.estim_lr0, norms.total_dtype(params))
        return {"estim_lr": first, "numerator_weighted": jnp.zeros_like(first)}

    def observe(self, updates: Tree, state: DAdaptAdamWState) -> dict[str, Array]:
        d, dtype = state.estim_lr, state.estim_lr.dtype
        step_size = d * self.learning_rate
        if self.use_bias_correction:
            step_size = step_size * step_correction(self.betas, state.count.astype(dtype) + 1)
        along = norms.total(self._along, dtype, updates, state.grad_sum, state.exp_avg_sq)
        step_size = after(step_size, along)
        share = 1 - self._root
        numerator = self._root * state.numerator_weighted + share * step_size * along
        norm = norms.total_of_slot(
            lambda g, s: jnp.abs(self._grad_sum(g, s, step_size)), dtype, updates, state.grad_sum
        )
        has_moved = norm > 0
        estimate = jnp.where(has_moved, numerator / (share * jnp.where(has_moved, norm, 1)), 0)
        if self.growth_rate is not None:
            estimate = jnp.minimum(estimate, d * self.growth_rate)
        return {
            "estim_lr": jnp.maximum(d, estimate),
            "numerator_weighted": numerator,
            "step_size": step_size,
            "decay": jnp.where(has_moved, self.weight_decay * step_size, 0),
        }

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        return zeros(param), jnp.real(zeros(param)), zeros(param)

    def leaf(
        self,
        g: Array,
        exp_avg: Array,
        exp_avg_sq: Array,
        grad_sum: Array,
        *,
        step_size: Array,
        decay: Array,
        param: Array,
    ) -> tuple[Array, Array, Array, Array]:
        b1, b2 = self.betas
        exp_avg = ema(exp_avg, scaled(step_size, g), b1)
        exp_avg_sq = ema(exp_avg_sq, abs_sq(after(g, step_size)), b2)
        step = quotient(exp_avg, sqrt(exp_avg_sq) + self.eps, self.eps)
        return -step - scaled(decay, param), exp_avg, exp_avg_sq, self._grad_sum(g, grad_sum, step_size)

    def _along(self, g: Array, grad_sum: Array, exp_avg_sq: Array) -> Array:
        """The summand of Re⟨g, s / (√v + ε)⟩."""
        return jnp.real(jnp.conj(g) * quotient(grad_sum, sqrt(exp_avg_sq) + self.eps, self.eps))

    def _grad_sum(self, g: Array, grad_sum: Array, step_size: Array) -> Array:
        """The new s."""
        return scaled(self._root, grad_sum) + scaled((1 - self._root) * step_size, g)

    @property
    def _root(self) -> Any:
        """√β₂"""
        return self.betas[1] ** 0.5


class dadapt_adamw(Optimizer):
    """AdamW whose step size is found by D-Adaptation: `scale_by_dadapt_adamw`, whose updates are whole steps.

    Leave the learning rate at 1, or let it decay from 1 to 0. `prodigy` finds the step size faster.

    >>> import gradtx
    >>> tx = gradtx.dadapt_adamw(gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 50, 1000))
    """

    learning_rate: Rate = scale_by_dadapt_adamw.learning_rate
    betas: DecayPair = scale_by_dadapt_adamw.betas
    eps: NonNegative = scale_by_dadapt_adamw.eps
    estim_lr0: Positive = scale_by_dadapt_adamw.estim_lr0
    weight_decay: NonNegative = scale_by_dadapt_adamw.weight_decay
    use_bias_correction: Flag = scale_by_dadapt_adamw.use_bias_correction
    growth_rate: AtLeastOneOrInfinity | None = scale_by_dadapt_adamw.growth_rate

    def expand(self) -> scale_by_dadapt_adamw:
        return scale_by_dadapt_adamw.of(self)
