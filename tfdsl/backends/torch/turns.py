"""Loops made ready for emission: turns that differ hold weights of their own kind, and loops without turns are gone."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

from tfdsl.ir.graph import Frame, Graph, Loop, Node, Value, all_paths, own_loops, turns_of

Turn = tuple[int | None, ...]  # for each loop over the same weights: the body that runs in a turn


def separate_turns(graph: Graph) -> tuple[Graph, dict[str, list[str]]]:
    """A copy of the graph with the bodies of each loop renumbered as kinds of turns, and the kind of each turn by path.

    Several loops may run over the same weights (a block with a loop in it, applied twice): turns are of one kind if all
    of these loops run the same body in them. With more than one kind, `h.*` becomes `h.*#0`, `h.*#1` in the paths of
    each: turns that differ may hold different weights under one name, and are classes of their own.
    """
    graph = graph.copy()
    _drop_idle(graph)
    _fold_casts(graph)
    found: dict[str, list[str]] = {}
    while (path := _next_path(graph, found)) is not None:
        nodes = [node for node in _loops(graph) if node.attributes["path"] == path]
        found[path] = _separate(path, nodes)
    return graph, found


def _loops(graph: Graph) -> Iterator[Node]:
    for region in graph.regions():
        yield from (node for node in region.nodes() if node.bodies)


def _next_path(graph: Graph, done: Container[str]) -> str | None:
    """The path of a loop that waits, outer ones first: they change the paths of those below them."""
    waiting = [node.attributes["path"] for node in _loops(graph) if node.attributes["path"] not in done]
    return min(waiting, key=lambda path: path.count("*"), default=None)


def _separate(path: str, nodes: list[Node]) -> list[str]:
    longest = max(len(node.attributes["turns"]) for node in nodes)
    turns: list[Turn] = [
        tuple(node.attributes["turns"][turn] if turn < len(node.attributes["turns"]) else None for node in nodes)
        for turn in range(longest)
    ]
    kinds = list(dict.fromkeys(turns))
    names = [f"{path}.*#{kind}" if len(kinds) > 1 else f"{path}.*" for kind in range(len(kinds))]
    for place, node in enumerate(nodes):
        mine = {kind: number for kind, turn in enumerate(kinds) if (number := turn[place]) is not None}
        bodies = []
        for kind, number in mine.items():
            body = node.bodies[number].copy()
            body.frame = body.frame or Frame(f"{path}.*", body.name, {})
            if len(kinds) > 1:
                _rename(body, f"{path}.*", names[kind])
            bodies.append(body)
        node.bodies = tuple(bodies)
        order = list(mine)
        node.attributes["turns"] = tuple(
            order.index(kinds.index(turn)) for turn in turns[: len(node.attributes["turns"])]
        )
    return [names[kinds.index(turn)] for turn in turns]


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
        if region.frame is not None:
            region.frame = frame(region.frame)
        for node in region.nodes():
            node.scope = tuple(frame(each) for each in node.scope)
            if "path" in node.attributes:
                node.attributes["path"] = moved(node.attributes["path"])


def _drop_idle(graph: Graph) -> None:
    """Remove what no turn runs; weights that live elsewhere and are read in it stay."""
    for node in graph.nodes():
        if node.op not in ("repeat", "route"):
            continue
        for body in node.bodies:
            _drop_idle(body)
        used = sorted(set(node.attributes["turns"]))
        for body in (body for number, body in enumerate(node.bodies) if number not in used):
            _keep_weights(graph, node, body, ())
        if not used:
            for index, value in enumerate(node.inputs[: len(node.types)]):
                assert value is not None
                graph.redirect(Value(node.id, index), value)
            graph.remove(node)
        elif len(used) < len(node.bodies):
            node.bodies = tuple(node.bodies[number] for number in used)
            node.attributes["turns"] = tuple(used.index(number) for number in node.attributes["turns"])


def _fold_casts(graph: Graph) -> None:
    """Let a number that is converted be written as what it is converted to."""
    for region in graph.regions():
        for node in region.nodes():
            number = region.node(node.inputs[0]) if node.op == "cast" and node.inputs[0] is not None else None
            if number is not None and number.op == "constant" and node.attributes["to"] != "bool":
                value, to = number.attributes["value"], node.attributes["to"]
                if isinstance(value, bool) or (to == "int" and isinstance(value, float)):
                    value = int(value)
                attributes = {"value": value, "dtype": to}
                made = region.add("constant", (), attributes, node.types, like=number, spelled=number.spelled)
                region.redirect(Value(node.id), Value(made.id))
                region.remove(node)


def _keep_weights(graph: Graph, idle: Node, body: Graph, loops: tuple[Loop, ...]) -> None:
    """Name the weights that a body reads, but those of the idle loop itself, in the region around the loop."""
    for node in body.nodes():
        if node.op == "weight" and not own_loops(node.attributes["path"], [Loop(idle.attributes["path"], ())]):
            for path in all_paths(node.attributes["path"], loops):
                graph.add("weight", (), {**node.attributes, "path": path}, node.types, like=node)
        for number, inner in enumerate(node.bodies):
            _keep_weights(graph, idle, inner, (*loops, Loop(node.attributes["path"], turns_of(node, number))))
