"""Loop invariants: what is the same in every turn of a loop, or at every position of a recurrence, is computed once."""

from __future__ import annotations

import itertools
from typing import Any

from tfdsl.ir.graph import Graph, Loop, Node, Value, changing, own_loops
from tfdsl.ir.states import WITH_PATH
from tfdsl.passes.regions import is_random
from tfdsl.passes.report import Report

# What costs nothing to do again: alone, it is not worth another input of the loop.
_CHEAP = {
    "input",
    "weight",
    "constant",
    "iota",
    "tensor",
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
        if loop.op in ("repeat", "scan") and loop.attributes["turns"]:
            for body in loop.bodies:
                count += _hoist_from(graph, loop, body, report)
    return count


def _hoist_from(graph: Graph, loop: Node, body: Graph, report: Report) -> int:
    worth = _worth_moving(body, _invariants(loop, body))
    results = set(body.results())
    leaving = [
        Value(node.id, index)
        for node in body.nodes()
        if node.id in worth
        for index in range(len(node.types))
        if Value(node.id, index) in results
        or any(user.id not in worth for user, _ in body.users(Value(node.id, index)))
    ]
    twins = _twins(graph, loop, body, leaving)
    for value in leaving:
        node = body.node(value)
        _read_from_outside(graph, loop, body, value, twins[value])
        report.change(f"`{node.name or node.op}` is the same in every turn of `{loop.attributes['path']}`", body, node)
    return len(leaving)


def _invariants(loop: Node, body: Graph) -> set[int]:
    """The nodes of a body that give the same in every turn."""
    found: set[int] = set()
    first = changing(loop)
    for node in body.nodes():
        if node.op == "input":
            same = body.inputs.index(node.id) >= first
        elif node.op == "weight":
            same = not own_loops(node.attributes["path"], [Loop(loop.attributes["path"], ())])
        elif node.op in WITH_PATH:
            same = False  # each turn has a state of its own
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


def _twins(graph: Graph, loop: Node, body: Graph, values: list[Value]) -> dict[Value, Value]:
    """What stands outside the loop for some invariants of a body, and for all that they read."""
    nodes = body.nodes()
    needed = {value.node for value in values}
    for node in reversed(nodes):
        if node.id in needed:
            needed.update(value.node for value in node.inputs if value is not None)
    inputs = zip(body.inputs, loop.inputs, strict=True)
    twins = {Value(place): value for place, value in inputs if value is not None}
    for node in nodes:
        if node.id in needed and node.op != "input":
            read = [None if value is None else twins[value] for value in node.inputs]
            rest: dict[str, Any] = {"name": node.name, "scope": loop.scope, "span": node.span, "labels": node.labels}
            made = graph.add(node.op, read, node.attributes, node.types, order=loop.order - 0.5, **rest)
            twins |= {Value(node.id, index): Value(made.id, index) for index in range(len(node.types))}
    return twins


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
