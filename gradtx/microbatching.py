"""Large batches in little memory: functions of a batch evaluated on one part of it after the other.

This module is public: use it as `gradtx.microbatching`, with the names in its `__all__`.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes
from gradtx.core.tree import Tree, path_str

__all__ = [
    "AccumulationType",
    "Accumulator",
    "IndividualOutputs",
    "micro_grad",
    "micro_vmap",
    "microbatch",
    "reshape_batch_axis",
]


class AccumulationType(enum.Enum):
    """How the results of n microbatches are combined. Sums are kept in at least float32 and rounded once at the end."""

    MEAN = enum.auto()
    "Their sum divided by n, also where only some of the microbatches are evaluated."
    SUM = enum.auto()
    "Their sum."
    RUNNING_MEAN = enum.auto()
    "The mean of those that were evaluated."
    CONCAT = enum.auto()
    "Joined along their first axis, in the order of the batch; zeros where a microbatch was not evaluated."


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """A way to combine the results x₀, …, xₙ₋₁ of microbatches, for what `AccumulationType` does not have.

        carry = init(type of x₀);   carry = update(carry, xᵢ, i) for each i;   finalize(carry)

    Each function is given whatever the function of the microbatch returned, or that part of it for which this
    accumulator stands.

    >>> largest = Accumulator(
    ...     init=lambda x: jnp.full(x.shape, -jnp.inf, x.dtype),
    ...     update=lambda carry, x, i: jnp.maximum(carry, x),
    ...     finalize=lambda carry: carry,
    ...     aggregate=lambda x: jnp.max(x, 0),
    ... )
    >>> microbatch(jnp.max, 0, 2, largest)(jnp.array([1.0, 5.0, 2.0, 3.0]))
    Array(5., dtype=float32)
    """

    init: Callable[[Tree], Tree]
    "From a tree of `jax.ShapeDtypeStruct` to the carry before the first microbatch."
    update: Callable[[Tree, Tree, Any], Tree]
    "From the carry, the result of a microbatch and its number to the next carry, of the same shapes and dtypes."
    finalize: Callable[[Tree], Tree]
    "From the last carry to what is returned."
    aggregate: Callable[[Tree], Tree]
    "From the results of the examples of one microbatch, along a first axis, to its result; only `micro_vmap` needs it."


class IndividualOutputs(NamedTuple):
    """What `micro_grad` returns beside the gradient: arrays with the examples along their first axis."""

    values: Any
    "The values of the function."
    metrics: Any
    "What `metrics_fn` made of each gradient."
    aux: Any
    "What the function returned beside its value, or `None`."


# Functions of a batch.


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: Any = None,
) -> Callable[..., Any]:
    """`fun`, evaluated on one microbatch after the other, in a loop that needs the memory of one.

    Of n microbatches, number i has the examples i, i + n, i + 2 n, …, which leaves a sharded batch where it is. The
    results are combined as the accumulator says, which has to suit the function: `MEAN` for one that gives the mean
    over its examples, `SUM` for a sum, `CONCAT` for one with a result for each example.

    Args:
        fun: a function of arrays with a batch axis, and of others. It must be traceable.
        argnums: the positions of the arguments that have a batch axis; each is a tree of arrays.
        microbatch_size: how many examples a microbatch has, a divisor of the size of the batch. `None` returns `fun`.
        accumulator: an `AccumulationType` or `Accumulator`, or a tree of them that is a prefix of what `fun` returns.
        argnames: the names of keyword arguments that have a batch axis.
        in_axes: the batch axis of these arguments, those by position first; or one for all.
        num_real_microbatches: how many microbatches to evaluate, from the first; by default all. It may be traced, for
            batches of several sizes with one compilation.

    Raises:
        TypeError: an option is of a wrong type; or, at a call, numbers without a mean are given to `MEAN` or
            `RUNNING_MEAN`, or bools to `SUM`.
        ValueError: at a call, an argument has no such axis or another batch size; this is not divisible; the
            accumulators are no prefix of the result; or there are fewer microbatches than are to be evaluated. If that
            number is traced, floating-point results are NaN instead.

    >>> def both(x):
    ...     return x + 1, jnp.sum(3 * x)
    >>> kinds = AccumulationType.CONCAT, AccumulationType.SUM
    >>> microbatch(both, argnums=0, microbatch_size=2, accumulator=kinds)(jnp.array([1, 2, 3, 4]))
    (Array([2, 3, 4, 5], dtype=int32), Array(30, dtype=int32))
    """
    options = _Options("microbatch", microbatch_size, accumulator, num_real_microbatches)
    positions, names = _several(argnums, int), _several(argnames, str)
    if not all(map(_is_whole, positions)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"microbatch: argnums must be ints and argnames strings, got {argnums!r} and {argnames!r}")
    keys = (*positions, *names)
    axes = _several(in_axes, int) * (len(keys) if _is_whole(in_axes) else 1)
    if len(axes) != len(keys) or not all(map(_is_whole, axes)):
        raise ValueError(f"microbatch: in_axes must be an int for each of the arguments {list(keys)}, got {in_axes!r}")
    if not keys:
        raise ValueError("microbatch: no argument has a batch axis: give argnums or argnames")
    return fun if microbatch_size is None else _evaluated_by_parts(fun, dict(zip(keys, axes, strict=True)), options)


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[int | None] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: Any = AccumulationType.CONCAT,
    num_real_microbatches: Any = None,
) -> Callable[..., Any]:
    """`jax.vmap` of `fun`, over one microbatch after the other; it may also return sums over the examples.

    Args:
        fun: a function of one example.
        in_axes: for each positional argument its batch axis, or `None`; or one for all. Of keyword arguments it is the
            first.
        out_axes: 0, along which `CONCAT` joins the results.
        microbatch_size: how many examples are evaluated at once; by default all.
        vmap_fn: what maps a microbatch, such as `functools.partial(jax.vmap, spmd_axis_name="data")`.
        accumulator: as in `microbatch`, of the results of all examples; `CONCAT` is what `jax.vmap` does.
        num_real_microbatches: as in `microbatch`.

    Raises:
        NotImplementedError: `out_axes` is not 0.
        TypeError: as in `microbatch`.
        ValueError: as in `microbatch`; or `in_axes` has not an entry for each positional argument.

    >>> micro_vmap(lambda x: x**2, microbatch_size=4)(jnp.arange(8))
    Array([ 0,  1,  4,  9, 16, 25, 36, 49], dtype=int32)
    """
    if isinstance(out_axes, bool) or out_axes != 0:
        raise NotImplementedError(f"micro_vmap: out_axes must be 0, got {out_axes!r}; move the axis of the result")
    options = _Options("micro_vmap", microbatch_size, accumulator, num_real_microbatches)
    if not _is_whole(in_axes) and not all(axis is None or _is_whole(axis) for axis in _several(in_axes, int)):
        raise TypeError(f"micro_vmap: in_axes must be an int, or one or None for each argument, got {in_axes!r}")

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        axes = _several(in_axes, int) * (len(args) if _is_whole(in_axes) else 1)
        if len(axes) != len(args):
            raise ValueError(f"micro_vmap: in_axes {axes} are for {len(axes)} arguments, but {len(args)} were given")
        return _vmapped(fun, axes, vmap_fn, options)(*args, **kwargs)

    return mapped


def micro_grad(
    fun: Callable[..., Any],
    has_aux: bool = False,
    argnums: int | Sequence[int] = 0,
    *,
    batch_argnums: int | Sequence[int] = 1,
    keep_batch_dim: bool = True,
    microbatch_size: int | None = None,
    accumulator: Any = AccumulationType.SUM,
    transform_fn: Callable[[Tree], Tree] = lambda x: x,
    metrics_fn: Callable[[Tree], Tree] = lambda x: None,
    num_real_microbatches: Any = None,
) -> Callable[..., tuple[Tree, IndividualOutputs]]:
    """The gradients of single examples, transformed one by one and then added up.

        Σᵢ f(∇ loss(params, xᵢ)),   for the examples xᵢ of the batch

    What `transform_fn` makes of a gradient is combined as the accumulator says; values, metrics and auxiliary results
    come for each example. With a clip for `transform_fn`, the sum is that of differential privacy, without its noise.

    Args:
        fun: a loss, `fun(params, batch, …)`, that gives a scalar, or with `has_aux` a pair of one and a tree.
        has_aux: whether it gives such a pair.
        argnums: the argument, or arguments, to differentiate.
        batch_argnums: the arguments that have the examples along their first axis. So have keyword arguments, which
            reach `fun` without that axis.
        keep_batch_dim: whether `fun` is given batches of one example, or examples without a batch axis.
        microbatch_size: how many gradients are in memory at once; by default all.
        accumulator: as in `microbatch`, of what `transform_fn` returns.
        transform_fn: a function of the gradient of one example: to clip it, or to return its powers besides.
        metrics_fn: a function of the gradient of one example, whose results are returned for each example.
        num_real_microbatches: as in `microbatch`.

    Returns:
        A function of the arguments of `fun` that returns the combined gradient and `IndividualOutputs`.

    Raises:
        TypeError: as in `microbatch`.
        ValueError: as in `microbatch`.

    >>> def mean_squared_error(params, x, y):
    ...     return 0.5 * jnp.mean((x @ params - y) ** 2)
    >>> moments = micro_grad(
    ...     mean_squared_error,
    ...     batch_argnums=(1, 2),
    ...     accumulator=AccumulationType.MEAN,
    ...     transform_fn=lambda g: (g, g**2),
    ... )
    >>> (mean, square), outputs = moments(jnp.zeros(1), jnp.ones((4, 1)), jnp.array([0.0, 2.0, 4.0, 6.0]))
    >>> mean, square, outputs.values
    (Array([-3.], dtype=float32), Array([14.], dtype=float32), Array([ 0.,  2.,  8., 18.], dtype=float32))
    """
    options = _Options("micro_grad", microbatch_size, (accumulator, AccumulationType.CONCAT), num_real_microbatches)
    batch_positions = _several(batch_argnums, int)
    if not batch_positions or not all(map(_is_whole, batch_positions)):
        raise TypeError(f"micro_grad: batch_argnums must be an int or several, got {batch_argnums!r}")
    value_and_grad = jax.value_and_grad(fun if has_aux else _with_no_aux(fun), argnums, has_aux=True)

    def summed(*args: Any, **kwargs: Any) -> tuple[Tree, IndividualOutputs]:
        batches = {_position("micro_grad", i, args) for i in batch_positions}

        def of_one_example(*args: Any, **kwargs: Any) -> tuple[Tree, IndividualOutputs]:
            if keep_batch_dim:
                args = tuple(jax.tree.map(_as_batch, x) if i in batches else x for i, x in enumerate(args))
            (value, aux), grad = value_and_grad(*args, **kwargs)
            return transform_fn(grad), IndividualOutputs(value, metrics_fn(grad), aux)

        axes = [0 if i in batches else None for i in range(len(args))]
        return _vmapped(of_one_example, axes, jax.vmap, options)(*args, **kwargs)

    return summed


def reshape_batch_axis(tree: Tree, microbatch_size: int, axis: int = 0) -> Tree:
    """Each leaf with two axes instead of its batch axis: the microbatches, and the examples of each.

    Of n microbatches, number i has the examples i, i + n, i + 2 n, …: a batch that is sharded along its axis stays so,
    along the axis of the examples.

    Args:
        tree: arrays with a batch axis.
        microbatch_size: how many examples a microbatch has, a divisor of the size of the batch.
        axis: the batch axis.

    Raises:
        TypeError: the size is not an int.
        ValueError: a leaf has no such axis, or this is not divisible; or the shards of an explicit mesh do not divide
            the size of a microbatch.

    >>> reshape_batch_axis(jnp.arange(6), 3)
    Array([[0, 2, 4],
           [1, 3, 5]], dtype=int32)
    """
    size = _Options("reshape_batch_axis", microbatch_size, AccumulationType.SUM, None).microbatch_size
    if size is None or not _is_whole(axis):
        raise TypeError(f"reshape_batch_axis: expected ints, got microbatch_size={size!r} and axis={axis!r}")
    _batch_size("reshape_batch_axis", size, [("tree", axis, tree)])

    def reshaped(x: Any) -> Array:
        front = axis % np.ndim(x)
        return jnp.swapaxes(_split(x, size, axis), front, front + 1)

    return jax.tree.map(reshaped, tree)


# The loop over microbatches.


@dataclasses.dataclass(frozen=True)
class _Options:
    """What the functions of this module have in common, checked."""

    name: str
    "Of the function, for messages."
    microbatch_size: int | None
    accumulator: Any
    num_real: Any

    def __post_init__(self) -> None:
        size, count = self.microbatch_size, self.num_real
        if size is not None and (not _is_whole(size) or size < 1):
            error = ValueError if _is_whole(size) else TypeError
            raise error(f"{self.name}: microbatch_size must be an int of at least 1, got {size!r}")
        if size is None and count is not None:
            raise ValueError(f"{self.name}: num_real_microbatches has no meaning without microbatch_size: give both")
        if count is not None and (np.shape(count) or not jnp.issubdtype(dtypes.dtype_of(count), jnp.integer)):
            came = check.describe(count)
            raise TypeError(f"{self.name}: num_real_microbatches must be an int or a scalar array of one, got {came}")
        for path, kind in jax.tree_util.tree_leaves_with_path(self.accumulator):
            if not isinstance(kind, AccumulationType | Accumulator):
                raise TypeError(
                    f"{self.name}: accumulator{path_str(path)} must be an AccumulationType or an Accumulator, "
                    f"got {check.describe(kind)}"
                )


def _vmapped(
    fun: Callable[..., Any], axes: Sequence[int | None], vmap_fn: Callable[..., Any], options: _Options
) -> Callable[..., Any]:
    """`micro_vmap` of positional arguments with these axes."""

    def of_microbatch(*args: Any, kwargs: Any) -> Any:
        results = vmap_fn(fun, tuple(axes), 0)(*args, **kwargs)
        return _each(options, _aggregate, options.accumulator, results)

    batch_axes: dict[Any, int] = {i: axis for i, axis in enumerate(axes) if axis is not None}
    call = of_microbatch
    if options.microbatch_size is not None:
        call = _evaluated_by_parts(of_microbatch, batch_axes | {"kwargs": 0}, options)

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        return call(*args, kwargs=kwargs)

    return mapped


def _evaluated_by_parts(fun: Callable[..., Any], axes: dict[Any, int], options: _Options) -> Callable[..., Any]:
    """`fun`, evaluated on one microbatch after the other; `axes` are by position and name of the argument."""
    size = options.microbatch_size
    assert size is not None

    @functools.wraps(fun)
    def by_parts(*args: Any, **kwargs: Any) -> Any:
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        batches = {_position(options.name, key, given): axis for key, axis in axes.items()}
        trees = [(_argument(key), axis, given[key]) for key, axis in batches.items()]
        n = _batch_size(options.name, size, trees) // size

        def split(key: Any) -> Tree:
            return jax.tree.map(lambda x: _split(x, size, batches[key]), given[key])

        whole = {key: split(key) if key in batches else x for key, x in given.items()}

        def of_microbatch(i: Any) -> Any:
            part = {key: _part(x, i, batches[key]) if key in batches else x for key, x in whole.items()}
            positional = [part.pop(j) for j in range(len(args))]
            return fun(*positional, **part)

        return _accumulated(of_microbatch, n, options)

    return by_parts


def _accumulated(of_microbatch: Callable[[Any], Any], n: int, options: _Options) -> Any:
    """The results of n microbatches, or of the first ones, combined."""
    types = jax.eval_shape(of_microbatch, jnp.zeros((), jnp.int32))
    make = functools.partial(_accumulator, options.name, n)
    accumulators = _each(options, make, options.accumulator, types)
    carry = _each(options, lambda a, x: a.init(x), accumulators, types)

    def update(i: Any, carry: Any) -> Any:
        return _each(options, lambda a, c, x: a.update(c, x, i), accumulators, carry, of_microbatch(i))

    count = options.num_real
    if isinstance(count, jax.core.Tracer):
        carry = jax.lax.fori_loop(0, jnp.clip(count, 0, n), update, carry)
        result = _each(options, lambda a, c: a.finalize(c), accumulators, carry)
        return _nan_unless((count >= 0) & (count <= n), result)
    if count is not None and not 0 <= int(count) <= n:
        raise ValueError(
            f"{options.name}: num_real_microbatches must be between 0 and the number of microbatches, {n}, "
            f"got {int(count)}"
        )
    carry = jax.lax.fori_loop(0, n if count is None else int(count), update, carry)
    return _each(options, lambda a, c: a.finalize(c), accumulators, carry)


def _nan_unless(condition: Array, result: Tree) -> Tree:
    """The same, but NaN in floating-point leaves where the condition does not hold."""
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.nan) if dtypes.is_inexact(x) else x, result)


def _each(options: _Options, f: Callable[..., Any], accumulators: Any, *trees: Any) -> Any:
    """The tree of `f(accumulator, part of each tree)`, for accumulators that are a prefix of the trees."""
    flat, treedef = jax.tree.flatten(accumulators)
    try:
        columns = [treedef.flatten_up_to(tree) for tree in trees]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{options.name}: the tree of accumulators is no prefix of what the function returns: {error}"
        ) from None
    return treedef.unflatten([f(*row) for row in zip(flat, *columns, strict=True)])


# What is accumulated.


def _accumulator(name: str, n: int, kind: AccumulationType | Accumulator, types: Tree) -> Accumulator:
    """The accumulator of n results of these types."""
    if isinstance(kind, Accumulator):
        return kind
    if kind is AccumulationType.CONCAT:
        return Accumulator(_place_for(n), _put, _joined, _no_change)
    for path, x in jax.tree_util.tree_leaves_with_path(types):
        if kind is not AccumulationType.SUM and not dtypes.is_inexact(x):
            cure = "expected floating-point numbers, which have a mean"
        elif x.dtype == bool:
            cure = "expected numbers; cast bools to int32 to count them"
        else:
            continue
        where = f" at {path_str(path)}" if path else ""
        raise TypeError(f"{name}: {kind.name} of the result{where}: {cure}, got {check.describe(x)}")
    share = 1 / n if kind is AccumulationType.MEAN else 1
    add = _move_to_mean if kind is AccumulationType.RUNNING_MEAN else _add
    return Accumulator(_zeros, add, lambda carry: _rounded(carry, share, types), _no_change)


def _aggregate(kind: AccumulationType | Accumulator, results: Tree) -> Tree:
    """The results of the examples of a microbatch, which are along the first axis, combined."""
    if isinstance(kind, Accumulator):
        return kind.aggregate(results)
    if kind is AccumulationType.CONCAT:
        return results
    reduce = jnp.sum if kind is AccumulationType.SUM else jnp.mean
    return jax.tree.map(lambda x: reduce(x, 0), results)


def _no_change(tree: Tree) -> Tree:
    return tree


def _zeros(types: Tree) -> Tree:
    return jax.tree.map(lambda x: _wide(jnp.zeros_like(x)), types)


def _wide(x: Array) -> Array:
    """A strong array; half precision in float32."""
    return dtypes.upcast(x) if dtypes.is_inexact(x) else dtypes.cast(x, x.dtype)


def _add(carry: Tree, value: Tree, i: Any) -> Tree:
    return jax.tree.map(lambda c, x: c + _wide(x), carry, value)


def _move_to_mean(carry: Tree, value: Tree, i: Any) -> Tree:
    """The mean of i + 1 numbers, from that of i."""

    def moved(c: Array, x: Array) -> Array:
        share = 1 / jnp.asarray(i + 1, jnp.finfo(c.dtype).dtype)
        return c * (1 - share).astype(c.dtype) + _wide(x) * share.astype(c.dtype)

    return jax.tree.map(moved, carry, value)


def _rounded(carry: Tree, share: float, types: Tree) -> Tree:
    """The share of a carry, in the dtypes of the results."""
    return dtypes.cast_like(carry if share == 1 else jax.tree.map(lambda c: c * share, carry), types)


def _place_for(n: int) -> Callable[[Tree], Tree]:
    """What makes zeros for n results side by side, along a second axis; along the first, if they are scalars."""

    def place(x: Any) -> Array:
        zeros = jnp.expand_dims(jnp.zeros_like(x), min(x.ndim, 1))
        return jnp.repeat(zeros, n, min(x.ndim, 1))

    return functools.partial(jax.tree.map, place)


def _put(carry: Tree, value: Tree, i: Any) -> Tree:
    """The carry with a result in its place."""
    return jax.tree.map(
        lambda c, x: jax.lax.dynamic_update_index_in_dim(c, x.astype(c.dtype), i, min(x.ndim, 1)), carry, value
    )


def _joined(carry: Tree) -> Tree:
    """One axis of the first two: the examples in the order of the batch, of which microbatches are every n-th."""
    return jax.tree.map(lambda c: c.reshape(-1, *c.shape[2:]) if c.ndim > 1 else c, carry)


# Arguments.


def _several(value: Any, one: type) -> tuple[Any, ...]:
    """A tuple of what may also be given alone."""
    if isinstance(value, one) or not isinstance(value, Sequence):
        return (value,)
    return tuple(value)


def _is_whole(value: Any) -> bool:
    """Whether a value is an int, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _position(name: str, key: Any, given: Any) -> Any:
    """The position, counted from the front, or the name of an argument that is given."""
    if isinstance(key, str):
        if key not in given:
            raise ValueError(f"{name}: the keyword argument {key!r} should have a batch axis, but was not given")
        return key
    positional = sum(not isinstance(other, str) for other in given) if isinstance(given, dict) else len(given)
    if not -positional <= key < positional:
        cure = "; name those that are given by keyword in argnames" if name == "microbatch" else ""
        raise ValueError(
            f"{name}: argument {key} should have a batch axis, but {positional} were given by position{cure}"
        )
    return key % positional


def _argument(key: Any) -> str:
    """What an argument is called in messages."""
    return key if isinstance(key, str) else f"argument {key}"


def _batch_size(name: str, size: int, batches: list[tuple[str, int, Tree]]) -> int:
    """How many examples there are: the length of the batch axis, which must be the same everywhere and divisible."""
    total = None
    for where, axis, x in _leaves(name, batches):
        shape = np.shape(x)
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"{where}: expected an array with a batch axis {axis}, got {check.describe(x)}")
        total = shape[axis] if total is None else total
        if shape[axis] != total:
            raise ValueError(
                f"{where}: expected {total} examples along axis {axis}, as in what comes before it, "
                f"got {check.describe(x)}"
            )
        _check_shards(where, x, axis, size)
    if total is None:
        raise ValueError(f"{name}: the arguments that should have a batch axis hold no array")
    if total % size:
        raise ValueError(
            f"{name}: a batch of {total} examples is not divisible by microbatch_size, {size}; "
            f"give a divisor, such as {math.gcd(total, size)}, or fill the batch up"
        )
    return total


def _leaves(name: str, batches: list[tuple[str, int, Tree]]) -> Iterator[tuple[str, int, Any]]:
    """Every array, with its name for messages and its batch axis."""
    for argument, axis, tree in batches:
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            yield f"{name}: {argument}{path_str(path)}", axis, x


