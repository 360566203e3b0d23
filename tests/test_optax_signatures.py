"""A call that optax takes means the same here: the same names of arguments in the same order, with the same defaults.

Every callable is compared that both libraries have under one name. What gradtx adds comes after optax's arguments.
"""

import inspect
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.assignment
import optax.contrib
import optax.losses
import optax.microbatching
import optax.perturbations
import optax.projections
import optax.schedules
import optax.second_order
import optax.transforms
import optax.tree_utils
import pytest

import gradtx

MODULES = [
    "assignment",
    "contrib",
    "losses",
    "microbatching",
    "perturbations",
    "projections",
    "schedules",
    "second_order",
    "transforms",
    "tree",
    "tree_utils",
]
SAME_NAMES = {optax: gradtx} | {getattr(optax, name): getattr(gradtx, name) for name in MODULES}
"The modules of optax, and those of gradtx in which the same names are looked up."

METHODS = "in optax `init` and `update` are fields; the two functions may be given by these names, too"
FIELDS = "a state of gradtx, which needs to remember more, or less, or says it by another name"
KEY = "one name for the key, of which `seed` is an older one; a number is enough"
OURS = "the same, but by gradtx"
NONE = "`None` stands for optax's own function"
REASONS = {
    "GradientTransformation": METHODS,
    "GradientTransformationExtraArgs": METHODS,
    **dict.fromkeys(
        [
            "ApplyEvery",
            "DifferentiallyPrivateAggregateState",
            "InjectHyperparamsState",
            "LookaheadState",
            "MechanicState",
            "MuonState",
            "ProdigyState",
            "ScaleByAdanState",
            "ScaleByBacktrackingLinesearchState",
            "ScaleByRStdDevState",
            "ScaleByRmsState",
            "ScaleByZoomLinesearchState",
        ],
        FIELDS,
    ),
    "MultiSteps(accumulator_dtype)": "`None` stands for float32, or float64 for parameters that are",
    "adan(eps_root)": "0 in the authors' code",
    "add_noise(key)": KEY,
    "add_noise(seed)": KEY,
    "adopt(clip_value_fn)": NONE,
    "differentially_private_aggregate(key)": "required: two runs must not have the same noise by accident",
    "differentially_private_aggregate(seed)": KEY,
    "get(default)": "without one, a field that is not there is an error",
    "hutchinson_estimator_diag_hessian(random_seed)": "optax's None is 0, too",
    "lbfgs(linesearch)": OURS,
    "make_perturbed_fun(noise)": OURS,
    "masked(mask_compatible_extra_args)": "a tree with leaves that the transformation does not see would not fit",
    "mechanize(s_init)": "1e-8 in the authors' code",
    "micro_grad(accumulator)": OURS,
    "micro_grad(metrics_fn)": OURS,
    "micro_grad(transform_fn)": OURS,
    "micro_vmap(accumulator)": OURS,
    "microbatch(accumulator)": OURS,
    "noisy_sgd(key)": KEY,
    "noisy_sgd(seed)": KEY,
    "partition(mask_compatible_extra_args)": "as in masked",
    "scale_by_adopt(clip_value_fn)": NONE,
    "scale_by_factored_rms(decay_rate_fn)": NONE,
    "scale_by_learning_rate(learning_rate)": "without one, optax steps uphill",
    "skip_large_updates": "a value that is made with the bound, and then called; partial() of it works, too",
    "sophia(hessian_diagonal_fn)": OURS,
}
"Where a call of optax is refused or means something else, and why; by the name, or by the name and the argument."


def callables() -> Iterator[tuple[str, Any, Any]]:
    """Every function and class of both libraries: its name, optax's and gradtx's."""
    seen = set()
    for theirs, ours in SAME_NAMES.items():
        for name, thing in vars(theirs).items():
            own = getattr(ours, name, None)
            if name.startswith("_") or isinstance(thing, types.ModuleType) or id(thing) in seen:
                continue
            are_types = hasattr(thing, "__origin__") or hasattr(own, "__origin__")  # of functions, as Schedule
            if callable(thing) and callable(own) and not are_types:
                seen.add(id(thing))
                yield name, thing, own


