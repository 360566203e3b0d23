"""What a training loop logs: the numbers that a state keeps, under stable names."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check
from gradtx.core.dtypes import dtype_of
from gradtx.core.registry import reported_by
from gradtx.core.spec import Spec
from gradtx.core.tree import unboxed
from gradtx.masks.paths import leaf_names
from gradtx.states.fields import (
    Field,
    Path,
    contains_state,
    fields,
    holds_states,
    key_names,
    unshadowed,
)

__all__ = ["metrics"]


_BY_NAME = {name: name for name in ("clipped", "grad_norm", "learning_rate", "loss_scale")}
"What the fields of a state report that is not declared to report anything."


def metrics(state: Any) -> dict[str, Array]:
    """What a training loop logs, as a flat dict of scalars under stable names. Works on any nested state, under jit.

    Each where something in the state keeps it: `steps` (updates made), `learning_rate` (of the last update, also if
    scheduled), `grad_norm` and `clipped` (of `clip_by_global_norm`), `skipped` (gradients that were not finite),
    `loss_scale`, `plateau_scale`; injected hyper-parameters, and what `monitor` and `snapshot` measure, under their own
    names, with the path of the leaf after it if a measurement is a tree.

    If several states keep a metric, what tells them apart comes first: the name of a group or of a stage, as in
    `embed/learning_rate`. Stages without a name are told apart by their positions, `0/grad_norm` and `2/grad_norm` of
    two clipping stages of a `chain`; `named_chain` gives them names.

    The state may lie in what another library keeps it in, such as flax's `TrainState`. The values of a state that
    `jax.vmap` made have an axis for its members.

    `asgd`, `ftrl`, `madgrad`, `optimistic_adam` and `rprop`, whose formulas have the rate in their midst, do not keep
    it; `inject_hyperparams(tx, names="learning_rate")` does. That of `polyak_sgd` is its factor, `scaling`.

    Raises:
        ValueError: there is no state of a transformation in `state`.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 4)))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> {name: float(value) for name, value in metrics(state).items()}
    {'clipped': 1.0, 'grad_norm': 5.0, 'learning_rate': 1.0, 'steps': 1.0}
    """
    if isinstance(state, Spec):
        raise ValueError(f"metrics: expected the state that init and update give, got the transformation {state!r}")
    every = fields(state)
    found: dict[str, list[tuple[Path, Any]]] = {}
    for field in every:
        for metric, value in _measured(field):
            found.setdefault(metric, []).append((field.path, value))
    result: dict[str, Array] = {}
    for metric, items in found.items():
        items = unshadowed(items)
        prefixes = _distinctions([path for path, _ in items])
        result |= {prefix + metric: value for prefix, (_, value) in zip(prefixes, items, strict=True)}
    if (steps := _steps(every)) is not None:
        result["steps"] = steps
    if not result and jax.tree.leaves(state) and not contains_state(state):
        raise ValueError(
            f"metrics: found no state of a transformation in {check.describe(state)}: give what init and update give, "
            "and, of a transformation made of two functions, make the state a NamedTuple whose name ends in State"
        )
    return dict(sorted(result.items()))


def _measured(field: Field) -> Iterator[tuple[str, Any]]:
    """The metrics that a field holds, with their names."""
    name, value = key_names(field.path)[-1], unboxed(field.value)
    above = key_names(field.path)[-2] if len(field.path) > 1 else ""
    if above in ("hyperparams", "measurement", "measurements"):
        names = [f"{name}/{leaf}" if leaf else name for leaf in leaf_names(value)]
        yield from ((each, leaf) for each, leaf in zip(names, jax.tree.leaves(value), strict=True) if _is_number(leaf))
    elif (metric := _reported(field)) not in (None, "steps") and _is_number(value):
        yield metric, value


def _reported(field: Field) -> Any:
    """The metric that a field holds, if it does: as declared, else by its name."""
    return (reported_by(field.holder) or _BY_NAME).get(key_names(field.path)[-1])


def _is_number(x: Any) -> bool:
    """Whether `x` is a number or an array of numbers, rather than a tree or a random key."""
    if not hasattr(x, "shape"):
        return isinstance(x, int | float)
    return not jnp.issubdtype(dtype_of(x), jax.dtypes.extended)


def _is_count(x: Any) -> bool:
    return hasattr(x, "shape") and jnp.issubdtype(dtype_of(x), jnp.integer)


def _steps(every: list[Field]) -> Any:
    """The number of steps taken: of a state that is declared to count them, else of the first that has a count."""
    counts = [field for field in every if _is_count(unboxed(field.value)) and not _is_clock_of_a_schedule(field)]
    declared = [field for field in counts if _reported(field) == "steps"]
    others = [field for field in counts if key_names(field.path)[-1] == "count" and not reported_by(field.holder)]
    return next((unboxed(field.value) for field in (*declared, *others)), None)


def _is_clock_of_a_schedule(field: Field) -> bool:
    return "hyperparams_states" in key_names(field.path)


# What tells several states apart that keep the same metric.


def _distinctions(paths: list[Path]) -> list[str]:
    """For each path what tells it from the others, with a slash after it; nothing for a single one.

    Names of groups and stages are preferred, then those of the fields that hold the states, then positions.
    """
    if len(paths) == 1:
        return [""]
    levels = [_unshared([parts(path[:-1]) for path in paths]) for parts in (_names, _names_and_fields, _positions_too)]
    whole = ["/".join(key_names(path[:-1])) for path in paths]
    names = [next((level[i] for level in levels if level.count(level[i]) == 1), whole[i]) for i in range(len(paths))]
    names = names if len(set(names)) == len(names) else whole
    return [f"{name}/" if name else "" for name in names]


def _names(path: Path) -> list[str]:
    return [
        name
        for key, name in zip(path, key_names(path), strict=True)
        if not _is_position(key) and not holds_states(name)
    ]


def _names_and_fields(path: Path) -> list[str]:
    names = [name for key, name in zip(path, key_names(path), strict=True) if not _is_position(key)]
    return [name.removesuffix("_state") for name in names]


def _positions_too(path: Path) -> list[str]:
    return [name for name in key_names(path) if not holds_states(name)]


def _is_position(key: Any) -> bool:
    return isinstance(key, jax.tree_util.SequenceKey)


def _unshared(sequences: list[list[str]]) -> list[str]:
    """The parts of each sequence that are not at the beginning or the end of all of them, joined with slashes."""
    start = _shared(sequences)
    middles = [own[start:] for own in sequences]
    end = min(_shared([own[::-1] for own in middles]), min(map(len, middles)))
    return ["/".join(own[: len(own) - end]) for own in middles]


def _shared(sequences: list[list[str]]) -> int:
    """How many first elements all sequences share."""
    columns = zip(*sequences, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))
