"""What Keras's optimizers do around and between the transformations that there are: the rest of their chains."""

import re
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.apply import apply_updates
from gradtx.core.compose import Container, Inner, chain
from gradtx.core.hyperparams import Flag, Fraction, NonNegative, NonNegativeInt, PositiveInt, Rate, is_schedule
from gradtx.core.run import init_stage, update_stage
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree, choose
from gradtx.masks.masks import Mask, check_mask, mask_leaves
from gradtx.masks.rules import LeafRule
from gradtx.schedules.base import AnySchedule, Count, Schedule, value_of
from gradtx.schedules.basic import inverse_time_decay
from gradtx.wrappers.common import copy
from gradtx.wrappers.finite import DynamicLossScaleState, dynamic_loss_scale

__all__ = [
    "KerasEmaState",
    "count_skipped",
    "counting_from",
    "decay_first",
    "excluding",
    "keras_ema",
    "matrices_for_muon",
    "schedule_of_microsteps",
    "schedule_with_decay",
    "schedule_with_warmup",
]


class decay_first(Container, name="keras.decay_first"):
    """Decay the parameters, then update what they have become.

        θ′ = θ − η λ θ
        θ ← θ′ + inner(g; θ′)

    Beside an inner transformation that does not look at the parameters, such as Adam, that is AdamW. Lamb, Adafactor
    and others see the decayed parameters, as in Keras. Loshchilov & Hutter, 2017. https://arxiv.org/abs/1711.05101
    """

    State = None
    touches_leaves = True
    takes_half_precision = False

    inner: Inner
    "The optimizer that sees the decayed parameters."
    weight_decay: NonNegative
    "λ: the share of a parameter that decays, in units of the learning rate; 1e-4 to 1e-2 are usual."
    learning_rate: Rate = 1.0
    "η: a number or a schedule, that of the optimizer."
    mask: Mask = None
    "The leaves to decay, all by default."

    def init_fn(self, params: Tree) -> Any:
        check_mask("decay_first: mask", self.mask, params)
        return init_stage(self.inner, params)

    def update_fn(self, updates: Tree, state: Any, params: Tree, **extra: Any) -> tuple[Tree, Any]:
        leaves, treedef = jax.tree.flatten(params)
        shrink = jnp.asarray(self.learning_rate, jnp.float32) * self.weight_decay
        decays = [
            -shrink.astype(numerics.real_dtype(leaf.dtype)) * leaf if decayed else jnp.zeros_like(leaf)
            for leaf, decayed in zip(leaves, mask_leaves("decay_first: mask", self.mask, params), strict=True)
        ]
        decays = treedef.unflatten(decays)
        new, state = update_stage(self.inner, updates, state, jax.tree.map(jnp.add, params, decays), extra)
        return jax.tree.map(jnp.add, new, decays), state


class excluding(LeafRule, name="keras.excluding"):
    """The mask that leaves out some variables: those of these paths, and those in whose last name a pattern occurs.

    >>> excluding(patterns=("bias",))({"dense": {"bias": 1.0, "kernel": 2.0}})
    {'dense': {'bias': False, 'kernel': True}}
    """

    paths: tuple[str, ...] = ()
    "Whole paths, `dense/kernel`."
    patterns: tuple[str, ...] = ()
    "Regular expressions, searched in the last part of the path."

    def verdicts(self, where: str, names: list[str], leaves: list[Any]) -> list[bool]:
        """Whether a leaf is not among them."""
        last = [name.rpartition("/")[2] for name in names]
        found = [any(re.search(pattern, name) for pattern in self.patterns) for name in last]
        return [name not in self.paths and not hit for name, hit in zip(names, found, strict=True)]


class matrices_for_muon(LeafRule, name="keras.matrices_for_muon"):
    """The mask of Keras's Muon: variables of two axes, whose path contains neither `embedding` nor a pattern."""

    exclude_layers: tuple[str, ...] = ()
    "Regular expressions, searched in the path."
    exclude_embeddings: Flag = True
    "Whether to leave out those with `embedding` in their path, in whatever case."

    def verdicts(self, where: str, names: list[str], leaves: list[Any]) -> list[bool]:
        """Whether a leaf is Muon's."""
        return [np.ndim(leaf) == 2 and not self._excludes(name) for name, leaf in zip(names, leaves, strict=True)]

    def _excludes(self, name: str) -> bool:
        embedding = self.exclude_embeddings and "embedding" in name.lower()
        return embedding or any(re.search(pattern, name) for pattern in self.exclude_layers)


