"""The losses: against optax in double precision, against formulas where optax is wrong, at the corners; refusals."""

import functools
import inspect
import itertools
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.spatial
import scipy.special
from scipy.special import expit

import gradtx
from gradtx import losses
from gradtx.losses import stable

every_loss = pytest.mark.parametrize("name", losses.__all__)
INF, NAN = np.inf, np.nan
HUGE = 3e38  # near the largest float32


# Names.


@every_loss
def test_signatures_are_those_of_optax(name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters.values() for module in (losses, optax.losses))
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


def test_names_are_those_of_optax():
    assert sorted(name for name in vars(optax.losses) if callable(getattr(optax.losses, name))) == losses.__all__
    assert all(getattr(gradtx, name) is getattr(losses, name) for name in losses.__all__ if hasattr(optax, name))
    modules = [module for name, module in sys.modules.items() if name.startswith("gradtx.losses.")]
    assert sorted(name for module in modules for name in module.__all__) == losses.__all__


@every_loss
def test_docstrings_have_the_equation_the_errors_and_an_example(name):
    doc = inspect.getdoc(getattr(losses, name))
    assert re.search(r"^    \S", doc, re.MULTILINE), "an equation"
    assert "\nRaises:\n" in doc
    assert "\n>>> " in doc
    missing = [p for p in inspect.signature(getattr(losses, name)).parameters if not re.search(f"`{p}[`=]", doc)]
    assert not missing or re.search(r"[Tt]he (other )?arguments.* are those of\s", doc, re.DOTALL), missing


# Against optax.


class Case(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def distributions(*shape: int, axis: Any = -1, seed: int = 1) -> np.ndarray:
    return np.asarray(scipy.special.softmax(2 * numbers(*shape, seed=seed), axis))


def classes(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, high, shape)


def some(*shape: int) -> np.ndarray:
    """A mask of more than half of the elements, and of the first of each row."""
    mask = np.random.default_rng(3).random(shape) < 0.7
    mask[..., 0] = True
    return mask


def onehot(labels: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count)[labels]


SIGNS = 2 * classes(2, 4, 3) - 1
X, Y = 2 * numbers(4, 3), 2 * numbers(4, 3, seed=1)
P, LOG_P = distributions(4, 3), np.log(distributions(4, 3, seed=4))
CUBE, LABELS = numbers(2, 5, 3), distributions(2, 5, 3)
IMAGES, MASKS = numbers(2, 4, 5, 3), onehot(classes(3, 2, 4, 5), 3)
CTC = (numbers(3, 7, 5), np.arange(7) >= np.array([[7], [5], [6]]), np.array([[1, 2, 2], [3, 0, 0], [4, 4, 1]]))
CTC_PADDED = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1.0]])

