"""What an optimizer updates: the leaves of a tree of arrays, or of variables that hold arrays and can be assigned."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.core.check import describe
from gradtx.core.tree import Tree
from gradtx.masks.paths import leaf_names

__all__ = ["Variable"]


class Variable:
    """An array that can be assigned, for training loops written in Keras's way.

    >>> v = Variable([1.0, 2.0], name="w")
    >>> v.assign_sub([0.5, 0.5])
    >>> v
    Variable(w, float32[2])
    >>> v + 1.0
    Array([1.5, 2.5], dtype=float32)
    >>> jnp.square(v)
    Array([0.25, 2.25], dtype=float32)
    """

    is_in_state = False  # of an optimizer, whose steps may change it

    def __init__(self, value: Any, name: str = "variable", constraint: Callable[[Any], Any] | None = None) -> None:
        self.value: Any = jnp.asarray(value)
        self.name = self.path = name
        self.constraint = constraint

    def assign(self, value: Any) -> None:
        """Give it another value, in its own dtype.

        Raises:
            ValueError: another shape.
        """
        own = self.value.aval
        if not isinstance(value, jax.Array) or value.dtype != own.dtype or value.weak_type:
            value = jnp.asarray(value, own.dtype)
        if value.shape != own.shape:
            raise ValueError(f"{self.name}: expected the shape {list(own.shape)}, got {list(value.shape)}")
        self.value = value

    def assign_add(self, value: Any) -> None:
        """Add to its value."""
        self.assign(self.value + jnp.asarray(value, self.dtype))

    def assign_sub(self, value: Any) -> None:
        """Subtract from its value."""
        self.assign(self.value - jnp.asarray(value, self.dtype))

    def numpy(self) -> np.ndarray[Any, Any]:
        """Its value as a NumPy array."""
        return np.asarray(self.value)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value."""
        return self.value.shape

    @property
    def dtype(self) -> Any:
        """The dtype of its value."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return self.value.ndim

    def __jax_array__(self) -> Array:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.value, dtype)

    def __getitem__(self, index: Any) -> Array:
        return self.value[index]

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Array]:
        return iter(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return f"Variable({self.name}, {describe(self.value)})"


def _rewrapped(_: None, values: tuple[Any]) -> Variable:
    """A variable around what a program of JAX has in the place of its value."""
    variable = object.__new__(Variable)
    (variable.value,) = values
    variable.name, variable.path, variable.constraint = "variable", "variable", None
    return variable


def register(cls: type[Variable]) -> None:
    """Let functions of `jax.numpy` take it: they are compiled, and take nothing but arrays and pytrees of them."""
    jax.tree_util.register_pytree_node(cls, lambda variable: ((variable.value,), None), _rewrapped)


register(Variable)


def _operator(name: str) -> Callable[..., Any]:
    def operate(self: Variable, *others: Any) -> Any:
        return getattr(self.value, name)(*(other.value if is_variable(other) else other for other in others))

    return operate


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "floordiv", "mod"):
    for _side in ("", "r"):
        setattr(Variable, f"__{_side}{_name}__", _operator(f"__{_side}{_name}__"))
for _name in ("lt", "le", "gt", "ge", "neg", "abs"):
    setattr(Variable, f"__{_name}__", _operator(f"__{_name}__"))


def is_variable(x: Any) -> bool:
    """Whether `x` holds an array that can be assigned: a Keras variable, or one of ours."""
    return not isinstance(x, jax.Array) and hasattr(x, "assign") and hasattr(x, "value")


def array(x: Any) -> Any:
    """The array that a variable holds, or that a number makes; of a strong type, or the next step would be another."""
    if not isinstance(x, jax.Array):
        x = x.value if is_variable(x) else x
        x = x if isinstance(x, jax.Array) else jnp.asarray(x)  # asarray takes its time for nothing
    return jax.lax.convert_element_type(x, x.dtype) if x.aval.weak_type else x


def initialized(where: str, shape: Sequence[int], initializer: Any, dtype: Any) -> Array:
    """The first value of a variable: `initializer` is `"zeros"`, `"ones"` or a function of shape and dtype."""
    makers = {"zeros": jnp.zeros, "ones": jnp.ones}
    make: Any = makers.get(initializer, initializer) if isinstance(initializer, str) else initializer
    if not callable(make):
        expected = "'zeros', 'ones' or a function of shape and dtype"
        raise ValueError(f"{where}: initializer must be {expected}, got {initializer!r}")
    return jnp.asarray(make(tuple(shape), dtype=jnp.dtype(dtype or "float32")))


class Variables(NamedTuple):
    """The leaves of what was given as parameters."""

    leaves: list[Any]
    "Arrays or variables."
    treedef: Any
    "The structure around them."
    names: list[str]
    "`dense/kernel`: the variable's own path, or where in the tree the array is."
    values: list[Any]
    "Their arrays."
    are_assignable: bool
    "Whether they are variables, rather than arrays."

    @classmethod
    def of(cls, params: Tree) -> "Variables":
        """Those of any tree of arrays or variables."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_variable)
        assignable = sum(map(is_variable, leaves))
        if 0 < assignable < len(leaves):
            raise TypeError("variables and arrays are mixed: variables are assigned, arrays handed back; give one kind")
        places = leaf_names(treedef.unflatten(list(range(len(leaves)))))
        own = [getattr(leaf, "path", getattr(leaf, "name", None)) for leaf in leaves]
        names = [name or place for name, place in zip(own, places, strict=True)]
        return cls(leaves, treedef, names, list(map(array, leaves)), assignable > 0)

    def handed_back(self, values: list[Any]) -> Any:
        """The values to whom they belong: variables are assigned, of arrays a tree like theirs is given."""
        if not self.are_assignable:
            return self.treedef.unflatten(values)
        for variable, value in zip(self.leaves, values, strict=True):
            variable.assign(value)
        return None


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that occurred before."""
    seen: collections.Counter[str] = collections.Counter()
    taken, different = set(names), []
    for name in names:
        seen[name] += 1
        new = name if seen[name] == 1 else f"{name}_{seen[name] - 1}"
        while seen[name] > 1 and new in taken:
            new += "_"
        taken.add(new)
        different.append(new)
    return different
