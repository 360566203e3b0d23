"""The optimizers of Keras 2.3: the numbers of Keras 2.2, with `learning_rate` for `lr` and all counters saved.

    from gradtx.keras.keras2_3 import optimizers        # for: from keras import optimizers
    from gradtx.keras.keras2_3.optimizers import Adam   # for: from keras.optimizers import Adam

In small letters they have aliases, as in Keras.
"""

from typing import ClassVar

from gradtx.keras.engine.classic import NADAMS_PRODUCT, Classic, with_unused_maxima
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.engine.table import Name
from gradtx.keras.holders.tf_optimizer import TFOptimizer
from gradtx.keras.tables import keras2 as tables

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "TFOptimizer",
    "deserialize",
    "get",
    "serialize",
]


class Optimizer(Classic, abstract=True, kw_only=True):
    """Base of Keras 2.3's optimizers: as Keras 2's, but that every class saves its counter."""

    dialect = Classic.dialect._replace(generation="keras2_3")
    rate_name = "learning_rate"
    quiet: ClassVar[frozenset[str]] = Classic.quiet | {"name"}

    name: Name = None
    "A name, which is kept and changes nothing."


class SGD(tables.SGD, Optimizer):
    positional = ("learning_rate", "momentum", "nesterov")


class RMSprop(tables.RMSprop, Optimizer):
    pass


class Adagrad(tables.Adagrad, Optimizer):
    pass


class Adadelta(tables.Adadelta, Optimizer):
    pass


class Adam(tables.Adam, Optimizer):
    positional = ("learning_rate", "beta_1", "beta_2", "amsgrad")
    slot_weights = with_unused_maxima


class Adamax(tables.Adamax, Optimizer):
    pass


class Nadam(tables.Nadam, Optimizer):
    first_weights = (NADAMS_PRODUCT,)


sgd = SGD
rmsprop = RMSprop
adagrad = Adagrad
adadelta = Adadelta
adam = Adam
adamax = Adamax
nadam = Nadam

_identifiers = Identifiers("Keras 2.3", [Adadelta, Adagrad, Adam, Adamax, Nadam, RMSprop, SGD, TFOptimizer])
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize
