"""A transformation for each group of variables, by their paths."""

from typing import Annotated, Any, NamedTuple, Self

from jax import Array

from gradtx.core import numerics
from gradtx.core.compose import Container
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.masks.hiding import visible_only
from gradtx.masks.paths import leaf_names
from gradtx.transforms.scaling import scale
from gradtx.wrappers.partition import TransformationsKind
from gradtx.wrappers.sharing import MaskedState, Share, init_shares, update_shares

__all__ = ["ByVariableState", "by_variable"]


class ByVariableState(NamedTuple):
    """The state of `by_variable`."""

    counts: dict[str, Array]
    "By label, int32[]: the updates of that transformation."
    inner_states: dict[str, MaskedState]
    "By label, its state, with `MaskedNode()` in the place of the variables of others."


class by_variable(Container, name="keras.by_variable"):
    """Give every variable to the transformation of its label, and count their updates one by one.

    Unlike in `partition`, a group may be empty: a transformation without gradients stays as it is.
    """

    State = ByVariableState
    elementwise = False  # which leaf an element is in matters

    transforms: Annotated[Any, TransformationsKind()]
    "A dict from labels to transformations."
    labels: dict[str, str]
    "A dict from the paths of variables to labels."
    otherwise: str | None = None
    "The label of variables that are not in `labels`."

    @classmethod
    def example(cls) -> Self:
        return cls({"all": scale(-0.5)}, {}, "all")

    @property
    def parts(self) -> tuple[Transformation, ...]:
        return tuple(self.transforms.values())

    def _shares(self, params: Tree) -> dict[str, Share]:
        labels = [self.labels.get(name, self.otherwise) for name in leaf_names(params)]
        if lost := [name for name, own in zip(leaf_names(params), labels, strict=True) if own not in self.transforms]:
            raise ValueError(f"by_variable: no transformation for {', '.join(lost)}")
        labels = visible_only(params, labels)
        return {label: Share(tx, [own == label for own in labels]) for label, tx in self.transforms.items()}

    def init_fn(self, params: Tree) -> ByVariableState:
        counts = {label: numerics.counter() for label in self.transforms}
        return ByVariableState(counts, init_shares(self._shares(params), params))

    def update_fn(
        self, updates: Tree, state: ByVariableState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, ByVariableState]:
        shares = self._shares(updates if params is None else params)
        shares = {label: share for label, share in shares.items() if any(share.visible)}
        updates, states = update_shares(shares, updates, state.inner_states, params, extra)
        counts = {label: numerics.increment(state.counts[label]) for label in shares}
        return updates, ByVariableState(state.counts | counts, state.inner_states | states)
