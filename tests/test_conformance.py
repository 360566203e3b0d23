"""What every registered transformation and schedule must do, whoever wrote it. The registry is the list of tests.

Compilation is what costs here: every test compiles at most a few programs, each of which does as much as it can.
"""

import copy
import functools
import json
import pickle
import re
from typing import Any, NamedTuple

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import abstract, assert_close, name_of, not_finite, small_tree, squares, tree_of, types_of

import gradtx
from gradtx.core.compose import TransformationKind, is_elementwise
from gradtx.core.hyperparams import Boolean, FloatingDType, Integer, Optional, Real

TRANSFORMATIONS = helpers.transformations()
SCHEDULES = helpers.schedules()
LEAST = {case: tx for case, tx in TRANSFORMATIONS.items() if not case.endswith("+toggled")}

every_transformation = pytest.mark.parametrize("case", TRANSFORMATIONS)
every_class = pytest.mark.parametrize("case", LEAST)
every_schedule = pytest.mark.parametrize("case", SCHEDULES)
every_value = pytest.mark.parametrize("case", TRANSFORMATIONS | SCHEDULES)


def with_numbers(cases):
    """The transformations that have numeric hyper-parameters."""
    return pytest.mark.parametrize("case", [case for case, value in cases.items() if helpers.numbers(value)])


def is_made_of_others(case: str) -> bool:
    """Whether it is a name for a chain of stages that are tested themselves, or another form of what is tested."""
    return isinstance(TRANSFORMATIONS[case], gradtx.Optimizer) or case.endswith("+toggled")


def is_part_of_an_optimizer(case: str) -> bool:
    """Whether there is an optimizer of the same name, `adam` of `scale_by_adam`, which is tested itself."""
    return case.startswith("scale_by_") and case.removeprefix("scale_by_") in TRANSFORMATIONS


def value(case: str) -> Any:
    return (TRANSFORMATIONS | SCHEDULES)[case]


@pytest.mark.parametrize(
    "name", [*helpers.registered(gradtx.GradientTransformation), *helpers.registered(gradtx.Schedule)]
)
def test_has_an_example(name):
    assert type(helpers.example(gradtx.registry()[name])) is not type


# Types: they are static, so tracing is enough to see them.

PAIRS = [(p, g) for p in ("float32", "bfloat16", "float16", "float64") for g in (p, "float32", "bfloat16")]
PAIRS = [*dict.fromkeys(PAIRS)]
"Dtypes of a parameter and of its gradient."
FEW = [("bfloat16", "float32"), ("float64", "float64")]


@every_transformation
def test_types_stay(case, x64):
    """For all dtypes of parameters and gradients, types are strong, and an update keeps the types of the state."""
    for param_dtype, grad_dtype in FEW[:1] if "+" in case else FEW:
        check_types(TRANSFORMATIONS[case], param_dtype, grad_dtype)


@pytest.mark.parametrize("case", [case for case in LEAST if not is_made_of_others(case)])
def test_types_stay_in_mixed_trees(case, x64):
    """Two pairs of dtypes in one tree; over all trees, matrices have every pair, and so have vectors."""
    for first, second in zip(PAIRS[::2], PAIRS[1::2], strict=True):
        leaf_by_leaf = (first, second, first, first, second, second)  # the matrices are the first and the last
        check_types(TRANSFORMATIONS[case], *zip(*leaf_by_leaf, strict=True))


@pytest.mark.long
@pytest.mark.parametrize("case", LEAST)
def test_types_stay_in_every_pair(case, x64):
    for param_dtype, grad_dtype in PAIRS:
        check_types(TRANSFORMATIONS[case], param_dtype, grad_dtype)


