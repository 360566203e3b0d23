"""Train in half precision, with large batches gathered from small ones and a loss scale that adapts itself.

    python examples/accumulate_bf16.py --dtype float16

The model computes in `--dtype`; parameters, moments and gathered gradients stay in float32. Eight micro-batches make
one update, so that only a micro-batch of activations is ever in memory. The loss scale keeps small gradients from
vanishing: bfloat16, with float32's range, does not need it and is not harmed by it; float16 does. A micro-batch that
overflows is left out, and halves the scale.
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

Params = list[dict[str, Array]]

MICRO_BATCH = 16
MICRO_BATCHES = 8


def init(key: Array, widths: Sequence[int]) -> Params:
    """Dense layers of these widths, in float32."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {"kernel": jax.random.normal(key, (inputs, outputs)) * (2 / inputs) ** 0.5, "bias": jnp.zeros((1, outputs))}
        for key, inputs, outputs in zip(keys, widths, widths[1:], strict=False)
    ]


def logits(params: Params, images: Array, dtype: Any) -> Array:
    """Images (n, 64) to scores (n, 10), computed in `dtype`, given in float32."""
    x, cast = images.astype(dtype), jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    for layer in cast[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ cast[-1]["kernel"] + cast[-1]["bias"]).astype(jnp.float32)


def cross_entropy(params: Params, images: Array, labels: Array, dtype: Any) -> Array:
    log_p = jax.nn.log_softmax(logits(params, images, dtype))
    return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))


def make_optimizer(updates: int) -> gradtx.GradientTransformation:
    """The schedule counts updates, not micro-batches: all that is inside `accumulate` steps once per window."""
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 3e-3, warmup_steps=updates // 10, decay_steps=updates)
    inner = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(schedule))
    return gradtx.dynamic_loss_scale(gradtx.accumulate(inner, MICRO_BATCHES), growth_interval=500)


@partial(jax.jit, static_argnames="dtype", donate_argnames=("params", "state"))
def train_step(
    optimizer: gradtx.GradientTransformation, params: Params, state: Any, images: Array, labels: Array, dtype: Any
) -> tuple[Params, Any, Array]:
    """One micro-batch. The gradient is that of the scaled loss; the optimizer undoes the scale."""

    def scaled_loss(params: Params) -> tuple[Array, Array]:
        loss = cross_entropy(params, images, labels, dtype)
        return gradtx.scale_loss(state, loss), loss

    grads, loss = jax.grad(scaled_loss, has_aux=True)(params)
    updates, state = optimizer.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state, loss


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    digits: Any = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int32)
    images, held_out, labels, answers = train_test_split(images, labels, test_size=0.2, random_state=arguments.seed)

    rng = np.random.default_rng(arguments.seed)
    params = init(jax.random.key(arguments.seed), (64, 128, 128, 10))
    optimizer = make_optimizer(arguments.updates)
    state: Any = optimizer.init(params)
    print(optimizer)
    for window in range(1, arguments.updates + 1):
        losses = []
        for _ in range(MICRO_BATCHES):
            batch = rng.integers(len(images), size=MICRO_BATCH)
            params, state, loss = train_step(
                optimizer, params, state, images[batch], labels[batch], dtype=arguments.dtype
            )
            losses.append(loss)
        if window % 50 == 0 or window == arguments.updates:
            updates, power = state.inner_state.gradient_step, np.log2(state.loss_scale)
            print(f"update {updates}: loss {np.mean(losses):.4f}, loss scale 2^{power:.0f}, ", end="")
            print(f"micro-batches left out: {state.total_notfinite}")
    right = np.argmax(logits(params, jnp.asarray(held_out), arguments.dtype), axis=1) == answers
    print(f"accuracy: {100 * np.mean(right):.1f} %")


if __name__ == "__main__":
    main()
