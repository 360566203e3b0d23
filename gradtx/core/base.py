"""What a transformation is: a pair of pure functions, `init` and `update`, that is also a value.

`GradientTransformation` does once, for all of them, what is not arithmetic: static checks, compute and state dtypes,
schedules among the hyper-parameters, extra arguments, compilation of eager calls. `Leafwise` lifts a formula on one
array to trees. `chain` composes, `Optimizer` names a composition.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics, tree
from gradtx.core.hyperparams import is_schedule
from gradtx.core.spec import Spec
from gradtx.core.tree import Tree

__all__ = [
    "Container",
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "Inner",
    "Leafwise",
    "Optimizer",
    "ScheduledState",
    "Transformation",
    "apply_updates",
    "chain",
    "identity",
    "init_inner",
    "is_elementwise",
    "named_chain",
    "update_inner",
]

STANDARD_EXTRAS = ("value", "grad", "value_fn", "obj_fn", "loss", "key")
"Extra arguments that every update accepts, whether or not something in it uses them."


@runtime_checkable
class Transformation(Protocol):
    """Anything with `init` and `update`: a gradtx transformation, or an optax one, or your own class."""

    def init(self, params: Tree, /) -> Any:
        """The state before the first update."""
        ...

    def update(self, updates: Tree, state: Any, params: Tree = None, /, **extra: Any) -> tuple[Tree, Any]:
        """The transformed updates and the new state."""
        ...


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


class ScheduledState(NamedTuple):
    """Adds a step counter to a transformation that has none, when a schedule among its hyper-parameters needs one."""

    count: Array
    "int32[]: updates made so far."
    inner_state: Any
    "The state of the transformation itself."


class GradientTransformation(Spec, abstract=True):
    """A pair of pure functions over pytrees.

        state = tx.init(params)
        updates, state = tx.update(grads, state, params)

    `init, update = tx` unpacks it. Make one from two functions, `GradientTransformation(init_fn, update_fn)`, or as a
    class with hyper-parameters for fields and the methods `init_fn` and `update_fn`; if it is a formula per
    parameter, derive from `Leafwise` instead.

    Inside `update_fn`, half-precision leaves arrive as float32; what comes back is cast to the dtypes of the state
    that went in and of the parameters. A schedule among the hyper-parameters arrives as its value at the number of
    updates made before. Keyword-only parameters of `update_fn` are the extra arguments it needs.

    For complex parameters give the direction of ascent, `jnp.conj` of what `jax.grad` gives.

    >>> import jax, jax.numpy as jnp
    >>> def init_fn(params):
    ...     return ()
    >>> def update_fn(updates, state, params=None):
    ...     return jax.tree.map(jnp.sign, updates), state
    >>> sign = GradientTransformation(init_fn, update_fn)
    >>> sign
    GradientTransformation(init_fn, update_fn)
    >>> sign.update(jnp.array([-2.0, 3.0]), sign.init(jnp.zeros(2)))[0]
    Array([-1.,  1.], dtype=float32)
    """

    State: ClassVar[type | None] = EmptyState
    "The class of its state, by which a state made by another transformation is refused; `None` checks nothing."
    clock: ClassVar[str] = "count"
    "The field of the state at which schedules among the hyper-parameters are evaluated."
    touches_leaves: ClassVar[bool] = True
    "Whether it computes with leaves, which then must be floating-point arrays, or only hands them on."
    elementwise: ClassVar[bool] = False
    "Whether each element's update depends on that element alone (and, for a container, those of its parts do)."
    takes_half_precision: ClassVar[bool] = False
    "Whether `update_fn` raises half-precision leaves to float32 itself, where that saves memory."

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls.registered_name and cls is not GradientTransformation:
            raise TypeError(f"{cls.__name__} is abstract: derive a class from it, or use one that there is")
        return object.__new__(_OfFunctions if cls is GradientTransformation else cls)

    def __init__(self, init_fn: Callable[..., Any], update_fn: Callable[..., Any]) -> None:
        raise NotImplementedError  # `__new__` gives an _OfFunctions; this is here for its signature

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def init(self, params: Tree) -> Any:
        """The state before the first update.

        Raises:
            TypeError: a leaf is not a floating-point array.
        """
        return init_inner(self, params)

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        """Transform one step's gradients: `(updates, new_state)`, the updates in the parameters' dtypes.

        Outside `jax.jit` the call runs a compiled program, shared by all equal transformations.

        Raises:
            TypeError: wrong dtype; a needed extra argument missing, or one that nothing here knows.
            ValueError: wrong structure or shape, or a state that another transformation made.
        """
        _check_extra(self, extra)
        if _concrete((updates, state, params, extra, self._flat[0])):
            return _compiled_update(self, updates, state, params, extra)
        return _outermost_update(self, updates, state, params, extra)

    def init_fn(self, params: Tree) -> Any:
        """The arithmetic of `init`; to be overridden. The default remembers nothing."""
        return EmptyState()

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        """The arithmetic of `update`; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither update_fn nor leaf")

    def at(self, count: Any) -> Any:
        """This transformation with each schedule among its hyper-parameters replaced by its value at `count`."""
        if not self._schedules:
            return self
        values = {name: _value_at(self, name, count) for name in self._schedules}
        resolved = object.__new__(type(self))
        resolved.__dict__.update(self.__getstate__() | values)
        return resolved

    @functools.cached_property
    def _schedules(self) -> tuple[str, ...]:
        fields = self.__getstate__()
        return tuple(name for name, kind in self.field_kinds().items() if kind.numeric and is_schedule(fields[name]))

    @functools.cached_property
    def _needs_clock(self) -> bool:
        return bool(self._schedules) and self.clock not in getattr(self.State, "_fields", ())

    @functools.cached_property
    def extras(self) -> "Extras":
        """The extra arguments that `update` needs and knows."""
        return Extras.of(self.update_fn, skip=3)

    @functools.cached_property
    def needs_params(self) -> bool:
        """Whether `update` must be given the parameters: whether `update_fn` has no default for them."""
        parameters = list(inspect.signature(self.update_fn).parameters.values())
        return len(parameters) > 2 and parameters[2].default is inspect.Parameter.empty


