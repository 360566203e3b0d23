"""What is timed: transformations that gradtx and optax both have, and trees of parameters."""

import dataclasses
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import gradtx
from gradtx.authoring import Optimizer

RATE = 1e-3
WINDOW = 4  # gradients that `accumulate` sums before an update
Shapes = Sequence[tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Case:
    """The same transformation in both libraries."""

    name: str
    gradtx: Any
    optax: Any
    gradient_reads: int = 1
    "How often the gradient must be read: twice where something about all of it is to be known before the first write."
    window: int = 1
    "How many steps make one update; a step is then the mean over a window."
    extra: Mapping[str, float] = dataclasses.field(default_factory=dict)
    "Extra arguments of `update`."


# The optimizers.

GIVEN: dict[str, dict[str, Any]] = {"lbfgs": {"memory_size": 3, "linesearch": None}}
"Arguments of both libraries where the defaults would need more memory than there is, or a loss to search along."
EXTRA = {"polyak_sgd": {"value": 1.0}}
"Extra arguments of `update`."


def optimizers() -> dict[str, Case]:
    """Every optimizer of plain gradients that both libraries have under the same name, sorted."""
    ours = {name: cls for name, cls in vars(gradtx).items() if isinstance(cls, type) and issubclass(cls, Optimizer)}
    ours = {name: cls for name, cls in ours.items() if cls.registered_name and not cls.example().sums_examples}
    both = {name: (cls, theirs) for name, cls in sorted(ours.items()) if (theirs := in_optax(name)) is not None}
    return {name: _optimizer_case(name, *makers) for name, makers in both.items()}


def in_optax(name: str) -> Any:
    """optax's function of this name, in its main part or in `optax.contrib`; `None` if it has none."""
    return getattr(optax, name, getattr(optax.contrib, name, None))


def _optimizer_case(name: str, ours: Callable[..., Any], theirs: Callable[..., Any]) -> Case:
    rate = next(iter(inspect.signature(ours).parameters))
    given = {rate: RATE, **GIVEN.get(name, {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # optax means to rename some of them
        optimizer = theirs(**{**_defaults_that_differ(ours, theirs), **given})
    return Case(name, ours(**given), optimizer, extra=EXTRA.get(name, {}))


def _defaults_that_differ(ours: Callable[..., Any], theirs: Callable[..., Any]) -> dict[str, Any]:
    """gradtx's defaults of the arguments that optax has as well, with another default."""
    mine, other = (inspect.signature(f).parameters for f in (ours, theirs))
    shared = [name for name in mine if name in other and mine[name].default is not inspect.Parameter.empty]
    numbers = [name for name in shared if isinstance(mine[name].default, int | float)]
    return {name: mine[name].default for name in numbers if mine[name].default != other[name].default}


# What is made of them.


def compositions() -> dict[str, Case]:
    """Clipping and the wrappers, around adamw."""
    ours, theirs = gradtx.adamw(RATE), optax.adamw(RATE)
    found = [
        Case("momentum", gradtx.sgd(RATE, momentum=0.9), optax.sgd(RATE, momentum=0.9)),
        Case(
            "clip + adamw",
            gradtx.chain(gradtx.clip_by_global_norm(1.0), ours),
            optax.chain(optax.clip_by_global_norm(1.0), theirs),
            gradient_reads=2,
        ),
        Case("if_finite(adamw)", gradtx.if_finite(ours, 5), optax.apply_if_finite(theirs, 5), gradient_reads=2),
        Case(
            f"accumulate(adamw, {WINDOW})",
            gradtx.accumulate(ours, WINDOW),
            optax.MultiSteps(theirs, WINDOW).gradient_transformation(),
            window=WINDOW,
        ),
        Case("params_ema(adamw)", gradtx.params_ema(ours, 0.999), with_params_ema(theirs, 0.999)),
        Case("masked(adamw)", gradtx.masked(ours, every_second), optax.masked(theirs, every_second)),
        Case(
            "partition(adamw, adam)",
            gradtx.partition({"a": ours, "b": gradtx.adam(RATE)}, two_groups, allow_unused=True),
            optax.partition({"a": theirs, "b": optax.adam(RATE)}, two_groups),
        ),
    ]
    return {case.name: case for case in found}


def every_second(tree: Any) -> Any:
    """A mask that is true for the first leaf, the third, and so on."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([i % 2 == 0 for i in range(len(leaves))])


def two_groups(tree: Any) -> Any:
    """Labels that alternate from leaf to leaf."""
    return jax.tree.map(lambda is_first: "a" if is_first else "b", every_second(tree))


def with_params_ema(inner: Any, decay: float) -> Any:
    """What a user of optax writes to keep a running mean of the parameters: optax has no transformation for it."""

    def init(params: Any) -> Any:
        return inner.init(params), jax.tree.map(jnp.copy, params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        new, inner_state = inner.update(updates, state[0], params)
        return new, (inner_state, optax.incremental_update(optax.apply_updates(params, new), state[1], 1 - decay))

    return optax.GradientTransformation(init, update)


def all_cases() -> dict[str, Case]:
    """Compositions first, then the optimizers by name."""
    return {**compositions(), **optimizers()}


CORE = [
    *("adamw", "clip + adamw", "lamb", "adafactor"),
    *("if_finite(adamw)", f"accumulate(adamw, {WINDOW})", "partition(adamw, adam)"),
]
"Timed on GPT-2's tree as well; the rest on one leaf only, unless everything is asked for."
CORE_OF_MANY_LEAVES = ["adamw", "clip + adamw", "lamb", "adafactor"]
"Where compiling takes longest."
CORE_IN_HALF = ["adamw", "clip + adamw", "lion", "lamb", "adafactor", "if_finite(adamw)"]


# The trees.


@dataclasses.dataclass(frozen=True)
class TreeOfShapes:
    """A tree of parameters, by the shapes of its leaves."""

    name: str
    shapes: Shapes

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(map(math.prod, self.shapes))

    def filled(self, dtype: str, seed: int) -> list[jax.Array]:
        """Numbers between -0.1 and 0.1, as parameters or as gradients: which, makes no difference to the time."""
        return [waves(shape, dtype)(seed + i) for i, shape in enumerate(self.shapes)]


@functools.cache
def waves(shape: tuple[int, ...], dtype: str) -> Callable[[int], jax.Array]:
    """The program that fills an array, compiled once whatever is cleared between measurements."""

    def fill(phase: jax.Array) -> jax.Array:
        places = jax.lax.iota(jnp.float32, math.prod(shape))
        return (0.1 * jnp.sin(places + phase.astype(jnp.float32))).reshape(shape).astype(dtype)

    program = jax.jit(fill).lower(jax.ShapeDtypeStruct((), jnp.int32)).compile()
    return lambda phase: program(jnp.int32(phase))


def trees(scale: float, memory: float) -> dict[str, TreeOfShapes]:
    """The trees by a short name. `scale` shrinks them for a trial run, `memory` is what the whole run may take."""
    rows, leaves = max(int(40_000 * scale), 2), max(int(1000 * scale), 2)
    width = gpt2_width(memory * min(scale, 1.0))
    one = TreeOfShapes(f"one leaf of {readable(rows * 500)}", [(rows, 500)])
    gpt2 = TreeOfShapes(f"GPT-2 small, width {width}", gpt2_shapes(width))
    return {"one": one, "gpt2": gpt2, "many": square_leaves(leaves, 32)}


def square_leaves(leaves: int, side: int) -> TreeOfShapes:
    return TreeOfShapes(f"{leaves:,} leaves of {side} × {side}", [(side, side)] * leaves)


def readable(size: int) -> str:
    """A number of parameters, such as 20 M."""
    for unit, factor in ((" M", 10**6), (" k", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g}{unit}"
    return str(size)


def gpt2_shapes(width: int) -> Shapes:
    """The 148 leaves of GPT-2 small; its own width is 768."""
    block = [
        *((width,), (width,), (width, 3 * width), (3 * width,), (width, width), (width,)),
        *((width,), (width,), (width, 4 * width), (4 * width,), (4 * width, width), (width,)),
    ]
    return [(50257, width), (1024, width), *(block * 12), (width,), (width,)]


COPIES = 24
"""Of float32 parameters: the gradients of JAX and of torch, five optimizers with two moments each, temporaries of three
copies, and what allocators keep and the libraries take."""


def gpt2_width(memory: float) -> int:
    """The width of GPT-2 small, 768, or the largest below it with which the optimizers fit side by side."""
    widths = (768, 640, 512, 384, 256, 128, 64, 32)
    return next((w for w in widths if 4 * COPIES * sum(map(math.prod, gpt2_shapes(w))) <= memory), 16)
