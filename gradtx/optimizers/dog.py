"""DoG, L-DoG and DoWG: gradient descent whose steps are as long as the way so far, over the gradients so far."""

from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx.core import norms, numerics
from gradtx.core.check import describe
from gradtx.core.compose import Optimizer, chain
from gradtx.core.dtypes import scaled, upcast
from gradtx.core.hyperparams import NonNegative, Positive, Rate, is_schedule, kind_of
from gradtx.core.leafwise import Leafwise
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = [
    "DoGState",
    "DoWGState",
    "LDoGState",
    "dog",
    "dowg",
    "ldog",
    "scale_by_dog",
    "scale_by_dowg",
    "scale_by_ldog",
]

Measure = Literal["distance", "learning_rate", "heuristic"]
"What the number of `init_step` is."


class InitStepKind:
    """A pair of a `Measure` and a positive number."""

    example = ("distance", 0.01)
    may_vary = False

    def convert(self, where: str, value: Any) -> tuple[str, Any]:
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{where} must be a pair such as ('heuristic', 1e-6), got {describe(value)}")
        measure, number = value
        if is_schedule(number):
            raise TypeError(f"{where}[1] must be a number, got the schedule {number!r}")
        return kind_of(Measure).convert(f"{where}[0]", measure), kind_of(Positive).convert(f"{where}[1]", number)


InitStep = Annotated[Any, InitStepKind()]
"How long the first step is."


class DoGState(NamedTuple):
    """What DoG has measured, over the whole tree."""

    is_init_step: Array
    "bool[]: whether no update has been made yet."
    init_params: Tree
    "Like the parameters: their values at `init`."
    max_dist: Array
    "float32[]: the largest distance r̄ of the parameters from their initial values."
    sum_sq_norm_grads: Array
    "float32[]: the sum G of the squared norms of the gradients."


class scale_by_dog(Leafwise):
    """Multiply the gradient by the longest distance from the start, over the root of the sum of its squared norms.

        r̄ ← max(r̄, ‖θ − θ₀‖)
        G ← G + ‖g‖²
        u = r̄ / √(G + ε) · g

    Both norms are over the whole tree. A leaf with a non-finite element does not count in ‖g‖, so that it spoils no
    other leaf. `init` must be given the parameters from which the training starts. Needs the parameters.

    Ivgi, Hinder & Carmon, 2023. https://arxiv.org/abs/2302.12022
    """

    State = DoGState
    observed = ("is_init_step", "max_dist", "sum_sq_norm_grads")
    reported = {"max_dist": "max_dist"}
    context = Leafwise.context | {"rate"}
    elementwise = False

    init_step: InitStep = ("heuristic", 1e-6)
    """The length of the first step: `("heuristic", α)` for r̄ = α (1 + ‖θ₀‖) at first, where α is 1e-6, or 1e-4 with
    batch normalization; `("distance", r̄)`; or `("learning_rate", η)` for a first step of η g."""
    eps: NonNegative = 1e-8
    "ε, added to the sum of squares; 1e-8 is usual. Where the denominator is 0, so is the update."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        dtype = norms.total_dtype(params)
        first = _first_distance(self.init_step, norms.norm(params).astype(dtype))
        return {
            "is_init_step": jnp.ones((), bool),
            "max_dist": first,
            "sum_sq_norm_grads": jnp.zeros((), dtype),
        }

    def observe(self, updates: Tree, state: DoGState, *, params: Tree) -> dict[str, Array]:
        dtype = state.max_dist.dtype
        norm = norms.finite_norm(updates).astype(dtype)
        max_dist = jnp.maximum(state.max_dist, numerics.sqrt(_squared_distance(dtype, state.init_params, params)))
        sum_sq = state.sum_sq_norm_grads + norm * norm
        rate = _rate(self.init_step, state.is_init_step, max_dist, sum_sq + self.eps)
        return {
            "is_init_step": jnp.zeros((), bool),
            "max_dist": max_dist,
            "sum_sq_norm_grads": sum_sq,
            "rate": rate,
        }

    def init_leaf(self, param: Array) -> tuple[Array]:
        return (jnp.array(upcast(param), copy=True),)

    def leaf(self, g: Array, init_params: Array, *, rate: Array) -> tuple[Array, Array]:
        return scaled(rate, g), init_params


