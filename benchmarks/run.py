"""The command: measure gradtx, its peers and the limit of the memory side by side; write a table, JSON and charts.

    python -m benchmarks.run                          # what `make bench` does: some minutes, below 6 GB
    python -m benchmarks.run --all                    # every case on every tree
    python -m benchmarks.run --sections steps --trees one --cases adamw lion
    python -m benchmarks.run --flags                  # the CPU flag for several outputs in one loop, off and on

optax is always there; torch and Keras take part where they are installed. On a GPU the command is the same.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

import gradtx
from benchmarks import cases, peers, report, sections
from benchmarks.sections import Row, Settings

OUT = Path("out/bench")
SECTIONS = ("steps", "eager", "facade", "imports", "leaves", "parameters")
FLAG = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"
FLAGGED = ("momentum", "adam", "adamw", "clip + adamw", "lion", "lamb", "adafactor")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.flags:
        save(options.out / "flags.json", with_and_without_flag(options))
    else:
        save(options.out / "results.json", measured(options))
    write_report(options.out)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every case on every tree")
    parser.add_argument("--flags", action="store_true", help=f"the core with and without XLA_FLAGS={FLAG}")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--trees", nargs="+", choices=("one", "gpt2", "many"), help="only these trees")
    parser.add_argument("--cases", nargs="+", choices=list(cases.all_cases()), metavar="CASE", help="only these cases")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), help="only these parameters")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="for the rounds of a row")
    parser.add_argument("--memory", type=float, default=default.memory, help="bytes that the run may take")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all sizes, for a trial run")
    parser.add_argument("--optax-only", action="store_true", help="leave torch and Keras out")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    return parser.parse_args(arguments)


def measured(options: argparse.Namespace) -> Row:
    """Everything that was asked for, as it goes into the JSON."""
    start = time.perf_counter()
    settings = Settings(options.seconds, options.memory, options.scale, options.all, options.optax_only)
    results: Row = {"machine": machine(), "versions": versions(), "settings": vars(settings)}
    makers = {  # the largest arrays first, before allocators keep what smaller ones have left
        "parameters": lambda: sections.sweep_parameters(settings),
        "steps": lambda: sections.steps(settings, chosen(options)),
        "eager": lambda: sections.eager(settings),
        "facade": lambda: sections.facade(settings),
        "leaves": lambda: sections.sweep_leaves(settings),
    }
    for section in (name for name in makers if name in options.sections):
        results[section] = list(shown(section, start, makers[section]()))
    if "imports" in options.sections:
        results["imports"] = sections.imports()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["peak_bytes"] = peak * (1 if sys.platform == "darwin" else 1024)
    results["seconds"] = time.perf_counter() - start
    return results


def chosen(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """The steps to measure. Naming trees, dtypes or cases chooses among all of them, not only among the default's."""
    wanted = sections.wanted_steps(options.all or bool(options.cases))
    picked = (options.trees, options.dtypes, options.cases)
    return [key for key in wanted if all(names is None or x in names for x, names in zip(key, picked, strict=True))]


def shown(section: str, start: float, rows: Iterable[Row]) -> Iterable[Row]:
    """The rows, each printed as it comes, with the seconds since the start."""
    for row in rows:
        print(f"{time.perf_counter() - start:4.0f} s  {section}: {report.in_a_line(row)}", file=sys.stderr, flush=True)
        yield row


# Where it was measured.


def machine() -> Row:
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def processor() -> str:
    """The model of the processor, as the system names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of every library that takes part."""
    packages = ["jax", "jaxlib", "numpy", "optax", *filter(peers.is_installed, ("torch", "keras"))]
    others = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "gradtx": gradtx.__version__, **others}


# The flag.


def with_and_without_flag(options: argparse.Namespace, rounds: int = 3) -> Row:
    """The core on one leaf and on GPT-2's tree, in processes that take turns: a flag is read when a backend starts."""
    found: dict[tuple[str, str], list[Row]] = {}
    for i in range(rounds):
        for name, flag in (("off", ""), ("on", FLAG)):
            folder = options.out / "flags" / f"{name}{i}"
            for row in run_elsewhere(options, folder, flag)["steps"]:
                found.setdefault((row["tree"], row["case"]), []).append({"flag": name, **row})
    rows = [
        {"tree": tree, "case": case, "off": median_of(rows, "off"), "on": median_of(rows, "on")}
        for (tree, case), rows in found.items()
    ]
    return {"machine": machine(), "versions": versions(), "flag": f"XLA_FLAGS={FLAG}", "rows": rows}


def run_elsewhere(options: argparse.Namespace, folder: Path, flag: str) -> Row:
    """The results of this command in a process of its own, with one more XLA flag."""
    trees, names = options.trees or ("one", "gpt2"), options.cases or FLAGGED
    chosen = ["--sections", "steps", "--optax-only", "--dtypes", "float32", "--trees", *trees, "--cases", *names]
    sizes = [f"--{name}={getattr(options, name)}" for name in ("seconds", "memory", "scale")]
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    command = [sys.executable, "-m", "benchmarks.run", *chosen, *sizes, "--out", str(folder)]
    subprocess.run(command, env={**os.environ, **flags}, check=True)
    return json.loads((folder / "results.json").read_text())


def median_of(rows: list[Row], flag: str) -> Row:
    """For each library the median of its steps over the limit, and what XLA counts."""
    those = [row for row in rows if row["flag"] == flag]
    found = {}
    for name, last in those[-1]["libraries"].items():
        ratios = [row["libraries"][name]["seconds"] / row["limit_seconds"] for row in those]
        found[name] = {**last, "over_limit": statistics.median(ratios)}
    return found


# What is written.


def save(file: Path, results: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


def write_report(out: Path) -> None:
    """`report.md` of what the folder has, and the charts where matplotlib is installed."""
    results = report.read(out)
    (out / "report.md").write_text(report.whole(results))
    if peers.is_installed("matplotlib"):
        from benchmarks import charts

        charts.draw(results, out)
    else:
        print("no charts: matplotlib is not installed", file=sys.stderr)
    print(report.whole(results))
    print(f"written to {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
