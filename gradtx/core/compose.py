"""Composition: transformations made of others, which are applied one after the other or go by one name."""

import functools
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from gradtx.core import check
from gradtx.core.extras import Extras
from gradtx.core.hyperparams import is_schedule
from gradtx.core.leafwise import runs, update_run
from gradtx.core.run import EmptyState, check_state, describe_state, init_stage, name_of, update_stage
from gradtx.core.spec import Spec
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree

__all__ = ["Container", "Inner", "Optimizer", "chain", "identity", "is_elementwise", "named_chain"]


class TransformationKind:
    """The kind of a hyper-parameter that is itself a transformation."""

    may_vary = False

    @property
    def example(self) -> Any:
        return identity()

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, type):
            raise TypeError(f"{where} is the class {value.__name__}: call it, {value.__name__}(...)")
        if not isinstance(value, Transformation) or (
            isinstance(value, Spec) and not isinstance(value, GradientTransformation)
        ):
            hint = f": call it, {value.__name__}(...)" if inspect.isfunction(value) else ""
            if is_schedule(value) and not hint:
                hint = ": a schedule goes into scale_by_learning_rate(...)"
            if type(value) in (list, tuple):
                hint = ": unpack it with a star, chain(*stages)"
            raise TypeError(f"{where} must be a transformation (init and update), got {check.describe(value)}{hint}")
        return value


Inner = Annotated[Any, TransformationKind()]
"A transformation held by another."


class Container(GradientTransformation, abstract=True):
    """A transformation that hands the leaves on to those it holds. They check what they are given."""

    takes_half_precision = True
    elementwise = True
    touches_leaves = False

    @property
    def parts(self) -> tuple[Transformation, ...]:
        """The transformations that it holds: by default, those among its hyper-parameters."""
        held = [name for name, kind in self.field_kinds().items() if isinstance(kind, TransformationKind)]
        return tuple(getattr(self, name) for name in held)

    @functools.cached_property
    def extras(self) -> Extras:
        return Extras.union(self.parts)


