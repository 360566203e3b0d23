"""Optimizers with a loss scale, which keeps the gradients of float16 from vanishing: Keras 3's and tf.keras's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, numerics
from gradtx.core.compose import chain
from gradtx.core.hyperparams import Flag, Positive, PositiveInt
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.dialect import Dialect, snake_case
from gradtx.keras.engine.modern import Modern
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.program import Rules
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.table import Name
from gradtx.keras.engine.variable import Variables
from gradtx.keras.engine.weights import Weight, Zeros
from gradtx.keras.holders.holder import Held, Holder
from gradtx.keras.transforms import count_skipped
from gradtx.transforms.scaling import scale
from gradtx.wrappers.finite import DynamicLossScaleState, dynamic_loss_scale, scale_loss

__all__ = ["LossScaleOptimizer"]


class _Inner(NamedTuple):
    """The state of the inner optimizer is in that of a dynamic scale, or the second of a chain's if it is fixed."""

    def get(self, state: OptimizerState) -> OptimizerState:
        own = state.inner_state
        return OptimizerState(state.iterations, own.inner_state if hasattr(own, "loss_scale") else own[1])

    def put(self, state: OptimizerState, part: OptimizerState) -> OptimizerState:
        own, inner = state.inner_state, part.inner_state
        is_dynamic = hasattr(own, "loss_scale")
        return OptimizerState(part.iterations, own._replace(inner_state=inner) if is_dynamic else (own[0], inner))


def _scaled_loss(inner_state: Any, loss: Any) -> Any:
    return scale_loss(inner_state, loss) if isinstance(inner_state, DynamicLossScaleState) else loss


def _unless_skipped(iterations: Array, old: Any, new: Any) -> Array:
    """The counter, of steps that were not left out."""
    skipped = new.total_notfinite != old.total_notfinite
    return jnp.where(skipped, iterations, numerics.increment(iterations))


class _LossScale(Holder, abstract=True, kw_only=True):
    """Base of the optimizers with a loss scale."""

    quiet: ClassVar[frozenset[str]] = frozenset({"min_scale", "max_scale"})
    lenses = (_Inner(),)
    rules = Rules(scaled_loss=_scaled_loss)

    min_scale: Positive = dynamic_loss_scale.min_scale
    "Least value of the scale. Gradients that overflow even there are counted in `exhausted`."
    max_scale: Positive = dynamic_loss_scale.max_scale
    "Largest value of the scale."
    if TYPE_CHECKING:  # those derived from it have these
        inner_optimizer: Any
        initial_scale: Any
        dynamic_growth_steps: Any

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
    def parts(self) -> tuple[Facade]:
        return (self.inner_optimizer,)

    # The chain: a loss scale around that of the inner optimizer.

    def around(self, transformations: Sequence[Transformation]) -> Transformation:
        (tx,), growth = transformations, self.dynamic_growth_steps
        return dynamic_loss_scale(tx, self.initial_scale, growth, min_scale=self.min_scale, max_scale=self.max_scale)

    def clipping(self) -> Transformation | None:
        return self.inner_optimizer.clipping()

    @property
    def window(self) -> int:
        return self.inner_optimizer.window

    # The learning rate is that of the inner optimizer, the state one around the inner optimizer's.

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the inner optimizer. It can be assigned."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    def build_for(self, given: Variables) -> None:
        """Build the inner optimizer, or keep the state that it has already."""
        self.inner_optimizer.build(given.treedef.unflatten(given.leaves))
        self.keeper.begin(self.inner_optimizer.keeper.known.as_those_of(type(self).__name__), {})

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the inner optimizer's running mean over the variables, where it keeps one."""
        return self.inner_optimizer.finalize_variable_values(var_list)

    # What it says about the scale.

    @property
    def dynamic_scale(self) -> float:
        """By what the loss is to be multiplied now."""
        return float(self._told("loss_scale", self.initial_scale))

    def _told(self, field: str, before: Any = 0) -> Any:
        """What the state of the scale says."""
        state = self.keeper.state
        return before if state is None else getattr(state.inner_state, field, before)

    @property
    def total_notfinite(self) -> int:
        """How many gradients have been left out because they were not finite."""
        return int(self._told("total_notfinite"))

    @property
    def exhausted(self) -> int:
        """How many in a row were not finite with the scale at its floor: the model makes these, not the scale."""
        return int(self._told("exhausted"))

    def scale_loss(self, loss: Any) -> Array:
        """The loss times the present scale, to be differentiated; `apply` takes the gradients as they are.

        Within your own `jax.jit` the scale of the moment of tracing stays in the program: there,
        `gradtx.scale_loss(state, loss)` with the state as an argument.
        """
        return dtypes.scaled(jnp.asarray(self.dynamic_scale, jnp.float32), jnp.asarray(loss))


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

    unknown_argument = ValueError
    dialect = Dialect("keras3", "gradtx.keras.optimizers", snake_case, counter=None, legacy_format=False)

    rules = Rules(_unless_skipped, _scaled_loss)
    first_weights = (
        Weight("{name}/iteration", derived=Zeros((), jnp.int32)),
        Weight("{name}/learning_rate", derived=Zeros()),
        Weight("{name}/step_counter", "growth_count"),
        Weight("{name}/dynamic_scale", "loss_scale"),
    )

    inner_optimizer: Held
    "The optimizer whose gradients are scaled; it has the learning rate and all other settings."
    initial_scale: Positive = dynamic_loss_scale.init_scale
    "S before the first step."
    dynamic_growth_steps: PositiveInt = dynamic_loss_scale.growth_interval
    "How many finite gradients in a row let S grow."
    name: Name = None
    "Its name in configs and in those of its weights."

    @property
    def step_counter(self) -> int:
        """Finite gradients since the scale last changed."""
        return int(self._told("growth_count"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The optimizer of a config. What earlier versions of Keras 3 wrote there to no effect is left out."""
        idle = {name: field.default for name, field in Modern.fields().items()}
        idle |= {"loss_scale_factor": None, "gradient_accumulation_steps": None, "dynamic": True}
        told = {n: value for n, value in config.items() if n in cls.fields() or n not in idle or value != idle[n]}
        return super().from_config(told, custom_objects)


class TfKerasLossScaleOptimizer(_LossScale, abstract=True):
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

    dialect = Dialect(counter=None)
    last_weights = (
        Weight("current_loss_scale", "loss_scale", forgotten=True),
        Weight("good_steps", "growth_count", forgotten=True),
    )

    inner_optimizer: Held
    "The optimizer whose gradients are scaled; it has the learning rate and all other settings."
    dynamic: Flag = True
    "Whether S is adapted: halved after gradients that are not finite, doubled after many that are."
    initial_scale: Positive | None = None
    "S before the first step; `None` is 2¹⁵ if it is dynamic."
    dynamic_growth_steps: PositiveInt | None = None
    "How many finite gradients in a row let S grow; `None` is 2000."

    def check_settings(self) -> None:
        name = type(self).__name__
        if self.dynamic:
            if self.initial_scale is None:
                self.initial_scale = dynamic_loss_scale.init_scale
            if self.dynamic_growth_steps is None:
                self.dynamic_growth_steps = dynamic_loss_scale.growth_interval
        elif self.initial_scale is None:
            raise ValueError(f"{name}: with dynamic=False the scale is initial_scale: give it")
        elif self.dynamic_growth_steps is not None:
            raise ValueError(f"{name}: a scale that is not dynamic does not grow: leave dynamic_growth_steps out")
        super().check_settings()
        if self.inner_optimizer.window != 1:
            raise ValueError(
                f"{name}: an optimizer that accumulates gradients is Keras 3's: use its LossScaleOptimizer"
            )

    def around(self, transformations: Sequence[Transformation]) -> Transformation:
        if self.dynamic:
            return count_skipped(super().around(transformations))
        return chain(scale(1 / self._fixed), *transformations)

    @property
    def _fixed(self) -> float:
        """The scale that is not dynamic, or the first."""
        return float(self.initial_scale or 0)

    def loss_scale(self) -> float:
        return 1.0 if self.dynamic else self._fixed

    @property
    def dynamic_counter(self) -> int | None:
        """Finite gradients since the scale last changed; `None` if it is fixed."""
        return int(self._told("growth_count")) if self.dynamic else None

    def get_scaled_loss(self, loss: Any) -> Array:
        """The loss times the present scale, to be differentiated."""
        return self.scale_loss(loss)

    def get_unscaled_gradients(self, grads: Tree) -> Tree:
        """Gradients of the scaled loss, divided by the present scale; `None` stays."""
        return dtypes.scaled(jnp.asarray(1 / self.dynamic_scale, jnp.float32), grads)

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        """One step along true gradients, given with their variables; those not finite are left out."""
        pairs = list(grads_and_vars)
        if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            factor = jnp.asarray(self.dynamic_scale, jnp.float32)
            grads = _scaled([grad for grad, _ in pairs], factor)
            pairs = [(grad, variable) for grad, (_, variable) in zip(grads, pairs, strict=True)]
        return super().apply_gradients(pairs, **kwargs)


@jax.jit
def _scaled(grads: list[Any], factor: Array) -> list[Any]:
    """The gradients times a factor, in float32 at least, so that they do not overflow."""
    return jax.tree.map(lambda g: g.astype(numerics.compute_dtype(g.dtype)) * factor.astype(_real(g)), grads)


def _real(grad: Array) -> Any:
    return numerics.real_dtype(numerics.compute_dtype(grad.dtype))
