"""Gradients that are not finite, and loss scaling, which makes some of them so."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics, tree
from gradtx.core.compose import Container, Inner
from gradtx.core.hyperparams import GrowthFactor, NonNegativeInt, Positive, PositiveInt
from gradtx.core.run import PROCEED, init_stage, update_stage
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.wrappers.common import all_finite, zeros_unless

__all__ = [
    "ApplyIfFiniteState",
    "DynamicLossScaleState",
    "apply_if_finite",
    "dynamic_loss_scale",
    "if_finite",
    "scale_loss",
]


class ApplyIfFiniteState(NamedTuple):
    """The state of `if_finite`."""

    notfinite_count: Array
    "int32[]: gradients in a row that were not finite. Past the limit, if there is one, it stays there."
    last_finite: Array
    "bool[]: whether the last gradient was finite."
    total_notfinite: Array
    "int32[]: all gradients so far that were not finite. Never reset."
    inner_state: Any
    "The state of the inner transformation."


class if_finite(Container):
    """Leave out gradients that have an infinite or NaN element: the updates are zero, the inner state stays.

        u, s ← inner(g, s)   if every element of g is finite
        u = 0                otherwise

    A gradient that is not finite is never let through. Without a limit, any number of them is left out, and counters
    in the state tell how many. With `max_consecutive_errors`, one more than that in a row ends the training: **every
    later update is zero**, for finite gradients too, and `notfinite_count` stays above the limit for the loop to see.
    To go on nevertheless, set it to 0: `gradtx.tree.set(state, notfinite_count=0)`.

    The gradients are tested, not the updates made of them. Other policies: `zero_nans` replaces single elements,
    `clip_by_global_norm` keeps a non-finite leaf from affecting others, `accumulate(..., should_skip_update_fn=...)`
    leaves a micro-batch out of the mean. To have an error raised, call the step under `jax.debug_nans`.

    optax calls it `apply_if_finite`; there, gradients past the limit are *applied*, finite or not.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.if_finite(gradtx.sgd(1.0))
    >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
    >>> updates, int(state.total_notfinite)
    (Array([0., 0.], dtype=float32), 1)
    """

    State = ApplyIfFiniteState
    reported = {"total_notfinite": "skipped"}
    elementwise = False  # one element that is not finite decides for all

    inner: Inner
    "The transformation that is updated with the finite gradients."
    max_consecutive_errors: NonNegativeInt | None = None
    "How many gradients in a row may be left out before everything stops; `None` for no limit."

    def init_fn(self, params: Tree) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(
            numerics.counter(), jnp.asarray(True), numerics.counter(), init_stage(self.inner, params)
        )

    def update_fn(
        self, updates: Tree, state: ApplyIfFiniteState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, ApplyIfFiniteState]:
        finite = all_finite(updates)
        proceed, count = finite, jnp.where(finite, 0, numerics.increment(state.notfinite_count))
        if self.max_consecutive_errors is not None:
            stopped = state.notfinite_count > self.max_consecutive_errors
            proceed, count = finite & ~stopped, jnp.where(stopped, state.notfinite_count, count)
        new, inner_state = _update_where(proceed, self.inner, updates, state.inner_state, params, extra)
        total = jnp.where(finite, state.total_notfinite, numerics.increment(state.total_notfinite))
        return new, ApplyIfFiniteState(count, finite, total, inner_state)


apply_if_finite = if_finite
"The same, by optax's name."


def _update_where(
    condition: Array, inner: Transformation, updates: Tree, state: Any, params: Tree, extra: Any
) -> tuple[Tree, Any]:
    """The inner update where the condition holds; else zeros and the state as it was.

    Selections, rather than a conditional, fuse with the arithmetic. Where the condition does not hold, `inner` gets
    zeros: line searches, decompositions and derivatives may fail on elements that are not finite.
    """
    new, state = update_stage(inner, zeros_unless(condition, updates), state, params, {**extra, PROCEED: condition})
    return zeros_unless(condition, new), state


class DynamicLossScaleState(NamedTuple):
    """The state of `dynamic_loss_scale`."""

    loss_scale: Array
    "float32[]: what to multiply the loss by, see `scale_loss`."
    growth_count: Array
    "int32[]: finite gradients since the scale last changed."
    total_notfinite: Array
    "int32[]: all gradients left out so far."
    exhausted: Array
    "int32[]: gradients in a row that overflowed with the scale at its minimum: no loss scale will help these."
    inner_state: Any
    "The state of the inner transformation."


class dynamic_loss_scale(Container):
    """Undo a scaling of the loss that keeps half-precision gradients from vanishing, and adapt it.

        g ← g / S                                in float32
        all finite:   u, s ← inner(g, s),        S ← min(f S, S_max) after every N of them in a row
        otherwise:    u = 0, s stays,            S ← max(S / f, S_min)

    The loss is multiplied by `S` in the loop, with `scale_loss(state, loss)`. Gradients that overflow at `S_min` are
    the model's own doing: they are left out too, and `exhausted` in the state counts them. bfloat16 has float32's
    range and needs no loss scale.

    Micikevicius et al., 2017, Section 3.2. https://arxiv.org/abs/1710.03740

    >>> import gradtx, jax
    >>> import jax.numpy as jnp
    >>> tx = gradtx.dynamic_loss_scale(gradtx.sgd(0.1))
    >>> params = jnp.ones(2, jnp.float16)
    >>> state = tx.init(params)
    >>> grads = jax.grad(lambda p: gradtx.scale_loss(state, jnp.sum(p * p)))(params)
    >>> updates, state = tx.update(grads, state, params)
    >>> updates, float(state.loss_scale), int(state.total_notfinite)
    (Array([0., 0.], dtype=float16), 16384.0, 1)
    """

    State = DynamicLossScaleState
    reported = {"loss_scale": "loss_scale", "total_notfinite": "skipped"}
    touches_leaves = True
    elementwise = False  # one element that is not finite decides for all

    inner: Inner
    "The transformation that is updated with the unscaled gradients."
    init_scale: Positive = 2.0**15
    "Loss scale S of the first step; 2¹⁵ is usual."
    growth_interval: PositiveInt = 2000
    "Number N of finite gradients in a row after which S grows; 2000 is usual."
    factor: GrowthFactor = 2.0
    "Factor f by which S grows and shrinks; 2 is usual, and a power of two makes the scaling exact."
    min_scale: Positive = 1.0
    "Smallest loss scale S_min; 1 is usual."
    max_scale: Positive = 2.0**24
    "Largest loss scale S_max; 2²⁴ is usual."

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = [self.min_scale, self.init_scale, self.max_scale]
        if all(isinstance(bound, float) for bound in bounds) and bounds != sorted(bounds):
            raise ValueError(f"dynamic_loss_scale: min_scale ≤ init_scale ≤ max_scale must hold, got {bounds}")

    def init_fn(self, params: Tree) -> DynamicLossScaleState:
        scale = jnp.asarray(self.init_scale, jnp.float32)
        return DynamicLossScaleState(
            scale, numerics.counter(), numerics.counter(), numerics.counter(), init_stage(self.inner, params)
        )

    def update_fn(
        self, updates: Tree, state: DynamicLossScaleState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, DynamicLossScaleState]:
        inverse = 1 / state.loss_scale
        unscaled = dtypes.scaled(inverse, updates)
        finite = all_finite(dtypes.scaled(numerics.again(inverse), updates))
        new, inner_state = _update_where(finite, self.inner, unscaled, state.inner_state, params, extra)
        scale, growth_count = self._next_scale(finite, state)
        at_minimum = state.loss_scale <= jnp.asarray(self.min_scale, jnp.float32)
        return new, DynamicLossScaleState(
            scale,
            growth_count,
            jnp.where(finite, state.total_notfinite, numerics.increment(state.total_notfinite)),
            jnp.where(finite | ~at_minimum, 0, numerics.increment(state.exhausted)),
            inner_state,
        )

    def _next_scale(self, finite: Array, state: DynamicLossScaleState) -> tuple[Array, Array]:
        factor, low, high = (jnp.asarray(x, jnp.float32) for x in (self.factor, self.min_scale, self.max_scale))
        count = jnp.where(finite, numerics.increment(state.growth_count), 0)
        grow = count >= self.growth_interval
        larger = jnp.where(grow, jnp.minimum(state.loss_scale * factor, high), state.loss_scale)
        smaller = jnp.maximum(state.loss_scale / factor, low)
        return jnp.where(finite, larger, smaller), jnp.where(grow, 0, count)


def scale_loss(state: Any, loss: Any) -> Array:
    """The loss times the loss scale found in `state`, in at least float32, so that the product does not overflow.

    Differentiate this; the gradients go to `update` as they are.

    Raises:
        ValueError: there is not exactly one `dynamic_loss_scale` in `state`, however deep.
    """
    found = tree.find(state, lambda node: isinstance(node, DynamicLossScaleState))
    if len(found) != 1:
        raise ValueError(
            f"scale_loss: expected the state of one dynamic_loss_scale, found {len(found)}: "
            "wrap the optimizer, dynamic_loss_scale(...)"
        )
    return dtypes.scaled(found[0].loss_scale, loss)
