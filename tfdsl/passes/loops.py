"""Loops that run nothing: one without turns is what it begins with, and a body without turns is none."""

from __future__ import annotations

from tfdsl.ir.graph import Graph, Value
from tfdsl.passes.report import Report


def settle_loops(graph: Graph, report: Report) -> int:
    """Drop the loops of a region that take no turn, and the bodies that none takes; how many went."""
    count = 0
    for loop in graph.nodes():
        if loop.op != "repeat":
            continue
        turns = loop.attributes["turns"]
        used = sorted(set(turns))
        if not turns:
            for index, value in enumerate(loop.inputs[: loop.attributes["carried"]]):
                assert value is not None
                graph.redirect(Value(loop.id, index), value)
            report.change(f"`{loop.attributes['path']}` takes no turn", graph, loop)
            graph.remove(loop)
            count += 1
        elif len(used) < len(loop.bodies):
            unused = len(loop.bodies) - len(used)
            bodies = "a body" if unused == 1 else f"{unused} bodies"
            report.change(f"no turn takes {bodies} of `{loop.attributes['path']}`", graph, loop)
            loop.bodies = tuple(loop.bodies[variant] for variant in used)
            loop.attributes["turns"] = tuple(used.index(variant) for variant in turns)
            count += 1
    return count