def _check_shards(where: str, x: Any, axis: int, size: int) -> None:
    """Refuse a microbatch that cannot be sharded as the batch is, on a mesh whose axes are explicit."""
    sharding = getattr(getattr(x, "aval", None), "sharding", None)
    entry = next(iter(tuple(getattr(sharding, "spec", None) or ())[axis % np.ndim(x) :]), None)
    if sharding is None or entry is None:
        return
    shards = math.prod(sharding.mesh.shape[name] for name in (entry if isinstance(entry, tuple) else (entry,)))
    if size % shards:
        raise ValueError(f"{where}: microbatch_size, {size}, must be divisible by the {shards} shards of its axis")


def _split(x: Any, size: int, axis: int) -> Array:
    """An array with two axes instead of its batch axis: the examples of a microbatch, and the microbatches."""
    shape = np.shape(x)
    axis %= len(shape)
    return jnp.reshape(x, (*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :]))


def _part(tree: Tree, i: Any, axis: int) -> Tree:
    """Microbatch i of arrays that were split."""

    def part(x: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(x, i, axis % (x.ndim - 1) + 1, keepdims=False)

    return jax.tree.map(part, tree)


def _as_batch(x: Array) -> Array:
    """An example as a batch of one."""
    return jnp.expand_dims(x, 0)


def _with_no_aux(fun: Callable[..., Any]) -> Callable[..., tuple[Any, None]]:
    """`fun`, with nothing for an auxiliary result."""

    @functools.wraps(fun)
    def with_none(*args: Any, **kwargs: Any) -> tuple[Any, None]:
        return fun(*args, **kwargs), None

    return with_none
