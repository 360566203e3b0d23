"""Schedule-free SGD, AdamW and RAdam: averaging takes the place of a decaying learning rate and of momentum."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import (
    Decay,
    DType,
    Flag,
    NonNegative,
    NonNegativeInt,
    PositiveFraction,
    Rate,
    is_schedule,
)
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import abs_sq, ema, quotient, sqrt, unbiased, zeros
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.schedules.basic import linear_schedule
from gradtx.schedules.rectified import rectification, rectified_schedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.wrappers.schedule_free import schedule_free

__all__ = [
    "ScaleByRectifiedRmsState",
    "scale_by_rectified_rms",
    "schedule_free_adamw",
    "schedule_free_radam",
    "schedule_free_sgd",
]


class schedule_free_sgd(Optimizer):
    """Gradient descent inside `schedule_free`.

        u = g + λ y,   z ← z − η u

    Defazio et al., 2024. https://arxiv.org/abs/2405.15682. Evaluate the model at `eval_params(state, params)`.
    """

    learning_rate: Rate = 1.0
    "Step size η; 1 to 50 times as large as with momentum."
    warmup_steps: NonNegativeInt | None = None
    "Number W of steps until η is reached: the first step has η / W, the W-th has η."
    b1: PositiveFraction = schedule_free.b1
    weight_decay: NonNegative | None = None
    "Strength λ of the weight decay, multiplied by the learning rate; usually none."
    weight_lr_power: NonNegative = schedule_free.weight_lr_power
    state_dtype: DType | None = schedule_free.state_dtype
    r: NonNegative = schedule_free.r

    def expand(self) -> schedule_free:
        return _inside_schedule_free(self, [], _with_warm_up(self.learning_rate, self.warmup_steps))


class schedule_free_adamw(Optimizer):
    """AdamW without its first moment inside `schedule_free`.

        v ← β₂ v + (1 − β₂) |g|²
        u = g / (√(v / (1 − β₂ᵗ)) + ε) + λ y,   z ← z − η u

    Defazio et al., 2024. https://arxiv.org/abs/2405.15682. Evaluate the model at `eval_params(state, params)`.
    """

    learning_rate: Rate = 0.0025
    "Step size η; 1 to 10 times as large as with a schedule."
    warmup_steps: NonNegativeInt | None = None
    "Number W of steps until η is reached: the first step has η / W, the W-th has η. A warm-up is advised."
    b1: PositiveFraction = schedule_free.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate."
    weight_lr_power: NonNegative = schedule_free.weight_lr_power
    state_dtype: DType | None = schedule_free.state_dtype
    r: NonNegative = schedule_free.r

    def expand(self) -> schedule_free:
        rms = scale_by_rms.of(self, decay=self.b2, eps_in_sqrt=False, bias_correction=True)
        return _inside_schedule_free(self, [rms], _with_warm_up(self.learning_rate, self.warmup_steps))


class ScaleByRectifiedRmsState(NamedTuple):
    """The second moment of schedule-free RAdam."""

    count: Array
    "int32[]: updates made so far."
    nu: Tree
    "Like the parameters, real: running mean of the squared gradient."


class scale_by_rectified_rms(Leafwise):
    """Divide by a running root mean square of the gradient, as soon as the variance of that is finite.

        v ← β v + (1 − β) |g|²
        u = g / (√(v / (1 − βᵗ)) + ε) if ρ > 4, else g;   ρ as in `rectified_schedule`

    Liu et al., 2019, without the first moment. https://arxiv.org/abs/1908.03265
    """

    State = ScaleByRectifiedRmsState

    decay: Decay = scale_by_adam.b2
    "Decay rate β of the mean square; 0.999 is usual."
    eps: NonNegative = scale_by_adam.eps

    def init_leaf(self, param: Array) -> tuple[Array]:
        return (jnp.real(zeros(param)),)

    def leaf(self, g: Array, nu: Array, *, t: Array) -> tuple[Array, Array]:
        nu = ema(nu, abs_sq(g), self.decay)
        root = sqrt(unbiased(nu, self.decay, t)) + self.eps
        trusted, _ = rectification(self.decay, t)
        return jnp.where(trusted, quotient(g, jnp.where(trusted, root, 1), self.eps), g), nu


class schedule_free_radam(Optimizer):
    """RAdam without its first moment inside `schedule_free`: an AdamW that needs no warm-up.

    It makes steps of `scale_by_rectified_rms` at the rate of `rectified_schedule`, by which the weight decay is
    multiplied, too. It is in the authors' code for Defazio et al., 2024, https://arxiv.org/abs/2405.15682. Evaluate the
    model at `eval_params(state, params)`.
    """

    learning_rate: Rate = schedule_free_adamw.learning_rate
    "Step size η at the end of the rectification; 1 to 10 times as large as with a schedule."
    b1: PositiveFraction = schedule_free.b1
    b2: Decay = scale_by_adam.b2
    eps: NonNegative = scale_by_adam.eps
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate."
    weight_lr_power: NonNegative = schedule_free.weight_lr_power
    state_dtype: DType | None = schedule_free.state_dtype
    r: NonNegative = schedule_free.r
    silent_sgd_phase: Flag = True
    "Whether steps before the rectification begins have size 0, rather than go along the gradient itself."

    def expand(self) -> schedule_free:
        rate = rectified_schedule(self.learning_rate, self.b2, self.silent_sgd_phase)
        return _inside_schedule_free(self, [scale_by_rectified_rms.of(self, decay=self.b2)], rate)


def _with_warm_up(learning_rate: Any, steps: int | None) -> Any:
    """η min(1, k / W) in the k-th step, k = 1, 2, …"""
    if not steps:
        return learning_rate
    if is_schedule(learning_rate):
        raise TypeError(
            "schedule_free: warmup_steps needs a number for learning_rate; put the warm-up into the schedule"
        )
    return learning_rate if steps == 1 else linear_schedule(learning_rate / steps, learning_rate, steps - 1)


def _inside_schedule_free(tx: Any, direction: list[Transformation], rate: Any) -> schedule_free:
    """`schedule_free` around the stages of `direction`, weight decay and steps of this rate."""
    decay = [] if tx.weight_decay is None else [add_decayed_weights(tx.weight_decay)]
    base = chain(*direction, *decay, scale_by_learning_rate(rate))
    return schedule_free(base, rate, tx.b1, tx.weight_lr_power, tx.state_dtype, tx.r)
