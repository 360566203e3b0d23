"""Transformations that are a formula on one array, which is applied to each leaf of a tree."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.extras import Extras
from gradtx.core.run import name_of
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree, path_str

__all__ = ["Leafwise"]


class Leafwise(GradientTransformation, abstract=True):
    """A transformation that is a formula on one array, which is applied to each leaf of a tree.

    Write `leaf(self, g, *slots, ...)`, which takes a gradient and its slots and returns the update and the new slots.
    The slots are the fields of `State` other than `count`, in order. They begin as zeros unless `init_leaf` says
    otherwise. After a star, `leaf` may ask for `t`, `param`, or extra arguments: `t` is the number of updates made,
    this one included, as a float.

    >>> from typing import NamedTuple
    >>> import gradtx
    >>> class TriangleState(NamedTuple):
    ...     last: Array
    >>> class mean_of_last_two(gradtx.Leafwise):
    ...     "(gₜ + gₜ₋₁) / 2"
    ...     State = TriangleState
    ...     def leaf(self, g, last):
    ...         return (g + last) / 2, g
    >>> tx = mean_of_last_two()
    >>> tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))
    (Array([2.], dtype=float32), TriangleState(last=Array([4.], dtype=float32)))
    """

    takes_half_precision = True
    elementwise = True
    slots: ClassVar[tuple[str, ...]] = ()
    "The fields of `State` other than `count`."
    context: ClassVar[frozenset[str]] = frozenset({"t", "param"})
    "What `leaf` may ask for besides extra arguments."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        fields = getattr(cls.State, "_fields", None)
        if fields is None:
            raise TypeError(f"{cls.__name__}: State must be a NamedTuple with a field for each slot, got {cls.State}")
        cls.slots = tuple(name for name in fields if name != "count")
        if cls.leaf is not Leafwise.leaf:
            _check_leaf(cls, fields)
        super().__init_subclass__(**kwargs)

    def leaf(self, g: Array, *slots: Any, **context: Any) -> Any:
        """The formula: it returns `(update, *new_slots)`, or the update alone if there are no slots."""
        raise NotImplementedError(f"{type(self).__name__} defines no leaf")

    def init_leaf(self, param: Array) -> tuple[Any, ...]:
        """The slots of one parameter before the first update."""
        return tuple(numerics.zeros(param) for _ in self.slots)

    def init_fn(self, params: Tree) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        return self._joined_state(numerics.counter(), treedef, [self.init_leaf(param) for param in leaves])

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        leaves, treedef = jax.tree.flatten(updates)
        slots = _slots_of_each_leaf(self, state, updates)
        param_leaves = [None] * len(leaves) if params is None else jax.tree.leaves(params)
        count = numerics.increment(state.count) if "count" in state._fields else None
        context_at = functools.cache(functools.partial(self._context_at, count, extra))
        results = [self._update_leaf(*leaf, context_at) for leaf in zip(leaves, slots, param_leaves, strict=True)]
        new_updates = treedef.unflatten([update for update, _ in results])
        return new_updates, self._joined_state(count, treedef, [new_slots for _, new_slots in results])

    def _update_leaf(
        self, g: Array, slots: tuple[Any, ...], param: Any, context_at: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        """The update and the new slots of one leaf, in the widest of the compute dtypes of what they are made of."""
        dtype = functools.reduce(np.promote_types, [*_compute_dtypes((g, param, slots))])
        tx, context = context_at(dtype)
        return _apply_formula(tx, context, dtype, g, slots, param if "param" in self._requested else None)

    def _context_at(self, count: Array | None, extra: Mapping[str, Any], dtype: Any) -> tuple[Any, dict[str, Any]]:
        """This transformation, and what its formula asks for, in the precision of `dtype`."""
        real = numerics.real_dtype(dtype)
        t = {"t": count.astype(real)} if "t" in self._requested and count is not None else {}
        return jax.tree.map(lambda array: array.astype(real), self), {**extra, **t}

    def _joined_state(self, count: Array | None, treedef: Any, slots: list[tuple[Any, ...]]) -> Any:
        """The state made of the slots of each leaf: for every slot a tree like the parameters."""
        fields = {name: treedef.unflatten([own[i] for own in slots]) for i, name in enumerate(self.slots)}
        state: Any = self.State  # a NamedTuple
        return state(count=count, **fields) if "count" in state._fields else state(**fields)

    @functools.cached_property
    def needs_params(self) -> bool:
        return "param" in self._requested

    @functools.cached_property
    def _requested(self) -> frozenset[str]:
        """The names that the formula asks for after its slots."""
        return Extras.of(self.leaf, skip=1 + len(self.slots)).known

    @functools.cached_property
    def extras(self) -> Extras:
        return Extras.of(self.leaf, skip=1 + len(self.slots), context=self.context)


@functools.partial(jax.jit, static_argnums=2)
def _apply_formula(
    tx: Leafwise, context: dict[str, Any], dtype: Any, g: Array, slots: tuple[Any, ...], param: Any
) -> Any:
    """The formula on one leaf in the precision of `dtype`. It is traced once for all leaves of the same shape."""
    g, slots, param = jax.tree.map(lambda x: _at_precision(x, dtype), (g, slots, param))
    result = tx.leaf(g, *slots, **context) if param is None else tx.leaf(g, *slots, **context, param=param)
    if not slots:
        return result, ()
    if not isinstance(result, tuple) or len(result) != 1 + len(slots):
        raise TypeError(
            f"{name_of(tx)}: leaf must return the tuple (update, {', '.join(tx.slots)}), got {check.describe(result)}"
        )
    return result[0], result[1:]


def _at_precision(x: Array, dtype: Any) -> Array:
    """`x` in the precision of `dtype`, real if `x` is real; integers stay as they are.

    What is converted is so behind a barrier: else XLA:CPU writes it out, for this and for later uses together.
    """
    if not dtypes.is_inexact(x):
        return x
    dtype = dtype if jnp.iscomplexobj(x) else numerics.real_dtype(dtype)
    return x if x.dtype == dtype else numerics.again(x).astype(dtype)


def _compute_dtypes(arrays: Any) -> Iterator[Any]:
    return (numerics.compute_dtype(dtypes.dtype_of(x)) for x in jax.tree.leaves(arrays) if dtypes.is_inexact(x))


# Checks.


def _slots_of_each_leaf(tx: Leafwise, state: Any, updates: Tree) -> list[tuple[Any, ...]]:
    """The slots of every leaf. A slot is refused if it is not like the one that `init` makes for such a leaf."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
    by_slot = [_one_slot_of_each_leaf(tx, name, getattr(state, name), updates, treedef) for name in tx.slots]
    expected = functools.cache(lambda shape, dtype: jax.eval_shape(tx.init_leaf, jax.ShapeDtypeStruct(shape, dtype)))
    for j, (path, g) in enumerate(leaves):
        for name, values, slot in zip(tx.slots, by_slot, expected(g.shape, g.dtype), strict=True):
            where = f"{name_of(tx)}: state.{name}{path_str(path)}"
            check.same_structure(where, values[j], slot, "the slot that init makes")
            check.same_shapes(
                where, values[j], slot, "the slot that init makes", "; the state belongs to another model"
            )
    return list(zip(*by_slot, strict=True)) if by_slot else [()] * len(leaves)


def _one_slot_of_each_leaf(tx: Leafwise, name: str, field: Tree, updates: Tree, treedef: Any) -> list[Any]:
    """The values of one slot, leaf by leaf."""
    try:
        return treedef.flatten_up_to(field)
    except ValueError:
        where = f"{name_of(tx)}: state.{name}"
        check.same_structure(where, field, updates, "the updates; the state belongs to another model")
        raise


def _check_leaf(cls: type[Leafwise], fields: tuple[str, ...]) -> None:
    """Refuse a formula whose parameters do not fit the state."""
    state = getattr(cls.State, "__name__", "State")
    parameters = inspect.signature(cls.leaf).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][2:]  # after self and g
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not starred and len(positional) != len(cls.slots):
        raise TypeError(
            f"{cls.__name__}: leaf must take, after g, one parameter for each slot of {state} "
            f"({', '.join(cls.slots) or 'it has none'}), and everything else after a star; "
            f"it takes {', '.join(positional) or 'none'}"
        )
    if any(p.name == "t" and p.kind is p.KEYWORD_ONLY for p in parameters) and "count" not in fields:
        raise TypeError(f"{cls.__name__}: leaf asks for t: add the field count to {state}")
