"""The table of lowerings of decoders: what remembers, and what is done in the order of positions rather than of heads."""

from __future__ import annotations

from typing import Any

from tfdsl.backends.onnx import attention, decoder_attention, sizes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.decoder_builder import CONTRIBUTED, END, FLAT, DecoderBuilder, attended
from tfdsl.backends.onnx.lowerings import LOWERINGS as PLAIN
from tfdsl.backends.onnx.lowerings import REFUSED as PLAIN_REFUSED
from tfdsl.backends.onnx.lowerings import Lowering
from tfdsl.backends.onnx.running import recall, remember, running_attend, running_sum
from tfdsl.backends.onnx.shapes import permute
from tfdsl.decoding.manifest import MASK, POSITIONS
from tfdsl.ir.op import Attributes
from tfdsl.ir.rearrange import rearrangement

_HEADS_BEFORE_POSITIONS = (0, 2, 1, 3)


def _input(b: Builder, a: Attributes) -> str:
    """An input; positions, if all are within the model's bound: else the call fails, as two numbers cannot be added to three.

    A runtime would go on with wrong numbers, and knows nothing of bounds.
    """
    assert isinstance(b, DecoderBuilder)
    given: str = PLAIN["input"](b, a)
    if a.name != POSITIONS or b.longest is None:
        return given
    with b.within(f"/at most {b.longest} positions"):  # what the failure names
        last = b.emit("ReduceMax", given, b.ints(0, 1), keepdims=0)
        beyond = b.emit("Cast", b.emit("GreaterOrEqual", last, b.scalar(b.longest, "int")), to=b.element("int"))
        count = b.emit("Add", beyond, b.scalar(1, "int"))  # 1, or 2 where a position is too far
        zeros = b.emit("Add", b.emit("Range", b.scalar(0, "int"), count, b.scalar(1, "int")), b.ints(0, 0, 0))
        return b.emit("Add", given, b.emit("ReduceMax", zeros, b.ints(0), keepdims=0))


def _append(b: Builder, a: Attributes, x: str) -> str:
    assert isinstance(b, DecoderBuilder) and b.node is not None
    state = b.states[a.path]
    reader = attended(b.graph, b.node)
    # The standard operator has no sinks: they are a key before all others.
    if reader is not None and (reader.inputs[5] is None or decoder_attention.is_told(reader)):
        return b.stand_in(x, state)
    joined = b.emit("Concat", b.past(state), x, axis=a.axis)
    b.keep(state, b.last_of(joined, state))
    return joined


def _linear(b: Builder, a: Attributes, x: str, weight: str, bias: str | None) -> str:
    assert isinstance(b, DecoderBuilder)
    if not b.ort or b.layout.get(weight) != "plain":
        result: str = PLAIN["linear"](b, a, x, weight, bias)
        return result
    product = b.emit("FusedMatMul", x, weight, transB=1, domain=CONTRIBUTED)
    return product if bias is None else b.emit("Add", product, bias)


def _rearrange(b: Builder, a: Attributes, x: str) -> str:
    """As elsewhere; heads taken apart or joined are known in the order of positions too."""
    assert isinstance(b, DecoderBuilder)
    dims = b.dims(x)
    plan = rearrangement(a.pattern, dims, dict(a.sizes or ()))
    turns = plan.order == _HEADS_BEFORE_POSITIONS
    if turns and x in b.rows and plan.split == dims and len(plan.merged) == 3 and plan.merged_groups == (1, 1, 2):
        return b.rows[x]
    result: str = PLAIN["rearrange"](b, a, x)
    if turns and len(dims) == 3 and plan.split_groups == (1, 1, 2) and plan.merged_groups == (1, 1, 1, 1):
        b.rows[result] = x
    return result


def _slice(b: Builder, a: Attributes, x: str) -> str:
    """As elsewhere; the last new position is each row's last real one, since `onnxruntime-genai` pads on the right."""
    assert isinstance(b, DecoderBuilder)
    dims = b.dims(x)
    if b.ort and dims[a.axis] == b.new and a.start == b.new - 1 and a.stop is None and b.batch in dims:
        order = (dims.index(b.batch), a.axis)
        if order == (0, 2) and len(dims) == 4 and isinstance(dims[1], int):
            return b.by_heads(_last(b, b.by_rows(x)), dims[1])
        order = (*order, *(axis for axis in range(len(dims)) if axis not in order))
        return permute(b, _last(b, permute(b, x, order)), tuple(order.index(axis) for axis in range(len(dims))))
    result: str = PLAIN["slice"](b, a, x)
    return result


def _last(b: DecoderBuilder, rows: str) -> str:
    """The last real one of the new positions of each row [batch, positions, ...]."""
    with b.within("/last"):
        real = b.emit("Slice", MASK, sizes.size(b, b.total - b.new), b.ints(END), b.ints(1))
        last = b.emit("ArgMax", real, axis=1, keepdims=1, select_last_index=1)
        return b.emit("GatherND", rows, b.emit("Unsqueeze", last, b.ints(-1)), batch_dims=1)


def _rotate(b: Builder, a: Attributes, x: str, cos: str, sin: str) -> str:
    assert isinstance(b, DecoderBuilder)
    result = attention.rotate(b, a, x, cos, sin)
    if x in b.rows:
        batch, heads, _, features = b.dims(x)
        half = b.dims(cos)[-1]
        angles = [sizes.expand(b, each, b.dims(each), (batch, *b.dims(each)[-2:])) for each in (cos, sin)]
        b.rows[result] = b.emit(
            "RotaryEmbedding",
            b.rows[x],
            *angles,
            num_heads=heads,
            rotary_embedding_dim=None if 2 * half == features else 2 * half,
            interleaved=int(a.interleaved) or None,
        )
    return result


def _normalized(op: str) -> Lowering:
    """A normalisation of the features of each head, in both orders."""

    def lowering(b: Builder, a: Attributes, x: str, *parameters: Any) -> str:
        assert isinstance(b, DecoderBuilder) and b.node is not None
        result: str = PLAIN[op](b, a, x, *parameters)
        if x in b.rows:
            apart = b.apart(b.rows[x], b.dims(x)[1])
            b.types.setdefault(apart, b.types[x])  # of which only the last axis matters here
            b.rows[result] = b.emit("Reshape", PLAIN[op](b, a, apart, *parameters), b.ints(*FLAT))
        return result

    return lowering


LOWERINGS: dict[str, Lowering] = {
    **PLAIN,
    "input": _input,
    "linear": _linear,
    "layer_norm": _normalized("layer_norm"),
    "rms_norm": _normalized("rms_norm"),
    "rearrange": _rearrange,
    "slice": _slice,
    "rotate": _rotate,
    "attend": decoder_attention.attend,
    "append": _append,
    "running_attend": running_attend,
    "running_sum": running_sum,
    "recall": recall,
    "remember": remember,
}
REFUSED: dict[str, str] = {op: reason for op, reason in PLAIN_REFUSED.items() if op not in LOWERINGS}
