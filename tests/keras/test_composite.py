"""Optimizers that hold others, any transformation as an optimizer, and optimizers by name and config."""

import copy
import json
import pickle
from typing import Any

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import data

import gradtx
from gradtx.keras import optimizers, schedules
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.engine.variable import Variable
from gradtx.keras.holders.loss_scale import LossScaleOptimizer, TfKerasLossScaleOptimizer
from gradtx.keras.optimizers import SGD, Adam, MultiOptimizer, Muon, Nadam, OptimizerMap, TFOptimizer
from gradtx.keras.tf_keras_legacy import optimizers as legacy

KERAS2 = Identifiers("Keras 2", [SGD, Adam])


def params() -> dict[str, Any]:
    return {"bias": jnp.array([1.0, -2.0]), "kernel": jnp.arange(6.0).reshape(2, 3) - 2.5}


def grads(factor: float = 1.0) -> dict[str, Any]:
    return {"bias": factor * jnp.array([0.5, 0.25]), "kernel": factor * jnp.full((2, 3), 0.125)}


def broken(value: float = jnp.inf) -> dict[str, Any]:
    return grads() | {"bias": jnp.array([1.0, value])}


def loss(tree: Any) -> Any:
    return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree))


def two() -> MultiOptimizer:
    return MultiOptimizer(OptimizerMap(SGD(0.1, momentum=0.9), {".*kernel": Adam(0.01)}))


MAKERS = {
    "keras 3": lambda: LossScaleOptimizer(Adam(0.01), 64.0, 2),
    "keras 3, mean": lambda: LossScaleOptimizer(SGD(0.1, use_ema=True, gradient_accumulation_steps=2), 64.0, 2),
    "keras 3, schedule": lambda: LossScaleOptimizer(Nadam(schedules.ExponentialDecay(0.1, 2, 0.5)), 64.0, 2),
    "tf.keras": lambda: legacy.LossScaleOptimizer(legacy.Nadam(0.01), initial_scale=64.0, dynamic_growth_steps=2),
    "tf.keras, fixed": lambda: legacy.LossScaleOptimizer(legacy.Adam(0.01), dynamic=False, initial_scale=64.0),
    "multi": two,
    "multi, same name": lambda: MultiOptimizer(OptimizerMap(Adam(0.1), {"bias": Adam(0.01)})),
    "multi, unused": lambda: MultiOptimizer(OptimizerMap(Adam(0.1), {"nothing": Nadam(0.01), ".*": SGD(0.1, 0.5)})),
    "multi, Nadam": lambda: MultiOptimizer(OptimizerMap(Adam(0.1), {"kernel": Nadam(0.01)})),
    "loss scale of multi": lambda: LossScaleOptimizer(two(), 64.0, 2),
    "multi of any": lambda: MultiOptimizer(OptimizerMap(Adam(0.1), {"kernel": TFOptimizer(gradtx.lion(0.01))})),
    "any": lambda: TFOptimizer(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.01))),
    "any, noise": lambda: TFOptimizer(gradtx.chain(gradtx.add_noise(0.1, 0.5, key=jax.random.key(1)), gradtx.sgd(0.1))),
    "any, truth values": lambda: TFOptimizer(gradtx.if_finite(gradtx.sgd(0.1, momentum=0.9))),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def after_steps(make: Any) -> tuple[Any, Any]:
    opt, tree = make(), params()
    for i in range(3):
        tree = opt.apply(grads(i + 1.0), tree)
    return opt, tree


# All of them.


@every
def test_weights_continue_exactly(make):
    opt, tree = after_steps(make)
    weights = opt.get_weights()
    other = make()
    other.build(params())
    other.set_weights(weights)
    chex.assert_trees_all_equal(other.get_weights(), weights)
    assert other.iterations == opt.iterations
    names = [weight.name for weight in opt.weight_list()]
    assert len(set(names)) == len(names)
    for _ in range(3):
        expected = opt.apply(grads(), tree)
        chex.assert_trees_all_equal(other.apply(grads(), tree), expected)
        tree = expected


@every
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_continue_exactly(make, twin):
    opt, tree = after_steps(make)
    other = twin(opt)
    chex.assert_trees_all_equal(other.apply(grads(), tree), opt.apply(grads(), tree))
    chex.assert_trees_all_equal(other.get_weights(), opt.get_weights())


