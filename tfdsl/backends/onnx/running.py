"""Sums that go on from call to call: cumulative sums, and linear attention."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from tfdsl.backends.onnx import sizes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.decoder_builder import CONTRIBUTED, DecoderBuilder
from tfdsl.ir.op import Attributes


def running_sum(b: Builder, a: Attributes, x: str) -> str:
    """The sum so far along an axis, on top of what the last call left."""
    assert isinstance(b, DecoderBuilder)
    state = b.states[a.path]
    here = b.emit("CumSum", x, b.scalar(a.axis, "int"))
    result = b.emit("Add", here, b.emit("Unsqueeze", b.past(state), b.ints(a.axis)))
    b.keep(state, b.emit("Gather", result, b.scalar(-1, "int"), axis=a.axis))
    return result


def recall(b: Builder, a: Attributes, like: str) -> str:
    assert isinstance(b, DecoderBuilder)
    return b.past(b.states[a.path])


def remember(b: Builder, a: Attributes, x: str, state: str) -> str:
    """The state goes out beside what the op passes on."""
    assert isinstance(b, DecoderBuilder)
    b.keep(b.states[a.path], b.emit("Identity", state))
    return x


def running_attend(b: Builder, a: Attributes, q: str, k: str, v: str, decay: str | None) -> str:
    """Linear attention that goes on from the state [batch, heads, d, e]."""
    assert isinstance(b, DecoderBuilder) and b.node is not None
    state = b.states[a.path]
    heads = b.node.type.dims[1]
    q, k, v = (_each_head(b, each, heads) for each in (q, k, v))
    if decay is not None:
        decay = _decay(b, decay, q)
    if b.ort:
        result, present = _fused(b, q, k, v, decay, b.past(state))
    elif decay is None:
        result, present = _products(b, q, k, v, b.past(state))
    else:
        result, present = _scan(b, q, k, v, decay, b.past(state))
    b.keep(state, present)
    return result


def _each_head(b: DecoderBuilder, x: str, heads: Any) -> str:
    """A tensor [batch, groups, positions, n] with so many heads."""
    batch, groups, length, features = b.dims(x)
    if groups == heads:
        return x
    apart = b.emit("Unsqueeze", x, b.ints(2))
    wide = b.emit("Expand", apart, b.ints(1, 1, heads // groups, 1, 1))
    result = b.emit("Reshape", wide, b.ints(0, heads, -1, features))
    b.types.setdefault(result, b.types[x]._replace(dims=(batch, heads, length, features)))
    return result


def _decay(b: DecoderBuilder, decay: str, q: str) -> str:
    """A decay stretched to [batch, heads, positions], or to that and the features."""
    by_feature = len(b.dims(decay)) == 4
    dims = b.dims(q) if by_feature else b.dims(q)[:3]
    result = sizes.expand(b, decay, b.dims(decay), dims)
    b.types.setdefault(result, b.types[decay]._replace(dims=dims))
    return result


def _fused(b: DecoderBuilder, q: str, k: str, v: str, decay: str | None, past: str) -> tuple[str, str]:
    """One operator of ONNX Runtime, which goes position by position."""
    heads = b.dims(q)[1]
    if decay is not None:
        decay = _decay_by_rows(b, decay)
    rows, present = b.emit_all(
        "LinearAttention",
        2,
        *(b.by_rows(each) for each in (q, k, v)),
        past,
        decay,
        domain=CONTRIBUTED,
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=1.0,
        update_rule="linear" if decay is None else "gated",
    )
    return b.by_heads(rows, heads), present


def _decay_by_rows(b: DecoderBuilder, decay: str) -> str:
    if len(b.dims(decay)) == 4:
        return b.by_rows(decay)
    return b.emit("Transpose", decay, perm=(0, 2, 1))


def _products(b: DecoderBuilder, q: str, k: str, v: str, past: str) -> tuple[str, str]:
    """Without a decay: what the state gives, and all pairs of new positions."""
    turned = b.emit("Transpose", k, perm=(0, 1, 3, 2))
    scores = b.emit("Trilu", b.emit("MatMul", q, turned), upper=0)
    result = b.emit("Add", b.emit("MatMul", q, past), b.emit("MatMul", scores, v))
    return result, b.emit("Add", past, b.emit("MatMul", turned, v))


def _scan(b: DecoderBuilder, q: str, k: str, v: str, decay: str, past: str) -> tuple[str, str]:
    """With a decay: a loop over positions, since what is left of a key since then is no product of two numbers."""
    step = _step(len(b.dims(decay)) == 4)
    present, result = b.recurrence(step, (past, q, k, v, decay), 2, (2, 2, 2, 2), 2)
    return result, present


def _step(by_feature: bool) -> onnx.GraphProto:
    """One position: q and k [batch, heads, d], v [batch, heads, e], and the state before and after."""
    each = "last" if by_feature else "both"
    nodes = [
        helper.make_node("Exp", ["decay"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", each], ["factor"]),
        helper.make_node("Mul", ["state", "factor"], ["left"]),
        helper.make_node("Unsqueeze", ["k", "last"], ["column"]),
        helper.make_node("Unsqueeze", ["v", "before"], ["row"]),
        helper.make_node("Mul", ["column", "row"], ["added"]),
        helper.make_node("Add", ["left", "added"], ["next"]),
        helper.make_node("Unsqueeze", ["q", "before"], ["query"]),
        helper.make_node("MatMul", ["query", "next"], ["read"]),
        helper.make_node("Squeeze", ["read", "before"], ["result"]),
    ]
    places = {"last": [-1], "before": [-2], each: [-1] if by_feature else [-2, -1]}
    numbers = [helper.make_tensor(name, onnx.TensorProto.INT64, [len(axes)], axes) for name, axes in places.items()]
    ends = {name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in _ENDS}
    inputs = [ends[name] for name in _ENDS[:5]]
    return helper.make_graph(nodes, "position", inputs, [ends[name] for name in _ENDS[5:]], numbers)


_ENDS = ("state", "q", "k", "v", "decay", "next", "result")
