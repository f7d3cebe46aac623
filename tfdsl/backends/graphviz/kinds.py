"""What a block is for, by the ops in it: the colour that it is drawn in."""

from __future__ import annotations

from collections.abc import Iterable

from tfdsl.ir.graph import Node

_FEED_FORWARD = {"gelu", "relu", "silu"}
_PRODUCTS = {"matmul", "einsum"}
_NORMS = {"layer_norm", "rms_norm", "group_norm"}
_LAYERS = {"linear", "conv1d", "conv2d"}
_REST = {"linear": _LAYERS, "attention": {"rotate"}, "embedding": {"embedding"}, "norm": _NORMS}


def kind_of_block(nodes: Iterable[Node]) -> str:
    """The kind of a block: attention, feed_forward, norm, embedding, linear, or plain for what is several of these."""
    ops = _ops(nodes)
    attention = bool({"attend", "linear_attend"} & ops) or ("softmax" in ops and bool(_PRODUCTS & ops))
    if attention:
        return "plain" if _FEED_FORWARD & ops else "attention"
    if _FEED_FORWARD & ops and (_LAYERS | _PRODUCTS) & ops:
        return "feed_forward"
    return next((kind for kind, members in _REST.items() if members & ops), "plain")


def _ops(nodes: Iterable[Node]) -> set[str]:
    ops: set[str] = set()
    for node in nodes:
        ops.add(node.op)
        for body in node.bodies:
            ops |= _ops(body.nodes())
    return ops
