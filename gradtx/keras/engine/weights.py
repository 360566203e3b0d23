"""What Keras calls the weights of an optimizer: a list of names and places, and two functions, `read` and `write`.

The list is mostly data: the names of the generation, the slots of the class. The weights of optimizers that are held
are among those of their holder, each with what it is to its own optimizer, and where the state of that one is.
"""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.hyperparams import is_schedule
from gradtx.keras.engine.state import Lens, OptimizerState
from gradtx.keras.engine.variable import Variable
from gradtx.states.fields import get, replace

__all__ = ["Weight", "Zeros", "read", "write"]


class Weight(NamedTuple):
    """One of the arrays that Keras calls the weights of an optimizer, and where it is in the state."""

    name: str
    "Keras's name for it."
    field: str = ""
    "The field of the chain's state; or `iterations`, `learning_rate`; or nothing, if one of the following says it."
    variable: str | None = None
    "Which variable's, if there is one for each."
    factor: float = 1.0
    "Keras's value in units of ours: −1 where only the signs differ."
    dtype: Any = None
    "The dtype in which the generation has it; `None` for that of the state."
    derived: Callable[[Any, str], Any] | None = None
    "A function of the state and the name: the generation keeps it, though it follows from the rest."
    leaf: int | None = None
    "Which leaf of the state it is, if the state is anyone's."
    added: Variable | None = None
    "The variable that it is, if `add_variable` or its kin has made it: no step changes it."
    part: "Part | None" = None
    "Of which of the optimizers held it is."
    forgotten: bool = False
    "Whether the generation itself does not save it: it comes last, and `set_weights` does without it."
    is_recent: bool = False
    "Whether early versions of the generation did not have it: it comes behind those that they had."

    @property
    def is_kept(self) -> bool:
        """Whether it is a field in the state of the chain."""
        return bool(self.field) and self.field not in ("iterations", "learning_rate")


class Part(NamedTuple):
    """Where a weight of an optimizer that is held belongs."""

    index: int
    "Which of the optimizers held."
    lens: Lens
    "Where the state of that one is."
    weight: Weight
    "What it is to that one."


class Zeros(NamedTuple):
    """What a generation keeps and never moves, as a function of state and name."""

    shape: tuple[int, ...] = ()
    "Its shape."
    dtype: Any = "float32"
    "Its dtype."

    def __call__(self, state: OptimizerState, name: str) -> Array:
        return jnp.zeros(self.shape, self.dtype)


# The list.


def listed(opt: Any) -> list[Weight]:
    """Name and place of each weight of an optimizer; before it is built, of what does not depend on the parameters."""
    dialect, keeper = opt.dialect, opt.keeper
    head: list[Weight] = []
    if dialect.counter:
        head.append(Weight(dialect.counter, "iterations", dtype=dialect.count_dtype, forgotten=opt.forgets_count))
    if dialect.rate and not is_schedule(opt.given_rate.value):
        head.append(Weight(dialect.rate, "learning_rate"))
    head += opt.first_weights
    if keeper.known is None:
        return [weight._replace(name=dialect.called(opt, weight.name)) for weight in head if not weight.is_kept]
    inner_state = keeper.state.inner_state
    tail = [w for w in opt.last_weights if not w.is_kept or get(inner_state, w.field, None) is not None]
    head, tail = ([weight._replace(name=dialect.called(opt, weight.name)) for weight in part] for part in (head, tail))
    around = [{slot: field} for setting, slot, field in _AROUND if vars(opt).get(setting)]
    every = [*head, *of_slots(opt, around), *opt.slot_weights(), *tail, *map(_of_added, opt.added_variables)]
    return sorted(every, key=lambda weight: weight.forgotten)


_AROUND = ("use_ema", "average", "average"), ("gradient_accumulation_steps", "gradient_accumulator", "acc_grads")
"Settings, and the slots that the transformations around the update have with them."


