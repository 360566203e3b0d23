"""The fields of states: how they are found, read, replaced and mapped, however deeply transformations are nested.

A *field* of a state is a field of one of the NamedTuples that it is made of, or an entry of a dict of states or of
hyper-parameters. What lies below a field, a tree like the parameters, is never searched, so that a parameter called
`mu` is not confused with the field. A field is named by its own name, `"mu"`, or by this after names of what it lies
in: the state's class, a stage of `named_chain`, a group of `partition` or `param_groups`, a position in a chain.

    get(state, "mu")     get(state, "ScaleByAdamState.count")     get(state, "embed.learning_rate")

States are also found inside of what other libraries keep them in: flax's `TrainState`, NumPyro's tuple of a count,
parameters and state, nnx's `Optimizer`, which boxes every array. Boxes are taken off for reading and kept in replacing.
"""

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check
from gradtx.core.registry import is_declared_state
from gradtx.core.run import ScheduledState
from gradtx.core.tree import Tree, children, is_box, unboxed
from gradtx.masks.hiding import is_hidden

__all__ = ["map_params"]

Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool]

_REQUIRED: Any = object()


class Field(NamedTuple):
    """One field of a state."""

    path: Path
    "Its key path, as in `jax.tree_util`."
    owners: tuple[str, ...]
    "For each part of the path but the first, and for the whole: the class of the state there, or nothing."
    value: Any
    "What it holds: an array, a tree like the parameters, or further states."
    opaque: bool
    "Whether its value is not searched for further fields."
    holder: type
    "The class of what it is a field of."


# The fields of a state.


def fields(state: Any) -> list[Field]:
    """All fields of a state, outer ones before those that lie in them."""
    return list(_walk(state, (), ()))


def _walk(node: Any, path: Path, owners: tuple[str, ...], inside: bool = False) -> Iterator[Field]:
    owners = (*owners, type(node).__name__ if hasattr(node, "_fields") else "")
    for key, child, searched in _entries_to_search(node, inside):
        below = (*path, key)
        if not isinstance(key, jax.tree_util.SequenceKey):
            yield Field(below, owners, child, not searched, type(node))
        if searched:
            yield from _walk(child, below, owners, inside or _is_state(node))


def _entries_to_search(node: Any, inside: bool) -> Iterator[tuple[Any, Any, bool]]:
    """The direct children with their keys, and whether they are searched for fields.

    Outside of states, any container with a state somewhere in it is searched; inside, only what should hold states.
    """
    inside = inside or _is_state(node)
    for key, name, child in _entries(node):
        yield key, child, holds_states(name) or _is_states(child) or (not inside and contains_state(child))


def holds_states(name: str) -> bool:
    """Whether a field of this name holds states or named values, rather than a tree like the parameters."""
    return name.endswith(("_state", "_states")) or name in _OF_VALUES


_OF_VALUES = ("hyperparams", "hyperparams_states", "info", "measurement", "measurements")
"Names of fields that hold named values."


def _entries(node: Any) -> Iterator[tuple[Any, str, Any]]:
    """The direct children with their key and its name."""
    if hasattr(node, "_fields"):
        yield from ((jax.tree_util.GetAttrKey(name), name, getattr(node, name)) for name in node._fields)
    elif isinstance(node, Mapping):
        yield from ((jax.tree_util.DictKey(key), str(key), child) for key, child in node.items())
    elif isinstance(node, tuple | list):
        yield from ((jax.tree_util.SequenceKey(i), str(i), child) for i, child in enumerate(node))
    else:
        yield from ((path[0], key_names(path)[0], child) for path, child in children(node) if path)


def _is_state(x: Any) -> bool:
    """Whether `x` is one state: of a class that a transformation declares; of another library, by its class's name."""
    return hasattr(x, "_fields") and (is_declared_state(type(x)) or _is_named_like_a_state(type(x)))


def _is_named_like_a_state(cls: type) -> bool:
    """Optax does not declare its states, but their names end alike."""
    return cls.__name__.endswith("State") and not cls.__module__.startswith("gradtx.")


