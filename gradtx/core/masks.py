"""Which leaves a transformation acts on, and which label a leaf has: trees, functions, or expressions on its path.

A leaf's path is written as in `dense/kernel`: keys, attribute names and list indices, joined with slashes. Verdicts
are lists, one for each leaf: nothing but arrays and `MaskedNode` is ever put into the nodes of a user's tree.
"""

import collections
import operator
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from gradtx.core import check
from gradtx.core.hyperparams import Flag
from gradtx.core.spec import Spec
from gradtx.core.tree import Tree, path_str

__all__ = ["LeafRule", "label_by_path", "weights_only"]

_SHOWN = 50  # paths that a message lists


class MaskedNode(NamedTuple):
    """Stands for a leaf that a mask hides. A node without leaves, so that nothing computes with it."""


def is_hidden(x: Any) -> bool:
    """Whether `x` stands for a hidden leaf."""
    return isinstance(x, MaskedNode)


# Paths and the expressions that search them.


def leaf_names(tree: Tree) -> list[str]:
    """The path of every leaf, hidden ones included, as `dense/kernel`; empty for a bare leaf.

    >>> leaf_names({"dense": {"kernel": 1.0, "bias": 2.0}, "heads": [3.0]})
    ['dense/bias', 'dense/kernel', 'heads/0']
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_hidden)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def _search(where: str, pattern: str, names: list[str]) -> list[bool]:
    """Whether each name contains the regular expression `pattern`; with a leading `!`, whether it does not.

    Raises:
        ValueError: the expression occurs in none of the names.
    """
    expression = re.compile(pattern.removeprefix("!"))
    found = [expression.search(name) is not None for name in names]
    if names and not any(found):
        raise ValueError(f"{where}: the pattern {pattern!r} matches no path; the paths are {_listed(names)}")
    return [hit != pattern.startswith("!") for hit in found]


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {rest} more" if rest > 0 else "")


class PatternKind:
    """A regular expression on a leaf's path, with `!` before it to mean those that it does not match."""

    example = ""
    numeric = False

    def convert(self, where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{where} must be a regular expression (a string), got {check.describe(value)}")
        try:
            re.compile(value.removeprefix("!"))
        except re.error as error:
            raise ValueError(f"{where}: {value!r} is no regular expression: {error}") from None
        return value


Pattern = Annotated[str, PatternKind()]
"A regular expression that is searched in a leaf's path; `'!bias'` means the leaves whose path has no `bias`."


class LeafRule(Spec, abstract=True):
    """A mask or a labelling that looks at the path and the array of each leaf. A value, as transformations are.

    Write `verdicts(self, where, names, leaves)`: a bool or a label for each leaf. Called with a tree of parameters, it
    gives a tree of verdicts.
    """

    def verdicts(self, where: str, names: list[str], leaves: list[Any]) -> list[Any]:
        """The verdict on each leaf; to be overridden. `where` begins the message of an error."""
        raise NotImplementedError(f"{type(self).__name__} defines no verdicts")

    def __call__(self, params: Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_hidden)
        verdicts = self.verdicts(type(self).__name__, leaf_names(params), leaves)
        nodes = [leaf if is_hidden(leaf) else verdict for leaf, verdict in zip(leaves, verdicts, strict=True)]
        return treedef.unflatten(nodes)


# Masks.


class MaskKind:
    """`None`, a pattern, a tree of bools like the parameters or a prefix of them, or a function that makes one."""

    example = None
    numeric = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, str):
            return PatternKind().convert(where, value)
        if value is None or isinstance(value, LeafRule) or _is_function(value):
            return value
        _check_leaves(where, value, lambda leaf: type(leaf) in (bool, np.bool_), "True or False (a Python bool)")
        return jax.tree.map(bool, value)  # a copy, dicts in JAX's order: the caller may change theirs


Mask = Annotated[Any, MaskKind()]
"""Which leaves to act on: a regular expression searched in their paths (`'!bias|norm'`: those without), a tree of
bools like the parameters or a prefix of it, or a function of the parameters."""


