"""Train a small convolutional network on scikit-learn's scanned digits: 98 % and more, in seconds, on two cores.

    python examples/train_digits.py --optimizer lion --seed 1 --out out

Prints the optimizer and, last, the accuracy on held-out digits. Writes `digits.png`, the run in four curves, and
`optimizer.json`, from which `gradtx.from_config` makes the same optimizer again.
"""

import argparse
import inspect
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import trange

import gradtx

Params = dict[str, Array]
Metrics = dict[str, Any]  # of one step: numbers; of a whole run: arrays over its steps

MAX_NORM = 1.0
BATCH = 128
WINDOW = 50  # steps that the curves are averaged over
LEARNING_RATE = 2e-3
LEARNING_RATES = {
    **dict.fromkeys(("simplified_ademamix",), 5e-5),
    **dict.fromkeys(("lion",), 1e-3),
    **dict.fromkeys(("adamax", "adamaxw", "adan", "madgrad", "radam", "schedule_free_radam", "yogi"), 5e-3),
    **dict.fromkeys(("lamb", "novograd"), 1e-2),
    **dict.fromkeys(("adafactor", "fromage", "torch_adafactor"), 3e-2),
    **dict.fromkeys(("adagrad", "noisy_sgd", "optimistic_gradient_descent", "sm3"), 0.1),
    **dict.fromkeys(("asgd", "sgd"), 0.3),
    **dict.fromkeys(("adadelta", "lars", "schedule_free_sgd"), 1.0),
}
"Peak rates: the usual one, and those of the optimizers that want another."
SHOWN = "loss {loss:.4f}, learning rate {learning_rate:.1e}, gradient norm {grad_norm:.3f}"


def init(key: Array) -> Params:
    """Two convolutions and a dense layer for 8 × 8 images and ten classes; variances after He et al., 2015."""
    shapes = {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 64), "dense": (4 * 4 * 64, 10)}
    params: Params = {}
    for name, shape in shapes.items():
        key, use = jax.random.split(key)
        params[f"{name}/kernel"] = jax.random.normal(use, shape) * (2 / np.prod(shape[:-1])) ** 0.5
        params[f"{name}/bias"] = jnp.zeros(shape[-1])
    return params


def logits(params: Params, images: Array) -> Array:
    """Images (n, 8, 8, 1) to unnormalised log-probabilities (n, 10)."""
    x = jax.nn.relu(conv(images, params["conv1/kernel"], stride=1) + params["conv1/bias"][None, None, None])
    x = jax.nn.relu(conv(x, params["conv2/kernel"], stride=2) + params["conv2/bias"][None, None, None])
    return x.reshape(len(x), -1) @ params["dense/kernel"] + params["dense/bias"][None]


def conv(x: Array, kernel: Array, stride: int) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def cross_entropy(params: Params, images: Array, labels: Array) -> Array:
    """Mean −log p(label), in nats."""
    log_p = jax.nn.log_softmax(logits(params, images))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


@partial(jax.jit, donate_argnames=("params", "state"))
def train_step(
    optimizer: gradtx.GradientTransformation, params: Params, state: Any, images: Array, labels: Array
) -> tuple[Params, Any, Metrics]:
    """One step. The optimizer is a value: it may be an argument, and equal optimizers share this program."""
    loss, grads = jax.value_and_grad(cross_entropy)(params, images, labels)
    updates, state = optimizer.update(grads, state, params)
    params = gradtx.apply_updates(params, updates)
    nothing = {"learning_rate": jnp.nan}  # a few optimizers keep no rate in their state
    return params, state, {"loss": loss} | nothing | gradtx.metrics(state)


def optimizers() -> list[str]:
    """The registered optimizers that can be made from a learning rate, and updated without extra arguments."""
    return [name for name, cls in gradtx.registry().items() if is_optimizer(cls) and needs_only_a_rate(cls)]


def is_optimizer(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, gradtx.Optimizer)


def needs_only_a_rate(cls: type[gradtx.Optimizer]) -> bool:
    parameters = inspect.signature(cls).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    return required <= {"learning_rate"} <= parameters.keys() and not cls.example().extras.required