def check_types(tx: Any, param_dtypes: Any, grad_dtypes: Any) -> None:
    """With one dtype for all leaves, or one for each."""
    what = f"{param_dtypes} parameters, {grad_dtypes} gradients:"
    params, grads = abstract(tree_of(param_dtypes)), abstract(tree_of(grad_dtypes))
    arrays, functions = helpers.extra_kinds(tx, grads)
    update = functools.partial(tx.update, **functions)
    state = jax.eval_shape(tx.init, params)
    updates, new_state = jax.eval_shape(update, helpers.with_examples(tx, grads), state, params, **arrays)
    assert types_of(updates) == types_of(params), what
    assert types_of(new_state) == types_of(state), what
    assert not helpers.weak_leaves((updates, state)), what


@every_class
def test_params_may_be_left_out(case):
    """Without parameters, an update has the dtypes of the gradients, or is refused because it needs the parameters."""
    tx, grads = TRANSFORMATIONS[case], abstract(tree_of("bfloat16"))
    arrays, functions = helpers.extra_kinds(tx, grads)
    update = functools.partial(tx.update, **functions)
    try:
        given = helpers.with_examples(tx, grads)
        updates, _ = jax.eval_shape(update, given, jax.eval_shape(tx.init, grads), **arrays)
        assert types_of(updates) == types_of(grads)
    except ValueError as error:
        assert re.search("needs the parameters", str(error))  # noqa: PT017


QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"Compiler options for programs whose last bits do not matter: these compile four times as fast."


# Numbers: one program per transformation, run on every case.

CASES = ("ordinary", "zero gradients", "zero parameters", "all zero", "a NaN", "saturated counters")
STEPS = 3

NOT_DIFFERENTIABLE: dict[str, str] = {}
"Transformations whose update has no finite derivative everywhere, by name, with the reason."

SPOILT_BY_NAN = {
    "differentially_private_aggregate": "what bounds an example's share is the norm of its whole tree",
    "dpsgd": "what bounds an example's share is the norm of its whole tree",
    "lbfgs": "the direction and the step are made of inner products over the whole tree",
    "scale_by_lbfgs": "the direction is made of inner products over the whole tree",
}
"Transformations in which one leaf's NaN reaches the others by definition, by name, with the reason."

LEAPS = {
    "scale_by_adopt+toggled": "unclipped, an element whose gradients were 0 before moves by g / ε",
    "adopt+toggled": "the same",
}
"Cases whose updates at saturated counters, from a state of zeros, are beyond float16 by definition."


@functools.cache
def numeric_cases() -> tuple[Any, Any, Any]:
    """Parameters, gradients and whether counters are saturated, stacked over `CASES`."""
    param_dtypes, grad_dtypes = zip(*helpers.MIXED, strict=True)
    params, grads = tree_of(param_dtypes), tree_of(grad_dtypes, seed=1)
    zero = jax.tree.map(jnp.zeros_like, grads)
    spoilt = grads | {"dense": grads["dense"]._replace(weight=grads["dense"].weight.at[1, 1].set(jnp.nan))}
    origin = jax.tree.map(jnp.zeros_like, params)
    pairs = [(params, grads), (params, zero), (origin, grads), (origin, zero), (params, spoilt), (params, grads)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *pairs)
    return *stacked, jnp.arange(len(CASES)) == CASES.index("saturated counters")


def as_numpy(x: Any) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else np.asarray(x)


def saturate(state: Any, on: Any) -> Any:
    """The counters of a state, all at the largest integer; the place within a window is no counter."""

    def full(path: Any, x: Any) -> Any:
        is_counter = x.dtype == jnp.int32 and x.shape == () and "mini_step" not in jax.tree_util.keystr(path)
        return jnp.where(on, jnp.iinfo(jnp.int32).max, x) if is_counter else x

    return jax.tree_util.tree_map_with_path(full, state)


