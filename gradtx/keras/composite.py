"""Optimizers that hold others: with a loss scale, one for each group of variables, and any gradtx or optax chain.

What they hold are optimizers of their own: these keep their states, counters and learning rates, and may be read and
changed at any time. A step is one compiled program all the same.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics, tree
from gradtx.core.base import EmptyState, GradientTransformation, Transformation, update_inner
from gradtx.core.compose import Container, Inner, chain, identity
from gradtx.core.hyperparams import Flag, Positive, PositiveInt, is_schedule
from gradtx.core.masks import MaskedNode, is_hidden, leaf_names, visible_only
from gradtx.core.spec import from_config, to_config
from gradtx.core.tree import Tree
from gradtx.fields import get_all_with_path, is_injected, replace
from gradtx.keras.modern import snake_case
from gradtx.keras.optimizer import Facade, OptimizerState, Weight, handed_back, unique
from gradtx.keras.registry import Identifiers
from gradtx.keras.table import Name
from gradtx.keras.variable import Variable, Variables
from gradtx.transforms.scaling import scale
from gradtx.wrappers.common import choose
from gradtx.wrappers.finite import DynamicLossScaleState, dynamic_loss_scale, scale_loss
from gradtx.wrappers.inject import _hyperparams, _with_hyperparams
from gradtx.wrappers.masked import MaskedState, init_visible, merge, update_visible
from gradtx.wrappers.partition import TransformationsKind

__all__ = [
    "ByVariableState",
    "LossScaleOptimizer",
    "MultiOptimizer",
    "OptimizerMap",
    "TFOptimizer",
    "TfKerasLossScaleOptimizer",
    "by_variable",
    "count_skipped",
]


class _Composite(Facade, abstract=True):
    """Base of optimizers that may have more or fewer than one learning rate."""

    def _rate_array(self) -> Any:
        """What stands for the learning rate beside a state: a number, or several."""
        return jnp.asarray(self.learning_rate, jnp.float32)

    def _take_rate(self, rate: Any) -> None:
        """Go on with the learning rate that was among weights, if it is another one."""
        if rate is not None and np.float32(rate) != np.float32(self.learning_rate):
            self.learning_rate = float(rate)

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        state, rate = self._required_state("get_weights"), self._rate_array()
        return [np.asarray(self._value_of(weight, state, rate), weight.dtype).copy() for weight in self.weight_list()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        self._required_state("set_weights")
        state, rate = self._state_of(self._named([np.asarray(w) for w in weights]))
        self._keep(state)
        self._take_rate(rate)

    @property
    def variables(self) -> list[Array]:
        state, rate = self._required_state("variables"), self._rate_array()
        return [jnp.array(self._value_of(weight, state, rate)) for weight in self.weight_list()]

    @property
    def weights(self) -> list[Array]:
        """The weights as arrays, by their older name."""
        return self.variables

    def save_own_variables(self, store: Any) -> None:
        """Write the weights into a mapping, as Keras does into its files."""
        for i, weight in enumerate(self.get_weights()):
            store[str(i)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read the weights from a mapping that `save_own_variables` filled."""
        self.set_weights([np.asarray(store[str(i)]) for i in range(len(store.keys()))])


class Origin(NamedTuple):
    """Which of the optimizers held has a weight, and what the weight is to that one."""

    index: int
    weight: Weight


