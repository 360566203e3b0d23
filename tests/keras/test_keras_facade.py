"""What all classes of all generations do alike, generated from the list of them."""

import copy
import functools
import os
import pickle
import sys
import warnings
from typing import Any, NamedTuple

import chex
import helpers
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from generations import CLASSES, TWICE, cls_of, every_class, made, varied
from keras.src import backend

import gradtx
from gradtx.keras import optimizers as keras3
from gradtx.keras import schedules
from gradtx.keras.engine.variable import Variable
from gradtx.keras.keras2 import optimizers as keras2
from gradtx.keras.natural_bm import optimizers as natural_bm
from gradtx.keras.tf_keras_legacy import optimizers as legacy

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # Keras, NumPy 2

SHAPES = {"b": (3,), "w": (2, 3)}


def params() -> dict[str, Any]:
    return numbers(0)


def numbers(seed: int, dtype: str = "float32") -> dict[str, Any]:
    """Numbers of order one, by the names of the parameters."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def steps(opt: Any, start: Any, seeds: Any) -> Any:
    """The parameters after a step with each of the gradients `numbers(seed)`."""
    for seed in seeds:
        start = opt.apply(numbers(seed), start)
    return start


def running(generation: str, name: str, form: Any = made, count: int = 3) -> tuple[Any, Any]:
    """An optimizer in mid-training, and its parameters."""
    opt = form(generation, name)
    return opt, steps(opt, params(), range(1, count + 1))


@functools.cache
def stepped(generation: str, name: str) -> tuple[Any, Any]:
    """The same, for tests that leave it as it is."""
    return running(generation, name)


same = functools.partial(chex.assert_trees_all_equal, strict=True)
"Equal to the last bit, in dtype too."


def close(got: Any, want: Any, tolerance: float = 2e-6) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.max(np.abs(b)))))


def keras_variable(value: Any, name: str) -> Any:
    with jax.numpy_dtype_promotion("standard"), backend.name_scope(""):
        return keras.Variable(value, name=name)


SOME = [
    ("keras3", "Adam"),
    ("keras3", "Adafactor"),
    ("keras3", "Nadam"),
    ("keras3", "ScheduleFreeAdamW"),
    ("tf_keras", "SGD"),
    ("tf_keras_legacy", "RMSprop"),
    ("keras2", "Adam"),
    ("natural_bm", "SGD"),
    ("tf1", "AdamWOptimizer"),
]
"Where every class would take long."
some_classes = pytest.mark.parametrize(("generation", "name"), SOME, ids=[f"{g}-{n}" for g, n in SOME])


# What parameters may be.


@some_classes
def test_variables_of_both_kinds_and_arrays_give_the_same_numbers(generation, name):
    opt, want = made(generation, name), params()
    others = {}
    for kind, make in (("ours", Variable), ("keras", keras_variable)):
        others[kind] = made(generation, name), [make(value, key) for key, value in params().items()]
    for seed in (1, 2, 3):
        want = opt.apply(numbers(seed), want)
        for other, variables in others.values():
            assert other.apply_gradients(zip(numbers(seed).values(), variables, strict=True)) is None
    for other, variables in others.values():
        same([jnp.asarray(v.value) for v in variables], [*want.values()])
        same(other.get_weights(), opt.get_weights())


class Pair(NamedTuple):
    bias: Any
    weight: Any


TREES = {
    "list": lambda b, w: [b, w],
    "tuple": lambda b, w: (b, w),
    "nested": lambda b, w: {"a": [b], "z": {"w": (w,)}},
    "named": Pair,
    "variables": lambda b, w: {"a": Variable(b, "a"), "z": [Variable(w, "z")]},
}


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize(("generation", "name"), SOME[:3], ids=[f"{g}-{n}" for g, n in SOME[:3]])
def test_parameters_are_any_tree(generation, name, tree):
    """The gradients may be any tree of the same structure; the new parameters come in it."""
    opt, other, make = made(generation, name), made(generation, name), TREES[tree]
    want, got = params(), make(*params().values())
    for seed in (1, 2, 3):
        want = opt.apply(numbers(seed), want)
        grads = make(*numbers(seed).values())
        if tree == "variables":
            assert other.apply(grads, got) is None
        else:
            got = other.apply(grads, got)
    leaves = jax.tree.leaves(got, is_leaf=lambda x: isinstance(x, Variable))
    close([jnp.asarray(getattr(x, "value", x)) for x in leaves], [*want.values()])
    close(other.get_weights(), opt.get_weights())
    if tree != "variables":
        assert jax.tree.structure(got) == jax.tree.structure(make(*params().values()))


def test_parameters_may_be_one_array():
    opt, other = keras3.Adam(0.1), keras3.Adam(0.1)
    want, got = params(), params()["w"]
    for seed in (1, 2):
        want, got = opt.apply(numbers(seed), want), other.apply(numbers(seed)["w"], got)
    close(got, want["w"])


def test_gradients_of_a_list_may_be_a_tuple():
    opt, other = keras3.SGD(0.1), keras3.SGD(0.1)
    grads, start = [*numbers(1).values()], [*params().values()]
    same(opt.apply(tuple(grads), start), other.apply(grads, start))


def test_numpy_arrays_are_parameters():
    start, grads = {"w": np.ones(3, np.float32)}, {"w": np.full(3, 2, np.float32)}
    np.testing.assert_allclose(keras3.SGD(0.25).apply(grads, start)["w"], 0.5)


def test_variables_need_not_be_given_again():
    variables = [Variable(value, key) for key, value in params().items()]
    opt = keras3.SGD(0.5)
    opt.build(variables)
    opt.apply([*numbers(1).values()])
    same([v.value for v in variables], [*keras3.SGD(0.5).apply(numbers(1), params()).values()])
    with pytest.raises(ValueError, match="SGD: which parameters"):
        keras3.SGD().apply([*numbers(1).values()])


# The chain.


def once(*forms: Any) -> Any:
    """Parameters of a test: every class, and some of them in other forms than the default."""
    long = dict.fromkeys(TWICE, pytest.mark.long)
    every = [pytest.param(g, n, made, id=f"{g}-{n}", marks=long.get(g, ())) for g, n in CLASSES]
    return every + [pytest.param(g, n, form, id=f"{g}-{n}-{form.__name__}") for form in forms for g, n in SOME]


@pytest.mark.parametrize(("generation", "name", "form"), once(varied))
def test_the_chain_is_the_optimizer(generation, name, form):
    """`opt.transformation` by itself makes the same steps; printed, it is one of gradtx."""
    opt = form(generation, name)
    tx = opt.transformation
    assert isinstance(tx, gradtx.GradientTransformation)
    assert eval(repr(tx), registered_names()) == tx
    mine = theirs = params()
    state = tx.init(mine)
    for seed in (1, 2, 3):
        mine = opt.apply(numbers(seed), mine)
        updates, state = tx.update(numbers(seed), state, theirs)
        theirs = gradtx.apply_updates(theirs, updates)
    close(theirs, mine)


def registered_names() -> dict[str, Any]:
    """What a chain's repr is made of."""
    return vars(gradtx) | vars(gradtx.keras) | vars(schedules) | {"keras": gradtx.keras, "gradtx": gradtx}


@pytest.mark.parametrize(("generation", "name", "form"), once())
def test_the_pure_step_under_jit(generation, name, form):
    """`stateless_apply` in a function that is compiled; the optimizer itself stays as it is."""
    opt, start = running(generation, name, form)
    before = opt.get_weights()
    pure = jax.jit(opt.stateless_apply)
    theirs, weights = start, opt.variables
    for seed in (4, 5):
        theirs, weights = pure(weights, numbers(seed), theirs)
    same(opt.get_weights(), before)
    twin = copy.deepcopy(opt)
    close(theirs, steps(twin, start, (4, 5)))
    assert [w.shape for w in weights] == [w.shape for w in twin.get_weights()]
    for weight, want in zip(weights, twin.get_weights(), strict=True):
        close(weight, jnp.asarray(want, weight.dtype))


# State.


COPIES = {
    "weights": lambda opt: with_weights_of(opt),
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": copy.deepcopy,
}


def with_weights_of(opt: Any) -> Any:
    """A new optimizer of the same settings that was given the weights."""
    other = type(opt).from_config(opt.get_config())
    other.build(params())
    other.set_weights(opt.get_weights())
    return other


@pytest.mark.parametrize("way", COPIES)
@every_class
def test_a_copy_goes_on_as_the_original(generation, name, way):
    """natural_bm's SGD saves how many steps it made only if they matter, which is with `decay`."""
    opt, start = stepped(generation, name)
    twin, other = COPIES[way](opt), copy.deepcopy(opt)
    assert twin.iterations == opt.iterations or (generation, name, way) == ("natural_bm", "SGD", "weights")
    same(steps(twin, start, (4, 5, 6)), steps(other, start, (4, 5, 6)))
    same(twin.get_weights(), other.get_weights())


