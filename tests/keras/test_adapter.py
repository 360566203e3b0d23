"""`as_keras` in the real Keras 3, on JAX."""

import collections
import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import chex
import helpers
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest

import gradtx
import gradtx.keras.adapter.as_keras
from gradtx.core.hyperparams import Rate
from gradtx.keras import optimizers, schedules
from gradtx.keras.adapter.as_keras import as_keras, register_with_keras
from gradtx.keras.keras2 import optimizers as keras2
from gradtx.keras.tf_keras import optimizers as tf_keras
from gradtx.keras.tf_keras_legacy import optimizers as tf_keras_legacy

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # Keras, NumPy 2

BATCH, STEPS = 16, 4


@pytest.fixture(autouse=True)
def _promotion():
    """Keras's own code mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def data(n: int = BATCH * STEPS) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=(n, 2)).astype(np.float32)


X, Y = data()


def make_model(optimizer: Any = None, **compile_args: Any) -> Any:
    """Two layers with the same weights every time."""
    init = keras.initializers.RandomNormal(seed=0)
    layers = [keras.layers.Dense(8, "tanh", name="hidden", kernel_initializer=init), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.layers.Input((4,)), *layers], name="net")
    model.layers[1].kernel.assign(np.linspace(-0.5, 0.5, 16, dtype=np.float32).reshape(8, 2))
    model.compile(optimizer=optimizer, loss="mse", **compile_args)
    return model


def fit(model: Any, epochs: int = 1, **arguments: Any) -> Any:
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return model


def weights(model: Any) -> dict[str, Any]:
    return collections.OrderedDict((v.path, v.numpy()) for v in model.trainable_variables)


def loss_fn(params: Any, x: Any, y: Any) -> Any:
    h = jnp.tanh(x @ params["net/hidden/kernel"] + params["net/hidden/bias"])
    return jnp.mean((h @ params["net/head/kernel"] + params["net/head/bias"] - y) ** 2)


def by_hand(tx: Any, steps: int = STEPS) -> Any:
    """The parameters and the state after a loop without Keras."""
    params = collections.OrderedDict((path, jnp.asarray(value)) for path, value in weights(make_model()).items())
    state = tx.init(params)

    @jax.jit
    def step(params, state, x, y):
        updates, state = tx.update(jax.grad(loss_fn)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for i in range(steps):
        rows = slice(BATCH * (i % STEPS), BATCH * (i % STEPS + 1))
        params, state = step(params, state, X[rows], Y[rows])
    return params, state


def assert_same(a: Any, b: Any, rtol: float = 0, atol: float = 0) -> None:
    """The same leaves, in trees that may be of different kinds."""
    chex.assert_trees_all_close(jax.tree.leaves(a), jax.tree.leaves(b), rtol=rtol, atol=atol)


def assert_same_model(a: Any, b: Any) -> None:
    assert_same([v.numpy() for v in a.variables], [v.numpy() for v in b.variables])
    assert_same([v.numpy() for v in a.optimizer.variables], [v.numpy() for v in b.optimizer.variables])


def by_layer() -> Any:
    """A chain that Keras cannot express."""
    groups = {"lion": gradtx.lion(1e-3), "adam": gradtx.adam(1e-2)}
    labels = gradtx.label_by_path({"kernel": "lion"}, otherwise="adam")
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lookahead(gradtx.partition(groups, labels), 3, 0.5))


TRANSFORMATIONS = {
    "clipped adam": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-2)),
    "by layer": by_layer,
    "begins at the parameters": lambda: gradtx.schedule_free_adamw(0.01, warmup_steps=2),
    "random": lambda: gradtx.chain(gradtx.add_noise(0.1, 0.5, key=3), gradtx.sgd(0.1)),
    "scheduled": lambda: gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 10), weight_decay=0.1),
    "injected": lambda: gradtx.inject_hyperparams(gradtx.adam(1e-2), names="learning_rate"),
    "half-precision moment": lambda: gradtx.adam(1e-2, mu_dtype="bfloat16"),
    "factored": lambda: gradtx.adafactor(1e-2, min_dim_size_to_factor=2),
    "optax": lambda: optax.adam(1e-2),
    "optax, injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
}
SAVEABLE = [name for name in TRANSFORMATIONS if "optax" not in name]


@pytest.mark.parametrize("name", helpers.every_other(TRANSFORMATIONS))
def test_fit_is_the_loop_written_by_hand(name):
    tx = TRANSFORMATIONS[name]()
    model = fit(make_model(as_keras(tx)))
    params, state = by_hand(tx)
    assert model.jit_compile
    assert_same(weights(model), params, rtol=2e-5, atol=1e-7)  # two programs, the sums in another order
    ours = model.optimizer.get_state()
    assert [type(x) for x in jax.tree.leaves(ours)] == [type(x) for x in jax.tree.leaves(state)]
    floats = [
        [np.asarray(x, np.float32) for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
        for tree in (ours, state)
    ]
    assert_same(*floats, rtol=2e-2 if "half" in name else 2e-4, atol=1e-6)


# Variables of the state.


def test_variables_of_the_state_have_readable_names_and_their_own_dtypes():
    optimizer = as_keras(gradtx.chain(gradtx.adam(1e-3, mu_dtype="bfloat16"), gradtx.add_noise(0.1, 0.5, key=0)))
    optimizer.build(make_model().trainable_variables[:2])
    assert [(v.path.partition("/")[2], v.dtype) for v in optimizer.variables] == [
        ("iteration", "int32"),
        ("learning_rate", "float32"),
        ("0_0_count", "int32"),
        ("net_hidden_kernel_mu", "bfloat16"),
        ("net_hidden_bias_mu", "bfloat16"),
        ("net_hidden_kernel_nu", "float32"),
        ("net_hidden_bias_nu", "float32"),
        ("0_1_count", "int32"),
        ("0_1_learning_rate", "float32"),
        ("1_count", "int32"),
        ("rng_key", "uint32"),
    ]


def test_names_stay_apart():
    """Two stages with the same field, two variables with the same path."""
    variables = [keras.Variable(np.ones(2, np.float32), name="w") for _ in range(2)]
    optimizer = as_keras(gradtx.chain(gradtx.trace(0.9), gradtx.sgd(0.1, momentum=0.9)))
    optimizer.apply([jnp.ones(2), -jnp.ones(2)], variables)
    names = [v.path for v in optimizer.variables]
    assert len(set(names)) == len(names)
    np.testing.assert_allclose(variables[0].numpy() - 1, 1 - variables[1].numpy(), rtol=1e-6)


def test_nothing_to_train_and_nothing_to_remember():
    optimizer = as_keras(gradtx.adam(1e-3))
    with pytest.raises(ValueError, match="no state yet"):
        optimizer.get_state()
    optimizer.build([])
    assert optimizer.get_state() is not None
    plain = as_keras(gradtx.chain(gradtx.clip(1.0), gradtx.identity()), learning_rate=0.5)
    w = keras.Variable(np.zeros(2, np.float32))
    plain.apply([jnp.array([4.0, -0.5])], [w])
    np.testing.assert_array_equal(w.numpy(), [-0.5, 0.25])
    assert len(plain.variables) == 2


# What Keras does around an update.

ARGUMENTS = {
    "plain": {},
    "weight_decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "loss_scale_factor": {"loss_scale_factor": 4.0},
    "use_ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "accumulation": {"gradient_accumulation_steps": 3, "weight_decay": 0.1, "clipnorm": 0.5},
    "all": {
        "gradient_accumulation_steps": 2,
        "weight_decay": 0.1,
        "global_clipnorm": 0.5,
        "use_ema": True,
        "loss_scale_factor": 2.0,
    },
}


def start() -> list[Any]:
    rng = np.random.default_rng(1)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in ((3, 2), (2,))]


def gradients(variables: list[Any], steps: int = 6) -> list[list[Any]]:
    rng = np.random.default_rng(2)
    return [[jnp.asarray(rng.normal(size=v.shape), jnp.float32) for v in variables] for _ in range(steps)]


@pytest.mark.parametrize("name", helpers.every_other(ARGUMENTS, 1))
def test_base_arguments_do_what_they_do_for_keras(name):
    ours, theirs, pure = start(), start(), start()
    a = as_keras(gradtx.sgd(0.1, momentum=0.9), **ARGUMENTS[name])
    b = keras.optimizers.SGD(0.1, momentum=0.9, **ARGUMENTS[name])
    c = as_keras(gradtx.sgd(0.1, momentum=0.9), **ARGUMENTS[name])
    c.build(pure)
    values, state = [v.value for v in pure], [v.value for v in c.variables]
    apply = jax.jit(c.stateless_apply)
    for grads in gradients(ours):
        a.apply_gradients(zip(grads, ours, strict=True))
        b.apply_gradients(zip(grads, theirs, strict=True))
        values, state = apply(state, grads, values)
    assert_same([v.numpy() for v in ours], [v.numpy() for v in theirs], rtol=2e-6, atol=1e-7)
    assert_same([v.numpy() for v in ours], values, rtol=2e-6, atol=1e-7)
    assert_same([v.numpy() for v in a.variables], state, rtol=2e-6, atol=1e-7)
    assert int(a.iterations) == int(b.iterations)
    assert apply._cache_size() == 1
    a.finalize_variable_values(ours)
    b.finalize_variable_values(theirs)
    assert_same([v.numpy() for v in ours], [v.numpy() for v in theirs], rtol=2e-6, atol=1e-7)


def test_unknown_arguments_are_refused():
    wrong: Any = {"momentum": 0.9}
    with pytest.raises(TypeError, match="momentum"):
        as_keras(gradtx.sgd(0.1), **wrong)
    with pytest.raises(ValueError, match="Only one of"):
        as_keras(gradtx.sgd(0.1), clipnorm=1.0, clipvalue=1.0)


def test_mixed_precision_scales_the_loss():
    """Compiled under a half-precision policy Keras wraps the optimizer; two steps run in one call."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = make_model(as_keras(gradtx.adam(1e-2)), steps_per_execution=2)
        before = weights(model)
        fit(model)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert int(model.optimizer.iterations) == STEPS
    assert gradtx.metrics(model.optimizer.inner_optimizer.get_state())["steps"] == STEPS
    params, _ = by_hand(gradtx.adam(1e-2))
    for path, value in weights(model).items():
        assert value.dtype == np.float32
        moved = params[path] - before[path]
        assert np.mean(np.abs(value - params[path])) < 0.05 * np.mean(np.abs(moved)), "float16 gradients, nothing else"


def test_loss_scale_optimizer_skips_what_is_not_finite():
    variables = start()
    optimizer = keras.optimizers.LossScaleOptimizer(as_keras(gradtx.adam(0.1)), initial_scale=8.0)
    optimizer.build(variables)
    values, state = [v.value for v in variables], [v.value for v in optimizer.variables]
    good, bad = gradients(variables, 2)
    apply = jax.jit(optimizer.stateless_apply)
    values, state = apply(state, [8 * g for g in good], values)
    alone = as_keras(gradtx.adam(0.1))
    others = start()
    alone.apply(good, others)
    assert_same(values, [v.numpy() for v in others], rtol=1e-6)
    after, state_after = apply(state, [bad[0].at[0, 0].set(jnp.inf), bad[1]], values)
    assert_same(after, values)
    assert_same(state_after[4:], state[4:])
    assert float(state_after[3]) == 4.0


# The learning rate.


def test_a_callback_changes_the_rate_that_is_used_and_nothing_is_traced_again():
    traces: list[int] = []

    def note(updates: Any, state: Any, params: Any = None) -> Any:
        traces.append(1)
        return updates, state

    watched = gradtx.chain(gradtx.GradientTransformation(lambda params: (), note), gradtx.sgd(0.5, momentum=0.5))
    model = make_model(as_keras(watched))
    assert float(model.optimizer.learning_rate.value) == 0.5
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + epoch))
    fit(model, 1)
    count = len(traces)
    fit(model, 3, callbacks=[schedule])
    assert len(traces) == count
    rates = [0.5, 0.5, 0.25, 0.5 / 6]
    params, _ = by_hand(gradtx.sgd(lambda t: jnp.asarray(rates, jnp.float32)[t // STEPS], momentum=0.5), 4 * STEPS)
    assert_same(weights(model), params, rtol=2e-5, atol=1e-7)
    state = model.optimizer.get_state()
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], rates[-1], rtol=1e-6)
    np.testing.assert_allclose(model.optimizer.learning_rate.numpy(), rates[-1], rtol=1e-6)


def test_reduce_on_plateau_keeps_the_ratio_of_several_rates():
    model = make_model(as_keras(by_layer()))
    assert float(model.optimizer.learning_rate.value) == np.float32(1e-2), "the largest"
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    fit(model, 3, callbacks=[plateau])
    np.testing.assert_allclose(model.optimizer.learning_rate.numpy(), 1e-4, rtol=1e-5)
    fit(model, 1)
    found = gradtx.metrics(model.optimizer.get_state())
    rates = {name: float(value) for name, value in found.items() if name.endswith("learning_rate")}
    assert rates == pytest.approx({"adam/learning_rate": 1e-4, "lion/learning_rate": 1e-5}, rel=1e-5)


INJECTED = {
    "gradtx": lambda: gradtx.inject_hyperparams(gradtx.sgd(0.5)),
    "gradtx in a chain": lambda: gradtx.chain(gradtx.clip(9.0), gradtx.inject_hyperparams(gradtx.sgd)(0.5)),
    "optax": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.5),
    "optax in our chain": lambda: gradtx.chain(optax.clip(9.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)),
    "our field": lambda: gradtx.chain(gradtx.clip(9.0), gradtx.sgd(0.5)),
    "an array": lambda: gradtx.sgd(jnp.array(0.5)),
    "optax inside, our rate": lambda: gradtx.chain(optax.identity(), gradtx.scale_by_learning_rate(0.5)),
}


