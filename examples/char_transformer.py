"""Train a small transformer, letter by letter, on the language reference that ships with Python.

    python examples/char_transformer.py --steps 800

Two layers, about 430 000 parameters, one to two minutes on two cores. Decay is decoupled and spares biases, norms and
embeddings. Prints losses as it goes, a sample of what the model writes, and last its loss on text it has not seen.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import gradtx

Params = Any

CONTEXT = 64
WIDTH = 128
HEADS = 4
LAYERS = 2
BATCH = 32
EVERY = 100  # steps between two reports


def init(key: Array, vocabulary: int) -> Params:
    """Parameters by name: kernels (in, out), biases, the scales and biases of layer norms, embeddings."""
    keys = iter(jax.random.split(key, 3 + 4 * LAYERS))

    def normal(shape: tuple[int, ...], size: float) -> Array:
        return size * jax.random.normal(next(keys), shape)

    def dense(inputs: int, outputs: int, gain: float = 1.0) -> Params:
        return {"kernel": normal((inputs, outputs), gain * inputs**-0.5), "bias": jnp.zeros((1, outputs))}

    def norm() -> Params:
        return {"scale": jnp.ones((1, WIDTH)), "bias": jnp.zeros((1, WIDTH))}

    small = (2 * LAYERS) ** -0.5  # what is added to the residual stream, so that it keeps its size
    layers = [
        {
            "attention_norm": norm(),
            "qkv": dense(WIDTH, 3 * WIDTH),
            "out": dense(WIDTH, WIDTH, small),
            "mlp_norm": norm(),
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH, small),
        }
        for _ in range(LAYERS)
    ]
    embedding = {"letter": normal((vocabulary, WIDTH), 0.1), "position": normal((CONTEXT, WIDTH), 0.1)}
    return {"embedding": embedding, "layers": layers, "norm": norm(), "head": dense(WIDTH, vocabulary, 0.1)}


def logits(params: Params, letters: Array) -> Array:
    """Letters int32 (n,), n at most `CONTEXT`, to scores (n, vocabulary) of the letter after each."""
    x = params["embedding"]["letter"][letters] + params["embedding"]["position"][: len(letters)]
    for layer in params["layers"]:
        x = x + dense(layer["out"], attention(dense(layer["qkv"], norm(layer["attention_norm"], x))))
        x = x + dense(layer["down"], jax.nn.gelu(dense(layer["up"], norm(layer["mlp_norm"], x))))
    return dense(params["head"], norm(params["norm"], x))


def attention(qkv: Array) -> Array:
    """Each position looks at itself and those before it: (n, 3 width) to (n, width)."""
    n = len(qkv)
    q, k, v = jnp.moveaxis(qkv.reshape(n, 3, HEADS, -1), 1, 0)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(n, -1)


def dense(params: Params, x: Array) -> Array:
    return x @ params["kernel"] + params["bias"]


def norm(params: Params, x: Array) -> Array:
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * params["scale"] + params["bias"]


def make_optimizer(learning_rate: float, steps: int) -> gradtx.chain:
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps=steps // 10, decay_steps=steps)
    return gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.adamw(schedule, b2=0.99, weight_decay=0.1, mask=gradtx.weights_only(exclude="^embedding")),
    )


def cross_entropy(params: Params, windows: Array) -> Array:
    """Mean −log p(next letter), in nats, over windows of `CONTEXT` + 1 letters."""
    log_p = jax.nn.log_softmax(jax.vmap(logits, (None, 0))(params, windows[:, :-1]))
    return -jnp.mean(jnp.take_along_axis(log_p, windows[:, 1:, None], axis=2))


@partial(jax.jit, donate_argnames=("params", "state"))
def train_step(
    optimizer: gradtx.GradientTransformation, params: Params, state: Any, windows: Array
) -> tuple[Params, Any, Array]:
    loss, grads = jax.value_and_grad(cross_entropy)(params, windows)
    updates, state = optimizer.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state, loss


@jax.jit
def validation_loss(params: Params, windows: Array) -> Array:
    """`cross_entropy` in pieces of one batch."""
    pieces = windows[: len(windows) // BATCH * BATCH].reshape(-1, BATCH, CONTEXT + 1)
    return jnp.mean(jax.lax.map(partial(cross_entropy, params), pieces))


@partial(jax.jit, static_argnames="length")
def sample(params: Params, key: Array, prompt: Array, length: int) -> Array:
    """The prompt, of `CONTEXT` letters, and `length` more, drawn at temperature 0.8."""

    def write(window: Array, key: Array) -> tuple[Array, Array]:
        letter = jax.random.categorical(key, logits(params, window)[-1] / 0.8).astype(window.dtype)
        return jnp.append(window[1:], letter), letter

    _, written = jax.lax.scan(write, prompt, jax.random.split(key, length))
    return jnp.concatenate([prompt, written])


def load() -> tuple[np.ndarray, str]:
    """The text as indices into its alphabet, and the alphabet."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    alphabet = "".join(sorted(set(text)))
    index = {letter: i for i, letter in enumerate(alphabet)}
    return np.array([index[letter] for letter in text], np.int32), alphabet


def windows_at(letters: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return letters[starts[:, None] + np.arange(CONTEXT + 1)[None]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--learning-rate", type=float, default=3e-3, metavar="RATE", help="peak")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.steps < 1:
        parser.error(f"argument --steps: must be at least 1, got {arguments.steps}")

    letters, alphabet = load()
    seen, unseen = np.split(letters, [len(letters) * 9 // 10])
    validation = windows_at(unseen, np.arange(0, len(unseen) - CONTEXT - 1, 3 * CONTEXT))

    rng = np.random.default_rng(arguments.seed)
    key = jax.random.key(arguments.seed)
    params = init(key, len(alphabet))
    optimizer = make_optimizer(arguments.learning_rate, arguments.steps)
    state = optimizer.init(params)
    print(optimizer)
    print(f"{sum(x.size for x in jax.tree.leaves(params)):,} parameters, {len(letters):,} letters", flush=True)

    loss = jnp.nan
    losses: list[Any] = []
    for step in range(1, arguments.steps + 1):
        batch = windows_at(seen, rng.integers(len(seen) - CONTEXT, size=BATCH))
        params, state, loss = train_step(optimizer, params, state, batch)
        losses.append(loss)
        if step % EVERY == 0 or step == arguments.steps:
            train = np.mean(jax.device_get(losses))
            loss = validation_loss(params, validation)
            print(f"step {step:4d}: training {train:.3f}, validation {loss:.3f} nats per character", flush=True)
            losses.clear()
    written = sample(params, key, unseen[:CONTEXT], length=300)
    print("\n" + "".join(alphabet[i] for i in np.asarray(written)) + "\n")
    print(f"validation loss: {loss:.2f} nats per character")


if __name__ == "__main__":
    main()
