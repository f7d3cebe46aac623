"""What `prune` and `quantize` share: the weights that a pattern names, and nodes put after a weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.paths import matches, nothing_matches
from tfdsl.passes.report import Note, Report

# Given a region, a weight and the last value of what is computed from it at build time: the value that takes its place,
# or why there is none.
Treatment = Callable[[Graph, Node, Value], "Value | str"]


def treat(graph: Graph, pattern: str, report: Report, treatment: Treatment, after: tuple[str, ...], done: str) -> None:
    """Treat every matching weight of two axes or more, at all its uses alike; a weight of many uses is reported once.

    `after` are the build-time ops that the treatment comes after. Raises `SpecError` (T604) where no weight matches.
    """
    found = [(region, node) for region in graph.regions() for node in region.nodes() if node.op == "weight"]
    chosen = [(region, node) for region, node in found if matches(pattern, node.attributes["path"])]
    if not chosen:
        raise nothing_matches(pattern, [node.attributes["path"] for _, node in found], "weight")
    told: set[tuple[str, Any]] = set()
    for region, node in chosen:
        outcome: Value | str
        if len(node.type.dims) < 2:
            outcome = "a vector is small, and stays as it is"
        else:
            value = _last(region, Value(node.id), after)
            outcome = treatment(region, node, value)
            if isinstance(outcome, Value):
                _put_between(region, value, outcome)
        path = node.attributes["path"]
        if (path, node.type) not in told:
            told.add((path, node.type))
            if isinstance(outcome, str):
                report.kept.append(Note(f"`{path}`: {outcome}", span=node.span))
            else:
                report.changed.append(Note(f"`{path}` {node.type} {done}", span=node.span))


def reads(graph: Graph, value: Value, *ops: str) -> bool:
    """Whether a node of some ops reads a value."""
    return any(user.op in ops for user, _ in graph.users(value))


def _last(graph: Graph, value: Value, ops: tuple[str, ...]) -> Value:
    """The last of a chain of build-time nodes that starts at a value."""
    for user, _ in graph.users(value):
        if user.op in ops:
            return _last(graph, Value(user.id), ops)
    return value


def _put_between(graph: Graph, value: Value, made: Value) -> None:
    """Let all that read a value read one that was made from it, save the nodes that make it."""
    makers = set(_makers(graph, value, made))
    for user, _ in graph.users(value):
        if user.id not in makers:
            graph.set_inputs(user, [made if each == value else each for each in user.inputs])
    graph.outputs = [(name, made if each == value else each) for name, each in graph.outputs]
    graph.penalties = [(name, made if each == value else each) for name, each in graph.penalties]


def _makers(graph: Graph, value: Value, made: Value) -> Iterator[int]:
    """The nodes between a value and one that was made from it."""
    if made.node != value.node:
        yield made.node
        for each in graph.node(made).inputs:
            if each is not None:
                yield from _makers(graph, value, each)
