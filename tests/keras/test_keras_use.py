"""What people do with optimizers besides stepping: change them, finish, hand them round, derive, save, drop them."""

import copy
import functools
import gc
import inspect
import pickle
import weakref

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.keras import load_optimizer, schedules
from gradtx.keras import optimizers as keras3
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.variable import Variable
from gradtx.keras.keras2 import optimizers as keras2
from gradtx.keras.optimizers import SGD, Adam, AdamW, Ftrl, Muon, Nadam, Optimizer
from gradtx.keras.tf_keras import optimizers as tf_keras
from gradtx.keras.tf_keras_legacy import optimizers as tf_keras_legacy


def params():
    return {"a": jnp.arange(1.0, 4.0), "b": jnp.full((2, 3), 0.5)}


def grads(step=0):
    return {"a": jnp.cos(jnp.arange(3.0) + step), "b": jnp.sin(jnp.arange(6.0) + step).reshape(2, 3)}


def train(opt, p=None, steps=3, start=0):
    p = params() if p is None else p
    for step in range(start, start + steps):
        p = opt.apply(grads(step), p)
    return p


same = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-7)


def variables():
    return [Variable(value, name) for name, value in params().items()]


def loss(p, scale=1.0):
    return scale * (jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 2))


# Changes in mid-training.

CONSTANT = schedules.PiecewiseConstantDecay([10_000], [0.01, 0.01])


@pytest.mark.parametrize("cls", [SGD, AdamW, Muon, Ftrl, Nadam], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "extra", [pytest.param({}, marks=pytest.mark.long), {"weight_decay": 0.1, "clipnorm": 0.5}], ids=str
)
def test_a_rate_becomes_a_schedule_and_a_number_again(cls, extra):
    changed, steady = cls(0.01, **extra), cls(0.01, **extra)
    p = train(changed)
    changed.learning_rate = CONSTANT
    p = train(changed, p, start=3)
    changed.learning_rate = 0.01
    p = train(changed, p, start=6)
    same(p, train(steady, steps=9))
    assert changed.iterations == 9


def test_momentum_and_clipping_may_begin_later():
    opt, other = SGD(0.1), SGD(0.1)
    p = train(opt)
    same(p, train(other))
    opt.momentum, opt.clipnorm = 0.9, 0.5
    q = train(opt, p, start=3)
    same(q, train(SGD(0.1, momentum=0.9, clipnorm=0.5), p, start=3))
    opt.momentum = 0.0
    train(opt, q, start=6)
    assert opt.iterations == 9


@pytest.mark.parametrize(("name", "value"), [("use_ema", True), ("gradient_accumulation_steps", 2)])
def test_what_shapes_the_state_cannot_begin_later(name, value):
    opt = Adam(0.1)
    train(opt)
    with pytest.raises(ValueError, match=f"Adam: {name} shapes the state"):
        setattr(opt, name, value)
    train(opt)


def test_settings_are_checked_together_when_set():
    opt = SGD(0.1, clipnorm=1.0)
    with pytest.raises(ValueError, match="clipnorm and clipvalue exclude"):
        opt.clipvalue = 1.0
    assert opt.clipvalue is None
    train(opt)


# The running mean.


def test_training_goes_on_after_finalizing():
    opt = SGD(0.1, use_ema=True, ema_momentum=0.5)
    p = train(opt)
    mean = opt.finalize_variable_values(p)
    kept = jax.tree.map(np.asarray, mean)
    train(opt, mean)
    train(opt, p)
    same(mean, kept)


def test_before_the_first_step_there_is_no_mean():
    opt = SGD(0.1, use_ema=True)
    opt.build(params())
    same(opt.finalize_variable_values(params()), params())


def test_the_mean_moves_for_variables_without_a_gradient():
    a, b = variables()
    opt = SGD(0.0, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2)
    opt.build([a, b])
    opt.apply([grads()["a"]], [a])
    opt.apply(list(grads().values()), [a, b])
    same([a.value, b.value], list(params().values()))


def test_nadams_product_goes_on_for_all_variables():
    a, b = variables()
    opt = Nadam(0.1)
    opt.build([a, b])
    whole = Nadam(0.1)
    for step in range(3):
        opt.apply([grads(step)["b"]], [b])
    train(whole)
    assert opt.get_weights()[-1] == whole.get_weights()[-1] != 1


# Variables, values of variables, copies.


def test_values_stand_for_the_variables_it_was_built_for():
    held = variables()
    opt = Adam(0.1)
    opt.build(held)
    values = [v.value for v in held]
    new, _ = jax.jit(opt.stateless_apply)(opt.variables, list(grads().values()), values)
    opt.apply(list(grads().values()), held)
    same(new, [v.value for v in held])


def test_constraints_hold_in_pure_steps():
    held = [Variable(jnp.array([-2.0]), "v", constraint=lambda x: jnp.maximum(x, 0))]
    opt = SGD(0.1)
    opt.build(held)
    new, _ = opt.stateless_apply(opt.variables, [jnp.ones(1)], [held[0].value])
    same(new, [jnp.zeros(1)])


def test_after_pickling_variables_are_known_by_name():
    held = variables()
    opt = SGD(0.1, momentum=0.9)
    opt.apply(list(grads().values()), held)
    opt, held = pickle.loads(pickle.dumps((opt, held)))
    opt.apply(list(grads().values())[::-1], held[::-1])
    other = SGD(0.1, momentum=0.9)
    p = train(other, steps=1)
    same([v.value for v in held], list(other.apply(grads(), p).values()))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_go_their_own_ways(copied):
    opt = Adam(0.1)
    p = train(opt)
    twin = copied(opt)
    same(train(opt, p, start=3), train(twin, p, start=3))


def test_variables_and_arrays_are_not_mixed():
    with pytest.raises(TypeError, match="mixed"):
        SGD(0.1).apply([jnp.ones(1), jnp.ones(1)], [Variable(jnp.ones(1)), jnp.ones(1)])


def test_gradients_in_any_sequence():
    p = tuple(params().values())
    for kind in (tuple, list, iter):
        new = SGD(0.1).apply(kind(list(grads().values())), p)
        assert isinstance(new, tuple)


def test_a_variable_is_a_sequence_and_a_number():
    assert [float(x) for x in Variable([1.0, 2.0])] == [1.0, 2.0]
    assert len(Variable([1.0, 2.0])) == 2
    assert float(Variable(2.0)) == 2.0
    assert int(Variable(2.0)) == 2
    assert not bool(Variable(0.0))


@helpers.takes_variables
def test_a_variable_goes_into_functions_of_jax():
    """Its own among the operands; with `jit` and `grad` too, whose gradients are variables then."""
    v = Variable([1.0, 4.0], "w")
    for function in (jnp.sqrt, jnp.sum, jnp.sign, jnp.linalg.norm, jax.nn.relu, jax.jit(lambda x: 2 * x)):
        np.testing.assert_array_equal(function(v), function(v.value))
    np.testing.assert_array_equal(jnp.where(v > 2, v, 0), [0.0, 4.0])
    np.testing.assert_array_equal(jnp.maximum(v, 2.0) + jnp.add(jnp.ones(2), v), [4.0, 9.0])
    grads = jax.grad(lambda values: jnp.sum(values[0] ** 2))([v])
    SGD(0.25).apply(grads, [v])
    np.testing.assert_array_equal(v.numpy(), [0.5, 2.0])
    assert repr(v) == "Variable(w, float32[2])"


def test_the_counter_that_is_ahead_stays_ahead():
    opt, twin = (keras2.Adam(0.1, decay=0.5, counter_first=True) for _ in range(2))
    p = train(opt)
    twin.build(p)
    twin.set_weights(opt.get_weights())
    same(train(twin, p, start=3), train(opt, p, start=3), rtol=1e-7)


# Learning rates.


class Halving:
    def __init__(self):
        self.rate = 0.2

    def now(self):
        self.rate /= 2
        return self.rate

    __call__ = now


@pytest.mark.parametrize("rate", [lambda: 0.1, Halving(), Halving().now], ids=["function", "object", "method"])
def test_functions_of_nothing_are_asked_at_every_step(rate):
    opt = SGD(rate)
    p = opt.apply(grads(), params())
    same(p, SGD(0.1).apply(grads(), params()))


def test_rates_that_float32_does_not_hold():
    with pytest.raises(ValueError, match="SGD: learning_rate 1e\\+300 is more than float32 holds"):
        SGD(1e300)
    with pytest.raises((TypeError, ValueError), match="SGD: learning_rate"):
        SGD(lambda: None).apply(grads(), params())


# Losses.


def test_a_loss_takes_the_batch():
    opt, other = SGD(0.1), SGD(0.1)
    p = q = params()
    for scale in (1.0, 2.0, 3.0):
        p = opt.minimize(loss, p, scale)
        q = other.minimize(lambda p, scale=scale: loss(p, scale), q)
    same(p, q)
    same(keras2.SGD(0.1).get_updates(loss, params(), 2.0), SGD(0.1).minimize(loss, params(), 2.0))
    same(opt.get_gradients(loss, params(), 2.0), jax.grad(loss)(params(), 2.0))


def test_batches_share_a_program():
    @chex.assert_max_traces(n=1)
    def counted(p, x):
        return loss(p, x)

    opt, p = SGD(0.1), params()
    for scale in (1.0, 2.0, 3.0):
        p = opt.minimize(counted, p, jnp.asarray(scale))


def test_a_loss_without_parameters_is_refused():
    with pytest.raises(TypeError, match="must take the parameters"):
        SGD(0.1).minimize(lambda: 1.0, params())


def test_the_names_of_tensorflow():
    held = variables()
    opt = tf_keras.SGD(0.1)
    opt.minimize(lambda values: sum(jnp.sum(v**2) for v in values), var_list=held)
    same([v.value for v in held], [0.8 * v for v in params().values()])
    with pytest.raises(TypeError, match="unexpected"):
        opt.minimize(loss, params(), tape=None)


def test_keras_1_order_of_arguments():
    with pytest.warns(DeprecationWarning, match="Keras 1"):
        new = keras2.SGD(0.1).get_updates(params(), {"a": lambda x: 0 * x}, loss)
    same(new["a"], jnp.zeros(3))


# What is kept, and let go.


def test_nothing_is_handed_out_alive():
    opt = Adam(0.1, use_ema=True)
    p = train(opt)
    handed = [opt.variables, opt.state, opt.finalize_variable_values(p), p]
    before = [jax.tree.map(np.array, tree) for tree in handed]
    train(opt, p)
    same(handed, before)


class Momentum(Optimizer):
    def __init__(self, learning_rate=0.1, beta=0.9, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta = beta

    def build(self, variables):
        super().build(variables)
        self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        v = self.velocities[self._get_variable_index(variable)]
        self.assign(v, self.beta * v - learning_rate * gradient)
        self.assign_add(variable, v)

    def get_config(self):
        return super().get_config() | {"beta": self.beta}


@pytest.mark.parametrize("make", [lambda: Adam(0.1), Momentum], ids=["Adam", "derived"])
def test_optimizers_are_let_go(make):
    opt = make()
    train(opt)
    opt.minimize(loss, params())
    reference = weakref.ref(opt)
    del opt
    gc.collect()
    assert reference() is None


def test_losses_and_what_they_hold_are_let_go():
    class Data:
        def loss(self, p):
            return loss(p)

    data = Data()
    opt = SGD(0.1)
    opt.minimize(data.loss, params())
    opt.minimize(lambda p, data=data: data.loss(p), params())
    opt.get_gradients(data.loss, params())
    reference = weakref.ref(data)
    del data
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("make", [lambda: Adam(0.1), Momentum], ids=["Adam", "derived"])
def test_programs_stay_with_their_optimizer(make):
    """A copy has none, and makes its own; the optimizer goes on with those that it has."""
    opt, p = make(), params()
    for _ in range(2):
        p = opt.minimize(loss, p)
    twins = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    with helpers.compilations() as counted:
        q = opt.minimize(loss, p)
    assert counted == [0]
    for twin in twins:
        same(twin.minimize(loss, p), q)


def test_the_base_of_all_is_smaller_than_that_of_keras():
    """In methods and properties, of which Keras's has 46; and no class stands deeper than on the seventh level."""
    kinds = property, classmethod, staticmethod
    own = [name for name, value in vars(Facade).items() if inspect.isfunction(value) or isinstance(value, kinds)]
    assert len(own) < 46
    waiting, depths = [Facade], []
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if cls.__module__.startswith("gradtx."):
            depths.append(len(cls.__mro__) - 1)
    assert max(depths) <= 7


# One's own.

SETTINGS = [
    {},
    {"weight_decay": 0.1, "clipnorm": 0.5},
    {"use_ema": True, "ema_overwrite_frequency": 2},
    {"gradient_accumulation_steps": 2, "loss_scale_factor": 4.0},
    {"learning_rate": CONSTANT},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "+".join(s) or "plain")
def test_a_derived_optimizer_is_like_ours(settings):
    ours, own = SGD(**{"learning_rate": 0.1, "momentum": 0.9, **settings}), Momentum(**settings)
    p, q = train(ours, steps=4), train(own, steps=4)
    same(p, q)
    weights = own.get_weights()
    assert [w.shape for w in weights] == [w.shape for w in ours.get_weights()]
    twin = pickle.loads(pickle.dumps(own))
    same(train(twin, q, start=4), train(ours, p, start=4))
    again = Momentum(**settings)
    again.build(params())
    again.set_weights(weights)
    same(train(again, q, start=4), train(own, q, start=4))
    assert Momentum.from_config(own.get_config()).beta == 0.9


def test_a_derived_optimizer_in_a_pure_step():
    own, ours = Momentum(), SGD(0.1, momentum=0.9)
    own.build(params())
    ours.build(params())
    steps = [jax.jit(opt.stateless_apply)(opt.variables, grads(), params()) for opt in (own, ours)]
    same(*steps)


def test_its_attributes_may_change():
    own, ours = Momentum(), SGD(0.1, momentum=0.9)
    p, q = train(own), train(ours)
    own.beta, ours.momentum = 0.5, 0.5
    same(train(own, p, start=3), train(ours, q, start=3))


def test_its_private_attributes_too():
    class Scaled(Optimizer):
        def __init__(self):
            super().__init__(learning_rate=0.1)
            self._factor = 1.0

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, self._factor * learning_rate * gradient)

    opt = Scaled()
    opt.apply(grads(), params())
    opt._factor = 3.0
    same(opt.apply(grads(), params()), SGD(0.3).apply(grads(), params()))


def test_its_variables_can_be_assigned_and_read():
    own = Momentum()
    p = train(own)
    seen = own.velocities[0].value
    own.velocities[0].assign(jnp.zeros(3))
    q = own.apply(jax.tree.map(jnp.zeros_like, p), p)
    same(q["a"], p["a"])
    assert np.all(np.isfinite(seen))


def test_update_step_of_a_derived_adam_counts():
    class Plain(Adam):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, learning_rate * gradient)

    same(train(Plain(0.1)), train(SGD(0.1)))


def test_annotations_of_a_user_are_not_arguments():
    class Annotated(Optimizer):
        momenta: list
        beta: float = 0.9

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, learning_rate * gradient * self.beta)

    assert "beta" not in Annotated(learning_rate=0.1).get_config()


