"""What of a region is drawn: the nodes that its results need, and the blocks that are open, closed or dissolved."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from tfdsl.backends.graphviz.looks import LOOKS
from tfdsl.ir.graph import Frame, Graph, Node, Value


class State(Enum):
    """How a block is drawn: with a frame around what is in it, as one box, or not at all."""

    OPEN = 1
    CLOSED = 2
    DISSOLVED = 3


_SHAPE_ONLY = ("positions", "iota", "constant", "tensor")


class Plan:
    """Which blocks of a region are drawn how, and which of its values are plain tables of numbers.

    `level` counts the blocks that are open around the region, `depth` how many may be. A block that is nothing but
    plumbing is dissolved, and so is an open one that is all there is in its region or that holds one node only: the
    nodes are drawn as if they stood outside it. `only` is the innermost block that is all there is in the region.
    """

    def __init__(self, graph: Graph, tables: Iterable[Value], level: int, depth: int):
        self.nodes = _needed(graph)
        self.tables = set(tables)
        for node in self.nodes:
            if _is_table(node, self.tables):
                self.tables.update(Value(node.id, index) for index in range(len(node.types)))
        self.only: Frame | None = None
        self._depth = depth
        self._states: dict[Frame, State] = {}
        self._levels: dict[Frame, int] = {}
        self._decide([(node, node.scope) for node in self.nodes], level)

    def is_table(self, node: Node) -> bool:
        """Whether a node's results depend on no input and no weight."""
        return node.op != "weight" and Value(node.id) in self.tables

    def closed(self, node: Node) -> Frame | None:
        """The outermost block around a node that is drawn as one box."""
        return next((frame for frame in node.scope if self._states[frame] is State.CLOSED), None)

    def opened(self, node: Node) -> list[Frame]:
        """The blocks around a node that are drawn open, outermost first."""
        found = []
        for frame in node.scope:
            if self._states[frame] is State.CLOSED:
                break
            if self._states[frame] is State.OPEN:
                found.append(frame)
        return found

    def level(self, node: Node, level: int) -> int:
        """How many blocks are open around a node."""
        return max((self._levels[frame] for frame in self.opened(node)), default=level)

    def _decide(self, found: list[tuple[Node, tuple[Frame, ...]]], level: int) -> None:
        """Settle the outermost blocks of nodes, given with the scope that is left, and those inside them."""
        shown = [scope for node, scope in found if self._shows(node)]
        groups: dict[Frame, list[tuple[Node, tuple[Frame, ...]]]] = {}
        for node, scope in found:
            if scope:
                groups.setdefault(scope[0], []).append((node, scope[1:]))
        for frame, inside in groups.items():
            nodes = [node for node, _ in inside]
            alone = all(scope and scope[0] is frame for scope in shown)
            free = self._depth > 1 and (alone or any(node.op == "repeat" for node in nodes))
            count = sum(self._shows(node) for node in nodes)
            opens = free or level + 1 < self._depth
            if count == 0 or (opens and (alone or count == 1)):
                self._states[frame] = State.DISSOLVED
            else:
                self._states[frame] = State.OPEN if opens else State.CLOSED
            if alone and opens:
                self.only = frame
            self._levels[frame] = level if free else level + 1
            self._decide(inside, self._levels[frame])

    def _shows(self, node: Node) -> bool:
        """Whether a node is more than plumbing."""
        folded = node.op in LOOKS and LOOKS[node.op].shape == "folded"
        return not folded and node.op not in ("input", "weight") and not self.is_table(node)


def _needed(graph: Graph) -> list[Node]:
    """The nodes that the results of a region need, in order; inputs that nothing reads are among them."""
    nodes = graph.nodes()
    needed = {value.node for _, value in graph.outputs} | set(graph.inputs)
    for node in reversed(nodes):
        if node.id in needed:
            needed |= {value.node for value in node.inputs if value is not None}
    return [node for node in nodes if node.id in needed]


def _is_table(node: Node, tables: set[Value]) -> bool:
    if node.op in _SHAPE_ONLY:
        return True
    read = [value for value in node.inputs if value is not None]
    return node.op not in ("input", "weight", "repeat") and bool(read) and all(value in tables for value in read)