CASES: dict[str, list[Case]] = {
    "squared_error": [Case((X, Y)), Case((X,)), Case((X[0, 0], Y[0, 0]))],
    "l2_loss": [Case((X, Y)), Case((X,))],
    "huber_loss": [Case((X, Y)), Case((X,), {"delta": 0.5}), Case((X, Y[0, 0])), Case((X, Y), {"delta": abs(Y[0])})],
    "log_cosh": [Case((X, Y)), Case((X,)), Case((100 * X,))],
    "cosine_similarity": [
        Case((X, Y)),
        Case((X[:, None], Y[None])),
        Case((CUBE, LABELS), {"axis": (0, 2)}),
        Case((CUBE, LABELS), {"axis": None, "epsilon": 0.1}),
        Case((CUBE, LABELS), {"axis": 1, "where": some(2, 5, 3)}),
    ],
    "cosine_distance": [
        Case((X, Y)),
        Case((X, Y[0])),
        Case((CUBE, LABELS), {"axis": (0, 2), "where": some(2, 1, 3)}),
    ],
    "sigmoid_binary_cross_entropy": [Case((X, P)), Case((10 * X, SIGNS > 0)), Case((X[0, 0], 1))],
    "sigmoid_focal_loss": [
        Case((X, P)),
        Case((X, (SIGNS + 1) // 2), {"alpha": 0.25}),
        Case((X, SIGNS > 0), {"alpha": P[0], "gamma": 0.5}),
        Case((X, SIGNS > 0), {"gamma": 0.0}),
    ],
    "hinge_loss": [Case((X, SIGNS)), Case((X, 1)), Case((X[0, 0], SIGNS[0]))],
    "perceptron_loss": [Case((X, SIGNS)), Case((X[0], SIGNS[0].astype(float)))],
    "sparsemax_loss": [Case((X, SIGNS > 0)), Case((X, (SIGNS + 1) // 2))],
    "softmax_cross_entropy": [
        Case((X, P)),
        Case((X, P[0])),
        Case((X[0], P[0])),
        Case((X, onehot(classes(3, 4), 3).astype(int))),
        Case((CUBE, LABELS), {"axis": (0, 2)}),
        Case((CUBE, LABELS), {"axis": None}),
        Case((CUBE, LABELS), {"axis": 1, "where": some(2, 5, 3)}),
        Case((CUBE, LABELS), {"where": some(2, 5)}),
        Case((CUBE, LABELS), {"where": np.zeros((2, 5, 1), bool)}),
    ],
    "safe_softmax_cross_entropy": [Case((CUBE, LABELS)), Case((X[0], P[0]))],
    "poly_loss_cross_entropy": [
        Case((X, P)),
        Case((CUBE, LABELS), {"epsilon": -1.0, "axis": (1, 2)}),
        Case((CUBE, LABELS), {"axis": 1, "where": some(2, 5, 3)}),
    ],
    "softmax_cross_entropy_with_integer_labels": [
        Case((X, classes(3, 4))),
        Case((X[0], np.uint8(2))),
        Case((CUBE, classes(5, 2, 3).astype(np.int8)), {"axis": 1}),
        Case((CUBE, classes(6, 5)), {"axis": (2, 0)}),
        Case((CUBE, classes(3, 2, 5)), {"where": some(2, 5)}),
        Case((CUBE, np.zeros((2, 5), int)), {"where": some(2, 5, 3)}),
    ],
    "smooth_labels": [Case((P, 0.1)), Case((LABELS, 0.2), {"axis": 0}), Case((LABELS, 0.3), {"axis": None})],
    "multiclass_hinge_loss": [Case((X, classes(3, 4))), Case((CUBE, classes(3, 2, 5))), Case((X[0], np.int32(1)))],
    "multiclass_perceptron_loss": [Case((X, classes(3, 4))), Case((X[0], np.int32(1)))],
    "multiclass_sparsemax_loss": [Case((X, classes(3, 4))), Case((numbers(6, 9) / 3, classes(9, 6)))],
    "kl_divergence": [
        Case((LOG_P, P)),
        Case((LOG_P, P[:1])),
        Case((np.log(LABELS), LABELS[::-1]), {"axis": (0, 2)}),
        Case((np.log(LABELS), LABELS[::-1]), {"axis": 1, "where": some(2, 5, 3)}),
    ],
    "kl_divergence_with_log_targets": [
        Case((LOG_P, np.log(P))),
        Case((np.log(LABELS), LOG_P[0]), {"where": some(1, 5, 3)}),
    ],
    "generalized_kl_divergence": [
        Case((LOG_P, 3 * P)),
        Case((LOG_P, onehot(classes(3, 4), 3)), {"where": some(4, 3)}),
    ],
    "convex_kl_divergence": [Case((LOG_P, 3 * P))],
    "ctc_loss": [
        Case((CTC[0], CTC[1].astype(float), CTC[2], CTC_PADDED)),
        Case((CTC[0], CTC[1].astype(float), CTC[2] % 4, CTC_PADDED), {"blank_id": 4}),
    ],
    "ctc_loss_with_forward_probs": [Case((CTC[0], CTC[1].astype(float), CTC[2], CTC_PADDED))],
    "make_fenchel_young_loss": [],
    "ranking_softmax_loss": [
        Case((X, P)),
        Case((X, classes(3, 4, 3)), {"weights": abs(Y), "reduce_fn": None}),
        Case((CUBE, LABELS), {"where": some(2, 5, 3) & (np.arange(5) > 1)[:, None]}),
        Case((CUBE, LABELS), {"where": some(2, 5, 3), "reduce_fn": jnp.sum}),
        Case((CUBE, LABELS), {"where": np.arange(5)[:, None] + np.zeros((2, 5, 3)) > 1, "reduce_fn": None}),
        Case((X, P), {"where": np.zeros((4, 3), bool)}),
    ],
    "dice_loss": [
        Case((IMAGES, MASKS)),
        Case((IMAGES[..., 0], MASKS[..., :1] > 0)),
        Case((IMAGES, MASKS), {"alpha": 0.3, "beta": 0.8, "smooth": 0.1, "reduction": "none", "axis": (0, 1, 2)}),
        Case((IMAGES, MASKS), {"class_weights": P[0], "reduction": "sum", "ignore_background": True}),
        Case((X, onehot(classes(3, 4), 3))),
    ],
    "multiclass_generalized_dice_loss": [Case((IMAGES, MASKS)), Case((IMAGES, MASKS), {"ignore_background": True})],
    "binary_dice_loss": [Case((IMAGES, MASKS)), Case((IMAGES[..., :1], MASKS[..., 0]), {"smooth": 0.1})],
    "ntxent": [
        Case((numbers(6, 4), classes(3, 6))),
        Case((numbers(5, 2), np.array([0, 0, 1, 1, 1])), {"temperature": 1.0}),
    ],
    "triplet_margin_loss": [
        Case((X, Y, P)),
        Case((CUBE, LABELS, CUBE[::-1]), {"axis": 1, "norm_degree": 4, "margin": 0.5, "eps": 0.1}),
        Case((X[:, None], Y[:, None], P[None])),
    ],
}


def summed(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The value, and the gradient of its sum (weighted, so that no element's is lost) by the first argument."""

    def total(x: Any) -> tuple[Any, Any]:
        value = f(x, *args[1:], **kwargs)
        leaves = [jnp.where(leaf > -1e4, leaf, 0) for leaf in jax.tree.leaves(value)]
        return sum(jnp.vdot(jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)), leaf.ravel()) for leaf in leaves), value

    gradient, value = jax.grad(total, has_aux=True)(jnp.asarray(args[0]))
    return value, gradient


def as_arrays(case: Case) -> tuple[tuple[Any, ...], dict[str, Any]]:
    arrays = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in case.kwargs.items()}
    return tuple(jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x for x in case.args), arrays


IN_DOUBLE_PRECISION = 1e-12  # relative to the largest element; a few hundred roundings
TOLERANCES = {"multiclass_generalized_dice_loss": 1e-8}  # optax adds 1e-7 to the squares of counts from 10 on


def assert_near(got: Any, want: Any, tolerance: float, where: str) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, where
        largest = max(1.0, np.max(np.abs(b), initial=0, where=np.isfinite(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=where)


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if cases])
@pytest.mark.filterwarnings("ignore:.*convex_kl_divergence:DeprecationWarning")
def test_values_and_gradients_are_those_of_optax(name, x64):
    """All cases of a loss, ours and optax's, are one program: compiling is what this test costs."""
    cases = [as_arrays(case) for case in CASES[name]]

    def every(module: Any) -> list[Any]:
        return [summed(getattr(module, name), args, kwargs) for args, kwargs in cases]

    def both() -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = every(optax.losses)
        return every(losses), theirs

    for number, (got, want) in enumerate(zip(*jax.jit(both)(), strict=True)):
        # optax adds log p to −10⁵, which stands for log 0
        want = jax.tree.map(lambda x: np.where(np.asarray(x) < -9e4, -1e5, x), want)
        assert_near(got, want, TOLERANCES.get(name, IN_DOUBLE_PRECISION), f"case {number}")


def test_every_loss_is_compared_with_optax():
    assert sorted(CASES) == losses.__all__


# Against formulas, where optax is wrong, silent or absent.


def by_first(f: Any, x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The value and the gradient of its sum by x, in single precision unless x is an array of another."""
    x = jnp.asarray(x, jnp.float32) if not isinstance(x, jax.Array) else x
    gradient, value = jax.jit(jax.grad(lambda x: (lambda y: (jnp.sum(y), y))(f(x, *args, **kwargs)), has_aux=True))(x)
    return np.asarray(value), np.asarray(gradient)


def assert_value_and_gradient(f: Any, x: Any, args: Any, value: Any, gradient: Any, rtol: float = 1e-6) -> None:
    got = by_first(f, x, *args)
    np.testing.assert_allclose(got[0], np.asarray(value, np.float32), rtol=rtol)
    np.testing.assert_allclose(got[1], np.asarray(gradient, np.float32), rtol=rtol)


LOGITS = np.array([HUGE, -HUGE, 1e4, -1e4, 40, -40, 1e-30, 0, INF, -INF])


@pytest.mark.parametrize("label", [0, 1])
def test_binary_cross_entropy_of_any_logit(label):
    """Also of the tiny ones: at a logit of 40 the loss of class 1 is e⁻⁴⁰, not 0."""
    side = LOGITS if label else -LOGITS
    value = np.where(side < -50, -side, np.log1p(np.exp(-np.maximum(side, -50))))
    gradient = (1 if label else -1) * -expit(-side)
    args = (jnp.full(10, label),)
    assert_value_and_gradient(losses.sigmoid_binary_cross_entropy, LOGITS, args, value, gradient)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_any_finite_logit(gamma):
    x = np.array([HUGE, -HUGE, 1e4, -1e4, 100, -100, 3, -3, 0.0])
    value = expit(-x) ** gamma * np.logaddexp(0, -x)
    gradient = -(expit(-x) ** gamma) * (gamma * expit(x) * np.logaddexp(0, -x) + expit(-x))
    focal = functools.partial(losses.sigmoid_focal_loss, gamma=gamma)
    got = by_first(focal, x, jnp.ones(9))
    np.testing.assert_allclose(got[0], value, rtol=2e-5, atol=1e-37)  # a float32 below 10⁻³⁷ has fewer digits
    np.testing.assert_allclose(got[1], gradient, rtol=2e-5, atol=1e-37)
    soft = jax.jit(jax.hessian(lambda x: jnp.sum(focal(x, jnp.full(9, 0.3)))))(jnp.asarray(x, jnp.float32))
    assert np.isfinite(soft).all()


def test_labels_without_a_class_make_a_loss_of_nan():
    outside = jnp.array([-1, 3, -100, 2**31 - 1])
    names = [f"multiclass_{name}_loss" for name in ("hinge", "perceptron", "sparsemax")]

    def every() -> list[Any]:
        of_integers = [getattr(losses, name) for name in (*names, "softmax_cross_entropy_with_integer_labels")]
        return [
            losses.sigmoid_focal_loss(jnp.zeros(3), jnp.array([-0.1, 1.1, NAN])),
            losses.sparsemax_loss(jnp.zeros(2), jnp.array([-1, 2])),
            *(f(jnp.zeros((4, 3)), outside) for f in of_integers),
            *(f(jnp.zeros((1, 300)), outside[:1].astype(jnp.int8)) for f in of_integers),
        ]

    assert all(np.isnan(value).all() for value in jax.jit(every)())


def test_labels_to_ignore_leave_no_trace():
    """By `where=`, or by `jnp.where` afterwards: neither the value nor the gradient is NaN."""
    labels, logits = jnp.array([2, -1, -100]), jnp.asarray(X[:3], jnp.float32)
    loss = losses.softmax_cross_entropy_with_integer_labels
    alone = by_first(loss, logits[:1], labels[:1])
    for f in (
        lambda x: loss(x, labels, where=labels >= 0),
        lambda x: loss(x, labels, where=(labels >= 0)[:, None]),
        lambda x: jnp.where(labels >= 0, loss(x, labels), 0),
    ):
        value, gradient = by_first(f, logits)
        np.testing.assert_allclose(value, [alone[0][0], 0, 0], rtol=1e-6)
        np.testing.assert_allclose(gradient[0], alone[1][0], rtol=1e-6)
        assert not gradient[1:].any()


SOFTMAX = (
    losses.softmax_cross_entropy,
    losses.safe_softmax_cross_entropy,
    losses.poly_loss_cross_entropy,
    functools.partial(losses.ranking_softmax_loss, reduce_fn=None),
)


@pytest.mark.parametrize("f", SOFTMAX)
def test_softmax_losses_of_huge_and_infinite_logits(f):
    """A class without label counts 0 however unlikely it is, where optax has 0 · ∞ = NaN."""
    epsilon = 2.0 if f is losses.poly_loss_cross_entropy else 0.0
    p = expit(1)
    wrong = epsilon * p * (1 - p)  # the derivative of −ε p₀ by x₁
    x = [[HUGE, -HUGE, 0], [-HUGE, HUGE, 0], [1, 0, -INF], [-INF, 2, 1], [0, -INF, -INF]]
    y = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    loss = -np.log(p) + epsilon * (1 - p)
    gradient = [[0, 0, 0], [0, 0, 0], [p - 1 - wrong, 1 - p + wrong, 0], [0, p - 1 - wrong, 1 - p + wrong], [0, 0, 0]]
    assert_value_and_gradient(f, x, (jnp.asarray(y, jnp.float32),), [0, 0, loss, loss, 0], gradient)


def test_a_label_on_an_impossible_class_makes_an_infinite_loss_with_a_finite_gradient():
    x, y = jnp.array([[0.0, -INF]]), jnp.array([[0.0, 1.0]])
    for value, gradient in (
        by_first(losses.softmax_cross_entropy, x, y),
        by_first(losses.softmax_cross_entropy_with_integer_labels, x, jnp.array([1])),
    ):
        assert value == INF
        assert gradient.tolist() == [[1, -1]]
    masked = functools.partial(losses.softmax_cross_entropy_with_integer_labels, where=jnp.array([[True, False]]))
    assert by_first(masked, jnp.zeros((1, 2)), jnp.array([1]))[0] == INF  # optax: log 1 − 0, which may be negative
    _, tangent = jax.jvp(losses.safe_softmax_cross_entropy, (x, 1 - y), (jnp.ones_like(x), y))
    assert np.isfinite(tangent).all()


def test_gradients_by_the_labels():
    """They are −log p, and 0 rather than infinite for a class of the probability 0."""
    x, y = jnp.array([0.0, 1.0, -INF]), jnp.array([0.0, 1.0, 0.0])
    got = jax.jit(jax.grad(losses.softmax_cross_entropy, argnums=1))(x, y)
    np.testing.assert_allclose(got, [np.log1p(np.e), np.log1p(np.e) - 1, 0], rtol=1e-6)
    got = jax.jit(jax.grad(lambda y: jnp.sum(losses.sigmoid_binary_cross_entropy(x[:2] + 1, y))))(y[:2])
    np.testing.assert_allclose(got, [-1, -2], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_cosh_of_small_and_large_errors(dtype, x64):
    """Small ones keep their digits, where optax's are rounding."""
    x = np.array([1e-18, 1e-6, 1e-3, 0.3, 0.99, 1, 1.01, 5, 80, 1e6, HUGE], dtype)
    t = x.astype(float)
    exact = np.where(t < 1e-2, t**2 / 2 - t**4 / 12 + t**6 / 45, np.logaddexp(t, -t) - np.log(2))
    value, gradient = by_first(losses.log_cosh, jnp.asarray(x))
    np.testing.assert_allclose(value, exact, rtol=8 * np.finfo(dtype).eps)
    np.testing.assert_allclose(gradient, np.tanh(x), rtol=8 * np.finfo(dtype).eps)
    assert jax.jit(jax.grad(jax.grad(losses.log_cosh)))(0.0) == 1


def test_huber_loss_is_that_of_scipy():
    for delta in (0.5, 2.0):
        got, gradient = by_first(
            functools.partial(losses.huber_loss, delta=delta), np.append(X, [delta, -delta, 0, 1e30])
        )
        errors = np.append(X, [delta, -delta, 0, 1e30])
        np.testing.assert_allclose(got, scipy.special.huber(delta, errors), rtol=1e-6)
        np.testing.assert_allclose(gradient, np.clip(errors, -delta, delta), rtol=1e-6)


SCALES = [1e-30, 1.0, 1e30]  # whose squares are 0, 1 and ∞ in single precision


@pytest.mark.parametrize(
    ("a", "b"), [(1.0, 1.0), *itertools.permutations(SCALES[::2], 2), (1e-30, 1e-30), (1e30, 1e30)]
)
def test_cosines_of_vectors_of_any_size(a, b):
    x, y = jnp.asarray(a * X, jnp.float32), jnp.asarray(b * Y, jnp.float32)
    exact = np.array([scipy.spatial.distance.cosine(*rows) for rows in zip(X, Y, strict=True)])
    value, gradient = by_first(losses.cosine_distance, x, y)
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(losses.cosine_similarity)(x, y), 1 - exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a * gradient, gradient_of_cosine_distance(), rtol=1e-3)


@functools.cache
def gradient_of_cosine_distance() -> np.ndarray:
    return by_first(losses.cosine_distance, X, jnp.asarray(Y, jnp.float32))[1]


def test_cosines_at_the_corners():
    """Vectors of zeros, equal and opposite ones: nowhere is there a direction in which to go."""
    zero, x = jnp.zeros(3), jnp.array([1.0, 2.0, 3.0])
    first, second = jnp.stack([zero, x, zero, x, x]), jnp.stack([x, zero, zero, 2 * x, -x])
    similarities = np.array([0, 0, 0, 1, -1])
    for f, want in ((losses.cosine_similarity, similarities), (losses.cosine_distance, 1 - similarities)):
        value, gradient = by_first(f, first, second)
        np.testing.assert_allclose(value, want, atol=2e-7)
        np.testing.assert_allclose(gradient, 0 * first, atol=1e-7)
    near = jax.jit(losses.cosine_distance)(jnp.array([[1.0, 0.0]] * 2), jnp.array([[1.0, 0.0], [1.0, 1e-5]]))
    np.testing.assert_allclose(near, [0, 0.5e-10], rtol=1e-5)  # 1 − cos is 0 in single precision


def test_the_smallest_norm_of_cosines():
    """ε bounds the norm, as torch and optax's documentation say; optax's code bounds its square."""
    x, y = jnp.array([[3e-3, 4e-3]]), jnp.array([[1.0, 0.0]])
    value, gradient = by_first(functools.partial(losses.cosine_similarity, epsilon=0.01), x, y)
    np.testing.assert_allclose(value, [0.3], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[100, 0]], rtol=1e-6)
    value, _ = by_first(functools.partial(losses.cosine_distance, epsilon=0.01), x, y)
    np.testing.assert_allclose(value, [0.7], rtol=1e-6)
    value, gradient = by_first(functools.partial(losses.cosine_distance, epsilon=0.01), 0 * x, y)
    np.testing.assert_allclose(value, [1], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-100, 0]], rtol=1e-6)


def test_divergences_at_the_corners():
    """Against scipy, with targets and predictions of 0, which make NaN of optax's."""
    t, p = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]), np.array([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]])
    with np.errstate(divide="ignore"):
        log_p, log_t = (jnp.asarray(np.log(x), jnp.float32) for x in (p, t))
    targets = jnp.asarray(t, jnp.float32)
    exact = scipy.special.rel_entr(t, p).sum(-1)
    for f, second, want, slope in (
        (losses.kl_divergence, targets, exact, -t),
        (losses.kl_divergence_with_log_targets, log_t, exact, -t),
        (losses.generalized_kl_divergence, targets, scipy.special.kl_div(t, p).sum(-1), p - t),
    ):
        assert_value_and_gradient(f, log_p, (second,), want, slope)
        by_targets = jax.jit(jax.grad(lambda y, f=f: jnp.sum(f(log_p, y))))(second)
        assert np.isfinite(by_targets).all()
    assert losses.kl_divergence(jnp.array([0.0, -INF]), jnp.array([0.5, 0.5])) == INF
    assert np.isnan(losses.kl_divergence(jnp.zeros(2), jnp.array([1.5, -0.5])))


