"""What a drawing shows, before any of it is text: boxes in clusters, and the edges between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Union

from tfdsl.ir.graph import Type


@dataclass(eq=False)
class Box:
    """One thing on the page. `shape` is box, circle, text (a name alone) or point (where a line forks)."""

    id: int
    shape: str
    kind: str
    title: str
    details: list[str] = field(default_factory=list)
    strong: bool = False
    group: int | None = None  # boxes of a group stand in one column


@dataclass(eq=False)
class Cluster:
    """A frame around boxes: the turns of a loop, or a block that is drawn open."""

    title: str = ""
    details: list[str] = field(default_factory=list)
    count: int | None = None
    children: list[Union[Box, Cluster]] = field(default_factory=list)

    def boxes(self) -> Iterator[Box]:
        """All boxes inside, in order."""
        for child in self.children:
            if isinstance(child, Box):
                yield child
            else:
                yield from child.boxes()

    def drop_empty(self) -> None:
        """Remove clusters that hold nothing."""
        for child in self.children:
            if isinstance(child, Cluster):
                child.drop_empty()
        self.children = [child for child in self.children if isinstance(child, Box) or child.children]


@dataclass(eq=False)
class Edge:
    """A value on its way from one box to another; `names` is what the spec calls it, where that helps."""

    source: int
    target: int
    type: Type
    names: list[str] = field(default_factory=list)
    skip: bool = False
    trunk: bool = False
    labelled: bool = False


@dataclass(eq=False)
class Scene:
    """A whole drawing; `ties` are pairs of boxes that share a weight."""

    name: str
    root: Cluster = field(default_factory=Cluster)
    edges: list[Edge] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    count: int = 0

    def add(self, holder: Cluster, shape: str, kind: str, title: str) -> Box:
        """A new box in a cluster."""
        box = Box(self.count, shape, kind, title)
        self.count += 1
        holder.children.append(box)
        return box

    def connect(self, source: int, target: int, type_: Type, name: str = "") -> None:
        """A value from one box to another; a box is not connected with itself."""
        if source != target:
            self.edges.append(Edge(source, target, type_, [name] if name else []))
