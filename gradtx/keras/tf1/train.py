"""The optimizers of `tf.train` in TensorFlow 1.15, by its equations.

    from gradtx.keras.tf1 import train               # for: from tensorflow import train
    opt = train.MomentumOptimizer(0.1, 0.9)

They are optimizers as they stand; Keras's `TFOptimizer` takes them as well.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.check import describe
from gradtx.core.compose import chain
from gradtx.core.hyperparams import (
    Decay,
    Flag,
    Fraction,
    NonNegative,
    NonNegativeInt,
    NonPositive,
    Positive,
    Rate,
    kind_of,
)
from gradtx.core.transformation import Transformation
from gradtx.core.tree import Tree
from gradtx.keras import formulas, proximal
from gradtx.keras.engine.dialect import Dialect
from gradtx.keras.engine.keeper import required_state
from gradtx.keras.engine.table import Name
from gradtx.keras.engine.tensorflow import InTensorFlow
from gradtx.keras.engine.variable import is_variable
from gradtx.keras.engine.weights import Weight
from gradtx.optimizers.adagrad import adagrad
from gradtx.optimizers.adam import adam
from gradtx.optimizers.ftrl import ftrl
from gradtx.optimizers.rmsprop import rmsprop
from gradtx.states.fields import get
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.scaling import scale_by_learning_rate

__all__ = [
    "AdadeltaOptimizer",
    "AdagradDAOptimizer",
    "AdagradOptimizer",
    "AdamOptimizer",
    "FtrlOptimizer",
    "GradientDescentOptimizer",
    "MomentumOptimizer",
    "Optimizer",
    "ProximalAdagradOptimizer",
    "ProximalGradientDescentOptimizer",
    "RMSPropOptimizer",
]


class Optimizer(InTensorFlow, abstract=True, kw_only=True):
    """Base of TensorFlow 1's optimizers: `minimize(loss, params)`, whose loss is a function, and `apply_gradients`.

    Weights are in the order of `optimizer.variables()`, by the names of the variables; the counter comes last.
    """

    dialect = Dialect(default_name=lambda cls: cls.removesuffix("Optimizer"), counter=None)
    last_weights = (Weight("global_step:0", "iterations", dtype=np.int64, forgotten=True),)
    quiet: ClassVar[frozenset[str]] = frozenset({"use_locking", "name"})

    use_locking: Flag = False
    "Accepted; there is nothing to lock."
    name: Name = None
    "What it is called in the names of its slots; by default the class's name without `Optimizer`."

    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, **kwargs: Any) -> Any:
        """A step for pairs of a gradient and its variable; `global_step`, a variable, is raised by 1."""
        _check_step(type(self).__name__, global_step)
        new = super().apply_gradients(grads_and_vars, **kwargs)
        if global_step is not None:
            global_step.assign_add(1)
        return new

    def minimize(
        self, loss: Callable[..., Any], var_list: Tree = None, *batch: Any, global_step: Any = None, **kwargs: Any
    ) -> Any:
        """One step down the gradient of `loss(var_list, *batch)`; `global_step`, a variable, is raised by 1."""
        _check_step(type(self).__name__, global_step)
        new = super().minimize(loss, var_list, *batch, **kwargs)
        if global_step is not None:
            global_step.assign_add(1)
        return new

    def get_slot_names(self) -> list[str]:
        """What it remembers of each variable, by TensorFlow's names; nothing before it is built."""
        return sorted(self._slot_fields())

    def get_slot(self, var: Any, name: str) -> Array | None:
        """A copy of what it remembers of a variable, given itself or by its name; `None` if there is no such slot."""
        field, variable = self._slot_fields().get(name), self._name_of(var)
        if field is None or variable not in self.keeper.shapes:
            return None
        value = get(required_state(self, "get_slot").inner_state, field.removeprefix("-"))[variable]
        return -value if field.startswith("-") else jnp.copy(value)

    def _name_of(self, var: Any) -> str | None:
        """The name under which a variable is known."""
        if isinstance(var, str):
            return var
        known = self.keeper.known
        pairs = () if known is None else zip(known.shapes, known.variables or (), strict=False)
        return next((name for name, own in pairs if own is var), getattr(var, "path", getattr(var, "name", None)))

    def _slot_fields(self) -> dict[str, str]:
        """The fields of the state by the names of the slots that there are."""
        if not self.built:
            return {}
        inner_state = required_state(self, "get_slot").inner_state
        fields = {name: field for group in self.slots for name, field in group.items()}
        return {n: field for n, field in fields.items() if get(inner_state, field.removeprefix("-"), None) is not None}

    def slot_name(self, slot: str, variable: str) -> str:
        """`w/Adam:0`, `w/Adam_1:0`: the slots of a variable are called after the optimizer, and counted."""
        index = [*self._slot_fields()].index(slot)
        return f"{variable}/{self.name}{f'_{index}' if index else ''}:0"

    def slot_weights(self) -> Iterator[Weight]:
        return iter(sorted(super().slot_weights(), key=lambda weight: weight.variable or ""))


