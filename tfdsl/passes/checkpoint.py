"""`checkpoint("h.*", every=2)`: a training step keeps activations at some turns of a loop and recomputes the others."""

from __future__ import annotations

from typing import Annotated

from tfdsl.ir.graph import Graph
from tfdsl.passes.options import Between
from tfdsl.passes.paths import matches, nothing_matches
from tfdsl.passes.report import PassResult, Report


def checkpoint(graph: Graph, paths: str, every: Annotated[int, Between(1, 10_000)] = 1) -> PassResult:
    """Recompute the loops that `paths` names in the backward pass, in groups of `every` turns (Chen et al., 2016).

    Loops inside such a loop are recomputed with it. Raises `SpecError` (T604) where no loop matches.
    """
    graph = graph.copy()
    report = Report("checkpoint")
    loops = (node for region in graph.regions() for node in region.nodes() if node.op == "repeat")
    found = [f"{node.attributes['path']}.*" for node in loops]
    if not any(matches(paths, path) for path in found):
        raise nothing_matches(paths, found, "loop")
    _mark(graph, paths, every, report, "")
    return graph, report


def _mark(graph: Graph, paths: str, every: int, report: Report, around: str) -> None:
    """Mark the loops of a region; `around` is the path of the marked loop that it is in, if there is one."""
    for node in graph.nodes():
        if node.op != "repeat":
            continue
        path, turns = node.attributes["path"], len(node.attributes["turns"])
        marked = ""
        if matches(paths, f"{path}.*"):
            if around:
                report.keep(f"`{path}` is recomputed with `{around}`, which it is in", graph, node)
            elif not turns:
                report.keep(f"`{path}` takes no turn", graph, node)
            else:
                node.attributes["checkpoint"] = every
                groups = "one turn" if every == 1 else f"{every} turns"
                report.change(f"`{path}` is recomputed {groups} at a time ({turns} in all)", graph, node)
                marked = path
        for body in node.bodies:
            _mark(body, paths, every, report, around or marked)
