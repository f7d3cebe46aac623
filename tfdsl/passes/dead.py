"""Dead code: what no output and no penalty needs, in loops too, where whole inputs and carried values may go."""

from __future__ import annotations

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.report import Report


def drop_dead(graph: Graph, report: Report) -> int:
    """Remove the nodes of a region that nothing needs, and what its loops carry and read in vain; how many went."""
    needed = set(graph.results())
    count = 0
    lost: set[int] = set()  # what only lost nodes read goes without a word of its own
    for node in reversed(graph.nodes()):
        results = [index for index in range(len(node.types)) if Value(node.id, index) in needed]
        if node.op == "input":
            continue
        if not results and not _has_penalties(node):
            if node.id not in lost and node.op not in ("weight", "constant"):
                report.change(f"nothing reads `{node.name or node.op}`", graph, node)
            lost.update(value.node for value in node.inputs if value is not None)
            graph.remove(node)
            count += 1
            continue
        if node.op == "repeat":
            places = _needed_places(node, set(results))
            if len(places) < len(node.inputs):
                count += len(node.inputs) - len(places)
                node = _narrowed(graph, node, places, report)
        needed.update(value for value in node.inputs if value is not None)
    return count


def _has_penalties(node: Node) -> bool:
    return any(region.penalties for body in node.bodies for region in body.regions())


def _needed_places(loop: Node, results: set[int]) -> list[int]:
    """The inputs of a loop that what is read of it depends on; a carried value that feeds one of them stays."""
    needed = set(results)
    while True:
        read = needed | {place for body in loop.bodies for place in _read_by(body, needed)}
        if read == needed:
            return sorted(needed)
        needed = read


def _read_by(body: Graph, outputs: set[int]) -> set[int]:
    """The places of the inputs that some outputs of a body, and its penalties, depend on."""
    waiting = [value.node for place, (_, value) in enumerate(body.outputs) if place in outputs]
    waiting += [value.node for _, value in body.penalties]
    waiting += [node.id for node in body.nodes() if _has_penalties(node)]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [value.node for value in body.node(node).inputs if value is not None]
    return {place for place, node in enumerate(body.inputs) if node in seen}


def _narrowed(graph: Graph, loop: Node, places: list[int], report: Report) -> Node:
    """The loop without the inputs that are not among `places`, in the place of the loop with them."""
    old = loop.attributes["carried"]
    carried = [place for place in places if place < old]
    for place in range(len(loop.inputs)):
        if place not in places:
            what = "carries" if place < old else "reads"
            report.change(f"`{loop.attributes['path']}` {what} a value in vain", graph, loop)
    for body in loop.bodies:
        _narrow_body(body, places, carried)
    made = graph.add(
        "repeat",
        [loop.inputs[place] for place in places],
        {**loop.attributes, "carried": len(carried)},
        tuple(loop.types[place] for place in carried),
        like=loop,
        labels=tuple(loop.labels[place] for place in carried) if loop.labels else (),
        spelled=dict(loop.spelled),
        bodies=loop.bodies,
    )
    for index, place in enumerate(carried):
        graph.redirect(Value(loop.id, place), Value(made.id, index))
    graph.remove(loop)
    return made


def _narrow_body(body: Graph, places: list[int], carried: list[int]) -> None:
    body.outputs = [body.outputs[place] for place in carried]
    # What only the dropped outputs needed would keep reading the dropped inputs; it goes with them.
    needed = {value.node for value in body.results()}
    for node in reversed(body.nodes()):
        if node.id in needed or _has_penalties(node):
            needed.update(value.node for value in node.inputs if value is not None)
        elif node.op != "input":
            body.remove(node)
    inputs = list(body.inputs)
    for place, node_id in enumerate(inputs):
        if place not in places:
            body.remove(body.node(node_id))
    body.inputs = [inputs[place] for place in places]