def of_slots(opt: Any, groups: Iterable[Mapping[str, str]]) -> Iterator[Weight]:
    """The weights of the slots that are in the state: by group, in a group by variable."""
    inner_state = opt.keeper.state.inner_state
    for group in groups:
        there = {slot: f for slot, f in group.items() if get(inner_state, f.lstrip("-"), None) is not None}
        for variable in opt.keeper.shapes:
            for slot, field in there.items():
                factor = -1.0 if field.startswith("-") else 1.0
                yield Weight(opt.slot_name(slot, variable), field.removeprefix("-"), variable, factor)


def _of_added(variable: Variable) -> Weight:
    """A variable of the user's: in the state, or beside it."""
    if variable.is_in_state:
        return Weight(variable.name, "slots", variable.name)
    return Weight(variable.name, added=variable)


# Reading and writing.


def read(wanted: Iterable[Weight], state: OptimizerState, rate: Any) -> list[Any]:
    """The values of weights, beside whose state there is this learning rate; of a holder, those of what it holds."""
    values = []
    for place, run in itertools.groupby(wanted, key=lambda weight: weight.part and weight.part[:2]):
        if place is None:
            values += [_value(weight, state, rate) for weight in run]
        else:
            index, lens = place
            values += read([weight.part.weight for weight in run if weight.part], lens.get(state), rate[index])
    return values


def _value(weight: Weight, state: OptimizerState, rate: Any) -> Any:
    if weight.field == "iterations":
        return state.iterations
    if weight.field == "learning_rate":
        return rate
    if weight.added is not None:
        return weight.added.value
    if weight.derived is not None:
        return weight.derived(state, weight.variable or "")
    if weight.leaf is not None:
        return _as_numbers(jax.tree.leaves(state.inner_state)[weight.leaf])
    value = get(state.inner_state, weight.field)
    if weight.variable is not None:
        value = value[weight.variable]
    return value if weight.factor == 1 else value * jnp.asarray(weight.factor, value.dtype)


def write(named: Mapping[Weight, Any], state: OptimizerState) -> tuple[OptimizerState, Any]:
    """The state with these weights instead of its own, and the learning rate if it is among them."""
    by_field: dict[str, dict[Any, Any]] = {}
    (steps, inner_state), rate = state, None
    leaves, treedef = jax.tree.flatten(inner_state)
    for weight, value in named.items():
        if weight.field == "iterations":
            steps = jnp.array(value if isinstance(value, Array) else np.clip(value, 0, 2**31 - 1), jnp.int32)
        elif weight.field == "learning_rate":
            rate = jnp.asarray(value)
        elif weight.leaf is not None:
            leaves[weight.leaf] = _as_leaf(jnp.asarray(value), leaves[weight.leaf])
        elif weight.field:
            value = jnp.asarray(value)
            value = value if weight.factor == 1 else value * jnp.asarray(weight.factor, value.dtype)
            by_field.setdefault(weight.field, {})[weight.variable] = value
    inner_state = treedef.unflatten(leaves)
    for field, values in by_field.items():
        own = get(inner_state, field)
        new = values[None].astype(own.dtype) if None in values else {**own, **values}
        inner_state = replace(inner_state, **{field: new})
    return OptimizerState(steps, inner_state), rate


def _as_numbers(leaf: Any) -> Any:
    """A leaf of a state as weights may be: keys by their data, truth values as 0 and 1."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf


def _as_leaf(value: Array, like: Any) -> Any:
    """The leaf that these weights stand for: the inverse of `_as_numbers`."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like))
    return value.astype(like.dtype)


# The weights of an optimizer: all at once.


def values(opt: Any) -> list[Any]:
    """Those that it has now."""
    return read(opt.weight_list(), opt.keeper.state, opt.given_rate.beside())