@pytest.mark.parametrize("name", INJECTED)
def test_a_rate_is_found_wherever_it_can_be_set(name):
    optimizer = as_keras(INJECTED[name]())
    assert float(optimizer.learning_rate.value) == 0.5
    w = keras.Variable(np.zeros(1, np.float32))
    for rate in (0.5, 0.25, 2):
        optimizer.learning_rate = rate
        before = w.numpy()
        optimizer.apply([jnp.ones(1)], [w])
        np.testing.assert_array_equal(w.numpy() - before, [-rate])


@pytest.mark.parametrize("given", [2, 2.0, np.float32(2), jnp.array(2.0)], ids=["int", "float", "numpy", "jax"])
def test_a_rate_can_be_given_instead(given):
    optimizer = as_keras(gradtx.sgd(0.5), given)
    w = keras.Variable(np.zeros(1, np.float32))
    optimizer.apply([jnp.ones(1)], [w])
    assert w.numpy() == -2


def test_schedules_of_keras_and_functions():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [1.0, 2.0, 4.0])
    w = keras.Variable(np.zeros(1, np.float32))
    optimizer = as_keras(gradtx.sgd(0.5), schedule)
    seen = []
    for _ in range(3):
        optimizer.apply([jnp.ones(1)], [w])
        seen.append(float(w.numpy()[0]))
    assert seen == [-1, -3, -7]
    assert optimizer.get_config()["learning_rate"]["config"]["values"] == [1.0, 2.0, 4.0]
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.transformation == gradtx.sgd(0.5)
    assert float(again.learning_rate) == 1.0
    function = as_keras(gradtx.sgd(0.5), lambda: 0.125)
    function.apply([jnp.ones(1)], [w])
    assert w.numpy() == -7.125
    later = as_keras(gradtx.sgd(0.5))
    later.learning_rate = schedule
    later.apply([jnp.ones(1)], [w])
    assert w.numpy() == -8.125


def test_a_transformation_without_a_rate_needs_one_and_the_sign_is_turned():
    with pytest.raises(ValueError, match=r"scale_by_adam\(\) has no learning rate: give one"):
        as_keras(gradtx.scale_by_adam())
    model = fit(make_model(as_keras(gradtx.scale_by_adam(), 1e-2)))
    assert_same(weights(model), weights(fit(make_model(as_keras(gradtx.adam(1e-2))))), rtol=1e-6)


def test_a_schedule_inside_can_be_read_and_not_set():
    tx = gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 4))
    optimizer = as_keras(tx, weight_decay=0.5, gradient_accumulation_steps=2)
    w = keras.Variable(np.ones(1, np.float32))
    read = []
    for _ in range(4):
        read.append(float(optimizer.learning_rate))
        optimizer.apply([jnp.zeros(1)], [w])
    assert read == [1.0, 1.0, 0.75, 0.75], "the schedule counts updates, not micro-steps"
    np.testing.assert_allclose(w.numpy(), [(1 - 0.5) * (1 - 0.5 * 0.75)], rtol=1e-6)
    with pytest.raises(TypeError, match="cannot be set: the transformation follows a schedule"):
        optimizer.learning_rate = 0.1
    with pytest.raises(ValueError, match=r"learning_rate=0.1 would be ignored: .* schedule"):
        as_keras(tx, 0.1)
    assert optimizer.get_config()["learning_rate"] is None
    assert type(optimizer).from_config(optimizer.get_config()).transformation == tx


