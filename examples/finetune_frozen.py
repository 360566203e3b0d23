"""Fine-tune with frozen layers: learn the digits 0 to 4, then 5 to 9 with a new head and nothing else.

    python examples/finetune_frozen.py

`trainable(optimizer, "^head")` gives the optimizer the leaves whose path matches; the others get zero updates and
have no state at all, so that a large frozen body costs no memory for moments.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

Params = dict[str, Any]

WIDTH = 128
BATCH = 64


def dense_init(key: Array, inputs: int, outputs: int) -> Params:
    kernel = jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5
    return {"kernel": kernel, "bias": jnp.zeros((1, outputs))}


def init(key: Array) -> Params:
    """Two hidden layers, the body, and a head for five classes."""
    keys = jax.random.split(key, 3)
    body = [dense_init(keys[0], 64, WIDTH), dense_init(keys[1], WIDTH, WIDTH)]
    return {"body": body, "head": dense_init(keys[2], WIDTH, 5)}


def logits(params: Params, images: Array) -> Array:
    """Images (n, 64) to scores (n, 5)."""
    x = images
    for layer in params["body"]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def cross_entropy(params: Params, images: Array, labels: Array) -> Array:
    log_p = jax.nn.log_softmax(logits(params, images))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


@partial(jax.jit, donate_argnames=("params", "state"))
def train_step(
    optimizer: gradtx.GradientTransformation, params: Params, state: Any, images: Array, labels: Array
) -> tuple[Params, Any]:
    """XLA sees which updates are zero, and leaves out the gradients of frozen layers."""
    grads = jax.grad(cross_entropy)(params, images, labels)
    updates, state = optimizer.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


def train(
    optimizer: gradtx.GradientTransformation, params: Params, images: Any, labels: Any, steps: int
) -> tuple[Params, float]:
    """The trained parameters, and their accuracy on a fifth of the images that was held out."""
    images, held_out, labels, answers = train_test_split(images, labels, test_size=0.2, random_state=0)
    state = optimizer.init(params)
    moments = sum(x.size for x in jax.tree.leaves(state))
    print(f"{optimizer}\n{moments:,} numbers of optimizer state for {count(params):,} parameters")
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = rng.integers(len(images), size=BATCH)
        params, state = train_step(optimizer, params, state, images[batch], labels[batch])
    return params, float(np.mean(np.argmax(logits(params, jnp.asarray(held_out)), axis=1) == answers))


def count(params: Params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of each of the two trainings")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    digits: Any = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    low = labels < 5
    key, new_head = jax.random.split(jax.random.key(arguments.seed))

    adam = gradtx.adam(gradtx.cosine_decay_schedule(3e-3, arguments.steps))
    params, accuracy = train(adam, init(key), images[low], labels[low], arguments.steps)
    print(f"digits 0 to 4, all layers: {100 * accuracy:.1f} %\n")

    body = jax.tree.map(np.array, params["body"])  # a copy: the step is donated its parameters
    params["head"] = dense_init(new_head, WIDTH, 5)
    head_only = gradtx.trainable(adam, "^head")
    params, accuracy = train(head_only, params, images[~low], labels[~low] - 5, arguments.steps)
    same = all(map(np.array_equal, jax.tree.leaves(body), jax.tree.leaves(params["body"])))
    print(f"the body is {'as it was' if same else 'CHANGED'}, to the bit")
    print(f"accuracy: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
