"""Different transformations, or different hyper-parameters, for different leaves."""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

from gradtx.core import check
from gradtx.core.compose import Container, Inner, TransformationKind, identity
from gradtx.core.hyperparams import Flag
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree
from gradtx.masks.hiding import visible_only
from gradtx.masks.labels import Labels, PairsKind, label_leaves
from gradtx.masks.paths import first_matches, leaf_names
from gradtx.masks.rules import is_label
from gradtx.wrappers.masked import masked
from gradtx.wrappers.sharing import MaskedState, Share, init_shares, update_shares

__all__ = [
    "PartitionState",
    "multi_transform",
    "param_groups",
    "partition",
]


class PartitionState(NamedTuple):
    """The states of several transformations, each of which acts on leaves of its own."""

    inner_states: dict[Any, MaskedState]
    "By label or name of the group: its transformation's state, with `MaskedNode()` for the leaves of other groups."


class _Grouping(Container, abstract=True):
    """A transformation that gives every leaf to one of several others."""

    State = PartitionState
    keeps_state = True
    elementwise = False  # which leaf an element is in matters
    mask_compatible_extra_args: ClassVar[bool] = True

    def _groups(self) -> Mapping[Any, Transformation]:
        """The transformation of each label."""
        raise NotImplementedError

    def _labels(self, params: Tree) -> list[Any]:
        """The label of each leaf's transformation."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return tuple(self._groups().values())

    def init_fn(self, params: Tree) -> PartitionState:
        return PartitionState(init_shares(self._shares(params), params))

    def update_fn(
        self, updates: Tree, state: PartitionState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, PartitionState]:
        if state.inner_states.keys() != self._groups().keys():
            raise ValueError(
                f"{type(self).__name__}: expected a state for {_names(self._groups())}, "
                f"got one for {_names(state.inner_states)}: it was made with other groups"
            )
        shares = self._shares(updates if params is None else params)
        hides_extra = self.mask_compatible_extra_args
        updates, states = update_shares(shares, updates, state.inner_states, params, extra, hides_extra)
        return updates, PartitionState(states)

    def _shares(self, params: Tree) -> dict[Any, Share]:
        """For each label, its transformation and which leaves have it."""
        labels = self._labels(params)
        return {label: Share(tx, [own == label for own in labels]) for label, tx in self._groups().items()}


# Several transformations.


class TransformationsKind:
    """A dict from labels to transformations."""

    may_vary = False

    @property
    def example(self) -> dict[str, Any]:
        return {"all": identity()}

    def convert(self, where: str, value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping) or not value:
            raise TypeError(f"{where} must be a dict from labels to transformations, got {value!r}")
        if wrong := [label for label in value if not is_label(label)]:
            raise TypeError(f"{where}: {wrong[0]!r} is no label: use a string")
        return {label: TransformationKind().convert(f"{where}[{label!r}]", tx) for label, tx in value.items()}


class partition(_Grouping):
    """Give every leaf to the transformation of its label.

        partition({"slow": sgd(0.1), "fast": adam(1e-3)}, label_by_path({"^embed": "slow"}, otherwise="fast"))

    Every leaf has exactly one label, and so goes through exactly one transformation. What looks at all leaves, such as
    `clip_by_global_norm`, sees inside only those of its label: put it outside, in a chain. The labels are the names of
    the groups in the state, `state.inner_states["slow"]`, and in metrics, `slow/learning_rate`.

    A label that no leaf has is mostly a misspelt one, and refused. Where a model may lack one kind of leaf, as muon's
    may have no matrix, say `allow_unused=True`: such a transformation has a state without leaves, and counts its steps.

    Raises:
        ValueError: a label without a transformation; a transformation whose label no leaf has, unless `allow_unused`;
            labels not shaped like the parameters or a prefix of them.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.sgd(1.0)}, {"bias": "a", "kernel": "b"})
    >>> tx.update(params, tx.init(params), params)[0]
    {'bias': Array([-0.1], dtype=float32), 'kernel': Array([-1.], dtype=float32)}
    >>> gradtx.partition({"a": gradtx.sgd(0.1), "c": gradtx.sgd(1.0)}, {"bias": "a", "kernel": "b"}).init(params)
    Traceback (most recent call last):
    ValueError: partition: no transformation for the label 'b'; no leaf has the label 'c' (to allow that:
    allow_unused=True); the labels of the leaves are 'a', 'b', those of the transformations 'a', 'c'
    """

    transforms: Annotated[Any, TransformationsKind()]
    "A dict from labels to transformations."
    param_labels: Labels
    """The label of each leaf: a tree of labels or a prefix of it, `label_by_path`, `label_by_mask`, or a function of
    the parameters."""
    allow_unused: Flag = False
    "Whether there may be transformations whose label no leaf has; by default that is an error."
    mask_compatible_extra_args: Flag = masked.mask_compatible_extra_args  # pyright: ignore

    def _groups(self) -> Mapping[Any, Transformation]:
        return self.transforms

    def _labels(self, params: Tree) -> list[Any]:
        labels, used = label_leaves("partition: param_labels", self.param_labels, params)
        unknown = used - self.transforms.keys()
        unused = set() if self.allow_unused or not used else self.transforms.keys() - used
        problems = [f"no transformation for the label {_names(unknown)}"] if unknown else []
        problems += [f"no leaf has the label {_names(unused)} (to allow that: allow_unused=True)"] if unused else []
        if problems:
            raise ValueError(
                f"partition: {'; '.join(problems)}; the labels of the leaves are {_names(used)}, "
                f"those of the transformations {_names(self.transforms)}"
            )
        return labels


multi_transform = partition
"The same, under its older name."


def _names(labels: Any) -> str:
    return ", ".join(sorted(map(repr, labels)))


# One transformation, several sets of hyper-parameters.


REST = "rest"
"The name of the group of the leaves that match no pattern."


class GroupsKind(PairsKind):
    """A dict from patterns to changed hyper-parameters, named or not, in the order in which they are tried."""

    def convert(self, where: str, value: Any) -> tuple[tuple[str, Any], ...]:
        return tuple(
            (pattern, _group(f"{where}[{pattern!r}]", item)) for pattern, item in super().convert(where, value)
        )


def _group(where: str, item: Any) -> Any:
    """What is given for a pattern, checked: a dict or a transformation, or a name and one of these."""
    name, changes = _name_and_changes(item)
    if not isinstance(changes, Mapping | Transformation):
        raise TypeError(
            f"{where} must be a dict of hyper-parameters or a transformation, or a pair of a name and one of these, "
            f"got {check.describe(changes)}"
        )
    if name is not None and (not name or name == REST):
        raise ValueError(f"{where}: the name {name!r} may not be given; {REST!r} is that of the leaves without a match")
    changes = dict(changes) if isinstance(changes, Mapping) else changes
    return changes if name is None else (name, changes)


def _name_and_changes(item: Any) -> tuple[str | None, Any]:
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str):
        return item[0], item[1]
    return None, item


def _names_of_groups(groups: tuple[tuple[str, Any], ...]) -> list[str]:
    """The name of each group: the one given, or else one made of its pattern, with a number if that is taken."""
    given = [_name_and_changes(item)[0] for _, item in groups]
    taken = {REST, *filter(None, given)}
    names: list[str] = []
    for name, (pattern, _) in zip(given, groups, strict=True):
        if name is None:
            name = next(each for each in _numbered(_readable(pattern)) if each not in taken)
            taken.add(name)
        names.append(name)
    return names


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{i}" for i in itertools.count(2))


def _readable(pattern: str) -> str:
    """What a pattern looks for, without the syntax of regular expressions.

    >>> [_readable(pattern) for pattern in ("^embed", "bias|norm", "!bias", "^encoder/layers/2/", "layers/[0-3]/.*")]
    ['embed', 'bias_norm', 'not_bias', 'encoder/layers/2', 'layers/0-3']
    """
    plain = re.sub(r"\(\?\w+\)|\\[A-Za-z]", " ", pattern.removeprefix("!"))  # flags such as (?i), classes such as \d
    parts = [re.sub(r"[^\w-]+", "_", part).strip("_") for part in plain.split("/")]
    name = "/".join(filter(None, parts)) or "group"
    return f"not_{name}" if pattern.startswith("!") else name


class param_groups(_Grouping):
    """One optimizer, with other hyper-parameters for the leaves whose paths match a pattern.

        param_groups(adamw(1e-3), {"bias|norm": dict(weight_decay=0.0), "^embed": dict(learning_rate=1e-4)})

    A leaf belongs to the first pattern that matches its path. If none does, `base` acts on it as it is. What is given
    for a pattern is a dict of the hyper-parameters to change, or another transformation altogether.

    Each group has a name, under which its state is kept, `state.inner_states["embed"]`, its hyper-parameters are set
    and its metrics are reported, `embed/learning_rate`. It is made of the pattern, `"bias_norm"` and `"embed"` above,
    or given in a pair: `{"bias|norm": ("plain", dict(weight_decay=0.0))}`. The leaves without a match are `"rest"`.

    Put `clip_by_global_norm` outside, before it in a chain: inside it would see one group at a time.

    Raises:
        ValueError: a pattern that matches no leaf, or only leaves that earlier patterns match; a name given twice.
        TypeError: `base` has no such hyper-parameter.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx = gradtx.param_groups(gradtx.sgd(1.0), {"bias": dict(learning_rate=0.1)})
    >>> tx.update(params, tx.init(params), params)[0]
    {'bias': Array([-0.1], dtype=float32), 'kernel': Array([-1.], dtype=float32)}
    >>> sorted(gradtx.metrics(tx.init(params)))
    ['bias/learning_rate', 'rest/learning_rate', 'steps']
    """

    base: Inner
    "The optimizer, which acts as it is on the leaves that match no pattern."
    groups: Annotated[Any, GroupsKind()]
    "A dict from patterns to hyper-parameters to change, or to pairs of a name and these; the first match wins."

    def __post_init__(self) -> None:
        super().__post_init__()
        groups = tuple((pattern, self._checked(pattern, item)) for pattern, item in self.groups)
        object.__setattr__(self, "groups", groups)
        names = _names_of_groups(groups)
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"param_groups: groups: the name {_names(repeated)} is given twice")

    def _checked(self, pattern: str, item: Any) -> Any:
        """The changes as the changed transformation has them, so that numbers are floats, say."""
        name, changes = _name_and_changes(item)
        changed = self._changed(pattern, changes)
        if isinstance(changes, Mapping):
            changes = {field: getattr(changed, field) for field in changes}
        return changes if name is None else (name, changes)

    def _changed(self, pattern: str, changes: Any) -> Transformation:
        if not isinstance(changes, Mapping):
            return changes
        where = f"param_groups: groups[{pattern!r}]"
        if not isinstance(self.base, GradientTransformation):
            raise TypeError(f"{where}: only a gradtx transformation has hyper-parameters to change, got {self.base!r}")
        try:
            return self.base.replace(**changes)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None

    @functools.cached_property
    def transforms(self) -> dict[str, Any]:
        """The transformation of each group by its name, `"rest"` for that of the leaves without a match."""
        changed = [self._changed(pattern, _name_and_changes(item)[1]) for pattern, item in self.groups]
        return {REST: self.base} | dict(zip(_names_of_groups(self.groups), changed, strict=True))

    def _groups(self) -> Mapping[Any, Transformation]:
        return self.transforms

    def _labels(self, params: Tree) -> list[str]:
        first = first_matches("param_groups: groups", [pattern for pattern, _ in self.groups], leaf_names(params))
        names = _names_of_groups(self.groups)
        return visible_only(params, [REST if i is None else names[i] for i in first])
