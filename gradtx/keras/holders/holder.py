"""What optimizers that hold other optimizers have in common.

What they hold are optimizers of their own, with their learning rates and settings, and may be read and changed at any
time. Their states are parts of the holder's: their keepers are views into its keeper. A step is one compiled program.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from gradtx.core import check
from gradtx.core.transformation import Transformation
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.rate import Rates
from gradtx.keras.engine.weights import Part, Weight

__all__ = ["Held", "HeldKind", "Holder"]


class Holder(Facade, abstract=True):
    """Base of optimizers whose states and learning rates are those of the optimizers that they hold."""

    @property
    def optimizers(self) -> list[Facade]:
        """The optimizers that it holds."""
        return list(self.parts)

    def around(self, transformations: Sequence[Transformation]) -> Transformation:
        """The chain, made of those of the optimizers."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it does with its optimizers")

    def compose(self, learning_rate: Any) -> Transformation:
        return self.around([opt.compose(rate) for opt, rate in zip(self.parts, learning_rate, strict=True)])

    @property
    def _rate(self) -> Rates:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Rates(type(self).__name__, [opt.given_rate for opt in self.parts])

    def counted(self, inner_state: Any, steps: Any) -> Any:
        """Its state: what is counted is counted in those of the optimizers."""
        return inner_state

    def slot_weights(self) -> Iterator[Weight]:
        """The weights of the optimizers."""
        for index, (opt, lens) in enumerate(zip(self.parts, self.lenses, strict=True)):
            for weight in opt.weight_list():
                if weight.variable is None or opt.keeper.shapes:  # without variables there is nothing for each of them
                    name, part = self.name_of(index, weight), Part(index, lens, weight)
                    yield weight._replace(name=name, field="", derived=None, leaf=None, added=None, part=part)

    def name_of(self, index: int, weight: Weight) -> str:
        """What the weight of one of the optimizers is called here."""
        return weight.name

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
