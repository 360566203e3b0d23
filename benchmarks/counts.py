"""What does not depend on the machine's load: bytes, temporaries, programs. And the time that compiling takes, once."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Counts:
    """What XLA says of a step."""

    trace_lower_seconds: float
    compile_seconds: float
    programs: int
    "How many a loop compiles until the types of its state stay: 1, or 2 where the first step changes them."
    bytes_moved: float | None
    "Per parameter, by XLA's cost analysis; `None` where the backend has none."
    temporary_bytes: float | None
    "Per parameter: what the program needs besides its arguments and results."


def compiled_step(step: Callable[..., Any], params: Any, state: Any, grads: Any) -> tuple[Any, Any, Any, Counts]:
    """A program for `params, state = step(params, state, grads)` that donates both; both; and what XLA says of it.

    The parameters and the state are those given, or those after the steps that change their types.
    """
    jitted = jax.jit(step, donate_argnums=(0, 1))
    start, traced = traced_anew(jitted, params, state, grads)
    programs = 1
    while programs < 3 and types(traced.jaxpr.out_avals) != types(jax.tree.leaves((params, state))):
        params, state = jitted(params, state, grads)
        start, traced = traced_anew(jitted, params, state, grads)
        programs += 1
    lowered = traced.lower()
    middle = time.perf_counter()
    program = lowered.compile()
    end = time.perf_counter()
    size = sum(x.size for x in jax.tree.leaves(params))
    costs, memory = program.cost_analysis(), program.memory_analysis()
    moved = costs["bytes accessed"] / size if costs else None
    temporary = memory.temp_size_in_bytes / size if memory else None
    return program, params, state, Counts(middle - start, end - middle, programs, moved, temporary)


def traced_anew(jitted: Any, *args: Any) -> tuple[float, Any]:
    """The trace of a jitted function, and when it began: with nothing left from what was traced before."""
    jax.clear_caches()
    return time.perf_counter(), jitted.trace(*args)


def types(arrays: Iterable[Any]) -> list[Any]:
    """What decides whether a jitted function is compiled again."""
    return [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in arrays]


def bytes_of(tree: Any) -> int:
    """The bytes of all arrays in a tree."""
    return sum(x.nbytes for x in jax.tree.leaves(tree) if hasattr(x, "nbytes"))


@contextlib.contextmanager
def compilations() -> Iterator[list[int]]:
    """Gives a list that holds, once the block is left, how many programs XLA compiled in it."""
    counted: list[int] = []
    active, found = True, 0

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        nonlocal found
        found += active and event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counted
    finally:
        active = False  # not every supported JAX can take a listener away
        counted.append(found)
