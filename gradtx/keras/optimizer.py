"""The stateful optimizer behind every class of every Keras generation: a chain, its state, and where its weights are.

A class is a table of arguments (`gradtx.keras.table`) and one method, `chain(learning_rate)`, which gives the gradtx
chain of its update; `compose` of its generation puts clipping, decay and the rest around it. What runs is that chain:
`opt.transformation` shows it.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics
from gradtx.core.base import Transformation, with_own_buffers
from gradtx.core.hyperparams import NonNegativeInt, Rate, is_schedule, kind_of
from gradtx.core.tree import Tree
from gradtx.fields import get, replace
from gradtx.keras import schedules
from gradtx.keras.files import SavedOptimizer, read_optimizer, write_optimizer
from gradtx.keras.step import OptimizerState, Program, gradient, minimize, step, step_once
from gradtx.keras.table import Table
from gradtx.keras.transforms import set_counters
from gradtx.keras.variable import Variables, array, handed_back, is_variable, unique

__all__ = ["Facade", "Weight", "takes_nothing"]


class Weight(NamedTuple):
    """One of the arrays that Keras calls the weights of an optimizer, and where it is in the state."""

    name: str
    "Keras's name for it."
    field: str
    "The field of the chain's state; or `iterations`, `learning_rate`; or nothing, if it is `derived`."
    variable: str | None = None
    "Which variable's, if there is one for each; `*` if all have the same."
    factor: float = 1.0
    "Keras's value in units of ours: −1 where only the signs differ."
    dtype: Any = None
    "The dtype in which the generation has it; `None` for that of the state."
    derived: Callable[[Any, str], Any] | None = None
    "A function of the state and the name: the generation keeps it, though it follows from the rest."
    forgotten: bool = False
    "Whether the generation itself does not save it: it comes last, and `set_weights` does without it."


class Facade(Table, abstract=True):
    """Base of all optimizer classes. See `gradtx.keras.Optimizer`, that of Keras 3, for how to use and derive one."""

    slots: ClassVar[tuple[Mapping[str, str], ...]] = ()
    """Groups of `{Keras's name: field of the chain's state}`; the weights of a group alternate, variable by variable.

    Those that are not in the state, such as the third of Adam without `amsgrad`, are left out. `-` turns
    the sign round.
    """
    generation: ClassVar[str] = ""
    "What files call its generation."
    legacy_format: ClassVar[bool] = True
    "Whether configs say `{class_name, config}` of what is inside, as before Keras 3."

    _rate: Any = None
    _state: OptimizerState | None = None
    _built: dict[str, jax.ShapeDtypeStruct] | None = None
    _assignable: list[Any] | None = None
    _live: tuple[Any, Any] | None = None
    _start: dict[str, Any] | None = None

    # What it computes.

    def chain(self, learning_rate: Any) -> Transformation:
        """The gradtx chain of the update itself; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither chain nor update_step")

    def compose(self, learning_rate: Any) -> Transformation:
        """The whole chain, with what its generation has besides: clipping, decay, averages."""
        return self.chain(learning_rate)

    @property
    def transformation(self) -> Transformation:
        """The chain that this optimizer is, with its present settings; to be used for itself, or printed."""
        return self.compose(self._rate_in_use())

    def _rate_in_use(self) -> Any:
        """A number, or a schedule."""
        return float(self._rate()) if takes_nothing(self._rate) else self._rate

    def _transformation_with_live_rate(self) -> Transformation:
        """The same with the rate for an array, so that no other rate needs another program."""
        rate = self._rate_in_use()
        if self._live is None or self._live[0] is not rate:
            self._live = rate, self.compose(rate if is_schedule(rate) else jnp.asarray(rate, jnp.result_type(float)))
        return self._live[1]

    # Its settings.

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RATES:
            self._set_rate(value)
        elif name in self.fields() or name.startswith("_") or _is_property(type(self), name) or self._is_free:
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"{type(self).__name__} has no {name}; it has {', '.join(self.fields())}")
        if name in self.fields():
            object.__setattr__(self, "_live", None)

    @property
    def _is_free(self) -> bool:
        """Whether it is someone else's class, which may have attributes of any name."""
        return not type(self).__module__.startswith("gradtx.")

    def _set_rate(self, value: Any) -> None:
        rate = value
        if not is_schedule(value):
            rate = self.convert("learning_rate", _RATE, value.value if is_variable(value) else value)
        object.__setattr__(self, "_rate", rate)

    @property
    def learning_rate(self) -> Any:
        """The learning rate: what was given, or of a schedule its value at the present step. It can be assigned."""
        rate = self._rate_in_use()
        if not is_schedule(rate):
            return rate
        return float(rate(0 if self._state is None else int(self._state.iterations)))

    @property
    def lr(self) -> Any:
        """The learning rate, by its old name."""
        return self.learning_rate

    def _rate_array(self) -> Any:
        """What stands for the learning rate beside a state: a number, or several."""
        return jnp.asarray(self.learning_rate, jnp.float32)

    def _take_rate(self, rate: Any) -> None:
        """Go on with the learning rate that was among weights; 0.1 stays 0.1, and does not become its float32."""
        if rate is not None and np.float32(rate) != np.float32(self.learning_rate):
            self._set_rate(float(rate))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in _RATES & config.keys():
            if is_schedule(config[name]):
                config[name] = schedules.serialize(config[name], use_legacy_format=self.legacy_format)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The optimizer of a config, which may hold that of a schedule; `custom_objects` are your own by name."""
        rates = {
            name: schedules.deserialize(config[name], custom_objects)
            for name in _RATES & config.keys()
            if isinstance(config[name], Mapping)
        }
        return super().from_config({**config, **rates}, custom_objects)

    def settings(self) -> dict[str, Any]:
        return {name: self._rate if name in _RATES else getattr(self, name) for name in self.fields()}

    @property
    def iterations(self) -> int:
        """Updates made. It can be assigned: schedules and bias corrections follow."""
        return 0 if self._state is None else int(self._state.iterations) // self.window

    @iterations.setter
    def iterations(self, value: Any) -> None:
        state = self._required_state("iterations = ...")
        value = kind_of(NonNegativeInt).convert(f"{type(self).__name__}: iterations", value)
        steps = jnp.asarray(min(value * self.window, 2**31 - 1), jnp.int32)
        self._keep(with_own_buffers(OptimizerState(steps, self._counted(state.inner_state, steps)), ()))

    def _counted(self, inner_state: Any, steps: Any) -> Any:
        return set_counters(inner_state, steps + self.first_count, self.window)

    @property
    def window(self) -> int:
        """How many steps make one update."""
        return 1

    @property
    def first_count(self) -> int:
        """The counters of the chain before the first step."""
        return 0

    # Building.

    def build(self, variables: Tree) -> None:
        """Create the state for these parameters: any tree of arrays, a list of them, or Keras variables.

        The first step does it by itself. Once built, it refuses others and does nothing.
        """
        given = Variables.of(variables)
        if not given.leaves:
            raise ValueError(f"{type(self).__name__}: there are no parameters in {variables!r}")
        if self._built is not None:
            self._recognised(given, variables)  # that is, refused, if these are others
            return
        params = dict(zip(unique(given.names), given.values, strict=True))
        check.inexact_leaves(f"{type(self).__name__}: params", params, "leave it out of the parameters")
        self._built = {name: jax.ShapeDtypeStruct(p.shape, p.dtype) for name, p in params.items()}
        self._assignable = given.leaves if given.are_assignable else None
        self._live = None
        self._start = params

    def _make_state(self) -> None:
        """The state before the first step; made when it is first needed, once whoever overrides `build` has done so."""
        params, self._start = self._start, None
        self._keep(OptimizerState(numerics.counter(), self._transformation_with_live_rate().init(params)))

    def _keep(self, state: OptimizerState) -> None:
        """Go on from this state."""
        self._state = state

    def _build_with(self, params: Tree) -> None:
        """Build at the first step."""
        self.build(params)

    @property
    def built(self) -> bool:
        """Whether it has a state."""
        return self._built is not None

    @property
    def state(self) -> OptimizerState | None:
        """A copy of its state; `None` before it is built."""
        return jax.tree.map(jnp.copy, self._required_state("state")) if self.built else None

    def _required_state(self, what: str) -> OptimizerState:
        if self._state is None and self._start is not None:
            self._make_state()
        if self._state is None:
            raise ValueError(f"{type(self).__name__}: {what} needs its state: call build(params) first")
        return self._state

    # Steps.

    def apply(self, grads: Tree, trainable_variables: Tree = None) -> Any:
        """Make one step: variables are assigned; of arrays, which cannot be, the new ones are returned.

        A gradient `None` leaves its variable and what is kept for it as they are, with a warning.

        Raises:
            ValueError: wrong number, structure or shapes of the gradients, or other parameters than before.
        """
        if trainable_variables is None:
            trainable_variables = self._required_variables()
        variables = Variables.of(trainable_variables)
        names = self._recognised(variables, trainable_variables)
        self._refuse_tracers(variables.values, grads)
        params = dict(zip(names, variables.values, strict=True))
        given = self._matched(grads, variables, params)
        new = self._advance(given, params, _constraints(names, variables.leaves))
        return handed_back(variables, [new[name] for name in names])

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        """`apply` for pairs of a gradient and its variable, as Keras has it; gives the list of the new ones."""
        pairs = list(grads_and_vars)
        if kwargs.keys() - {"name", "experimental_aggregate_gradients", "skip_gradients_aggregation"}:
            raise TypeError(f"{type(self).__name__}.apply_gradients: unexpected argument {min(kwargs)}")
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise TypeError(f"{type(self).__name__}.apply_gradients takes pairs (gradient, variable)")
        return self.apply([grad for grad, _ in pairs], [variable for _, variable in pairs])

    def minimize(self, loss: Callable[[Any], Any], params: Tree = None, constraints: Any = None) -> Any:
        """One step down the gradient of `loss(params)`: gradient and update in one compiled program.

        `loss` is a function of the parameters that gives a scalar. Calling this again with the same function compiles
        nothing; a new lambda every time does. Returns the new parameters; variables are assigned.
        `constraints` are functions by the names of variables, applied after the step.
        """
        params = self._required_variables() if params is None else params
        variables = Variables.of(params)
        _check_loss(type(self).__name__, "minimize(loss, params)", loss)
        names = self._recognised(variables, params)
        self._refuse_tracers(variables.values)
        values = dict(zip(names, variables.values, strict=True))
        tx, state = self._transformation_with_live_rate(), self._required_state("minimize")
        projections = (*_constraints(names, variables.leaves), *_checked_constraints(constraints, names))
        new, state = self._compiled(minimize)(
            tx, loss, self.loss_scale(), variables.treedef, tuple(names), state, values, projections, type(self)
        )
        self._keep(state)
        return handed_back(variables, [new[name] for name in names])

    def get_gradients(self, loss: Callable[[Any], Any], params: Tree) -> Tree:
        """The gradients of `loss(params)`, a function of the parameters, clipped as this optimizer clips them."""
        grads = self._gradients(loss, params)
        clipping = self.clipping()
        return grads if clipping is None else clipping.update(grads, clipping.init(grads))[0]

    def clipping(self) -> Transformation | None:
        """What is done to gradients first; nothing by default."""
        return None

    def _gradients(self, loss: Callable[[Any], Any], params: Tree) -> Tree:
        variables = Variables.of(params)
        _check_loss(type(self).__name__, "get_gradients(loss, params)", loss)
        return gradient(loss, variables.treedef.unflatten(variables.values))

    def _advance(self, grads: dict[str, Any], params: dict[str, Any], constraints: Any) -> dict[str, Any]:
        """Step the variables that have gradients."""
        missing = [name for name, grad in grads.items() if grad is None]
        active = {name: grad for name, grad in grads.items() if grad is not None}
        if not active:
            raise ValueError(
                f"{type(self).__name__}: no gradient for any of {', '.join(grads)}: does the loss depend on them?"
            )
        if missing:
            warnings.warn(
                f"{type(self).__name__}: no gradients for {', '.join(missing)}; they stay as they are", stacklevel=4
            )
        tx, state = self._transformation_with_live_rate(), self._required_state("apply")
        moving = {name: params[name] for name in active}
        constraints = tuple(pair for pair in constraints if pair[0] in active)
        every = tuple(self._built or ())
        new, state = self._compiled(step)(tx, every, state, active, moving, constraints, type(self))
        self._keep(state)
        return {**params, **new}

    def _compiled(self, program: Program) -> Program:
        """The program, shared by all optimizers."""
        return program

    @classmethod
    def advanced(cls, iterations: Array, old: Any, new: Any) -> Array:
        """The counter after an update of the chain's state from `old` to `new`."""
        return numerics.increment(iterations)

    @classmethod
    def scaled_loss(cls, inner_state: Any, loss: Any) -> Any:
        """The loss to differentiate, where the chain divides its gradients by a scale of its own."""
        return loss

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Tree, trainable_variables: Tree
    ) -> tuple[Tree, list[Array]]:
        """The step as a pure function, for your own `jax.jit`: `(new_trainable_variables, new_optimizer_variables)`.

        `optimizer_variables` are arrays as in `opt.variables`. The optimizer itself stays as it is.
        """
        self._required_state("stateless_apply")
        variables = Variables.of(trainable_variables)
        names = self._recognised(variables, trainable_variables)
        params = dict(zip(names, variables.values, strict=True))
        given = self._matched(grads, variables, params)
        state, rate = self._state_of(self._named(optimizer_variables))
        tx = self.compose(self._rate_in_use() if rate is None else rate)
        active = {name: grad for name, grad in given.items() if grad is not None}
        if not active:
            raise ValueError(f"{type(self).__name__}: no gradient for any of {', '.join(given)}")
        moving = {name: params[name] for name in active}
        new, state = step_once(tx, tuple(self._built or ()), state, active, moving, (), type(self))
        new = {**params, **new}
        rate = jnp.asarray(0.0 if rate is None else rate)
        return (
            variables.treedef.unflatten([new[name] for name in names]),
            [self._value_of(weight, state, rate) for weight in self.weight_list()],
        )

    # What was given.

    def _required_variables(self) -> Any:
        if self._assignable is None:
            raise ValueError(f"{type(self).__name__}: which parameters? Arrays must be given at every step")
        return self._assignable

    def _recognised(self, variables: Variables, params: Tree) -> list[str]:
        """The names under which the parameters are known; builds on first use."""
        if self._built is None:
            self._build_with(params)
        built = self._built or {}
        if variables.are_assignable and self._assignable is not None:
            known = {id(variable): name for variable, name in zip(self._assignable, built, strict=True)}
            names = [known.get(id(leaf)) for leaf in variables.leaves]
            if all(names) and len(set(names)) == len(names):
                return [str(name) for name in names]
            strangers = [n for n, known_as in zip(variables.names, names, strict=True) if known_as is None]
            raise ValueError(
                f"{type(self).__name__}: built for the variables {', '.join(built)}, got "
                f"{'unknown ' + ', '.join(strangers) if strangers else 'one of them twice'}: "
                "for other variables make another optimizer"
            )
        names = unique(variables.names)
        if names != list(built):
            raise ValueError(
                f"{type(self).__name__}: built for {len(built)} parameters, {', '.join(built)}; "
                f"got {len(names)}, {', '.join(names)}: for others make another optimizer"
            )
        for name, value in zip(names, variables.values, strict=True):
            if (value.shape, value.dtype) != (built[name].shape, built[name].dtype):
                raise ValueError(
                    f"{type(self).__name__}: {name} was {check.describe(built[name])} when the optimizer was built, "
                    f"is {check.describe(value)} now"
                )
        if variables.are_assignable:
            self._assignable = variables.leaves
        return names

    def _matched(self, grads: Tree, variables: Variables, params: dict[str, Any]) -> dict[str, Any]:
        """The gradient of each parameter, by name."""
        where = type(self).__name__
        leaves = variables.treedef
        try:
            each = leaves.flatten_up_to(list(grads) if isinstance(grads, tuple) and _is_list(leaves) else grads)
        except ValueError:
            raise ValueError(
                f"{where}: expected a gradient for each of {len(params)} parameters, {leaves}, "
                f"got {jax.tree.structure(grads)}"
            ) from None
        given = dict(zip(params, each, strict=True))
        for name, grad in given.items():
            if grad is not None and not hasattr(grad, "shape") and not isinstance(grad, float | int):
                raise TypeError(f"{where}: the gradient of {name} must be an array, got {check.describe(grad)}")
            if grad is not None and np.shape(grad) != params[name].shape:
                raise ValueError(
                    f"{where}: the gradient of {name} must have its shape {check.describe(params[name])}, "
                    f"got {check.describe(grad)}"
                )
        return {name: None if grad is None else array(grad) for name, grad in given.items()}

    def _refuse_tracers(self, *trees: Tree) -> None:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees)):
            raise TypeError(
                f"{type(self).__name__}: a step changes the optimizer, which a traced function may not: "
                "use stateless_apply inside jax.jit, or opt.transformation"
            )

    def loss_scale(self) -> float:
        """By what the chain divides the gradients, and the loss is to be multiplied."""
        return 1.0

    # Weights.

    def weight_list(self) -> list[Weight]:
        """Name and place of each weight, in the order of the generation; what it forgets to save comes last."""
        self._required_state("its weights")
        weights = [*self.header(), *self.slot_weights(), *self.footer()]
        return sorted(weights, key=lambda weight: weight.forgotten)

    def header(self) -> Iterator[Weight]:
        """The weights before those of the slots."""
        yield Weight("iterations", "iterations")

    def slot_weights(self) -> Iterator[Weight]:
        """Those of the slots: by group, in a group by variable."""
        inner_state = self._required_state("its weights").inner_state
        for group in self.slots:
            group = {
                name: field for name, field in group.items() if get(inner_state, field.lstrip("-"), None) is not None
            }
            for variable in self._built or ():
                for name, field in group.items():
                    factor = -1.0 if field.startswith("-") else 1.0
                    yield Weight(self.slot_name(name, variable), field.removeprefix("-"), variable, factor)

    def slot_name(self, slot: str, variable: str) -> str:
        """What the generation calls the slot of a variable."""
        return f"{variable}/{slot}"

    def footer(self) -> Iterator[Weight]:
        """The weights after those of the slots."""
        return iter(())

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Everything it remembers, as NumPy arrays in the order of the generation."""
        state, rate = self._required_state("get_weights"), self._rate_array()
        return [np.asarray(self._value_of(weight, state, rate), weight.dtype).copy() for weight in self.weight_list()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Continue from what `get_weights` gave, or a file of this generation holds.

        A counter that the generation never saved may be missing: it is recovered where it follows from the others,
        else a warning names it.

        Raises:
            ValueError: wrong number, shapes or dtypes; nothing is changed then.
        """
        self._required_state("set_weights")
        state, rate = self._state_of(self._named([np.array(w) for w in weights]))
        self._keep(with_own_buffers(state, ()))
        self._take_rate(rate)

    @property
    def variables(self) -> list[Array]:
        """The weights as arrays, as `stateless_apply` takes them."""
        state, rate = self._required_state("variables"), self._rate_array()
        return [jnp.array(self._value_of(weight, state, rate)) for weight in self.weight_list()]

    def _value_of(self, weight: Weight, state: OptimizerState, rate: Any) -> Any:
        if weight.field == "iterations":
            return state.iterations
        if weight.field == "learning_rate":
            return rate
        if weight.derived is not None:
            return weight.derived(state, weight.variable or "")
        value = get(state.inner_state, weight.field)
        if weight.variable == "*":
            value = next(iter(value.values()))
        elif weight.variable is not None:
            value = value[weight.variable]
        return value if weight.factor == 1 else value * jnp.asarray(weight.factor, value.dtype)

    def _named(self, weights: Sequence[Any]) -> dict[Weight, Any]:
        """The arrays by what they are, checked."""
        expected, weights = self.weight_list(), list(weights)
        saved = [weight for weight in expected if not weight.forgotten]
        if len(weights) not in (len(expected), len(saved)):
            raise ValueError(
                f"{type(self).__name__}: expected {len(saved)} weights "
                f"({', '.join(weight.name for weight in saved)}), got {len(weights)}"
            )
        named = dict(zip(expected, weights, strict=False))
        state, rate = self._required_state("its weights"), jnp.zeros((), jnp.float32)
        for weight, value in named.items():
            own = self._value_of(weight, state, rate)
            if np.shape(value) != own.shape:
                raise ValueError(
                    f"{type(self).__name__}: the weight {weight.name} has the shape {list(own.shape)}, "
                    f"got {list(np.shape(value))}"
                )
            if not jnp.issubdtype(value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype, np.number):
                raise ValueError(f"{type(self).__name__}: the weight {weight.name} must be numbers, got {value!r}")
        return named

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        """The state that has these weights, and the learning rate if it is among them."""
        old = self._required_state("its weights")
        missing = [weight for weight in self.weight_list() if weight.derived is None and weight not in named]
        found = {**named, **(self.recovered(missing, named) if missing else {})}
        lost = [weight.name for weight in missing if weight not in found]
        if lost:
            warnings.warn(
                f"{type(self).__name__}: {', '.join(lost)} was not saved and does not follow from what was; "
                "it stays as it is",
                stacklevel=3,
            )
        by_field: dict[str, dict[Any, Any]] = {}
        steps, rate = old.iterations, None
        for weight, value in found.items():
            if weight.field == "iterations":
                steps = jnp.array(value if isinstance(value, Array) else np.clip(value, 0, 2**31 - 1), jnp.int32)
            elif weight.field == "learning_rate":
                rate = jnp.asarray(value)
            elif weight.derived is None:
                value = jnp.asarray(value)
                value = value if weight.factor == 1 else value * jnp.asarray(weight.factor, value.dtype)
                for variable in self._built or () if weight.variable == "*" else (weight.variable,):
                    by_field.setdefault(weight.field, {})[variable] = value
        inner_state = old.inner_state
        for field, values in by_field.items():
            new = values[None] if None in values else {**get(inner_state, field), **values}
            inner_state = replace(inner_state, **{field: new})
        return OptimizerState(steps, self._counted(inner_state, steps)), rate

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        """Weights that were not saved, as far as they follow from those that were."""
        return {}

    def save_own_variables(self, store: Any) -> None:
        """Write the weights into a mapping, as Keras does into its files."""
        for i, weight in enumerate(self.get_weights()):
            store[str(i)] = weight

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Read the weights from a mapping that `save_own_variables` filled."""
        self.set_weights([np.asarray(store[str(i)]) for i in range(len(store.keys()))])

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write everything it remembers into an HDF5 file, in the layout of the generation: all of it, or nothing.

        Raises:
            FileExistsError: the file is there, and `overwrite` is false.
        """
        weights, names = tuple(self.get_weights()), tuple(weight.name for weight in self.weight_list())
        config = {} if str(filepath).endswith(".weights.h5") else self.get_config()  # which has no place for it
        saved = SavedOptimizer(self.generation, type(self).__name__, config, names, weights)
        write_optimizer(filepath, saved, overwrite=overwrite)

    def load_weights(self, filepath: str | os.PathLike[str], params: Tree = None) -> None:
        """Continue from a file that Keras or `save_weights` wrote: `.h5`, `.weights.h5` or `.keras`.

        `params` are the parameters that the optimizer is for, if it has not seen them yet.

        Raises:
            ValueError: the file is damaged, or another optimizer's; nothing is changed then.
        """
        saved = read_optimizer(filepath)
        if saved.class_name not in ("", type(self).__name__):
            raise ValueError(
                f"{filepath}: holds the weights of {saved.class_name}, this is {type(self).__name__}: "
                "gradtx.keras.load_optimizer makes the optimizer that belongs to a file"
            )
        if params is not None and not self.built:
            self._build_with(params)
        self.set_weights(saved.weights)

    # Pickle.

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_live": None, "_assignable": None}


