"""What a run measures: the parts of the results, each a function that gives what goes into the JSON."""

import ctypes
import dataclasses
import gc
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import gradtx
from benchmarks import cases, counts, peers
from benchmarks.cases import Case, TreeOfShapes
from benchmarks.timing import Program, Triad, interleaved


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seconds: float = 1.2
    "For the rounds of a row: the libraries share them, and each has at least three turns."
    memory: float = 6e9
    "Bytes that the whole run may take; the trees are chosen to fit."
    scale: float = 1.0
    "Factor of the sizes of the trees; small for a trial run."
    everything: bool = False
    "All cases on all trees."
    optax_only: bool = False
    "Whether torch and Keras are left out."

    def trees(self) -> dict[str, TreeOfShapes]:
        return cases.trees(self.scale, self.memory)

    def times(self, programs: Mapping[str, Program]) -> dict[str, float]:
        return interleaved(programs, self.seconds)


Row = dict[str, Any]


def free_memory() -> None:
    """Give back what the last row has used; the allocator of Linux would keep the small arrays."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


# A step.


def needed_bytes(case: Case, dtype: str, state_bytes: float) -> float:
    """The bytes per parameter that a step cannot avoid to move.

    It reads the gradient (twice, where all of it is looked at first), and reads and writes the parameter and its state
    once. Of a window, each step adds to the sum of the gradients, and the last does the rest.
    """
    parameter, gradient = jnp.dtype(dtype).itemsize, 4
    sums = 4 if case.window > 1 else 0
    return case.gradient_reads * gradient + 2 * sums + 2 * (parameter + state_bytes - sums) / case.window


OTHERS = ("torch fused", "torch foreach", "Keras")


def measure_step(case: Case, tree: TreeOfShapes, dtype: str, settings: Settings, others: Sequence[str] = OTHERS) -> Row:
    """One row: the step of every library beside the limit, and what XLA says of those that it compiled."""
    grads = tree.filled("float32", seed=1)
    found: dict[str, Row] = {}
    steps: dict[str, Any] = {}
    for library in (gradtx, optax):
        name = library.__name__
        try:
            steps[name] = step = peers.JaxStep(library, case, tree, dtype, grads)
            found[name] = {**dataclasses.asdict(step.counts), "state_bytes": step.state_bytes}
        except TypeError as error:  # optax's `cond` where bfloat16 parameters meet float32 gradients
            found[name] = {"error": type(error).__name__}
    if dtype == "float32" and not settings.optax_only:  # the others want gradients of the dtype of the parameters
        steps |= peers.torch_steps(case, tree, others)
        steps |= peers.keras_steps(case, tree, grads) if "Keras" in others else {}
    triad = Triad(tree.size)
    times = settings.times({**steps, "triad": triad})
    windows = {name: case.window if name in found else 1 for name in steps}
    for name in steps:
        found.setdefault(name, {})["seconds"] = times[name] / windows[name]
    needed = needed_bytes(case, dtype, found["gradtx"]["state_bytes"])
    about = {"case": case.name, "tree": tree.name, "dtype": dtype, "leaves": len(tree.shapes), "parameters": tree.size}
    return {
        **about,
        "needed_bytes": needed,
        "limit_seconds": triad.seconds_for(needed * tree.size, times["triad"]),
        "libraries": found,
    }


def steps(settings: Settings, wanted: Iterable[tuple[str, str, str]]) -> Iterator[Row]:
    """A row for each `(tree, dtype, case)`, by their short names."""
    trees, all_cases = settings.trees(), cases.all_cases()
    for tree, dtype, case in wanted:
        free_memory()
        others = OTHERS if settings.everything or tree != "many" else OTHERS[:2]  # Keras compiles it for long
        yield measure_step(all_cases[case], trees[tree], dtype, settings, others)


def wanted_steps(everything: bool) -> list[tuple[str, str, str]]:
    """What the command measures by default, or with `--all`."""
    names = list(cases.all_cases())
    half = "bfloat16"
    if everything:
        return [
            (tree, dtype, name) for tree in ("one", "gpt2", "many") for dtype in ("float32", half) for name in names
        ]
    return [
        *(("one", "float32", name) for name in names),
        *(("gpt2", "float32", name) for name in cases.CORE),
        *(("many", "float32", name) for name in cases.CORE_OF_MANY_LEAVES),
        *(("one", half, name) for name in cases.CORE_IN_HALF),
    ]


# The cost against the number of leaves and of parameters.

LEAVES = (10, 30, 100, 300, 1000, 3000)
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


def sweep_leaves(settings: Settings) -> Iterator[Row]:
    """adamw over more and more leaves of 32 × 32."""
    for leaves in LEAVES:
        free_memory()
        tree = cases.square_leaves(max(int(leaves * settings.scale), 1), 32)
        yield measure_step(cases.optimizers()["adamw"], tree, "float32", settings, OTHERS[:2])


def sweep_parameters(settings: Settings) -> Iterator[Row]:
    """adamw over one leaf, larger and larger, as far as gradtx, optax and torch fit side by side."""
    copies, libraries = 2 + 3 * 3, 1e9  # the gradients of JAX and torch, three times parameters and two moments
    for size in SIZES:
        free_memory()
        rows = max(int(size * settings.scale) // 500, 1)
        if 4 * copies * rows * 500 + libraries < settings.memory:
            tree = TreeOfShapes(cases.readable(rows * 500), [(rows, 500)])
            yield measure_step(cases.optimizers()["adamw"], tree, "float32", settings, OTHERS[:1])


# Outside jit.


class EagerLoop:
    """A loop that calls a library outside `jax.jit`; it keeps its parameters and its state."""

    def __init__(self, library: Any, tx: Any, tree: TreeOfShapes, grads: Any) -> None:
        self.library, self.tx, self.grads = library, tx, grads
        self.params = tree.filled("float32", seed=0)
        self.state = tx.init(self.params)
        donating = jax.jit(peers.update_and_apply(library, tx, {}), donate_argnums=(0, 1))
        self.donated = donating, tree.filled("float32", seed=0), tx.init(self.params)
        self.stepped = tree.filled("float32", seed=0), tx.init(self.params)

    def jitted(self, steps: int) -> None:
        program, params, state = self.donated
        for _ in range(steps):
            params, state = program(params, state, self.grads)
        self.donated = program, params, state
        jax.block_until_ready(params)

    def update(self, steps: int) -> None:
        for _ in range(steps):
            jax.block_until_ready(self.tx.update(self.grads, self.state, self.params))

    def update_and_apply(self, steps: int) -> None:
        for _ in range(steps):
            updates, self.state = self.tx.update(self.grads, self.state, self.params)
            self.params = self.library.apply_updates(self.params, updates)
        jax.block_until_ready(self.params)

    def step(self, steps: int) -> None:
        """`library.step`, where there is one: update and apply in one compiled, donated program."""
        params, state = self.stepped
        for _ in range(steps):
            params, state = self.library.step(self.tx, self.grads, state, params)
        self.stepped = params, state
        jax.block_until_ready(params)

    def ways(self) -> dict[str, Program]:
        found: dict[str, Program] = {
            "jitted": self.jitted,
            "update": self.update,
            "update_and_apply": self.update_and_apply,
        }
        return {**found, "step": self.step} if hasattr(self.library, "step") else found


def eager(settings: Settings) -> Iterator[Row]:
    """Calls outside `jax.jit`: seconds, and how many programs the first update and its application compile."""
    leaves = (100, 1000) if settings.everything else (100,)
    names = ("adamw", "clip + adamw", "lamb") if settings.everything else ("adamw", "clip + adamw")
    for tree in (cases.square_leaves(max(int(n * settings.scale), 2), 8) for n in leaves):
        grads = tree.filled("float32", seed=1)
        for name in names:
            case = cases.all_cases()[name]
            loops = {lib.__name__: EagerLoop(lib, getattr(case, lib.__name__), tree, grads) for lib in (gradtx, optax)}
            found: dict[str, Row] = {}
            for library, loop in loops.items():
                jax.clear_caches()
                with counts.compilations() as compiled:
                    loop.update_and_apply(1)
                found[library] = {"programs": compiled[0]}
            ways = {(lib, way): call for lib, loop in loops.items() for way, call in loop.ways().items()}
            times = settings.times({f"{lib} {way}": call for (lib, way), call in ways.items()})
            for library, way in ways:
                found[library][f"{way}_seconds"] = times[f"{library} {way}"]
            yield {"case": name, "tree": tree.name, "libraries": found}


# The facade.


class FacadeStep:
    """A step of `gradtx.keras.AdamW`, which keeps its state itself."""

    def __init__(self, tree: TreeOfShapes, grads: Any) -> None:
        from gradtx.keras import AdamW

        self.optimizer, self.grads = AdamW(cases.RATE), grads
        self.params = tree.filled("float32", seed=0)

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.params = self.optimizer.apply(self.grads, self.params)
        jax.block_until_ready(self.params)


def facade(settings: Settings) -> Iterator[Row]:
    """The step of the facade beside the jitted, donated step of the chain that it shows."""
    trees = settings.trees()
    for tree in (trees["one"], cases.square_leaves(max(int(100 * settings.scale), 2), 8), trees["many"]):
        free_memory()
        grads = tree.filled("float32", seed=1)
        stateful = FacadeStep(tree, grads)
        functional = EagerLoop(gradtx, stateful.optimizer.transformation, tree, grads)
        times = settings.times({"facade": stateful, "functional": functional.jitted})
        yield {"tree": tree.name, **{f"{name}_seconds": seconds for name, seconds in times.items()}}


# The import.

TIMED_IMPORT = "import jax, time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def imports(rounds: int = 6) -> Row:
    """Seconds that `import` takes after `import jax`, each in a process of its own."""
    modules = ("gradtx", "gradtx.keras", "optax")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(rounds):
        for module in modules:
            command = [sys.executable, "-c", TIMED_IMPORT.format(module)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times[module].append(float(done.stdout.splitlines()[-1]))
    return {module: statistics.median(taken[1:]) for module, taken in times.items()}
