"""What a pass reports: what it changed, and for what it left alone, why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tfdsl.ir.graph import Graph, Node
from tfdsl.language.diagnostics import Span


@dataclass(frozen=True)
class Note:
    """One thing changed or left alone; `path` is the weight path of the block or loop that it is in."""

    text: str
    path: str = ""
    span: Span | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass
class Report:
    """What one run of a pass did."""

    name: str
    changed: list[Note] = field(default_factory=list)
    kept: list[Note] = field(default_factory=list)

    def change(self, text: str, graph: Graph, node: Node) -> None:
        """Note a change at a node."""
        self.changed.append(Note(text, place(graph, node), node.span))

    def keep(self, text: str, graph: Graph, node: Node) -> None:
        """Note a node that was left alone, and why."""
        self.kept.append(Note(text, place(graph, node), node.span))

    def __str__(self) -> str:
        lines = [f"{self.name}: {_count(len(self.changed), 'change')}, {len(self.kept)} left alone"]
        for what, notes in (("changed", self.changed), ("kept", self.kept)):
            times = Counter(map(str, notes))
            lines += [
                f"  {what:7}  {note}" + (f" ({number} times)" if number > 1 else "") for note, number in times.items()
            ]
        return "\n".join(lines)


PassResult = tuple[Graph, Report]


def place(graph: Graph, node: Node) -> str:
    """The weight path of the innermost block or loop that a node is in, "" in the model itself."""
    for frame in reversed(node.scope):
        if frame.path:
            return frame.path
    return graph.frame.path if graph.frame is not None else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
