"""How a transformation is run: what is the same for all transformations.

- When a user calls `tx.init` or `tx.update`, that is `init_for_user` or `update_for_user`. Outside `jax.jit` the
  update runs as a compiled program.
- A transformation that holds others calls `init_stage` and `update_stage`.
- Both end in what the author of the transformation wrote: `init_fn` and `update_fn`.

A leaf is promoted once on the way in and cast once on the way out, and the result of each stage is checked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.extras import extras_of, refuse_misspelt
from gradtx.core.hyperparams import is_stateful
from gradtx.core.registry import declare_state
from gradtx.core.spec import Spec, rebuilt
from gradtx.core.tree import Tree, choose, path_str

__all__ = ["EmptyState", "ScheduledState", "init_stage", "update_stage"]


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


class ScheduledState(NamedTuple):
    """The state of a transformation with a schedule among its hyper-parameters, but without a counter of its own."""

    count: Array
    "int32[]: updates made so far."
    inner_state: Any
    "The state of the transformation itself."


declare_state(ScheduledState, {})


# Called by a user.


def init_for_user(tx: Any, params: Tree) -> Any:
    """`tx.init(params)`: the first state, in buffers of its own, so that it may be donated; or an abstract one."""
    leaves = jax.tree.leaves(params)
    if leaves and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        return jax.eval_shape(lambda params: init_stage(tx, params), params)
    return with_own_buffers(init_stage(tx, params), (params, tx.arrays))


def update_for_user(tx: Any, updates: Tree, state: Any, params: Tree, extra: Mapping[str, Any]) -> tuple[Tree, Any]:
    """`tx.update(updates, state, params, **extra)`, as a compiled program if no argument is traced."""
    refuse_misspelt(name_of(tx), tx.extras, extra)
    if are_concrete((updates, state, params, extra, tx.arrays)):
        return compiled_update(compiled_form(tx), updates, state, params, extra)
    return _outer_update(tx, updates, state, params, extra)


def _outer_update(tx: Any, updates: Tree, state: Any, params: Tree, extra: Mapping[str, Any]) -> tuple[Tree, Any]:
    """One update whose result has the dtypes of the parameters."""
    if params is not None:
        where = f"{name_of(tx)}: updates{' of one example' if _sums_examples(tx) else ''}"
        own = _as_they_come_out(tx, updates)
        check.same_structure(where, own, params, "params; the order is update(updates, state, params)")
        check.same_shapes(where, own, params, "the parameter")
    updates, params = (dtypes.strong(x) for x in (updates, params))
    new_updates, new_state = update_stage(tx, updates, state, params, extra)
    return dtypes.cast_like(new_updates, updates if params is None else params), new_state


compiled_update = jax.jit(_outer_update)
"""What runs outside `jax.jit`: all equal transformations share a program, and so do those that differ only in their
learning rates."""


# Called by a transformation that holds others.


def init_stage(tx: Any, params: Tree) -> Any:
    """The first state of a transformation inside another. For one of another library, dtypes are made strong."""
    if not _is_ours(tx):
        state = tx.init(params)
        return dtypes.cast_like(state, state)
    _check_place_of_sums(tx)
    if tx.touches_leaves:
        cure = "mask it (gradtx.masked), or filter it out: eqx.filter(model, eqx.is_inexact_array) for equinox"
        check.inexact_leaves(f"{name_of(tx)}: params", params, cure)
        params = jax.tree.map(jnp.asarray, params)
    state = tx.at(numerics.counter()).init_fn(params)
    if tx.State is not None and type(state) is not tx.State:
        came = describe_state(state)
        raise TypeError(
            f"{name_of(tx)}: init_fn returned {came}, but State is {tx.State.__name__}; make State its class"
        )
    return ScheduledState(numerics.counter(), state) if tx.needs_clock else state


PROCEED = "gradtx.proceed"
"""The name of an argument beside the extra ones, a scalar: where it is false, the state stays as it was.

