"""Prodigy, the form for Adam. Mishchenko & Defazio, 2023. https://arxiv.org/abs/2306.06101.

With what the authors' code adds to it: a learning rate, decoupled weight decay multiplied by the step size, Adam's bias
correction, a limit on the growth of d, and no step before there has been a gradient at a rate above 0.
"""

from typing import Any

import numpy as np

import gradtx as gx
from papers import Arrays, Case, each, value


class Prodigy:
    """All arrays together; d and the numerator are of the whole tree."""

    def __init__(self, rate: Any, growth: float = np.inf, corrected: bool = False, decay: float = 0.0) -> None:
        self.rate, self.growth, self.corrected, self.decay = rate, growth, corrected, decay
        self.b1, self.b2, self.d0, self.eps = 0.9, 0.99, 1e-3, 1e-8
        self.t, self.numerator = 0, 0.0
        self.d = self.largest = self.d0
        self.start: Arrays = {}

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        zero = each(np.zeros_like, params)
        if not self.start:
            self.start, self.m, self.v, self.s = each(np.copy, params), zero, zero, zero
        eta = value(self.rate, self.t)
        self.t += 1
        correction = np.sqrt(1 - self.b2**self.t) / (1 - self.b1**self.t) if self.corrected else 1.0
        d, step = self.d, self.d * eta * correction
        weight, b3 = d / self.d0 * step, np.sqrt(self.b2)
        along = sum(np.sum(g * (self.start[k] - params[k])) for k, g in grads.items())
        self.numerator = b3 * self.numerator + weight * along
        self.m = each(lambda m, g: self.b1 * m + (1 - self.b1) * d * g, self.m, grads)
        self.v = each(lambda v, g: self.b2 * v + (1 - self.b2) * (d * g) ** 2, self.v, grads)
        self.s = each(lambda s, g: b3 * s + weight * g, self.s, grads)
        norm = sum(np.sum(np.abs(s)) for s in self.s.values())
        if norm == 0:
            return zero
        estimate = self.numerator / norm
        self.largest = max(self.largest, estimate)
        d = max(d, estimate) if d == self.d0 else d
        self.d = min(self.largest, d * self.growth)
        return each(
            lambda m, v, w: -step * (m / (np.sqrt(v) + self.d * self.eps) + self.decay * w), self.m, self.v, params
        )


warm_up = gx.linear_schedule(0.0, 1.0, 3)
found = {"d": lambda state: state.estim_lr}
shared = {"betas": (0.9, 0.99), "estim_lr0": 1e-3}

CASES = {
    "prodigy, from a rate of 0": Case(
        gx.prodigy(warm_up, weight_decay=0.1, **shared),
        lambda: Prodigy(lambda t: min(t / 3, 1.0), decay=0.1),
        read=found,
    ),
    "prodigy, corrected, slowly": Case(
        gx.prodigy(0.5, use_bias_correction=True, growth_rate=1.1, **shared),
        lambda: Prodigy(0.5, growth=1.1, corrected=True),
        read=found,
    ),
}
