"""Gradient transformations for JAX: each optimizer a pair of pure functions, composed with `chain`."""

from gradtx.core.base import *
from gradtx.core.spec import *
from gradtx.io.interop import *
from gradtx.optimizers.adafactor import *
from gradtx.optimizers.adam import *
from gradtx.optimizers.lamb import *
from gradtx.optimizers.lion import *
from gradtx.optimizers.sgd import *
from gradtx.schedules.base import *
from gradtx.schedules.basic import *
from gradtx.schedules.cosine import *
from gradtx.schedules.cyclic import *
from gradtx.schedules.join import *
from gradtx.schedules.piecewise import *
from gradtx.schedules.warmup import *
from gradtx.transforms.clipping import *
from gradtx.transforms.decay import *
from gradtx.transforms.momentum import *
from gradtx.transforms.scaling import *
from gradtx.wrappers.accumulate import *
from gradtx.wrappers.masked import *
