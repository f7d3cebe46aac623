"""The last position only: what decoding reads of its output, taken as early as the ops before it allow."""

from __future__ import annotations

from tfdsl.ir.axes import flows, settings
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.dead import drop_dead
from tfdsl.passes.report import Report

# Ops that are done for the last position as well as for all of them, if those of their operands' axes are.
_NEVER = {
    "input",
    "repeat",
    "route",
    "scan",
    "recall",
    "remember",
    "append",
    "running_attend",
    "running_sum",
    "conv1d",
    "positions",
    "iota",
    "tensor",
    "weight",
}


def last_position(graph: Graph, *, attention: bool = True) -> Graph:
    """The graph with axis 1 of its first output cut to its last position, and all before it that nothing else reads.

    A step of prefill then computes the head, and the last layer after its keys and values, for one position.
    With `attention=False`, attention stays as it is: some targets take no fewer queries than new keys.
    """
    graph = graph.copy()
    name, value = graph.outputs[0]
    graph.outputs[0] = (name, _cut(graph, value, 1, _pushed(graph, value, attention), {}))
    drop_dead(graph, Report("last_position"))
    return graph


def _pushed(graph: Graph, output: Value, attention: bool) -> set[tuple[Value, int]]:
    """The values, each with its axis of positions, that are to be computed for the last position alone."""
    outputs = [value for _, value in graph.outputs[1:]]
    wanted, found = {(output, 1)}, set()
    for node in reversed(graph.nodes()):
        value = Value(node.id)
        axes = {axis for each, axis in wanted if each == value}
        if len(axes) != 1 or value in outputs:
            continue
        (axis,) = axes
        if not _passes(graph, node, axis, attention):
            continue
        operands = _operands(graph, node, axis)
        if all(each is None for _, each in operands):
            continue
        readers = [(Value(user.id), flows(graph, user)[place][axis]) for user, place in graph.users(value)]
        if all(reader in found for reader in readers):
            found.add((value, axis))
            for operand, each in operands:
                if operand is not None and each is not None:
                    wanted.add((operand, each))
    return found


def _operands(graph: Graph, node: Node, axis: int) -> list[tuple[Value | None, int | None]]:
    """The operands of a node, with the axis on which the positions of its result lie; None where they do not."""
    size = node.type.dims[axis]
    found: list[tuple[Value | None, int | None]] = []
    for operand, goes in zip(node.inputs, flows(graph, node), strict=True):
        mine = [each for each, to in enumerate(goes) if to == axis]
        fits = operand is not None and mine and graph.type(operand).dims[mine[0]] == size
        found.append((operand, mine[0] if fits else None))
    return found


def _passes(graph: Graph, node: Node, axis: int, attention: bool) -> bool:
    """Whether an op can be done for the last position as it is done for all."""
    if node.op in _NEVER or len(node.types) != 1 or (node.op == "attend" and not attention):
        return False
    a = settings(graph, node)
    if "shape" in node.attributes or getattr(a, "axis", None) == axis:
        return False
    sizes = node.attributes.get("sizes")
    return not (node.op == "rearrange" and sizes and node.type.dims[axis] in dict(sizes).values())


def _cut(graph: Graph, value: Value, axis: int, pushed: set[tuple[Value, int]], made: dict[Value, Value]) -> Value:
    """A value of the last position: what makes it done for that one, or a slice of it."""
    if value in made:
        return made[value]
    node = graph.node(value)
    size = graph.type(value).dims[axis]
    if (value, axis) not in pushed:
        made[value] = Value(graph.add("slice", (value,), {"axis": axis, "start": size - 1}, like=node, name="last").id)
        return made[value]
    inputs = [
        operand if operand is None or each is None else _cut(graph, operand, each, pushed, made)
        for operand, each in _operands(graph, node, axis)
    ]
    attributes = dict(node.attributes)
    if node.op == "attend" and axis == 2:
        attributes["offset"] = attributes.get("offset", 0) + size - 1
    twin = graph.add(node.op, inputs, attributes, like=node, spelled=dict(node.spelled), labels=node.labels)
    made[value] = Value(twin.id)
    return made[value]
