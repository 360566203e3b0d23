"""ACProp. Zhuang et al., 2021, Algorithm 2 and the authors' code without rectification. https://arxiv.org/abs/2110.05454.

θ ← θ − α gₜ / √(sₜ₋₁ / (1 − β₂ᵗ⁻¹)), θ ← θ − α g₁ at first; mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ; sₜ is the running mean of
(gₜ − mₜ)². In the code ε is added to s in place before each use, so that it accumulates, and once more to the root.
Parameters decay by 1 − α λ before the step.
"""

from typing import Any

import numpy as np

import gradtx as gx
from papers import Case, EachLeaf


class ACProp:
    """The method, on one array."""

    def __init__(self, rate: float, b1: float, b2: float, eps: float, decay: float) -> None:
        self.rate, self.b1, self.b2, self.eps, self.decay = rate, b1, b2, eps, decay
        self.t, self.m, self.s = 0, 0.0, 0.0

    def __call__(self, g: Any, w: Any) -> Any:
        """One step, in the order of the code."""
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        step = g
        if self.t > 1:
            self.s = self.s + self.eps
            step = g / (np.sqrt(self.s) / np.sqrt(1 - self.b2 ** (self.t - 1)) + self.eps)
        self.s = self.b2 * self.s + (1 - self.b2) * (g - self.m) ** 2
        return -self.rate * self.decay * w - self.rate * step


CASES = {
    "acprop": Case(
        gx.acprop(0.02, 0.85, 0.95, 1e-8, 1e-8, weight_decay=0.1),
        lambda: EachLeaf(lambda: ACProp(0.02, 0.85, 0.95, 1e-8, 0.1)),
    ),
}