class _Holder(_Composite, abstract=True):
    """Base of optimizers whose states and learning rates are those of the optimizers that they hold.

    `_own` is what it remembers beside them. The state for the compiled program is put together before a step, and
    taken apart after it.
    """

    identifiers: ClassVar[Identifiers | None] = None
    "The optimizers of its generation, by which its configs are read and written."

    _own: Any = None

    @property
    def optimizers(self) -> list[Facade]:
        """The optimizers that it holds."""
        raise NotImplementedError(f"{type(self).__name__} defines no optimizers")

    def _joined(self, own: Any, parts: Sequence[OptimizerState]) -> OptimizerState:
        """The state made of its own and those of the optimizers held."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to join states")

    def _part(self, state: OptimizerState, index: int) -> OptimizerState:
        """The state of one of the optimizers held, as it is in the joint state."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to part states")

    def _own_part(self, state: OptimizerState) -> Any:
        """The rest."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to part states")

    def _rate_part(self, rate: Any, index: int) -> Any:
        """The learning rate of one of the optimizers held."""
        return rate

    @property
    def _state(self) -> OptimizerState | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self._own is None:
            return None
        return self._joined(self._own, [opt._required_state("its state") for opt in self.optimizers])

    def _keep(self, state: OptimizerState) -> None:
        self._own = self._own_part(state)
        for index, opt in enumerate(self.optimizers):
            opt._keep(self._part(state, index))

    # Weights: those of the optimizers held, behind its own.

    def slot_weights(self) -> Iterator[Weight]:
        for index, opt in enumerate(self.optimizers):
            for weight in opt.weight_list():
                origin: Any = Origin(index, weight)
                yield weight._replace(name=self._name_of(index, weight), field="", factor=1.0, derived=origin)

    def _name_of(self, index: int, weight: Weight) -> str:
        """What the weight of one of the optimizers held is called here."""
        return weight.name

    def _value_of(self, weight: Weight, state: OptimizerState, rate: Any) -> Any:
        if not isinstance(weight.derived, Origin):
            return super()._value_of(weight, state, rate)
        index, own = weight.derived
        opt = self.optimizers[index]
        if own.variable == "*":  # all have the same: any that it has will do
            own = own._replace(variable=next(iter(opt._built or ())))
        return opt._value_of(own, self._part(state, index), self._rate_part(rate, index))

    def _states_of(self, named: Mapping[Weight, Any]) -> list[tuple[OptimizerState, Any]]:
        """State and learning rate of each optimizer held that has these weights."""
        held: list[dict[Weight, Any]] = [{} for _ in self.optimizers]
        for weight, value in named.items():
            if isinstance(weight.derived, Origin):
                held[weight.derived.index][weight.derived.weight] = value
        return [opt._state_of(own) for opt, own in zip(self.optimizers, held, strict=True)]

    # Configs: those of the optimizers held are in them.

    def get_config(self) -> dict[str, Any]:
        known = _known(type(self))
        config = super().get_config()
        return {name: known.serialize(v) if _is_held(v) else v for name, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        known = _known(cls)
        return cls(**{n: known.deserialize(v, custom_objects) if _is_config(v) else v for n, v in config.items()})


def _known(cls: Any) -> Identifiers:
    """The optimizers of its generation."""
    if cls.identifiers is None:
        raise ValueError(f"{cls.__name__}: of which generation? Import the module of its optimizers first")
    return cls.identifiers


def _is_held(value: Any) -> bool:
    return isinstance(value, Facade | OptimizerMap) or callable(value)


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_name" in value and not isinstance(value, OptimizerMap)


class HeldKind:
    """An optimizer that another one holds."""

    example = None
    numeric = False

    def convert(self, where: str, value: Any) -> Facade:
        if isinstance(value, type):
            raise TypeError(f"{where} is the class {value.__name__}: call it, {value.__name__}(...)")
        if not isinstance(value, Facade):
            cure = f": optimizers.get({value!r}) makes one" if isinstance(value, str) else ""
            cure = ": wrap it, TFOptimizer(...)" if isinstance(value, Transformation) else cure
            raise TypeError(f"{where} must be an optimizer of gradtx.keras, got {check.describe(value)}{cure}")
        return value


Held = Annotated[Any, HeldKind()]
"An optimizer that another one holds."


def _rate_array(opt: Facade) -> Any:
    return opt._rate_array() if isinstance(opt, _Composite) else jnp.asarray(opt.learning_rate, jnp.float32)


# Loss scales.


class count_skipped(Container, name="keras.count_skipped"):
    """Let the gradients that a loss scale leaves out count all the same: schedules and bias corrections go on.

    So it is in tf.keras, where a step that does nothing is a step.
    """

    State = DynamicLossScaleState

    inner: Inner
    "A `dynamic_loss_scale`."

    @classmethod
    def example(cls) -> Self:
        return cls(dynamic_loss_scale.example())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, dynamic_loss_scale):
            raise TypeError(f"count_skipped: inner must be a dynamic_loss_scale, got {self.inner!r}")

    def init_fn(self, params: Tree) -> DynamicLossScaleState:
        return self.inner.init_fn(params)

    def update_fn(
        self, updates: Tree, state: DynamicLossScaleState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, DynamicLossScaleState]:
        new, after = update_inner(self.inner, updates, state, params, extra)
        skipped = after.total_notfinite != state.total_notfinite
        return new, after._replace(inner_state=choose(skipped, _counted_on(after.inner_state), after.inner_state))


def _counted_on(state: Any) -> Any:
    """The state with its counters one further, and nothing else."""

    def step(path: tuple[Any, ...], leaf: Any) -> Any:
        is_counter = bool(path) and getattr(path[-1], "name", "") in ("count", "step_count")
        return numerics.increment(leaf) if is_counter else leaf

    return jax.tree_util.tree_map_with_path(step, state)


class _LossScale(_Holder, abstract=True):
    """Base of the optimizers with a loss scale."""

    quiet: ClassVar[frozenset[str]] = frozenset({"min_scale", "max_scale"})

    min_scale: Positive = dynamic_loss_scale.min_scale
    "The scale never falls below. Gradients that overflow even there are counted in `exhausted`."
    max_scale: Positive = dynamic_loss_scale.max_scale
    "The scale never grows beyond."

    def check_settings(self) -> None:
        name, inner = type(self).__name__, self.inner_optimizer
        if isinstance(inner, _LossScale):
            raise ValueError(f"{name}: inner_optimizer is a {type(inner).__name__} already: one loss scale is enough")
        if getattr(inner, "loss_scale_factor", None) is not None:
            raise ValueError(
                f"{name}: inner_optimizer has loss_scale_factor={inner.loss_scale_factor:g}, and its gradients would "
                "be divided twice: leave it out"
            )
        if not self.min_scale <= self.initial_scale <= self.max_scale:
            raise ValueError(
                f"{name}: min_scale ≤ initial_scale ≤ max_scale must hold, "
                f"got {self.min_scale:g}, {self.initial_scale:g}, {self.max_scale:g}: move the bound that is in the way"
            )

    @property
    def optimizers(self) -> list[Facade]:
        return [self.inner_optimizer]

    # The chain: a loss scale around that of the inner optimizer.

    def scaling(self, tx: Transformation) -> Transformation:
        """The transformation, for gradients of the scaled loss."""
        growth = self.dynamic_growth_steps
        return dynamic_loss_scale(tx, self.initial_scale, growth, min_scale=self.min_scale, max_scale=self.max_scale)

    def compose(self, learning_rate: Any) -> Transformation:
        return self.scaling(self.inner_optimizer.compose(learning_rate))

    def _transformation_with_live_rate(self) -> Transformation:
        tx = self.inner_optimizer._transformation_with_live_rate()
        if self._live is None or self._live[0] is not tx:
            self._live = tx, self.scaling(tx)
        return self._live[1]

    @classmethod
    def scaled_loss(cls, inner_state: Any, loss: Any) -> Any:
        return scale_loss(inner_state, loss) if isinstance(inner_state, DynamicLossScaleState) else loss

    def clipping(self) -> Transformation | None:
        return self.inner_optimizer.clipping()

    @property
    def window(self) -> int:
        return self.inner_optimizer.window

    @property
    def first_count(self) -> int:
        return self.inner_optimizer.first_count

    # The learning rate.

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the inner optimizer. It can be assigned."""
        return self.inner_optimizer.learning_rate

    def _set_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def _rate_in_use(self) -> Any:
        return self.inner_optimizer._rate_in_use()

    def _rate_array(self) -> Any:
        return _rate_array(self.inner_optimizer)

    def _take_rate(self, rate: Any) -> None:
        if isinstance(self.inner_optimizer, _Composite):
            self.inner_optimizer._take_rate(rate)
        else:
            super()._take_rate(rate)

    # The state: that of the scale, around that of the inner optimizer.

    def build(self, variables: Tree) -> None:
        """Create the state for these parameters. One that the inner optimizer has already is kept, the first time."""
        inner = self.inner_optimizer
        if self._own is not None or not inner.built:
            inner.build(variables)
        else:
            inner._recognised(Variables.of(variables), variables)
        self._built, self._assignable, self._live = inner._built, inner._assignable, None
        self._own = self._before()

    def _before(self) -> Any:
        """Its own state before the first step."""
        scale = jnp.asarray(self.initial_scale, jnp.float32)
        return DynamicLossScaleState(scale, numerics.counter(), numerics.counter(), numerics.counter(), None)

    def _around(self, own: Any, inner_state: Any) -> Any:
        """The state of the chain."""
        return own._replace(inner_state=inner_state)

    def _inside(self, inner_state: Any) -> Any:
        """The state of the inner optimizer's chain."""
        return inner_state.inner_state

    def _own_part(self, state: OptimizerState) -> Any:
        return state.inner_state._replace(inner_state=None)

    def _joined(self, own: Any, parts: Sequence[OptimizerState]) -> OptimizerState:
        return OptimizerState(parts[0].iterations, self._around(own, parts[0].inner_state))

    def _part(self, state: OptimizerState, index: int) -> OptimizerState:
        return OptimizerState(state.iterations, self._inside(state.inner_state))

    def _counted(self, inner_state: Any, steps: Any) -> Any:
        counted = self.inner_optimizer._counted(self._inside(inner_state), steps)
        return self._around(inner_state, counted)

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        self._required_state("its weights")
        ((inner, rate),) = self._states_of(named)
        return self._joined(self._own, [inner]), rate

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the inner optimizer's running mean over the variables, where it keeps one."""
        return self.inner_optimizer.finalize_variable_values(var_list)

    # What it says about the scale.

    @property
    def dynamic_scale(self) -> float:
        """By what the loss is to be multiplied now."""
        return float(self._own.loss_scale) if self.built else self.initial_scale

    @property
    def total_notfinite(self) -> int:
        """How many gradients have been left out because they were not finite."""
        return int(self._own.total_notfinite) if self.built else 0

    @property
    def exhausted(self) -> int:
        """How many in a row were not finite with the scale at its floor: the model makes these, not the scale."""
        return int(self._own.exhausted) if self.built else 0

    def scale_loss(self, loss: Any) -> Array:
        """The loss times the present scale, to be differentiated; `apply` takes the gradients as they are.

        Within your own `jax.jit` the scale of the moment of tracing stays in the program: there,
        `gradtx.scale_loss(state, loss)` with the state as an argument.
        """
        return tree.scale(jnp.asarray(self.dynamic_scale, jnp.float32), jnp.asarray(loss))


