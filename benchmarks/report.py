"""The results as tables in Markdown, and into a page of the documentation.

python -m benchmarks.report out/bench                              # prints the tables
python -m benchmarks.report out/bench --into docs/performance.md   # fills the page, and copies the charts beside it

A page has blocks that are filled, between `<!-- results cpu steps -->` and `<!-- end -->`: the platform of the results,
and the name of a table below. Blocks of another platform stay as they are.
"""

import argparse
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Results = dict[str, Any]
PEERS = ("torch fused", "torch foreach", "Keras")
CHARTS = {
    "steps": "Steps over one leaf, as multiples of the limit",
    "leaves": "adamw over more and more leaves of 32 × 32: the step, trace + lower, and compile",
    "parameters": "adamw over more and more parameters: the step, and the step over the limit",
}


# Numbers.


def number(value: float | None, unit: float = 1.0, suffix: str = "") -> str:
    """About three digits, or a dash where there is nothing."""
    if value is None:
        return "–"
    scaled = value / unit
    digits = 0 if scaled >= 99.5 else 1 if scaled >= 9.95 else 2
    return f"{scaled:,.{digits}f}{suffix}"


def ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of(row: Row, library: str, field: str = "seconds") -> Any:
    return row["libraries"].get(library, {}).get(field)


def over_limit(row: Row, library: str) -> str:
    """A step as a multiple of the limit, or the error that it ends with."""
    return of(row, library, "error") or number(ratio(of(row, library), row["limit_seconds"]))


def in_a_line(row: Row) -> str:
    """A row as it is shown while the measurement runs."""
    where = ", ".join(str(row[key]) for key in ("case", "tree", "dtype") if key in row)
    if "limit_seconds" not in row:
        return where
    return f"{where}: " + ", ".join(f"{name} {over_limit(row, name)}" for name in row["libraries"])


# The tables.


def machine(results: Results) -> str:
    """One sentence: where and with what it was measured."""
    where, versions = results["machine"], ", ".join(f"{name} {v}" for name, v in results["versions"].items())
    flags = f", XLA_FLAGS={where['xla_flags']}" if where["xla_flags"] else ""
    took = f"The run took {number(results['seconds'], 60)} minutes and {number(results['peak_bytes'], 1e9)} GB."
    return f"{where['device']}, {where['cores']} cores, {where['system']}{flags}, {where['date']}; {versions}. {took}"


def by_tree(rows: Sequence[Row], one: Callable[[Sequence[Row]], str]) -> str:
    """A table for every tree and dtype, under a line that names them."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["tree"], row["dtype"]), []).append(row)
    parts = [f"**{tree}, {precision(dtype)}**\n\n{one(group)}" for (tree, dtype), group in groups.items()]
    return "\n\n".join(parts)


def precision(dtype: str) -> str:
    return "float32" if dtype == "float32" else f"{dtype} parameters with float32 gradients"


def steps(results: Results) -> str:
    """Steps as multiples of the limit."""
    head = ["", "limit, ms", "gradtx", "optax", *PEERS, "gradtx / optax"]

    def one(rows: Sequence[Row]) -> str:
        return table(
            head,
            [
                [
                    *(row["case"], number(row["limit_seconds"], 1e-3)),
                    *(over_limit(row, name) for name in ("gradtx", "optax", *PEERS)),
                    number(ratio(of(row, "gradtx"), of(row, "optax"))),
                ]
                for row in rows
            ],
        )

    return by_tree(results["steps"], one)


def memory(results: Results) -> str:
    """Bytes per parameter: those that a step needs to move and moves, its temporaries, and its state."""
    fields = ("bytes_moved", "temporary_bytes", "state_bytes")
    head = ["", "needed", *(f"{name}: {what}" for what in ("moved", "temporary", "state") for name in BOTH)]

    def one(rows: Sequence[Row]) -> str:
        return table(
            head,
            [
                [
                    *(row["case"], number(row["needed_bytes"])),
                    *(number(of(row, name, field)) for field in fields for name in BOTH),
                ]
                for row in rows
            ],
        )

    return by_tree(results["steps"], one)


BOTH = ("gradtx", "optax")


def compilation(results: Results) -> str:
    """Seconds to trace and lower and to compile a step, and how many programs a loop needs."""
    fields = ("trace_lower_seconds", "compile_seconds", "programs")
    head = ["", *(f"{name}: {what}" for what in ("trace + lower, s", "compile, s", "programs") for name in BOTH)]

    def cell(row: Row, name: str, field: str) -> str:
        value = of(row, name, field)
        return str(value) if isinstance(value, int) else number(value)

    def one(rows: Sequence[Row]) -> str:
        return table(head, [[row["case"], *(cell(row, n, field) for field in fields for n in BOTH)] for row in rows])

    return by_tree(results["steps"], one)


def eager(results: Results) -> str:
    """Calls outside `jax.jit`, as multiples of the library's own jitted, donated step."""
    ways = ("update", "update_and_apply", "step")
    head = ["", "tree", "library", "jitted step, µs", "update", "update + apply", "step", "programs"]
    return table(
        head,
        [
            [
                *(row["case"], row["tree"], name, number(found["jitted_seconds"], 1e-6)),
                *(number(ratio(found.get(f"{way}_seconds"), found["jitted_seconds"])) for way in ways),
                str(found["programs"]),
            ]
            for row in results["eager"]
            for name, found in row["libraries"].items()
        ],
    )


