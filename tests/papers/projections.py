"""Steps that end in a set: projected gradient descent, Goldstein, 1964, with projections from their definitions.

The thresholds of the simplex and of the l1 norm are found by bisection, rather than by sorting.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

import gradtx as gx
from gradtx import projections
from papers import Arrays, Case, Update, each

NORMAL: Arrays = {"bias": [1.0, -2.0, 0.5], "kernel": [[1.0, 0.0, -1.0]] * 4, "scale": 3.0}
"A vector a, of numbers that every dtype has."


def as_numpy() -> Arrays:
    return each(np.asarray, NORMAL)


def as_jax() -> Arrays:
    return each(jnp.asarray, NORMAL)


def dot(a: Arrays, b: Arrays) -> Any:
    return sum(np.sum(a[name] * b[name]) for name in a)


def total(tree: Arrays) -> Any:
    return sum(np.sum(x) for x in tree.values())


def descent_into(nearest: Any) -> Update:
    """The point nearest to w − g / 2, less w."""

    def update(grads: Arrays, params: Arrays) -> Arrays:
        led_to = each(lambda g, w: w - 0.5 * g, grads, params)
        return each(np.subtract, nearest(led_to), params)

    return update


def simplex(tree: Arrays, s: float) -> Arrays:
    """max(x − τ, 0), whose sum falls as τ grows."""
    every = np.concatenate([np.ravel(x) for x in tree.values()])
    low, high = np.min(every) - s, np.max(every)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(np.maximum(every - middle, 0)) > s else (low, middle)
    return each(lambda x: np.maximum(x - low, 0), tree)


def l1_sphere(tree: Arrays, r: float) -> Arrays:
    return each(lambda x, size: np.sign(x) * size, tree, simplex(each(np.abs, tree), r))


def l1_ball(tree: Arrays, r: float) -> Arrays:
    return tree if total(each(np.abs, tree)) <= r else l1_sphere(tree, r)


def l2_sphere(tree: Arrays, r: float) -> Arrays:
    return each(lambda x: r * x / np.sqrt(dot(tree, tree)), tree)


def l2_ball(tree: Arrays, r: float) -> Arrays:
    return tree if dot(tree, tree) <= r * r else l2_sphere(tree, r)


def along_normal(tree: Arrays, distance: Any) -> Arrays:
    a = as_numpy()
    return each(lambda x, a_: x - distance * a_ / dot(a, a), tree, a)


def hyperplane(tree: Arrays, b: float) -> Arrays:
    return along_normal(tree, dot(as_numpy(), tree) - b)


def halfspace(tree: Arrays, b: float) -> Arrays:
    return along_normal(tree, max(dot(as_numpy(), tree) - b, 0))


def line(tree: Arrays) -> Arrays:
    a = as_numpy()
    return each(lambda x: x * dot(a, tree) / dot(a, a), a)


def kernel_in_ball(tree: Arrays) -> Arrays:
    return tree | l2_ball({"kernel": tree["kernel"]}, 0.5)


def case(name: str, nearest: Any, mask: Any = None, **arguments: Any) -> Case:
    function = getattr(projections, f"projection_{name}")
    return Case(gx.chain(gx.sgd(0.5), gx.project(function, arguments, mask)), lambda: descent_into(nearest))


LOWER, UPPER = {"bias": -0.25, "kernel": 0.0, "scale": -1.0}, {"bias": 0.5, "kernel": 0.75, "scale": -0.5}

CASES = {
    "project, non-negative": case("non_negative", lambda tree: each(lambda x: np.maximum(x, 0), tree)),
    "project, box": case("box", lambda tree: each(np.clip, tree, LOWER, UPPER), lower=LOWER, upper=UPPER),
    "project, hypercube": case("hypercube", lambda tree: each(lambda x: np.clip(x, 0, 0.75), tree), scale=0.75),
    "project, linf ball": case("linf_ball", lambda tree: each(lambda x: np.clip(x, -0.75, 0.75), tree), scale=0.75),
    "project, simplex": case("simplex", lambda tree: simplex(tree, 2.0), scale=2.0),
    "project, l1 sphere": case("l1_sphere", lambda tree: l1_sphere(tree, 3.0), scale=3.0),
    "project, l1 ball": case("l1_ball", lambda tree: l1_ball(tree, 3.0), scale=3.0),
    "project, l2 sphere": case("l2_sphere", lambda tree: l2_sphere(tree, 3.0), scale=3.0),
    "project, l2 ball": case("l2_ball", lambda tree: l2_ball(tree, 3.0), scale=3.0),
    "project, l2 ball of one leaf": case("l2_ball", kernel_in_ball, mask="kernel", scale=0.5),
    "project, hyperplane": case("hyperplane", lambda tree: hyperplane(tree, 2.0), a=as_jax(), b=2.0),
    "project, half-space": case("halfspace", lambda tree: halfspace(tree, -2.0), a=as_jax(), b=-2.0),
    "project, vector": case("vector", line, a=as_jax()),
}
