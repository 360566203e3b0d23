"""Functions of the number of updates made. The names are those of `optax.schedules`; each is also at the top."""

from typing import TYPE_CHECKING

from gradtx.core.namespaces import from_the_top
from gradtx.schedules.base import *
from gradtx.schedules.basic import *
from gradtx.schedules.cosine import *
from gradtx.schedules.cyclic import *
from gradtx.schedules.half_life import *
from gradtx.schedules.join import *
from gradtx.schedules.piecewise import *
from gradtx.schedules.ramp import *
from gradtx.schedules.rectified import *
from gradtx.schedules.warmup import *

if TYPE_CHECKING:
    from gradtx.aliases import InjectHyperparamsState, inject_stateful_hyperparams
    from gradtx.wrappers.inject import *

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "Schedule",
    "StatefulSchedule",
    "WrappedSchedule",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]

__getattr__ = from_the_top(__name__, __all__)
