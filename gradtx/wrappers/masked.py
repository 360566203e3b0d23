"""Let a transformation see some of the leaves only."""

from typing import Any, ClassVar

from gradtx.core.compose import Container, Inner
from gradtx.core.hyperparams import Flag
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask, mask_leaves
from gradtx.wrappers.sharing import MaskedState, Share, init_shares, update_shares

__all__ = ["masked"]


class OnVisible(Container, abstract=True):
    """A transformation that applies another one to some leaves, and does something simpler to the rest."""

    State = MaskedState
    keeps_state = True
    elementwise = False  # which leaf an element is in matters
    mask_compatible_extra_args: ClassVar[bool] = True

    def _visible(self, params: Tree) -> list[bool]:
        """The leaves to apply the other transformation to."""
        raise NotImplementedError

    def _with_others(self, updates: Tree, visible: list[bool]) -> Tree:
        """The updates, with what becomes of hidden leaves; by default they stay as they are."""
        return updates

    def init_fn(self, params: Tree) -> MaskedState:
        (inner,) = self.parts
        return init_shares({"inner": Share(inner, self._visible(params))}, params)["inner"]

    def update_fn(
        self, updates: Tree, state: MaskedState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, MaskedState]:
        (inner,) = self.parts
        visible = self._visible(updates if params is None else params)
        shares, states = {"inner": Share(inner, visible)}, {"inner": state}
        new, states = update_shares(shares, updates, states, params, extra, self.mask_compatible_extra_args)
        return self._with_others(new, visible), states["inner"]


class masked(OnVisible):
    """Apply `inner` to the leaves where `mask` is true; the others **pass through unchanged**.

    This is right for a stage of a chain, such as `masked(add_decayed_weights(1e-2), "!bias")`. At the end of a chain
    the unchanged gradients would be added to the parameters. To train some leaves only, use `trainable(inner, mask)`;
    to treat leaves in different ways, `partition` or `param_groups`.

    Hidden leaves need not be floating-point, and have no state. An extra argument that is a tree like the updates is
    hidden in the same places, unless `mask_compatible_extra_args=False`.

    Raises:
        ValueError: the mask is neither a tree like the parameters nor a prefix of it, or is a pattern without a match.
        TypeError: a leaf of the mask is not a Python bool.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones(2), "step": jnp.array(7)}
    >>> tx = gradtx.masked(gradtx.adam(1e-3), {"w": True, "step": False})
    >>> tx.init(params).inner_state[0].mu
    {'step': MaskedNode(), 'w': Array([0., 0.], dtype=float32)}
    >>> gradtx.masked(gradtx.adam(1e-3), "wieght").init(params)
    Traceback (most recent call last):
    ValueError: masked: mask: the pattern 'wieght' matches no path; the paths are 'step', 'w'
    """

    inner: Inner
    "The transformation of the leaves in the mask."
    mask: Mask
    "The leaves to apply `inner` to."
    mask_compatible_extra_args: Flag = True  # pyright: ignore[reportIncompatibleVariableOverride]
    "Whether extra arguments that are trees like the updates are hidden in the same places, or handed on as they are."

    def _visible(self, params: Tree) -> list[bool]:
        return mask_leaves("masked: mask", self.mask, params)
