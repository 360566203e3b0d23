"""A step of an optimizer: recognise what is given, run the compiled program, go on from the state that it gives."""

import itertools
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array

from gradtx.core import check
from gradtx.core.tree import Tree
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.keeper import programs, required_state, running
from gradtx.keras.engine.parameters import Parameters, present, projections, refuse_swapped, refuse_tracers
from gradtx.keras.engine.program import Program, step_once
from gradtx.keras.engine.rate import takes_nothing
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.variable import Variables, is_variable
from gradtx.keras.engine.weights import innermost, matched, read, written

__all__ = ["apply", "gradients", "minimize", "stateless_apply"]


def apply(opt: Any, grads: Tree, params: Tree) -> Any:
    """One step along gradients; some may be `None`. Arrays are handed back, variables assigned."""
    keeper, where = opt.keeper, type(opt).__name__
    params = _required_variables(opt) if params is None else params
    grads = list(grads) if hasattr(grads, "__next__") else grads
    if keeper.known is None:  # before it is built for gradients
        refuse_swapped(where, jax.tree.leaves(grads, is_leaf=is_variable), Variables.of(params), None)
    known, given = recognised(opt, params)
    found = known.gradients(grads, given)
    refuse_tracers(where, given.values, found.values())
    if any(map(operator.is_, found.values(), itertools.repeat(None))):
        found = present(where, found)
        missing = ", ".join(name for name in given.names if name not in found)
        warnings.warn(f"{where}: no gradients for {missing}; they stay as they are", stacklevel=3)
    tx, state = running(opt), required_state(opt, "apply")
    values = {**known.others(given.names), **dict(zip(given.names, given.values, strict=True))}
    held = projections(given.names, given.leaves) if given.are_assignable else ()
    constraints = tuple([pair for pair in held if pair[0] in found]) if held else ()
    args = tx, state, found, values, constraints, type(opt).rules
    return _exchanged(opt, (keeper.programs or programs(opt)).step, args, state, given)


def minimize(opt: Any, loss: Callable[..., Any], params: Tree, batch: tuple[Any, ...], constraints: Any) -> Any:
    """One step down the gradient of a loss: gradient and update in one program."""
    where = type(opt).__name__
    params = _required_variables(opt) if params is None else params
    _check_loss(where, "minimize(loss, params, *batch)", loss)
    _, given = recognised(opt, params)
    refuse_tracers(where, given.values)
    tx, state = running(opt), required_state(opt, "minimize")
    values = dict(zip(given.names, given.values, strict=True))
    if unknown := [name for name in constraints or () if name not in values]:
        raise ValueError(f"constraints: no variable {unknown[0]!r}; there are {', '.join(values)}")
    held = projections(given.names, given.leaves) if given.are_assignable else ()
    held = (*held, *constraints.items()) if constraints else held
    args = tx, opt.loss_scale(), given.treedef, tuple(values), state, values, batch, held, type(opt).rules
    return _exchanged(opt, programs(opt).minimize(loss), args, state, given)


def _exchanged(opt: Any, program: Program, args: tuple[Any, ...], state: OptimizerState, given: Variables) -> Any:
    """Run a step, go on from the state that it gives, and hand back the new parameters: all of it, or nothing."""
    keeper = opt.keeper

    def exchange() -> Any:
        new, keeper.state = program(*args)
        return given.handed_back(list(map(new.__getitem__, given.names)))

    return uninterrupted(exchange, state if program.donated else None)


def gradients(opt: Any, loss: Callable[..., Any], params: Tree, *batch: Any) -> Tree:
    """The gradients of `loss(params, *batch)`, a function."""
    variables = Variables.of(params)
    _check_loss(type(opt).__name__, "get_gradients(loss, params, *batch)", loss)
    return programs(opt).gradient(loss)(variables.treedef.unflatten(variables.values), *batch)


def stateless_apply(opt: Any, weights: Sequence[Any], grads: Tree, params: Tree) -> tuple[Tree, list[Array]]:
    """The step as a pure function of the weights, which leaves the optimizer as it is."""
    required_state(opt, "stateless_apply")
    known, given = recognised(opt, params)
    found = present(type(opt).__name__, known.gradients(grads, given))
    running(opt)  # that the state have the form of the present settings
    named = matched(opt, weights)
    state, rate = written(opt, named, required_state(opt, "stateless_apply"))
    tx = opt.compose(opt.given_rate.in_use(rate))
    constraints = projections(known.names, known.variables or given.leaves)
    values = dict(zip(given.names, given.values, strict=True))
    new, state = step_once(tx, state, found, values, constraints, type(opt).rules)
    listed = opt.weight_list()
    after = zip(listed, read(listed, state, rate), strict=True)
    own = [value if innermost(weight).added is None else named[weight] for weight, value in after]
    return given.treedef.unflatten([new[name] for name in given.names]), own


def recognised(opt: Any, params: Tree) -> tuple[Parameters, Variables]:
    """What it was built for, and what is given, under its names; builds on first use."""
    if opt.keeper.known is None:
        opt.build(params)
    known: Any = opt.keeper.known
    return known, known.recognised(params)


def _required_variables(opt: Any) -> Any:
    known = opt.keeper.known
    if known is None or known.variables is None:
        raise ValueError(f"{type(opt).__name__}: which parameters? Arrays must be given at every step")
    return known.variables


def _check_loss(name: str, call: str, loss: Any) -> None:
    """Refuse what is no function of the parameters."""
    if takes_nothing(loss):
        raise TypeError(f"{name}.{call}: the loss must take the parameters, lambda params: ..., and this takes nothing")
    if not callable(loss):
        raise TypeError(
            f"{name}.{call}: the loss must be a function of the parameters that gives a scalar, "
            f"got {check.describe(loss)}; JAX has no graph in which to look for gradients of a value"
        )
