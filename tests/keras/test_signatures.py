"""What `help`, `inspect.signature` and type checkers show of the classes."""

import inspect
import json
import pathlib
import pydoc
import re
import subprocess
import sys

import pytest

from gradtx.keras import optimizers as keras3
from gradtx.keras.engine.describe import _bounds
from gradtx.keras.keras1 import optimizers as keras1
from gradtx.keras.tf_keras import optimizers as tf_keras
from tests.keras.generations import CLASSES, cls_of

HOLDERS = [keras3.LossScaleOptimizer, keras3.MultiOptimizer, keras3.TFOptimizer, tf_keras.LossScaleOptimizer]
EVERY = [*(cls_of(*which) for which in CLASSES), *HOLDERS]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: f"{cls.__module__.split('.')[-2]}-{cls.__name__}")
def test_every_argument_is_described(cls):
    """In words, with its bounds and its default; and the class, by what it does."""
    text = cls.__doc__
    does, _, arguments = text.partition("\n\nArguments:\n")
    assert len(does.split()) >= 4
    described = dict(re.findall(r"^    (\w+): ((?:.+\n?)(?:        .+\n?)*)", arguments, re.M))
    assert [*described] == [*inspect.signature(cls).parameters]
    for name, parameter in inspect.signature(cls).parameters.items():
        sentence = " ".join(described[name].split())
        default = "required" if parameter.default is parameter.empty else f"{parameter.default!r} by default"
        bounds_and_default = f" {_bounds(cls.fields()[name].kind)}; {default}."
        assert sentence.endswith(bounds_and_default), sentence
        assert len(re.findall("[a-z]{2,}", sentence.removesuffix(bounds_and_default))) >= 3, sentence
        assert repr(parameter.annotation).isprintable()
        assert "Annotated" not in repr(parameter.annotation), name


def test_a_signature_is_as_a_person_writes_it():
    shown = str(inspect.signature(keras3.Adam))
    assert shown.startswith("(learning_rate: Rate = 0.001, beta_1: Decay = 0.9, beta_2: Decay = 0.999, epsilon: ")
    assert "clipnorm: NonNegative | None = None" in shown
    assert str(inspect.signature(keras1.SGD)).startswith("(lr: Rate = 0.01, momentum: Fraction = 0.0, decay: ")


def test_help_begins_with_signature_and_arguments():
    lines = pydoc.plain(pydoc.render_doc(keras3.Adam)).splitlines()
    assert lines[2].startswith("class Adam(")
    assert any("beta_1: β₁: decay rate of m" in line for line in lines[:20])


def test_a_class_of_ones_own_has_its_own():
    class Mine(keras3.Optimizer):
        """Does nothing."""

        def __init__(self, learning_rate=0.5, beta=0.9, **kwargs):
            super().__init__(learning_rate=learning_rate, **kwargs)

    class Nameless(keras3.SGD):
        pass

    assert Mine.__doc__ == "Does nothing."
    assert str(inspect.signature(Mine)) == "(learning_rate=0.5, beta=0.9, **kwargs)"
    assert inspect.signature(Nameless) == inspect.signature(keras3.SGD)


def test_a_type_checker_refuses_what_is_wrong_and_nothing_else():
    pytest.importorskip("basedpyright")
    program = pathlib.Path(__file__).with_name("typed_program.py")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error"]
    command += ["--pythonpath", sys.executable, str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=program.parents[2])
    errors = {error["range"]["start"]["line"] for error in json.loads(ran.stdout)["generalDiagnostics"]}
    assert errors == {i for i, line in enumerate(program.read_text().splitlines()) if line.endswith("# wrong")}


def test_help_shows_what_users_call():
    """Arguments with their meaning, and the methods of a Keras optimizer; not how the engine works."""
    page = pydoc.plain(pydoc.render_doc(keras3.Adam))
    assert "beta_1: " in page.split("Method resolution order")[0]
    assert {"apply", "get_config", "learning_rate", "minimize", "set_weights", "variables"} <= {*dir(keras3.Adam)}
    engine = {"around", "chain", "compose", "dialect", "keeper", "lenses", "parts", "slot_weights", "weight_list"}
    assert not engine & {*dir(keras3.Adam), *dir(keras3.MultiOptimizer)}
    assert "optimizers" in dir(keras3.MultiOptimizer)
    assert len(page.splitlines()) < 200
