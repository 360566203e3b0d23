"""Optimizers by name and by config: `get`, `serialize` and `deserialize` of a Keras generation."""

from collections.abc import Iterable, Mapping
from typing import Any

from gradtx.core.check import describe
from gradtx.core.registry import closest
from gradtx.keras.engine.config import checked, entry, own_class
from gradtx.keras.engine.optimizer import Facade

__all__ = ["Identifiers"]

_KEYS = {"build_config", "compile_config", "shared_object_id"}
"What Keras writes about optimizers besides; it changes nothing."


class Identifiers:
    """The optimizers of one generation, by name and by config.

        identifiers = Identifiers("Keras 3", [SGD, Adam, LossScaleOptimizer], module="keras.optimizers")
        get, serialize, deserialize = identifiers.get, identifiers.serialize, identifiers.deserialize

    Names are looked up in the table of classes; nothing is imported or executed.
    """

    def __init__(
        self, generation: str, classes: Iterable[type], module: str | None = None, ignored: Iterable[str] = ()
    ) -> None:
        """`module` is what Keras writes into configs; without, they have the old form `{class_name, config}`.

        `ignored` are keys of the generation's configs that do not change what is computed, such as `jit_compile`.
        """
        self.generation, self.module, self.ignored = generation, module, frozenset(ignored)
        self.classes = {cls.__name__: cls for cls in classes}

    def get(self, identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimizer of a name, in whatever case, or of a config; an optimizer passes through.

        A transformation of gradtx or optax is wrapped, and so is an optimizer of TensorFlow 1, where the generation has
        a `TFOptimizer`.

        Raises:
            ValueError: an unknown name.
            TypeError: `None`, a class, or something else that names no optimizer.

        >>> from gradtx.keras import optimizers
        >>> Identifiers("Keras 3", [optimizers.SGD, optimizers.RMSprop]).get("rms_prop")
        RMSprop()
        """
        if isinstance(identifier, str):
            return self._found("get", identifier, identifier, custom_objects or {})()
        if isinstance(identifier, Mapping):
            return self.deserialize(identifier, custom_objects)
        wrapper = self.classes.get("TFOptimizer")
        if wrapper is not None and wrapper.wraps(identifier):
            return wrapper(identifier)
        if isinstance(identifier, Facade):
            return identifier
        if isinstance(identifier, type):
            raise TypeError(f"get: got the class {identifier.__name__}: call it, {identifier.__name__}(...)")
        raise TypeError(f"get: expected a name, a config or an optimizer, got {describe(identifier)}")

    def serialize(self, optimizer: Any) -> dict[str, Any]:
        """An optimizer as plain data, in the form of the generation.

        Raises:
            TypeError: not an optimizer.
            ValueError: one of another generation.
        """
        cls = type(optimizer)
        if not hasattr(optimizer, "get_config") or isinstance(optimizer, type):
            raise TypeError(f"serialize: expected an optimizer, got {describe(optimizer)}")
        name, config = cls.__name__, dict(optimizer.get_config())
        is_built_in = cls is self.classes.get(name)
        if not is_built_in and cls.__module__.startswith("gradtx."):
            raise ValueError(
                f"serialize: {cls.__module__}.{name} is not of {self.generation}, which has {self._listed()}: "
                "use the serialize beside it"
            )
        if self.module is None:
            return {"class_name": name, "config": config}
        module, registered_name = (self.module, None) if is_built_in else (None, name)
        return entry(module, name, config, registered_name)

    def deserialize(self, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The optimizer of a config that `serialize` or Keras wrote.

        Your own classes are found in `custom_objects`, a dict from their names.

        Raises:
            ValueError: an unknown class or key, or settings that the optimizer refuses.
            TypeError: not a config.
        """
        name, settings = checked(config, _KEYS)
        custom_objects = custom_objects or {}
        cls = self._found("deserialize", name, config.get("registered_name") or name, custom_objects)
        if cls not in self.classes.values():
            return cls.from_config(dict(settings))
        fields = cls.fields() if hasattr(cls, "fields") else ()
        own = {key: value for key, value in settings.items() if key not in self.ignored or key in fields}
        return cls.from_config(own, custom_objects)

    def _found(self, where: str, name: str, registered: str, custom_objects: Mapping[str, Any]) -> Any:
        """The class of this name: one of the user's, or one of the generation's."""
        if cls := own_class(where, name, registered, custom_objects):
            return cls
        known = {_plain(own): own for own in self.classes}
        if _plain(name) in known:
            return self.classes[known[_plain(name)]]
        close = closest(_plain(name), known)
        hint = f"did you mean {known[close]}? " if close else ""
        raise ValueError(
            f"{where}: {self.generation} has no optimizer {name!r}; {hint}It has {self._listed()}; "
            "your own classes go into custom_objects"
        )

    def _listed(self) -> str:
        return ", ".join(sorted(self.classes))


def _plain(name: str) -> str:
    """A name without what people spell differently."""
    return name.lower().replace("_", "")
