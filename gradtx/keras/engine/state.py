"""What an optimizer remembers between steps, and where the state of a part is in that of the whole."""

from typing import Any, NamedTuple, Protocol

from jax import Array

__all__ = ["OptimizerState"]


class OptimizerState(NamedTuple):
    """What an optimizer remembers between steps."""

    iterations: Array
    "int32[]: steps made, Keras's counter."
    inner_state: Any
    "The state of the chain; trees like the parameters are dicts by the variables' names."


class Lens(Protocol):
    """Where the state of a part is in the state of the whole."""

    def get(self, state: OptimizerState) -> OptimizerState:
        """The state of the part."""
        ...

    def put(self, state: OptimizerState, part: OptimizerState) -> OptimizerState:
        """The state of the whole, with this one for the part."""
        ...
