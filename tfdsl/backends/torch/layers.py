"""Weights as `torch.nn` layers: which module holds a weight, and which ops it can be called for."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.ir.states import STATEFUL


@dataclass(eq=False)
class Layer:
    """One place that holds weights: a `torch.nn` layer, or a bag of parameters where none fits. A state is a place too.

    `op` is the op of the node that it serves (None for a bag), `node` and `graph` that node, `weights` the weight nodes by
    the last part of their path; a state has none.
    """

    path: str
    op: str | None
    node: Node | None
    graph: Graph | None
    weights: dict[str, Node] = field(default_factory=dict)


LAYER_OPS = ("embedding", "linear", "conv1d", "conv2d", "layer_norm", "rms_norm", "group_norm")


def collect(graph: Graph) -> dict[str, Layer]:
    """All places that hold weights, by path, and those of states."""
    found: dict[str, Layer] = {}
    _enter(graph, found)
    for region in graph.regions():
        for node in region.nodes():
            if node.op in LAYER_OPS:
                _offer(found, region, node)
            if node.op in STATEFUL:
                found[node.attributes["path"]] = Layer(node.attributes["path"], node.op, node, region)
    return found


def _enter(graph: Graph, found: dict[str, Layer]) -> None:
    """Enter the places of a region and of the loops in it, in the order in which the model runs through them."""
    for node in graph.nodes():
        for value in node.inputs:
            _enter_weight(graph, value, found)
        for body in node.bodies:
            _enter(body, found)
    for node in graph.nodes():
        _enter_weight(graph, Value(node.id), found)  # those that nothing reads, or the caller


def _enter_weight(graph: Graph, value: Value | None, found: dict[str, Layer]) -> None:
    node = graph.node(value) if value is not None else None
    if node is not None and node.op == "weight":
        parent, _, name = node.attributes["path"].rpartition(".")
        found.setdefault(parent, Layer(parent, None, None, None)).weights.setdefault(name, node)


def _offer(found: dict[str, Layer], graph: Graph, node: Node) -> None:
    """Let a node's op be the layer at its weights' place, if all that is held there is what such a layer holds."""
    weights = weight_operands(graph, node)
    if "weight" not in weights:
        return
    parent = weights["weight"].attributes["path"].rpartition(".")[0]
    layer = found[parent]
    paths = {operand: weight.attributes["path"].rpartition(".") for operand, weight in weights.items()}
    fits = all(path[0] == parent and path[2] == operand for operand, path in paths.items())
    if not fits or set(layer.weights) != set(weights) or weights["weight"].type.dtype != "float":
        return
    if layer.op is None or LAYER_OPS.index(node.op) < LAYER_OPS.index(layer.op):
        layer.op, layer.node, layer.graph = node.op, node, graph


def weight_operands(graph: Graph, node: Node) -> dict[str, Node]:
    """The weight nodes that a node reads directly as its weights, by operand."""
    found = {}
    for operand, value in zip(OPS[node.op].operands, node.inputs, strict=False):
        if operand.weight and value is not None:
            source = graph.node(value)
            if source.op != "weight":
                return {}
            found[operand.name] = source
    return found


_STORED = ("size", "dim", "out", "bias", "scale")  # attributes that the weights themselves tell


def serves(layer: Layer | None, graph: Graph, node: Node) -> bool:
    """Whether a node can be computed by calling the layer: same op, same weights, same settings."""
    if layer is None or layer.op != node.op or layer.node is None:
        return False
    read = {operand: weight.attributes["path"] for operand, weight in weight_operands(graph, node).items()}
    if read != {name: weight.attributes["path"] for name, weight in layer.weights.items()}:
        return False
    mine, its = OPS[node.op].fill(node.attributes), OPS[node.op].fill(layer.node.attributes)
    names = [each.name for each in OPS[node.op].attributes if each.name not in _STORED]
    return all(getattr(mine, name) == getattr(its, name) for name in names)
