"""The examples, run as a user runs them, but under strict promotion and with warnings as errors."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest

import gradtx

EXAMPLES = Path(__file__).parent.parent / "examples"
STRICT = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}


def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | STRICT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def last_number(output: str, pattern: str) -> float:
    """The number in the last line, which must be of the given form."""
    match = re.fullmatch(pattern, output.splitlines()[-1])
    assert match is not None, output
    return float(match[1])


def accuracy(output: str) -> float:
    return last_number(output, r"accuracy: (\d+\.\d) %")


def assert_picture(path: Path) -> None:
    pixels = matplotlib.image.imread(path)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert 0.5 < np.mean(np.all(pixels == 1, axis=-1)) < 0.99, "neither blank nor full"


def test_train_digits(tmp_path: Path) -> None:
    done = run("train_digits.py", "--steps", 100, "--optimizer", "lion", "--learning-rate", 1e-3, "--out", tmp_path)
    assert accuracy(done.stdout) > 85
    for shown in ("100/100", "loss", "learning rate", "gradient norm"):
        assert shown in done.stderr
    assert_picture(tmp_path / "digits.png")
    printed = eval("\n".join(done.stdout.splitlines()[:-1]), vars(gradtx).copy())
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)
    assert printed == gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lion(schedule))
    assert printed == gradtx.from_config(json.loads((tmp_path / "optimizer.json").read_text()))


def test_keras_fit() -> None:
    """Without strict promotion, which Keras's own layers do not stand."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / "keras_fit.py"), "--epochs", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert accuracy(done.stdout) > 85


def test_train_digits_refuses_an_unknown_optimizer() -> None:
    message = run("train_digits.py", "--optimizer", "adm", code=2).stderr
    assert "adm" in message
    for name in ("adafactor", "adam", "adamw", "lion", "sgd"):
        assert name in message.rpartition("choose from")[2]


def test_char_transformer() -> None:
    done = run("char_transformer.py", "--steps", 20)
    assert "mask=weights_only(exclude='^embedding')" in done.stdout
    uniform = np.log(100)  # the alphabet has about a hundred letters
    assert last_number(done.stdout, r"validation loss: (\d\.\d\d) nats per character") < 0.75 * uniform


def test_schedules(tmp_path: Path) -> None:
    done = run("schedules.py", "--out", tmp_path)
    assert_picture(tmp_path / "schedules.png")
    assert "cosine_decay_schedule(1.0, 1000)" in done.stdout.splitlines()


def test_accumulate_bf16() -> None:
    done = run("accumulate_bf16.py", "--updates", 70)
    assert accuracy(done.stdout) > 90
    assert "update 70: " in done.stdout
    assert "loss scale 2^16, micro-batches left out: 0" in done.stdout  # 560 finite micro-batches: it grew once


def test_finetune_frozen() -> None:
    done = run("finetune_frozen.py", "--steps", 200)
    assert accuracy(done.stdout) > 85
    assert "trainable(adam(cosine_decay_schedule(0.003, 200)), '^head')" in done.stdout.splitlines()
    head = 128 * 5 + 5
    assert f"{2 * head + 3:,} numbers of optimizer state" in done.stdout  # two moments, two counters and the rate
    assert "the body is as it was, to the bit" in done.stdout


def test_parameter_groups() -> None:
    done = run("parameter_groups.py", "--steps", 200)
    assert accuracy(done.stdout) > 85
    for line in (
        "rest       learning rate 3.0e-03: hidden/kernel",
        "plain      learning rate 3.0e-03: head/bias, hidden/bias, norm/scale",
        "embed      learning rate 1.0e-02: embed/table",
        "head       learning rate 1.0e-03: head/kernel",
    ):
        assert line in done.stdout.splitlines()


def test_lbfgs() -> None:
    done = run("lbfgs.py")
    assert accuracy(done.stdout) > 90
    reached = re.findall(r"^(step|adam).*: loss (\S+), gradient norm (\S+)$", done.stdout, re.MULTILINE)
    *_, (name, loss, norm), (rival, adam_loss, _) = reached
    assert (name, rival) == ("step", "adam")
    assert float(norm) < 1e-4
    assert float(loss) < float(adam_loss)


@pytest.mark.long
def test_train_digits_reaches_97_percent(tmp_path: Path) -> None:
    accuracies = [accuracy(run("train_digits.py", "--seed", seed, "--out", tmp_path).stdout) for seed in range(3)]
    assert min(accuracies) >= 97, accuracies


@pytest.mark.long
def test_every_optimizer_learns_digits_with_its_suggested_rate() -> None:
    digits = imported("train_digits")
    steps = 500
    accuracies = {}
    for name in digits.optimizers():
        rate = digits.LEARNING_RATES.get(name, digits.LEARNING_RATE)
        accuracies[name], _ = digits.train(digits.make_optimizer(name, rate, steps), steps, seed=0)
    assert len(accuracies) >= 30
    unfit = {"ftrl", "rprop"}  # made for linear models, and for full batches
    assert all(accuracies[name] > 0.9 for name in accuracies.keys() - unfit), accuracies
