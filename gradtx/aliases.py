"""Other names, which optax has for what is called something else here: each is `gradtx.<name>` as well.

Most are of states: a program may import them for its annotations, where our stage has another state, or none.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import chain
from gradtx.core.hyperparams import ScheduleFunction
from gradtx.core.run import EmptyState
from gradtx.core.transformation import GradientTransformation, Transformation
from gradtx.core.tree import Tree
from gradtx.interop.optax import safe_increment
from gradtx.microbatching import microbatch
from gradtx.optimizers.dog import scale_by_ldog
from gradtx.states.fields import map_params
from gradtx.transforms.scaling import scale
from gradtx.transforms.stateless import ApplyEveryState
from gradtx.tree import bias_correction, update_infinity_moment, update_moment, update_moment_per_elem_norm
from gradtx.wrappers.inject import InjectStatefulHyperparamsState, inject_hyperparams
from gradtx.wrappers.partition import PartitionState

__all__ = [
    "AdaptiveGradClipState",
    "AddDecayedWeightsState",
    "ApplyEvery",
    "ClipState",
    "ConditionFn",
    "InjectHyperparamsState",
    "MaskOrFn",
    "MultiTransformState",
    "NonNegativeParamsState",
    "NormalizeState",
    "ScalarOrSchedule",
    "ScaleByTrustRatioState",
    "ScaleState",
    "ShouldSkipUpdateFunction",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "bias_correction",
    "init_empty_state",
    "inject_stateful_hyperparams",
    "microbatch",
    "safe_int32_increment",
    "scale_by_distance_over_gradients",
    "tree_map_params",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "with_extra_args_support",
]

ScalarOrSchedule = float | Array | ScheduleFunction
"A hyper-parameter as a number or as a function of the number of updates made."
MaskOrFn = Tree | Callable[[Tree], Tree] | None
"A mask, or a function from the parameters to one."
TransformInitFn = Callable[[Tree], Any]
"An `init` function."
TransformUpdateFn = TransformUpdateExtraArgsFn = Callable[..., tuple[Tree, Any]]
"An `update` function."
ShouldSkipUpdateFunction = Callable[[Tree, Array, Tree], tuple[Array, Any]]
"Which gradients `accumulate` leaves out, and what it remembers of them."
ConditionFn = Callable[..., Any]
"When `conditionally_transform` acts: a function of the number of updates made and of the extra arguments."

AdaptiveGradClipState = AddDecayedWeightsState = ClipState = NonNegativeParamsState = NormalizeState = EmptyState
ScaleByTrustRatioState = ScaleState = EmptyState
ApplyEvery = ApplyEveryState
MultiTransformState = PartitionState
InjectHyperparamsState = InjectStatefulHyperparamsState
inject_stateful_hyperparams = inject_hyperparams
safe_int32_increment = safe_increment
tree_map_params = map_params


def init_empty_state(params: Tree) -> EmptyState:
    """The state of a transformation that remembers nothing."""
    return EmptyState()


def with_extra_args_support(tx: Transformation) -> GradientTransformation:
    """`tx` as a transformation of gradtx, which takes extra arguments whether or not it uses them."""
    return tx if isinstance(tx, GradientTransformation) else GradientTransformation(tx.init, tx.update)


def scale_by_distance_over_gradients(
    reps_rel: float = 1e-6, eps: float = 1e-8, param_dtype: Any = jnp.float32, global_scale: float = 1.0
) -> GradientTransformation:
    """`scale_by_ldog` with the arguments that it has in optax. The first parameters are kept in at least float32.

    Raises:
        ValueError: `param_dtype` is another dtype.
    """
    if jnp.dtype(param_dtype) != jnp.float32:
        raise ValueError(f"scale_by_distance_over_gradients: param_dtype must be float32, got {jnp.dtype(param_dtype)}")
    stage = scale_by_ldog(("heuristic", reps_rel), eps)
    return stage if global_scale == 1 else chain(stage, scale(global_scale))
