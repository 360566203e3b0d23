"""L-BFGS with a line search on a full batch: logistic regression, solved to the minimum in a few dozen steps.

    python examples/lbfgs.py

The problem is exact, smooth and convex: no noise, so curvature may be estimated from differences of gradients.
Prints the loss and the norm of its gradient as they fall, and for comparison what Adam makes of as many steps.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradtx

Params = dict[str, Array]

TOLERANCE = 1e-4
"Where to stop: the norm of the gradient, which float32 does not bring to zero."


def logits(params: Params, images: Array) -> Array:
    """Images (n, 64) to scores (n, 10)."""
    return images @ params["kernel"] + params["bias"]


def objective(images: Array, labels: Array, l2: float) -> Callable[[Params], Array]:
    """Mean −log p(label), in nats, plus ½ l2 ‖kernel‖²."""

    def loss(params: Params) -> Array:
        log_p = jax.nn.log_softmax(logits(params, images))
        likelihood = jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))
        return 0.5 * l2 * jnp.sum(params["kernel"] ** 2) - likelihood

    return loss


def minimize(
    optimizer: gradtx.GradientTransformation,
    loss: Callable[[Params], Array],
    value_and_grad: Callable[..., tuple[Array, Params]],
    params: Params,
    steps: int,
) -> tuple[Params, list[tuple[float, float]]]:
    """The parameters after at most `steps` steps, and the loss and the norm of its gradient before each of them."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any) -> tuple[Params, Any, Array, Array]:
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return gradtx.apply_updates(params, updates), state, value, gradtx.tree.norm(grad)

    params = jax.tree.map(jnp.copy, params)  # the step is donated its parameters
    state = optimizer.init(params)
    history: list[tuple[float, float]] = []
    for _ in range(steps):
        params, state, value, norm = step(params, state)
        history.append((float(value), float(norm)))
        if norm < TOLERANCE:
            break
    return params, history


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="at most")
    parser.add_argument("--l2", type=float, default=1e-2)
    parser.add_argument("--memory-size", type=int, default=10)
    arguments = parser.parse_args(argv)

    digits: Any = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int32)
    images, held_out, labels, answers = map(jnp.asarray, train_test_split(images, labels, random_state=0))
    loss = objective(images, labels, arguments.l2)
    zeros = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros((1, 10))}

    optimizer = gradtx.lbfgs(memory_size=arguments.memory_size)
    print(optimizer)
    value_and_grad = gradtx.value_and_grad_from_state(loss)  # what the line search evaluated last is not done again
    params, history = minimize(optimizer, loss, value_and_grad, zeros, arguments.steps)
    for i, (value, norm) in enumerate(history):
        if i % 10 == 0 or i == len(history) - 1:
            print(f"step {i:3d}: loss {value:.6f}, gradient norm {norm:.1e}")

    both = jax.value_and_grad(loss)
    adam = gradtx.adam(gradtx.cosine_decay_schedule(0.1, len(history)))
    _, (*_, (value, norm)) = minimize(adam, loss, lambda params, state: both(params), zeros, len(history))
    print(f"adam, as many steps: loss {value:.6f}, gradient norm {norm:.1e}")
    right = jnp.argmax(logits(params, held_out), axis=1) == answers
    print(f"accuracy: {100 * np.mean(right):.1f} %")


if __name__ == "__main__":
    main()
