"""Trees: the paths of their leaves, and their nodes."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

__all__ = ["Tree", "children", "choose", "find", "is_box", "joined_path", "leaf_paths", "path_str", "unboxed"]

Tree = Any
"A pytree: nested tuples, lists, dicts, NamedTuples or other registered nodes, with arrays for leaves."


def path_str(path: tuple[Any, ...]) -> str:
    """The path as messages show it: `['dense']['kernel']`, and the empty string where the tree is a single leaf."""
    return jax.tree_util.keystr(path)


def joined_path(path: tuple[Any, ...]) -> str:
    """The path that patterns are matched with: `dense/kernel`; the empty string where the tree is a single leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_paths(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[Any, ...]]:
    """The path of every leaf as a user would write it, without the boxes that a library puts around its arrays."""
    paths: list[tuple[Any, ...]] = []
    for path, node in jax.tree_util.tree_leaves_with_path(tree, lambda x: is_box(x) or (is_leaf or _is_no_leaf)(x)):
        paths += [path + below for below in leaf_paths(unboxed(node), is_leaf)] if is_box(node) else [path]
    return paths


def _is_no_leaf(node: Any) -> bool:
    """What `is_leaf` is where a user gives none."""
    return False


def is_box(node: Any) -> bool:
    """Whether a node is one value with metadata, such as a `Partitioned` of flax or a `Variable` of nnx."""
    if not (hasattr(type(node), "unbox") or hasattr(type(node), "get_metadata")):
        return False
    return [jax.tree_util.keystr(path) for path, _ in children(node)] == [".value"]


def unboxed(node: Any) -> Any:
    """What is in a box, or in several boxes around each other; of a node that is no box, the node itself."""
    return unboxed(children(node)[0][1]) if is_box(node) else node


def children(node: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """The direct children of a node, each with its path of one key. A leaf is its own child, with an empty path."""
    return jax.tree_util.tree_leaves_with_path(node, is_leaf=lambda x: x is not node)


def find(state: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """The outermost nodes of a nested state for which `wanted` returns true, in order."""
    return [node for node in jax.tree.leaves(state, is_leaf=wanted) if wanted(node)]


def choose(condition: Array, yes: Tree, no: Tree) -> Tree:
    """`yes` where the scalar condition holds, else `no`: leaf by leaf, of the same shapes and dtypes."""

    def pick(a: Any, b: Any) -> Any:
        return a if getattr(a, "dtype", None) == jax.dtypes.float0 else jax.lax.select(condition, a, b)

    return jax.tree.map(pick, yes, no)
