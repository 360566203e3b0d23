"""Programs that were written for optax, with `import optax` changed to `import gradtx as optax`: the same result.

Programs that ship in packages are read from there; the others are in the form that the library's documentation gives
them. They promote dtypes as they like. Adam of optax forms 1 − βᵗ in float32, which is wrong in the fifth digit while
t is small; hence the tolerance, which is relative to how far the parameters moved.
"""

import doctest
import importlib.metadata
import random
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import absl.flags
import equinox as eqx
import flax.training.train_state
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
import optax
import optimistix
import pytest
from flax import nnx
from helpers import of_todays_nnx
from jax.flatten_util import ravel_pytree

import gradtx

LIBRARIES = (optax, gradtx)


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def assert_same_result(program: Callable[[Any], tuple[Any, Any]], tolerance: float) -> None:
    """A program gives the parameters with which it began and those with which it ended."""
    (start, theirs), (_, ours) = ([ravel_pytree(tree)[0] for tree in program(lib)] for lib in LIBRARIES)
    moved = np.max(np.abs(theirs - start))
    assert moved > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * moved)


# Read from packages.


def with_import(source: str, lib: types.ModuleType) -> str:
    """The program with another library for optax."""
    source, whole = re.subn(r"^import optax$", f"import {lib.__name__} as optax", source, flags=re.MULTILINE)
    source, parts = re.subn(r"^from optax import", f"from {lib.__name__} import", source, flags=re.MULTILINE)
    assert whole + parts == 1
    return source


def run_docstring(thing: Any, lib: types.ModuleType, change: Callable[[list[str]], list[str]] = list) -> Any:
    """Run the examples in a docstring, and give what they define."""
    examples = change([example.source for example in doctest.DocTestParser().get_examples(thing.__doc__)])
    names: dict[str, Any] = {}
    exec(with_import("".join(examples), lib), names)
    return types.SimpleNamespace(**names)


def test_flax_train_state():
    """The program in the docstring of `TrainState`."""

    def program(lib):
        run = run_docstring(flax.training.train_state.TrainState, lib)
        return run.variables["params"], run.state.params

    assert_same_result(program, 1e-5)


@of_todays_nnx
def test_flax_nnx_optimizer():
    """The program in the docstring of `nnx.Optimizer`, and one more step."""

    def program(lib):
        run = run_docstring(nnx.Optimizer, lib)
        run.optimizer.update(run.model, nnx.grad(run.loss_fn)(run.model))
        return nnx.state(run.Model(nnx.Rngs(0)), nnx.Param), nnx.state(run.model, nnx.Param)

    assert_same_result(program, 1e-4)


def test_numpyro_svi():
    """The model and the optimizer in the docstring of `SVI`. NumPyro takes instances of optax's class alone."""

    def program(lib):
        def change(examples):
            """Without the training by NumPyro's own optimizer, and what is done with its results."""
            others = re.compile(r"numpyro\.optim|, optimizer,|svi_result|params\[|Predictive\(|predictive\(")
            kept = [source for source in examples if not others.search(source)]
            assert "chain(clip(10.0), adam(1e-3))" in kept[-1]
            if lib is gradtx:
                kept[-1] = kept[-1].replace("chain(clip(10.0), adam(1e-3))", "to_optax(chain(clip(10.0), adam(1e-3)))")
                kept.insert(0, "from gradtx import to_optax\n")
            return kept

        run = run_docstring(numpyro.infer.SVI, lib, change)
        start = run.svi.init(jax.random.key(0), run.data)
        update = jax.jit(lambda state: run.svi.update(state, run.data)[0])
        state = start
        for _ in range(10):
            state = update(state)
        return run.svi.get_params(start), run.svi.get_params(state)

    assert_same_result(program, 1e-4)


