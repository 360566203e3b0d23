"""Side by side with optax 0.2.8 over 25 steps, where optax is right. The same call is made in either library.

Parameters move by about 1 in these runs; 2e-5 of the distance is a few hundred roundings of float32, which is what 25
steps of divisions and roots, in another order, come to. Where optax deviates from the authors, see the golden tests.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx as gx


def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def bounded_decay(step, exponent):
    """The second moment of Zhai et al., https://arxiv.org/abs/2106.04560, which never freezes."""
    return jnp.minimum(1 - jnp.asarray(step + 1, jnp.float32) ** -exponent, 0.75)


def calls(name, *arguments):
    """Cases of one function: each of `arguments` is a tuple of positional arguments, the last a dict of keywords.

    Every second case is left to `make test-long`.
    """
    marks = [pytest.mark.long if i % 2 else () for i in range(len(arguments))]
    return [pytest.param(name, a[:-1], a[-1], id=f"{name}-{i}", marks=marks[i]) for i, a in enumerate(arguments)]


SAME = [
    *calls("sgd", (0.1, {}), (0.1, 0.9, {}), (0.1, {"momentum": 0.8, "nesterov": True})),
    *calls("adam", (0.01, {}), (0.02, 0.8, 0.95, 1e-4, 1e-6, {}), (0.01, {"nesterov": True})),
    *calls("adamw", (0.01, {}), (0.01, 0.8, 0.95, {"weight_decay": 0.2, "mask": matrices}), (0.01, {"nesterov": True})),
    *calls("amsgrad", (0.01, {}), (0.01, 0.8, 0.9, {}), (0.01, {"bias_correction_mu": False})),
    *calls("lion", (0.01, {}), (0.01, 0.95, 0.98, {"weight_decay": 0.1, "mask": matrices})),
    *calls("lamb", (0.01, {}), (0.02, 0.8, 0.95, {"weight_decay": 0.1})),
    *calls("adafactor", (0.05, {"min_dim_size_to_factor": 3}), (0.05, {"factored": False, "momentum": 0.9})),
    *calls("adafactor", (None, 2, {})),
    *calls("adafactor", (0.05, 2, 0.6, {"clipping_threshold": None, "weight_decay_rate": 0.01})),
    *calls("rmsprop", (0.01, {}), (0.01, 0.95, 1e-6, 0.5, {"eps_in_sqrt": False})),
    *calls("rmsprop", (0.01, 0.8, 1e-3, {"centered": True, "momentum": 0.9, "nesterov": True})),
    *calls("rmsprop", (0.01, 0.99, {"momentum": 0.5, "bias_correction": True})),
    *calls("adagrad", (0.1, {}), (0.1, 0.0, 1e-3, {})),
    *calls("adadelta", (1.0, {}), (0.5, 0.8, 1e-3, 0.1, matrices, {})),
    *calls("adamax", (0.01, {}), (0.01, 0.8, 0.9, 1e-3, {})),
    *calls("adamaxw", (0.01, {"weight_decay": 0.1, "mask": matrices})),
    *calls("nadam", (0.01, {}), (0.01, 0.8, 0.95, {}), (0.01, {"nesterov": False})),
    *calls("nadamw", (0.01, {"nesterov": False}), (0.01, {})),
    *calls("scale_by_lion", (0.8, 0.9, {"mode": "smooth", "smooth_beta": 3.0}), ({},), (0.8, 0.3, {"mode": "refined"})),
    *calls("nadamw", (0.01, 0.9, 0.99, 1e-6, 1e-8, {"weight_decay": 0.1, "mask": matrices})),
    *calls("radam", (0.01, 0.9, 0.95, {}), (0.01, 0.8, 0.9, 1e-4, 1e-6, 6.0, {"nesterov": True})),
    *calls("adabelief", (0.01, {}), (0.01, {"eps": 1e-8, "eps_root": 0.0, "nesterov": True})),
    *calls("novograd", (0.01, {}), (0.01, 0.95, 0.98, 1e-3, 1e-4, 0.1, {})),
    *calls("sm3", (0.1, {})),
    *calls("fromage", (0.05, {}), (0.05, 2.0, {})),
    *calls("lars", (1.0, 0.1, {"momentum": 0.8, "nesterov": True}), (1.0, 0.1, matrices, 0.01, 1e-3, matrices, {})),
    *calls("optimistic_gradient_descent", (0.1, {}), (0.1, 0.7, 1.3, {})),
    *calls("optimistic_adam", (0.01, {}), (0.01, 0.03, {"b1": 0.8, "b2": 0.95, "eps": 1e-6, "nesterov": False})),
    *calls("optimistic_adam_v2", (0.01, {}), (0.01, {"alpha": 0.9, "beta": 1.2, "b1": 0.8, "eps_root": 1e-8})),
    *calls("sign_sgd", (0.01, {})),
    *calls("signum", (0.01, {}), (0.01, 0.8, {})),
    *calls("polyak_sgd", ({},), (0.01, {"f_min": 0.1, "eps": 0.5, "variant": "sps+"})),
    *calls("scale_by_polyak", (0.2, 0.5, 0.1, {})),
    *calls("trace", (0.9, {}), (0.5, {"nesterov": True})),
    *calls("ema", (0.9, {}), (0.5, {"debias": False})),
    *calls("clip", (0.3, {})),
    *calls("clip_by_block_rms", (0.3, {})),
    *calls("clip_by_global_norm", (0.5, {}), (1e6, {})),
    *calls("adaptive_grad_clip", (0.05, {}), (0.5, 0.1, {})),
    *calls("add_decayed_weights", (0.1, {}), (0.1, {"mask": matrices})),
    *calls("normalize_by_update_norm", (-0.1, {}), (-0.1, 0.5, {})),
    *calls("scale_by_param_block_norm", ({},), (3.0, {})),
    *calls("scale_by_param_block_rms", ({},), (0.5, {})),
    *calls("scale_by_trust_ratio", ({},), (0.1, 2.0, 0.5, {})),
    *calls("scale_by_factored_rms", (True, 0.8, 0, 2, {}), (False, {})),
    *calls("scale_by_factored_rms", (True, 0.7, 0, 2, {"decay_rate_fn": bounded_decay})),
    *calls("scale_by_stddev", (0.9, 1e-4, 1.0, {"eps_in_sqrt": False})),
    *calls("scale_by_rms", ({},), (0.99, 1e-4, 0.5, {})),
    *calls("scale_by_sm3", (0.5, 0.9, 1e-4, {})),
    *calls("scale_by_sign", ({},)),
    *calls("zero_nans", ({},)),
    *calls("set_to_zero", ({},)),
    *calls("apply_every", (3, {})),
    *calls("keep_params_nonnegative", ({},)),
    *calls("apply_if_finite", ("adam", 3, {})),
]

