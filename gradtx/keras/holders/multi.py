"""An optimizer for each group of variables."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.core.compose import identity
from gradtx.core.hyperparams import Positive
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.by_variable import ByVariableState, by_variable
from gradtx.keras.engine.dialect import Dialect, snake_case
from gradtx.keras.engine.keeper import required_state
from gradtx.keras.engine.modern import Modern
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.parameters import Parameters
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.step import gradients, recognised
from gradtx.keras.engine.subsets import cut, spread
from gradtx.keras.engine.table import Name, private
from gradtx.keras.engine.variable import Variable, Variables, unique
from gradtx.keras.engine.weights import Weight, Zeros
from gradtx.keras.holders.holder import HeldKind, Holder
from gradtx.keras.holders.optimizer_map import Map, OptimizerMap
from gradtx.wrappers.masked import MaskedState

__all__ = ["MultiOptimizer"]


class _Group(NamedTuple):
    """Where the state of a group's optimizer is in that of `by_variable`, which has other variables beside them."""

    label: str
    "What the optimizer is called."
    names: tuple[str, ...]
    "Its variables."
    every: tuple[str, ...]
    "All variables."

    def get(self, state: OptimizerState) -> OptimizerState:
        counts, states = state.inner_state
        return OptimizerState(counts[self.label], cut(states[self.label].inner_state, self.every, self.names))

    def put(self, state: OptimizerState, part: OptimizerState) -> OptimizerState:
        counts, states = state.inner_state
        counts = {**counts, self.label: part.iterations}
        states = {**states, self.label: MaskedState(spread(part.inner_state, self.names, self.every))}
        return OptimizerState(state.iterations, ByVariableState(counts, states))


