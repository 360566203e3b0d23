"""What is done to a gradient without remembering anything but what was seen: from the docstrings of optax."""

from typing import Any

import numpy as np

import gradtx as gx
from papers import Arrays, Case, Sequence, Update, each, global_norm


def leaf_by_leaf(f: Any) -> Update:
    """`f(g, w)` of every array."""
    return lambda grads, params: each(f, grads, params)


class ZeroNans:
    """0 for NaN, and a note of which arrays had one."""

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The gradients without NaN."""
        self.found = each(lambda g: np.any(np.isnan(g)), grads)
        return each(lambda g: np.where(np.isnan(g), 0, g), grads)


class Norms:
    """The gradients as they are, and their global norm."""

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The same gradients."""
        self.norm = global_norm(grads)
        return grads


class MeanNorm:
    """The gradients as they are, and a debiased running mean of their norms, as a weighted sum."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The same gradients."""
        self.seen.append(global_norm(grads))
        weights = 0.75 ** np.arange(len(self.seen))[::-1]
        self.mean = np.sum(weights * self.seen) / np.sum(weights)
        return grads


def towards(g: Any, w: Any) -> Any:
    """A function for `stateless_with_tree_map`."""
    return 0.5 * g - 0.25 * w


def all_towards(grads: Any, params: Any) -> Any:
    """The same for `stateless`."""
    return {name: towards(g, params[name]) for name, g in grads.items()}


CASES = {
    "set_to_zero": Case(gx.set_to_zero(), lambda: leaf_by_leaf(lambda g, w: np.zeros_like(g)), spoilt=(1,)),
    "zero_nans": Case(gx.zero_nans(), ZeroNans, spoilt=(1, 4), read={"found": lambda state: state.found_nan}),
    "keep_params_nonnegative": Case(
        gx.chain(gx.scale(-0.5), gx.keep_params_nonnegative()),
        lambda: leaf_by_leaf(lambda g, w: np.maximum(-0.5 * g, -w)),
    ),
    "stateless, negate": Case(gx.stateless(gx.negate), lambda: leaf_by_leaf(lambda g, w: -g)),
    "stateless": Case(gx.stateless(all_towards), lambda: leaf_by_leaf(lambda g, w: 0.5 * g - 0.25 * w)),
    "stateless_with_tree_map": Case(
        gx.stateless_with_tree_map(towards), lambda: leaf_by_leaf(lambda g, w: 0.5 * g - 0.25 * w)
    ),
    "monitor": Case(gx.monitor(), Norms, read={"norm": lambda state: state.measurements["update_norm"]}),
    "snapshot": Case(
        gx.snapshot("size", gx.global_norm), Norms, read={"norm": lambda state: state.measurement["size"]}
    ),
    "measure_with_ema": Case(
        gx.monitor({"mean": gx.measure_with_ema(gx.global_norm, 0.75)}),
        MeanNorm,
        read={"mean": lambda state: state.measurements["mean"]},
    ),
    "named_chain": Case(
        gx.named_chain(("turn", gx.stateless(gx.negate)), ("keep", gx.keep_params_nonnegative())),
        lambda: Sequence(leaf_by_leaf(lambda g, w: -g), leaf_by_leaf(lambda g, w: np.maximum(g, -w))),
    ),
}
