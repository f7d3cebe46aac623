"""Ops with a state: calls of the module that holds it, which stands among the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfdsl.backends.torch.code import Code, call
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.site import Lowering, Site
from tfdsl.backends.torch.state_helpers import STATE_CLASSES
from tfdsl.ir.graph import Node
from tfdsl.ir.ops import OPS

if TYPE_CHECKING:
    from tfdsl.backends.torch.layer_calls import Maker


def _method(name: str) -> Lowering:
    """A call of a method of the state with the operands that are there."""

    def lower(s: Site) -> Code:
        kind = STATE_CLASSES[s.node.op]
        holder = s.forward.draft.state(kind, s.a.path)
        return call(f"{holder}.{name}", *(s.arg(place) for place in range(len(s.args)) if s.has(place)))

    return lower


STATE_LOWERINGS: dict[str, Lowering] = {
    "append": _method("append"),
    "running_attend": _method("attend"),
    "running_sum": _method("add"),
    "recall": _method("recall"),
    "remember": _method("remember"),
}


# --- the calls that make them ----------------------------------------------------------------------------------------


def _cache(m: Maker, layer: Layer) -> str:
    assert layer.node is not None
    a = OPS["append"].fill(layer.node.attributes)
    bounds = [f"{name}={value}" for name, value in (("last", a.last), ("fill", a.fill or None)) if value is not None]
    return _made(m, layer.node, str(a.axis), *bounds)


def _running_attention(m: Maker, layer: Layer) -> str:
    assert layer.node is not None and layer.graph is not None
    decay = layer.node.inputs[3]
    by_feature = decay is not None and len(layer.graph.type(decay).dims) == 4
    within = "gated_linear_attend" if by_feature else "linear_attend"
    m.program.use_helper("Callable")
    m.program.use_helper(within)
    return _made(m, layer.node, within)


def _running_sum(m: Maker, layer: Layer) -> str:
    assert layer.node is not None
    return _made(m, layer.node, str(OPS["running_sum"].fill(layer.node.attributes).axis))


def _made(m: Maker, node: Node, *settings: str) -> str:
    m.program.use_helper(STATE_CLASSES[node.op])
    return call(STATE_CLASSES[node.op], *settings).text


STATE_CALLS: dict[str, Callable[[Maker, Layer], str]] = {
    "append": _cache,
    "running_attend": _running_attention,
    "running_sum": _running_sum,
    "recall": lambda m, layer: _made(m, layer.node) if layer.node is not None else "",
}
