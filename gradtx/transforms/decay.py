"""Weight decay, L2 or decoupled by where it stands: before an optimizer's scaling or after it."""

from typing import Any

import jax

from gradtx.core import tree
from gradtx.core.base import EmptyState, GradientTransformation
from gradtx.core.hyperparams import NonNegative
from gradtx.core.masks import Mask, mask_leaves
from gradtx.core.tree import Tree

__all__ = ["add_decayed_weights"]


class add_decayed_weights(GradientTransformation):
    """Add a multiple of the parameters to the updates.

        u = g + λ θ

    Before an optimizer's scaling it is an L2 penalty; between the scaling and the learning rate it is the decoupled
    weight decay of Loshchilov & Hutter, https://arxiv.org/abs/1711.05101. Needs the parameters.
    """

    elementwise = True

    weight_decay: NonNegative = 0.0
    "λ. Values between 1e-4 and 1e-1 are usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def update_fn(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, EmptyState]:
        leaves, treedef = jax.tree.flatten(updates)
        decays = jax.tree.leaves(tree.scale(self.weight_decay, params))
        mask = mask_leaves("add_decayed_weights: mask", self.mask, params)
        return treedef.unflatten([u + d if on else u for u, d, on in zip(leaves, decays, mask, strict=True)]), state
