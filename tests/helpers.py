"""What the tests generated from the registry share: the transformations, a tree of every kind of leaf, counters."""

import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
import gradtx.keras
from gradtx.core.compose import TransformationKind
from gradtx.core.hyperparams import Boolean, FloatingDType, Integer, Optional, Real

# Names that JAX moved since the oldest version in pyproject.toml.

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


def shard_map(f: Any, mesh: Any, in_specs: Any, out_specs: Any) -> Any:
    if hasattr(jax, "shard_map"):
        return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    from jax.experimental import shard_map

    return shard_map.shard_map(f, mesh, in_specs, out_specs)


# The transformations.


@gradtx.register
def no_state(params):
    return ()


@gradtx.register
def reverse(updates, state, params=None):
    return jax.tree.map(jnp.negative, updates), state


@gradtx.register
def matrices(params):
    return jax.tree.map(lambda x: jnp.ndim(x) == 2, params)


def registered(base: type) -> dict[str, Any]:
    """The registered classes that gradtx defines and that derive from `base`, by name."""
    classes = {name: cls for name, cls in gradtx.registry().items() if isinstance(cls, type) and issubclass(cls, base)}
    own = {name: cls for name, cls in classes.items() if cls.__module__.startswith("gradtx.")}
    return {name: cls for name, cls in own.items() if name != "keras.variable_wise"}  # a user's object


def optimizers() -> dict[str, Any]:
    """The registered optimizers that are given one gradient rather than one for each example, by name."""
    return {name: cls for name, cls in registered(gradtx.Optimizer).items() if not example(cls).sums_examples}


def example(cls: Any) -> Any:
    """`cls.example()`, its numbers rounded to float32: the same number then as an array and as a Python float."""
    if issubclass(cls, gradtx.GradientTransformation) and cls.registered_name == "GradientTransformation":
        return gradtx.GradientTransformation(no_state, reverse)
    tx = cls.example()
    return tx.replace(**{name: float(np.float32(value)) for name, value in numbers(tx).items()})


def toggled(cls: Any) -> Any | None:
    """The example with every flag changed and every optional value given; `None` where that is the example itself.

    Where the class refuses some turn together with the others, it is left out.
    """
    before = tx = example(cls)
    for name, kind in cls.field_kinds().items():
        value = _other(kind, getattr(before, name))
        if value is not None:
            with contextlib.suppress(ValueError):
                tx = tx.replace(**{name: value})
    return None if tx == before else tx


def _other(kind: Any, value: Any) -> Any:
    if isinstance(kind, Optional) and value is None:
        return "bfloat16" if isinstance(kind.kind, FloatingDType) else kind.kind.example
    if isinstance(kind, Boolean):
        return not value
    if isinstance(kind, TransformationKind):
        return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.125))
    return None


def numbers(tx: Any) -> dict[str, float]:
    """The hyper-parameters of `tx` that are real numbers, each of which might as well be an array or a schedule."""
    kinds = {name: kind.kind if isinstance(kind, Optional) else kind for name, kind in tx.field_kinds().items()}
    fields = {name: getattr(tx, name) for name, kind in kinds.items() if isinstance(kind, Real) and kind.may_vary}
    return {name: value for name, value in fields.items() if isinstance(value, float)}


def intervals(tx: Any) -> dict[str, Integer]:
    """The whole-number hyper-parameters that may be schedules."""
    return {name: k for name, k in tx.field_kinds().items() if isinstance(k, Integer) and k.may_vary}


MORE = {
    "sgd+momentum": gradtx.sgd(0.1, 0.9),
    "sgd+nesterov": gradtx.sgd(0.1, 0.9, nesterov=True),
    "adam+schedule": gradtx.adam(gradtx.cosine_decay_schedule(0.1, 10)),
    "adam+bfloat16": gradtx.adam(1e-3, mu_dtype="bfloat16"),
    "adamw+mask": gradtx.adamw(1e-3, mask=matrices),
    "adafactor+factored": gradtx.adafactor(1e-2, min_dim_size_to_factor=2, momentum=0.9, weight_decay_rate=1e-3),
    "chain+two": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(1e-3)),
    "chain+functions": gradtx.chain(gradtx.GradientTransformation(no_state, reverse), gradtx.scale(0.5)),
    "named_chain+two": gradtx.named_chain(("clip", gradtx.clip(1.0)), ("step", gradtx.sgd(0.1, 0.9))),
    "masked+adam": gradtx.masked(gradtx.adam(1e-3), matrices),
    "accumulate+adam": gradtx.accumulate(gradtx.adam(1e-3), 2),
    "accumulate+schedule": gradtx.accumulate(gradtx.sgd(0.1, 0.9), gradtx.linear_schedule(1.0, 3.0, 4)),
}
"More than one instance, where the example does not show what a class can do."


