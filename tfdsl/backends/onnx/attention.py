"""Attention and rotary positions, as the standard operators `Attention` and `RotaryEmbedding`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfdsl.backends.onnx import sizes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.ir import masks
from tfdsl.ir.dims import Size, product
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import broadcast

Shape = tuple[Size, ...]


class Mask(NamedTuple):
    """Booleans, or numbers to add to scores, that broadcast to scores [batch, heads, queries, keys]."""

    value: str
    dims: Shape


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
    """The operator agrees with `attend`: causal is k <= q, the softcap comes before the mask, empty rows give zeros."""
    assert a.mask in (None, masks.CAUSAL) and not mask_operands, "other masks are lowered before"
    queries, keys = b.dims(q)[2], b.dims(k)[2]
    shown = None if allowed is None else Mask(allowed, b.dims(allowed))
    added = None if bias is None else Mask(bias, b.dims(bias))
    causal = a.mask == masks.CAUSAL
    if sinks is None:
        mask = joined(b, added, shown)
    else:
        # The operator has no sinks. A key of zeros before all others is one: its score is what the mask adds there.
        visible = _and_causal(b, shown, queries, keys) if causal else shown
        mask = _with_sinks(b, joined(b, added or zero(b), visible), sinks, keys)
        k, v, keys, causal = _zeros_before(b, k), _zeros_before(b, v), keys + 1, False
    if mask is not None:
        # Of a mask's axes the operator stretches batch and heads only.
        mask = stretched(b, mask, (queries, keys))
    settings = {"is_causal": 1 if causal else None, "scale": a.scale, "softcap": a.softcap}
    return b.emit("Attention", q, k, v, mask and mask.value, **settings)


def joined(b: Builder, bias: Mask | None, allowed: Mask | None, hidden: float = -np.inf) -> Mask | None:
    """One mask for both: `hidden` where it is not allowed to look."""
    if bias is None or allowed is None:
        return bias or allowed
    value = b.emit("Where", allowed.value, bias.value, b.scalar(hidden, "float"))
    return Mask(value, broadcast(allowed.dims, bias.dims))


def zero(b: Builder) -> Mask:
    return Mask(b.scalar(0, "float"), ())


def _and_causal(b: Builder, allowed: Mask | None, queries: Size, keys: Size) -> Mask:
    one, zero = b.scalar(1, "int"), b.scalar(0, "int")
    rows = b.emit("Unsqueeze", b.emit("Range", zero, sizes.scalar(b, queries), one), b.ints(1))
    value = b.emit("LessOrEqual", b.emit("Range", zero, sizes.scalar(b, keys), one), rows)
    dims: Shape = (queries, keys)
    if allowed is None:
        return Mask(value, dims)
    return Mask(b.emit("And", allowed.value, value), broadcast(allowed.dims, dims))


def _with_sinks(b: Builder, mask: Mask | None, sinks: str, keys: Size) -> Mask:
    """The mask with a first column that holds each head's sink."""
    assert mask is not None
    mask = stretched(b, mask, (keys,))
    column = b.emit("Unsqueeze", sinks, b.ints(1, 2))
    rank = len(mask.dims)
    before = b.emit("Pad", mask.value, b.ints(*(0,) * (rank - 1), 1, *(0,) * rank))
    wide = b.emit("Add", before, b.emit("Pad", column, sizes.shape(b, (0, 0, 0, 0, 0, keys))))
    return Mask(wide, broadcast((*mask.dims[:-1], keys + 1), (*b.dims(sinks), 1, keys + 1)))


def _zeros_before(b: Builder, x: str) -> str:
    return b.emit("Pad", x, b.ints(0, 0, 1, 0, 0, 0, 0, 0))


def stretched(b: Builder, mask: Mask, last: Shape) -> Mask:
    dims = broadcast(mask.dims, last)
    return Mask(sizes.expand(b, mask.value, mask.dims, dims), dims)


def rotate(b: Builder, a: Attributes, x: str, cos: str, sin: str) -> str:
    """The operator wants x [batch, positions, features] of one head, or [batch, heads, positions, features]."""
    dims = b.dims(x)
    batch: Size = dims[0] if len(dims) > 2 else 1
    rotated = 2 * b.dims(cos)[-1]
    whole = x
    if len(dims) == 2:
        whole = b.emit("Unsqueeze", x, b.ints(0))
    elif len(dims) > 4:
        whole = sizes.reshape(b, x, dims, (batch, product(dims[1:-2]), *dims[-2:]))
    angles = [sizes.expand(b, each, b.dims(each), (batch, *b.dims(each)[-2:])) for each in (cos, sin)]
    result = b.emit(
        "RotaryEmbedding",
        whole,
        *angles,
        num_heads=1 if len(dims) < 4 else None,
        rotary_embedding_dim=None if rotated == dims[-1] else rotated,
        interleaved=int(a.interleaved) or None,
    )
    if len(dims) == 2:
        return b.emit("Squeeze", result, b.ints(0))
    return sizes.reshape(b, result, (batch, product(dims[1:-2]), *dims[-2:]), dims) if len(dims) > 4 else result
