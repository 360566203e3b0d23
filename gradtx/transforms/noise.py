"""Gradient noise that decays with time."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check, numerics
from gradtx.core.hyperparams import NonNegative
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree

__all__ = ["AddNoiseState", "add_noise"]


class KeyKind:
    """A random key: an integer seed, or a key of JAX's default generator, old style or new."""

    example = 0
    may_vary = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, jax.Array):
            if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                value = jax.random.key_data(value)
            if value.dtype == jnp.uint32 and value.shape == key_data_of(0).shape:
                return value
            if jnp.issubdtype(value.dtype, jnp.integer) and value.shape == ():
                return value
        elif isinstance(value, int) and not isinstance(value, bool):
            return value
        raise TypeError(f"{where} must be an integer seed or one key (jax.random.key(0)), got {check.describe(value)}")


def key_data_of(key: Any) -> Array:
    """A key as the plain numbers that checkpoints can hold, in a buffer of its own."""
    own = isinstance(key, jax.Array) and key.ndim
    return jnp.array(key, copy=True) if own else jax.random.key_data(jax.random.key(key))


Key = Annotated[Any, KeyKind()]
"A random key, or the seed of one."


class AddNoiseState(NamedTuple):
    """The generator of `add_noise`; equal states give equal noise."""

    count: Array
    "int32[]: updates made so far."
    rng_key: Array
    "uint32[2]: the data of the key, which stays the same; noise is a function of it, `count` and the leaf's position."


class add_noise(GradientTransformation):
    """Add Gaussian noise whose variance falls with time.

        u = g + n,   n ~ N(0, η / tᵞ),   t = 1, 2, …

    The noise is determined by the key and the number of the step: a run resumed from its state repeats it.

    Neelakantan et al., 2015. https://arxiv.org/abs/1511.06807
    """

    State = AddNoiseState

    eta: NonNegative
    "Variance η of the noise in the first step; the paper tries 0.01, 0.3 and 1."
    gamma: NonNegative
    "Exponent γ by which the variance decays; the paper's is 0.55."
    key: Key = 0
    "An integer seed or a random key; runs that should differ need different ones."

    def init_fn(self, params: Tree) -> AddNoiseState:
        return AddNoiseState(numerics.counter(), key_data_of(self.key))

    def update_fn(self, updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, AddNoiseState]:
        count = numerics.increment(state.count)
        t = count.astype(jnp.float32)
        deviation = numerics.sqrt(jnp.asarray(self.eta, t.dtype) * t ** -jnp.asarray(self.gamma, t.dtype))
        noise = standard_normal(state.rng_key, count, updates)
        noisy = jax.tree.map(lambda g, n: g + deviation.astype(g.dtype) * n, updates, noise)
        return noisy, AddNoiseState(count, state.rng_key)


def standard_normal(rng_key: Array, count: Array, like: Tree) -> Tree:
    """Draws of N(0, 1) like the leaves: a function of the key, the number of the step and the leaf's position.

    Each leaf has a key of its own, and so has each step.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(rng_key), count)
    leaves, treedef = jax.tree.flatten(like)
    draws = [jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype) for i, x in enumerate(leaves)]
    return treedef.unflatten(draws)