class MultiOptimizer(Holder):
    """An optimizer for each group of variables, of which an `OptimizerMap` or a function says which it is.

        MultiOptimizer(OptimizerMap(AdamW(1e-3), {".*kernel": Muon(0.02)}))
        MultiOptimizer(lambda variable: muon if variable.ndim == 2 else adamw)

    Clipping, weight decay, running means are those of each optimizer: `global_clipnorm` sees the variables of its
    group. There is no one learning rate, but those of `optimizers` can be read and assigned.

    Raises:
        ValueError: the path of a variable matches two expressions.
        AttributeError: asked for its learning rate.
    """

    unknown_argument = ValueError
    dialect = Dialect("keras3", "gradtx.keras.optimizers", snake_case, counter="{name}/iteration", legacy_format=False)
    first_weights = (Weight("{name}/learning_rate", derived=Zeros()),)

    optimizer_map: Map
    "Which optimizer each variable has."
    loss_scale_factor: Positive | None = None
    "By what the loss was multiplied; all optimizers divide their gradients by it."
    name: Name = None
    "Its name in configs and in those of its weights."

    _chosen: tuple[Facade, ...] = private(())
    _groups: "tuple[_Group, ...]" = private(())

    def check_settings(self) -> None:
        if isinstance(self.optimizer_map, OptimizerMap):
            self._chosen = _distinct([*self.optimizer_map.values(), self.optimizer_map.default_optimizer])
        self._share_factor(self._chosen)

    def __setattr__(self, name: str, value: Any) -> None:
        followers = self._chosen if name == "loss_scale_factor" else ()
        for opt in followers:
            opt.loss_scale_factor = None
        try:
            super().__setattr__(name, value)
        finally:
            for opt in followers:
                opt.loss_scale_factor = self.loss_scale_factor

    def _share_factor(self, optimizers: Iterable[Facade]) -> None:
        """Let all divide by the same factor."""
        for opt in optimizers:
            own = getattr(opt, "loss_scale_factor", None)
            if own not in (None, self.loss_scale_factor):
                raise ValueError(
                    f"{type(self).__name__}: {type(opt).__name__} has loss_scale_factor={own:g}, but there is one loss "
                    "for all: give it to the MultiOptimizer"
                )
            if own != self.loss_scale_factor:
                opt.loss_scale_factor = self.loss_scale_factor

    @property
    def parts(self) -> tuple[Facade, ...]:
        """The optimizers: those of the map in order, then its default; of a function, as it gave them."""
        return self._chosen

    def get_config(self) -> dict[str, Any]:
        if not isinstance(self.optimizer_map, OptimizerMap):
            raise ValueError(f"{type(self).__name__}: a function has no config: use an OptimizerMap")
        return super().get_config()

    # The chain.

    def compose(self, learning_rate: Any) -> Transformation:
        required_state(self, "the transformation, which depends on the paths of the variables,")
        return super().compose(learning_rate)

    def around(self, transformations: Sequence[Transformation]) -> Transformation:
        transforms = {group.label: tx for group, tx in zip(self.lenses, transformations, strict=True)}
        return by_variable(transforms, {name: group.label for group in self.lenses for name in group.names})

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, to be differentiated."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def exclude_from_weight_decay(self, var_list: Tree = None, var_names: Sequence[str] | None = None) -> None:
        """Leave variables out of the weight decay of whichever optimizer has them; before it is built.

        See `gradtx.keras.Optimizer.exclude_from_weight_decay`. Optimizers without weight decay are passed over.
        """
        if self.built:
            raise ValueError(f"{type(self).__name__}.exclude_from_weight_decay comes before build and the first step")
        if not isinstance(self.optimizer_map, OptimizerMap):
            raise ValueError(
                f"{type(self).__name__}.exclude_from_weight_decay: which optimizers a function gives is known when it "
                "is built: call theirs instead, or use an OptimizerMap"
            )
        for opt in self._chosen:
            if isinstance(opt, Modern):
                opt.exclude_from_weight_decay(var_list, var_names)

    # Variables of its own, which are saved with the rest; nothing in a step changes them.

    add_variable = Modern.add_variable
    add_variable_from_reference = Modern.add_variable_from_reference
    add_optimizer_variables = Modern.add_optimizer_variables

    def get_gradients(self, loss: Callable[[Any], Any], params: Tree) -> Tree:
        _, given = recognised(self, params)
        flat = dict(zip(given.names, jax.tree.leaves(gradients(self, loss, params)), strict=True))
        clipping = self.around([opt.clipping() or identity() for opt in self._chosen])
        clipped = clipping.update(flat, clipping.init(flat))[0]
        return given.treedef.unflatten([clipped[name] for name in given.names])

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the running means over the variables of the optimizers that keep one."""
        _, given = recognised(self, var_list)
        values = dict(zip(given.names, given.values, strict=True))
        for opt in self._chosen:
            if isinstance(opt, Modern) and opt.keeper.shapes:
                values |= opt.averages({name: values[name] for name in opt.keeper.shapes})
        return given.handed_back([values[name] for name in given.names])

    # The state.

    def build_for(self, given: Variables) -> None:
        """Give each its variables. States that optimizers have already are kept."""
        known = Parameters(type(self).__name__, given)
        held = [Variable(value, name) for value, name in zip(given.values, known.names, strict=True)]
        owners = [self._owner(variable) for variable in (given.leaves if given.are_assignable else held)]
        chosen = _distinct([*self._chosen, *owners])
        self._share_factor(chosen)
        for opt in chosen:
            own = [i for i, owner in enumerate(owners) if owner is opt]
            leaves = [given.leaves[i] for i in own] if given.are_assignable else None
            self._build_one(opt, [held[i] for i in own], leaves)
        labels = unique([getattr(opt, "name", None) or snake_case(type(opt).__name__) for opt in chosen])
        every = tuple(known.names)
        self._groups = tuple(
            _Group(label, tuple(opt.keeper.shapes), every) for label, opt in zip(labels, chosen, strict=True)
        )
        self._chosen = chosen
        self.keeper.begin(known, {})

    def _owner(self, variable: Any) -> Facade:
        where = f"{type(self).__name__}: the optimizer of {variable.path}"
        owner = HeldKind().convert(where, self.optimizer_map(variable))
        if isinstance(owner, Holder):
            raise ValueError(f"{where} cannot be a {type(owner).__name__}: put that around the whole")
        return owner

    def _build_one(self, opt: Facade, variables: list[Variable], leaves: list[Any] | None) -> None:
        """Build an optimizer for its variables, be it none; a state that is there stays.

        The variables stand for those of the user, the leaves, or for arrays.
        """
        names = [variable.path for variable in variables]
        if opt.built and list(opt.keeper.shapes) != names:
            raise ValueError(
                f"{type(self).__name__}: {type(opt).__name__} was built for {', '.join(opt.keeper.shapes)}, is to "
                f"be that of {', '.join(names)}: make another one"
            )
        if not opt.built:
            opt.build(variables) if variables else opt.build_for(Variables.of([]))
        known: Any = opt.keeper.known
        known.variables = leaves

    @property
    def lenses(self) -> "tuple[_Group, ...]":  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._groups

    def name_of(self, index: int, weight: Weight) -> str:
        label, own = self._groups[index].label, getattr(self._chosen[index], "name", None)
        return f"{label}/{weight.name.removeprefix(f'{own}/')}"


def _distinct(optimizers: Iterable[Facade]) -> tuple[Facade, ...]:
    """Each of them once."""
    return tuple({id(opt): opt for opt in optimizers}.values())
