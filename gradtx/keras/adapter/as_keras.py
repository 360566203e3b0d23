"""Any transformation inside real Keras 3: `as_keras` makes a `keras.optimizers.Optimizer` of it.

    model.compile(optimizer=as_keras(chain(clip_by_global_norm(1.0), adam(1e-3))), loss="mse")

Keras itself is imported when it is first needed.
"""

import collections
import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.apply import apply_updates
from gradtx.core.check import describe
from gradtx.core.compose import Container, Optimizer
from gradtx.core.config import from_config, to_config
from gradtx.core.dtypes import dtype_of, scaled
from gradtx.core.extras import extras_of
from gradtx.core.hyperparams import is_schedule
from gradtx.core.registry import registry
from gradtx.core.run import init_stage
from gradtx.core.spec import Spec
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree, find
from gradtx.keras import optimizers
from gradtx.keras.engine.derived import UpdateStep, built_for
from gradtx.keras.engine.dialect import snake_case
from gradtx.keras.engine.modern import Modern
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.rate import takes_nothing
from gradtx.keras.engine.subsets import skipping
from gradtx.keras.engine.variable import unique
from gradtx.keras.holders.holder import Holder
from gradtx.keras.holders.multi import MultiOptimizer
from gradtx.keras.optimizers import Optimizer as Keras3Optimizer
from gradtx.keras.transforms import schedule_of_microsteps, schedule_with_decay, with_decay
from gradtx.schedules.base import constant_schedule
from gradtx.wrappers.inject import inject_hyperparams

if TYPE_CHECKING:
    import keras
    from keras.optimizers import Optimizer as KerasOptimizer
else:
    KerasOptimizer = object

__all__ = ["as_keras", "register_with_keras"]

_PACKAGE = "gradtx"
"The package under which Keras knows our names: `compile(optimizer='gradtx>adam')`."

_CLASS = "TransformationOptimizer"
"The name of the class of all that `as_keras` makes."


def as_keras(
    transformation: Any,
    learning_rate: Any = None,
    *,
    weight_decay: float | None = None,
    clipnorm: float | None = None,
    clipvalue: float | None = None,
    global_clipnorm: float | None = None,
    use_ema: bool = False,
    ema_momentum: float = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: float | None = None,
    gradient_accumulation_steps: int | None = None,
    name: str | None = None,
) -> "keras.optimizers.Optimizer":
    """A real `keras.optimizers.Optimizer` whose updates are those of a gradtx or optax transformation.

        model.compile(optimizer=as_keras(chain(clip_by_global_norm(1.0), adam(1e-3))), loss="mse")

    What Keras does around an update stays Keras's own: clipping, `weight_decay`, averages, accumulation, loss scaling,
    constraints, callbacks, files. An optimizer of `gradtx.keras` may be given, too, also one of your own with an
    `update_step`; its arguments become Keras's, its state stays behind. The transformation sees one dict from the
    variables' paths (`"sequential/dense/kernel"`) to their values: masks and labels may be patterns,
    `label_by_path({"bias": ...})`.

    `optimizer.learning_rate` is the rate that the transformation really uses, and callbacks may change it:

    - The hyper-parameters called `learning_rate` take its value at every update; nothing is compiled again. Where there
      are several, it is the largest and the others keep their ratio to it.
    - A rate that lives in the state (`inject_hyperparams`, gradtx's or optax's) is set there.
    - A gradtx transformation without a rate (`scale_by_adam()`) needs `learning_rate=`, and its updates are multiplied
      by it, with the sign turned: θ ← θ − η u.
    - If the transformation follows a schedule of its own, `optimizer.learning_rate` reads it and cannot be set.
    - Of an optimizer with Keras 2's `decay` it is the rate at the start, as in Keras 2. It can be set, and decays as
      before.
    - What hides its rate, as `optax.adam(1e-3)` does, keeps it; to read or set `optimizer.learning_rate` is an error.

    Saved models (`.keras`) carry the transformation as `gradtx.to_config` writes it, and what is excluded from weight
    decay, which Keras's own optimizers forget; to load them `import gradtx.keras` is enough. Weights that are loaded
    before Keras has built the optimizer are kept until it is built. A derived class must be registered with Keras,
    `keras.saving.register_keras_serializable()`, for its models to be loaded.

    `learning_rate` is what to begin with instead of the transformation's own: a number, a Keras schedule or a function
    without arguments. The other arguments are those of `keras.optimizers.Optimizer`.

    Raises:
        ImportError: Keras 3 is not installed.
        RuntimeError: Keras runs on another backend than JAX.
        TypeError: not a transformation, or one whose updates need more than gradients and parameters; an optimizer that
            holds others, which must be Keras's own.
        ValueError: it has no learning rate and none is given, or one is given that it could not use.
    """
    _keras()
    register_with_keras()
    return _optimizer_class()(
        transformation,
        learning_rate,
        weight_decay=weight_decay,
        clipnorm=clipnorm,
        clipvalue=clipvalue,
        global_clipnorm=global_clipnorm,
        use_ema=use_ema,
        ema_momentum=ema_momentum,
        ema_overwrite_frequency=ema_overwrite_frequency,
        loss_scale_factor=loss_scale_factor,
        gradient_accumulation_steps=gradient_accumulation_steps,
        name=name,
    )


