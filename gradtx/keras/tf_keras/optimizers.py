"""The optimizers of tf.keras 2.11 to 2.15.

    from gradtx.keras.tf_keras import optimizers        # for: from tensorflow.keras import optimizers
    from gradtx.keras.tf_keras.optimizers import Adam   # for: from tensorflow.keras.optimizers import Adam

`optimizers.legacy` are those before 2.11, `optimizers.schedules` the schedules.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Self

from gradtx.core.hyperparams import Flag, PositiveInt, Rate
from gradtx.keras import formulas, schedules
from gradtx.keras.engine.classic import momentum_product
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.modern import Modern, factored
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.engine.table import Name
from gradtx.keras.engine.tensorflow import InTensorFlow
from gradtx.keras.engine.weights import Weight
from gradtx.keras.holders.loss_scale import TfKerasLossScaleOptimizer
from gradtx.keras.tables import keras3 as tables
from gradtx.keras.tf_keras_legacy import optimizers as legacy

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lion",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "legacy",
    "schedules",
    "serialize",
]


class Optimizer(InTensorFlow, Modern, abstract=True, kw_only=True):
    """Base of tf.keras's optimizers since 2.11: Keras 3's without accumulation and loss scale.

        params = opt.minimize(loss, params)        # loss is a function of the params
        params = opt.apply_gradients(zip(grads, params))

    The running mean starts from the parameters before the first step. `lr` and `decay`, of which tf.keras ignores the
    one and refuses the other, are honoured.
    """

    dialect = Modern.dialect._replace(
        generation="tf_keras",
        default_name=str,
        counter="iteration:0",
        count_dtype="int64",
        slot="{name}/{slot}/{variable}:0",
        ema_start="before",
        legacy_format=False,
    )
    unknown_argument = TypeError
    last = ("name",)

    name: Name = None
    "Its name in configs and in those of its weights; by default the class's."
    jit_compile: Flag = True
    "Accepted; every step is compiled."

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"is_legacy_optimizer": False}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        settings = {name: value for name, value in config.items() if name != "is_legacy_optimizer"}
        return super().from_config(settings, custom_objects)


class SGD(tables.SGD, Optimizer):
    chain = formulas.sgd_with_velocity
    slots = ({"m": "trace"},)


class RMSprop(tables.RMSprop, Optimizer):
    positional = (
        "learning_rate",
        "rho",
        "momentum",
        "epsilon",
        "centered",
        "weight_decay",
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "use_ema",
        "ema_momentum",
        "ema_overwrite_frequency",
    )

    ema_overwrite_frequency: PositiveInt | None = 100


class Adagrad(tables.Adagrad, Optimizer):
    pass


class Adadelta(tables.Adadelta, Optimizer):
    pass


class Adam(tables.Adam, Optimizer):
    slots = ({"m": "mu", "v": "nu"}, {"vhat": "nu_max"})


class AdamW(tables.AdamW, Optimizer):  # pyright: ignore[reportIncompatibleVariableOverride]
    slots = Adam.slots


class Adamax(tables.Adamax, Optimizer):
    slots = ({"m": "mu", "u": "nu"},)


class Nadam(tables.Nadam, Optimizer):
    slots = ({"m": "mu", "v": "nu"},)

    last_weights = (Weight("u_product:0", "mu_product", forgotten=True),)

    def recovered(self, missing: Any, named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        steps = next(value for weight, value in named.items() if weight.field == "iterations")
        return {weight: momentum_product(self, int(steps)) for weight in missing}


class Adafactor(tables.Adafactor, Optimizer):
    def slot_weights(self) -> Iterator[Weight]:
        for name, like in self.keeper.shapes.items():
            if len(like.shape) < 2:
                yield Weight(self.slot_name("v", name), "v", name)
            else:
                yield Weight(self.slot_name("r", name), "v_row", name)
                yield Weight(self.slot_name("c", name), "v_col", name)
                yield Weight(self.slot_name("v", name), "", name, derived=factored)


class Ftrl(tables.Ftrl, Optimizer):
    pass


class Lion(tables.Lion, Optimizer):
    slots = ({"m": "mu"},)

    learning_rate: Rate = 0.0001


class LossScaleOptimizer(TfKerasLossScaleOptimizer):
    dialect = Dialect(module=__name__, counter=None)


_identifiers = Identifiers(
    "tf.keras",
    [Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Ftrl, Lion, LossScaleOptimizer, Nadam, RMSprop, SGD],
    "keras.optimizers",
    ("is_legacy_optimizer",),
)
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize


def __getattr__(name: str) -> Any:
    """`optimizers.experimental`: these optimizers, by the name that they had before they were the default."""
    if name == "experimental":
        return sys.modules[__name__]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
