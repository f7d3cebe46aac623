"""Whether a region treats the rows of its input by themselves, so that some of them may be left out.

Each value of the region has an axis that its rows lie on, or none where it does not depend on them. Where the rows of a
node's results lie follows from what the op does along each axis (`axes.py`); one that lets rows mix, or that asks how many
there are, raises `Mixes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfdsl.ir.axes import flows, settings, sizes_in
from tfdsl.ir.dims import Dim, Size, names_of
from tfdsl.ir.graph import Graph, Node, Value

Axis = int | None


class Mixes(Exception):
    """A node whose results are not made of one row each; `counts` is for one that asks how many there are."""

    def __init__(self, node: Node, counts: bool = False):
        super().__init__(node.op)
        self.node, self.counts = node, counts


def check_rows(graph: Graph, axes: Sequence[Axis], rows: Size) -> tuple[Axis, ...]:
    """The axes that the rows of a region's outputs lie on, given those of its inputs; `rows` is how many there are.

    Raises `Mixes` at the first node that is not computed for each row by itself.
    """
    names = names_of([rows])
    known: dict[Value, Axis] = {Value(place): axis for place, axis in zip(graph.inputs, axes, strict=True)}
    for node in graph.nodes():
        if node.op != "input":
            if names_of(_sizes(tuple(node.attributes.values()))) & names:
                raise Mixes(node, counts=True)
            found = _axes_of(graph, node, known, rows)
            known.update({Value(node.id, index): axis for index, axis in enumerate(found)})
    return tuple(known[value] for _, value in graph.outputs)


def _sizes(value: Any) -> list[Dim]:
    return [size for size in sizes_in(value) if isinstance(size, Dim)]


def _axes_of(graph: Graph, node: Node, known: dict[Value, Axis], rows: Size) -> tuple[Axis, ...]:
    axes = [None if value is None else known[value] for value in node.inputs]
    if node.op == "repeat":
        return _repeat(node, axes, rows)
    if all(axis is None for axis in axes):
        return (None,) * len(node.types)
    if node.op == "positions":
        if settings(graph, node).axis == axes[0]:
            raise Mixes(node)
        return (None,)
    if node.op == "attend" and (axes[:3] != [0, 0, 0] or any(value is not None for value in node.inputs[3:])):
        raise Mixes(node)  # what is said of pairs of positions would have to be said of rows
    return (_result_axis(graph, node, axes),) * len(node.types)


def _result_axis(graph: Graph, node: Node, axes: list[Axis]) -> int:
    """The axis of the results that the rows of the operands go to; the other operands must be the same for all rows."""
    goes = flows(graph, node)
    found = {goes[place][axis] for place, axis in enumerate(axes) if axis is not None}
    if len(found) != 1 or None in found:
        raise Mixes(node)
    (result,) = found
    assert result is not None
    for value, axis, places in zip(node.inputs, axes, goes, strict=True):
        if value is not None and axis is None:
            sizes = [size for size, place in zip(graph.type(value).dims, places, strict=True) if place == result]
            if any(size != 1 for size in sizes):
                raise Mixes(node)
    return result


def _repeat(node: Node, axes: list[Axis], rows: Size) -> tuple[Axis, ...]:
    """A loop: what is carried keeps its axis from turn to turn."""
    carried = node.attributes["carried"]
    for body in node.bodies:
        if list(check_rows(body, axes, rows)) != axes[:carried]:
            raise Mixes(node)
    return tuple(axes[:carried])
