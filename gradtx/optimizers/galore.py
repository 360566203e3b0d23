"""GaLore: the optimizer's state of a matrix in a subspace of low rank, which follows the gradient."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, dtypes, numerics, tree
from gradtx.core.compose import Container, Inner, Optimizer, chain
from gradtx.core.hyperparams import NonNegative, PositiveInt, Rate
from gradtx.core.run import init_stage, name_of, update_stage
from gradtx.core.transformation import GradientTransformation
from gradtx.core.tree import Tree
from gradtx.masks.masks import Mask
from gradtx.masks.rules import is_function, judged
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.muon import MuonDimensionNumbers, gathered
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = ["GaLoreDimensionNumbers", "GaLoreState", "galore", "scale_by_galore"]

GaLoreDimensionNumbers = MuonDimensionNumbers
"Which axes of an array are the rows and the columns of a matrix: another name of the class that Muon has."

# Which leaves are projected.


class DimensionNumbersOfLeavesKind:
    """`GaLoreDimensionNumbers` for all leaves, a tree of them and of `None`, or a function that gives one."""

    example = GaLoreDimensionNumbers(-1, -2)
    may_vary = False

    def convert(self, where: str, value: Any) -> Any:
        if is_function(value):
            return value
        for path, leaf in jax.tree_util.tree_leaves_with_path(value, is_leaf=_is_leaf):
            if not _is_leaf(leaf):
                raise TypeError(
                    f"{where}{tree.path_str(path)} must be GaLoreDimensionNumbers(rows, columns), a tree of them and "
                    f"of None, or a function of the parameters that gives one, got {check.describe(leaf)}"
                )
        return jax.tree.map(lambda leaf: leaf, value, is_leaf=_is_leaf)  # a copy: the caller may change theirs


DimensionNumbersOfLeaves = Annotated[Any, DimensionNumbersOfLeavesKind()]
"How leaves are matrices, and which are."


def _is_leaf(x: Any) -> bool:
    return x is None or isinstance(x, GaLoreDimensionNumbers)


class _Matrix(NamedTuple):
    """How a leaf is a matrix, or a stack of them, and on which side it is projected."""

    shape: tuple[int, ...]
    "The shape of the leaf."
    axes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    "The axes along which matrices are stacked, those of the rows and those of the columns."
    is_left: bool
    "Whether the rows are projected, rather than the columns."
    rank: int
    "The rank of the subspace."

    @property
    def moved(self) -> tuple[int, ...]:
        """The sizes of the axes in the order of `axes`."""
        return tuple(self.shape[axis] for axes in self.axes for axis in axes)

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int]:
        """The shape of the stack, rows and columns."""
        stacked, rows, columns = (tuple(self.shape[axis] for axis in axes) for axes in self.axes)
        return stacked, math.prod(rows), math.prod(columns)

    @property
    def projector_shape(self) -> tuple[int, ...]:
        """The shape of P."""
        stacked, rows, columns = self.sizes
        return (*stacked, rows if self.is_left else columns, self.rank)

    @property
    def low_rank_shape(self) -> tuple[int, ...]:
        """The shape of R."""
        stacked, rows, columns = self.sizes
        return (*stacked, self.rank, columns) if self.is_left else (*stacked, rows, self.rank)

    def matrices(self, x: Array) -> Array:
        """The leaf as matrices, stacked along the leading axes."""
        stacked, rows, columns = self.sizes
        return x.transpose(sum(self.axes, ())).reshape(*stacked, rows, columns)

    def leaf(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""
        return matrices.reshape(self.moved).transpose(np.argsort(np.array(sum(self.axes, ()), int)))

    def new_projector(self, g: Array) -> Array:
        """The singular vectors of the largest singular values, as columns. Derivatives take them for constants."""
        left, _, right = jnp.linalg.svd(jax.lax.stop_gradient(self.matrices(g)), full_matrices=False)
        vectors = left if self.is_left else _adjoint(right)
        return vectors[..., : self.rank]

    def project(self, g: Array, projector: Array) -> Array:
        """Pᴴ G, or G P."""
        return _adjoint(projector) @ self.matrices(g) if self.is_left else self.matrices(g) @ projector

    def project_back(self, low: Array, projector: Array) -> Array:
        """P R, or R Pᴴ, in the shape of the leaf."""
        return self.leaf(projector @ low if self.is_left else low @ _adjoint(projector))


def _adjoint(matrices: Array) -> Array:
    return jnp.conj(jnp.swapaxes(matrices, -1, -2))


# The transformation.


class GaLoreState(NamedTuple):
    """The subspaces of GaLore, and the state of the optimizer that works in them."""

    count: Array
    "int32[]: updates made so far."
    base_optimizer_state: Any
    "The state of the base optimizer, for leaves of low rank in the place of matrices."
    projector: Tree
    "The orthonormal columns P of each matrix, in the dtype of the parameter; of other leaves an array [0, 0]."


class scale_by_galore(Container):
    """Run an optimizer on the projections of matrices to a subspace of low rank, which saves its memory.

        every T updates:   P ← the r largest left or right singular vectors of G
        R = Pᵀ G (left),   R = G P (right)
        u = α P base(R),   u = α base(R) Pᵀ

    An m × n matrix with m ≥ n needs n r numbers for P and m r for each of the base optimizer's slots, where Adam has
    m n each. Leaves that are no matrices, and those without elements, go to the base optimizer as they are, and are not
    multiplied by α. At a change of P the slots stay as they are, in the coordinates of the new subspace.

    Which leaves are matrices: those of two axes, or those that `weight_dimension_numbers` says. The singular value
    decomposition is computed in float32 at least, in the steps in which P changes only, for all matrices together.
    Derivatives take P for a constant.

    Zhao et al., 2024, Algorithm 2, and the authors' code. https://arxiv.org/abs/2403.03507. Optax projects the other
    side, which is `proj_type="reverse_std"` here.

    Raises:
        ValueError: the base optimizer needs the parameters; in `init`, dimension numbers do not fit a leaf, or the tree
            of them does not fit the parameters.
    """

    State = GaLoreState
    touches_leaves = True
    takes_half_precision = False
    elementwise = False

    rank: PositiveInt = 128
    "Rank r of the subspace; 128 is usual, a quarter of the width of a layer. Smaller matrices keep their own rank."
    update_proj_gap: PositiveInt = 200
    "Number T of updates from one change of the subspace to the next; 200 is usual, 50 to 1000 work."
    scale: NonNegative = 1.0
    "Factor α of the updates of matrices; the authors take 0.25 with a learning rate of 1e-2."
    base_optimizer: Inner | None = None
    "The transformation in the subspace, `scale_by_adam()` by default; it may not need the parameters."
    weight_dimension_numbers: DimensionNumbersOfLeaves | None = None
    """Which axes are rows and columns: for all leaves of at least two axes; or a tree like the parameters, or a prefix
    of it, with `None` for leaves to leave alone; or a function that gives one. By default leaves of two axes, rows
    first. Along axes that are neither, matrices are stacked."""
    proj_type: Literal["std", "reverse_std", "left", "right"] = "std"
    "The side to project: the shorter one (`'std'`), the longer one, the rows (`'left'`) or the columns (`'right'`)."

    def __post_init__(self) -> None:
        super().__post_init__()
        if name := _needing_params(self._base):
            raise ValueError(
                f"scale_by_galore: base_optimizer: {name} needs the parameters, which are of another shape than their "
                "projections: chain it after scale_by_galore; galore has weight_decay for weight decay"
            )

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self._base,)

    @property
    def _base(self) -> Any:
        return scale_by_adam() if self.base_optimizer is None else self.base_optimizer

    def init_fn(self, params: Tree) -> GaLoreState:
        leaves, treedef = jax.tree.flatten(params)
        matrices = self._matrices(params)
        projectors = [
            jnp.zeros(shape, leaf.dtype) for leaf, shape in zip(leaves, _projector_shapes(matrices), strict=True)
        ]
        low = [
            leaf if matrix is None else jnp.zeros(matrix.low_rank_shape, leaf.dtype)
            for leaf, matrix in zip(leaves, matrices, strict=True)
        ]
        base_state = init_stage(self._base, treedef.unflatten(low))
        return GaLoreState(numerics.counter(), base_state, treedef.unflatten(projectors))

    def update_fn(
        self, updates: Tree, state: GaLoreState, params: Tree = None, **extra: Any
    ) -> tuple[Tree, GaLoreState]:
        leaves, treedef = jax.tree.flatten(updates)
        matrices = self._matrices(updates)
        resharded = [(g, lambda u: u) if m is None else gathered(g) for g, m in zip(leaves, matrices, strict=True)]
        leaves, restore = [g for g, _ in resharded], [back for _, back in resharded]
        stored = self._projectors(leaves, matrices, state, treedef)
        projectors = [p.astype(g.dtype) for p, g in zip(stored, leaves, strict=True)]
        every = list(zip(matrices, projectors, strict=True))
        low = [g if m is None else m.project(g, p) for g, (m, p) in zip(leaves, every, strict=True)]
        new, base_state = update_stage(self._base, treedef.unflatten(low), state.base_optimizer_state, None, extra)
        full = [
            u if m is None else back(dtypes.scaled(self.scale, m.project_back(u, p)))
            for u, (m, p), back in zip(jax.tree.leaves(new), every, restore, strict=True)
        ]
        state = GaLoreState(numerics.increment(state.count), base_state, treedef.unflatten(stored))
        return treedef.unflatten(full), state

    def _projectors(
        self, leaves: list[Array], matrices: list[_Matrix | None], state: GaLoreState, treedef: Any
    ) -> list[Array]:
        """The projectors of this update, in the dtypes in which they are stored."""
        shapes = zip(leaves, _projector_shapes(matrices), strict=True)
        expected = treedef.unflatten([jax.ShapeDtypeStruct(shape, g.dtype) for g, shape in shapes])
        where, cure = "scale_by_galore: state.projector", "; the state belongs to another model, rank or side"
        check.same_structure(where, state.projector, expected, "the updates; the state belongs to another model")
        check.same_shapes(where, state.projector, expected, "the projector that init makes", cure)
        old = jax.tree.leaves(state.projector)

        def refreshed() -> list[Array]:
            every = zip(leaves, matrices, old, strict=True)
            return [p if m is None else dtypes.cast_like(m.new_projector(g), p) for g, m, p in every]

        return jax.lax.cond(state.count % self.update_proj_gap == 0, refreshed, lambda: old)

    def _matrices(self, params: Tree) -> list[_Matrix | None]:
        """How each leaf is a matrix; `None` for those that are left alone."""
        leaves = jax.tree_util.tree_leaves_with_path(params)
        numbers = self._numbers_of_leaves(params)
        return [self._matrix(path, leaf, own) for (path, leaf), own in zip(leaves, numbers, strict=True)]

    def _numbers_of_leaves(self, params: Tree) -> list[Any]:
        """The dimension numbers of each leaf, or `None`."""
        given, leaves = self.weight_dimension_numbers, jax.tree.leaves(params)
        if given is None:
            return [GaLoreDimensionNumbers() if leaf.ndim == 2 else None for leaf in leaves]
        if isinstance(given, GaLoreDimensionNumbers):
            return [given if leaf.ndim >= 2 else None for leaf in leaves]
        where = "scale_by_galore: weight_dimension_numbers"
        if is_function(given):
            given = DimensionNumbersOfLeavesKind().convert(where, given(params))
        known, prefix = jax.tree.flatten(given, is_leaf=_is_leaf)
        indices, _ = judged(where, prefix.unflatten(range(len(known))), params)
        return [known[i] for i in indices]

    def _matrix(self, path: tuple[Any, ...], leaf: Array, numbers: Any) -> _Matrix | None:
        if numbers is None or leaf.size == 0:
            return None
        try:
            axes = numbers.axes(leaf.ndim)
        except ValueError as error:
            raise ValueError(
                f"scale_by_galore: params{tree.path_str(path)}: {check.describe(leaf)} is no matrix with {numbers!r}: "
                f"{error}; give weight_dimension_numbers as a tree or a function, with None for such leaves"
            ) from None
        whole = _Matrix(leaf.shape, axes, True, 1)
        _, rows, columns = whole.sizes
        is_left = {"left": True, "right": False, "std": rows < columns, "reverse_std": rows >= columns}
        return whole._replace(is_left=is_left[self.proj_type], rank=min(self.rank, rows, columns))


def _projector_shapes(matrices: list[_Matrix | None]) -> list[tuple[int, ...]]:
    return [(0, 0) if matrix is None else matrix.projector_shape for matrix in matrices]


def _needing_params(tx: Any) -> str | None:
    """The name of the first part, however deep, whose update needs the parameters."""
    for part in tx.parts if isinstance(tx, Container) else ():
        if name := _needing_params(part):
            return name
    return name_of(tx) if isinstance(tx, GradientTransformation) and tx.needs_params else None


class galore(Optimizer):
    """GaLore: `scale_by_galore`, decoupled weight decay, and a step of size `learning_rate`.

        θ ← θ − η (u + λ θ)

    >>> import gradtx
    >>> tx = gradtx.galore(1e-2, rank=4, scale=0.25, weight_decay=0.1)
    >>> state = tx.init({"kernel": jnp.zeros((1024, 256)), "bias": jnp.zeros(256)})[0]
    >>> state.projector["kernel"].shape, state.base_optimizer_state.mu["kernel"].shape
    ((256, 4), (1024, 4))
    """

    learning_rate: Rate
    "Step size; 1e-2 is usual, with a `scale` of 0.25."
    rank: PositiveInt = scale_by_galore.rank
    update_proj_gap: PositiveInt = scale_by_galore.update_proj_gap
    scale: NonNegative = scale_by_galore.scale
    base_optimizer: Inner | None = scale_by_galore.base_optimizer
    weight_decay: NonNegative = 0.0
    "Strength λ of the weight decay, multiplied by the learning rate; 1e-2 to 1e-1 are usual."
    mask: Mask = None
    "The leaves to decay, all by default; usually not biases and norms."
    weight_dimension_numbers: DimensionNumbersOfLeaves | None = scale_by_galore.weight_dimension_numbers
    proj_type: Literal["std", "reverse_std", "left", "right"] = scale_by_galore.proj_type

    def expand(self) -> chain:
        return chain(
            scale_by_galore.of(self),
            add_decayed_weights.of(self),
            scale_by_learning_rate.of(self),
        )
