"""Optimizers that hold others: with a loss scale, one for each group of variables, and any gradtx or optax chain.

What they hold are optimizers of their own: these keep their states, counters and learning rates, and may be read and
changed at any time. A step is one compiled program all the same.
"""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics, tree
from gradtx.core.base import EmptyState, GradientTransformation, Transformation, update_inner
from gradtx.core.compose import Container, Inner, TransformationKind, chain, identity
from gradtx.core.hyperparams import Flag, Positive, PositiveInt, is_schedule
from gradtx.core.masks import MaskedNode, is_hidden, leaf_names, visible_only
from gradtx.core.spec import from_config, to_config
from gradtx.core.tree import Tree
from gradtx.fields import get_all_with_path, is_injected, replace
from gradtx.keras.modern import snake_case
from gradtx.keras.optimizer import Facade, OptimizerState, Weight, handed_back, unique
from gradtx.keras.registry import Identifiers, arguments_of
from gradtx.keras.table import Name
from gradtx.keras.variable import Variable, Variables, is_variable
from gradtx.transforms.scaling import scale
from gradtx.wrappers.common import choose
from gradtx.wrappers.finite import DynamicLossScaleState, dynamic_loss_scale, scale_loss
from gradtx.wrappers.inject import _hyperparams, _with_hyperparams
from gradtx.wrappers.masked import MaskedState, init_visible, merge, update_visible
from gradtx.wrappers.partition import TransformationsKind

__all__ = [
    "LossScaleOptimizer",
    "MultiOptimizer",
    "OptimizerMap",
    "TFOptimizer",
    "TfKerasLossScaleOptimizer",
    "by_variable",
    "count_skipped",
]


class Origin(NamedTuple):
    """Which of the optimizers held has a weight, and what the weight is to that one."""

    index: int
    weight: Weight