@pytest.mark.parametrize("way", COPIES)
@some_classes
def test_a_copy_with_other_settings_goes_on_as_the_original(generation, name, way):
    opt, start = running(generation, name, varied)
    twin = COPIES[way](opt)
    same(steps(twin, start, (4, 5, 6)), steps(opt, start, (4, 5, 6)))
    same(twin.get_weights(), opt.get_weights())


@every_class
def test_pickle_and_deepcopy_before_building(generation, name):
    opt = made(generation, name)
    for twin in (pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert not twin.built
        assert repr(twin) == repr(opt)


@every_class
def test_weights_are_copies(generation, name):
    opt, _ = stepped(generation, name)
    before = opt.get_weights()
    for weight in opt.get_weights():
        weight += 1
    for leaf in jax.tree.leaves(opt.state):
        leaf.delete()
    same(opt.get_weights(), before)


@every_class
def test_weights_that_were_given_are_not_changed(generation, name):
    """The state is donated; what it was made of belongs to others."""
    opt, start = running(generation, name)
    given = opt.get_weights()
    before = [weight.copy() for weight in given]
    opt.set_weights(given)
    opt.apply(numbers(4), start)
    same(given, before)


@pytest.mark.parametrize("cls", [keras2.Adam, legacy.Adam, natural_bm.Adam, keras3.Adam], ids=lambda c: c.__module__)
@pytest.mark.parametrize("steps_made", [2**40, 2**31])
def test_counters_of_files_saturate(cls, steps_made):
    """Those of older generations have 64 bits, or are floats."""
    opt = cls()
    start = steps(opt, params(), (1,))
    weights = opt.get_weights()
    weights[0] = np.asarray(steps_made, np.int64)
    opt.set_weights(weights)
    assert opt.iterations == 2**31 - 1
    chex.assert_tree_all_finite((steps(opt, start, (2,)), opt.state))


@every_class
def test_iterations_can_be_set(generation, name):
    """To what they are: nothing changes. To another number: steps are counted from there."""
    opt, start = running(generation, name)
    assert opt.iterations == 3
    twin = copy.deepcopy(opt)
    twin.iterations = 3
    same(steps(twin, start, (4,)), steps(opt, start, (4,)))
    assert twin.iterations == 4
    twin.iterations = 9
    steps(twin, start, (5,))
    assert twin.iterations == 10


@pytest.mark.parametrize(("generation", "name"), SOME)
def test_the_counter_saturates(generation, name):
    """Also where a file holds a larger one, as those with 64 bits may."""
    opt, start = running(generation, name)
    last = 2**31 - 1
    opt.iterations = 2**40
    assert opt.iterations == last
    new = steps(opt, start, (4, 5))
    assert opt.iterations == last
    chex.assert_tree_all_finite((new, opt.state))


def test_the_counter_of_windows_saturates():
    opt = keras3.SGD(0.1, gradient_accumulation_steps=3)
    opt.build(params())
    opt.iterations = 5
    assert (opt.iterations, int(opt.get_weights()[0])) == (5, 15)
    start = steps(opt, params(), (1, 2, 3))
    assert opt.iterations == 6
    weights = opt.get_weights()
    weights[0] = np.asarray(2**31 - 1, np.int32)
    opt.set_weights(weights)
    for seed in (4, 5, 6, 7):
        start = opt.apply(numbers(seed), start)
    assert opt.iterations == (2**31 - 1) // 3
    chex.assert_tree_all_finite((start, opt.state))


# Programs.


@every_class
def test_another_rate_needs_no_compilation(generation, name):
    opt, start = running(generation, name)
    twin = copy.deepcopy(opt)
    grads = numbers(4)
    want = twin.apply(grads, start)
    with helpers.compilations() as compiled:
        opt.learning_rate = 0.125
        assert opt.learning_rate == opt.lr == 0.125
        moved = opt.apply(grads, start)
    assert compiled == [0]
    if name not in ("Adafactor",):  # takes no steps larger than 1 / √t in any case
        assert not np.array_equal(moved["w"], want["w"])


def test_adafactor_follows_a_smaller_rate():
    opt, start = running("keras3", "Adafactor")
    before = copy.deepcopy(opt).apply(numbers(4), start)
    opt.learning_rate = 1e-4
    assert not np.array_equal(opt.apply(numbers(4), start)["w"], before["w"])


EVERYTHING = {
    "adam": lambda: keras3.Adam(
        0.0117, clipnorm=1.0, weight_decay=0.01, use_ema=True, gradient_accumulation_steps=2, loss_scale_factor=2.0
    ),
    "schedule": lambda: keras3.SGD(schedules.ExponentialDecay(0.0117, 7, 0.5), 0.9, decay=0.1),
    "legacy": lambda: legacy.RMSprop(0.0117, momentum=0.5, centered=True, clipvalue=1.0, clipnorm=1.0, decay=0.01),
    "keras2": lambda: keras2.Nadam(0.0117, clipnorm=1.0, clipvalue=0.5, counter_first=True),
    "natural_bm": lambda: natural_bm.SGD(0.0117, momentum=0.9, decay=0.01, nesterov=True),
}


@pytest.mark.parametrize("case", EVERYTHING)
def test_a_step_is_one_program(case):
    """With all it has, of shapes that nothing else here has: anything besides would be compiled for them as well."""
    length = 101 + [*EVERYTHING].index(case)
    rng = np.random.default_rng(0)
    start, *grads = (jnp.asarray(rng.normal(size=length), jnp.float32) for _ in range(4))
    opt = EVERYTHING[case]()
    opt.build([start])
    assert opt.state.iterations == 0
    with helpers.compilations() as compiled:
        opt.apply([grads[0]], [start])
    assert compiled == [1]
    with helpers.compilations() as compiled:
        for grad in grads:
            opt.apply([grad], [start])
        twin = EVERYTHING[case]()
        twin.apply([grads[0]], [start])
    assert compiled == [0], "nor does an equal optimizer, nor any later step"


def test_minimize_is_one_program():
    start = jnp.asarray(np.random.default_rng(0).normal(size=113), jnp.float32)

    def loss(p):
        return jnp.sum(p["w"] ** 2)

    opt = keras3.Adam(0.0119)
    opt.build({"w": start})
    assert opt.state.iterations == 0
    with helpers.compilations() as compiled:
        new = opt.minimize(loss, {"w": start})
    assert compiled == [1]
    with helpers.compilations() as compiled:
        opt.learning_rate = 0.1
        opt.minimize(loss, new)
    assert compiled == [0]


def calls_of_ours(act: Any) -> int:
    """How many functions of gradtx are called meanwhile."""
    package, called = os.path.dirname(gradtx.__file__), []

    def count(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            called.append(frame.f_code.co_qualname)

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return len(called)


@pytest.mark.parametrize("kind", ["arrays", "variables"])
@pytest.mark.parametrize(
    ("make", "most"),
    [
        (keras3.Adam, 40),
        (lambda: keras3.LossScaleOptimizer(keras3.Adam()), 50),
        (lambda: keras3.MultiOptimizer(keras3.OptimizerMap(keras3.SGD(), {"w": keras3.Adam()})), 60),
    ],
    ids=["Adam", "LossScaleOptimizer", "MultiOptimizer"],
)
def test_a_step_makes_few_calls(make, most, kind):
    """Of Python functions, around the program; most of them by variable."""
    opt, grads, held = make(), [*numbers(1).values()], [Variable(value, key) for key, value in params().items()]
    start = dict(params()) if kind == "arrays" else held
    grads = grads if kind == "variables" else numbers(1)
    for _ in range(2):
        opt.apply(grads, start)
    assert calls_of_ours(lambda: opt.apply(grads, start)) <= most
    opt.minimize(squares_of_leaves, start)
    opt.minimize(squares_of_leaves, start)
    assert calls_of_ours(lambda: opt.minimize(squares_of_leaves, start)) <= most


def squares_of_leaves(tree: Any) -> Any:
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


@every_class
def test_the_state_is_donated(generation, name):
    """What was the state before is gone, and its memory used for the new; `opt.state` is a copy, and stays."""
    opt, start = running(generation, name)
    old, kept = jax.tree_util.tree_leaves_with_path(opt.keeper.state), jax.tree.leaves(opt.state)
    opt.apply(numbers(4), start)
    left = {jax.tree_util.keystr(path).rpartition(".")[2] for path, leaf in old if not leaf.is_deleted()}
    assert left <= {"learning_rate"}  # told, not read: no input of the program
    assert not any(leaf.is_deleted() for leaf in kept)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(start))


# Losses.


def squares(p):
    return sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(p))