def test_generalized_kl_has_an_older_name():
    with pytest.warns(DeprecationWarning, match="use generalized_kl_divergence"):
        old = losses.convex_kl_divergence(jnp.asarray(LOG_P), jnp.asarray(P))
    np.testing.assert_array_equal(old, losses.generalized_kl_divergence(jnp.asarray(LOG_P), jnp.asarray(P)))


def test_margins_of_several_classes_keep_small_differences_of_large_scores():
    scores, labels = jnp.array([[2.0**24, 2.0**24 - 2, -INF]]), jnp.array([0])
    hinge, perceptron, sparsemax = (
        getattr(losses, f"multiclass_{name}_loss") for name in ("hinge", "perceptron", "sparsemax")
    )

    def every() -> list[Any]:
        return [
            hinge(scores, labels),
            hinge(scores, 1 - labels),
            perceptron(scores, 1 - labels),
            sparsemax(scores, 1 - labels),
            sparsemax(HUGE * jnp.array([[1.0, -1.0]]), labels),
            sparsemax(HUGE * jnp.array([[-1.0, 1.0, 0.5]]), labels),
        ]

    assert [float(value[0]) for value in jax.jit(every)()] == [0, 3, 2, 2, 0, INF]


def test_multiclass_sparsemax_has_first_and_second_derivatives(x64):
    """p − e of the class, whose derivative is that of the projection: (diag s − s sᵀ / |s|) on its support s."""
    z, k = jnp.asarray(numbers(9) / 3), jnp.asarray(4)
    p = np.asarray(jax.jit(stable.sparsemax)(z))
    on = (p > 0).astype(float)
    assert 2 < on.sum() < 9
    np.testing.assert_allclose(p.sum(), 1)
    np.testing.assert_allclose(p[on > 0] - np.asarray(z)[on > 0], (p - np.asarray(z))[np.argmax(p)])
    f = functools.partial(losses.multiclass_sparsemax_loss, labels=k)
    np.testing.assert_allclose(jax.jit(jax.grad(f))(z), p - np.eye(9)[4], atol=1e-15)
    np.testing.assert_allclose(jax.jit(jax.hessian(f))(z), np.diag(on) - np.outer(on, on) / on.sum(), atol=1e-15)


