"""Some of the parameters: their part of a state, and a transformation that is shown no others."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.transforms import keras_ema
from gradtx.masks.hiding import MaskedNode

__all__ = ["skipping"]


def skipping(tx: Transformation, active: Sequence[str]) -> Transformation:
    """The transformation for some parameters only; but a running mean goes on for all of them, as in Keras."""
    return tx.replace(inner=_Skipping(tx.inner, active)) if isinstance(tx, keras_ema) else _Skipping(tx, active)


class _Skipping:
    """A transformation that is shown some parameters only, and gives updates of 0 to the others."""

    def __init__(self, inner: Transformation, active: Sequence[str]) -> None:
        self.inner, self.active = inner, active

    def init(self, params: Tree, /) -> Any:
        return self.inner.init(params)

    def update(self, updates: Tree, state: Any, params: Tree = None, /, **extra: Any) -> tuple[Tree, Any]:
        every = list(params)
        some_updates, some_params = ({name: tree[name] for name in self.active} for tree in (updates, params))
        new, some_state = self.inner.update(some_updates, cut(state, every, self.active), some_params, **extra)
        state = _filled(some_state, state, self.active, every)
        return {name: new[name] if name in new else jnp.zeros_like(updates[name]) for name in every}, state


def cut(state: Any, every: Sequence[str], active: Sequence[str]) -> Any:
    """The state of some parameters."""

    def some(node: Any) -> Any:
        return {name: node[name] for name in active} if _mirrors(node, every) else node

    return jax.tree.map(some, state, is_leaf=lambda node: _mirrors(node, every))


def spread(state: Any, names: Sequence[str], every: Sequence[str]) -> Any:
    """The inverse: a state of some parameters as one of all, the others hidden."""

    def all_of(node: Any) -> Any:
        return {name: node.get(name, MaskedNode()) for name in every} if _mirrors(node, names) else node

    return jax.tree.map(all_of, state, is_leaf=lambda node: _mirrors(node, names)) if names else state


def _filled(some: Any, whole: Any, active: Sequence[str], every: Sequence[str]) -> Any:
    """The state `whole`, with what `some` says of some parameters and of what is not of parameters."""
    fresh = iter(jax.tree.leaves(some, is_leaf=lambda node: _mirrors(node, active)))

    def fill(node: Any) -> Any:
        following = next(fresh)
        return {**node, **following} if _mirrors(node, every) else following

    return jax.tree.map(fill, whole, is_leaf=lambda node: _mirrors(node, every))


def _mirrors(node: Any, names: Sequence[str]) -> bool:
    """Whether a part of a state is a tree like the parameters."""
    return type(node) is dict and node.keys() == set(names)
