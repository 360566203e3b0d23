"""Complex parameters as pairs of real ones."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import dtypes
from gradtx.core.compose import Container, Inner
from gradtx.core.run import init_stage, update_stage
from gradtx.core.tree import Tree

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """What stands for a complex leaf in the trees of the inner transformation."""

    real: Any
    "The real part."
    imaginary: Any
    "The imaginary part."


class SplitRealAndImaginaryState(NamedTuple):
    """The state of `split_real_and_imaginary`."""

    inner_state: Any
    "The state of the inner transformation, with pairs of real arrays in the place of complex leaves."


class split_real_and_imaginary(Container):
    """Run `inner` on the real and the imaginary parts of complex leaves as if they were leaves of their own.

    Adam, for one, divides a complex gradient by its magnitude; in here each part is divided by its own. So work
    transformations that need an order or a sign, such as `clip` and `rprop`. Real leaves stay as they are. To `inner`
    the path of a complex leaf `z` is that of its parts, `z/real` and `z/imaginary`, and extra arguments that are trees
    like the updates are split, too. `value_fn` and `obj_fn` are called with complex parameters.

    As everywhere, give the direction of ascent, which is `jnp.conj` of the gradient from `jax.grad`.

    >>> import gradtx
    >>> import jax.numpy as jnp
    >>> tx = gradtx.split_real_and_imaginary(gradtx.sign_sgd(0.5))
    >>> params = jnp.array([1 + 1j])
    >>> tx.update(jnp.array([3 - 4j]), tx.init(params), params)[0]
    Array([-0.5+0.5j], dtype=complex64)
    """

    State = SplitRealAndImaginaryState
    keeps_state = True

    inner: Inner
    "A transformation of real leaves."

    def init_fn(self, params: Tree) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(init_stage(self.inner, _split(params)))

    def update_fn(
        self, updates: Tree, state: SplitRealAndImaginaryState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, SplitRealAndImaginaryState]:
        new, inner_state = update_stage(
            self.inner, _split(updates), state.inner_state, _split(params), _split_extra(extra, updates)
        )
        return _joined(new), SplitRealAndImaginaryState(inner_state)


def _split(tree: Tree) -> Tree:
    """The tree, with a pair of real arrays for each complex leaf."""

    def parts(x: Any) -> Any:
        return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x)) if dtypes.is_complex(x) else x

    return jax.tree.map(parts, tree)


def _joined(tree: Tree) -> Tree:
    """The inverse of `_split`."""
    return jax.tree.map(lambda x: jax.lax.complex(*x) if _is_split(x) else x, tree, is_leaf=_is_split)


def _is_split(x: Any) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)


def _split_extra(extra: Mapping[str, Any], updates: Tree) -> dict[str, Any]:
    """The extra arguments as `inner` is to see them: trees like the updates split, functions of split parameters."""
    structure = jax.tree.structure(updates)

    def inside(name: str, value: Any) -> Any:
        if name in ("value_fn", "obj_fn"):
            return _of_split(value)
        return _split(value) if jax.tree.structure(value) == structure else value

    return {name: inside(name, value) for name, value in extra.items()}


def _of_split(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of complex parameters as one of pairs of real ones."""
    return lambda params, *args, **kwargs: function(_joined(params), *args, **kwargs)