EXTREMES = np.array([0, 1e-45, 1e-38, -1e-20, 1e-4, -1, 17, 89, -104, -1e4, 1e19, HUGE / 2, HUGE, -HUGE], np.float32)


def test_no_finite_arguments_make_nan():
    """Neither values nor gradients, whatever the sizes; the results that float32 does not hold are infinite."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.choice(EXTREMES, (2000, 3))) for _ in range(2))
    bits, k = jnp.asarray(rng.choice(np.float32([0, 0.3, 1]), (2000, 3))), jnp.asarray(rng.integers(0, 3, 2000))
    hot, log_p = jax.nn.one_hot(k, 3), jnp.minimum(x, 0)
    images, masks = x[:1998].reshape(-1, 3, 3), hot[:1998].reshape(-1, 3, 3)
    calls = [
        *((f, x, y) for f in (losses.huber_loss, losses.log_cosh, losses.cosine_similarity, losses.cosine_distance)),
        *((f, x, bits) for f in (losses.sigmoid_binary_cross_entropy, losses.sigmoid_focal_loss)),
        *((functools.partial(losses.sigmoid_focal_loss, gamma=gamma), x, bits) for gamma in (0.5, 5.0)),
        *((getattr(losses, name), x, hot) for name in ("softmax_cross_entropy", "poly_loss_cross_entropy")),
        *(
            (getattr(losses, name), x, k)
            for name in losses.__all__
            if name.startswith("multiclass_") and "d" not in name
        ),
        (losses.softmax_cross_entropy_with_integer_labels, x, k),
        (losses.kl_divergence, log_p, hot),
        (losses.kl_divergence_with_log_targets, log_p, jnp.minimum(y, 0)),
        (functools.partial(losses.dice_loss, smooth=0.0), images, masks),
        (jax.vmap(losses.ntxent), images, k[:1998].reshape(-1, 3)),
        (lambda x: losses.ctc_loss(x, jnp.zeros((666, 3)), k[:666, None] % 2 + 1, jnp.zeros((666, 1))), images),
    ]
    every = jax.jit(
        lambda arguments: [by_first_argument(f, *own) for (f, *_), own in zip(calls, arguments, strict=True)]
    )([arguments for _, *arguments in calls])
    for (f, *_), (value, gradient) in zip(calls, every, strict=True):
        assert not np.isnan(value).any(), f
        assert not np.isnan(gradient).any(), f


def by_first_argument(f: Any, x: Any, *args: Any) -> tuple[Any, Any]:
    gradient, value = jax.grad(lambda x: (lambda y: (jnp.sum(y), y))(f(x, *args)), has_aux=True)(x)
    return value, gradient


# Embeddings.


def ntxent(z: np.ndarray, labels: np.ndarray, tau: float) -> float:
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300)
    s = z @ z.T / tau
    pairs = [(i, j) for i, j in itertools.permutations(range(len(z)), 2) if labels[i] == labels[j]]
    others = [np.exp(s[i][labels != labels[i]]).sum() for i in range(len(z))]
    return float(np.mean([np.log1p(others[i] * np.exp(-s[i, j])) for i, j in pairs]))


@pytest.mark.parametrize("scale", SCALES)
def test_ntxent_of_embeddings_of_any_size(scale):
    z, labels = numbers(6, 4), np.array([0, 1, 0, 1, 2, 2])
    z[3] = 0
    value, gradient = by_first(losses.ntxent, scale * z, jnp.asarray(labels))
    np.testing.assert_allclose(value, ntxent(z, labels, 0.07), rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not gradient[3].any()
    np.testing.assert_allclose(np.sum(z * gradient, 1), 0, atol=1e-5 / scale)  # along an embedding nothing changes


def test_ntxent_without_pairs_or_others():
    for labels in (jnp.arange(4), jnp.zeros(4, jnp.int32)):
        value, gradient = by_first(losses.ntxent, numbers(4, 3), labels)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("degree", [1, 2, np.float32(3)])
def test_triplets_with_any_norm(degree):
    """Also with an odd degree, of which optax takes the powers of negative numbers."""
    a, p, n = X, Y, numbers(4, 3, seed=9)
    norms = [np.sum(np.abs(a - x) ** float(degree), -1) ** (1 / float(degree)) for x in (p, n)]
    for scale in (1.0, 1e25, 1e-25):
        args = (jnp.asarray(scale * p, jnp.float32), jnp.asarray(scale * n, jnp.float32), -1, degree, scale, 0.0)
        value, gradient = by_first(losses.triplet_margin_loss, scale * a, *args)
        np.testing.assert_allclose(value / scale, np.maximum(0, norms[0] - norms[1] + 1), rtol=1e-5, atol=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("degree", [1, 2])
def test_triplets_of_equal_vectors(degree, eps):
    x = jnp.ones((1, 3))
    value, gradient = by_first(losses.triplet_margin_loss, x, x, x, -1, degree, 1.0, eps)
    assert value == [1]
    assert not gradient.any()


# Segmentation.


def test_dice_of_nothing_is_zero():
    """Without `smooth` optax has 0 / 0."""
    f = functools.partial(losses.dice_loss, smooth=0.0, apply_softmax=False, reduction="none")
    p = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
    value, gradient = by_first(f, p, p)
    assert value.tolist() == [[0, 0]]
    assert np.isfinite(gradient).all()
    f = functools.partial(losses.dice_loss, smooth=0.0, reduction="none")
    value, gradient = by_first(f, HUGE * (2 * p - 1), p)
    assert value.tolist() == [[0, 0]]
    assert not gradient.any()
    value, gradient = by_first(f, 89 * (2 * p - 1), p)  # 10⁻³⁹ of class 0 are predicted, which is nothing, too
    assert value.tolist() == [[0, 0]]
    assert np.isfinite(gradient).all()


def test_dice_of_probabilities():
    """Of a single class as well, and inside a compiled function: optax refuses the one, and fails in the other."""
    p, t = expit(IMAGES[..., 0]), MASKS[..., 0]
    hit, both = (p * t).sum((1, 2)), (p + t).sum((1, 2))
    exact = 1 - (2 * hit + 2) / (both + 2)
    images, masks = jnp.asarray(p, jnp.float32), jnp.asarray(t > 0)
    got = jax.jit(functools.partial(losses.binary_dice_loss, apply_sigmoid=False))(images, masks)
    np.testing.assert_allclose(got, exact, rtol=1e-5)
    np.testing.assert_allclose(losses.binary_dice_loss(images, masks, apply_sigmoid=False), exact, rtol=1e-5)
    half = jax.jit(jax.nn.softmax)(jnp.asarray(IMAGES, jnp.bfloat16))  # sums to about 1
    assert losses.dice_loss(half, jnp.asarray(MASKS), apply_softmax=False).shape == (2,)


def test_generalized_dice_of_a_class_that_does_not_occur():
    """It weighs as much as the rarest; in optax so much that the others do not count."""
    x, hot = jnp.asarray(numbers(1, 6, 3), jnp.float32), jnp.asarray(np.eye(3)[[[0, 0, 0, 1, 1, 0]]])
    each = jax.jit(functools.partial(losses.dice_loss, reduction="none"))(x, hot)[0]
    weights = np.array([1 / 16, 1 / 4, 1 / 4])
    generalized = jax.jit(losses.multiclass_generalized_dice_loss)
    np.testing.assert_allclose(generalized(x, hot), np.mean(each * weights / weights.mean()), rtol=1e-6)
    assert np.isfinite(generalized(x, jnp.zeros((1, 6, 3)))).all()


# CTC.


def brute_force_ctc(logits: np.ndarray, labels: list[int], blank: int) -> float:
    """−log of the sum over all paths that become the labels."""
    log_p = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    every = itertools.product(range(logits.shape[1]), repeat=len(logits))
    paths = [path for path in every if [k for k, _ in itertools.groupby(path) if k != blank] == labels]
    found = [log_p[np.arange(len(path)), path].sum() for path in paths]
    return -scipy.special.logsumexp(found) if found else INF


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_is_the_sum_over_all_paths(blank, x64):
    logits, frames = numbers(5, 5, 3), [5, 4, 5, 3, 5]
    one, two = (k for k in range(3) if k != blank)
    spelt = [[one, one], [one, two], [], [two, two, two], [two, one, one]]
    labels = np.array([[*row, *[-1] * (3 - len(row))] for row in spelt])
    paddings = np.arange(5) >= np.array(frames)[:, None], labels == -1
    exact = [brute_force_ctc(x[:n], row, blank) for x, n, row in zip(logits, frames, spelt, strict=True)]
    assert exact[3] == INF
    exact[3] = 1e5

    def f(x: Any) -> Any:
        return losses.ctc_loss(
            x, jnp.asarray(paddings[0]), jnp.asarray(labels), jnp.asarray(paddings[1]), blank_id=blank
        )

    value, gradient = by_first(f, jnp.asarray(logits))
    np.testing.assert_allclose(value, exact, rtol=1e-12)
    assert not gradient[3].any()
    assert not gradient[paddings[0]].any()
    jax.test_util.check_grads(jax.jit(lambda x: jnp.sum(f(x))), (jnp.asarray(logits),), order=1, modes=["rev"])


def test_ctc_is_never_negative():
    """Of a confident prediction the sum of the paths rounds to more than 1, and optax's loss to −8 · 10⁻⁸."""
    logits, zeros = jnp.array([[[0.0, 17.0], [0.0, 17.0]]]), jnp.zeros((1, 2))
    value, gradient = by_first(losses.ctc_loss, logits, zeros, jnp.array([[1]]), zeros[:, :1])
    assert value == 0
    assert not np.signbit(value)
    assert np.isfinite(gradient).all()


