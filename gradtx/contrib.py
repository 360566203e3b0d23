"""The names of `optax.contrib`. Each is also at the top, as `gradtx.<name>`."""

from gradtx.core.namespaces import from_the_top
from gradtx.optimizers.madgrad import MadgradState, madgrad, scale_by_madgrad
from gradtx.optimizers.muon import MuonDimensionNumbers, MuonState, muon, scale_by_muon
from gradtx.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from gradtx.transforms.normalizing import normalize
from gradtx.wrappers.plateau import ReduceLROnPlateauState, reduce_on_plateau
from gradtx.wrappers.sam import SAMState, sam
from gradtx.wrappers.schedule_free import ScheduleFreeState, schedule_free, schedule_free_eval_params

__all__ = [
    "MadgradState",
    "MuonDimensionNumbers",
    "MuonState",
    "ReduceLROnPlateauState",
    "SAMState",
    "ScheduleFreeState",
    "madgrad",
    "muon",
    "normalize",
    "reduce_on_plateau",
    "sam",
    "scale_by_madgrad",
    "scale_by_muon",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
]

__getattr__ = from_the_top(__name__)
