"""Passes: functions from a graph to a graph and a report. `PASSES` are those that a plan can ask for, a line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tfdsl.ir.graph import Graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError, did_you_mean
from tfdsl.passes.checkpoint import checkpoint
from tfdsl.passes.clean import clean
from tfdsl.passes.fold_ranges import fold_ranges
from tfdsl.passes.fuse_attention import fuse_attention
from tfdsl.passes.options import Request, bind, signature
from tfdsl.passes.prune import prune
from tfdsl.passes.quantize import quantize
from tfdsl.passes.report import Note, PassResult, Report

Pass = Callable[..., PassResult]

PASSES: dict[str, Pass] = {
    "clean": clean,
    "fold_ranges": fold_ranges,
    "fuse_attention": fuse_attention,
    "checkpoint": checkpoint,
    "prune": prune,
    "quantize": quantize,
}

Prepared = tuple[Request, Pass, dict[str, Any]]


def prepare(requests: Sequence[Request]) -> list[Prepared]:
    """The passes that are asked for, each with its options. Raises `SpecError` (T602, T603) with all that is wrong."""
    faults = Collector()
    prepared: list[Prepared] = []
    for request in requests:
        function = PASSES.get(request.name)
        if function is None:
            help_ = did_you_mean(request.name, PASSES, f"the passes are {', '.join(PASSES)}")
            faults.add(Diagnostic("T602", f"there is no pass `{request.name}`", request.span, help=help_))
        else:
            prepared.append((request, function, bind(request, function, faults)))
    faults.check()
    return prepared


def run(graph: Graph, requests: Sequence[Request]) -> tuple[Graph, list[Report]]:
    """The graph after some passes in order, verified after each, and what each reports. Raises `SpecError`."""
    prepared = prepare(requests)
    verify(graph)
    reports: list[Report] = []
    for request, function, arguments in prepared:
        try:
            graph, report = function(graph, **arguments)
        except SpecError as error:
            raise _located(error, request) from None
        verify(graph, request.name)
        reports.append(report)
    return graph, reports


def _located(error: SpecError, request: Request) -> SpecError:
    """A fault that a pass found, at the place where the plan asks for it: a pattern's fault at the pattern."""
    pattern = request.spans.get("paths", request.at(0))
    return SpecError(
        each if each.span is not None else replace(each, span=pattern if each.code == "T604" else request.span)
        for each in error.diagnostics
    )


__all__ = ["PASSES", "Note", "Pass", "Report", "Request", "prepare", "run", "signature"]