def test_ctc_of_long_and_of_impossible_sequences():
    """A loss beyond 10⁵ is exact. That of the impossible, such as masked classes, is −log_epsilon, which may be ∞."""
    zeros = jnp.zeros((1, 3))
    huge = jnp.array([[[0.0, -1e6, -INF]] * 3])
    value, gradient = by_first(losses.ctc_loss, huge, zeros, jnp.array([[1, 1]]), zeros[:, :2])
    assert value == 2e6
    assert np.isfinite(gradient).all()

    def least(x: Any) -> tuple[Any, Any]:
        kwargs = [{"log_epsilon": log_epsilon} for log_epsilon in (-1e5, -7, -INF, jnp.float32(-3))]
        values = [losses.ctc_loss(x, zeros, jnp.array([[2]]), zeros[:, :1], **own) for own in kwargs]
        return jnp.concatenate(values)

    value, gradient = by_first(least, huge)
    assert value.tolist() == [1e5, 7, INF, 3]
    assert not gradient.any()


def test_ctc_of_labels_that_are_none():
    zeros = jnp.zeros((4, 3))
    labels, paddings = jnp.array([[1, 5], [1, 0], [-1, 1], [1, 2]]), jnp.array([[0, 0], [0, 0], [0, 0], [1, 0]])
    value, gradient = by_first(losses.ctc_loss, jnp.zeros((4, 3, 4)), zeros, labels, paddings)
    assert np.isnan(value).all()
    assert not gradient.any()
    f = jax.jit(lambda labels, paddings: losses.ctc_loss(jnp.zeros((1, 2, 4)), zeros[:1, :2], labels, paddings))
    for none in (f(labels[:1], jnp.ones((1, 2))), f(jnp.zeros((1, 0), jnp.int32), jnp.zeros((1, 0)))):
        np.testing.assert_allclose(none, [2 * np.log(4)], rtol=1e-6)


