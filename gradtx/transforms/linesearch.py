"""Line searches: how far to go along the updates, found by evaluating the function itself.

Both take the extra arguments `value`, `grad` and `value_fn`, and hand to `value_fn`, after the parameters, those of
the other extra arguments that it has names for. They belong into a jitted step: an eager update cannot be compiled,
since `value_fn` is a function. The size of the step counts as a constant when an update is differentiated.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import dtypes, numerics, tree
from gradtx.core.apply import apply_updates
from gradtx.core.extras import STANDARD_EXTRAS
from gradtx.core.hyperparams import (
    AtLeastOneOrInfinity,
    Flag,
    GrowthFactor,
    NonNegative,
    NonNegativeOrInfinity,
    Positive,
    PositiveInt,
    ShrinkFactor,
)
from gradtx.core.norms import inner_product
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree

__all__ = [
    "BacktrackingLinesearchInfo",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByZoomLinesearchState",
    "ZoomLinesearchInfo",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
    "value_and_grad_from_state",
]


InitialGuess = Literal["keep", "one"]
"Where to begin: at the last step size, or at 1."


# What both need.


def scalar_dtype(params: Tree) -> np.dtype[Any]:
    """The real dtype in which scalars that belong to a whole tree are kept."""
    real = [numerics.real_dtype(numerics.compute_dtype(dtypes.dtype_of(x))) for x in jax.tree.leaves(params)]
    return functools.reduce(np.promote_types, real, np.dtype(np.float32))


def _slope(grad: Tree, direction: Tree, dtype: Any) -> Array:
    """The slope along a direction, Re(g u), of the gradient as `jax.grad` gives it: the conjugate of that of ascent."""
    return inner_product(jax.tree.map(jnp.conj, grad), direction, dtype)


def _function_of(name: str, value_fn: Callable[..., Any], extra: Mapping[str, Any]) -> Callable[[Tree], Any]:
    """`value_fn` of the parameters alone, given those extra arguments that it names."""
    parameters = list(inspect.signature(value_fn).parameters.values())
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in parameters[1:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    for argument in extra:
        if not takes_all and argument not in known and argument not in STANDARD_EXTRAS:
            raise TypeError(
                f"{name}: value_fn does not take the extra argument {argument!r}; if it is meant for another stage, "
                "let value_fn take **extra"
            )
    own = {key: x for key, x in extra.items() if key in known or (takes_all and key not in STANDARD_EXTRAS)}
    return lambda params: value_fn(params, **own)


def _step(rate: Array, updates: Tree) -> Tree:
    """η u, and exactly 0 for η = 0, whatever the updates."""
    return jax.tree.map(lambda x: jnp.where(rate > 0, x, 0), dtypes.scaled(rate, updates))


def _restart(found: Array, value: Array, slope: Array, first: Array, following: Array) -> Array:
    """Where the next search begins: after one that found no step, where it stopped, or it would only repeat itself.

    `following` is the step size that it would have tried next. A start from which no step can be found, for the value
    or the slope is not finite or the updates point uphill, says nothing about step sizes: that search begins anew.
    """
    from_here = jnp.isfinite(value) & jnp.isfinite(slope) & (slope < 0)
    return jnp.where(found, 0, jnp.where(from_here, following, first))


def _held(*trees: Any) -> Any:
    """The same, as constants for differentiation."""
    return jax.tree.map(jax.lax.stop_gradient, trees)


def _report_failure(search: str, info: Any, value: Array, slope: Array, rate: Array) -> None:
    """Print how a search went, if it has not met all of its conditions."""
    numbers = {**info._asdict(), "value": value, "slope": slope, "rate": rate}
    for name in numbers.keys() - {"num_linesearch_steps"}:  # float64 may be unknown to the thread that prints
        numbers[name] = numbers[name].astype(jnp.float32)
    jax.debug.callback(functools.partial(_print_failure, search, info._fields[1:]), numbers)


def _print_failure(search: str, errors: tuple[str, ...], numbers: Mapping[str, Any]) -> None:
    """What runs outside of the compiled program, once for each search of a batch."""
    if any(numbers[error] > 0 for error in errors):
        print(
            f"{search}: no step size met the conditions. The search began at the value {numbers['value']} with the "
            f"slope {numbers['slope']} along the updates, which must be negative. It ended at the step size "
            f"{numbers['rate']} after {numbers['num_linesearch_steps']} evaluations:",
            ", ".join(f"{error} {numbers[error]}" for error in errors),
        )


# Backtracking.


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search went."""

    num_linesearch_steps: Array
    "int32[]: evaluations of the function."
    decrease_error: Array
    "By how much the condition on the decrease was missed, in units of the function; 0 if it holds."


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The result of the last backtracking line search."""

    learning_rate: Array
    "The step size; 0 if none gave a decrease."
    value: Array
    "The function's value after the step; infinite before the first."
    grad: Tree
    "Like the parameters: its gradient there; `None` unless `store_grad`."
    info: BacktrackingLinesearchInfo
    "How the search went."
    restart: Array
    "The step size at which the next search begins if this one found none; else 0."


class scale_by_backtracking_linesearch(GradientTransformation):
    """Shorten the updates until the function decreases enough (Armijo's condition).

        η = min(η⁺ ηₜ₋₁, ηₘₐₓ), η⁻ η, (η⁻)² η, … until  f(θ + η u) ≤ (1 + δ) f(θ) + c η ⟨∇f(θ), u⟩ + ε
        u ← η u

    The updates must point downhill, as those of `sgd(1.0)` do; it is the last stage of a chain. If no step of the
    search decreases enough, the last one is taken if it decreases at all, else none: `learning_rate` is 0 in the
    state, and the next search goes on where this one stopped, at `restart`. Needs the parameters.

    Nocedal & Wright, 2006, Algorithm 3.1; with a growing first guess: Vaswani et al., 2019,
    https://arxiv.org/abs/1905.09997

    >>> import gradtx
    >>> f = lambda x: jnp.sum(x**2)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), scale_by_backtracking_linesearch(15, decrease_factor=0.5))
    >>> params = jnp.array([1.0, 2.0, 3.0])
    >>> value, grad = jax.value_and_grad(f)(params)
    >>> updates, _ = tx.update(grad, tx.init(params), params, value=value, grad=grad, value_fn=f)
    >>> gradtx.apply_updates(params, updates)
    Array([0., 0., 0.], dtype=float32)
    """

    State = ScaleByBacktrackingLinesearchState
    reported = {"learning_rate": "learning_rate"}
    takes_half_precision = True

    max_backtracking_steps: PositiveInt
    "Most evaluations of the function; 15 to 50 are usual."
    slope_rtol: NonNegative = 1e-4
    "c: the decrease must be at least this share of what the slope promises; 1e-4 is usual, at most 0.5 makes sense."
    decrease_factor: ShrinkFactor = 0.8
    "η⁻: what the step size is multiplied by after a step that was too long; 0.5 to 0.8 are usual."
    increase_factor: AtLeastOneOrInfinity | None = 1.5
    "η⁺: how many times the last step size the first guess is. `None`, or infinity: the first guess is always ηₘₐₓ."
    max_learning_rate: Positive = 1.0
    "ηₘₐₓ: the largest step size; 1 is usual where the updates have the right length already."
    atol: NonNegative = 0.0
    "ε: by how much the condition may be missed, in units of the function."
    rtol: NonNegative = 0.0
    "δ: the same, as a share of the function's value."
    store_grad: Flag = False
    "Whether to compute the gradient after the step, for `value_and_grad_from_state`."
    verbose: Flag = False
    "Whether to print the numbers of a search that fails, also from compiled programs."

    def init_fn(self, params: Tree) -> ScaleByBacktrackingLinesearchState:
        dtype = scalar_dtype(params)
        info = BacktrackingLinesearchInfo(numerics.counter(), jnp.zeros((), dtype))
        grad = jax.tree.map(jnp.zeros_like, params) if self.store_grad else None
        one, unknown, zero = jnp.ones((), dtype), jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
        return ScaleByBacktrackingLinesearchState(one, unknown, grad, info, zero)

    def update_fn(
        self, updates: Tree, state: Any, params: Tree, *, value: Any, grad: Tree, value_fn: Any, **extra: Any
    ) -> tuple[Tree, ScaleByBacktrackingLinesearchState]:
        f = _function_of("scale_by_backtracking_linesearch", value_fn, extra)
        u, at, value, grad = _held(updates, params, value, grad)
        dtype = scalar_dtype(params)
        guess = self._first_guess(jnp.asarray(state.learning_rate, dtype), jnp.asarray(state.restart, dtype))
        value, slope = jnp.asarray(value, dtype), _slope(grad, u, dtype)
        shrink, c, atol, rtol = (
            jnp.asarray(x, dtype) for x in (self.decrease_factor, self.slope_rtol, self.atol, self.rtol)
        )

        def evaluate(rate: Array, steps: Array) -> tuple[Array, Array, Array, Array]:
            reached = jnp.asarray(f(apply_updates(at, dtypes.scaled(rate, u))), dtype)
            error = (reached - value) - rtol * value - c * rate * slope - atol  # in this order nothing is rounded away
            return rate, reached, jnp.where(jnp.isfinite(reached), jnp.maximum(error, 0), jnp.inf), steps + 1

        def goes_on(search: tuple[Array, Array, Array, Array]) -> Array:
            _, _, error, steps = search
            return (error > 0) & (steps < self.max_backtracking_steps)

        first = evaluate(guess, numerics.counter())
        rate, reached, error, steps = jax.lax.while_loop(goes_on, lambda s: evaluate(s[0] * shrink, s[3]), first)
        helps = (error <= 0) | (reached < value)
        restart = _restart(helps, value, slope, guess, shrink * rate)
        info = BacktrackingLinesearchInfo(steps, jnp.where(jnp.isfinite(error), error, jnp.finfo(dtype).max))
        if self.verbose:
            _report_failure("scale_by_backtracking_linesearch", info, value, slope, rate)
        rate, reached = jnp.where(helps, rate, 0), jnp.where(helps, reached, value)
        step = _step(rate, updates)
        new_grad = jax.grad(f)(apply_updates(*_held(params, step))) if self.store_grad else None
        return step, ScaleByBacktrackingLinesearchState(rate, reached, new_grad, info, restart)

    def _first_guess(self, last: Array, restart: Array) -> Array:
        guess = limit = jnp.asarray(self.max_learning_rate, last.dtype)
        if self.increase_factor is not None:
            grown = last * jnp.asarray(self.increase_factor, last.dtype)
            guess = jnp.where(last > 0, jnp.minimum(grown, limit), limit)
        return jnp.where(restart > 0, jnp.minimum(restart, limit), guess)


# Zoom.


class ZoomLinesearchInfo(NamedTuple):
    """How the last search went."""

    num_linesearch_steps: Array
    "int32[]: evaluations of the function and its gradient."
    decrease_error: Array
    "By how much the condition on the decrease was missed, in units of the function; 0 if it holds."
    curvature_error: Array
    "By how much the slope was too steep; 0 if it was not."


class ScaleByZoomLinesearchState(NamedTuple):
    """The result of the last zoom line search."""

    learning_rate: Array
    "The step size; 0 if none gave a decrease."
    value: Array
    "The function's value after the step; infinite before the first."
    grad: Tree
    "Like the parameters: its gradient there."
    info: ZoomLinesearchInfo
    "How the search went."
    restart: Array
    "The step size at which the next search begins if this one found none; else 0."


class _Point(NamedTuple):
    """A step size that was tried, the function there, and its slope along the updates."""

    rate: Array
    value: Array
    slope: Array


class _Search(NamedTuple):
    """Everything a search carries from one evaluation to the next."""

    steps: Array
    done: Array
    bracketed: Array
    "bool[]: whether `low` and `high` enclose a good step; before, `low` is the last point tried."
    low: _Point
    "The best point known to decrease enough, or the start."
    high: _Point
    "The other end of the bracket."
    old: _Point
    "The end that was replaced last, for cubic interpolation."
    grad: Tree
    "The gradient at `low`."
    next_rate: Array
    decrease_error: Array
    "That of the last point, while no point decreases enough; then 0."
    curvature_error: Array
    "That of `low`."


class scale_by_zoom_linesearch(GradientTransformation):
    """Scale the updates so that the function decreases enough and its slope has flattened (strong Wolfe conditions).

        f(θ + η u) ≤ f(θ) + c₁ η ⟨∇f(θ), u⟩ + ε      and      |⟨∇f(θ + η u), u⟩| ≤ c₂ |⟨∇f(θ), u⟩| + ε
        u ← η u

    The step size grows until it brackets a good one, then the bracket shrinks by cubic and quadratic interpolation and
    bisection. Where the function is flat to rounding, f(θ + η u) ≤ f(θ) + c₃ |f(θ)|, the first condition is that of
    Hager & Zhang, on slopes: ⟨∇f(θ + η u), u⟩ ≤ (2 c₁ − 1) ⟨∇f(θ), u⟩ + ε. There the search goes by slopes alone, for
    the difference of two values is noise.

    The updates must point downhill, as those of `sgd(1.0)` and `lbfgs` do; it is the last stage of a chain. If the
    search ends without both conditions, the best step that decreases enough is taken, or, if there is none, no step:
    `learning_rate` is 0 in the state, and the next search goes on where this one stopped, at `restart`. Needs the
    parameters.

    Nocedal & Wright, 2006, Algorithms 3.5 and 3.6; Hager & Zhang, 2006, https://doi.org/10.1145/1132973.1132979

    >>> import gradtx
    >>> f = lambda x: jnp.sum(x**2)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), scale_by_zoom_linesearch(15))
    >>> params = jnp.array([1.0, 2.0, 3.0])
    >>> value, grad = jax.value_and_grad(f)(params)
    >>> updates, _ = tx.update(grad, tx.init(params), params, value=value, grad=grad, value_fn=f)
    >>> gradtx.apply_updates(params, updates)
    Array([0., 0., 0.], dtype=float32)
    """

    State = ScaleByZoomLinesearchState
    reported = {"learning_rate": "learning_rate"}
    takes_half_precision = True

    max_linesearch_steps: PositiveInt
    "Most evaluations of the function and its gradient; 20 is usual."
    max_learning_rate: Positive | None = None
    "The largest step size; by default there is none."
    tol: NonNegative = 0.0
    "ε: by how much each condition may be missed, in the units of the function and of its slope."
    increase_factor: GrowthFactor = 2.0
    "What the step size is multiplied by until it brackets a good one."
    slope_rtol: NonNegative = 1e-4
    "c₁: the decrease must be at least this share of what the slope promises; 1e-4 is usual."
    curv_rtol: NonNegativeOrInfinity | None = 0.9
    "c₂: the share of its steepness that the slope may keep; 0.9 is usual. `None`, or infinity: the decrease is enough."
    approx_dec_rtol: NonNegative | None = 1e-6
    "c₃: the share of the function's value that counts as rounding, 1e-6 in float32; `None` never goes by slopes alone."
    stepsize_precision: NonNegative = 1e-5
    "Difference of the two step sizes of a bracket at which the search is content with a decrease."
    initial_guess_strategy: InitialGuess = "keep"
    "`'keep'`: begin at the last step size, for gradient descent; `'one'`: at 1, for (quasi-)Newton directions."
    verbose: Flag = scale_by_backtracking_linesearch.verbose

    def init_fn(self, params: Tree) -> ScaleByZoomLinesearchState:
        dtype = scalar_dtype(params)
        info = ZoomLinesearchInfo(numerics.counter(), jnp.zeros((), dtype), jnp.zeros((), dtype))
        grad = jax.tree.map(jnp.zeros_like, params)
        one, unknown, zero = jnp.ones((), dtype), jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
        return ScaleByZoomLinesearchState(one, unknown, grad, info, zero)

    def update_fn(
        self, updates: Tree, state: Any, params: Tree, *, value: Any, grad: Tree, value_fn: Any, **extra: Any
    ) -> tuple[Tree, ScaleByZoomLinesearchState]:
        f = jax.value_and_grad(_function_of("scale_by_zoom_linesearch", value_fn, extra))
        u, at, value, grad = _held(updates, params, value, grad)
        dtype = scalar_dtype(params)
        guess = self._first_guess(jnp.asarray(state.learning_rate, dtype), jnp.asarray(state.restart, dtype))
        start = _Point(jnp.zeros((), dtype), jnp.asarray(value, dtype), _slope(grad, u, dtype))

        def evaluate(rate: Array) -> tuple[_Point, Tree]:
            reached, slopes = f(apply_updates(at, dtypes.scaled(rate, u)))
            slopes = dtypes.cast_like(slopes, state.grad)
            return _Point(rate, jnp.asarray(reached, dtype), _slope(slopes, u, dtype)), slopes

        def advance(search: _Search) -> _Search:
            return self._advance(search, start, *evaluate(search.next_rate))

        search = self._begin(start, dtypes.cast_like(grad, state.grad), guess)
        search = jax.lax.while_loop(lambda s: ~s.done & (s.steps < self.max_linesearch_steps), advance, search)
        info = ZoomLinesearchInfo(search.steps, search.decrease_error, search.curvature_error)
        reached = search.low
        if self.verbose:
            _report_failure("scale_by_zoom_linesearch", info, start.value, start.slope, reached.rate)
        restart = _restart(reached.rate > 0, start.value, start.slope, guess, search.next_rate)
        new_state = ScaleByZoomLinesearchState(reached.rate, reached.value, search.grad, info, restart)
        return _step(reached.rate, updates), new_state

    def _first_guess(self, last: Array, restart: Array) -> Array:
        one = jnp.ones_like(last)
        guess = one if self.initial_guess_strategy == "one" else jnp.where(last > 0, last, one)
        return self._limited(jnp.where(restart > 0, restart, guess))

    def _begin(self, start: _Point, grad: Tree, guess: Array) -> _Search:
        no = jnp.zeros((), bool)
        return _Search(
            steps=numerics.counter(),
            done=no,
            bracketed=no,
            low=start,
            high=start,
            old=start,
            grad=grad,
            next_rate=guess,
            decrease_error=jnp.zeros_like(guess),
            curvature_error=self._curvature_error(start, start),
        )

    def _limited(self, rate: Array) -> Array:
        if self.max_learning_rate is None:
            return rate
        return jnp.minimum(rate, jnp.asarray(self.max_learning_rate, rate.dtype))

    def _advance(self, search: _Search, start: _Point, point: _Point, grad: Tree) -> _Search:
        """Take in one more point: lines 4 to 12 of Algorithm 3.5 before there is a bracket, 3.6 after."""
        low, high = search.low, search.high
        decrease, curvature = self._decrease_error(point, start), self._curvature_error(point, start)
        worse_than_low = (self._difference(point, low, start) >= 0) & (search.bracketed | (search.steps > 0))
        finite = jnp.isfinite(point.value) & jnp.isfinite(point.slope)
        good = finite & (decrease <= 0) & (curvature <= 0)
        is_high = ~good & (~finite | (decrease > 0) | worse_than_low)
        # A new low that slopes up towards the far end leaves the old low for the other end of the bracket.
        uphill = jnp.where(search.bracketed, point.slope * (high.rate - low.rate) >= 0, point.slope >= 0)

        new_low = _where(is_high, low, point)
        new_high = _where(is_high, point, _where(uphill, low, high))
        new_old = _where(is_high, high, _where(uphill, high, low))
        bracketed = search.bracketed | is_high | uphill
        at_limit = self._at_limit(point.rate) & ~is_high & ~bracketed
        short = bracketed & self._is_short(new_low, new_high, start) & (new_low.rate > 0)
        next_rate = jnp.where(
            bracketed,
            _interpolate(new_low, new_high, new_old, search.bracketed),
            self._limited(point.rate * jnp.asarray(self.increase_factor, point.rate.dtype)),
        )
        return _Search(
            steps=search.steps + 1,
            done=good | at_limit | short,
            bracketed=bracketed,
            low=new_low,
            high=new_high,
            old=new_old,
            grad=jax.tree.map(lambda a, b: jnp.where(is_high, a, b), search.grad, grad),
            next_rate=next_rate,
            decrease_error=jnp.where(new_low.rate > 0, 0, jnp.where(finite, decrease, jnp.finfo(decrease.dtype).max)),
            curvature_error=jnp.where(is_high, search.curvature_error, curvature),
        )

    def _difference(self, point: _Point, low: _Point, start: _Point) -> Array:
        """f(point) − f(low); by the trapezium rule on the slopes where the values differ by rounding only."""
        by_slopes = 0.5 * (point.slope + low.slope) * (point.rate - low.rate)
        return jnp.where(self._are_flat(point, low, start), by_slopes, point.value - low.value)

    def _are_flat(self, a: _Point, b: _Point, start: _Point) -> Array:
        """Whether the values at two points differ from that at the start by no more than rounding."""
        if self.approx_dec_rtol is None:
            return jnp.zeros((), bool)
        dtype = start.value.dtype
        rounding = jnp.minimum(jnp.asarray(self.approx_dec_rtol, dtype), 8 * jnp.finfo(dtype).eps) * jnp.abs(
            start.value
        )
        return (jnp.abs(a.value - start.value) <= rounding) & (jnp.abs(b.value - start.value) <= rounding)

    def _at_limit(self, rate: Array) -> Any:
        if self.max_learning_rate is None:
            return jnp.zeros((), bool)
        return rate >= jnp.asarray(self.max_learning_rate, rate.dtype)

    def _is_short(self, low: _Point, high: _Point, start: _Point) -> Array:
        """Whether a bracket is not worth dividing: where the function is flat, a tenth of the step size is enough."""
        precision = jnp.asarray(self.stepsize_precision, low.rate.dtype)
        enough = jnp.where(self._are_flat(low, high, start), 0.1 * jnp.maximum(low.rate, high.rate), 0)
        return jnp.abs(high.rate - low.rate) < jnp.maximum(precision, enough)

    def _decrease_error(self, point: _Point, start: _Point) -> Array:
        """By how much the first condition, in its plain form or on slopes, is missed; not finite where f is not."""
        c1, tol = (jnp.asarray(x, point.rate.dtype) for x in (self.slope_rtol, self.tol))
        error = point.value - start.value - c1 * point.rate * start.slope - tol
        if self.approx_dec_rtol is not None:
            flat = start.value + jnp.asarray(self.approx_dec_rtol, point.rate.dtype) * jnp.abs(start.value)
            on_slopes = jnp.maximum(point.slope - (2 * c1 - 1) * start.slope - tol, point.value - flat)
            error = jnp.minimum(error, on_slopes)
        return jnp.maximum(error, 0)

    def _curvature_error(self, point: _Point, start: _Point) -> Array:
        if self.curv_rtol is None:
            return jnp.zeros_like(point.slope)
        c2, tol = (jnp.asarray(x, point.rate.dtype) for x in (self.curv_rtol, self.tol))
        return jnp.maximum(jnp.abs(point.slope) - c2 * jnp.abs(start.slope) - tol, 0)


def _where(condition: Array, a: _Point, b: _Point) -> _Point:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _interpolate(low: _Point, high: _Point, old: _Point, has_old: Array) -> Array:
    """The next point to try between `low` and `high`.

    The minimum of a cubic through all three, else of a parabola through two, if not too near an end; else the middle.
    """
    width = jnp.abs(high.rate - low.rate)
    left, right = jnp.minimum(low.rate, high.rate), jnp.maximum(low.rate, high.rate)
    cubic, parabola = _cubic_minimum(low, high, old), _parabola_minimum(low, high)
    cubic_fits = has_old & (cubic > left + 0.2 * width) & (cubic < right - 0.2 * width)
    parabola_fits = (parabola > left + 0.1 * width) & (parabola < right - 0.1 * width)
    middle = 0.5 * (low.rate + high.rate)
    return jnp.where(cubic_fits, cubic, jnp.where(parabola_fits, parabola, middle))


def _parabola_minimum(low: _Point, high: _Point) -> Array:
    """Where the parabola with the value and slope of `low` and the value of `high` is least; NaN if nowhere."""
    d = high.rate - low.rate
    curvature = high.value - low.value - low.slope * d
    return low.rate - 0.5 * low.slope * d * d / curvature


def _cubic_minimum(low: _Point, high: _Point, old: _Point) -> Array:
    """Where the cubic with the value and slope of `low` and the values of both others is least; NaN if nowhere."""
    d1, d2 = high.rate - low.rate, old.rate - low.rate
    r1, r2 = (high.value - low.value - low.slope * d1) / (d1 * d1), (old.value - low.value - low.slope * d2) / (d2 * d2)
    a = (r1 - r2) / (d1 - d2)  # f ≈ low.value + low.slope d + b d² + a d³
    b = r1 - a * d1
    return low.rate + (-b + jnp.sqrt(b * b - 3 * a * low.slope)) / (3 * a)


def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., tuple[Array, Tree]]:
    """`jax.value_and_grad(value_fn)` that takes the result from the state of a line search, which has computed it.

        value, grad = value_and_grad_from_state(f)(params, state=state)

    Only for functions that give the same from step to step, not for mini-batches. Before the first update it is
    computed. Further arguments go to `value_fn`.

    Raises:
        ValueError: there is no line search in the state, or more than one, or it does not store the gradient.

    >>> import gradtx
    >>> f = lambda x: jnp.sum(x**2)
    >>> tx, params = gradtx.lbfgs(), jnp.array([1.0, 2.0, 3.0])
    >>> value, grad = value_and_grad_from_state(f)(params, state=tx.init(params))
    >>> value, grad
    (Array(14., dtype=float32), Array([2., 4., 6.], dtype=float32))
    """

    def value_and_grad(params: Tree, *args: Any, state: Any, **kwargs: Any) -> tuple[Array, Tree]:
        found = _find(state)

        def compute() -> tuple[Array, Tree]:
            value, grad = jax.value_and_grad(value_fn)(params, *args, **kwargs)
            return jnp.asarray(value, found.value.dtype), dtypes.cast_like(grad, found.grad)

        return jax.lax.cond(jnp.isinf(found.value), compute, lambda: (found.value, found.grad))

    return value_and_grad


def _find(state: Any) -> Any:
    kinds = (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)
    found = tree.find(state, lambda node: isinstance(node, kinds))
    if len(found) != 1:
        raise ValueError(f"value_and_grad_from_state: expected the state of one line search, found {len(found)}")
    if found[0].grad is None:
        raise ValueError(
            "value_and_grad_from_state: this line search does not keep the gradient; make it with store_grad=True"
        )
    return found[0]
