"""A region with the loop it belongs to, so that a captured value can be followed to where it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfdsl.ir.graph import Graph, Node, Value, changing, fed

# What differs from one run to the next while a model trains: two of these are never one.
_RANDOM = {"dropout": "p", "drop_path": "p", "attend": "drop"}


@dataclass(frozen=True)
class Region:
    """A graph, and the loop and the region around it unless it is the model itself."""

    graph: Graph
    loop: Node | None = None
    outer: Region | None = None

    def origin(self, value: Value) -> tuple[Region, Value]:
        """Where a value is made: an input of a loop's body that is the same in every turn stands for an outer value."""
        node = self.graph.node(value)
        if node.op == "input" and self.loop is not None and self.outer is not None:
            place = self.graph.inputs.index(node.id)
            captured = fed(self.loop)[place]
            if place >= changing(self.loop) and captured is not None:
                return self.outer.origin(captured)
        return self, value

    def inside(self) -> Iterator[Region]:
        """This region and all inside it, outer first."""
        yield self
        for node in self.graph.nodes():
            for body in node.bodies:
                yield from Region(body, node, self).inside()


def is_random(node: Node) -> bool:
    """Whether a node draws random numbers in training."""
    return node.op in _RANDOM and bool(node.attributes.get(_RANDOM[node.op]))
