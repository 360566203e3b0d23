"""The losses: against optax in double precision, against formulas where optax is wrong, at the corners, and refusals."""

import functools
import inspect
import itertools
import re
import sys
import warnings
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
    assert not missing or re.search("[Tt]he (other )?arguments.* are those of `", doc, re.DOTALL), missing


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
    "smooth_labels": [Case((P, 0.1)), Case((LABELS, 0.2), {"axis": (0, 1)}), Case((LABELS, 0.3), {"axis": None})],
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


def assert_near(got: Any, want: Any, tolerance: float = IN_DOUBLE_PRECISION) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        largest = max(1.0, np.max(np.abs(b), initial=0, where=np.isfinite(b)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, cases in CASES.items() for i in range(len(cases))])
@pytest.mark.filterwarnings("ignore:.*convex_kl_divergence:DeprecationWarning")
def test_values_and_gradients_are_those_of_optax(name, number, x64):
    args, kwargs = as_arrays(CASES[name][number])
    got = jax.jit(lambda: summed(getattr(losses, name), args, kwargs))()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        want = jax.jit(lambda: summed(getattr(optax.losses, name), args, kwargs))()
    want = jax.tree.map(
        lambda x: jnp.where(x < -9e4, -1e5, x), want
    )  # optax adds log p to −10⁵, which stands for log 0
    assert_near(got, want, TOLERANCES.get(name, IN_DOUBLE_PRECISION))


def test_every_loss_is_compared_with_optax():
    assert sorted(CASES) == losses.__all__
