"""The optimizers of Keras 3: its names, arguments, defaults, weights and numbers.

from gradtx.keras import optimizers        # for: from keras import optimizers
from gradtx.keras.optimizers import Adam   # for: from keras.optimizers import Adam
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp

from gradtx.core.hyperparams import (
    Decay,
    Flag,
    Integer,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveDecay,
    PositiveInt,
    Rate,
    is_schedule,
)
from gradtx.core.transformation import Transformation
from gradtx.keras import formulas, schedules
from gradtx.keras.engine.dialect import snake_case
from gradtx.keras.engine.modern import Modern, factored
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.engine.table import Name
from gradtx.keras.engine.weights import Weight, Zeros
from gradtx.keras.holders.loss_scale import LossScaleOptimizer
from gradtx.keras.holders.multi import MultiOptimizer
from gradtx.keras.holders.optimizer_map import OptimizerMap
from gradtx.keras.holders.tf_optimizer import TFOptimizer
from gradtx.keras.tables import keras3 as tables
from gradtx.keras.transforms import matrices_for_muon
from gradtx.masks.labels import label_by_mask
from gradtx.masks.paths import PatternKind
from gradtx.optimizers.adam import adam
from gradtx.schedules.base import scaled_schedule
from gradtx.states.fields import replace
from gradtx.wrappers.partition import partition

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "MultiOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "OptimizerMap",
    "RMSprop",
    "ScheduleFreeAdamW",
    "TFOptimizer",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]


class PatternsKind:
    """A list of regular expressions, or None."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> list[str]:
        if isinstance(value, str):
            raise TypeError(f"{where} must be a list of regular expressions, got {value!r}")
        return [PatternKind().convert(where, pattern) for pattern in value or ()]


Patterns = Annotated[Any, PatternsKind()]
"Regular expressions."
Window = Annotated[int, Integer(2, 2)]
"A count of gradients, of at least two."


class Optimizer(Modern, abstract=True, kw_only=True):
    """Base of Keras 3's optimizers: what all of them take, and how to use one.

        params = opt.apply(grads, params)            # arrays, in any tree: the new ones are returned
        params = opt.minimize(loss, params)          # loss is a function of the params; one compiled program
        opt.apply_gradients(zip(grads, variables))   # Keras variables are assigned
        params, weights = opt.stateless_apply(weights, grads, params)     # pure, inside your own jax.jit

    The state is created by the first step, or by `build(params)`. In a step come, as in Keras 3: division by
    `loss_scale_factor`, accumulation, clipping, weight decay, the update, the running mean, constraints.
    `opt.transformation` is that as a gradtx chain.

    Derive your own as Keras documents it: `build(variables)`, `update_step(gradient, variable, learning_rate)`,
    `get_config`.

    Raises:
        ValueError: an argument that does not exist, or two kinds of clipping at once.
    """

    dialect = Modern.dialect._replace(
        generation="keras3",
        default_name=snake_case,
        counter="{name}/iteration",
        rate="{name}/learning_rate",
        slot="{name}/{flat}_{slot}",
        legacy_format=False,
    )
    unknown_argument = ValueError
    quiet: ClassVar[frozenset[str]] = frozenset({"decay"})

    fixed = Modern.fixed | {"gradient_accumulation_steps"}

    loss_scale_factor: Positive | None = None
    "By what the loss was multiplied; the gradients are divided by it."
    gradient_accumulation_steps: Window | None = None
    "How many gradients make one update, with their mean."
    name: Name = None
    "Its name in configs and in those of its weights; by default the class's in snake case."

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, to be differentiated."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor


class SGD(tables.SGD, Optimizer):
    pass


class RMSprop(tables.RMSprop, Optimizer):
    pass


class Adagrad(tables.Adagrad, Optimizer):
    pass


class Adadelta(tables.Adadelta, Optimizer):
    pass


class Adam(tables.Adam, Optimizer):
    pass


class AdamW(tables.AdamW, Optimizer):  # pyright: ignore[reportIncompatibleVariableOverride]
    pass


class Adamax(tables.Adamax, Optimizer):
    pass


class Nadam(tables.Nadam, Optimizer):
    last_weights = (Weight("{name}/u_product", "mu_product"),)


class Adafactor(tables.Adafactor, Optimizer):
    def slot_weights(self) -> Iterator[Weight]:
        for name, like in self.keeper.shapes.items():
            is_factored, last, slot = len(like.shape) >= 2, name.rpartition("/")[2], self.slot_name("velocity", name)
            if is_factored:
                yield Weight(f"{self.name}/{last}", "v_row", name)
                yield Weight(f"{self.name}/{last}", "v_col", name)
                yield Weight(slot, "", name, derived=factored)
            else:
                yield from 2 * (Weight(last, "", name, derived=Zeros((), jnp.int32)),)
                yield Weight(slot, "v", name)


class Ftrl(tables.Ftrl, Optimizer):
    pass


class Lion(tables.Lion, Optimizer):
    pass