def matched(opt: Any, given: Sequence[Any]) -> dict[Weight, Any]:
    """The arrays by what they are, checked against the weights that there are now.

    Raises:
        ValueError: wrong number, shapes or dtypes.
    """
    expected, where = opt.weight_list(), type(opt).__name__
    given = _with_present_kind_of_rate(opt, list(given), len(expected))
    saved = [weight for weight in expected if not weight.forgotten]
    early = [weight for weight in saved if not weight.is_recent]
    if len(given) not in (len(expected), len(saved), len(early)):
        raise ValueError(
            f"{where}: expected {len(saved)} weights ({', '.join(weight.name for weight in saved)}), got {len(given)}"
        )
    for weight, like, value in zip(expected, values(opt), given, strict=False):
        _check(f"{where}: the weight {weight.name}", weight, like, value)
    return dict(zip(expected, given, strict=False))


def _with_present_kind_of_rate(opt: Any, given: list[Any], expected: int) -> list[Any]:
    """Without the learning rate, if it was a number then and is a schedule now; or with it, the other way round."""
    if not opt.dialect.rate:
        return given
    if is_schedule(opt.given_rate.value):
        return [given[0], *given[2:]] if len(given) == expected + 1 else given
    return [given[0], np.float32(opt.learning_rate), *given[1:]] if len(given) == expected - 1 else given


def _check(where: str, weight: Weight, like: Any, value: Any) -> None:
    if np.shape(value) != like.shape:
        raise ValueError(f"{where} has the shape {list(like.shape)}, got {list(np.shape(value))}")
    if not jnp.issubdtype(value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype, np.number):
        raise ValueError(f"{where} must be numbers, got {value!r}")
    is_checked = weight.field == "iterations" and not isinstance(value, Array)
    if is_checked and not (value >= 0 and float(value).is_integer()):
        raise ValueError(f"{where} must be a count, got {value}")
    if weight.field == "loss_scale" and not isinstance(value, jax.core.Tracer) and not 0 < value < np.inf:
        raise ValueError(f"{where}: the loss scale must be positive, got {float(value):g}")


def written(opt: Any, named: Mapping[Weight, Any], state: OptimizerState) -> tuple[OptimizerState, Any]:
    """A state like this one of the optimizer, but with these weights, and the learning rate if it is among them.

    Of a holder, a learning rate for each of what it holds, or `None`.
    """
    rates: list[Any] = []
    for index, (part, lens) in enumerate(zip(opt.parts, opt.lenses, strict=True)):
        its = {w.part.weight: value for w, value in named.items() if w.part is not None and w.part.index == index}
        new, rate = written(part, its, lens.get(state))
        state = lens.put(state, new)
        rates.append(rate)
    own = {weight: value for weight, value in named.items() if weight.part is None}
    expected = [w for w in opt.weight_list() if w.variable is None or opt.keeper.shapes]  # there may be no variables
    missing = [weight for weight in expected if weight.field and weight not in own]
    own |= opt.recovered(missing, own)
    if lost := [weight.name for weight in missing if weight not in own]:
        warnings.warn(
            f"{type(opt).__name__}: {', '.join(lost)} was not saved and does not follow from what was; "
            "it stays as it is",
            stacklevel=4,
        )
    state, rate = rewritten(opt, own, state)
    return state, rates or rate


def rewritten(opt: Any, named: Mapping[Weight, Any], state: OptimizerState) -> tuple[OptimizerState, Any]:
    """The same, of the optimizer itself: its counters follow the number of steps, unless they are among the weights."""
    new, rate = write(named, state)
    if any(weight.leaf is not None for weight in named):
        return new, rate
    return OptimizerState(new.iterations, opt.counted(new.inner_state, new.iterations)), rate


def take_weights(opt: Any, given: Sequence[Any]) -> None:
    """Let an optimizer go on from these: all of them, or none."""
    named = matched(opt, given)
    state, rate = written(opt, named, opt.keeper.state)
    opt.given_rate.check(rate)
    opt.keeper.keep(state)
    opt.given_rate.take(rate)
    for weight, value in named.items():
        if (added := innermost(weight).added) is not None:
            added.assign(value)


def innermost(weight: Weight) -> Weight:
    """What a weight is to the optimizer that it is of, which may be held, also by one that is held."""
    return weight if weight.part is None else innermost(weight.part.weight)
