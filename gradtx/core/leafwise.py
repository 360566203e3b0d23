"""Transformations that are a formula on one array, which is applied to each leaf of a tree."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.extras import Extras
from gradtx.core.run import PROCEED, at_its_time, check_arguments, name_of, update_stage, wanted_by
from gradtx.core.substitution import with_results_replaced
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree, choose, path_str

__all__ = ["Leafwise"]


class Leafwise(GradientTransformation, abstract=True):
    """A transformation that is a formula on one array, which is applied to each leaf of a tree.

    Write `leaf(self, g, *slots, ...)`, which takes a gradient and its slots and returns the update and the new slots.
    The slots are the fields of `State` other than `count`, in order. They begin as zeros unless `init_leaf` says
    otherwise. After a star, `leaf` may ask for `t`, `param`, `copy`, or extra arguments: `t` is the number of updates
    made, this one included, as a float; `copy` is the gradient once more, for a norm of it: XLA computes it anew,
    instead of keeping the gradient until the norm is known.

    A number of the whole tree is a field of `State` too, named in `observed`. Before the leaves `observe` computes its
    new value, for which `leaf` may ask by its name; `first_observed` is what it is before the first update.

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
    keeps_state = True
    elementwise = True
    slots: ClassVar[tuple[str, ...]] = ()
    "The fields of `State` other than `count` and those that are `observed`."
    observed: ClassVar[tuple[str, ...]] = ()
    "The fields of `State` that `observe` computes, each a number of the whole tree."
    context: ClassVar[frozenset[str]] = frozenset({"t", "param", "copy"})
    "What `leaf` may ask for besides extra arguments and what is `observed`."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        fields = getattr(cls.State, "_fields", None)
        if fields is None:
            raise TypeError(f"{cls.__name__}: State must be a NamedTuple with a field for each slot, got {cls.State}")
        cls.slots = tuple(name for name in fields if name != "count" and name not in cls.observed)
        if cls.leaf is not Leafwise.leaf:
            _check_leaf(cls, fields)
        super().__init_subclass__(**kwargs)

    def leaf(self, g: Array, *slots: Any, **context: Any) -> Any:
        """The formula: it returns `(update, *new_slots)`, or the update alone if there are no slots."""
        raise NotImplementedError(f"{type(self).__name__} defines no leaf")

    def init_leaf(self, param: Array) -> tuple[Any, ...]:
        """The slots of one parameter before the first update."""
        return tuple(numerics.zeros(param) for _ in self.slots)

    def first_observed(self, params: Tree) -> dict[str, Any]:
        """The numbers that are `observed`, before the first update: by default the hyper-parameters of these names."""
        return {name: jnp.asarray(getattr(self, name), jnp.float32) for name in self.observed}

    def observe(self, updates: Tree, state: Any, *_: Any, **context: Any) -> dict[str, Any]:
        """Numbers of the whole tree, computed before its leaves: the new `observed`, and what else `leaf` may ask for.

        After a star, it may ask for `params` and for extra arguments. Hyper-parameters that are arrays have the dtype
        of what is observed. By default what is observed is the hyper-parameter of that name.
        """
        return {name: getattr(self, name) for name in self.observed}

    def applies_to(self, params: Tree) -> list[bool]:
        """Whether the formula applies to each leaf. The others stay as they are, and so do their slots."""
        return [True] * len(jax.tree.leaves(params))

    def init_fn(self, params: Tree) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        numbers = {"count": numerics.counter()} | self.first_observed(params)
        return self._joined_state(numbers, treedef, [self.init_leaf(param) for param in leaves])

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        updates, (state,) = _update_leaves([self], updates, [state], params, [extra])
        return updates, state

    def _joined_state(self, numbers: Mapping[str, Any], treedef: Any, slots: Sequence[tuple[Any, ...]]) -> Any:
        """The state made of numbers of the whole tree and, for every slot, a tree like the parameters."""
        trees = {name: treedef.unflatten([own[i] for own in slots]) for i, name in enumerate(self.slots)}
        state: Any = self.State  # a NamedTuple
        return state(**{name: numbers[name] for name in state._fields if name in numbers}, **trees)

    @functools.cached_property
    def needs_params(self) -> bool:
        return "param" in self._requested or "params" in self._observe_extras.known

    @functools.cached_property
    def _requested(self) -> frozenset[str]:
        """The names that the formula asks for after its slots."""
        return Extras.of(self.leaf, skip=1 + len(self.slots)).known

    @functools.cached_property
    def _observe_extras(self) -> Extras:
        """What `observe` asks for after updates and state."""
        return Extras.of(self.observe, skip=2) if _observes(self) else Extras()

    @functools.cached_property
    def _leaf_extras(self) -> Extras:
        """The extra arguments of the formula."""
        return Extras.of(self.leaf, skip=1 + len(self.slots), context=self.context.union(self.observed))

    @functools.cached_property
    def extras(self) -> Extras:
        observed, params = self._observe_extras, {"params"}
        return self._leaf_extras.joined(Extras(observed.required - params, observed.known - params))


# One update: numbers of the whole tree first, then all formulas of a leaf in one call.


def _update_leaves(
    stages: Sequence[Leafwise], updates: Tree, states: Sequence[Any], params: Tree, extras: Sequence[Mapping[str, Any]]
) -> tuple[Tree, list[Any]]:
    """The updates and the new states after several stages in turn, of which each is given its own extra arguments."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
    like = updates if params is None else params
    param_leaves = [None] * len(leaves) if params is None else jax.tree.leaves(params)
    proceed = extras[0].get(PROCEED)
    numbers = [
        _numbers(tx, updates, state, {"params": params, **own})
        for tx, state, own in zip(stages, states, extras, strict=True)
    ]
    extras = [
        tx._leaf_extras.select(name_of(tx), {name: own[name] for name in own if name != PROCEED})
        for tx, own in zip(stages, extras, strict=True)
    ]
    arrays, structure = jax.tree.flatten((stages, numbers, extras))
    slots = [_slots_of_each_leaf(tx, state, updates) for tx, state in zip(stages, states, strict=True)]
    applied = [tx.applies_to(like) for tx in stages]
    results = []
    for (path, g), param, own, on in zip(leaves, param_leaves, zip(*slots), zip(*applied), strict=True):  # noqa: B905
        try:
            results.append(_apply_formulas(structure, on, arrays, g, own, param, proceed))
        except _UnlikeError as unlike:
            unlike.refuse(path)
    if proceed is not None:
        numbers = [_kept(proceed, own, state) for own, state in zip(numbers, states, strict=True)]
    new_states = [
        tx._joined_state(own, treedef, [new[i] for _, new in results])
        for i, (tx, own) in enumerate(zip(stages, numbers, strict=True))
    ]
    return treedef.unflatten([update for update, _ in results]), new_states


def _numbers(tx: Leafwise, updates: Tree, state: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is computed once for the whole tree."""
    inexact = [value.dtype for name in tx.observed if dtypes.is_inexact(value := getattr(state, name))]
    at_precision = jax.tree.map(lambda array: array.astype(inexact[0]), tx) if inexact else tx
    wanted = {name: given[name] for name in tx._observe_extras.known if name in given}
    numbers = at_precision.observe(updates, state, **wanted)
    fields = {name: dtypes.cast_like(numbers[name], getattr(state, name)) for name in tx.observed}
    count = {"count": numerics.increment(state.count)} if "count" in getattr(state, "_fields", ()) else {}
    return numbers | fields | count


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_formulas(
    structure: Any, applied: tuple[bool, ...], arrays: Any, g: Array, slots: tuple[Any, ...], param: Any, proceed: Any
) -> tuple[Array, list[Any]]:
    """The update and the new slots of one leaf, which are traced once for all leaves of the same shape."""
    stages = list(map(_Stage, *structure.unflatten(arrays), applied))
    return _apply_in_turn(stages, g, slots, param, proceed)


class _Stage(NamedTuple):
    """A transformation, and what its formula needs besides arrays of the leaf."""

    tx: Leafwise
    numbers: Mapping[str, Any]
    extra: Mapping[str, Any]
    is_applied: bool


def _apply_in_turn(
    stages: Sequence[_Stage], g: Array, slots: Sequence[Any], param: Any, proceed: Any
) -> tuple[Array, list[Any]]:
    update, new_slots = g, []
    for i, (stage, own) in enumerate(zip(stages, slots, strict=True)):
        if stage.is_applied:
            copy = None
            if "copy" in stage.tx._requested:
                copy = _computed_anew(stages[:i], g, slots[:i], param, proceed, new_slots)
            update, own = _apply_formula(stage, update, own, param, copy, proceed)
        new_slots.append(own)
    return update, new_slots


def _computed_anew(
    stages: Sequence[_Stage], g: Array, slots: Sequence[Any], param: Any, proceed: Any, new_slots: Sequence[Any]
) -> Array:
    """The update after these stages once more, computed from the new slots.

    All that it is made of is behind barriers, constants too: else XLA would compute it once, and keep it in memory.
    """
    if not stages:
        return g
    known = [None, *jax.tree.leaves(new_slots)]
    update, _ = with_results_replaced(
        lambda g, slots, param: _apply_in_turn(stages, g, slots, param, proceed),
        numerics.again((g, slots, param)),
        lambda i, computed: numerics.again(known[i]) if i else computed,
        constant=numerics.again,
    )
    return update