def _check_step(where: str, global_step: Any) -> None:
    if global_step is not None and not is_variable(global_step):
        raise TypeError(
            f"{where}: global_step must be a variable, gradtx.keras.Variable(0), got {describe(global_step)}"
        )


class GradientDescentOptimizer(Optimizer):
    """Gradient descent: θ ← θ − η g."""

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."

    def chain(self, learning_rate: Any) -> Transformation:
        return scale_by_learning_rate(learning_rate)


class MomentumOptimizer(Optimizer):
    """Gradient descent with momentum: m ← μ m + g,  θ ← θ − η m;  with `use_nesterov` θ ← θ − η (g + μ m)."""

    positional = ("learning_rate", "momentum", "use_locking", "name", "use_nesterov")
    slots = ({"momentum": "trace"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    momentum: Fraction
    "Momentum μ; 0.9 is usual."
    use_nesterov: Flag = False
    "Whether to look one step ahead."

    def chain(self, learning_rate: Any) -> Transformation:
        return chain(trace(self.momentum, self.use_nesterov), scale_by_learning_rate(learning_rate))


class AdagradOptimizer(Optimizer):
    """Adagrad: s ← s + g²,  θ ← θ − η g / √s,  without an ε. Duchi, Hazan & Singer, 2011."""

    slots = ({"accumulator": "sum_of_squares"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    initial_accumulator_value: Positive = 0.1
    "The sum s before the first step."

    def chain(self, learning_rate: Any) -> Transformation:
        return adagrad(learning_rate, self.initial_accumulator_value, 0.0)


class StepKind:
    """A count of steps, or a variable that holds one."""

    example = 0
    may_vary = False

    def convert(self, where: str, value: Any) -> int:
        return kind_of(NonNegativeInt).convert(where, int(value.value) if is_variable(value) else value)


class AdagradDAOptimizer(Optimizer):
    """Adagrad by dual averaging, for sparse linear models: θ ← − η soft(G, λ₁ t) / (√s + η λ₂ t);  G, s: Σ g, Σ g².

    soft(x, λ) = x − λ sign(x) where |x| > λ, else 0. Begin with parameters of 0: what they are is forgotten in the
    first step. Duchi, Hazan & Singer, 2011, https://jmlr.org/papers/v12/duchi11a.html.
    """

    slots = ({"gradient_accumulator": "gradient_sum", "gradient_squared_accumulator": "sum_of_squares"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    global_step: Annotated[Any, StepKind()]
    """Steps made before, 0 at the start, from which t is counted: a number, or a variable, which is read here.

    From then on the optimizer counts its steps itself.
    """
    initial_gradient_squared_accumulator_value: Positive = 0.1
    "The sum s before the first step."
    l1_regularization_strength: NonNegative = 0.0
    "Strength λ₁ of the penalty that makes parameters exactly zero."
    l2_regularization_strength: NonNegative = 0.0
    "Strength λ₂ of the penalty that makes parameters small."

    def chain(self, learning_rate: Any) -> Transformation:
        return proximal.adagrad_dual_averaging(
            learning_rate,
            self.initial_gradient_squared_accumulator_value,
            self.l1_regularization_strength,
            self.l2_regularization_strength,
            self.global_step,
        )


class AdadeltaOptimizer(Optimizer):
    """Adadelta: u = g √(d + ε) / √(a + ε),  θ ← θ − η u;  a, d: running means of g², u². arXiv:1212.5701."""

    chain = formulas.adadelta
    slots = ({"accum": "e_g", "accum_update": "e_x"},)

    learning_rate: Rate = 0.001
    "Factor η of the step; the paper has 1.0, with the default it hardly moves."
    rho: Decay = 0.95
    "Decay rate ρ of both means."
    epsilon: NonNegative = 1e-8
    "Added inside both roots, ε: starts the updates off."


class AdamOptimizer(Optimizer):
    """Adam: θ ← θ − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε). arXiv:1412.6980, end of Section 2."""

    slots = ({"m": "mu", "v": "nu"},)

    learning_rate: Rate = 0.001
    "Step size η; 1e-4 to 1e-3 is usual."
    beta1: Decay = 0.9
    "Decay rate β₁ of m, the running mean of the gradient."
    beta2: Decay = 0.999
    "Decay rate β₂ of v, that of its square."
    epsilon: NonNegative = 1e-8
    "Added to the denominator, ε; it is not divided by √(1 − β₂ᵗ), as in the paper's first form."

    def chain(self, learning_rate: Any) -> Transformation:
        return adam(learning_rate, self.beta1, self.beta2, self.epsilon, eps_hat=True)

    @property
    def first_weights(self) -> tuple[Weight, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """β₁ᵗ⁺¹ and β₂ᵗ⁺¹."""
        return tuple(Weight(f"{name}_power:0", "", name, derived=self._power) for name in ("beta1", "beta2"))

    def _power(self, state: Any, name: str) -> Any:
        return jnp.asarray(getattr(self, name), jnp.float32) ** (state.iterations + 1).astype(jnp.float32)

    def recovered(self, missing: Sequence[Weight], named: Mapping[Weight, Any]) -> dict[Weight, Any]:
        """The counter from β₂ᵗ⁺¹, as long as that is not too small to tell."""
        if not missing:
            return {}
        power = next(float(value) for weight, value in named.items() if weight.name == "beta2_power:0")
        if not 1e-30 < power < 1 or self.beta2 == 0:
            return {}
        return {missing[0]: np.int64(round(math.log(power) / math.log(self.beta2)) - 1)}


class RMSPropOptimizer(Optimizer):
    """RMSProp: v ← ρ v + (1 − ρ) g²,  b ← μ b + η g / √(v + ε),  θ ← θ − b,  from v = 1.

    With `centered` v − m² stands for v in the root, m ← ρ m + (1 − ρ) g. Tieleman & Hinton, 2012,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf.
    """

    positional = ("learning_rate", "decay", "momentum", "epsilon", "use_locking", "centered", "name")
    slots = ({"rms": "nu", "mg": "mu", "momentum": "-trace"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    decay: Decay = 0.9
    "Decay rate ρ of the running means."
    momentum: Fraction = 0.0
    "Momentum μ of the steps."
    epsilon: NonNegative = 1e-10
    "Added inside the root, ε."
    centered: Flag = False
    "Whether to divide by the standard deviation rather than the root mean square."

    def chain(self, learning_rate: Any) -> Transformation:
        return rmsprop(
            learning_rate,
            self.decay,
            self.epsilon,
            initial_scale=1.0,
            centered=self.centered,
            momentum=self.momentum,
        )


class FtrlOptimizer(Optimizer):
    """FTRL-Proximal, for sparse linear models: θ ← − soft(z, λ₁) / (nᵖ / η + 2 λ₂);  McMahan et al., 2013, Algorithm 1.

    n ← n + g′²,  z ← z + g′ − (Δnᵖ) / η · θ,  with the shrunk gradient g′ = g + 2 s θ, which goes into n as well, as
    TensorFlow 1 documents it (Keras's `Ftrl` leaves it out of n).
    """

    positional = (
        *("learning_rate", "learning_rate_power", "initial_accumulator_value"),
        *("l1_regularization_strength", "l2_regularization_strength", "use_locking", "name"),
        *("accum_name", "linear_name", "l2_shrinkage_regularization_strength"),
    )
    quiet = Optimizer.quiet | {"accum_name", "linear_name"}
    slots = ({"accum": "accumulator", "linear": "linear"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    learning_rate_power: NonPositive = -0.5
    "How the step size falls with n, −p; 0 keeps it fixed."
    initial_accumulator_value: NonNegative = 0.1
    "The sum n before the first step."
    l1_regularization_strength: NonNegative = 0.0
    "Strength λ₁ of the penalty that makes parameters exactly zero."
    l2_regularization_strength: NonNegative = 0.0
    "Strength λ₂ of the penalty that makes parameters small."
    accum_name: Name = None
    "What n is called in the names of the weights."
    linear_name: Name = None
    "What z is called in the names of the weights."
    l2_shrinkage_regularization_strength: NonNegative = 0.0
    "Strength s of a penalty that makes parameters small by way of the gradient."

    def chain(self, learning_rate: Any) -> Transformation:
        update = ftrl(
            learning_rate,
            self.learning_rate_power,
            self.initial_accumulator_value,
            self.l1_regularization_strength,
            self.l2_regularization_strength,
        )
        shrinkage = self.l2_shrinkage_regularization_strength
        return chain(add_decayed_weights(2 * shrinkage), update) if shrinkage else update

    def slot_name(self, slot: str, variable: str) -> str:
        own = getattr(self, f"{slot}_name")
        return super().slot_name(slot, variable) if own is None else f"{variable}/{own}:0"


class ProximalGradientDescentOptimizer(Optimizer):
    """A gradient step, then both penalties: θ ← soft(θ − η g, η λ₁) / (1 + η λ₂). Duchi & Singer, 2009.

    soft(x, λ) = x − λ sign(x) where |x| > λ, else 0. https://jmlr.org/papers/v10/duchi09a.html
    """

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    l1_regularization_strength: NonNegative = FtrlOptimizer.default("l1_regularization_strength")
    l2_regularization_strength: NonNegative = FtrlOptimizer.default("l2_regularization_strength")

    def chain(self, learning_rate: Any) -> Transformation:
        return proximal.proximal_gradient_descent(
            learning_rate, self.l1_regularization_strength, self.l2_regularization_strength
        )


class ProximalAdagradOptimizer(Optimizer):
    """A step of Adagrad, then both penalties: α = η / √s,  θ ← soft(θ − α g, α λ₁) / (1 + α λ₂),  s ← s + g² first.

    soft(x, λ) = x − λ sign(x) where |x| > λ, else 0. Duchi, Hazan & Singer, 2011,
    https://jmlr.org/papers/v12/duchi11a.html.
    """

    slots = ({"accumulator": "sum_of_squares"},)

    learning_rate: Rate
    "Step size η; 0.01 to 0.1 is usual."
    initial_accumulator_value: Positive = AdagradOptimizer.default("initial_accumulator_value")
    l1_regularization_strength: NonNegative = FtrlOptimizer.default("l1_regularization_strength")
    l2_regularization_strength: NonNegative = FtrlOptimizer.default("l2_regularization_strength")

    def chain(self, learning_rate: Any) -> Transformation:
        return proximal.proximal_adagrad(
            learning_rate,
            self.initial_accumulator_value,
            self.l1_regularization_strength,
            self.l2_regularization_strength,
        )