def test_a_hidden_rate_stays_and_nothing_pretends_to_change_it():
    optimizer = as_keras(optax.sgd(0.5))
    w = keras.Variable(np.zeros(1, np.float32))
    optimizer.apply([jnp.ones(1)], [w])
    assert w.numpy() == -0.5
    with pytest.raises(AttributeError, match="use optax"):
        _ = optimizer.learning_rate
    with pytest.raises(TypeError, match="use optax"):
        optimizer.learning_rate = 0.1
    with pytest.raises(ValueError, match="would be ignored"):
        as_keras(optax.sgd(0.5), 0.1)
    with pytest.raises(ValueError, match="is multiplied by the learning rate"):
        as_keras(optax.sgd(0.5), weight_decay=0.1)
    with pytest.raises(ValueError, match="learning_rate"):
        fit(make_model(optimizer), callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)])
    with pytest.raises(AttributeError, match="gradtx's optimizer"):
        _ = as_keras(gradtx.chain(gradtx.clip(1.0), optax.sgd(0.5))).learning_rate


# Files.


@pytest.mark.parametrize("name", helpers.every_other(SAVEABLE, 1))
def test_save_load_resume_is_exact(name, tmp_path):
    tx = TRANSFORMATIONS[name]()
    model = fit(make_model(as_keras(tx, name="mine", clipnorm=2.0)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.transformation == tx
    assert (loaded.optimizer.name, loaded.optimizer.clipnorm) == ("mine", 2.0)
    assert_same_model(model, loaded)
    fit(model)
    fit(loaded)
    assert_same_model(model, loaded)


def test_weights_files_and_a_rate_that_was_changed(tmp_path):
    model = fit(make_model(as_keras(by_layer(), gradient_accumulation_steps=2, use_ema=True)))
    model.optimizer.learning_rate = 5e-3
    model.save_weights(tmp_path / "model.weights.h5")
    built = make_model(as_keras(by_layer(), gradient_accumulation_steps=2, use_ema=True))
    built.optimizer.build(built.trainable_variables)
    built.load_weights(tmp_path / "model.weights.h5")
    assert_same_model(model, built)
    assert float(built.optimizer.learning_rate.value) == np.float32(5e-3)

    unbuilt = make_model(as_keras(by_layer(), gradient_accumulation_steps=2, use_ema=True))
    unbuilt.load_weights(tmp_path / "model.weights.h5")
    fit(model)
    fit(unbuilt)
    assert_same_model(model, unbuilt)


def test_weights_of_another_model_are_refused(tmp_path):
    ours, theirs = as_keras(gradtx.adam(0.1)), as_keras(gradtx.adam(0.1))
    ours.build(start())
    store: dict[str, Any] = {}
    ours.save_own_variables(store)
    theirs.load_own_variables(store)
    with pytest.raises(ValueError, match="belongs to another model"):
        theirs.build([keras.Variable(np.zeros((3, 3), np.float32)), keras.Variable(np.zeros(2, np.float32))])
    fewer = as_keras(gradtx.adam(0.1))
    fewer.load_own_variables(store)
    with pytest.warns(UserWarning, match="Skipping variable loading"):
        fewer.build(start()[:1])


def test_copies_and_pickles_keep_the_state():
    variables = start()
    optimizer = as_keras(gradtx.adam(0.1), use_ema=True)
    first, second = gradients(variables, 2)
    optimizer.apply(first, variables)
    values = [v.numpy() for v in variables]
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(copy.deepcopy(optimizer))]
    optimizer.apply(second, variables)
    for other in copies:
        again = [keras.Variable(value) for value in values]
        other.apply(second, again)
        assert_same([v.numpy() for v in again], [v.numpy() for v in variables])
        assert_same([v.numpy() for v in other.variables], [v.numpy() for v in optimizer.variables])
    model = fit(make_model(as_keras(gradtx.adam(0.1))))
    assert_same_model(pickle.loads(pickle.dumps(model)), model)


def test_closures_cannot_be_saved_and_say_so(tmp_path):
    model = fit(make_model(as_keras(gradtx.chain(gradtx.clip(1.0), optax.adam(1e-2)))))
    with pytest.raises(TypeError, match=r"cannot be saved: .*stages.*GradientTransformation.*save_weights"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = make_model(as_keras(gradtx.chain(gradtx.clip(1.0), optax.adam(1e-2))))
    again.load_weights(tmp_path / "model.weights.h5")
    fit(model)
    fit(again)
    assert_same_model(model, again)


def test_a_config_runs_nothing():
    config = as_keras(gradtx.adam(0.1)).get_config()
    config["transformation"] = {"format": 1, "name": "os.system", "command": "true"}
    with pytest.raises(ValueError, match=r"nothing is registered under 'os\.system'"):
        type(as_keras(gradtx.adam(0.1))).from_config(config)


LOAD = """
import sys
print("keras" in sys.modules)
model = keras.models.load_model(sys.argv[1])
print(model.optimizer.transformation, int(model.optimizer.iterations))
print(repr(keras.optimizers.get("gradtx>lion").transformation))
"""
IMPORTS = {
    "ours first": "import gradtx.keras, sys; assert 'keras' not in sys.modules; import keras",
    "keras first": "import keras, gradtx.keras",
    "asked for in between": "import gradtx.keras, importlib.util; importlib.util.find_spec('keras'); import keras",
}


@pytest.mark.parametrize("imports", IMPORTS)
def test_another_program_loads_what_was_saved(imports, tmp_path):
    model = fit(make_model(as_keras(gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3)))))
    model.save(tmp_path / "model.keras")
    done = run(IMPORTS[imports] + LOAD, str(tmp_path / "model.keras"))
    expected = ["True", f"chain(clip(1.0), adam(0.001)) {STEPS}", "lion(0.001)"]
    assert done.stdout.splitlines() == expected, done.stderr


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# Keras that is not there, or not on JAX.


