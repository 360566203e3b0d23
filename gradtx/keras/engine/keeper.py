"""What an optimizer has besides its settings: the parameters it is for, its state, the chain and programs in use.

The state of an optimizer that another one holds is a part of the other's: its keeper is a view into its holder's.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.core import numerics
from gradtx.core.compose import identity
from gradtx.core.hyperparams import is_schedule
from gradtx.core.run import with_own_buffers
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.interrupts import uninterrupted
from gradtx.keras.engine.parameters import Parameters, refuse_tracers
from gradtx.keras.engine.program import Programs, same_program, step
from gradtx.keras.engine.state import Lens, OptimizerState
from gradtx.keras.engine.variable import Variable, Variables
from gradtx.keras.engine.weights import Weight, read, rewritten
from gradtx.states.fields import get

__all__ = ["Keeper", "build", "required_state", "running"]


class Keeper:
    """The keeper of one optimizer's state."""

    def __init__(self) -> None:
        self.known: Parameters | None = None  # what it was built for
        self.start: dict[str, Any] | None = None  # their values, until there is a state
        self.holder: Keeper | None = None  # in whose state its own is, if there is one
        self._lens: Any = None  # where it is there
        self._state: OptimizerState | None = None
        self.made_of: Any = None  # of what the chain in use is made: a rate, or the chains of what it holds
        self.chain: Any = None
        self.form: Any = None  # the chain that the state belongs to
        self.programs: Programs | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "made_of": None, "chain": None, "form": None, "programs": None}

    def begin(self, known: Parameters, start: dict[str, Any]) -> None:
        """Be for these parameters from now on."""
        self.known, self.start, self.made_of = known, start, None

    def variable(self, value: Array, name: str) -> Variable:
        """A variable of the user's, which is saved with the state."""
        return Variable(value, name)

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The parameters it is for, by name."""
        return {} if self.known is None else self.known.shapes

    @property
    def state(self) -> OptimizerState | None:
        """The state, once it has been needed."""
        return self._state if self.holder is None else self._lens.get(self.holder.state)

    @state.setter
    def state(self, state: OptimizerState) -> None:
        if self.holder is None:
            self._state = state
        else:
            self.holder.state = self._lens.put(self.holder.state, state)

    def keep(self, state: OptimizerState) -> None:
        """Go on from this state, whose arrays may be someone else's, too."""
        self.state = with_own_buffers(state, ())

    def move_into(self, holder: "Keeper", lens: Lens) -> None:
        """Be a view into this one's state from now on, where its own is already."""
        self.holder, self._lens, self._state = holder, lens, None


# Building.


def build(opt: Any, variables: Tree) -> None:
    """Let an optimizer know its parameters, for which the state is made when it is needed."""
    given, where = Variables.of(variables), type(opt).__name__
    if not given.leaves:
        raise ValueError(f"{where}: there are no parameters in {variables!r}")
    refuse_tracers(where, given.values)
    if own := [n for n, v in zip(given.names, given.leaves, strict=True) if getattr(v, _OVERWRITES, False)]:
        raise ValueError(
            f"{where}: {own[0]} is overwritten with its gradient, as Keras does with its scales for "
            "float8: keep it out of the parameters, or train in Keras itself (gradtx.keras.as_keras)"
        )
    if opt.keeper.known is not None:
        opt.keeper.known.recognised(variables)  # that is, refused, if these are others
    else:
        uninterrupted(lambda: opt.build_for(given))


_OVERWRITES = "overwrite_with_gradient"


def required_state(opt: Any, what: str) -> OptimizerState:
    """The state of an optimizer, which is made by the first who needs it, once whoever overrides `build` has done so.

    What the optimizer holds may meanwhile have moved to another holder; then its state is taken in again.
    """
    keeper = opt.keeper
    state = keeper.state
    if state is None and keeper.start is None:
        raise ValueError(f"{type(opt).__name__}: {what} needs its state: call build(params) first")
    for part in opt.parts:
        if part.keeper.holder is not keeper:
            state = None
    if state is None:
        uninterrupted(lambda: _make_state(opt))
    return state or keeper.state


