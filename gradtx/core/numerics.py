"""Arithmetic on one array that every optimizer needs, safe at zeros, in half precision and in long runs.

Decay rates may be Python numbers or arrays. From Python numbers, constants such as 1 − β are formed in double
precision before they meet an array: in float32, 1 − 0.999 is wrong in the fifth digit.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = [
    "abs_sq",
    "after",
    "again",
    "bounded",
    "compute_dtype",
    "counter",
    "ema",
    "factors_to_one",
    "increment",
    "one_minus_power",
    "quotient",
    "real_dtype",
    "rsqrt",
    "sqrt",
    "unbiased",
    "unshared",
    "zeros",
    "zeros_over",
]


@functools.cache
def compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype in which leaves of `dtype` are computed: at least float32."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else np.dtype(dtype)


@functools.cache
def real_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype of the real part of numbers of `dtype`."""
    return jnp.finfo(dtype).dtype


def zeros(param: Any, dtype: Any = None, shape: tuple[int, ...] | None = None) -> Array:
    """A slot of zeros like `param`, in its compute dtype unless told otherwise, and complex if `param` is."""
    dtype = compute_dtype(param.dtype) if dtype is None else np.dtype(dtype)
    if jnp.iscomplexobj(param) and not jnp.issubdtype(dtype, jnp.complexfloating):
        dtype = np.dtype(np.complex128 if dtype == np.float64 else np.complex64)  # there are no smaller ones
    if shape is not None:  # the rank may differ from the parameter's, whose sharding would not fit then
        return jnp.zeros(shape, dtype)
    return jnp.zeros_like(param, dtype=dtype)


def zeros_over(param: Any, *axes: int) -> Array:
    """Real zeros with the shape and the sharding of the sum of `param` over some axes."""
    return jnp.sum(jnp.real(zeros(param)), axes)


def ema(mean: Array, x: Array, decay: Any) -> Array:
    """β m + (1 − β) x"""
    return decay * mean + (1 - decay) * x


def one_minus_power(decay: Any, t: Array) -> Array:
    """1 − βᵗ without cancellation, as −expm1(t log β), for t ≥ 1."""
    if isinstance(decay, jax.Array):
        return -jnp.expm1(t * jnp.log(decay))
    return -jnp.expm1(t * math.log(decay)) if decay else jnp.ones_like(t)


def unbiased(mean: Array, decay: Any, t: Array) -> Array:
    """The debiased mean m / (1 − βᵗ) of a mean that began at zero. `t` counts the updates, this one included."""
    return mean * (1 / one_minus_power(decay, t)).astype(mean.dtype)


def after(x: Array, *written: Array) -> Array:
    """`x`, which is not computed before the arrays `written` are; NaN where one of these is NaN.

    XLA:CPU writes one array per loop, and a donated slot is overwritten in place by the loop of its new value. If other
    loops read the old value, XLA copies it first, unless the new value depends on what these loops write.
    """
    for y in written:
        x = jnp.where(jnp.isnan(y), jnp.nan, x)
    return x


def again(arrays: Any) -> Any:
    """The same arrays, to be given to a formula once more: XLA then computes it anew where it is used.

    If two loops use the result of a formula, XLA:CPU writes it to memory, and new memory costs several times as much as
    the arithmetic. To have it computed a third time, apply this to what it returned.
    """
    return jax.lax.optimization_barrier(arrays)


def unshared(x: Array) -> Array:
    """`x`; if it has half precision, behind barriers: else XLA writes it out in float32, to share with later uses.

    Two, because formulas stand behind one, and XLA takes equal barriers for the same.
    """
    return x if x.dtype == compute_dtype(x.dtype) else again(again(x))


@jax.custom_jvp
def sqrt(x: Array) -> Array:
    """√x, whose derivative at 0 is 0 rather than infinite, so that gradients pass through an optimizer at rest."""
    return jnp.sqrt(x)


@sqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    root = jnp.sqrt(x)
    return root, jnp.where(root > 0, 0.5 / root, 0) * dx


@jax.custom_jvp
def rsqrt(x: Array) -> Array:
    """1 / √x, and 0 where x is 0. The derivative is taken as 0 there, and where it would overflow."""
    return jnp.where(x > 0, jax.lax.rsqrt(jnp.where(x > 0, x, 1)), 0)


@rsqrt.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    root = rsqrt(x)
    slope = -0.5 * root**3
    return root, jnp.where(jnp.isfinite(slope), slope, 0) * dx


def quotient(x: Array, denominator: Array, eps: Any) -> Array:
    """The quotient x / d, and 0 where d is 0.

    `eps` is the term of d ≥ 0 that keeps it above 0. If that is a Python number above 0, as it usually is, d cannot be
    0, and only the division is compiled.
    """
    if isinstance(eps, float) and eps > 0:
        return x / denominator
    is_zero = denominator == 0
    return jnp.where(is_zero, 0, x / jnp.where(is_zero, 1, denominator))


def bounded(x: Array, size: int = 1) -> Array:
    """The array x with finite elements clipped to √(max / size), so that the sum of `size` squares does not overflow.

    Here max is the largest number of the dtype. Elements that are not finite stay as they are.
    """
    limits = jnp.finfo(x.dtype)
    bound = math.sqrt(float(limits.max) / max(size, 1)) * (1 - float(limits.eps))
    if jnp.iscomplexobj(x):
        return jax.lax.complex(bounded(jnp.real(x), 2 * size), bounded(jnp.imag(x), 2 * size))
    return jnp.where(jnp.isfinite(x), jnp.clip(x, -bound, bound), x)


def factors_to_one(largest: Array) -> tuple[Array, Array]:
    """Two powers of two whose product brings each magnitude near 1; constants where one differentiates.

    Two, because their product may be no number of the dtype. For infinity and NaN they are those of 1.
    """
    _, exponent = jnp.frexp(jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 1)))
    half = exponent // 2  # computed once: ldexp of the elements would compute the power for each of them
    return jnp.ldexp(jnp.ones_like(largest), -half), jnp.ldexp(jnp.ones_like(largest), half - exponent)


def abs_sq(x: Array) -> Array:
    """|x|², which is real also for complex x."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x * x


def counter() -> Array:
    """A counter at 0: int32[], in a buffer of its own, so that a state may be donated."""
    return jnp.zeros((), jnp.int32)


def increment(count: Array) -> Array:
    """The counter plus one. At the largest number of its dtype it stays, rather than wrap around or become infinite.

    Raises:
        ValueError: it is complex or a bool.

    >>> increment(jnp.asarray(2**31 - 1)), increment(jnp.asarray(2**32 - 1, jnp.uint32)), increment(jnp.asarray(1.5))
    (Array(2147483647, dtype=int32), Array(4294967295, dtype=uint32), Array(2.5, dtype=float32))
    """
    count = jnp.asarray(count)
    if jnp.iscomplexobj(count) or count.dtype == bool:
        raise ValueError(f"safe_increment: count must be an integer or a real number, got {count.dtype}{count.shape}")
    limits = jnp.finfo(count.dtype) if jnp.issubdtype(count.dtype, jnp.floating) else jnp.iinfo(count.dtype)
    return count + (count < jnp.asarray(limits.max, count.dtype)).astype(count.dtype)
