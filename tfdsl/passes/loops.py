"""What loops run and read without need: no turns, bodies that no turn takes, one outer value read as several."""

from __future__ import annotations

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.report import Report


def settle_loops(graph: Graph, report: Report) -> int:
    """Drop the loops of a region that take no turn, bodies that none takes, and inputs that others stand for."""
    count = 0
    for loop in graph.nodes():
        if loop.op == "repeat":
            if loop.attributes["turns"]:
                count += _drop_bodies(graph, loop, report) + _share_inputs(graph, loop)
            else:
                count += _drop_loop(graph, loop, report)
    return count


def _drop_loop(graph: Graph, loop: Node, report: Report) -> int:
    for index, value in enumerate(loop.inputs[: loop.attributes["carried"]]):
        assert value is not None
        graph.redirect(Value(loop.id, index), value)
    report.change(f"`{loop.attributes['path']}` takes no turn", graph, loop)
    graph.remove(loop)
    return 1


def _drop_bodies(graph: Graph, loop: Node, report: Report) -> int:
    turns = loop.attributes["turns"]
    used = sorted(set(turns))
    unused = len(loop.bodies) - len(used)
    if unused:
        bodies = "a body" if unused == 1 else f"{unused} bodies"
        report.change(f"no turn takes {bodies} of `{loop.attributes['path']}`", graph, loop)
        loop.bodies = tuple(loop.bodies[variant] for variant in used)
        loop.attributes["turns"] = tuple(used.index(variant) for variant in turns)
    return unused


def _share_inputs(graph: Graph, loop: Node) -> int:
    """Let bodies read an outer value by one input, and weights and constants by none; the inputs left over are dead."""
    count = 0
    carried = loop.attributes["carried"]
    for place, value in enumerate(loop.inputs[carried:], carried):
        assert value is not None
        source = graph.node(value)
        first = loop.inputs.index(value, carried)
        for body in loop.bodies:
            entry = Value(body.inputs[place])
            if not body.users(entry) and not body.is_result(entry):
                continue
            if source.op in ("weight", "constant"):
                twin = body.add(source.op, (), source.attributes, source.types, name=source.name, span=source.span)
                body.redirect(entry, Value(twin.id))
                count += 1
            elif first < place:
                body.redirect(entry, Value(body.inputs[first]))
                count += 1
    return count