# Fenchel–Young losses.


def test_fenchel_young_losses():
    """Of log Σ exp it is cross entropy; arguments go to the function, and leading axes may be missing."""
    loss = losses.make_fenchel_young_loss(jax.nn.logsumexp)
    scaled = losses.make_fenchel_young_loss(max_fun=lambda s, t, shift=0.0: t * jax.nn.logsumexp(s / t) + shift)
    x, y = jnp.asarray(CUBE, jnp.float32), jnp.asarray(LABELS, jnp.float32)
    value, gradient = by_first(loss, x, y)
    np.testing.assert_allclose(value, jax.jit(losses.softmax_cross_entropy)(x, y), rtol=1e-5)
    np.testing.assert_allclose(gradient, scipy.special.softmax(CUBE, -1) - LABELS, atol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(loss)))(x, y), value, rtol=1e-6)
    one = y[0, 0]
    np.testing.assert_allclose(jax.jit(loss)(x, one), jax.jit(losses.softmax_cross_entropy)(x, one), rtol=1e-5)
    got = jax.jit(lambda: scaled(2 * x, y, 2.0, shift=1.0))()
    np.testing.assert_allclose(got, 2 * value + 1, rtol=1e-5)
    assert loss(jnp.zeros((0, 3)), jnp.zeros((0, 3))).shape == (0,)
    assert losses.make_fenchel_young_loss(jnp.max)(jnp.array([1.0, -INF]), jnp.array([1.0, 0.0])) == 0
    with pytest.raises(ValueError, match="max_fun: expected a scalar for each vector"):
        losses.make_fenchel_young_loss(jnp.exp)(x, y)


# Masks.


MASKED = {
    "cosine_similarity": (X, Y),
    "cosine_distance": (X, Y),
    "softmax_cross_entropy": (X, P),
    "poly_loss_cross_entropy": (X, P),
    "kl_divergence": (LOG_P, P),
    "kl_divergence_with_log_targets": (LOG_P, LOG_P[::-1]),
    "generalized_kl_divergence": (LOG_P, P),
    "ranking_softmax_loss": (X, P),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_a_mask_leaves_out_may_be_nan(name):
    """The loss is that of what remains, and so is the gradient, with 0 elsewhere."""
    f, (x, y), mask = getattr(losses, name), MASKED[name], np.array([True, False, True])
    x, y, mask = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.asarray(mask)
    spoilt = [jnp.where(mask, z, NAN) for z in (x, y)]
    some = functools.partial(by_first_argument, lambda x, y: f(x, y, where=mask[None]))
    none = functools.partial(by_first_argument, lambda x, y: f(x, y, where=jnp.zeros((4, 3), bool)))
    (got, (value, gradient)), want = jax.jit(
        lambda: ([some(*spoilt), none(*spoilt)], by_first_argument(f, x[:, ::2], y[:, ::2]))
    )()
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1][:, ::2], want[1], rtol=1e-5, atol=1e-7)
    assert not got[1][:, 1].any()
    np.testing.assert_array_equal(value, 1.0 if name == "cosine_distance" else 0.0)
    assert not gradient.any()


