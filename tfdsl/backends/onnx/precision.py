"""Which nodes of a flat graph compute in float32 where the model as a whole is in float16.

Large sums, exponentials and whatever follows from positions lose too much, or overflow, in eleven bits; products with
weights and attention do not, since their operators add up in float32. A node computes in float32 if it is one of the
first, if an operand comes from one (products with weights and attention excepted, which begin anew in float16), or if
all that read it compute in float32.
"""

from __future__ import annotations

from tfdsl.ir.graph import Graph, Node, Value

WIDE, HALF = "F32", "F16"

# Sums and powers: what overflows in float16 or cancels.
_WIDE = frozenset(
    ("softmax", "log_softmax", "exp", "log", "pow", "softplus", "sqrt", "cumsum", "sum", "mean", "sin", "cos", "scan")
)
# These have weights, or what stands for them, and give float16 whatever comes in.
_HALF = frozenset(("linear", "conv1d", "conv2d", "rotate", "weight", "embedding", "dequantize", "input", "one_hot"))
_NORMS = ("layer_norm", "rms_norm", "group_norm")  # they add up in float32 by themselves
# An op of these computes in float32 for the sake of its readers too.
_LIGHT = frozenset(
    ("add", "sub", "mul", "div", "neg", "abs", "maximum", "minimum", "where", "rearrange", "expand", "slice", "select")
)


def precisions(graph: Graph, dtype: str) -> dict[int, str]:
    """The element type, "F32" or "F16", of the floats in each node, by its number; `dtype` is that of the model."""
    if dtype != HALF:
        return {node.id: WIDE for node in graph.nodes()}
    nodes = graph.nodes()
    found: dict[int, str] = {}
    fixed: set[int] = set()  # what follows from weights alone, and is computed when a model is loaded
    for node in nodes:
        if _is_fixed(graph, node, fixed):
            fixed.add(node.id)
        found[node.id] = _forward(graph, node, found, fixed)
    for node in reversed(nodes):
        if node.op in _LIGHT and found[node.id] == HALF and _read_wide(graph, node, found):
            found[node.id] = WIDE
    return found


def _is_fixed(graph: Graph, node: Node, fixed: set[int]) -> bool:
    sources = _sources(node)
    return node.op == "weight" or (
        bool(sources) and all(each.node in fixed or _is_number(graph, each) for each in sources)
    )


def _forward(graph: Graph, node: Node, found: dict[int, str], fixed: set[int]) -> str:
    if node.op in _WIDE or node.op == "constant":
        return WIDE
    if node.op in _HALF:
        return HALF
    if node.op == "cast":
        # The numbers 0 and 1 are exact in any type; larger ones are not.
        return HALF if graph.type(_sources(node)[0]).dtype == "bool" else WIDE
    if node.id in fixed:
        return WIDE
    sources = _sources(node)
    if node.op == "attend":
        # A bias of positions must not be rounded; queries, keys and values may.
        sources = [value for value in node.inputs[3:4] if value is not None]
    elif node.op in _NORMS:
        sources = sources[:1]
    floats = [value for value in sources if graph.type(value).dtype == "float" and not _is_number(graph, value)]
    if not floats:
        return HALF if node.op == "attend" else WIDE
    return WIDE if any(found[value.node] == WIDE for value in floats) else HALF


def _is_number(graph: Graph, value: Value) -> bool:
    return graph.node(value).op == "constant"


def _sources(node: Node) -> list[Value]:
    return [value for value in node.inputs if value is not None]


def _read_wide(graph: Graph, node: Node, found: dict[int, str]) -> bool:
    users = [user for index in range(len(node.types)) for user, _ in graph.users(Value(node.id, index))]
    return bool(users) and all(found[user.id] == WIDE for user in users)