class _Holder(Facade, abstract=True):
    """Base of optimizers whose states and learning rates are those of the optimizers that they hold.

    `_own` is what it remembers beside them. The state for the compiled program is put together from both before a
    step, and taken apart after it.
    """

    identifiers: ClassVar[Identifiers | None] = None
    "The optimizers of its generation, by which its configs are read and written."

    _own: Any = None

    @property
    def optimizers(self) -> list[Facade]:
        """The optimizers that it holds."""
        raise NotImplementedError(f"{type(self).__name__} defines no optimizers")

    def _joined(self, parts: Sequence[OptimizerState]) -> OptimizerState:
        """The state made of those of the optimizers held, and `_own`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to join states")

    def _part(self, state: OptimizerState, index: int) -> OptimizerState:
        """The state of one of the optimizers held, in such a state."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to part states")

    def _rates(self, index: int, rate: Any) -> Any:
        """The learning rate of one of the optimizers held, of what stands for the learning rate here."""
        return rate

    @property
    def _state(self) -> OptimizerState | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self._own is None:
            return None
        return self._joined([opt._required_state("its state") for opt in self.optimizers])

    @classmethod
    def _known(cls) -> Identifiers:
        if cls.identifiers is None:
            raise ValueError(f"{cls.__name__}: of which generation? Import the module of its optimizers")
        return cls.identifiers

    # Weights: those of the optimizers held, behind its own.

    def slot_weights(self) -> Iterator[Weight]:
        for index, opt in enumerate(self.optimizers):
            for weight in opt.weight_list():
                origin: Any = Origin(index, weight)
                yield Weight(
                    self._weight_name(index, weight), "", weight.variable, 1.0, weight.dtype, origin, weight.forgotten
                )

    def _weight_name(self, index: int, weight: Weight) -> str:
        return weight.name

    def _value_of(self, weight: Weight, state: OptimizerState, rate: Any) -> Any:
        if not isinstance(weight.derived, Origin):
            return super()._value_of(weight, state, rate)
        index, own = weight.derived
        opt = self.optimizers[index]
        if own.variable == "*":  # any will do, but one that it has
            own = own._replace(variable=next(iter(opt._built or ())))
        return opt._value_of(own, self._part(state, index), self._rates(index, rate))

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        held: list[dict[Weight, Any]] = [{} for _ in self.optimizers]
        for weight, value in named.items():
            if isinstance(weight.derived, Origin):
                held[weight.derived.index][weight.derived.weight] = value
        found = [opt._state_of(own) for opt, own in zip(self.optimizers, held, strict=True)]
        return self._joined([state for state, _ in found]), [rate for _, rate in found]

    def _rate_array(self) -> Any:
        """The learning rate, as it goes into the weights."""
        return jnp.asarray(self.learning_rate, jnp.float32)

    def _take_rate(self, rate: Any) -> None:
        """Go on with the learning rate that was found among weights."""
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

    def save_own_variables(self, store: Any) -> None:
        """Write the weights into a mapping, as Keras does into its files."""
        for i, weight in enumerate(self.get_weights()):
            store[str(i)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read the weights from a mapping that `save_own_variables` filled."""
        self.set_weights([np.asarray(store[str(i)]) for i in range(len(store.keys()))])


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

    _LARGEST: ClassVar[str] = "max_scale"

    @property
    def optimizers(self) -> list[Facade]:
        return [self.inner_optimizer]

    def check_settings(self) -> None:
        name, inner = type(self).__name__, self.inner_optimizer
        if isinstance(inner, _LossScale):
            raise ValueError(f"{name}: inner_optimizer is a {type(inner).__name__} already: one loss scale is enough")
        if getattr(inner, "loss_scale_factor", None) is not None:
            raise ValueError(
                f"{name}: inner_optimizer has loss_scale_factor={inner.loss_scale_factor}, and gradients would be "
                "divided twice: leave it out"
            )
        if not self.min_scale <= self.initial_scale <= self.max_scale:
            raise ValueError(
                f"{name}: min_scale ≤ initial_scale ≤ max_scale must hold, "
                f"got {self.min_scale:g}, {self.initial_scale:g}, {self.max_scale:g}: set the bound that is in the way"
            )

    def _scaling(self, tx: Transformation) -> Transformation:
        """The transformation of true gradients, for those of the scaled loss."""
        growth = self.dynamic_growth_steps
        return dynamic_loss_scale(tx, self.initial_scale, growth, min_scale=self.min_scale, max_scale=self.max_scale)

    # All of this is the inner optimizer's.

    def compose(self, learning_rate: Any) -> Transformation:
        return self._scaling(self.inner_optimizer.compose(learning_rate))

    def _transformation_with_live_rate(self) -> Transformation:
        tx = self.inner_optimizer._transformation_with_live_rate()
        if self._live is None or self._live[0] is not tx:
            self._live = tx, self._scaling(tx)
        return self._live[1]

    def _rate_in_use(self) -> Any:
        return self.inner_optimizer._rate_in_use()

    def _set_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the inner optimizer. It can be assigned."""
        return self.inner_optimizer.learning_rate

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        state, (rate,) = super()._state_of(named)
        return state, rate

    def _rate_array(self) -> Any:
        return _rate_array(self.inner_optimizer)

    def _take_rate(self, rate: Any) -> None:
        _Holder._take_rate(self, rate) if not isinstance(
            self.inner_optimizer, _Holder
        ) else self.inner_optimizer._take_rate(rate)

    def clipping(self) -> Transformation | None:
        return self.inner_optimizer.clipping()

    @property
    def window(self) -> int:
        return self.inner_optimizer.window

    @property
    def first_count(self) -> int:
        return self.inner_optimizer.first_count

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        return self.inner_optimizer.recovered(missing, named)

    def build(self, variables: Tree) -> None:
        """Create the state for these parameters. One that the inner optimizer has already is kept, the first time."""
        inner = self.inner_optimizer
        if self._own is not None or not inner.built:
            inner.build(variables)
        else:
            inner._recognised(Variables.of(variables), variables)
        self._built, self._assignable, self._live = inner._built, inner._assignable, None
        self._own = dynamic_loss_scale(
            identity(), self.initial_scale, min_scale=0.1 * self.initial_scale, max_scale=self.initial_scale
        ).init({})

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the inner optimizer's running mean over the variables, where it keeps one."""
        return self.inner_optimizer.finalize_variable_values(var_list)

    # The scale.

    def _joined(self, parts: Sequence[OptimizerState]) -> OptimizerState:
        return OptimizerState(parts[0].iterations, self._own._replace(inner_state=parts[0].inner_state))

    def _part(self, state: OptimizerState, index: int) -> OptimizerState:
        return OptimizerState(state.iterations, state.inner_state.inner_state)

    def _counted(self, inner_state: Any, steps: Any) -> Any:
        return inner_state._replace(inner_state=self.inner_optimizer._counted(inner_state.inner_state, steps))