def counters(state: Any) -> list[Any]:
    return [x for path, x in jax.tree_util.tree_leaves_with_path(state) if str(path[-1]) == ".count"]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.long if is_made_of_others(c) or "+" in c else ()) for c in TRANSFORMATIONS],
)
def test_numbers(case, x64):
    """Finite from zero gradients, parameters, both, and at saturated counters; in scan, cond and gradients too."""
    tx = TRANSFORMATIONS[case]
    inputs = numeric_cases()

    def update(grads, state, params):
        return tx.update(helpers.with_examples(tx, grads), state, params, **helpers.extra_for(tx, grads))

    def total(grads, state, params):
        return sum(jnp.sum(u.astype("float64")) for u in jax.tree.leaves(update(grads, state, params)[0]))

    def run(inputs):
        params, grads, saturated = inputs
        start = tx.init(params)
        state = saturate(start, saturated)
        still = jax.tree.map(jnp.zeros_like, params)

        def step(carry, keep):
            params, state = carry
            updates, state = jax.lax.cond(keep, lambda: update(grads, state, params), lambda: (still, state))
            return (gradtx.apply_updates(params, updates), state), updates

        (moved, state), updates = jax.lax.scan(step, (params, state), jnp.ones(STEPS, bool))
        slope = {} if name_of(case) in NOT_DIFFERENTIABLE else jax.grad(total)(grads, start, params)
        return {"init": start, "updates": updates, "params": moved, "state": state, "gradient": slope}

    results = jax.jit(lambda *inputs: jax.lax.map(run, inputs), compiler_options=QUICK)(*inputs)
    results = jax.tree.map(as_numpy, results)  # in NumPy, to take a case out without compiling a program
    by_case = {name: jax.tree.map(lambda x, i=i: x[i], results) for i, name in enumerate(CASES)}

    params = jax.tree.map(lambda x: x[0], inputs[0])
    assert_close(by_case["ordinary"]["init"], tx.init(params), what="init under jit")
    for name, result in by_case.items():
        if name == "a NaN":
            spoilt = set(not_finite(result["updates"]))
            assert spoilt <= {"['dense'].weight"} or name_of(case) in SPOILT_BY_NAN, name
            if is_elementwise(tx):
                others = np.delete(result["updates"]["dense"].weight.reshape(STEPS, -1), 4, axis=1)
                assert np.isfinite(others).all(), "declared elementwise"
            continue
        beyond = {"['keyless'][<flat index 0>]"} if name == "saturated counters" and case in LEAPS else set()
        assert {*not_finite(result["updates"]), *not_finite(result["params"])} <= beyond, name
        if name != "saturated counters":  # an unbounded sum in the state may overflow, the updates may not
            assert not not_finite(result["state"]), name
            slopes = result["gradient"]
            assert {*not_finite(slopes)} <= {"['keyless'][<flat index 0>]"}, name  # 1/ε is infinite in float16
    for count in counters(by_case["saturated counters"]["state"]):
        assert count == jnp.iinfo(jnp.int32).max or 0 <= count <= STEPS, "it stays, or began anew; it never wraps"


# Compilation, donation, eager calls.


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.long if is_part_of_an_optimizer(c) or "+" in c else ()) for c in LEAST]
)
def test_eager_jitted_and_donated(case):
    """One compilation for equal instances called eagerly, one trace for all jitted steps, and the same numbers.

    Eager calls are compiled too, by themselves; XLA may contract other pairs of operations to fused multiply-adds
    where it inlines them into a step, hence a few units in the last place.
    """
    tx, twin = TRANSFORMATIONS[case], copy.deepcopy(TRANSFORMATIONS[case])
    assert twin is not tx
    grads = small_tree(1) | {"h": jnp.asarray([1.0, -2.0], jnp.bfloat16)}
    params = small_tree(0) | {"h": jnp.asarray([3.0, 4.0], jnp.bfloat16)}
    arrays, functions = helpers.extra_kinds(tx, grads)
    grads, state = helpers.with_examples(tx, grads), tx.init(params)
    init, update = tx

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state):
        updates, state = update(grads, state, params, **arrays, **functions)
        return gradtx.apply_updates(params, updates), state, updates

    updates, new_state = tx.update(grads, state, params, **arrays, **functions)
    with helpers.compilations() as compiled:
        again = twin.update(grads, state, params, **arrays, **functions)
        later = twin.update(grads, new_state, params, **arrays, **functions)
    assert functions or compiled == [0]
    assert_close(again, (updates, new_state))
    assert types_of(later) == types_of(again)

    params, state, jitted = step(jax.tree.map(jnp.copy, params), init(params))
    assert_close((jitted, state), (updates, new_state), ulps=16)
    step(params, state)