_BASE_DEFAULTS: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
    "dynamic": True,
}
"What earlier versions of Keras 3 wrote into the config of a loss scale, to no effect."


class LossScaleOptimizer(_LossScale):
    """Keras 3's optimizer with a dynamic loss scale S, which keeps the gradients of float16 from vanishing.

        opt = LossScaleOptimizer(Adam(1e-3))
        grads = jax.grad(lambda params: opt.scale_loss(loss(params)))(params)
        params = opt.apply(grads, params)            # or at once: opt.minimize(loss, params)

    `apply` takes the gradients of the scaled loss and divides them by S. If one is not finite, nothing is updated or
    counted and S is halved; after `dynamic_growth_steps` finite ones in a row it is doubled.

    S stays between `min_scale` and `max_scale`, where Keras has no bounds; `total_notfinite` and `exhausted` tell how
    often it did not suffice. Micikevicius et al., 2017, https://arxiv.org/abs/1710.03740.

    Raises:
        ValueError: the inner optimizer scales losses itself.
    """

    inner_optimizer: Held
    "The optimizer. It has the learning rate and all the rest."
    initial_scale: Positive = dynamic_loss_scale.init_scale
    "S in the beginning."
    dynamic_growth_steps: PositiveInt = dynamic_loss_scale.growth_interval
    "Finite gradients in a row before S grows."
    name: Name = None
    "Its name in configs and in those of its weights."

    def check_settings(self) -> None:
        super().check_settings()
        if self.name is None:
            self.name = snake_case(type(self).__name__)

    @classmethod
    def advanced(cls, iterations: Array, old: Any, new: Any) -> Array:
        skipped = new.total_notfinite != old.total_notfinite
        return jnp.where(skipped, iterations, numerics.increment(iterations))

    @property
    def step_counter(self) -> int:
        """Finite gradients since the scale last changed."""
        return int(self._own.growth_count) if self.built else 0

    def header(self) -> Iterator[Weight]:
        yield Weight(f"{self.name}/iteration", "", derived=_unused_counter)
        yield Weight(f"{self.name}/learning_rate", "", derived=_unused_rate)
        yield Weight(f"{self.name}/step_counter", "growth_count")
        yield Weight(f"{self.name}/dynamic_scale", "loss_scale")

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        state, rate = super()._state_of(named)
        own = {weight.field: value for weight, value in named.items() if weight.field}
        scale = own["loss_scale"]
        if not isinstance(scale, jax.core.Tracer) and not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"{type(self).__name__}: the weight dynamic_scale must be positive, got {float(scale):g}")
        inner_state = state.inner_state._replace(
            loss_scale=jnp.asarray(scale, jnp.float32), growth_count=jnp.asarray(own["growth_count"], jnp.int32)
        )
        return state._replace(inner_state=inner_state), rate

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        fields = cls.fields()
        idle = [n for n, default in _BASE_DEFAULTS.items() if n not in fields and config.get(n, default) == default]
        return super().from_config({n: value for n, value in config.items() if n not in idle}, custom_objects)


