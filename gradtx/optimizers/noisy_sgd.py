"""Gradient descent with noise whose variance decays."""

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import NonNegative, Rate
from gradtx.transforms.noise import Key, add_noise
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["noisy_sgd"]


class noisy_sgd(Optimizer):
    """Gradient descent with noise: `add_noise`, then a step of size `learning_rate`.

        θ ← θ − η (g + n),   n ~ N(0, s / tᵞ)

    Neelakantan et al., 2015. https://arxiv.org/abs/1511.06807
    """

    learning_rate: Rate
    "Step size η; 0.1 to 0.01 are usual."
    eta: NonNegative = 0.01
    "Variance s of the noise in the first step; 0.01 is usual."
    gamma: NonNegative = 0.55
    "Exponent γ by which the variance decays; 0.55 is usual."
    key: Key = add_noise.key

    def expand(self) -> chain:
        # XLA:CPU keeps the random bits, from which the noise is made.
        return chain(add_noise.of(self), scale_by_learning_rate.of(self))
