"""Bounds on the gradient: by element, by leaf, by the norm of the whole tree."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import check, dtypes, norms, numerics
from gradtx.core.hyperparams import Axes, Axis, NonNegative
from gradtx.core.leafwise import Leafwise
from gradtx.core.tree import Tree
from gradtx.transforms.normalizing import all_but

__all__ = [
    "ClipByGlobalNormState",
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_norm",
    "unitwise_clip",
    "unitwise_norm",
]


class clip(Leafwise):
    """Clip every element to ±`max_delta`. NaN stays NaN.

        u = min(max(g, −δ), δ)

    >>> import jax.numpy as jnp
    >>> tx = clip(1.0)
    >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0]
    Array([-1. ,  0.5], dtype=float32)
    """

    max_delta: NonNegative
    "Largest magnitude δ of an element; 0.5 and 1 are usual."

    def leaf(self, g: Array) -> Array:
        if jnp.iscomplexobj(g):
            raise TypeError("clip: complex numbers have no order; clip_by_norm bounds a leaf's size")
        return jnp.clip(g, -self.max_delta, self.max_delta)


class clip_by_norm(Leafwise):
    """Scale each leaf down to at most the L2 norm `max_norm`, whatever the others are.

        u = g · min(1, c / ‖g‖)

    A zero leaf stays zero; a leaf with a non-finite element stays as it is. Keras calls this `clipnorm`.
    """

    elementwise = False

    max_norm: NonNegative
    "Largest L2 norm c of a leaf; 1 is usual."

    def leaf(self, g: Array) -> Array:
        norm = norms.leaf_norm(g)
        return dtypes.scaled(_shrink(self.max_norm, jnp.where(jnp.isfinite(norm), norm, 0)), g)


class clip_by_block_rms(Leafwise):
    """Scale each leaf down to at most the root mean square `threshold`.

        u = g · min(1, d / rms(g)),   rms(g) = ‖g‖ / √size

    Shazeer & Stern, 2018, Section 6. https://arxiv.org/abs/1804.04235
    """

    elementwise = False

    threshold: NonNegative
    "Largest root mean square d of a leaf; 1 is the paper's."

    def leaf(self, g: Array, *, copy: Array) -> Array:
        return dtypes.scaled(_shrink(self.threshold, norms.rms(copy)), g)


class ClipByGlobalNormState(NamedTuple):
    """The norm of the gradient and the number of clipped ones, which a training loop may log at no cost."""

    grad_norm: Array
    "float32[]: the norm of the last gradient, before it was clipped; NaN or infinite if an element is."
    clipped: Array
    "int32[]: how many gradients were scaled down so far."


class clip_by_global_norm(Leafwise):
    """Scale all leaves by one factor so that the L2 norm of the whole tree is at most `max_norm`.

        u = g · min(1, c / ‖g‖),   ‖g‖ = √Σ |gᵢ|² over all leaves

    The norm is accumulated in float32 and neither overflows nor underflows. Zero gradients stay zero. A leaf with a
    non-finite element does not count in the norm, so that it spoils no other leaf; `grad_norm` in the state shows it.

    Pascanu, Mikolov & Bengio, 2013, Algorithm 1. https://arxiv.org/abs/1211.5063

    >>> import jax.numpy as jnp
    >>> tx = clip_by_global_norm(1.0)
    >>> updates, state = tx.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, tx.init(jnp.zeros(())))
    >>> updates
    {'a': Array([0.6], dtype=float32), 'b': Array([0.8], dtype=float32)}
    >>> float(state.grad_norm), int(state.clipped)
    (5.0, 1)
    """

    State = ClipByGlobalNormState
    observed = ("grad_norm", "clipped")
    reported = {"grad_norm": "grad_norm", "clipped": "clipped"}
    context = Leafwise.context | {"factor"}
    elementwise = False

    max_norm: NonNegative
    "Largest L2 norm c of the whole tree; 1 is usual."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        return {"grad_norm": jnp.zeros((), jnp.float32), "clipped": numerics.counter()}

    def observe(self, updates: Tree, state: ClipByGlobalNormState) -> dict[str, Array]:
        norm, finite_norm = norms.norm_and_finite_norm(updates)
        factor = _shrink(self.max_norm, finite_norm)
        clipped = jnp.where(factor < 1, numerics.increment(state.clipped), state.clipped)
        return {"grad_norm": norm, "clipped": clipped, "factor": factor}

    def leaf(self, g: Array, *, factor: Array) -> Array:
        return dtypes.scaled(factor, g)


class adaptive_grad_clip(Leafwise):
    """Clip the gradient of each output unit to a share of the norm of the unit's own weights.

        u = g · min(1, c · max(‖θ‖, ε) / ‖g‖),   norms over one output unit

    A leaf with at most one axis longer than 1 is one unit. Kernels are read as JAX and Keras store them: with two or
    three axes (inputs, outputs …), with more the outputs on the last axis, as in the authors' code and optax. For
    another layout give the axis of the outputs, 0 for torch's, or the axes that a unit extends over. The gradient of a
    unit with a non-finite element stays as it is, and other units are not affected. Needs the parameters.

    Brock et al., 2021, Section 4.1. https://arxiv.org/abs/2102.06171
    """

    elementwise = False

    clipping: NonNegative
    "Largest ratio c of a gradient's norm to its weights'; 0.01 for large batches, up to 0.16 for small ones."
    eps: NonNegative = 1e-3
    "Lower bound ε of the weights' norm, so that weights may leave zero."
    axis: Axes | None = None
    "The axis or axes that a unit extends over, the same in every leaf; by default as described above."
    output_axis: Axis | None = None
    "Instead of `axis`, the axis of the output units in leaves of two or more axes; a unit extends over all others."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis is not None and self.output_axis is not None:
            raise ValueError("adaptive_grad_clip: give axis or output_axis, not both")

    def leaf(self, g: Array, *, param: Array) -> Array:
        axes = _unit_axes(g.shape, self.axis, self.output_axis)
        bound = self.clipping * jnp.maximum(_norm_over(param, axes), self.eps)
        norm = _norm_over(g, axes)
        too_long = (norm > bound) & jnp.isfinite(norm)
        return g * jnp.where(too_long, bound / jnp.where(too_long, norm, 1), 1).astype(g.dtype)


def _unit_axes(shape: tuple[int, ...], axis: Any = None, output_axis: int | None = None) -> tuple[int, ...]:
    """The axes that an output unit extends over."""
    ndim = len(shape)
    if axis is not None and ndim:
        return axis if isinstance(axis, tuple) else (axis,)
    if sum(size != 1 for size in shape) <= 1:
        return tuple(range(ndim))
    if output_axis is not None:
        return all_but(output_axis, ndim)
    return (0,) if ndim <= 3 else all_but(-1, ndim)


def _norm_over(x: Array, axes: tuple[int, ...]) -> Array:
    """√Σ|x|² over some axes, which stay with length 1, without overflow or underflow."""
    largest = jnp.max(jnp.abs(x), axes, keepdims=True, initial=0)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * numerics.sqrt(jnp.sum(numerics.abs_sq(x * (1 / unit).astype(x.dtype)), axes, keepdims=True))


def unitwise_norm(x: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """The L2 norm of each output unit, in the shape of `x`: the units are those of `adaptive_grad_clip(axis=axis)`.

    >>> import jax.numpy as jnp
    >>> unitwise_norm(jnp.array([[3.0, 1.0], [4.0, 0.0]]))
    Array([[5., 1.],
           [5., 1.]], dtype=float32)
    """
    return jnp.broadcast_to(_norm_over(x, _unit_axes(x.shape, axis)), x.shape)


def unitwise_clip(g_norm: Array, max_norm: Array, grad: Array, div_eps: float = 1e-6) -> Array:
    """A gradient with the norms `g_norm`, scaled down to the norms `max_norm` where those are smaller.

    Raises:
        ValueError: the three are not of the same shape.

    >>> import jax.numpy as jnp
    >>> unitwise_clip(jnp.array([5.0, 5.0]), jnp.array([1.0, 9.0]), jnp.array([3.0, 4.0]))
    Array([0.6, 4. ], dtype=float32)
    """
    for name, norm in {"g_norm": g_norm, "max_norm": max_norm}.items():
        check.same_shapes(f"unitwise_clip: {name}", norm, grad, "the gradient")
    return jnp.where(g_norm < max_norm, grad, grad * (max_norm / jnp.maximum(g_norm, div_eps)))


def _shrink(bound: Any, norm: Array) -> Array:
    """min(1, bound / norm), and 1 for a norm of 0."""
    bound = jnp.asarray(bound, norm.dtype)
    return jnp.where(norm > bound, bound / jnp.where(norm > bound, norm, 1), 1)