def _is_states(x: Any) -> bool:
    """Whether `x` is a state or a collection of nothing but states."""
    if hasattr(x, "_fields"):
        return _is_state(x)
    members = list(x.values()) if isinstance(x, Mapping) else x
    return isinstance(members, tuple | list) and bool(members) and all(map(_is_states, members))


def contains_state(x: Any) -> bool:
    """Whether there is a state in `x`, however deep."""
    return any(map(_is_state, jax.tree.leaves(x, is_leaf=_is_state)))


def _name(path: Path) -> str:
    return ".".join(key_names(path))


def key_names(path: Path) -> tuple[str, ...]:
    """The names of the keys of a path."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


# By name.


def get_all_with_path(tree: Any, key: str, filtering: Filter | None = None) -> list[tuple[Path, Any]]:
    """Path and value of every field that `key` names, outer ones first. A class of states names those states."""
    found = [(field.path, unboxed(field.value)) for field in _matches(tree, key)]
    if not found:
        found = list(_states_called(tree, key))
    return [(path, value) for path, value in found if filtering is None or filtering(path, value)]


def get(tree: Any, key: str, default: Any = _REQUIRED, filtering: Filter | None = None) -> Any:
    """The value of the field that `key` names.

    Of an injected hyper-parameter the value in `hyperparams` is meant, not the record that a stage inside keeps.

    Raises:
        KeyError: no field, if no `default` is given, or more than one; the message lists the candidates.

    >>> import gradtx
    >>> state = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)).init({"mu": jnp.zeros(2)})
    >>> get(state, "mu")
    {'mu': Array([0., 0.], dtype=float32)}
    >>> get(state, "count")
    Traceback (most recent call last):
    KeyError: "'count' names 2 fields: '1.0.count' (ScaleByAdamState), '1.1.count' (ScaleByLearningRateState); write
    more of the path, 'ScaleByAdamState.count' say"
    """
    found = unshadowed(get_all_with_path(tree, key, filtering))
    if len(found) == 1:
        return found[0][1]
    if found:
        raise KeyError(_ambiguous(tree, key, [path for path, _ in found]))
    if default is not _REQUIRED:
        return default
    raise KeyError(_unknown(tree, key, filtering))


def replace(tree: Any, filtering: Filter | None = None, /, **values: Any) -> Any:
    """A copy of the state with other values in all fields of these names. A function is applied to the old value.

    A number takes the dtype of what it replaces, so that nothing is compiled again.

    Raises:
        KeyError: no such field; the message lists those there are.
        ValueError: another structure or shape, or a field of which the state only keeps a record.

    >>> import gradtx
    >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
    >>> get(replace(state, nu=jnp.ones(2)), "nu")
    Array([1., 1.], dtype=float32)
    >>> get(replace(state, mu=lambda mu: mu + 1), "mu")
    Array([1., 1.], dtype=float32)
    """
    for key, value in values.items():
        found = get_all_with_path(tree, key, filtering)
        if not found:
            raise KeyError(_unknown(tree, key, filtering))
        chosen = unshadowed(found)
        for path, old in chosen:
            _refuse_records(tree, path)
            tree = _put(tree, path, _fitted(path, value(old) if callable(value) else value, old))
    return tree


def _matches(state: Any, key: str) -> list[Field]:
    """The fields that `key` names: its last part is their own name, its other parts lie in order on the path to it."""
    every = fields(state)
    whole = [field for field in every if key_names(field.path)[-1] == key]
    if whole:
        return whole
    *outer, last = key.split(".")
    named = [field for field in every if key_names(field.path)[-1] == last]
    return [field for field in named if _lie_in_order(outer, field)]


def _lie_in_order(outer: list[str], field: Field) -> bool:
    steps = iter([{owner, part} for owner, part in zip(field.owners, ("", *key_names(field.path)), strict=False)])
    return all(any(name in step for step in steps) for name in outer)


def _states_called(state: Any, name: str, path: Path = (), inside: bool = False) -> Iterator[tuple[Path, Any]]:
    if type(state).__name__ == name and hasattr(state, "_fields"):
        yield path, state
    for key, child, searched in _entries_to_search(state, inside):
        if searched:
            yield from _states_called(child, name, (*path, key), inside or _is_state(state))


def is_injected(path: Path) -> bool:
    """Whether a field is a hyper-parameter that lives in the state."""
    return len(path) > 1 and key_names(path)[-2] == "hyperparams"


def unshadowed(found: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Those that are not the clock or the record of a hyper-parameter that is injected further outside."""
    holders = [path[:-2] for path, _ in found if is_injected(path)]
    return [
        (path, value)
        for path, value in found
        if is_injected(path) or not any(path[: len(above)] == above for above in holders)
    ]