def _apply_formula(
    stage: _Stage, g: Array, slots: tuple[Any, ...], param: Any, copy: Any, proceed: Any
) -> tuple[Array, tuple[Any, ...]]:
    """The formula of one stage, in the widest of the compute dtypes of what it is made of."""
    tx, numbers, extra, _ = stage
    dtype = functools.reduce(np.promote_types, _compute_dtypes((g, param, slots)))
    real = numerics.real_dtype(dtype)
    context = {name: value.astype(real) for name, value in numbers.items() if name in tx._requested}
    if "t" in tx._requested:
        context["t"] = numbers["count"].astype(real)
    arrays = {"param": param, "copy": copy}
    context |= {name: _at_precision(x, dtype) for name, x in arrays.items() if name in tx._requested}
    at_precision = jax.tree.map(lambda array: array.astype(real), tx)
    x, own = jax.tree.map(lambda x: _at_precision(x, dtype), (g, slots))
    formula = functools.partial(at_precision.leaf, **extra, **context)
    result = formula(x, *own) if proceed is None or not slots else _keeping_slots(proceed, formula, x, own)
    return _checked_result(tx, result, g, slots)


def _keeping_slots(proceed: Array, formula: Callable[..., Any], x: Array, own: tuple[Any, ...]) -> Any:
    """The result of a formula whose slots stay as they are where `proceed` is false."""
    old = jax.tree.leaves((x, own))

    def keep(i: int, new: Array) -> Array:
        fits = 0 < i < len(old) and check.is_alike(new, old[i])
        return jax.lax.select(proceed, new, old[i].astype(new.dtype)) if fits else new

    return with_results_replaced(formula, (x, *own), keep)


def _kept(proceed: Array, numbers: Mapping[str, Any], state: Any) -> dict[str, Any]:
    """The numbers among a new state's fields where `proceed` holds, else those of the old state."""
    fields = {name for name in numbers if name in getattr(state, "_fields", ())}
    return {name: choose(proceed, numbers[name], getattr(state, name)) for name in fields}


def _checked_result(tx: Leafwise, result: Any, g: Array, slots: tuple[Any, ...]) -> tuple[Array, tuple[Any, ...]]:
    """The update, and the new slots in the dtypes of the old ones."""
    if not slots:
        result = (result,)
    elif not isinstance(result, tuple) or len(result) != 1 + len(slots):
        raise TypeError(
            f"{name_of(tx)}: leaf must return the tuple (update, {', '.join(tx.slots)}), got {check.describe(result)}"
        )
    names = ("updates that came out", *(f"state that came out.{name}" for name in tx.slots))
    for name, new, old in zip(names, result, (g, *slots), strict=True):
        if not check.is_alike(new, old):
            raise _UnlikeError(f"{name_of(tx)}: the {name}", new, old)
        check.whole_numbers_stay(f"{name_of(tx)}: the {name}", new, old)
    return dtypes.varying_like(result[0], g), dtypes.cast_like(result[1:], slots)


class _UnlikeError(Exception):
    """A formula has returned something of another structure or shape than it was given, for a leaf of unknown path."""

    def __init__(self, what: str, new: Any, old: Any) -> None:
        self.what, self.new, self.old = what, new, old

    def refuse(self, path: tuple[Any, ...]) -> None:
        """Raise the error that says so, with the path of the leaf."""
        where = f"{self.what}{path_str(path)}"
        check.same_structure(where, self.new, self.old, "what went in")
        check.same_shapes(where, self.new, self.old, "what went in")


# Several stages.


def runs(stages: Iterable[Any]) -> Iterator[list[Any]]:
    """Stages in groups: leafwise ones that follow on one another are together, each other one is alone.

    A stage that observes the updates begins another group: it must see all leaves of the stage before.
    """
    run: list[Any] = []
    for stage in stages:
        if run and not (_is_leafwise(run[-1]) and _is_leafwise(stage) and not _observes(stage)):
            yield run
            run = []
        run.append(stage)
    if run:
        yield run


def _observes(tx: Leafwise) -> bool:
    """Whether it computes numbers of the updates, rather than of its hyper-parameters alone."""
    return type(tx).observe is not Leafwise.observe


def _is_leafwise(tx: Any) -> bool:
    """Whether its update is that of `Leafwise`, rather than one of its own."""
    return isinstance(tx, Leafwise) and type(tx).update_fn is Leafwise.update_fn


def update_run(
    run: Sequence[Any], updates: Tree, states: Sequence[Any], params: Tree, extra: Mapping[str, Any]
) -> tuple[Tree, list[Any]]:
    """One update by a group of stages inside another transformation: what `update_stage` is for one of them."""
    if not _is_leafwise(run[0]):
        updates, state = update_stage(run[0], updates, states[0], params, extra)
        return updates, [state]
    wanted = [wanted_by(tx, extra) for tx in run]
    for tx in run:
        check_arguments(tx, updates, params)
    at_time = [at_its_time(tx, state, extra.get(PROCEED)) for tx, state in zip(run, states, strict=True)]
    now, own, whole = zip(*at_time, strict=True)
    updates, new = _update_leaves(now, updates, own, params, wanted)
    return updates, [joined(state) for joined, state in zip(whole, new, strict=True)]


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
