"""Where the cache is cut: the values to remember of each position, chosen so that a position takes the fewest bytes.

What is needed of all positions (keys and values, for the most part) may be remembered itself, or computed anew from what
it is made of: a minimum cut in the graph of the ops in between, which go position by position (Ford and Fulkerson, 1956;
compare the latent cache of DeepSeek-V2, 2024). Only values that serve nothing else are crossed: to compute keys anew
from what the queries come from as well would be to do a layer's work again at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import networkx as nx

from tfdsl.ir.axes import settings
from tfdsl.ir.graph import Node, Value
from tfdsl.passes.incremental.causality import Causality

_BYTES = {"float": 4, "int": 8, "bool": 1}
# Ops that go position by position and are worth doing again: none that draws on a mixture or a loop.
_NEVER = {"input", "attend", "linear_attend", "cumsum", "conv1d", "route", "repeat", "scan", "weight"}

Reader = tuple[int, int]  # a node, and the place among its inputs


def can_recompute(causality: Causality, value: Value) -> bool:
    """Whether a value of all positions follows from its operands of all positions."""
    node = causality.graph.node(value)
    flow = causality.flow(value)
    if not flow.settled or flow.merged:
        return False
    return node.op not in _NEVER or (
        node.op in ("pad", "slice", "concat") and settings(causality.graph, node).axis not in flow.axes
    )


def choose(causality: Causality, needed: Mapping[Value, Iterable[Reader]]) -> set[Value]:
    """The values of a region to remember, given those that are needed of all positions and who reads them as such."""
    wanted = {value: set(readers) for value, readers in needed.items() if causality.flow(value).data}
    reached = _reached(causality, wanted)
    private = _private(causality, reached, wanted)
    network: nx.DiGraph = nx.DiGraph()
    network.add_nodes_from(("from", "to"))
    for value in reached:
        if value not in private and value not in wanted:
            continue
        network.add_edge(("in", value), ("out", value), capacity=_bytes(causality, value))
        if value in wanted:
            network.add_edge(("out", value), "to")
        for operand in _operands(causality, value):
            if operand in private:
                network.add_edge(("out", operand), ("in", value))
        if any(operand not in private for operand in _operands(causality, value)) or not can_recompute(
            causality, value
        ):
            network.add_edge("from", ("in", value))
    if not wanted:
        return set()
    _, (_, after) = nx.minimum_cut(network, "from", "to")
    # Where several cuts are as small, the one nearest to the readers leaves the least to be computed anew.
    return {value for value in reached if ("out", value) in after and ("in", value) not in after}


def _reached(causality: Causality, wanted: Iterable[Value]) -> list[Value]:
    """The values of the model's data that lead to what is wanted by ops that could be done again, readers first."""
    found: set[Value] = set(wanted)
    waiting = list(found)
    while waiting:
        value = waiting.pop()
        if can_recompute(causality, value):
            fresh = [operand for operand in _operands(causality, value) if operand not in found]
            found.update(fresh)
            waiting += fresh
    order = {node.id: place for place, node in enumerate(causality.graph.nodes())}
    return sorted(found, key=lambda value: (-order[value.node], value.index))


def _operands(causality: Causality, value: Value) -> list[Value]:
    """What a value is made of that has positions and data."""
    found = []
    for operand in causality.graph.node(value).inputs:
        if operand is not None and causality.flow(operand).axes and causality.flow(operand).data:
            found.append(operand)
    return found


def _private(causality: Causality, reached: list[Value], wanted: Mapping[Value, set[Reader]]) -> set[Value]:
    """Those that nothing reads but what is wanted, and what leads to it."""
    graph = causality.graph
    results = set(graph.results())
    found: set[Value] = set()
    done: set[int] = set()  # nodes all of whose results are private
    for value in reached:
        if value in results or len(causality.flow(value).axes) != 1:
            continue
        readers = wanted.get(value, set())
        # Who counts the positions of a value does not read it.
        users = [(user.id, place) for user, place in graph.users(value) if user.op != "positions"]
        if all(user in readers or user[0] in done for user in users):
            found.add(value)
            node: Node = graph.node(value)
            each = [Value(node.id, index) for index in range(len(node.types))]
            if all(other in found or not graph.users(other) for other in each):
                done.add(node.id)
    return found


def _bytes(causality: Causality, value: Value) -> int:
    """What a position of a value takes; sizes that are not known count as one."""
    type_ = causality.graph.type(value)
    axes = causality.flow(value).axes
    return _BYTES[type_.dtype] * math.prod(
        dim for axis, dim in enumerate(type_.dims) if axis not in axes and isinstance(dim, int)
    )
