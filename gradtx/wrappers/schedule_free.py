"""Schedule-free optimization: averaging instead of a decaying learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.compose import Container, Inner
from gradtx.core.hyperparams import DType, Flag, NonNegative, PositiveFraction, Rate
from gradtx.core.run import init_stage, update_stage
from gradtx.core.tree import Tree
from gradtx.wrappers.averaging import eval_params, overlay
from gradtx.wrappers.common import copy

__all__ = ["ScheduleFreeState", "schedule_free", "schedule_free_eval_params"]


class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`."""

    b1: Array
    "float32[]: the β with which x and z were last mixed."
    weight_sum: Array
    "float32[]: the sum of the weights of the average."
    step_count: Array
    "int32[]: updates made so far."
    max_lr: Array
    "float32[]: the largest learning rate so far."
    base_optimizer_state: Any
    "The state of the base optimizer."
    z: Tree
    "Like the parameters: the point z of the base optimizer."

    def eval_params(self, params: Tree) -> Tree:
        """The average x = (y − (1 − β) z) / β, in the dtypes of the parameters y."""
        beyond = 1 / self.b1 - 1

        def average(z: Array, y: Array) -> Array:
            return y + beyond.astype(numerics.real_dtype(z.dtype)).astype(z.dtype) * (y - z)

        return overlay(self.z, params, average)


class schedule_free(Container):
    """Run a base optimizer without momentum; train where its path z and the average x of it mix, evaluate at x.

        y = (1 − β) z + β x                  the parameters: gradients are taken here
        z ← z + base(g)
        x ← (1 − c) x + c z,   c = w / Σ w,   w = tʳ (max η)ᵖ
        together  u = c (z − y) + (1 − β) (1 − c) base(g)

    The learning rate may warm up and need not decay. Give it to the base optimizer *and* here, where it weighs the
    average: steps of size 0 do not count. **Evaluate and save** `eval_params(state, params)`, not `params`; batch
    statistics must be taken at those, too. β takes the place of momentum: give the base optimizer none.

    The schedule of the learning rate is evaluated at the same step as the base optimizer's; optax takes the next one.

    Defazio et al., 2024, Algorithm 1. https://arxiv.org/abs/2405.15682. Needs the parameters.
    """

    State = ScheduleFreeState
    clock = "step_count"
    touches_leaves = True

    base_optimizer: Inner
    "An optimizer without momentum, with its learning rate."
    learning_rate: Rate
    "Learning rate η, the same as the base optimizer's: a constant, or a schedule that warms up."
    b1: PositiveFraction = 0.9
    "Share β of the average in the point where gradients are taken; 0.9 to 0.98 are usual."
    weight_lr_power: NonNegative = 2.0
    "Power p of the learning rate in the weights of the average; the paper's is 2."
    state_dtype: DType | None = None
    "Dtype of z; by default that of the computation."
    r: NonNegative = 0.0
    "Power r of the step in the weights of the average; 0 is usual, above it late steps count more."
    base_at_z: Flag = False
    "Whether the base optimizer is shown z for the parameters, and decays that, rather than y."

    def init_fn(self, params: Tree) -> ScheduleFreeState:
        z = jax.tree.map(lambda x: x.astype(self.state_dtype or x.dtype), copy(params))
        b1, weight_sum, max_lr = (jnp.asarray(x, jnp.float32) for x in (self.b1, 0, 0))
        base_state = init_stage(self.base_optimizer, params)
        return ScheduleFreeState(b1, weight_sum, numerics.counter(), max_lr, base_state, z)

    def update_fn(
        self, updates: Tree, state: ScheduleFreeState, params: Tree, **extra: Any
    ) -> tuple[Tree, ScheduleFreeState]:
        shown = dtypes.cast_like(state.z, params) if self.base_at_z else params
        steps, base_state = update_stage(self.base_optimizer, updates, state.base_optimizer_state, shown, extra)
        count = numerics.increment(state.step_count)
        max_lr = jnp.maximum(state.max_lr, jnp.asarray(self.learning_rate, jnp.float32))
        c, weight_sum = self._share(count.astype(jnp.float32), max_lr, state.weight_sum)
        b1 = jnp.asarray(self.b1, jnp.float32)
        change = b1 / state.b1  # 1, unless β has a schedule
        towards, along = c + (1 - change) * (1 - c), (change - b1) * (1 - c)

        def mix(z: Array, y: Any, step: Array) -> tuple[Array, Array]:
            z, y = dtypes.upcast(z), dtypes.upcast(y)
            z, y, step = (x.astype(np.promote_types(z.dtype, y.dtype)) for x in (z, y, step))
            real = numerics.real_dtype(y.dtype)
            z = z + step  # XLA:CPU keeps a step that has a root, for this and for y: it computes no root twice
            return towards.astype(real).astype(y.dtype) * (z - y) + along.astype(real).astype(y.dtype) * step, z

        leaves, treedef = jax.tree.flatten(params)
        pairs = [mix(*own) for own in zip(jax.tree.leaves(state.z), leaves, jax.tree.leaves(steps), strict=True)]
        new, z = (treedef.unflatten([pair[i] for pair in pairs]) for i in range(2))
        return new, ScheduleFreeState(b1, weight_sum, count, max_lr, base_state, z)

    def _share(self, t: Array, max_lr: Array, weight_sum: Array) -> tuple[Array, Array]:
        """What part of the new average the new z is, and the sum of the weights: 0 as long as all weights are 0."""
        r, power = (jnp.asarray(x, jnp.float32) for x in (self.r, self.weight_lr_power))
        weight = t**r * max_lr**power
        weight_sum = weight_sum + weight
        return jnp.where(weight_sum > 0, weight / jnp.where(weight_sum > 0, weight_sum, 1), 0), weight_sum


def schedule_free_eval_params(state: Any, params: Tree) -> Tree:
    """`eval_params`, as optax spells it for `schedule_free`; the state may be nested in others.

    Raises:
        ValueError: nothing in `state` averages the parameters.
    """
    return eval_params(state, params)
