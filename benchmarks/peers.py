"""Training steps of each library: objects that make so many steps when they are called, and wait for the last."""

import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import cases, counts
from benchmarks.cases import Case, TreeOfShapes
from benchmarks.timing import Program

os.environ.setdefault("KERAS_BACKEND", "jax")


def update_and_apply(library: Any, tx: Any, extra: Mapping[str, float]) -> Callable[..., Any]:
    """`params, state = step(params, state, grads)`, to be jitted."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params, **{name: jnp.float32(x) for name, x in extra.items()})
        return library.apply_updates(params, updates), state

    return step


class JaxStep:
    """A compiled, donated step of gradtx or optax, with parameters and a state of its own."""

    def __init__(self, library: Any, case: Case, tree: TreeOfShapes, dtype: str, grads: Any) -> None:
        tx = getattr(case, library.__name__)
        params = tree.filled(dtype, seed=0)
        step = update_and_apply(library, tx, case.extra)
        self.window, self.grads = case.window, grads
        state = jax.tree.map(jnp.copy, tx.init(params))  # some states of optax share arrays, which cannot be donated
        self.program, self.params, self.state, self.counts = counts.compiled_step(step, params, state, grads)
        self.state_bytes = counts.bytes_of(self.state) / tree.size

    def __call__(self, steps: int) -> None:
        for _ in range(steps * self.window):
            self.params, self.state = self.program(self.params, self.state, self.grads)
        jax.block_until_ready(self.params)


# torch and Keras, where they are installed.


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "adadelta": ("Adadelta", {"rho": 0.9, "eps": 1e-6}),
    "adagrad": ("Adagrad", {"initial_accumulator_value": 0.1, "eps": 1e-7}),
    "adam": ("Adam", {}),
    "adamax": ("Adamax", {}),
    "adamw": ("AdamW", {"weight_decay": 1e-4}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "clip + adamw": ("AdamW", {"weight_decay": 1e-4}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "rmsprop": ("RMSprop", {"alpha": 0.9}),
    "rprop": ("Rprop", {}),
    "sgd": ("SGD", {}),
}
"The same optimizers in torch, by the names of the cases. Where formulas differ in a constant, the bytes do not."


def torch_steps(case: Case, tree: TreeOfShapes, wanted: Sequence[str]) -> dict[str, Program]:
    """torch's step for this case, with one kernel over all leaves (fused) or one per operation (foreach)."""
    if case.name not in TORCH or not is_installed("torch"):
        return {}
    torch = importlib.import_module("torch")

    name, options = TORCH[case.name]
    maker = getattr(torch.optim, name)
    ways = [way for way in inspect.signature(maker).parameters if f"torch {way}" in wanted]
    clips = case.name.startswith("clip")
    return {f"torch {way}": TorchStep(maker, {**options, way: True}, tree, clips) for way in ways}


class TorchStep:
    """A step of torch, on the GPU if JAX is there."""

    def __init__(self, maker: Any, options: dict[str, Any], tree: TreeOfShapes, clips: bool) -> None:
        torch = importlib.import_module("torch")

        self.device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        self.params = [torch.full(shape, 0.1, device=self.device) for shape in tree.shapes]
        for param in self.params:
            param.requires_grad_()
            param.grad = torch.full_like(param, 0.1)
        self.optimizer = maker(self.params, lr=cases.RATE, **options)
        self.clip = functools.partial(torch.nn.utils.clip_grad_norm_, self.params, 1.0, foreach=True) if clips else None
        self.synchronize = torch.cuda.synchronize if self.device == "cuda" else lambda: None

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            if self.clip is not None:
                self.clip()
            self.optimizer.step()
        self.synchronize()


KERAS: dict[str, tuple[str, dict[str, Any]]] = {
    "adadelta": ("Adadelta", {"rho": 0.9, "epsilon": 1e-6}),
    "adagrad": ("Adagrad", {}),
    "adam": ("Adam", {}),
    "adamax": ("Adamax", {}),
    "adamw": ("AdamW", {"weight_decay": 1e-4}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "clip + adamw": ("AdamW", {"weight_decay": 1e-4, "global_clipnorm": 1.0}),
    "lamb": ("Lamb", {}),
    "lion": ("Lion", {"weight_decay": 1e-3}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nadam": ("Nadam", {}),
    "rmsprop": ("RMSprop", {}),
    "sgd": ("SGD", {}),
}
"The same optimizers in Keras, by the names of the cases."


def keras_steps(case: Case, tree: TreeOfShapes, grads: Any) -> dict[str, Program]:
    """Keras's step for this case: `stateless_apply` of an optimizer on the backend JAX, jitted and donated."""
    if case.name not in KERAS or not is_installed("keras"):
        return {}
    name, options = KERAS[case.name]
    return {"Keras": KerasStep(name, options, tree, grads)}


class KerasStep:
    """A jitted, donated step of Keras on its backend JAX."""

    def __init__(self, name: str, options: dict[str, Any], tree: TreeOfShapes, grads: Any) -> None:
        import keras

        optimizer = getattr(keras.optimizers, name)(cases.RATE, **options)
        variables = [keras.Variable(x) for x in tree.filled("float32", seed=0)]
        optimizer.build(variables)
        self.params, self.state = [v.value for v in variables], [v.value for v in optimizer.variables]
        for variable in (*variables, *optimizer.variables):
            variable._value = None  # the step has the only reference to an array, so that it may be donated
        self.grads = grads
        self.program = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.params, self.state = self.program(self.state, self.grads, self.params)
        jax.block_until_ready(self.params)
