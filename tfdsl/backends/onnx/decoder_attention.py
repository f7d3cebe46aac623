"""Attention over what was remembered: the standard operator `Attention`, and `GroupQueryAttention` of ONNX Runtime.

The standard operator joins the past with what is new by itself. The other writes what is new into a buffer that is past and
present at once, so that a step costs no copy of the past.
"""

from __future__ import annotations

from functools import reduce

import onnx

from tfdsl.backends.onnx import attention, sizes
from tfdsl.backends.onnx.attention import Mask
from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.decoder_builder import CONTRIBUTED, Appended, DecoderBuilder, attended
from tfdsl.ir import masks
from tfdsl.ir.graph import Graph, Node
from tfdsl.ir.masks import Joined, Term
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.passes.lower_masks import conjuncts

# What stands for minus infinity: a row of nothing but it is a mean of values that nobody reads, and not a NaN.
_HIDDEN = -1e30
_FEATURES = 8  # those of a head are a multiple of this, or `GroupQueryAttention` does without


def stays(graph: Graph, node: Node, part: masks.Mask) -> bool:
    """Whether a conjunct of an attention's mask is told to its operator rather than made of nodes."""
    return grouped(graph, node) and _tellable(part)


def never_stays(graph: Graph, node: Node, part: masks.Mask) -> bool:
    """The standard operator is told all of a mask as a tensor."""
    return False


def _tellable(part: masks.Mask) -> bool:
    return part == masks.CAUSAL or (isinstance(part, Term) and part.kind == "window")


def is_told(node: Node) -> bool:
    """Whether an attention, once masks are lowered, is one for `GroupQueryAttention`."""
    return "mask" in node.attributes and "offset" in node.attributes


def grouped(graph: Graph, node: Node) -> bool:
    """Whether an attention is one that `GroupQueryAttention` computes: causal, over keys and values that it appends.

    The operator gives no zeros for a query that sees nothing, so each query must be sure to see its own key; what is
    padding may see anything, since nobody reads it.
    """
    appends = [graph.node(value) for value in node.inputs[1:3] if value is not None]
    if any(each.op != "append" or attended(graph, each) is not node for each in appends):
        return False
    a, state = OPS["attend"].fill(node.attributes), OPS["append"].fill(appends[0].attributes)
    (q, _, v), new = (graph.type(value).dims for value in node.inputs[:3] if value is not None), appends[0].inputs[0]
    assert new is not None
    if state.last is not None or a.offset != state.size or q[2] != graph.type(new).dims[2]:
        return False
    if q[3] != v[3] or not isinstance(q[3], int) or q[3] % _FEATURES:
        return False
    parts = list(conjuncts(masks.simplify(a.mask))) if a.mask is not None else []
    others = [part for part in parts if not (isinstance(part, Term) and part.kind == "padding")]
    if masks.CAUSAL not in parts or sum(_tellable(part) for part in parts) > 2 or node.inputs[4] is not None:
        return False
    return not masks.may_hide_all(reduce(lambda left, right: Joined("&", left, right), others))


def attend(
    b: Builder,
    a: Attributes,
    q: str,
    k: str,
    v: str,
    bias: str | None,
    allowed: str | None,
    sinks: str | None,
    *mask_operands: str,
) -> str:
    """Attention, with what it appends if that was left to it."""
    assert isinstance(b, DecoderBuilder) and b.node is not None and not mask_operands
    if k not in b.appended:
        return attention.attend(b, a, q, k, v, bias, allowed, sinks)
    keys, values = b.appended[k], b.appended[v]
    if a.mask is not None:
        return _grouped(b, a, q, keys, values, bias, allowed, sinks)
    return _standard(b, a, q, k, keys, values, bias, allowed)


def _standard(
    b: DecoderBuilder,
    a: Attributes,
    q: str,
    k: str,
    keys: Appended,
    values: Appended,
    bias: str | None,
    allowed: str | None,
) -> str:
    queries, length = b.dims(q)[2], b.dims(k)[2]
    shown = None if allowed is None else Mask(allowed, b.dims(allowed))
    added = None if bias is None else Mask(bias, b.dims(bias))
    mask = attention.joined(b, added, shown)
    if mask is not None:
        mask = attention.stretched(b, mask, (queries, length))
    heads, groups = b.dims(q)[1], b.dims(k)[1]
    operands = [b.by_rows(each) for each in (q, keys.new, values.new)]
    pasts = [b.past(each.state) for each in (keys, values)]
    rows, *presents = b.emit_all(
        "Attention",
        3,
        *operands,
        mask and mask.value,
        *pasts,
        q_num_heads=heads,
        kv_num_heads=groups,
        scale=a.scale,
        softcap=a.softcap,
    )
    for each, present in zip((keys, values), presents, strict=True):
        b.keep(each.state, b.last_of(present, each.state))
    return b.by_heads(rows, heads)


def _grouped(
    b: DecoderBuilder,
    a: Attributes,
    q: str,
    keys: Appended,
    values: Appended,
    bias: str | None,
    allowed: str | None,
    sinks: str | None,
) -> str:
    assert b.node is not None
    batch, heads, queries, _ = b.dims(q)
    total = a.offset + queries
    window = next((part.arguments[0] for part in conjuncts(a.mask) if isinstance(part, Term) and part.arguments), None)
    with b.within("/sizes"):
        length = b.emit("Cast", sizes.scalar(b, total), to=onnx.TensorProto.INT32)
        last = b.emit("Sub", sizes.size(b, total), b.ints(1))
        lasts = b.emit("Cast", b.emit("Expand", last, sizes.size(b, batch)), to=onnx.TensorProto.INT32)
        new = b.emit("Expand", sizes.size(b, queries), sizes.size(b, batch))
        fresh = b.emit("Cast", new, to=onnx.TensorProto.INT32)
    mask = _numbers(b, bias, allowed)
    if mask is not None:
        mask = attention.stretched(b, mask, (1, 1, queries, total))
    rows, *presents = b.emit_all(
        "GroupQueryAttention",
        3,
        b.by_rows(q),
        b.by_rows(keys.new),
        b.by_rows(values.new),
        b.past(keys.state),
        b.past(values.state),
        lasts,
        length,
        None,
        None,
        None,
        mask and mask.value,
        sinks,
        *(None,) * 4,
        fresh,
        domain=CONTRIBUTED,
        num_heads=heads,
        kv_num_heads=b.dims(keys.new)[1],
        scale=a.scale,
        softcap=a.softcap,
        local_window_size=window,
    )
    for each, present in zip((keys, values), presents, strict=True):
        b.keep(each.state, present, shared=True)
    return b.by_heads(rows, heads)


def _numbers(b: DecoderBuilder, bias: str | None, allowed: str | None) -> Mask | None:
    """What is added to scores."""
    added = None if bias is None else Mask(bias, b.dims(bias))
    if allowed is None:
        return added
    shown = Mask(allowed, b.dims(allowed))
    return attention.joined(b, added or attention.zero(b), shown, _HIDDEN)