_RATE = kind_of(Rate)
_RATES = {"lr", "learning_rate"}


def takes_nothing(rate: Any) -> bool:
    """Whether it is a function without arguments, which Keras takes for a learning rate."""
    code = getattr(rate, "__code__", None)
    return code is not None and code.co_argcount == 0 and not code.co_flags & 4


def _is_property(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), property)


def _is_list(treedef: Any) -> bool:
    return isinstance(treedef.unflatten([0] * treedef.num_leaves), list)


def _constraints(names: Sequence[str], leaves: Sequence[Any]) -> tuple[tuple[str, Callable[..., Any]], ...]:
    """What a variable wants to be projected onto after each step."""
    held = [(name, getattr(leaf, "constraint", None)) for name, leaf in zip(names, leaves, strict=True)]
    return tuple((name, constraint) for name, constraint in held if constraint is not None)


def _checked_constraints(constraints: Any, names: Sequence[str]) -> tuple[tuple[str, Callable[..., Any]], ...]:
    constraints = dict(constraints or {})
    if unknown := [name for name in constraints if name not in names]:
        raise ValueError(f"constraints: no variable {unknown[0]!r}; there are {', '.join(names)}")
    return tuple(constraints.items())


def _check_loss(name: str, call: str, loss: Any) -> None:
    if not callable(loss):
        raise TypeError(
            f"{name}.{call}: the loss must be a function of the parameters that gives a scalar, "
            f"got {check.describe(loss)}; JAX has no graph in which to look for gradients of a value"
        )
