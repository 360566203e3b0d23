"""Stages that no optimizer owns. The names are those of `optax.transforms`; each is also at the top."""

from typing import TYPE_CHECKING

from gradtx.core.compose import chain, named_chain
from gradtx.core.namespaces import from_the_top
from gradtx.masks.hiding import MaskedNode
from gradtx.transforms.cautious import *
from gradtx.transforms.clipping import *
from gradtx.transforms.decay import *
from gradtx.transforms.linesearch import *
from gradtx.transforms.momentum import *
from gradtx.transforms.noise import *
from gradtx.transforms.normalizing import *
from gradtx.transforms.orthogonal import *
from gradtx.transforms.per_example import *
from gradtx.transforms.privacy import *
from gradtx.transforms.project import *
from gradtx.transforms.scaling import *
from gradtx.transforms.stateless import *

if TYPE_CHECKING:
    from gradtx.aliases import ConditionFn, NonNegativeParamsState, ShouldSkipUpdateFunction
    from gradtx.wrappers.accumulate import MultiSteps, MultiStepsState, skip_large_updates, skip_not_finite
    from gradtx.wrappers.conditional import *
    from gradtx.wrappers.finite import ApplyIfFiniteState, apply_if_finite
    from gradtx.wrappers.flatten import flatten
    from gradtx.wrappers.freeze import freeze, selective_transform
    from gradtx.wrappers.masked import masked
    from gradtx.wrappers.monitor import *
    from gradtx.wrappers.partition import PartitionState, partition
    from gradtx.wrappers.sharing import MaskedState

__all__ = [
    "AddNoiseState",
    "ApplyIfFiniteState",
    "ConditionFn",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "EmaState",
    "MaskedNode",
    "MaskedState",
    "MonitorState",
    "MultiSteps",
    "MultiStepsState",
    "NonNegativeParamsState",
    "PartitionState",
    "ShouldSkipUpdateFunction",
    "SnapshotState",
    "TraceState",
    "ZeroNansState",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "apply_if_finite",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "conditionally_mask",
    "conditionally_transform",
    "ema",
    "flatten",
    "freeze",
    "keep_params_nonnegative",
    "masked",
    "measure_with_ema",
    "monitor",
    "named_chain",
    "partition",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "selective_transform",
    "skip_large_updates",
    "skip_not_finite",
    "snapshot",
    "trace",
    "unitwise_clip",
    "unitwise_norm",
    "zero_nans",
]

__getattr__ = from_the_top(__name__, __all__)
