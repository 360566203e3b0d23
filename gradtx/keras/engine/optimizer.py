"""The stateful optimizer behind every class of every Keras generation: settings, a chain, and what users call.

A class is a table of arguments (`table.py`) and one method, `chain(learning_rate)`, which gives the gradtx chain of its
update; `compose` puts clipping, decay and the rest around it. What runs is that chain: `opt.transformation` shows it.
What differs between generations is data (`dialect.py`).

The other jobs have files of their own. `keeper.py`: for which parameters it is, and its state. `step.py`: a step,
whose compiled program is in `program.py`; what it is given is recognised in `parameters.py`. `rate.py`: the learning
rate. `weights.py`: what Keras calls weights, read from the state and written into it.
"""

import copy
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.compose import chain
from gradtx.core.hyperparams import NonNegativeInt, is_schedule, kind_of
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras import schedules
from gradtx.keras.engine import step
from gradtx.keras.engine.keeper import Keeper, build, required_state, with_updates
from gradtx.keras.engine.parameters import Parameters
from gradtx.keras.engine.program import Rules
from gradtx.keras.engine.rate import GivenRate
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.table import Table, private
from gradtx.keras.engine.variable import Variable, Variables
from gradtx.keras.engine.weights import Weight, listed, of_slots, read, take_weights, values
from gradtx.keras.files import weights as weight_files
from gradtx.keras.transforms import (
    clipped,
    counting_from,
    keras_ema,
    schedule_of_microsteps,
    set_counters,
    stages,
    with_decay,
)
from gradtx.transforms.scaling import scale
from gradtx.wrappers.accumulate import accumulate

__all__ = ["Facade"]


