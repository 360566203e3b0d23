"""What distinguishes one Keras generation from another, as data: names, order of clipping, counters, configs, files."""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gradtx.core.transformation import Transformation

__all__ = ["Dialect", "snake_case"]


def snake_case(name: str) -> str:
    """`RMSprop` becomes `rm_sprop`, as in Keras.

    >>> snake_case("ScheduleFreeAdamW")
    'schedule_free_adam_w'
    """
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _nameless(cls: str) -> str | None:
    """The name of an optimizer to which none was given, where there is none."""
    return None


class Dialect(NamedTuple):
    """How a generation does what all of them do.

    Names are templates in which stand `{cls}` for the class, `{name}` for the optimizer's name, `{variable}` for a
    variable's path, `{flat}` for this with `_` for `/`, `{slot}` for what is kept for the variable.
    """

    generation: str = ""
    "What files call it; nothing, if any may have written it."
    module: str = ""
    "The module whose `serialize` and `deserialize` write and read optimizers that others hold."
    default_name: Callable[[str], str | None] = _nameless
    "What an optimizer is called to which no name was given: a function of the name of its class."
    counter: str | None = "iterations"
    "The name of the counter among the weights, if it comes first of them."
    count_dtype: Any = None
    "The dtype of the counter among the weights; `None` is ours, int32."
    rate: str | None = None
    "The name of the learning rate among the weights, if a number is one of them."
    slot: str = "{variable}/{slot}"
    "The name of what is kept for a variable."
    clips: tuple[tuple[str, Callable[[Any], Transformation]], ...] = ()
    "In the order in which they are applied: an argument, and the clipping that it asks for."
    has_decay: bool = False
    "Whether `decay` divides the learning rate by 1 + decay · iterations."
    ema_start: Literal["after", "before"] = "after"
    "Whether the running mean starts from the parameters after the first update, or before it."
    legacy_format: bool = True
    "Whether configs say `{class_name, config}` of what is inside, as before Keras 3."

    def called(self, opt: Any, template: str, **parts: str) -> str:
        """A name of the generation, for an optimizer, from one of its templates."""
        return template.format(cls=type(opt).__name__, name=vars(opt).get("name"), **parts)

    def slot_of(self, opt: Any, slot: str, variable: str) -> str:
        """What the generation calls the slot of a variable."""
        return self.called(opt, self.slot, slot=slot, variable=variable, flat=variable.replace("/", "_"))
