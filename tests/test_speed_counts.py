"""Speed, by counting what does not depend on the machine: temporaries, bytes, traces, compilations, control flow."""

import functools
from typing import NamedTuple

import chex
import helpers
import jax
import jax.numpy as jnp
import pytest
from helpers import small_tree

import gradtx
from gradtx.core.hyperparams import Number

SHAPES = {"bias": (512,), "left": (512, 512), "right": (1024, 256)}
SIZE = 512 + 512 * 512 + 1024 * 256
LONG = pytest.param(("bfloat16", "bfloat16"), marks=pytest.mark.long)
PRECISIONS = [("float32", "float32"), LONG, ("bfloat16", "float32")]

CLIP = gradtx.clip_by_global_norm(1.0)
ONE_PASS = {
    "sgd": gradtx.sgd(0.1),
    "momentum": gradtx.sgd(0.1, 0.9),
    "nesterov": gradtx.sgd(0.1, 0.9, nesterov=True),
    "adam": gradtx.adam(1e-3),
    "adamw": gradtx.adamw(1e-3),
    "amsgrad": gradtx.amsgrad(1e-3),
    "lion": gradtx.lion(1e-4),
}
TWO_PASSES = {"lamb": gradtx.lamb(1e-3), "adafactor": gradtx.adafactor(1e-2)}
"These need a norm of the update before it is applied, and so a temporary for the update."
REPEATED_NORMS = TWO_PASSES | {
    "lars": gradtx.lars(0.1, momentum=0.9),
    "muon": gradtx.muon(0.02),
    "clip_by_norm": gradtx.clip_by_norm(1.0),
    "clip_by_block_rms": gradtx.clip_by_block_rms(1.0),
    "adaptive_grad_clip": gradtx.adaptive_grad_clip(0.01),
    "scale_by_trust_ratio": gradtx.scale_by_trust_ratio(),
    "scale_by_param_block_norm": gradtx.scale_by_param_block_norm(),
}
"These need norms of every leaf."


@functools.cache
def compiled_step(tx, param_dtype="float32", grad_dtype="float32"):
    """One donated training step, compiled; nothing is run."""
    params = {name: jax.ShapeDtypeStruct(shape, param_dtype) for name, shape in SHAPES.items()}
    grads = {name: jax.ShapeDtypeStruct(shape, grad_dtype) for name, shape in SHAPES.items()}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads).compile(helpers.AS_BY_DEFAULT)


def temporaries(tx, param_dtype, grad_dtype):
    """Memory that a step needs besides its inputs, in copies of the parameters."""
    analysis = compiled_step(tx, param_dtype, grad_dtype).memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes / (SIZE * jnp.dtype(param_dtype).itemsize)


@helpers.of_todays_xla
@pytest.mark.parametrize("dtypes", PRECISIONS, ids="-".join)
@pytest.mark.parametrize("name", ONE_PASS)
def test_clipped_step_makes_no_parameter_sized_temporary(name, dtypes):
    assert temporaries(gradtx.chain(CLIP, ONE_PASS[name]), *dtypes) < 0.05


@pytest.mark.parametrize("dtypes", PRECISIONS, ids="-".join)
@pytest.mark.parametrize("name", TWO_PASSES)
def test_clipping_adds_no_parameter_sized_temporary(name, dtypes):
    """If a step has temporaries of its own, clipping adds none."""
    tx = TWO_PASSES[name]
    assert temporaries(gradtx.chain(CLIP, tx), *dtypes) < temporaries(tx, *dtypes) + 0.05


BYTES = {
    "sgd": (12, 20),
    "momentum": (24, 32),
    "nesterov": (28, 36),
    "adam": (40, 48),
    "adamw": (40, 48),
    "amsgrad": (52, 60),
    "lion": (28, 36),
    "lamb": (69, 77),
    "adafactor": (53, 61),
}
"""Bytes per float32 parameter that XLA:CPU counts for a step, without and with clipping.

XLA:CPU makes one loop per output, which for Adam is 12 for each moment and 16 for the parameters. Clipping reads the
gradient once more, 4; the count includes the branch for norms that overflow, 4 as well, which usually does not run.
"""


@helpers.of_todays_xla
@pytest.mark.parametrize("name", BYTES)
def test_bytes_per_parameter(name):
    tx = (ONE_PASS | TWO_PASSES)[name]
    for stages, bound in zip((tx, gradtx.chain(CLIP, tx)), BYTES[name], strict=True):
        costs = compiled_step(stages).cost_analysis()
        assert costs is not None
        assert costs["bytes accessed"] / SIZE < bound + 0.1


EQUATIONS = [*ONE_PASS, *TWO_PASSES]


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations_per_leaf(name):
    """The arithmetic of a shape is traced once, for all stages together. Each leaf has one call of it."""
    tx = (ONE_PASS | TWO_PASSES)[name]

    def equations(leaves):
        params = [jax.ShapeDtypeStruct((4, 3), "float32")] * leaves
        return len(jax.make_jaxpr(tx.update)(params, jax.eval_shape(tx.init, params), params).eqns)

    assert (equations(30) - equations(10)) / 20 == 1