def mask_leaves(where: str, mask: Any, params: Tree) -> list[bool]:
    """The mask's verdict on each leaf of `params`, in order.

    Raises:
        ValueError: the mask is not a prefix of `params`, or a pattern that occurs in no path.
        TypeError: a leaf of it is not a bool.
    """
    if _is_function(mask):
        mask = _called(where, mask, params, MaskKind())
    if mask is None:
        return [True] * len(jax.tree.leaves(params))
    if isinstance(mask, str):
        return visible_only(params, _search(where, mask, leaf_names(params)))
    return _ruled(where, mask, params)[0] if isinstance(mask, LeafRule) else _spread(where, mask, params)


_PLAIN = r"(?i)(^|/)(bias|b|scale|gamma|beta)$|(^|/)([^/]*norm_?[0-9]*|ln(_[^/]*|[0-9]+)?)(/|$)"
"Names that biases and the parameters of norms go by."


class StackedKind:
    """How many leading axes are layers stacked by `scan` or `vmap`: a number, or the paths that have one such axis."""

    example = 0
    numeric = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, str):
            return PatternKind().convert(where, value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise TypeError(f"{where} must be a number of axes, 0 or more, or a pattern, got {check.describe(value)}")
        return value


class weights_only(LeafRule):
    """The mask for weight decay: no biases, norms and scalars, but matrices, convolutions and embeddings.

    A leaf is decayed if it has two axes or more, not counting those along which layers are stacked, and if its path is
    not that of a bias or a norm: `bias`, `b`, `scale`, `gamma` or `beta` at the end, or a part that ends in `norm`
    (and a number) or is `ln`, `ln1`, `ln_f` or the like, in whatever case. So a stacked bias is recognised by its name
    even if nobody says that it is stacked; stacked vectors of other names need `stacked`.

    >>> import jax.numpy as jnp
    >>> params = {"layers": {"bias": jnp.ones((12, 8)), "kernel": jnp.ones((12, 8, 8))}, "temperature": jnp.ones(())}
    >>> weights_only()(params)
    {'layers': {'bias': False, 'kernel': True}, 'temperature': False}

    Usually `adamw(1e-3, weight_decay=0.1, mask=weights_only())`.
    """

    stacked: Annotated[Any, StackedKind()] = 0
    "Leading axes that only stack layers, of every leaf; or a pattern: the leaves that have one such axis."
    exclude: Pattern | None = None
    "A pattern of further leaves to leave out, `'embed'` say."
    by_name: Flag = True
    "Whether to know biases and norms by their names as well."

    def verdicts(self, where: str, names: list[str], leaves: list[Any]) -> list[bool]:
        stacked = [self.stacked] * len(names)
        if isinstance(self.stacked, str):
            stacked = [int(hit) for hit in _search(f"{where}: stacked", self.stacked, names)]
        excluded = [self.by_name and re.search(_PLAIN, name) is not None for name in names]
        if self.exclude is not None:
            also = _search(f"{where}: exclude", self.exclude, names)
            excluded = [a or b for a, b in zip(excluded, also, strict=True)]
        axes = [0 if is_hidden(leaf) else np.ndim(leaf) for leaf in leaves]
        return [n - s >= 2 and not out for n, s, out in zip(axes, stacked, excluded, strict=True)]


# Labels.


class LabelsKind:
    """A tree of labels like the parameters or a prefix of them, or a function that makes one."""

    example = "all"
    numeric = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, LeafRule) or _is_function(value):
            return value
        _check_leaves(where, value, is_label, "a label (a string, say)")
        return jax.tree.map(lambda leaf: leaf, value)


Labels = Annotated[Any, LabelsKind()]
"A label for each leaf: a tree like the parameters or a prefix of it, `label_by_path`, or a function of the parameters."


def is_label(x: Any) -> bool:
    """Whether `x` may be a label: hashable, and neither an array nor a function."""
    return isinstance(x, Hashable) and not (x is None or callable(x) or hasattr(x, "dtype"))