GradientTransformationExtraArgs = GradientTransformation
"The same: every gradtx transformation takes extra arguments."


class _OfFunctions(GradientTransformation, name="GradientTransformation"):
    """A transformation made of two functions."""

    State = None

    init_fn: Callable[..., Any]
    update_fn: Callable[..., Any]

    def __init__(self, init_fn: Callable[..., Any], update_fn: Callable[..., Any]) -> None:
        for name, value in (("init_fn", init_fn), ("update_fn", update_fn)):
            if not callable(value):
                raise TypeError(f"GradientTransformation: {name} must be a function, got {check.describe(value)}")
        self._set(init_fn=init_fn, update_fn=update_fn)


_OfFunctions.__name__ = "GradientTransformation"  # what it prints as


# The steps that are the same for every transformation. Combinators use `init_inner` and `update_inner` for what they
# hold, so that a leaf is promoted once on the way in, cast once on the way out, and checked at every stage.


def init_inner(tx: Transformation, params: Tree) -> Any:
    """`tx.init(params)`, with gradtx's guarantees also for foreign transformations."""
    if not isinstance(tx, GradientTransformation):
        state = tx.init(params)
        return tree.cast_like(state, state)
    if tx.touches_leaves:
        cure = "mask it (gradtx.masked), or keep it out of the parameters (equinox.partition)"
        check.inexact_leaves(f"{_name(tx)}: params", params, cure)
        params = jax.tree.map(jnp.asarray, params)
    state = tx.at(jnp.zeros((), jnp.int32)).init_fn(params)
    if tx.State is not None and type(state) is not tx.State:
        raise TypeError(f"{_name(tx)}: init_fn gave {_describe_state(state)}; declare it, State = ..., in the class")
    return ScheduledState(jnp.zeros((), jnp.int32), state) if tx._needs_clock else state


