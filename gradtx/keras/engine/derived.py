"""Optimizers of one's own, in the way that Keras 3 documents: what an `update_step` for one variable needs."""

import copy
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics
from gradtx.core.hyperparams import NonNegativeInt, Rate
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.keeper import Keeper, build
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.table import private
from gradtx.keras.engine.variable import Variable, Variables, register
from gradtx.keras.engine.weights import Weight
from gradtx.masks.hiding import is_hidden
from gradtx.states.fields import get, replace

__all__ = ["VariableWiseState", "variable_wise"]


class VariableWiseState(NamedTuple):
    """The state of an optimizer that says itself what it does to each variable."""

    count: Array
    "int32[]: updates made so far."
    slots: dict[str, Array]
    "The variables that it has created, by their names."


class variable_wise(GradientTransformation, name="keras.variable_wise"):
    """What the `update_step` of an optimizer makes of each variable, as a transformation."""

    State = VariableWiseState

    owner: Any
    "The optimizer whose `update_step` is called, or a weak reference to it."
    learning_rate: Rate
    "The learning rate that `update_step` is given."
    version: NonNegativeInt = 0
    "How often the attributes of the optimizer have changed: each change needs another program."

    @property
    def optimizer(self) -> Any:
        """The optimizer itself."""
        return self.owner() if isinstance(self.owner, weakref.ref) else self.owner

    def init_fn(self, params: Tree) -> VariableWiseState:
        values = {v.name: jnp.asarray(v.value) for v in self.optimizer.added_variables}
        return VariableWiseState(numerics.counter(), values)

    def update_fn(self, updates: Tree, state: VariableWiseState, params: Tree) -> tuple[Tree, VariableWiseState]:
        variables = {name: Variable(param, name) for name, param in params.items() if not is_hidden(param)}
        owner, moved = self.optimizer, dict(state.slots)
        owner.keeper.lent = VariableWiseState(state.count, moved)
        try:
            for name, variable in variables.items():
                rate = jnp.asarray(self.learning_rate).astype(numerics.real_dtype(variable.dtype))
                owner.update_step(updates[name], variable, rate)
        finally:
            owner.keeper.lent = None
        changes = {name: variable.value - params[name] for name, variable in variables.items()}
        return {**params, **changes}, VariableWiseState(numerics.increment(state.count), moved)


class _LendingKeeper(Keeper):
    """The keeper of a state with the optimizer's variables in it, which its `update_step` may change."""

    lent: VariableWiseState | None = None  # what they, and the counter, are while `update_step` is traced

    @property
    def slots(self) -> dict[str, Any] | None:
        """The values of the variables; `None` before there is a state."""
        if self.lent is not None:
            return self.lent.slots
        state = self.state
        return None if state is None else get(state.inner_state, "slots")

    def variable(self, value: Array, name: str) -> Variable:
        return _SlotVariable(value, name, self)

    def write(self, name: str, value: Any) -> None:
        """Give a variable in the state another value."""
        if self.lent is not None:
            self.lent.slots[name] = value
        else:
            state: Any = self.state
            slots = {**get(state.inner_state, "slots"), name: value}
            self.state = state._replace(inner_state=replace(state.inner_state, slots=slots))


class _SlotVariable(Variable):
    """A variable whose value is in the state of an optimizer, as soon as there is one."""

    is_in_state = True

    def __init__(self, value: Any, name: str, keeper: _LendingKeeper) -> None:
        self.keeper, self.name, self.path, self.constraint = keeper, name, name, None
        self._first = jnp.asarray(value)

    @property
    def value(self) -> Any:
        """What the optimizer remembers of it."""
        slots = self.keeper.slots
        return self._first if slots is None else slots[self.name]

    @value.setter
    def value(self, value: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.keeper.slots is None:
            self._first = value
        else:
            self.keeper.write(self.name, value)


register(_SlotVariable)


class UpdateStep(Facade, abstract=True):
    """What classes with an `update_step` of their own are given: a chain that calls it, and variables in its state."""

    slots = first_weights = last_weights = ()
    has_own_programs = True  # which go when it goes; and what its variables hold may be in someone's hands
    keeper = functools.cached_property(lambda self: _LendingKeeper())

    _stand_in: Any = private(None)
    _version: int = private(0)

    def chain(self, learning_rate: Any) -> Transformation:
        return variable_wise(self._stand_in or self, learning_rate, self._version)

    def composed_to_run(self, learning_rate: Any) -> Transformation:
        """With a reference to itself: JAX's caches keep what programs see, and would keep the optimizer."""
        view = object.__new__(type(self))
        vars(view).update(vars(self), _stand_in=weakref.ref(self))
        return view.compose(learning_rate)

    def slot_weights(self) -> Iterator[Weight]:
        return iter(())

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        is_own = any(name in vars(owner) for owner in type(self).__mro__ if owner.__module__.startswith("gradtx."))
        if not is_own and self.built:  # numbers in update_step are part of the program
            object.__setattr__(self, "_version", self._version + 1)
            self.keeper.made_of = None

    @property
    def iterations(self) -> Any:
        lent = self.keeper.lent
        return super().iterations if lent is None else lent.count

    @iterations.setter
    def iterations(self, value: Any) -> None:
        Facade.iterations.fset(self, value)  # pyright: ignore[reportOptionalCall]


def built_for(opt: UpdateStep, params: Mapping[str, Array]) -> UpdateStep:
    """A copy without a state, built for these parameters: all that `update_step` needs."""
    twin = copy.deepcopy(opt)
    for name in ("keeper", "_added", "_version"):
        vars(twin).pop(name, None)
    twin.build(dict(params))
    twin.keeper.start = None
    return twin


def with_variables(own_build: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A `build` that may be given any tree of arrays, and sees a list of variables."""

    @functools.wraps(own_build)
    def wrapped(self: Facade, variables: Tree) -> None:
        if self.built:
            return build(self, variables)  # which refuses others
        given = Variables.of(variables)
        pairs = zip(given.values, given.names, strict=True)
        own = given.leaves if given.are_assignable else [Variable(value, name) for value, name in pairs]
        uninterrupted(lambda: own_build(self, own))
        if not self.built:
            raise TypeError(f"{type(self).__name__}.build must call super().build(variables) first")
        if not given.are_assignable:
            known: Any = self.keeper.known
            known.variables = None  # these only stood for arrays
        return None

    return wrapped
