"""What a step computes, as a compiled program.

The transformation is an argument of it, as a pytree: what differs only in the learning rate shares a program, and so do
equal optimizers. The state is donated.
"""

import functools
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics
from gradtx.core.apply import apply_updates
from gradtx.core.spec import Spec
from gradtx.core.transformation import Transformation
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.subsets import skipping

__all__ = ["Program", "Programs", "Rules", "step_once"]

Constraints = tuple[tuple[str, Callable[[Any], Any]], ...]


class Rules(NamedTuple):
    """What a class of optimizers says of a step."""

    advanced: Callable[[Array, Any, Any], Array] = lambda iterations, old, new: numerics.increment(iterations)
    "The counter after an update of the chain's state from an old one to a new one."
    scaled_loss: Callable[[Any, Any], Any] = lambda inner_state, loss: loss
    "The loss to differentiate, where the chain divides its gradients by a scale of its own."


def step_once(
    tx: Transformation,
    state: OptimizerState,
    grads: Mapping[str, Any],
    params: dict[str, Any],
    constraints: Constraints,
    rules: Rules,
) -> tuple[dict[str, Any], OptimizerState]:
    """The new parameters and state. Some parameters may have no gradient; then they, and their state, stay."""
    if missing := params.keys() - grads.keys():
        tx = skipping(tx, [name for name in params if name not in missing])
        grads = {name: jnp.zeros_like(param) if name in missing else grads[name] for name, param in params.items()}
    updates, inner_state = tx.update(grads, state.inner_state, params)
    new = apply_updates(params, updates)
    for name, constraint in constraints:
        new[name] = jnp.asarray(constraint(new[name])).astype(new[name].dtype)
    iterations = rules.advanced(state.iterations, state.inner_state, inner_state)
    return new, OptimizerState(iterations, inner_state)


def _minimize_once(
    loss: Callable[[], Callable[..., Any]],
    tx: Transformation,
    factor: float,
    treedef: Any,
    names: tuple[str, ...],
    state: OptimizerState,
    params: dict[str, Any],
    batch: tuple[Any, ...],
    constraints: Constraints,
    rules: Rules,
) -> tuple[dict[str, Any], OptimizerState]:
    """A step down the gradient of a loss, which is multiplied by what the gradients will be divided by."""

    def scaled(params: dict[str, Any]) -> Any:
        value = loss()(treedef.unflatten([params[name] for name in names]), *batch)
        return rules.scaled_loss(state.inner_state, value * factor if factor != 1 else value)

    return step_once(tx, state, jax.grad(scaled)(params), params, constraints, rules)


class Program:
    """A compiled function, of which another copy, with a cache of its own, can be made."""

    def __init__(self, function: Callable[..., Any], static: tuple[str, ...], donated: tuple[str, ...]) -> None:
        self.function, self.static, self.donated = function, static, donated
        self.compiled = jax.jit(function, static_argnames=static, donate_argnames=donated)

    def __call__(self, *args: Any) -> Any:
        return self.compiled(*args)

    def undonated(self) -> "Program":
        """Another one, that leaves the state it is given intact."""
        return Program(functools.partial(self.function), self.static, ())


step = Program(step_once, ("constraints", "rules"), ("state",))
"The program of a step along given gradients, which all optimizers share."
_STATIC = ("factor", "treedef", "names", "constraints", "rules")


class Programs:
    """The programs of one optimizer. Those with a loss in them live as long as the loss, to which they refer weakly."""

    def __init__(self, step: Program) -> None:
        self.step = step
        self._by_loss: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

    def minimize(self, loss: Callable[..., Any]) -> Program:
        """The program of a step down the gradient of this loss."""
        donated = self.step.donated
        return self._by(loss, "minimize", lambda ref: Program(functools.partial(_minimize_once, ref), _STATIC, donated))

    def gradient(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled gradient of this loss."""
        return self._by(loss, "gradient", lambda ref: jax.jit(lambda params, *batch: jax.grad(ref())(params, *batch)))

    def _by(self, loss: Callable[..., Any], kind: str, make: Callable[[Any], Any]) -> Any:
        is_method = isinstance(loss, types.MethodType)
        owner, key = (loss.__self__, (kind, loss.__func__)) if is_method else (loss, (kind, None))
        try:
            programs = self._by_loss.setdefault(owner, {})
        except TypeError:  # what cannot be hashed or referred to weakly gets a program for the occasion
            return make(lambda: loss)
        if key not in programs:
            programs[key] = make(weakref.WeakMethod(loss) if is_method else weakref.ref(loss))
        return programs[key]


def same_program(tx: Transformation, other: Any) -> bool:
    """Whether two transformations differ in arrays only."""
    return isinstance(tx, Spec) and isinstance(other, Spec) and jax.tree.structure(tx) == jax.tree.structure(other)
