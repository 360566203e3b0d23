"""The classes of `gradtx.keras.optimizers` beside those of the installed Keras 3: same gradients, same numbers."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras.src import backend

import gradtx.keras.optimizers as ours
import gradtx.keras.schedules as our_schedules

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")  # Keras, NumPy 2

STEPS = 25
BOUND = 2e-5
"Largest deviation, of |x| and a hundredth of the largest |x| of the array."

CLASSES: dict[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 0.02, "momentum": 0.9, "nesterov": True},
    "RMSprop": {"learning_rate": 0.01, "momentum": 0.5, "centered": True, "epsilon": 0.01},
    "Adagrad": {"learning_rate": 0.1},
    "Adadelta": {"learning_rate": 1.0, "rho": 0.9, "epsilon": 1e-6},
    "Adam": {"learning_rate": 0.01, "beta_2": 0.98, "amsgrad": True},
    "AdamW": {"learning_rate": 0.01, "beta_2": 0.98, "weight_decay": 0.1},
    "Adamax": {"learning_rate": 0.01, "beta_1": 0.8},
    "Nadam": {"learning_rate": 0.01, "beta_2": 0.98},
    "Adafactor": {"learning_rate": 0.05, "beta_2_decay": -0.5, "clip_threshold": 0.7},
    "Ftrl": {"learning_rate": 0.1, "beta": 0.3, "l1_regularization_strength": 0.01},
    "Lion": {"learning_rate": 0.01, "beta_1": 0.8},
    "Lamb": {"learning_rate": 0.02, "beta_2": 0.98},
    "Muon": {"learning_rate": 0.02, "adam_beta_2": 0.98, "exclude_layers": ["skipped"]},
    "ScheduleFreeAdamW": {"learning_rate": 0.02, "beta_2": 0.98, "warmup_steps": 6},
}
"""Every class, with arguments in which it moves far and uses all it has.

β₂ is 0.98: at Keras's 0.999 its own 1 − β₂ᵗ, a difference of float32 numbers near 1, is wrong by up to 1e-4.
"""

SCHEDULE = {"initial_learning_rate": 0.05, "decay_steps": 6, "decay_rate": 0.5, "staircase": True}

BASE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "weight_decay": {"weight_decay": 0.05},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.3},
    "global_clipnorm": {"global_clipnorm": 1.0},
    "use_ema": {"use_ema": True, "ema_momentum": 0.8},
    "ema_overwrite": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 4},
    "loss_scale": {"loss_scale_factor": 8.0},
    "accumulation": {"gradient_accumulation_steps": 3},
    "schedule": {"learning_rate": SCHEDULE},
    "schedule_accumulated": {"learning_rate": SCHEDULE, "gradient_accumulation_steps": 4},
    "together": {
        "gradient_accumulation_steps": 3,
        "use_ema": True,
        "ema_momentum": 0.8,
        "ema_overwrite_frequency": 2,
        "weight_decay": 0.05,
        "clipnorm": 1.0,
        "loss_scale_factor": 2.0,
    },
}
"The arguments that all classes have."

DAILY = {"together"}
"Those that `make test` tries with every other class; the rest it tries with a class or two each."

SHAPES = {"bias": (5,), "kernel": (4, 3), "skipped": (3, 2)}


def numbers() -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, and gradients of many sizes, some of them zero; the leading axis is the step."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    grads = {}
    for name, shape in SHAPES.items():
        size = 10 ** rng.uniform(-2, 0.5, size=(STEPS, *[1] * len(shape)))
        kept = rng.uniform(size=(STEPS, *shape)) > 0.1
        grads[name] = jnp.asarray(rng.normal(size=(STEPS, *shape)) * size * kept, jnp.float32)
    return {name: jnp.asarray(p) for name, p in params.items()}, grads


PARAMS, GRADS = numbers()


class Run(NamedTuple):
    """An optimizer, and its run through all gradients from given parameters and weights."""

    opt: Any
    run: Callable[[Any, Any], tuple[Any, Any, Any]]
    "Gives the last parameters, the last weights, and all parameters on the way."

    def start(self) -> list[Any]:
        return [jnp.array(getattr(weight, "value", weight)) for weight in self.opt.variables]


def scanned(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(weights, grads, params)`, a pure function, over all gradients in one program."""

    def body(carry: Any, grads: Any) -> Any:
        params, weights = carry
        params, weights = step(weights, grads, params)
        return (params, weights), params

    @jax.jit
    def run(params: Any, weights: Any) -> Any:
        (params, weights), every = jax.lax.scan(body, (params, weights), GRADS)
        return params, weights, every

    return run


