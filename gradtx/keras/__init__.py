"""Keras's optimizers on JAX, for code of every Keras generation. `gradtx.keras` itself speaks Keras 3."""

from gradtx.keras.adapter.arrival import register_when_imported as _register_when_imported
from gradtx.keras.adapter.as_keras import *
from gradtx.keras.by_variable import *
from gradtx.keras.engine.derived import *
from gradtx.keras.engine.variable import *
from gradtx.keras.files.loading import *
from gradtx.keras.files.saved import *
from gradtx.keras.holders.loss_scale import *
from gradtx.keras.holders.multi import *
from gradtx.keras.holders.optimizer_map import *
from gradtx.keras.holders.tf_optimizer import *
from gradtx.keras.optimizers import *
from gradtx.keras.proximal import *
from gradtx.keras.transforms import *

_register_when_imported()  # so that Keras can load what `as_keras` has saved
