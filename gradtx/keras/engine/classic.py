"""What the optimizers of Keras 1 and 2, and of their kin, have in common."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.hyperparams import Flag, NonNegative, Rate
from gradtx.core.tree import Tree
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.weights import Weight, Zeros, of_slots
from gradtx.transforms.clipping import clip, clip_by_global_norm

__all__ = ["NADAMS_PRODUCT", "Classic", "momentum_product", "with_unused_maxima"]


class Classic(Facade, abstract=True, kw_only=True):
    """Base of Keras's optimizers before TensorFlow took them over.

    In a step come: clipping of the norm of all gradients together, clipping of their elements, the update with the
    rate `lr` / (1 + `decay` · iterations).

    On TensorFlow the counter was mostly raised before it was read, so that Adam's first step had t = 2: a race in the
    graph, which `counter_first` reproduces. The default is what was documented, and what Theano did.
    """

    dialect = Dialect(
        counter="{cls}/iterations:0",
        count_dtype=np.int64,
        slot="training/{cls}/{slot}_{flat}:0",
        clips=(("clipnorm", clip_by_global_norm), ("clipvalue", clip)),
        has_decay=True,
    )
    quiet: ClassVar[frozenset[str]] = frozenset({"clipnorm", "clipvalue", "counter_first"})

    clipnorm: NonNegative | None = None
    "Largest norm of all gradients together; 0 is off."
    clipvalue: NonNegative | None = None
    "Largest magnitude of an element of a gradient, after `clipnorm`; 0 is off."
    counter_first: Flag = False
    "Whether steps are counted from 1, as mostly happened on TensorFlow, instead of from 0."

    if TYPE_CHECKING:
        lr: Rate = 0.0
        learning_rate: Rate = 0.0

    def get_updates(self, loss: Callable[..., Any], params: Tree, *batch: Any) -> Any:
        """Make one step down the gradient of `loss(params, *batch)`, a function; gives the new parameters.

        Of variables, which are assigned, nothing is returned. Keras 1's order `(params, constraints, loss)` is
        understood, with a warning.
        """
        if len(batch) == 1 and callable(batch[0]) and not callable(loss):
            order = "get_updates(params, constraints, loss) is Keras 1's order of arguments: give (loss, params)"
            warnings.warn(order, DeprecationWarning, stacklevel=2)
            return self.minimize(batch[0], loss, constraints=params)
        return self.minimize(loss, params, *batch)

    @property
    def weights(self) -> list[Array]:
        """The weights as arrays."""
        return self.variables

    @property
    def updates(self) -> list[Any]:
        """What remains to be run: nothing, since `get_updates` makes its step at once. Keras has a graph's updates."""
        return []

    @property
    def initial_decay(self) -> float:
        """Another name for `decay`, where the class has it."""
        if "decay" not in self.fields():
            raise AttributeError(f"{type(self).__name__} has no decay")
        return vars(self)["decay"]

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        steps = next((value for weight, value in named.items() if weight.field == "iterations"), None)
        products = [weight for weight in missing if weight.field == "mu_product"]
        if steps is None or not products:
            return {}
        return {weight: momentum_product(self, int(steps) + self.first_count) for weight in products}


NADAMS_PRODUCT = Weight("Nadam/m_schedule:0", "mu_product")
"Nadam's product of momenta."


def with_unused_maxima(self: Any) -> Iterator[Weight]:
    """The slots; and one zero for each variable, as Keras 2's Adam has since 2.1.3 where it keeps no largest v."""
    yield from of_slots(self, self.slots)
    for variable in self.keeper.shapes if not self.amsgrad else ():
        yield Weight(self.slot_name("vhat", variable), "", variable, derived=Zeros((1,)), is_recent=True)


def momentum_product(opt: Any, steps: int) -> Array:
    """Nadam's Π μᵢ over the steps made, for files that do not hold it."""
    t = np.arange(1, steps + 1, dtype=np.float64)
    momentum = opt.beta_1 * (1 - 0.5 * 0.96 ** (getattr(opt, "schedule_decay", 1.0) * t))  # Keras 3's ψ is 1
    return jnp.asarray(np.prod(momentum), jnp.float32)
