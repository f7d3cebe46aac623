"""Attention as the operator `ScaledDotProductAttention`, and rotary positions in the form that the CPU plugin fuses."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import openvino

from tfdsl.backends.openvino import sizes
from tfdsl.backends.openvino.builder import Builder, Operand, Tensor
from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import broadcast

# What is added to the score of a key that may not be seen. The lowest number and not -inf: a kernel that goes through
# the keys in blocks would make NaN of a block that is hidden whole.
_HIDDEN = float(np.finfo(np.float32).min)

# What is added to scores that nothing else is added to: it changes no float32 but those near zero, and softmax not at
# all. Without it a kernel of the CPU plugin's for attention that first runs with one key gives garbage from then on
# wherever there are sixteen keys or more.
_NUDGE = 1e-30


class Mask(NamedTuple):
    """Booleans, or numbers to add to scores, that broadcast to scores [batch, heads, queries, keys]."""

    value: Operand
    dims: tuple[Size, ...]  # always four


def attend(
    b: Builder,
    a: Attributes,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    allowed: Tensor | None,
    sinks: Tensor | None,
    *rest: Tensor,
) -> openvino.Output:
    """A causal mask is spelled out: it is then made once for all layers, and right for any two lengths."""
    assert a.mask in (None, masks.CAUSAL) and not rest, "other masks are lowered before"
    visible = _like_scores(b, allowed)
    if a.mask == masks.CAUSAL:
        visible = _and_causal(b, visible, q.dims[2], k.dims[2])
    added = _added(b, _like_scores(b, bias), visible)
    if added is None and isinstance(k.dims[2], Dim):
        added = Mask(b.constant(np.full((1, 1, 1, 1), _NUDGE, dtype=np.float32)), (1, 1, 1, 1))
    scale = scale_of(b, a, q)
    keys, values = repeated(b, k, q.dims[1]), repeated(b, v, q.dims[1])
    if a.softcap is None and sinks is None:
        mask = b.scalar(0, "float") if added is None else added.value
        result = b.emit("scaled_dot_product_attention", q, keys, values, mask, scale)
    else:
        # The operator has no softcap, and without a state the CPU plugin takes it apart where it has sinks.
        scores = b.emit("multiply", b.emit("matmul", q, keys, transpose_a=False, transpose_b=True), scale)
        chances = _chances(b, a, scores, added, sinks, (*q.dims[:3], k.dims[2]))
        result = b.emit("matmul", chances, values, transpose_a=False, transpose_b=False)
    if visible is None or allowed is None or sinks is not None:
        return result  # under a causal mask alone every query sees the first key, and a sink can always be seen
    sees = b.emit("reduce_logical_or", visible.value, b.ints(-1), keep_dims=True)
    # The CPU plugin gives garbage for heads of 128 features, 192 and so on where what reads attention reads its mask as
    # well; with positions before heads it does not take them together.
    turned, shown = (b.emit("transpose", each, b.ints(0, 2, 1, 3)) for each in (result, sees))
    seen = b.emit("select", shown, turned, b.scalar(0, "float"))
    return b.emit("transpose", seen, b.ints(0, 2, 1, 3))


def _like_scores(b: Builder, x: Tensor | None) -> Mask | None:
    """A mask or a bias with all four axes."""
    if x is None:
        return None
    dims = ((1,) * (4 - x.rank)) + x.dims
    return Mask(sizes.reshape(b, x, x.dims, dims), dims)


def _and_causal(b: Builder, visible: Mask | None, queries: Size, keys: Size) -> Mask:
    rows = b.emit("unsqueeze", sizes.count(b, queries), b.ints(1))
    columns = b.emit("unsqueeze", sizes.count(b, keys), b.ints(0, 1, 2))
    causal = Mask(b.emit("less_equal", columns, rows), (1, 1, queries, keys))
    if visible is None:
        return causal
    return Mask(b.emit("logical_and", visible.value, causal.value), broadcast(visible.dims, causal.dims))


def _added(b: Builder, bias: Mask | None, visible: Mask | None) -> Mask | None:
    """What is added to the scores."""
    if visible is None:
        return bias
    seen = b.scalar(0, "float") if bias is None else bias.value
    dims = visible.dims if bias is None else broadcast(bias.dims, visible.dims)
    return Mask(b.emit("select", visible.value, seen, b.scalar(_HIDDEN, "float")), dims)


def scale_of(b: Builder, a: Attributes, q: Tensor) -> openvino.Output:
    features = q.dims[3]
    if a.scale is not None:
        return b.scalar(a.scale, "float")
    if isinstance(features, int):
        return b.scalar(1 / math.sqrt(features), "float")
    root = b.emit("sqrt", b.emit("convert", sizes.scalar(b, features), destination_type="f32"))
    return b.emit("divide", b.scalar(1, "float"), root)


def repeated(b: Builder, x: Tensor, heads: Size) -> Operand:
    """Keys or values [b, g, t, d] with each head as often as queries share it: the form that fusions know."""
    batch, groups, length, features = x.dims
    if groups == heads:
        return x
    assert isinstance(groups, int) and isinstance(heads, int)
    apart = b.emit("unsqueeze", x, b.ints(2))
    wide = b.emit("broadcast", apart, b.ints(1, 1, heads // groups, 1, 1), broadcast_spec="BIDIRECTIONAL")
    old = (batch, groups, heads // groups, length, features)
    return sizes.reshape(b, wide, old, (batch, heads, length, features))


def _chances(
    b: Builder, a: Attributes, scores: Operand, added: Mask | None, sinks: Tensor | None, dims: tuple[Size, ...]
) -> Operand:
    """Softmax of scores [b, h, s, t]; the sink of a head takes part as one more key, and is cut off."""
    if a.softcap is not None:
        cap = b.scalar(a.softcap, "float")
        scores = b.emit("multiply", b.emit("tanh", b.emit("divide", scores, cap)), cap)
    if added is not None:
        scores = b.emit("add", scores, added.value)
    if sinks is None:
        return b.emit("softmax", scores, axis=-1)
    batch, heads, queries, keys = dims
    column = sizes.reshape(b, sinks, sinks.dims, (1, heads, 1, 1))
    column = sizes.expand(b, column, (1, heads, 1, 1), (batch, heads, queries, 1))
    chances = b.emit("softmax", b.emit("concat", scores, column, axis=-1), axis=-1)
    return b.emit("slice", chances, b.ints(0), sizes.size(b, keys), b.ints(1), b.ints(-1))


def softmax(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    """Softmax; over a last axis that only run time knows it may be attention written by hand."""
    nudged: Operand = x
    if a.axis == x.rank - 1 and isinstance(x.dims[-1], Dim):
        nudged = b.emit("add", x, b.scalar(_NUDGE, "float"))
    return b.emit("softmax", nudged, axis=a.axis)


def rotate(b: Builder, a: Attributes, x: Tensor, cos: Tensor, sin: Tensor) -> Operand:
    """The rotated features come first; those beyond them pass through."""
    half = cos.dims[-1]
    turn = _turn_neighbours if a.interleaved else _turn_halves
    angles = [_between(b, x, each) for each in (cos, sin)]
    if 2 * half == x.dims[-1]:
        return turn(b, x, x.dims, half, *angles)
    lengths = sizes.shape(b, (2 * half, x.dims[-1] - 2 * half))
    first, rest = b.emit_all("variadic_split", x, b.scalar(x.rank - 1, "int"), lengths)
    turned = turn(b, first, (*x.dims[:-1], 2 * half), half, *angles)
    return b.emit("concat", turned, rest, axis=-1)


def _between(b: Builder, x: Tensor, angles: Tensor) -> Operand:
    """Cosines or sines [[batch,] positions, half] with all the axes of `x`."""
    batch = angles.dims[:1] if angles.rank == 3 else ()
    dims = (*batch, *(1,) * (x.rank - 2 - len(batch)), *angles.dims[-2:])
    return sizes.reshape(b, angles, angles.dims, dims)


def _turn_halves(b: Builder, x: Operand, dims: tuple[Size, ...], half: Size, cos: Operand, sin: Operand) -> Operand:
    """x * cos + (-second half, first half) * sin.

    Of the ways to say it this one becomes a single kernel: four axes on both sides, and the last of them called -1
    where halves are joined and by its number where they are split.
    """
    first, second = b.emit_all("variadic_split", x, b.scalar(len(dims) - 1, "int"), sizes.shape(b, (half, half)))
    crossed = b.emit("concat", b.emit("multiply", second, b.scalar(-1, "float")), first, axis=-1)
    cos_twice, sin_twice = (b.emit("concat", each, each, axis=-1) for each in (cos, sin))
    return b.emit("add", b.emit("multiply", x, cos_twice), b.emit("multiply", crossed, sin_twice))


def _turn_neighbours(b: Builder, x: Operand, dims: tuple[Size, ...], half: Size, cos: Operand, sin: Operand) -> Operand:
    pairs = (*dims[:-1], half, 2)
    first, second = b.emit_all("split", sizes.reshape(b, x, dims, pairs), b.scalar(len(dims), "int"), num_splits=2)
    cosine, sine = (b.emit("unsqueeze", each, b.ints(-1)) for each in (cos, sin))
    left = b.emit("subtract", b.emit("multiply", first, cosine), b.emit("multiply", second, sine))
    right = b.emit("add", b.emit("multiply", second, cosine), b.emit("multiply", first, sine))
    return sizes.reshape(b, b.emit("concat", left, right, axis=-1), pairs, dims)
