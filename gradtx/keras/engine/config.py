"""Configs of objects, `{class_name, config}` and more, as Keras writes and reads them."""

from collections.abc import Mapping
from typing import Any

from gradtx.core.check import describe

__all__ = ["checked", "entry", "own_class"]

KEYS = {"class_name", "config", "module", "registered_name"}
"What Keras writes about every object; only the first two say what it is."


def entry(module: str | None, name: str, config: Mapping[str, Any], registered_name: str | None) -> dict[str, Any]:
    """What Keras 3 writes about an object."""
    return {"module": module, "class_name": name, "config": config, "registered_name": registered_name}


def checked(config: Any, others: set[str]) -> tuple[str, Mapping[str, Any]]:
    """The name of the class and its settings; `others` are keys that may be there besides.

    Raises:
        TypeError: no dict.
        ValueError: an unknown key; no name or no settings.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"deserialize: expected a dict with class_name and config, got {describe(config)}")
    if unknown := config.keys() - KEYS - others:
        known = ", ".join(sorted(map(repr, KEYS | others)))
        raise ValueError(f"deserialize: unknown keys {', '.join(sorted(map(repr, unknown)))}; there are {known}")
    name, settings = config.get("class_name"), config.get("config")
    if not isinstance(name, str) or not isinstance(settings, Mapping):
        raise ValueError(f"deserialize: expected the name class_name and the dict config, got {dict(config)!r}")
    return name, settings


def own_class(where: str, name: str, registered_name: str | None, custom_objects: Mapping[str, Any]) -> Any:
    """The user's class of this name; `None` if there is none.

    Raises:
        TypeError: it cannot be made of a config.
    """
    cls = custom_objects.get(registered_name or name, custom_objects.get(name))
    if cls is not None and not (isinstance(cls, type) and hasattr(cls, "from_config")):
        raise TypeError(f"{where}: custom_objects[{name!r}] must be a class with from_config, got {cls!r}")
    return cls
