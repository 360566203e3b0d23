"""Sharpness-aware minimisation: the gradient is taken where the loss nearby is largest."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import dtypes, norms
from gradtx.core.apply import apply_updates
from gradtx.core.compose import Container, Inner
from gradtx.core.extras import Extras
from gradtx.core.hyperparams import Flag, NonNegative, PositiveInt
from gradtx.core.numerics import counter
from gradtx.core.run import EmptyState, init_stage, update_stage
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree, choose
from gradtx.wrappers.common import copy

__all__ = ["SAMState", "sam", "sharpness_step"]


class sharpness_step(GradientTransformation):
    """A step of length ρ against the gradient of the whole tree: the adversary of `sam`, which turns its sign.

        u = −ρ g / ‖g‖                                       (SAM)
        u = −ρ T² g / ‖T g‖,  T = |θ| + η                    (ASAM, `adaptive`)

    Zero gradients give zero updates. Foret et al., 2020, https://arxiv.org/abs/2010.01412; Kwon et al., 2021,
    https://arxiv.org/abs/2102.11600, which needs the parameters.
    """

    rho: NonNegative = 0.05
    "Radius ρ of the neighbourhood; 0.05 to 0.1 are usual, ten times that if adaptive."
    adaptive: Flag = False
    "Whether distances are relative to the size of each parameter."
    eta: NonNegative = 0.0
    "Added to the size of each parameter, η, so that those at zero may move; 0.01 is usual if adaptive."

    @functools.cached_property
    def needs_params(self) -> bool:
        """Whether it is adaptive."""
        return self.adaptive

    def update_fn(self, updates: Tree, state: EmptyState, params: Tree = None) -> tuple[Tree, EmptyState]:
        if not self.adaptive:
            return dtypes.scaled(-self._per_unit(updates), updates), state
        sizes = jax.tree.map(lambda param: jnp.abs(param) + jnp.asarray(self.eta, jnp.abs(param).dtype), params)
        sizes = jax.tree.map(lambda size, g: size.astype(g.dtype), sizes, updates)
        scaled = jax.tree.map(jnp.multiply, updates, sizes)
        return dtypes.scaled(-self._per_unit(scaled), jax.tree.map(jnp.multiply, scaled, sizes)), state

    def _per_unit(self, g: Tree) -> Array:
        """ρ / ‖g‖, 0 for a norm of 0."""
        norm = norms.norm(g)
        return jnp.where(norm > 0, jnp.asarray(self.rho, norm.dtype) / jnp.where(norm > 0, norm, 1), 0)


class SAMState(NamedTuple):
    """The state of `sam`."""

    steps_since_sync: Array
    "int32[]: adversarial steps since the optimizer's last; always 0 in opaque mode."
    opt_state: Any
    "The state of the optimizer."
    adv_state: Any
    "The state of the adversary."
    cache: Tree
    "Like the parameters: the point θ that the adversary started from; `None` in opaque mode."


class sam(Container):
    """Step with the gradient taken where an adversary has climbed to, within a small neighbourhood.

        θ' = θ − adversary(∇f(θ))              `sync_period` − 1 times
        θ ← θ + optimizer(∇f(θ'))

    The adversary is an optimizer whose sign is turned. There are two ways to get the second gradient:

    - *Transparent* (the default): each call makes one step, first those of the adversary, then that of the optimizer,
      which starts again from θ. The parameters between are those of the adversary: evaluate after whole periods only.
    - *Opaque*: one call does it all, given the gradient function, `update(grads, state, params, grad_fn=grad_fn)`;
      `grad_fn(params, i)` is the gradient for the i-th adversarial step, usually on the same batch.

    Foret et al., 2020, Algorithm 1. https://arxiv.org/abs/2010.01412. Needs the parameters.

    >>> import gradtx, jax
    >>> import jax.numpy as jnp
    >>> loss = lambda x: jnp.sum(x * x)
    >>> tx = gradtx.sam(gradtx.sgd(1.0), gradtx.sharpness_step(0.5), opaque_mode=True)
    >>> params = jnp.array([3.0, 4.0])
    >>> grad_fn = jax.grad(lambda params, i: loss(params))
    >>> updates, state = tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=grad_fn)
    >>> updates
    Array([-6.6, -8.8], dtype=float32)
    """

    State = SAMState
    touches_leaves = True
    elementwise = False  # `grad_fn` is given all parameters

    optimizer: Inner
    "The optimizer to train with."
    adv_optimizer: Inner = sharpness_step()
    "The adversary, given as an optimizer that descends: the sign of its updates is turned."
    sync_period: PositiveInt = 2
    "Number of steps of which the last is the optimizer's and the others are the adversary's; 2 is usual."
    reset_state: Flag = True
    "Whether the adversary's state is reset after each step of the optimizer."
    opaque_mode: Flag = False
    "Whether one call of `update` makes all steps, with `grad_fn`."
    batch_axis_name: str | None = None
    "In opaque mode, the axis of `pmap` or `vmap`, if any, over which what `grad_fn` gives is averaged."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_axis_name is not None and not self.opaque_mode:
            raise ValueError(
                "sam: batch_axis_name is for opaque_mode=True; otherwise average the gradients before the update: "
                f"jax.lax.pmean(grads, {self.batch_axis_name!r})"
            )

    @functools.cached_property
    def extras(self) -> Extras:
        """The extra arguments of the two optimizers, and `grad_fn`."""
        inner = Extras.union(self.parts)
        needed = inner.required | ({"grad_fn"} if self.opaque_mode else set())
        return Extras(needed, inner.known | {"grad_fn"}, inner.open)

    def init_fn(self, params: Tree) -> SAMState:
        states = init_stage(self.optimizer, params), init_stage(self.adv_optimizer, params)
        return SAMState(counter(), *states, None if self.opaque_mode else copy(params))

    def update_fn(
        self, updates: Tree, state: SAMState, params: Tree, *, grad_fn: Any = None, **extra: Any
    ) -> tuple[Tree, SAMState]:
        if self.opaque_mode:
            return self._whole_period(updates, state, params, grad_fn, extra)
        return self._one_step(updates, state, params, extra)

    def _one_step(self, updates: Tree, state: SAMState, params: Tree, extra: Any) -> tuple[Tree, SAMState]:
        here = jax.tree.map(lambda kept, param: param.astype(kept.dtype), state.cache, params)
        origin = choose(state.steps_since_sync == 0, here, state.cache)

        def climb() -> tuple[Tree, SAMState]:
            new, adv_state = self._climb(updates, state.adv_state, params, extra)
            steps = state.steps_since_sync + 1
            return dtypes.cast_like(new, origin), SAMState(steps, state.opt_state, adv_state, origin)

        def descend() -> tuple[Tree, SAMState]:
            at = dtypes.cast_like(origin, params)
            new, opt_state = update_stage(self.optimizer, updates, state.opt_state, at, extra)
            back = jax.tree.map(lambda o, h, u: o - h + u.astype(o.dtype), origin, here, new)
            adv_state = self._reset(state.adv_state, params)
            return back, SAMState(counter(), opt_state, adv_state, origin)

        return jax.lax.cond(state.steps_since_sync >= self.sync_period - 1, descend, climb)

    def _whole_period(
        self, updates: Tree, state: SAMState, params: Tree, grad_fn: Callable[[Tree, int], Tree], extra: Any
    ) -> tuple[Tree, SAMState]:
        adv_params, adv_state = params, state.adv_state
        for i in range(self.sync_period - 1):
            step, adv_state = self._climb(updates, adv_state, adv_params, extra)
            adv_params = apply_updates(adv_params, dtypes.cast_like(step, adv_params))
            updates = grad_fn(adv_params, i)
            if self.batch_axis_name is not None:
                updates = jax.lax.pmean(updates, self.batch_axis_name)
        new, opt_state = update_stage(self.optimizer, updates, state.opt_state, params, extra)
        return new, SAMState(state.steps_since_sync, opt_state, self._reset(adv_state, params), None)

    def _climb(self, updates: Tree, adv_state: Any, params: Tree, extra: Any) -> tuple[Tree, Any]:
        step, adv_state = update_stage(self.adv_optimizer, updates, adv_state, params, extra)
        return dtypes.scaled(-1.0, step), adv_state

    def _reset(self, adv_state: Any, params: Tree) -> Any:
        return init_stage(self.adv_optimizer, params) if self.reset_state else adv_state
