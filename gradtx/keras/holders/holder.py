"""What optimizers that hold other optimizers have in common.

What they hold are optimizers of their own, with their learning rates and settings, and may be read and changed at any
time. Their states are parts of the holder's: each lives in a `Room` of its home. A step is one compiled program.
"""

import importlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check
from gradtx.core.transformation import Transformation
from gradtx.keras.engine.home import Lens, OptimizerState, Room
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.step import Program
from gradtx.keras.engine.weights import Weight

__all__ = ["Held", "HeldKind", "Holder", "no_counter", "no_rate"]


class Holder(Facade, abstract=True):
    """Base of optimizers whose states and learning rates are those of the optimizers that they hold."""

    @property
    def optimizers(self) -> list[Facade]:
        """The optimizers that it holds."""
        raise NotImplementedError(f"{type(self).__name__} defines no optimizers")

    @property
    def parts(self) -> list[Facade]:
        return self.optimizers

    def _lenses(self) -> Sequence[Lens]:
        """Where the state of each optimizer is in its own."""
        raise NotImplementedError(f"{type(self).__name__} does not say where the states are")

    def _frame(self) -> OptimizerState:
        """Its state before the first step, without those of the optimizers."""
        raise NotImplementedError(f"{type(self).__name__} has no state of its own")

    def _required_state(self, what: str) -> OptimizerState:
        state = super()._required_state(what)
        for opt in self.optimizers:
            if getattr(opt._home, "home", None) is not self._home:  # another one has taken it meanwhile
                uninterrupted(lambda: self._take_in(state))
                return super()._required_state(what)
        return state

    def _make_state(self) -> None:
        self._take_in(self._frame())

    def _take_in(self, state: OptimizerState) -> None:
        """Take the states of the optimizers, which may have been in use, and give each a room."""
        home: Any = self._home
        for opt, lens in zip(self.optimizers, self._lenses(), strict=True):
            part = opt._required_state("its state")
            is_shared = isinstance(opt._home, Room) and opt._home.home is not home
            state = lens.put(state, jax.tree.map(jnp.copy, part) if is_shared else part)
        home.state, home.start = state, None
        self._house()

    def _house(self) -> None:
        for opt, lens in zip(self.optimizers, self._lenses(), strict=True):
            opt.move_into(Room(self._home, lens))  # pyright: ignore[reportArgumentType]

    def move_into(self, room: Room) -> None:
        super().move_into(room)
        self._house()

    def _composed(self, transformations: Sequence[Transformation]) -> Transformation:
        """The chain, made of those of the optimizers."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it does with its optimizers")

    def _running(self) -> Transformation:
        running, live = [opt._running() for opt in self.optimizers], self._live
        if live is None or not all(map(operator.is_, live[0], running)):
            self._live = live = running, self._composed(running)
        return live[1]

    def _compiled(self, program: Program) -> Program:
        for opt in self.optimizers:
            program = opt._compiled(program)
        return program

    def _after(self, updates: int, state: OptimizerState) -> OptimizerState:
        for opt, lens in zip(self.optimizers, self._lenses(), strict=True):
            state = lens.put(state, opt._after(updates, lens.get(state)))
        return state

    # Weights: those of the optimizers held, behind its own.

    def slot_weights(self) -> Iterator[Weight]:
        for index, opt in enumerate(self.optimizers):
            for weight in opt.weight_list():
                if weight.variable is None or opt._shapes:  # one without variables has nothing for each of them
                    about = {"dtype": weight.dtype, "forgotten": weight.forgotten, "is_recent": weight.is_recent}
                    yield Weight(self._name_of(index, weight), "", weight.variable, part=(index, weight), **about)

    def _name_of(self, index: int, weight: Weight) -> str:
        """What the weight of one of the optimizers held is called here."""
        return weight.name

    def _rate_of(self, rate: Any, index: int) -> Any:
        """The learning rate of one of the optimizers held."""
        return rate

    def _read(self, wanted: Sequence[Weight], state: OptimizerState, rate: Any) -> list[Any]:
        own = [weight for weight in wanted if weight.part is None]
        values = dict(zip(own, super()._read(own, state, rate), strict=True))
        for index in dict.fromkeys(weight.part[0] for weight in wanted if weight.part is not None):
            its = {weight: weight.part[1] for weight in wanted if weight.part is not None and weight.part[0] == index}
            opt, part = self.optimizers[index], self._lenses()[index].get(state)
            values |= dict(zip(its, opt._read(list(its.values()), part, self._rate_of(rate, index)), strict=True))
        return [values[weight] for weight in wanted]

    def _with_parts(self, named: Mapping[Weight, Any], state: OptimizerState) -> tuple[OptimizerState, list[Any]]:
        """The state with these weights of the optimizers, and the learning rates that were among them."""
        rates = []
        for index, (opt, lens) in enumerate(zip(self.optimizers, self._lenses(), strict=True)):
            its = {w.part[1]: value for w, value in named.items() if w.part is not None and w.part[0] == index}
            if not opt._shapes:  # what it would have for each variable is left out above
                its |= {weight: np.zeros(()) for weight in opt.weight_list() if weight.variable is not None}
            part, rate = opt._state_of(its)
            state = lens.put(state, part)
            rates.append(rate)
        return state, rates

    # Configs: those of the optimizers held are in them.

    def get_config(self) -> dict[str, Any]:
        table = importlib.import_module(self.dialect.module)
        config = super().get_config()
        return {name: table.serialize(v) if hasattr(v, "get_config") else v for name, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        table = importlib.import_module(cls.dialect.module)
        return cls(**{n: table.deserialize(v, custom_objects) if _is_config(v) else v for n, v in config.items()})


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_name" in value


class HeldKind:
    """An optimizer of `gradtx.keras`."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> Facade:
        if isinstance(value, type):
            raise TypeError(f"{where} is the class {value.__name__}: call it, {value.__name__}(...)")
        if not isinstance(value, Facade):
            cure = f": optimizers.get({value!r}) makes one" if isinstance(value, str) else ""
            cure = ": wrap it, TFOptimizer(...)" if isinstance(value, Transformation) else cure
            raise TypeError(f"{where} must be an optimizer of gradtx.keras, got {check.describe(value)}{cure}")
        return value


Held = Annotated[Any, HeldKind()]
"An optimizer that another one holds."


def no_counter(state: Any, variable: str) -> Array:
    """The counter that Keras 3 keeps, and never moves, for what only holds optimizers."""
    return jnp.zeros((), jnp.int32)


def no_rate(state: Any, variable: str) -> Array:
    """Its learning rate, likewise."""
    return jnp.zeros((), jnp.float32)
