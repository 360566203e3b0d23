"""Papers written out in float64 NumPy, each from its equations alone, for what no package recorded.

One file for each idea. `CASES` says which transformation of gradtx computes what which transcription does, `SCHEDULES`
the same of schedules; `tests/test_papers.py` runs both. A transcription is a callable `update(grads, params, **extra)`
of dicts of arrays that gives the updates, and keeps what it remembers in its own attributes. It uses nothing of what it
is the measure of. `tensorflow1.py` is run by `tests/keras/test_tf1.py`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, Any]
"A tree: arrays by name."
Update = Callable[..., Arrays]
"From gradients and parameters to updates."


TOLERANCE = 1e-12
"""Of the largest number of an array, both sides in float64: a few thousand roundings of 2⁻⁵³, more than eight steps of
divisions and roots come to, and far less than an ε of 1e-8 in another place."""


class Case(NamedTuple):
    """A transformation and its transcription."""

    tx: Any
    "The transformation of gradtx."
    make: Callable[[], Update]
    "Makes the transcription, before its first update."
    spoilt: tuple[int, ...] = ()
    "The steps, from 0 on, in which one element of the gradient of `bias` is NaN."
    read: Mapping[str, Callable[[Any], Any]] = {}
    "What else is compared: attributes of the transcription, and how to find them in the transformation's state."
    extra: Mapping[str, Any] = {}
    "Functions that the transformation is given as extra arguments."
    axes: tuple[int, ...] = ()
    "Axes of the gradients in front of those of the parameters: the number of examples, for what sums over them."
    tolerance: float = TOLERANCE
    "The largest deviation allowed, as a share of the largest number of an array."


class EachLeaf:
    """The update of one array, `update(g, w)`, made once for each array of a tree."""

    def __init__(self, make: Callable[[], Callable[[Any, Any], Any]]) -> None:
        self.make, self.own = make, {}

    def __call__(self, grads: Arrays, params: Arrays, **extra: Any) -> Arrays:
        """The updates of all arrays."""
        return {name: self.own.setdefault(name, self.make())(g, params[name]) for name, g in grads.items()}


class Sequence:
    """One update after the other, as in `chain`."""

    def __init__(self, *stages: Update) -> None:
        self.stages = stages

    def __call__(self, grads: Arrays, params: Arrays, **extra: Any) -> Arrays:
        """What the last one makes of what the ones before it made."""
        for stage in self.stages:
            grads = stage(grads, params, **extra)
        return grads


def each(f: Callable[..., Any], *trees: Arrays) -> Arrays:
    """`f` of the arrays of one name, for every name."""
    return {name: f(*(tree[name] for tree in trees)) for name in trees[0]}


def global_norm(tree: Arrays) -> Any:
    """√ of the sum of all squares."""
    return np.sqrt(sum(np.sum(np.square(x)) for x in tree.values()))


def value(hyperparam: Any, t: int) -> Any:
    """A number, or what a function of the number of updates made before says of it."""
    return hyperparam(t) if callable(hyperparam) else hyperparam


def modules() -> list[Any]:
    """Every paper."""
    return [importlib.import_module(f"papers.{module.name}") for module in pkgutil.iter_modules(__path__)]


def all_cases() -> dict[str, Case]:
    """The transcriptions of transformations, by what is transcribed."""
    return {name: case for paper in modules() for name, case in getattr(paper, "CASES", {}).items()}


def all_schedules() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """The transcriptions of schedules: a schedule, and its values as a function of the steps."""
    return {name: case for paper in modules() for name, case in getattr(paper, "SCHEDULES", {}).items()}
