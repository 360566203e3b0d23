"""Sophia: momentum divided by a running mean of the diagonal of the Hessian, and clipped element by element."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import check, dtypes, numerics
from gradtx.core.compose import Inner, Optimizer, chain
from gradtx.core.extras import Extras
from gradtx.core.hyperparams import Decay, DType, Flag, NonNegative, NonNegativeInt, Positive, PositiveInt, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.numerics import ema, quotient, zeros
from gradtx.core.run import PROCEED, init_stage, name_of, update_stage
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree, path_str
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.noise import Key, key_data_of
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = [
    "GaussNewtonState",
    "HutchinsonState",
    "SophiaState",
    "gauss_newton_estimator_diag_hessian",
    "hutchinson_estimator_diag_hessian",
    "scale_by_sophia",
    "sophia",
]

# Estimators of the diagonal of the Hessian: transformations whose updates are the estimate.


class HutchinsonState(NamedTuple):
    """The generator of `hutchinson_estimator_diag_hessian`; equal states give equal estimates."""

    key: Array
    "uint32[2]: the data of the key of the next estimate."


class hutchinson_estimator_diag_hessian(GradientTransformation):
    """Estimate the diagonal of the Hessian H by one product with a random vector.

        h = s ⊙ (H s),   s = ±1 with equal chances

    It needs the parameters and the extra argument `obj_fn`, a function of the parameters alone that gives the loss:
    `lambda params: loss(params, batch)`. The estimate is right on average, and of high variance; where H is diagonal
    it is exact. It costs about three gradients. The signs are determined by the key in the state, from which each
    estimate makes the next one, or by the extra argument `key`, which leaves the state as it is.

    Hutchinson, 1989; Liu et al., 2023, Algorithm 1, with normal numbers for the signs. https://arxiv.org/abs/2305.14342

    Raises:
        TypeError: a parameter is complex, or `obj_fn` does not give a real scalar.

    >>> tx = hutchinson_estimator_diag_hessian()
    >>> params = jnp.array([1.0, 2.0])
    >>> tx.update(params, tx.init(params), params, obj_fn=lambda x: jnp.sum(x**3))[0]
    Array([ 6., 12.], dtype=float32)
    """

    State = HutchinsonState
    takes_half_precision = True  # so that `obj_fn` is given the parameters as they are

    random_seed: Key = 0
    "An integer seed or a random key; devices with batches of their own need the same, and the mean of their estimates."

    def init_fn(self, params: Tree) -> HutchinsonState:
        _refuse_complex("hutchinson_estimator_diag_hessian", params)
        return HutchinsonState(key_data_of(self.random_seed))

    def update_fn(
        self, updates: Tree, state: HutchinsonState, params: Tree, *, obj_fn: Callable[[Tree], Any], key: Any = None
    ) -> tuple[Tree, HutchinsonState]:
        own, state_key = _next_key(state.key, key)
        slope = jax.grad(_real_scalar("hutchinson_estimator_diag_hessian", obj_fn))
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(own, len(leaves))
        signs = [jax.random.rademacher(keys[i], x.shape, jnp.float32).astype(x.dtype) for i, x in enumerate(leaves)]
        _, product = jax.jvp(slope, (params,), (treedef.unflatten(signs),))
        diagonal = [dtypes.upcast(s) * dtypes.upcast(h) for s, h in zip(signs, jax.tree.leaves(product), strict=True)]
        return treedef.unflatten(diagonal), HutchinsonState(state_key)


class GaussNewtonState(NamedTuple):
    """The generator of `gauss_newton_estimator_diag_hessian`; equal states give equal estimates."""

    key: Array
    "uint32[2]: the data of the key of the next estimate."


class gauss_newton_estimator_diag_hessian(GradientTransformation):
    """Estimate the diagonal of the Gauss–Newton matrix by one gradient for labels that the model itself draws.

        h = B ĝ ⊙ ĝ,   ĝ = ∇ (mean over B examples of the loss for a label drawn from the model's distribution)

    It needs the parameters and the extra argument `obj_fn`, a function of the parameters and of a random key that draws
    the labels and gives the mean loss for them:

        def obj_fn(params, key):
            logits = model(params, batch)
            labels = jax.random.categorical(key, jax.lax.stop_gradient(logits))
            return cross_entropy(logits, labels).mean()

    The loss must be a negative log-likelihood. Unlike the labels of the batch, drawn ones make the expectation of h the
    diagonal of the Gauss–Newton matrix, which is never negative. The key is one made from that in the state, from
    which each estimate also makes the next one; or it is the extra argument `key`, which leaves the state as it is.

    Liu et al., 2023, Algorithm 2 (Gauss–Newton–Bartlett). https://arxiv.org/abs/2305.14342

    Raises:
        TypeError: a parameter is complex, or `obj_fn` does not give a real scalar.
    """

    State = GaussNewtonState
    takes_half_precision = True  # so that `obj_fn` is given the parameters as they are

    batch_size: PositiveInt
    "Number B of labels that are drawn: examples, or for a language model the tokens of all examples."
    random_seed: Key = 0
    "An integer seed or a random key."

    def init_fn(self, params: Tree) -> GaussNewtonState:
        _refuse_complex("gauss_newton_estimator_diag_hessian", params)
        return GaussNewtonState(key_data_of(self.random_seed))

    def update_fn(
        self,
        updates: Tree,
        state: GaussNewtonState,
        params: Tree,
        *,
        obj_fn: Callable[[Tree, Array], Any],
        key: Any = None,
    ) -> tuple[Tree, GaussNewtonState]:
        own, state_key = _next_key(state.key, key)
        loss = _real_scalar("gauss_newton_estimator_diag_hessian", obj_fn)
        slope = jax.tree.map(dtypes.upcast, jax.grad(loss)(params, own))
        return jax.tree.map(lambda g: self.batch_size * g * g, slope), GaussNewtonState(state_key)


def _next_key(data: Array, given: Any) -> tuple[Array, Array]:
    """The key of this estimate, and the data of that in the new state."""
    if given is not None:
        is_typed = isinstance(given, jax.Array) and jnp.issubdtype(given.dtype, jax.dtypes.prng_key)
        return given if is_typed else jax.random.wrap_key_data(key_data_of(given)), data
    following, own = jax.random.split(jax.random.wrap_key_data(data))
    return own, jax.random.key_data(following)


def _real_scalar(name: str, obj_fn: Callable[..., Any]) -> Callable[..., Array]:
    """The function, whose value is checked."""

    def checked(*args: Any) -> Array:
        value = obj_fn(*args)
        if not dtypes.is_inexact(value) or dtypes.is_complex(value) or jnp.shape(value) != ():
            raise TypeError(f"{name}: obj_fn must give the loss alone, a real scalar, got {check.describe(value)}")
        return value

    return checked


def _refuse_complex(name: str, params: Tree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if dtypes.is_complex(leaf):
            raise TypeError(
                f"{name}: params{path_str(path)}: expected a real array, got {check.describe(leaf)}; wrap the "
                "optimizer in split_real_and_imaginary"
            )


# The optimizer.


class SophiaState(NamedTuple):
    """The momentum and the curvature of Sophia."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean of the gradient."
    nu: Tree
    "Like the parameters: running mean of the estimates of the diagonal of the Hessian."
    hessian_fn_state: Any
    "The state of the estimator."


class scale_by_sophia(Leafwise):
    """Divide a running mean of the gradient by one of the diagonal of the Hessian, and clip the result.

        every k updates:   h ← β₂ h + (1 − β₂) ĥ,   ĥ from the estimator
        m ← β₁ m + (1 − β₁) g
        u = m / max(γ h, ε),   clipped to ±ρ

    Where the curvature is negative or small, the update is ρ times the sign of the momentum. The estimator runs in the
    1st, the (k + 1)-th, … update only, before h is used; it is given the gradient, the parameters and the extra
    arguments that it takes, and its updates are the estimate. With the default one, `obj_fn` is needed, a function of
    the parameters that gives the loss.

    Liu et al., 2023, Algorithm 3, and the authors' code. https://arxiv.org/abs/2305.14342. Optax uses each new h one
    step later, with an h of 0 in the first step, and debiases m.

    Raises:
        TypeError: in `init`, a leaf is complex.
        ValueError: `verbose` has nothing to print.
    """

    State = SophiaState
    observed = ("hessian_fn_state",)
    elementwise = False

    b1: Decay = 0.965
    "Decay rate β₁ of the momentum; 0.965 is usual."
    b2: Decay = 0.99
    "Decay rate β₂ of the curvature, from one estimate to the next; 0.99 is usual."
    eps: NonNegative = 1e-8
    "ε, the least denominator; the paper's is 1e-12."
    gamma: NonNegative = 0.01
    "Factor γ of the curvature: 0.01 for Hutchinson's estimator, 0.05 for Gauss–Newton's."
    clip_threshold: Positive | None = 1.0
    "Largest magnitude ρ of an update; 1 is usual. `None` does not clip."
    update_interval: PositiveInt = 10
    "Number k of updates from one estimate to the next; 10 is usual."
    hessian_diagonal_fn: Inner = hutchinson_estimator_diag_hessian()
    "The estimator, a transformation whose updates are the estimate; or `gauss_newton_estimator_diag_hessian`."
    mu_dtype: DType | None = None
    "Dtype of the momentum; by default that of the computation."
    verbose: Flag = False
    "Whether to print the share of elements that are not clipped; 10 to 50 % is usual, and more with a larger γ."
    print_win_rate_every_n_steps: NonNegativeInt = 0
    "Number of updates from one such line to the next; needed if `verbose`."

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_nothing_to_print(self)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The estimator."""
        return (self.hessian_diagonal_fn,)

    @functools.cached_property
    def extras(self) -> Extras:
        """The extra arguments of the estimator."""
        return Extras.union(self.parts)

    @functools.cached_property
    def needs_params(self) -> bool:
        """Whether the estimator does."""
        return getattr(self.hessian_diagonal_fn, "needs_params", False)

    def init_leaf(self, param: Array) -> tuple[Array, Array]:
        return zeros(param, self.mu_dtype), zeros(param)

    def init_fn(self, params: Tree) -> SophiaState:
        _refuse_complex("scale_by_sophia", params)
        leaves, treedef = jax.tree.flatten(params)
        own = {"count": numerics.counter(), "hessian_fn_state": init_stage(self.hessian_diagonal_fn, params)}
        return self._joined_state(own, treedef, list(map(self.init_leaf, leaves)))

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, SophiaState]:
        proceed = {PROCEED: extra.pop(PROCEED)} if PROCEED in extra else {}
        where, cure = "scale_by_sophia: state.nu", "; the state belongs to another model"
        check.same_structure(where, state.nu, updates, f"the updates{cure}")
        check.same_shapes(where, state.nu, updates, "the update", cure)
        due = (state.count % self.update_interval == 0) & proceed.get(PROCEED, True)

        def refreshed() -> tuple[Tree, Any]:
            new, inner = update_stage(self.hessian_diagonal_fn, updates, state.hessian_fn_state, params, extra)
            return jax.tree.map(self._mean, state.nu, new), inner

        nu, inner = jax.lax.cond(due, refreshed, lambda: (state.nu, state.hessian_fn_state))
        state = state._replace(nu=nu, hessian_fn_state=inner)
        updates, state = super().update_fn(updates, state, params, **proceed)
        if self.verbose:
            self._print_win_rate(updates, state.count, self.clip_threshold)
        return updates, state

    def _mean(self, nu: Array, estimate: Array) -> Array:
        b2 = self.b2.astype(nu.dtype) if isinstance(self.b2, jax.Array) else self.b2
        return ema(nu, estimate.astype(nu.dtype), b2)

    def observe(self, updates: Tree, state: SophiaState) -> dict[str, Any]:
        return {"hessian_fn_state": state.hessian_fn_state}

    def leaf(self, g: Array, mu: Array, nu: Array) -> tuple[Array, Array, Array]:
        mu = ema(mu, g, self.b1)
        denominator = jnp.maximum(self.gamma * nu, self.eps)
        if self.clip_threshold is None:
            return quotient(mu, denominator, self.eps), mu, nu
        is_long = jnp.abs(mu) >= self.clip_threshold * denominator  # so compared, nothing overflows
        short = mu / jnp.where(is_long, 1, denominator)
        return jnp.where(is_long, self.clip_threshold * jnp.sign(mu), short), mu, nu

    def _print_win_rate(self, updates: Tree, count: Array, threshold: Any) -> None:
        def show() -> None:
            within = [jnp.sum(jnp.abs(u) < jnp.asarray(threshold, u.dtype)) for u in jax.tree.leaves(updates)]
            size = sum(u.size for u in jax.tree.leaves(updates))
            jax.debug.print("sophia: {:.3f} of the elements are not clipped", sum(within) / max(size, 1))

        jax.lax.cond(count % self.print_win_rate_every_n_steps == 0, show, lambda: None)


def _refuse_nothing_to_print(tx: "scale_by_sophia | sophia") -> None:
    if not tx.verbose:
        return
    if tx.print_win_rate_every_n_steps == 0:
        raise ValueError(f"{name_of(tx)}: verbose prints nothing: give print_win_rate_every_n_steps, 100 for instance")
    if tx.clip_threshold is None:
        raise ValueError(f"{name_of(tx)}: verbose prints the share of elements that are clipped: give a clip_threshold")


class sophia(Optimizer):
    """Sophia: `scale_by_sophia`, decoupled weight decay, and a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    >>> import gradtx
    >>> loss = lambda x: 0.5 * jnp.sum(jnp.array([1.0, 100.0]) * x**2)
    >>> tx = gradtx.sophia(0.5, b1=0.0, b2=0.0, gamma=1.0, weight_decay=0.0)
    >>> params = jnp.array([0.25, -0.5])
    >>> tx.update(jax.grad(loss)(params), tx.init(params), params, obj_fn=loss)[0]
    Array([-0.125,  0.25 ], dtype=float32)
    """

    learning_rate: Rate
    "Step size; half of Adam's is usual, 1e-4 to 1e-3."
    b1: Decay = scale_by_sophia.b1
    b2: Decay = scale_by_sophia.b2
    eps: NonNegative = scale_by_sophia.eps
    weight_decay: NonNegative = 1e-4
    "Strength λ of the weight decay, multiplied by the learning rate; the authors' is 0.1 to 0.2."
    weight_decay_mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."
    gamma: NonNegative = scale_by_sophia.gamma
    clip_threshold: Positive | None = scale_by_sophia.clip_threshold
    update_interval: PositiveInt = scale_by_sophia.update_interval
    hessian_diagonal_fn: Inner = scale_by_sophia.hessian_diagonal_fn
    mu_dtype: DType | None = scale_by_sophia.mu_dtype
    verbose: Flag = scale_by_sophia.verbose
    print_win_rate_every_n_steps: NonNegativeInt = scale_by_sophia.print_win_rate_every_n_steps

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_nothing_to_print(self)

    def expand(self) -> chain:
        return chain(
            scale_by_sophia.of(self),
            add_decayed_weights.of(self, mask=self.weight_decay_mask),
            scale_by_learning_rate.of(self),
        )