class KerasEmaState(NamedTuple):
    """The state of `keras_ema`."""

    count: Array
    "int32[]: updates made so far."
    average: Tree
    "Like the parameters: their running mean."
    inner_state: Any
    "The inner transformation's state."

    def eval_params(self, params: Tree) -> Tree:
        """The running mean, in the dtypes of the parameters."""
        return dtypes.cast_like(self.average, params)


class keras_ema(Container, name="keras.keras_ema"):
    """Keep a running mean of the parameters, and write it over them every so many updates.

        θ ← θ + inner(g)
        θ̄ ← μ θ̄ + (1 − μ) θ
        θ ← θ̄     if (⌊i / k⌋ + 1) mod f = 0,   i = 0, 1, 2, … counts the updates

    The mean starts `"after"` the first update (θ̄ ← θ while ⌊i / k⌋ = 0), as in Keras 3, or `"before"` it (θ̄ = θ₀), as
    in tf.keras. Beside gradients collected over k steps it moves in every one of them, and is written over in each of
    a window's. Without the writing, `params_ema` is the transformation to use.
    """

    State = KerasEmaState
    touches_leaves = True

    inner: Inner
    "The optimizer whose parameters to average."
    momentum: Fraction = 0.99
    "μ; 0.99 reaches back about a hundred steps."
    overwrite_frequency: PositiveInt | None = None
    "f; `None` never writes the mean over the parameters."
    window: PositiveInt = 1
    "k: updates that count as one."
    start: Literal["after", "before"] = "after"
    "Whether the mean starts from the parameters after the first update or before it."

    def init_fn(self, params: Tree) -> KerasEmaState:
        mean = copy(params) if self.start == "before" else jax.tree.map(numerics.zeros, params)
        return KerasEmaState(numerics.counter(), mean, init_stage(self.inner, params))

    def update_fn(self, updates: Tree, state: KerasEmaState, params: Tree, **extra: Any) -> tuple[Tree, KerasEmaState]:
        new, inner_state = update_stage(self.inner, updates, state.inner_state, params, extra)
        moved = apply_updates(params, dtypes.cast_like(new, params))
        step = state.count // self.window
        momentum = jnp.asarray(self.momentum, jnp.float32)
        if self.start == "after":
            momentum = jnp.where(step == 0, 0, momentum)

        def move(mean: Array, param: Array) -> Array:
            share = momentum.astype(numerics.real_dtype(mean.dtype)).astype(mean.dtype)
            return share * mean + (1 - share) * param.astype(mean.dtype)

        average = jax.tree.map(move, state.average, moved)
        if self.overwrite_frequency is not None:
            overwrite = (step + 1) % self.overwrite_frequency == 0
            onto = jax.tree.map(lambda mean, param: mean - param.astype(mean.dtype), average, params)
            new = jax.tree.map(lambda u, jump: jnp.where(overwrite, jump.astype(u.dtype), u), new, onto)
        return new, KerasEmaState(numerics.increment(state.count), average, inner_state)


class counting_from(Container, name="keras.counting_from"):
    """Start the counters of a transformation, and so its schedules and bias corrections, at another step than 0.

    With `start=1` it is what Keras on TensorFlow 1 mostly did: the counter was raised before it was read, so that
    Adam's first step had t = 2.
    """

    State = None

    inner: Inner
    "The transformation whose counter is ahead."
    start: NonNegativeInt = 1
    "The number of updates it believes to have been made already."

    def init_fn(self, params: Tree) -> Any:
        return set_counters(init_stage(self.inner, params), self.start)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return update_stage(self.inner, updates, state, params, extra)


COUNTERS = ("count", "step_count")
"What states call the number of updates made."


