"""Stages that change nothing and measure what passes, for logging."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check, dtypes, norms, numerics
from gradtx.core.hyperparams import DecayOrSchedule, DType, Flag, Function, is_schedule
from gradtx.core.run import EmptyState
from gradtx.core.spec import Spec
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree
from gradtx.transforms.momentum import EmaState

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]


class MeasuresKind:
    """A dict from names to functions of the updates or measures with a state, kept as it was written."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not value:
            raise TypeError(f"{where} must be a dict from names to functions of the updates, got {value!r}")
        for name, measure in value.items():
            is_measure = callable(measure) or isinstance(measure, Transformation)
            if not isinstance(name, str) or not is_measure or isinstance(measure, type):
                raise TypeError(f"{where}[{name!r}] must be a function of the updates, got {check.describe(measure)}")
        return dict(value)


class NameKind:
    """A name that is not empty."""

    example = "measurement"
    may_vary = False

    def convert(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise TypeError(f"{where} must be a name, got {check.describe(value)}")
        return value


Measure = Annotated[Callable[..., Any], Function("of the updates", norms.norm)]
"A function from a tree of updates to a number, or to a tree of numbers."


class MonitorState(NamedTuple):
    """The state of `monitor`."""

    measurements: dict[str, Any]
    "What was measured of the last updates, by name; zeros before the first."
    measure_states: tuple[Any, ...]
    "The state of each measure, in order; an `EmptyState` of a function."


class monitor(GradientTransformation):
    """Let the updates pass and keep measurements of them: their norm, or what the given measures compute.

    Its place in the chain decides what is measured: the gradient, the direction, or, at the end, the step. `snapshot`
    keeps a single measurement, and `measure_with_ema` makes a measure of which a running mean is kept.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.sgd(0.1), gradtx.monitor())
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> state[-1].measurements
    {'update_norm': Array(0.5, dtype=float32)}
    """

    State = MonitorState
    takes_half_precision = True

    measures: Annotated[Any, MeasuresKind()] | None = None
    """Functions of the updates by name, or `measure_with_ema` of such; by default `update_norm`, the global norm. Any
    object with `init` and `update` will do, if `update(updates, state, params)` gives measurement and new state."""

    def init_fn(self, params: Tree) -> MonitorState:
        params = jax.tree.map(dtypes.upcast, params)
        states = tuple(EmptyState() if callable(m) else m.init(params) for m in self._measures.values())
        shapes = jax.eval_shape(lambda params: self._measure(params, states, params).measurements, params)
        return MonitorState(_zeros(shapes), states)

    def update_fn(self, updates: Tree, state: MonitorState, params: Tree = None) -> tuple[Tree, MonitorState]:
        return _measured_first(updates, self._measure(updates, state.measure_states, params))

    @property
    def _measures(self) -> dict[str, Any]:
        return {"update_norm": norms.norm} if self.measures is None else self.measures

    def _measure(self, updates: Tree, states: tuple[Any, ...], params: Tree) -> MonitorState:
        measurements, new_states = {}, []
        updates, params = jax.tree.map(dtypes.upcast, (updates, params))
        for (name, measure), state in zip(self._measures.items(), states, strict=True):
            pair = (measure(updates), state) if callable(measure) else measure.update(updates, state, params)
            measurements[name] = pair[0]
            new_states.append(pair[1])
        return MonitorState(measurements, tuple(new_states))


class SnapshotState(NamedTuple):
    """The state of `snapshot`."""

    measurement: dict[str, Any]
    "What was measured of the last updates, under the name that was given; zeros before the first."


class snapshot(GradientTransformation):
    """Let the updates pass and keep one measurement of them: `monitor` with a single function.

    Both `gradtx.tree.get(state, name)` and `metrics(state)` find it under its name.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.snapshot("grad_norm", gradtx.global_norm), gradtx.sgd(0.1))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> gradtx.tree.get(state, "grad_norm")
    Array(5., dtype=float32)
    """

    State = SnapshotState
    takes_half_precision = True

    measure_name: Annotated[str, NameKind()]
    "Name under which the measurement is kept."
    measure: Measure
    "Function of the updates, which are at least float32."

    def init_fn(self, params: Tree) -> SnapshotState:
        return SnapshotState(_zeros(jax.eval_shape(self._measure, params)))

    def update_fn(self, updates: Tree, state: SnapshotState, params: Tree = None) -> tuple[Tree, SnapshotState]:
        return _measured_first(updates, SnapshotState(self._measure(updates)))

    def _measure(self, updates: Tree) -> dict[str, Any]:
        return {self.measure_name: self.measure(jax.tree.map(dtypes.upcast, updates))}


def _zeros(shapes: Tree) -> Tree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _measured_first(updates: Tree, state: Any) -> tuple[Tree, Any]:
    """The same two, of which the state is computed first: otherwise XLA may keep a copy of the updates to measure."""
    return jax.lax.optimization_barrier((updates, state))


class measure_with_ema(Spec):
    """A measure for `monitor`: a running mean, over the steps, of what a function computes of the updates.

        m ← β m + (1 − β) f(u)
        measurement = m,   debiased:  m / (1 − βᵗ)

    A condition, such as `lambda u: gradtx.global_norm(u) > 1.0`, counts as 0 or 1, and the mean is how often it held.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.monitor({"mean_norm": gradtx.measure_with_ema(gradtx.global_norm, 0.5)})
    >>> state = tx.init(jnp.zeros(2))
    >>> for size in (1.0, 4.0):
    ...     _, state = tx.update(jnp.array([size, 0.0]), state)
    >>> state.measurements
    {'mean_norm': Array(3., dtype=float32)}
    """

    for_users = ("init", "update", "replace")

    measure: Measure
    "Function f of the updates, which are at least float32; it gives a number, or a tree of numbers."
    decay: DecayOrSchedule
    "Decay rate β; the mean reaches back about 1 / (1 − β) steps, 0.9 is usual. A schedule is given the steps before."
    debias: Flag = True
    "Whether to debias the mean, which starts from zero."
    accumulator_dtype: DType | None = None
    "Dtype of the mean; by default that of the measurement, at least float32."

    def init(self, params: Tree) -> EmaState:
        """A mean of zero, of the shapes that the function gives."""
        shapes = jax.eval_shape(lambda params: jax.tree.map(self._as_number, self.measure(params)), params)
        return EmaState(numerics.counter(), _zeros(shapes))

    def update(self, updates: Tree, state: EmaState, params: Tree = None) -> tuple[Tree, EmaState]:
        """The mean, debiased if asked for, and the new state."""
        decay = self.decay(state.count) if is_schedule(self.decay) else self.decay
        count = numerics.increment(state.count)

        def move(mean: Array, x: Any) -> Array:
            return numerics.ema(mean, self._as_number(x), _like(mean, decay))

        def debiased(mean: Array) -> Array:
            t = count.astype(numerics.real_dtype(numerics.compute_dtype(mean.dtype)))
            return numerics.unbiased(mean, _like(t, decay), t)

        ema = jax.tree.map(move, state.ema, self.measure(updates))
        return jax.tree.map(debiased, ema) if self.debias else ema, EmaState(count, ema)

    def _as_number(self, x: Any) -> Array:
        """What is averaged: in the dtype of the mean."""
        x = dtypes.upcast(x) if dtypes.is_inexact(x) else jnp.asarray(x).astype(jnp.float32)
        return x if self.accumulator_dtype is None else x.astype(self.accumulator_dtype)


def _like(x: Array, number: Any) -> Any:
    """The number in the precision of `x`, unless it is a Python number."""
    return number.astype(numerics.real_dtype(x.dtype)) if isinstance(number, jax.Array) else number