class LDoGState(NamedTuple):
    """What L-DoG has measured, for each leaf."""

    is_init_step: Array
    "bool[]: whether no update has been made yet."
    init_params: Tree
    "Like the parameters: their values at `init`."
    max_dist: Tree
    "A number for each leaf, in at least float32: the largest distance r̄ from its initial value."
    sum_sq_norm_grads: Tree
    "A number for each leaf, in at least float32: the sum G of the squared norms of its gradients."


class scale_by_ldog(Leafwise):
    """`scale_by_dog` with a step size of its own for each leaf.

        r̄ ← max(r̄, ‖θ − θ₀‖)
        G ← G + ‖g‖²
        u = r̄ / √(G + ε) · g          for each leaf, with norms over that leaf

    `init` must be given the parameters from which the training starts. Needs the parameters. optax does not have it.

    Ivgi, Hinder & Carmon, 2023. https://arxiv.org/abs/2302.12022
    """

    State = LDoGState
    observed = ("is_init_step",)
    context = Leafwise.context | {"first"}
    elementwise = False

    init_step: InitStep = scale_by_dog.init_step
    eps: NonNegative = scale_by_dog.eps

    def first_observed(self, params: Tree) -> dict[str, Array]:
        return {"is_init_step": jnp.ones((), bool)}

    def observe(self, updates: Tree, state: LDoGState) -> dict[str, Array]:
        return {"is_init_step": jnp.zeros((), bool), "first": state.is_init_step}

    def init_leaf(self, param: Array) -> tuple[Array, Array, Array]:
        first = _first_distance(self.init_step, norms.leaf_norm(param))
        return jnp.array(upcast(param), copy=True), first, jnp.zeros_like(first)

    def leaf(
        self,
        g: Array,
        init_params: Array,
        max_dist: Array,
        sum_sq_norm_grads: Array,
        *,
        copy: Array,
        param: Array,
        first: Array,
    ) -> tuple[Array, Array, Array, Array]:
        max_dist = jnp.maximum(max_dist, norms.plain_norm(param - init_params))
        sum_sq = sum_sq_norm_grads + jnp.sum(numerics.abs_sq(copy))
        rate = _rate(self.init_step, first > 0, max_dist, sum_sq + self.eps)
        return scaled(rate, g), init_params, max_dist, sum_sq


def _first_distance(init_step: tuple[str, Any], norm: Array) -> Array:
    """r̄ before the first update, of parameters with this norm."""
    measure, number = init_step
    if measure == "learning_rate":
        return jnp.zeros_like(norm)
    number = jnp.asarray(number, norm.dtype)
    return number * (1 + norm) if measure == "heuristic" else number


def _rate(init_step: tuple[str, Any], is_first: Array, max_dist: Array, sum_sq: Array) -> Array:
    """The step size r̄ / √G, or what was given for the first one."""
    rate = max_dist * numerics.rsqrt(sum_sq)
    measure, number = init_step
    return jnp.where(is_first, jnp.asarray(number, rate.dtype), rate) if measure == "learning_rate" else rate


def _squared_distance(dtype: Any, start: Tree, params: Tree) -> Array:
    """‖θ − θ₀‖² over the whole tree."""
    return norms.total(lambda x0, x: numerics.abs_sq(x - x0), dtype, start, params)


class dog(Optimizer):
    """Gradient descent with the step sizes of DoG, which has nothing to tune.

        r̄ ← max(r̄, ‖θ − θ₀‖),   G ← G + ‖g + λ θ‖²
        θ ← θ − η r̄ / √(G + ε) · (g + λ θ)

    Steps do not get shorter by themselves, so evaluate an average of the parameters, as the authors do:
    `params_average(dog(), gamma=8)` and `eval_params`.

    >>> import gradtx
    >>> tx = gradtx.params_average(gradtx.dog(), gamma=8)
    """

    learning_rate: Rate = 1.0
    "Factor η of the step sizes; the authors advise to leave it at 1."
    init_step: InitStep = scale_by_dog.init_step
    eps: NonNegative = scale_by_dog.eps
    weight_decay: NonNegative | None = None
    "Strength λ of an L2 penalty; usually none."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return _decayed(self, scale_by_dog.of(self))


