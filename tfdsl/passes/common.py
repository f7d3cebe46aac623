"""Common subexpressions: what is computed twice in a region is computed once, across block applications."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.passes.regions import is_random
from tfdsl.passes.report import Report

_COMMUTATIVE = {"add", "mul", "maximum", "minimum", "eq", "ne", "both", "either"}


def merge_common(graph: Graph, report: Report) -> int:
    """Let the first of several equal nodes of a region serve the readers of all; how many went.

    Weights and constants are references, not computations: two that name the same thing stay two nodes, each beside its
    reader, and count as equal operands. Loops, inputs and what is random in training stay as they are.
    """
    merged: list[tuple[Node, Node, set[int]]] = []
    first: dict[int, Node] = {}
    numbers: dict[Hashable, int] = {}
    stands_for: dict[Value, tuple[int, int]] = {}
    for node in graph.nodes():
        number = numbers.setdefault(_key(node, stands_for), len(numbers))
        for index in range(len(node.types)):
            stands_for[Value(node.id, index)] = number, index
        known = first.setdefault(number, node)
        if known is node or node.op in ("weight", "constant"):
            continue
        values = [Value(node.id, index) for index in range(len(node.types))]
        merged.append((node, known, {user.id for value in values for user, _ in graph.users(value)}))
        for value in values:
            graph.redirect(value, Value(known.id, value.index))
        graph.remove(node)
    gone = {node.id for node, _, _ in merged}
    for node, known, readers in merged:
        if not readers or readers - gone:  # what only nodes that are merged too read is part of them
            name, other = node.name or node.op, known.name or known.op
            report.change(f"`{name}` is computed already{f', as `{other}`' if other != name else ''}", graph, node)
    return len(merged)


def _key(node: Node, stands_for: Mapping[Value, tuple[int, int]]) -> Hashable:
    """What two nodes share exactly if they compute the same."""
    if node.op == "weight":
        return "weight", node.attributes["path"]
    if node.op in ("input", "repeat", "route", "scan") or is_random(node):
        return "node", node.id
    inputs: list[Any] = [value if value is None else stands_for[value] for value in node.inputs]
    if node.op in _COMMUTATIVE:
        inputs.sort()
    attributes = tuple((name, _frozen(value)) for name, value in vars(OPS[node.op].fill(node.attributes)).items())
    return node.op, tuple(inputs), attributes, node.types


def _frozen(value: Any) -> Hashable:
    """An attribute's value as a key: `1`, `1.0` and `true` differ."""
    if isinstance(value, Mapping):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    if isinstance(value, tuple):
        return tuple(_frozen(each) for each in value)
    return type(value).__name__, value