MORE_SCHEDULES = {
    "piecewise_constant_schedule+two": gradtx.piecewise_constant_schedule(0.1, {3: 0.5, 6: 0.1}),
    "exponential_decay+end": gradtx.exponential_decay(0.1, 3, 0.5, staircase=True, end_value=0.01),
    "warmup_cosine_decay_schedule+end": gradtx.warmup_cosine_decay_schedule(0.0, 0.1, 3, 10, 0.01),
    "join_schedules+two": gradtx.join_schedules(
        (gradtx.linear_schedule(0.0, 1.0, 3), gradtx.constant_schedule(1)), [3]
    ),
}


@functools.cache
def transformations() -> dict[str, Any]:
    """Every registered transformation, in every form that is tested, by a name that starts with its class's."""
    return dict(sorted((_examples(gradtx.GradientTransformation) | MORE).items()))


@functools.cache
def schedules() -> dict[str, Any]:
    """Every registered schedule, in every form that is tested, by a name that starts with its class's."""
    return dict(sorted((_examples(gradtx.Schedule) | MORE_SCHEDULES).items()))


def _examples(base: type) -> dict[str, Any]:
    """Examples and their toggled twins; a class without an example fails a test of its own."""
    every = {}
    for name, cls in registered(base).items():
        with contextlib.suppress(TypeError, ValueError):
            every[name] = example(cls)
            if (other := toggled(cls)) is not None:
                every[f"{name}+toggled"] = other
    return every


def name_of(case: str) -> str:
    return case.partition("+")[0]


# A tree with every kind of node and leaf.


class Dense(NamedTuple):
    weight: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    name: str = dataclasses.field(default="layer", metadata={"static": True})


@jax.tree_util.register_pytree_node_class
class Keyless:
    """A node whose children have no names."""

    def __init__(self, *children: Any) -> None:
        self.children = children

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "Keyless":
        return cls(*children)


SHAPES = {
    "dense": Dense((4, 3), (3,)),
    "empty": (0, 2),
    "keyless": Keyless((2,), ()),
    "layer": Layer((3, 2)),
    "none": None,
}
MIXED = [  # dtype of the parameter and of its gradient, leaf by leaf
    ("float32", "float32"),
    ("bfloat16", "float32"),
    ("float32", "float32"),
    ("float16", "float16"),
    ("float64", "float64"),
    ("float32", "bfloat16"),
]


def is_shape(x: Any) -> bool:
    return type(x) is tuple


def tree_of(dtypes: Any, seed: int = 0) -> Any:
    """A tree of `SHAPES` with numbers of order one; `dtypes` for each leaf, or one for all."""
    shapes, treedef = jax.tree.flatten(SHAPES, is_leaf=is_shape)
    dtypes = [dtypes] * len(shapes) if isinstance(dtypes, str) else dtypes
    rng = np.random.default_rng(seed)
    return treedef.unflatten([jnp.asarray(rng.normal(size=s), d) for s, d in zip(shapes, dtypes, strict=True)])


