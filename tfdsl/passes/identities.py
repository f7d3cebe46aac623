"""Nodes that only repeat one of their operands: `x * 1`, `x + 0`, a cast to the type it has, a rearrangement undone.

`IDENTITIES` is the table. An entry gives the value that a node repeats, or None; whatever it gives is taken only where
it has the very type of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import Rearrangement, parse_einsum, rearrangement
from tfdsl.passes.constants import constant
from tfdsl.passes.report import Report

Identity = Callable[[Graph, Node, Attributes], Value | None]


def drop_identities(graph: Graph, report: Report) -> int:
    """Let the readers of such nodes of a region read the operand; how many there were."""
    count = 0
    for node in graph.nodes():
        identity = IDENTITIES.get(node.op)
        if identity is None or len(node.types) != 1:
            continue
        value = identity(graph, node, OPS[node.op].fill(node.attributes))
        if value is not None and graph.type(value) == node.type:
            report.change(f"`{node.op}` changes nothing here", graph, node)
            graph.redirect(Value(node.id), value)
            graph.remove(node)
            count += 1
    return count


def _neutral(number: Any, *places: int) -> Identity:
    """An op of two operands that gives the other one where the operand at one of some places is a number."""

    def identity(graph: Graph, node: Node, a: Attributes) -> Value | None:
        for place in places:
            value = constant(graph, node.inputs[place])
            if isinstance(value, (bool, int, float)) and value == number:
                return node.inputs[1 - place]
        return None

    return identity


def _same(*places: int) -> Identity:
    """An op that gives its operand where those at some places are one value."""

    def identity(graph: Graph, node: Node, a: Attributes) -> Value | None:
        first, *others = (node.inputs[place] for place in places)
        return first if all(other == first for other in others) else None

    return identity


def _either(*identities: Identity) -> Identity:
    def identity(graph: Graph, node: Node, a: Attributes) -> Value | None:
        found = (each(graph, node, a) for each in identities)
        return next((value for value in found if value is not None), None)

    return identity


def _unless(name: str, *values: Any) -> Identity:
    """An op that gives its operand where an attribute has one of some values."""
    return lambda graph, node, a: node.inputs[0] if getattr(a, name) in values else None


def _always(graph: Graph, node: Node, a: Attributes) -> Value | None:
    """An op that gives its operand wherever that has the type of the result."""
    return node.inputs[0]


def _inner(graph: Graph, node: Node) -> Node | None:
    """The node whose only result a node of the same op reads."""
    value = node.inputs[0]
    inner = graph.node(value) if value is not None else None
    return inner if inner is not None and inner.op == node.op else None


def _undone(graph: Graph, node: Node, a: Attributes) -> Value | None:
    """`-(-x)`, `not not x`."""
    inner = _inner(graph, node)
    return inner.inputs[0] if inner is not None else None


def _done_already(graph: Graph, node: Node, a: Attributes) -> Value | None:
    """`relu(relu(x))`."""
    return node.inputs[0] if _inner(graph, node) is not None else None


def _where(graph: Graph, node: Node, a: Attributes) -> Value | None:
    condition = constant(graph, node.inputs[0])
    if condition is None:
        return _same(1, 2)(graph, node, a)
    return node.inputs[1] if condition else node.inputs[2]


def _swap(graph: Graph, node: Node, a: Attributes) -> Value | None:
    if a.first == a.second:
        return node.inputs[0]
    inner = _inner(graph, node)
    if inner is None:
        return None
    before = OPS["swap"].fill(inner.attributes)
    return inner.inputs[0] if {before.first, before.second} == {a.first, a.second} else None


def _slice(graph: Graph, node: Node, a: Attributes) -> Value | None:
    value = node.inputs[0]
    assert value is not None
    size = graph.type(value).dims[a.axis]
    return value if a.start == 0 and a.stop in (None, size) and a.step == 1 else None


def _pad(graph: Graph, node: Node, a: Attributes) -> Value | None:
    return node.inputs[0] if a.before == 0 and a.after == 0 else None


def _concat(graph: Graph, node: Node, a: Attributes) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _einsum(graph: Graph, node: Node, a: Attributes) -> Value | None:
    operands, result = parse_einsum(a.pattern)
    return node.inputs[0] if operands == (result,) and len(set(result)) == len(result) else None


def _steps(graph: Graph, node: Node) -> Rearrangement:
    a = OPS["rearrange"].fill(node.attributes)
    value = node.inputs[0]
    assert value is not None
    return rearrangement(a.pattern, graph.type(value).dims, dict(a.sizes or ()))


def _rearrange(graph: Graph, node: Node, a: Attributes) -> Value | None:
    steps = _steps(graph, node)
    if _in_order([axis for axis in steps.order if steps.split[axis] != 1]):
        return node.inputs[0]
    inner = _inner(graph, node)
    if inner is None:
        return None
    before = _steps(graph, inner)
    # The axes that the inner one leaves and those that the outer one starts from, without axes of one element.
    left = [axis for axis in before.order if before.split[axis] != 1]
    started = [axis for axis, size in enumerate(steps.split) if size != 1]
    if [before.split[axis] for axis in left] != [steps.split[axis] for axis in started]:
        return None
    order = [left[started.index(axis)] for axis in steps.order if steps.split[axis] != 1]
    return inner.inputs[0] if _in_order(order) else None


def _in_order(axes: Sequence[Size]) -> bool:
    return list(axes) == sorted(axes)  # type: ignore[type-var]


IDENTITIES: dict[str, Identity] = {
    "add": _neutral(0, 0, 1),
    "sub": _neutral(0, 1),
    "mul": _neutral(1, 0, 1),
    "div": _neutral(1, 1),
    "pow": _neutral(1, 1),
    "floordiv": _neutral(1, 1),
    "maximum": _same(0, 1),
    "minimum": _same(0, 1),
    "both": _either(_same(0, 1), _neutral(True, 0, 1)),
    "either": _either(_same(0, 1), _neutral(False, 0, 1)),
    "neg": _undone,
    "negate": _undone,
    "abs": _done_already,
    "relu": _done_already,
    "floor": _done_already,
    "cast": _always,
    "expand": _always,
    "where": _where,
    "dropout": _unless("p", 0),
    "drop_path": _unless("p", 0),
    "roll": _unless("shift", 0),
    "swap": _swap,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "einsum": _einsum,
    "rearrange": _rearrange,
}
