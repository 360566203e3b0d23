"""LAMB: Adam with a trust ratio per layer, for large batches."""

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Decay, NonNegative, Rate
from gradtx.masks.masks import Mask
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate, scale_by_trust_ratio

__all__ = ["lamb"]


class lamb(Optimizer):
    """Adam with weight decay, in which the update of each leaf is scaled to the size of the leaf.

        u = m̂ / (√v̂ + ε) + λ θ
        θ ← θ − η ‖θ‖ / ‖u‖ u,   the ratio being 1 where either norm is 0

    You et al., 2019, Algorithm 2. https://arxiv.org/abs/1904.00962
    """

    learning_rate: Rate
    "Step size, relative to the size of each leaf; 1e-3 to 1e-2 are usual."
    b1: Decay = scale_by_adam.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = 1e-6
    "ε, added to the denominator, outside the root; 1e-6 is usual."
    eps_root: NonNegative = scale_by_adam.eps_root
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, inside the trust ratio; 1e-2 is usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return chain(
            scale_by_adam.of(self),
            add_decayed_weights.of(self),
            scale_by_trust_ratio(),
            scale_by_learning_rate.of(self),
        )
