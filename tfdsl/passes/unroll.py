"""Loops unrolled: every turn as nodes of its own, every weight under a path without `*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfdsl.ir.graph import Frame, Graph, Loop, Node, Value, fill_path
from tfdsl.ir.states import WITH_PATH
from tfdsl.language.diagnostics import one

MOST_NODES = 1_000_000
_NODES_AN_EXPERT = 7  # besides those of its body; the first has nothing to be added to


def unroll(graph: Graph) -> Graph:
    """The graph without loops and routes. Raises `SpecError` (T606) for more than a million nodes."""
    count = count_unrolled(graph)
    if count > MOST_NODES:
        span = max(graph.nodes(), key=_size_of).span
        message = f"`{graph.name}` would have {count:,} nodes unrolled, and {MOST_NODES:,} are the most"
        raise one("T606", message, span, help="fewer turns, or a target that keeps loops")
    flat = Graph(graph.name)
    flat.frame, flat.constraints = graph.frame, list(graph.constraints)
    values: dict[Value, Value] = {}
    for node in map(graph.node, graph.inputs):
        values[Value(node.id)] = Value(_copy(flat, node, values, _Turn((), ())).id)
    _lay_out(flat, graph, values, _Turn((), ()))
    flat.outputs = [(name, values[value]) for name, value in graph.outputs]
    return flat


def count_unrolled(graph: Graph) -> int:
    """How many nodes a graph has once its loops are unrolled."""
    return len(graph.inputs) + sum(map(_size_of, graph.nodes()))


def _size_of(node: Node) -> int:
    """How many nodes one becomes; the inputs of a body become what the loop reads."""
    if node.op not in ("repeat", "route"):
        inside = sum(_size_of(each) for body in node.bodies for each in body.nodes())
        return inside + int(node.op != "input")
    sizes = [sum(map(_size_of, body.nodes())) for body in node.bodies]
    own = _NODES_AN_EXPERT * len(node.attributes["turns"]) - 1 if node.op == "route" else 0
    return own + sum(sizes[body] for body in node.attributes["turns"])


class _Turn:
    """One turn: the turns of the loops around it, the scope that its loop is in, and its own copies of frames."""

    def __init__(self, loops: tuple[Loop, ...], scope: tuple[Frame, ...]):
        self.loops = loops
        self._scope = scope
        self._frames: dict[int, Frame] = {}

    def path(self, path: str) -> str:
        """A weight path with the indices of this turn."""
        return fill_path(path, self.loops)

    def scope(self, scope: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """The frames that a node of the body is in, out here."""
        for frame in scope:
            if id(frame) not in self._frames:
                self._frames[id(frame)] = replace(frame, path=self.path(frame.path))
        return (*self._scope, *(self._frames[id(frame)] for frame in scope))


def _lay_out(flat: Graph, region: Graph, values: dict[Value, Value], turn: _Turn) -> None:
    """Add the nodes of a region; `values` maps its values to those of `flat`, its inputs at first and all after it."""
    for node in region.nodes():
        if node.op == "repeat":
            _turns(flat, node, values, turn)
        elif node.op == "route":
            _experts(flat, node, values, turn)
        elif node.op != "input":
            made = _copy(flat, node, values, turn)
            made.bodies = tuple(_step(body, node, turn) for body in node.bodies)
            for index in range(len(node.types)):
                values[Value(node.id, index)] = Value(made.id, index)
    flat.penalties += [(name, values[value]) for name, value in region.penalties]


def _turns(flat: Graph, loop: Node, values: dict[Value, Value], turn: _Turn) -> None:
    inputs = [values[value] for value in loop.inputs if value is not None]
    carried, captured = inputs[: loop.attributes["carried"]], inputs[loop.attributes["carried"] :]
    scope = turn.scope(loop.scope)
    for index, variant in enumerate(loop.attributes["turns"]):
        body = loop.bodies[variant]
        given = zip(body.inputs, (*carried, *captured), strict=True)
        inside = {Value(place): value for place, value in given}
        _lay_out(flat, body, inside, _Turn((*turn.loops, Loop(loop.attributes["path"], (index,))), scope))
        carried = [inside[value] for _, value in body.outputs]
    for position, value in enumerate(carried):
        values[Value(loop.id, position)] = value


def _step(body: Graph, scan: Node, turn: _Turn) -> Graph:
    """The step of a recurrence, which stays a graph of its own: how many positions there are, only run time knows."""
    flat = Graph(body.name)
    flat.frame = body.frame
    values: dict[Value, Value] = {}
    inside = _Turn(turn.loops, turn.scope(scan.scope))
    for place in body.inputs:
        values[Value(place)] = Value(_copy(flat, body.node(place), values, inside).id)
    _lay_out(flat, body, values, inside)
    flat.outputs = [(name, values[value]) for name, value in body.outputs]
    return flat


def _experts(flat: Graph, route: Node, values: dict[Value, Value], turn: _Turn) -> None:
    """Every expert over all rows, each row's result times the weights of the slots that chose the expert."""
    x, chosen, weight, *captured = (values[value] for value in route.inputs if value is not None)
    scope = turn.scope(route.scope)

    def node(op: str, *inputs: Value, **attributes: Any) -> Value:
        return Value(flat.add(op, inputs, attributes, name=op, scope=scope, span=route.span).id)

    total: Value | None = None
    for expert, variant in enumerate(route.attributes["turns"]):
        body = route.bodies[variant]
        inside = {Value(place): value for place, value in zip(body.inputs, (x, *captured), strict=True)}
        _lay_out(flat, body, inside, _Turn((*turn.loops, Loop(route.attributes["path"], (expert,))), scope))
        ((_, made),) = body.outputs
        here = node("eq", chosen, node("constant", value=expert, dtype="int"))
        share = node("where", here, weight, node("constant", value=0.0, dtype="float"))
        part = node("mul", inside[made], node("sum", share, axis=1, keep=True))
        total = part if total is None else node("add", total, part)
    assert total is not None
    values[Value(route.id)] = total


def _copy(flat: Graph, node: Node, values: Mapping[Value, Value], turn: _Turn) -> Node:
    attributes: dict[str, Any] = dict(node.attributes)
    if node.op in ("weight", "scan", *WITH_PATH):
        attributes["path"] = turn.path(attributes["path"])
    return flat.add(
        node.op,
        [None if value is None else values[value] for value in node.inputs],
        attributes,
        node.types,
        name=node.name,
        scope=turn.scope(node.scope),
        span=node.span,
        spelled=dict(node.spelled),
        labels=node.labels,
    )
