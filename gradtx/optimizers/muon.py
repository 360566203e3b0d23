"""Muon: orthogonalized momentum for matrices, and Adam for all other leaves."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from gradtx.core import check, dtypes, numerics, tree
from gradtx.core.compose import Optimizer, chain
from gradtx.core.hyperparams import Axes, Choice, Decay, DType, Flag, NonNegative, Positive, PositiveInt, Rate
from gradtx.core.leafwise import Leafwise
from gradtx.core.spec import Spec
from gradtx.core.tree import Tree
from gradtx.masks.hiding import hide
from gradtx.masks.labels import label_by_mask
from gradtx.masks.masks import Mask, matrices_only
from gradtx.masks.rules import is_function, judged
from gradtx.optimizers.adam import adamw, corrected_mean, scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.orthogonal import PRESETS, STANDARD, Preconditioning, orthogonalize
from gradtx.transforms.scaling import scale_by_learning_rate
from gradtx.wrappers.partition import partition
from gradtx.wrappers.sharing import MaskedState, Share, update_shares

__all__ = [
    "MuonDimensionNumbers",
    "MuonState",
    "muon",
    "scale_by_muon",
    "scale_by_shape",
]

# How an array is a matrix.


class MuonDimensionNumbers(Spec):
    """Which axes of an array are the rows and which the columns of a matrix. Along other axes, matrices are stacked.

    `MuonDimensionNumbers()`           a kernel of shape (in, out), as in Flax and Keras
    `MuonDimensionNumbers(1, 0)`       a weight of shape (out, in), as in torch
    `MuonDimensionNumbers(-2, -1)`     kernels stacked along the leading axes
    `MuonDimensionNumbers(None, -1)`   a convolution of shape (height, width, in, out)
    """

    reduction_axis: Axes | None = 0
    "Axes of the inputs, which are summed over when the array is applied; `None` for all but those of the outputs."
    output_axis: Axes = 1
    "Axes of the outputs; 1 for a kernel of shape (in, out)."

    def axes(self, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The axes along which matrices are stacked, those of the rows and those of the columns, of an array of `ndim`.

        Raises:
            ValueError: the array does not have such an axis, or an axis is named twice.
        """
        output = _nonnegative_axes(self.output_axis, ndim)
        others = tuple(axis for axis in range(ndim) if axis not in output)
        reduction = others if self.reduction_axis is None else _nonnegative_axes(self.reduction_axis, ndim)
        if len({*reduction, *output}) < len(reduction) + len(output):
            raise ValueError(f"an axis is named twice in {self!r}")
        return tuple(axis for axis in others if axis not in reduction), reduction, output


def _nonnegative_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """One axis or several as a tuple, counted from the front."""
    axes = axes if isinstance(axes, tuple) else (axes,)
    if wrong := [axis for axis in axes if not -ndim <= axis < ndim]:
        raise ValueError(f"there is no axis {wrong[0]}")
    return tuple(axis % ndim for axis in axes)


class DimensionNumbersKind:
    """`MuonDimensionNumbers`, or the pair of axes that makes one; a tree of them, or a function that gives one."""

    may_vary = False

    @property
    def example(self) -> MuonDimensionNumbers:
        return MuonDimensionNumbers()

    def convert(self, where: str, value: Any) -> Any:
        leaves = jax.tree_util.tree_leaves_with_path(value, is_leaf=_is_numbers)
        if isinstance(value, tuple) and len(value) == 2 and not _holds_numbers(value):
            return MuonDimensionNumbers(*value)
        if _gives_numbers(value):
            return value
        for path, leaf in leaves:
            if not _is_numbers(leaf):
                raise TypeError(
                    f"{where}{tree.path_str(path)} must be MuonDimensionNumbers(rows, columns), a tree of them or a "
                    f"function that gives one, got {check.describe(leaf)}"
                )
        return jax.tree.map(lambda leaf: leaf, value, is_leaf=_is_numbers)  # a copy, which the caller cannot change


def _gives_numbers(value: Any) -> bool:
    """Whether `value` is a function of the parameters, rather than a callable module that holds dimension numbers."""
    return is_function(value) and not _holds_numbers(value)


def _holds_numbers(value: Any) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=_is_numbers)
    return any(isinstance(leaf, MuonDimensionNumbers) for leaf in leaves)


