"""The shape of the emitted program: units (one callable each) found again from the colours on the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from tfdsl.ir.graph import Frame, Graph, Node, Value
from tfdsl.ir.states import STATEFUL
from tfdsl.language.syntax import Expression

LEAVES = ("weight", "constant", "input")
REFERENCES = ("weight", "constant")


@dataclass(eq=False)
class Unit:
    """A region of a graph, or one application of a block in it: what becomes one `forward` or one function.

    `items` are its own nodes and the units inside it, in an order in which they can run; `outer` is the unit around it,
    and `loop` the node whose body it is.
    """

    graph: Graph
    frame: Frame
    depth: int  # how many frames of the region's scopes it stands inside
    outer: Unit | None = None
    loop: Node | None = None
    items: list[Node | Unit] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    penalties: tuple[str, ...] = ()  # the auxiliary losses that it returns behind its results
    names: dict[str, Any] = field(default_factory=dict)  # those of its block, and what is handed in beside them
    spelled: dict[str, Expression] = field(default_factory=dict)  # what is written for them around the unit
    written: dict[int, dict[str, Expression]] = field(default_factory=dict)  # for the attributes of each node

    def expression(self, node: Node, name: str) -> Expression | None:
        """What is written for an attribute of a node, in the unit's names."""
        return self.written.get(node.id, {}).get(name)

    @property
    def path(self) -> str:
        return self.frame.path

    @property
    def is_region(self) -> bool:
        return self.depth == 0

    @property
    def is_root(self) -> bool:
        return self.outer is None

    @property
    def is_turn(self) -> bool:
        """Whether it is a loop's body, in which the names of the block around it hold, and no application of another."""
        return self.loop is not None and (self.loop.op == "repeat" or self.frame.declaration is None)

    def nodes(self) -> Iterator[Node]:
        """All nodes of this region inside the unit."""
        for item in self.items:
            if isinstance(item, Unit):
                yield from item.nodes()
            else:
                yield item

    def owned(self) -> Iterator[str]:
        """The paths of the weights that the unit reads and of its states, in loops too."""
        for node in self.nodes():
            if node.op in STATEFUL:
                yield node.attributes["path"]
            for value in node.inputs:
                if value is not None and self.graph.node(value).op == "weight":
                    yield self.graph.node(value).attributes["path"]
            for body in node.bodies:
                for region in body.regions():
                    yield from (each.attributes["path"] for each in region.nodes() if each.op in ("weight", *STATEFUL))


def build(graph: Graph, outer: Unit | None = None, loop: Node | None = None) -> Unit:
    """The units of a region, which is the model or a body of a loop."""
    assert graph.frame is not None
    live = _live(graph)
    nodes = [node for node in graph.nodes() if node.op not in LEAVES and node.id in live]
    unit = _unit(graph, graph.frame, nodes, 0, outer, live)
    unit.loop = loop
    unit.inputs = [Value(node) for node in graph.inputs]
    unit.results = [value for _, value in graph.outputs]
    return unit


def _live(graph: Graph) -> set[int]:
    """What a region must compute: a spec may bind more than it uses. Loops stay for the weights and losses in them."""
    live = {value.node for value in graph.results()}
    for node in reversed(graph.nodes()):
        if node.id in live or any(_has_effect(region) for body in node.bodies for region in body.regions()):
            live |= {node.id, *(value.node for value in node.inputs if value is not None)}
    return live


def _has_effect(graph: Graph) -> bool:
    return bool(graph.penalties) or any(node.op == "weight" for node in graph.nodes())


def _unit(graph: Graph, frame: Frame, nodes: list[Node], depth: int, outer: Unit | None, live: set[int]) -> Unit:
    unit = Unit(graph, frame, depth, outer, names=dict(frame.names))
    unit.items = _order(unit, nodes, live)
    unit.penalties = penalty_names(body for node in nodes for body in node.bodies)
    if depth:
        _find_interface(unit, live)
    else:
        unit.penalties = tuple(dict.fromkeys([*unit.penalties, *(name for name, _ in graph.penalties)]))
    return unit


def penalty_names(graphs: Iterable[Graph]) -> tuple[str, ...]:
    """The auxiliary losses of graphs and of the loops inside them, each name once."""
    return tuple(dict.fromkeys(name for graph in graphs for region in graph.regions() for name, _ in region.penalties))


def _order(unit: Unit, nodes: list[Node], live: set[int]) -> list[Node | Unit]:
    """Nodes grouped into the units below, in a runnable order.

    Passes may have interleaved a block's nodes with those of its caller; a block that can no longer run as one is
    dissolved into its caller.
    """
    depth = unit.depth
    dissolved: set[int] = set()
    while True:
        group = {node.id: _group(node, depth, dissolved) for node in nodes}
        condensed = nx.DiGraph()
        condensed.add_nodes_from(dict.fromkeys(group.values()))
        for node in nodes:
            for value in node.inputs:
                if value is not None and value.node in group and group[value.node] != group[node.id]:
                    condensed.add_edge(group[value.node], group[node.id])
        cycles = [part for part in nx.strongly_connected_components(condensed) if len(part) > 1]
        if not cycles:
            break
        dissolved |= {each for part in cycles for each in part if each >= 0}
    members: dict[int, list[Node]] = {}
    for node in nodes:
        members.setdefault(group[node.id], []).append(node)
    first = {each: position for position, each in enumerate(members)}
    items: list[Node | Unit] = []
    for each in nx.lexicographical_topological_sort(condensed, key=first.__getitem__):
        if each < 0:
            items += members[each]
        else:
            items.append(_unit(unit.graph, members[each][0].scope[depth], members[each], depth + 1, unit, live))
    return items


def _group(node: Node, depth: int, dissolved: set[int]) -> int:
    """The application that a node belongs to at a depth, or a number of its own, below zero."""
    if len(node.scope) > depth and id(node.scope[depth]) not in dissolved:
        return id(node.scope[depth])
    return -node.id - 1


def _find_interface(unit: Unit, live: set[int]) -> None:
    """What a unit reads from outside and what others read of it."""
    graph = unit.graph
    inside = {node.id for node in unit.nodes()}
    declared = list(unit.frame.arguments.values())
    read: dict[Value, None] = {}
    results: dict[Value, None] = {}
    outcomes = set(graph.results())
    for node in unit.nodes():
        for value in node.inputs:
            if value is not None and value.node not in inside and graph.node(value).op not in REFERENCES:
                read[value] = None
        for index in range(len(node.types)):
            value = Value(node.id, index)
            if value in outcomes or any(user.id in live - inside for user, _ in graph.users(value)):
                results[value] = None
    unit.inputs = sorted(read, key=lambda value: declared.index(value) if value in declared else len(declared))
    unit.results = list(results)
