"""Adam, and what holds it without changing it. Kingma & Ba, 2014, Algorithm 1. https://arxiv.org/abs/1412.6980."""

from typing import Any

import numpy as np

import gradtx as gx
from papers import Arrays, Case, EachLeaf, value


class Direction:
    """m̂ / (√v̂ + ε). With `nesterov` β₁ m̂ₜ₊₁ + (1 − β₁) ĝ stands for m̂: Dozat, 2016, Algorithm 2, as optax has it.

    There m is corrected by 1 − β₁ᵗ⁺¹ and g by 1 − β₁ᵗ.
    """

    def __init__(self, b1: Any = 0.9, b2: Any = 0.999, eps: float = 1e-8, nesterov: bool = False) -> None:
        self.b1, self.b2, self.eps, self.nesterov = b1, b2, eps, nesterov
        self.t, self.m, self.v = 0, 0.0, 0.0

    def __call__(self, g: Any, w: Any = None) -> Any:
        """One step of both moments."""
        b1, b2 = value(self.b1, self.t), value(self.b2, self.t)
        self.t += 1
        self.m = b1 * self.m + (1 - b1) * g
        self.v = b2 * self.v + (1 - b2) * g**2
        mean = self.m / (1 - b1**self.t)
        if self.nesterov:
            mean = b1 * self.m / (1 - b1 ** (self.t + 1)) + (1 - b1) * g / (1 - b1**self.t)
        return mean / (np.sqrt(self.v / (1 - b2**self.t)) + self.eps)


class Adam:
    """θ ← θ − α m̂ / (√v̂ + ε)."""

    def __init__(self, rate: Any, b1: Any = 0.9, b2: Any = 0.999, eps: float = 1e-8) -> None:
        self.rate, self.direction = rate, Direction(b1, b2, eps)

    def __call__(self, g: Any, w: Any = None) -> Any:
        """The step."""
        rate = value(self.rate, self.direction.t)
        return -rate * self.direction(g)


class OnOneVector:
    """All arrays as one, end to end."""

    def __init__(self, update: Any) -> None:
        self.update = update

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The pieces of the vector's update."""
        vector = self.update(*(np.concatenate([np.ravel(x) for x in tree.values()]) for tree in (grads, params)))
        pieces = np.split(vector, np.cumsum([np.size(g) for g in grads.values()])[:-1])
        return {name: piece.reshape(np.shape(g)) for (name, g), piece in zip(grads.items(), pieces, strict=True)}


CASES = {
    "adam": Case(gx.adam(0.05, 0.8, 0.95, 1e-3), lambda: EachLeaf(lambda: Adam(0.05, 0.8, 0.95, 1e-3))),
    "split_real_and_imaginary": Case(  # tests/test_wrappers.py has complex leaves
        gx.split_real_and_imaginary(gx.adam(0.05)), lambda: EachLeaf(lambda: Adam(0.05))
    ),
    "flatten": Case(gx.flatten(gx.adam(0.05)), lambda: OnOneVector(Adam(0.05))),
}
