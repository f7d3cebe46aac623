"""Inputs against the signature of a model: names, element types, axes, sizes and what `require` promises of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.ir.dims import Dim, DimError, Size, evaluate, names_of
from tfdsl.ir.graph import Constraint, Graph, Node
from tfdsl.ir.states import states
from tfdsl.language.diagnostics import Collector, Diagnostic, did_you_mean

Array = npt.NDArray[Any]

_KINDS = {"float": "f", "int": "iu", "bool": "b"}
_DTYPES: dict[str, Any] = {"float": np.float64, "int": np.int64, "bool": np.bool_}
_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def bind_sizes(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The number that each named size has in these inputs. Raises `SpecError` with all that does not fit."""
    faults = Collector()
    signature = {graph.node(node).attributes["name"]: graph.node(node) for node in graph.inputs}
    for name, node in signature.items():
        if name not in inputs:
            faults.add(Diagnostic("T705", f"the input `{name}: {node.type}` is missing", node.span))
    for name in inputs:
        if name not in signature:
            help = did_you_mean(name, signature, f"its inputs are {', '.join(signature)}")
            faults.add(Diagnostic("T705", f"`{graph.name}` has no input `{name}`", help=help))
    fitting = {name: node for name, node in signature.items() if name in inputs and _fits(node, inputs[name], faults)}
    faults.check()
    sizes = _plain_sizes(fitting, inputs, faults)
    _check_sizes(fitting, inputs, sizes, faults)
    faults.check()
    for constraint in graph.constraints:
        if not holds(constraint, sizes):
            faults.add(_broken(constraint, sizes))
    faults.check()
    return sizes


def state_sizes(graph: Graph, state: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that states alone tell: how much is kept of what slides."""
    found: dict[str, int] = {}
    for each in states(graph):
        if each.axis is None:
            continue
        size = each.type.dims[each.axis]
        if isinstance(size, Dim) and size.name is not None:
            known = state.get(each.paths[0])
            found[size.name] = each.fill if known is None else known.shape[each.axis]
    return found


def converted(node: Node, inputs: Mapping[str, Array]) -> Array:
    """An input in the element type that the reference computes in."""
    return np.asarray(inputs[node.attributes["name"]]).astype(_DTYPES[node.type.dtype])


def holds(constraint: Constraint, sizes: Mapping[str, int]) -> bool:
    """Whether a `require` is met; a quotient that is not whole does not meet it."""
    try:
        return _HOLDS[constraint.operator](evaluate(constraint.left, sizes), evaluate(constraint.right, sizes))
    except DimError:
        return False


def _fits(node: Node, value: Array, faults: Collector) -> bool:
    """Whether an array has the element type and the number of axes that the signature gives."""
    name, array = node.attributes["name"], np.asarray(value)
    if array.dtype.kind not in _KINDS[node.type.dtype]:
        message = f"the input `{name}` is {array.dtype}, and the model takes {node.type.dtype}"
        faults.add(Diagnostic("T705", message, node.span))
        return False
    if array.ndim != len(node.type.dims):
        message = f"the input `{name}` has {array.ndim} axes, and the model takes {node.type}"
        faults.add(Diagnostic("T705", message, node.span, note=f"it is {list(array.shape)}"))
        return False
    return True


def _plain_sizes(signature: Mapping[str, Node], inputs: Mapping[str, Array], faults: Collector) -> dict[str, int]:
    """Sizes from the axes that are one name; every name of a model is such an axis of some input."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for name, node in signature.items():
        for dim, number in zip(node.type.dims, np.shape(inputs[name]), strict=True):
            symbol = dim.name if isinstance(dim, Dim) else None
            if symbol is None:
                continue
            if number < 1 and symbol not in sizes:
                faults.add(Diagnostic("T705", f"`{symbol}` is {number} in the input `{name}`", node.span))
            if sizes.setdefault(symbol, number) != number:
                message = f"`{symbol}` is {sizes[symbol]} in the input `{first[symbol]}` and {number} in `{name}`"
                faults.add(Diagnostic("T705", message, node.span))
            first.setdefault(symbol, name)
    return sizes


def _check_sizes(
    signature: Mapping[str, Node], inputs: Mapping[str, Array], sizes: Mapping[str, int], faults: Collector
) -> None:
    """Refuse axes that are given as a number, or as an expression, and have another size."""
    for name, node in signature.items():
        for place, (dim, number) in enumerate(zip(node.type.dims, np.shape(inputs[name]), strict=True)):
            if isinstance(dim, Dim) and dim.name is not None:
                continue
            try:
                wanted: int | None = evaluate(dim, sizes)
            except DimError:
                wanted = None
            if wanted != number:
                shown = f"{dim} = {wanted}" if isinstance(dim, Dim) and wanted is not None else str(dim)
                message = f"axis {place} of the input `{name}` is {number}, and the model takes {shown}"
                faults.add(Diagnostic("T705", message, node.span))


def _broken(constraint: Constraint, sizes: Mapping[str, int]) -> Diagnostic:
    sides: list[Size] = [constraint.left, constraint.right]
    bound = ", ".join(f"{name} = {sizes[name]}" for name in sorted(names_of(sides)))
    message = f"`{constraint.left} {constraint.operator} {constraint.right}` does not hold with {bound}"
    return Diagnostic("T706", message, constraint.span, note=constraint.why)
