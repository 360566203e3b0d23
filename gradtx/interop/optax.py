"""What programs written for optax expect: a conversion to optax's class, and small functions under optax's names."""

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check, dtypes, norms, numerics
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree

if TYPE_CHECKING:
    import optax

__all__ = [
    "MultiNormalDiagFromLogScale",
    "OptState",
    "Params",
    "Updates",
    "global_norm",
    "incremental_update",
    "multi_normal",
    "periodic_update",
    "safe_increment",
    "scale_gradient",
    "to_optax",
]


def to_optax(tx: GradientTransformation) -> "optax.GradientTransformationExtraArgs":
    """`tx` as an instance of optax's own class, for programs that test `isinstance` before they pass extra arguments.

    `optax.chain` is such a program: it passes `value=` and the like only to instances of that class. As optax expects,
    the result ignores extra arguments that `tx` does not take rather than refuse them, because they may be meant for
    other stages. A transformation of optax needs no conversion to stand in a chain of gradtx.

    Raises:
        ImportError: optax is not installed.
        TypeError: `tx` is not a gradtx transformation.

    >>> import gradtx
    >>> import optax
    >>> isinstance(to_optax(gradtx.adam(1e-3)), optax.GradientTransformationExtraArgs)
    True
    """
    if not isinstance(tx, GradientTransformation):
        cure = f": call it, {tx.__name__}(...)" if isinstance(tx, type) else ""
        raise TypeError(f"to_optax: expected a gradtx transformation, got {check.describe(tx)}{cure}")
    try:
        import optax
    except ImportError as error:
        raise ImportError("to_optax needs optax: pip install 'gradtx[optax]'") from error
    return optax.GradientTransformationExtraArgs(tx.init, functools.partial(_update_with_known_extras, tx))


def _update_with_known_extras(
    tx: GradientTransformation, updates: Tree, state: Any, params: Tree = None, **extra: Any
) -> tuple[Tree, Any]:
    """`tx.update`, given only those of the extra arguments that it takes."""
    return tx.update(updates, state, params, **tx.extras.select(type(tx).__name__, extra))


Params = Tree
"A tree of parameters."
Updates = Tree
"A tree of gradients or updates."
OptState = Any
"A state: a tree that `init` or `update` returned."

global_norm = norms.norm
safe_increment = numerics.increment


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: Any) -> Tree:
    """The mean η new + (1 − η) old with the step size η, computed in at least float32. `None` for η means 1.

    For a debiased average that is kept up by the optimizer, see `params_ema`.

    Raises:
        ValueError: the trees have different structures.

    >>> incremental_update(jnp.array([1.0]), jnp.array([0.0]), 0.25)
    Array([0.25], dtype=float32)
    """
    check.same_structure("incremental_update: new_tensors", new_tensors, old_tensors, "old_tensors")

    def mix(new: Any, old: Any) -> Array:
        share = jnp.asarray(1.0 if step_size is None else step_size)
        wide = dtypes.upcast(new), dtypes.upcast(old)
        return (share.astype(wide[0].dtype) * wide[0] + (1 - share).astype(wide[1].dtype) * wide[1]).astype(new.dtype)

    return jax.tree.map(mix, new_tensors, old_tensors)


def periodic_update(new_tensors: Tree, old_tensors: Tree, steps: Array, update_period: int) -> Tree:
    """The new tree if `steps` is a multiple of `update_period`, else the old one.

    >>> periodic_update(jnp.array([1.0]), jnp.array([0.0]), jnp.array(3), 2)
    Array([0.], dtype=float32)
    """
    due = steps % update_period == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), new_tensors, old_tensors)


