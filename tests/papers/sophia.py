"""Sophia. Liu et al., 2023, Algorithms 1 to 3. https://arxiv.org/abs/2305.14342.

mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ; if t mod k = 1, ĥₜ is estimated and hₜ = β₂ hₜ₋ₖ + (1 − β₂) ĥₜ, else hₜ = hₜ₋₁;
θ ← θ − η λ θ; θ ← θ − η clip(mₜ / max{γ hₜ, ε}, ρ).

Hutchinson: ĥ = u ⊙ (∇²L u), here with signs for u. Gauss–Newton–Bartlett: ĥ = B ĝ ⊙ ĝ, where ĝ is the gradient of the
mean loss of B examples whose labels the model draws. Both are taken of functions with known derivatives. Random numbers
are JAX's: the key of an estimate is one half of the split key, the other half is split at the next one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx as gx
from papers import Arrays, Case, each


class Keys:
    """The keys of the estimates, one after the other."""

    def __init__(self, seed: int) -> None:
        self.key = jax.random.key(seed)

    def __call__(self) -> Any:
        """The next one."""
        self.key, own = jax.random.split(self.key)
        return own


def coupled(params: Any) -> Any:
    """For each array ½ (Σ wᵢ xᵢ)² + Σ xᵢ⁴ / 12, with w = 1, 2, …, whose Hessian is w wᵀ + diag(x²)."""
    sums = [jnp.sum(x * weights(x)) for x in jax.tree.leaves(params)]
    return sum(0.5 * s**2 + jnp.sum(x**4) / 12 for s, x in zip(sums, jax.tree.leaves(params), strict=True))


def weights(x: Any) -> np.ndarray:
    """1, 2, 3, …"""
    return 1.0 + np.arange(np.size(x)).reshape(np.shape(x))


class Hutchinson:
    """u ⊙ (∇²L u) of `coupled`."""

    def __init__(self, seed: int) -> None:
        self.keys = Keys(seed)

    def __call__(self, params: Arrays) -> Arrays:
        """One estimate."""
        own = jax.random.split(self.keys(), len(params))
        signs = {
            name: np.asarray(jax.random.rademacher(own[i], np.shape(x))) for i, (name, x) in enumerate(params.items())
        }
        return each(lambda x, u: u * (weights(x) * np.sum(weights(x) * u) + x**2 * u), params, signs)


INPUTS = np.random.default_rng(9).normal(size=(6, 4))


def with_drawn_labels(params: Any, key: Any) -> Any:
    """The mean cross entropy of six examples of a linear classifier, for labels that it draws."""
    logits = params["scale"] * (INPUTS @ params["kernel"] + params["bias"][None])
    labels = jax.random.categorical(key, jax.lax.stop_gradient(logits))
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), labels])


class GaussNewton:
    """B ĝ ⊙ ĝ of `with_drawn_labels`, whose derivative by the logits is (p − y) / B."""

    def __init__(self, seed: int) -> None:
        self.keys = Keys(seed)

    def __call__(self, params: Arrays) -> Arrays:
        """One estimate."""
        linear = INPUTS @ params["kernel"] + params["bias"]
        logits = params["scale"] * linear
        labels = np.asarray(jax.random.categorical(self.keys(), jnp.asarray(logits)))
        p = np.exp(logits - logits.max(1, keepdims=True))
        slope = (p / p.sum(1, keepdims=True) - np.eye(3)[labels]) / 6
        g = {
            "bias": params["scale"] * slope.sum(0),
            "kernel": params["scale"] * INPUTS.T @ slope,
            "scale": np.sum(slope * linear),
        }
        return each(lambda x: 6 * x**2, g)


class Sophia:
    """Algorithm 3 on all arrays."""

    def __init__(self, rate: float, k: int, gamma: float, estimate: Callable[[Arrays], Arrays]) -> None:
        self.rate, self.k, self.gamma, self.estimate, self.t = rate, k, gamma, estimate, 0
        self.m: Any = None
        self.h: Any = None

    def __call__(self, grads: Arrays, params: Arrays) -> Arrays:
        """The step."""
        b1, b2, eps, decay, rho = 0.9, 0.8, 1e-3, 0.1, 0.7
        self.t += 1
        zeros = each(np.zeros_like, params)
        self.m = each(lambda m, g: b1 * m + (1 - b1) * g, self.m or zeros, grads)
        if self.t % self.k == 1:
            self.h = each(lambda h, new: b2 * h + (1 - b2) * new, self.h or zeros, self.estimate(params))
        clipped = each(lambda m, h: np.clip(m / np.maximum(self.gamma * h, eps), -rho, rho), self.m, self.h)
        return each(lambda u, w: -self.rate * decay * w - self.rate * u, clipped, params)


def ours(gamma: float, estimator: Any) -> Any:
    """The transformation with the hyper-parameters of `Sophia`."""
    return gx.sophia(0.05, 0.9, 0.8, 1e-3, 0.1, None, gamma, 0.7, 3, estimator)


CASES = {
    "sophia, Hutchinson": Case(
        ours(0.02, gx.hutchinson_estimator_diag_hessian(7)),
        lambda: Sophia(0.05, 3, 0.02, Hutchinson(7)),
        extra={"obj_fn": coupled},
    ),
    "sophia, Gauss–Newton": Case(
        ours(10.0, gx.gauss_newton_estimator_diag_hessian(6, 7)),
        lambda: Sophia(0.05, 3, 10.0, GaussNewton(7)),
        extra={"obj_fn": with_drawn_labels},
    ),
}
