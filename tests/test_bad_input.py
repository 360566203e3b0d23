"""What a stranger gets wrong, and what gradtx says: which transformation, which argument or leaf, what came, the cure.

The ids name the rows of a list of failures seen in other libraries: A non-finite and extreme numbers, B leaves,
C mismatches, D dtypes, E hyper-parameters and counters, F objects, G configs, X extra arguments.
"""

import collections
import fractions
import inspect
import json
import math
import pickle
import re
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
GRADS = {"w": jnp.full((2, 3), 0.5), "b": jnp.ones(3)}
MAX_INT = jnp.iinfo(jnp.int32).max
FOREIGN_WORDS = "not a valid JAX type|not a valid JAX array|not inexact|not understood|Cannot interpret|tree_map tree"
OPTIMIZERS = [
    gradtx.sgd(0.1),
    gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    gradtx.adam(0.1),
    gradtx.adamw(0.1, weight_decay=0.0),
    gradtx.amsgrad(0.1),
    gradtx.lion(0.1, weight_decay=0.0),
    gradtx.lamb(0.1),
    gradtx.adafactor(0.1),
]
each_optimizer = pytest.mark.parametrize("tx", OPTIMIZERS, ids=lambda tx: type(tx).__name__)


class TensorOfAnotherLibrary:
    """An object with a shape and a dtype that JAX cannot use."""

    dtype = "torch.float32"
    shape = (3,)


class LossWeighted(gradtx.Leafwise, name="test_bad_input.LossWeighted"):
    """A transformation that needs an extra argument."""

    def leaf(self, g, *, temperature):
        return g * temperature


def case(row, error, message, call):
    return pytest.param(call, error, message, id=row)


def at_init(tx, leaf, **more):
    return lambda: tx.init({"deep": [PARAMS, leaf], **more})


def at_update(tx, grads, params=PARAMS, **extra):
    return lambda: tx.update(grads, tx.init(params), params, **extra)


def with_state(tx, state, grads=GRADS, params=PARAMS):
    return lambda: tx.update(grads, state, params)


def refuses(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert not re.search(FOREIGN_WORDS, str(caught.value)), "the words of another library"
    assert len(str(caught.value).splitlines()) == 1, "a message is one line"


# A: numbers that are not finite, overflow, or are zero.


class TestExtremeNumbers:
    @staticmethod
    def clipped(grads, max_norm=1.0):
        tx = gradtx.clip_by_global_norm(max_norm)
        return tx.update(grads, tx.init(grads))

    def test_a1_a_nan_stays_in_its_element_under_adam_and_shows_in_the_norm(self):
        tx = gradtx.chain(gradtx.clip_by_global_norm(10.0), gradtx.adam(0.1))
        params, good = jnp.zeros(3), jnp.array([0.1, 0.2, 0.3])
        state = tx.init(params)
        updates, state = tx.update(good.at[1].set(jnp.nan), state, params)
        assert np.isnan(state[0].grad_norm)
        updates, state = tx.update(good, state, params)
        np.testing.assert_array_equal(np.isfinite(updates), [True, False, True])
        assert np.isfinite(state[0].grad_norm)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a2_a3_a_bad_element_does_not_poison_clean_leaves(self, bad):
        grads = {"clean": jnp.array([3.0, 4.0]), "bad": jnp.array([bad, 1.0])}
        updates, state = self.clipped(grads)
        np.testing.assert_allclose(updates["clean"], [0.6, 0.8], rtol=1e-6)
        assert not np.isfinite(state.grad_norm)

    @pytest.mark.parametrize("size", [1e20, 1e30, 1e38, 1e-20, 1e-30])
    def test_a4_squares_neither_overflow_nor_underflow(self, size):
        grads = {"a": jnp.full(4, size), "b": jnp.full((2, 2), -size)}
        updates, state = self.clipped(grads, max_norm=size / 2)
        norm = math.sqrt(sum(float(np.sum(np.square(np.asarray(u, np.float64)))) for u in updates.values()))
        assert norm == pytest.approx(size / 2, rel=1e-6)
        assert float(state.grad_norm) == pytest.approx(math.sqrt(8) * size, rel=1e-6)

    def test_a5_half_precision_is_accumulated_in_float32(self):
        updates, state = self.clipped(jnp.full(16, 300.0, jnp.float16))
        assert float(state.grad_norm) == 1200.0
        np.testing.assert_array_equal(np.asarray(updates, np.float32), 0.25)

    def test_a6_many_bfloat16_leaves(self):
        _, state = self.clipped([jnp.ones((), jnp.bfloat16)] * 300)
        assert float(state.grad_norm) == pytest.approx(math.sqrt(300), rel=1e-6)

    @pytest.mark.parametrize("make", [gradtx.clip, gradtx.clip_by_norm, gradtx.clip_by_global_norm])
    @pytest.mark.parametrize("grad", [0.0, 2.0])
    def test_a7_a_bound_of_zero_gives_zero(self, make, grad):
        tx = make(0.0)
        np.testing.assert_array_equal(tx.update(jnp.full(3, grad), tx.init(jnp.zeros(3)))[0], 0)

    @each_optimizer
    def test_a8_zero_gradients_move_nothing(self, tx):
        params = {"w": jnp.ones((2, 3)), "zero": jnp.zeros(3), "scalar": jnp.array(2.0)}
        zeros, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
        for _ in range(3):
            updates, state = tx.update(zeros, state, params)
            for update in jax.tree.leaves(updates):
                np.testing.assert_array_equal(update, 0)

    @pytest.mark.parametrize("tx", OPTIMIZERS[:-1], ids=lambda tx: type(tx).__name__)
    def test_a14_derivatives_through_an_update_at_rest_are_finite(self, tx):
        """Adafactor is left out: its ε of 1e-30 inside the root makes derivatives of 1e45, beyond float32."""
        params = jnp.zeros(3)
        clipping = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)

        def moved(grads):
            return jnp.sum(clipping.update(grads, clipping.init(params), params)[0])

        assert np.all(np.isfinite(jax.jit(jax.grad(moved))(jnp.zeros(3))))


# B: leaves.

NOT_PARAMETERS = {
    "B4-int": (jnp.arange(3), r"int32\[3\]"),
    "B4-numpy-int": (np.arange(3, dtype=np.int16), r"int16\[3\]"),
    "B4-python-int": (3, r"(int 3|int32\[\])"),
    "B6-bool": (jnp.array([True]), r"bool\[1\]"),
    "B6-uint8": (np.zeros(2, np.uint8), r"uint8\[2\]"),
    "B6-python-bool": (True, r"(bool True|bool\[\])"),
    "B7-key": (jax.random.key(0), "key<"),
    "B7-raw-key": (jax.random.key_data(jax.random.key(0)), r"uint32\[2\]"),
    "B8-str": ("relu", "(relu.*str|str.*relu)"),
    "B8-function": (lambda x: x, "<lambda>"),
    "B8-jitted": (jax.nn.relu, "relu"),
    "B8-class": (dict, "dict"),
    "B8-object": (object(), "object"),
    "B8-abstract": (jax.ShapeDtypeStruct((3,), jnp.float32), r"ShapeDtypeStruct|eval_shape"),
    "B12-torch": (TensorOfAnotherLibrary(), "TensorOfAnotherLibrary"),
}


@pytest.mark.parametrize("tx", [gradtx.sgd(0.1), gradtx.adam(0.1), gradtx.adafactor(0.1)], ids=repr)
@pytest.mark.parametrize(("leaf", "what"), NOT_PARAMETERS.values(), ids=NOT_PARAMETERS)
def test_init_refuses_what_is_no_parameter(tx, leaf, what):
    refuses(at_init(tx, leaf), TypeError, rf"params\['deep'\]\[1\]: expected a floating-point array.*{what}.*")


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 3))),
        gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5),
        gradtx.inject_hyperparams(gradtx.adafactor(0.1)),
    ],
    ids=repr,
)
def test_b8_abstract_parameters_have_an_abstract_state(tx):
    """If all of them are: among others, an abstract leaf is a mistake."""
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    assert tx.init(params) == jax.eval_shape(tx.init, params)
    assert {type(leaf) for leaf in jax.tree.leaves(tx.init(params))} == {jax.ShapeDtypeStruct}
    refuses(at_init(tx, jax.ShapeDtypeStruct((3,), jnp.int32)), TypeError, r"\['deep'\]\[1\]: .*int32")