def test_smooth_labels_over_several_axes():
    y = np.eye(3, dtype=np.float32)
    np.testing.assert_allclose(losses.smooth_labels(jnp.asarray(y), 0.2, axis=(0, 1)), 0.8 * y + 0.2 / 9, rtol=1e-6)


def test_smooth_labels_with_a_mask_are_a_distribution_over_the_rest():
    y = jnp.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    where = jnp.array([[True, True, False, True], [False] * 4])
    got = losses.smooth_labels(y, 0.3, where=where)
    np.testing.assert_allclose(got, [[0.1, 0.8, 0, 0.1], [0, 0, 0, 0]], rtol=1e-6)


# Transformations of JAX.


ROWWISE = [name for name in losses.__all__ if name not in ("make_fenchel_young_loss", "ntxent", "ranking_softmax_loss")]
ROWWISE = [name for name in ROWWISE if "dice" not in name and "ctc" not in name and "smooth" not in name]


@pytest.mark.parametrize("name", ROWWISE)
@pytest.mark.filterwarnings("ignore:.*convex_kl_divergence:DeprecationWarning")
def test_a_batch_is_a_map_over_its_items(name):
    f, case = getattr(losses, name), next(case for case in CASES[name] if not case.kwargs)
    args, _ = as_arrays(case)
    args = [x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.float32) for x in args]
    at_once, one_by_one = jax.jit(lambda *args: (f(*args), jax.vmap(f)(*args)))(*args)
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-6)


def test_ctc_and_dice_map_over_their_batch():
    images, masks = jnp.asarray(IMAGES, jnp.float32), jnp.asarray(MASKS, jnp.float32)
    sequences = tuple(jnp.asarray(x) for x in (CTC[0].astype(np.float32), CTC[1], CTC[2], CTC_PADDED))
    for f, args in ((losses.ctc_loss, sequences), (losses.dice_loss, (images, masks))):
        one_by_one = jax.jit(jax.vmap(lambda *args, f=f: f(*(x[None] for x in args))[0]))
        np.testing.assert_allclose(jax.jit(f)(*args), one_by_one(*args), rtol=1e-6)


# Dtypes.


HALF = [name for name in losses.__all__ if name != "make_fenchel_young_loss"]


@pytest.mark.parametrize("name", HALF)
@pytest.mark.filterwarnings("ignore:.*convex_kl_divergence:DeprecationWarning")
def test_half_precision_is_computed_in_single_and_rounded_once(name):
    f, case = getattr(losses, name), next(case for case in CASES[name] if not case.kwargs)
    args, _ = as_arrays(case)
    half = [jnp.asarray(x, jnp.bfloat16) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x for x in args]
    single = [x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in half]
    got, want = jax.jit(lambda: (f(*half), f(*single)))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, b.dtype) == (jnp.bfloat16, jnp.float32)
        np.testing.assert_array_equal(a.astype(jnp.float32), b.astype(jnp.bfloat16).astype(jnp.float32))


def test_the_dtype_of_the_result_is_the_common_one(x64):
    """Whatever the promotion; parameters and Python numbers do not count."""
    one = {name: jnp.ones(2, name) for name in ("bfloat16", "float16", "float32", "float64", "int64", "bool")}
    for first, second, want in (
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "float16", "float32"),
        ("float32", "float64", "float64"),
        ("float16", "int64", "float16"),
        ("bfloat16", "bool", "bfloat16"),
    ):
        for loss in (losses.sigmoid_binary_cross_entropy, losses.softmax_cross_entropy):
            assert jax.eval_shape(loss, one[first], one[second]).dtype == want
    huber = functools.partial(losses.huber_loss, targets=1.0, delta=jnp.float64(2))
    assert jax.eval_shape(huber, one["bfloat16"]).dtype == "bfloat16"
    triplets = functools.partial(losses.triplet_margin_loss, margin=np.float64(1))
    assert jax.eval_shape(triplets, *[one["float16"]] * 3).dtype == "float16"
    assert losses.squared_error(1.0, 2).dtype == "float64"


def test_what_stands_for_an_array_is_one():
    class Variable:
        def __jax_array__(self):
            return jnp.array([1.0, 2.0])

    assert losses.squared_error(jnp.array([1.0, 0.0]), Variable()).tolist() == [0, 4]
    with pytest.raises(ValueError, match="targets: expected the shape"):
        losses.squared_error(jnp.zeros((2, 1)), Variable())
    assert losses.l2_loss(np.array([1.0, 0.0]), np.float32(2)).tolist() == [0.5, 2]


# Refusals.


