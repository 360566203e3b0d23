"""Which leaves a transformation acts on."""

from typing import Annotated, Any

import jax

from gradtx.core import check
from gradtx.core.tree import Tree, path_str

__all__ = ["Mask", "mask_leaves"]


class MaskKind:
    """`None` (every leaf), a tree of bools like the parameters or a prefix of them, or a function that makes one."""

    example = None
    numeric = False

    def convert(self, where: str, value: Any) -> Any:
        if value is None or callable(value):
            return value
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if type(leaf) is not bool:
                raise TypeError(
                    f"{where}{path_str(path)}: expected True or False (a Python bool), got {check.describe(leaf)}"
                )
        return jax.tree.map(lambda leaf: leaf, value)  # a copy: the caller may change theirs


Mask = Annotated[Any, MaskKind()]
"Which leaves to act on: a tree of bools like the parameters, or a prefix of it, or a function of the parameters."


def mask_leaves(where: str, mask: Any, params: Tree) -> list[bool]:
    """The mask's verdict on each leaf of `params`, in order.

    Raises:
        ValueError: the mask is not a prefix of `params`.
        TypeError: a leaf of it is not a bool.
    """
    if mask is None:
        return [True] * len(jax.tree.leaves(params))
    if callable(mask):
        mask = MaskKind().convert(where, mask(params))
    try:
        return jax.tree.leaves(jax.tree.map(lambda on, below: [on] * len(jax.tree.leaves(below)), mask, params))
    except ValueError:
        check.same_structure(where, mask, params, "the parameters, or of a prefix of them")
        raise
