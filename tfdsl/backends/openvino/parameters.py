"""The inputs of an OpenVINO model: their names, element types, and sizes with what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Union

import openvino
from openvino import opset16

from tfdsl.backends.openvino.builder import ELEMENTS, Builder
from tfdsl.backends.prepare import check_names
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Constraint, Graph
from tfdsl.language.diagnostics import one

Range = tuple[int, int]
Dims = Mapping[str, Union[int, Range]]

_UNBOUNDED = -1  # as OpenVINO writes it
_FAR = 1 << 62
_ANY = (1, _FAR)
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LIMITS: dict[str, Callable[[int], Range]] = {
    "<": lambda number: (1, number - 1),
    "<=": lambda number: (1, number),
    ">": lambda number: (number + 1, _FAR),
    ">=": lambda number: (number, _FAR),
    "==": lambda number: (number, number),
}


def ranges(graph: Graph, dims: Dims) -> dict[str, Range]:
    """The least and the most of named sizes, from `dims` and from what the model requires. Raises `SpecError`."""
    found = {name: size for name, size in dims.items() if not isinstance(size, int)}
    check_names(graph, found)
    for name, (low, high) in found.items():
        if not 1 <= low <= high:
            raise one("T704", f"`{name}` cannot run from {low} to {high}", help="give the lower end, at least 1, first")
    for constraint in graph.constraints:
        limited, limits = _limits(constraint)
        if limited is not None and not isinstance(dims.get(limited), int):
            found[limited] = _meet(found.get(limited, _ANY), limits)
            if not 1 <= found[limited][0] <= found[limited][1]:
                shown = f"{constraint.left} {constraint.operator} {constraint.right}"
                raise one("T706", f"`{shown}` leaves no size for `{limited}`", constraint.span, note=constraint.why)
    return found


def add_parameters(b: Builder, limits: Mapping[str, Range], names: Mapping[str, str] | None = None) -> None:
    """Add an input to the model for each of the graph's, read or not; `names` says what some of them are called there."""
    for node in map(b.graph.node, b.graph.inputs):
        name = node.attributes["name"]
        shape = openvino.PartialShape([_dimension(dim, limits) for dim in node.type.dims])
        parameter = opset16.parameter(shape, ELEMENTS[node.type.dtype])
        # Runtimes look inputs up by either name, so the two are one.
        called = (names or {}).get(name, name)
        parameter.set_friendly_name(called)
        parameter.output(0).get_tensor().set_names({called})
        b.parameters[name] = parameter


def _limits(constraint: Constraint) -> tuple[str | None, Range]:
    """The name and the limits that a constraint gives to one name; no name where it says something else."""
    left, operator, right = constraint.left, constraint.operator, constraint.right
    if isinstance(left, int):
        left, operator, right = right, _MIRRORED.get(operator, operator), left
    if not isinstance(left, Dim) or not isinstance(right, int) or operator not in _LIMITS:
        return None, _ANY
    return left.name, _LIMITS[operator](right)


def _meet(first: Range, second: Range) -> Range:
    return max(first[0], second[0]), min(first[1], second[1])


def _dimension(dim: Size, limits: Mapping[str, Range]) -> openvino.Dimension:
    if isinstance(dim, int):
        return openvino.Dimension(dim)
    low, high = limits.get(dim.name or "", _ANY)
    if (low, high) == _ANY:
        return openvino.Dimension()
    return openvino.Dimension(low, _UNBOUNDED if high == _FAR else high)