def scale_gradient(inputs: Tree, scale: Any) -> Tree:
    """The same tree, whose derivative is `scale` times the identity.

    In the loss of a model it scales the gradient of all that comes before it; −1 reverses it, as in domain-adversarial
    training (Ganin & Lempitsky, 2015, https://arxiv.org/abs/1409.7495), and 0 stops it. It works in forward and in
    reverse mode; `scale` may be traced, and its own derivative is 0.

    Raises:
        TypeError: `scale` is not a real scalar.

    >>> jax.grad(lambda x: scale_gradient(x, 0.5) ** 2)(3.0)
    Array(3., dtype=float32, weak_type=True)
    """
    if jnp.ndim(scale) or isinstance(scale, str) or jnp.iscomplexobj(scale):
        raise TypeError(f"scale_gradient: scale must be a real scalar, got {check.describe(scale)}")
    if not isinstance(scale, jax.Array) and scale == 0:
        return jax.lax.stop_gradient(inputs)
    scale = jax.lax.stop_gradient(jnp.asarray(scale))
    return jax.tree.map(lambda x: _with_scaled_tangent(x, scale) if dtypes.is_inexact(x) else x, inputs)


@jax.custom_jvp
def _with_scaled_tangent(x: Array, scale: Array) -> Array:
    return x


@_with_scaled_tangent.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, scale), (dx, _) = primals, tangents
    wide = dtypes.upcast(dx)
    return x, (wide * scale.astype(wide.dtype)).astype(dx.dtype)


class MultiNormalDiagFromLogScale:
    """A normal distribution with independent components, given by their means and the logarithms of their deviations.

    Raises:
        TypeError: a parameter is not real.
        ValueError: the shapes of the two do not broadcast.
    """

    def __init__(self, loc: Any, log_scale: Any) -> None:
        self._mean, self._log_scale = _real_array("loc", loc), _real_array("log_scale", log_scale)
        self._shape = jnp.broadcast_shapes(self._mean.shape, self._log_scale.shape)
        self._dtype = jnp.promote_types(self._mean.dtype, self._log_scale.dtype)

    def sample(self, shape: Any, key: Array) -> Array:
        """Draws μ + σ ε with standard normal numbers ε, of the shape `(*shape, *parameters)`."""
        noise = jax.random.normal(key, (*shape, *self._shape), self._dtype)
        return self._along(self._mean, noise) + self._along(jnp.exp(self._log_scale), noise) * noise

    def log_prob(self, x: Any) -> Array:
        """The logarithm of the density, log p(x) = −Σ (½ ((x − μ) / σ)² + log σ + ½ log 2π), over the components.

        Raises:
            ValueError: the last axes of `x` are not those of the parameters.
        """
        x = jnp.asarray(x).astype(self._dtype)
        axes = len(self._shape)
        if x.shape[x.ndim - axes :] != self._shape or x.ndim < axes:
            raise ValueError(f"multi_normal: expected the last axes {self._shape}, got {check.describe(x)}")
        distance = (x - self._along(self._mean, x)) * self._along(jnp.exp(-self._log_scale), x)
        terms = -0.5 * distance * distance - self._along(self._log_scale, x) - 0.5 * math.log(2 * math.pi)
        return jnp.sum(terms, range(-axes, 0))

    @property
    def log_scale(self) -> Array:
        """The logarithms of the standard deviations."""
        return self._log_scale

    @property
    def params(self) -> list[Array]:
        """The means, and the logarithms of the standard deviations."""
        return [self._mean, self._log_scale]

    def _along(self, param: Array, x: Array) -> Array:
        """A parameter, with axes of length 1 before its own, so that there are as many as in `x`."""
        param = jnp.broadcast_to(param, self._shape).astype(self._dtype)
        return param.reshape((1,) * (x.ndim - param.ndim) + param.shape)


def _real_array(name: str, x: Any) -> Array:
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x) or not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"multi_normal: {name} must be real numbers, got {check.describe(x)}")
    return dtypes.strong(x) if dtypes.is_inexact(x) else x.astype(jnp.result_type(float))


def multi_normal(loc: Any, log_scale: Any) -> MultiNormalDiagFromLogScale:
    """A normal distribution with independent components, given by their means and the logarithms of their deviations.

    Raises:
        TypeError: a parameter is not real.
        ValueError: the shapes of the two do not broadcast.

    >>> multi_normal(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.zeros(2))
    Array(-1.837877, dtype=float32)
    """
    return MultiNormalDiagFromLogScale(loc, log_scale)
