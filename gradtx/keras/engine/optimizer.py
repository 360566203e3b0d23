"""The stateful optimizer behind every class of every Keras generation: a chain, and the state that its steps exchange.

A class is a table of arguments (`table.py`) and one method, `chain(learning_rate)`, which gives the gradtx chain of its
update; `compose` puts clipping, decay and the rest around it. What runs is that chain: `opt.transformation` shows it.
What differs between generations is data (`dialect.py`). What a step is given is recognised in `parameters.py`, run in
`step.py`; the state lives in a `Home` (`home.py`), the learning rate is an object (`rate.py`), and what Keras calls
weights is read from the state and written into it in `weights.py`.
"""

import copy
import itertools
import operator
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core import check, numerics
from gradtx.core.compose import chain
from gradtx.core.hyperparams import NonNegativeInt, is_schedule, kind_of
from gradtx.core.run import with_own_buffers
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras import schedules
from gradtx.keras.engine import weights
from gradtx.keras.engine.home import Home, OptimizerState, Room
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.parameters import Parameters, present, projections, refuse_swapped, refuse_tracers
from gradtx.keras.engine.rate import GivenRate, takes_nothing
from gradtx.keras.engine.step import Program, gradient_program, minimize_program, same_program, step, step_once
from gradtx.keras.engine.table import Table, private
from gradtx.keras.engine.variable import Variable, Variables, is_variable
from gradtx.keras.engine.weights import Weight
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
from gradtx.states.fields import get
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
    )
    slots: ClassVar[tuple[Mapping[str, str], ...]] = ()
    """Groups of `{Keras's name: field of the chain's state}`; the weights of a group alternate, variable by variable.

    Those that are not in the state, such as the third of Adam without `amsgrad`, are left out. `-` turns
    the sign round.
    """
    fixed: ClassVar[frozenset[str]] = frozenset()
    "Settings that shape the state, and cannot be changed once it is there."
    forgets_count: ClassVar[bool] = False
    "Whether its generation does not save the counter of this class."

    _rate: Any = private(None)  # the learning rate, `GivenRate` or the like
    _known: Parameters | None = private(None)  # what it was built for
    _home: Home | Room | None = private(None)  # where its state is
    _live: tuple[Any, Any] | None = private(None)  # the rate in use, and the chain with it as an array
    _form: Any = private(None)  # the chain that the state belongs to

    # What it computes.

    def chain(self, learning_rate: Any) -> Transformation:
        """The gradtx chain of the update itself; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither chain nor update_step")

    def compose(self, learning_rate: Any) -> Transformation:
        """The whole chain: unscaling, accumulation, clipping, weight decay, the update, the running mean.

        What its generation does not have is left out.
        """
        rate, window = learning_rate, self.window
        if self.dialect.has_decay:
            rate = with_decay(rate, getattr(self, "decay", 0.0))
        if window > 1 and is_schedule(rate):
            rate = schedule_of_microsteps(rate, window)
        tx = clipped(self.decaying(self.chain(rate), rate), self.clipping())
        if window > 1:  # the state holds sums, as Keras's does
            tx = accumulate(chain(scale(1 / window), *stages(tx)), window, use_grad_mean=False)
        if (factor := self.loss_scale()) != 1:
            tx = chain(scale(1 / factor), *stages(tx))
        if self._setting("use_ema"):
            momentum, frequency = self._setting("ema_momentum"), self._setting("ema_overwrite_frequency")
            tx = keras_ema(tx, momentum, frequency, window, self.dialect.ema_start)
        return counting_from(tx, self.first_count) if self.first_count else tx

    def decaying(self, tx: Transformation, learning_rate: Any) -> Transformation:
        """The update `tx`, behind weight decay, if the generation has it."""
        return tx

    def clipping(self) -> Transformation | None:
        """What is done to gradients first."""
        wanted = [(self._setting(name), kind) for name, kind in self.dialect.clips]
        found = [kind(limit) for limit, kind in wanted if limit]
        return chain(*found) if found else None

    def loss_scale(self) -> float:
        """By what the chain divides the gradients, and the loss is to be multiplied."""
        return self._setting("loss_scale_factor") or 1.0

    @property
    def window(self) -> int:
        """How many steps make one update."""
        return self._setting("gradient_accumulation_steps") or 1

    @property
    def first_count(self) -> int:
        """The counters of the chain before the first step."""
        return int(self._setting("counter_first") or 0)

    def _setting(self, name: str) -> Any:
        """The value of an argument; `None` if the generation does not have it."""
        return vars(self).get(name)

    @property
    def transformation(self) -> Transformation:
        """The chain that this optimizer is, with its present settings; to be used for itself, or printed."""
        return self.compose(self._required_rate().in_use())

    def _required_rate(self) -> Any:
        if self._rate is None:
            raise RuntimeError(f"{type(self).__name__}: call super().__init__(learning_rate=...) first")
        return self._rate

    def _running(self) -> Transformation:
        """The chain with the rate for an array, so that no other rate needs another program; made once for each."""
        rate, live = self._required_rate().in_use(), self._live
        if live is None or live[0] is not rate:
            is_number = rate is not None and not is_schedule(rate)
            tx = self._composed_to_run(jnp.asarray(rate, jnp.result_type(float)) if is_number else rate)
            self._form_state_for(tx)
            self._live = live = rate, tx
        return live[1]

    def _composed_to_run(self, learning_rate: Any) -> Transformation:
        return self.compose(learning_rate)

    def _form_state_for(self, tx: Transformation) -> None:
        """Give the state the form that this chain wants, after a change of settings; what both remember is kept."""
        if self._state is not None and not same_program(tx, self._form):
            uninterrupted(lambda: self._reform(tx))
        self._form = tx

    def _reform(self, tx: Transformation) -> None:
        old: Any = self._state
        with jax.ensure_compile_time_eval():
            start = tx.init({name: jnp.zeros(like.shape, like.dtype) for name, like in self._shapes.items()})
            if jax.tree.structure(start) == jax.tree.structure(old.inner_state):
                return
            self._keep(OptimizerState(old.iterations, start))
            both = [w for w in self.weight_list() if w.is_kept and get(old.inner_state, w.field, None) is not None]
            kept = dict(zip(both, self._read(both, old, None), strict=True))
            kept[Weight("iterations", "iterations")] = old.iterations
            self._keep(self._with(kept, self._required_state("its weights"))[0])

    # Its settings.

    def __setattr__(self, name: str, value: Any) -> None:
        is_ours = type(self).__module__.startswith("gradtx.")  # someone's own class may have attributes of any name
        if name in _RATES:
            self._set_rate(value)
        elif name in self.fields():
            self._set_field(name, value)
        elif is_ours and not (name.startswith("_") or isinstance(getattr(type(self), name, None), property)):
            raise AttributeError(f"{type(self).__name__} has no {name}; it has {', '.join(self.fields())}")
        else:
            super().__setattr__(name, value)

    def _set_field(self, name: str, value: Any) -> None:
        """Set a checked argument; if it does not go with the others, nothing is changed."""
        if self.built and name in self.fixed and value != vars(self)[name]:
            raise ValueError(f"{type(self).__name__}: {name} shapes the state: set it before the optimizer is built")
        before = self._setting(name)
        super().__setattr__(name, value)
        self._live = None
        if not self._made:
            return
        self._made = False  # a check may set what it completes
        try:
            self.check_settings()
        except Exception:
            object.__setattr__(self, name, before)
            raise
        finally:
            self._made = True

    def _set_rate(self, value: Any) -> None:
        if self._rate is None:
            self._rate = GivenRate(type(self).__name__, value)
        else:
            self._rate.set(value)

    @property
    def learning_rate(self) -> Any:
        """The learning rate: what was given, or of a schedule its value at the present step. It can be assigned."""
        return self._required_rate().after(self._steps)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._set_rate(value)

    @property
    def lr(self) -> Any:
        """The learning rate, by its old name."""
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        self._set_rate(value)

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

    def settings(self) -> dict[str, Any]:
        return {name: self._rate.value if name in _RATES else getattr(self, name) for name in self.fields()}

    # Its state.

    def build(self, variables: Tree) -> None:
        """Create the state for these parameters: any tree of arrays, a list of them, or Keras variables.

        The first step does it by itself. Once built, it refuses others and does nothing.
        """
        given, where = Variables.of(variables), type(self).__name__
        if not given.leaves:
            raise ValueError(f"{where}: there are no parameters in {variables!r}")
        refuse_tracers(where, given.values)
        if own := [n for n, v in zip(given.names, given.leaves, strict=True) if getattr(v, _OVERWRITES, False)]:
            raise ValueError(
                f"{where}: {own[0]} is overwritten with its gradient, as Keras does with its scales for "
                "float8: keep it out of the parameters, or train in Keras itself (gradtx.keras.as_keras)"
            )
        if self._known is not None:
            self._known.recognised(variables)  # that is, refused, if these are others
        else:
            uninterrupted(lambda: self._build_for(given))

    def _build_for(self, given: Variables) -> None:
        """Remember the parameters, for which the state is made when it is needed."""
        known = Parameters(type(self).__name__, given)
        home = Home(dict(zip(known.names, given.values, strict=True)))
        self._known, self._home, self._live = known, home, None

    def build_as_part(self, variables: list[Variable], stand_for: list[Any] | None) -> None:
        """Build for some of the variables of an optimizer that holds this one, be it none; a state that is there stays.

        `variables` stand for those of the user, or for arrays.
        """
        if not self.built and variables:
            self.build(variables)
        elif not self.built:
            self._build_for(Variables.of([]))
        known: Any = self._known
        known.variables = stand_for

    @property
    def built(self) -> bool:
        """Whether it has a state."""
        return self._known is not None

    @property
    def _shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The variables it was built for, by name."""
        return {} if self._known is None else self._known.shapes

    @property
    def _state(self) -> OptimizerState | None:
        """Its state, once it has been needed."""
        return None if self._home is None else self._home.state

    def _required_state(self, what: str) -> OptimizerState:
        """Its state, which is made by the first who needs it, once whoever overrides `build` has done so."""
        home = self._home
        if home is None or (home.state is None and home.start is None):
            raise ValueError(f"{type(self).__name__}: {what} needs its state: call build(params) first")
        if home.state is None:
            uninterrupted(self._make_state)
        return home.state  # pyright: ignore[reportReturnType]

    def _make_state(self) -> None:
        home: Any = self._home
        with jax.ensure_compile_time_eval():  # it may be needed first inside of jax.jit
            state = OptimizerState(numerics.counter(), self._running().init(home.start))
        home.state, home.start = state, None

    def _keep(self, state: OptimizerState) -> None:
        """Go on from this state, whose arrays may be someone else's, too."""
        home: Any = self._home
        home.state = with_own_buffers(state, ())

    def move_into(self, room: Room) -> None:
        """Live in another optimizer's home from now on, where its state is already."""
        self._home = room

    @property
    def state(self) -> OptimizerState | None:
        """A copy of its state; `None` before it is built."""
        return jax.tree.map(jnp.copy, self._required_state("state")) if self.built else None

    @property
    def _steps(self) -> int:
        return 0 if (state := self._state) is None else int(state.iterations)

    @property
    def iterations(self) -> int:
        """Updates made. It can be assigned: schedules and bias corrections follow."""
        return self._steps // self.window

    @iterations.setter
    def iterations(self, value: Any) -> None:
        state = self._required_state("iterations = ...")
        value = kind_of(NonNegativeInt).convert(f"{type(self).__name__}: iterations", value)
        self._keep(self._after(value, state))

    def _after(self, updates: int, state: OptimizerState) -> OptimizerState:
        """The state, but that so many updates have been made."""
        steps = jnp.asarray(min(updates * self.window, 2**31 - 1), jnp.int32)
        return OptimizerState(steps, self._counted(state.inner_state, steps))

    def _counted(self, inner_state: Any, steps: Any) -> Any:
        """The state of the chain, but that so many steps have been made."""
        return set_counters(inner_state, steps + self.first_count, self.window)

    # Steps.

    def apply(self, grads: Tree, trainable_variables: Tree = None) -> Any:
        """Make one step: variables are assigned; of arrays, which cannot be, the new ones are returned.

        A gradient `None` leaves its variable and what is kept for it as they are, with a warning.

        Raises:
            ValueError: wrong number, structure or shapes of the gradients, or other parameters than before.
        """
        where = type(self).__name__
        params = self._required_variables() if trainable_variables is None else trainable_variables
        grads = list(grads) if hasattr(grads, "__next__") else grads
        if self._known is None:  # before it is built for gradients
            given = Variables.of(params)
            refuse_swapped(where, jax.tree.leaves(grads, is_leaf=is_variable), given, None)
        known, given = self._recognised(params)
        found = known.gradients(grads, given)
        refuse_tracers(where, given.values, found.values())
        if any(map(operator.is_, found.values(), itertools.repeat(None))):
            found = present(where, found)
            missing = ", ".join(name for name in given.names if name not in found)
            warnings.warn(f"{where}: no gradients for {missing}; they stay as they are", stacklevel=2)
        tx, state = self._running(), self._required_state("apply")
        values = {**known.others(given.names), **dict(zip(given.names, given.values, strict=True))}
        held = projections(given.names, given.leaves) if given.are_assignable else ()
        constraints = tuple(pair for pair in held if pair[0] in found) if held else ()
        args = tx, state, found, values, constraints, type(self)
        return _exchanged(self._home, self._compiled(step), args, given)

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
        params = self._required_variables() if params is None else params
        _check_loss(type(self).__name__, "minimize(loss, params, *batch)", loss)
        _, given = self._recognised(params)
        refuse_tracers(type(self).__name__, given.values)
        tx, state = self._running(), self._required_state("minimize")
        values = dict(zip(given.names, given.values, strict=True))
        held = projections(given.names, given.leaves) if given.are_assignable else ()
        constraints = (*held, *_checked_constraints(constraints, given.names)) if constraints else held
        names, rules = tuple(given.names), type(self)
        args = tx, self.loss_scale(), given.treedef, names, state, values, batch, constraints, rules
        return _exchanged(self._home, self._compiled(minimize_program(loss)), args, given)

    def get_gradients(self, loss: Callable[..., Any], params: Tree, *batch: Any) -> Tree:
        """The gradients of `loss(params, *batch)`, a function, clipped as this optimizer clips them."""
        grads = gradients(type(self).__name__, loss, params, *batch)
        clipping = self.clipping()
        return grads if clipping is None else clipping.update(grads, clipping.init(grads))[0]

    def _recognised(self, params: Tree) -> tuple[Parameters, Variables]:
        """What it was built for, and what is given, under its names; builds on first use."""
        if self._known is None:
            self.build(params)
        known: Any = self._known
        return known, known.recognised(params)

    def _required_variables(self) -> Any:
        if self._known is None or self._known.variables is None:
            raise ValueError(f"{type(self).__name__}: which parameters? Arrays must be given at every step")
        return self._known.variables

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
        known, given = self._recognised(trainable_variables)
        found = present(type(self).__name__, known.gradients(grads, given))
        self._running()  # that the state have the form of the present settings
        named = self._matched(optimizer_variables)
        state, rate = self._state_of(named)
        tx = self.compose(self._required_rate().in_use() if rate is None else rate)
        constraints = projections(known.names, known.variables or given.leaves)
        params = dict(zip(given.names, given.values, strict=True))
        new, state = step_once(tx, state, found, params, constraints, type(self))
        after = self._read(self.weight_list(), state, rate)
        own = [named[w] if _is_added(w) else value for w, value in zip(self.weight_list(), after, strict=True)]
        return given.treedef.unflatten([new[name] for name in given.names]), own

    # Weights.

    def weight_list(self) -> list[Weight]:
        """Name and place of each weight, in the order of the generation; what it forgets to save comes last."""
        self._required_state("its weights")
        added = [Weight(variable.name, "", added=variable) for variable in self.added_variables]
        every = [*self.header(), *self.slot_weights(), *self.footer(), *added]
        return sorted(every, key=lambda weight: weight.forgotten)

    def called(self, template: str, **parts: str) -> str:
        """A name of the generation, from one of its templates."""
        return template.format(cls=type(self).__name__, name=self._setting("name"), **parts)

    def header(self) -> Iterator[Weight]:
        """The weights before those of the slots: counter, rate, running means, sums of gradients."""
        dialect = self.dialect
        name = self.called(dialect.counter)
        yield Weight(name, "iterations", dtype=dialect.count_dtype, forgotten=self.forgets_count)
        if dialect.rate is not None and not is_schedule(self._rate.value):
            yield Weight(self.called(dialect.rate), "learning_rate")
        for variable in self._shapes if self._setting("use_ema") else ():
            yield Weight(self.slot_name("average", variable), "average", variable)
        for variable in self._shapes if self.window > 1 else ():
            yield Weight(self.slot_name("gradient_accumulator", variable), "acc_grads", variable)

    def slot_weights(self) -> Iterator[Weight]:
        """Those of the slots: by group, in a group by variable."""
        inner_state = self._required_state("its weights").inner_state
        for group in self.slots:
            there = {slot: f for slot, f in group.items() if get(inner_state, f.lstrip("-"), None) is not None}
            for variable in self._shapes:
                for slot, field in there.items():
                    factor = -1.0 if field.startswith("-") else 1.0
                    yield Weight(self.slot_name(slot, variable), field.removeprefix("-"), variable, factor)

    def slot_name(self, slot: str, variable: str) -> str:
        """What the generation calls the slot of a variable."""
        return self.called(self.dialect.slot, slot=slot, variable=variable, flat=variable.replace("/", "_"))

    def footer(self) -> Iterator[Weight]:
        """The weights after those of the slots."""
        return iter(())

    @property
    def added_variables(self) -> tuple[Variable, ...]:
        """The variables that were added to it, and are saved with its state."""
        return ()

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Everything it remembers, as NumPy arrays in the order of the generation."""
        self._required_state("get_weights")
        every = self.weight_list()
        return [np.asarray(value, w.dtype).copy() for w, value in zip(every, self._values(every), strict=True)]

    @property
    def variables(self) -> list[Array]:
        """The weights as arrays, as `stateless_apply` takes them; before it is built, the counter and the rate."""
        if self.built:
            return [jnp.array(value) for value in self._values(self.weight_list())]
        first = [weight for weight in self.header() if not weight.is_kept]
        return [jnp.array(value) for value in self._read(first, _BEFORE, self._rate.beside())]

    def _values(self, wanted: Sequence[Weight]) -> list[Any]:
        state = self._required_state("its weights")
        return self._read(wanted, state, self._rate.beside())

    def _read(self, wanted: Sequence[Weight], state: OptimizerState, rate: Any) -> list[Any]:
        """The values of these weights."""
        return [weights.read(weight, state, rate) for weight in wanted]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Continue from what `get_weights` gave, or a file of this generation holds.

        A counter that the generation never saved may be missing: it is recovered where it follows from the others,
        else a warning names it.

        Raises:
            ValueError: wrong number, shapes or dtypes; nothing is changed then.
        """
        self._required_state("set_weights")
        named = self._matched([np.array(w) for w in weights])
        state, rate = self._state_of(named)
        self._rate.check(rate)
        self._keep(state)
        self._rate.take(rate)
        for weight, value in named.items():
            while weight.part is not None:
                weight = weight.part[1]
            if weight.added is not None:
                weight.added.assign(value)

    def _matched(self, given: Sequence[Any]) -> dict[Weight, Any]:
        """Weights by what they are, checked."""
        every = self.weight_list()
        return weights.matched(type(self).__name__, every, self._values(every), list(given))

    def _state_of(self, named: Mapping[Weight, Any]) -> tuple[OptimizerState, Any]:
        """The state that has these weights, and the learning rate if it is among them."""
        missing = [weight for weight in self.weight_list() if weight.field and weight not in named]
        found = {**named, **(self.recovered(missing, named) if missing else {})}
        lost = [weight.name for weight in missing if weight not in found]
        if lost:
            warnings.warn(
                f"{type(self).__name__}: {', '.join(lost)} was not saved and does not follow from what was; "
                "it stays as it is",
                stacklevel=3,
            )
        return self._with(found, self._required_state("its weights"))

    def _with(self, found: Mapping[Weight, Any], old: OptimizerState) -> tuple[OptimizerState, Any]:
        """A state with these weights instead of its own, and the learning rate if it is among them."""
        state, rate = weights.write(found, old, self._shapes)
        return OptimizerState(state.iterations, self._counted(state.inner_state, state.iterations)), rate

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        """Weights that were not saved, as far as they follow from those that were."""
        return {}

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

    @property
    def parts(self) -> list["Facade"]:
        """The optimizers that it holds."""
        return []

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # a state cannot be shared: each step uses up the one before

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_live": None}