def update_inner(
    tx: Transformation, updates: Tree, state: Any, params: Tree, extra: Mapping[str, Any]
) -> tuple[Tree, Any]:
    """`tx.update(updates, state, params, **extra)` for a transformation inside another.

    What comes out is in compute dtype: only the outermost update casts to the dtypes of the parameters. `extra` may
    hold names that only others need.
    """
    wanted = _extras_of(tx).select(_name(tx), extra)
    if params is None and getattr(tx, "needs_params", False):
        raise ValueError(f"{_name(tx)} needs the parameters: update(updates, state, params)")
    if getattr(tx, "touches_leaves", True):
        check.inexact_leaves(f"{_name(tx)}: updates", updates, "give zeros, or mask the leaf (gradtx.masked)")
    if not getattr(tx, "takes_half_precision", False):
        like = updates if params is None else params
        updates, params = tree.promote(updates, like), params if params is None else tree.promote(params, updates)
    if not isinstance(tx, GradientTransformation):
        new_updates, new_state = _pair(tx, tx.update(updates, state, params, **wanted))
    elif tx._needs_clock:
        _check_state(tx, state, ScheduledState)
        count, inner_state = state
        new_updates, inner_state = _pair(tx, tx.at(count).update_fn(updates, inner_state, params, **wanted))
        new_state = ScheduledState(numerics.increment(count), inner_state)
    else:
        if tx.State is not None:
            _check_state(tx, state, tx.State)
        at = tx.at(getattr(state, tx.clock)) if tx._schedules else tx
        new_updates, new_state = _pair(tx, at.update_fn(updates, state, params, **wanted))
    for what, new, old in (("updates", new_updates, updates), ("state", new_state, state)):
        check.same_structure(f"{_name(tx)}: the {what} that came out", new, old, f"the {what} that went in")
        check.same_shapes(f"{_name(tx)}: the {what} that came out", new, old, "what went in")
    return new_updates, tree.cast_like(new_state, state)


def _pair(tx: Any, result: Any) -> tuple[Tree, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{_name(tx)}: update_fn must give the pair (updates, state), got {check.describe(result)}")
    return result


def _outermost_update(
    tx: GradientTransformation, updates: Tree, state: Any, params: Tree, extra: Mapping[str, Any]
) -> tuple[Tree, Any]:
    where = f"{_name(tx)}: updates"
    if params is not None:
        check.same_structure(where, updates, params, "params; the order is update(updates, state, params)")
        check.same_shapes(where, updates, params, "the parameter")
    updates, params = (tree.strong(x) for x in (updates, params))
    new_updates, new_state = update_inner(tx, updates, state, params, extra)
    return tree.cast_like(new_updates, updates if params is None else params), new_state


_compiled_update = jax.jit(_outermost_update)


def _concrete(arguments: Any) -> bool:
    """Whether everything is an array or number at hand, so that the call may be compiled as it stands."""
    return all(
        isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex)
        and not isinstance(leaf, jax.core.Tracer)
        for leaf in jax.tree.leaves(arguments)
    )


def _name(tx: Any) -> str:
    return type(tx).__name__


def _value_at(tx: Spec, name: str, count: Any) -> Array:
    schedule = getattr(tx, name)
    try:
        value = schedule(count)
    except Exception as error:
        error.add_note(f"in the schedule {name} of {_name(tx)}, called with the int32 number of updates made before")
        raise
    array = (
        jnp.asarray(value) if isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex) else None
    )
    if array is None or array.shape != () or not jnp.issubdtype(array.dtype, np.number) or jnp.iscomplexobj(array):
        raise TypeError(
            f"{_name(tx)}: the schedule {name} must give a real scalar, "
            f"got {check.describe(value if array is None else array)} from {schedule!r}"
        )
    return array.astype(jnp.result_type(float))


