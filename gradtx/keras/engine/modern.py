"""What the optimizers of Keras 3 and of tf.keras since 2.11 have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from gradtx.core.hyperparams import Flag, Fraction, NonNegative, PositiveInt, Rate
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.derived import Derivable
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.home import OptimizerState
from gradtx.keras.engine.table import private
from gradtx.keras.engine.variable import Variables
from gradtx.keras.transforms import decay_first, excluding, keras_ema
from gradtx.masks.paths import PatternKind
from gradtx.states.fields import get
from gradtx.transforms.clipping import clip, clip_by_global_norm, clip_by_norm

__all__ = ["Modern", "factored"]


class Modern(Derivable, abstract=True, kw_only=True):
    """Base of optimizers with decoupled weight decay, one kind of clipping, and a running mean of the parameters."""

    dialect = Dialect(
        clips=(("clipnorm", clip_by_norm), ("global_clipnorm", clip_by_global_norm), ("clipvalue", clip)),
        has_decay=True,
    )
    quiet: ClassVar[frozenset[str]] = frozenset({"decay"})
    decays_itself: ClassVar[bool] = False
    "Whether weight decay is part of `chain`, because it is not the same for all variables."

    weight_decay: NonNegative | None = None
    "λ: before each update the parameters are multiplied by 1 − η λ; 0.01 is usual, `None` is off."
    clipnorm: NonNegative | None = None
    "Largest norm of the gradient of each single variable; 0 is off."
    clipvalue: NonNegative | None = None
    "Largest magnitude of an element of a gradient; 0 is off."
    global_clipnorm: NonNegative | None = None
    "Largest norm of all gradients together; 0 is off."
    use_ema: Flag = False
    "Whether to keep a running mean of the parameters."
    ema_momentum: Fraction = keras_ema.momentum
    "Decay rate of the running mean of the parameters."
    ema_overwrite_frequency: PositiveInt | None = None
    "Every how many steps the mean is written over the parameters; `None`: only by `finalize_variable_values`."
    decay: NonNegative = 0.0
    "Keras 2's: the learning rate is divided by 1 + decay · iterations. Keras itself no longer knows it."

    fixed: ClassVar[frozenset[str]] = frozenset({"use_ema"})

    if TYPE_CHECKING:
        lr: Rate = 0.0

    _excluded: tuple[tuple[str, ...], tuple[str, ...]] = private(((), ()))

    def check_settings(self) -> None:
        clips = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, name)]
        if len(clips) > 1:
            raise ValueError(f"{type(self).__name__}: {' and '.join(clips)} exclude each other: give one")

    def decaying(self, tx: Transformation, learning_rate: Any) -> Transformation:
        """The update `tx`, behind weight decay."""
        return tx if self.decays_itself else self.decayed(tx, self.weight_decay, learning_rate)

    def decayed(self, tx: Transformation, weight_decay: Any, learning_rate: Any) -> Transformation:
        """The update `tx`, behind a decay of the variables that are not excluded."""
        if weight_decay is None:
            return tx
        paths, patterns = self._excluded
        mask = excluding(paths, patterns) if paths or patterns else None
        return decay_first(tx, weight_decay, learning_rate, mask)

    def exclude_from_weight_decay(self, var_list: Tree = None, var_names: Sequence[str] | None = None) -> None:
        """Leave variables out of weight decay: those of `var_list`, and those whose name contains one of `var_names`.

        Before the optimizer is built; further calls add to it. Names are regular expressions, searched in the last
        part of a variable's path, `kernel` of `dense/kernel`.
        """
        where = f"{type(self).__name__}.exclude_from_weight_decay"
        if self.built:
            raise ValueError(f"{where} comes before build and the first step")
        variables = Variables.of([] if var_list is None else var_list)
        if variables.leaves and not variables.are_assignable:
            raise TypeError(f"{where}: var_list must be variables, arrays have no names: give var_names")
        if isinstance(var_names, str):
            raise TypeError(f"{where}: var_names must be a list of strings, got {var_names!r}")
        patterns = [PatternKind().convert(f"{where}: var_names", name) for name in var_names or ()]
        paths, known = self._excluded
        self._excluded = (*paths, *variables.names), (*known, *patterns)
        self._live = None

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the running mean over the variables, where one is kept; of arrays, the means are returned."""
        _, given = self._recognised(var_list)
        means = self.averages(dict(zip(given.names, given.values, strict=True)))
        return given.handed_back([means[name] for name in given.names])

    def averages(self, values: dict[str, Any]) -> dict[str, Any]:
        """The running means of these variables, by name, in buffers of their own; where there is none, their values."""
        state = self._required_state("finalize_variable_values")
        if not self.use_ema or self.iterations == 0:
            return values
        mean = state.inner_state.average
        return {name: jnp.array(mean[name], value.dtype) for name, value in values.items()}


def factored(state: OptimizerState, variable: str) -> Any:
    """The second moment that the row and the column of Adafactor stand for. Keras keeps it as well."""
    rows, columns = (get(state.inner_state, field)[variable] for field in ("v_row", "v_col"))
    return (rows / rows.mean(axis=-1, keepdims=True))[..., None] * columns[..., None, :]
