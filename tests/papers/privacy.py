"""Noisy sums of clipped gradients. Abadi et al., 2016, Algorithm 1. https://arxiv.org/abs/1607.00133.

ḡₜ(xᵢ) ← gₜ(xᵢ) / max(1, ‖gₜ(xᵢ)‖₂ / C)
g̃ₜ ← (Σᵢ ḡₜ(xᵢ) + N(0, σ² C² I)) / L
θₜ₊₁ ← θₜ − ηₜ g̃ₜ

Draws as in `noise.py`.
"""

import numpy as np

import gradtx as gx
from papers import Arrays, Case, each, global_norm
from papers.noise import Draws


class PrivateDescent:
    """θ ← θ − η m,   m ← μ m + g̃ (Algorithm 1 has μ = 0)."""

    def __init__(self, rate: float, bound: float, sigma: float, key: int, momentum: float = 0.0) -> None:
        self.rate, self.bound, self.sigma, self.momentum = rate, bound, sigma, momentum
        self.draws, self.m = Draws(key), None

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The step, from the gradients of all examples."""
        examples = [each(lambda g, i=i: g[i], grads) for i in range(len(grads["bias"]))]
        shares = [1 / max(1.0, global_norm(g) / self.bound) for g in examples]
        total = each(lambda *gs: sum(s * g for s, g in zip(shares, gs, strict=True)), *examples)
        noise = self.draws(total)
        private = each(lambda x, n: (x + self.sigma * self.bound * n) / len(examples), total, noise)
        self.m = private if self.m is None else each(lambda m, g: self.momentum * m + g, self.m, private)
        return each(lambda m: np.asarray(-self.rate * m), self.m)


EXAMPLES = 5
CASES = {
    "differentially_private_aggregate": Case(
        gx.differentially_private_aggregate(8.0, 0.7, 3), lambda: PrivateDescent(-1.0, 8.0, 0.7, 3), axes=(EXAMPLES,)
    ),
    "dpsgd": Case(gx.dpsgd(0.1, 4.0, 1.1, 5, 0.9), lambda: PrivateDescent(0.1, 4.0, 1.1, 5, 0.9), axes=(EXAMPLES,)),
}