def small_tree(seed: int, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(seed)
    return {"b": jnp.asarray(rng.normal(size=(3,)), dtype), "w": jnp.asarray(rng.normal(size=(4, 3)), dtype)}


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def types_of(tree: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """The structure, and the path, shape, dtype and weak type of each leaf, which must not change from step to step."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return treedef, [(jax.tree_util.keystr(path), x.shape, x.dtype, _is_weak(x)) for path, x in leaves]


def weak_leaves(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(tree) if _is_weak(x)]


def _is_weak(x: Any) -> bool:
    return bool(getattr(x, "weak_type", False))


# Extra arguments.


def squares(params: Any, *_: Any) -> Any:
    """A loss: half the sum of the squares of the parameters."""
    return sum((0.5 * jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(params)), jnp.float32(0))


def slope_of_squares(params: Any, *_: Any) -> Any:
    return jax.grad(squares)(params)


def extra_for(tx: Any, grads: Any) -> dict[str, Any]:
    """What the transformation needs beyond gradients, state and parameters."""
    given = {
        "value": lambda: jnp.asarray(0.5, jnp.float32),
        "loss": lambda: jnp.asarray(0.5, jnp.float32),
        "key": lambda: jax.random.key(0),
        "grad": lambda: grads,
        "value_fn": lambda: squares,
        "obj_fn": lambda: squares,
        "grad_fn": lambda: slope_of_squares,
    }
    return {name: given[name]() for name in tx.extras.required}


def extra_kinds(tx: Any, grads: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The extra arguments that are arrays, and those that are functions."""
    every = extra_for(tx, grads)
    functions = {name: value for name, value in every.items() if callable(value)}
    return {name: value for name, value in every.items() if name not in functions}, functions


def with_examples(tx: Any, grads: Any) -> Any:
    """The gradients as the transformation is given them: of two equal examples, if it sums over examples."""
    if not getattr(tx, "sums_examples", False):
        return grads
    if any(isinstance(g, jax.ShapeDtypeStruct) for g in jax.tree.leaves(grads)):
        return jax.tree.map(lambda g: jax.ShapeDtypeStruct((2, *g.shape), g.dtype), grads)
    return jax.tree.map(lambda g: jnp.stack([g, g]), grads)


# Comparison and counting.


def assert_close(got: Any, want: Any, ulps: float = 0, rtol: float = 0, what: str = "") -> None:
    """Equal trees of equal types, each leaf to `ulps` spacings of its largest element's dtype, or to `rtol`."""
    assert types_of(got) == types_of(want), what
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jnp.inexact):
            a, b, unit = np.asarray(a, np.float64), np.asarray(b, np.float64), float(jnp.finfo(a.dtype).eps)
            atol = max(ulps * unit, rtol) * np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=f"{what} {jax.tree_util.keystr(path)}")
        elif not jnp.issubdtype(a.dtype, jax.dtypes.extended):
            np.testing.assert_array_equal(a, b, err_msg=f"{what} {jax.tree_util.keystr(path)}")


def not_finite(tree: Any) -> list[str]:
    """The paths of the leaves with an element that is NaN or infinite."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    leaves = [(path, np.asarray(x, np.float64)) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    return [jax.tree_util.keystr(path) for path, x in leaves if not np.all(np.isfinite(x))]


class _Compilations:
    """Counts what XLA compiles, by listening to JAX's own events."""

    count = 0
    kept = 0

    def __init__(self) -> None:
        jax.monitoring.register_event_duration_secs_listener(self)

    def __call__(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.count += 1
            self.kept += 1


_listener = functools.cache(_Compilations)


@contextlib.contextmanager
def compilations() -> Iterator[list[int]]:
    """Gives a list that holds, once the block is left, how many programs were compiled in it."""
    listener, result = _listener(), []
    before = listener.count
    yield result
    result.append(listener.count - before)


def forget_programs(beyond: int) -> None:
    """Clear JAX's caches once they hold more programs than that."""
    listener = _listener()
    if listener.kept > beyond:
        listener.kept = 0
        jax.clear_caches()
        gc.collect()


def _flax_version() -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version("flax").split(".")[:2]))


of_todays_nnx = pytest.mark.skipif(
    _flax_version() < (0, 11), reason="since flax 0.11 nnx.Optimizer takes the model, and a module is a pytree"
)
takes_variables = pytest.mark.skipif(
    jax.__version_info__ < (0, 6), reason="before JAX 0.6 some functions of jax.numpy take a Variable's value only"
)
of_todays_xla = pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="counts what today's XLA makes of a step")


AS_BY_DEFAULT = {"xla_cpu_use_fusion_emitters": True}
"Compiler options: those of conftest.py that change what a program needs, as XLA has them; the others only the code."


def every_other(cases: Any, start: int = 0) -> list[Any]:
    """Parameters of a test of which every second is left to `make test-long`."""
    return [pytest.param(case, marks=() if (i + start) % 2 else pytest.mark.long) for i, case in enumerate(cases)]


NAMES = {**vars(gradtx.keras), **vars(gradtx.keras.schedules), **vars(gradtx), **globals(), "jnp": jnp}
"The names that occur in the reprs of all transformations."