Then the updates do not matter, and nobody may use them. It is for wrappers that leave out whole updates: the state is
kept where its slots are computed, so that XLA need not compute the update from slots that it does not store.
"""


def update_stage(tx: Any, updates: Tree, state: Any, params: Tree, extra: Mapping[str, Any]) -> tuple[Tree, Any]:
    """One update of a transformation inside another: updates in their compute dtypes, and a state in the dtypes it had.

    `extra` may hold arguments that only other transformations take.
    """
    wanted = wanted_by(tx, extra)
    check_arguments(tx, updates, params)
    if not getattr(tx, "takes_half_precision", False):
        like = updates if params is None else params
        updates, params = dtypes.promote(updates, like), params if params is None else dtypes.promote(params, updates)
    new_updates, new_state = _call_update_fn(tx, updates, state, params, wanted)
    _check_result(tx, "updates", new_updates, _as_they_come_out(tx, updates))
    _check_result(tx, "state", new_state, state)
    check.whole_numbers_stay(f"{name_of(tx)}: the state that came out", new_state, state)
    new_state = dtypes.cast_like(new_state, state)
    if PROCEED in extra and PROCEED not in wanted:
        new_state = choose(extra[PROCEED], new_state, state)
    return new_updates, new_state


def wanted_by(tx: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments beside updates, state and parameters that a transformation takes."""
    wanted = extras_of(tx).select(name_of(tx), {name: extra[name] for name in extra if name != PROCEED})
    return wanted | {PROCEED: extra[PROCEED]} if PROCEED in extra and getattr(tx, "keeps_state", False) else wanted


def _call_update_fn(tx: Any, updates: Tree, state: Any, params: Tree, wanted: Mapping[str, Any]) -> tuple[Tree, Any]:
    """The `update_fn` that the author wrote."""
    if not _is_ours(tx):
        return _checked_pair(tx, tx.update(updates, state, params, **wanted))
    tx_now, own_state, whole_state = at_its_time(tx, state, wanted.get(PROCEED))
    new_updates, new_state = _checked_pair(tx, tx_now.update_fn(updates, own_state, params, **wanted))
    return new_updates, whole_state(new_state)


def at_its_time(tx: Any, state: Any, proceed: Any) -> tuple[Any, Any, Callable[[Any], Any]]:
    """What the author of `tx` wrote code for: `tx` with values for its schedules, and the state that `init_fn` made.

    The third is a function that makes of such a state one of `tx`. `proceed` is the value of `PROCEED`, or `None`.
    """
    if tx.needs_clock:
        check_state(tx, state, ScheduledState)
        count = numerics.increment(state.count)
        count = count if proceed is None else choose(proceed, count, state.count)
        return tx.at(state.count), state.inner_state, lambda new: ScheduledState(count, new)
    if tx.State is not None:
        check_state(tx, state, tx.State)
    return (tx.at(getattr(state, tx.clock)) if tx.schedules else tx), state, lambda new: new


# Hyper-parameters of one update.


def with_values_at(tx: Any, names: Iterable[str], count: Any) -> Any:
    """`tx`, in which the schedules of these names are replaced by their values at `count`."""
    resolved: Any = object.__new__(type(tx))
    resolved.__dict__.update(tx.__getstate__() | {name: _value_at(tx, name, count) for name in names})
    return resolved


def _value_at(tx: Spec, name: str, count: Any) -> Array:
    """The value of a schedule at `count`, as a scalar of the default precision."""
    schedule = getattr(tx, name)
    if is_stateful(schedule):
        raise TypeError(f"{name_of(tx)}: {name} is a stateful schedule: wrap the transformation in inject_hyperparams")
    try:
        value = schedule(count)
    except Exception as error:
        error.add_note(f"in the schedule {name} of {name_of(tx)}, called with the int32 number of updates made before")
        raise
    array = (
        jnp.asarray(value) if isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex) else None
    )
    if array is None or array.shape != () or not jnp.issubdtype(array.dtype, np.number) or jnp.iscomplexobj(array):
        raise TypeError(
            f"{name_of(tx)}: the schedule {name} must give a real scalar, "
            f"got {check.describe(value if array is None else array)} from {schedule!r}"
        )
    return array.astype(jnp.result_type(float))


def compiled_form(tx: Any) -> Any:
    """`tx` with arrays for its rates, so that an eager loop that changes them compiles once. It is made only once."""
    made: dict[Any, Any] = tx.__dict__.setdefault("_with_rates_as_arrays", {})
    precision = jnp.result_type(float)
    if precision not in made:
        with jax.ensure_compile_time_eval():  # an array that is kept must not belong to a trace
            made[precision] = _numbers_to_arrays(tx)
    return made[precision]


def _numbers_to_arrays(node: Any) -> Any:
    """`node` and all that it holds, with arrays for the numbers whose kind is an `argument` of eager programs."""
    if type(node) in (tuple, list):
        return type(node)(map(_numbers_to_arrays, node))
    if type(node) is dict:
        return {key: _numbers_to_arrays(value) for key, value in node.items()}
    if not (isinstance(node, Spec) and node.takes_schedules):
        return node
    kinds = node.field_kinds()
    return rebuilt(type(node), [_to_array(value, kinds[name]) for name, value in node.__getstate__().items()])