ONES, INTS = np.ones((4, 3), np.float32), np.ones(4, np.int32)
COLUMN = ONES[:, :1]
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (
        "squared_error",
        (ONES[:, 0], COLUMN),
        {},
        ValueError,
        r"targets: expected the shape \(4,\) of predictions, or a s",
    ),
    (
        "l2_loss",
        (COLUMN, ONES[:, 0]),
        {},
        ValueError,
        r"targets: .*\(4, 1\).* got float32\[4\]; to broadcast on purpose",
    ),
    (
        "huber_loss",
        (INTS, ONES[:, 0]),
        {},
        TypeError,
        r"predictions: expected a real floating.* got int32\[4\]; convert",
    ),
    ("huber_loss", (ONES,), {"delta": 0.0}, ValueError, r"delta must lie in \(0, ∞\), got 0"),
    (
        "huber_loss",
        (ONES,),
        {"delta": np.ones((4, 1, 1))},
        ValueError,
        r"delta: expected a number, or an array that is",
    ),
    ("log_cosh", (ONES * 1j,), {}, TypeError, r"predictions: .* got complex64\[4,3\]"),
    ("log_cosh", ([1.0, 2.0],), {}, TypeError, "predictions: .* got a list"),
    ("squared_error", (ONES, "abc"), {}, TypeError, "targets: expected an array of real numbers, got the Python str"),
    ("cosine_similarity", (ONES, INTS), {}, TypeError, "targets: expected a real floating-point array"),
    ("cosine_similarity", (ONES, ONES[:, 0]), {}, ValueError, r"targets: expected the shape \(4, 3\) of predictions"),
    ("cosine_similarity", (ONES, ONES[0]), {"axis": 0}, ValueError, r"targets: expected the shape \(4, 3\)"),
    ("cosine_similarity", (ONES, ONES), {"axis": 2}, ValueError, "axis: expected different axes of an array of rank 2"),
    ("cosine_similarity", (ONES, ONES), {"axis": (1, -1)}, ValueError, "axis: expected different axes"),
    ("cosine_similarity", (ONES, ONES), {"axis": 1.0}, TypeError, "axis: expected an int, a tuple of ints or None"),
    ("cosine_distance", (ONES, ONES), {"epsilon": -1.0}, ValueError, r"epsilon must lie in \[0, ∞\), got -1"),
    (
        "cosine_distance",
        (ONES, ONES),
        {"where": INTS},
        TypeError,
        r"where: expected a mask of bools.* mask.astype\(bool\)",
    ),
    (
        "kl_divergence",
        (ONES, ONES),
        {"where": ONES[0] > 0},
        ValueError,
        r"where: .*\(4, 3\), whose axes may be 1, got boo",
    ),
    ("sigmoid_binary_cross_entropy", (ONES, COLUMN), {}, ValueError, r"labels: expected the shape \(4, 3\) of logits"),
    ("sigmoid_focal_loss", (ONES, ONES), {"alpha": 2.0}, ValueError, r"alpha must lie in \[0, 1\], got 2"),
    ("sigmoid_focal_loss", (ONES, ONES), {"gamma": "2"}, TypeError, "gamma must be a number"),
    ("sigmoid_focal_loss", (ONES, ONES), {"gamma": abs}, TypeError, "gamma: expected a number"),
    (
        "hinge_loss",
        (ONES, ONES > 0),
        {},
        TypeError,
        r"targets: expected numbers, .* the classes are −1 and 1: give 2 \*",
    ),
    ("perceptron_loss", (INTS, INTS), {}, TypeError, "predictor_outputs: expected a real floating-point array"),
    (
        "softmax_cross_entropy",
        (np.ones((4, 4)), INTS),
        {},
        ValueError,
        "labels: .* use softmax_cross_entropy_with_int",
    ),
    ("softmax_cross_entropy", (ONES, COLUMN), {}, ValueError, r"labels: expected the shape \(4, 3\) of logits"),
    ("softmax_cross_entropy", (ONES, 0.5), {}, ValueError, "labels: expected the shape"),
    ("safe_softmax_cross_entropy", (INTS, INTS), {}, TypeError, "logits: expected a real floating-point array"),
    (
        "softmax_cross_entropy_with_integer_labels",
        (ONES, ONES),
        {},
        TypeError,
        "labels: expected integers.* jnp.argmax",
    ),
    (
        "softmax_cross_entropy_with_integer_labels",
        (ONES, INTS[:, None]),
        {},
        ValueError,
        r"labels: expected the shape \(4,\), one class for each vector, got int32\[4,1\]; .* jnp.squeeze",
    ),
    ("softmax_cross_entropy_with_integer_labels", (ONES, INTS, None), {}, ValueError, "axis: expected an int"),
    ("smooth_labels", (INTS, 0.1), {}, TypeError, "labels: expected a real floating-point array"),
    ("smooth_labels", (ONES, 1.5), {}, ValueError, r"alpha must lie in \[0, 1\], got 1.5"),
    ("multiclass_hinge_loss", (ONES, INTS[:3]), {}, ValueError, r"labels: expected the shape \(4,\)"),
    ("multiclass_sparsemax_loss", (np.float32(1), INTS), {}, ValueError, "axis: expected different axes of an array"),
    (
        "ranking_softmax_loss",
        (ONES, ONES),
        {"weights": COLUMN[None]},
        ValueError,
        "weights: expected a number, or an arr",
    ),
    ("make_fenchel_young_loss", (3,), {}, TypeError, "max_fun: expected a function of a vector"),
    (
        "dice_loss",
        (IMAGES, MASKS[..., :2]),
        {},
        ValueError,
        r"targets: expected the shape \(2, 4, 5, 3\) of predictions",
    ),
    ("dice_loss", (IMAGES, MASKS), {"axis": -1}, ValueError, "axis: expected axes beside the last"),
    (
        "dice_loss",
        (IMAGES, MASKS),
        {"reduction": "max"},
        ValueError,
        "reduction: expected 'mean', 'sum' or 'none', got 'm",
    ),
    ("dice_loss", (IMAGES, MASKS), {"class_weights": ONES}, ValueError, r"class_weights: expected the shape \(3,\)"),
    ("dice_loss", (IMAGES, MASKS), {"apply_softmax": False}, ValueError, "predictions: expected valid probability dis"),
    (
        "binary_dice_loss",
        (IMAGES[..., 0], MASKS[..., 0]),
        {"apply_sigmoid": False},
        ValueError,
        "binary_dice_loss: predic",
    ),
    ("ntxent", (ONES[0], INTS), {}, ValueError, r"embeddings: expected a matrix \[n, d\], got float32\[3\]"),
    ("ntxent", (ONES, INTS[:3]), {}, ValueError, r"labels: expected the shape \(4,\), one number for each embedding"),
    ("ntxent", (ONES, INTS, 0.0), {}, ValueError, r"temperature must lie in \(0, ∞\), got 0"),
    ("triplet_margin_loss", (ONES, ONES, ONES[:, 0]), {}, ValueError, "negatives: expected the shape"),
    ("triplet_margin_loss", (ONES, ONES, ONES), {"norm_degree": 0.5}, ValueError, r"norm_degree must lie in \[1, ∞\)"),
    ("ctc_loss", (ONES, ONES, ONES, ONES), {}, ValueError, r"logits: expected the shape \(B, T, K\)"),
    (
        "ctc_loss",
        (ONES[None], COLUMN.T, INTS[None], COLUMN.T),
        {"blank_id": 3},
        ValueError,
        r"blank_id: .*\[0, 3\), got 3",
    ),
    (
        "ctc_loss",
        (ONES[None], COLUMN.T, INTS[None], COLUMN.T),
        {"blank_id": -1},
        ValueError,
        "blank_id: expected a class",
    ),
    (
        "ctc_loss",
        (ONES[None], COLUMN, INTS[None], COLUMN.T),
        {},
        ValueError,
        r"logit_paddings: expected the shape \(1, 4\)",
    ),
    (
        "ctc_loss",
        (ONES[None], COLUMN.T, INTS[None], COLUMN),
        {},
        ValueError,
        r"label_paddings: expected the shape \(1, 4\)",
    ),
    ("ctc_loss", (ONES[None], COLUMN.T, COLUMN.T, COLUMN.T), {}, TypeError, "labels: expected integers"),
    (
        "ctc_loss",
        (ONES[None], COLUMN.T, INTS[None], COLUMN.T),
        {"log_epsilon": 1.0},
        ValueError,
        r"log_epsilon must lie in",
    ),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "error", "message"), REFUSED)
def test_refusals_name_the_loss_the_argument_and_the_cure(name, args, kwargs, error, message):
    with pytest.raises(error, match=f"^{name}: {message}" if not message.startswith(name) else message):
        getattr(losses, name)(*args, **kwargs)
