"""The blocks of the old graph in the new one: what they call their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tfdsl.ir.graph import Frame, Graph, Value


def reframe(graph: Graph, made: Mapping[Value, Value]) -> None:
    """Let the frames of a region name the values of the new graph, where `made` has them, in the place of the old."""
    known: dict[int, Frame] = {}

    def renamed(frame: Frame) -> Frame:
        if id(frame) not in known:
            arguments = {name: made[value] for name, value in frame.arguments.items() if value in made}
            labels = {made[value]: label for value, label in frame.labels.items() if value in made}
            known[id(frame)] = replace(frame, arguments=arguments, labels=labels)
        return known[id(frame)]

    for node in graph.nodes():
        node.scope = tuple(map(renamed, node.scope))
    if graph.frame is not None:
        graph.frame = renamed(graph.frame)