_RATES = {"lr", "learning_rate"}
_OVERWRITES = "overwrite_with_gradient"
_BEFORE = OptimizerState(np.zeros((), np.int32), ())  # type: ignore[arg-type]
"What stands for the state of an optimizer that is not built."


def _is_added(weight: Weight) -> bool:
    """Whether a variable was added to the optimizer, or to one that it holds."""
    return weight.added is not None if weight.part is None else _is_added(weight.part[1])


def gradients(owner: str, loss: Callable[..., Any], params: Tree, *batch: Any) -> Tree:
    """The gradients of `loss(params, *batch)`, a function; `owner` is the class of the optimizer, for messages."""
    variables = Variables.of(params)
    _check_loss(owner, "get_gradients(loss, params, *batch)", loss)
    return gradient_program(loss)(variables.treedef.unflatten(variables.values), *batch)


def _exchanged(home: Any, program: Program, args: Any, given: Variables) -> Any:
    """Run a step, go on from the state that it gives, and hand back the new parameters: all of it, or nothing."""

    def exchange() -> Any:
        new, home.state = program(*args)
        return given.handed_back(list(map(new.__getitem__, given.names)))

    return uninterrupted(exchange, home.state if program.donated else None)


def _checked_constraints(constraints: Any, names: Sequence[str]) -> tuple[tuple[str, Callable[..., Any]], ...]:
    if unknown := [name for name in constraints if name not in names]:
        raise ValueError(f"constraints: no variable {unknown[0]!r}; there are {', '.join(names)}")
    return tuple(constraints.items())


def _check_loss(name: str, call: str, loss: Any) -> None:
    """Refuse what is no function of the parameters."""
    if takes_nothing(loss):
        raise TypeError(f"{name}.{call}: the loss must take the parameters, lambda params: ..., and this takes nothing")
    if not callable(loss):
        raise TypeError(
            f"{name}.{call}: the loss must be a function of the parameters that gives a scalar, "
            f"got {check.describe(loss)}; JAX has no graph in which to look for gradients of a value"
        )