def test_another_backend_is_refused():
    program = "import gradtx.keras.adapter.as_keras as a, gradtx, keras; a.as_keras(gradtx.adam(0.1))"
    done = run(program, KERAS_BACKEND="numpy")
    assert "RuntimeError: as_keras needs Keras on JAX, but Keras runs on numpy" in done.stderr
    assert "KERAS_BACKEND=jax" in done.stderr


def test_keras_missing_or_old(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    with pytest.raises(ImportError, match=r"this is 2\.15\.0"):
        as_keras(gradtx.adam(0.1))
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r"pip install 'gradtx\[keras\]'"):
        as_keras(gradtx.adam(0.1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (gradtx.adam, r"got the class adam: call it, adam\(\.\.\.\)"),
        (3, "expected a transformation"),
        (gradtx.polyak_sgd(), "needs value at every update"),
        (gradtx.dpsgd(0.1, 1.0, 1.0, 0), "dpsgd needs the gradient of each example"),
    ],
    ids=["class", "number", "value", "examples"],
)
def test_what_is_no_transformation_for_keras(wrong, message):
    with pytest.raises(TypeError, match=message):
        as_keras(wrong)


UNFIT = {
    "optax.chain": (lambda: optax.lbfgs(), "TypeError: scale_by_zoom_linesearch.*'value_fn'"),
    "optax.lookahead": (lambda: optax.lookahead(optax.sgd(0.1), 5, 0.5), "AttributeError: .*'fast'"),
    "optax.identity, optax.chain": (
        lambda: gradtx.chain(gradtx.clip(1.0), gradtx.chain(optax.identity(), optax.polyak_sgd())),
        "TypeError: scale_by_polyak.*'value'",
    ),
}


@pytest.mark.parametrize("tx", UNFIT)
@pytest.mark.filterwarnings("ignore:.*fast")
def test_what_optax_does_not_say_until_its_first_step(tx):
    """Neither its type nor its signature tells that an update needs more: one is tried when Keras builds it."""
    make, cause = UNFIT[tx]
    optimizer = as_keras(make())
    for _ in range(2):
        with pytest.raises(TypeError, match=rf"as_keras: {tx} does not work inside Keras \({cause}"):
            optimizer.build(start())
    assert not optimizer.built


def test_what_cannot_be_compiled_is_not_refused():
    """Keras may run it without."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda u: u if float(jnp.sum(u)) > 0 else -u, updates), state

    optimizer = as_keras(optax.GradientTransformation(lambda params: (), update))
    w = keras.Variable(np.ones(2, np.float32))
    optimizer.apply([jnp.ones(2)], [w])
    np.testing.assert_array_equal(w.numpy(), [2, 2])


# Optimizers of `gradtx.keras`.


@pytest.mark.parametrize("name", helpers.every_other(ARGUMENTS))
def test_an_optimizer_of_ours_is_keras_with_its_arguments(name):
    ours, theirs = start(), start()
    a = as_keras(optimizers.RMSprop(0.1, **ARGUMENTS[name]))
    b = keras.optimizers.RMSprop(0.1, **ARGUMENTS[name])
    for grads in gradients(ours):
        a.apply(grads, ours)
        b.apply(grads, theirs)
    assert_same([v.numpy() for v in ours], [v.numpy() for v in theirs], rtol=1e-5, atol=1e-6)
    a.finalize_variable_values(ours)
    b.finalize_variable_values(theirs)
    assert_same([v.numpy() for v in ours], [v.numpy() for v in theirs], rtol=1e-5, atol=1e-6)
    ignored = {"name", "transformation"}
    config = {key: value for key, value in a.get_config().items() if key not in ignored}
    assert config == {key: value for key, value in b.get_config().items() if key in config}


def test_what_an_optimizer_of_ours_was_told_is_kept():
    facade = optimizers.SGD(0.5, momentum=0.9, weight_decay=0.1, name="mine")
    variables = [keras.Variable(np.ones(2, np.float32), name=name) for name in ("kernel", "bias", "other")]
    facade.exclude_from_weight_decay([variables[2]], ["bias"])
    optimizer = as_keras(facade)
    optimizer.apply([jnp.zeros(2)] * 3, variables)
    assert_same([v.numpy() for v in variables], [0.95 * np.ones(2), np.ones(2), np.ones(2)], rtol=1e-6)
    assert optimizer.name == "mine"
    assert as_keras(optimizers.SGD(weight_decay=0.1), weight_decay=0.2).weight_decay == 0.2
    assert as_keras(optimizers.Lamb()).name.startswith("lamb")


def test_rates_of_optimizers_of_ours():
    w = keras.Variable(np.zeros(1, np.float32))
    slowing = as_keras(optimizers.SGD(lr=1.0, decay=1.0))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.5])
    of_keras, function = as_keras(optimizers.SGD(schedule)), as_keras(optimizers.SGD(lambda: 0.25))
    for optimizer, first, second in ((slowing, 1.0, 0.5), (of_keras, 1.0, 0.5), (function, 0.25, 0.25)):
        for expected in (first, second):
            assert float(optimizer.learning_rate) == (1.0 if optimizer is slowing else expected)
            before = w.numpy()
            optimizer.apply([jnp.ones(1)], [w])
            np.testing.assert_array_equal(before - w.numpy(), [expected])
    of_keras.get_config()


DECAYING = {
    "keras2": lambda: keras2.SGD(lr=1.0, decay=1.0, momentum=0.5, nesterov=True),
    "counted from 1": lambda: keras2.SGD(lr=1.0, decay=1.0, counter_first=True),
    "legacy": lambda: tf_keras_legacy.RMSprop(1.0, decay=1.0, momentum=0.5),
    "several rates": lambda: optimizers.Muon(1.0, decay=1.0, adam_lr_ratio=0.5, exclude_layers=["kernel"]),
}


@pytest.mark.parametrize("name", DECAYING)
def test_a_rate_under_decay_can_be_set_and_is_the_rate_at_the_start(name):
    """As in Keras 2: `lr` is what the decay starts from; the facade itself, set in the same way, is the reference."""
    facade, values = DECAYING[name](), {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    optimizer = as_keras(DECAYING[name]())
    variables = [keras.Variable(value, name=path) for path, value in values.items()]
    for step, rate in enumerate([1.0, 1.0, 0.25, 0.25]):
        facade.lr = optimizer.learning_rate = rate
        assert float(optimizer.learning_rate) == float(optimizer.lr) == rate
        grads = [jnp.full(v.shape, 1.0 + step) for v in variables]
        values = facade.apply({v.name: grad for v, grad in zip(variables, grads, strict=True)}, values)
        optimizer.apply(grads, variables)
        assert_same([v.numpy() for v in variables], [values[v.name] for v in variables], rtol=1e-5)
    again = type(optimizer).from_config(optimizer.get_config())
    assert (float(again.learning_rate), again.transformation) == (0.25, optimizer.transformation)


def test_callbacks_set_a_rate_under_decay():
    """The optimizer with which Keras 2's own examples begin."""
    model = make_model(as_keras(keras2.SGD(lr=0.01, decay=1e-6, momentum=0.9, nesterov=True)))
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    fit(model, 3, callbacks=[plateau, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)])
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.01 / 8 / 100, rtol=1e-5)


