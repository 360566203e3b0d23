"""The results as pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from benchmarks.report import Results, Row, of, ratio

LIBRARIES = ("gradtx", "optax", "torch fused", "torch foreach", "Keras")
COLOURS = dict(zip(LIBRARIES, ("C0", "C1", "C2", "C8", "C3"), strict=True))


def draw(results: Results, out: Path) -> None:
    """`steps.png`, `leaves.png` and `parameters.png`, of those parts that were measured."""
    for name, picture in (("steps", steps), ("leaves", leaves), ("parameters", parameters)):
        if results.get(name):
            figure = picture(results[name])
            figure.savefig(out / f"{name}.png", dpi=120)
            plt.close(figure)


def steps(rows: Sequence[Row]) -> Any:
    """Dots: the steps over the first tree as multiples of the limit. A line is a case, a colour a library."""
    first = [row for row in rows if (row["tree"], row["dtype"]) == (rows[0]["tree"], rows[0]["dtype"])]
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.21 * len(first)), layout="constrained")
    for library in LIBRARIES:
        shown = [(ratio(of(row, library), row["limit_seconds"]), y) for y, row in enumerate(first)]
        shown = [point for point in shown if point[0] is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), "o", label=library, color=COLOURS[library], alpha=0.8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(first)), [row["case"] for row in first])
    axes.set(xscale="log", xlabel="time of a step / time to move the bytes that it needs", title=rows[0]["tree"])
    axes.set_ylim(len(first) - 0.4, -0.6)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def leaves(rows: Sequence[Row]) -> Any:
    """Three panels against the number of leaves: the step, trace + lower, compile."""
    panels = {"step, s": "seconds", "trace + lower, s": "trace_lower_seconds", "compile, s": "compile_seconds"}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    for panel, (label, field) in zip(axes, panels.items(), strict=True):
        lines(panel, rows, "leaves", lambda row, library, field=field: of(row, library, field))
        panel.set(xlabel="leaves", ylabel=label)
    return figure


def parameters(rows: Sequence[Row]) -> Any:
    """Two panels against the number of parameters: the step, and the step over the limit."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    lines(axes[0], rows, "parameters", of)
    axes[0].plot([r["parameters"] for r in rows], [r["limit_seconds"] for r in rows], "k--", label="limit")
    axes[0].set(xlabel="parameters", ylabel="step, s")
    axes[0].legend()
    lines(axes[1], rows, "parameters", lambda row, library: ratio(of(row, library), row["limit_seconds"]))
    axes[1].axhline(1, color="black", linewidth=1)
    axes[1].set(xlabel="parameters", ylabel="step / limit")
    return figure


def lines(axes: Any, rows: Sequence[Row], x: str, y: Callable[[Row, str], float | None]) -> None:
    """A line for every library that has values, over two logarithmic scales."""
    for library in LIBRARIES:
        shown = [(row[x], value) for row in rows if (value := y(row, library)) is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), "o-", label=library, color=COLOURS[library])
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
