"""The optimizers of Keras 1.

    from gradtx.keras.keras1 import optimizers       # for: from keras import optimizers
    from gradtx.keras.keras1.optimizers import SGD   # for: from keras.optimizers import SGD

Their numbers are Keras 2's with ε = 1e-8; their counters are floats.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradtx.core.tree import Tree
from gradtx.keras.engine.classic import NADAMS_PRODUCT, Classic
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.holders.tf_optimizer import TFOptimizer
from gradtx.keras.tables import keras1 as tables
from gradtx.keras.tables import keras2

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
    """Base of Keras 1's optimizers.

    `get_updates(params, constraints, loss)` makes a step: the loss is a function of the parameters, the constraints are
    functions by the names of those they apply to (or nothing). Keras 1 counted the steps of SGD, RMSprop, Adagrad and
    Adadelta only where `decay` was not 0; here they always are.
    """

    dialect = Classic.dialect._replace(generation="keras2", count_dtype=np.float32)
    rate_name = "lr"

    def get_updates(self, params: Tree, constraints: Any, loss: Callable[..., Any], *batch: Any) -> Any:
        """Make one step down the gradient of `loss(params, *batch)`; in Keras 1's order of arguments."""
        return self.minimize(loss, params, *batch, constraints=constraints)


class SGD(keras2.SGD, Optimizer):
    pass


class RMSprop(tables.RMSprop, Optimizer):
    forgets_count = True


class Adagrad(tables.Adagrad, Optimizer):
    forgets_count = True


class Adadelta(tables.Adadelta, Optimizer):
    forgets_count = True


class Adam(tables.Adam, Optimizer):
    pass


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

_identifiers = Identifiers("Keras 1", [Adadelta, Adagrad, Adam, Adamax, Nadam, RMSprop, SGD, TFOptimizer])
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize
