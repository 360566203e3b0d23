"""Linear algebra on arrays and trees: norms with a floor, the largest eigenvalue, inverse roots, least squares.

Half precision is computed in float32, and the results have the dtypes of what was given.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, norms, numerics
from gradtx.core.tree import Tree

__all__ = ["matrix_inverse_pth_root", "nnls", "power_iteration", "safe_norm", "safe_root_mean_squares"]


# Norms with a floor.


def safe_norm(
    x: Any,
    min_norm: Any,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Array:
    """The larger of ‖x‖ and `min_norm`, with a derivative of 0 by x where that is `min_norm`.

    The norm is that of `jnp.linalg.norm` with the same `ord`, `axis` and `keepdims`, and right also where squares or
    other powers overflow. At x = 0, where its own derivative is NaN, it is the derivative 0 of `min_norm`.

    Raises:
        TypeError: `min_norm` is not a real scalar.
        ValueError: `min_norm` is negative or NaN, so that the derivative at 0 would be NaN; or as `jnp.linalg.norm`.

    >>> safe_norm(jnp.array([3.0, 4.0]), 0.5), jax.grad(safe_norm)(jnp.zeros(2), 0.5)
    (Array(5., dtype=float32), Array([0., 0.], dtype=float32))
    """
    x, floor = _with_floor("safe_norm: min_norm", x, min_norm)
    wide = dtypes.upcast(x)
    down = numerics.factors_to_one(jnp.max(jnp.abs(wide), axis, keepdims=True, initial=0))
    if ord == 0:  # the number of elements that are not 0, which does not grow with them
        down = [jnp.ones_like(factor) for factor in down]
    scaled = wide * down[0].astype(wide.dtype) * down[1].astype(wide.dtype)

    def norm_of(scaled: Array, keepdims: bool) -> Array:
        size = jnp.linalg.norm(scaled, ord, axis, keepdims)
        return size / down[0].reshape(size.shape) / down[1].reshape(size.shape)

    is_small = norm_of(scaled, True) <= floor
    # where the floor counts, the derivative is taken of a norm that has one
    norm = norm_of(jnp.where(is_small, 1, scaled), keepdims)
    return jnp.where(is_small.reshape(norm.shape), floor, norm).astype(numerics.real_dtype(x.dtype))


def safe_root_mean_squares(x: Any, min_rms: Any) -> Array:
    """The larger of √mean |x|² and `min_rms`, with a derivative of 0 by x where that is `min_rms`.

    It is right also where squares overflow or underflow; of an array without elements it is `min_rms`.

    Raises:
        TypeError: `min_rms` is not a real scalar.
        ValueError: `min_rms` is negative or NaN.

    >>> safe_root_mean_squares(jnp.array([3.0, 3.0]), 0.5), jax.grad(safe_root_mean_squares)(jnp.zeros(2), 0.5)
    (Array(3., dtype=float32), Array([0., 0.], dtype=float32))
    """
    x, floor = _with_floor("safe_root_mean_squares: min_rms", x, min_rms)
    rms = norms.leaf_norm(x) / math.sqrt(max(x.size, 1))
    return jnp.where(rms <= floor, floor, rms).astype(numerics.real_dtype(x.dtype))


def _with_floor(where: str, x: Any, floor: Any) -> tuple[Array, Array]:
    """`x` as a floating-point array, and a floor of its compute dtype."""
    x = jnp.asarray(x)
    x = dtypes.strong(x) if dtypes.is_inexact(x) else x.astype(jnp.result_type(float))
    if np.ndim(floor) or isinstance(floor, str) or jnp.iscomplexobj(floor):
        raise TypeError(f"{where} must be a real scalar, got {check.describe(floor)}")
    if not isinstance(floor, jax.core.Tracer) and not floor >= 0:
        raise ValueError(f"{where} must be at least 0, got {float(floor):g}")
    return x, jnp.asarray(floor).astype(numerics.real_dtype(numerics.compute_dtype(x.dtype)))


# Eigenvalues and roots.


def power_iteration(
    matrix: Any,
    *,
    v0: Tree = None,
    num_iters: Any = 100,
    error_tolerance: Any = 1e-6,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
    key: Array | None = None,
) -> tuple[Array, Tree]:
    """The eigenvalue of largest magnitude, and an eigenvector of norm 1, of a symmetric (or Hermitian) matrix.

        v ← A v / ‖A v‖,   λ = ⟨v, A v⟩   until ‖A v − λ v‖ ≤ tol · |λ|

    The matrix is an array, or a function v ↦ A v on trees, a Hessian-vector product for instance. A matrix of zeros has
    the eigenvalue 0. Each iteration reduces the error by the ratio of the two largest magnitudes.

    Args:
        matrix: an array of shape [n, n], or a function from a tree like `v0` to such a tree.
        v0: where to begin; by default random numbers in [−1, 1] from `key`. A function needs it.
        num_iters: most iterations to make.
        error_tolerance: the residual, as a share of |λ|, at which to stop.
        precision: of the product with an array.
        key: for a random beginning; `jax.random.key(0)` by default.

    Golub & Van Loan, Matrix computations, Section 7.3.

    Raises:
        ValueError: the array is not square, or `v0` is missing.
        TypeError: an element is not floating-point.

    >>> eigenvalue, vector = power_iteration(jnp.diag(jnp.array([1.0, -3.0, 2.0])))
    >>> print(f"{eigenvalue:.3f}", jnp.abs(vector).round(3))
    -3.000 [0. 1. 0.]
    """
    if not callable(matrix):
        matrix = _square_matrix("power_iteration", matrix)
        if v0 is None:
            key = jax.random.key(0) if key is None else key
            v0 = jax.random.uniform(key, matrix.shape[-1:], numerics.real_dtype(matrix.dtype), -1.0, 1.0)
            v0 = v0.astype(matrix.dtype)
    elif v0 is None:
        raise ValueError("power_iteration: a function does not tell the structure of its argument: give v0")
    check.inexact_leaves("power_iteration: v0", v0, "give floating-point numbers")
    v0 = dtypes.strong(v0)

    def product(v: Tree) -> Tree:
        if callable(matrix):
            return jax.tree.map(_cast_up, matrix(dtypes.cast_like(v, v0)), v)
        return jnp.matmul(dtypes.upcast(matrix).astype(v.dtype), v, precision=precision)

    eigenvalue, vector = _power_iteration(product, jax.tree.map(dtypes.upcast, v0), num_iters, error_tolerance)
    return eigenvalue, dtypes.cast_like(vector, v0)


def _power_iteration(product: Callable[[Tree], Tree], v: Tree, num_iters: Any, tolerance: Any) -> tuple[Array, Tree]:
    """The iteration, on a tree in its compute dtypes."""
    dtype = norms.norm(v).dtype

    def with_eigenvalue(v: Tree) -> tuple[Tree, Tree, Array]:
        z = product(v)
        return v, z, norms.inner_product(v, z, dtype)

    def is_far(carry: tuple[tuple[Tree, Tree, Array], Array]) -> Array:
        (v, z, eigenvalue), i = carry
        residual = norms.norm(jax.tree.map(lambda z, v: z - eigenvalue.astype(v.dtype) * v, z, v))
        bound = jnp.asarray(tolerance, dtype) * jnp.abs(eigenvalue)
        return ~(residual.astype(dtype) <= bound) & (i < num_iters)

    def iterate(carry: tuple[tuple[Tree, Tree, Array], Array]) -> tuple[tuple[Tree, Tree, Array], Array]:
        (v, z, _), i = carry
        return with_eigenvalue(_normalized(z, v)), i + 1

    start = with_eigenvalue(_normalized(v, v)), jnp.zeros((), jnp.int32)
    (v, z, eigenvalue), _ = jax.lax.while_loop(is_far, iterate, start)
    return eigenvalue, _normalized(z, v)


def _normalized(z: Tree, otherwise: Tree) -> Tree:
    """z / ‖z‖, and another tree where z = 0."""
    norm = norms.norm(z)
    inverse = 1 / jnp.where(norm > 0, norm, 1)
    scaled = dtypes.scaled(inverse, z)
    return jax.tree.map(lambda z, v: jnp.where(norm != 0, z.astype(v.dtype), v), scaled, otherwise)


def _cast_up(x: Any, like: Array) -> Array:
    return jnp.asarray(x).astype(like.dtype)


def _square_matrix(name: str, matrix: Any) -> Array:
    check.inexact_leaves(f"{name}: matrix", matrix, "give floating-point numbers")
    matrix = dtypes.strong(jnp.asarray(matrix))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            f"{name}: matrix must be square, with two axes, got {check.describe(matrix)}; use jax.vmap for several"
        )
    return matrix


def matrix_inverse_pth_root(
    matrix: Any,
    p: int,
    num_iters: Any = 100,
    ridge_epsilon: Any = 1e-6,
    error_tolerance: Any = 1e-6,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
) -> tuple[Array, Array]:
    """The inverse p-th root A^(−1/p) of a symmetric positive semi-definite matrix, and the error of the iteration.

        X ← X T,   M ← Tᵖ M,   T = ((p + 1) I − M) / p
        from X = z^(1/p) I, M = z (A + ε λ I), z = (1 + p) / (2 ‖A + ε λ I‖)

    M goes to the identity, and X to the root. The error is the largest element of |M − I|; it stops at
    `error_tolerance`, and also when the error grows, whereupon the result before is taken. In float32 this gets to
    condition numbers of about 1e6; the ridge ε λ, where λ is the largest eigenvalue, sees to that.

    Args:
        matrix: float[n, n].
        p: the root, at least 1; Shampoo uses 4.
        num_iters: most iterations to make.
        ridge_epsilon: ε, relative to the largest eigenvalue.
        error_tolerance: the error at which to stop.
        precision: of the products of matrices.

    Higham, 2008, Functions of matrices, Equation 7.18; Anil et al., 2020, https://arxiv.org/abs/2002.09018

    Raises:
        ValueError: the matrix is not square, or p is less than 1.
        TypeError: p is not a Python int, or an element is not floating-point.

    >>> root, error = matrix_inverse_pth_root(jnp.diag(jnp.array([16.0, 81.0])), 4)
    >>> root.round(3)
    Array([[0.5  , 0.   ],
           [0.   , 0.333]], dtype=float32)
    """
    matrix = _square_matrix("matrix_inverse_pth_root", matrix)
    if isinstance(p, np.integer):
        p = int(p)
    if not isinstance(p, int) or isinstance(p, bool):
        raise TypeError(f"matrix_inverse_pth_root: p must be a Python int, got {check.describe(p)}")
    if p < 1:
        raise ValueError(f"matrix_inverse_pth_root: p must be at least 1, got {p}")
    wide = dtypes.upcast(matrix)
    real = numerics.real_dtype(wide.dtype)
    largest, _ = power_iteration(wide, precision=precision)
    ridge = jnp.asarray(ridge_epsilon, real) * jnp.maximum(largest, 1e-16)
    damped = wide + ridge.astype(wide.dtype) * jnp.eye(len(wide), dtype=wide.dtype)
    root, error = _newton(damped, p, num_iters, jnp.asarray(error_tolerance, real), precision)
    return root.astype(matrix.dtype), error


def _newton(a: Array, p: int, num_iters: Any, tolerance: Array, precision: Any) -> tuple[Array, Array]:
    """The coupled Newton iteration for A^(−1/p), and its error."""
    identity = jnp.eye(len(a), dtype=a.dtype)
    matmul = functools.partial(jnp.matmul, precision=precision)
    z = (1 + p) / (2 * norms.leaf_norm(a))

    def error_of(m: Array) -> Array:
        return jnp.max(jnp.abs(m - identity))

    def is_far(carry: tuple[Array, Any, Any]) -> Array:
        i, (_, _, error), (_, _, error_before) = carry
        return (i < num_iters) & (error > tolerance) & (error < 1.2 * error_before)

    def iterate(carry: tuple[Array, Any, Any]) -> tuple[Array, Any, Any]:
        i, (m, x, error), _ = carry
        step = ((p + 1) * identity - m) / p
        new = matmul(_power(step, p, matmul), m)
        return i + 1, (new, matmul(x, step), error_of(new)), (m, x, error)

    m, x = a * z.astype(a.dtype), identity * (z ** (1 / p)).astype(a.dtype)
    # the error may grow a little before it falls
    start = (m, x, error_of(m))
    _, (_, x, error), (_, x_before, error_before) = jax.lax.while_loop(
        is_far, iterate, (jnp.zeros((), jnp.int32), start, (m, x, jnp.full_like(start[2], jnp.inf)))
    )
    grew = ~(error < 1.2 * error_before)
    return jnp.where(grew, x_before, x), jnp.where(grew, error_before, error)


def _power(a: Array, p: int, matmul: Callable[[Array, Array], Array]) -> Array:
    """aᵖ by repeated squaring."""
    half = a if p < 2 else _power(a, p // 2, matmul)
    if p < 2:
        return a
    square = matmul(half, half)
    return matmul(square, a) if p % 2 else square


# Least squares.


def nnls(A: Any, b: Any, iters: int, unroll: int | bool = 1, L: Any = None) -> Array:  # noqa: N803
    """Least squares without negative numbers: the x ≥ 0 for which ‖A x − b‖ is least, by fast projected gradients.

        x' = max(y − (Aᵀ A y − Aᵀ b) / L, 0),   y = x' + (c − 1) / c' · (x' − x),   c' = (1 + √(1 + 4 c²)) / 2

    The squared residual comes near the least one with the square of the number of iterations.

    Args:
        A: float[m, n].
        b: float[m], or float[m, k] for k problems.
        iters: how many iterations to make; a few hundred for well-conditioned problems.
        unroll: as in `jax.lax.scan`.
        L: a bound on the largest eigenvalue of Aᵀ A; by default the lesser of two norms of it.

    Polyak, 2015, Projected gradient method for non-negative least square, Contemporary Mathematics 636; Beck &
    Teboulle, 2009.

    Raises:
        ValueError: the shapes do not fit, or L is not positive.
        TypeError: an element is not real and floating-point.

    >>> nnls(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0]), 1000).round(3)
    Array([0. , 1.7], dtype=float32)
    """
    matrix, target = _real_array("nnls: A", A), _real_array("nnls: b", b)
    if matrix.ndim != 2 or target.ndim not in (1, 2) or len(target) != len(matrix):
        raise ValueError(
            f"nnls: expected A[m,n] and b[m] or b[m,k], got {check.describe(matrix)} and {check.describe(target)}"
        )
    if L is not None and not isinstance(L, jax.core.Tracer) and not L > 0:
        raise ValueError(f"nnls: L must be positive, got {float(L):g}")
    widest = np.promote_types(numerics.compute_dtype(matrix.dtype), numerics.compute_dtype(target.dtype))
    wide, highest = matrix.astype(widest), jax.lax.Precision.HIGHEST
    gram = jnp.matmul(wide.T, wide, precision=highest)
    slope = jnp.matmul(wide.T, target.astype(widest), precision=highest)
    bound = _eigenvalue_bound(gram) if L is None else jnp.asarray(L, widest)
    size = 1 / jnp.where(bound == 0, 1, bound)

    def iterate(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        x, y, c = carry
        next_c = (1 + jnp.sqrt(1 + 4 * c * c)) / 2
        next_x = jnp.maximum(y - (jnp.matmul(gram, y, precision=highest) - slope) * size, 0)
        return (next_x, next_x + (c - 1) / next_c * (next_x - x), next_c), None

    start = jnp.zeros_like(slope)
    first = start, start, jnp.zeros((), widest)
    (x, _, _), _ = jax.lax.scan(iterate, first, length=iters, unroll=unroll)
    return x.astype(target.dtype)


def _real_array(where: str, x: Any) -> Array:
    check.inexact_leaves(where, x, "give floating-point numbers")
    if dtypes.is_complex(x):
        raise TypeError(f"{where}: expected real numbers, got {check.describe(x)}")
    return dtypes.strong(jnp.asarray(x))


def _eigenvalue_bound(matrix: Array) -> Array:
    """An upper bound on the eigenvalues of a symmetric matrix: the lesser of its Frobenius and its column-sum norm."""
    return jnp.minimum(norms.leaf_norm(matrix), jnp.max(jnp.sum(jnp.abs(matrix), 0), initial=0))
