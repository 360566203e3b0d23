"""Keras's optimizers on JAX, for code of every Keras generation. `gradtx.keras` itself speaks Keras 3."""

from gradtx.keras import schedules
from gradtx.keras.adapter import *
from gradtx.keras.files import *
from gradtx.keras.optimizers import *
from gradtx.keras.saving import *
from gradtx.keras.transforms import *
from gradtx.keras.variable import *