class Facade(Table, abstract=True):
    """Base of all optimizer classes. See `gradtx.keras.Optimizer`, that of Keras 3, for how to use and derive one."""

    for_users = (
        *Table.for_users,
        *("apply", "apply_gradients", "build", "finalize_variable_values", "get_gradients", "get_updates", "minimize"),
        *("exclude_from_weight_decay", "iterations", "learning_rate", "lr", "scale_loss", "state", "stateless_apply"),
        *("get_weights", "load_weights", "save_weights", "set_weights", "transformation", "updates", "variables"),
        *("add_variable", "add_variable_from_reference", "assign", "assign_add", "assign_sub", "update_step"),
        "optimizers",
    )
    slots: ClassVar[tuple[Mapping[str, str], ...]] = ()
    """Groups of `{Keras's name: field of the chain's state}`; the weights of a group alternate, variable by variable.

    Those that are not in the state, such as the third of Adam without `amsgrad`, are left out. `-` turns
    the sign round.
    """
    first_weights: ClassVar[tuple[Weight, ...]] = ()
    "The weights before those of the slots, besides the counter and the learning rate. Names are templates."
    last_weights: ClassVar[tuple[Weight, ...]] = ()
    "The weights behind those of the slots, as far as they are in the state. Names are templates."
    fixed: ClassVar[frozenset[str]] = frozenset()
    "Settings that shape the state, and cannot be changed once it is there."
    forgets_count: ClassVar[bool] = False
    "Whether its generation does not save the counter of this class."
    rules: ClassVar[Rules] = Rules()
    "How its steps are counted, and the loss is scaled."
    has_own_programs: ClassVar[bool] = False
    "Whether its programs are its own, and leave the state they are given intact."
    lenses: ClassVar[Any] = ()
    "Where the states of the optimizers that it holds are in its own."

    _rate: Any = private(None)
    _added: tuple[Variable, ...] = private(())
    keeper = functools.cached_property(lambda self: Keeper())  # not by __init__, which people override

    # What it computes.

    def chain(self, learning_rate: Any) -> Transformation:
        """The gradtx chain of the update itself; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither chain nor update_step")

    def compose(self, learning_rate: Any) -> Transformation:
        """The whole chain: unscaling, accumulation, clipping, weight decay, the update, the running mean.

        What its generation does not have is left out.
        """
        rate, window, own = learning_rate, self.window, vars(self)
        if self.dialect.has_decay:
            rate = with_decay(rate, own.get("decay"))
        if window > 1 and is_schedule(rate):
            rate = schedule_of_microsteps(rate, window)
        tx = clipped(self.decaying(self.chain(rate), rate), self.clipping())
        if window > 1:  # the state holds sums, as Keras's does
            tx = accumulate(chain(scale(1 / window), *stages(tx)), window, use_grad_mean=False)
        if (factor := self.loss_scale()) != 1:
            tx = chain(scale(1 / factor), *stages(tx))
        if own.get("use_ema"):
            momentum, frequency = own["ema_momentum"], own["ema_overwrite_frequency"]
            tx = keras_ema(tx, momentum, frequency, window, self.dialect.ema_start)
        return counting_from(tx, self.first_count) if self.first_count else tx

    def composed_to_run(self, learning_rate: Any) -> Transformation:
        """The same, as an argument of programs."""
        return self.compose(learning_rate)

    def decaying(self, tx: Transformation, learning_rate: Any) -> Transformation:
        """The update `tx`, behind weight decay, if the generation has it."""
        return tx

    def clipping(self) -> Transformation | None:
        """What is done to gradients first."""
        wanted = [(vars(self).get(name), kind) for name, kind in self.dialect.clips]
        found = [kind(limit) for limit, kind in wanted if limit]
        return chain(*found) if found else None

    def loss_scale(self) -> float:
        """By what the chain divides the gradients, and the loss is to be multiplied."""
        return vars(self).get("loss_scale_factor") or 1.0

    @property
    def window(self) -> int:
        """How many steps make one update."""
        return vars(self).get("gradient_accumulation_steps") or 1

    @property
    def first_count(self) -> int:
        """The counters of the chain before the first step."""
        return int(vars(self).get("counter_first") or 0)

    @property
    def transformation(self) -> Transformation:
        """The chain that this optimizer is, with its present settings; to be used for itself, or printed."""
        return self.compose(self.given_rate.in_use())

    @property
    def parts(self) -> Sequence["Facade"]:
        """The optimizers that it holds."""
        return ()

    # Its settings.

    def __setattr__(self, name: str, value: Any) -> None:
        cls, fields = type(self), self.fields()
        is_ours = cls.__module__.startswith("gradtx.")  # someone's own class may have attributes of any name
        if name in fields and name not in _RATES:
            self._set_field(name, value)
        elif is_ours and not (name.startswith("_") or isinstance(getattr(cls, name, None), property)):
            raise AttributeError(f"{cls.__name__} has no {name}; it has {', '.join(fields)}")
        else:
            object.__setattr__(self, name, value)

    def _set_field(self, name: str, value: Any) -> None:
        """Set a checked argument; if it does not go with the others, nothing is changed."""
        if self.built and name in self.fixed and value != vars(self)[name]:
            raise ValueError(f"{type(self).__name__}: {name} shapes the state: set it before the optimizer is built")
        before = vars(self).get(name)
        super().__setattr__(name, value)
        self.keeper.made_of = None
        try:
            if self._made:
                self.check_settings()
        except Exception:
            object.__setattr__(self, name, before)
            raise

    @property
    def given_rate(self) -> Any:
        """What was given for the learning rate."""
        if self._rate is None:
            raise RuntimeError(f"{type(self).__name__}: call super().__init__(learning_rate=...) first")
        return self._rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate: what was given, or of a schedule its value at the present step. It can be assigned."""
        state = self.keeper.state
        return self.given_rate.after(0 if state is None else int(state.iterations))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self._rate is None:
            self._rate = GivenRate(type(self).__name__, value)
        else:
            self._rate.set(value)

    @property
    def lr(self) -> Any:
        """The learning rate, by its old name."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self.learning_rate = value

    def settings(self) -> dict[str, Any]:
        return {name: self._rate.value if name in _RATES else getattr(self, name) for name in self.fields()}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in _RATES & config.keys():
            if is_schedule(config[name]):
                config[name] = schedules.serialize(config[name], use_legacy_format=self.dialect.legacy_format)
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

    # Its state.

    def build(self, variables: Tree) -> None:
        """Create the state for these parameters: any tree of arrays, a list of them, or Keras variables.

        The first step does it by itself. Once built, it refuses others and does nothing.
        """
        build(self, variables)

    def build_for(self, given: Variables) -> None:
        """Remember parameters that are in order; all of it, or nothing."""
        known = Parameters(type(self).__name__, given)
        self.keeper.begin(known, dict(zip(known.names, given.values, strict=True)))

    @property
    def built(self) -> bool:
        """Whether it has a state."""
        return self.keeper.known is not None

    @property
    def state(self) -> OptimizerState | None:
        """A copy of its state; `None` before it is built."""
        return jax.tree.map(jnp.copy, required_state(self, "state")) if self.built else None

    @property
    def iterations(self) -> int:
        """Updates made. It can be assigned: schedules and bias corrections follow."""
        state = self.keeper.state
        return 0 if state is None else int(state.iterations) // self.window

    @iterations.setter
    def iterations(self, value: Any) -> None:
        state = required_state(self, "iterations = ...")
        updates = kind_of(NonNegativeInt).convert(f"{type(self).__name__}: iterations", value)
        self.keeper.keep(with_updates(self, updates, state))

    def counted(self, inner_state: Any, steps: Any) -> Any:
        """The state of the chain, but that so many steps have been made."""
        return set_counters(inner_state, steps + self.first_count, self.window)

    # Steps.

    def apply(self, grads: Tree, trainable_variables: Tree = None) -> Any:
        """Make one step: variables are assigned; of arrays, which cannot be, the new ones are returned.

        A gradient `None` leaves its variable and what is kept for it as they are, with a warning.

        Raises:
            ValueError: wrong number, structure or shapes of the gradients, or other parameters than before.
        """
        return step.apply(self, grads, trainable_variables)

    def apply_gradients(self, grads_and_vars: Any, **kwargs: Any) -> Any:
        """`apply` for pairs of a gradient and its variable, as Keras has it; gives the list of the new ones."""
        pairs = list(grads_and_vars)
        if kwargs.keys() - {"name", "experimental_aggregate_gradients", "skip_gradients_aggregation"}:
            raise TypeError(f"{type(self).__name__}.apply_gradients: unexpected argument {min(kwargs)}")
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise TypeError(f"{type(self).__name__}.apply_gradients takes pairs (gradient, variable)")
        return self.apply([grad for grad, _ in pairs], [variable for _, variable in pairs])

    def minimize(self, loss: Callable[..., Any], params: Tree = None, *batch: Any, constraints: Any = None) -> Any:
        """One step down the gradient of `loss(params, *batch)`: gradient and update in one compiled program.

        `loss` is a function of the parameters, and of what else is given here, that gives a scalar. Calling this again
        with the same function compiles nothing; with a new lambda every time it does, so give it the batch rather than
        close over it. Returns the new parameters; variables are assigned. `constraints` are functions by the names of
        variables, applied after the step.
        """
        return step.minimize(self, loss, params, batch, constraints)

    def get_gradients(self, loss: Callable[..., Any], params: Tree, *batch: Any) -> Tree:
        """The gradients of `loss(params, *batch)`, a function, clipped as this optimizer clips them."""
        grads, clipping = step.gradients(self, loss, params, *batch), self.clipping()
        return grads if clipping is None else clipping.update(grads, clipping.init(grads))[0]

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Tree, trainable_variables: Tree
    ) -> tuple[Tree, list[Array]]:
        """The step as a pure function, for your own `jax.jit`: `(new_trainable_variables, new_optimizer_variables)`.

        `optimizer_variables` are arrays as in `opt.variables`. The optimizer itself stays as it is.
        """
        return step.stateless_apply(self, optimizer_variables, grads, trainable_variables)

    # Weights.

    def weight_list(self) -> list[Weight]:
        """Name and place of each weight, in the order of the generation; what it forgets to save comes last."""
        required_state(self, "its weights")
        return listed(self)

    def slot_weights(self) -> Iterator[Weight]:
        """Those of the slots: by group, in a group by variable."""
        return of_slots(self, self.slots)

    def slot_name(self, slot: str, variable: str) -> str:
        """What the generation calls the slot of a variable."""
        return self.dialect.slot_of(self, slot, variable)

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        """Weights that were not saved, as far as they follow from those that were."""
        return {}

    @property
    def added_variables(self) -> tuple[Variable, ...]:
        """The variables that were added to it, and are saved with its state."""
        return self._added

    @property
    def variables(self) -> list[Array]:
        """The weights as arrays, as `stateless_apply` takes them; before it is built, the counter and the rate."""
        if self.built:
            return [jnp.array(value) for value in values(self)]
        beside = self.given_rate.beside()
        return [jnp.array(value) for value in read(listed(self), _BEFORE, beside)]

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Everything it remembers, as NumPy arrays in the order of the generation."""
        required_state(self, "get_weights")
        every = zip(self.weight_list(), values(self), strict=True)
        return [np.asarray(value, weight.dtype).copy() for weight, value in every]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Continue from what `get_weights` gave, or a file of this generation holds.

        A counter that the generation never saved may be missing: it is recovered where it follows from the others,
        else a warning names it.

        Raises:
            ValueError: wrong number, shapes or dtypes; nothing is changed then.
        """
        required_state(self, "set_weights")
        take_weights(self, [np.array(weight) for weight in weights])

    # Files and copies.

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
        weight_files.save(self, filepath, overwrite)

    def load_weights(self, filepath: str | os.PathLike[str], params: Tree = None) -> None:
        """Continue from a file that Keras or `save_weights` wrote: `.h5`, `.weights.h5` or `.keras`.

        `params` are the parameters that the optimizer is for, if it has not seen them yet.

        Raises:
            ValueError: the file is damaged, or another optimizer's; nothing is changed then.
        """
        weight_files.load(self, filepath, params)

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # a state cannot be shared: each step uses up the one before


_RATES = {"lr", "learning_rate"}
_BEFORE = OptimizerState(np.zeros((), np.int32), ())  # type: ignore[arg-type]
"What stands for the state of an optimizer that is not built."