def set_counters(state: Any, count: Any, window: int = 1) -> Any:
    """The state as after `count` updates, as far as its counters go: those of `accumulate` and inside by windows."""

    def renew(path: tuple[Any, ...], leaf: Any) -> Any:
        names = [getattr(key, "name", "") for key in path]
        if not names or names[-1] not in (*COUNTERS, "mini_step", "gradient_step"):
            return leaf
        steps = jnp.asarray(count, jnp.int32)
        if names[-1] == "mini_step":
            steps = steps % window
        elif names[-1] == "gradient_step" or "inner_opt_state" in names:
            steps = steps // window
        return steps

    return jax.tree_util.tree_map_with_path(renew, state)


class count_skipped(Container, name="keras.count_skipped"):
    """Let the gradients that a loss scale leaves out count all the same: schedules and bias corrections go on.

    So it is in tf.keras, where a step that does nothing is a step.
    """

    State = DynamicLossScaleState

    inner: Inner
    "A `dynamic_loss_scale` with the optimizer in it."

    @classmethod
    def example(cls) -> Self:
        return cls(dynamic_loss_scale.example())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, dynamic_loss_scale):
            raise TypeError(f"count_skipped: inner must be a dynamic_loss_scale, got {self.inner!r}")

    def init_fn(self, params: Tree) -> DynamicLossScaleState:
        return self.inner.init_fn(params)

    def update_fn(
        self, updates: Tree, state: DynamicLossScaleState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, DynamicLossScaleState]:
        new, after = update_stage(self.inner, updates, state, params, extra)
        skipped = after.total_notfinite != state.total_notfinite
        return new, after._replace(inner_state=choose(skipped, _counted_on(after.inner_state), after.inner_state))


def _counted_on(state: Any) -> Any:
    """The state with its counters one further, and nothing else."""

    def step(path: tuple[Any, ...], leaf: Any) -> Any:
        is_counter = bool(path) and getattr(path[-1], "name", "") in COUNTERS
        return numerics.increment(leaf) if is_counter else leaf

    return jax.tree_util.tree_map_with_path(step, state)


class schedule_with_decay(Schedule, name="keras.schedule_with_decay"):
    """s(t) = s′(t) / (1 + r t): a schedule, and Keras 2's `decay` besides."""

    schedule: AnySchedule
    "s′, the schedule that is divided."
    decay: NonNegative
    "r, the decay per step; 1e-6 is usual."

    def at_count(self, count: Count) -> Any:
        return value_of(self.schedule, count) / (1 + self.decay * count.t)


def stages(tx: Transformation) -> tuple[Transformation, ...]:
    """What a chain is made of; of anything else, itself."""
    return tx.stages if isinstance(tx, chain) else (tx,)


class schedule_with_warmup(Schedule, name="keras.schedule_with_warmup"):
    """s(t) = s′(t) min(1, (t + 1) / W): a schedule, reached in a straight line."""

    schedule: AnySchedule
    "s′, the schedule that is reached."
    steps: PositiveInt
    "W, the steps of the warm-up."

    def at_count(self, count: Count) -> Any:
        return value_of(self.schedule, count) * jnp.minimum((count.t + 1) / float(self.steps), 1)


def clipped(tx: Transformation, clipping: Transformation | None) -> Transformation:
    """The transformation behind clipping, if there is any."""
    return tx if clipping is None else chain(*stages(clipping), *stages(tx))


def with_decay(learning_rate: Any, decay: Any) -> Any:
    """The learning rate with Keras 2's `decay`, η / (1 + decay · t)."""
    if not decay:
        return learning_rate
    kind = schedule_with_decay if is_schedule(learning_rate) else inverse_time_decay
    return kind(learning_rate, decay)


class schedule_of_microsteps(Schedule, name="keras.schedule_of_microsteps"):
    """s(t) = s′(k t + k − 1): a schedule by single gradients, where k of them make one update.

    Keras evaluates it at the last gradient of each window.
    """

    schedule: AnySchedule
    "s′, a schedule over gradients."
    window: PositiveInt
    "k, the gradients of one update."

    def at_count(self, count: Count) -> Any:
        k = self.window
        last = jnp.where(count.reached(count.largest // k), count.largest, count.whole * k + (k - 1))
        return value_of(self.schedule, Count.of(last))