AT_THE_START = gx.linear_schedule(0.9, 0.99, 20), gx.linear_schedule(0.0, 3.0, 15)
"Schedules of AdEMAMix's β₃ and α."

PAIRS = {
    "centralize along the first axis": (gx.centralize(0), optax.centralize()),
    "normalize": (gx.normalize(), optax.contrib.normalize()),
    "madgrad": (gx.madgrad(0.02, 0.5, 0.05, 1e-4), optax.contrib.madgrad(0.02, 0.5, 0.05, 1e-4)),
    "madgrad without momentum": (gx.madgrad(0.02, 0.0), optax.contrib.madgrad(0.02, 0.0)),
    "yogi from optax's first moment": (
        gx.chain(gx.scale_by_yogi(0.8, 0.95, initial_mean=1e-6), gx.scale_by_learning_rate(0.01)),
        optax.yogi(0.01, 0.8, 0.95),
    ),
    "adabelief with weight decay": (
        gx.adabelief(0.01, weight_decay=0.1, mask=matrices),
        optax.chain(
            optax.scale_by_belief(), optax.add_decayed_weights(0.1, matrices), optax.scale_by_learning_rate(0.01)
        ),
    ),
    "adadelta without a learning rate": (gx.adadelta(), optax.adadelta(1.0)),
    "adopt": (
        gx.adopt(0.01, 0.8, 0.99, 1e-4, nesterov=True, clip_value_fn=lambda before: 1 + 0.1 * before),
        optax.contrib.adopt(0.01, 0.8, 0.99, 1e-4, nesterov=True, clip_value_fn=lambda before: 1 + 0.1 * before),
    ),
    "ademamix": (
        gx.ademamix(0.01, 0.8, 0.95, *AT_THE_START, 1e-4, 1e-6, weight_decay=0.1, mask=matrices),
        optax.contrib.ademamix(0.01, 0.8, 0.95, *AT_THE_START, 1e-4, 1e-6, weight_decay=0.1, mask=matrices),
    ),
    "simplified_ademamix": (
        gx.simplified_ademamix(0.01, 0.8, 0.9, AT_THE_START[1], 1e-4, 1e-6, 0.1, matrices),
        optax.contrib.simplified_ademamix(0.01, 0.8, 0.9, AT_THE_START[1], 1e-4, 1e-6, 0.1, matrices),
    ),
    "galore on the longer side": (
        gx.galore(0.01, 2, 4, 0.5, None, 0.1, matrices, proj_type="reverse_std"),
        optax.contrib.galore(0.01, 2, 4, 0.5, None, 0.1, matrices),
    ),
    "accumulate": (
        gx.accumulate(gx.adam(0.05), 4),
        optax.MultiSteps(optax.adam(0.05), 4).gradient_transformation(),
    ),
    "masked": (gx.masked(gx.adam(0.05), matrices), optax.masked(optax.adam(0.05), matrices)),
    "partition": (
        gx.partition({True: gx.sgd(0.1), False: gx.adam(0.05)}, matrices),
        optax.partition({True: optax.sgd(0.1), False: optax.adam(0.05)}, matrices),
    ),
    "schedule": (
        gx.adam(gx.warmup_cosine_decay_schedule(0.0, 0.1, 5, 20)),
        optax.adam(optax.warmup_cosine_decay_schedule(0.0, 0.1, 5, 20)),
    ),
    "schedule of a decay rate": (
        gx.inject_hyperparams(gx.adam)(learning_rate=0.1, b1=gx.linear_schedule(0.5, 0.9, 20)),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1, b1=optax.linear_schedule(0.5, 0.9, 20)),
    ),
}


