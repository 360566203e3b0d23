"""Ctrl-C at any moment of a step leaves an optimizer that can go on."""

import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.keras import optimizers as keras3
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.program import Program
from gradtx.keras.engine.variable import Variable
from gradtx.keras.keras2 import optimizers as keras2
from gradtx.keras.tf_keras import optimizers as tf_keras

PARAMS = {"a": jnp.ones((4, 3)), "b": jnp.ones(5), "c": jnp.ones(())}
GRADS = {name: jnp.full_like(value, 0.5) for name, value in PARAMS.items()}


@pytest.fixture(autouse=True)
def interrupts_raise():
    """As in a program at a terminal; the workers of a parallel run ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def loss(params):
    return sum(jnp.sum((value - 3.0) ** 2) for value in params.values())


class Own(keras3.Optimizer):
    """An optimizer of one's own, whose program leaves the old state as it is."""

    def build(self, variables):
        super().build(variables)
        self.moments = [self.add_variable_from_reference(v, "moment") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        moment = self.moments[self._get_variable_index(variable)]
        self.assign(moment, 0.5 * moment + gradient)
        self.assign_sub(variable, learning_rate * moment)


def two_groups():
    return keras3.MultiOptimizer(keras3.OptimizerMap(keras3.Adam(), {"b": keras3.SGD(0.1, momentum=0.5)}))


MAKERS = {
    "Adam": keras3.Adam,
    "Keras 2's Adam": keras2.Adam,
    "LossScaleOptimizer": lambda: keras3.LossScaleOptimizer(keras3.Adam()),
    "tf.keras's LossScaleOptimizer": lambda: tf_keras.LossScaleOptimizer(tf_keras.Adam()),
    "MultiOptimizer": two_groups,
    "an optimizer of one's own": lambda: Own(0.1),
}
CALLS = {
    "apply": lambda opt, params: opt.apply(GRADS, params),
    "apply_gradients": lambda opt, params: opt.apply_gradients(zip(GRADS.values(), params.values(), strict=True)),
    "minimize": lambda opt, params: opt.minimize(loss, params),
    "get_updates": lambda opt, params: opt.get_updates(loss, params),
}
STEPS = [
    *((maker, "apply") for maker in MAKERS),
    ("Adam", "apply_gradients"),
    ("Adam", "minimize"),
    ("MultiOptimizer", "minimize"),
    ("Keras 2's Adam", "get_updates"),
]


def variables():
    return {name: Variable(value, name) for name, value in PARAMS.items()}


def assert_consistent(opt: Facade, params):
    """State and parameters are those after the same number of steps, and training goes on."""
    twin, values = type(opt).from_config(opt.get_config()), variables()
    for _ in range(opt.iterations):
        twin.apply(GRADS, values)
    np.testing.assert_array_equal(*(np.concatenate([np.ravel(w) for w in o.variables]) for o in (opt, twin)))
    for name, value in params.items():
        np.testing.assert_array_equal(value.value, values[name].value)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_program_and_assignment_waits(maker, number, monkeypatch):
    """The signal comes right behind the program, and once more while the first variable is assigned."""
    opt, params = MAKERS[maker](), variables()
    opt.apply(GRADS, params)
    call, assign = Program.__call__, Variable.assign

    def signalled(self, *args):
        result = call(self, *args)
        signal.raise_signal(number)
        return result

    def assigned(self, value):
        signal.raise_signal(number)
        assign(self, value)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Program, "__call__", signalled)
            patched.setattr(Variable, "assign", assigned)
            with pytest.raises(KeyboardInterrupt):
                opt.apply(GRADS, params)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert opt.iterations == 2
    assert_consistent(opt, params)


def test_while_a_program_is_traced_the_signal_is_handled_at_once():
    opt, traced = keras3.Adam(), []

    def interrupted(params):
        if not traced:
            traced.append(params)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the interrupt waited")
        return loss(params)

    params = variables()
    with pytest.raises(KeyboardInterrupt):
        opt.minimize(interrupted, params)
    assert opt.iterations == 0
    opt.minimize(interrupted, params)
    assert opt.iterations == 1


def test_every_signal_is_handled_when_the_work_has_ended():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("terminate"))
    try:

        def work():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
            heard.append("worked")

        with pytest.raises(KeyboardInterrupt):
            uninterrupted(work)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["worked", "terminate"]


def test_other_threads_may_step():
    opt, params = keras3.Adam(), variables()
    thread = threading.Thread(target=opt.apply, args=(GRADS, params))
    thread.start()
    thread.join()
    assert_consistent(opt, params)


@pytest.mark.parametrize(("maker", "call"), STEPS)
def test_interrupts_at_random_moments(maker, call):
    """A timer interrupts a loop of steps, 60 times at moments over some steps' time."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs setitimer")
    step, moments = CALLS[call], np.random.default_rng(0).uniform(2e-4, 4e-3, 60)
    opt, params = MAKERS[maker](), variables()
    step(opt, params)

    def interrupt(*_):
        raise KeyboardInterrupt

    def train(moment):
        signal.setitimer(
            signal.ITIMER_REAL, moment, 1.0
        )  # again, if it came while Python collects garbage, and was lost
        while True:
            step(opt, params)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for moment in moments:
            with pytest.raises(KeyboardInterrupt):
                train(moment)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    before = opt.iterations
    step(opt, params)
    assert opt.iterations == before + 1
    if call == "apply" and maker != "an optimizer of one's own":
        assert_consistent(opt, params)


def test_interrupts_while_building():
    """An optimizer that was interrupted while it was built is built by the next step."""
    moments = np.random.default_rng(1).uniform(0, 6e-3, 60)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for moment in moments:
            opt, params = two_groups(), variables()
            try:
                signal.setitimer(signal.ITIMER_REAL, moment + 1e-5)
                opt.apply(GRADS, params)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (KeyboardInterrupt, SystemError):  # C code of NumPy's makes the other one of it
                pass
            opt.apply(GRADS, params)
            assert all(np.isfinite(weight).all() for weight in opt.get_weights())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
