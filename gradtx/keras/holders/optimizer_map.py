"""Which optimizer a variable has: regular expressions for paths, and the optimizers that they stand for."""

import importlib
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Annotated, Any, Self

from gradtx.core import check
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.holders.holder import HeldKind, Holder

__all__ = ["OptimizerMap"]

_OPTIMIZERS = "gradtx.keras.optimizers"
"The module that writes and reads the optimizers of a map: only Keras 3 has it."


class OptimizerMap(MutableMapping[str, Any]):
    """Which optimizer a variable has, by regular expressions that match the whole of its path; else the default.

        OptimizerMap(SGD(0.1), {"encoder/.*": Adam(1e-3)})

    Raises:
        ValueError: asked for a variable whose path two of the expressions match.

    >>> from gradtx.keras.optimizers import SGD, Adam
    >>> optimizers = OptimizerMap(SGD(0.1), {"encoder/.*": Adam()})
    >>> optimizers["encoder/kernel"], optimizers["decoder/kernel"]
    (Adam(), SGD(learning_rate=0.1))
    """

    def __init__(self, default_optimizer: Any, optimizer_map: Mapping[str, Any] | None = None) -> None:
        self.default_optimizer = HeldKind().convert("OptimizerMap: default_optimizer", default_optimizer)
        self._refuse("default_optimizer", default_optimizer)
        if optimizer_map is not None and not isinstance(optimizer_map, Mapping):
            raise TypeError(f"OptimizerMap: optimizer_map must be a dict, got {check.describe(optimizer_map)}")
        self._map: dict[str, Facade] = {}
        for pattern, optimizer in (optimizer_map or {}).items():
            self[pattern] = optimizer

    def _refuse(self, where: str, optimizer: Any) -> None:
        if isinstance(optimizer, Holder):
            raise ValueError(f"OptimizerMap: {where} cannot be a {type(optimizer).__name__}: put that around the whole")

    def __getitem__(self, key: str) -> Facade:
        if key in self._map:
            return self._map[key]
        matching = [pattern for pattern in self._map if re.fullmatch(pattern, key)]
        if len(matching) > 1:
            raise ValueError(f"OptimizerMap: the variable {key} matches {' and '.join(map(repr, matching))}")
        return self._map[matching[0]] if matching else self.default_optimizer

    def __setitem__(self, key: str, optimizer: Any) -> None:
        where = f"OptimizerMap: {key!r}"
        if not isinstance(key, str):
            raise TypeError(f"{where} must be a regular expression (a string)")
        if key in self._map:
            raise ValueError(f"{where} has the optimizer {self._map[key]!r} already: delete that first")
        try:
            re.compile(key)
        except re.error as error:
            raise ValueError(f"{where} is no regular expression: {error}") from None
        optimizer = HeldKind().convert(where, optimizer)
        self._refuse(repr(key), optimizer)
        self._map[key] = optimizer

    def __delitem__(self, key: str) -> None:
        del self._map[key]

    def __len__(self) -> int:
        return len(self._map)

    def __iter__(self) -> Iterator[str]:
        return iter(self._map)

    def __contains__(self, key: object) -> bool:
        return key in self._map

    def __call__(self, variable: Any) -> Facade:
        """The optimizer of a variable."""
        return self[variable.path]

    def __repr__(self) -> str:
        return f"OptimizerMap({self.default_optimizer!r}, {self._map!r})"

    def get_config(self) -> dict[str, Any]:
        """All as plain data. An optimizer that occurs twice carries a number, by which it is one again."""
        table = importlib.import_module(_OPTIMIZERS)
        every = [self.default_optimizer, *self._map.values()]
        numbers = {id(opt): i for i, opt in enumerate(every) if sum(opt is other for other in every) > 1}

        def entry(opt: Facade) -> dict[str, Any]:
            return table.serialize(opt) | ({"shared_object_id": numbers[id(opt)]} if id(opt) in numbers else {})

        return {
            "default_optimizer": entry(self.default_optimizer),
            "optimizer_map": {pattern: entry(opt) for pattern, opt in self._map.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The map of a config."""
        table, shared = importlib.import_module(_OPTIMIZERS), {}

        def made(entry: Any) -> Any:
            number = entry.get("shared_object_id") if isinstance(entry, Mapping) else None
            if number is None:
                return table.deserialize(entry, custom_objects)
            if number not in shared:
                shared[number] = table.deserialize(entry, custom_objects)
            return shared[number]

        default = made(config["default_optimizer"])
        return cls(default, {pattern: made(entry) for pattern, entry in config["optimizer_map"].items()})


class MapKind:
    """An `OptimizerMap`, or a function from a variable to its optimizer."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, type) or not callable(value):
            cure = ": OptimizerMap(default, {...})" if isinstance(value, Mapping) else ""
            raise TypeError(
                f"{where} must be an OptimizerMap or a function from a variable to its optimizer, "
                f"got {check.describe(value)}{cure}"
            )
        return value


Map = Annotated[Any, MapKind()]
"An `OptimizerMap`, or a function from a variable to its optimizer."