def test_weight_decay_of_keras_uses_the_decayed_rate():
    optimizer, w = as_keras(optimizers.SGD(0.5, decay=1.0, weight_decay=1.0)), keras.Variable(np.ones(1, np.float32))
    for _ in range(2):
        optimizer.apply([jnp.zeros(1)], [w])
    np.testing.assert_allclose(w.numpy(), [(1 - 0.5) * (1 - 0.25)])


def test_decay_that_is_none_is_left_alone():
    """The legacy Nadam calls its `schedule_decay` so; beside a schedule the rate follows that."""
    assert float(as_keras(tf_keras_legacy.Nadam(0.5, decay=0.25)).learning_rate) == 0.5
    optimizer = as_keras(tf_keras_legacy.SGD(schedules.PiecewiseConstantDecay([0], [1.0, 0.5]), decay=1.0))
    with pytest.raises(TypeError, match="schedule of its own"):
        optimizer.learning_rate = 0.1


def test_optimizers_of_ours_by_name():
    optimizer = keras.optimizers.get({"class_name": "gradtx>AdamW", "config": {"beta_1": 0.8, "clipnorm": 2.0}})
    assert (optimizer.weight_decay, optimizer.clipnorm) == (0.004, 2.0)
    assert optimizer.transformation == optimizers.AdamW(beta_1=0.8).chain(0.001)
    assert "gradtx>Optimizer" not in keras.saving.get_custom_objects()


LOSS_SCALE = r"keras\.optimizers\.LossScaleOptimizer\(as_keras"
MUST_BE_KERAS_S = {
    "loss scale": (lambda: optimizers.LossScaleOptimizer(optimizers.SGD()), LOSS_SCALE),
    "of tf_keras": (lambda: tf_keras.LossScaleOptimizer(tf_keras.SGD()), LOSS_SCALE),
    "fixed": (
        lambda: tf_keras.LossScaleOptimizer(tf_keras.SGD(), dynamic=False, initial_scale=8.0),
        r"as_keras\(inner_optimizer, loss_scale_factor=8\)",
    ),
    "several": (
        lambda: optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD())),
        r"keras\.optimizers\.MultiOptimizer\(keras\.optimizers\.OptimizerMap\(as_keras",
    ),
}


@pytest.mark.parametrize("name", MUST_BE_KERAS_S)
def test_optimizers_that_hold_others_must_be_keras_s(name):
    """Keras would not scale the loss, and the updates would be 2⁻¹⁵ of what they should be."""
    make, cure = MUST_BE_KERAS_S[name]
    with pytest.raises(TypeError, match=rf"Optimizer must be Keras's own.*{cure}"):
        as_keras(make())


@keras.saving.register_keras_serializable("test_adapter")
class Momentum(optimizers.Optimizer):
    """One of a user's own, in the way that Keras 3 documents."""

    def __init__(self, learning_rate: Any = 0.1, beta: float = 0.9, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta = beta

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        v = self.velocities[self._get_variable_index(variable)]
        self.assign(v, self.beta * v + gradient)
        self.assign_sub(variable, learning_rate * jnp.multiply(v, 1.0))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta": self.beta}


def test_a_derived_optimizer_of_ours(tmp_path):
    facade = Momentum(0.1, clipnorm=1.0)
    facade.build([jnp.ones(2)])  # what it has been built for stays behind
    model = fit(make_model(as_keras(facade)))
    assert_same(
        weights(model), weights(fit(make_model(as_keras(optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0))))), rtol=1e-5
    )
    assert [v.path for v in model.optimizer.variables][3:5] == [
        "momentum/net_head_bias_velocity",
        "momentum/net_head_kernel_velocity",
    ]
    model.optimizer.learning_rate = 0.05
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.optimizer.clipnorm, loaded.optimizer.transformation.owner.beta) == (1.0, 0.9)
    fit(model)
    fit(loaded)
    assert_same_model(model, loaded)


