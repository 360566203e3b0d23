"""The optimizers of natural_bm: Keras 1's, with a momentum that rises and falls, and weights in HDF5.

    from gradtx.keras.natural_bm import optimizers       # for: from natural_bm import optimizers
    from gradtx.keras.natural_bm.optimizers import SGD   # for: from natural_bm.optimizers import SGD

`load_weights`, which natural_bm never had, reads what `save_weights` wrote, and recovers what that left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.compose import chain
from gradtx.core.hyperparams import Flag, Fraction, NonNegative, NonNegativeInt, Rate
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.classic import Classic
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.weights import Weight, Zeros
from gradtx.keras.files.saved import write_group
from gradtx.keras.tables import keras1 as tables
from gradtx.schedules.ramp import momentum_ramp
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["SGD", "Adam", "Nadam", "Optimizer", "clip_norm"]


class Optimizer(Classic, abstract=True, kw_only=True):
    """Base of natural_bm's optimizers. `get_updates(params, loss)` makes a step."""

    dialect = Classic.dialect._replace(
        generation="natural_bm", counter="iterations", count_dtype=np.float32, slot="{variable}_{slot}"
    )
    rate_name = "lr"

    def get_updates(self, params: Tree, loss: Callable[..., Any], *batch: Any) -> Any:
        """Make one step down the gradient of `loss(params, *batch)`; in natural_bm's order of arguments."""
        return self.minimize(loss, params, *batch)

    def save_weights_to_hdf5_group(self, f: Any) -> None:
        """Write the weights into an open file or group of h5py."""
        write_group(f, [weight.name for weight in self.weight_list()], self.get_weights())


class SGD(Optimizer):
    """Gradient descent with a momentum that rises to its goal, and falls to half of it towards the end.

        v ← μₜ v − η g,  θ ← θ + v;  with `nesterov` θ ← θ + μₜ v − η g;  μₜ as in `gradtx.momentum_ramp`

    Steps are counted where `decay` is not 0; without, the momentum is about half its goal from the second step on, and
    `iterations` is not among the weights.
    """

    dialect = Optimizer.dialect._replace(counter=None)
    slots = ({"moment": "trace"},)

    learning_rate: Rate = 0.01
    "η: step size: a number, a schedule, or a function without arguments."
    momentum: Fraction = 0.0
    "The momentum to which the ramp rises; 0.9 is usual."
    decay: NonNegative = 0.0
    "How fast the learning rate falls: it is η / (1 + decay · iterations)."
    nesterov: Flag = False
    "Whether to take Nesterov's form of the momentum, which looks one step ahead."
    schedule_decay: NonNegative = momentum_ramp.schedule_decay
    "How fast the momentum rises: in about 25 / schedule_decay steps."
    mom_iter_max: NonNegativeInt = momentum_ramp.mom_iter_max
    "How many steps will be made in all; 0 switches the ramp off: half the goal from the second step on."

    def chain(self, learning_rate: Any) -> Transformation:
        return chain(scale_by_learning_rate(learning_rate), trace(self._ramp, self.nesterov))

    @property
    def _ramp(self) -> momentum_ramp:
        return momentum_ramp(self.momentum, self.schedule_decay, self.mom_iter_max, advance=bool(self.decay > 0))

    @property
    def first_weights(self) -> tuple[Weight, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The counter, which does not move without `decay`."""
        if self.decay > 0:
            return (Weight("iterations", "iterations", dtype=np.float32),)
        return (Weight("iterations", derived=Zeros()),)

    @property
    def last_weights(self) -> tuple[Weight, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The momentum in use."""
        return (Weight("momentum", derived=self._momentum_in_use, forgotten=True),)

    def _momentum_in_use(self, state: OptimizerState, variable: str) -> Array:
        return self._ramp(state.iterations)

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        """Without `decay` all that counts is whether a step was made: then there is a velocity."""
        if self.decay > 0:
            return {}
        moved = [jnp.any(jnp.asarray(value) != 0) for weight, value in named.items() if weight.field == "trace"]
        return {Weight("iterations", "iterations"): jnp.any(jnp.stack(moved)).astype(jnp.int32)}


class Adam(tables.Adam, Optimizer):
    slots = ({"ms": "mu"}, {"vs": "nu"})


class Nadam(tables.Nadam, Optimizer):
    slots = ({"ms": "mu"}, {"vs": "nu"})

    last_weights = (Weight("m_schedule", "mu_product", forgotten=True),)


def clip_norm(g: Array, c: float, n: Array) -> Array:
    """The gradient `g` times c / n where the norm `n` of all gradients is at least `c`; `c` ≤ 0 clips nothing.

    >>> clip_norm(jnp.array([3.0, 4.0]), 1.0, jnp.array(5.0))
    Array([0.6, 0.8], dtype=float32)
    """
    if c <= 0:
        return g
    n = jnp.asarray(n)
    return jnp.where(n >= c, g * (c / jnp.maximum(n, c)).astype(g.dtype), g)