def _is_numbers(x: Any) -> bool:
    """Whether `x` is a leaf of a tree of dimension numbers, in which `None` leaves a parameter out."""
    return x is None or isinstance(x, MuonDimensionNumbers)


DimensionNumbers = Annotated[Any, DimensionNumbersKind()]
"""How the leaves are matrices: `MuonDimensionNumbers` for all of them, a tree of such like the parameters or a prefix
of it, or a function of the parameters that gives such a tree."""


class _Box:
    """Dimension numbers as a leaf of a tree: they themselves are a node, and so is `None`."""

    def __init__(self, numbers: MuonDimensionNumbers | None) -> None:
        self.numbers = numbers


def _numbers_of_leaves(where: str, numbers: Any, params: Tree) -> list[MuonDimensionNumbers | None]:
    """The dimension numbers of each visible leaf, in order; `None` for those that the tree leaves out.

    Raises:
        ValueError: the tree is no prefix of `params`.
        TypeError: a function gives something other than dimension numbers.
    """
    if _gives_numbers(numbers):
        numbers = DimensionNumbersKind().convert(where, numbers(params))
    boxes, _ = judged(where, jax.tree.map(_Box, numbers, is_leaf=_is_numbers), params)
    return [box.numbers for box in boxes]


def _refuse_non_matrices(where: str, numbers: Any, params: Tree) -> None:
    """Refuse leaves that are not matrices, or that these dimension numbers do not fit."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    each = [None] * len(leaves)
    if numbers is not None:
        each = _numbers_of_leaves(f"{where}: weight_dimension_numbers", numbers, params)
    for (path, leaf), own in zip(leaves, each, strict=True):
        try:
            if own is None and numbers is not None:
                raise ValueError("it has no dimension numbers")
            if own is None and np.ndim(leaf) != 2:
                raise ValueError("it has other than two axes")
            (own or MuonDimensionNumbers()).axes(np.ndim(leaf))
        except ValueError as error:
            raise ValueError(
                f"{where}: params{tree.path_str(path)}: expected a matrix, got {check.describe(leaf)} ({error}); leave "
                "it to another optimizer, as muon and partition do, or say which axes are rows and columns: "
                "weight_dimension_numbers=MuonDimensionNumbers(None, -1) for a convolution"
            ) from None


def _on_matrices(function: Callable[[Array], Array], x: Array, numbers: MuonDimensionNumbers | None) -> Array:
    """A function of a matrix, applied to each of the matrices that are stacked in `x`."""
    stacked, reduction, output = (numbers or MuonDimensionNumbers()).axes(x.ndim)
    order = stacked + reduction + output
    x, restore = gathered(x)
    moved = x.transpose(order)
    for _ in stacked:
        function = jax.vmap(function)
    matrices = moved.reshape([x.shape[axis] for axis in stacked] + [_size(x, reduction), _size(x, output)])
    return restore(function(matrices).reshape(moved.shape).transpose(np.argsort(np.array(order, int))))


def gathered(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """`x`, gathered on every device if mesh axes are explicit, and a function that gives a result the sharding of `x`.

    On explicit axes one must say how the result of a product or of a reshape is sharded. On others XLA decides it.
    """
    spec = getattr(getattr(jax.typeof(x), "sharding", None), "spec", ())
    if not any(axis is not None for axis in spec):
        return x, lambda result: result
    return jax.sharding.reshard(x, PartitionSpec()), lambda result: jax.sharding.reshard(result, spec)


def _size(x: Array, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[axis] for axis in axes)


# The transformations.


class CoefficientsKind:
    """Three numbers, three numbers for each step, or the name of a preset."""

    may_vary = False
    example = STANDARD

    def convert(self, where: str, value: Any) -> Any:
        if isinstance(value, str):
            return Choice(*PRESETS).convert(where, value)
        shape = np.shape(value) if isinstance(value, list | tuple | np.ndarray | jax.Array) else ()
        if shape[-1:] != (3,) or len(shape) > 2 or 0 in shape:
            raise TypeError(f"{where} must be three numbers, or three for each step, got {value!r}")
        numbers = np.asarray(value, float)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{where} must be finite, got {value!r}")
        rows = tuple(tuple(row) for row in np.atleast_2d(numbers).tolist())
        return rows if len(shape) == 2 else rows[0]


Coefficients = Annotated[Any, CoefficientsKind()]
"The a, b, c of `orthogonalize`, for all steps or for each of them."


class MuonState(NamedTuple):
    """The momentum of Muon."""

    count: Array
    "int32[]: updates made so far."
    mu: Tree
    "Like the parameters: running mean, or decaying sum, of the gradient."


class _OfMatrices(Leafwise, abstract=True):
    """A formula that depends on which axes of the leaf are rows and columns.

    Where leaves differ in that, those with the same dimension numbers are updated together.
    """

    elementwise = False

    weight_dimension_numbers: Any

    def init_fn(self, params: Tree) -> Any:
        _refuse_non_matrices(type(self).__name__, self.weight_dimension_numbers, params)
        return super().init_fn(params)

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        numbers = self.weight_dimension_numbers
        if _is_numbers(numbers) or not jax.tree.leaves(updates):
            return super().update_fn(updates, state, params, **extra)
        where = f"{type(self).__name__}: weight_dimension_numbers"
        each = _numbers_of_leaves(where, numbers, updates if params is None else params)
        shares = {
            own: Share(self.replace(weight_dimension_numbers=own), [own == other for other in each])
            for own in dict.fromkeys(each)
        }
        states = {own: MaskedState(self._with_slots(state, share.visible)) for own, share in shares.items()}
        updates, states = update_shares(shares, updates, states, params, extra)
        return updates, self._joined(state, each, states)

    def _with_slots(self, state: Any, visible: list[bool]) -> Any:
        """The state, with the slots of visible leaves only."""
        return state._replace(**{slot: hide(getattr(state, slot), visible) for slot in self.slots})

    def _joined(self, old: Any, each: list[Any], states: Mapping[Any, MaskedState]) -> Any:
        """One state made of several, of which each has the slots of its own leaves."""
        new = {}
        for slot in self.slots:
            own = {
                numbers: iter(jax.tree.leaves(getattr(state.inner_state, slot))) for numbers, state in states.items()
            }
            new[slot] = jax.tree.structure(getattr(old, slot)).unflatten([next(own[numbers]) for numbers in each])
        return next(iter(states.values())).inner_state._replace(**new)


class scale_by_muon(_OfMatrices):
    """Orthogonalize the momentum of each matrix, so that steps have about the same size in all of its directions.

        m ← β m + (1 − β) g           `form="mean"`: Jordan's and torch's
        u = O(m),   Nesterov:  u = O(β m + (1 − β) g)

    where O is `orthogonalize`. The form `"debiased"`, which is optax's, debiases both terms as Nesterov's Adam does.
    The form `"sum"`, which is Keras's, has m ← β m + g and Nesterov's u = O(g + β m). Apart from ε, the forms "mean"
    and "sum" give the same updates, because O(x) does not depend on the size of x. The spectral norm of an update is
    about 1; `scale_by_shape` is the stage that follows.

    Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/; in large models: Liu et al., 2025,
    https://arxiv.org/abs/2502.16982. It is meant for the hidden matrices of a network. Embeddings, the last layer and
    leaves that are not matrices are better left to Adam; `muon` does so with the latter.

    Raises:
        ValueError: in `init`, a leaf is not a matrix.
    """

    State = MuonState

    ns_coeffs: Coefficients = STANDARD
    "The coefficients a, b, c of the iteration, or a triple for each step, or the preset `'standard'` or `'dion'`."
    ns_steps: PositiveInt = 5
    "Steps of the iteration, unless `ns_coeffs` has a triple for each; 5 is usual."
    beta: Decay = 0.95
    "Decay rate β of the momentum; 0.95 is usual."
    eps: Positive = 1e-8
    "ε, added to the norm by which the momentum is divided; 1e-8 is usual."
    mu_dtype: DType | None = None
    "Dtype of the momentum; by default that of the computation."
    nesterov: Flag = True
    "Whether to look one step ahead, as Nesterov's momentum does."
    adaptive: Flag = False
    "Whether to multiply by ⟨m, u⟩, the momentum's nuclear norm. Bernstein & Newhouse, https://arxiv.org/abs/2409.20325"
    preconditioning: Preconditioning = "frobenius"
    "By what the momentum is divided before the iteration, see `orthogonalize`; `'aol'` may save one of the steps."
    weight_dimension_numbers: DimensionNumbers | None = None
    """Which axes of the leaves are rows and columns: of all of them, or a tree or a function of the parameters that
    says so for each; by default leaves must have two axes, rows first."""
    form: Literal["debiased", "mean", "sum"] = "debiased"
    "The form of the momentum: optax's, Jordan's and torch's, or Keras's."
    ns_dtype: DType | None = None
    "Dtype of the iteration; `'bfloat16'` is faster on accelerators, and precise enough for training."

    @classmethod
    def example(cls) -> "scale_by_muon":
        return cls(weight_dimension_numbers=MuonDimensionNumbers(None, ()))

    def init_leaf(self, param: Array) -> tuple[Array]:
        return (numerics.zeros(param, self.mu_dtype),)

    def leaf(self, g: Array, mu: Array, *, t: Array) -> tuple[Array, Array]:
        mu, momentum = self._momentum(g, mu, t)
        update = _on_matrices(self._orthogonalized, momentum, self.weight_dimension_numbers)
        if self.adaptive:
            update = jnp.real(jnp.vdot(momentum, update)).astype(g.dtype) * update
        return update, mu

    def _momentum(self, g: Array, mu: Array, t: Array) -> tuple[Array, Array]:
        """The new slot, and the momentum that is orthogonalized."""
        if self.form == "sum":
            mu = self.beta * mu + g
            return mu, g + self.beta * mu if self.nesterov else mu
        mu = numerics.ema(mu, g, self.beta)
        if self.form == "debiased":
            return mu, corrected_mean(mu, g, self.beta, t, self.nesterov)
        return mu, numerics.ema(mu, g, self.beta) if self.nesterov else mu

    def _orthogonalized(self, x: Array) -> Array:
        coeffs = PRESETS[self.ns_coeffs] if isinstance(self.ns_coeffs, str) else self.ns_coeffs
        return orthogonalize(x, self.ns_steps, coeffs, self.eps, self.ns_dtype, self.preconditioning)


class scale_by_shape(_OfMatrices):
    """Scale each matrix by a factor of its shape, so that one learning rate suits all shapes.

        u = √max(1, columns / rows) g          Jordan's, for kernels of shape (in, out)
        u = r √max(rows, columns) g            given `consistent_rms`: Liu et al., 2025

    With r = 0.2 the root mean square of Muon's updates is about that of Adam's, so that Adam's learning rate and
    weight decay suit Muon, too. https://arxiv.org/abs/2502.16982

    Raises:
        ValueError: in `init`, a leaf is not a matrix.
    """

    weight_dimension_numbers: DimensionNumbers | None = scale_by_muon.weight_dimension_numbers
    consistent_rms: Positive | None = None
    "Root mean square r of the updates of every shape; 0.2 is usual, about that of Adam. `None` for Jordan's factor."

    @classmethod
    def example(cls) -> "scale_by_shape":
        return cls(scale_by_muon.example().weight_dimension_numbers)

    def leaf(self, g: Array) -> Array:
        _, reduction, output = (self.weight_dimension_numbers or MuonDimensionNumbers()).axes(g.ndim)
        rows, columns = _size(g, reduction), _size(g, output)
        if self.consistent_rms is None:
            return dtypes.scaled(math.sqrt(max(1, columns / max(rows, 1))), g)
        return dtypes.scaled(self.consistent_rms * math.sqrt(max(rows, columns)), g)


# The optimizer.


class muon(Optimizer):
    """Muon for matrices, Adam for all other leaves.

    The leaves that `muon_mask` selects get `scale_by_muon`, `scale_by_shape`, decoupled weight decay and a step of size
    `learning_rate`; all others get `adamw`. Embeddings and the last layer are matrices, too, but Adam suits them
    better: `muon_mask=matrices_only("head", embeddings=False)`. To give convolutions to Muon as well, write
    `muon_mask=weights_only()` and `muon_weight_dimension_numbers=MuonDimensionNumbers(None, -1)`. Where leaves differ,
    `muon_weight_dimension_numbers` may be a tree of `MuonDimensionNumbers`, with `None` for the leaves of Adam, or a
    function of the parameters that gives one; then there is no `muon_mask`. It is not an error if Muon or Adam has no
    leaf.

    The state is that of `partition` with the labels `"muon"` and `"adam"`, so that the metrics are
    `muon/learning_rate` and `adam/learning_rate`.

    Raises:
        ValueError: both a mask and a tree of dimension numbers; in `init`, a leaf of Muon's is not a matrix.

    >>> import gradtx
    >>> tx = gradtx.muon(0.02, adam_learning_rate=1e-3)
    >>> params = {"bias": jnp.zeros(2), "kernel": jnp.eye(2)}
    >>> updates, state = tx.update({"bias": jnp.ones(2), "kernel": jnp.eye(2)}, tx.init(params), params)
    >>> updates["bias"]
    Array([-0.00147368, -0.00147368], dtype=float32)
    """

    learning_rate: Rate
    "Step size; 0.02 is usual, or AdamW's if `consistent_rms` is given."
    ns_coeffs: Coefficients = scale_by_muon.ns_coeffs
    ns_steps: PositiveInt = scale_by_muon.ns_steps
    beta: Decay = scale_by_muon.beta
    eps: Positive = scale_by_muon.eps
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay of Muon's leaves, multiplied by the learning rate; 0.1 is usual."
    weight_decay_mask: Mask = None
    "The leaves of Muon's to decay, all by default."
    mu_dtype: DType | None = scale_by_muon.mu_dtype
    nesterov: Flag = scale_by_muon.nesterov
    adaptive: Flag = scale_by_muon.adaptive
    preconditioning: Preconditioning = scale_by_muon.preconditioning
    adam_b1: Decay = scale_by_adam.b1
    adam_b2: Decay = scale_by_adam.b2
    adam_eps_root: NonNegative = scale_by_adam.eps_root
    adam_weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay of Adam's leaves, multiplied by their learning rate; usually 0."
    adam_learning_rate: Rate | None = None
    "Step size of Adam; by default that of Muon."
    muon_weight_dimension_numbers: DimensionNumbers | None = None
    """Which axes of Muon's leaves are rows and columns; by default they must have two axes, rows first. A tree, or a
    function of the parameters that gives one, also says which leaves are Muon's: those that have no `None` there."""
    consistent_rms: Positive | None = scale_by_shape.consistent_rms
    muon_mask: Mask = matrices_only()
    "The leaves that Muon updates; by default those of two axes. A tree of dimension numbers stands instead of it."
    form: Literal["debiased", "mean", "sum"] = scale_by_muon.form
    ns_dtype: DType | None = scale_by_muon.ns_dtype

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_numbers(self.muon_weight_dimension_numbers) and self.muon_mask != muon.muon_mask:
            raise ValueError(
                "muon: a tree or function of muon_weight_dimension_numbers says which leaves are Muon's, and so does "
                "muon_mask: leave out one of them"
            )

    def expand(self) -> partition:
        numbers = self.muon_weight_dimension_numbers
        orthogonal = scale_by_muon.of(self, weight_dimension_numbers=numbers)
        matrices = chain(
            orthogonal,
            scale_by_shape.of(self, weight_dimension_numbers=numbers),
            add_decayed_weights.of(self, mask=self.weight_decay_mask),
            scale_by_learning_rate.of(self),
        )
        others = adamw.of(
            self,
            learning_rate=self.learning_rate if self.adam_learning_rate is None else self.adam_learning_rate,
            b1=self.adam_b1,
            b2=self.adam_b2,
            eps_root=self.adam_eps_root,
            weight_decay=self.adam_weight_decay,
        )
        return partition({"muon": matrices, "adam": others}, self._labels(), allow_unused=True)

    def _labels(self) -> Any:
        """What says of each leaf whether it is Muon's or Adam's: the dimension numbers if they do, else the mask."""
        numbers = self.muon_weight_dimension_numbers
        return label_by_mask(self.muon_mask, "muon", "adam") if _is_numbers(numbers) else _labels_of(numbers)


def _labels_of(numbers: Any) -> Any:
    """A tree of labels, `"muon"` where there are dimension numbers; of a function, a function that gives one."""
    if _gives_numbers(numbers):
        return lambda params: _labels_of(numbers(params))
    numbers = DimensionNumbersKind().convert("muon: muon_weight_dimension_numbers", numbers)
    return jax.tree.map(lambda own: "adam" if own is None else "muon", numbers, is_leaf=_is_numbers)