def _unused_counter(state: Any, variable: str) -> Array:
    return jnp.zeros((), jnp.int32)


def _unused_rate(state: Any, variable: str) -> Array:
    return jnp.zeros((), jnp.float32)


class TfKerasLossScaleOptimizer(_LossScale):
    """tf.keras's optimizer with a loss scale S: dynamic, or fixed at `initial_scale`.

        scaled = jax.grad(lambda params: opt.get_scaled_loss(loss(params)))(params)
        grads = opt.get_unscaled_gradients(scaled)
        params = opt.apply_gradients(zip(grads, params))    # or at once: opt.minimize(loss, params)

    `apply_gradients` takes true gradients, as in tf.keras, where the loop divides them; `apply` takes those of the
    scaled loss and divides them itself, as in Keras 3. Inside, it is one chain: what comes from `apply_gradients` is
    multiplied by S first, which is exact where S is a power of two.

    A gradient that is not finite is left out, but counts as a step, and so for Adam's bias correction; S is halved, to
    `min_scale` at least. A fixed scale looks at nothing and leaves nothing out.

    Raises:
        ValueError: the inner optimizer scales losses itself; a fixed scale without `initial_scale`.
    """

    inner_optimizer: Held
    "The optimizer. It has the learning rate and all the rest."
    dynamic: Flag = True
    "Whether S adapts itself."
    initial_scale: Positive | None = None
    "S in the beginning; 2¹⁵ by default if it is dynamic."
    dynamic_growth_steps: PositiveInt | None = None
    "Finite gradients in a row before S grows; 2000 by default."

    def check_settings(self) -> None:
        name = type(self).__name__
        if self.dynamic:
            self.initial_scale = self.initial_scale or dynamic_loss_scale.init_scale
            self.dynamic_growth_steps = self.dynamic_growth_steps or dynamic_loss_scale.growth_interval
        elif self.initial_scale is None:
            raise ValueError(f"{name}: with dynamic=False the scale is initial_scale: give it")
        elif self.dynamic_growth_steps is not None:
            raise ValueError(f"{name}: a scale that is not dynamic does not grow: leave dynamic_growth_steps out")
        super().check_settings()
        if self.inner_optimizer.window != 1:
            raise ValueError(
                f"{name}: an optimizer that accumulates gradients is Keras 3's: use its LossScaleOptimizer"
            )

    def scaling(self, tx: Transformation) -> Transformation:
        return count_skipped(super().scaling(tx)) if self.dynamic else chain(scale(1 / self.initial_scale), tx)

    def loss_scale(self) -> float:
        return 1.0 if self.dynamic else self.initial_scale

    def _before(self) -> Any:
        return super()._before() if self.dynamic else EmptyState()

    def _around(self, own: Any, inner_state: Any) -> Any:
        return super()._around(own, inner_state) if self.dynamic else (EmptyState(), inner_state)

    def _inside(self, inner_state: Any) -> Any:
        return super()._inside(inner_state) if self.dynamic else inner_state[1]

    def _own_part(self, state: OptimizerState) -> Any:
        return super()._own_part(state) if self.dynamic else EmptyState()

    @property
    def dynamic_scale(self) -> float:
        return super().dynamic_scale if self.dynamic else self.initial_scale

    @property
    def total_notfinite(self) -> int:
        return super().total_notfinite if self.dynamic else 0

    @property
    def exhausted(self) -> int:
        return super().exhausted if self.dynamic else 0

    @property
    def dynamic_counter(self) -> int | None:
        """Finite gradients since the scale last changed; `None` if it is fixed."""
        if not self.dynamic:
            return None
        return int(self._own.growth_count) if self.built else 0

    def get_scaled_loss(self, loss: Any) -> Array:
        """The loss times the present scale, to be differentiated."""
        return self.scale_loss(loss)

    def get_unscaled_gradients(self, grads: Tree) -> Tree:
        """Gradients of the scaled loss, divided by the present scale; `None` stays."""
        return tree.scale(jnp.asarray(1 / self.dynamic_scale, jnp.float32), grads)

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        """One step along true gradients, given with their variables; those not finite are left out."""
        pairs = list(grads_and_vars)
        if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            factor = jnp.asarray(self.dynamic_scale, jnp.float32)
            grads = _scaled([grad for grad, _ in pairs], factor)
            pairs = [(grad, variable) for grad, (_, variable) in zip(grads, pairs, strict=True)]
        return super().apply_gradients(pairs, **kwargs)

    def header(self) -> Iterator[Weight]:
        return iter(())


