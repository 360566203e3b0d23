"""Mechanic: the scale of another optimizer's updates is learned while training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import dtypes, norms, numerics
from gradtx.core.compose import Container, Inner
from gradtx.core.hyperparams import NonNegative, Positive, PositiveInt
from gradtx.core.run import init_stage, update_stage
from gradtx.core.tree import Tree, choose
from gradtx.wrappers.common import copy

__all__ = ["MechanicState", "mechanize"]


class MechanicState(NamedTuple):
    """The state of `mechanize`. Vectors have an element for each of the decay rates β."""

    base_optimizer_state: Any
    "The state of the base optimizer."
    count: Array
    "int32[]: updates made so far."
    r: Array
    "float32[n]: the rewards."
    m: Array
    "float32[n]: the largest |h| so far, decaying."
    v: Array
    "float32[n]: the sums of h², decaying."
    s: Array
    "float32[n]: the scales, whose sum multiplies Δ."
    x0: Tree
    "Like the parameters: their values before the first update."
    delta: Tree
    "Like the parameters: the sum Δ of the base optimizer's updates."


class mechanize(Container):
    """Learn the factor by which the updates of another optimizer are to be multiplied: Mechanic.

        u = base(g),   θ' = θ + u
        h = ⟨Δ, g + λ (Σs) ‖g‖ / (‖θ'‖ + ε) θ'⟩                    over the whole tree
        m ← max(β m, |h|),   v ← β² v + h²,   r ← max(β r − s h, 0)       for each β = 1 − 10⁻ᵏ, k = 1 … n
        s ← (m s₀ / n + r) / (√v + ε)
        Δ ← Δ + u
        θ ← θ₀ + (Σs) Δ

    Give the base optimizer a learning rate of 1, or a schedule whose largest value is 1. A leaf in which an inner
    product or a norm is not finite does not count in it. Needs the parameters.

    It computes what the authors' code for torch does when that stores Δ. optax's version takes θ rather than θ' in h,
    bounds |h| by the m before, has s₀ = 1e-6, and finds Δ anew as (θ − θ₀) / (Σs + ε), which as long as Σs is tiny is
    mostly rounding.

    Cutkosky, Defazio & Mehta, 2023, Algorithm 1. https://arxiv.org/abs/2306.00144

    >>> import gradtx
    >>> tx = mechanize(gradtx.adamw(gradtx.cosine_decay_schedule(1.0, 1000)))
    """

    State = MechanicState
    touches_leaves = True
    elementwise = False

    base_optimizer: Inner
    "The optimizer whose updates to scale."
    weight_decay: NonNegative = 1e-2
    "Strength λ of a regularization that keeps the scale from growing; 1e-2 is usual. It is no decay of the parameters."
    eps: NonNegative = 1e-8
    "ε, added to denominators; 1e-8 is usual."
    s_init: Positive = 1e-8
    "The first scale s₀, which should be too small rather than too large; 1e-8 is usual."
    num_betas: PositiveInt = 6
    "Number n of decay rates 0.9, 0.99, …, each with a scale of its own; 6 is usual."

    def init_fn(self, params: Tree) -> MechanicState:
        base_state = init_stage(self.base_optimizer, params)
        r, m, v, s = (jnp.full(self.num_betas, x, norms.total_dtype(params)) for x in (0.0, 1e-6, 0.0, 0.0))
        delta = jax.tree.map(numerics.zeros, params)
        return MechanicState(base_state, numerics.counter(), r, m, v, s, copy(params), delta)

    def update_fn(self, updates: Tree, state: MechanicState, params: Tree, **extra: Any) -> tuple[Tree, MechanicState]:
        steps, base_state = update_stage(self.base_optimizer, updates, state.base_optimizer_state, params, extra)
        h = self._inner_product(updates, steps, state, params)
        r, m, v, s = self._tuned(h, state)
        x0 = choose(state.count == 0, copy(params), state.x0)
        scale = jnp.sum(s)

        def move(x0: Array, delta: Array, step: Array, param: Array) -> tuple[Array, Array]:
            leaves = [dtypes.upcast(x) for x in (x0, delta, step, param)]
            widest = np.result_type(*(x.dtype for x in leaves))
            x0, delta, step, param = (x.astype(widest) for x in leaves)
            delta = delta + numerics.after(step, scale)
            return x0 + dtypes.scaled(scale, delta) - param, delta

        leaves, treedef = jax.tree.flatten(params)
        slots = zip(jax.tree.leaves(x0), jax.tree.leaves(state.delta), jax.tree.leaves(steps), leaves, strict=True)
        pairs = [move(*own) for own in slots]
        new, delta = (treedef.unflatten([pair[i] for pair in pairs]) for i in range(2))
        return new, MechanicState(base_state, numerics.increment(state.count), r, m, v, s, x0, delta)

    def _inner_product(self, updates: Tree, steps: Tree, state: MechanicState, params: Tree) -> Array:
        """h"""
        dtype = state.s.dtype
        decay, eps = (jnp.asarray(x, dtype) for x in (self.weight_decay, self.eps))
        size = numerics.sqrt(norms.total(lambda x, u: numerics.abs_sq(x + u), dtype, params, steps))
        share = decay * jnp.sum(state.s) * norms.finite_norm(updates).astype(dtype)
        pull = numerics.quotient(share, size + eps, self.eps)

        def along(delta: Array, g: Array, x: Array, u: Array) -> Array:
            return jnp.real(jnp.conj(delta) * (g + dtypes.scaled(pull, x + u)))

        return norms.total(along, dtype, state.delta, updates, params, steps)

    def _tuned(self, h: Array, state: MechanicState) -> tuple[Array, Array, Array, Array]:
        """The new rewards, maxima, sums of squares and scales."""
        betas = jnp.asarray([1 - 0.1**k for k in range(1, self.num_betas + 1)], h.dtype)
        s_init, eps = (jnp.asarray(x, h.dtype) for x in (self.s_init, self.eps))
        m = jnp.maximum(betas * state.m, jnp.abs(h))
        v = betas**2 * state.v + h * h
        r = jnp.maximum(betas * state.r - state.s * h, 0)
        return r, m, v, numerics.quotient(m * (s_init / self.num_betas) + r, numerics.sqrt(v) + eps, self.eps)