@every_class
def test_empty_trees(case):
    """No parameters: no updates, and no error."""
    tx = TRANSFORMATIONS[case]
    for tree in ({}, (), {"a": None}):
        arrays, functions = helpers.extra_kinds(tx, tree)
        update = functools.partial(tx.update, **functions)
        start = jax.eval_shape(tx.init, tree)
        updates, state = jax.eval_shape(update, tree, start, tree, **arrays)
        assert types_of(updates) == types_of(tree)
        assert types_of(state) == types_of(start)


# Hyper-parameters.


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.long if is_made_of_others(case) else ())
        for case, tx in LEAST.items()
        if helpers.numbers(tx)
    ],
)
def test_hyperparameters_may_be_arrays_and_schedules(case):
    """A number, the same number as an array, batched, or from a schedule: one result.

    Only rounding differs: constants formed in double precision against those formed in float32.
    """
    tx = TRANSFORMATIONS[case]
    names = helpers.numbers(tx)
    params, grads = small_tree(0), small_tree(1)

    def run(tx):
        def step(state, _):
            given = helpers.with_examples(tx, grads)
            return tx.update(given, state, params, **helpers.extra_for(tx, grads))[::-1]

        return jax.lax.scan(step, tx.init(params), length=2)[1]

    def program(arrays):
        def by_arrays(h):
            return run(tx.replace(**h))

        return jax.lax.map(by_arrays, arrays), jax.vmap(by_arrays)(arrays), run(tx.replace(**scheduled)), run(tx)

    arrays = {name: jnp.asarray([x, x * 0.75 if x else 0.0625], jnp.float32) for name, x in names.items()}
    scheduled = {name: (lambda count, x=x: jnp.asarray(x, jnp.float32)) for name, x in names.items()}
    one_by_one, batched, by_schedule, by_number = jax.jit(program, compiler_options=QUICK)(arrays)
    assert_close(batched, one_by_one, rtol=1e-5, what="vmap:")
    assert_close(jax.tree.map(lambda x: x[0], one_by_one), by_number, rtol=1e-5, what="as arrays:")
    assert_close(by_schedule, by_number, rtol=1e-5, what="as schedules:")


def bad_values(kind: Any) -> list[Any]:
    """Values that a field of this kind refuses, and the errors that it raises."""
    if isinstance(kind, Optional):
        return [(bad, error) for bad, error in bad_values(kind.kind) if bad is not None]
    if isinstance(kind, Real):
        beyond = [kind.low if kind.interval[0] == "(" else kind.low - 1, kind.high + (kind.interval[-1] == "]")]
        wrong = [None, "0.1", [0.1], True, 1j, gradtx.adam, jnp.ones(2)]
        return [(x, ValueError) for x in (*beyond, float("nan"))] + [(x, TypeError) for x in wrong]
    if isinstance(kind, Integer):
        return [(kind.low - 1, ValueError), (2.5, TypeError), (None, TypeError), (True, TypeError)]
    if isinstance(kind, Boolean):
        return [(1, TypeError), (None, TypeError), ("yes", TypeError)]
    if isinstance(kind, FloatingDType):
        return [("int32", ValueError), (None, TypeError), ("float33", TypeError)]
    if isinstance(kind, TransformationKind):
        return [
            (gradtx.adam, TypeError),
            (gradtx.cosine_decay_schedule, TypeError),
            (None, TypeError),
            (squares, TypeError),
        ]
    return []


