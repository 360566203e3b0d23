"""What a transformation is: a pair of pure functions, `init` and `update`, that is also a value.

How transformations are run is in `gradtx.core.run`.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from gradtx.core import check, run
from gradtx.core.extras import Extras
from gradtx.core.hyperparams import is_schedule
from gradtx.core.registry import declare_state
from gradtx.core.run import EmptyState
from gradtx.core.spec import Spec
from gradtx.core.tree import Tree

__all__ = ["GradientTransformation", "GradientTransformationExtraArgs", "Transformation"]


@runtime_checkable
class Transformation(Protocol):
    """Anything with `init` and `update`: a transformation of gradtx or optax, or an instance of your own class."""

    @property
    def init(self) -> Callable[..., Any]:
        """A function from the parameters to the state before the first update."""
        ...

    @property
    def update(self) -> Callable[..., tuple[Tree, Any]]:
        """A function from the gradients, the state and the parameters to the transformed updates and the new state."""
        ...


class GradientTransformation(Spec, abstract=True):
    """A pair of pure functions over pytrees.

        state = tx.init(params)
        updates, state = tx.update(grads, state, params)

    `init, update = tx` unpacks it, and `tx[0]` is `init`. Make one from two functions,
    `GradientTransformation(init_fn, update_fn)` or `GradientTransformation(init=init_fn, update=update_fn)`. Or derive
    a class whose fields are the hyper-parameters, and write its methods `init_fn` and `update_fn`. If it is a formula
    per parameter, derive from `Leafwise` instead.

    In `update_fn`, half-precision leaves are float32, and a schedule among the hyper-parameters is its value at the
    number of updates made before. What `update_fn` returns is cast to the dtypes of the parameters and of the state
    that it was given. Its keyword-only parameters are the extra arguments that an update needs.

    For complex parameters, give the direction of ascent, which is `jnp.conj` of the gradient from `jax.grad`.

    >>> import jax, jax.numpy as jnp
    >>> def init_fn(params):
    ...     return ()
    >>> def update_fn(updates, state, params=None):
    ...     return jax.tree.map(jnp.sign, updates), state
    >>> sign = GradientTransformation(init_fn, update_fn)
    >>> sign
    GradientTransformation(init_fn, update_fn)
    >>> sign.update(jnp.array([-2.0, 3.0]), sign.init(jnp.zeros(2)))[0]
    Array([-1.,  1.], dtype=float32)
    """

    for_users = ("init", "update", "replace")
    takes_schedules = True
    State: ClassVar[type | None] = EmptyState
    "The class of its state. A state of another class is refused; with `None` nothing is checked."
    reported: ClassVar[Mapping[str, str]] = {}
    "Fields of its state that `gradtx.metrics` reports, with the names of the metrics; `steps` are the steps taken."
    clock: ClassVar[str] = "count"
    "The field of the state at which schedules among the hyper-parameters are evaluated."
    touches_leaves: ClassVar[bool] = True
    "Whether it computes with leaves, which must be floating-point arrays then, or only hands them on."
    elementwise: ClassVar[bool] = False
    "Whether each element's update depends on that element alone (of a container, apart from what its parts do)."
    sums_examples: ClassVar[bool] = False
    """Whether it is given the gradients of single examples, along a first axis that the parameters do not have, and
    sums over it. It must be the first stage then."""
    keeps_state: ClassVar[bool] = False
    "Whether `update_fn` takes the argument `gradtx.core.run.PROCEED`, and keeps the state itself where that is false."
    takes_half_precision: ClassVar[bool] = False
    "Whether `update_fn` is given half-precision leaves as they are, and promotes them itself, which may save memory."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls.State, "_fields"):
            declare_state(cls.State, cls.reported)  # pyright: ignore[reportArgumentType]

    if TYPE_CHECKING:  # without defaults, mypy would ask every class without fields for the two functions

        def __init__(
            self,
            init_fn: Callable[..., Any] = ...,
            update_fn: Callable[..., Any] = ...,
            *,
            init: Callable[..., Any] = ...,
            update: Callable[..., Any] = ...,
        ) -> None: ...
    else:

        def __new__(cls, *args, **kwargs):
            if not cls.registered_name and cls is not GradientTransformation:
                raise TypeError(f"{cls.__name__} is abstract: derive a class from it, or use one that there is")
            made = cls
            if cls is GradientTransformation:
                made, kwargs = _OfFunctions, _by_own_names(kwargs)
            return super().__new__(made, *args, **kwargs)

        def __init__(self, init_fn, update_fn):
            raise NotImplementedError  # `__new__` gives an _OfFunctions; this is here for its signature

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Callable[..., Any]:
        """`tx[0]` is `tx.init` and `tx[1]` is `tx.update`, as of a pair; the stages of a chain are in `stages`."""
        return (self.init, self.update)[index]

    def __len__(self) -> int:
        return 2

    def init(self, params: Tree) -> Any:
        """The state before the first update; of abstract parameters (`jax.ShapeDtypeStruct`), an abstract one.

        Raises:
            TypeError: a leaf is not a floating-point array.
        """
        return run.init_for_user(self, params)

    def update(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        """Transform the gradients of one step. Returns `(updates, new_state)`, the updates in the parameters' dtypes.

        Outside `jax.jit` the call runs a compiled program. All equal transformations share it, and so do those that
        differ only in their learning rates.

        Raises:
            TypeError: a leaf is not a floating-point array; an extra argument is missing or misspelt.
            ValueError: a structure or shape is not the parameters', or another transformation made the state.
        """
        return run.update_for_user(self, updates, state, params, extra)

    def init_fn(self, params: Tree) -> Any:
        """The arithmetic of `init`; to be overridden. By default the state is empty."""
        return EmptyState()

    def update_fn(self, updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
        """The arithmetic of `update`; to be overridden."""
        raise NotImplementedError(f"{type(self).__name__} defines neither update_fn nor leaf")

    def at(self, count: Any) -> Any:
        """This transformation, in which the schedules among its hyper-parameters are replaced by their values."""
        return run.with_values_at(self, self.schedules, count) if self.schedules else self

    @functools.cached_property
    def schedules(self) -> tuple[str, ...]:
        """The names of the hyper-parameters that are schedules."""
        kinds = self.field_kinds()
        return tuple(name for name, kind in kinds.items() if kind.may_vary and is_schedule(getattr(self, name)))

    @functools.cached_property
    def needs_clock(self) -> bool:
        """Whether a counter must be added to its state, because it has schedules but no counter of its own."""
        return bool(self.schedules) and self.clock not in getattr(self.State, "_fields", ())

    @functools.cached_property
    def extras(self) -> "Extras":
        """The extra arguments that `update` needs and knows."""
        return Extras.of(self.update_fn, skip=3)

    @functools.cached_property
    def needs_params(self) -> bool:
        """Whether `update` must be given the parameters, that is, whether `update_fn` has no default for them."""
        parameters = list(inspect.signature(self.update_fn).parameters.values())
        return len(parameters) > 2 and parameters[2].default is inspect.Parameter.empty


GradientTransformationExtraArgs = GradientTransformation
"Another name of the same class, because every transformation of gradtx takes extra arguments."


_OWN_NAMES = {"init": "init_fn", "update": "update_fn"}
"What the two functions are called in optax, where they are fields, and here, where `init` and `update` are methods."


def _by_own_names(functions: Mapping[str, Any]) -> dict[str, Any]:
    own = {_OWN_NAMES.get(name, name): function for name, function in functions.items()}
    if len(own) < len(functions):
        raise TypeError(f"GradientTransformation: a function is given twice: {', '.join(functions)}")
    return own


class _OfFunctions(GradientTransformation, name="GradientTransformation"):
    """A transformation that is made of two functions."""

    State = None

    init_fn: Callable[..., Any]
    update_fn: Callable[..., Any]

    @functools.wraps(GradientTransformation.__init__)
    def __init__(self, *functions: Any, **named: Any) -> None:
        try:
            given = inspect.signature(self.__init__).bind(*functions, **_by_own_names(named)).arguments
        except TypeError as error:
            raise TypeError(f"GradientTransformation: {error}: it takes init_fn and update_fn") from None
        for name, value in given.items():
            if not callable(value):
                raise TypeError(f"GradientTransformation: {name} must be a function, got {check.describe(value)}")
        self._set(**given)


_OfFunctions.__name__ = "GradientTransformation"  # the name under which it prints