def test_a_derived_optimizer_of_ours_leaves_what_has_no_gradient():
    a, b = start()
    optimizer = as_keras(Momentum(0.1))
    first, second = gradients([a, b], 2)
    optimizer.apply(first, [a, b])
    before, state = b.numpy(), optimizer.get_state()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([second[0], None], [a, b])
    np.testing.assert_array_equal(b.numpy(), before)
    after = optimizer.get_state()
    velocities = [f"momentum/{variable.path.replace('/', '_')}_velocity" for variable in (a, b)]
    moved = [bool(np.any(after.slots[name] != state.slots[name])) for name in velocities]
    assert moved == [True, False]


@pytest.mark.parametrize(
    "make",
    [
        lambda: as_keras(gradtx.sgd(0.1)),
        lambda: as_keras(gradtx.params_ema(gradtx.sgd(0.1), 0.9), use_ema=True, gradient_accumulation_steps=2),
    ],
    ids=["a rate in the state", "averages of both"],
)
def test_the_state_tree_of_a_model(make):
    """Keras wants every path once; a chain may have leaves that are called as Keras calls its own."""
    model = fit(make_model(make()))
    [state] = model.get_state_tree()["optimizer_variables"].values()
    assert len(state) == len(model.optimizer.variables)
    model.set_state_tree(model.get_state_tree())


def test_repr_shows_the_chain():
    optimizer = as_keras(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)))
    assert repr(optimizer) == "as_keras(chain(clip_by_global_norm(1.0), adam(0.001)))"
    optimizer.learning_rate = 1e-4
    assert repr(optimizer) == "as_keras(chain(clip_by_global_norm(1.0), adam(0.001)), learning_rate=0.0001)"
    assert (
        repr(as_keras(optimizers.Adam(0.1, clipnorm=2.0)))
        == f"as_keras({optimizers.Adam(0.1).transformation!r}, clipnorm=2.0)"
    )
    assert repr(as_keras(optax.adam(0.1))).startswith("as_keras(GradientTransformation")
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.1, 10, 0.5)
    shown = "InverseTimeDecay(initial_learning_rate=0.1, decay_steps=10, decay_rate=0.5, staircase=False)"
    assert repr(as_keras(gradtx.sgd(0.5), schedule)) == f"as_keras(sgd(0.5), learning_rate={shown})"
    assert repr(as_keras(gradtx.sgd(0.5), lambda: 0.1)) == "as_keras(sgd(0.5), learning_rate=<lambda>)"


def excluding_optimizer(way: str, variables: list[Any]) -> Any:
    """One that decays neither the first kernel nor what has `bias` in its name."""
    facade = optimizers.SGD(0.01, weight_decay=1.0)
    optimizer = as_keras(gradtx.sgd(0.01), weight_decay=1.0)
    (optimizer if way == "Keras's" else facade).exclude_from_weight_decay(variables[:1], ["bias"])
    return optimizer if way == "Keras's" else as_keras(facade)


@pytest.mark.parametrize("way", ["ours", "Keras's"])
def test_what_is_excluded_from_weight_decay_is_saved(way, tmp_path):
    model = make_model()
    model.compile(optimizer=excluding_optimizer(way, model.trainable_variables), loss="mse")
    decayed = make_model(as_keras(gradtx.sgd(0.01), weight_decay=1.0))
    assert np.any(weights(fit(decayed))["net/hidden/kernel"] != weights(fit(model))["net/hidden/kernel"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(model)
    fit(loaded)
    assert_same_model(model, loaded)
    for optimizer, path in ((model.optimizer, "net/hidden/kernel"), (loaded.optimizer, "hidden/kernel")):
        again = type(optimizer).from_config(optimizer.get_config())
        assert again.get_config()["exclude_from_weight_decay"] == {
            "paths": [path],
            "patterns": ["bias"],
            "positions": [0],
        }
    assert "exclude_from_weight_decay" not in decayed.optimizer.get_config()


def test_an_excluded_variable_that_is_not_there_is_missed():
    optimizer = excluding_optimizer("ours", make_model().trainable_variables)
    with pytest.warns(UserWarning, match="no variable net/hidden/kernel, which was to be excluded"):
        optimizer.build(start())
    again, variables = type(optimizer).from_config(optimizer.get_config()), make_model().trainable_variables
    again.build(variables[1:] + variables[:1])
    found = {"paths": ["net/hidden/kernel"], "patterns": ["bias"], "positions": [3]}
    assert again.get_config()["exclude_from_weight_decay"] == found
    moved = type(optimizer).from_config(again.get_config())
    moved.build(variables)
    assert moved.get_config()["exclude_from_weight_decay"] == found | {"positions": [0]}, "a bias is there now"
    anew = type(optimizer).from_config(optimizer.get_config())
    anew.exclude_from_weight_decay([variables[2]])
    anew.build(variables)
    found = {"paths": ["net/head/kernel"], "patterns": [], "positions": [2]}
    assert anew.get_config()["exclude_from_weight_decay"] == found


# Names.


def test_names_stand_for_optimizers():
    model = make_model("gradtx>adam")
    assert model.optimizer.transformation == gradtx.adam(0.001)
    assert keras.optimizers.get("gradtx>sgd").transformation == gradtx.sgd(0.01)
    config = {"learning_rate": 0.5, "b1": 0.8, "weight_decay": 0.25, "clipnorm": 3.0}
    optimizer = keras.optimizers.get({"class_name": "gradtx>adamw", "config": config})
    assert optimizer.transformation == gradtx.adamw(0.5, b1=0.8, weight_decay=0.25)
    assert (optimizer.clipnorm, optimizer.weight_decay) == (3.0, None)
    with pytest.raises((TypeError, ValueError), match="adm"):
        keras.optimizers.get("gradtx>adm")


def test_every_name_makes_an_optimizer():
    known = [name for name in keras.saving.get_custom_objects() if name.startswith("gradtx>")]
    known = [name for name in known if name.removeprefix("gradtx>") in gradtx.registry()]
    needy = {f"gradtx>{name}" for name in ("dpsgd", "lbfgs", "momo", "momo_adam", "polyak_sgd", "sophia")} & {*known}
    assert len(known) > 30
    for name in sorted({*known} - needy)[::3]:
        optimizer, w = keras.optimizers.get(name), keras.Variable(np.ones((2, 2), np.float32))
        optimizer.apply([jnp.ones((2, 2))], [w])
        assert np.all(np.isfinite(w.numpy()))
        assert np.all(w.numpy() <= 1), name
    for name in needy:
        with pytest.raises(TypeError, match="at every update"):
            keras.optimizers.get(name)


def test_names_of_optimizers_defined_later():
    class later_sgd(gradtx.Optimizer, name="test_adapter.later_sgd"):
        """Plain descent."""

        learning_rate: Rate = 0.25

        def expand(self) -> Any:
            return gradtx.sgd(self.learning_rate)

    register_with_keras()
    assert keras.optimizers.get("gradtx>test_adapter.later_sgd").transformation == later_sgd()


def test_automatic_names_count_up():
    names = [as_keras(gradtx.adabelief(0.1)).name for _ in range(2)]
    assert names[0].startswith("adabelief")
    assert names[0] != names[1]
    assert as_keras(gradtx.adam(0.1), name="mine").name == "mine"


# Variables that are not all alike.


def test_variables_without_a_gradient_keep_value_and_state():
    variables = start()
    optimizer = as_keras(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)))
    first, second, third = gradients(variables, 3)
    optimizer.apply(first, variables)
    before, state = variables[1].numpy(), optimizer.get_state()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([second[0], None], variables)
    np.testing.assert_array_equal(variables[1].numpy(), before)
    after = optimizer.get_state()
    for field in ("mu", "nu"):
        old, new = (list(gradtx.tree.get(s, field).values()) for s in (state, after))
        np.testing.assert_array_equal(new[1], old[1])
        assert np.any(new[0] != old[0])
    optimizer.apply(third[1:], variables[1:])
    assert np.any(variables[1].numpy() != before)
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None, None], variables)


