"""Weight decay. What it means depends on where it stands in a chain.

before an optimizer's scaling       an L2 penalty: it goes through the moments     `add_decayed_weights`
between scaling and learning rate   decoupled, θ ← (1 − η λ) θ − η u (AdamW)       `add_decayed_weights`
after the learning rate             independent of it, θ ← (1 − λ) θ − η u         `decay_weights`
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes
from gradtx.core.hyperparams import Flag, NonNegative, Positive, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.run import EmptyState
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask, check_mask, mask_leaves

__all__ = ["add_decayed_weights", "decay_weights"]

unmasked: Any = property(lambda tx: tx.mask is None)
"For `elementwise`: with a mask, an element's update depends on which leaf it is in."


class add_decayed_weights(Leafwise):
    """Add a multiple of the parameters to the updates.

        u = g + λ θ,   cautious:  u = g + λ θ where g θ ≥ 0, else g

    Before an optimizer's scaling it is an L2 penalty; between the scaling and the learning rate it is the decoupled
    weight decay of Loshchilov & Hutter, https://arxiv.org/abs/1711.05101. The cautious form belongs there, too: it
    decays only those weights that the update does not enlarge; Chen et al., 2025, https://arxiv.org/abs/2510.12402.
    Needs the parameters.
    """

    elementwise = unmasked

    weight_decay: NonNegative = 0.0
    "Weight decay λ; values between 1e-4 and 1e-1 are usual."
    mask: Mask = None
    "The leaves to decay, all of them by default; biases and norms are usually left out, `weights_only()`."
    cautious: Flag = False
    "Whether to decay only the elements that the update already shrinks or leaves alone."

    def init_fn(self, params: Tree) -> EmptyState:
        check_mask("add_decayed_weights: mask", self.mask, params)
        return EmptyState()

    def applies_to(self, params: Tree) -> list[bool]:
        if isinstance(self.weight_decay, float) and self.weight_decay == 0:  # then parameters need not be read
            return [False] * len(jax.tree.leaves(params))
        return mask_leaves("add_decayed_weights: mask", self.mask, params)

    def leaf(self, g: Array, *, param: Array) -> Array:
        decay = dtypes.scaled(self.weight_decay, param)
        if self.cautious:
            decay = jnp.where(jnp.real(jnp.sign(g) * jnp.conj(jnp.sign(param))) >= 0, decay, 0)
        return g + decay


class decay_weights(Leafwise):
    """Shrink the parameters by a share that the learning rate does not scale. Stands after `scale_by_learning_rate`.

        u = g − λ (η / ηₘₐₓ) θ,   so that  θ ← (1 − λ η / ηₘₐₓ) θ + g

    Without `learning_rate` the share is λ at every step. Given the same `learning_rate` as the optimizer, a schedule
    say, and its maximum, the decay follows the shape of the schedule but not its height: the height may be tuned
    while λ stays. λ of 1e-4 to 1e-5 corresponds to AdamW's 0.1 at a rate of 1e-3 to 1e-4. Needs the parameters.

    Loshchilov & Hutter, 2017, Algorithm 2, where η / ηₘₐₓ is the schedule multiplier. https://arxiv.org/abs/1711.05101

    >>> import gradtx
    >>> rate = gradtx.cosine_decay_schedule(3e-3, 1000)
    >>> tx = gradtx.chain(gradtx.adam(rate), gradtx.decay_weights(1e-4, learning_rate=rate, max_learning_rate=3e-3))

    Raises:
        ValueError: one of `learning_rate` and `max_learning_rate` is given without the other.
    """

    elementwise = unmasked

    weight_decay: NonNegative
    "The share λ of a parameter that is lost in a step at the rate ηₘₐₓ; 1e-5 to 1e-4 is usual."
    mask: Mask = None
    "The leaves to decay, all of them by default; biases and norms are usually left out, `weights_only()`."
    learning_rate: Rate | None = None
    "The optimizer's learning rate η, which the decay follows; by default the decay is constant."
    max_learning_rate: Positive | None = None
    "The largest learning rate ηₘₐₓ of the schedule."

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.learning_rate is None) != (self.max_learning_rate is None):
            raise ValueError("decay_weights: give learning_rate and max_learning_rate together, or neither")

    def init_fn(self, params: Tree) -> EmptyState:
        check_mask("decay_weights: mask", self.mask, params)
        return EmptyState()

    def applies_to(self, params: Tree) -> list[bool]:
        return mask_leaves("decay_weights: mask", self.mask, params)

    def leaf(self, g: Array, *, param: Array) -> Array:
        share = self.weight_decay
        if self.learning_rate is not None and self.max_learning_rate is not None:
            share = share * (self.learning_rate / self.max_learning_rate)
        return g + dtypes.scaled(-share, param)