@every
def test_config_goes_round(make):
    opt, tree = after_steps(make)
    table = legacy if isinstance(opt, TfKerasLossScaleOptimizer) else optimizers
    config = json.loads(json.dumps(table.serialize(opt)))
    other = table.get(config)
    assert type(other) is type(opt)
    assert json.dumps(table.serialize(other)) == json.dumps(config)
    other.build(params())
    other.set_weights(opt.get_weights())
    chex.assert_trees_all_equal(other.apply(grads(), tree), opt.apply(grads(), tree))


@every
def test_pure_steps_are_the_same(make):
    opt, tree = after_steps(make)
    new, weights = jax.jit(opt.stateless_apply)(opt.variables, grads(), tree)
    chex.assert_trees_all_close(new, opt.apply(grads(), tree), rtol=1e-6)
    for ours, theirs in zip(weights, opt.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@every
@pytest.mark.parametrize("spoil", [lambda w: w[:-1], lambda w: [*w, w[0]], lambda w: [*w[:-1], np.ones((7, 7))]])
def test_wrong_weights_change_nothing(make, spoil):
    opt, _ = after_steps(make)
    before = opt.get_weights()
    with pytest.raises(ValueError, match="weight"):
        opt.set_weights(spoil(before))
    chex.assert_trees_all_equal(opt.get_weights(), before)


@every
def test_a_missing_gradient_leaves_its_variable(make):
    opt, tree = after_steps(make)
    with pytest.warns(UserWarning, match="bias"):
        new = opt.apply(grads() | {"bias": None}, tree)
    if "noise" not in repr(opt) and not getattr(opt, "inner_optimizer", opt).window > 1:
        assert not np.array_equal(new["kernel"], tree["kernel"])
    chex.assert_trees_all_equal(new["bias"], tree["bias"])
    assert np.all(np.isfinite(opt.apply(grads(), new)["bias"]))


@every
def test_minimize_takes_the_true_gradient(make):
    opt, tree = after_steps(make)
    other = copy.deepcopy(opt)
    gradient = jax.grad(loss)(tree)
    factor = opt.loss_scale() * (opt.dynamic_scale if hasattr(opt, "dynamic_scale") and opt.loss_scale() == 1 else 1)
    expected = other.apply(jax.tree.map(lambda g: g * factor, gradient), tree)
    chex.assert_trees_all_close(opt.minimize(loss, tree), expected, rtol=1e-6)


# Loss scales.


def test_a_gradient_that_is_not_finite_is_left_out():
    opt, tree = LossScaleOptimizer(Adam(0.01), 64.0, 3), params()
    chex.assert_trees_all_equal(opt.apply(broken(), tree), tree)  # also in the first step
    assert (opt.dynamic_scale, opt.step_counter, opt.iterations, opt.total_notfinite) == (32.0, 0, 0, 1)
    tree = opt.apply(grads(32.0), tree)
    chex.assert_trees_all_equal(opt.apply(broken(jnp.nan), tree), tree)
    assert (opt.dynamic_scale, opt.iterations, opt.inner_optimizer.iterations, opt.total_notfinite) == (16.0, 1, 1, 2)
    alone = Adam(0.01)
    chex.assert_trees_all_equal(tree, alone.apply(grads(), params()))
    chex.assert_trees_all_equal(opt.inner_optimizer.get_weights(), alone.get_weights())


def test_in_tf_keras_what_is_left_out_counts():
    opt, tree = legacy.LossScaleOptimizer(legacy.Adam(0.01), initial_scale=64.0), params()
    chex.assert_trees_all_equal(opt.apply(broken(), tree), tree)
    assert (opt.dynamic_scale, opt.dynamic_counter, opt.iterations) == (32.0, 0, 1)
    alone = legacy.Adam(0.01)
    alone.build(tree)
    alone.iterations = 1
    chex.assert_trees_all_equal(opt.apply(grads(32.0), tree), alone.apply(grads(), tree))
    chex.assert_trees_all_equal(opt.get_weights()[:-2], alone.get_weights())
    assert [float(weight) for weight in opt.get_weights()[-2:]] == [32.0, 1.0]  # which tf.keras keeps to itself
    with pytest.warns(UserWarning, match="current_loss_scale, good_steps was not saved"):
        opt.set_weights(alone.get_weights())


@pytest.mark.parametrize("fixed", [{}, {"dynamic": False}])
def test_in_tf_keras_the_loop_divides(fixed):
    opt, tree = legacy.LossScaleOptimizer(legacy.SGD(0.1), initial_scale=64.0, **fixed), params()
    scaled = jax.grad(lambda p: opt.get_scaled_loss(loss(p)))(tree)
    chex.assert_trees_all_equal(scaled, jax.tree.map(lambda p: 128.0 * p, tree))
    names = ["bias", "kernel"]
    variables = [Variable(tree[name], name) for name in names]
    true = opt.get_unscaled_gradients([scaled[name] for name in names])
    opt.apply_gradients(zip(true, variables, strict=True))
    opt_3 = LossScaleOptimizer(SGD(0.1), 64.0)
    chex.assert_trees_all_equal({v.path: v.value for v in variables}, opt_3.apply(scaled, tree))
    with pytest.warns(UserWarning, match="kernel"):
        opt.apply_gradients([(true[0], variables[0]), (None, variables[1])])
    assert opt.get_unscaled_gradients([None, jnp.full(1, 64.0)]) == [None, 1.0]


def test_a_fixed_scale_leaves_nothing_out():
    opt = legacy.LossScaleOptimizer(legacy.SGD(0.1), dynamic=False, initial_scale=64.0)
    assert np.isinf(opt.apply(broken(), params())["bias"][1])
    assert (opt.dynamic_scale, opt.total_notfinite, opt.exhausted, opt.dynamic_counter) == (64.0, 0, 0, None)
    assert repr(opt.transformation).startswith("chain(scale(0.015625)")


def test_the_scale_has_a_floor_a_cap_and_a_signal():
    opt, tree = LossScaleOptimizer(SGD(0.1), 2.0, 1, max_scale=8.0), params()
    for expected in (1.0, 1.0, 1.0):
        opt.apply(broken(), tree)
        assert opt.dynamic_scale == expected
    assert (opt.exhausted, opt.total_notfinite) == (2, 3)
    for expected in (2.0, 4.0, 8.0, 8.0):
        opt.apply(grads(), tree)
        assert opt.dynamic_scale == expected
    assert opt.exhausted == 0


def test_half_precision():
    tree = jax.tree.map(lambda p: p.astype(jnp.float16), params())
    opt = LossScaleOptimizer(SGD(0.5), 2.0**15)
    new = opt.minimize(lambda p: 1e-6 * jnp.sum(p["bias"].astype(jnp.float32)), tree)
    assert opt.total_notfinite == 0
    assert new["bias"].dtype == jnp.float16
    for _ in range(3):
        new = opt.minimize(loss, new)  # 2 · 2.5 · 2¹⁵ is too much, and half of it
    assert opt.total_notfinite == 2
    assert opt.iterations == 2
    assert opt.scale_loss(jnp.float16(4.0)).dtype == jnp.float32


def test_the_inner_optimizer_has_the_settings():
    opt = LossScaleOptimizer(Adam(0.5))
    opt.apply(grads(2.0**15), params())
    with helpers.compilations() as counted:
        opt.learning_rate = 0.25
        opt.apply(grads(2.0**15), params())
        opt.inner_optimizer.lr = 0.125
        opt.apply(grads(2.0**15), params())
    assert counted == [0]
    assert opt.lr == opt.inner_optimizer.learning_rate == 0.125
    opt.iterations = 7
    assert opt.inner_optimizer.iterations == opt.iterations == 7
    assert repr(opt.transformation) == ("dynamic_loss_scale(adam(0.125, eps=1e-07, eps_hat=True))")


class Momentum(optimizers.Optimizer):
    """Someone's own, as Keras documents it."""

    def build(self, variables):
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        velocity = self.velocities[self._get_variable_index(variable)]
        self.assign(velocity, 0.5 * velocity - learning_rate * gradient)
        self.assign_add(variable, velocity)


def test_an_optimizer_of_your_own():
    opt, alone, tree = LossScaleOptimizer(Momentum(0.1), 64.0), Momentum(0.1), params()
    for _ in range(2):
        expected = alone.apply(grads(), tree)
        chex.assert_trees_all_equal(opt.apply(grads(64.0), tree), expected)
        tree = expected
    chex.assert_trees_all_equal(opt.get_weights()[4:], alone.get_weights())


def test_a_trained_optimizer_may_be_wrapped():
    inner, tree = after_steps(lambda: Adam(0.01))
    alone, opt = copy.deepcopy(inner), LossScaleOptimizer(inner, 64.0)
    chex.assert_trees_all_equal(opt.apply(grads(64.0), tree), alone.apply(grads(), tree))
    assert opt.iterations == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossScaleOptimizer(Adam(loss_scale_factor=2.0)), "divided twice"),
        (lambda: LossScaleOptimizer(LossScaleOptimizer(Adam())), "one loss scale is enough"),
        (lambda: LossScaleOptimizer(Adam), r"is the class Adam: call it"),
        (lambda: LossScaleOptimizer("adam"), r"optimizers.get\('adam'\)"),
        (lambda: LossScaleOptimizer(gradtx.adam(0.1)), "wrap it, TFOptimizer"),
        (lambda: LossScaleOptimizer(Adam(), 2.0**30), "max_scale must hold"),
        (lambda: LossScaleOptimizer(Adam(), dynamic_growth_steps=0), "at least 1"),
        (lambda: LossScaleOptimizer(Adam(), learning_rate=0.1), "unexpected argument learning_rate"),
        (lambda: TfKerasLossScaleOptimizer(Adam(), dynamic=False), "initial_scale: give it"),
        (lambda: TfKerasLossScaleOptimizer(Adam(), False, 2.0, 3), "does not grow"),
        (lambda: TfKerasLossScaleOptimizer(Adam(gradient_accumulation_steps=2)), "accumulates"),
        (lambda: MultiOptimizer({"a": Adam()}), r"OptimizerMap\(default"),
        (lambda: MultiOptimizer(OptimizerMap(Adam(loss_scale_factor=2.0))), "one loss for all"),
        (lambda: OptimizerMap(Adam), "call it"),
        (lambda: OptimizerMap(Adam(), [Adam()]), "must be a dict"),
        (lambda: OptimizerMap(Adam(), {"(": Adam()}), "no regular expression"),
        (lambda: OptimizerMap(LossScaleOptimizer(Adam())), "around the whole"),
        (lambda: OptimizerMap(Adam(), {"a": MultiOptimizer(OptimizerMap(Adam()))}), "around the whole"),
        (lambda: TFOptimizer(gradtx.adam), "call it"),
        (lambda: TFOptimizer(Adam()), "must be a transformation"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_scale_that_is_none_is_refused():
    opt, _ = after_steps(MAKERS["keras 3"])
    weights = opt.get_weights()
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="loss scale must be positive"):
            opt.set_weights([*weights[:3], np.float32(wrong), *weights[4:]])
    chex.assert_trees_all_equal(opt.get_weights(), weights)


# Several optimizers.


def test_each_variable_has_its_optimizer():
    opt, tree = after_steps(two)
    adam, sgd = Adam(0.01), SGD(0.1, momentum=0.9)
    kernel, bias = {"kernel": params()["kernel"]}, {"bias": params()["bias"]}
    for i in range(3):
        kernel = adam.apply({"kernel": grads(i + 1.0)["kernel"]}, kernel)
        bias = sgd.apply({"bias": grads(i + 1.0)["bias"]}, bias)
    chex.assert_trees_all_close(tree, kernel | bias, rtol=1e-6)
    for ours, alone in zip(opt.optimizers, (adam, sgd), strict=True):
        chex.assert_trees_all_close(ours.get_weights(), alone.get_weights(), rtol=1e-6)


def test_an_optimizer_without_gradients_stands_still():
    opt, tree = after_steps(two)
    with pytest.warns(UserWarning, match="kernel"):
        opt.apply(grads() | {"kernel": None}, tree)
    assert [own.iterations for own in opt.optimizers] == [3, 4]
    assert opt.iterations == 4


def test_learning_rates_are_those_of_the_optimizers():
    opt, tree = after_steps(two)
    with helpers.compilations() as counted:
        opt.optimizers[1].learning_rate = 0.0
        new = opt.apply(grads(), tree)
    assert counted == [0]
    velocity = opt.optimizers[1].get_weights()[2]
    np.testing.assert_allclose(new["bias"], tree["bias"] + velocity, rtol=1e-6)
    for rate in ("learning_rate", "lr"):
        assert not hasattr(opt, rate)
        with pytest.raises(AttributeError, match="of opt"):
            setattr(opt, rate, 0.1)


@pytest.mark.parametrize("make", [two, lambda: LossScaleOptimizer(two(), 64.0)], ids=["multi", "loss scale of multi"])
def test_the_state_of_an_optimizer_is_a_part_of_its_holders(make):
    """What is done to the one is seen in the other: there is one state."""
    opt = make()
    adam = getattr(opt, "inner_optimizer", opt).optimizers[0]
    factor = getattr(opt, "dynamic_scale", 1.0)
    tree = opt.apply(grads(factor), params())
    adam.iterations = 7
    names = [weight.name for weight in opt.weight_list()]
    assert int(opt.get_weights()[names.index("adam/iteration")]) == 7
    alone = copy.deepcopy(adam)
    moved = adam.apply({"kernel": grads()["kernel"]}, {"kernel": tree["kernel"]})
    chex.assert_trees_all_equal(moved, alone.apply({"kernel": grads()["kernel"]}, {"kernel": tree["kernel"]}))
    new = opt.apply(grads(factor), tree | moved)
    chex.assert_trees_all_close(new["kernel"], alone.apply({"kernel": grads()["kernel"]}, moved)["kernel"], rtol=1e-6)
    chex.assert_trees_all_close(adam.get_weights(), alone.get_weights(), rtol=1e-6)
    assert adam.iterations == 9


def test_an_optimizer_that_groups_its_variables_itself_may_be_held():
    """Muon leaves some to Adam, so that its state has nothing for them; alone and in a holder it has the same form."""
    muon, alone, tree = Muon(0.01), Muon(0.01), params() | {"scale": jnp.ones(3)}
    opt = MultiOptimizer(OptimizerMap(SGD(0.1), {"kernel|scale": muon}))
    along = {name: jnp.full_like(value, 0.25) for name, value in tree.items()}

    def shared(tree: dict[str, Any]) -> dict[str, Any]:
        return {name: tree[name] for name in ("kernel", "scale")}

    for step in (opt, muon, opt):
        expected = alone.apply(shared(along), shared(tree))
        kept = along if step is opt else shared(along)
        tree = tree | step.apply(kept, {name: tree[name] for name in kept})
        chex.assert_trees_all_close(shared(tree), expected, rtol=1e-6)
        opt.set_weights(opt.get_weights())
        chex.assert_trees_all_close(muon.get_weights(), alone.get_weights(), rtol=1e-6)


def test_an_optimizer_of_variables_may_be_held_later():
    held, other = ([Variable(value, name) for name, value in params().items()] for _ in range(2))
    adam, alone = Adam(0.01), Adam(0.01)
    adam.apply([grads()["kernel"]], [held[1]])
    opt = MultiOptimizer(OptimizerMap(SGD(0.1), {"kernel": adam}))
    opt.apply([*grads().values()], held)
    for _ in range(2):
        alone.apply([grads()["kernel"]], [other[1]])
    chex.assert_trees_all_close(held[1].value, other[1].value, rtol=1e-6)


def test_two_may_hold_the_same():
    """Whoever makes the next step goes on from its present state."""
    adam, alone, tree = Adam(0.01), Adam(0.01), params()
    holders = [LossScaleOptimizer(adam, 64.0), MultiOptimizer(OptimizerMap(adam))]
    for opt, factor in [*zip(holders, (64.0, 1.0), strict=True)] * 2:
        expected = alone.apply(grads(), tree)
        chex.assert_trees_all_close(opt.apply(grads(factor), tree), expected, rtol=1e-6)
        tree = expected
    assert adam.iterations == 4
    chex.assert_trees_all_close(adam.get_weights(), alone.get_weights(), rtol=1e-6)


def test_clipping_is_by_group():
    opt = MultiOptimizer(OptimizerMap(SGD(1.0), {"kernel": SGD(1.0, global_clipnorm=0.5)}))
    new = opt.apply(grads(100.0), params())
    np.testing.assert_allclose(params()["bias"] - new["bias"], grads(100.0)["bias"], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(params()["kernel"] - new["kernel"]), 0.5, rtol=1e-5)
    clipped = opt.get_gradients(loss, params())
    np.testing.assert_allclose(clipped["bias"], 2 * params()["bias"])
    np.testing.assert_allclose(np.linalg.norm(clipped["kernel"]), 0.5, rtol=1e-6)


def test_one_loss_scale_for_all():
    opt = MultiOptimizer(OptimizerMap(SGD(0.1), {"kernel": SGD(0.2)}), loss_scale_factor=4.0)
    assert [own.loss_scale_factor for own in opt.optimizers] == [4.0, 4.0]
    plain = MultiOptimizer(OptimizerMap(SGD(0.1), {"kernel": SGD(0.2)}))
    chex.assert_trees_all_equal(opt.apply(grads(4.0), params()), plain.apply(grads(), params()))
    opt.loss_scale_factor = 8.0
    chex.assert_trees_all_equal(opt.apply(grads(8.0), params()), plain.apply(grads(), params()))
    chex.assert_trees_all_equal(opt.minimize(loss, params()), plain.minimize(loss, params()))


def test_a_function_may_choose():
    adam, sgd = Adam(0.01), SGD(0.1)
    opt = MultiOptimizer(lambda variable: adam if variable.ndim == 2 else sgd)
    assert opt.optimizers == []
    variables = [Variable(value, name) for name, value in params().items()]
    opt.apply(list(grads().values()), variables)
    assert opt.optimizers == [sgd, adam]
    opt.minimize(loss)
    assert [weight.name for weight in opt.weight_list()][2:6] == [
        "sgd/iteration",
        "sgd/learning_rate",
        "adam/iteration",
        "adam/learning_rate",
    ]
    with pytest.raises(ValueError, match="a function has no config"):
        opt.get_config()
    with pytest.raises(TypeError, match="the optimizer of bias must be"):
        MultiOptimizer(lambda variable: None).build(params())


def test_running_means_are_by_group():
    opt = MultiOptimizer(OptimizerMap(SGD(0.1), {"kernel": SGD(0.1, use_ema=True, ema_momentum=0.5)}))
    first = opt.apply(grads(), params())
    second = opt.apply(grads(), first)
    means = opt.finalize_variable_values(second)
    chex.assert_trees_all_equal(means["bias"], second["bias"])
    np.testing.assert_allclose(means["kernel"], (first["kernel"] + second["kernel"]) / 2, rtol=1e-6)
    variables = [Variable(value, name) for name, value in params().items()]
    other = LossScaleOptimizer(SGD(0.1, use_ema=True), 64.0)
    other.apply(list(grads(64.0).values()), variables)
    other.finalize_variable_values(variables)
    chex.assert_trees_all_equal(variables[1].value, first["kernel"])


def test_a_map_of_optimizers():
    default, adam, sgd = SGD(), Adam(), SGD(0.5)
    chosen = OptimizerMap(default, {"encoder/.*": adam})
    chosen["encoder/head"] = sgd
    assert chosen["encoder/kernel"] is adam
    assert chosen["encoder/head"] is sgd
    assert chosen["encoder"] is default
    assert chosen(Variable(1.0, "encoder/kernel")) is adam
    assert list(chosen) == ["encoder/.*", "encoder/head"]
    assert len(chosen) == 2
    assert "encoder/head" in chosen
    chosen[".*/kernel"] = sgd
    with pytest.raises(ValueError, match="encoder/kernel matches"):
        chosen["encoder/kernel"]
    with pytest.raises(ValueError, match="already"):
        chosen["encoder/.*"] = sgd
    with pytest.raises(TypeError, match="string"):
        chosen[1] = sgd
    del chosen[".*/kernel"]
    assert chosen["encoder/kernel"] is adam


def test_one_optimizer_under_two_patterns_stays_one():
    adam = Adam(0.5)
    opt = MultiOptimizer(OptimizerMap(SGD(), {"a": adam, "b": adam}))
    other = optimizers.get(json.loads(json.dumps(optimizers.serialize(opt))))
    assert len(opt.optimizers) == len(other.optimizers) == 2
    assert other.optimizer_map["a"] is other.optimizer_map["b"]


def test_transformation_needs_the_variables():
    opt = two()
    with pytest.raises(ValueError, match="build"):
        _ = opt.transformation
    opt.build(params())
    assert repr(opt.transformation) == (
        "by_variable(\n"
        "    {\n"
        "        'adam': adam(0.01, eps=1e-07, eps_hat=True),\n"
        "        'sgd': chain(scale_by_learning_rate(0.1), trace(0.9)),\n"
        "    },\n"
        "    {'kernel': 'adam', 'bias': 'sgd'},\n"
        ")"
    )


# Any transformation.


def test_any_transformation():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    opt, tree, state = TFOptimizer(tx), params(), tx.init(params())
    assert opt.transformation is tx
    for _ in range(3):
        updates, state = tx.update(grads(), state, tree)
        expected = gradtx.apply_updates(tree, updates)
        tree = opt.apply(grads(), tree)
        chex.assert_trees_all_close(tree, expected, rtol=1e-6)


def test_any_learning_rate():
    opt = TFOptimizer(gradtx.chain(gradtx.clip(1.0), gradtx.sgd(schedules.ExponentialDecay(0.5, 1, 0.5))))
    tree = opt.apply(grads(), params())
    assert opt.learning_rate == 0.25
    opt.learning_rate = 0.125
    assert repr(opt.transformation) == "chain(clip(1.0), sgd(0.125))"
    opt.apply(grads(), tree)
    with helpers.compilations() as counted:
        opt.lr = 0.25
        new = opt.apply(grads(), tree)
    assert counted == [0]
    assert opt.learning_rate == 0.25
    np.testing.assert_allclose(new["bias"], tree["bias"] - 0.25 * grads()["bias"], rtol=1e-6)
    with pytest.raises(ValueError, match="learning_rate"):
        opt.learning_rate = -1.0


def test_injected_learning_rate():
    opt = TFOptimizer(gradtx.inject_hyperparams(gradtx.sgd(0.5)))
    with pytest.raises(AttributeError, match="build"):
        _ = opt.learning_rate
    opt.build(params())
    assert opt.learning_rate == 0.5
    opt.learning_rate = 0.25
    new = opt.apply(grads(), params())
    np.testing.assert_allclose(new["bias"], params()["bias"] - 0.25 * grads()["bias"], rtol=1e-6)


@pytest.mark.parametrize("tx", [gradtx.scale(-0.1), gradtx.chain(gradtx.sgd(0.1), gradtx.lion(0.1))])
def test_no_learning_rate(tx):
    opt = TFOptimizer(tx)
    assert not hasattr(opt, "lr")
    with pytest.raises(AttributeError, match="no single learning_rate to set: inject it"):
        opt.learning_rate = 0.1


def test_optax():
    optax = pytest.importorskip("optax")
    tx = optax.chain(optax.clip(0.1), optax.sgd(0.5, momentum=0.9))
    opt, tree = TFOptimizer(tx), params()
    assert opt.transformation is tx
    tree = opt.apply(grads(), tree)
    with helpers.compilations() as counted:
        tree = opt.apply(grads(), tree)
    assert counted == [0]
    np.testing.assert_allclose(tree["bias"], params()["bias"] - 0.5 * (0.1 + 0.19), rtol=1e-6)
    other = TFOptimizer(tx)
    other.build(params())
    other.set_weights(opt.get_weights())
    chex.assert_trees_all_equal(other.apply(grads(), tree), opt.apply(grads(), tree))
    with pytest.raises(ValueError, match="no config"):
        opt.get_config()


def test_any_transformation_with_a_loss_scale():
    tree = {"w": jnp.array([1.0, 2.0])}
    opt = TFOptimizer(gradtx.dynamic_loss_scale(gradtx.sgd(0.25)))
    chex.assert_trees_all_equal(opt.minimize(loss, tree), {"w": tree["w"] * 0.5})


# By name and by config.


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("sgd", "SGD"),
        ("ADAM", "Adam"),
        ("rmsprop", "RMSprop"),
        ("rms_prop", "RMSprop"),
        ("schedule_free_adam_w", "ScheduleFreeAdamW"),
        ("lamb", "Lamb"),
    ],
)
def test_names(name, cls):
    assert type(optimizers.get(name)).__name__ == cls


def test_what_is_an_optimizer_already():
    opt, tx = Adam(), gradtx.adam(0.1)
    assert optimizers.get(opt) is opt
    assert optimizers.get(tx).transformation is tx


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        (None, "got None"),
        (Adam, r"call it, Adam\(...\)"),
        (3, "expected a name"),
        ("adma", "did you mean Adam"),
        ("package>Mine", "custom_objects"),
        ({}, "class_name"),
        ({"class_name": "Adam"}, "class_name and the dict config"),
        ({"class_name": "Adam", "config": {}, "run": "x"}, "unknown keys 'run'"),
        ({"class_name": "os.system", "config": {}}, "no optimizer 'os.system'"),
        ({"class_name": "Adam", "config": {"learning_rat": 1.0}}, "did you mean learning_rate"),
        ({"class_name": "Adam", "config": {"lr": 1.0, "learning_rate": 1.0}}, "two names"),
        ({"class_name": "Adam", "config": {"learning_rate": {"class_name": "Foo", "config": {}}}}, "Foo"),
    ],
)
def test_wrong_identifiers(identifier, message):
    with pytest.raises((TypeError, ValueError), match=message):
        optimizers.get(identifier)
    if identifier is not None and not isinstance(identifier, str | type):
        with pytest.raises((TypeError, ValueError)):
            optimizers.deserialize(identifier)


def test_old_names_in_configs_are_honoured():
    opt = optimizers.get({"class_name": "sgd", "config": {"lr": 0.5, "decay": 1.0}})
    assert (opt.learning_rate, opt.decay) == (0.5, 1.0)


