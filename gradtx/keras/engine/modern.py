"""What the optimizers of Keras 3 and of tf.keras since 2.11 have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from gradtx.core.hyperparams import Flag, Fraction, NonNegative, PositiveInt, Rate
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras.engine.derived import UpdateStep, with_variables
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.keeper import required_state
from gradtx.keras.engine.optimizer import Facade
from gradtx.keras.engine.state import OptimizerState
from gradtx.keras.engine.step import recognised
from gradtx.keras.engine.table import REQUIRED, private
from gradtx.keras.engine.variable import Variable, Variables, initialized, unique
from gradtx.keras.transforms import decay_first, excluding, keras_ema
from gradtx.masks.paths import PatternKind
from gradtx.states.fields import get
from gradtx.transforms.clipping import clip, clip_by_global_norm, clip_by_norm

__all__ = ["Modern", "factored"]


class Modern(Facade, abstract=True, kw_only=True):
    """Base of optimizers with decoupled weight decay, one kind of clipping, and a running mean of the parameters.

    They may be derived as in Keras 3:

        class Momentum(Optimizer):
            def __init__(self, learning_rate=0.01, beta=0.9, **kwargs):
                super().__init__(learning_rate=learning_rate, **kwargs)
                self.beta = beta

            def build(self, variables):
                super().build(variables)
                self.velocities = [self.add_variable_from_reference(v, name="velocity") for v in variables]

            def update_step(self, gradient, variable, learning_rate):
                v = self.velocities[self._get_variable_index(variable)]
                self.assign(v, self.beta * v - learning_rate * gradient)
                self.assign_add(variable, v)

    `update_step` is traced by JAX: it may use `self.iterations`, but not turn arrays into Python numbers.
    """

    dialect = Dialect(
        clips=(("clipnorm", clip_by_norm), ("global_clipnorm", clip_by_global_norm), ("clipvalue", clip)),
        has_decay=True,
    )
    quiet: ClassVar[frozenset[str]] = frozenset({"decay"})
    decays_itself: ClassVar[bool] = False
    "Whether weight decay is part of `chain`, because it is not the same for all variables."

    learning_rate: Rate = REQUIRED
    "Step size: a number, a schedule, or a function without arguments. `lr` is another name for it."
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
        self.keeper.made_of = None

    def finalize_variable_values(self, var_list: Tree) -> Any:
        """Write the running mean over the variables, where one is kept; of arrays, the means are returned."""
        _, given = recognised(self, var_list)
        means = self.averages(dict(zip(given.names, given.values, strict=True)))
        return given.handed_back([means[name] for name in given.names])

    def averages(self, values: dict[str, Any]) -> dict[str, Any]:
        """The running means of these variables, by name, in buffers of their own; where there is none, their values."""
        state = required_state(self, "finalize_variable_values")
        if not self.use_ema or self.iterations == 0:
            return values
        mean = state.inner_state.average
        return {name: jnp.array(mean[name], value.dtype) for name, value in values.items()}

    # What users derive.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "update_step" in own and "chain" not in own and not cls.__module__.startswith("gradtx."):
            cls.__bases__ = (UpdateStep, *cls.__bases__)  # also of a class that has a chain, such as Adam
        if "build" in own:
            cls.build = with_variables(cls.build)  # pyright: ignore[reportAttributeAccessIssue]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one variable, and what is kept for it, with `self.assign` and its kin; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither chain nor update_step")

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of the optimizer. `initializer` is `"zeros"`, `"ones"` or a function of shape and dtype."""
        value = initialized(type(self).__name__, shape, initializer, dtype)
        taken = [variable.name for variable in self._added]
        own = unique([*taken, f"{getattr(self, 'name', type(self).__name__)}/{name or 'variable'}"])[-1]
        variable = self.keeper.variable(value, own)
        self._added = (*self._added, variable)
        return variable

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A variable like one of the model's, named after it."""
        path = getattr(reference_variable, "path", getattr(reference_variable, "name", "variable"))
        name = f"{str(path).replace('/', '_')}_{name or 'var'}"
        return self.add_variable(reference_variable.shape, initializer, reference_variable.dtype, name=name)

    def add_optimizer_variables(self, trainable_variables: Any, name: Any, initializer: Any = "zeros") -> Any:
        """A list of variables like these; of several names, a tuple of lists."""
        names = [name] if isinstance(name, str) else list(name)
        kinds = list(initializer) if isinstance(initializer, list | tuple) else [initializer] * len(names)
        if len(kinds) != len(names):
            raise ValueError(f"{type(self).__name__}: {len(names)} names, but {len(kinds)} initializers")
        rows = [
            [self.add_variable_from_reference(variable, own, kind) for own, kind in zip(names, kinds, strict=True)]
            for variable in trainable_variables
        ]
        columns = tuple([row[i] for row in rows] for i in range(len(names)))
        return columns[0] if isinstance(name, str) else columns

    def _get_variable_index(self, variable: Any) -> int:
        """Which of the variables it was built with this is."""
        known = list(self.keeper.shapes)
        if variable.path not in known:
            raise ValueError(f"{type(self).__name__}: built for {', '.join(known)}, got {variable.path}")
        return known.index(variable.path)

    def assign(self, variable: Any, value: Any) -> None:
        """Give a variable another value."""
        variable.assign(value)

    def assign_add(self, variable: Any, value: Any) -> None:
        """Add to a variable."""
        variable.assign_add(value)

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Subtract from a variable."""
        variable.assign_sub(value)


def factored(state: OptimizerState, variable: str) -> Any:
    """The second moment that the row and the column of Adafactor stand for. Keras keeps it as well."""
    rows, columns = (get(state.inner_state, field)[variable] for field in ("v_row", "v_col"))
    return (rows / rows.mean(axis=-1, keepdims=True))[..., None] * columns[..., None, :]
