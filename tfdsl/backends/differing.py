"""The first node of a graph that a target computes otherwise than the reference, found by cutting the graph short."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import networkx as nx

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.language.diagnostics import SpecError, one
from tfdsl.passes.report import place

Differs = Callable[[Graph], bool]
Cut = Callable[[Graph, Value], Graph | None]

_INPUTS = -1  # stands for all inputs of a model at once
_GIVEN = ("input", "weight", "constant", "prune", "quantize", "dequantize")


def first_differing(graph: Graph, output: str, differs: Differs, cut: Cut) -> Node | None:
    """The first node, in order of computation, whose value differs; None where even the output does not.

    `graph` is flat. `cut` gives the graph that ends at a value, or None for one that cannot be looked at alone, and
    `differs` builds and compares such a graph. Nothing but the end is looked at, for what a runtime fuses before it stays
    as it is in the whole.
    """
    end = dict(graph.outputs)[output]
    tried: dict[int, bool] = {}

    def is_wrong(node: int) -> bool:
        if node not in tried:
            values = [end] if node == end.node else [Value(node, index) for index in range(len(graph.node(node).types))]
            graphs = [shortened for value in values if (shortened := cut(graph, value)) is not None]
            tried[node] = any(differs(shortened) for shortened in graphs)
        return tried[node]

    if not is_wrong(end.node):
        return None
    before, after = _narrow(_chain(graph, end.node), is_wrong)
    for node in _between(graph, before, after):
        if is_wrong(node.id):
            return node
    return graph.node(after)


def ending_at(graph: Graph, value: Value, name: str = "value") -> Graph:
    """A copy of a flat graph that computes one of its values and nothing else; it keeps its inputs."""
    short = graph.copy()
    short.outputs, short.penalties = [(name, value)], []
    needed = {value.node, *nx.ancestors(graph.network(), value.node), *short.inputs}
    for node in reversed(short.nodes()):
        if node.id not in needed:
            short.remove(node)
    return short


def culprit(graph: Graph, node: Node, target: str) -> SpecError:
    """What is said of the node at which a target first differs."""
    inside, before = place(graph, node), _last_place(graph, node)
    note = f"it is in `{inside}`" if inside else f"it follows `{before}`" if before else ""
    help_ = "all that it is computed from is equal: the fault is in this op, or in what the runtime fuses with it"
    return one("T750", f"{target} first differs from the reference at `{node.op}`", node.span, note=note, help=help_)


def _last_place(graph: Graph, node: Node) -> str:
    """The block nearest before a node that is in none itself: in a loop, that says which turn it is in."""
    for _, source in nx.bfs_edges(graph.network(), node.id, reverse=True):
        if where := place(graph, graph.node(source)):
            return where
    return ""


def _chain(graph: Graph, end: int) -> list[int]:
    """The nodes through which everything passes on its way from the inputs to a node, in order; that node is the last."""
    backwards = nx.DiGraph()
    for node in (end, *nx.ancestors(graph.network(), end)):
        backwards.add_node(node)
        for value in graph.node(node).inputs:
            if value is not None:
                backwards.add_edge(node, value.node)
    for node in graph.inputs:
        if node in backwards:
            backwards.add_edge(node, _INPUTS)
    if _INPUTS not in backwards:
        return [end]
    dominators = nx.immediate_dominators(backwards, end)
    found, node = [], _INPUTS
    while node != end:
        node = dominators[node]
        found.append(node)
    return [node for node in found if graph.node(node).op not in _GIVEN]


def _narrow(chain: Sequence[int], is_wrong: Callable[[int], bool]) -> tuple[int | None, int]:
    """The last right and the first wrong node of a chain whose end is wrong; what follows a wrong one counts as wrong."""
    low, high = -1, len(chain) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_wrong(chain[middle]) else (middle, high)
    return (chain[low] if low >= 0 else None), chain[high]


def _between(graph: Graph, before: int | None, after: int) -> list[Node]:
    """The nodes that compute `after` from `before`, in order."""
    network = graph.network()
    known = set() if before is None else {before, *nx.ancestors(network, before)}
    wanted = {after, *nx.ancestors(network, after)} - known
    return [node for node in graph.nodes() if node.id in wanted and node.op not in _GIVEN]