def test_schedules_in_configs():
    opt = SGD(schedules.CosineDecay(0.5, 10))
    for table in (optimizers, KERAS2):
        config = json.loads(json.dumps(table.serialize(opt)))
        assert repr(table.deserialize(config)) == repr(opt)
    assert KERAS2.serialize(SGD()).keys() == {"class_name", "config"}


def test_your_own_classes():
    class Mine(SGD):
        pass

    config = optimizers.serialize(Mine(0.5))
    assert config["registered_name"] == "Mine"
    assert config["module"] is None
    assert type(optimizers.get(config, custom_objects={"Mine": Mine})) is Mine
    assert type(optimizers.get("Mine", {"Mine": Mine})) is Mine
    nested = optimizers.serialize(LossScaleOptimizer(Mine(0.5)))
    assert type(optimizers.deserialize(nested, {"Mine": Mine}).inner_optimizer) is Mine
    with pytest.raises(ValueError, match="no optimizer 'Mine'"):
        optimizers.deserialize(nested)
    with pytest.raises(TypeError, match="must be a class"):
        optimizers.get("Mine", {"Mine": print})


@pytest.mark.parametrize("opt", [legacy.Adam(), gradtx.adam(0.1), "adam"])
def test_only_its_own_are_serialized(opt):
    with pytest.raises((TypeError, ValueError), match="serialize"):
        optimizers.serialize(opt)


@pytest.mark.parametrize(
    ("case", "table"),
    [
        ("keras3:LossScaleOptimizer__adam_dynamic", optimizers),
        ("keras3:MultiOptimizer__two", optimizers),
        ("tfk_legacy:LossScaleOptimizer__adam_dynamic", legacy),
    ],
)
def test_configs_of_real_keras(case, table):
    about = data.keras()[case]
    opt = table.get({"class_name": about["cls"], "config": about["config"]})
    ours, theirs = opt.get_config(), about["config"]
    assert ours.keys() == theirs.keys()
    assert table.serialize(table.deserialize(table.serialize(opt))) == table.serialize(opt)


def test_configs_of_earlier_keras_3():
    config = optimizers.serialize(LossScaleOptimizer(Adam()))
    idle = {"weight_decay": None, "use_ema": False, "ema_momentum": 0.99, "dynamic": True}
    assert repr(optimizers.get({**config, "config": config["config"] | idle})) == repr(LossScaleOptimizer(Adam()))
    with pytest.raises(ValueError, match="weight_decay"):
        optimizers.get({**config, "config": config["config"] | {"weight_decay": 0.1}})


def averaging():
    return MultiOptimizer(OptimizerMap(SGD(0.1, use_ema=True), {"kernel": Adam(0.1, use_ema=True)}))


@pytest.mark.parametrize(
    "make", [averaging, lambda: LossScaleOptimizer(SGD(0.1, use_ema=True))], ids=["multi", "scale"]
)
def test_training_goes_on_after_finalizing(make):
    opt = make()
    start = opt.apply(grads(), params())
    mean = opt.finalize_variable_values(start)
    kept = jax.tree.map(np.array, mean)
    opt.apply(grads(), start)
    chex.assert_trees_all_equal(mean, kept)
    opt.apply(grads(), mean)


@pytest.mark.parametrize("make", [averaging, lambda: LossScaleOptimizer(Adam(0.1))], ids=["multi", "scale"])
def test_building_again_changes_nothing(make):
    opt = make()
    opt.apply(grads(np.inf), params())
    opt.apply(grads(), params())
    before = opt.get_weights()
    opt.build(params())
    chex.assert_trees_all_equal(opt.get_weights(), before)
    with pytest.raises(ValueError, match="built for"):
        opt.build({"other": jnp.ones(2)})


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("make", [averaging, lambda: LossScaleOptimizer(Adam(0.1))], ids=["multi", "scale"])
def test_files(make, suffix, tmp_path):
    pytest.importorskip("h5py")
    opt, file = make(), tmp_path / f"opt{suffix}"
    after = opt.apply(grads(), params())
    opt.save_weights(file)
    loaded = make()
    with pytest.raises(ValueError, match="shape"):
        loaded.load_weights(file, jax.tree.map(lambda x: x[None], params()))
    assert not any(one.built for one in (loaded, *loaded.optimizers))
    loaded.load_weights(file, params())
    again = [loaded] if suffix == ".weights.h5" else [loaded, gradtx.keras.load_optimizer(file, params())]
    expected = opt.apply(grads(), after)
    for one in again:
        chex.assert_trees_all_equal(one.apply(grads(), after), expected)