@some_classes
def test_minimize_is_gradient_and_step(generation, name):
    opt, other = made(generation, name), made(generation, name)
    got = want = params()
    for _ in range(3):
        got = opt.minimize(squares, got)
        want = other.apply(jax.grad(squares)(want), want)
    close(got, want)


def test_minimize_of_variables():
    variables = [Variable(value, key) for key, value in params().items()]
    opt = keras3.SGD(0.1)
    assert opt.minimize(squares, variables) is None
    close([v.value for v in variables], [0.8 * x + 0.2 for x in params().values()])


def test_the_loss_is_scaled_where_gradients_are_divided():
    """The scale cancels."""
    plain, scaled = keras3.SGD(0.1), keras3.SGD(0.1, loss_scale_factor=8.0)
    close(scaled.minimize(squares, params()), plain.minimize(squares, params()))
    assert scaled.scale_loss(2.0) == 16.0


def test_gradients_are_those_that_the_step_takes():
    grads = keras2.SGD(clipnorm=1.0).get_gradients(squares, params())
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
    assert norm == pytest.approx(1.0)
    close(keras2.SGD().get_gradients(squares, params()), jax.grad(squares)(params()))


@every_class
def test_a_loss_is_a_function(generation, name):
    opt, start = stepped(generation, name)
    for call in (opt.minimize, opt.get_gradients):
        for loss in (0.5, jnp.float32(0.5), None, "mse"):
            with pytest.raises(TypeError, match=f"{name}.*the loss must be a function of the parameters"):
                unchanged(opt, lambda call=call, loss=loss: call(loss, start))