@pytest.mark.parametrize(("leaf", "what"), NOT_PARAMETERS.values(), ids=NOT_PARAMETERS)
@pytest.mark.parametrize("tx", [gradtx.sgd(0.1), gradtx.adam(0.1), gradtx.clip_by_global_norm(1.0)], ids=repr)
def test_update_refuses_what_is_no_gradient(tx, leaf, what):
    refuses(at_update(tx, {**GRADS, "b": leaf}), (TypeError, ValueError), rf"updates\['b'\].*{what}")
    refuses(
        lambda: tx.update({**GRADS, "b": leaf}, tx.init(PARAMS)),
        (TypeError, ValueError),
        rf"(updates|state\.mu)\['b'\].*{what}",
    )


@pytest.mark.parametrize(("leaf", "what"), NOT_PARAMETERS.values(), ids=NOT_PARAMETERS)
def test_apply_updates_refuses_what_cannot_be_added(leaf, what):
    refuses(
        lambda: gradtx.apply_updates({"a": jnp.ones(3)}, {"a": leaf}),
        (TypeError, ValueError),
        rf"apply_updates: updates\['a'\].*{what}",
    )
    refuses(
        lambda: gradtx.apply_updates({"a": leaf}, {"a": jnp.ones(3)}),
        (TypeError, ValueError),
        rf"apply_updates: .*\['a'\].*{what}",
    )


@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.array(True), np.arange(2)], ids=repr)
def test_apply_updates_refuses_integers_even_of_one_dtype(leaf):
    refuses(lambda: gradtx.apply_updates({"a": leaf}, {"a": leaf}), TypeError, r"apply_updates: .*\['a'\].*floating")


