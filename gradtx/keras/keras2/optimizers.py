"""The optimizers of Keras 2.0 to 2.2.

    from gradtx.keras.keras2 import optimizers        # for: from keras import optimizers
    from gradtx.keras.keras2.optimizers import Adam   # for: from keras.optimizers import Adam

In small letters they have aliases, as in Keras.
"""

from gradtx.keras.engine.classic import NADAMS_PRODUCT, Classic, with_unused_maxima
from gradtx.keras.engine.registry import Identifiers
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
    """Base of Keras 2's optimizers; see `gradtx.keras.engine.classic.Classic` for what happens in a step.

        params = opt.get_updates(loss, params)     # loss is a function of the params
        params = opt.apply_gradients(zip(grads, params))

    `get_weights` has Keras's order, and behind it the counters that Keras 2.2 did not save.
    """

    dialect = Classic.dialect._replace(generation="keras2")
    rate_name = "lr"


class SGD(tables.SGD, Optimizer):
    pass


class RMSprop(tables.RMSprop, Optimizer):
    forgets_count = True


class Adagrad(tables.Adagrad, Optimizer):
    forgets_count = True


class Adadelta(tables.Adadelta, Optimizer):
    forgets_count = True


class Adam(tables.Adam, Optimizer):
    slot_weights = with_unused_maxima


class Adamax(tables.Adamax, Optimizer):
    pass


class Nadam(tables.Nadam, Optimizer):
    last_weights = (NADAMS_PRODUCT._replace(forgotten=True),)


sgd = SGD
rmsprop = RMSprop
adagrad = Adagrad
adadelta = Adadelta
adam = Adam
adamax = Adamax
nadam = Nadam

_identifiers = Identifiers("Keras 2.2", [Adadelta, Adagrad, Adam, Adamax, Nadam, RMSprop, SGD, TFOptimizer])
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize
