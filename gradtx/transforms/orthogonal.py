"""The orthogonal factor of a matrix, by the iteration of Newton and Schulz."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, norms, numerics

__all__ = ["orthogonalize"]

Triple = tuple[float, float, float]

STANDARD: Triple = (3.4445, -4.7750, 2.0315)
"Jordan's: steepest at 0; singular values end between 0.7 and 1.2."
DION: tuple[Triple, ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"One triple for each of five steps: singular values end closer to 1. Ahn et al., 2025, https://arxiv.org/abs/2504.05295"
PRESETS = {"standard": STANDARD, "dion": DION}


Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]
"By what a matrix is divided before the iteration; see `orthogonalize`."


def orthogonalize(
    x: Array,
    steps: int = 5,
    coeffs: Any = STANDARD,
    eps: Any = 1e-8,
    dtype: Any = None,
    preconditioning: Preconditioning = "frobenius",
) -> Array:
    """About U Vᵀ, where x = U S Vᵀ: a matrix with the singular vectors of `x` and singular values near 1.

        X = x / (‖x‖ + ε)
        X ← a X + (b A + c A²) X,   A = X Xᵀ      `steps` times

    This is the iteration of Newton and Schulz with an odd polynomial of degree five. Given one triple (a, b, c) for
    each step, it makes as many steps as there are triples. `x` has shape (m, n); zeros stay zeros. The iteration is in
    float32. With a narrower `dtype`, X, A and b A + c A² are kept in that, which makes the products faster on
    accelerators, while sums and coefficients stay in float32: bfloat16 will do for training.

    Jordan et al., 2024. https://kellerjordan.github.io/posts/muon/

    The first line is the `preconditioning` `"frobenius"`. The nearer to 1 it brings the singular values, the fewer
    steps are needed. There are three more, where A is that of `x`, and the smaller of xᵀ x and x xᵀ:

        "spectral"   X = x / (σ + ε),  σ the largest singular value: the closest, by a decomposition
        "aol"        X = D x,  Dᵢᵢ = 1 / max(√Σⱼ|Aᵢⱼ|, ε), which scales rows:  Boissin et al., arXiv:2512.04632
        "schatten"   X = x / max(√‖A‖, ε), the Schatten norm of order 4:  Grishina et al., arXiv:2506.10935

    The last two cost almost nothing, because the first step takes A from them. Of them, `"aol"` changes the singular
    vectors a little.

    >>> orthogonalize(jnp.array([[3.0, 0.0], [0.0, 0.2]])).round(1)
    Array([[0.7, 0. ],
           [0. , 1.1]], dtype=float32)
    """
    is_tall, wide = x.shape[0] > x.shape[1], numerics.compute_dtype(x.dtype)
    x = x.T if is_tall else x  # so that A is the smaller of the two products
    narrow = None if jnp.iscomplexobj(x) else dtype
    x, gram = _preconditioned(preconditioning, x, eps, narrow)
    for i, (a, b, c) in enumerate(_triples(coeffs, steps)):
        gram = _gram(x) if i else gram
        polynomial = (b * dtypes.upcast(gram) + c * _product(gram, gram)).astype(x.dtype)
        x = (a * dtypes.upcast(x) + _product(polynomial, x)).astype(x.dtype)
    return (x.T if is_tall else x).astype(wide)


def _preconditioned(kind: Preconditioning, x: Array, eps: Any, dtype: Any) -> tuple[Array, Array]:
    """The matrix X with which the iteration begins, and X Xᵀ, both in `dtype` if one is given."""
    if kind in ("aol", "schatten"):
        x, gram = (_scaled_rows if kind == "aol" else _over_schatten_norm)(*_near_one(x, eps))
        return (x, gram) if dtype is None else (x.astype(dtype), gram.astype(dtype))
    if kind == "spectral":
        x, eps = _near_one(x, eps)
        x = dtypes.scaled(1 / (_largest_singular_value(x) + eps), x)
        x = x if dtype is None else x.astype(dtype)
    elif dtype is not None:
        x = _normalized_in(dtype, x, eps)
    else:
        x = dtypes.scaled(1 / (norms.leaf_norm(x) + eps), x)
    return x, _gram(x)


def _near_one(x: Array, eps: Any) -> tuple[Array, Array]:
    """`x` and ε, multiplied by the power of two that brings the largest element near 1: so no square overflows."""
    x = dtypes.upcast(x)
    size = jnp.max(jnp.abs(x), initial=0)
    one, another = numerics.factors_to_one(size)
    return dtypes.scaled(another, dtypes.scaled(one, x)), jnp.asarray(eps, size.dtype) * one * another


def _scaled_rows(x: Array, eps: Array) -> tuple[Array, Array]:
    """D x and its product with itself, where D brings the sum of each row of |x xᵀ| to 1."""
    gram = _gram(x)
    factors = numerics.rsqrt(jnp.maximum(jnp.sum(jnp.abs(gram), axis=1, keepdims=True), eps * eps)).astype(x.dtype)
    return factors * x, factors * gram * factors.T


def _over_schatten_norm(x: Array, eps: Array) -> tuple[Array, Array]:
    """`x` divided by its Schatten norm of order 4, and its product with itself."""
    gram = _gram(x)
    factor = numerics.rsqrt(jnp.maximum(norms.plain_norm(gram), eps * eps)).astype(x.dtype)
    return factor * x, factor * gram * factor


def _largest_singular_value(x: Array) -> Array:
    return jnp.linalg.svd(x, compute_uv=False)[0] if x.size else jnp.max(jnp.abs(x), initial=0)


def _normalized_in(dtype: Any, x: Array, eps: Any) -> Array:
    """The matrix x / (‖x‖ + ε) in `dtype`. Matrix and norm are rounded before they are divided, as in torch.

    A power of two comes out first, which changes no digit: ‖x‖ may be larger than any number of float16.
    """
    _, exponent = jnp.frexp(norms.leaf_norm(x) + eps)
    x = jnp.ldexp(dtypes.upcast(x), -exponent).astype(dtype)
    norm = norms.leaf_norm(x)
    norm = (norm + jnp.ldexp(jnp.asarray(eps, norm.dtype), -exponent)).astype(dtype)
    return (dtypes.upcast(x) / dtypes.upcast(norm)).astype(dtype)


def _triples(coeffs: Any, steps: int) -> Sequence[Triple]:
    return coeffs if isinstance(coeffs[0], tuple) else [coeffs] * steps


def _gram(x: Array) -> Array:
    """A = X Xᵀ in the dtype of X."""
    return _product(x, jnp.conj(x.T)).astype(x.dtype)


def _product(a: Array, b: Array) -> Array:
    """A matrix product, in at least float32, whose precision accelerators would lower unless told not to."""
    wide = numerics.compute_dtype(a.dtype)
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide)
