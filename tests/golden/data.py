"""The recorded runs, read from their files; nothing else reads the manifests."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "keras" / "checkpoints"
"Where the files lie that real Keras wrote."


class Trajectory(NamedTuple):
    """Where a run starts, the gradients it is fed, and what was recorded after some of its steps."""

    params: dict[str, np.ndarray]
    "The parameters at the start, by name, in the order of the rows below."
    grads: dict[str, np.ndarray]
    "The gradients; the leading axis is the step."
    losses: np.ndarray
    "The value of the loss at each step, for those who ask for it."
    steps: np.ndarray
    "The numbers of updates after which something was recorded."
    recorded: dict[str, np.ndarray]
    "`params` and, say, averages of them: at each of the steps a row of all leaves, flattened and concatenated."
    bounds: dict[str, np.ndarray]
    "The largest deviation allowed, for each number recorded."
    columns: Any = slice(None)
    "Which numbers of a row were recorded, where not all of them."
    dtype: str = "float32"
    "What parameters and gradients are rounded to before the run."


OF_64_BY_64 = np.array([1, 5, 25]), np.r_[:512, 64 * 64 : 64 * 64 + 5]
"The steps and columns that were recorded of runs with a matrix of 64 × 64, which is large enough for 8-bit states."


class Function(NamedTuple):
    """A run on a function of one vector, for the methods that evaluate it themselves."""

    kind: str
    "Its name in `FUNCTIONS`."
    matrix: np.ndarray
    vector: np.ndarray
    start: np.ndarray
    recorded: np.ndarray
    "The vector after each step."
    bound: float


@functools.cache
def peers() -> dict[str, dict[str, Any]]:
    """What the manifest says of each case of `peers/`, by `source:id`."""
    return {f"{case['source']}:{case['id']}": case for case in _manifest("peers")["cases"]}


@functools.cache
def keras() -> dict[str, dict[str, Any]]:
    """What the manifest says of each case of `keras/`, by `generation:id`."""
    return {case["file"].removesuffix(".npz").replace("__", ":", 1): case for case in _manifest("keras")["cases"]}


@functools.cache
def keras_schedules() -> dict[str, dict[str, Any]]:
    """What the manifest says of the schedules of `keras/`, by `file:key`."""
    return {f"{about['file'].removesuffix('.npz')}:{about['key']}": about for about in _manifest("keras")["schedules"]}


@functools.cache
def checkpoints() -> dict[str, dict[str, Any]]:
    """What the manifest says of the files that real Keras wrote in mid-training, by the name of the run."""
    return {about["name"]: about for about in _manifest("keras/checkpoints")}


@functools.cache
def snapshot_steps() -> np.ndarray:
    """The numbers of updates after which the parameters of `peers/` were recorded."""
    return np.array(_manifest("peers")["snapshot_steps"])


def recorded() -> set[str]:
    """Every case there is."""
    return {*peers(), *keras(), *keras_schedules()}


def file_of(case: str) -> str:
    """The file that holds a case."""
    if case in keras_schedules():
        return f"keras/{keras_schedules()[case]['file']}"
    return f"keras/{keras()[case]['file']}" if case in keras() else f"peers/{peers()[case]['source']}.npz"


def tolerance(case: str, name: str) -> np.ndarray:
    """The largest deviation allowed, for each number of an array of a case; those that it was given are exact."""
    array = contents(file_of(case))[name]
    if case in peers():
        return np.full(array.shape, bound(peers()[case]))
    if case in keras_schedules():
        return np.full(array.shape, schedule(case)[1])
    if name == "params":
        return trajectory(case).bounds["params"]
    if name != "opt_flat":
        return np.zeros(array.shape)
    weights = split(array, [shape for _, *shape in keras()[case]["opt_weights"]])
    bounds = max(keras_bound(keras()[case]), 4 * (keras()[case].get("eq_check_weights_err") or 0))
    scales = [np.ravel(np.abs(x) + 0.01 * np.max(np.abs(x), initial=0) + 1e-30) for x in weights]
    return bounds * np.concatenate(scales)


def trajectory(case: str) -> Trajectory:
    return _keras_trajectory(keras()[case]) if case in keras() else _peer_trajectory(peers()[case])


def function(case: str) -> Function:
    about, arrays = peers()[case], contents(f"peers/{peers()[case]['source']}.npz")
    matrix, vector, start = (arrays[f"{about['id']}::{name}"] for name in ("H", "b", "x0"))
    return Function(about["function"], matrix, vector, start, arrays[about["id"]], bound(about))


def schedule(case: str) -> tuple[np.ndarray, float]:
    """The values at steps 0, 1, 2, …, and the largest deviation allowed. `id::momentum` is what goes with a rate."""
    if case in keras_schedules():
        about = keras_schedules()[case]
        values = contents(f"keras/{about['file']}")[about["key"]]
        return values, 2e-5 * float(np.max(np.abs(values)))
    source, name = case.split(":", 1)
    about = peers()[f"{source}:{name.split('::')[0]}"]
    return contents(f"peers/{source}.npz")[name], bound(about)


def keras_bound(about: dict[str, Any]) -> float:
    """The largest deviation allowed in a run of `keras/`, in its measure: |ours − x| / (|x| + 0.01 max |x|)."""
    return max(2e-5, 4 * about["eq_check_params_err"])


def bound(about: dict[str, Any]) -> float:
    """The manifest's tolerance; where the reference has no float64 run to measure its rounding by, the rest of it."""
    return about.get("suggested_atol") or 2e-6 * max(1.0, about["max_abs_move"])


