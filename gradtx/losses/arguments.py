"""What the losses accept: real arrays whose shapes fit together, masks, class numbers and parameters.

The checks look at types and shapes only, so under `jax.jit` they cost nothing at run time. Every message names the
loss, the argument, what was expected, what came, and what to do.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import dtypes, hyperparams, numerics
from gradtx.core.check import describe

__all__ = []

Axes = int | tuple[int, ...] | None
"An axis, several axes, or `None` for all of them."


# Dtypes.


def floating(loss: str, **given: Any) -> None:
    """Refuse what is not a real floating-point array or number."""
    for name, x in given.items():
        if not _is_a(x, jnp.floating):
            raise TypeError(
                f"{loss}: {name}: expected a real floating-point array, got {describe(x)}; "
                "convert it, for example by jnp.asarray(..., jnp.float32)"
            )


def not_boolean(loss: str, cure: str, **given: Any) -> None:
    """Refuse boolean arrays, whose `False` would count as 0."""
    for name, x in given.items():
        if _is_a(x, jnp.bool_):
            raise TypeError(f"{loss}: {name}: expected numbers, got {describe(x)}; {cure}")


def _real(loss: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arrays and numbers that are given, by name. Refuse what is not real."""
    for name, x in given.items():
        if not any(_is_a(x, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise TypeError(f"{loss}: {name}: expected an array of real numbers, got {describe(x)}")
    return {name: _array(x) for name, x in given.items()}


def _is_a(x: Any, kind: Any) -> bool:
    """Whether an array or a Python number has a dtype of this kind."""
    x = _array(x)
    if not (hasattr(x, "dtype") or isinstance(x, bool | int | float | complex)):
        return False
    return jnp.issubdtype(dtypes.dtype_of(x), kind)


def _array(x: Any) -> Any:
    """The array in an object that stands for one, such as a variable of flax or Keras."""
    convert = None if isinstance(x, jax.Array) else getattr(x, "__jax_array__", None)
    return x if convert is None else convert()


def _widened(*arrays: Any) -> tuple[list[Array], np.dtype[Any]]:
    """The arrays in the dtype of the computation, at least float32, and the dtype that they have in common."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = np.dtype(jnp.result_type(*arrays))
    return [dtypes.cast(x, numerics.compute_dtype(dtype)) for x in arrays], dtype


# Shapes.


def elements(loss: str, **given: Any) -> tuple[list[Array], np.dtype[Any]]:
    """Arrays that a loss takes element by element, in the dtype of the computation, and the dtype of the result.

    They have one shape, or are scalars, which are broadcast to it.
    """
    given = _real(loss, given)
    first = next((name for name, x in given.items() if np.shape(x)), next(iter(given)))
    shape = np.shape(given[first])
    for name, x in given.items():
        if np.shape(x) not in ((), shape):
            raise ValueError(
                f"{loss}: {name}: expected the shape {shape} of {first}, or a scalar, got {describe(x)}; "
                f"to broadcast on purpose, use jnp.reshape or jnp.broadcast_to"
            )
    arrays, dtype = _widened(*given.values())
    return [jnp.broadcast_to(x, shape) for x in arrays], dtype


def vectors(loss: str, axis: Axes, **given: Any) -> tuple[list[Array], tuple[int, ...], np.dtype[Any]]:
    """Arrays of vectors that extend over `axis`, in the dtype of the computation; the axes; the dtype of the result.

    The sizes along `axis` agree. Beside it, arrays of the same rank may have axes of size 1, which are broadcast, and
    floating-point arrays may lack the leading axes.
    """
    given = _real(loss, given)
    first = max(given, key=lambda name: np.ndim(given[name]))
    rank = np.ndim(given[first])
    axes = axes_of(loss, axis, rank)
    shape = _common_shape([np.shape(x) for x in given.values() if np.ndim(x) == rank])
    for name, x in given.items():
        if np.ndim(x) == rank:
            fits = all(
                n == m or (n == 1 and i not in axes) for i, (n, m) in enumerate(zip(x.shape, shape, strict=True))
            )
        else:
            begins = rank - np.ndim(x)
            fits = _is_a(x, jnp.floating) and np.shape(x) == shape[begins:] and min(axes, default=0) >= begins
        if not fits:
            raise ValueError(f"{loss}: {name}: expected the shape {shape} of {first}, got {describe(x)}; {_cure(x)}")
    arrays, dtype = _widened(*given.values())
    return [jnp.broadcast_to(x, shape) for x in arrays], axes, dtype


def _common_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape to which shapes of the same rank are broadcast; their sizes need not agree."""
    return tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes, strict=True))


