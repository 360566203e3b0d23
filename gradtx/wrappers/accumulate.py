"""Large batches in small pieces: update once every k gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics, tree
from gradtx.core.base import Container, Inner, Transformation, init_inner, update_inner
from gradtx.core.hyperparams import Flag, Interval
from gradtx.core.tree import Tree

__all__ = ["MultiStepsState", "accumulate"]


class MultiStepsState(NamedTuple):
    """The state of `accumulate`."""

    mini_step: Array
    "int32[]: gradients in the present window so far."
    gradient_step: Array
    "int32[]: windows finished, that is, updates of the inner transformation."
    inner_opt_state: Any
    "The inner transformation's state."
    acc_grads: Tree
    "Like the parameters: mean (or sum) of the gradients of the window."


class accumulate(Container):
    """Collect `every_k_schedule` gradients, then update once with their mean.

        ḡ ← ḡ + (g − ḡ) / n,   n = 1 … k
        u = 0 while n < k;   u = inner(ḡ), ḡ ← 0 when n = k

    Everything inside, schedules included, steps once per window. Means are kept in at least float32. For mini-batches
    of equal size the result is that of the large batch.
    """

    State = MultiStepsState
    clock = "gradient_step"
    touches_leaves = True

    inner: Inner
    "What to update once per window."
    every_k_schedule: Interval
    "Window length k: a Python int, or a schedule of it over the windows finished."
    use_grad_mean: Flag = True
    "Whether to pass on the mean of the gradients, or their sum."

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return (self.inner,)

    def init_fn(self, params: Tree) -> MultiStepsState:
        steps = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return MultiStepsState(*steps, init_inner(self.inner, params), tree.zeros_like(params))

    def update_fn(
        self, updates: Tree, state: MultiStepsState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, MultiStepsState]:
        n = state.mini_step + 1
        share = 1 / n.astype(jnp.float32) if self.use_grad_mean else 1.0
        gathered = jax.tree.map(lambda mean, g: self._gather(mean, g, share), state.acc_grads, updates)
        k = jnp.asarray(self.every_k_schedule).astype(jnp.int32)

        def emit() -> tuple[Tree, MultiStepsState]:
            new, inner_state = update_inner(self.inner, gathered, state.inner_opt_state, params, extra)
            return tree.cast_like(new, gathered), MultiStepsState(
                jnp.zeros((), jnp.int32),
                numerics.increment(state.gradient_step),
                inner_state,
                jax.tree.map(jnp.zeros_like, gathered),
            )

        def wait() -> tuple[Tree, MultiStepsState]:
            return jax.tree.map(jnp.zeros_like, gathered), state._replace(mini_step=n, acc_grads=gathered)

        return jax.lax.cond(n >= k, emit, wait)

    def _gather(self, mean: Array, g: Array, share: Any) -> Array:
        g = tree.upcast(g).astype(mean.dtype)
        difference = g - mean if self.use_grad_mean else g
        return mean + jnp.asarray(share, numerics.real_dtype(mean.dtype)).astype(mean.dtype) * difference