def test_build_must_call_its_parents():
    class Forgetful(Momentum):
        def build(self, variables):
            self.velocities = []

    with pytest.raises(TypeError, match="must call super"):
        train(Forgetful())


# Refusals.


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"var_list": [jnp.ones(1)]}, TypeError, "must be variables"),
        ({"var_names": "bias"}, TypeError, "a list of strings"),
        ({"var_names": ["("]}, ValueError, "no regular expression"),
    ],
)
def test_wrong_exclusions(kwargs, error, match):
    with pytest.raises(error, match=match):
        AdamW(0.1).exclude_from_weight_decay(**kwargs)
    with pytest.raises(TypeError, match="a list of regular expressions"):
        Muon(exclude_layers="bias")


def test_exclusions_add_up():
    held = variables()
    opt = SGD(0.1, weight_decay=0.5)
    opt.exclude_from_weight_decay(var_list=[held[0]])
    opt.exclude_from_weight_decay(var_names=["b"])
    opt.apply([jnp.zeros(3), jnp.zeros((2, 3))], held)
    same([v.value for v in held], list(params().values()))


@pytest.mark.parametrize(("index", "value"), [(1, np.nan), (1, -1.0), (0, np.nan), (0, 0.5), (0, -1)])
def test_wrong_weights_change_nothing(index, value):
    opt = Adam(0.1)
    train(opt)
    before = opt.get_weights()
    weights = [w + 1 for w in before]
    weights[index] = np.asarray(value)
    with pytest.raises(ValueError, match="Adam"):
        opt.set_weights(weights)
    for ours, theirs in zip(opt.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_name_in_a_file_tells_its_class(tmp_path):
    pytest.importorskip("h5py")
    opt = Adam(0.1)
    train(opt)
    opt.save_weights(tmp_path / "opt.weights.h5")
    with pytest.raises(ValueError, match="called adam: Adam, it seems"):
        keras3.Adamax(0.1).load_weights(tmp_path / "opt.weights.h5", params())
    Adam(0.1, name="mine").load_weights(tmp_path / "opt.weights.h5", params())


def test_another_generations_file_is_refused(tmp_path):
    pytest.importorskip("h5py")
    opt = tf_keras.Adam(0.1)
    train(opt)
    opt.save_weights(tmp_path / "adam.h5")
    other = tf_keras_legacy.Adam(0.1)
    with pytest.raises(ValueError, match="written by tf_keras, this is tf_keras_legacy"):
        other.load_weights(tmp_path / "adam.h5", params())
    assert not other.built
    with pytest.raises(ValueError, match="Adam"):
        tf_keras.Adam(0.1).load_weights(tmp_path / "adam.h5", {"a": jnp.ones(7)})
    tf_keras.Adam(0.1).load_weights(tmp_path / "adam.h5", params())


def test_every_class_is_saved_and_goes_on(tmp_path):
    pytest.importorskip("h5py")
    for name in ("SGD", "Adafactor", "Nadam", "RMSprop", "Muon"):
        opt = getattr(keras3, name)(0.01)
        p = train(opt)
        opt.save_weights(tmp_path / f"{name}.h5")
        again = load_optimizer(tmp_path / f"{name}.h5", params())
        same(train(opt, p, start=3), train(again, p, start=3))


def test_what_only_keras_can_do_is_refused():
    scale = Variable(jnp.ones(1), "scale")
    scale.overwrite_with_gradient = True
    with pytest.raises(ValueError, match="overwritten with its gradient"):
        SGD(0.1).build([scale])


def test_building_twice_is_building_once():
    opt = Momentum()
    p = train(opt)
    opt.build(p)
    assert len(opt.get_weights()) == 4
    with pytest.raises(ValueError, match="built for"):
        opt.build({"other": jnp.ones(2)})


def test_building_in_a_trace_is_refused():
    with pytest.raises(TypeError, match="stateless_apply"):
        jax.jit(lambda p: SGD(0.1).build(p))(params())
