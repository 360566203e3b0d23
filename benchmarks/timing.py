"""Interleaved medians, and the limit that the memory sets."""

import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

LONG = 0.1
"Seconds of a call that needs no other before it."


Program = Callable[[int], None]
"Makes so many steps, and waits until they are done."


def steps_in_a_turn() -> int:
    """A GPU works through a queue: of ten steps in a row one times the work, of a single one the waiting for it."""
    return 1 if jax.default_backend() == "cpu" else 10


def interleaved(programs: Mapping[str, Program], seconds: float, least: int = 3, most: int = 25) -> dict[str, float]:
    """The median of the seconds that a step takes, for each program.

    In every round each program has its turn, so that a machine that slows down slows all of them. In its turn it is
    called twice, and the second call is timed: the first finds the caches full of another's arrays, and another
    library's threads still waiting for work. After its share of the seconds and the least number of turns, a program
    rests, so that a slow one leaves time to the others. The first turn does not count.
    """
    steps = steps_in_a_turn()
    times: dict[str, list[float]] = {name: [] for name in programs}
    spent = dict.fromkeys(programs, 0.0)
    for _ in range(most):
        for name, program in programs.items():
            if len(times[name]) < least or spent[name] < seconds / len(programs):
                begin = time.perf_counter()
                if not times[name] or times[name][-1] < LONG:
                    program(steps)
                start = time.perf_counter()
                program(steps)
                end = time.perf_counter()
                times[name].append(end - start)
                spent[name] += end - begin
    return {name: statistics.median(taken[1:]) / steps for name, taken in times.items()}


class Triad:
    """y ← y + a x in place: what the memory allows, 12 bytes for each element.

    It is as long as the tree, so that what fits into a cache is compared with what fits into a cache; but no longer
    than what fits into none.
    """

    bytes_per_element = 12
    longest = 20_000_000

    def __init__(self, size: int) -> None:
        self.size = size = min(size, self.longest)
        self.x, self.y = jnp.ones(size, jnp.float32), jnp.zeros(size, jnp.float32)
        self.program = jax.jit(lambda y, x: y + 0.5 * x, donate_argnums=0).lower(self.y, self.x).compile()

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.y = self.program(self.y, self.x)
        self.y.block_until_ready()

    def seconds_for(self, moved: float, taken: float) -> float:
        """How long so many bytes take at the rate at which this program took `taken` seconds."""
        return moved / (self.bytes_per_element * self.size) * taken