def _unknown(state: Any, key: str, filtering: Filter | None) -> str:
    if filtering is not None and (found := get_all_with_path(state, key)):
        return f"no field {key!r} passes the filter; there is {', '.join(repr(_name(path)) for path, _ in found)}"
    known = sorted({key_names(field.path)[-1] for field in fields(state)})
    return f"no field {key!r} in the state; its fields are {', '.join(known) or 'none'}"


def _ambiguous(state: Any, key: str, paths: list[Path]) -> str:
    owners = {field.path: field.owners[-1] for field in fields(state)}
    each = ", ".join(f"{_name(path)!r} ({owners.get(path) or 'an entry'})" for path in paths)
    example = f"{owners.get(paths[0]) or _name(paths[0][:-1])}.{key_names(paths[0])[-1]}"
    return f"{key!r} names {len(paths)} fields: {each}; write more of the path, {example!r} say"


def _refuse_records(state: Any, path: Path) -> None:
    """Refuse to set what the next update would not read: the record of a rate in use, the value of a schedule."""
    name, above = key_names(path)[-1], _at(state, path[:-1])
    if type(above).__name__ == "ScaleByLearningRateState" and name == "learning_rate":
        raise ValueError(
            f"{_name(path)} only records the rate in use; to set it, inject it: "
            "gradtx.inject_hyperparams(optimizer), then gradtx.set_hyperparams(state, learning_rate=...)"
        )
    if is_injected(path) and name in getattr(_at(state, path[:-2]), "hyperparams_states", ()):
        raise ValueError(f"{_name(path)} follows a schedule: give a number instead of it to set the value yourself")


def _fitted(path: Path, new: Any, old: Any) -> Any:
    """The new value, checked against the old one and in its dtypes."""
    check.same_structure(_name(path), new, old, "what it replaces")
    check.same_shapes(_name(path), new, old, "what it replaces")
    return jax.tree.map(_like, new, old)


def _like(new: Any, old: Any) -> Any:
    if not isinstance(old, jax.Array | np.ndarray) or jnp.issubdtype(old.dtype, jax.dtypes.extended):
        return new
    return jax.lax.convert_element_type(jnp.asarray(new), old.dtype)


def _at(state: Any, path: Path) -> Any:
    for key in path:
        state = _child(state, key)
    return state


def _child(node: Any, key: Any) -> Any:
    return next(child for own, _, child in _entries(node) if own == key)


def _put(node: Any, path: Path, value: Any) -> Any:
    """A copy of `node` with `value` at `path`, in a box where the old value is in one."""
    if not path:
        return _with_only_child(node, value) if is_box(node) and not is_box(value) else value
    new = [(own, _put(child, path[1:], value) if own == path[0] else child) for own, _, child in _entries(node)]
    if hasattr(node, "_fields"):
        return type(node)(*(child for _, child in new))
    if isinstance(node, Mapping):
        copy = dict(zip(node, (child for _, child in new), strict=True))
        return copy if type(node) is dict else type(node)(copy)  # pyright: ignore[reportCallIssue]
    if isinstance(node, tuple | list):
        return type(node)(child for _, child in new)
    return _with_children(node, [child for _, child in new])


def _with_only_child(box: Any, value: Any) -> Any:
    (inner,) = (child for _, child in children(box))
    return _with_children(box, [_with_only_child(inner, value) if is_box(inner) else value])


def _with_children(node: Any, new: list[Any]) -> Any:
    return jax.tree.structure(node, is_leaf=lambda x: x is not node).unflatten(new)


# Trees like the parameters.