@jax.jit
def _scaled(grads: list[Any], factor: Array) -> list[Any]:
    """The gradients times a factor, in float32 at least, so that they do not overflow."""
    return jax.tree.map(lambda g: g.astype(numerics.compute_dtype(g.dtype)) * factor.astype(_real(g)), grads)


def _real(grad: Array) -> Any:
    return numerics.real_dtype(numerics.compute_dtype(grad.dtype))


# An optimizer for each group of variables.


class ByVariableState(NamedTuple):
    """The state of `by_variable`."""

    counts: dict[str, Array]
    "By label, int32[]: the updates of that transformation."
    inner_states: dict[str, MaskedState]
    "By label, its state, with `MaskedNode()` in the place of the variables of others."


class by_variable(Container, name="keras.by_variable"):
    """Give every variable to the transformation of its label, and count their updates one by one.

    Unlike in `partition`, a group may be empty: a transformation without gradients stays as it is.
    """

    State = ByVariableState
    elementwise = False  # which leaf an element is in matters

    transforms: Annotated[Any, TransformationsKind()]
    "A dict from labels to transformations."
    labels: dict[str, str]
    "A dict from the paths of variables to labels."
    otherwise: str | None = None
    "The label of other variables."

    @classmethod
    def example(cls) -> Self:
        return cls({"all": scale(-0.5)}, {}, "all")

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return tuple(self.transforms.values())

    def _masks(self, params: Tree) -> dict[str, list[bool]]:
        labels = [self.labels.get(name, self.otherwise) for name in leaf_names(params)]
        if lost := [name for name, own in zip(leaf_names(params), labels, strict=True) if own not in self.transforms]:
            raise ValueError(f"by_variable: no transformation for {', '.join(lost)}")
        return {label: visible_only(params, [own == label for own in labels]) for label in self.transforms}

    def init_fn(self, params: Tree) -> ByVariableState:
        masks = self._masks(params)
        states = {label: init_visible(tx, params, masks[label]) for label, tx in self.transforms.items()}
        return ByVariableState({label: numerics.counter() for label in self.transforms}, states)

    def update_fn(
        self, updates: Tree, state: ByVariableState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, ByVariableState]:
        masks = self._masks(updates if params is None else params)
        leaves, treedef = jax.tree.flatten(updates)
        counts, states = dict(state.counts), dict(state.inner_states)
        for label, tx in self.transforms.items():
            if not any(masks[label]):
                continue
            new, states[label] = update_visible(tx, updates, states[label], params, extra, masks[label])
            leaves, counts[label] = merge(masks[label], new, leaves), numerics.increment(counts[label])
        return treedef.unflatten(leaves), ByVariableState(counts, states)


