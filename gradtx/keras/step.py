"""A step as a compiled program.

The transformation is an argument of it, as a pytree: what differs only in the learning rate shares a program, and so do
equal optimizers. The state is donated.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core.apply import apply_updates

__all__ = ["OptimizerState"]


class OptimizerState(NamedTuple):
    """What an optimizer remembers between steps."""

    iterations: Array
    "int32[]: steps made, Keras's counter."
    inner_state: Any
    "The state of the chain; trees like the parameters are dicts by the variables' names."


class _Counting(Protocol):
    """What an optimizer's class says of a step."""

    @classmethod
    def advanced(cls, iterations: Array, old: Any, new: Any) -> Array:
        """The counter after an update of the chain's state from `old` to `new`."""
        ...

    @classmethod
    def scaled_loss(cls, inner_state: Any, loss: Any) -> Any:
        """The loss to differentiate."""
        ...


def step_once(
    tx: Any,
    every: tuple[str, ...],
    state: OptimizerState,
    grads: Any,
    params: Any,
    constraints: Any,
    cls: type[_Counting],
) -> tuple[Any, OptimizerState]:
    """The new parameters and state, where only some of `every` parameter have a gradient."""
    inner_state = _restricted(state.inner_state, every, params)
    updates, new_inner = tx.update(grads, inner_state, params)
    new = apply_updates(params, updates)
    for name, constraint in constraints:
        new[name] = jnp.asarray(constraint(new[name])).astype(new[name].dtype)
    iterations = cls.advanced(state.iterations, inner_state, new_inner)
    return new, OptimizerState(iterations, _completed(new_inner, state.inner_state, every, params))


class Program:
    """A compiled function, of which another copy, with a cache of its own, can be made."""

    def __init__(self, function: Callable[..., Any], static: tuple[str, ...]) -> None:
        self.function, self.static = function, static
        self.compiled = jax.jit(function, static_argnames=static, donate_argnames=("state",))

    def __call__(self, *args: Any) -> Any:
        return self.compiled(*args)

    def again(self) -> "Program":
        return Program(functools.partial(self.function), self.static)


step = Program(step_once, ("every", "constraints", "cls"))


def _minimize_once(
    tx: Any,
    loss: Any,
    factor: float,
    treedef: Any,
    every: Any,
    state: OptimizerState,
    params: Any,
    constraints: Any,
    cls: type[_Counting],
) -> tuple[Any, OptimizerState]:
    def scaled(params: Any) -> Any:
        value = loss(treedef.unflatten([params[name] for name in every]))
        return cls.scaled_loss(state.inner_state, value * factor if factor != 1 else value)

    return step_once(tx, every, state, jax.grad(scaled)(params), params, constraints, cls)


minimize = Program(_minimize_once, ("loss", "factor", "treedef", "every", "constraints", "cls"))
gradient = jax.jit(lambda loss, params: jax.grad(loss)(params), static_argnums=0)


def _restricted(state: Any, every: Sequence[str], params: Mapping[str, Any]) -> Any:
    """The state of the parameters that are there."""
    if len(every) == len(params):
        return state

    def cut(node: Any) -> Any:
        return {name: node[name] for name in params} if mirrors(node, every) else node

    return jax.tree.map(cut, state, is_leaf=functools.partial(mirrors, names=every))


def _completed(new: Any, old: Any, every: Sequence[str], params: Mapping[str, Any]) -> Any:
    """The new state of the parameters that are there, and the old of the others."""
    if len(every) == len(params):
        return new
    fresh = iter(jax.tree.leaves(new, is_leaf=functools.partial(mirrors, names=list(params))))

    def fill(node: Any) -> Any:
        following = next(fresh)
        return {**node, **following} if mirrors(node, every) else following

    return jax.tree.map(fill, old, is_leaf=functools.partial(mirrors, names=every))


def mirrors(node: Any, names: Sequence[str]) -> bool:
    """Whether a part of a state is a tree like the parameters."""
    return type(node) is dict and node.keys() == set(names)
