"""Gradient transformations for JAX: each optimizer a pair of pure functions, composed with `chain`.

>>> import gradtx
>>> gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3))
chain(clip_by_global_norm(1.0), adam(0.001))

`gradtx.keras` has Keras's optimizers, `gradtx.losses` has loss functions, `gradtx.tree` has arithmetic on trees, and
`gradtx.authoring` has what one needs to write a transformation of one's own.
"""

import importlib
import types
import typing

from gradtx import assignment, authoring, microbatching, perturbations, projections, second_order, tree
from gradtx.core.apply import *
from gradtx.core.compose import *
from gradtx.core.config import *
from gradtx.core.leafwise import *
from gradtx.core.namespaces import absence
from gradtx.core.registry import *
from gradtx.core.run import *
from gradtx.core.spec import *
from gradtx.core.transformation import *
from gradtx.interop.optax import *
from gradtx.linear_algebra import *
from gradtx.masks.hiding import *
from gradtx.masks.labels import *
from gradtx.masks.masks import *
from gradtx.masks.rules import *
from gradtx.optimizers.acprop import *
from gradtx.optimizers.adabelief import *
from gradtx.optimizers.adadelta import *
from gradtx.optimizers.adafactor import *
from gradtx.optimizers.adagrad import *
from gradtx.optimizers.adam import *
from gradtx.optimizers.adamax import *
from gradtx.optimizers.adan import *
from gradtx.optimizers.ademamix import *
from gradtx.optimizers.adopt import *
from gradtx.optimizers.asgd import *
from gradtx.optimizers.cocob import *
from gradtx.optimizers.dadapt_adamw import *
from gradtx.optimizers.dog import *
from gradtx.optimizers.dpsgd import *
from gradtx.optimizers.fromage import *
from gradtx.optimizers.ftrl import *
from gradtx.optimizers.galore import *
from gradtx.optimizers.lamb import *
from gradtx.optimizers.lars import *
from gradtx.optimizers.lbfgs import *
from gradtx.optimizers.lion import *
from gradtx.optimizers.madgrad import *
from gradtx.optimizers.momo import *
from gradtx.optimizers.muon import *
from gradtx.optimizers.nadam import *
from gradtx.optimizers.noisy_sgd import *
from gradtx.optimizers.novograd import *
from gradtx.optimizers.optimistic import *
from gradtx.optimizers.polyak import *
from gradtx.optimizers.prodigy import *
from gradtx.optimizers.radam import *
from gradtx.optimizers.rmsprop import *
from gradtx.optimizers.rprop import *
from gradtx.optimizers.schedule_free import *
from gradtx.optimizers.sgd import *
from gradtx.optimizers.signum import *
from gradtx.optimizers.simplified_ademamix import *
from gradtx.optimizers.sm3 import *
from gradtx.optimizers.sophia import *
from gradtx.optimizers.tiger import *
from gradtx.optimizers.torch_adafactor import *
from gradtx.optimizers.yogi import *
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
from gradtx.states.fields import *
from gradtx.states.hyperparams import *
from gradtx.states.metrics import *
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
from gradtx.wrappers.accumulate import *
from gradtx.wrappers.averaging import *
from gradtx.wrappers.complex_valued import *
from gradtx.wrappers.conditional import *
from gradtx.wrappers.finite import *
from gradtx.wrappers.flatten import *
from gradtx.wrappers.freeze import *
from gradtx.wrappers.inject import *
from gradtx.wrappers.lookahead import *
from gradtx.wrappers.masked import *
from gradtx.wrappers.mechanize import *
from gradtx.wrappers.monitor import *
from gradtx.wrappers.partition import *
from gradtx.wrappers.plateau import *
from gradtx.wrappers.sam import *
from gradtx.wrappers.schedule_free import *
from gradtx.wrappers.sharing import *

if typing.TYPE_CHECKING:
    from gradtx import contrib as contrib
    from gradtx import keras as keras
    from gradtx import losses as losses
    from gradtx import tree_utils as tree_utils
    from gradtx.aliases import *
    from gradtx.losses import *

__version__ = "0.1.0"

_WHEN_ASKED_FOR = ("keras", "losses")
_OF_OPTAX = ("contrib", "tree_utils")


def _is_for_users(name: str, thing: object) -> bool:
    """Whether completion shows a name. It hides modules, what authors need, and the classes of states."""
    if name.startswith("_") or name == "inject_factory":
        return False
    if isinstance(thing, types.ModuleType):
        return thing in (assignment, authoring, microbatching, perturbations, projections, second_order, tree)
    if isinstance(thing, type) and issubclass(thing, tuple):
        return False
    return thing in (authoring.GradientTransformation, authoring.Transformation) or thing is not vars(authoring).get(
        name
    )


__all__ = [name for name, thing in sorted(globals().items()) if _is_for_users(name, thing)]  # pyright: ignore


def __dir__() -> list[str]:
    return sorted([*__all__, *_WHEN_ASKED_FOR, "__version__"])


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for, and what completion does not show: optax's other names for things.

    optax has losses at its top, too. Here completion shows them in `gradtx.losses`.
    """
    if name in _WHEN_ASKED_FOR or name in _OF_OPTAX:
        return importlib.import_module(f"gradtx.{name}")
    if not name.startswith("_"):
        for module in map(importlib.import_module, ("gradtx.losses", "gradtx.aliases")):
            if name in module.__all__:
                return getattr(module, name)
    hint = absence(name, __all__)
    raise AttributeError(f"module 'gradtx' has no attribute {name!r}{hint}", name=name)