def _to_array(value: Any, kind: Any) -> Any:
    if isinstance(value, float):
        return jnp.asarray(value) if getattr(getattr(kind, "kind", kind), "argument", False) else value
    return _numbers_to_arrays(value)


# Gradients of single examples.


def _sums_examples(tx: Any) -> bool:
    return getattr(tx, "sums_examples", False)


def _as_they_come_out(tx: Any, updates: Tree) -> Tree:
    """What the updates are like that come out: the same, or what is left of them without the axis of examples."""
    if not _sums_examples(tx):
        return updates
    for path, g in jax.tree_util.tree_leaves_with_path(updates):
        if not np.shape(g):
            raise ValueError(
                f"{name_of(tx)}: updates{path_str(path)}: expected a first axis of examples, got {check.describe(g)}; "
                "give the gradients of single examples: jax.vmap(jax.grad(loss), (None, 0))(params, batch)"
            )
    return jax.tree.map(lambda g: jax.ShapeDtypeStruct(np.shape(g)[1:], dtypes.dtype_of(g)), updates)


def _check_place_of_sums(tx: Any) -> None:
    """Refuse a transformation that would be given the gradients of single examples, but holds none that sums them."""
    held = getattr(tx, "parts", ())
    for part in held[1:] if _sums_examples(tx) else held:
        if _sums_examples(part):
            raise ValueError(
                f"{name_of(tx)}: {name_of(part)} is given the gradients of single examples: "
                "it must be the first stage of a chain, which no other transformation holds"
            )


# Checks of arguments and results.


_NUMBERS = (jax.Array, np.ndarray, np.generic, float, int, complex)


def are_concrete(arguments: Any) -> bool:
    """Whether all leaves are numbers or arrays that are not traced, so that a compiled program may be called."""
    kinds = set(map(type, jax.tree.leaves(arguments)))  # few types, however many leaves there are
    return all(issubclass(kind, _NUMBERS) and not issubclass(kind, jax.core.Tracer) for kind in kinds)


def with_own_buffers(state: Any, others: Any) -> Any:
    """The state, with a copy of each array that occurs twice or in `others`: a donated buffer must have one owner."""
    seen = {id(leaf) for leaf in jax.tree.leaves(others)}

    def own(leaf: Any) -> Any:
        if id(leaf) in seen and isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            leaf = jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    leaves, treedef = jax.tree.flatten(state)
    owned = [own(leaf) for leaf in leaves]
    return state if all(a is b for a, b in zip(owned, leaves, strict=True)) else treedef.unflatten(owned)


def _is_ours(tx: Any) -> bool:
    """Whether a transformation is one of gradtx rather than of another library."""
    return isinstance(tx, Spec)


def check_arguments(tx: Any, updates: Tree, params: Tree) -> None:
    """Refuse updates that are no floating-point arrays, and missing parameters."""
    if params is None and getattr(tx, "needs_params", False):
        raise ValueError(f"{name_of(tx)} needs the parameters: update(updates, state, params)")
    if getattr(tx, "touches_leaves", True):
        check.inexact_leaves(f"{name_of(tx)}: updates", updates, "give zeros, or mask the leaf (gradtx.masked)")


def check_state(tx: Any, state: Any, expected: type) -> None:
    """Refuse a state of another class than that of `tx`."""
    if type(state) is expected:
        return
    fields = getattr(expected, "_fields", None)
    expectation = expected.__name__ if fields is None else f"{expected.__name__}({', '.join(fields)})"
    raise ValueError(
        f"{name_of(tx)}: expected a state {expectation}, got {describe_state(state)}: "
        "use the state that init or the last update of this transformation returned; "
        "to restore a checkpoint, use the state from init as the template"
    )


def _checked_pair(tx: Any, result: Any) -> tuple[Tree, Any]:
    """What `update_fn` returned, if it is a pair."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{name_of(tx)}: update_fn must return the pair (updates, state), got {check.describe(result)}")
    return result


def _check_result(tx: Any, what: str, new: Tree, old: Tree) -> None:
    where = f"{name_of(tx)}: the {what} that came out"
    check.same_structure(where, new, old, f"the {what} that went in")
    check.same_shapes(where, new, old, "what went in")


def name_of(tx: Any) -> str:
    """What a transformation is called in messages."""
    return type(tx).__name__


def describe_state(state: Any) -> str:
    """What a state is called in messages."""
    if isinstance(state, tuple) and type(state) is not tuple:
        library = type(state).__module__.partition(".")[0]
        return f"{type(state).__name__}" if library == "gradtx" else f"{library}'s {type(state).__name__}"
    if isinstance(state, tuple):
        return f"a tuple of {len(state)} states ({', '.join(type(s).__name__ for s in state)})"
    return check.describe(state)
