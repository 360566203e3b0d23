"""Constraints on the parameters: after every step they are projected onto a set."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check
from gradtx.core.hyperparams import Function
from gradtx.core.run import EmptyState
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree
from gradtx.masks.hiding import hide
from gradtx.masks.masks import Mask, mask_leaves
from gradtx.projections import projection_non_negative

__all__ = ["project"]


class ArgumentsKind:
    """A dict of arguments by name."""

    example = None
    may_vary = False

    def convert(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise TypeError(f"{where} must be a dict from names to values, got {check.describe(value)}")
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if isinstance(leaf, np.ndarray):
                raise TypeError(f"{where}{jax.tree_util.keystr(path)} is a mutable NumPy array: give a JAX array")
        return dict(value)


class project(GradientTransformation):
    """Keep the parameters in a set: after each step they are the point of the set that is nearest to where it led.

        u = P(θ + g) − θ

    It is the last stage of a chain, because what comes after it would leave the set again. P is a function of
    `gradtx.projections`, or of your own, from a tree to one like it. It is given all parameters as one tree, or those
    in the mask as one; to project each leaf by itself, give a function that does, `lambda tree: jax.tree.map(f, tree)`,
    or one stage for each leaf. Parameters that begin outside the set are in it after the first step. An update that
    does not leave the set is passed on as it is; otherwise θ + u is in the set up to the rounding of u and of the sum.
    Needs the parameters.

    After plain steps this is the projected gradient method (Goldstein, 1964; Levitin & Polyak, 1966), which stops at
    the minimum in the set, with momentum, too. Adaptive steps, such as Adam's, weigh the elements differently: with
    bounds on single elements they stop at the same points, but with a simplex, a ball or a plane beside them.

    Raises:
        TypeError: the projection does not take these arguments.
        ValueError: what the projection returns is not like the parameters; or the mask is neither a tree like them nor
            a prefix of it, or is a pattern without a match.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> from gradtx.projections import projection_l2_ball, projection_simplex
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.project(projection_simplex))
    >>> params = jnp.array([0.5, 0.5])
    >>> updates, _ = tx.update(jnp.array([-1.0, 0.0]), tx.init(params), params)
    >>> gradtx.apply_updates(params, updates)
    Array([1., 0.], dtype=float32)
    >>> gradtx.chain(gradtx.adam(1e-3), gradtx.project(projection_l2_ball, {"scale": 2.0}, mask="head"))
    chain(
        adam(0.001),
        project(projections.projection_l2_ball, arguments={'scale': 2.0}, mask='head'),
    )
    """

    projection: Annotated[Callable[..., Any], Function("of the parameters", projection_non_negative)]
    "The projection P; one of `gradtx.projections`, or a registered function, goes to JSON and back."
    arguments: Annotated[Any, ArgumentsKind()] | None = None
    """Further arguments of P by name, `{"scale": 2.0}` for a radius. One that is a tree like the parameters is masked
    with them."""
    mask: Mask = None
    "The leaves to project, as one vector; by default all of them. Updates of the others pass through."

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            inspect.signature(self.projection).bind(None, **(self.arguments or {}))
        except TypeError as error:
            name = getattr(self.projection, "__name__", "the projection")
            raise TypeError(f"project: arguments: {name} of the parameters and these: {error}") from None

    def init_fn(self, params: Tree) -> EmptyState:
        self._checked_projection(params, mask_leaves("project: mask", self.mask, params))
        return EmptyState()

    def update_fn(self, updates: Tree, state: Any, params: Tree) -> tuple[Tree, EmptyState]:
        visible = mask_leaves("project: mask", self.mask, params)
        moved = jax.tree.map(jnp.add, params, updates)
        projected = iter(jax.tree.leaves(self._project(moved, visible)))
        leaves, treedef = jax.tree.flatten(updates)
        rows = zip(leaves, jax.tree.leaves(moved), jax.tree.leaves(params), visible, strict=True)
        return treedef.unflatten([_step(u, m, p, next(projected)) if on else u for u, m, p, on in rows]), state

    def _project(self, params: Tree, visible: list[bool]) -> Tree:
        """P of the visible leaves."""
        structure = jax.tree.structure(params)

        def own(argument: Any) -> Any:
            like_params = not jax.tree_util.all_leaves([argument]) and jax.tree.structure(argument) == structure
            return hide(argument, visible) if like_params else argument

        arguments = {name: own(value) for name, value in (self.arguments or {}).items()}
        return self.projection(hide(params, visible), **arguments)

    def _checked_projection(self, params: Tree, visible: list[bool]) -> None:
        """Refuse a projection whose result is not like the parameters; only shapes are computed."""
        projected = jax.eval_shape(lambda params: self._project(params, visible), params)
        shown = hide(params, visible)
        check.same_structure("project: what the projection returned", projected, shown, "the parameters")
        check.same_shapes("project: what the projection returned", projected, shown, "the parameter")


@jax.custom_jvp
def _step(update: Array, moved: Array, param: Array, projected: Array) -> Array:
    """The update that leads to the projection: the given one where that leads there."""
    return jnp.where(projected == moved, update, projected.astype(update.dtype) - param)


@_step.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    _, _, dparam, dprojected = tangents
    return _step(*primals), dprojected.astype(dparam.dtype) - dparam
