"""Which values are numbers of full precision in a model of half precision, and where they must be converted.

What follows from positions and numbers alone (angles, biases) is computed in float32 whatever the activations are.
"""

from __future__ import annotations

from collections.abc import Iterator

from tfdsl.ir.graph import Graph, Node, Value, changing, fed

# Ops whose float operands must be of one type.
SAME_TYPE = (
    *("add", "sub", "mul", "div", "pow", "maximum", "minimum", "where", "concat", "einsum", "matmul"),
    *("attend", "route"),
    *("linear", "conv1d", "conv2d", "layer_norm", "rms_norm", "group_norm"),
)
_NEVER = ("embedding", "one_hot", "repeat", "route", "scan", "weight", "constant")
Derived = dict[int, set[Value]]


def derived_values(graph: Graph) -> Derived:
    """For each region, by identity, the float values that follow from positions and numbers alone."""
    found: Derived = {}
    _derive(graph, set(), found)
    return found


def _derive(graph: Graph, inputs: set[int], found: Derived) -> None:
    derived = found[id(graph)] = {Value(node) for node in inputs if graph.node(node).type.dtype == "float"}
    for node in graph.nodes():
        if node.op not in ("input", *_NEVER) and all(value in derived for value in _sources(graph, node)):
            derived |= {Value(node.id, index) for index, each in enumerate(node.types) if each.dtype == "float"}
        for body in node.bodies:
            outside = list(zip(body.inputs, fed(node), strict=True))[changing(node) :]
            _derive(body, {inner for inner, value in outside if value in derived}, found)


def _sources(graph: Graph, node: Node) -> Iterator[Value]:
    """The float operands of a node that are no numbers."""
    for value in node.inputs:
        if value is not None and graph.type(value).dtype == "float" and graph.node(value).op != "constant":
            yield value


def misfits(graph: Graph, node: Node, derived: set[Value]) -> tuple[set[int], int] | None:
    """The places of the operands that must be converted, and that of one whose type they must have; None for none."""
    if node.op not in SAME_TYPE or not node.types or node.types[0].dtype != "float":
        return None
    places = [
        place
        for place, value in enumerate(node.inputs)
        if value is not None and graph.type(value).dtype == "float" and graph.node(value).op != "constant"
    ]
    wrong = {place for place in places if node.inputs[place] in derived}
    right = [place for place in places if place not in wrong]
    return (wrong, right[0]) if wrong and right else None
