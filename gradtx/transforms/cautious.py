"""Cautious updates: move only where update and gradient agree."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core.compose import Container, Inner, Optimizer
from gradtx.core.dtypes import upcast
from gradtx.core.hyperparams import Flag, Positive
from gradtx.core.run import init_stage, update_stage
from gradtx.core.tree import Tree

__all__ = ["cautious"]


class cautious(Container):
    """Let through the elements of an update whose sign is that of the gradient, enlarged to make up for the others.

        u ← inner(g)
        φ = 1 where u g > 0, else 0
        u ← u φ / max(mean φ, ε)     leaf by leaf

    `inner` is a direction, such as `scale_by_adam()` or `scale_by_lion()`, before decay and learning rate:
    `chain(cautious(scale_by_adam()), add_decayed_weights(0.1), scale_by_learning_rate(1e-3))`. Around a whole
    optimizer, whose updates point against the gradient, set `flip_sign`; weight decay inside it is then masked, too.
    The state is that of `inner`.

    Liang et al., 2024, Algorithm 1. https://arxiv.org/abs/2411.16085

    Raises:
        ValueError: `inner` is an optimizer and `flip_sign` is not set: nothing of its updates would be left.

    >>> import gradtx
    >>> tx = cautious(gradtx.trace(0.9))
    >>> _, state = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([1.0, -0.5]), state)[0]
    Array([3.8, 0. ], dtype=float32)
    """

    State = None
    keeps_state = True
    touches_leaves = True
    elementwise = False

    inner: Inner
    "The transformation whose updates are let through or not."
    eps: Positive = 1e-3
    "Lower bound ε of the share of elements that φ lets through, which bounds how much they are enlarged."
    flip_sign: Flag = False
    "Whether the updates of `inner` point against the gradient, as those of a whole optimizer do."

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, Optimizer) and not self.flip_sign:
            raise ValueError(
                f"cautious: inner is the optimizer {type(self.inner).__name__}, whose updates point against the "
                "gradient: set flip_sign=True, or give its scaling stage alone"
            )

    def init_fn(self, params: Tree) -> Any:
        return init_stage(self.inner, params)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        new, inner_state = update_stage(self.inner, updates, state, params, extra)
        return jax.tree.map(self._agreeing, new, updates), inner_state

    def _agreeing(self, update: Array, g: Array) -> Array:
        update, g = upcast(update), upcast(g)
        alignment = jnp.real(jnp.sign(update) * jnp.conj(jnp.sign(g)))
        agrees = alignment < 0 if self.flip_sign else alignment > 0
        share = jnp.sum(agrees, dtype=jnp.float32) / max(g.size, 1)
        factor = 1 / jnp.maximum(share, self.eps)
        return jnp.where(agrees, factor.astype(update.dtype) * update, 0)
