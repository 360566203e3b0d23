"""Let a transformation see some of the leaves only."""

from typing import Any, NamedTuple

import jax

from gradtx.core.base import Container, Inner, Transformation, init_inner, update_inner
from gradtx.core.masks import Mask, mask_leaves
from gradtx.core.tree import Tree

__all__ = ["MaskedNode", "MaskedState", "masked"]


class MaskedNode(NamedTuple):
    """Stands for a leaf that the mask hides. A node without leaves, so that nothing computes with it."""


class MaskedState(NamedTuple):
    """The state of `masked`."""

    inner_state: Any
    "The inner transformation's state, with `MaskedNode()` in the place of hidden leaves."


class masked(Container):
    """Apply `inner` to the leaves where `mask` is true; the others **pass through unchanged**.

    This is right for a stage of a chain, `masked(add_decayed_weights(1e-2), mask)` say. At the end of a chain an
    unchanged gradient would be added to the parameters: there, send the remaining leaves elsewhere, as in
    `chain(masked(sgd(0.1), mask), masked(scale(0.0), not_mask))`.

    Hidden leaves need not be floating-point, and have no state.

    Raises:
        ValueError: the mask is not shaped like the parameters or a prefix of them.
        TypeError: a leaf of the mask is not a Python bool.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(2), "step": jnp.array(7)}
    >>> tx = gradtx.masked(gradtx.adam(1e-3), {"w": True, "step": False})
    >>> tx.init(params).inner_state[0].mu
    {'step': MaskedNode(), 'w': Array([0., 0.], dtype=float32)}
    """

    State = MaskedState

    inner: Inner
    "The transformation to apply."
    mask: Mask
    "The leaves to apply it to."

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return (self.inner,)

    def init_fn(self, params: Tree) -> MaskedState:
        return MaskedState(init_inner(self.inner, _hide(params, self._visible(params))))

    def update_fn(
        self, updates: Tree, state: MaskedState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, MaskedState]:
        visible = self._visible(updates if params is None else params)
        shown = params if params is None else _hide(params, visible)
        new, inner_state = update_inner(self.inner, _hide(updates, visible), state.inner_state, shown, extra)
        leaves, treedef = jax.tree.flatten(updates)
        changed = iter(jax.tree.leaves(new))
        merged = [next(changed) if on else leaf for leaf, on in zip(leaves, visible, strict=True)]
        return treedef.unflatten(merged), MaskedState(inner_state)

    def _visible(self, params: Tree) -> list[bool]:
        return mask_leaves("masked: mask", self.mask, params)


def _hide(params: Tree, visible: list[bool]) -> Tree:
    leaves, treedef = jax.tree.flatten(params)
    return treedef.unflatten([leaf if on else MaskedNode() for leaf, on in zip(leaves, visible, strict=True)])