def make_optimizer(name: str, learning_rate: float, steps: int) -> gradtx.chain:
    """Clipping, then the optimizer `name` with a rate that warms up over a tenth of the steps and falls to zero."""
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps=steps // 10, decay_steps=steps)
    return gradtx.chain(gradtx.clip_by_global_norm(MAX_NORM), gradtx.registry()[name](learning_rate=schedule))


def load(seed: int) -> Any:
    """Images in [0, 1] and their labels: 1437 to train on, 360 held out, the classes in proportion."""
    digits: Any = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    labels = digits.target.astype(np.int32)
    return train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)


def batches(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches for ever, in a new order each epoch, each shifted by up to one pixel."""
    rng = np.random.default_rng(seed)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    while True:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch, (down, right) = order[start : start + BATCH], rng.integers(3, size=2)
            yield padded[batch, down : down + 8, right : right + 8], labels[batch]


def train(optimizer: gradtx.GradientTransformation, steps: int, seed: int) -> tuple[float, Metrics]:
    """The accuracy on the held-out digits, and the metrics of every step."""
    images, held_out, labels, held_out_labels = load(seed)
    params = init(jax.random.key(seed))
    state = optimizer.init(params)
    history: list[Metrics] = []
    stream = batches(images, labels, seed)
    for step in (bar := trange(steps, unit=" steps")):
        params, state, metrics = train_step(optimizer, params, state, *next(stream))
        history.append(metrics)
        if step % 20 == 0 or step == steps - 1:  # reading a number waits for the device, so not at every step
            bar.set_postfix_str(SHOWN.format_map(jax.tree.map(float, metrics)))
    right = np.argmax(logits(params, held_out), axis=1) == held_out_labels
    return float(np.mean(right)), jax.tree.map(lambda *values: np.array(values), *jax.device_get(history))


def plot(history: Metrics, title: str, path: Path) -> None:
    """Four panels over the steps: loss, learning rate, gradient norm, and how often the gradient was clipped."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    (loss, rate), (norm, clip) = figure.subplots(2, 2, sharex=True)
    for axes, values in ((loss, history["loss"]), (norm, history["grad_norm"])):
        axes.semilogy(values, color="tab:blue", alpha=0.25, linewidth=0.6)
        axes.semilogy(running_mean(values), color="tab:blue", label=f"mean of {WINDOW} steps")
    norm.axhline(MAX_NORM, color="tab:red", linestyle="--", linewidth=1, label="clipped above")
    rate.plot(history["learning_rate"], color="tab:green")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    clip.fill_between(
        range(len(history["clipped"])), 100 * running_mean(np.diff(history["clipped"], prepend=0)), alpha=0.5
    )
    clip.set_ylim(0, 105)
    for axes, label in (
        (loss, "training loss (nats)"),
        (rate, "learning rate"),
        (norm, "gradient norm"),
        (clip, f"clipped in the last {WINDOW} steps (%)"),
    ):
        axes.set_ylabel(label)
        axes.set_xlim(0, len(history["loss"]))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (loss, norm):
        axes.legend(frameon=False, fontsize="small")
    for axes in (norm, clip):
        axes.set_xlabel("step")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def running_mean(values: Any) -> np.ndarray:
    """The mean of the last `WINDOW` values, of fewer at the beginning."""
    sums = np.cumsum(values, dtype=float)
    sums[WINDOW:] -= sums[:-WINDOW].copy()
    return sums / np.minimum(np.arange(len(sums)) + 1, WINDOW)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = optimizers()
    parser.add_argument("--optimizer", default="adam", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="peak; the default depends on NAME")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the parameters and the batches")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER")
    arguments = parser.parse_args(argv)
    if arguments.steps < 1:
        parser.error(f"argument --steps: must be at least 1, got {arguments.steps}")
    if arguments.learning_rate is None:
        arguments.learning_rate = LEARNING_RATES.get(arguments.optimizer, LEARNING_RATE)
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    optimizer = make_optimizer(arguments.optimizer, arguments.learning_rate, arguments.steps)
    print(optimizer)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "optimizer.json").write_text(json.dumps(gradtx.to_config(optimizer), indent=2) + "\n")
    accuracy, history = train(optimizer, arguments.steps, arguments.seed)
    title = f"{arguments.optimizer} on scanned digits, accuracy {100 * accuracy:.1f} %"
    plot(history, title, arguments.out / "digits.png")
    print(f"accuracy: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