COMMON = {f"{theirs.__module__}.{name}": (name, theirs, ours) for name, theirs, ours in callables()}


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return {
        name: p
        for name, p in inspect.signature(function).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def differing(name: str, theirs: Any, ours: Any) -> set[str]:
    """The arguments that gradtx lacks, has at another position or with another default, or that it alone requires."""
    own, given = parameters(ours), parameters(theirs)
    positions = {argument: i for i, argument in enumerate(own)}
    found = {argument for argument in own.keys() - given.keys() if own[argument].default is inspect.Parameter.empty}
    for i, (argument, p) in enumerate(given.items()):
        if p.kind is p.POSITIONAL_ONLY and i < len(own):
            found.discard(list(own)[i])
            continue
        is_there = argument in own and (p.kind is p.KEYWORD_ONLY or positions[argument] == i)
        if not is_there or not _is_same_default(argument, p.default, own[argument].default):
            found.add(argument)
    return {f"{name}({argument})" for argument in found}


def _is_same_default(argument: str, theirs: Any, ours: Any) -> bool:
    if theirs is inspect.Parameter.empty:
        return True
    if "dtype" in argument and theirs is not None and ours is not None:
        return np.dtype(theirs) == np.dtype(ours)
    return theirs is ours or bool(theirs == ours)


@pytest.mark.parametrize(("name", "theirs", "ours"), COMMON.values(), ids=COMMON)
def test_a_call_of_optax_means_the_same(name, theirs, ours):
    """Unless there is a reason; whose absence would be noticed as well."""
    expected = {reason for reason in REASONS if reason.startswith(f"{name}(")}
    found = differing(name, theirs, ours)
    assert found > set() if name in REASONS else found == expected, found ^ expected


def test_reasons_are_about_what_there_is():
    names = {name for name, _, _ in COMMON.values()}
    assert {reason.partition("(")[0] for reason in REASONS} <= names
    assert len(names) > 300


def test_keywords_of_optax():
    params = {"w": jnp.array([3.0, 4.0])}
    assert gradtx.global_norm(updates=params) == 5
    tx = gradtx.inject_hyperparams(inner_factory=gradtx.sgd)(learning_rate=0.5)
    state = tx.init(params)
    assert gradtx.tree.get(tree=state, key="learning_rate") == 0.5
    assert len(gradtx.tree.get_all_with_path(tree=state, key="learning_rate")) == 2
    assert gradtx.tree.cast_like(tree=params, other_tree={"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype == jnp.bfloat16


def halve(updates, state, params=None):
    return jax.tree.map(lambda g: g / 2, updates), state


def test_a_transformation_is_also_a_pair():
    """As optax's are: by the names of its two fields, by position, and unpacked."""
    tx = gradtx.GradientTransformation(init=lambda params: (), update=halve)
    assert tx == gradtx.GradientTransformation(tx.init_fn, halve)
    assert len(tx) == 2
    assert (tx[0], tx[1], tx[-1]) == (tx.init, tx.update, tx.update)
    chained = gradtx.chain(tx, gradtx.scale(3.0))
    updates, _ = chained[1](jnp.ones(2), chained[0](jnp.ones(2)))
    assert updates.tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("message", "args", "kwargs"),
    [
        ("missing a required argument: 'update_fn'", (halve,), {}),
        ("multiple values for argument 'init_fn'", (halve, halve), {"init": halve}),
        ("a function is given twice: init, init_fn, update", (), {"init": halve, "init_fn": halve, "update": halve}),
        ("too many positional arguments", (halve, halve, halve), {}),
        ("update_fn must be a function, got the Python int 3", (), {"init": halve, "update": 3}),
    ],
)
def test_a_pair_of_functions_that_is_none_is_refused(message, args, kwargs):
    with pytest.raises(TypeError, match=f"GradientTransformation: {message}"):
        gradtx.GradientTransformation(*args, **kwargs)
