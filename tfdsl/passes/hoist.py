"""Loop invariants: what is the same in every turn of a loop is computed once, before it."""

from __future__ import annotations

import itertools

from tfdsl.ir.graph import Graph, Loop, Node, Value, own_loops
from tfdsl.passes.regions import is_random
from tfdsl.passes.report import Report

# What costs nothing to do again: alone, it is not worth another input of the loop.
_CHEAP = {
    "input",
    "weight",
    "constant",
    "iota",
    "positions",
    "rearrange",
    "swap",
    "expand",
    "cast",
    "slice",
    "select",
    "split",
}
_BUILD_TIME = {"prune", "quantize", "dequantize"}  # part of a weight, and stays beside it


def hoist(graph: Graph, report: Report) -> int:
    """Move the invariants of the loops of a region into it. How many values moved."""
    count = 0
    for loop in graph.nodes():
        if loop.op == "repeat" and loop.attributes["turns"]:
            for body in loop.bodies:
                count += _hoist_from(graph, loop, body, report)
    return count


def _hoist_from(graph: Graph, loop: Node, body: Graph, report: Report) -> int:
    invariant = _invariants(loop, body)
    worth = _worth_moving(body, invariant)
    moved: dict[int, Node] = {}
    count = 0
    results = set(body.results())
    for node in body.nodes():
        if node.id not in worth:
            continue
        for index in range(len(node.types)):
            value = Value(node.id, index)
            if value in results or any(user.id not in worth for user, _ in body.users(value)):
                outside = Value(_move(graph, loop, body, node, moved).id, index)
                _read_from_outside(graph, loop, body, value, outside)
                report.change(f"`{node.op}` is the same in every turn of `{loop.attributes['path']}`", body, node)
                count += 1
    return count


def _invariants(loop: Node, body: Graph) -> set[int]:
    """The nodes of a body that give the same in every turn."""
    found: set[int] = set()
    carried = loop.attributes["carried"]
    for node in body.nodes():
        if node.op == "input":
            same = body.inputs.index(node.id) >= carried
        elif node.op == "weight":
            same = not own_loops(node.attributes["path"], [Loop(loop.attributes["path"], ())])
        else:
            same = not node.bodies and not is_random(node) and all(v is None or v.node in found for v in node.inputs)
        if same:
            found.add(node.id)
    return found


def _worth_moving(body: Graph, invariant: set[int]) -> set[int]:
    """The invariants that compute something, or read what does."""
    found: set[int] = set()
    for node in body.nodes():
        if node.id not in invariant or node.op in _BUILD_TIME:
            continue
        reads = any(value is not None and value.node in found for value in node.inputs)
        if reads or node.op not in _CHEAP:
            found.add(node.id)
    return found


def _move(graph: Graph, loop: Node, body: Graph, node: Node, moved: dict[int, Node]) -> Node:
    """The twin, outside the loop, of an invariant node and of all that it reads."""
    if node.id not in moved:
        inputs: list[Value | None] = []
        for value in node.inputs:
            source = body.node(value) if value is not None else None
            if value is None or source is None:
                inputs.append(None)
            elif source.op == "input":
                inputs.append(loop.inputs[body.inputs.index(source.id)])
            else:
                inputs.append(Value(_move(graph, loop, body, source, moved).id, value.index))
        moved[node.id] = graph.add(
            node.op,
            inputs,
            node.attributes,
            node.types,
            name=node.name,
            scope=loop.scope,
            span=node.span,
            labels=node.labels,
            order=loop.order - 0.5,
        )
    return moved[node.id]


def _read_from_outside(graph: Graph, loop: Node, body: Graph, value: Value, outside: Value) -> None:
    """Give the loop another input, and let a body read it in the place of a value that was computed there."""
    node = body.node(value)
    name = (node.labels[value.index] if value.index < len(node.labels) else "") or node.name or node.op
    taken = {each.node(entry).attributes["name"] for each in loop.bodies for entry in each.inputs}
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    name = next(each for each in names if each not in taken)
    graph.set_inputs(loop, (*loop.inputs, outside))
    for each in loop.bodies:
        entry = each.add("input", (), {"name": name}, (graph.type(outside),), name=name)
        if each is body:
            body.redirect(value, Value(entry.id))
