"""The optimizers of tf.keras 2.0 to 2.10.

    from gradtx.keras.tf_keras_legacy import optimizers        # for: from tensorflow.keras import optimizers
    from gradtx.keras.tf_keras_legacy.optimizers import Adam   # for: from tensorflow.keras.optimizers import Adam

Since 2.11 they are called `tf.keras.optimizers.legacy`. `optimizers.schedules` are the schedules, and
`optimizers.experimental` the new optimizers, as in 2.9 and 2.10.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gradtx.core.hyperparams import Decay, Flag, Fraction, NonNegative, NonPositive, Positive, Rate
from gradtx.core.tree import Tree
from gradtx.keras import formulas, schedules
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.registry import Identifiers
from gradtx.keras.engine.table import Epsilon, Name, private
from gradtx.keras.engine.tensorflow import InTensorFlow
from gradtx.keras.engine.variable import Variable, array, initialized
from gradtx.keras.engine.weights import Weight
from gradtx.keras.holders.loss_scale import TfKerasLossScaleOptimizer
from gradtx.transforms.clipping import clip, clip_by_global_norm, clip_by_norm

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]


class Optimizer(InTensorFlow, abstract=True, kw_only=True):
    """Base of tf.keras's optimizers before 2.11, also known as OptimizerV2.

        params = opt.minimize(loss, params)        # loss is a function of the params
        params = opt.apply_gradients(zip(grads, params))

    In a step come: `clipvalue`, `clipnorm` (variable by variable), `global_clipnorm`, the update with the rate
    `learning_rate` / (1 + `decay` · iterations).
    """

    dialect = Dialect(
        generation="tf_keras_legacy",
        default_name=str,
        counter="{name}/iter:0",
        count_dtype="int64",
        slot="{name}/{variable}/{slot}:0",
        clips=(("clipvalue", clip), ("clipnorm", clip_by_norm), ("global_clipnorm", clip_by_global_norm)),
        has_decay=True,
    )
    quiet: ClassVar[frozenset[str]] = frozenset({"clipnorm", "clipvalue", "global_clipnorm"})

    name: Name = None
    "Its name in configs and in those of its weights; by default the class's."
    decay: NonNegative = 0.0
    "How fast the learning rate falls: it is η / (1 + decay · iterations), also beside a schedule."
    clipnorm: Positive | None = None
    "Largest norm of the gradient of each single variable."
    clipvalue: Positive | None = None
    "Largest magnitude of an element of a gradient; comes first."
    global_clipnorm: Positive | None = None
    "Largest norm of all gradients together."

    def check_settings(self) -> None:
        if self.clipnorm is not None and self.global_clipnorm is not None:
            raise ValueError(f"{type(self).__name__}: clipnorm and global_clipnorm exclude each other: give one")

    def get_updates(self, loss: Callable[..., Any], params: Tree, *batch: Any) -> Any:
        """Make one step down the gradient of `loss(params, *batch)`, a function; gives the new parameters."""
        return self.minimize(loss, params, *batch)

    @property
    def weights(self) -> list[Any]:
        """The weights as arrays."""
        return self.variables

    if TYPE_CHECKING:
        lr: Rate = 0.0

    _added_slots: tuple[str, ...] = private(())

    def add_weight(
        self,
        name: str,
        shape: Sequence[int] = (),
        dtype: Any = None,
        initializer: Any = "zeros",
        trainable: bool | None = None,
        synchronization: Any = None,
        aggregation: Any = None,
    ) -> Variable:
        """A variable of the optimizer, which is saved with its weights, behind the others.

        `initializer` is `"zeros"`, `"ones"` or a function of shape and dtype. The last three change nothing.

        Raises:
            ValueError: there is one of that name already.
        """
        name = name if name.startswith(f"{self.name}/") else f"{self.name}/{name}:0"
        taken = [variable.name for variable in self._added]
        if name in taken or (self.built and name in [weight.name for weight in self.weight_list()]):
            raise ValueError(f"{type(self).__name__}: there is a weight {name} already")
        variable = Variable(initialized(type(self).__name__, shape, initializer, dtype), name)
        self._added = (*self._added, variable)
        return variable

    def add_slot(self, var: Any, slot_name: str, initializer: Any = "zeros", shape: Any = None) -> Variable:
        """A variable like `var`, by the name of a slot: it is saved with the weights, and `get_slot` gives it.

        Asked again, it gives the same one.

        Raises:
            ValueError: a slot of the optimizer itself, which its steps change.
        """
        name = self.slot_name(slot_name, str(getattr(var, "path", getattr(var, "name", var))))
        known = {variable.name: variable for variable in self._added}
        if name in known:
            return known[name]
        like = array(var)
        variable = self.add_weight(name, like.shape if shape is None else shape, like.dtype, initializer)
        self._added_slots = (*self._added_slots, slot_name)
        return variable

    def get_slot_names(self) -> list[str]:
        """The names of what is kept for each variable."""
        weights = self.slot_weights() if self.built else ()
        own = [weight.name.rpartition("/")[2][:-2] for weight in weights]
        return list(dict.fromkeys([*own, *self._added_slots]))

    def get_slot(self, var: Any, slot_name: str) -> Any:
        """What is kept for a variable, given itself or its path: an array, or a variable that `add_slot` made."""
        path = getattr(var, "path", var)
        wanted = self.slot_name(slot_name, str(path))
        for variable in self._added:
            if variable.name == wanted:
                return variable
        for weight, value in zip(self.weight_list(), self.variables, strict=True):
            if weight.name == wanted:
                return value
        raise ValueError(f"{type(self).__name__}: no slot {slot_name} of {path}; slots: {self.get_slot_names()}")


class SGD(Optimizer):
    """Gradient descent with momentum: v ← μ v − η g,  θ ← θ + v;  with `nesterov` θ ← θ + μ v − η g."""

    chain = formulas.sgd
    slots = ({"momentum": "trace"},)

    learning_rate: Rate = 0.01
    "η: step size: a number, a schedule, or a function without arguments."
    momentum: Fraction = 0.0
    "μ: how much of the velocity stays from one step to the next; 0.9 is usual, 0 is off."
    nesterov: Flag = False
    "Whether to take Nesterov's form of the momentum, which looks one step ahead."


class RMSprop(Optimizer):
    """RMSprop: v ← ρ v + (1 − ρ) g²,  θ ← θ − η g / (√v + ε);  with momentum, b ← μ b + η g / √(v + ε),  θ ← θ − b."""

    chain = formulas.rmsprop_legacy
    slots = ({"rms": "nu"}, {"momentum": "-trace"}, {"mg": "mu"})

    learning_rate: Rate = 0.001
    "η: step size: a number, a schedule, or a function without arguments."
    rho: Decay = 0.9
    "ρ: decay rate of the running mean of the squared gradient; 0.9 to 0.99 is usual."
    momentum: Fraction = 0.0
    "μ: how much of the momentum stays from one step to the next; 0.9 is usual."
    epsilon: Epsilon = 1e-7
    "ε: added to the denominator, outside of the root without momentum, inside with it."
    centered: Flag = False
    "Whether to divide by the standard deviation."


class Adagrad(Optimizer):
    """Adagrad: s ← s + g²,  θ ← θ − η g / (√s + ε)."""

    chain = formulas.adagrad_eps_outside
    slots = ({"accumulator": "sum_of_squares"},)

    learning_rate: Rate = 0.001
    "η: step size: a number, a schedule, or a function without arguments."
    initial_accumulator_value: NonNegative = 0.1
    "The sum s of squared gradients before the first step."
    epsilon: Epsilon = RMSprop.default("epsilon")


class Adadelta(Optimizer):
    """Adadelta: u = g √(d + ε) / √(a + ε),  θ ← θ − η u;  a, d: running means of g², u²."""

    chain = formulas.adadelta
    slots = ({"accum_grad": "e_g"}, {"accum_var": "e_x"})

    learning_rate: Rate = 0.001
    "η: step size: a number, a schedule, or a function without arguments; the paper has 1.0."
    rho: Decay = 0.95
    "ρ: decay rate of both running means, of the squared gradient and of the squared update."
    epsilon: Epsilon = RMSprop.default("epsilon")


class Adam(Optimizer):
    """Adam: θ ← θ − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε);  with `amsgrad` the largest v so far for v."""

    chain = formulas.adam
    slots = ({"m": "mu"}, {"v": "nu"}, {"vhat": "nu_max"})

    learning_rate: Rate = 0.001
    "η: step size: a number, a schedule, or a function without arguments."
    beta_1: Decay = 0.9
    "β₁: decay rate of m, the running mean of the gradient."
    beta_2: Decay = 0.999
    "β₂: decay rate of v, the running mean of the squared gradient."
    epsilon: Epsilon = RMSprop.default("epsilon")
    amsgrad: Flag = False
    "Whether to divide by the largest v so far."


class Adamax(Optimizer):
    """Adamax: u ← max(β₂ u, |g|),  θ ← θ − η / (1 − β₁ᵗ) · m / (u + ε)."""

    chain = formulas.adamax
    slots = ({"m": "mu"}, {"v": "nu"})

    learning_rate: Rate = Adam.default("learning_rate")
    beta_1: Decay = Adam.default("beta_1")
    beta_2: Decay = Adam.default("beta_2")
    epsilon: Epsilon = RMSprop.default("epsilon")


class Nadam(Optimizer):
    """Adam with Nesterov's momentum, which rises as β₁ (1 − ½ · 0.96^(ψ t)).

    ψ may be given as `schedule_decay`; in configs tf.keras calls it `decay`, and loses it when it reads them. Here
    `decay` is ψ.
    """

    dialect = Optimizer.dialect._replace(has_decay=False)
    chain = formulas.nadam_slow
    positional = ("learning_rate", "beta_1", "beta_2", "epsilon", "name")
    first_weights = (Weight("{name}/momentum_cache:0", "mu_product"),)
    slots = ({"m": "mu"}, {"v": "nu"})
    spellings: ClassVar[Mapping[str, str]] = {"schedule_decay": "decay"}

    learning_rate: Rate = Adam.default("learning_rate")
    beta_1: Decay = Adam.default("beta_1")
    beta_2: Decay = Adam.default("beta_2")
    epsilon: Epsilon = RMSprop.default("epsilon")
    decay: NonNegative = 0.004
    "ψ: how fast the momentum rises, as 1 − ½ · 0.96^(ψ t)."

    if TYPE_CHECKING:
        schedule_decay: NonNegative = 0.0
    else:

        @property
        def schedule_decay(self) -> float:
            """ψ."""
            return self.decay


class Ftrl(Optimizer):
    """FTRL-Proximal: sparse linear models. McMahan et al., 2013, Algorithm 1."""

    chain = formulas.ftrl
    slots = ({"accumulator": "accumulator", "linear": "linear"},)
    positional = (
        "learning_rate",
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "name",
    )

    learning_rate: Rate = 0.001
    "η: step size: a number, a schedule, or a function without arguments."
    learning_rate_power: NonPositive = -0.5
    "The power of the sum of squared gradients by which the step size is multiplied; −½ is Adagrad's root."
    initial_accumulator_value: NonNegative = 0.1
    "The sum of squared gradients before the first step."
    l1_regularization_strength: NonNegative = 0.0
    "λ₁: weight of the sum of magnitudes, which makes parameters exactly zero."
    l2_regularization_strength: NonNegative = 0.0
    "λ₂: weight of the sum of squares, which makes parameters small."
    l2_shrinkage_regularization_strength: NonNegative = 0.0
    "Weight of the sum of squares that is added to the gradient, and so to the accumulated linear term."
    beta: NonNegative = 0.0
    "Added to λ₂ as β / (2 η), which makes the first steps smaller."


class LossScaleOptimizer(TfKerasLossScaleOptimizer):
    dialect = Dialect(module=__name__, counter=None)


_identifiers = Identifiers(
    "tf.keras before 2.11",
    [Adadelta, Adagrad, Adam, Adamax, Ftrl, LossScaleOptimizer, Nadam, RMSprop, SGD],
    "keras.optimizers.legacy",
)
get, serialize, deserialize = _identifiers.get, _identifiers.serialize, _identifiers.deserialize


def __getattr__(name: str) -> Any:
    """`optimizers.experimental`: the new optimizers, by the name that they had in 2.9 and 2.10."""
    if name == "experimental":
        return importlib.import_module("gradtx.keras.tf_keras.optimizers")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