@functools.cache
def inputs_of_a_walk():
    """Parameters, and gradients that do not depend on them, for each of 25 steps; the last third are small."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w": jax.random.normal(keys[0], (4, 3)), "b": jax.random.normal(keys[1], (5,)), "s": jnp.full((1,), 0.5)}
    sizes = jnp.where(jnp.arange(25) < 17, 1.0, 0.01)
    noise = {name: jax.random.normal(key, (25, *params[name].shape)) for key, name in zip(keys[1:], "wbs", strict=True)}
    grads = {name: x * sizes.reshape(25, *[1] * (x.ndim - 1)) for name, x in noise.items()}
    return params, grads, jnp.linspace(2.0, 1.0, 25)


def trajectory(tx, apply_updates, params, grads, values):
    """Parameters after each step."""

    def step(carry, inputs):
        params, state = carry
        g, value = inputs
        updates, state = tx.update(g, state, params, **({"value": value} if takes_value(tx) else {}))
        params = apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, tx.init(params)), (grads, values))[1]


def takes_value(tx):
    return getattr(tx, "extras", None) is None or "value" in tx.extras.known


def assert_same_walk(ours, theirs):
    @jax.jit
    def both(*inputs):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            other = trajectory(optax.with_extra_args_support(theirs), optax.apply_updates, *inputs)
        return trajectory(ours, gx.apply_updates, *inputs), other

    chex.assert_trees_all_close(*both(*inputs_of_a_walk()), rtol=2e-5, atol=2e-5)


def made(library, name, args, kwargs):
    args = tuple(library.adam(0.05) if argument == "adam" else argument for argument in args)
    return getattr(library, name)(*args, **kwargs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:optax")
@pytest.mark.parametrize(("name", "args", "kwargs"), SAME)
def test_same_call_same_walk(name, args, kwargs):
    assert_same_walk(made(gx, name, args, kwargs), made(optax, name, args, kwargs))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())
def test_same_walk(ours, theirs):
    assert_same_walk(ours, theirs)
