"""Time one optimizer step of gradtx beside optax (and torch, if installed) and beside the memory's limit.

    python benchmarks/run.py [--params 16e6] [--repeats 30] [--only clip+adamw]

A step is jitted with its parameters and state donated; the gradient is in memory already. Every round times each
program once, in turn, so that a machine that slows down slows all of them; the median over the rounds is reported. The
bus limit is the time to move the bytes that the update cannot avoid at the rate of y ← y + a x, measured in the
same rounds. Ratios mean something on a noisy machine, single times do not.
"""

import argparse
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx

UNAVOIDABLE_BYTES = {"sgd": 12, "momentum": 20, "lion": 20, "adam": 28, "adamw": 28, "clip+adam": 32, "clip+adamw": 32}


def transformations(library: Any) -> dict[str, Any]:
    """The same recipes in either library."""
    clip = library.clip_by_global_norm(1.0)
    return {
        "sgd": library.sgd(1e-3),
        "momentum": library.sgd(1e-3, momentum=0.9),
        "lion": library.lion(1e-4),
        "adam": library.adam(1e-3),
        "adamw": library.adamw(1e-3),
        "clip+adam": library.chain(clip, library.adam(1e-3)),
        "clip+adamw": library.chain(clip, library.adamw(1e-3)),
    }


def make_params(size: int, leaves: int = 8) -> dict[str, jax.Array]:
    side = max(int((size / leaves) ** 0.5), 1)
    return {f"w{i}": jnp.full((side, side), 0.5) for i in range(leaves)}


class Step:
    """A compiled, donated training step that keeps its own parameters and state."""

    def __init__(self, library: Any, tx: Any, size: int) -> None:
        self.params = make_params(size)
        self.grads = jax.tree.map(lambda p: 0.01 * p, self.params)
        self.state = tx.init(self.params)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = tx.update(grads, state, params)
            return library.apply_updates(params, updates), state

        self.program = step.lower(self.params, self.state, self.grads).compile()

    def __call__(self) -> None:
        self.params, self.state = self.program(self.params, self.state, self.grads)
        jax.block_until_ready(self.params)

    @property
    def temporary_bytes(self) -> float:
        """Of the program's temporaries, per parameter."""
        return self.program.memory_analysis().temp_size_in_bytes / sum(x.size for x in self.params.values())


class Triad:
    """y ← y + a x, in place, over as many elements as there are parameters: 12 bytes each."""

    bytes_per_element = 12

    def __init__(self, size: int) -> None:
        self.x, self.y = jnp.ones(size), jnp.zeros(size)
        self.program = jax.jit(lambda y, x: y + 0.5 * x, donate_argnums=0)

    def __call__(self) -> None:
        self.y = self.program(self.y, self.x)
        self.y.block_until_ready()


def torch_adamw(size: int) -> Callable[[], None]:
    """torch.optim.AdamW(fused=True) on the same device."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    params = [torch.full(p.shape, 0.5, device=device, requires_grad=True) for p in make_params(size).values()]
    for param in params:
        param.grad = torch.full_like(param, 0.01)
    optimizer = torch.optim.AdamW(params, lr=1e-3, fused=True)

    def step() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def medians(programs: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Seconds per call, all programs taking turns."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for round_ in range(repeats + 3):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if round_ >= 3:  # the first rounds warm up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def compare_steps(size: int, repeats: int, only: list[str]) -> None:
    """One table: milliseconds, the share of the bus limit, the ratio to optax, bytes of temporaries."""
    triad = Triad(size)
    print(f"{jax.devices()[0].device_kind}, {size / 1e6:g} M float32 parameters in 8 leaves, {repeats} rounds\n")
    print(
        f"{'':12}{'gradtx ms':>10}{'optax ms':>10}{'ratio':>7}{'bus limit ms':>14}{'of limit':>10}{'temp B/param':>14}"
    )
    for name in only:
        ours = Step(gradtx, transformations(gradtx)[name], size)
        theirs = Step(optax, transformations(optax)[name], size)
        programs = {"gradtx": ours, "optax": theirs, "triad": triad}
        if name == "adamw" and importlib.util.find_spec("torch"):
            programs["torch"] = torch_adamw(size)
        t = medians(programs, repeats)
        limit = UNAVOIDABLE_BYTES[name] / Triad.bytes_per_element * t["triad"]
        print(
            f"{name:12}{t['gradtx'] * 1e3:10.2f}{t['optax'] * 1e3:10.2f}{t['gradtx'] / t['optax']:7.2f}"
            f"{limit * 1e3:14.2f}{t['gradtx'] / limit:10.2f}{ours.temporary_bytes:14.2f}"
            + (f"   torch fused {t['torch'] * 1e3:.2f} ms" if "torch" in t else "")
        )


def compare_eager(repeats: int) -> None:
    """`tx.update` outside jit against the jitted update, in microseconds."""
    print("\nupdate outside jit, 100 leaves of 8 x 8, clip+adamw")
    params = {f"w{i}": jnp.ones((8, 8)) for i in range(100)}
    for library in (gradtx, optax):
        tx = transformations(library)["clip+adamw"]
        state, jitted = tx.init(params), jax.jit(tx.update)
        programs = {
            "jitted": lambda f=jitted, s=state: jax.block_until_ready(f(params, s, params)),
            "eager": lambda f=tx.update, s=state: jax.block_until_ready(f(params, s, params)),
        }
        t = medians(programs, repeats)
        print(
            f"{library.__name__:12}{t['jitted'] * 1e6:10.0f} us jitted{t['eager'] * 1e6:10.0f} us eager"
            f"{t['eager'] / t['jitted']:8.1f} x"
        )


def compare_compilation() -> None:
    """Seconds to trace, lower and compile a step over many leaves."""
    print("\ncompilation, clip+adamw, leaves of 8 x 8")
    for leaves in (100, 400):
        params = {f"w{i}": jnp.ones((8, 8)) for i in range(leaves)}
        for library in (gradtx, optax):
            tx = transformations(library)["clip+adamw"]
            state = tx.init(params)
            start = time.perf_counter()
            lowered = jax.jit(tx.update).lower(params, state, params)
            middle = time.perf_counter()
            lowered.compile()
            end = time.perf_counter()
            print(f"{library.__name__:12}{leaves:6} leaves{middle - start:8.2f} s lower{end - middle:8.2f} s compile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=float, default=16e6, help="number of parameters")
    parser.add_argument("--repeats", type=int, default=30, help="rounds that count")
    parser.add_argument("--only", nargs="+", default=list(UNAVOIDABLE_BYTES), choices=list(UNAVOIDABLE_BYTES))
    arguments = parser.parse_args()
    compare_steps(int(arguments.params), arguments.repeats, arguments.only)
    compare_eager(arguments.repeats)
    compare_compilation()


if __name__ == "__main__":
    main()
