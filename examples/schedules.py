"""Draw the usual schedules side by side.

    python examples/schedules.py --out out

Writes `schedules.png`, and prints what is in it: a schedule is a function of the number of updates made so far that
is also a value, and prints as the Python that makes it.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gradtx

COLUMNS = 3


def examples(steps: int) -> list[gradtx.Schedule]:
    """One of each family, with a peak of 1 and a length of `steps`."""
    tenth, half = steps // 10, steps // 2
    return [
        gradtx.constant_schedule(1.0),
        gradtx.linear_schedule(1.0, 0.0, steps),
        gradtx.polynomial_schedule(1.0, 0.0, 2.0, steps),
        gradtx.exponential_decay(1.0, half, 0.1),
        gradtx.piecewise_constant_schedule(1.0, {half: 0.3, 8 * tenth: 0.3}),
        gradtx.cosine_decay_schedule(1.0, steps),
        gradtx.warmup_cosine_decay_schedule(0.0, 1.0, tenth, steps),
        gradtx.warmup_stable_decay_schedule(0.0, 1.0, tenth, 6 * tenth, 3 * tenth),
        gradtx.cosine_onecycle_schedule(steps, 1.0),
        gradtx.inverse_sqrt_schedule(1.0, tenth),
        gradtx.cosine_decay_restarts_schedule(1.0, 3 * tenth, t_mul=1.0, m_mul=0.7),
        gradtx.join_schedules(
            [gradtx.linear_schedule(0.0, 1.0, tenth), gradtx.exponential_decay(1.0, half, 0.1)], [tenth]
        ),
    ]


def plot_schedule(axes: Axes, schedule: Callable[[Any], Any], steps: int, **style: Any) -> None:
    """Draw any function of the step over its first `steps` steps."""
    values = jax.vmap(schedule)(jnp.arange(steps))
    axes.plot(values, **style)
    axes.set_xlim(0, steps)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER")
    arguments = parser.parse_args(argv)
    if arguments.steps < 10:
        parser.error(f"argument --steps: must be at least 10, got {arguments.steps}")

    schedules = examples(arguments.steps)
    rows = -(-len(schedules) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
    for axes, schedule in zip(panels.flat, schedules, strict=True):
        plot_schedule(axes, schedule, arguments.steps)
        axes.set_title(type(schedule).__name__, fontsize="medium")
        print(schedule)
    for axes in panels[-1]:
        axes.set_xlabel("updates made")
    for axes in panels[:, 0]:
        axes.set_ylabel("learning rate / peak")
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out / "schedules.png", dpi=110)


if __name__ == "__main__":
    main()