def _peer_trajectory(about: dict[str, Any]) -> Trajectory:
    inputs, arrays = contents("peers/grads.npz"), contents(f"peers/{about['source']}.npz")
    names = {"params": about["id"]} | {extra: f"{about['id']}::{extra}" for extra in about.get("extras", ())}
    recorded = {name: arrays[key] for name, key in names.items()}
    steps, columns = OF_64_BY_64 if about["gradset"] == "A8" else (snapshot_steps(), slice(None))
    return Trajectory(
        params={var: inputs[f"{about['gradset']}/p0/{var}"] for var in about["vars"]},
        grads={var: inputs[f"{about['gradset']}/g/{var}"] for var in about["vars"]},
        losses=inputs[f"{about['gradset']}/loss"],
        steps=steps,
        recorded=recorded,
        bounds={name: np.full_like(values, bound(about)) for name, values in recorded.items()},
        columns=columns,
        dtype=about["kwargs"].get("dtype", "float32"),
    )


def _keras_trajectory(about: dict[str, Any]) -> Trajectory:
    arrays = contents(f"keras/{about['file']}")
    names, shapes = about["var_names"], about["shapes"]
    start, grads = (split(arrays[key], shapes) for key in ("init", "grads"))
    golden = arrays["params"]
    scale = np.abs(golden) + 0.01 * np.max(np.abs(golden), axis=1, keepdims=True)
    return Trajectory(
        params=dict(zip(names, start, strict=True)),
        grads=dict(zip(names, grads, strict=True)),
        losses=np.zeros(len(arrays["grads"]), np.float32),
        steps=arrays["steps"],
        recorded={"params": golden},
        bounds={"params": keras_bound(about) * scale},
    )


def split(flat: np.ndarray, shapes: Any) -> list[np.ndarray]:
    """Arrays of these shapes from their numbers, one array after the other along the last axis."""
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
    parts = np.split(flat, ends, axis=-1)
    return [part.reshape((*flat.shape[:-1], *shape)) for part, shape in zip(parts, shapes, strict=True)]


@functools.cache
def _manifest(folder: str) -> Any:
    return json.loads((HERE / folder / "manifest.json").read_text())


@functools.cache
def contents(path: str) -> dict[str, np.ndarray]:
    """The arrays of a file, by their names."""
    with np.load(HERE / path) as arrays:
        return dict(arrays)
