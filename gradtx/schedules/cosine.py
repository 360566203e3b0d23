"""Half a cosine: once, over and over, or with warm restarts."""

import math
from typing import Annotated, Any

import jax.numpy as jnp
from jax import Array

from gradtx.core.hyperparams import Fraction, Number, Positive, PositiveInt, Real
from gradtx.schedules.base import Schedule, progress

__all__ = ["cosine_annealing_schedule", "cosine_decay_restarts_schedule", "cosine_decay_schedule"]


class cosine_decay_schedule(Schedule):
    """Fall along half a cosine.

        s(t) = s₀ ((1 − α) c + α),   c = (½ (1 + cos π x))ᵖ,   x = t / T, at most 1

    Step 0 has `init_value`. Loshchilov & Hutter, 2016, without restarts. https://arxiv.org/abs/1608.03983
    """

    init_value: Number
    "s₀."
    decay_steps: PositiveInt
    "T."
    alpha: Fraction = 0.0
    "What remains at the end, as a share of s₀."
    exponent: Positive = 1.0
    "p."

    def at(self, t: Array) -> Any:
        x = progress(t, self.decay_steps)
        cosine = (0.5 * (1 + jnp.cos(jnp.pi * x))) ** self.exponent
        return self.init_value * ((1 - self.alpha) * cosine + self.alpha)


class cosine_annealing_schedule(Schedule):
    """Down half a cosine, up the other half, for ever: torch's `CosineAnnealingLR`.

        s(t) = s₁ + ½ (s₀ − s₁) (1 + cos(π t / T))

    Step 0 has `init_value`.
    """

    init_value: Number
    "s₀."
    half_period: PositiveInt
    "T; torch's `T_max`."
    end_value: Number = 0.0
    "s₁; torch's `eta_min`."

    def at(self, t: Array) -> Any:
        cosine = jnp.cos(jnp.pi * jnp.mod(t, 2.0 * self.half_period) / float(self.half_period))
        return self.end_value + 0.5 * (self.init_value - self.end_value) * (1 + cosine)


class cosine_decay_restarts_schedule(Schedule):
    """Fall along half a cosine and start again, each time longer and from a lower peak.

        s(t) = s₀ ((1 − α) mⁱ ½ (1 + cos π x) + α)

    i counts the cycles, of lengths T, T q, T q², …; x is the share of the present one. Step 0 has `init_value`, and so
    has, times mⁱ, the first step of each cycle. Loshchilov & Hutter, 2016. https://arxiv.org/abs/1608.03983
    """

    init_value: Number
    "s₀."
    first_decay_steps: PositiveInt
    "T."
    t_mul: Annotated[float, Real("[1, ∞)", 2.0, numeric=False)] = 2.0
    "q, how much longer each cycle is than the one before."
    m_mul: Positive = 1.0
    "m, how much lower each peak is."
    alpha: Fraction = 0.0
    "What remains at the end of a cycle, as a share of s₀."

    def at(self, t: Array) -> Any:
        cycle, x = self._cycle(t / float(self.first_decay_steps))
        return self.init_value * ((1 - self.alpha) * self.m_mul**cycle * 0.5 * (1 + jnp.cos(jnp.pi * x)) + self.alpha)

    def _cycle(self, x: Array) -> tuple[Array, Array]:
        """The number of the cycle that x, in units of the first one, lies in, and the share of it that is over."""
        q = self.t_mul
        if q == 1:
            return jnp.floor(x), x - jnp.floor(x)
        cycle = jnp.floor(jnp.log1p(x * (q - 1)) / math.log(q))
        begin = lambda i: (q**i - 1) / (q - 1)  # noqa: E731
        # the logarithm may round across a boundary
        cycle = jnp.where(x < begin(cycle), cycle - 1, jnp.where(x >= begin(cycle + 1), cycle + 1, cycle))
        return cycle, (x - begin(cycle)) / q**cycle