# Gradients that are missing.


@some_classes
def test_a_variable_without_gradient_stays_as_it_is(generation, name):
    """Itself, and all that is kept for it; the warning names it. The others move as alone."""
    opt, start = running(generation, name)
    before = dict(zip(opt.weight_list(), opt.get_weights(), strict=True))
    with pytest.warns(UserWarning, match=f"{name}: no gradients for b; they stay as they are"):
        new = opt.apply({"b": None, "w": numbers(4)["w"]}, start)
    same(new["b"], start["b"])
    assert not np.array_equal(new["w"], start["w"])
    assert opt.iterations == 4
    after = dict(zip(opt.weight_list(), opt.get_weights(), strict=True))
    for weight, value in before.items():
        if weight.variable == "b":
            np.testing.assert_array_equal(after[weight], value, err_msg=weight.name)
    steps(opt, new, (5,))


def test_missing_gradients_in_pairs_and_beside_everything_else():
    variables = [Variable(value, key) for key, value in params().items()]
    opt = EVERYTHING["adam"]()
    with pytest.warns(UserWarning, match="no gradients for w"):
        opt.apply_gradients([(numbers(1)["b"], variables[0]), (None, variables[1])])
    same(variables[1].value, params()["w"])


@every_class
def test_no_gradient_at_all_is_an_error(generation, name):
    opt, start = stepped(generation, name)
    with pytest.raises(ValueError, match=f"{name}: no gradient for any of b, w"):
        unchanged(opt, lambda: opt.apply({"b": None, "w": None}, start))
    with pytest.raises(ValueError, match=f"{name}: no gradient for any of b, w"):
        opt.stateless_apply(opt.variables, {"b": None, "w": None}, start)


