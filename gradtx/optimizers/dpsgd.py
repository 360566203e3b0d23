"""Gradient descent with differential privacy."""

from gradtx.core.compose import Optimizer, chain, identity
from gradtx.core.hyperparams import Flag, Fraction, NonNegative, Rate
from gradtx.transforms.momentum import trace
from gradtx.transforms.noise import Key
from gradtx.transforms.privacy import differentially_private_aggregate
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["dpsgd"]


class dpsgd(Optimizer):
    """Gradient descent with differential privacy: `differentially_private_aggregate`, then a step, with or without
    momentum.

        ḡ = (Σᵢ gᵢ · min(1, c / ‖gᵢ‖) + σ c n) / B
        θ ← θ − η ḡ,   or with momentum  m ← μ m + ḡ,   θ ← θ − η m,   Nesterov:  θ ← θ − η (ḡ + μ m)

    It is given the gradients of single examples, along a first axis that the parameters do not have. What is
    guaranteed, and what is not, stands at that stage: the noise is right, but there is no accountant here that would
    say what it is worth.

    Abadi et al., 2016, Algorithm 1. https://arxiv.org/abs/1607.00133

    >>> import jax
    >>> import jax.numpy as jnp
    >>> def loss(params, x):
    ...     return 0.5 * jnp.sum((params - x) ** 2)
    >>> tx, params = dpsgd(0.5, l2_norm_clip=1.0, noise_multiplier=0.0, seed=0), jnp.zeros(2)
    >>> grads = jax.vmap(jax.grad(loss), (None, 0))(params, jnp.array([[3.0, 4.0], [0.0, 0.5]]))
    >>> tx.update(grads, tx.init(params), params)[0]
    Array([0.15 , 0.325], dtype=float32)
    """

    learning_rate: Rate
    "Step size η; it depends on c, 0.01 to 1 are usual."
    l2_norm_clip: NonNegative
    "The largest norm c of one example's gradient; 0.1 to 10 are usual, about the median of the norms."
    noise_multiplier: NonNegative
    "Deviation σ of the noise as a multiple of c; 0.5 to 4 are usual. With 0 nothing is private."
    seed: Key
    "An integer seed or a random key, which must be secret and used for one run only."
    momentum: Fraction | None = None
    "Momentum μ; 0.9 is usual. With `None` there is no momentum."
    nesterov: Flag = trace.nesterov
    "Whether the momentum looks one step ahead; an error without momentum."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum is None and self.nesterov:
            raise ValueError("dpsgd: nesterov changes the momentum: give one, such as momentum=0.9, or leave it out")

    def expand(self) -> chain:
        return chain(
            differentially_private_aggregate.of(self, key=self.seed),
            identity() if self.momentum is None else trace.of(self, decay=self.momentum),
            scale_by_learning_rate.of(self),
        )
