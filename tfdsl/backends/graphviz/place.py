"""A region while it is drawn: where its boxes go, and what is known of its values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tfdsl.backends.graphviz.plan import Plan
from tfdsl.backends.graphviz.scene import Box, Cluster
from tfdsl.backends.graphviz.weights import Loops
from tfdsl.ir.graph import Frame, Graph, Node, Value

_SAME_NUMBER = ("cast", "rearrange", "expand", "swap")


@dataclass(eq=False)
class Leaf:
    """A weight or a table of numbers: drawn only if something other than a layer reads it."""

    node: Node
    graph: Graph
    holder: Cluster
    loops: Loops
    box: int | None = None

    def number(self) -> str | None:
        """The leaf as text, if it is one number."""
        node = self.node
        while node.op in _SAME_NUMBER and node.inputs[0] is not None:
            node = self.graph.node(node.inputs[0])
        if node.op != "constant":
            return None
        value = node.attributes["value"]
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def title(self) -> str:
        """What a table is called: as in the spec, or by what is in it."""
        if any(self.node.labels):
            return next(filter(None, self.node.labels))
        if self.node.op in ("positions", "iota"):
            return "positions"
        if self.node.types[0].dtype == "bool":
            return "mask"
        return self.node.scope[-1].block if self.node.scope else "table"


class Known(NamedTuple):
    """Where a value comes from: boxes, or a leaf not drawn yet. `name` is what the spec calls one of several.

    `notes` says what passes have done to a weight.
    """

    boxes: tuple[int, ...] = ()
    leaf: Leaf | None = None
    name: str = ""
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class Place:
    """A region with its plan, its cluster, the loops and the number of open blocks around it."""

    graph: Graph
    plan: Plan
    holder: Cluster
    loops: Loops
    level: int
    holders: tuple[Cluster, ...] = ()  # for each loop around the region, the cluster that the loop stands in
    known: dict[Value, Known] = field(default_factory=dict)
    opened: dict[Frame, Cluster] = field(default_factory=dict)
    closed: dict[Frame, Box] = field(default_factory=dict)

    def know(self, node: Node, known: Known) -> None:
        """Note where all results of a node come from."""
        for index in range(len(node.types)):
            self.known[Value(node.id, index)] = known

    def read(self, value: Value | None) -> Known:
        """Where a value comes from; nowhere, for an operand that is absent."""
        return Known() if value is None else self.known[value]