# Bad input, after which nothing has changed.


def unchanged(opt: Any, act: Any) -> Any:
    """Do it; the optimizer must be as before, whatever comes of it."""
    before = opt.iterations, opt.settings(), opt.get_weights()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return act()
    finally:
        assert (opt.iterations, opt.settings()) == before[:2]
        same(opt.get_weights(), before[2])


class Bad(NamedTuple):
    """A call of a stepped optimizer that must fail, and how."""

    error: type[Exception]
    message: str
    act: Any


WRONG = {
    "too few gradients": Bad(ValueError, "expected a gradient for each of 2", lambda o, p: o.apply({"b": p["b"]}, p)),
    "too many gradients": Bad(
        ValueError, "expected a gradient for each of 2", lambda o, p: o.apply({**p, "z": p["b"]}, p)
    ),
    "a list for a dict": Bad(ValueError, "expected a gradient for each of 2", lambda o, p: o.apply([*p.values()], p)),
    "wrong shape": Bad(
        ValueError, r"the gradient of b must have its shape .*3.*got", lambda o, p: o.apply({**p, "b": p["w"]}, p)
    ),
    "broadcastable shape": Bad(
        ValueError, "the gradient of w must have its shape", lambda o, p: o.apply({**p, "w": jnp.ones((1, 3))}, p)
    ),
    "a word for a gradient": Bad(
        TypeError, "the gradient of b must be an array, got", lambda o, p: o.apply({**p, "b": "x"}, p)
    ),
    "other parameters": Bad(
        ValueError, "built for 2 parameters, b, w; got 1, v: ", lambda o, p: o.apply({"v": p["b"]}, {"v": p["b"]})
    ),
    "parameters of other shapes": Bad(
        ValueError,
        r"w was float32\[2,3\] when the optimizer was built, is float32\[3\]",
        lambda o, p: o.apply(p, {**p, "w": p["b"]}),
    ),
    "parameters of other dtypes": Bad(
        ValueError,
        "w was float32.* is bfloat16",
        lambda o, p: o.apply(p, {**p, "w": p["w"].astype("bfloat16")}),
    ),
    "one pair too few": Bad(ValueError, "built for 2 parameters", lambda o, p: o.apply_gradients([(p["b"], p["b"])])),
    "no pairs": Bad(TypeError, "takes pairs", lambda o, p: o.apply_gradients([p["b"], p["w"]])),
    "unknown keyword": Bad(
        TypeError, "unexpected argument sparse", lambda o, p: o.apply_gradients([(p["b"], p["b"])], sparse=True)
    ),
    "inside jit": Bad(TypeError, "use stateless_apply", lambda o, p: jax.jit(lambda g: o.apply(g, p))(p)),
    "params inside jit": Bad(TypeError, "use stateless_apply", lambda o, p: jax.jit(lambda q: o.apply(p, q))(p)),
    "minimize inside jit": Bad(
        TypeError, "use stateless_apply", lambda o, p: jax.jit(lambda q: o.minimize(squares, q))(p)
    ),
    "one weight too few": Bad(ValueError, r"expected \d+ weights", lambda o, p: o.set_weights(o.get_weights()[:-3])),
    "no weights": Bad(ValueError, r"expected \d+ weights", lambda o, p: o.set_weights([])),
    "one weight too many": Bad(
        ValueError, r"expected \d+ weights", lambda o, p: o.set_weights([*o.get_weights(), np.zeros(3, np.float32)])
    ),
    "weights of wrong shapes": Bad(
        ValueError,
        r"the weight .* has the shape \[.*\], got \[7\]",
        lambda o, p: o.set_weights([np.zeros(7, np.float32)] * len(o.get_weights())),
    ),
    "words for weights": Bad(
        ValueError,
        "must be numbers",
        lambda o, p: o.set_weights([np.full(w.shape, "x") for w in o.get_weights()]),
    ),
    "a negative count": Bad(ValueError, "iterations", lambda o, p: setattr(o, "iterations", -1)),
    "half a count": Bad((TypeError, ValueError), "iterations", lambda o, p: setattr(o, "iterations", 1.5)),
    "rate nan": Bad(ValueError, "rate|lr", lambda o, p: setattr(o, "learning_rate", float("nan"))),
    "rate inf": Bad(ValueError, "rate|lr", lambda o, p: setattr(o, "lr", float("inf"))),
    "rate negative": Bad(ValueError, "rate|lr", lambda o, p: setattr(o, "learning_rate", -0.5)),
    "rate a word": Bad(TypeError, "rate|lr", lambda o, p: setattr(o, "learning_rate", "0.1")),
    "rate an array": Bad((TypeError, ValueError), "rate|lr", lambda o, p: setattr(o, "lr", jnp.ones(2))),
    "an attribute that is none": Bad(AttributeError, "has no moemntum", lambda o, p: setattr(o, "moemntum", 0.9)),
}


@pytest.mark.parametrize("case", WRONG)
@some_classes
def test_bad_calls_are_refused_and_change_nothing(generation, name, case):
    opt, start = copy.deepcopy(stepped(generation, name))
    bad = WRONG[case]
    with pytest.raises(bad.error, match=rf"(?s)^{name}\b.*({bad.message})"):
        unchanged(opt, lambda: bad.act(opt, start))


@every_class
def test_bad_rates_are_refused(generation, name):
    cls = cls_of(generation, name)
    for value in (float("nan"), float("inf"), -0.1):
        for spelling in ("lr", "learning_rate"):
            with pytest.raises(ValueError, match=rf"^{name}: (lr|learning_rate) must"):
                made(generation, name, **{spelling: value})
    for value in ("0.1", [0.1], True, jnp.ones(2)):
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: (lr|learning_rate) must"):
            made(generation, name, learning_rate=value)
    assert made(generation, name, lr=0.25).learning_rate == 0.25
    assert made(generation, name, learning_rate=np.float32(0.25)).lr == 0.25
    assert made(generation, name, learning_rate=1).lr == 1.0
    with pytest.raises(TypeError, match=f"{cls.__name__}: lr and learning_rate are two names of one argument"):
        made(generation, name, lr=0.1, learning_rate=0.1)


@every_class
def test_unknown_arguments_are_refused(generation, name):
    """With the generation's error, and the argument that was meant."""
    error = ValueError if generation == "keras3" else TypeError
    rate = "lr" if "lr" in cls_of(generation, name).fields() else "learning_rate"
    for typo, meant in (("learningrate", rate), ("lerning_rate", rate), ("wrong_altogether", "it has")):
        with pytest.raises(error, match=rf"^{name}: unexpected argument {typo}; .*{meant if rate != 'lr' else ''}"):
            made(generation, name, **{typo: 0.1})
    with pytest.raises(TypeError, match=f"{name} takes at most"):
        cls_of(generation, name)(*[0.1] * 40)


def test_what_an_unknown_argument_may_mean():
    for typo, meant in (("beta1", "beta_1"), ("b2", "beta_2"), ("eps", "epsilon"), ("wd", "weight_decay")):
        with pytest.raises(ValueError, match=f"Adam: unexpected argument {typo}; did you mean {meant}\\?"):
            keras3.Adam(**{typo: 0.1})
    with pytest.raises(TypeError, match=r"SGD: unexpected argument momentun; did you mean momentum\?"):
        keras2.SGD(momentun=0.9)


@pytest.mark.parametrize("pair", [("clipnorm", "global_clipnorm"), ("clipnorm", "clipvalue")], ids="-".join)
@every_class
def test_two_clips(generation, name, pair):
    """Keras 3 takes one; tf.keras before 2.11 one norm, beside a value; Keras 2 both it has."""
    given, has = dict.fromkeys(pair, 1.0), cls_of(generation, name).fields()
    if not {*pair} <= {*has}:
        with pytest.raises((TypeError, ValueError), match="unexpected argument"):
            made(generation, name, **given)
    elif generation in ("keras3", "tf_keras") or (generation == "tf_keras_legacy" and pair[1] == "global_clipnorm"):
        with pytest.raises(ValueError, match=f"{name}: {pair[0]} and {pair[1]} exclude each other: give one"):
            made(generation, name, **given)
    else:
        opt = made(generation, name, **given)
        assert (opt.clipnorm, opt.clipvalue) == (1.0, 1.0)


@every_class
def test_bad_clips(generation, name):
    fields = cls_of(generation, name).fields()
    for clip in [clip for clip in ("clipnorm", "clipvalue", "global_clipnorm") if clip in fields]:
        for value in (-1.0, float("nan")):
            with pytest.raises(ValueError, match=f"{name}: {clip} must"):
                made(generation, name, **{clip: value})


@every_class
def test_weights_of_another_optimizer_are_refused(generation, name):
    """Number or shapes tell them apart wherever they differ."""
    opt, start = stepped(generation, name)
    other, _ = stepped("keras3", "Lion" if name != "Lion" else "Adam")
    if [w.shape for w in other.get_weights()] != [w.shape for w in opt.get_weights()]:
        with pytest.raises(ValueError, match=f"^{name}: (expected|the weight)"):
            unchanged(opt, lambda: opt.set_weights(other.get_weights()))
    assert start.keys() == {"b", "w"}


@every_class
def test_no_parameters(generation, name):
    opt = made(generation, name)
    calls = [lambda empty=empty: opt.build(empty) for empty in ([], {}, ())]
    for call in (*calls, lambda: opt.apply([], []), lambda: opt.apply_gradients([])):
        with pytest.raises(ValueError, match=f"{name}: there are no parameters"):
            call()
    assert not opt.built


@every_class
def test_integers_are_no_parameters(generation, name):
    opt = made(generation, name)
    for value in (jnp.arange(3), jnp.zeros(3, bool)):
        with pytest.raises(TypeError, match=f"{name}: params.*w.*leave it out of the parameters"):
            opt.build({"b": jnp.zeros(2), "w": value})
    assert not opt.built
    opt.apply(numbers(1), params())


@every_class
def test_what_needs_a_state_says_so(generation, name):
    opt = made(generation, name)
    assert opt.iterations == 0
    assert opt.state is None
    for call in (
        opt.get_weights,
        lambda: opt.set_weights([]),
        lambda: setattr(opt, "iterations", 3),
    ):
        with pytest.raises(ValueError, match=f"{name}: .*needs its state: call build"):
            call()
    with pytest.raises(ValueError, match="call build"):
        opt.stateless_apply([], numbers(1), params())


def test_the_same_variable_twice():
    v = Variable(jnp.ones(3), "v")
    opt = keras3.SGD(0.1)
    opt.build([v])
    with pytest.raises(ValueError, match="built for the variables v, got one of them twice"):
        unchanged(opt, lambda: opt.apply([jnp.ones(3)] * 2, [v, v]))
    with pytest.raises(ValueError, match="unknown other"):
        unchanged(opt, lambda: opt.apply([jnp.ones(3)], [Variable(jnp.ones(3), "other")]))


def test_equal_names_are_told_apart():
    variables = [Variable(jnp.full(2, value), "v") for value in (1.0, 2.0)]
    opt = keras3.SGD(0.5, momentum=0.5)
    opt.apply([jnp.ones(2), jnp.zeros(2)], variables)
    assert [float(v.value[0]) for v in variables] == [0.5, 2.0]


# Dtypes.


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.long)])
@some_classes
def test_half_precision(generation, name, dtype):
    """The dtypes of parameters and weights stay; the numbers stay finite, and near those in float32."""
    opt, other = made(generation, name), made(generation, name)
    half, full = numbers(0, dtype), jax.tree.map(lambda x: x.astype("float32"), numbers(0, dtype))
    opt.build(half)
    before = [(w.shape, w.dtype) for w in opt.get_weights()]
    for seed in (1, 2, 3):
        half = opt.apply(numbers(seed, dtype), half)
        full = other.apply(numbers(seed), full)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(dtype)}
    assert [(w.shape, w.dtype) for w in opt.get_weights()] == before
    chex.assert_tree_all_finite((half, opt.state))
    for key in half:
        np.testing.assert_allclose(half[key].astype("float32"), full[key], rtol=0.05, atol=0.05)


@some_classes
def test_gradients_of_another_dtype(generation, name):
    """Are taken as those of the parameters' dtype."""
    opt, other = made(generation, name), made(generation, name)
    grads = numbers(1, "bfloat16")
    got = opt.apply(grads, params())
    close(got, other.apply(jax.tree.map(lambda g: g.astype("float32"), grads), params()))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