class chain(Container):
    """Apply transformations one after the other, from left to right.

    Its state is the tuple of their states. `chain()` without a stage changes nothing.

    Raises:
        TypeError: a stage is not a transformation; the message says at which position.

    >>> import gradtx
    >>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
    chain(clip_by_global_norm(1.0), adam(0.001))
    >>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam)
    Traceback (most recent call last):
    TypeError: chain: stage 1 is the class adam: call it, adam(...)
    """

    State = tuple
    keeps_state = True

    stages: tuple[Any, ...] = ()
    "The transformations, in order."

    def __init__(self, *stages: Transformation) -> None:
        self._set(
            stages=tuple(TransformationKind().convert(f"chain: stage {i}", stage) for i, stage in enumerate(stages))
        )

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return self.stages

    @functools.cached_property
    def sums_examples(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _first_sums_examples(self)

    def init_fn(self, params: Tree) -> tuple[Any, ...]:
        return tuple(init_stage(stage, params) for stage in self.stages)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        unpacked = list(_unpacked(self, state))
        stages, states = [stage for stage, _ in unpacked], [own for _, own in unpacked]
        updates, new_states = _update_stages(stages, updates, states, params, extra)
        return updates, _packed(self, state, iter(new_states))


class named_chain(Container):
    """`chain` of pairs `(name, transformation)`. Its state is a dict from those names to the states.

    Raises:
        TypeError: a stage is not such a pair.
        ValueError: two stages have the same name.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = named_chain(("clip", gradtx.clip(1.0)), ("step", gradtx.scale(-0.1)))
    >>> tx.init(jnp.zeros(2))
    {'clip': EmptyState(), 'step': EmptyState()}
    """

    State = dict
    keeps_state = True

    stages: tuple[Any, ...] = ()
    "Pairs of a name and a transformation, in order."

    def __init__(self, *stages: tuple[str, Transformation]) -> None:
        for i, stage in enumerate(stages):
            if not (isinstance(stage, tuple) and len(stage) == 2 and isinstance(stage[0], str)):
                raise TypeError(f"named_chain: stage {i} must be a pair (name, transformation), got {stage!r}")
            TransformationKind().convert(f"named_chain: stage {i}, {stage[0]!r}", stage[1])
        names = [name for name, _ in stages]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"named_chain: the name {', '.join(sorted(repeated))} is given twice")
        self._set(stages=tuple(stages))

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return tuple(stage for _, stage in self.stages)

    @functools.cached_property
    def sums_examples(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _first_sums_examples(self)

    def init_fn(self, params: Tree) -> dict[str, Any]:
        return {name: init_stage(stage, params) for name, stage in self.stages}

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        names = [name for name, _ in self.stages]
        if state.keys() != set(names):
            raise ValueError(f"named_chain: expected the states of {names}, got those of {list(state)}")
        updates, new_states = _update_stages(self.parts, updates, [state[name] for name in names], params, extra)
        return updates, dict(zip(names, new_states, strict=True))


def _unpacked(tx: Transformation, state: Any) -> Iterator[tuple[Transformation, Any]]:
    """The stages of a chain, and of the chains in it, that do something, with their states."""
    tx = _composition(tx)
    if isinstance(tx, identity):
        check_state(tx, state, EmptyState)
        return
    if type(tx) is not chain:
        yield tx, state
        return
    if type(state) is not tuple or len(state) != len(tx.stages):
        raise ValueError(
            f"chain: expected a tuple of {len(tx.stages)} states, one for each of "
            f"{', '.join(map(name_of, tx.stages))}, got {describe_state(state)}"
        )
    for stage, own in zip(tx.stages, state, strict=True):
        yield from _unpacked(stage, own)


def _packed(tx: Transformation, old: Any, states: Iterator[Any]) -> Any:
    """The state of a chain, made of those of its stages: the inverse of `_unpacked`."""
    tx = _composition(tx)
    if type(tx) is not chain:
        return old if isinstance(tx, identity) else next(states)
    return tuple(_packed(stage, own, states) for stage, own in zip(tx.stages, old, strict=True))


def _composition(tx: Transformation) -> Transformation:
    """What an optimizer is a name for."""
    while isinstance(tx, Optimizer):
        tx = tx.expanded
    return tx


def _update_stages(
    stages: Iterable[Transformation], updates: Tree, states: Iterable[Any], params: Tree, extra: Mapping[str, Any]
) -> tuple[Tree, list[Any]]:
    """The updates and the new states after all stages."""
    old, new = iter(states), []
    for run in runs(stages):
        updates, own = update_run(run, updates, list(itertools.islice(old, len(run))), params, extra)
        new += own
    return updates, new


class Optimizer(Container, abstract=True):
    """A name for a composition: its fields are the hyper-parameters, and `expand` makes the composition of them."""

    for_users = ("init", "update", "replace", "expanded")
    State = None
    keeps_state = True

    def expand(self) -> Transformation:
        """The transformation that this one is a name for; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines no expand")

    @functools.cached_property
    def expanded(self) -> Transformation:
        """`expand()`, made once."""
        return self.expand()

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return (self.expanded,)

    @functools.cached_property
    def sums_examples(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return _first_sums_examples(self)

    def at(self, count: Any) -> Any:
        return self  # the stages are given the schedules, and each evaluates them at its own count

    def init_fn(self, params: Tree) -> Any:
        return init_stage(self.expanded, params)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return update_stage(self.expanded, updates, state, params, extra)

    @functools.cached_property
    def needs_clock(self) -> bool:
        return False


class identity(Container):
    """Return the updates as they are.

    >>> import jax.numpy as jnp
    >>> identity().update(jnp.array([1.0]), identity().init(None))
    (Array([1.], dtype=float32), EmptyState())
    """

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return ()

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return updates, state


def _first_sums_examples(tx: Container) -> bool:
    """Whether the first of the transformations that it holds sums over the examples of a batch."""
    return any(getattr(part, "sums_examples", False) for part in tx.parts[:1])


def is_elementwise(tx: Transformation) -> bool:
    """Whether each element's update depends on that element alone, and not on its neighbours or the leaf's shape."""
    if not isinstance(tx, GradientTransformation):
        return False
    return tx.elementwise and (not isinstance(tx, Container) or all(map(is_elementwise, tx.parts)))
