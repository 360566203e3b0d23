"""The names of `optax.contrib`. Each is also at the top, as `gradtx.<name>`."""

from gradtx.aliases import NormalizeState
from gradtx.core.namespaces import from_the_top
from gradtx.optimizers.acprop import acprop, scale_by_acprop
from gradtx.optimizers.ademamix import ScaleByAdemamixState, ademamix, scale_by_ademamix
from gradtx.optimizers.adopt import adopt, scale_by_adopt
from gradtx.optimizers.cocob import COCOBState, cocob, scale_by_cocob
from gradtx.optimizers.dadapt_adamw import DAdaptAdamWState, dadapt_adamw
from gradtx.optimizers.dog import DoGState, DoWGState, dog, dowg
from gradtx.optimizers.dpsgd import dpsgd
from gradtx.optimizers.galore import GaLoreDimensionNumbers, GaLoreState, galore, scale_by_galore
from gradtx.optimizers.madgrad import MadgradState, madgrad, scale_by_madgrad
from gradtx.optimizers.momo import MomoAdamState, MomoState, momo, momo_adam
from gradtx.optimizers.muon import MuonDimensionNumbers, MuonState, muon, scale_by_muon
from gradtx.optimizers.prodigy import ProdigyState, prodigy
from gradtx.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from gradtx.optimizers.simplified_ademamix import (
    ScaleBySimplifiedAdEMAMixState,
    scale_by_simplified_ademamix,
    simplified_ademamix,
)
from gradtx.optimizers.sophia import HutchinsonState, SophiaState, hutchinson_estimator_diag_hessian, sophia
from gradtx.transforms.normalizing import normalize
from gradtx.transforms.privacy import DifferentiallyPrivateAggregateState, differentially_private_aggregate
from gradtx.wrappers.complex_valued import SplitRealAndImaginaryState, split_real_and_imaginary
from gradtx.wrappers.mechanize import MechanicState, mechanize
from gradtx.wrappers.plateau import ReduceLROnPlateauState, reduce_on_plateau
from gradtx.wrappers.sam import SAMState, sam
from gradtx.wrappers.schedule_free import ScheduleFreeState, schedule_free, schedule_free_eval_params

__all__ = [
    "COCOBState",
    "DAdaptAdamWState",
    "DifferentiallyPrivateAggregateState",
    "DoGState",
    "DoWGState",
    "GaLoreDimensionNumbers",
    "GaLoreState",
    "HutchinsonState",
    "MadgradState",
    "MechanicState",
    "MomoAdamState",
    "MomoState",
    "MuonDimensionNumbers",
    "MuonState",
    "NormalizeState",
    "ProdigyState",
    "ReduceLROnPlateauState",
    "SAMState",
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "ScheduleFreeState",
    "SophiaState",
    "SplitRealAndImaginaryState",
    "acprop",
    "ademamix",
    "adopt",
    "cocob",
    "dadapt_adamw",
    "differentially_private_aggregate",
    "dog",
    "dowg",
    "dpsgd",
    "galore",
    "hutchinson_estimator_diag_hessian",
    "madgrad",
    "mechanize",
    "momo",
    "momo_adam",
    "muon",
    "normalize",
    "prodigy",
    "reduce_on_plateau",
    "sam",
    "scale_by_acprop",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_cocob",
    "scale_by_galore",
    "scale_by_madgrad",
    "scale_by_muon",
    "scale_by_simplified_ademamix",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "simplified_ademamix",
    "sophia",
    "split_real_and_imaginary",
]

__getattr__ = from_the_top(__name__)
