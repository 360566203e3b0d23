"""Methods of TensorFlow's optimizers, those of tf.keras among them, in the order of TensorFlow's arguments."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from gradtx.core.tree import Tree
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.step import gradients
from gradtx.keras.engine.variable import Variables

__all__ = ["InTensorFlow"]


class InTensorFlow(Facade, abstract=True):
    """Base of optimizers with `minimize(loss, var_list)` and `compute_gradients`."""

    def minimize(
        self,
        loss: Callable[..., Any],
        var_list: Tree = None,
        *batch: Any,
        constraints: Any = None,
        name: str | None = None,
    ) -> Any:
        """One step down the gradient of `loss(var_list, *batch)`, a function: gradient and update in one program.

        Calling this again with the same function compiles nothing. Returns the new parameters; variables are assigned.
        `name` changes nothing.
        """
        return super().minimize(loss, var_list, *batch, constraints=constraints)

    def aggregate_gradients(self, grads_and_vars: Iterable[Any]) -> list[tuple[Any, Any]]:
        """What `apply_gradients` makes of its pairs first; to be overridden.

        In TensorFlow it sums the gradients of all replicas. JAX does that in the program that computes them
        (`jax.lax.psum`, or by itself where arrays are sharded), so that here they stay as they are.
        """
        return list(grads_and_vars)

    def apply_gradients(
        self,
        grads_and_vars: Any,
        name: str | None = None,
        experimental_aggregate_gradients: bool = True,
        skip_gradients_aggregation: bool = False,
        **unknown: Any,
    ) -> Any:
        """One step for pairs of a gradient and its variable; gives the list of the new ones. `name` changes nothing.

        `experimental_aggregate_gradients=False`, or since 2.11 `skip_gradients_aggregation=True`, leaves out
        `aggregate_gradients`.
        """
        if experimental_aggregate_gradients and not skip_gradients_aggregation:
            grads_and_vars = self.aggregate_gradients(grads_and_vars)
        return super().apply_gradients(grads_and_vars, **unknown)  # which refuses what is unknown

    def compute_gradients(self, loss: Callable[..., Any], var_list: Tree, *batch: Any) -> list[tuple[Any, Any]]:
        """Pairs of a gradient of `loss(var_list, *batch)` and its variable, for `apply_gradients`."""
        grads = gradients(self, loss, var_list, *batch)
        return list(zip(jax.tree.leaves(grads), Variables.of(var_list).leaves, strict=True))