def arguments(name: str, base: str, schedules: Any) -> dict[str, Any]:
    given = CLASSES[name] | BASE[base] | {"name": "mine"}
    rate = given["learning_rate"]
    return given | {"learning_rate": schedules.ExponentialDecay(**rate) if isinstance(rate, dict) else rate}


@functools.cache
def our_run(name: str, base: str) -> Run:
    opt = getattr(ours, name)(**arguments(name, base, our_schedules))
    opt.build(PARAMS)
    return Run(opt, scanned(opt.stateless_apply))


@functools.cache
def keras_run(name: str, base: str) -> Run:
    opt = getattr(keras.optimizers, name)(**arguments(name, base, keras.optimizers.schedules))
    with backend.name_scope(""):
        variables = [keras.Variable(value, name=key) for key, value in PARAMS.items()]
    opt.build(variables)

    def step(weights: Any, grads: Any, params: Any) -> Any:
        new, weights = opt.stateless_apply(weights, list(grads.values()), list(params.values()))
        return dict(zip(params, new, strict=True)), weights

    return Run(opt, scanned(step))


@pytest.fixture(autouse=True)
def _promotion():
    """Keras's own code mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def assert_same(got: Any, want: Any, where: str) -> None:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, where
    scale = np.abs(want) + 0.01 * np.max(np.abs(want), initial=0) + 1e-30
    error = np.max(np.abs(got - want) / scale, initial=0)
    assert error <= BOUND, f"{where}: {error:.3g}"


def assert_all_same(got: Any, want: Any, names: Any) -> None:
    """Parameters after every step, and the weights at the end."""
    for name, params in want[2].items():
        for step in range(STEPS):
            assert_same(got[2][name][step], params[step], f"{name} after step {step + 1}")
    for name, ours_, theirs in zip(names, got[1], want[1], strict=True):
        assert (ours_.shape, ours_.dtype) == (theirs.shape, theirs.dtype), name
        assert_same(ours_, theirs, name)


def combinations() -> Any:
    """Each class with each base argument; those that are left to `make test-long` are marked."""
    bases = sorted(BASE.keys() - DAILY)
    for i, name in enumerate(CLASSES):
        for base in BASE:
            daily = (base in DAILY and i % 2 == 0) or bases[i % len(bases)] == base
            yield pytest.param(name, base, id=f"{name}-{base}", marks=() if daily else pytest.mark.long)


@pytest.mark.parametrize(("name", "base"), [*combinations()])
def test_same_numbers_as_keras(name, base):
    mine, real = our_run(name, base), keras_run(name, base)
    paths = [variable.path for variable in real.opt.variables]
    assert_all_same(mine.run(PARAMS, mine.start()), real.run(PARAMS, real.start()), paths)


@pytest.mark.parametrize("base", ["nothing", "together", "schedule_accumulated"])
@pytest.mark.parametrize("name", CLASSES)
def test_weights_have_keras_s_names(name, base):
    """Nadam's product of momenta apart, which Keras calls `variable_3` or so: one more than there were before."""
    mine, real = our_run(name, base).opt, keras_run(name, base).opt
    expected = [variable.path for variable in real.variables]
    got = [weight.name for weight in mine.weight_list()]
    if name == "Nadam":
        assert got.pop() == "mine/u_product"
        expected.pop()
    assert got == expected


@pytest.mark.parametrize("base", [pytest.param("nothing", marks=pytest.mark.long), "together"])
@pytest.mark.parametrize("name", CLASSES)
def test_weights_are_exchanged_in_mid_training(name, base):
    """After 25 steps each takes the other's weights, and both go on alike."""
    mine, real = our_run(name, base), keras_run(name, base)
    params, theirs, _ = real.run(PARAMS, real.start())
    mine.opt.build(PARAMS)
    mine.opt.set_weights([np.asarray(weight) for weight in theirs])
    assert mine.opt.learning_rate == pytest.approx(float(real.opt.learning_rate))
    paths = [variable.path for variable in real.opt.variables]
    assert_all_same(mine.run(params, mine.start()), real.run(params, theirs), paths)

    mine.opt.build(PARAMS)
    params, weights, _ = mine.run(PARAMS, mine.start())
    mine.opt.set_weights(weights)
    for variable, weight in zip(real.opt.variables, mine.opt.get_weights(), strict=True):
        variable.assign(weight)
    assert_all_same(mine.run(params, weights), real.run(params, real.start()), paths)
