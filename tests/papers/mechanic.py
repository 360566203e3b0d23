"""Mechanic. Cutkosky, Defazio & Mehta, 2023, Algorithm 1. https://arxiv.org/abs/2306.00144.

As the authors' code for torch has it: the regularization takes the parameters after the base optimizer's update.
"""

import numpy as np

import gradtx as gx
from papers import Arrays, Case, EachLeaf, Update, each, global_norm
from papers.adam import Adam


class Mechanic:
    """Around an update, on all arrays together."""

    def __init__(self, base: Update, s_init: float, decay: float = 0.01, count: int = 6) -> None:
        self.base, self.s_init, self.decay = base, s_init, decay
        self.betas = 1 - 0.1 ** np.arange(1.0, count + 1)
        self.s, self.v, self.r, self.m = np.zeros(count), np.zeros(count), np.zeros(count), np.full(count, 1e-6)
        self.start: Arrays = {}

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        if not self.start:
            self.start, self.delta = each(np.copy, params), each(np.zeros_like, params)
        steps = self.base(grads, params)
        ahead = each(np.add, params, steps)
        pull = self.decay * np.sum(self.s) * global_norm(grads) / (global_norm(ahead) + 1e-8)
        h = sum(np.sum(d * (grads[k] + pull * ahead[k])) for k, d in self.delta.items())
        self.m = np.maximum(self.betas * self.m, abs(h))
        self.v = self.betas**2 * self.v + h**2
        self.r = np.maximum(self.betas * self.r - self.s * h, 0)
        self.s = (self.m * self.s_init / len(self.s) + self.r) / (np.sqrt(self.v) + 1e-8)
        self.delta = each(np.add, self.delta, steps)
        return each(lambda x0, d, x: x0 + np.sum(self.s) * d - x, self.start, self.delta, params)


def adam(rate: float) -> Update:
    """The base optimizer."""
    return EachLeaf(lambda: Adam(rate))


found = {"s": lambda state: state.s, "r": lambda state: state.r, "delta": lambda state: state.delta}

CASES = {
    "mechanize": Case(gx.mechanize(gx.adam(0.01), s_init=1e-3), lambda: Mechanic(adam(0.01), 1e-3), read=found),
    "mechanize, other numbers": Case(
        gx.mechanize(gx.adam(0.5), 0.5, s_init=0.1, num_betas=3), lambda: Mechanic(adam(0.5), 0.1, 0.5, 3), read=found
    ),
}