def map_params(
    tx: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Tree,
    transform_non_params: Callable[[Any], Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """The state with `f(leaf, *rest)` for every leaf that belongs to a parameter, as `mu` of Adam has one for each.

    `rest` are trees like the parameters: the parameters themselves, or their shardings. Each of their leaves goes to
    `f` together with the corresponding leaf of the state, even where the shapes differ, as those of Adafactor's rows
    and columns and of the memory of L-BFGS do. Leaves that a mask hides are left alone, unless `is_leaf` is true of
    their `MaskedNode`. `transform_non_params` is applied to everything else: counters, norms, hyper-parameters.

    Without `rest`, a field is taken to be like the parameters if the state's class does not declare it an array.

    Raises:
        ValueError: the state is that of another transformation; or it is a plain dict, of which it is not known
            without `rest` what in it is like the parameters.

    >>> import gradtx
    >>> tx = gradtx.adam(0.1)
    >>> params = {"w": jnp.zeros(2)}
    >>> map_params(tx, lambda leaf, name: name, tx.init(params), {"w": "W"}, transform_non_params=lambda x: "-")
    (ScaleByAdamState(count='-', mu={'w': 'W'}, nu={'w': 'W'}),
     ScaleByLearningRateState(count='-', learning_rate='-'))
    """
    expected = getattr(tx, "State", None)
    if expected is not None and type(state) not in (expected, ScheduledState):
        raise ValueError(f"map_params: {type(tx).__name__} has a state {expected.__name__}, got {type(state).__name__}")
    other = transform_non_params or (lambda x: x)
    for field in fields(state):
        if not field.opaque:
            continue
        if _is_like_params(state, field, rest, is_leaf):
            new = _map_hidden(f, field.value, rest, is_leaf)
        else:
            new = jax.tree.map(other, field.value)
        state = _put(state, field.path, new)
    return state


def _is_like_params(state: Any, field: Field, rest: tuple[Tree, ...], is_leaf: Any) -> bool:
    declared = _declared(type(_at(state, field.path[:-1])), key_names(field.path)[-1])
    if declared in (Array, jax.typing.ArrayLike) or is_injected(field.path):
        return False
    if not rest:
        _refuse_undeclared(field)
        return declared is not None
    treedef = jax.tree.structure(field.value, is_leaf=is_hidden)
    if jax.tree_util.treedef_is_leaf(treedef) and declared is None:
        return False
    return treedef == jax.tree.structure(rest[0], is_leaf=is_leaf) or _is_prefix(treedef, rest[0], is_leaf)


def _refuse_undeclared(field: Field) -> None:
    """Refuse an entry of a dict that is a state, unless it is a number and so cannot be like the parameters."""
    names, value = key_names(field.path), field.value
    is_number = jax.tree_util.all_leaves([value]) and np.ndim(value) == 0
    if issubclass(field.holder, Mapping) and names[-2:-1] not in [(name,) for name in _OF_VALUES] and not is_number:
        raise ValueError(
            f"map_params: the state is a dict, so it is not known whether its entry {_name(field.path)!r} is like the "
            "parameters: give them, map_params(tx, lambda leaf, param: ..., state, params), or make the state a "
            "NamedTuple with annotations"
        )


def _is_prefix(treedef: Any, tree: Tree, is_leaf: Any) -> bool:
    try:
        below = treedef.flatten_up_to(tree)
    except ValueError:
        return False
    return all(x is None or jax.tree_util.all_leaves([x], is_leaf=is_leaf) for x in below)


def _declared(cls: type, name: str) -> Any:
    """The annotation of a state's field; `None` if it has none."""
    try:
        return typing.get_type_hints(cls).get(name)
    except (NameError, TypeError):  # the annotation cannot be evaluated here
        return getattr(cls, "__annotations__", {}).get(name)


def _map_hidden(f: Callable[..., Any], value: Tree, rest: tuple[Tree, ...], is_leaf: Any) -> Tree:
    is_asked_for = is_leaf or (lambda x: False)
    leaves, treedef = jax.tree.flatten(value, is_leaf=lambda x: is_hidden(x) or is_asked_for(x))
    beside = [treedef.flatten_up_to(tree) for tree in rest]
    columns = zip(leaves, *beside, strict=True)
    return treedef.unflatten(
        [leaf if is_hidden(leaf) and not is_asked_for(leaf) else f(leaf, *others) for leaf, *others in columns]
    )