def test_wrong_gradients_are_refused():
    variables = start()
    optimizer = as_keras(gradtx.adam(0.1))
    with pytest.raises(ValueError, match=r"expected float32\[2\] like the parameter"):
        optimizer.apply([jnp.ones((3, 2)), jnp.ones(3)], variables)
    with pytest.raises(ValueError, match="must match"):
        optimizer.apply([jnp.ones((3, 2))])


def test_constraints_and_variables_that_are_overwritten():
    variables = start()
    variables[0].constraint = keras.constraints.NonNeg()
    amax = keras.Variable(np.zeros(3, np.float32), name="amax")
    amax.overwrite_with_gradient = True
    optimizer = as_keras(gradtx.adam(0.1), use_ema=True)
    grads = gradients(variables, 1)[0]
    optimizer.apply([*grads, jnp.arange(3.0)], [*variables, amax])
    assert np.all(variables[0].numpy() >= 0)
    np.testing.assert_array_equal(amax.numpy(), [0, 1, 2])
    assert not [v.path for v in optimizer.variables if "amax" in v.path]


def test_sparse_gradients_are_made_dense():
    from jax.experimental import sparse

    dense = jnp.zeros((3, 2)).at[1].set(1.0)
    (a, _), (b, _) = start(), start()
    as_keras(gradtx.adam(0.1)).apply([sparse.BCOO.fromdense(dense, n_dense=1)], [a])
    as_keras(gradtx.adam(0.1)).apply([dense], [b])
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_multi_optimizer_gives_each_its_own_variables():
    kernels, rest = as_keras(gradtx.lion(1e-2)), as_keras(gradtx.adam(1e-2))
    chosen = keras.optimizers.OptimizerMap(rest, {".*/kernel": kernels})
    model = fit(make_model(keras.optimizers.MultiOptimizer(chosen)))
    labels = gradtx.label_by_path({"kernel": "lion"}, otherwise="adam")
    params, _ = by_hand(gradtx.partition({"lion": gradtx.lion(1e-2), "adam": gradtx.adam(1e-2)}, labels))
    assert_same(weights(model), params, rtol=2e-5, atol=1e-7)
    assert list(gradtx.tree.get(kernels.get_state(), "mu")) == ["net/hidden/kernel", "net/head/kernel"]


# Several devices.


@pytest.fixture
def distributed():
    """Sets a distribution of Keras for one test."""
    yield keras.distribution.set_distribution
    keras.distribution.set_distribution(None)


def test_data_parallel(distributed):
    assert jax.device_count() >= 2
    alone = fit(make_model(as_keras(by_layer())))
    distributed(keras.distribution.DataParallel(devices=keras.distribution.list_devices()[:2]))
    model = fit(make_model(as_keras(by_layer())))
    assert all(len(v.value.sharding.device_set) == 2 for v in model.optimizer.variables)
    assert_same(weights(model), weights(alone), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["begins at the parameters", "factored", "by layer"])
def test_model_parallel_gives_states_the_layout_of_their_kernels(name, distributed):
    tx = TRANSFORMATIONS[name]()
    alone = fit(make_model(as_keras(tx)))
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"], keras.distribution.list_devices()[:2])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*hidden.*kernel"] = (None, "model")
    distributed(keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"))
    model = fit(make_model(as_keras(tx)))
    mirrors = [v for v in model.optimizer.variables if "hidden_kernel" in v.path]
    assert mirrors
    for v in mirrors:
        expected = jax.sharding.PartitionSpec(*(None, "model") if v.shape == (4, 8) else ())
        assert v.value.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh.backend_mesh, expected), v.ndim)
    assert_same(weights(model), weights(alone), rtol=2e-5, atol=1e-7)
