"""Hyper-parameters that live in the state, where they can be read, logged and changed between steps."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, ParamSpec, Protocol, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics
from gradtx.core.compose import Container, TransformationKind
from gradtx.core.extras import Extras
from gradtx.core.hyperparams import DType, Names, NamesKind, Optional, Real, is_schedule, is_stateful
from gradtx.core.run import init_stage, update_stage
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree
from gradtx.transforms.scaling import scale

__all__ = [
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "WrappedScheduleState",
    "inject_factory",
    "inject_hyperparams",
]


P = ParamSpec("P")
Path = tuple[Any, ...]


class WrappedScheduleState(NamedTuple):
    """The clock of one scheduled hyper-parameter."""

    count: Array
    "int32[]: updates made so far."


class StatefulSchedule(Protocol):
    """A hyper-parameter that follows a state of its own: what `inject_hyperparams` takes besides functions of a count.

    Extra arguments of the update are passed to `update` and to the call, so that the value may depend on the loss.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> class halved_where_worse(StatefulSchedule):
    ...     def init(self):
    ...         return jnp.array([jnp.inf, 0.1])
    ...     def update(self, state, *, value, **extra):
    ...         best, rate = state
    ...         return jnp.array([jnp.minimum(best, value), jnp.where(value > best, rate / 2, rate)])
    ...     def __call__(self, state, **extra):
    ...         return state[1]
    >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(halved_where_worse())
    >>> state = tx.init(jnp.ones(1))
    >>> for value in (2.0, 3.0, 1.0):
    ...     updates, state = tx.update(jnp.ones(1), state, value=value)
    >>> updates
    Array([-0.05], dtype=float32)
    """

    def init(self) -> Any:
        """The state before the first update."""
        ...

    def update(self, state: Any, **extra: Any) -> Any:
        """The state after an update."""
        ...

    def __call__(self, state: Any, **extra: Any) -> Any:
        """The value for the next update."""
        ...


@dataclasses.dataclass(frozen=True)
class WrappedSchedule(StatefulSchedule):
    """A function of the number of updates made, as a stateful schedule."""

    schedule_fn: Callable[[Array], Any]
    "The function."

    def init(self) -> WrappedScheduleState:
        """The clock before the first update."""
        return WrappedScheduleState(numerics.counter())

    def update(self, state: WrappedScheduleState, **extra: Any) -> WrappedScheduleState:
        """The clock, one tick later."""
        return WrappedScheduleState(numerics.increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra: Any) -> Any:
        """The value of the function now."""
        return self.schedule_fn(state.count)


class InjectStatefulHyperparamsState(NamedTuple):
    """The state of `inject_hyperparams`."""

    count: Array
    "int32[]: updates made so far."
    hyperparams: dict[str, Array]
    "float32[] each, by name: the values for the next update; of scheduled ones, the values in the last update."
    hyperparams_states: dict[str, Any]
    "The clock of each scheduled hyper-parameter, or the state of its `StatefulSchedule`, by its name."
    inner_state: Any
    "The state of the transformation whose hyper-parameters are injected."


class _Injecting(Container, abstract=True):
    """What the two spellings share: hyper-parameters that live in the state, and a transformation made with them."""

    State = InjectStatefulHyperparamsState

    def initial(self) -> Mapping[str, Any]:
        """The hyper-parameters that go into the state: numbers, arrays or schedules, by name."""
        raise NotImplementedError

    def made(self, values: Mapping[str, Any]) -> Transformation:
        """The transformation with these values."""
        raise NotImplementedError

    def dtype(self) -> Any:
        """The dtype of the values; by default at least float32, float64 where that is enabled."""
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Transformation, ...]:
        start = {name: 0.5 if is_schedule(value) else value for name, value in self.initial().items()}
        return (self.made(start),)

    @functools.cached_property
    def sums_examples(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the transformation that is made does."""
        return getattr(self.parts[0], "sums_examples", False)

    @functools.cached_property
    def _schedules(self) -> dict[str, StatefulSchedule]:
        """The schedules among the hyper-parameters, by name."""
        given = {name: value for name, value in self.initial().items() if is_schedule(value)}
        return {name: value if is_stateful(value) else WrappedSchedule(value) for name, value in given.items()}

    @functools.cached_property
    def extras(self) -> Extras:
        """Those of the transformation, and of stateful schedules."""
        stateful = [value for value in self._schedules.values() if not isinstance(value, WrappedSchedule)]
        own = [Extras.of(function, skip=1) for value in stateful for function in (value.update, value)]
        return functools.reduce(Extras.joined, own, Extras.union(self.parts))

    def init_fn(self, params: Tree) -> InjectStatefulHyperparamsState:
        states = {name: schedule.init() for name, schedule in self._schedules.items()}
        values = self._values(self.initial(), states, {})
        inner_state = init_stage(self.made(values), params)
        return InjectStatefulHyperparamsState(numerics.counter(), values, states, inner_state)

    def update_fn(
        self, updates: Tree, state: InjectStatefulHyperparamsState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, InjectStatefulHyperparamsState]:
        self._check(self.initial(), state)
        values = self._values(state.hyperparams, state.hyperparams_states, extra)
        new, inner_state = update_stage(self.made(values), updates, state.inner_state, params, extra)
        states = {
            name: schedule.update(state.hyperparams_states[name], **extra) for name, schedule in self._schedules.items()
        }
        count = numerics.increment(state.count)
        kept = {name: values[name] if name in states else value for name, value in state.hyperparams.items()}
        return new, InjectStatefulHyperparamsState(count, kept, states, inner_state)

    def _values(self, given: Mapping[str, Any], states: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """The hyper-parameters of one update: those of schedules anew, the others as they are given."""
        now = {name: schedule(states[name], **extra) for name, schedule in self._schedules.items()}
        return {name: self._value(name, now.get(name, value)) for name, value in given.items()}

    def _value(self, name: str, given: Any) -> Array:
        value = jnp.asarray(given)
        if value.shape != () or not _is_real_dtype(value.dtype):
            raise ValueError(f"{type(self).__name__}: {name} must be a real scalar, got {check.describe(value)}")
        known = not value.weak_type and jnp.issubdtype(value.dtype, jnp.floating)
        dtype = np.promote_types(np.float32, value.dtype) if known else jnp.result_type(float)
        return jax.lax.convert_element_type(value, self.dtype() or dtype)

    def _check(self, initial: Mapping[str, Any], state: InjectStatefulHyperparamsState) -> None:
        if state.hyperparams.keys() != initial.keys():
            raise ValueError(
                f"{type(self).__name__}: expected the hyper-parameters {', '.join(initial)} in the state, "
                f"got {', '.join(state.hyperparams)}"
            )
        for name, given in initial.items():
            value = state.hyperparams[name]
            if is_schedule(given) and (not hasattr(value, "dtype") or getattr(value, "weak_type", False)):
                raise ValueError(
                    f"{type(self).__name__}: {name} was set by hand, but follows the schedule {given!r}: "
                    "give a number instead of the schedule to set it yourself"
                )


class InjectedKind:
    """A transformation; a class or a function does not get here, for it is taken as the other spelling."""

    may_vary = False

    @property
    def example(self) -> Any:
        return scale(-0.5)

    def convert(self, where: str, value: Any) -> Any:
        return TransformationKind().convert(where, value)


class _InjectHyperparams(_Injecting, name="inject_hyperparams"):
    """Keep hyper-parameters in the state instead of in the transformation.

        tx = inject_hyperparams(adam(1e-3))        # or, as in optax, inject_hyperparams(adam)(learning_rate=1e-3)
        state = tx.init(params)
        state.hyperparams["learning_rate"]                          # read
        state = gradtx.set_hyperparams(state, learning_rate=1e-4)   # change: nothing is compiled again

    All numbers are injected except whole numbers, on which the compiled program depends. `names` restricts this to
    some hyper-parameters, `static_args` exempts some. Those of a chain's stages are injected, too; two of one name are
    called `adam.b1` and `lion.b1`. The values are float32 scalars, whatever the dtype of the parameters, or float64 if
    that is enabled. The values of schedules are recorded in the state at every update; they cannot be set. Assigning
    `state.hyperparams["learning_rate"] = 1e-4` works as well, but with a Python number the step is compiled once more.

    What is not injected stays a Python number, from which constants such as 1 − β are formed in double precision. An
    injected β is rounded to float32, 0.999 to 0.99900001, and constants are formed from that: after 25 steps the
    parameters agree with those of the plain transformation to six digits. To have them agree to the last digit, inject
    the learning rate only, `names="learning_rate"`.

    Raises:
        ValueError: there is no hyper-parameter of the name; a scheduled one was set by hand.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.inject_hyperparams(gradtx.sgd(0.5))
    >>> state = tx.init(jnp.ones(1))
    >>> state = gradtx.set_hyperparams(state, learning_rate=0.25)
    >>> updates, state = tx.update(jnp.ones(1), state)
    >>> updates, state.hyperparams
    (Array([-0.25], dtype=float32), {'learning_rate': Array(0.25, dtype=float32)})
    """

    inner_factory: Annotated[Any, InjectedKind()]
    "A transformation; or a class or function that makes one, for the other spelling."
    static_args: Names = ()
    "Names of hyper-parameters that are not injected."
    hyperparam_dtype: DType | None = None
    "Dtype of the values in the state, float32 or float64."
    names: Names | None = None
    "Names of the hyper-parameters to inject, all of them by default."

    def __new__(cls, inner_factory: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(inner_factory, type) or (callable(inner_factory) and not hasattr(inner_factory, "update")):
            options = _options(*args, **kwargs)
            _check_static_args(inner_factory, options[0])
            return functools.partial(_inject_into, inner_factory, *options)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_dtype("inject_hyperparams", self.hyperparam_dtype)
        known = _names_of(self.inner_factory).values()
        if unknown := [name for name in (*self.static_args, *(self.names or ())) if name not in known]:
            raise ValueError(
                f"inject_hyperparams: no hyper-parameter {', '.join(unknown)} to inject; there is {', '.join(known)}"
            )

    def initial(self) -> Mapping[str, Any]:
        return {name: value for name, (_, value) in self._chosen.items()}

    def made(self, values: Mapping[str, Any]) -> Transformation:
        by_path = {path: values[name] for name, (path, _) in self._chosen.items()}
        return _with_hyperparams(lambda path, value: by_path.get(path, value), self.inner_factory)

    def dtype(self) -> Any:
        return self.hyperparam_dtype

    @functools.cached_property
    def _chosen(self) -> dict[str, tuple[Path, Any]]:
        """Path and value of each injected hyper-parameter, by name."""
        values = _hyperparams(self.inner_factory)
        chosen = {name: (path, values[path]) for path, name in _names_of(self.inner_factory).items()}
        wanted = chosen if self.names is None else self.names
        return {name: item for name, item in chosen.items() if name in wanted and name not in self.static_args}


# The hyper-parameters of a transformation and of those that it holds.


class _Owner(str):
    """The name of a transformation's class on a path, as distinct from the name of a stage or a group."""

    __slots__ = ()


def _is_named(node: Any) -> bool:
    """Whether a node is a name and what it names, as a stage of `named_chain` is and a group of `param_groups`."""
    return type(node) is tuple and len(node) == 2 and isinstance(node[0], str)


def _hyperparams(tx: Any) -> dict[Path, Any]:
    """Every number, array or schedule among the hyper-parameters, by its path."""
    found: dict[Path, Any] = {}

    def note(path: Path, value: Any) -> Any:
        found[path] = value
        return value

    _with_hyperparams(note, tx)
    return found


def _with_hyperparams(f: Callable[[Path, Any], Any], node: Any, path: Path = ()) -> Any:
    """`node` with `f(path, value)` for each number, array or schedule among its hyper-parameters."""
    if isinstance(node, _Injecting):
        return node
    if isinstance(node, GradientTransformation):
        owner = (*path, _Owner(type(node).__name__))
        changes = {}
        for field, kind in node.field_kinds().items():
            value = getattr(node, field)
            if _is_real(kind) and value is not None:
                changes[field] = f((*owner, field), value)
            elif not kind.may_vary:
                changes[field] = _with_hyperparams(f, value, owner)
        changes = {field: value for field, value in changes.items() if value is not getattr(node, field)}
        return node.replace(**changes) if changes else node
    if _is_named(node):  # its name stands for it on the path, also for its position
        new = _with_hyperparams(f, node[1], path if _is_named(node[1]) else (*path, node[0]))
        return node if new is node[1] else (node[0], new)
    if type(node) in (tuple, list, dict):
        items = node if type(node) is dict else dict(enumerate(node))
        below = {key: path if _is_named(item) else (*path, key) for key, item in items.items()}
        new = {key: _with_hyperparams(f, item, below[key]) for key, item in items.items()}
        if all(new[key] is item for key, item in items.items()):
            return node
        return new if type(node) is dict else type(node)(new.values())
    return node


def _is_real(kind: Any) -> bool:
    return isinstance(kind.kind if isinstance(kind, Optional) else kind, Real)


def _names_of(tx: Any) -> dict[Path, str]:
    """What each hyper-parameter is called, by its path: the shortest of four names that tells all of them apart.

    It is called by its field, by the class and the field, by the names of stages and groups and the field, or by all.
    """
    paths = list(_hyperparams(tx))
    for shortened in (lambda path: path[-1:], lambda path: path[-2:], _named_parts):
        names = {path: ".".join(map(str, shortened(path))) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: ".".join(map(str, path)) for path in paths}


def _named_parts(path: Path) -> list[Any]:
    return [part for part in path[:-1] if not isinstance(part, _Owner | int)] + [path[-1]]


_InjectHyperparams.__name__ = "inject_hyperparams"

if TYPE_CHECKING:  # a class cannot say that calling it with a class gives a function of that class's arguments

    @overload
    def inject_hyperparams(
        inner_factory: Callable[P, Any],
        static_args: str | Iterable[str] = (),
        hyperparam_dtype: Any = None,
        names: str | Iterable[str] | None = None,
    ) -> Callable[P, _InjectHyperparams]: ...

    @overload
    def inject_hyperparams(
        inner_factory: GradientTransformation | Transformation,
        static_args: str | Iterable[str] = (),
        hyperparam_dtype: Any = None,
        names: str | Iterable[str] | None = None,
    ) -> _InjectHyperparams: ...

    def inject_hyperparams(
        inner_factory: Any, static_args: Any = (), hyperparam_dtype: Any = None, names: Any = None
    ) -> Any: ...

else:
    inject_hyperparams = _InjectHyperparams


# The other spelling: for classes and functions that make a transformation of hyper-parameters.


class FactoryKind:
    """A class or a function that makes a transformation."""

    example = scale
    may_vary = False

    def convert(self, where: str, value: Any) -> Any:
        if not callable(value):
            raise TypeError(f"{where} must be a function that makes a transformation, got {check.describe(value)}")
        return value


class inject_factory(_Injecting):
    """What `inject_hyperparams(factory)(...)` is for a function: a transformation made anew at every update.

    Injected are the arguments, given or by default, that are floats, arrays or schedules; `static_args` are exempt.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> def clipped_sgd(learning_rate, max_norm=1.0):
    ...     return gradtx.chain(gradtx.clip_by_global_norm(max_norm), gradtx.sgd(learning_rate))
    >>> tx = gradtx.inject_hyperparams(clipped_sgd)(learning_rate=0.5)
    >>> tx
    inject_factory(clipped_sgd, {'learning_rate': 0.5})
    >>> tx.init(jnp.ones(1)).hyperparams
    {'learning_rate': Array(0.5, dtype=float32), 'max_norm': Array(1., dtype=float32)}
    """

    factory: Annotated[Any, FactoryKind()]
    "The function; registered (`gradtx.register`), it goes to JSON and back."
    arguments: dict[str, Any]
    "The arguments of the function, by name."
    static_args: Names = ()
    "Names of arguments that are not injected."
    hyperparam_dtype: DType | None = None
    "Dtype of the values in the state, float32 or float64."

    @classmethod
    def example(cls) -> Self:
        return cls(scale, {"step_size": -0.5})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_dtype("inject_factory", self.hyperparam_dtype)
        _check_static_args(self.factory, self.static_args)

    def initial(self) -> Mapping[str, Any]:
        return {
            name: value
            for name, value in self._all.items()
            if name not in self.static_args and (_is_number(value) or is_schedule(value))
        }

    def made(self, values: Mapping[str, Any]) -> Transformation:
        return TransformationKind().convert("inject_factory: what it made", self.factory(**{**self._all, **values}))

    def dtype(self) -> Any:
        return self.hyperparam_dtype

    @functools.cached_property
    def _all(self) -> dict[str, Any]:
        """The arguments, defaults included."""
        bound = inspect.signature(self.factory).bind(**self.arguments)
        bound.apply_defaults()
        return _flat(bound)


def _check_static_args(factory: Callable[..., Any], static_args: Any) -> None:
    """Refuse names that are no arguments of the class or function, as soon as they are given."""
    known = inspect.signature(factory).parameters
    names = NamesKind().convert("inject_hyperparams: static_args", static_args)
    if unknown := [name for name in names if name not in known]:
        name = getattr(factory, "__name__", repr(factory))
        raise ValueError(
            f"inject_hyperparams: static_args: {name} has no argument {', '.join(unknown)}; it has {', '.join(known)}"
        )


def _inject_into(
    factory: Callable[..., Any], static_args: Any, dtype: Any, names: Any, *args: Any, **kwargs: Any
) -> Any:
    if isinstance(factory, type) and issubclass(factory, GradientTransformation):
        inner = factory(*args, **kwargs)
        known = _names_of(inner).values()
        static = NamesKind().convert("inject_hyperparams: static_args", static_args)
        return _InjectHyperparams(inner, tuple(name for name in static if name in known), dtype, names)
    if names is not None:
        raise ValueError("inject_hyperparams: names go with a transformation; for a function, give static_args")
    arguments = _flat(inspect.signature(factory).bind(*args, **kwargs))
    return inject_factory(factory, arguments, static_args, dtype)


def _options(static_args: Any = (), hyperparam_dtype: Any = None, names: Any = None) -> tuple[Any, Any, Any]:
    return static_args, hyperparam_dtype, names


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments by name, those that `**kwargs` took among them."""
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    taken = [name for name in bound.arguments if kinds[name] is inspect.Parameter.VAR_KEYWORD]
    own = {name: value for name, value in bound.arguments.items() if name not in taken}
    return own | {key: value for name in taken for key, value in bound.arguments[name].items()}


def _is_real_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _is_number(value: Any) -> bool:
    """Whether a value may be injected: a float or an array; whole numbers shape the program."""
    if isinstance(value, Array | np.ndarray):
        return not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return isinstance(value, float | np.floating)


def _check_dtype(where: str, dtype: Any) -> None:
    if dtype is not None and jnp.finfo(dtype).bits < 32:
        raise ValueError(f"{where}: hyperparam_dtype must be float32 or float64, got {dtype.name}")