def _make_state(opt: Any) -> None:
    """Make the first state; those of the optimizers held, which may have been in use, are put in their places."""
    keeper, state = opt.keeper, opt.keeper.state
    if state is None:
        with jax.ensure_compile_time_eval():  # it may be needed first inside of jax.jit
            chain = opt.around([identity() for _ in opt.parts]) if opt.parts else running(opt)
            state = OptimizerState(numerics.counter(), chain.init(keeper.start))
    for part, lens in zip(opt.parts, opt.lenses, strict=True):
        own = required_state(part, "its state")
        is_shared = part.keeper.holder not in (None, keeper)
        state = lens.put(state, jax.tree.map(jnp.copy, own) if is_shared else own)
    keeper.state, keeper.start = state, None
    for part, lens in zip(opt.parts, opt.lenses, strict=True):
        part.keeper.move_into(keeper, lens)


def with_updates(opt: Any, updates: int, state: OptimizerState) -> OptimizerState:
    """This state of an optimizer, but that so many updates have been made."""
    for part, lens in zip(opt.parts, opt.lenses, strict=True):
        state = lens.put(state, with_updates(part, updates, lens.get(state)))
    steps = jnp.asarray(min(updates * opt.window, 2**31 - 1), jnp.int32)
    return OptimizerState(steps, opt.counted(state.inner_state, steps))


# The chain in use.


def running(opt: Any) -> Transformation:
    """The chain with the rate for an array, so that no other rate needs another program; made once for each.

    That of a holder is made of those of what it holds.
    """
    keeper = opt.keeper
    made_of = list(map(running, opt.parts)) or [opt.given_rate.in_use()]
    if keeper.made_of is None or not all(map(operator.is_, keeper.made_of, made_of)):
        keeper.chain = opt.around(made_of) if opt.parts else _formed(opt, opt.composed_to_run(_as_array(*made_of)))
        keeper.made_of = made_of
    return keeper.chain


def programs(opt: Any) -> Programs:
    """The programs of an optimizer; whoever has variables in its state, or holds such a one, shares none."""
    keeper = opt.keeper
    if keeper.programs is None:
        keeper.programs = Programs(step.undonated() if _has_own_programs(opt) else step)
    return keeper.programs


def _has_own_programs(opt: Any) -> bool:
    return opt.has_own_programs or any(map(_has_own_programs, opt.parts))


def _as_array(rate: Any) -> Any:
    """The rate, where it is a number, as an array; where it is a schedule or there is none, itself."""
    return rate if is_schedule(rate) or rate == () else jnp.asarray(rate, jnp.result_type(float))


def _formed(opt: Any, chain: Transformation) -> Transformation:
    """The chain, whose form the state has from now on; what both remember is kept where settings have changed it."""
    keeper = opt.keeper
    if keeper.state is not None and not same_program(chain, keeper.form):
        uninterrupted(lambda: _reform(opt, chain))
    keeper.form = chain
    return chain


def _reform(opt: Any, chain: Transformation) -> None:
    keeper, old = opt.keeper, opt.keeper.state
    with jax.ensure_compile_time_eval():
        start = chain.init({name: jnp.zeros(like.shape, like.dtype) for name, like in keeper.shapes.items()})
        if jax.tree.structure(start) == jax.tree.structure(old.inner_state):
            return
        keeper.keep(OptimizerState(old.iterations, start))  # whose weights are now listed
        both = [w for w in opt.weight_list() if w.is_kept and get(old.inner_state, w.field, None) is not None]
        kept = dict(zip(both, read(both, old, None), strict=True))
        kept[Weight("iterations", "iterations")] = old.iterations
        keeper.keep(rewritten(opt, kept, OptimizerState(old.iterations, start))[0])
