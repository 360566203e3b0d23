"""The parameters that an optimizer was built for, and whether what it is given at a step are these."""

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import numpy as np

from gradtx.core import check
from gradtx.core.tree import Tree
from gradtx.keras.engine.variable import Variables, array, is_variable, unique

__all__ = ["Parameters"]


class Parameters:
    """Names, shapes and dtypes of the parameters; and the variables, if it was built for variables."""

    def __init__(self, owner: str, given: Variables) -> None:
        """`owner` is the class of the optimizer, which messages name."""
        values = dict(zip(unique(given.names), given.values, strict=True))
        check.inexact_leaves(f"{owner}: params", values, "leave it out of the parameters")
        self.owner = owner
        self.shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in values.items()}
        self.variables = given.leaves if given.are_assignable else None
        self._last: tuple[Any, ...] | None = None

    def as_those_of(self, owner: str) -> "Parameters":
        """The same, for an optimizer of another class that holds this one."""
        twin = object.__new__(Parameters)
        vars(twin).update(vars(self), owner=owner)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "variables": None, "_last": None}  # a copy knows variables by their names

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return list(self.shapes)

    def recognised(self, params: Tree) -> Variables:
        """What was given, under the names by which it is known.

        Raises:
            ValueError: others than those it was built for.
        """
        if (again := self._as_last_time(params)) is not None:
            return again
        given = Variables.of(params)
        given = given._replace(names=self._names_of(given))
        kept = given.leaves if given.are_assignable else None
        self._last = type(params), given.treedef, given.names, kept, [value.aval for value in given.values]
        return given

    def _as_last_time(self, params: Tree) -> Variables | None:
        """What was given, if it differs from the last time in values only: no path is asked for then."""
        if self._last is None:
            return None
        kind, treedef, names, variables, avals = self._last
        if variables is not None:
            is_same = type(params) is kind in (list, tuple) and len(params) == len(variables)
            if not is_same or not all(map(operator.is_, params, variables)):
                return None
            return Variables(variables, treedef, names, list(map(array, variables)), True)
        values, structure = jax.tree_util.tree_flatten(params)
        if structure != treedef or not all(map(isinstance, values, itertools.repeat(jax.Array))):
            return None
        for value, known in zip(values, avals, strict=True):
            aval = value.aval
            if aval.shape != known.shape or aval.dtype != known.dtype or aval.weak_type:
                return None
        return Variables(values, treedef, names, values, False)

    def _names_of(self, given: Variables) -> list[str]:
        if given.are_assignable and self.variables is not None:
            return self._names_of_variables(given)
        names = unique(given.names)
        if self.variables is not None and not given.are_assignable and len(names) == len(self.shapes):
            names = self.names  # the values of the variables it was built for, in their order
        if names != self.names and not (given.are_assignable and self.shapes.keys() == set(names)):
            raise ValueError(
                f"{self.owner}: built for {len(self.shapes)} parameters, {', '.join(self.shapes)}; "
                f"got {len(names)}, {', '.join(names)}: for others make another optimizer"
            )
        for name, value in zip(names, given.values, strict=True):
            if (value.shape, value.dtype) != (self.shapes[name].shape, self.shapes[name].dtype):
                raise ValueError(
                    f"{self.owner}: {name} was {check.describe(self.shapes[name])} when the optimizer was built, "
                    f"is {check.describe(value)} now"
                )
        if given.are_assignable:
            by_name = dict(zip(names, given.leaves, strict=True))
            self.variables = [by_name[name] for name in self.shapes]
        return names

    def _names_of_variables(self, given: Variables) -> list[str]:
        known = {id(variable): name for variable, name in zip(self.variables or (), self.shapes, strict=True)}
        names = [known.get(id(leaf)) for leaf in given.leaves]
        if all(names) and len(set(names)) == len(names):
            return [str(name) for name in names]
        strangers = [name for name, known_as in zip(given.names, names, strict=True) if known_as is None]
        raise ValueError(
            f"{self.owner}: built for the variables {', '.join(self.shapes)}, got "
            f"{'unknown ' + ', '.join(strangers) if strangers else 'one of them twice'}: "
            "for other variables make another optimizer"
        )

    def others(self, names: Sequence[str]) -> dict[str, Any]:
        """The values of the variables it was built for that are not among these."""
        if self.variables is None or len(names) == len(self.variables):
            return {}
        return {name: array(v) for name, v in zip(self.shapes, self.variables, strict=True) if name not in names}

    def gradients(self, grads: Tree, given: Variables) -> dict[str, Any]:
        """The gradient of each parameter, by name; `None` where there is none.

        Raises:
            ValueError: wrong number, structure or shapes.
            TypeError: not arrays, or variables in the place of their gradients.
        """
        try:
            each = given.treedef.flatten_up_to(_as_container(grads, given.treedef))
        except ValueError:
            raise ValueError(
                f"{self.owner}: expected a gradient for each of {len(given.names)} parameters, {given.treedef}, "
                f"got {jax.tree.structure(grads)}"
            ) from None
        for i, (grad, value) in enumerate(zip(each, given.values, strict=True)):
            if grad is None:
                continue
            if isinstance(grad, jax.Array) and grad.aval.shape == value.aval.shape and not grad.aval.weak_type:
                continue
            refuse_swapped(self.owner, each, given, self.variables)
            each[i] = self._gradient(given.names[i], grad, value)
        return dict(zip(given.names, each, strict=True))

    def _gradient(self, name: str, grad: Any, value: Any) -> Any:
        if not hasattr(grad, "shape") and not isinstance(grad, float | int):
            raise TypeError(f"{self.owner}: the gradient of {name} must be an array, got {check.describe(grad)}")
        if np.shape(grad) != value.shape:
            raise ValueError(
                f"{self.owner}: the gradient of {name} must have its shape {check.describe(value)}, "
                f"got {check.describe(grad)}"
            )
        return array(grad)


