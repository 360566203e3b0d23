"""Perturbed functions: smooth Monte Carlo estimates of functions that have no useful derivative, such as argmax.

This module is public: use it as `gradtx.perturbations`, with the names in its `__all__`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check, dtypes
from gradtx.core.tree import Tree

__all__ = ["Gumbel", "Normal", "make_perturbed_fun"]


class _Noise(Protocol):
    """A distribution of noise, of one element."""

    def sample(self, key: Array, sample_shape: tuple[int, ...], dtype: Any) -> Array: ...
    def log_prob(self, inputs: Array) -> Array: ...


class Normal:
    """Standard normal noise."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = (), dtype: Any = float) -> Array:
        """Independent draws of a shape."""
        return jax.random.normal(key, sample_shape, dtype)

    def log_prob(self, inputs: Array) -> Array:
        """The logarithm of the density of each element, up to a constant: −z² / 2."""
        return -0.5 * inputs * inputs


class Gumbel:
    """Standard Gumbel noise. The argmax of x + σ z then has the probabilities softmax(x / σ)."""

    def sample(self, key: Array, sample_shape: tuple[int, ...] = (), dtype: Any = float) -> Array:
        """Independent draws of a shape."""
        return jax.random.gumbel(key, sample_shape, dtype)

    def log_prob(self, inputs: Array) -> Array:
        """The logarithm of the density of each element: −z − e⁻ᶻ."""
        return -inputs - jnp.exp(-inputs)


def make_perturbed_fun(
    fun: Callable[[Tree], Tree],
    num_samples: int = 1000,
    sigma: Any = 0.1,
    noise: _Noise = Gumbel(),
    use_baseline: bool = True,
) -> Callable[[Array, Tree], Tree]:
    """A function `(key, x)` that estimates, by sampling, the mean of `fun` around x, and the derivatives of that mean.

        f_σ(x) = E f(x + σ z)
        ∇ f_σ(x) = −E (f(x + σ z) − f(x)) ∇ log p(z) / σ

    The derivatives, of every order, are unbiased estimates that use only values of `fun`, which need not have any of
    its own. x is a tree of real floating-point arrays, and so is what `fun` returns.

    Args:
        fun: a function from a tree to a tree.
        num_samples: how many draws to average, at least 1; the error falls as the root of their number.
        sigma: the size σ > 0 of the perturbation; larger ones are smoother, and less variable.
        noise: the distribution of z, `Gumbel()` or `Normal()`, or an object with their two methods.
        use_baseline: whether to subtract f(x) in the derivatives, which makes them less variable and costs one call.

    Berthet et al., 2020, https://arxiv.org/abs/2002.08676; Foerster et al., 2018, https://arxiv.org/abs/1802.05098

    Raises:
        TypeError: `fun` is not a function, or, of the result, a leaf of x is not a real floating-point array.
        ValueError: `num_samples` is less than 1, or `sigma` is not positive.

    >>> def one_hot_argmax(x):
    ...     return jax.nn.one_hot(jnp.argmax(x), x.size)
    >>> soft = make_perturbed_fun(one_hot_argmax, 2000, sigma=1.0)
    >>> soft(jax.random.key(0), jnp.array([0.0, 0.0, -50.0])).round(1)
    Array([0.5, 0.5, 0. ], dtype=float32)
    """
    if not callable(fun):
        raise TypeError(f"make_perturbed_fun: fun must be a function of a tree, got {check.describe(fun)}")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise ValueError(f"make_perturbed_fun: num_samples must be an int of at least 1, got {num_samples!r}")
    if not isinstance(sigma, jax.Array) and not sigma > 0:
        raise ValueError(f"make_perturbed_fun: sigma must be positive, got {sigma!r}")

    def estimate(key: Array, x: Tree, at_x: Tree) -> Tree:
        """The estimate from one draw."""
        draw = jax.tree.map(lambda x, key: _moved(x, sigma, noise.sample(key, x.shape, x.dtype)), x, _keys(key, x))
        draw = jax.lax.stop_gradient(draw)
        log_prob = sum(jax.tree.leaves(jax.tree.map(lambda x, y: _log_prob(noise, (y - x), sigma), x, draw)))
        weight = jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))  # it is 1, and its derivative is the score
        if at_x is None:
            return jax.tree.map(lambda y: _times(weight, y), fun(draw))
        return jax.tree.map(lambda y, base: _times(weight, y) + _times(1 - weight, base), fun(draw), at_x)

    def perturbed(key: Array, x: Tree) -> Tree:
        check.inexact_leaves("make_perturbed_fun: x", x, "only floating-point numbers can be perturbed")
        if any(map(dtypes.is_complex, jax.tree.leaves(x))):
            raise TypeError("make_perturbed_fun: x must be real")
        x = dtypes.strong(jax.tree.map(jnp.asarray, x))
        if not jax.tree.leaves(x):
            return fun(x)
        at_x = jax.tree.map(jnp.asarray, fun(jax.lax.stop_gradient(x))) if use_baseline else None
        draws = jax.vmap(estimate, (0, None, None))(jax.random.split(key, num_samples), x, at_x)
        return jax.tree.map(lambda y: jnp.mean(y, 0), draws)

    return perturbed


def _keys(key: Array, tree: Tree) -> Tree:
    """A key of its own for every leaf."""
    treedef = jax.tree.structure(tree)
    return treedef.unflatten(jax.random.split(key, treedef.num_leaves))


def _moved(x: Array, sigma: Any, z: Array) -> Array:
    return x + jnp.asarray(sigma, x.dtype) * z


def _log_prob(noise: _Noise, distance: Array, sigma: Any) -> Array:
    """log p(z) of the noise z that moved a leaf by that distance, summed over its elements in at least float32."""
    distance = dtypes.upcast(distance)
    return jnp.sum(noise.log_prob(distance / jnp.asarray(sigma, distance.dtype)))


def _times(weight: Array, y: Any) -> Array:
    """The product, in the dtype of y; integers become floating-point."""
    y = jnp.asarray(y)
    y = y if dtypes.is_inexact(y) else y.astype(weight.dtype)
    return weight.astype(y.dtype) * y