def label_leaves(where: str, labels: Any, params: Tree) -> tuple[list[Any], set[Any]]:
    """The label of each leaf of `params`, in order, and all labels, those of hidden leaves included.

    Raises:
        ValueError: the labels are not a prefix of `params`, or a pattern that occurs in no path.
        TypeError: a leaf of it is not a label.
    """
    if _is_function(labels):
        labels = _called(where, labels, params, LabelsKind())
    if isinstance(labels, LeafRule):
        return _ruled(where, labels, params)
    return _spread(where, labels, params), set(jax.tree.leaves(labels))


class PairsKind:
    """A dict whose order matters, from patterns to something; kept as pairs, for JAX sorts the keys of dicts."""

    example = ()
    numeric = False

    def convert(self, where: str, value: Any) -> tuple[tuple[str, Any], ...]:
        pairs = tuple(value.items() if isinstance(value, Mapping) else value)
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise TypeError(f"{where} must be a dict from patterns, got {value!r}")
        pairs = tuple((PatternKind().convert(where, pattern), item) for pattern, item in pairs)
        if len({pattern for pattern, _ in pairs}) < len(pairs):
            raise ValueError(f"{where}: a pattern is given twice: {', '.join(repr(pattern) for pattern, _ in pairs)}")
        return pairs

    def shown(self, value: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
        """As it was written."""
        return dict(value)


class label_by_path(LeafRule):
    """Labels from patterns: a leaf has the label of the first regular expression that its path contains.

        label_by_path({"bias|norm": "plain", "^embed": "slow"}, otherwise="rest")

    Raises:
        ValueError: a pattern that no leaf falls to; a leaf that matches none, if there is no `otherwise`.

    >>> label_by_path({"bias": "plain"}, otherwise="rest")({"dense": {"bias": 1.0, "kernel": 2.0}})
    {'dense': {'bias': 'plain', 'kernel': 'rest'}}
    """

    patterns: Annotated[Any, PairsKind()]
    "A dict from patterns to labels; the first that matches wins."
    otherwise: Any = None
    "The label of the leaves that match none."

    def verdicts(self, where: str, names: list[str], leaves: list[Any]) -> list[Any]:
        labels = [label for _, label in self.patterns]
        first = first_matches(where, [pattern for pattern, _ in self.patterns], names)
        if self.otherwise is None and None in first:
            lost = [name for name, i in zip(names, first, strict=True) if i is None]
            raise ValueError(f"{where}: no pattern matches {_listed(lost)}; give them a label: otherwise=...")
        return [self.otherwise if i is None else labels[i] for i in first]


def first_matches(where: str, patterns: list[str], names: list[str]) -> list[int | None]:
    """For each name the position of the first pattern that matches it.

    Raises:
        ValueError: a pattern that is the first for no name.
    """
    columns = [_search(where, pattern, names) for pattern in patterns]
    first = [next((i for i, hits in enumerate(columns) if hits[j]), None) for j in range(len(names))]
    for i in sorted(set(range(len(patterns))) - set(first)) if names else []:
        raise ValueError(
            f"{where}: the pattern {patterns[i]!r} is never the first to match: earlier ones take all of its leaves; "
            f"put it before them. The paths are {_listed(names)}"
        )
    return first


# What both have in common.


def _is_function(value: Any) -> bool:
    """Whether `value` is to be called. A module that holds bools or labels is a tree of them, even if callable."""
    if isinstance(value, Spec | type) or not callable(value):
        return False
    leaves = jax.tree.leaves(value)
    return not leaves or not all(map(is_label, leaves))


def _called(where: str, function: Callable[[Tree], Any], params: Tree, kind: Any) -> Any:
    """What a function of the parameters gave, checked."""
    result = kind.convert(where, function(params))
    if result is None or _is_function(result):
        raise TypeError(
            f"{where}: the function must give True or False, or a label, for each leaf, got {check.describe(result)}"
        )
    return result


def _check_leaves(where: str, tree: Tree, is_right: Callable[[Any], bool], expected: str) -> None:
    if isinstance(tree, Spec):
        raise TypeError(f"{where}: expected {expected} for each leaf, got {tree!r}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_right(leaf):
            got = repr(leaf) if isinstance(leaf, str) else check.describe(leaf)
            got = f"the class {leaf.__name__}" if isinstance(leaf, type) else got
            raise TypeError(f"{where}{path_str(path) if path else ''}: expected {expected}, got {got}")


def _ruled(where: str, rule: LeafRule, params: Tree) -> tuple[list[Any], set[Any]]:
    """The verdict on each visible leaf, and the set of all, those on hidden ones included."""
    leaves = jax.tree.leaves(params, is_leaf=is_hidden)
    verdicts = rule.verdicts(where, leaf_names(params), leaves)
    return visible_only(params, verdicts), set(verdicts)


def visible_only(params: Tree, verdicts: list[Any]) -> list[Any]:
    """Those of the verdicts, one for each leaf, that are on visible leaves."""
    leaves = jax.tree.leaves(params, is_leaf=is_hidden)
    return [verdict for verdict, leaf in zip(verdicts, leaves, strict=True) if not is_hidden(leaf)]


def _spread(where: str, prefix: Tree, tree: Tree) -> list[Any]:
    """The leaf of `prefix` above each leaf of `tree`.

    Raises:
        ValueError: it is no prefix of it.
    """
    leaves, treedef = jax.tree.flatten(prefix)
    try:
        below = treedef.flatten_up_to(tree)
    except ValueError:
        check.same_structure(where, *_cut(prefix, tree), "the parameters, or of a prefix of them")
        raise
    return [leaf for leaf, subtree in zip(leaves, below, strict=True) for _ in jax.tree.leaves(subtree)]


def _cut(prefix: Tree, tree: Tree) -> tuple[Tree, Tree]:
    """Both as dicts by key, `tree` cut off below the leaves of `prefix`, so that only true differences are left."""
    if jax.tree_util.all_leaves([prefix]):
        return prefix, prefix
    if jax.tree_util.all_leaves([tree]) or type(prefix) is not type(tree):
        return prefix, tree
    if type(prefix) in (tuple, list) and len(prefix) == len(tree):
        pairs = [_cut(a, b) for a, b in zip(prefix, tree, strict=True)]
        return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    ours, theirs = _children(prefix), _children(tree)
    for key in ours.keys() & theirs.keys():
        ours[key], theirs[key] = _cut(ours[key], theirs[key])
    return ours, theirs


def _children(tree: Tree) -> dict[Any, Tree]:
    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)[0]
    return {jax.tree_util.keystr(path[:1], simple=True): child for path, child in nodes}


# Hiding leaves.


def hide(tree: Tree, visible: Iterable[bool]) -> Tree:
    """`tree` with `MaskedNode()` in the place of the leaves that are not visible.

    A node that refuses such a child, or makes something else of it, is not used: the result is then a flat dict from
    the paths to the leaves.
    """
    leaves, treedef = jax.tree.flatten(tree)
    shown = [leaf if on else MaskedNode() for leaf, on in zip(leaves, visible, strict=True)]
    if not any(map(is_hidden, shown)):
        return tree
    hidden = _filled(treedef, shown)
    if hidden is not None:
        return hidden
    every = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in every]
    if len(set(names)) < len(names):
        raise ValueError(f"cannot hide leaves of which two have the same path: {_listed(sorted(names))}")
    return collections.OrderedDict(zip(names, shown, strict=True))


def _filled(treedef: Any, shown: list[Any]) -> Tree | None:
    """The tree with these children, if its nodes take them as they are."""
    try:
        tree = treedef.unflatten(shown)
        kept = jax.tree.leaves(tree)
    except Exception:  # whatever a user's node raises
        return None
    expected = [leaf for leaf in shown if not is_hidden(leaf)]
    return tree if len(kept) == len(expected) and all(map(operator.is_, kept, expected)) else None