def _cure(x: Any) -> str:
    if _is_a(x, jnp.integer):
        return "for class numbers use softmax_cross_entropy_with_integer_labels, or make them one-hot by jax.nn.one_hot"
    return "to broadcast on purpose, use jnp.expand_dims or jnp.broadcast_to"


def axes_of(loss: str, axis: Axes, rank: int) -> tuple[int, ...]:
    """The axes, counted from the front, in the order in which they are given."""
    given = tuple(range(rank)) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    if any(isinstance(i, bool) or not isinstance(i, int | np.integer) for i in given):
        raise TypeError(f"{loss}: axis: expected an int, a tuple of ints or None, got {axis!r}")
    axes = tuple(int(i) % rank if -rank <= i < rank else rank for i in given)
    if rank in axes or len({*axes}) < len(axes):
        raise ValueError(f"{loss}: axis: expected different axes of an array of rank {rank}, got {axis!r}")
    return axes


# Masks.


def mask(loss: str, where: Any, shape: tuple[int, ...]) -> Array | None:
    """A mask of the elements, of the given shape: `where` has the same rank, and its axes may be of size 1."""
    if where is None:
        return None
    if not _is_a(where, jnp.bool_):
        raise TypeError(f"{loss}: where: expected a mask of bools, got {describe(where)}; write mask.astype(bool)")
    sizes = np.shape(where)
    if sizes and (len(sizes) != len(shape) or any(n not in (1, m) for n, m in zip(sizes, shape, strict=True))):
        raise ValueError(
            f"{loss}: where: expected the shape {shape}, whose axes may be 1, got {describe(where)}; "
            "add the axes that are missing by jnp.expand_dims"
        )
    return jnp.broadcast_to(_array(where), shape)


def mask_of_items(loss: str, where: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array | None:
    """A mask of the elements, which may be given for whole items: then `where` lacks the axes of the vectors."""
    items = tuple(n for i, n in enumerate(shape) if i not in axes)
    if items and where is not None and np.shape(where) == items:
        where = jnp.expand_dims(_array(where), axes)
    return mask(loss, where, shape)


# Class numbers.


def class_numbers(loss: str, labels: Any, shape: tuple[int, ...], classes: int) -> tuple[Array, Array]:
    """Class numbers of the given shape, 0 where they do not lie in [0, classes), and whether they do."""
    if not _is_a(labels, jnp.integer):
        raise TypeError(
            f"{loss}: labels: expected integers, the numbers of the classes, got {describe(labels)}; "
            "for one-hot labels give jnp.argmax(labels, axis)"
        )
    if np.shape(labels) != shape:
        raise ValueError(
            f"{loss}: labels: expected the shape {shape}, one class for each vector, got {describe(labels)}; "
            "an axis of size 1 is removed by jnp.squeeze"
        )
    labels = jnp.asarray(_array(labels))
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
    in_range = (labels >= 0) & (labels < classes)
    return jnp.where(in_range, labels, 0), in_range


# Parameters.


def parameter(loss: str, name: str, value: Any, kind: Any, like: Array) -> Array:
    """A parameter of the loss in the dtype and the shape of `like`; one number, or an array that is broadcast to it.

    A Python number is checked against the bounds of `kind`.
    """
    where = f"{loss}: {name}"
    if not (hasattr(value, "shape") and value.shape):
        value = hyperparams.kind_of(kind).convert(where, value)
    if not any(_is_a(value, real) for real in (jnp.floating, jnp.integer)):
        raise TypeError(f"{where}: expected a number or an array of numbers, got {describe(value)}")
    shape = np.shape(value)
    rank = len(like.shape) - len(shape)
    if rank < 0 or any(n not in (1, m) for n, m in zip(shape, like.shape[rank:], strict=True)):
        raise ValueError(
            f"{where}: expected a number, or an array that is broadcast to the shape {like.shape}, "
            f"got {describe(value)}; add the axes that are missing by jnp.expand_dims"
        )
    return jnp.broadcast_to(dtypes.cast(_array(value), like.dtype), like.shape)


def scalar(loss: str, name: str, value: Any, kind: Any) -> float:
    """A parameter that is a single number within the bounds of `kind`; a scalar array stays as it is."""
    value = hyperparams.kind_of(kind).convert(f"{loss}: {name}", value)
    if hyperparams.is_schedule(value):
        raise TypeError(f"{loss}: {name}: expected a number, got {describe(value)}")
    return value


def size_along(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """The number of elements of a vector that extends over some axes."""
    return math.prod(shape[i] for i in axes)
