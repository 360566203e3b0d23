"""The learning rate of an optimizer: what was given for it, what a step uses, and what users see and set.

Of an optimizer that holds others it is theirs.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.hyperparams import Rate, is_schedule, kind_of
from gradtx.core.spec import Spec
from gradtx.keras.engine.table import converted
from gradtx.keras.engine.variable import is_variable

__all__ = ["GivenRate", "Rates", "takes_nothing"]

RATE = kind_of(Rate)
LARGEST = float(np.finfo(np.float32).max)


class GivenRate:
    """A number, a schedule, or a function without arguments, which is asked at every step."""

    def __init__(self, owner: str, value: Any) -> None:
        """`owner` is the class of the optimizer, which messages name."""
        self.owner = owner
        self.set(value)

    def set(self, value: Any) -> None:
        """Use another one from now on."""
        if not is_schedule(value):
            value = self.checked(value.value if is_variable(value) else value)
        self.value, self._is_asked = value, takes_nothing(value)

    def in_use(self, found: Any = None) -> Any:
        """What the chain is made with: a number, or a schedule; or what was found among weights, if anything was."""
        if found is not None:
            return found
        return float(self.checked(self.value())) if self._is_asked else self.value

    def after(self, steps: int) -> float:
        """The rate of the step after so many."""
        rate = self.in_use()
        return float(rate(steps)) if is_schedule(rate) else rate

    def beside(self) -> Any:
        """What stands for it beside a state: an array; of a schedule, which is never among weights, nothing."""
        return None if is_schedule(self.value) else jnp.asarray(self.value, jnp.float32)

    def check(self, rate: Any) -> None:
        """Refuse what was among weights and is no rate."""
        if rate is not None:
            self.checked(float(rate))

    def checked(self, value: Any) -> float:
        """The number that was given for a rate.

        Raises:
            TypeError: it is none.
            ValueError: it is negative, not finite or more than float32 holds.
        """
        rate = converted(f"{self.owner}: learning_rate", RATE, value)
        if rate > LARGEST:
            raise ValueError(f"{self.owner}: learning_rate {rate:g} is more than float32 holds")
        return rate

    def take(self, rate: Any) -> None:
        """Go on with the one that was among weights; 0.1 stays 0.1, and does not become its float32."""
        if rate is not None and np.float32(rate) != np.float32(self.value):
            self.set(float(rate))


class Rates:
    """The learning rates of the optimizers that another one holds, in their order: a tuple wherever one has a rate."""

    def __init__(self, owner: str, each: Sequence[Any]) -> None:
        """`owner` is the class of the other one, which messages name."""
        self.owner, self.each = owner, each

    def in_use(self, found: Any = None) -> tuple[Any, ...]:
        """What their chains are made with."""
        return tuple(rate.in_use(own) for rate, own in self._with(found))

    def after(self, steps: int) -> float:
        """There is not one."""
        raise AttributeError(f"{self.owner} has no learning rate of its own: see those of opt.optimizers")

    def set(self, value: Any) -> None:
        """There is not one."""
        raise AttributeError(f"{self.owner} has no learning rate of its own: set those of opt.optimizers")

    def beside(self) -> tuple[Any, ...]:
        """What stands for them beside a state."""
        return tuple(rate.beside() for rate in self.each)

    def check(self, found: Any) -> None:
        """Refuse what was among weights and is no rate."""
        for rate, own in self._with(found):
            rate.check(own)

    def take(self, found: Any) -> None:
        """Go on with those that were among weights."""
        for rate, own in self._with(found):
            rate.take(own)

    def _with(self, found: Any) -> Iterator[tuple[Any, Any]]:
        return zip(self.each, found or [None] * len(self.each), strict=True)


def takes_nothing(function: Any) -> bool:
    """Whether it is a function without arguments, which Keras takes for a learning rate."""
    if not callable(function) or isinstance(function, Spec | jax.Array):
        return False
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):  # of built-in functions
        return False