class OptimizerMap(MutableMapping[str, Any]):
    """Which optimizer a variable has, by regular expressions that match the whole of its path; else the default.

        OptimizerMap(SGD(0.1), {"encoder/.*": Adam(1e-3)})

    Raises:
        ValueError: asked for a variable whose path two of the expressions match.

    >>> from gradtx.keras.optimizers import SGD, Adam
    >>> optimizers = OptimizerMap(SGD(0.1), {"encoder/.*": Adam()})
    >>> optimizers["encoder/kernel"], optimizers["decoder/kernel"]
    (Adam(name='adam'), SGD(learning_rate=0.1, name='sgd'))
    """

    identifiers: ClassVar[Identifiers | None] = None
    "The optimizers of its generation, by which its configs are read and written."

    def __init__(self, default_optimizer: Any, optimizer_map: Mapping[str, Any] | None = None) -> None:
        self.default_optimizer = HeldKind().convert("OptimizerMap: default_optimizer", default_optimizer)
        self._refuse("default_optimizer", default_optimizer)
        if optimizer_map is not None and not isinstance(optimizer_map, Mapping):
            raise TypeError(f"OptimizerMap: optimizer_map must be a dict, got {check.describe(optimizer_map)}")
        self._map: dict[str, Facade] = {}
        for pattern, optimizer in (optimizer_map or {}).items():
            self[pattern] = optimizer

    def _refuse(self, where: str, optimizer: Any) -> None:
        if isinstance(optimizer, _LossScale | MultiOptimizer):
            raise ValueError(f"OptimizerMap: {where} cannot be a {type(optimizer).__name__}: put that around the whole")

    def __getitem__(self, key: str) -> Facade:
        if key in self._map:
            return self._map[key]
        matching = [pattern for pattern in self._map if re.fullmatch(pattern, key)]
        if len(matching) > 1:
            raise ValueError(f"OptimizerMap: the variable {key} matches {' and '.join(map(repr, matching))}")
        return self._map[matching[0]] if matching else self.default_optimizer

    def __setitem__(self, key: str, optimizer: Any) -> None:
        where = f"OptimizerMap: {key!r}"
        if not isinstance(key, str):
            raise TypeError(f"{where} must be a regular expression (a string)")
        if key in self._map:
            raise ValueError(f"{where} has the optimizer {self._map[key]!r} already: delete that first")
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"{where} is no regular expression: {error}") from None
        optimizer = HeldKind().convert(where, optimizer)
        self._refuse(repr(key), optimizer)
        self._map[key] = optimizer

    def __delitem__(self, key: str) -> None:
        del self._map[key]

    def __len__(self) -> int:
        return len(self._map)

    def __iter__(self) -> Iterator[str]:
        return iter(self._map)

    def __contains__(self, key: object) -> bool:
        return key in self._map

    def __call__(self, variable: Any) -> Facade:
        """The optimizer of a variable."""
        return self[variable.path]

    def __repr__(self) -> str:
        return f"OptimizerMap({self.default_optimizer!r}, {self._map!r})"

    def get_config(self) -> dict[str, Any]:
        """All as plain data. An optimizer that occurs twice carries a number, by which it is one again."""
        known = _known(type(self))
        every = [self.default_optimizer, *self._map.values()]
        numbers = {id(opt): i for i, opt in enumerate(every) if sum(opt is other for other in every) > 1}

        def entry(opt: Facade) -> dict[str, Any]:
            return known.serialize(opt) | ({"shared_object_id": numbers[id(opt)]} if id(opt) in numbers else {})

        return {
            "default_optimizer": entry(self.default_optimizer),
            "optimizer_map": {pattern: entry(opt) for pattern, opt in self._map.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The map of a config."""
        known, shared = _known(cls), {}

        def made(entry: Any) -> Any:
            number = entry.get("shared_object_id") if isinstance(entry, Mapping) else None
            if number is None:
                return known.deserialize(entry, custom_objects)
            if number not in shared:
                shared[number] = known.deserialize(entry, custom_objects)
            return shared[number]

        default = made(config["default_optimizer"])
        return cls(default, {pattern: made(entry) for pattern, entry in config["optimizer_map"].items()})


class MapKind:
    """An `OptimizerMap`, or a function from a variable to its optimizer."""

    example = None
    numeric = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, type) or not callable(value):
            cure = ": OptimizerMap(default, {...})" if isinstance(value, Mapping) else ""
            raise TypeError(
                f"{where} must be an OptimizerMap or a function from a variable to its optimizer, "
                f"got {check.describe(value)}{cure}"
            )
        return value


class MultiOptimizer(_Holder):
    """An optimizer for each group of variables, of which an `OptimizerMap` or a function says which it is.

        MultiOptimizer(OptimizerMap(AdamW(1e-3), {".*kernel": Muon(0.02)}))
        MultiOptimizer(lambda variable: muon if variable.ndim == 2 else adamw)

    Clipping, weight decay, running means are those of each optimizer: `global_clipnorm` sees the variables of its
    group. There is no one learning rate, but those of `optimizers` can be read and assigned.

    Raises:
        ValueError: the path of a variable matches two expressions.
        AttributeError: asked for its learning rate.
    """

    optimizer_map: Annotated[Any, MapKind()]
    "An `OptimizerMap`, or a function from a variable to its optimizer."
    loss_scale_factor: Positive | None = None
    "By what the loss was multiplied; all optimizers divide by it."
    name: Name = None
    "Its name in configs and in those of its weights."

    _chosen: tuple[Facade, ...] = ()
    _groups: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def check_settings(self) -> None:
        if self.name is None:
            self.name = snake_case(type(self).__name__)
        if isinstance(self.optimizer_map, OptimizerMap):
            self._chosen = _distinct([*self.optimizer_map.values(), self.optimizer_map.default_optimizer])
        self._share_factor(self._chosen)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "loss_scale_factor":
            for opt in self._chosen:
                opt.loss_scale_factor = self.loss_scale_factor

    def _share_factor(self, optimizers: Iterable[Facade]) -> None:
        """Let all divide by the same factor."""
        for opt in optimizers:
            own = getattr(opt, "loss_scale_factor", None)
            if own not in (None, self.loss_scale_factor):
                raise ValueError(
                    f"{type(self).__name__}: {type(opt).__name__} has loss_scale_factor={own:g}, but there is one loss "
                    "for all: give it to the MultiOptimizer"
                )
            if own != self.loss_scale_factor:
                opt.loss_scale_factor = self.loss_scale_factor

    @property
    def optimizers(self) -> list[Facade]:
        """The optimizers: those of the map in order, then its default; of a function, as it gave them."""
        return list(self._chosen)

    # The chain.

    def compose(self, learning_rate: Any) -> Transformation:
        pairs = zip(self._chosen, learning_rate, strict=True)
        return self._by_variable(
            [opt.compose(own if is_schedule(own := opt._rate_in_use()) else rate) for opt, rate in pairs]
        )

    def _by_variable(self, transformations: Sequence[Transformation]) -> Transformation:
        self._required_state("the transformation, which depends on the paths of the variables,")
        transforms = {label: tx for (label, _), tx in zip(self._groups, transformations, strict=True)}
        return by_variable(transforms, {name: label for label, names in self._groups for name in names})

    def _transformation_with_live_rate(self) -> Transformation:
        live = [opt._transformation_with_live_rate() for opt in self._chosen]
        if self._live is None or any(old is not new for old, new in zip(self._live[0], live, strict=True)):
            self._live = live, self._by_variable(live)
        return self._live[1]

    def loss_scale(self) -> float:
        return self.loss_scale_factor or 1.0

    def get_gradients(self, loss: Callable[[Any], Any], params: Tree) -> Tree:
        variables = Variables.of(params)
        names, grads = self._recognised(variables, params), jax.tree.leaves(self._gradients(loss, params))
        clipping = self._by_variable([opt.clipping() or identity() for opt in self._chosen])
        flat = dict(zip(names, grads, strict=True))
        clipped = clipping.update(flat, clipping.init(flat))[0]
        return variables.treedef.unflatten([clipped[name] for name in names])

    # The learning rates.

    @property
    def learning_rate(self) -> Any:
        """There is not one."""
        raise AttributeError("MultiOptimizer has no learning rate of its own: see those of opt.optimizers")

    def _set_rate(self, value: Any) -> None:
        raise AttributeError("MultiOptimizer has no learning rate of its own: set those of opt.optimizers")

    def _rate_in_use(self) -> Any:
        return [opt._rate_in_use() for opt in self._chosen]

    def _rate_array(self) -> Any:
        return jnp.stack([jnp.asarray(_rate_array(opt), jnp.float32) for opt in self._chosen])

    def _rate_part(self, rate: Any, index: int) -> Any:
        return rate[index] if np.ndim(rate) else rate

    def _take_rate(self, rate: Any) -> None:
        for opt, own in zip(self._chosen, rate, strict=True):
            if not is_schedule(opt._rate_in_use()) and np.float32(own) != np.float32(opt.learning_rate):
                opt.learning_rate = float(own)

    # The state.

    def build(self, variables: Tree) -> None:
        """Create the states for these parameters. Those that optimizers have already are kept, the first time."""
        given = Variables.of(variables)
        if not given.leaves:
            raise ValueError(f"{type(self).__name__}: there are no parameters in {variables!r}")
        names = unique(given.names)
        held = [Variable(value, name) for value, name in zip(given.values, names, strict=True)]
        asked = given.leaves if given.are_assignable else held
        owners = [self._owner(variable) for variable in asked]
        chosen = _distinct([*self._chosen, *owners])
        self._share_factor(chosen)
        for opt in chosen:
            own = [i for i, owner in enumerate(owners) if owner is opt]
            self._build_one(opt, [held[i] for i in own])
            opt._assignable = [given.leaves[i] for i in own] if given.are_assignable else None
        labels = unique([getattr(opt, "name", None) or snake_case(type(opt).__name__) for opt in chosen])
        self._groups = tuple((label, tuple(opt._built or ())) for label, opt in zip(labels, chosen, strict=True))
        self._chosen, self._live, self._own = chosen, None, numerics.counter()
        self._built = {v.path: jax.ShapeDtypeStruct(v.shape, v.dtype) for v in held}
        self._assignable = given.leaves if given.are_assignable else None

    def _owner(self, variable: Any) -> Facade:
        where = f"{type(self).__name__}: the optimizer of {variable.path}"
        owner = HeldKind().convert(where, self.optimizer_map(variable))
        if isinstance(owner, _LossScale | MultiOptimizer):
            raise ValueError(f"{where} cannot be a {type(owner).__name__}: put that around the whole")
        return owner

    def _build_one(self, opt: Facade, variables: list[Variable]) -> None:
        if self._own is None and opt.built:
            if list(opt._built or ()) != [v.path for v in variables]:
                raise ValueError(
                    f"{type(self).__name__}: {type(opt).__name__} was built for {', '.join(opt._built or ())}, is to "
                    f"be that of {', '.join(v.path for v in variables)}: make another one"
                )
        elif variables:
            opt.build(variables)
        else:
            opt._built, opt._start, opt._live = {}, {}, None

    def _joined(self, own: Any, parts: Sequence[OptimizerState]) -> OptimizerState:
        every, counts, states = list(self._built or ()), {}, {}
        for (label, names), part in zip(self._groups, parts, strict=True):
            counts[label], states[label] = part.iterations, MaskedState(_hidden(part.inner_state, names, every))
        return OptimizerState(own, ByVariableState(counts, states))

    def _part(self, state: OptimizerState, index: int) -> OptimizerState:
        label, _ = self._groups[index]
        counts, states = state.inner_state
        return OptimizerState(counts[label], states[label].inner_state)

    def _own_part(self, state: OptimizerState) -> Any:
        return state.iterations

    def _keep(self, state: OptimizerState) -> None:
        super()._keep(state)
        for opt in self._chosen:
            part = opt._required_state("its state")
            opt._keep(part._replace(inner_state=_shown(part.inner_state, list(self._built or ()))))

    def _counted(self, inner_state: Any, steps: Any) -> Any:
        counts, states = {}, {}
        for (label, _), opt in zip(self._groups, self._chosen, strict=True):
            counts[label] = steps * opt.window
            counted = opt._counted(inner_state.inner_states[label].inner_state, counts[label])
            states[label] = MaskedState(counted)
        return ByVariableState(counts, states)

    # Weights.

    def header(self) -> Iterator[Weight]:
        yield Weight(f"{self.name}/iteration", "iterations")
        yield Weight(f"{self.name}/learning_rate", "", derived=_unused_rate)

    def _name_of(self, index: int, weight: Weight) -> str:
        label, own = self._groups[index][0], getattr(self._chosen[index], "name", None)
        return f"{label}/{weight.name.removeprefix(f'{own}/')}"

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        self._required_state("its weights")
        found = self._states_of(named)
        own = next(value for weight, value in named.items() if weight.field == "iterations")
        rates = [0.0 if rate is None else rate for _, rate in found]
        state = self._joined(jnp.asarray(own).astype(jnp.int32), [state for state, _ in found])
        return state, jnp.stack([jnp.asarray(rate, jnp.float32) for rate in rates])

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the running means over the variables of the optimizers that keep one."""
        variables = Variables.of(var_list)
        names = self._recognised(variables, var_list)
        values = dict(zip(names, variables.values, strict=True))
        for opt in self._chosen:
            if getattr(opt, "use_ema", False) and opt._built:
                own = {name: values[name] for name in opt._built}
                values |= opt._required_state("finalize_variable_values").inner_state.eval_params(own)
        return handed_back(variables, [values[name] for name in names])


def _distinct(optimizers: Iterable[Facade]) -> tuple[Facade, ...]:
    """Each of them once."""
    return tuple({id(opt): opt for opt in optimizers}.values())


def _mirrors(node: Any, names: Sequence[str]) -> bool:
    return type(node) is dict and node.keys() == set(names)


def _hidden(state: Any, names: Sequence[str], every: Sequence[str]) -> Any:
    """A state of some variables as one of all, the others hidden."""

    def fill(node: Any) -> Any:
        return {name: node.get(name, MaskedNode()) for name in every} if _mirrors(node, names) else node

    return jax.tree.map(fill, state, is_leaf=lambda node: _mirrors(node, names)) if names else state


def _shown(state: Any, every: Sequence[str]) -> Any:
    """The opposite: a state of all without those that are hidden."""

    def cut(node: Any) -> Any:
        return {name: x for name, x in node.items() if not is_hidden(x)} if _mirrors(node, every) else node

    return jax.tree.map(cut, state, is_leaf=lambda node: _mirrors(node, every))


# Any transformation.


class TFOptimizer(_Composite):
    """Any gradtx or optax transformation as an optimizer of Keras.

        TFOptimizer(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)))
        TFOptimizer(optax.adam(1e-3))

    It sees the parameters as a dict by their paths, `dense/kernel`; patterns and functions are the masks for that.

    `learning_rate` can be read and assigned where a gradtx transformation has one of that name and no more, or where
    it is injected (`inject_hyperparams`).

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> opt = TFOptimizer(gradtx.sgd(0.5))
    >>> opt.learning_rate = 0.25
    >>> opt.apply([jnp.ones(2)], [jnp.zeros(2)])
    [Array([-0.25, -0.25], dtype=float32)]
    """

    optimizer: Inner
    "The transformation."
    name: Name = None
    "Its name in configs and in those of its weights."

    _path: tuple[Any, ...] | None = None

    def check_settings(self) -> None:
        if self.name is None:
            self.name = snake_case(type(self).__name__)
        rates = {path: v for path, v in _hyperparams(self.optimizer).items() if path[-1] == "learning_rate"}
        if len(rates) == 1:
            ((self._path, rate),) = rates.items()
            self._rate = float(rate) if isinstance(rate, jax.Array) else rate

    def compose(self, learning_rate: Any) -> Transformation:
        if self._path is None or learning_rate is None:
            return self.optimizer
        return _with_hyperparams(lambda path, value: learning_rate if path == self._path else value, self.optimizer)

    def _transformation_with_live_rate(self) -> Transformation:
        if self._path is not None:
            return super()._transformation_with_live_rate()
        if self._live is None:  # what is no value of gradtx cannot be an argument of a program, but a chain of it can
            is_ours = isinstance(self.optimizer, GradientTransformation)
            self._live = None, self.optimizer if is_ours else chain(self.optimizer)
        return self._live[1]
