"""Weights as `torch.nn` layers: which module holds a weight, how it is made, how it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tfdsl.ir.graph import Graph, Initializer, Node
from tfdsl.ir.ops import OPS


@dataclass(eq=False)
class Layer:
    """One place that holds weights: a `torch.nn` layer, or a bag of parameters where none fits.

    `op` is the op of the node that it serves (None for a bag), `node` and `graph` that node, `weights` the weight nodes by
    the last part of their path.
    """

    path: str
    op: str | None
    node: Node | None
    graph: Graph | None
    weights: dict[str, Node] = field(default_factory=dict)


LAYER_OPS = ("embedding", "linear", "conv1d", "conv2d", "layer_norm", "rms_norm", "group_norm")


def collect(graph: Graph) -> dict[str, Layer]:
    """All places that hold weights, by path."""
    found: dict[str, Layer] = {}
    _enter(graph, found)
    for region in graph.regions():
        for node in region.nodes():
            if node.op in LAYER_OPS:
                _offer(found, region, node)
    return found


def _enter(graph: Graph, found: dict[str, Layer]) -> None:
    """Enter the places of a region and of the loops in it, in the order in which the model runs through them."""
    for node in graph.nodes():
        for value in node.inputs:
            source = graph.node(value) if value is not None else None
            if source is not None and source.op == "weight":
                parent, _, name = source.attributes["path"].rpartition(".")
                found.setdefault(parent, Layer(parent, None, None, None)).weights.setdefault(name, source)
        for body in node.bodies:
            _enter(body, found)


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


def serves(layer: Layer | None, graph: Graph, node: Node) -> bool:
    """Whether a node can be computed by calling the layer: same op, same weights, same settings."""
    if layer is None or layer.op != node.op or layer.node is None:
        return False
    weights = weight_operands(graph, node)
    if {k: w.attributes["path"] for k, w in weights.items()} != {
        k: w.attributes["path"] for k, w in layer.weights.items()
    }:
        return False
    ignore = {"size", "dim", "out", "bias", "scale"}
    mine, its = OPS[node.op].fill(node.attributes), OPS[node.op].fill(layer.node.attributes)
    return all(getattr(mine, a.name) == getattr(its, a.name) for a in OPS[node.op].attributes if a.name not in ignore)


def initial(initializer: Initializer, target: str) -> str | None:
    """The statement that gives a parameter its initial values."""
    kind, arguments = initializer.kind, initializer.arguments
    first = arguments[0] if arguments else None
    gain = "" if first in (None, 1.0) else f", gain={first!r}"
    statements: dict[str, str] = {
        "zeros": f"nn.init.zeros_({target})",
        "ones": f"nn.init.ones_({target})",
        "constant": f"nn.init.constant_({target}, {first!r})",
        "normal": f"nn.init.normal_({target}, std={first!r})",
        "trunc_normal": f"nn.init.trunc_normal_({target}, std={first!r}, a={-2 * (first or 0)!r}, b={2 * (first or 0)!r})",
        "uniform": f"nn.init.uniform_({target}, {-(first or 0)!r}, {first!r})",
        "xavier_uniform": f"nn.init.xavier_uniform_({target}{gain})",
        "xavier_normal": f"nn.init.xavier_normal_({target}{gain})",
    }
    return statements.get(kind)


def default_of(op: str | None, name: str) -> Initializer | None:
    """What `torch.nn` itself begins a parameter with, where that is one of our initialisers."""
    if op in ("layer_norm", "rms_norm", "group_norm"):
        return Initializer("ones") if name == "weight" else Initializer("zeros")
    return None


def spread(initializer: Initializer, dims: list[int], target: str) -> str:
    """Initialisers that `torch.nn.init` lacks for such a shape, as the numbers they come to."""
    field_size = math.prod(dims[2:])
    fan_in = dims[1] * field_size if len(dims) > 1 else dims[0]
    fan_out = dims[0] * field_size
    gain = initializer.arguments[0] if initializer.arguments else 1.0
    total = fan_in + fan_out if initializer.kind.startswith("xavier") else fan_in
    share = 2.0 if initializer.kind.startswith("xavier") else 1.0
    deviation = gain * math.sqrt(share / total)
    if initializer.kind.endswith("normal"):
        return f"nn.init.normal_({target}, std={deviation!r})"
    bound = deviation * math.sqrt(3.0)
    return f"nn.init.uniform_({target}, {-bound!r}, {bound!r})"