@each_optimizer
@pytest.mark.parametrize("params", [{}, (), {"a": {}}, {"a": None}, {"a": jnp.zeros((0, 3)), "b": jnp.ones(2)}])
def test_b1_b2_empty_trees_leaves_and_none(tx, params):
    state = tx.init(params)
    updates, after = tx.update(params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.structure(gradtx.apply_updates(params, updates)) == jax.tree.structure(params)


def test_b1_an_empty_chain_changes_nothing():
    tx = gradtx.chain()
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert state == ()
    chex.assert_trees_all_equal(updates, GRADS)


@each_optimizer
def test_b3_no_gradient_for_a_parameter(tx):
    refuses(
        at_update(tx, {**GRADS, "b": None}), ValueError, rf"{type(tx).__name__}: updates\['b'\].*float32\[3\].*None"
    )
    refuses(at_update(tx, None), ValueError, rf"{type(tx).__name__}: updates: expected .*dict.*None")


def test_b3_apply_updates_takes_none_for_no_update():
    after = gradtx.apply_updates(PARAMS, {"w": GRADS["w"], "b": None})
    assert after["b"] is PARAMS["b"]
    refuses(lambda: gradtx.apply_updates(PARAMS, None), ValueError, "apply_updates: updates: expected .*dict.*got None")


def float0(shape=()):
    return np.zeros(shape, jax.dtypes.float0)


def test_b5_float0_needs_a_mask():
    params, grads = {"w": jnp.ones(2), "n": jnp.array(3)}, {"w": jnp.ones(2), "n": float0()}
    refuses(
        at_update(gradtx.sgd(0.1), {**GRADS, "b": float0((3,))}), TypeError, r"updates\['b'\].*got float0\[3\].*mask"
    )
    tx = gradtx.masked(gradtx.adam(0.1), {"w": True, "n": False})
    updates, state = tx.update(grads, tx.init(params), params)
    after = gradtx.apply_updates(params, updates)
    assert int(after["n"]) == 3
    assert after["n"].dtype == jnp.int32
    np.testing.assert_allclose(after["w"], 0.9, rtol=1e-6)

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2) * 2, allow_int=True)(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    after, _ = step(after, state)
    assert int(after["n"]) == 3


@pytest.fixture
def promoting():
    """Complex times real is a promotion, which strict mode refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_b9_complex_parameters_descend_along_the_conjugate_of_jax_grad(promoting):
    target = 1 + 1j
    slope = jax.jit(jax.grad(lambda z: jnp.abs(z - target) ** 2))
    for tx in (gradtx.sgd(0.1), gradtx.sgd(0.1, momentum=0.5), gradtx.adam(gradtx.cosine_decay_schedule(0.1, 200))):
        z = jnp.array(0j, jnp.complex64)
        state = tx.init(z)
        for _ in range(200):
            updates, state = tx.update(jnp.conj(slope(z)), state, z)
            z = gradtx.apply_updates(z, updates)
        assert abs(complex(z) - target) < 1e-2


def test_b9_the_convention_is_documented():
    assert "conj" in inspect.getdoc(gradtx.GradientTransformation)


@pytest.mark.parametrize("tx", [gradtx.adam(0.1), gradtx.amsgrad(0.1), gradtx.adafactor(0.1)], ids=repr)
def test_b10_second_moments_of_complex_parameters_are_real(tx):
    stage_state = tx.init(jnp.ones(3, jnp.complex64))[0]
    for name in {"nu", "nu_max", "v", "v_row", "v_col"} & set(stage_state._fields):
        assert getattr(stage_state, name).dtype == jnp.float32, name


def test_b10_a_state_dtype_keeps_complex_leaves_complex(promoting):
    tx, params = gradtx.adam(0.1, mu_dtype="bfloat16"), {"r": jnp.ones(3), "c": jnp.ones(3, jnp.complex64)}
    state = tx.init(params)
    assert state[0].mu["r"].dtype == jnp.bfloat16
    assert state[0].mu["c"].dtype == jnp.complex64
    updates, _ = tx.update({"r": jnp.ones(3), "c": 1j * jnp.ones(3, jnp.complex64)}, state, params)
    np.testing.assert_allclose(updates["c"], -0.1j * np.ones(3), rtol=1e-5)


@each_optimizer
def test_b11_python_floats_and_numpy_leaves_become_strong_arrays(tx):
    params = [1.0, np.float32(2.0), np.ones(2, np.float32)]
    updates, state = tx.update(params, tx.init(params), params)
    for leaf in jax.tree.leaves((tx.init(params), updates, state)):
        assert isinstance(leaf, jax.Array)
        assert not leaf.weak_type


# C: mismatches.

SHAPES = [((), (3,)), ((3,), (1,)), ((3, 1), (3,)), ((1, 3), (2, 3)), ((2,), (3,)), ((1,), ())]


@each_optimizer
@pytest.mark.parametrize(("got", "expected"), SHAPES)
@pytest.mark.parametrize("jitted", [False, True])
def test_c1_to_c5_nothing_is_broadcast(tx, got, expected, jitted):
    params = {"layer": [jnp.ones(expected)]}
    update = jax.jit(tx.update) if jitted else tx.update
    shown = re.escape(f"float32{list(expected)}".replace(" ", "")), re.escape(f"float32{list(got)}".replace(" ", ""))
    message = rf"{type(tx).__name__}: updates\['layer'\]\[0\]: expected {shown[0]}.*{shown[1]}"
    refuses(lambda: update({"layer": [jnp.ones(got)]}, tx.init(params), params), ValueError, message)


@pytest.mark.parametrize(("got", "expected"), SHAPES)
def test_c1_to_c5_apply_updates_broadcasts_nothing_either(got, expected):
    refuses(
        lambda: gradtx.apply_updates([jnp.ones(expected)], [jnp.ones(got)]), ValueError, r"apply_updates: updates\[0\]"
    )


@pytest.mark.parametrize(("got", "expected"), SHAPES)
def test_c1_to_c5_also_without_params_where_the_state_knows(got, expected):
    tx = gradtx.adam(0.1)
    refuses(
        lambda: tx.update(jnp.ones(got), tx.init(jnp.ones(expected))), ValueError, "scale_by_adam: state.mu.*float32"
    )


adam_state = gradtx.adam(0.1).init(PARAMS)
OTHER_MODEL = {"w": jnp.ones((2, 4)), "b": jnp.zeros(3)}


class Point(NamedTuple):
    w: Any
    b: Any


MISMATCHES = [
    case("C6-missing", ValueError, r"adam: updates.*missing.*\['b'\]", at_update(gradtx.adam(0.1), {"w": GRADS["w"]})),
    case(
        "C6-unexpected",
        ValueError,
        r"adam: updates.*unexpected.*\['z'\]",
        at_update(gradtx.adam(0.1), {**GRADS, "z": jnp.ones(1)}),
    ),
    case(
        "C6-list-for-tuple",
        ValueError,
        "expected a tuple, got a list",
        at_update(gradtx.sgd(0.1), [jnp.ones(1)], (jnp.ones(1),)),
    ),
    case(
        "C6-length", ValueError, r"missing \[1\]", at_update(gradtx.sgd(0.1), [jnp.ones(1)], [jnp.ones(1), jnp.ones(1)])
    ),
    case(
        "C6-OrderedDict",
        ValueError,
        "expected a dict, got an? OrderedDict",
        at_update(gradtx.sgd(0.1), collections.OrderedDict(GRADS)),
    ),
    case("C6-NamedTuple", ValueError, "expected a dict, got a Point", at_update(gradtx.sgd(0.1), Point(**GRADS))),
    case(
        "C6-list-of-numbers",
        ValueError,
        r"updates\['b'\]: expected float32\[3\], got a list",
        at_update(gradtx.sgd(0.1), {**GRADS, "b": [1.0, 2.0, 3.0]}),
    ),
    case(
        "C6-leaf-for-dict",
        ValueError,
        r"expected a dict, got float32\[3\]",
        at_update(gradtx.sgd(0.1), jnp.ones(3)),
    ),
    case(
        "C6-value-and-grad",
        ValueError,
        "adam: updates: expected a dict, got a tuple",
        at_update(gradtx.adam(0.1), (jnp.array(1.0), GRADS)),
    ),
    case(
        "C6-swapped-grads-and-state",
        ValueError,
        r"adam: updates: expected a dict, got a tuple.*update\(updates, state, params\)",
        lambda: gradtx.adam(0.1).update(adam_state, GRADS, PARAMS),
    ),
    case(
        "C6-swapped-state-and-params",
        ValueError,
        r"adam: updates: .*update\(updates, state, params\)",
        lambda: gradtx.adam(0.1).update(GRADS, PARAMS, adam_state),
    ),
    case(
        "C6-params-for-state",
        ValueError,
        "expected a state.*got a dict",
        lambda: gradtx.adam(0.1).update(GRADS, PARAMS),
    ),
    case(
        "C6-a-count-with-fractions",
        TypeError,
        r"the state that came out: expected int32\[\] like what went in, got float32\[\], whose fractions",
        at_update(
            gradtx.GradientTransformation(
                lambda p: jnp.zeros((), jnp.int32), lambda g, s, p=None: (g, s.astype("float32") + 0.5)
            ),
            GRADS,
        ),
    ),
    case("C6-no-state", ValueError, "expected a state.*got None", with_state(gradtx.adam(0.1), None)),
    case("C6-state-list", ValueError, "expected a state.*got a list", with_state(gradtx.adam(0.1), list(adam_state))),
    case("C6-empty-state", ValueError, "expected a tuple of 2 states.*0 states", with_state(gradtx.adam(0.1), ())),
    case(
        "C6-apply-updates",
        ValueError,
        r"apply_updates: updates: missing \['b'\]",
        lambda: gradtx.apply_updates(PARAMS, {"w": GRADS["w"]}),
    ),
    case(
        "C6-apply-update-result",
        ValueError,
        "apply_updates: updates: expected a dict, got a tuple",
        lambda: gradtx.apply_updates(PARAMS, gradtx.adam(0.1).update(GRADS, adam_state)),
    ),
    *(
        case(
            f"C4-other-model-{type(tx).__name__}",
            ValueError,
            r"state\.\w+\['w'\]: expected float32\[2,3\].*float32\[2,4\].*another model|"
            r"state\.\w+\['w'\]: expected float32\[2,3\].*another model.*float32\[2,4\]",
            with_state(tx, tx.init(OTHER_MODEL)),
        )
        for tx in (
            gradtx.sgd(0.1, momentum=0.9),
            gradtx.adam(0.1),
            gradtx.lion(0.1),
            gradtx.adafactor(0.1),
            gradtx.masked(gradtx.adam(0.1), True),
            gradtx.accumulate(gradtx.sgd(0.1), 2),
            gradtx.accumulate(gradtx.adam(0.1), 2),
        )
    ),
    case(
        "C4-other-model-other-keys",
        ValueError,
        r"state.acc_grads.*missing.*\['b'\]",
        with_state(
            gradtx.accumulate(gradtx.sgd(0.1), 2), gradtx.accumulate(gradtx.sgd(0.1), 2).init({"w": PARAMS["w"]})
        ),
    ),
    case(
        "C8-adam-gets-amsgrad",
        ValueError,
        "scale_by_adam: expected a state ScaleByAdamState.*got ScaleByAmsgradState",
        with_state(gradtx.adam(0.1), gradtx.amsgrad(0.1).init(PARAMS)),
    ),
    case(
        "C8-sgd-gets-adam",
        ValueError,
        "expected a state EmptyState.*got ScaleByAdamState",
        with_state(gradtx.sgd(0.1), adam_state),
    ),
    case(
        "C9-adam-gets-momentum",
        ValueError,
        "scale_by_adam: expected a state ScaleByAdamState.*got TraceState",
        with_state(gradtx.adam(0.1), gradtx.sgd(0.1, momentum=0.9).init(PARAMS)),
    ),
    case(
        "C9-adam-gets-optax",
        ValueError,
        "scale_by_adam: expected a state ScaleByAdamState.*got .*optax.*ScaleByAdamState",
        with_state(gradtx.adam(0.1), optax.adam(0.1).init(PARAMS)),
    ),
    case(
        "C9-named-chain",
        ValueError,
        r"named_chain: expected the states of.*'a', 'b'.*'a', 'c'",
        with_state(
            gradtx.named_chain(("a", gradtx.clip(1.0)), ("b", gradtx.clip(1.0))),
            {"a": gradtx.EmptyState(), "c": gradtx.EmptyState()},
        ),
    ),
    case(
        "C9-schedule-state",
        ValueError,
        "ScheduledState",
        with_state(gradtx.clip(gradtx.constant_schedule(1.0)), gradtx.EmptyState()),
    ),
    *(
        case(
            f"params-missing-{type(tx).__name__}",
            ValueError,
            r"needs the parameters: update\(updates, state, params\)",
            lambda tx=tx: tx.update(GRADS, tx.init(PARAMS)),
        )
        for tx in (
            gradtx.adamw(0.1),
            gradtx.lamb(0.1),
            gradtx.adafactor(0.1),
            gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.1)),
            gradtx.masked(gradtx.add_decayed_weights(0.1), {"w": True, "b": False}),
        )
    ),
    case(
        "B9-complex-gradient",
        ValueError,
        r"updates\['b'\]: expected float32\[3\].*complex64\[3\]",
        at_update(gradtx.sgd(0.1), {**GRADS, "b": jnp.ones(3, jnp.complex64)}),
    ),
    case(
        "B9-complex-parameter",
        ValueError,
        r"updates: expected complex64\[3\].*float32\[3\]",
        at_update(gradtx.sgd(0.1), jnp.ones(3), jnp.ones(3, jnp.complex64)),
    ),
    case(
        "B9-apply",
        ValueError,
        r"apply_updates: updates: expected float32\[3\].*complex64\[3\]",
        lambda: gradtx.apply_updates(jnp.ones(3), jnp.ones(3, jnp.complex64)),
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISMATCHES)
def test_mismatch(call, error, message):
    refuses(call, error, message)


def test_c10_masked_passes_the_rest_through_as_documented():
    tx = gradtx.masked(gradtx.sgd(0.1), {"w": True, "b": False})
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["b"], GRADS["b"])
    np.testing.assert_allclose(updates["w"], -0.1 * GRADS["w"], rtol=1e-6)
    assert "pass through unchanged" in inspect.getdoc(gradtx.masked)


def test_c11_numpy_bools_are_bools():
    assert gradtx.masked(gradtx.sgd(0.1), {"b": np.bool_(False)}) == gradtx.masked(gradtx.sgd(0.1), {"b": False})


def masked_by(mask):
    return lambda: gradtx.masked(gradtx.sgd(0.1), mask).init(PARAMS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case("C11-ints", TypeError, r"masked: mask\['b'\].*True or False.*int 0", masked_by({"w": 1, "b": 0})),
        case("C11-array", TypeError, r"mask\['w'\].*True or False.*bool", masked_by({"w": jnp.array(True), "b": True})),
        case("C11-str", TypeError, r"mask\['b'\].*True or False.*no", masked_by({"w": True, "b": "no"})),
        case(
            "C11-pattern",
            ValueError,
            "masked: mask: the pattern 'kernel' matches no path.*b, w|'b', 'w'",
            masked_by("kernel"),
        ),
        case("C11-int", TypeError, "masked: mask.*True or False.*int 1", masked_by(1)),
        case(
            "C11-function-of-ints",
            TypeError,
            r"masked: mask\['b'\].*True or False",
            masked_by(lambda params: jax.tree.map(lambda _: 1, params)),
        ),
        case(
            "C11-function-of-values",
            TypeError,
            r"masked: mask\['b'\].*True or False",
            masked_by(lambda params: jax.tree.map(lambda x: jnp.any(x > 0), params)),
        ),
        case("C11-function-of-none", (TypeError, ValueError), "masked: mask.*None", masked_by(lambda params: None)),
        case(
            "C11-function-of-function",
            TypeError,
            "masked: mask.*True or False.*function",
            masked_by(lambda params: lambda again: True),
        ),
        case("C11-missing", ValueError, r"masked: mask: missing \['b'\]", masked_by({"w": True})),
        case("C11-unknown", ValueError, r"masked: mask.*\['c'\]", masked_by({"w": True, "b": True, "c": False})),
        case("C11-list", ValueError, "masked: mask: expected a dict, got a list", masked_by([True, False])),
        case(
            "C11-none-inside", (TypeError, ValueError), r"masked: mask\['b'\].*None", masked_by({"w": True, "b": None})
        ),
        case(
            "C11-deeper",
            ValueError,
            r"masked: mask\['w'\].*float32\[2,3\].*dict",
            masked_by({"w": {"x": True}, "b": False}),
        ),
        case("C11-transformation", TypeError, "masked: mask.*sgd", masked_by(gradtx.sgd(0.1))),
        case("C11-class", TypeError, "masked: mask.*class bool", masked_by(bool)),
        case(
            "C11-decay",
            TypeError,
            r"adamw: mask\['b'\].*True or False.*int 0",
            lambda: gradtx.adamw(0.1, mask={"w": 1, "b": 0}),
        ),
        case(
            "C11-decay-missing",
            ValueError,
            r"add_decayed_weights: mask: missing \['b'\]",
            at_update(gradtx.adamw(0.1, mask={"w": True}), GRADS),
        ),
        case(
            "C11-swapped",
            TypeError,
            "masked: inner must be a transformation.*dict",
            lambda: gradtx.masked({"w": True}, gradtx.sgd(0.1)),
        ),
    ],
)
def test_mask(call, error, message):
    refuses(call, error, message)


def test_c11_a_mask_is_copied():
    mask = {"w": True, "b": False}
    tx = gradtx.masked(gradtx.sgd(0.1), mask)
    mask["w"] = False
    assert tx.mask == {"w": True, "b": False}


STAGES = {
    "class": (gradtx.adam, r"class adam: call it, adam\("),
    "optax-function": (optax.sgd, r"sgd.*call it, sgd\("),
    "schedule": (gradtx.cosine_decay_schedule(0.1, 10), "cosine_decay_schedule.*scale_by_learning_rate"),
    "none": (None, "transformation.*None"),
    "number": (0.1, "transformation.*0.1"),
    "list": ([gradtx.clip(1.0), gradtx.adam(0.1)], r"transformation.*list.*\*"),
    "tuple": ((gradtx.clip(1.0),), r"transformation.*tuple.*\*"),
    "state": (gradtx.EmptyState(), "transformation.*EmptyState"),
    "module": (jax, "transformation.*module"),
}


@pytest.mark.parametrize(("stage", "message"), STAGES.values(), ids=(f"C13-{name}" for name in STAGES))
def test_c13_what_is_no_stage(stage, message):
    refuses(lambda: gradtx.chain(gradtx.clip(1.0), stage), TypeError, f"chain: stage 1 .*{message}")
    refuses(lambda: gradtx.named_chain(("s", stage)), TypeError, f"named_chain: stage 0, 's' .*{message}")
    refuses(lambda: gradtx.masked(stage, True), TypeError, f"masked: inner .*{message}")
    refuses(lambda: gradtx.accumulate(stage, 2), TypeError, f"accumulate: inner .*{message}")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case(
            "C13-twice",
            ValueError,
            "named_chain: the name a is given twice",
            lambda: gradtx.named_chain(("a", gradtx.clip(1.0)), ("a", gradtx.clip(1.0))),
        ),
        case("C13-bare", TypeError, "named_chain: stage 0 .*pair", lambda: gradtx.named_chain(gradtx.clip(1.0))),
        case(
            "C13-list", TypeError, "named_chain: stage 0 .*pair", lambda: gradtx.named_chain([("a", gradtx.clip(1.0))])
        ),
        case("C13-dict", TypeError, "named_chain: stage 0 .*pair", lambda: gradtx.named_chain({"a": gradtx.clip(1.0)})),
        case(
            "C13-order", TypeError, "named_chain: stage 0 .*pair", lambda: gradtx.named_chain((gradtx.clip(1.0), "a"))
        ),
        case(
            "C13-functions",
            TypeError,
            "init_fn must be a function.*None",
            lambda: gradtx.GradientTransformation(None, None),
        ),
        case("C13-to-optax", TypeError, r"to_optax: .*adam.*call it", lambda: gradtx.to_optax(gradtx.adam)),
        case("C13-abstract-optimizer", TypeError, "Optimizer.*abstract", lambda: gradtx.Optimizer()),
        case("C13-abstract-leafwise", TypeError, "Leafwise.*abstract", lambda: gradtx.Leafwise()),
    ],
)
def test_composition(call, error, message):
    refuses(call, error, message)


# Your own transformation, written wrongly.


def of_functions(init_fn, update_fn):
    tx = gradtx.GradientTransformation(init_fn, update_fn)
    return lambda: tx.update(GRADS, tx.init(PARAMS), PARAMS)


def of_leaf(function, state=gradtx.EmptyState):
    kind = type("mine", (gradtx.Leafwise,), {"leaf": function, "State": state})
    return at_update(kind(), GRADS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case(
            "own-only-updates",
            TypeError,
            r"GradientTransformation: update_fn .*\(updates, state\).*dict",
            of_functions(lambda params: (), lambda updates, state, params: updates),
        ),
        case(
            "own-other-structure",
            ValueError,
            "GradientTransformation: the updates.*expected a dict, got a list",
            of_functions(lambda params: (), lambda updates, state, params: (jax.tree.leaves(updates), state)),
        ),
        case(
            "own-no-state",
            ValueError,
            "GradientTransformation: the state.*None",
            of_functions(lambda params: (), lambda updates, state, params: (updates, None)),
        ),
        case(
            "own-other-shape",
            ValueError,
            r"GradientTransformation: the updates.*\['b'\]: expected float32\[3\].*float32\[\]",
            of_functions(lambda params: (), lambda updates, state, params: (jax.tree.map(jnp.sum, updates), state)),
        ),
        case(
            "own-leaf-shape",
            ValueError,
            r"mine: .*updates.*\['b'\]: expected float32\[3\]",
            of_leaf(lambda self, g: g[0]),
        ),
        case(
            "own-leaf-none",
            ValueError,
            r"mine: .*updates.*\['b'\]: expected float32\[3\], got None",
            of_leaf(lambda self, g: None),
        ),
        case(
            "own-leaf-without-slots",
            TypeError,
            r"mine: leaf .*trace.*float32\[3\]",
            of_leaf(lambda self, g, trace: g, gradtx.TraceState),
        ),
        case(
            "own-leaf-array-for-tuple",
            TypeError,
            r"mine: leaf .*trace.*float32\[2,",
            of_leaf(lambda self, g, trace: jnp.stack([g, g]), gradtx.TraceState),
        ),
        case(
            "own-slot-shape",
            ValueError,
            r"mine: the state.*trace\['b'\]: expected float32\[3\].*float32\[\]",
            of_leaf(lambda self, g, trace: (g, jnp.sum(trace)), gradtx.TraceState),
        ),
    ],
)
def test_own_transformation(call, error, message):
    refuses(call, error, message)


# X: extra arguments.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case("X-typo", TypeError, "adam: .*'vlaue'.*did you mean value", at_update(gradtx.adam(0.1), GRADS, vlaue=3)),
        case(
            "X-chain",
            TypeError,
            "chain: .*'vlaue'.*did you mean value",
            at_update(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)), GRADS, vlaue=3),
        ),
        case(
            "X-own-typo",
            TypeError,
            "LossWeighted: .*'temprature'.*did you mean temperature",
            at_update(LossWeighted(), GRADS, temprature=3.0),
        ),
        *(
            case(
                f"X-missing-{type(tx).__name__}",
                TypeError,
                r"needs the extra argument temperature.*temperature=",
                at_update(tx, GRADS),
            )
            for tx in (
                LossWeighted(),
                gradtx.chain(gradtx.adam(0.1), LossWeighted()),
                gradtx.named_chain(("a", LossWeighted())),
                gradtx.masked(LossWeighted(), True),
                gradtx.accumulate(LossWeighted(), 2),
            )
        ),
        *(
            case(
                f"X-shape-{type(tx).__name__}",
                ValueError,
                r"scale_by_momo\w*: value must be a real scalar, .* got float32\[2\]",
                at_update(tx, GRADS, value=jnp.ones(2)),
            )
            for tx in (gradtx.momo(), gradtx.momo_adam())
        ),
    ],
)
def test_extra_arguments(call, error, message):
    refuses(call, error, message)


def test_extra_arguments_for_others_are_ignored():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1))
    chex.assert_trees_all_equal(
        at_update(tx, GRADS, batch=jnp.ones(3), rng=jax.random.key(0), step=3)(), at_update(tx, GRADS)()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case("pair-one", TypeError, "prodigy: betas must be a pair of numbers", lambda: gradtx.prodigy(betas=0.9)),
        case("pair-three", TypeError, "prodigy: betas must be a pair", lambda: gradtx.prodigy(betas=(0.9, 0.9, 0.9))),
        case("pair-bound", ValueError, r"prodigy: betas\[1\] must lie in", lambda: gradtx.prodigy(betas=(0.9, 1.0))),
        case(
            "pair-schedule",
            TypeError,
            r"dadapt_adamw: betas\[0\] must be a number .*, got the schedule",
            lambda: gradtx.dadapt_adamw(betas=(gradtx.linear_schedule(0.5, 0.9, 10), 0.99)),
        ),
        case("first-step", TypeError, "dog: init_step must be a pair such as", lambda: gradtx.dog(init_step=1e-6)),
        case("measure", ValueError, r"dog: init_step\[0\] must be one of", lambda: gradtx.dog(init_step=("rate", 1.0))),
        case("size", ValueError, r"ldog: init_step\[1\] must lie", lambda: gradtx.ldog(init_step=("distance", 0.0))),
    ],
)
def test_pairs(call, error, message):
    refuses(call, error, message)


@pytest.mark.parametrize("name", ["value", "grad", "value_fn", "obj_fn", "loss", "key"])
def test_standard_extra_arguments_always_pass(name):
    given = {"value_fn": jnp.sum, "obj_fn": jnp.sum, "grad": GRADS, "key": jax.random.key(0)}.get(name, jnp.array(1.0))
    at_update(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)), GRADS, **{name: given})()


# D: dtypes.


@each_optimizer
@pytest.mark.parametrize(
    ("param_dtype", "grad_dtype"),
    [
        ("bfloat16", "float32"),
        ("float32", "bfloat16"),
        pytest.param("float32", "float16", marks=pytest.mark.long),
        pytest.param("float16", "bfloat16", marks=pytest.mark.long),
    ],
)
def test_d1_d2_mixed_precision_keeps_every_dtype(tx, param_dtype, grad_dtype):
    params = {"w": jnp.ones((2, 3), param_dtype), "b": jnp.zeros(3, jnp.float32)}
    grads = {"w": jnp.ones((2, 3), grad_dtype), "b": jnp.ones(3, jnp.bfloat16)}
    state = jax.eval_shape(tx.init, params)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), updates

    (after, end), updates = jax.eval_shape(lambda *carry: jax.lax.scan(step, carry, length=2), params, state)
    assert jax.tree.map(lambda x: x.dtype, (after, end)) == jax.tree.map(lambda x: x.dtype, (params, state))
    assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)


@each_optimizer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_d3_tiny_gradients_in_half_precision(tx, dtype):
    params = jnp.ones(3, dtype)
    updates, state = tx.update(jnp.array([0, 1e-4, 1], dtype), tx.init(params), params)
    chex.assert_tree_all_finite((updates, state))


def test_d5_bfloat16_beside_float16():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.float16)}
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    updates, _ = tx.update(params, tx.init(params), params)
    assert (updates["a"].dtype, updates["b"].dtype) == (jnp.bfloat16, jnp.float16)


def test_d6_second_moments_of_bfloat16_parameters_follow_their_gradients():
    tx = gradtx.adam(0.1)
    half, full = jnp.ones(1, jnp.bfloat16), jnp.ones(1)
    states = [tx.init(half), tx.init(full)]
    for grad in [0.5] * 20 + [0.0625] * 200:
        states = [tx.update(jnp.full(1, grad, p.dtype), s, p)[1] for s, p in zip(states, (half, full), strict=True)]
    np.testing.assert_array_equal(states[0][0].nu, states[1][0].nu)


@pytest.mark.parametrize(
    "rate", [np.float32(0.5), np.float64(0.5), jnp.array(0.5), jnp.array(0.5, jnp.bfloat16)], ids=repr
)
def test_d8_the_dtype_of_a_learning_rate_promotes_nothing(rate):
    params = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.sgd(rate)
    updates, state = tx.update(params, tx.init(params), params)
    assert updates.dtype == jnp.bfloat16
    assert state[1].learning_rate.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(updates, np.float32), -0.5)


# E: hyper-parameters and counters.

RANGES = {
    "E1-lr": (lambda: gradtx.adam(-1), "adam: learning_rate", "-1"),
    "E1-lr-array": (lambda: gradtx.adam(jnp.array(-1.0)), "adam: learning_rate", "-1"),
    "E1-lr-nan": (lambda: gradtx.adam(math.nan), "adam: learning_rate", "nan"),
    "E1-lr-inf": (lambda: gradtx.adam(math.inf), "adam: learning_rate", "inf"),
    "E1-momentum": (lambda: gradtx.sgd(0.1, 1.5), "sgd: momentum", "1.5"),
    "E1-momentum-negative": (lambda: gradtx.sgd(0.1, -0.9), "sgd: momentum", "-0.9"),
    "E1-b1": (lambda: gradtx.adam(0.1, b1=1.2), "adam: b1", "1.2"),
    "E1-b1-array": (lambda: gradtx.adam(0.1, b1=jnp.array(1.5)), "adam: b1", "1.5"),
    "E1-b2": (lambda: gradtx.adam(0.1, b2=-1), "adam: b2", "-1"),
    "E1-eps": (lambda: gradtx.adam(0.1, eps=-1), "adam: eps", "-1"),
    "E1-eps-root": (lambda: gradtx.adam(0.1, eps_root=-1e-9), "adam: eps_root", "-1e-09"),
    "E1-decay": (lambda: gradtx.adamw(0.1, weight_decay=-1), "adamw: weight_decay", "-1"),
    "E1-decay-nan": (lambda: gradtx.adamw(0.1, weight_decay=math.nan), "adamw: weight_decay", "nan"),
    "E1-lion": (lambda: gradtx.lion(0.1, b1=1), "lion: b1", "1"),
    "E1-ema": (lambda: gradtx.ema(1), "ema: decay", "1"),
    "E1-trace": (lambda: gradtx.trace(2), "trace: decay", "2"),
    "E1-adafactor": (lambda: gradtx.adafactor(0.1, clipping_threshold=0), "adafactor: clipping_threshold", "0"),
    "E1-factored": (lambda: gradtx.adafactor(0.1, min_dim_size_to_factor=0), "adafactor: min_dim_size_to_factor", "0"),
    "E1-scale": (lambda: gradtx.scale(math.nan), "scale: step_size", "nan"),
    "E1-dtype": (lambda: gradtx.adam(0.1, mu_dtype="int32"), "adam: mu_dtype", "int32"),
    "E1-dtype-complex": (lambda: gradtx.adam(0.1, mu_dtype="complex64"), "adam: mu_dtype", "complex64"),
    "E1-momentum-dtype": (lambda: gradtx.adafactor(0.1, dtype_momentum="int8"), "adafactor: dtype_momentum", "int8"),
    "E1-nesterov-alone": (lambda: gradtx.sgd(0.1, nesterov=True), "sgd: nesterov", "momentum"),
    "E1-nesterov-alone-rmsprop": (lambda: gradtx.rmsprop(0.1, nesterov=True), "rmsprop: nesterov", "momentum"),
    "E2-b1": (lambda: gradtx.adam(0.1, b1=1), "adam: b1", "1"),
    "E2-b2": (lambda: gradtx.adam(0.1, b2=1.0), "adam: b2", "1"),
    "E5-clip": (lambda: gradtx.clip(-1), "clip: max_delta", "-1"),
    "E5-norm": (lambda: gradtx.clip_by_norm(-1), "clip_by_norm: max_norm", "-1"),
    "E5-global-norm": (lambda: gradtx.clip_by_global_norm(-1), "clip_by_global_norm: max_norm", "-1"),
    "E5-block-rms": (lambda: gradtx.clip_by_block_rms(-1), "clip_by_block_rms: threshold", "-1"),
    "E6-linear": (lambda: gradtx.linear_schedule(1, 0, 0), "linear_schedule: transition_steps", "0"),
    "E6-begin": (lambda: gradtx.linear_schedule(1, 0, 10, -1), "linear_schedule: transition_begin", "-1"),
    "E6-polynomial": (lambda: gradtx.polynomial_schedule(1, 0, 1, -3), "polynomial_schedule: transition_steps", "-3"),
    "E6-power": (lambda: gradtx.polynomial_schedule(1, 0, -1, 10), "polynomial_schedule: power", "-1"),
    "E6-rate": (lambda: gradtx.exponential_decay(1, 10, 0), "exponential_decay: decay_rate", "0"),
    "E6-steps": (lambda: gradtx.exponential_decay(1, 0, 0.5), "exponential_decay: transition_steps", "0"),
    "E6-cosine": (lambda: gradtx.cosine_decay_schedule(1, 0), "cosine_decay_schedule: decay_steps", "0"),
    "E6-alpha": (lambda: gradtx.cosine_decay_schedule(1, 10, 2), "cosine_decay_schedule: alpha", "2"),
    "E6-warmup": (
        lambda: gradtx.warmup_cosine_decay_schedule(0, 1, 10, 5),
        "warmup_cosine_decay_schedule: decay_steps",
        "10",
    ),
    "E6-no-boundary": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1), gradtx.constant_schedule(2)], []),
        "join_schedules: 2 schedules need 1 boundar",
        "0",
    ),
    "E6-decreasing": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1)] * 3, [5, 3]),
        "join_schedules: boundaries",
        r"\[5, 3\]",
    ),
    "E6-piecewise": (
        lambda: gradtx.piecewise_constant_schedule(1, {-1: 0.5}),
        "piecewise_constant_schedule: bound",
        "-1",
    ),
    "E8-zero": (lambda: gradtx.accumulate(gradtx.sgd(0.1), 0), "accumulate: every_k_schedule", "0"),
    "E8-negative": (lambda: gradtx.accumulate(gradtx.sgd(0.1), -1), "accumulate: every_k_schedule", "-1"),
}


@pytest.mark.parametrize(("make", "where", "got"), RANGES.values(), ids=RANGES)
def test_out_of_range(make, where, got):
    refuses(make, ValueError, f"{where}.*{got}")


TYPES = {
    "E3-none": (lambda: gradtx.adam(None), "adam: learning_rate", "None"),
    "E3-sgd": (lambda: gradtx.sgd(None), "sgd: learning_rate", "None"),
    "E4-str": (lambda: gradtx.adam("0.1"), "adam: learning_rate", "'0.1'.*str"),
    "E4-bytes": (lambda: gradtx.adam(b"1"), "adam: learning_rate", "bytes"),
    "E4-list": (lambda: gradtx.adam([0.1]), "adam: learning_rate", "list"),
    "E4-tuple": (lambda: gradtx.adam((0.1,)), "adam: learning_rate", "tuple"),
    "E4-dict": (lambda: gradtx.adam({}), "adam: learning_rate", "dict"),
    "E4-bool": (lambda: gradtx.adam(True), "adam: learning_rate", "bool"),
    "E4-numpy-bool": (lambda: gradtx.adam(np.bool_(True)), "adam: learning_rate", "bool"),
    "E4-bool-array": (lambda: gradtx.adam(jnp.array(True)), "adam: learning_rate", "bool"),
    "E4-complex": (lambda: gradtx.adam(1j), "adam: learning_rate", "1j"),
    "E4-complex-array": (lambda: gradtx.adam(jnp.array(1j)), "adam: learning_rate", "complex64"),
    "E4-vector": (lambda: gradtx.adam(jnp.ones(3)), "adam: learning_rate", r"float32\[3\].*vmap"),
    "E4-vector-of-one": (lambda: gradtx.adam(jnp.ones(1)), "adam: learning_rate", r"float32\[1\]"),
    "E4-numpy-vector": (lambda: gradtx.adam(np.ones(3)), "adam: learning_rate", "ndarray|float64"),
    "E4-key": (lambda: gradtx.adam(jax.random.key(0)), "adam: learning_rate", "key<"),
    "E4-class": (
        lambda: gradtx.adam(gradtx.constant_schedule),
        "adam: learning_rate",
        "class constant_schedule: call it",
    ),
    "E4-transformation": (lambda: gradtx.adam(gradtx.adam(0.1)), "adam: learning_rate", r"adam\(0.1\)"),
    "E4-optax": (lambda: gradtx.adam(optax.sgd(0.1)), "adam: learning_rate", "GradientTransformationExtraArgs"),
    "E4-fraction": (lambda: gradtx.adam(fractions.Fraction(1, 10)), "adam: learning_rate", "Fraction"),
    "E4-eps": (lambda: gradtx.adam(0.1, eps="a"), "adam: eps", "'a'.*str"),
    "E4-b1-none": (lambda: gradtx.adam(0.1, b1=None), "adam: b1", "None"),
    "E4-betas": (lambda: gradtx.adam(0.1, (0.9, 0.999)), "adam: b1", "tuple"),
    "E4-flag": (lambda: gradtx.adam(0.1, nesterov=1), "adam: nesterov", "1 of type int"),
    "E4-flag-str": (lambda: gradtx.adam(0.1, nesterov="yes"), "adam: nesterov", "'yes'"),
    "E4-flag-none": (lambda: gradtx.adam(0.1, nesterov=None), "adam: nesterov", "None"),
    "E1-dtype-name": (lambda: gradtx.adam(0.1, mu_dtype="nonsense"), "adam: mu_dtype", "'nonsense'"),
    "E1-dtype-short": (lambda: gradtx.adam(0.1, mu_dtype="bf16"), "adam: mu_dtype", "'bf16'"),
    "E1-dtype-number": (lambda: gradtx.adam(0.1, mu_dtype=3), "adam: mu_dtype", "3"),
    "E1-dtype-list": (lambda: gradtx.adam(0.1, mu_dtype=[]), "adam: mu_dtype", r"\[\]"),
    "E5-clip-none": (lambda: gradtx.clip(None), "clip: max_delta", "None"),
    "E6-float-steps": (lambda: gradtx.linear_schedule(1, 0, 1e3), "linear_schedule: transition_steps", "1000.0"),
    "E6-none": (lambda: gradtx.constant_schedule(None), "constant_schedule: value", "None"),
    "E6-nested": (lambda: gradtx.constant_schedule(lambda n: 1), "constant_schedule: value", "schedule"),
    "E6-join-number": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1), 2], [5]),
        r"join_schedules: schedules\[1\]",
        "2",
    ),
    "E6-join-class": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1), gradtx.constant_schedule], [5]),
        r"join_schedules: schedules\[1\]",
        "constant_schedule",
    ),
    "E6-join-one": (
        lambda: gradtx.join_schedules(gradtx.constant_schedule(1), [5]),
        "join_schedules: schedules",
        "constant",
    ),
    "E6-boundary-one": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1)] * 2, 5),
        "join_schedules: boundaries",
        "5",
    ),
    "E6-boundary-float": (
        lambda: gradtx.join_schedules([gradtx.constant_schedule(1)] * 2, [5.5]),
        "join_schedules: boundaries",
        "5.5",
    ),
    "E6-pairs": (lambda: gradtx.piecewise_constant_schedule(1, [(1, 2)]), "piecewise_constant_schedule: bound", "list"),
    "E6-scale": (lambda: gradtx.piecewise_constant_schedule(1, {1: "a"}), "piecewise_constant_schedule: bound", "'a'"),
    "E8-float": (lambda: gradtx.accumulate(gradtx.sgd(0.1), 2.5), "accumulate: every_k_schedule", "2.5"),
    "E8-bool": (lambda: gradtx.accumulate(gradtx.sgd(0.1), True), "accumulate: every_k_schedule", "True"),
    "E8-str": (lambda: gradtx.accumulate(gradtx.sgd(0.1), "2"), "accumulate: every_k_schedule", "'2'"),
    "E8-none": (lambda: gradtx.accumulate(gradtx.sgd(0.1), None), "accumulate: every_k_schedule", "None"),
    "E8-array": (
        lambda: gradtx.accumulate(gradtx.sgd(0.1), jnp.array(2)),
        "accumulate: every_k_schedule",
        "Array|int32",
    ),
    "E8-swapped": (lambda: gradtx.accumulate(2, gradtx.sgd(0.1)), "accumulate: inner", "int 2"),
    "unknown-argument": (lambda: gradtx.adam(lr=0.1), "adam", "lr"),
    "missing-argument": (lambda: gradtx.adam(), "adam", "learning_rate"),
}


@pytest.mark.parametrize(("make", "where", "got"), TYPES.values(), ids=TYPES)
def test_wrong_type(make, where, got):
    refuses(make, TypeError, f"{where}.*{got}")


@pytest.mark.parametrize(
    "rate", [1, np.int64(1), np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.array(0.5)], ids=repr
)
def test_e4_every_kind_of_number_is_a_number(rate):
    at_update(gradtx.adam(rate), GRADS)()


SCHEDULES = {
    "E7-vector": (lambda count: jnp.ones(3), r"float32\[3\]"),
    "E7-list": (lambda count: [0.1], r"\[1\]|list"),
    "E7-none": (lambda count: None, "None"),
    "E7-str": (lambda count: "fast", "fast|str"),
    "E7-bool": (lambda count: True, "bool"),
    "E7-complex": (lambda count: 1j, "complex"),
    "E7-key": (lambda count: jax.random.key(0), "key<"),
    "E7-schedule": (lambda count: gradtx.constant_schedule(0.1), "constant_schedule"),
}


@pytest.mark.parametrize(("schedule", "got"), SCHEDULES.values(), ids=SCHEDULES)
def test_e7_a_schedule_gives_a_real_scalar(schedule, got):
    for tx, where in (
        (gradtx.adam(schedule), "scale_by_learning_rate: .*learning_rate"),
        (gradtx.clip(schedule), "clip: .*max_delta"),
        (gradtx.accumulate(gradtx.sgd(0.1), schedule), "accumulate: .*every_k_schedule"),
    ):
        refuses(at_update(tx, GRADS), (TypeError, ValueError), f"{where}.*{got}")


def test_e7_an_error_inside_a_schedule_says_where():
    with pytest.raises(TypeError) as caught:
        at_update(gradtx.adam(lambda: 0.1), GRADS)()
    assert any("learning_rate" in note for note in getattr(caught.value, "__notes__", [str(caught.value)]))


@pytest.mark.parametrize(
    "tx",
    [*OPTIMIZERS, gradtx.accumulate(gradtx.adam(0.1), 1), gradtx.adam(gradtx.cosine_decay_schedule(0.1, 10))],
    ids=lambda tx: type(tx).__name__,
)
def test_e10_counters_saturate(tx):
    def saturated(leaf):
        return jnp.full_like(leaf, MAX_INT) if leaf.dtype == jnp.int32 and "mini" not in str(leaf) else leaf

    params = {"w": jnp.ones((2, 3))}
    state = tx.init(params)
    if isinstance(tx, gradtx.accumulate):
        state = state._replace(
            gradient_step=jnp.array(MAX_INT), inner_opt_state=jax.tree.map(saturated, state.inner_opt_state)
        )
    else:
        state = jax.tree.map(saturated, state)
    updates, after = tx.update(params, state, params)
    chex.assert_tree_all_finite((updates, after))
    for leaf in jax.tree.leaves(after):
        assert np.all(np.asarray(leaf) >= 0)


def test_e11_the_resolution_of_schedules_is_documented():
    assert "2²⁴" in inspect.getdoc(gradtx.Schedule)


# F: objects.


@each_optimizer
def test_f1_a_fresh_state_can_be_donated(tx):
    params = jax.tree.map(jnp.copy, PARAMS)
    step = jax.jit(lambda grads, state, params: tx.update(grads, state, params), donate_argnums=(1, 2))
    updates, _ = step(GRADS, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(GRADS)


class Checked:
    """A node that validates its children, as user-made ones do."""

    def __init__(self, x):
        if type(x) in (bool, str):
            raise TypeError("an array, please")
        self.x = x


jax.tree_util.register_pytree_node(Checked, lambda node: ((node.x,), None), lambda _, children: Checked(*children))


@pytest.mark.parametrize(
    "make", [lambda mask: gradtx.masked(gradtx.adam(0.1), mask), lambda mask: gradtx.adamw(0.1, mask=mask)]
)
def test_f6_nodes_that_check_their_children(make):
    params = {"a": Checked(jnp.ones(2)), "b": jnp.ones(2)}
    tx = make({"a": False, "b": True})
    updates, _ = tx.update(params, tx.init(params), params)
    assert isinstance(updates["a"], Checked)


@each_optimizer
def test_f7_parameters_named_like_state_fields(tx):
    params = {"count": jnp.ones(2), "mu": jnp.ones(2), "nu": jnp.ones(2), "trace": jnp.ones(2)}
    updates, state = tx.update(params, tx.init(params), params)
    plain = dict(zip("abcd", params.values(), strict=True))
    np.testing.assert_array_equal(updates["mu"], tx.update(plain, tx.init(plain), plain)[0]["b"])
    tx.update(params, state, params)


@pytest.mark.parametrize("what", [repr, hash, gradtx.to_config, lambda tx: tx.init(jnp.ones(2))])
def test_f9_a_thousand_nested_chains_end_in_a_recursion_error(what):
    tx = gradtx.scale(1.0)
    for _ in range(1000):
        tx = gradtx.chain(tx)
    with pytest.raises((RecursionError, SystemError)):  # the latter where the limit is reached inside of jaxlib
        what(tx)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case("F-set", AttributeError, r"adam is immutable.*replace\(b1=", lambda: setattr(gradtx.adam(0.1), "b1", 0.8)),
        case("F-set-unknown", AttributeError, "adam is immutable", lambda: setattr(gradtx.adam(0.1), "beta", 0.8)),
        case("F-delete", AttributeError, "adam is immutable", lambda: delattr(gradtx.adam(0.1), "b1")),
        case("F-replace", TypeError, "adam: no hyper-parameter b3.*b1, b2", lambda: gradtx.adam(0.1).replace(b3=0.1)),
        case("F-replace-range", ValueError, "adam: b1 .*2", lambda: gradtx.adam(0.1).replace(b1=2)),
        case(
            "F-replace-none",
            TypeError,
            "adam: learning_rate.*None",
            lambda: gradtx.adam(0.1).replace(learning_rate=None),
        ),
        case("F-replace-stages", TypeError, "chain: .*adam", lambda: gradtx.chain().replace(stages=gradtx.adam(0.1))),
        case(
            "F-register-twice",
            ValueError,
            "name 'adam' is taken by gradtx.*rename",
            lambda: type("adam", (gradtx.Leafwise,), {"leaf": lambda self, g: g}),
        ),
        case("F-register-builtin", ValueError, "name 'adam' is taken", lambda: gradtx.register(max, "adam")),
        case(
            "F-register-lambda",
            (TypeError, ValueError),
            "register: .*name.*lambda",
            lambda: gradtx.register(lambda n: 0.1),
        ),
        case("F-register-number", TypeError, "register.*function.*3", lambda: gradtx.register(3)),
        case("F-register-name", TypeError, "register.*name.*3", lambda: gradtx.register(max, 3)),
    ],
)
def test_objects(call, error, message):
    refuses(call, error, message)


# G: configs.


def optimizer_config(**fields):
    return lambda: gradtx.from_config({"name": "adam", "learning_rate": 0.1, **fields})


def mask_config(mask):
    inner = {"name": "sgd", "learning_rate": 0.1}
    return lambda: gradtx.from_config({"name": "masked", "inner": inner, "mask": mask})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        case("G13-none", TypeError, "from_config: expected a mapping.*'name'.*None", lambda: gradtx.from_config(None)),
        case("G13-name-only", TypeError, "from_config: expected a mapping.*'adam'", lambda: gradtx.from_config("adam")),
        case("G13-list", TypeError, r"from_config: expected a mapping.*\[\]", lambda: gradtx.from_config([])),
        case("G13-empty", TypeError, "from_config: .*'name'", lambda: gradtx.from_config({})),
        case("G13-spec", TypeError, r"from_config: .*adam\(0.1\)", lambda: gradtx.from_config(gradtx.adam(0.1))),
        case(
            "G13-text",
            TypeError,
            r"from_config: .*json\.loads",
            lambda: gradtx.from_config(json.dumps(gradtx.to_config(gradtx.adam(0.1)))),
        ),
        case("G13-name-type", (TypeError, ValueError), "from_config: .*5", lambda: gradtx.from_config({"name": 5})),
        case(
            "G13-unknown",
            ValueError,
            "from_config: .*'adma'.*adam",
            lambda: gradtx.from_config({"name": "adma", "learning_rate": 1}),
        ),
        case("G13-base", ValueError, "from_config: .*'Leafwise'", lambda: gradtx.from_config({"name": "Leafwise"})),
        case(
            "G13-hostile",
            ValueError,
            r"learning_rate: .*'os\.system'",
            optimizer_config(learning_rate={"function": "os.system"}),
        ),
        case(
            "G13-eval",
            ValueError,
            "from_config.*'builtins.eval'",
            lambda: gradtx.from_config({"name": "builtins.eval"}),
        ),
        case("G13-nan", ValueError, "adam: learning_rate.*nan", optimizer_config(learning_rate={"float": "nan"})),
        case("G14-key", ValueError, "adam has no hyper-parameter b3.*b1, b2", optimizer_config(b3=1)),
        case(
            "G14-key-type",
            ValueError,
            "adam has no hyper-parameter 5",
            lambda: gradtx.from_config({"name": "adam", "learning_rate": 0.1, 5: 1}),
        ),
        case("G14-missing", ValueError, "adam needs learning_rate", lambda: gradtx.from_config({"name": "adam"})),
        case("G14-format", ValueError, "format 2.*reads format 1", optimizer_config(format=2)),
        case("G14-format-type", ValueError, "format '1'", optimizer_config(format="1")),
        case("G-range", ValueError, "adam: learning_rate.*-1", optimizer_config(learning_rate=-1)),
        case("G-str", TypeError, "adam: learning_rate.*'fast'", optimizer_config(learning_rate="fast")),
        case("G-none", TypeError, "adam: learning_rate.*None", optimizer_config(learning_rate=None)),
        case("G-nested", ValueError, "adam.learning_rate: .*'nope'", optimizer_config(learning_rate={"name": "nope"})),
        case("G-dict", ValueError, "adam.learning_rate: .*'foo'", optimizer_config(learning_rate={"foo": 1})),
        case("G-object", ValueError, "adam.learning_rate: .*object", optimizer_config(learning_rate=object())),
        case(
            "G-transformation",
            TypeError,
            "adam: learning_rate.*adam",
            optimizer_config(learning_rate={"name": "adam", "learning_rate": 0.1}),
        ),
        case("G-float", ValueError, "adam.learning_rate: .*'abc'", optimizer_config(learning_rate={"float": "abc"})),
        case(
            "G-array",
            ValueError,
            "adam.learning_rate: .*'a'",
            optimizer_config(learning_rate={"array": [1, "a"], "dtype": "float32"}),
        ),
        case(
            "G-array-dtype",
            ValueError,
            "adam.learning_rate: .*'float33'",
            optimizer_config(learning_rate={"array": 0.1, "dtype": "float33"}),
        ),
        case(
            "G-array-ragged",
            ValueError,
            r"adam.learning_rate: .*\[\[1\], \[1, 2\]\]",
            optimizer_config(learning_rate={"array": [[1], [1, 2]], "dtype": "float32"}),
        ),
        case("G-mask-item", ValueError, "masked.mask: ", mask_config({"dict": [1]})),
        case("G-mask-key", ValueError, "masked.mask: ", mask_config({"dict": [[["a"], True]]})),
        case("G-mask-value", TypeError, r"masked: mask\['a'\].*int 1", mask_config({"dict": [["a", 1]]})),
        case(
            "G-stages-number",
            (TypeError, ValueError),
            "chain.*stages.*3",
            lambda: gradtx.from_config({"name": "chain", "stages": 3}),
        ),
        case(
            "G-stages-str",
            (TypeError, ValueError),
            "chain.*stage.*(abc|str)",
            lambda: gradtx.from_config({"name": "chain", "stages": "abc"}),
        ),
        case(
            "G-stage",
            TypeError,
            "chain: stage 0 .*int 3",
            lambda: gradtx.from_config({"name": "chain", "stages": {"tuple": [3]}}),
        ),
        case("G-missing-stages", ValueError, "chain needs stages", lambda: gradtx.from_config({"name": "chain"})),
        case(
            "G-functions",
            ValueError,
            "GradientTransformation needs init_fn, update_fn",
            lambda: gradtx.from_config({"name": "GradientTransformation"}),
        ),
        case(
            "to-config-lambda",
            TypeError,
            "to_config: adam.learning_rate is .*<lambda>.*register",
            lambda: gradtx.to_config(gradtx.adam(lambda n: 0.1)),
        ),
        case(
            "to-config-deep-lambda",
            TypeError,
            r"to_config: chain.stages\[1\].stages\[0\].learning_rate is .*<lambda>",
            lambda: gradtx.to_config(gradtx.chain(gradtx.clip(1.0), gradtx.chain(gradtx.sgd(lambda n: 0.1)))),
        ),
        case("to-config-optax", TypeError, "to_config: expected a gradtx", lambda: gradtx.to_config(optax.adam(0.1))),
        case(
            "to-config-optax-stage",
            TypeError,
            r"to_config: chain.stages\[0\] is GradientTransformationExtraArgs",
            lambda: gradtx.to_config(gradtx.chain(optax.adam(0.1))),
        ),
        case(
            "to-config-mask",
            TypeError,
            "to_config: masked.mask is .*<lambda>",
            lambda: gradtx.to_config(gradtx.masked(gradtx.sgd(0.1), lambda params: True)),
        ),
        case(
            "to-config-class",
            TypeError,
            "to_config: expected a gradtx.*adam.*call",
            lambda: gradtx.to_config(gradtx.adam),
        ),
        case("to-config-none", TypeError, "to_config: expected a gradtx.*None", lambda: gradtx.to_config(None)),
        case(
            "to-config-traced",
            TypeError,
            "to_config: adam.learning_rate is .*[Tt]race",
            lambda: jax.jit(lambda rate: gradtx.to_config(gradtx.adam(rate)) and rate)(0.1),
        ),
    ],
)
def test_config(call, error, message):
    refuses(call, error, message)


def test_pickle_of_a_lambda_is_refused_by_pickle():
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(gradtx.adam(lambda n: 0.1))