class TestHaikuTransformer:
    """`examples/transformer/train.py`, which dm-haiku installs; a smaller model, and another text."""

    SIZES = {"NUM_LAYERS": 1, "NUM_HEADS": 2, "MODEL_SIZE": 16, "KEY_SIZE": 8}

    @pytest.fixture
    def scripts(self, monkeypatch):
        """The text of `train.py`, whose neighbours can be imported from it."""
        files = importlib.metadata.files("dm-haiku") or []
        text = {file.stem: file.read_text() for file in files if file.match("examples/transformer/*.py")}
        monkeypatch.setattr(absl.flags, "DEFINE_string", lambda *args, **kwargs: None)
        package = types.ModuleType("examples.transformer")
        monkeypatch.setitem(sys.modules, "examples.transformer", package)
        monkeypatch.setitem(sys.modules, "examples", types.ModuleType("examples"))
        for name in ("dataset", "model"):
            module = types.ModuleType(f"examples.transformer.{name}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(compile(text[name], name, "exec"), vars(module))
            setattr(package, name, module)
        return text["train"]

    def test_trains(self, scripts):
        def program(lib):
            train = types.ModuleType("train")
            exec(compile(with_import(scripts, lib), "train", "exec"), vars(train))
            vars(train).update(self.SIZES)
            random.seed(0)
            corpus = "".join(chr(97 + i * i % 17) for i in range(4000))
            data = train.dataset.load_ascii_dataset(corpus, batch_size=2, sequence_length=16)
            state = first = train.init(jax.random.PRNGKey(train.SEED), next(data))
            for _ in range(5):
                state, metrics = train.update(state, next(data))
            assert metrics["step"] == 4
            return self.used(first.params), self.used(state.params)

        assert_same_result(program, 1e-3)

    def used(self, params):
        """All but the biases of keys: attention does not depend on them, so their gradients are rounding errors, of
        which Adam makes steps of full size.
        """
        keys = [name for name in params if name.endswith("/key")]
        assert keys
        return params | {name: {"w": params[name]["w"]} for name in keys}


# In the form of the documentation.


def test_equinox_loop():
    """A module with functions among its leaves, weight decay on a part of it, and a schedule."""
    xs = jnp.sin(jnp.arange(24.0)).reshape(12, 2)

    def program(lib):
        model = eqx.nn.MLP(2, 1, 8, 2, jax.nn.tanh, key=jax.random.key(0))
        schedule = lib.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 10)
        mask = lambda model: jax.tree.map(lambda x: x.ndim > 1, model)  # noqa: E731
        tx = lib.chain(lib.clip_by_global_norm(0.5), lib.adamw(schedule, weight_decay=0.1, mask=mask))
        first = eqx.filter(model, eqx.is_inexact_array)
        state = tx.init(first)

        @eqx.filter_jit
        def step(model, state):
            loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(xs) - 1) ** 2))(model)
            updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
            return eqx.apply_updates(model, updates), state, loss

        for _ in range(10):
            model, state, _ = step(model, state)
        return first, eqx.filter(model, eqx.is_inexact_array)

    assert_same_result(program, 1e-4)


@pytest.mark.parametrize("make", [lambda lib: lib.adam(0.05), lambda lib: lib.chain(lib.clip(1.0), lib.sgd(1e-2, 0.9))])
def test_optimistix_minimiser(make):
    """Rosenbrock's function: it stops after the same number of steps."""
    steps = []

    def program(lib):
        def rosenbrock(y, args):
            return (1 - y[0]) ** 2 + args * (y[1] - y[0] ** 2) ** 2

        solver, start = optimistix.OptaxMinimiser(make(lib), rtol=1e-4, atol=1e-4), jnp.array([-1.0, 0.5])
        solution = optimistix.minimise(rosenbrock, solver, start, jnp.array(5.0), max_steps=2000)
        steps.append(int(solution.stats["num_steps"]))
        return start, solution.value

    assert_same_result(program, 1e-4)
    assert steps[0] == steps[1]


def test_deep_q_learning():
    """A Haiku network learns in a corridor, with less and less exploration, and a target that is updated at times."""
    network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 2])(x)))
    states = jnp.eye(4)

    def program(lib):
        first = network.init(jax.random.key(1), states)
        tx, explore = lib.rmsprop(5e-3, decay=0.99, eps=1e-5), lib.polynomial_schedule(1.0, 0.1, 1, 20)

        def loss(params, target, here, action, reward, there):
            value = network.apply(params, states[here])[action]
            aim = reward + 0.9 * jnp.max(network.apply(target, states[there]))
            return lib.huber_loss(value - jax.lax.stop_gradient(aim))

        def act(carry, count):
            params, target, state, here, key = carry
            key, *keys = jax.random.split(key, 3)
            best = jnp.argmax(network.apply(params, states[here]))
            explores = jax.random.uniform(keys[0]) < explore(count)
            action = jnp.where(explores, jax.random.randint(keys[1], (), 0, 2), best)
            there = jnp.clip(here + 2 * action - 1, 0, 3)
            grads = jax.grad(loss)(params, target, here, action, jnp.float32(there == 3), there)
            updates, state = tx.update(grads, state)
            params = lib.apply_updates(params, updates)
            target = lib.periodic_update(params, target, count, 5)
            return (params, target, state, there % 3, key), None

        start = first, first, tx.init(first), jnp.array(0), jax.random.key(0)
        (params, *_), _ = jax.jit(lambda carry: jax.lax.scan(act, carry, jnp.arange(40)))(start)
        return first, params

    assert_same_result(program, 1e-4)


def test_meta_learning():
    """The learning rate is learned, by gradients through four steps of an injected optimizer."""

    def program(lib):
        tx, meta = lib.inject_hyperparams(lib.rmsprop)(learning_rate=0.1), lib.adam(0.03)

        def outer_loss(rate, params, state):
            state.hyperparams["learning_rate"] = jax.nn.sigmoid(rate)
            for x in (1.0, 2.0, 0.5):
                updates, state = tx.update(jax.grad(lambda p, x=x: lib.l2_loss(p * x, 3.0 * x))(params), state)
                params = lib.apply_updates(params, updates)
            return lib.l2_loss(params, 3.0), (params, state)

        @jax.jit
        def step(rate, params, state, meta_state):
            slope, (params, state) = jax.grad(outer_loss, has_aux=True)(rate, params, state)
            updates, meta_state = meta.update(slope, meta_state)
            return lib.apply_updates(rate, updates), params, state, meta_state

        rate, params = first = jnp.array(-2.0), jnp.array(0.5)
        state, meta_state = tx.init(params), meta.init(rate)
        for _ in range(10):
            rate, params, state, meta_state = step(rate, params, state, meta_state)
        return first, (rate, params)

    assert_same_result(program, 1e-4)