def facade(results: Results) -> str:
    """The step of `gradtx.keras.AdamW` beside the jitted step of its chain."""
    rows = [
        [
            *(row["tree"], number(row["functional_seconds"], 1e-6), number(row["facade_seconds"], 1e-6)),
            number(ratio(row["facade_seconds"], row["functional_seconds"])),
            f"{(row['facade_seconds'] - row['functional_seconds']) * 1e6:+,.0f}",
        ]
        for row in results["facade"]
    ]
    head = ["", "functional step, µs", "facade step, µs", "facade / functional", "difference, µs"]
    return table(head, rows)


def imports(results: Results) -> str:
    """Seconds of an import after jax has been imported."""
    return table(["", "import, s"], [[f"`{name}`", number(seconds)] for name, seconds in results["imports"].items()])


def leaves(results: Results) -> str:
    """The cost against the number of leaves."""
    fields = ("seconds", "trace_lower_seconds", "compile_seconds")
    head = ["leaves", *(f"{n}: {what}" for what in ("step, ms", "trace + lower, s", "compile, s") for n in BOTH)]
    return table(
        [*head, *PEERS[:2]],
        [
            [
                f"{row['leaves']:,}",
                *(number(of(row, n, field), 1e-3 if field == "seconds" else 1) for field in fields for n in BOTH),
                *(number(of(row, name), 1e-3) for name in PEERS[:2]),
            ]
            for row in results["leaves"]
        ],
    )


def parameters(results: Results) -> str:
    """The cost against the number of parameters."""
    names = (*BOTH, PEERS[0])
    rows = [
        [
            *(f"{row['parameters']:,}", number(row["limit_seconds"], 1e-3)),
            *(number(of(row, name), 1e-3) for name in names),
            *(over_limit(row, name) for name in names),
        ]
        for row in results["parameters"]
    ]
    head = ["parameters", "limit, ms", *(f"{n}, ms" for n in names), *(f"{n} / limit" for n in names)]
    return table(head, rows)


def flags(results: Results) -> str:
    """Steps with and without the flag of XLA:CPU, as multiples of the limit, and their temporaries."""
    fields = (("over_limit", "step / limit"), ("bytes_moved", "moved"), ("temporary_bytes", "temporary"))
    head = ["", "tree", "library", *(f"{what}: {state}" for _, what in fields for state in ("off", "on"))]
    return table(
        head,
        [
            [
                *(row["case"], row["tree"], name),
                *(number(row[state][name][field]) for field, _ in fields for state in ("off", "on")),
            ]
            for row in results["flags"]["rows"]
            for name in BOTH
        ],
    )


TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "machine": ("machine", machine),
    "steps": ("steps", steps),
    "memory": ("steps", memory),
    "compilation": ("steps", compilation),
    "eager": ("eager", eager),
    "facade": ("facade", facade),
    "imports": ("imports", imports),
    "leaves": ("leaves", leaves),
    "parameters": ("parameters", parameters),
    "flags": ("flags", flags),
}
"The name of a table: the part of the results that it needs, and the function that makes it."


def read(folder: Path) -> Results:
    """What runs have left in a folder: the results, and the comparison with the flag."""
    results, flagged = (folder / name for name in ("results.json", "flags.json"))
    found = json.loads(results.read_text()) if results.exists() else {}
    return {**found, "flags": json.loads(flagged.read_text())} if flagged.exists() else found


def tables(results: Results) -> dict[str, str]:
    """Those for which there are results."""
    return {name: make(results) for name, (part, make) in TABLES.items() if results.get(part)}


def whole(results: Results) -> str:
    """A page of all tables."""
    found = tables(results)
    return "# gradtx beside its peers\n\n" + "\n\n".join(f"## {name}\n\n{text}" for name, text in found.items()) + "\n"


# Into a page.


def filled(page: str, platform: str, blocks: dict[str, str]) -> str:
    """The page with the blocks of this platform replaced.

    Raises:
        KeyError: the page has a block of a name that no table and no chart has.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES and name.removeprefix("chart-") not in CHARTS:
            raise KeyError(f"no table or chart is called {name}; there are {', '.join([*TABLES, *CHARTS])}")
        return f"{match[1]}\n\n{blocks[name]}\n\n{match[4]}" if name in blocks else match[0]

    pattern = rf"^(<!-- results {platform} (\S+) -->)\n(.*?)^(<!-- end -->)$"
    return re.sub(pattern, fill, page, flags=re.MULTILINE | re.DOTALL)


def fill_page(folder: Path, page: Path) -> None:
    """Fill the blocks of a page, and copy the charts into `images/` beside it."""
    results = read(folder)
    platform = (results.get("machine") or results["flags"]["machine"])["platform"]
    blocks = tables(results)
    for name, caption in CHARTS.items():
        if (chart := folder / f"{name}.png").exists():
            image = page.parent / "images" / f"performance-{platform}-{name}.png"
            shutil.copyfile(chart, image)
            blocks[f"chart-{name}"] = f"![{caption}](images/{image.name})"
    page.write_text(filled(page.read_text(), platform, blocks))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the run wrote its results")
    parser.add_argument("--into", type=Path, help="the page to fill")
    options = parser.parse_args()
    if options.into is None:
        print(whole(read(options.folder)))
    else:
        fill_page(options.folder, options.into)


if __name__ == "__main__":
    main()