# Control flow.


def control_flow(tx, leaves):
    """How many conditionals and loops a compiled step has."""
    params = [jnp.ones((4, 3))] * leaves
    program = jax.jit(tx.update).lower(params, tx.init(params), params).compile(helpers.AS_BY_DEFAULT)
    return sum(program.as_text().count(f" {kind}(") for kind in ("conditional", "while"))


@pytest.mark.parametrize("name", [*REPEATED_NORMS])
def test_no_control_flow_per_leaf(name):
    """A conditional costs time to compile, and on a GPU the host waits for what decides it."""
    assert control_flow(REPEATED_NORMS[name], 2) == control_flow(REPEATED_NORMS[name], 5) == 0


def test_a_norm_of_the_tree_has_one_branch():
    assert control_flow(gradtx.chain(CLIP, gradtx.adamw(1e-3)), 2) == control_flow(CLIP, 5) == 1


# Traces and compilations.


class CountedState(NamedTuple):
    count: jax.Array
    last: object


class counted(gradtx.Leafwise):
    """Counts how often its formula is traced."""

    State = CountedState
    traces = []

    factor: Number = 2.0

    def leaf(self, g, last):
        self.traces.append(g.shape)
        return self.factor * g, g


@pytest.fixture
def traces():
    counted.traces.clear()
    return counted.traces


def drive(tx, steps, leaves=3):
    """Eager steps; the numbers in the tree change, its shapes do not."""
    params = [jnp.ones((4, 3))] * leaves
    state, updates = tx.init(params), params
    for i in range(steps):
        updates, state = tx.update([jnp.full((4, 3), float(i))] * leaves, state, params)
    return updates


def test_eager_updates_are_traced_and_compiled_once(traces):
    """Once for all steps and for all leaves of one shape, and never again for an equal transformation."""
    tx = gradtx.chain(counted(3.0), gradtx.sgd(gradtx.cosine_decay_schedule(0.1, 7)))
    drive(tx, 1)
    assert traces == [(4, 3)]
    twin = gradtx.from_config(gradtx.to_config(tx))
    with helpers.compilations() as compiled:
        drive(tx, 20)
        drive(twin, 20)
    assert compiled == [0]
    assert traces == [(4, 3)]
    drive(gradtx.chain(counted(4.0), gradtx.sgd(gradtx.cosine_decay_schedule(0.1, 7))), 2)
    assert len(traces) == 1, "another factor is an argument of the same program"
    with helpers.compilations() as compiled:
        drive(gradtx.chain(counted(3.0), gradtx.sgd(gradtx.cosine_decay_schedule(0.2, 7))), 2)
    assert compiled == [1], "another schedule is another program"


def test_a_loop_that_changes_rates_compiles_one_eager_program():
    """Rates and factors are arguments of the program, also those of parts; numbers such as β are constants of it."""

    def update(rate, **others):
        held = gradtx.masked(gradtx.adamw(rate, **others), {"w": True, "b": False})
        tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), held, gradtx.scale(-rate))
        return tx.update(params, tx.init(params), params)[0]

    params = {"w": jnp.arange(3.0), "b": jnp.ones(2)}
    first = update(0.0123)
    with helpers.compilations() as compiled:
        second = update(0.0246)
    assert compiled == [0]
    chex.assert_trees_all_close(second["w"], 4 * first["w"], rtol=1e-5)
    with helpers.compilations() as compiled:
        update(0.0123, b1=0.8)
    assert compiled == [1]


def test_an_eager_update_is_one_program():
    """A call is one program, however many stages there are."""
    params = small_tree(0)
    for tx in (gradtx.adamw(0.0123), gradtx.chain(gradtx.clip(0.0123), CLIP, gradtx.adamw(0.0123))):
        state = tx.init(params)
        with helpers.compilations() as compiled:
            tx.update(params, state, params)
        assert compiled == [1]


def test_another_learning_rate_in_an_array_needs_no_compilation(traces):
    def run(rate, factor):
        return drive(gradtx.chain(counted(jnp.asarray(factor)), gradtx.adam(jnp.asarray(rate))), 2)

    first = run(0.5, 1.0)
    with helpers.compilations() as compiled:
        second = run(0.25, 3.0)
    assert compiled == [0]
    assert len(traces) <= 1
    assert not jnp.array_equal(first[0], second[0])


def test_equal_transformations_are_one_static_argument():
    """A jitted function that takes the transformation, as a static argument or as a pytree, is compiled once."""
    params = small_tree(0)
    static = jax.jit(lambda tx, g: tx.update(g, tx.init(g), g)[0], static_argnums=0)
    node = jax.jit(lambda tx, g: tx.update(g, tx.init(g), g)[0])
    for step in (static, node):
        step(gradtx.adam(0.0321), params)
        with helpers.compilations() as compiled:
            step(gradtx.adam(0.0321), params)
        assert compiled == [0]
    node(gradtx.adam(jnp.asarray(0.1)), params)
    with helpers.compilations() as compiled:
        node(gradtx.adam(jnp.asarray(0.2)), params)
    assert compiled == [0]
