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
from tfdsl.passes.regions import Region
from tfdsl.passes.report import PassResult, Report

# What is done to each region in turn, until nothing changes; each step gives the number of its changes.
STEPS: tuple[Callable[[Region, Report], int], ...] = (
    lambda region, report: settle_loops(region.graph, report),
    lambda region, report: fold(region.graph, report),
    lambda region, report: drop_identities(region.graph, report),
    lambda region, report: merge_common(region.graph, report),
    lambda region, report: hoist(region.graph, report),
    lambda region, report: drop_dead(region.graph, Report(report.name)),
)


def clean(graph: Graph) -> PassResult:
    """Fold constants, drop what changes or feeds nothing, merge equal nodes, move loop invariants out of loops."""
    graph = graph.copy()
    report = Report("clean")
    # What is dead at first is worth a word; what dies of the other changes is part of them.
    for region in reversed(list(Region(graph).inside())):
        drop_dead(region.graph, report)
    while _once(graph, report):
        pass
    return graph, report


def _once(graph: Graph, report: Report) -> int:
    # Inner regions come first: what leaves a loop is then seen by the steps around it.
    regions = list(Region(graph).inside())
    return sum(step(region, report) for region in reversed(regions) for step in STEPS)
