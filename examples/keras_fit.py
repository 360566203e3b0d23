"""Train with Keras's own `fit`, and an optimizer that Keras cannot express: handwritten digits.

    python examples/keras_fit.py
    python examples/keras_fit.py --epochs 40 --save digits.keras

Kernels go to cautious Lion, biases to Adam; a slow copy of both leads (lookahead); one clip for all, and a warm-up.
`as_keras` makes a real Keras optimizer of that chain: callbacks, files and mixed precision work as with any other.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx
from gradtx.keras import as_keras

BATCH = 64


def make_model() -> keras.Model:
    layers = [
        keras.layers.Input((64,)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers)


def make_optimizer(steps: int) -> gradtx.GradientTransformation:
    """Rates rise over a tenth of the steps, then fall to zero. Patterns are searched in the variables' paths."""

    def rate(peak: float) -> Any:
        return gradtx.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=steps // 10, decay_steps=steps)

    lion = gradtx.chain(gradtx.cautious(gradtx.scale_by_lion()), gradtx.scale_by_learning_rate(rate(2e-3)))
    by_kind = gradtx.partition(
        {"kernels": lion, "biases": gradtx.adam(rate(1e-2))},
        gradtx.label_by_path({"kernel$": "kernels"}, otherwise="biases"),
    )
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lookahead(by_kind, 6, 0.5))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the parameters and the batches")
    parser.add_argument("--save", type=Path, metavar="FILE", help="a .keras file for the trained model")
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(arguments.seed)
    digits: Any = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    images, held_out, labels, answers = train_test_split(images, labels, test_size=0.2, random_state=arguments.seed)

    optimizer = make_optimizer(steps=arguments.epochs * -(-len(images) // BATCH))
    print(optimizer)
    model = make_model()
    model.compile(
        optimizer=as_keras(optimizer),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, labels, batch_size=BATCH, epochs=arguments.epochs, verbose=0)
    if arguments.save is not None:
        model.save(arguments.save)
    _, accuracy = model.evaluate(held_out, answers, verbose=0)
    print(f"accuracy: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