@every_value
def test_bad_hyperparameters_are_refused(case):
    """A value out of range is refused at construction, with the name of the hyper-parameter."""
    good = value(case)
    for name, kind in good.field_kinds().items():
        for bad, error in bad_values(kind):
            with pytest.raises(error, match=rf"^{type(good).__name__}: {name}\b"):
                good.replace(**{name: bad})


# Bad input.


class ForeignState(NamedTuple):
    count: Any


@every_class
def test_bad_input_is_refused(case):
    """Wrong leaves, structures, shapes, states and extra arguments: an error that says which."""
    tx = TRANSFORMATIONS[case]
    params = abstract(tree_of("float32"))
    arrays, functions = helpers.extra_kinds(tx, params)
    state = jax.eval_shape(tx.init, params)

    def update(grads=params, state=state, params=params, **extra):
        extra = {**arrays, **extra}
        return jax.eval_shape(
            lambda g, s, p, extra: tx.update(g, s, p, **extra, **functions),
            helpers.with_examples(tx, grads),
            state,
            params,
            extra,
        )

    def gradients_with(bias):
        return params | {"dense": params["dense"]._replace(bias=bias)}

    for shape in ((), (1,), (4,), (3, 1)):
        with pytest.raises(ValueError, match=r"\['dense'\]\.bias: expected float32\[3\] .* got float32\["):
            update(gradients_with(jax.ShapeDtypeStruct(shape, "float32")))
    with pytest.raises(ValueError, match=r"\['dense'\]\.bias: expected float32\[3\], got None"):
        update(gradients_with(None))
    with pytest.raises(ValueError, match=r"missing .*'layer'"):
        update({name: grad for name, grad in params.items() if name != "layer"})
    with pytest.raises(TypeError, match="vlaue"):
        update(vlaue=jnp.ones(()))
    for name in tx.extras.required:
        with pytest.raises(TypeError, match=rf"needs the extra argument .*{name}"):
            jax.eval_shape(lambda g, s, p: tx.update(g, s, p), params, state, params)
    if tx.State is not None or isinstance(tx, gradtx.Optimizer):
        with pytest.raises(ValueError, match=r"expected .* got .*ForeignState|expected .* states"):
            update(state=ForeignState(jnp.zeros((), jnp.int32)))
    if tx.touches_leaves:
        for leaf in (jax.ShapeDtypeStruct((3,), "int32"), jax.eval_shape(jax.random.key, 0)):
            with pytest.raises(TypeError, match=r"\['dense'\]\.bias: expected a floating-point array"):
                jax.eval_shape(tx.init, gradients_with(leaf))


# Values: repr, equality, hash, pickle, config.


@every_value
def test_is_a_value(case):
    """It prints as Python, compares, hashes, copies, pickles and goes to JSON and back; it does not change."""
    this = value(case)
    copies = {
        "repr": eval(repr(this), helpers.NAMES),
        "config": gradtx.from_config(json.loads(json.dumps(gradtx.to_config(this)))),
        "pickle": pickle.loads(pickle.dumps(this)),
        "deepcopy": copy.deepcopy(this),
        "copy": copy.copy(this),
        "replace": this.replace(),
        "pytree": jax.tree.unflatten(jax.tree.structure(this), jax.tree.leaves(this)),
    }
    for way, twin in copies.items():
        assert type(twin) is type(this), way
        assert twin == this, way
        assert hash(twin) == hash(this), way
        assert repr(twin) == repr(this), way
    assert this != gradtx.scale(-123.0)
    for name in this.field_kinds():
        with pytest.raises(AttributeError, match="immutable"):
            setattr(this, name, None)
    with pytest.raises(TypeError, match="no hyper-parameter learning_rte"):
        this.replace(learning_rte=0.1)


