"""Different transformations, or different hyper-parameters, for different leaves; and none for frozen ones."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax

from gradtx.core import check
from gradtx.core.base import EmptyState, GradientTransformation, Transformation
from gradtx.core.compose import Container, Inner, TransformationKind, identity
from gradtx.core.masks import (
    Labels,
    Mask,
    PairsKind,
    first_matches,
    is_label,
    label_leaves,
    leaf_names,
    mask_leaves,
    visible_only,
)
from gradtx.core.tree import Tree
from gradtx.transforms.stateless import zero
from gradtx.wrappers.masked import MaskedState, OnVisible, init_visible, merge, update_visible

__all__ = [
    "PartitionState",
    "freeze",
    "multi_transform",
    "param_groups",
    "partition",
    "selective_transform",
    "trainable",
]


class PartitionState(NamedTuple):
    """The states of the transformations that share the leaves among themselves."""

    inner_states: dict[Any, MaskedState]
    "By label: the state of that transformation, with `MaskedNode()` in the place of the leaves of others."


class _Grouping(Container, abstract=True):
    """What gives every leaf to one of several transformations."""

    State = PartitionState
    elementwise = False  # which leaf an element is in matters

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
        masks = self._masks(params)
        return PartitionState({label: init_visible(tx, params, masks[label]) for label, tx in self._groups().items()})

    def update_fn(
        self, updates: Tree, state: PartitionState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, PartitionState]:
        if state.inner_states.keys() != self._groups().keys():
            raise ValueError(
                f"{type(self).__name__}: expected a state for {_names(self._groups())}, "
                f"got one for {_names(state.inner_states)}: it was made with other groups"
            )
        masks = self._masks(updates if params is None else params)
        leaves, treedef = jax.tree.flatten(updates)
        states: dict[Any, MaskedState] = {}
        for label, tx in self._groups().items():
            new, states[label] = update_visible(tx, updates, state.inner_states[label], params, extra, masks[label])
            leaves = merge(masks[label], new, leaves)
        return treedef.unflatten(leaves), PartitionState(states)

    def _masks(self, params: Tree) -> dict[Any, list[bool]]:
        """By label: which leaves have it."""
        labels = self._labels(params)
        return {label: [own == label for own in labels] for label in self._groups()}


# Several transformations.


class TransformationsKind:
    """A dict from labels to transformations."""

    numeric = False

    @property
    def example(self) -> dict[str, Any]:
        return {"all": identity()}

    def convert(self, where: str, value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping) or not value:
            raise TypeError(f"{where} must be a dict from labels to transformations, got {value!r}")
        if wrong := [label for label in value if not is_label(label)]:
            raise TypeError(f"{where}: {wrong[0]!r} is no label: use a string, say")
        return {label: TransformationKind().convert(f"{where}[{label!r}]", tx) for label, tx in value.items()}


class partition(_Grouping):
    """Give every leaf to the transformation of its label.

        partition({"slow": sgd(0.1), "fast": adam(1e-3)}, label_by_path({"^embed": "slow"}, otherwise="fast"))

    Every leaf has exactly one label, and so goes through exactly one transformation. What looks at all leaves, such
    as `clip_by_global_norm`, sees inside only those of its label: put it outside, in a chain.

    Raises:
        ValueError: a label without a transformation, a transformation whose label no leaf has, labels not shaped like
            the parameters or a prefix of them.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx = gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.sgd(1.0)}, {"bias": "a", "kernel": "b"})
    >>> tx.update(params, tx.init(params), params)[0]
    {'bias': Array([-0.1], dtype=float32), 'kernel': Array([-1.], dtype=float32)}
    >>> gradtx.partition({"a": gradtx.sgd(0.1), "c": gradtx.sgd(1.0)}, {"bias": "a", "kernel": "b"}).init(params)
    Traceback (most recent call last):
    ValueError: partition: no transformation for the label 'b'; no leaf has the label 'c'; the labels of the leaves
    are 'a', 'b', those of the transformations 'a', 'c'
    """

    transforms: Annotated[Any, TransformationsKind()]
    "A dict from labels to transformations."
    param_labels: Labels
    "The label of each leaf: a tree of labels or a prefix of it, `label_by_path`, or a function of the parameters."

    def _groups(self) -> Mapping[Any, Transformation]:
        return self.transforms

    def _labels(self, params: Tree) -> list[Any]:
        labels, used = label_leaves("partition: param_labels", self.param_labels, params)
        unknown, unused = used - self.transforms.keys(), (self.transforms.keys() - used if used else set())
        problems = [f"no transformation for the label {_names(unknown)}"] if unknown else []
        problems += [f"no leaf has the label {_names(unused)}"] if unused else []
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


REST = "*"
"The group of the leaves that match no pattern. No regular expression is spelled like this."


class GroupsKind(PairsKind):
    """A dict from patterns to changed hyper-parameters, in the order in which they are tried."""

    def convert(self, where: str, value: Any) -> tuple[tuple[str, Any], ...]:
        pairs = super().convert(where, value)
        for pattern, changes in pairs:
            if not isinstance(changes, Mapping | Transformation):
                raise TypeError(
                    f"{where}[{pattern!r}] must be a dict of hyper-parameters or a transformation, "
                    f"got {check.describe(changes)}"
                )
        return tuple((p, dict(c) if isinstance(c, Mapping) else c) for p, c in pairs)


class param_groups(_Grouping):
    """One optimizer, with other hyper-parameters for the leaves whose paths match a pattern.

        param_groups(adamw(1e-3), {"bias|norm": dict(weight_decay=0.0), "^embed": dict(learning_rate=1e-4)})

    A leaf belongs to the first pattern that its path contains, or to none: then it has `base` as it is. What is given
    for a pattern is a dict of the hyper-parameters to change, or another transformation altogether. Each group has
    its own state, `state.inner_states["^embed"]`; that of the leaves without a pattern is called `"*"`.

    Put `clip_by_global_norm` outside, before it in a chain: inside it would see one group at a time.

    Raises:
        ValueError: a pattern that matches no leaf, or none that an earlier one leaves it.
        TypeError: `base` has no such hyper-parameter.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"bias": jnp.ones(1), "kernel": jnp.ones(1)}
    >>> tx = gradtx.param_groups(gradtx.sgd(1.0), {"bias": dict(learning_rate=0.1)})
    >>> tx.update(params, tx.init(params), params)[0]
    {'bias': Array([-0.1], dtype=float32), 'kernel': Array([-1.], dtype=float32)}
    """

    base: Inner
    "The optimizer."
    groups: Annotated[Any, GroupsKind()]
    "A dict from regular expressions to the hyper-parameters to change; the first that matches wins."

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = ((pattern, self._checked(pattern, changes)) for pattern, changes in self.groups)
        object.__setattr__(self, "groups", tuple(pairs))

    def _checked(self, pattern: str, changes: Any) -> Any:
        """The changes as the changed transformation has them: numbers as floats, say."""
        changed = self._changed(pattern, changes)
        return {name: getattr(changed, name) for name in changes} if isinstance(changes, Mapping) else changes

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
        """The transformation of each group by its pattern, `"*"` for that of the rest."""
        return {REST: self.base} | {pattern: self._changed(pattern, changes) for pattern, changes in self.groups}

    def _groups(self) -> Mapping[Any, Transformation]:
        return self.transforms

    def _labels(self, params: Tree) -> list[str]:
        patterns = [pattern for pattern, _ in self.groups]
        first = first_matches("param_groups: groups", patterns, leaf_names(params))
        return visible_only(params, [REST if i is None else patterns[i] for i in first])


# Some leaves only.


class freeze(Container):
    """Zero updates for the leaves where `mask` is true; the others pass through. It has no state.

    The last stage of a chain, `chain(adamw(1e-3), freeze("^embed"))`: those before it still see the frozen leaves,
    and keep state for them. `trainable` keeps none. A NaN in a frozen leaf's gradient becomes 0, too.

    Raises:
        ValueError: the mask is not shaped like the parameters or a prefix of them, or is a pattern without a match.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"embed": jnp.ones(2), "head": jnp.ones(2)}
    >>> tx = gradtx.chain(gradtx.sgd(0.5), gradtx.freeze("embed"))
    >>> tx.update(params, tx.init(params), params)[0]
    {'embed': Array([0., 0.], dtype=float32), 'head': Array([-0.5, -0.5], dtype=float32)}
    """

    elementwise = False  # which leaf an element is in matters

    mask: Mask = None
    "The leaves to freeze, all by default."

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return ()

    def init_fn(self, params: Tree) -> EmptyState:
        mask_leaves("freeze: mask", self.mask, params)
        return EmptyState()

    def update_fn(self, updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, EmptyState]:
        frozen = mask_leaves("freeze: mask", self.mask, updates if params is None else params)
        leaves, treedef = jax.tree.flatten(updates)
        return treedef.unflatten([zero(x) if off else x for x, off in zip(leaves, frozen, strict=True)]), state


class trainable(OnVisible):
    """Apply `inner` to the leaves where `mask` is true; the others are frozen: zero updates, and no state at all.

        chain(clip_by_global_norm(1.0), trainable(adamw(1e-3), "lora|head"))

    Frozen leaves need not be floating-point.

    Raises:
        ValueError: the mask is not shaped like the parameters or a prefix of them, or is a pattern without a match.
    """

    inner: Inner
    "The transformation of the leaves to train."
    mask: Mask
    "The leaves to train."

    def _visible(self, params: Tree) -> list[bool]:
        return mask_leaves("trainable: mask", self.mask, params)

    def _other(self, update: Any) -> Any:
        return zero(update)


class selective_transform(OnVisible):
    """Apply `optimizer` to the leaves where `freeze_mask` is false: `trainable`, with the mask the other way round.

    Raises:
        ValueError: the mask is not shaped like the parameters or a prefix of them, or is a pattern without a match.
    """

    optimizer: Inner
    "The transformation of the leaves to train."
    freeze_mask: Mask
    "The leaves to freeze."

    def _visible(self, params: Tree) -> list[bool]:
        return [not frozen for frozen in mask_leaves("selective_transform: freeze_mask", self.freeze_mask, params)]

    def _other(self, update: Any) -> Any:
        return zero(update)
