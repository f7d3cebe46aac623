"""Where the cache is cut: the values to remember of each position, chosen so that a position takes the fewest bytes.

What is needed of all positions (keys and values, for the most part) may be remembered itself, or computed anew from what
it is made of: a minimum cut in the graph of the ops in between, which go position by position (Ford and Fulkerson, 1956;
compare the latent cache of DeepSeek-V2, 2024). Only values that serve nothing else are crossed: to compute keys anew
from what the queries come from as well would be to do a layer's work again at every step.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Hashable, Iterable, Mapping

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
    if not wanted:
        return set()
    network = Network()
    for value in reached:
        if value not in private and value not in wanted:
            continue
        network.connect(("in", value), ("out", value), _bytes(causality, value))
        if value in wanted:
            network.connect(("out", value), "to")
        for operand in _operands(causality, value):
            if operand in private:
                network.connect(("out", operand), ("in", value))
        if any(operand not in private for operand in _operands(causality, value)) or not can_recompute(
            causality, value
        ):
            network.connect("from", ("in", value))
    # Where several cuts are as small, the one nearest to the readers leaves the least to be computed anew.
    after = network.behind_cut("from", "to")
    return {value for value in reached if ("out", value) in after and ("in", value) not in after}


class Network:
    """A network of pipes, for its minimum cut. NetworkX has that too, and takes longer to load than a build takes."""

    def __init__(self) -> None:
        self.room: dict[Hashable, dict[Hashable, float]] = {}  # what more can flow from one place to another

    def connect(self, start: Hashable, end: Hashable, capacity: float = math.inf) -> None:
        """Add a pipe."""
        self.room.setdefault(start, {})[end] = capacity
        self.room.setdefault(end, {}).setdefault(start, 0)

    def behind_cut(self, source: Hashable, sink: Hashable) -> set[Hashable]:
        """The places behind the minimum cut that is nearest to the sink; no way there may be without bounds.

        Flow is sent along shortest paths until there are none (Ford and Fulkerson, 1956; Edmonds and Karp, 1972).
        """
        while True:
            towards = self._towards(sink)
            if source not in towards:
                return set(towards)
            path = [source]
            while path[-1] != sink:
                path.append(towards[path[-1]])
            pipes = list(itertools.pairwise(path))
            flow = min(self.room[start][end] for start, end in pipes)
            for start, end in pipes:
                self.room[start][end] -= flow
                self.room[end][start] += flow

    def _towards(self, sink: Hashable) -> dict[Hashable, Hashable]:
        """The next place on a shortest way to the sink, from each place from where more can flow there."""
        found = {sink: sink}
        waiting = deque([sink])
        while waiting:
            end = waiting.popleft()
            for start in self.room.get(end, ()):
                if start not in found and self.room[start][end] > 0:
                    found[start] = end
                    waiting.append(start)
        return found


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