def _as_container(grads: Tree, treedef: Any) -> Tree:
    """Gradients in a list where the parameters are in a tuple, or the like: Keras takes any sequence."""
    if not isinstance(grads, list | tuple | Iterator) or hasattr(grads, "_fields"):
        return grads
    kind = type(treedef.unflatten([0] * treedef.num_leaves))
    return kind(grads) if kind in (list, tuple) else grads


def present(owner: str, grads: dict[str, Any]) -> dict[str, Any]:
    """The gradients that there are.

    Raises:
        ValueError: there is none.
    """
    active = {name: grad for name, grad in grads.items() if grad is not None}
    if not active:
        raise ValueError(f"{owner}: no gradient for any of {', '.join(grads)}: does the loss depend on them?")
    return active


def refuse_swapped(owner: str, grads: Sequence[Any], given: Variables, known: Sequence[Any] | None) -> None:
    """Refuse variables that stand where their gradients should; `known` are those that the optimizer was built for.

    Raises:
        TypeError: there are some.
    """
    held = {id(variable) for variable in known or ()}
    wrong = [grad for grad in grads if is_variable(grad)]
    if wrong and (not given.are_assignable or any(id(grad) in held for grad in wrong)):
        raise TypeError(
            f"{owner}: the variable {getattr(wrong[0], 'path', wrong[0].name)} was given as a "
            "gradient: gradients come first, apply(grads, variables), apply_gradients(zip(grads, variables))"
        )


def refuse_tracers(owner: str, *arrays: Iterable[Any]) -> None:
    """Refuse what a traced function computes with.

    Raises:
        TypeError: there is some of it.
    """
    if any(map(isinstance, itertools.chain(*arrays), itertools.repeat(jax.core.Tracer))):
        raise TypeError(
            f"{owner}: a step changes the optimizer, which a traced function may not: "
            "use stateless_apply inside jax.jit, or opt.transformation"
        )


def projections(names: Sequence[str], leaves: Sequence[Any]) -> tuple[tuple[str, Callable[..., Any]], ...]:
    """What variables want to be projected onto after each step, by their names."""
    wanted: Iterable[Any] = map(getattr, leaves, itertools.repeat("constraint"), itertools.repeat(None))
    return tuple([pair for pair in zip(names, wanted, strict=True) if pair[1] is not None])
