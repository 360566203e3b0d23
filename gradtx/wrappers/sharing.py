"""The one way in which transformations share the leaves of a tree: each sees its own, the others are hidden from it."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax

from gradtx.core.run import init_stage, update_stage
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.masks.hiding import hide

__all__ = ["MaskedState"]

Label = TypeVar("Label", bound=Hashable)


class MaskedState(NamedTuple):
    """The state of `masked`, and of each group of `partition`."""

    inner_state: Any
    "The inner transformation's state, with `MaskedNode()` in the place of hidden leaves."


class Share(NamedTuple):
    """A transformation and its leaves."""

    transformation: Transformation
    "What is applied to the leaves."
    visible: list[bool]
    "For each leaf of the tree, in order, whether the transformation sees it; it may see none."


def init_shares(shares: Mapping[Label, Share], params: Tree) -> dict[Label, MaskedState]:
    """The state of each transformation, made for its own leaves."""
    return {label: MaskedState(init_stage(tx, hide(params, visible))) for label, (tx, visible) in shares.items()}


def update_shares(
    shares: Mapping[Label, Share],
    updates: Tree,
    states: Mapping[Label, MaskedState],
    params: Tree,
    extra: Mapping[str, Any],
    hides_extra: bool = True,
) -> tuple[Tree, dict[Label, MaskedState]]:
    """The updates, those of each leaf by the transformation whose it is, and the new states.

    A leaf that nobody sees keeps its update. If `hides_extra`, extra arguments that are trees like the updates are
    hidden with them.
    """
    leaves, treedef = jax.tree.flatten(updates)
    new_states: dict[Label, MaskedState] = {}
    for label, (tx, visible) in shares.items():
        own_params = params if params is None else hide(params, visible)
        trees = {name for name, x in extra.items() if hides_extra and _is_tree_like(treedef, x)}
        own_extra = {name: hide(x, visible) if name in trees else x for name, x in extra.items()}
        new, state = update_stage(tx, hide(updates, visible), states[label].inner_state, own_params, own_extra)
        changed = iter(jax.tree.leaves(new))
        leaves = [next(changed) if on else leaf for leaf, on in zip(leaves, visible, strict=True)]
        new_states[label] = MaskedState(state)
    return treedef.unflatten(leaves), new_states


def _is_tree_like(structure: Any, value: Any) -> bool:
    """Whether an extra argument is a tree like the updates. A single number is none, even if there is one parameter."""
    return not jax.tree_util.treedef_is_leaf(structure) and jax.tree.structure(value) == structure
