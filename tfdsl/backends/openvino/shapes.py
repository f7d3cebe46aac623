"""Lowerings of what moves elements and leaves them as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

from tfdsl.backends.openvino import sizes
from tfdsl.backends.openvino.builder import DTYPES, Builder, Operand, Tensor
from tfdsl.ir import tables
from tfdsl.ir.dims import Size
from tfdsl.ir.op import Attributes
from tfdsl.ir.rearrange import rearrangement

_END = np.iinfo(np.int64).max  # a Slice that stops here stops where its axis does


def rearrange(b: Builder, a: Attributes, x: Tensor) -> Operand:
    plan = rearrangement(a.pattern, x.dims, dict(a.sizes or ()))
    apart = sizes.reshape(b, x, x.dims, plan.split)
    moved = tuple(plan.split[place] for place in plan.order)
    return sizes.reshape(b, permute(b, apart, plan.order), moved, plan.merged)


def permute(b: Builder, x: Operand, order: tuple[int, ...]) -> Operand:
    return x if order == tuple(range(len(order))) else b.emit("transpose", x, b.ints(*order))


def split(b: Builder, a: Attributes, x: Tensor) -> tuple[Operand, ...]:
    axis = b.scalar(a.axis, "int")
    if a.sizes is None:
        parts = b.emit_all("split", x, axis, num_splits=a.parts)
    else:
        parts = b.emit_all("variadic_split", x, axis, sizes.shape(b, a.sizes))
    return tuple(b.emit("squeeze", part, b.ints(a.axis)) for part in parts) if a.squeeze else parts


def concat(b: Builder, a: Attributes, *x: Tensor) -> openvino.Output:
    return b.emit("concat", *x, axis=a.axis)


def cut(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    stop = b.ints(_END) if a.stop is None else sizes.size(b, a.stop)
    return b.emit("slice", x, sizes.size(b, a.start), stop, b.ints(a.step), b.ints(a.axis))


def select(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return b.emit("gather", x, sizes.scalar(b, a.index), b.scalar(a.axis, "int"))


def pad(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    widths: list[list[Size]] = [[0] * x.rank, [0] * x.rank]
    widths[0][a.axis], widths[1][a.axis] = a.before, a.after
    begins, ends = (sizes.shape(b, each) for each in widths)
    return b.emit("pad", x, begins, ends, pad_mode="constant", arg_pad_value=b.scalar(a.value, x.type.dtype))


def expand(b: Builder, a: Attributes, x: Tensor) -> Operand:
    return sizes.expand(b, x, x.dims, a.shape)


def swap(b: Builder, a: Attributes, x: Tensor) -> Operand:
    order = list(range(x.rank))
    order[a.first], order[a.second] = order[a.second], order[a.first]
    return permute(b, x, tuple(order))


def roll(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return b.emit("roll", x, b.ints(a.shift), b.ints(a.axis))


def gather(b: Builder, a: Attributes, x: Tensor, index: Tensor) -> openvino.Output:
    return b.emit("gather", x, index, b.scalar(a.axis, "int"))


def take_along(b: Builder, a: Attributes, x: Tensor, index: Tensor) -> openvino.Output:
    return b.emit("gather_elements", x, index, axis=a.axis)


def one_hot(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    # The operator OneHot counts negative numbers from the end, where ours give a row of zeros.
    found = b.emit("equal", b.emit("unsqueeze", x, b.ints(-1)), sizes.count(b, a.classes))
    return b.emit("convert", found, destination_type="f32")


def positions(b: Builder, a: Attributes, x: Tensor) -> openvino.Output:
    return sizes.count(b, x.dims[a.axis])


def iota(b: Builder, a: Attributes) -> openvino.Output:
    return sizes.count(b, a.size)


def tensor(b: Builder, a: Attributes) -> openvino.Output:
    return b.constant(np.array(a.values, dtype=DTYPES[tables.dtype(a.values)]))


SHAPE_LOWERINGS: dict[str, Callable[..., Any]] = {
    "rearrange": rearrange,
    "split": split,
    "concat": concat,
    "slice": cut,
    "select": select,
    "pad": pad,
    "expand": expand,
    "swap": swap,
    "roll": roll,
    "gather": gather,
    "take_along": take_along,
    "one_hot": one_hot,
    "positions": positions,
    "iota": iota,
    "tensor": tensor,
}
