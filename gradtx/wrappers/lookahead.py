"""Lookahead: slow weights that follow the fast ones of another optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.compose import Container, Inner
from gradtx.core.hyperparams import Flag, Fraction, PositiveInt
from gradtx.core.run import init_stage, update_stage
from gradtx.core.tree import Tree, choose
from gradtx.wrappers.averaging import overlay
from gradtx.wrappers.common import copy

__all__ = ["LookaheadState", "lookahead"]


class LookaheadState(NamedTuple):
    """The state of `lookahead`."""

    fast_state: Any
    "The state of the fast optimizer."
    steps_since_sync: Array
    "int32[]: updates since the slow weights moved."
    slow: Tree
    "Like the parameters: the slow weights."

    def eval_params(self, params: Tree) -> Tree:
        """The slow weights, in the dtypes of the parameters."""
        return overlay(self.slow, params)


class lookahead(Container):
    """Let an optimizer run ahead for k steps, then go a part of its way.

        θ ← θ + u,  u = fast(g)                    in each step
        φ ← φ + α (θ − φ),  θ ← φ                  in every k-th

    The slow weights φ begin at the initial parameters and live in the state, so the parameters are plain parameters:
    the updates make them follow. (optax keeps both in pairs, `LookaheadParams`.) `eval_params` gives φ.

    Zhang, Lucas, Hinton & Ba, 2019, Algorithm 1. https://arxiv.org/abs/1907.08610. Needs the parameters.
    """

    State = LookaheadState
    touches_leaves = True

    fast_optimizer: Inner
    "The optimizer of the fast weights, which runs ahead."
    sync_period: PositiveInt
    "Number k of fast steps to each step of the slow weights; 5 to 10 are usual."
    slow_step_size: Fraction
    "Part α of the way that the slow weights go; 0.5 is usual."
    reset_state: Flag = False
    "Whether the fast optimizer forgets its state when the slow weights move."

    def init_fn(self, params: Tree) -> LookaheadState:
        return LookaheadState(init_stage(self.fast_optimizer, params), numerics.counter(), copy(params))

    def update_fn(
        self, updates: Tree, state: LookaheadState, params: Tree, **extra: Any
    ) -> tuple[Tree, LookaheadState]:
        fast, fast_state = update_stage(self.fast_optimizer, updates, state.fast_state, params, extra)
        steps = numerics.increment(state.steps_since_sync)
        sync = steps >= self.sync_period

        fast = dtypes.cast_like(fast, state.slow)
        at = dtypes.cast_like(params, state.slow)
        new = jax.tree.map(lambda slow, param, u: self._follow(sync, slow, param, u), state.slow, at, fast)
        slow = choose(sync, jax.tree.map(jnp.add, at, new), state.slow)
        if self.reset_state:
            fast_state = choose(sync, init_stage(self.fast_optimizer, params), fast_state)
        return new, LookaheadState(fast_state, jnp.where(sync, 0, steps), slow)

    def _follow(self, sync: Array, slow: Array, param: Array, u: Array) -> Array:
        """The update: the fast optimizer's, or what leads to the new slow weights."""
        target = slow + jnp.asarray(self.slow_step_size, slow.dtype) * (param + u - slow)
        return jnp.where(sync, target - param, u)