class ldog(Optimizer):
    """`dog` with a step size of its own for each leaf: L-DoG, layer-wise DoG.

    In the paper it usually does better than tuned SGD. Evaluate an average of the parameters:
    `params_average(ldog(), gamma=8)` and `eval_params`.
    """

    learning_rate: Rate = dog.learning_rate
    init_step: InitStep = dog.init_step
    eps: NonNegative = dog.eps
    weight_decay: NonNegative | None = dog.weight_decay
    mask: Mask = dog.mask

    def expand(self) -> chain:
        return _decayed(self, scale_by_ldog.of(self))


class DoWGState(NamedTuple):
    """What DoWG has measured, over the whole tree."""

    init_params: Tree
    "Like the parameters: their values at `init`."
    weighted_sq_norm_grads: Array
    "float32[]: the sum v of the squared norms of the gradients, each times r̄² at its time."
    estim_sq_dist: Array
    "float32[]: the largest squared distance r̄² of the parameters from their initial values."


class scale_by_dowg(Leafwise):
    """Multiply the gradient by the squared distance from the start, over a root of weighted squared norms.

        r̄² ← max(r̄², ‖θ − θ₀‖²)
        v ← v + r̄² ‖g‖²
        u = r̄² / (√v + ε) · g

    Both norms are over the whole tree. A leaf with a non-finite element does not count in ‖g‖, so that it spoils no
    other leaf. `init` must be given the parameters from which the training starts. Needs the parameters.

    Khaled, Mishchenko & Jin, 2023, Algorithm 1. https://arxiv.org/abs/2305.16284
    """

    State = DoWGState
    observed = ("weighted_sq_norm_grads", "estim_sq_dist")
    context = Leafwise.context | {"rate"}
    elementwise = False

    init_estim_sq_dist: Positive | None = None
    "The first r̄², which should be too small rather than too large; ε by default."
    eps: Positive = 1e-4
    "ε, added to the denominator; 1e-4 is usual."

    def first_observed(self, params: Tree) -> dict[str, Array]:
        dtype = norms.total_dtype(params)
        first = self.eps if self.init_estim_sq_dist is None else self.init_estim_sq_dist
        return {"weighted_sq_norm_grads": jnp.zeros((), dtype), "estim_sq_dist": jnp.asarray(first, dtype)}

    def observe(self, updates: Tree, state: DoWGState, *, params: Tree) -> dict[str, Array]:
        dtype = state.estim_sq_dist.dtype
        norm = norms.finite_norm(updates).astype(dtype)
        sq_dist = jnp.maximum(state.estim_sq_dist, _squared_distance(dtype, state.init_params, params))
        weighted = state.weighted_sq_norm_grads + sq_dist * norm * norm
        rate = sq_dist / (numerics.sqrt(weighted) + self.eps)
        return {"weighted_sq_norm_grads": weighted, "estim_sq_dist": sq_dist, "rate": rate}

    def init_leaf(self, param: Array) -> tuple[Array]:
        return (jnp.array(upcast(param), copy=True),)

    def leaf(self, g: Array, init_params: Array, *, rate: Array) -> tuple[Array, Array]:
        return scaled(rate, g), init_params


class dowg(Optimizer):
    """Gradient descent with the step sizes of DoWG, which has nothing to tune.

        r̄² ← max(r̄², ‖θ − θ₀‖²),   v ← v + r̄² ‖g + λ θ‖²
        θ ← θ − η r̄² / (√v + ε) · (g + λ θ)

    Gradients far from the start weigh more in v than those near it, while in `dog` all weigh alike.

    >>> import gradtx
    >>> tx = gradtx.dowg()
    """

    learning_rate: Rate = 1.0
    "Factor η of the step sizes; usually 1."
    init_estim_sq_dist: Positive | None = scale_by_dowg.init_estim_sq_dist
    eps: Positive = scale_by_dowg.eps
    weight_decay: NonNegative | None = None
    "Strength λ of an L2 penalty; usually none."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."

    def expand(self) -> chain:
        return _decayed(self, scale_by_dowg.of(self))


def _decayed(tx: dog | ldog | dowg, stage: Leafwise) -> chain:
    """The stage between an L2 penalty and the learning rate."""
    decay = 0.0 if tx.weight_decay is None else tx.weight_decay
    return chain(add_decayed_weights.of(tx, weight_decay=decay), stage, scale_by_learning_rate.of(tx))
