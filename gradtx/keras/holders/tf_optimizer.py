"""Any gradtx or optax transformation as an optimizer of Keras."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import jax
import jax.core
import jax.numpy as jnp

from gradtx.core import check, tree
from gradtx.core.compose import Inner, chain
from gradtx.core.config import from_config, to_config
from gradtx.core.hyperparams import Rate, kind_of
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.keras.engine.dialect import Dialect, snake_case
from gradtx.keras.engine.keeper import required_state
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.program import Rules
from gradtx.keras.engine.rate import GivenRate, Rates
from gradtx.keras.engine.table import Name, private
from gradtx.keras.engine.weights import Weight
from gradtx.keras.tf1.optimizers import Optimizer as TF1Optimizer
from gradtx.states.fields import get_all_with_path, is_injected, replace
from gradtx.wrappers.finite import DynamicLossScaleState, scale_loss
from gradtx.wrappers.inject import _hyperparams, _with_hyperparams

__all__ = ["TFOptimizer"]


class WrappedKind:
    """A transformation, or an optimizer of TensorFlow 1, which stands for its own."""

    may_vary = False

    @property
    def example(self) -> Any:
        return kind_of(Inner).example

    def convert(self, where: str, value: Any) -> Any:
        return kind_of(Inner).convert(where, value.transformation if isinstance(value, TF1Optimizer) else value)


Wrapped = Annotated[Any, WrappedKind()]
"A transformation, or an optimizer of TensorFlow 1."


def _scaled_loss(inner_state: Any, loss: Any) -> Any:
    has_scale = tree.find(inner_state, lambda node: isinstance(node, DynamicLossScaleState))
    return scale_loss(inner_state, loss) if has_scale else loss


class TFOptimizer(Facade):
    """Any gradtx or optax transformation, or an optimizer of TensorFlow 1, as an optimizer of Keras.

        TFOptimizer(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)))
        TFOptimizer(optax.adam(1e-3))
        TFOptimizer(tf1.train.AdadeltaOptimizer(1.0))     # from gradtx.keras import tf1; its state stays behind

    The transformation sees the parameters as a dict from their paths, `dense/kernel`; its masks are patterns or
    functions of that dict.

    `learning_rate` can be read and assigned if a gradtx transformation has exactly one hyper-parameter of that name, or
    if it is injected (`inject_hyperparams`).

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> opt = TFOptimizer(gradtx.sgd(0.5))
    >>> opt.learning_rate = 0.25
    >>> opt.apply([jnp.ones(2)], [jnp.zeros(2)])
    [Array([-0.25, -0.25], dtype=float32)]
    """

    dialect = Dialect(counter="{name}/iteration", default_name=snake_case)
    rules = Rules(scaled_loss=_scaled_loss)

    optimizer: Wrapped
    "The transformation; of an optimizer of TensorFlow 1, its transformation."
    name: Name = None
    "What it is called in configs and in the names of its weights; by default `tf_optimizer`."

    _path: tuple[Any, ...] | None = private(None)

    def check_settings(self) -> None:
        rates = {path: v for path, v in _hyperparams(self.optimizer).items() if path[-1] == "learning_rate"}
        if len(rates) == 1:
            ((self._path, rate),) = rates.items()
            self._rate = GivenRate(type(self).__name__, rate)
        elif self._rate is None:
            self._rate = Rates(type(self).__name__, ())  # there is none, or it is in the state

    @classmethod
    def wraps(cls, thing: Any) -> bool:
        """Whether it is there for this: a transformation, or an optimizer of TensorFlow 1."""
        is_transformation = isinstance(thing, Transformation) and not isinstance(thing, type | Facade)
        return is_transformation or isinstance(thing, TF1Optimizer)

    @property
    def transformation(self) -> Transformation:
        """The transformation, with the present learning rate."""
        return self.optimizer

    def compose(self, learning_rate: Any) -> Transformation:
        tx = self.optimizer
        if not isinstance(tx, GradientTransformation):
            return chain(tx)  # which is a value, and may be an argument of a compiled program
        if self._path is None:
            return tx
        return _with_hyperparams(lambda path, value: learning_rate if path == self._path else value, tx)

    # The learning rate: in the transformation, or in its state.

    @property
    def learning_rate(self) -> Any:
        """The learning rate, if there is exactly one. It can be assigned."""
        return float(self._injected("read")[1]) if self._path is None else self._rate.after(self.iterations)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._path is not None:
            self._rate.set(value)
            object.__setattr__(self, "optimizer", self.compose(self._rate.in_use()))
            return
        path, old = self._injected("set")
        rate = jnp.asarray(self.convert("learning_rate", kind_of(Rate), value), old.dtype)
        state = required_state(self, "learning_rate = ...")
        inner_state = replace(state.inner_state, lambda own, _: own == path, learning_rate=rate)
        self.keeper.keep(state._replace(inner_state=inner_state))

    def _injected(self, verb: str) -> tuple[Any, Any]:
        """Path and value of the learning rate in the state."""
        inner_state = required_state(self, "learning_rate").inner_state if self.built else ()
        found = [item for item in get_all_with_path(inner_state, "learning_rate") if is_injected(item[0])]
        if len(found) != 1:
            raise AttributeError(
                f"{type(self).__name__}: {self.optimizer!r} has no single learning_rate to {verb}: "
                "inject it, inject_hyperparams(...), and build(params) first"
            )
        return found[0]

    # Weights: the counter, and whatever is in the state.

    def slot_weights(self) -> Iterator[Weight]:
        leaves = jax.tree_util.tree_leaves_with_path(required_state(self, "its weights").inner_state)
        for i, (path, _) in enumerate(leaves):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            yield Weight(f"{self.name}/{name}", variable=str(i), leaf=i)

    # Configs.

    def get_config(self) -> dict[str, Any]:
        if not isinstance(self.optimizer, GradientTransformation):
            raise ValueError(
                f"{type(self).__name__}: {check.describe(self.optimizer)} is made of functions, which have no config: "
                "use the transformation of that name of gradtx, or save the weights only"
            )
        return {"name": self.name, "optimizer": to_config(self.transformation)}  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        tx = config.get("optimizer")
        return cls(**{**config, "optimizer": from_config(tx) if isinstance(tx, Mapping) else tx})