class Lamb(Optimizer):
    """LAMB: Adam's step, made as long as the variable: θ ← θ − η ‖θ‖ / ‖u‖ u. arXiv:1904.00962."""

    chain = formulas.lamb
    slots = ({"momentum": "mu", "velocity": "nu"},)

    learning_rate: Rate = tables.Adam.default("learning_rate")
    beta_1: Decay = tables.Adam.default("beta_1")
    beta_2: Decay = tables.Adam.default("beta_2")
    epsilon: NonNegative = tables.Adam.default("epsilon")


class Muon(Optimizer):
    """Muon for matrices, Adam for the rest: m ← μ m + g,  θ ← θ − η r √max(rows, columns) O(g + μ m).

    O makes its argument orthogonal, by the iteration of Newton and Schulz. Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/.
    """

    positional = (
        "learning_rate",
        "adam_beta_1",
        "adam_beta_2",
        "adam_weight_decay",
        "epsilon",
        *(name for name in Optimizer.fields() if name not in ("learning_rate", "decay")),
    )

    decays_itself = True
    fixed = Optimizer.fixed | {"exclude_layers", "exclude_embeddings"}
    learning_rate: Rate = tables.Adam.default("learning_rate")
    adam_beta_1: Decay = tables.Adam.default("beta_1")
    adam_beta_2: Decay = tables.Adam.default("beta_2")
    adam_weight_decay: NonNegative | None = 0.004
    "λ of the variables that Adam updates."
    epsilon: NonNegative = tables.Adam.default("epsilon")
    weight_decay: NonNegative | None = 0.004
    "λ of the matrices, which are multiplied by 1 − η λ before each update."
    exclude_layers: Patterns = None
    "Regular expressions: variables in whose paths one of them is found are updated by Adam."
    exclude_embeddings: Flag = True
    "Whether variables with `embedding` in their path are updated by Adam."
    muon_a: Number = 3.4445
    "a of the iteration X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, which makes a matrix orthogonal."
    muon_b: Number = -4.7750
    "b of the iteration."
    muon_c: Number = 2.0315
    "c of the iteration."
    adam_lr_ratio: NonNegative = 1.0
    "The learning rate of Adam, in units of `learning_rate`."
    momentum: Decay = 0.95
    "μ: how much of the momentum stays from one step to the next; 0.9 is usual."
    ns_steps: PositiveInt = 5
    "How often the iteration is repeated; 5 is usual."
    nesterov: Flag = True
    "Whether to take Nesterov's form of the momentum, which looks one step ahead."
    rms_rate: Positive | None = 0.2
    "r: the update is multiplied by r √max(rows, columns); with 0.2 it is as large as Adam's, `None` leaves that out."

    def chain(self, learning_rate: Any) -> Transformation:
        rate = (
            scaled_schedule(self.adam_lr_ratio, learning_rate)
            if is_schedule(learning_rate)
            else (self.adam_lr_ratio * learning_rate)
        )
        others = adam(rate, self.adam_beta_1, self.adam_beta_2, self.epsilon, eps_hat=True)
        matrices = self.decayed(formulas.muon_step(self, learning_rate), self.weight_decay, learning_rate)
        return partition(
            {"muon": matrices, "adam": self.decayed(others, self.adam_weight_decay, learning_rate)},
            label_by_mask(self._mask, "muon", "adam"),
            allow_unused=True,
        )

    @property
    def _mask(self) -> matrices_for_muon:
        return matrices_for_muon(tuple(self.exclude_layers), self.exclude_embeddings)

    def slot_weights(self) -> Iterator[Weight]:
        is_matrix = self._mask(self.keeper.shapes)
        for name in self.keeper.shapes:
            owner = "MuonState" if is_matrix[name] else "ScaleByAdamState"
            yield Weight(self.slot_name("momentum", name), f"{owner}.mu", name)
            if not is_matrix[name]:
                yield Weight(self.slot_name("velocity", name), "nu", name)


class ScheduleFreeAdamW(Optimizer):
    """Schedule-free AdamW: gradients are taken between a fast path z and its average x. arXiv:2405.15682.

    `gradtx.eval_params(opt.state, ...)` gives x, at which to evaluate.
    """

    chain = formulas.schedule_free_adamw
    slots = ({"momentum": "z", "velocity": "nu"},)

    learning_rate: Rate = 0.0025
    beta_1: PositiveDecay = tables.Adam.default("beta_1")
    "β: gradients are taken at (1 − β) z + β x; 0.9 is usual."
    beta_2: Decay = tables.Adam.default("beta_2")
    epsilon: NonNegative = 1e-8
    "ε: added to the denominator, so that small gradients do not make large steps."
    warmup_steps: NonNegativeInt = 0
    "How many steps the learning rate takes to rise from 0 to η."

    def counted(self, inner_state: Any, steps: Any) -> Any:
        updates = jnp.asarray(steps // self.window, jnp.float32)  # every step weighs 1
        return replace(super().counted(inner_state, steps), weight_sum=updates)


_identifiers = Identifiers(
    "Keras 3",
    [
        SGD,
        RMSprop,
        Adagrad,
        Adadelta,
        Adam,
        AdamW,
        Adamax,
        Nadam,
        Adafactor,
        Ftrl,
        Lion,
        Lamb,
        Muon,
        ScheduleFreeAdamW,
        LossScaleOptimizer,
        MultiOptimizer,
        OptimizerMap,
        TFOptimizer,
    ],
    module="keras.optimizers",
)
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize
