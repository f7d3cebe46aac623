"""`clean()`: what a model computes without need is not computed."""

from __future__ import annotations

from collections.abc import Callable

from tfdsl.ir.graph import Graph
from tfdsl.passes.common import merge_common
from tfdsl.passes.constants import fold
from tfdsl.passes.dead import drop_dead
from tfdsl.passes.hoist import hoist
from tfdsl.passes.identities import drop_identities
from tfdsl.passes.loops import settle_loops
from tfdsl.passes.report import Note, PassResult, Report

# What is done to each region in turn, until nothing changes; each step gives the number of its changes.
STEPS: tuple[Callable[[Graph, Report], int], ...] = (
    settle_loops,
    fold,
    drop_identities,
    merge_common,
    hoist,
    # What dies of these changes is part of them, and is not told again.
    lambda graph, report: drop_dead(graph, Report(report.name)),
)


def clean(graph: Graph) -> PassResult:
    """Fold constants, drop what changes or feeds nothing, merge equal nodes, move loop invariants out of loops."""
    before = _paths(graph)
    graph = graph.copy()
    report = Report("clean")
    for region in reversed(list(graph.regions())):
        drop_dead(region, report)
    while _once(graph, report):
        pass
    after = _paths(graph)
    report.changed += [Note(f"nothing needs the weight `{path}`") for path in before if path not in after]
    return graph, report


def _once(graph: Graph, report: Report) -> int:
    # Inner regions come first: what leaves a loop is then seen by the steps around it.
    return sum(step(region, report) for region in reversed(list(graph.regions())) for step in STEPS)


def _paths(graph: Graph) -> dict[str, None]:
    """The paths of all weights, in order."""
    nodes = (node for region in graph.regions() for node in region.nodes() if node.op == "weight")
    return dict.fromkeys(node.attributes["path"] for node in nodes)