@with_numbers(TRANSFORMATIONS | SCHEDULES)
def test_with_arrays_is_a_value(case):
    """The same holds with arrays for numbers, which are leaves of the pytree then, and print as arrays."""
    this = value(case)
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in helpers.numbers(this).items()}
    assert jax.tree.leaves(this) == []
    this = this.replace(**arrays)
    assert len(jax.tree.leaves(this)) == len(arrays)
    for twin in (
        eval(repr(this), helpers.NAMES),
        gradtx.from_config(json.loads(json.dumps(gradtx.to_config(this)))),
        pickle.loads(pickle.dumps(this)),
        copy.deepcopy(this),
    ):
        assert twin == this
        assert hash(twin) == hash(this)
    name, x = next(iter(arrays.items()))
    assert this.replace(**{name: x * 0.5 + 0.0625}) != this


# Schedules.


@every_schedule
def test_schedule(case):
    """A strong float32 scalar for any count, the same under jit and vmap, and finite for ever."""
    schedule = SCHEDULES[case]
    counts = np.array([0, 1, 2, 3, 5, 9, 10, 11, 100, 2**24, 2**31 - 1], np.int32)
    values = [schedule(count) for count in map(int, counts)]
    for x in values:
        assert (x.dtype, x.shape, helpers.weak_leaves(x)) == (jnp.float32, (), [])
        assert np.isfinite(x)
    batched, looped = jax.jit(lambda c: (jax.vmap(schedule)(c), jax.lax.map(schedule, c)))(counts)
    for got in (batched, looped, jnp.stack([schedule(jnp.asarray(count)) for count in counts])):
        np.testing.assert_allclose(got, np.stack(values), rtol=1e-5, atol=1e-7)  # fused sines and powers differ


@every_schedule
def test_schedule_in_double_precision(case, x64):
    x = jax.eval_shape(SCHEDULES[case], jax.ShapeDtypeStruct((), jnp.int32))
    assert (x.dtype, x.shape, x.weak_type) == (jnp.float64, (), False)


@every_schedule
def test_schedule_hyperparameters_may_be_arrays(case):
    schedule = SCHEDULES[case]
    names = helpers.numbers(schedule)
    traced = jax.jit(lambda h, t: schedule.replace(**h)(t))
    for t in (0, 4, 100):
        got = traced({name: jnp.asarray(x, jnp.float32) for name, x in names.items()}, jnp.asarray(t))
        np.testing.assert_allclose(got, schedule(t), rtol=1e-5, atol=1e-7)


OPTIMIZERS = helpers.registered(gradtx.authoring.Optimizer)
VALUES = (0.123, 0.7, 3.0, -0.3, 3, True, False, None, "bfloat16", "kernel", "dion", ("a",), ("b",))
VALUES = (*VALUES, gradtx.MuonDimensionNumbers(1, 0), (0.5, 0.6))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_hyperparameter_of_an_optimizer_reaches_its_stages(name):
    """Every hyper-parameter has an effect: another value, alone or with momentum or decay, changes the updates."""
    tx = helpers.example(OPTIMIZERS[name])
    bases = [tx, replaced(tx, "momentum", 0.5), replaced(tx, "weight_decay_rate", 0.1)]
    bases.append(replaced(tx, "print_win_rate_every_n_steps", 9))
    bases = [base for base in bases if base is not None]
    for field, kind in tx.field_kinds().items():
        values = (*VALUES, *getattr(kind, "options", ()), getattr(kind, "kind", kind).example)
        pairs = [(base, replaced(base, field, value)) for base in bases for value in values]
        assert any(repr(b.expanded) != repr(a.expanded) for a, b in pairs if b is not None), field


def replaced(tx, field, value):
    """A copy with another value of one hyper-parameter; `None` where that is refused."""
    try:
        return tx.replace(**{field: value})
    except (TypeError, ValueError):
        return None