def is_elementwise(tx: Transformation) -> bool:
    """Whether each element's update depends on that element alone, whatever the leaf's shape and its neighbours."""
    if not isinstance(tx, GradientTransformation):
        return False
    return tx.elementwise and (not isinstance(tx, Container) or all(map(is_elementwise, tx.parts)))


def _check_state(tx: Any, state: Any, expected: type) -> None:
    if type(state) is expected:
        return
    fields = getattr(expected, "_fields", None)
    expectation = expected.__name__ if fields is None else f"{expected.__name__}({', '.join(fields)})"
    raise ValueError(
        f"{_name(tx)}: expected a state {expectation}, got {_describe_state(state)}: "
        "use the state that this transformation's init or last update gave; when restoring, give that as the template"
    )


def _describe_state(state: Any) -> str:
    if isinstance(state, tuple) and type(state) is not tuple:
        library = type(state).__module__.partition(".")[0]
        return f"{type(state).__name__}" if library == "gradtx" else f"{library}'s {type(state).__name__}"
    if isinstance(state, tuple):
        return f"a tuple of {len(state)} states ({', '.join(type(s).__name__ for s in state)})"
    return check.describe(state)


# Extra arguments: declared by the signatures, checked at the outermost call.


class Extras(NamedTuple):
    """Names of the extra arguments that an update needs, and of those it knows; `open` takes any name."""

    required: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    open: bool = False

    @classmethod
    def of(cls, function: Callable[..., Any], skip: int, context: frozenset[str] = frozenset()) -> "Extras":
        """Read off a signature: its parameters after the first `skip`, without those in `context`."""
        parameters = list(inspect.signature(function).parameters.values())
        named = [p for p in parameters[skip:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = [p for p in named if p.name not in context]
        required = frozenset(p.name for p in named if p.default is p.empty)
        return cls(required, frozenset(p.name for p in named), any(p.kind is p.VAR_KEYWORD for p in parameters))

    @classmethod
    def union(cls, transformations: Any) -> "Extras":
        every = [_extras_of(tx) for tx in transformations]
        required = frozenset[str]().union(*(e.required for e in every))
        known = frozenset[str]().union(*(e.known for e in every))
        return cls(required, known, any(e.open for e in every))

    def select(self, name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        if missing := sorted(self.required - extra.keys()):
            given = ", ".join(f"{argument}=..." for argument in missing)
            raise TypeError(f"{name} needs the extra argument {', '.join(missing)}: update(..., params, {given})")
        return dict(extra) if self.open else {key: extra[key] for key in extra if key in self.known}


def _extras_of(tx: Any) -> Extras:
    return tx.extras if isinstance(tx, GradientTransformation) else Extras.of(tx.update, skip=3)


def _check_extra(tx: GradientTransformation, extra: Mapping[str, Any]) -> None:
    if tx.extras.open:
        return
    known = sorted({*tx.extras.known, *STANDARD_EXTRAS})
    for name in extra:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise TypeError(f"{_name(tx)}: nothing here takes the extra argument {name!r}; {hint}")


# A formula per parameter.


class Leafwise(GradientTransformation, abstract=True):
    """A transformation that is a formula on one array, lifted to trees.

    Write `leaf(self, g, *slots, ...)`: it takes a gradient and its slots and gives the update and the new slots. The
    slots are the fields of `State` but `count`, in order; they begin as zeros unless `init_leaf` says otherwise.
    After a star it may ask for `t` (updates made, this one included, as a float), `param`, or extra arguments.

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
    context: ClassVar[frozenset[str]] = frozenset({"t", "param"})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.slots = tuple(name for name in getattr(cls.State, "_fields", ()) if name != "count")

    def leaf(self, g: Array, *slots: Any, **context: Any) -> Any:
        """The formula: `(update, *new_slots)`, or just the update where there are no slots."""
        raise NotImplementedError(f"{type(self).__name__} defines no leaf")

    def init_leaf(self, param: Array) -> tuple[Any, ...]:
        """The slots of one parameter before the first update."""
        return tuple(numerics.zeros(param) for _ in self.slots)

    def init_fn(self, params: Tree) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        return self._state(jnp.zeros((), jnp.int32), treedef, [self.init_leaf(param) for param in leaves])

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        leaves, treedef = jax.tree.flatten(updates)
        param_leaves = [None] * len(leaves) if params is None else jax.tree.leaves(params)
        count = numerics.increment(state.count) if "count" in state._fields else None
        within = functools.cache(functools.partial(self._in, count, extra))
        results: list[Any] = []
        for g, own, param in zip(leaves, self._slots(updates, state), param_leaves, strict=True):
            dtype = functools.reduce(np.promote_types, [*_compute_dtypes((g, param, own))])
            results.append(_formula(*within(dtype), g, own, param if "param" in self._wants else None))
        new_updates = treedef.unflatten([new for new, _ in results])
        return new_updates, self._state(count, treedef, [new for _, new in results])

    def _in(self, count: Array | None, extra: Mapping[str, Any], dtype: Any) -> tuple[Any, dict[str, Any], Any]:
        """This transformation, and the context of its formula, in the precision of a leaf of `dtype`."""
        real = numerics.real_dtype(dtype)
        context: dict[str, Any] = dict(extra)
        if "t" in self._wants and count is not None:
            context["t"] = count.astype(real)
        return jax.tree.map(lambda array: array.astype(real), self), context, dtype

    def _state(self, count: Array | None, treedef: Any, slots: list[tuple[Any, ...]]) -> Any:
        fields = {name: treedef.unflatten([own[i] for own in slots]) for i, name in enumerate(self.slots)}
        state: Any = self.State  # a NamedTuple
        return state(**fields) if "count" not in self._state_fields else state(count=count, **fields)

    def _slots(self, updates: Tree, state: Any) -> list[tuple[Any, ...]]:
        """The slots of every leaf, checked against the gradients."""
        leaves, treedef = jax.tree.flatten(updates)
        expected: dict[Any, tuple[Any, ...]] = {}
        for g in leaves:
            if (g.shape, g.dtype) not in expected:
                expected[g.shape, g.dtype] = jax.eval_shape(self.init_leaf, g)
        for i, name in enumerate(self.slots):
            where = f"{_name(self)}: state.{name}"
            like = treedef.unflatten([expected[g.shape, g.dtype][i] for g in leaves])
            check.same_structure(where, getattr(state, name), like, "the updates; it belongs to another model")
            check.same_shapes(where, getattr(state, name), like, "the update's", "; it belongs to another model")
        columns = [treedef.flatten_up_to(getattr(state, name)) for name in self.slots]
        return list(zip(*columns, strict=True)) if columns else [()] * len(leaves)

    @property
    def _state_fields(self) -> tuple[str, ...]:
        return getattr(self.State, "_fields", ())

    @functools.cached_property
    def needs_params(self) -> bool:
        return "param" in self._wants

    @functools.cached_property
    def _wants(self) -> frozenset[str]:
        return Extras.of(self.leaf, skip=1 + len(self.slots)).known

    @functools.cached_property
    def extras(self) -> Extras:
        return Extras.of(self.leaf, skip=1 + len(self.slots), context=self.context)


@functools.partial(jax.jit, static_argnums=2)
def _formula(tx: Leafwise, context: dict[str, Any], dtype: Any, g: Array, slots: tuple[Any, ...], param: Any) -> Any:
    """One leaf's formula in the precision `dtype`, traced once for all leaves of the same shape."""
    g, slots, param = jax.tree.map(lambda x: _at_precision(x, dtype), (g, slots, param))
    result = tx.leaf(g, *slots, **context) if param is None else tx.leaf(g, *slots, **context, param=param)
    if not slots:
        return result, ()
    if not isinstance(result, tuple) or len(result) != 1 + len(slots):
        raise TypeError(
            f"{_name(tx)}: leaf must give the tuple (update, {', '.join(tx.slots)}), got {check.describe(result)}"
        )
    return result[0], result[1:]


def _at_precision(x: Array, dtype: Any) -> Array:
    """`x` in the precision of `dtype`, real if it is real; integers as they are."""
    if not tree.is_inexact(x):
        return x
    return x.astype(dtype if jnp.iscomplexobj(x) else numerics.real_dtype(dtype))


def _compute_dtypes(arrays: Any) -> Iterator[Any]:
    return (numerics.compute_dtype(tree.dtype_of(x)) for x in jax.tree.leaves(arrays) if tree.is_inexact(x))


# Composition.


class TransformationKind:
    """The kind of a hyper-parameter that is itself a transformation."""

    numeric = False

    @property
    def example(self) -> Any:
        return identity()

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, type):
            raise TypeError(f"{where} is the class {value.__name__}: call it, {value.__name__}(...)")
        if not isinstance(value, Transformation):
            hint = f": call it, {value.__name__}(...)" if inspect.isfunction(value) else ""
            if is_schedule(value) and not hint:
                hint = ": a schedule goes into scale_by_learning_rate(...)"
            if type(value) in (list, tuple):
                hint = ": unpack it with a star, chain(*stages)"
            raise TypeError(f"{where} must be a transformation (init and update), got {check.describe(value)}{hint}")
        return value


Inner = Annotated[Any, TransformationKind()]
"A transformation held by another."


class Container(GradientTransformation, abstract=True):
    """A transformation that only hands leaves on to others; those do the checks of what they get."""

    takes_half_precision = True
    elementwise = True
    touches_leaves = False

    @property
    def parts(self) -> tuple[Transformation, ...]:
        """What it holds."""
        raise NotImplementedError

    @functools.cached_property
    def extras(self) -> Extras:
        return Extras.union(self.parts)


class chain(Container):
    """Apply transformations one after the other, left to right.

    Its state is the tuple of their states. `chain()` of nothing changes nothing.

    Raises:
        TypeError: a stage is not a transformation; the message says at which position.

    >>> import gradtx
    >>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
    chain(clip_by_global_norm(1.0), adam(0.001))
    >>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam)
    Traceback (most recent call last):
    TypeError: chain: stage 1 is the class adam: call it, adam(...)
    """

    State = tuple

    stages: tuple[Any, ...] = ()

    def __init__(self, *stages: Transformation) -> None:
        self._set(stages=tuple(_KIND.convert(f"chain: stage {i}", stage) for i, stage in enumerate(stages)))

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return self.stages

    def init_fn(self, params: Tree) -> tuple[Any, ...]:
        return tuple(init_inner(stage, params) for stage in self.stages)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        if len(state) != len(self.stages):
            raise ValueError(
                f"chain: expected a tuple of {len(self.stages)} states, one for each of {self!r}, "
                f"got {_describe_state(state)}"
            )
        new_state: list[Any] = []
        for stage, own in zip(self.stages, state, strict=True):
            updates, own = update_inner(stage, updates, own, params, extra)
            new_state.append(own)
        return updates, tuple(new_state)


class named_chain(Container):
    """`chain` of `(name, transformation)` pairs; the state is a dict by those names.

    Raises:
        ValueError: two stages of one name.

    >>> import gradtx
    >>> tx = named_chain(("clip", gradtx.clip(1.0)), ("step", gradtx.scale(-0.1)))
    >>> tx.init(jnp.zeros(2))
    {'clip': EmptyState(), 'step': EmptyState()}
    """

    State = dict

    stages: tuple[Any, ...] = ()

    def __init__(self, *stages: tuple[str, Transformation]) -> None:
        for i, stage in enumerate(stages):
            if not (isinstance(stage, tuple) and len(stage) == 2 and isinstance(stage[0], str)):
                raise TypeError(f"named_chain: stage {i} must be a pair (name, transformation), got {stage!r}")
            _KIND.convert(f"named_chain: stage {i}, {stage[0]!r}", stage[1])
        names = [name for name, _ in stages]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"named_chain: the name {', '.join(sorted(repeated))} is given twice")
        self._set(stages=tuple(stages))

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return tuple(stage for _, stage in self.stages)

    def init_fn(self, params: Tree) -> dict[str, Any]:
        return {name: init_inner(stage, params) for name, stage in self.stages}

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        names = [name for name, _ in self.stages]
        if state.keys() != set(names):
            raise ValueError(f"named_chain: expected the states of {names}, got those of {list(state)}")
        new_state: dict[str, Any] = {}
        for name, stage in self.stages:
            updates, new_state[name] = update_inner(stage, updates, state[name], params, extra)
        return updates, new_state


class Optimizer(Container, abstract=True):
    """A named chain: its fields are hyper-parameters, `expand` says of what it is composed."""

    State = None

    def expand(self) -> Transformation:
        """The transformation that this one is a name for."""
        raise NotImplementedError(f"{type(self).__name__} defines no expand")

    @functools.cached_property
    def expanded(self) -> Transformation:
        """`expand()`, made once."""
        return self.expand()

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return (self.expanded,)

    def at(self, count: Any) -> Any:
        return self  # schedules go on to the stages, each of which evaluates them at its own count

    def init_fn(self, params: Tree) -> Any:
        return init_inner(self.expanded, params)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return update_inner(self.expanded, updates, state, params, extra)

    @functools.cached_property
    def _needs_clock(self) -> bool:
        return False


class identity(Container):
    """Change nothing.

    >>> identity().update(jnp.array([1.0]), identity().init(None))
    (Array([1.], dtype=float32), EmptyState())
    """

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return ()

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        return updates, state


_KIND = TransformationKind()


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """Params + updates, computed in at least float32 and rounded once to the parameters' dtypes.

    Parameters whose update is `None`, or of the dtype `float0` that JAX gives integer parameters, stay as they are.

    Raises:
        ValueError: structures or shapes differ.

    >>> apply_updates({"w": jnp.ones(2)}, {"w": jnp.array([0.5, -0.5])})
    {'w': Array([1.5, 0.5], dtype=float32)}
    """
    check.same_structure("apply_updates: updates", _with_holes(updates, params), _with_holes(params, updates), "params")
    filled = jax.tree.map(lambda p, u: p if _stays(u) else u, params, updates)
    moving = jax.tree.map(lambda p, u: None if _stays(u) else p, params, updates)
    check.inexact_leaves(
        "apply_updates: updates", jax.tree.map(lambda u: None if _stays(u) else u, updates), "give None for what stays"
    )
    check.inexact_leaves("apply_updates: params", moving, "give None as its update")
    check.same_shapes("apply_updates: updates", filled, params, "the parameter")

    def add(p: Any, u: Any) -> Any:
        dtype = numerics.compute_dtype(tree.dtype_of(p))
        return (jnp.asarray(p, dtype) + jnp.asarray(u, dtype)).astype(tree.dtype_of(p))

    return jax.tree.map(lambda p, u: p if _stays(u) else add(p, u), params, updates)


def _stays(update: Any) -> bool:
    return update is None or getattr(update, "dtype", None) == jax.dtypes.float0


def _with_holes(updates: Tree, other: Tree) -> Tree:
    """`None` as a leaf, but for a whole tree of `None`."""
    if updates is None or other is None:
        return updates
    return jax.tree.map(lambda u: 0 if u is None else u, updates, is_leaf=lambda u: u is None)
