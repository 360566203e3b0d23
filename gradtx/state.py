"""What a training loop does with a state: set hyper-parameters that live in it, and log what it keeps.

`gradtx.tree` has the tools for everything else in a state: `tree.get`, `tree.set`, `tree.map_params`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import tree
from gradtx.core.tree import dtype_of
from gradtx.fields import Field, Path, fields, holds_states, is_injected, key_names, map_params, unshadowed

__all__ = ["map_params", "metrics", "set_hyperparams"]


def set_hyperparams(state: Any, **values: Any) -> Any:
    """A copy of the state with other values of injected hyper-parameters; nothing is compiled again.

    All hyper-parameters of the name are set; `**{"embed.learning_rate": 1e-4}` picks one of several.

    Raises:
        KeyError: no hyper-parameter of the name was injected; the message lists those that were.
        ValueError: it follows a schedule.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> state = gradtx.inject_hyperparams(gradtx.adam(1e-3)).init(jnp.zeros(2))
    >>> set_hyperparams(state, learning_rate=1e-4).hyperparams["learning_rate"]
    Array(0.0001, dtype=float32)
    """
    injected = [field.path for field in fields(state) if is_injected(field.path)]
    for key in values:
        if not any(is_injected(path) for path, _ in tree.get_all_with_path(state, key)):
            there = ", ".join(sorted({repr(key_names(path)[-1]) for path in injected})) or "none at all"
            raise KeyError(f"no injected hyper-parameter {key!r}, there is {there}: see gradtx.inject_hyperparams")
    return tree.set(state, lambda path, _: is_injected(path), **values)


# What a training loop logs.


METRICS = {
    "clipped": "clipped",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "loss_scale": "loss_scale",
    "scale": "plateau_scale",
    "total_notfinite": "skipped",
}
"Fields of states, and what they are called among the metrics."

_CLOCKS = (("ScaleByLearningRateState", "count"), ("", "gradient_step"), ("", "count"))
"Where to find the number of updates made, best first: a rate's clock counts the steps that were taken."


def metrics(state: Any) -> dict[str, Array]:
    """What a training loop logs, as a flat dict of scalars under stable names. Works on any nested state, under jit.

    Each where something in the state keeps it: `steps` (updates made), `learning_rate` (of the last update, also if
    scheduled), `grad_norm` and `clipped` (of `clip_by_global_norm`), `skipped` (gradients that were not finite),
    `loss_scale`, `plateau_scale`; injected hyper-parameters and what `monitor` measures under their own names. If
    several states keep a metric, what tells them apart comes first: `embed/learning_rate` of one group of several,
    `0/grad_norm` and `2/grad_norm` of two clipping stages.

    `asgd`, `ftrl`, `madgrad`, `optimistic_adam` and `rprop`, whose formulas have the rate in their midst, do not keep
    it; `inject_hyperparams(tx, names="learning_rate")` does. That of `polyak_sgd` is its factor, `scaling`.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 4)))
    >>> updates, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> {name: float(value) for name, value in metrics(state).items()}
    {'clipped': 1.0, 'grad_norm': 5.0, 'learning_rate': 1.0, 'steps': 1.0}
    """
    every = fields(state)
    found: dict[str, list[tuple[Path, Any]]] = {}
    for field in every:
        name = key_names(field.path)[-1]
        named = len(field.path) > 1 and key_names(field.path)[-2] in ("hyperparams", "measurements")
        metric = name if named else METRICS.get(name)
        if metric is not None and _is_scalar(field.value):
            found.setdefault(metric, []).append((field.path, field.value))
    result: dict[str, Array] = {}
    for metric, items in found.items():
        items = unshadowed(items)
        prefixes = _distinctions([path for path, _ in items])
        result |= {prefix + metric: value for prefix, (_, value) in zip(prefixes, items, strict=True)}
    if (steps := _steps(every)) is not None:
        result["steps"] = steps
    return dict(sorted(result.items()))


def _is_scalar(x: Any) -> bool:
    return hasattr(x, "shape") and x.shape == () and not jnp.issubdtype(dtype_of(x), jax.dtypes.extended)


def _steps(every: list[Field]) -> Any:
    for owner, name in _CLOCKS:
        for field in every:
            own = key_names(field.path)[-1] == name and "hyperparams_states" not in key_names(field.path)
            own = own and field.owners[-1] != "ReduceLROnPlateauState"  # which counts values, not updates
            if own and (not owner or field.owners[-1] == owner) and _is_scalar(field.value):
                return field.value
    return None


def _distinctions(paths: list[Path]) -> list[str]:
    """For each path the part of it that the others do not share, with a slash; empty for a single one."""
    if len(paths) == 1:
        return [""]
    parts = [[part for part in key_names(path)[:-1] if not holds_states(part)] for path in paths]
    shared = _shared(parts)
    cut = [own[shared:] for own in parts]
    tail = min(_shared([own[::-1] for own in cut]), min(map(len, cut)))
    short = ["/".join(own[: len(own) - tail]) for own in cut]
    names = short if len(set(short)) == len(short) else ["/".join(key_names(path)[:-1]) for path in paths]
    return [f"{name}/" if name else "" for name in names]


def _shared(sequences: list[list[str]]) -> int:
    """How many first elements all sequences share."""
    columns = zip(*sequences, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))
