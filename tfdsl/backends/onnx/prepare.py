"""From a graph as a spec says it to one that lowers node by node, and how its weights are to lie in the file."""

from __future__ import annotations

from collections.abc import Mapping

from tfdsl.backends.prepare import fix_sizes
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.clean import clean
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll


def flat_graph(graph: Graph, dims: Mapping[str, int] | None) -> Graph:
    """The graph without loops, with causal masks only, at the given sizes, and without what is for training."""
    flat = unroll(graph)
    if dims:
        flat = fix_sizes(flat, dims)
    flat.penalties = []
    return clean(lower_linear_attention(lower_masks(flat)))[0]


def layouts(graph: Graph) -> dict[str, str]:
    """The form in which to store each weight that is not to lie as it is.

    Floats lie as they do in checkpoints, so that their bytes can be copied or referred to; ONNX Runtime turns them when
    it loads a model. A quantised weight [out, in] that products alone read is stored [in, out], as the operators that
    compute with such weights want it; one that is read otherwise too (a table tied to a head) stays as it is, since it
    must not be stored twice.
    """
    forms: dict[str, set[str]] = {}
    for region in graph.regions():
        for node in region.nodes():
            if node.op == "weight":
                forms.setdefault(node.attributes["path"], set()).add(_form(region, node))
    return {path: form for path, (form, *others) in forms.items() if not others and form != "plain"}


def _form(graph: Graph, weight: Node) -> str:
    readers = graph.users(Value(weight.id))
    places = {(user.op, place) for user, place in readers}
    if places == {("dequantize", 1)} and all(dim == 1 for dim in weight.type.dims[1:]):
        return "flat"
    turned = len(weight.type.dims) == 2 and places <= {("dequantize", 0), ("dequantize", 1)}
    return "transposed" if turned and all(_only_multiplied(graph, user) for user, _ in readers) else "plain"


def _only_multiplied(graph: Graph, dequantized: Node) -> bool:
    value = Value(dequantized.id)
    users = graph.users(value)
    return bool(users) and not graph.is_result(value) and all(each.op == "linear" and at == 1 for each, at in users)
