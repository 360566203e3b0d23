"""D-Adaptation for Adam. Defazio & Mishchenko, 2023. https://arxiv.org/abs/2301.07733.

With what the authors' code adds to it: a learning rate, decoupled weight decay multiplied by the step size, Adam's bias
correction, a limit on the growth of d, and no step before there has been a gradient at a rate above 0.
"""

from typing import Any

import numpy as np

import gradtx as gx
from papers import Arrays, Case, each, value


class DAdaptAdam:
    """All arrays together; d and the numerator are of the whole tree."""

    def __init__(self, rate: Any, growth: float = np.inf, corrected: bool = False, decay: float = 0.0) -> None:
        self.rate, self.growth, self.corrected, self.decay = rate, growth, corrected, decay
        self.b1, self.b2, self.eps = 0.9, 0.99, 1e-8
        self.t, self.numerator, self.d = 0, 0.0, 1e-3
        self.m: Arrays = {}

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        zero = each(np.zeros_like, params)
        if not self.m:
            self.m = self.v = self.s = zero
        eta, root = value(self.rate, self.t), np.sqrt(self.b2)
        self.t += 1
        correction = np.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t) if self.corrected else 1.0
        step = self.d * eta * correction
        directions = each(lambda s, v: s / (np.sqrt(v) + self.eps), self.s, self.v)
        along = sum(np.sum(g * directions[k]) for k, g in grads.items())
        self.numerator = root * self.numerator + (1 - root) * step * along
        self.m = each(lambda m, g: self.b1 * m + (1 - self.b1) * step * g, self.m, grads)
        self.v = each(lambda v, g: self.b2 * v + (1 - self.b2) * g**2, self.v, grads)
        self.s = each(lambda s, g: root * s + (1 - root) * step * g, self.s, grads)
        norm = sum(np.sum(np.abs(s)) for s in self.s.values())
        if norm == 0:
            return zero
        estimate = self.numerator / ((1 - root) * norm)
        self.d = max(self.d, min(estimate, self.d * self.growth))
        return each(lambda m, v, w: -(m / (np.sqrt(v) + self.eps) + self.decay * step * w), self.m, self.v, params)


found = {"d": lambda state: state.estim_lr}
shared = {"betas": (0.9, 0.99), "estim_lr0": 1e-3}

CASES = {
    "dadapt_adamw, from a rate of 0": Case(
        gx.dadapt_adamw(gx.linear_schedule(0.0, 1.0, 3), weight_decay=0.1, **shared),
        lambda: DAdaptAdam(lambda t: min(t / 3, 1.0), decay=0.1),
        read=found,
    ),
    "dadapt_adamw, corrected, slowly": Case(
        gx.dadapt_adamw(0.5, use_bias_correction=True, growth_rate=1.1, **shared),
        lambda: DAdaptAdam(0.5, growth=1.1, corrected=True),
        read=found,
    ),
}