def _keras() -> Any:
    """Keras, which must be version 3 on JAX.

    Raises:
        ImportError: it is not installed, or too old.
        RuntimeError: it runs on another backend.
    """
    try:
        import keras
    except ImportError as error:
        raise ImportError("as_keras needs Keras 3: pip install 'gradtx[keras]'") from error
    if not _is_keras_3(keras):
        raise ImportError(f"as_keras needs Keras 3, this is {keras.__version__}: pip install 'gradtx[keras]'")
    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"as_keras needs Keras on JAX, but Keras runs on {keras.backend.backend()}: set the environment variable "
            "KERAS_BACKEND=jax before Keras is imported"
        )
    return keras


def _is_keras_3(keras: Any) -> bool:
    return int(getattr(keras, "__version__", "0").partition(".")[0]) >= 3


# Where a transformation's learning rate is, and how Keras's comes to be used.


class _Rate:
    """How one transformation is given Keras's learning rate."""

    initial: float | None = None
    "What Keras's variable begins with; `None` if that must be given."
    fixed = ""
    "Why the rate cannot be set; empty if it can."

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    def at(self, count: Any, given: Any) -> Any:
        """The rate after `count` updates, if Keras's own is `given`; `None` if it cannot be told."""
        return given

    def transformation(self, rate: Any) -> Any:
        """The transformation at this rate of Keras's."""
        return self.tx

    def update(self, rate: Any, grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        """One update of the transformation at this rate of Keras's."""
        return self.transformation(rate).update(grads, state, params)


class _Hidden(_Rate):
    """Has a rate that cannot be seen."""

    fixed = (
        "the transformation hides its learning rate: use optax.inject_hyperparams, or gradtx's optimizer of the name, "
        "to read it and set it from Keras"
    )


class _Scheduled(_Rate):
    """Follows a schedule of its own."""

    fixed = (
        "the transformation follows a schedule of its own: give it a number to set the rate from Keras, or keep the "
        "schedule and leave the rate alone"
    )

    def __init__(self, tx: GradientTransformation, schedule: Callable[[Any], Any]) -> None:
        super().__init__(tx)
        self.schedule = schedule

    def at(self, count: Any, given: Any) -> Any:
        return jnp.asarray(self.schedule(count), jnp.float32)


class _Field(_Rate):
    """Has hyper-parameters `learning_rate`: the transformation is made with others at every update."""

    def __init__(self, tx: GradientTransformation, rates: Mapping[str, Any]) -> None:
        super().__init__(tx)
        self.injecting = inject_hyperparams(tx, names=tuple(rates))
        self.initial, ratios = _ratios(rates.values())
        self.ratios = dict(zip(rates, ratios, strict=True))

    def transformation(self, rate: Any) -> Any:
        return self.injecting.made({name: ratio * rate for name, ratio in self.ratios.items()})


class _Decaying(_Rate):
    """Has a rate under the `decay` of Keras 2: Keras's variable holds, as in Keras 2, the rate at the start."""

    def __init__(self, tx: GradientTransformation, schedules: Mapping[str, Any], start: float) -> None:
        super().__init__(tx)
        self.injecting = inject_hyperparams(tx, names=tuple(schedules))
        self.schedules, self.initial = schedules, float(start)

    def at(self, count: Any, given: Any) -> Any:
        return functools.reduce(jnp.maximum, [self._from(given, name)(count) for name in self.schedules])

    def transformation(self, rate: Any) -> Any:
        return self.injecting.made({name: self._from(rate, name) for name in self.schedules})

    def _from(self, start: Any, name: str) -> Any:
        return _starting_at(start, self.schedules[name])


class _Injected(_Rate):
    """Keeps its rate in its state."""

    def __init__(self, tx: Transformation, state: Any) -> None:
        super().__init__(tx)
        self.initial, self.ratios = _ratios(node.hyperparams["learning_rate"] for node in find(state, _holds_rate))

    def update(self, rate: Any, grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        ratios = iter(self.ratios)

        def put(node: Any) -> Any:
            if not _holds_rate(node):
                return node
            value = (next(ratios) * rate).astype(dtype_of(node.hyperparams["learning_rate"]))
            return node._replace(hyperparams=node.hyperparams | {"learning_rate": value})

        return self.tx.update(grads, jax.tree.map(put, state, is_leaf=_holds_rate), params)


class _Factor(_Rate):
    """Has no rate: its updates are directions of ascent, to be multiplied by one."""

    def update(self, rate: Any, grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, state = self.tx.update(grads, state, params)
        return scaled(-rate, updates), state


def _rate_of(tx: Transformation) -> _Rate:
    """How `tx` is given a rate, by the hyper-parameters and the state that it shows."""
    if isinstance(tx, GradientTransformation):
        every = inject_hyperparams(tx).initial()
        rates = {name: value for name, value in every.items() if name.rpartition(".")[2] == "learning_rate"}
        starts = [_start_of(value) for value in rates.values()]
        if starts and None not in starts:
            return _Decaying(tx, rates, starts[0])
        if schedule := next((value for value in rates.values() if is_schedule(value)), None):
            return _Scheduled(tx, schedule)
        if rates:
            return _Field(tx, rates)
    if find(state := _state_of_nothing(tx), _holds_rate):
        return _Injected(tx, state)
    return _Hidden(tx) if _steps_itself(tx) else _Factor(tx)


def _ratios(rates: Iterable[Any]) -> tuple[float, list[float]]:
    """The largest rate, and the ratio of each to it."""
    values = [float(rate) for rate in rates]
    largest = max(values)
    return largest, [value / largest if largest else 1.0 for value in values]


def _start_of(schedule: Any) -> Any:
    """The rate at the start, of a schedule that is a constant under Keras 2's `decay`; `None` of all others."""
    inner = getattr(schedule, "schedule", None)
    if isinstance(schedule, schedule_with_decay) and isinstance(inner, constant_schedule):
        return inner.value
    return None if inner is None else _start_of(inner)


def _starting_at(start: Any, schedule: Any) -> Any:
    """The same schedule with another rate at the start."""
    if isinstance(schedule, schedule_with_decay):
        return schedule.replace(schedule=constant_schedule(start))
    return schedule.replace(schedule=_starting_at(start, schedule.schedule))


def _state_of_nothing(tx: Transformation) -> Any:
    """The state for no parameters at all, if the transformation makes one: injected rates can be read from it."""
    try:
        return tx.init({})
    except Exception:  # whatever a foreign transformation raises
        return ()


def _holds_rate(node: Any) -> bool:
    """Whether `node` is a state with a learning rate in it that may be set."""
    values = getattr(node, "hyperparams", None)
    scheduled = getattr(node, "hyperparams_states", ())
    return isinstance(values, Mapping) and "learning_rate" in values and "learning_rate" not in scheduled


def _steps_itself(tx: Any) -> bool:
    """Whether its updates already point downhill, as those of a whole optimizer do."""
    if not isinstance(tx, GradientTransformation) or isinstance(tx, Optimizer):
        return True
    return isinstance(tx, Container) and any(map(_steps_itself, tx.parts))


# A state as Keras's variables.


class _Slots:
    """The Keras variables that hold a state, leaf by leaf, and the model's variables it is a state for."""

    def __init__(self, optimizer: Any, tx: Transformation, variables: Mapping[str, Any]) -> None:
        self.params = variables
        self.tree: Any = type(variables)
        leaves, self.treedef = jax.tree_util.tree_flatten_with_path(init_stage(tx, self.values()))
        self.key_impls = [jax.random.key_impl(leaf) if _is_key(leaf) else None for _, leaf in leaves]
        self.owners = [_owner(path, self.params) for path, _ in leaves]
        names = _names([_parts(path, owner) for (path, _), owner in zip(leaves, self.owners, strict=True)], self.owners)
        taken = [variable.name for variable in optimizer.variables]  # those of Keras's own
        names = unique([*taken, *names])[len(taken) :]
        self.leaves = [
            _add_variable(optimizer, _raw(leaf), name, None if owner is None else self.params[owner])
            for (_, leaf), name, owner in zip(leaves, names, self.owners, strict=True)
        ]

    def values(self) -> Tree:
        """The parameters, by path, in the order in which Keras gave them."""
        return self.tree((path, variable.value) for path, variable in self.params.items())

    def state(self) -> Any:
        """The state."""
        pairs = zip(self.leaves, self.key_impls, strict=True)
        return self.treedef.unflatten([_as_key(v.value, impl) if impl else v.value for v, impl in pairs])

    def write(self, state: Any, missing: set[str], assign: Callable[[Any, Any], None]) -> None:
        """Assign a new state, except to the leaves of missing parameters."""
        for variable, owner, leaf in zip(self.leaves, self.owners, jax.tree.leaves(state), strict=True):
            if owner not in missing:
                assign(variable, _raw(leaf))


def _owner(path: tuple[Any, ...], params: Mapping[str, Any]) -> str | None:
    """The parameter that a leaf of a state belongs to: trees in a state have the parameters' paths as keys."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return next((key for key in reversed(keys) if key in params), None)


def _parts(path: tuple[Any, ...], owner: str | None) -> list[str]:
    """The names on the path to a leaf, without that of the parameter."""
    return [name for key in path if (name := jax.tree_util.keystr((key,), simple=True)) != owner]


def _names(parts: list[list[str]], owners: list[str | None]) -> list[str]:
    """`dense_kernel_mu`: the parameter and the field; where leaves would share a name, all names on their paths."""
    short = [[part.rpartition("/")[2] for part in own if not _says_little(part)] for own in parts]
    columns = [
        ["_".join([*([owner] if owner else []), *(own or ["state"])]).replace("/", "_") for own, owner in pairs]
        for pairs in (zip(short, owners, strict=True), zip(parts, owners, strict=True))
    ]
    shared = collections.Counter([*columns[0], "iteration", "learning_rate"])  # the last two are Keras's own
    return [name if shared[name] == 1 else whole for name, whole in zip(*columns, strict=True)]


def _says_little(part: str) -> bool:
    """Whether a name on a path, `0` or `inner_state`, can be left out of the name of a variable."""
    return part.isdigit() or part == "slots" or part.endswith(("_state", "_states"))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(dtype_of(leaf), jax.dtypes.prng_key)


def _raw(leaf: Any) -> Any:
    """A leaf as an array that Keras can hold: a random key as its numbers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _as_key(numbers: Array, impl: Any) -> Array:
    return jax.random.wrap_key_data(numbers, impl=impl)


def _add_variable(optimizer: Any, value: Any, name: str, owner: Any) -> Any:
    if owner is not None and owner.shape == np.shape(value):
        value, layout = jnp.array(value), getattr(owner, "_layout", None)  # a copy: Keras donates what variables hold
    else:  # by way of the host, so that nothing of the parameters' layout stays
        value, layout = jnp.asarray(np.array(value)), _replicated(np.ndim(value))
    return optimizer.add_variable(
        shape=value.shape,
        initializer=lambda shape, dtype=None: value,
        dtype=value.dtype.name,
        layout=layout,
        name=name,
    )


def _replicated(ndim: int) -> Any:
    """A replicated layout, for a leaf of another shape than its parameter's; Keras would choose one by its name."""
    import keras

    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    return keras.distribution.TensorLayout([None] * ndim, distribution.device_mesh)


# The optimizer.


_EXCLUDED = "exclude_from_weight_decay"
"Where a config has what is excluded from weight decay."


class _Excluded:
    """What is excluded from weight decay: variables by their paths, and all that match a pattern.

    In a model that is loaded the paths may differ: `net/hidden/kernel` becomes `hidden/kernel`. So `positions` holds
    the indices of these variables in the list of all variables, as soon as that is known.
    """

    def __init__(self, paths: Iterable[str] = (), patterns: Iterable[str] = (), positions: Iterable[int] = ()) -> None:
        self.paths, self.patterns, self.positions = tuple(paths), tuple(patterns), tuple(positions)

    def __bool__(self) -> bool:
        return bool(self.paths or self.patterns)

    def config(self) -> dict[str, list[Any]]:
        """As plain data."""
        return {name: list(value) for name, value in vars(self).items()}

    def among(self, names: Sequence[str]) -> list[int]:
        """The positions in a list of paths: the stored ones if the variables there have the same last names."""
        there = [_last(names[i]) for i in self.positions if 0 <= i < len(names)]
        if there == [_last(path) for path in self.paths]:
            return list(self.positions)
        return [i for i, name in enumerate(names) if name in self.paths]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


class _Adapter(KerasOptimizer):
    """What our optimizer adds to Keras's base class; the class itself is made of both once Keras is imported."""

    def __init__(self, transformation: Any, learning_rate: Any = None, *, name: str | None = None, **base: Any) -> None:
        keras = _keras()
        excluded, derived = _Excluded(), None
        if isinstance(transformation, Facade):
            _check_facade(transformation)
            name = _facade_name(keras, transformation) if name is None else name
            if isinstance(transformation, Modern):
                excluded, base = _Excluded(*transformation._excluded), _base_of(transformation, base)
            derived: Any = transformation if _is_derived(transformation) else None
            transformation, learning_rate = _unwrapped(keras, transformation, learning_rate)
        _check(transformation)
        rate = _rate_of(transformation)
        learning_rate = _initial(keras, rate, learning_rate)
        if isinstance(rate, _Hidden) and base.get("weight_decay") is not None:
            raise ValueError(
                "as_keras: weight_decay is multiplied by the learning rate, and "
                f"{rate.fixed}; or decay in the chain, gradtx.add_decayed_weights"
            )
        name = _auto_name(keras, transformation) if name is None else name
        if learning_rate is None:  # with a function Keras makes no variable
            super().__init__(learning_rate=lambda: 0.0, name=name, **base)
            self._learning_rate = None
        else:
            super().__init__(learning_rate=learning_rate, name=name, **base)
        self._rate = rate
        self._derived = derived
        self._slots: _Slots | None = None
        self._pending: _Pending | None = None
        self._applying = self._decaying = False
        self._excluded = excluded

    @property
    def transformation(self) -> Any:
        """The gradtx or optax transformation."""
        return self._rate.tx

    def __repr__(self) -> str:
        """`as_keras(adam(0.001), clipnorm=1.0)`: the transformation, and what of Keras's arguments is not the default.

        `learning_rate` is among them where it is not, or no longer, the transformation's own.
        """
        parameters = inspect.signature(as_keras).parameters.items()
        base = {n: (getattr(self, n), p.default) for n, p in parameters if p.kind is p.KEYWORD_ONLY and n != "name"}
        changed = [f"{name}={value!r}" for name, (value, default) in base.items() if value != default]
        rate = self._shown_rate()
        return f"as_keras({', '.join([repr(self._rate.tx), *([f'learning_rate={rate}'] if rate else []), *changed])})"

    def _shown_rate(self) -> str:
        """The learning rate, if it is another than the transformation's own; nothing where it is traced."""
        rate: Any = self._learning_rate
        own = self._rate.initial
        if rate is None:
            return ""
        if hasattr(rate, "get_config"):  # a schedule of Keras
            settings = {name: value for name, value in rate.get_config().items() if name != "name"}
            return f"{type(rate).__name__}({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
        if callable(rate):
            return getattr(rate, "__name__", type(rate).__name__)
        is_shown = not isinstance(rate.value, jax.core.Tracer) and (own is None or np.float32(own) != rate.value)
        return f"{rate.value:.7g}" if is_shown else ""

    def get_state(self) -> Any:
        """The transformation's state, for `gradtx.metrics` or `gradtx.tree.get`. Its trees are keyed by path.

        Raises:
            ValueError: the optimizer has not been built.
        """
        if self._slots is None:
            raise ValueError("as_keras: no state yet: optimizer.build(model.trainable_variables), or fit, makes one")
        return self._slots.state()

    def build(self, variables: Any) -> None:
        self._settle_exclusions(variables)
        super().build(variables)
        moving = [v for v in variables if not getattr(v, "overwrite_with_gradient", False)]
        named = collections.OrderedDict(zip(unique([v.path for v in moving]), moving, strict=True))
        try:
            self._slots = self._slots_of_derived(named) if self._derived else self._tested_slots(named)
        except Exception:
            self.built = False
            raise
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.check(self.variables)
            super().load_own_variables(pending.arrays)

    def _slots_of_derived(self, variables: Mapping[str, Any]) -> _Slots:
        """The state of an optimizer with an `update_step` of its own: the variables that its `build` creates."""
        if not variables:  # as Keras builds it when it reads `.h5` files
            return _Slots(self, self._rate.tx, {})
        params = {path: variable.value for path, variable in variables.items()}
        tx, _ = _unwrapped(_keras(), built_for(self._derived, params), None)
        self._rate = _rate_of(tx)
        return _Slots(self, tx, dict(variables))

    def _tested_slots(self, variables: Mapping[str, Any]) -> _Slots:
        """The state before the first step. A foreign transformation is traced once, to fail here if it must."""
        if not _is_foreign(self._rate.tx):
            return _Slots(self, self._rate.tx, variables)
        with _explained(self._rate.tx):
            slots = _Slots(self, self._rate.tx, variables)
            params = slots.values()
            with contextlib.suppress(jax.errors.JAXTypeError):  # it may work where Keras does not compile
                jax.eval_shape(self._rate.update, jnp.zeros(()), params, slots.state(), params)
        return slots

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """As in Keras, and saved with the model, which Keras's optimizers do not."""
        var_list, var_names = list(var_list or ()), list(var_names or ())
        super().exclude_from_weight_decay(var_list, var_names)
        self._excluded = _Excluded((variable.path for variable in var_list), var_names)

    def _settle_exclusions(self, variables: Sequence[Any]) -> None:
        """Tell Keras which variables a facade or a config excludes: those name paths, Keras wants the objects."""
        excluded, names = self._excluded, [variable.path for variable in variables]
        positions = excluded.among(names)
        all_found = len(positions) >= len(set(excluded.paths))
        if excluded and not hasattr(self, "_exclude_from_weight_decay"):
            super().exclude_from_weight_decay([variables[i] for i in positions], list(excluded.patterns))
            if self.weight_decay is not None and not all_found:
                missing = ", ".join(path for path in excluded.paths if path not in names)
                warnings.warn(
                    f"as_keras: there is no variable {missing}, which was to be excluded from weight decay: if the "
                    "names have changed, compile with another optimizer, after its exclude_from_weight_decay",
                    stacklevel=3,
                )
        if all_found:
            self._excluded = _Excluded((names[i] for i in positions), excluded.patterns, positions)

    def _backend_apply_gradients(self, grads: Any, trainable_variables: Any) -> None:
        self._applying = True
        try:
            super()._backend_apply_gradients(grads, trainable_variables)
        finally:
            self._applying = False

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """All variables at once. Of those without a gradient neither value nor state changes."""
        slots = self._slots
        assert slots is not None
        given = {id(variable): grad for grad, variable in zip(grads, trainable_variables, strict=True)}
        params = slots.values()
        missing = {path for path, variable in slots.params.items() if id(variable) not in given}
        filled = slots.tree(
            (path, jnp.zeros_like(params[path]) if path in missing else _dense(given[id(variable)]))
            for path, variable in slots.params.items()
        )
        update = self._rate.update if self._derived is None else self._updating_only(set(params) - missing)
        updates, state = update(_number(learning_rate), filled, slots.state(), params)
        for path, value in apply_updates(params, updates).items():
            if path not in missing:
                self.assign(slots.params[path], value)
        slots.write(state, missing, self.assign)

    def _updating_only(self, active: Collection[str]) -> Callable[..., tuple[Tree, Any]]:
        """An update that calls the `update_step` of a derived optimizer for these variables only."""

        def update(rate: Any, grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
            tx = self._rate.transformation(rate)
            names = [path for path in params if path in active]
            return (tx if len(names) == len(params) else skipping(tx, names)).update(grads, state, params)

        return update

    def _apply_weight_decay(self, variables: Any) -> None:
        """Keras multiplies the decay by the learning rate; that is the one in use, also under Keras 2's `decay`."""
        self._decaying = True
        try:
            super()._apply_weight_decay(variables)
        finally:
            self._decaying = False

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The update of one variable, as if the others had no gradient."""
        self._backend_update_step([gradient], [variable], learning_rate)

    # The learning rate.

    @property
    def learning_rate(self) -> Any:
        """Keras's variable, or the value of a schedule. Under Keras 2's `decay` it is the rate at the start."""
        if isinstance(self._rate, _Hidden) and not self._applying:
            raise AttributeError(f"learning_rate cannot be read: {self._rate.fixed}")
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._learning_rate is None:
            raise TypeError(f"learning_rate cannot be set: {self._rate.fixed}")
        property_of_keras: Any = super(_Adapter, type(self)).learning_rate
        property_of_keras.fset(self, value)

    @property
    def lr(self) -> Any:
        """The learning rate, by its old name. It can be assigned."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value

    def _get_current_learning_rate(self) -> Any:
        if self._learning_rate is None:
            return self._rate.at(_array(self.iterations), None)
        given = super()._get_current_learning_rate()
        return self._rate.at(_array(self.iterations), _array(given)) if self._decaying else given

    def finalize_variable_values(self, var_list: Any) -> None:
        """Write the averages over the variables, as copies, because a later `fit` donates both."""
        super().finalize_variable_values(var_list)
        for variable in var_list if self.use_ema else ():
            variable.assign(jnp.copy(variable.value))

    # Files.

    def get_config(self) -> dict[str, Any]:
        try:
            transformation = self._config_of_transformation()
        except TypeError as error:
            raise TypeError(
                f"as_keras: the optimizer cannot be saved: {error}; model.save_weights saves the numbers without it, "
                "and so does model.compile(optimizer=None) before model.save"
            ) from None
        config = super().get_config()
        if self._learning_rate is None:
            config["learning_rate"] = None
        if self._excluded:
            config[_EXCLUDED] = self._excluded.config()
        return {"transformation": transformation, **config}

    def _config_of_transformation(self) -> Any:
        """As `gradtx.to_config` writes it; of a derived optimizer, as Keras writes objects of registered classes."""
        if self._derived is None:
            return to_config(self._rate.tx)
        return _keras().saving.serialize_keras_object(self._derived)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        transformation = config.get("transformation")
        if isinstance(transformation, Mapping):
            is_object = "class_name" in transformation
            read = _keras().saving.deserialize_keras_object if is_object else from_config
            config["transformation"] = read(transformation)
        excluded = _Excluded(**config.pop(_EXCLUDED, {}))
        optimizer = super().from_config(config, custom_objects)
        optimizer._excluded = excluded
        return optimizer

    def save_own_variables(self, store: Any) -> None:
        if self._pending is None:
            return super().save_own_variables(store)
        for key, value in self._pending.arrays.items():
            store[key] = value
        return None

    def load_own_variables(self, store: Any) -> None:
        """Before `build` there is nothing to load into: what is in the file is kept until then."""
        if self.built or len(store.keys()) <= len(self.variables):
            return super().load_own_variables(store)
        self._pending = _Pending({key: np.array(store[key]) for key in store.keys()})  # noqa: SIM118
        return None


class _Pending:
    """Values that were loaded before the variables were there. An object, so that Keras does not wrap the dict."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays

    def check(self, variables: Sequence[Any]) -> None:
        shapes = [
            (v.path, tuple(v.shape), self.arrays[str(i)].shape) for i, v in enumerate(variables[: len(self.arrays)])
        ]
        if len(variables) == len(self.arrays) and (wrong := [item for item in shapes if item[1] != item[2]]):
            path, expected, got = wrong[0]
            raise ValueError(
                f"as_keras: the state that was loaded belongs to another model: {path} has the shape {list(expected)}, "
                f"the saved one {list(got)}"
            )


def __getattr__(name: str) -> Any:
    """The class that pickles refer to."""
    if name == _CLASS:
        return _optimizer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _optimizer_class() -> Any:
    """The class, made when Keras is there. Saved files refer to it by the name it is registered under."""
    import keras

    body = {"__module__": __name__, "__doc__": "A gradtx or optax transformation as Keras's optimizer; see `as_keras`."}
    cls = type(_CLASS, (_Adapter, keras.optimizers.Optimizer), body)
    return keras.saving.register_keras_serializable(package=_PACKAGE)(cls)


def _check(tx: Any) -> None:
    if isinstance(tx, type) or not isinstance(tx, Transformation):
        hint = f": call it, {tx.__name__}(...)" if isinstance(tx, type) else ""
        raise TypeError(f"as_keras: expected a transformation (init and update), got {describe(tx)}{hint}")
    if getattr(tx, "sums_examples", False):
        raise TypeError(
            f"as_keras: {type(tx).__name__} needs the gradient of each example at every update, which Keras does not "
            "compute: train with a loop of your own"
        )
    if needed := sorted(extras_of(tx).required):
        raise TypeError(
            f"as_keras: {type(tx).__name__} needs {', '.join(needed)} at every update, which Keras does not give its "
            "optimizers: train with a loop of your own"
        )


def _is_foreign(tx: Any) -> bool:
    """Whether it is, or has in it, a transformation that is not gradtx's."""
    if not isinstance(tx, GradientTransformation):
        return True
    return isinstance(tx, Container) and any(map(_is_foreign, tx.parts))


@contextlib.contextmanager
def _explained(tx: Any) -> Iterator[None]:
    """Say of a foreign transformation that fails which it is, and what it is given."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"as_keras: {_title(tx)} does not work inside Keras ({type(error).__name__}: {error}), where it is given "
            "one dict of the variables and, at every update, gradients and parameters alone: train with a loop of "
            "your own"
        ) from error


def _title(tx: Any) -> str:
    """`optax.lookahead`: the function that made it; of a chain of gradtx, those of its parts that are foreign."""
    if isinstance(tx, Container):
        return ", ".join(_title(part) for part in tx.parts if _is_foreign(part))
    function = getattr(tx.update, "__qualname__", "").partition(".<locals>")[0]
    return f"{tx.update.__module__.partition('.')[0]}.{function}" if function else describe(tx)


def _initial(keras: Any, rate: _Rate, learning_rate: Any) -> Any:
    """What Keras begins with: a number, a Keras schedule or a function; `None` if it has no say."""
    if rate.fixed:
        if learning_rate is not None:
            raise ValueError(f"as_keras: learning_rate={learning_rate!r} would be ignored: {rate.fixed}")
        return None
    if learning_rate is None:
        if rate.initial is None:
            raise ValueError(
                f"as_keras: {rate.tx!r} has no learning rate: give one, as_keras(..., learning_rate=1e-3), by which "
                "the updates are multiplied, with the sign turned; or chain(..., gradtx.scale_by_learning_rate(1e-3))"
            )
        return rate.initial
    if isinstance(learning_rate, Spec):
        raise TypeError(f"as_keras: {learning_rate!r} is gradtx's: give it to the transformation")
    return learning_rate if is_schedule(learning_rate) else float(_array(learning_rate))


def _auto_name(keras: Any, tx: Any) -> str:
    """As Keras names its optimizers: `adam`, the next one `adam_1`."""
    return _counted(keras, type(tx).__name__ if isinstance(tx, GradientTransformation) else "transformation")


def _counted(keras: Any, name: str) -> str:
    number = keras.backend.get_uid(name)
    return name if number == 1 else f"{name}_{number - 1}"


def _array(x: Any) -> Array:
    """The value of a Keras variable, or the array itself."""
    return jnp.asarray(getattr(x, "value", x))


def _number(rate: Any) -> Any:
    return None if rate is None else _array(rate).astype(jnp.result_type(float))


def _dense(grad: Any) -> Array:
    import keras

    dense: Any = keras.ops.convert_to_tensor(grad, sparse=False)
    return dense


# Optimizers of `gradtx.keras`.


def _check_facade(facade: Facade) -> None:
    """Refuse what Keras has to do itself."""
    name = type(facade).__name__
    if isinstance(facade, MultiOptimizer):
        own = "OptimizerMap(as_keras(default_optimizer), {pattern: as_keras(optimizer)})"
        raise TypeError(
            f"as_keras: {name} must be Keras's own: keras.optimizers.MultiOptimizer(keras.optimizers.{own})"
        )
    if isinstance(facade, Holder):
        fixed = None if getattr(facade, "dynamic", True) else getattr(facade, "initial_scale", None)
        own = "keras.optimizers.LossScaleOptimizer(as_keras(inner_optimizer))"
        cure = own if fixed is None else f"as_keras(inner_optimizer, loss_scale_factor={fixed:g})"
        raise TypeError(f"as_keras: {name} must be Keras's own, or Keras does not scale the loss: {cure}")


def _is_derived(facade: Facade) -> bool:
    """Whether it is someone's own class, with an `update_step`."""
    return isinstance(facade, UpdateStep)


def _unwrapped(keras: Any, facade: Facade, learning_rate: Any) -> tuple[Any, Any]:
    """The chain of a facade, and what Keras begins with if not with the chain's rate.

    Of those of Keras 3 only the update itself: clipping, decay and averages are the real Keras's business. A rate under
    Keras 2's `decay` is given as a schedule of which the rate at the start can be told, and set.
    """
    given = facade.given_rate.value
    decays = bool(getattr(facade, "decay", 0.0)) and not is_schedule(given) and not takes_nothing(given)
    if not isinstance(facade, Modern):
        settable = facade.compose(constant_schedule(given)) if decays else None
        is_decaying = settable is not None and isinstance(
            _rate_of(settable), _Decaying
        )  # legacy Nadam's `decay` is not
        return settable if is_decaying else facade.transformation, learning_rate
    if isinstance(given, keras.optimizers.schedules.LearningRateSchedule) or takes_nothing(given):
        return facade.chain(1.0), given if learning_rate is None else learning_rate
    rate, window = constant_schedule(given) if decays else given, facade.window
    rate = with_decay(rate, facade.decay)
    if window > 1 and is_schedule(rate):
        rate = schedule_of_microsteps(rate, window)
    return facade.chain(rate), learning_rate


def _base_of(facade: Modern, base: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of Keras's own class: the facade's, but for those that were given anew."""
    defaults = inspect.signature(as_keras).parameters
    own = {name: getattr(facade, name) for name in facade.fields() if name in defaults and name not in _NOT_BASE}
    own |= {name: value for name, value in base.items() if value != defaults[name].default}
    return own | {"weight_decay": None} if facade.decays_itself else own


_NOT_BASE = ("learning_rate", "name")


def _facade_name(keras: Any, facade: Facade) -> str:
    """The name that was given to it, or its class's, counted up as Keras does."""
    name, automatic = getattr(facade, "name", None), snake_case(type(facade).__name__)
    return _counted(keras, automatic) if name in (None, automatic) else name


# Names: `compile(optimizer="gradtx>adam")`.


_RATES = {"sgd": 0.01}
"Keras's default learning rates, where they are not 0.001."


class _Named:
    """What Keras finds under a name. It makes the optimizer of a config, which is empty if the name is all there is."""

    def __init__(self, make: Callable[[dict[str, Any]], Any]) -> None:
        self.make = make

    def from_config(self, config: Mapping[str, Any]) -> Any:
        return self.make(dict(config))


def _of_gradtx(cls: type[Optimizer], config: dict[str, Any]) -> Any:
    """Its hyper-parameters come before Keras's arguments of the same name: `weight_decay` of AdamW is its own."""
    fields = cls.field_kinds()
    own = {name: config.pop(name) for name in [*config] if name in fields}
    if "learning_rate" in _needed(cls):
        own.setdefault("learning_rate", _RATES.get(cls.__name__, 0.001))
    return as_keras(cls(**own), **config)


def _of_facade(cls: type[Facade], config: dict[str, Any]) -> Any:
    return as_keras(cls(**config))


_EMPTY = inspect.Parameter.empty


def register_with_keras() -> None:
    """Make Keras know gradtx: what `as_keras` saved can be loaded, and names stand for optimizers.

        model.compile(optimizer="gradtx>lion", loss="mse")
        keras.optimizers.get({"class_name": "gradtx>adamw", "config": {"learning_rate": 1e-4, "weight_decay": 0.1}})

    The names are those of gradtx's optimizers for which a learning rate is all that must be said; it is Keras's
    default. Those of `gradtx.keras` begin with a capital: `"gradtx>Adam"`. Where `gradtx.keras` and Keras are imported,
    in whatever order, this has been done; call it for optimizers that were defined after that.
    """
    keras = _keras()
    _optimizer_class()
    known = keras.saving.get_custom_objects()
    for name, cls in registry().items():
        if isinstance(cls, type) and issubclass(cls, Optimizer) and _needed(cls) <= {"learning_rate"}:
            known[f"{_PACKAGE}>{name}"] = _Named(functools.partial(_of_gradtx, cls))
    for name, cls in vars(optimizers).items():
        if isinstance(cls, type) and issubclass(cls, Keras3Optimizer) and not _needed(cls):
            known[f"{_PACKAGE}>{name}"] = _Named(functools.partial(_of_facade, cls))


def _needed(cls: type) -> set[str]:
    """The arguments without a default."""
    return {name for name, parameter in inspect.signature(cls).parameters.items() if parameter.default is _EMPTY}
