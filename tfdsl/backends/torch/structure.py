"""The shape of the emitted program: units (one callable each) found again from the colours on the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import networkx as nx

from tfdsl.ir.graph import Frame, Graph, Node, Value

LEAVES = ("weight", "constant", "input")


@dataclass(eq=False)
class Unit:
    """A region of a graph, or one application of a block in it: what becomes one `forward` or one function.

    `items` are its own nodes and the units inside it, in an order in which they can run.
    """

    graph: Graph
    frame: Frame
    depth: int  # how many frames of the region's scopes it stands inside
    items: list[Node | Unit] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    penalties: tuple[str, ...] = ()  # of a region: the auxiliary losses that it returns behind its results

    @property
    def path(self) -> str:
        return self.frame.path

    @property
    def is_region(self) -> bool:
        return self.depth == 0

    def nodes(self) -> Iterator[Node]:
        """All nodes of this region inside the unit."""
        for item in self.items:
            if isinstance(item, Unit):
                yield from item.nodes()
            else:
                yield item

    def deep_nodes(self) -> Iterator[Node]:
        """All nodes inside the unit, those of loops' bodies included."""
        for node in self.nodes():
            yield node
            for body in node.bodies:
                for region in body.regions():
                    yield from region.nodes()


def separate_turns(graph: Graph) -> Graph:
    """The graph with the weights of a loop's bodies kept apart, where it has several: `h.*` becomes `h.*#0`, `h.*#1`.

    Turns that differ may hold different weights under one name, and are classes of their own.
    """
    graph = graph.copy()
    _drop_dead(graph)
    for node in graph.nodes():
        if not node.bodies:
            continue
        bodies = tuple(separate_turns(body) for body in node.bodies)
        start = f"{node.attributes['path']}.*"
        if len(bodies) > 1:
            for number, body in enumerate(bodies):
                _rename(body, start, f"{start}#{number}")
        node.bodies = bodies
    return graph


def _drop_dead(graph: Graph) -> None:
    """Remove what nothing reads: a spec may bind more than one variant of it uses."""
    wanted = {value.node for value in graph.results()} | set(graph.inputs)
    for node in reversed(graph.nodes()):
        if node.id not in wanted and graph.network.out_degree(node.id) == 0 and not _has_penalty(node):
            graph.remove(node)


def _has_penalty(node: Node) -> bool:
    return any(region.penalties for body in node.bodies for region in body.regions())


def _rename(graph: Graph, old: str, new: str) -> None:
    """Move all paths of a region that begin with `old`."""

    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(f"{old}.") else path

    frames: dict[int, Frame] = {}

    def frame(each: Frame) -> Frame:
        if id(each) not in frames:
            frames[id(each)] = replace(each, path=moved(each.path))
        return frames[id(each)]

    for region in graph.regions():
        region.frame = frame(region.frame or Frame(old, region.name, {}))
        for node in region.nodes():
            node.scope = tuple(frame(each) for each in node.scope)
            if "path" in node.attributes:
                node.attributes["path"] = moved(node.attributes["path"])


def build(graph: Graph, path: str = "") -> Unit:
    """The units of a region, whose weights live below a path."""
    frame = graph.frame or Frame(path, graph.name, {})  # a graph that was read from text has no frame
    nodes = [node for node in graph.nodes() if node.op not in LEAVES]
    unit = _unit(graph, frame, nodes, 0)
    unit.inputs = [Value(node) for node in graph.inputs]
    unit.results = [value for _, value in graph.outputs]
    return unit


def _unit(graph: Graph, frame: Frame, nodes: list[Node], depth: int) -> Unit:
    unit = Unit(graph, frame, depth)
    unit.items = _order(graph, nodes, depth)
    if depth:
        _find_interface(unit)
    return unit


def _order(graph: Graph, nodes: list[Node], depth: int) -> list[Node | Unit]:
    """Nodes grouped into the units below, in a runnable order.

    Passes may have interleaved a block's nodes with those of its caller; a block that can no longer run as one is
    dissolved into its caller.
    """
    dissolved: set[int] = set()
    while True:
        group = {
            node.id: id(node.scope[depth])
            if len(node.scope) > depth and id(node.scope[depth]) not in dissolved
            else -node.id - 1
            for node in nodes
        }
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
            items.append(_unit(graph, members[each][0].scope[depth], members[each], depth + 1))
    return items


def _find_interface(unit: Unit) -> None:
    """What a unit reads from outside and what others read of it."""
    graph = unit.graph
    inside = {node.id for node in unit.nodes()}
    declared = list(unit.frame.arguments.values())
    read: dict[Value, None] = {}
    results: dict[Value, None] = {}
    outcomes = set(graph.results())
    for node in unit.nodes():
        for value in node.inputs:
            if value is not None and value.node not in inside and graph.node(value).op not in ("weight", "constant"):
                read[value] = None
        for index in range(len(node.types)):
            value = Value(node.id, index)
            if value in outcomes or any(user.id not in inside for user, _ in graph.users(value)):
                results[value] = None
    unit.inputs = sorted(read, key=lambda value: declared.index(value) if value in declared else len(declared))
    unit.results = list(results)
