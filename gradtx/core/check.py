"""Static checks of what goes into a transformation: its structure, shapes and dtypes.

They look at types only, so under `jax.jit` they cost nothing at run time. Every message names the transformation, the
path of the leaf, what was expected and what came.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from gradtx.core.dtypes import dtype_of, is_complex, is_inexact
from gradtx.core.tree import Tree, path_str

__all__ = ["describe", "inexact_leaves", "is_alike", "same_shapes", "same_structure", "whole_numbers_stay"]


def inexact_leaves(where: str, tree: Tree, cure: str) -> None:
    """Refuse leaves that are not real or complex floating-point arrays."""
    if all(map(_is_inexact_array, jax.tree.leaves(tree))):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{where}{path_str(path)}: expected a floating-point array, got the abstract {leaf!r}; "
                "init takes such if all leaves are, and jax.eval_shape of anything"
            )
        if not is_inexact(leaf):
            raise TypeError(f"{where}{path_str(path)}: expected a floating-point array, got {describe(leaf)}; {cure}")


def _is_inexact_array(leaf: Any) -> bool:
    return is_inexact(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct)


def same_structure(where: str, tree: Tree, expected: Tree, like: str) -> None:
    """Refuse a tree whose structure is not that of `expected`. The message has the path at which they differ."""
    if jax.tree.structure(tree) == jax.tree.structure(expected):
        return
    for path, problem in _differences(tree, expected, ()):
        raise ValueError(f"{where}{path_str(path)}: {problem} (expected the structure of {like})")
    raise ValueError(f"{where}: the structure differs from that of {like}: {jax.tree.structure(tree)}")


def _differences(tree: Tree, expected: Tree, path: tuple[Any, ...]) -> Iterable[tuple[tuple[Any, ...], str]]:
    """The paths at which two trees differ, and how they differ there."""
    if (tree is None) != (expected is None):
        yield (
            path,
            f"expected {describe(expected)}, got {describe(tree)}{_cure_for_none(expected) if tree is None else ''}",
        )
        return
    if jax.tree.structure(tree) == jax.tree.structure(expected):
        return
    ours, theirs = _children(tree), _children(expected)
    if type(tree) is not type(expected) and (ours or theirs):
        yield path, f"expected {_describe_node(expected)}, got {_describe_node(tree)}"
    elif missing := [key for key in theirs if key not in ours]:
        yield path, f"missing {', '.join(map(str, missing))}"
    elif extra := [key for key in ours if key not in theirs]:
        yield path, f"unexpected {', '.join(map(str, extra))}"
    else:
        for key, (entry, child) in ours.items():
            yield from _differences(child, theirs[key][1], (*path, entry))


def _cure_for_none(expected: Any) -> str:
    """What to do where the parameters have `expected` and the gradients have `None`."""
    if jax.tree_util.all_leaves([expected]) and not is_inexact(expected):
        return "; for equinox, give the parameters alone: eqx.filter(model, eqx.is_inexact_array)"
    return "; give zeros, or mask the leaf (gradtx.masked)"


def _children(tree: Tree) -> dict[str, tuple[Any, Any]]:
    """The direct children of a node, each with its key, by the name of the key. A leaf has none."""
    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)[0]
    return {str(path[0]): (path[0], child) for path, child in nodes if path}


def _describe_node(tree: Tree) -> str:
    """What a leaf or an inner node is called in messages."""
    return describe(tree) if jax.tree_util.all_leaves([tree]) else f"a {type(tree).__name__}"


def same_shapes(where: str, tree: Tree, expected: Tree, like: str, cure: str = "") -> None:
    """Refuse leaves of another shape, and real leaves for complex ones or the reverse. The structures must agree."""
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(expected)
    if all(map(_is_like, leaves, others)):
        return
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(tree), others, strict=True):
        if not _is_like(leaf, other):
            raise ValueError(
                f"{where}{path_str(path)}: expected {describe(other)} like {like}, got {describe(leaf)}{cure}"
            )


def whole_numbers_stay(where: str, tree: Tree, expected: Tree) -> None:
    """Refuse fractions in the place of whole numbers, which would be cut off. The structures must agree."""
    others = jax.tree.leaves(expected)
    if not any(map(_is_cut_off, jax.tree.leaves(tree), others)):
        return
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(tree), others, strict=True):
        if _is_cut_off(leaf, other):
            raise TypeError(
                f"{where}{path_str(path)}: expected {describe(other)} like what went in, got {describe(leaf)}, whose "
                "fractions would be cut off; begin with a float, or round it"
            )


def is_alike(tree: Tree, expected: Tree) -> bool:
    """Whether `same_structure` and `same_shapes` hold."""
    leaves, structure = jax.tree.flatten(tree)
    others, other_structure = jax.tree.flatten(expected)
    return structure == other_structure and all(map(_is_like, leaves, others))


def _is_cut_off(leaf: Any, other: Any) -> bool:
    return is_inexact(leaf) and np.issubdtype(dtype_of(other), np.integer)


def _is_like(leaf: Any, other: Any) -> bool:
    return np.shape(leaf) == np.shape(other) and is_complex(leaf) == is_complex(other)


def describe(x: Any) -> str:
    """What a value is called in messages: `float32[2,3]` for an array, else what kind of thing it is."""
    if x is None:
        return "None"
    if isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        dtype = "float0" if x.dtype == jax.dtypes.float0 else x.dtype
        return f"{dtype}{list(x.shape)}".replace(" ", "")
    if isinstance(x, bool | int | float | complex | str | bytes):
        return f"the Python {type(x).__name__} {x!r:.60}"
    if name := getattr(x, "__qualname__", ""):
        return f"the {'class' if isinstance(x, type) else type(x).__name__} {name}"
    return f"a {type(x).__name__}"
