"""Lowerings of what moves elements and leaves them as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfdsl.backends.onnx import sizes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.ir import tables
from tfdsl.ir.dims import Size
from tfdsl.ir.op import Attributes
from tfdsl.ir.rearrange import rearrangement

_END = np.iinfo(np.int64).max  # a Slice that stops here stops where its axis does


def _rearrange(b: Builder, a: Attributes, x: str) -> str:
    plan = rearrangement(a.pattern, b.dims(x), dict(a.sizes or ()))
    x = sizes.reshape(b, x, b.dims(x), plan.split)
    moved = tuple(plan.split[place] for place in plan.order)
    return sizes.reshape(b, permute(b, x, plan.order), moved, plan.merged)


def permute(b: Builder, x: str, order: tuple[int, ...]) -> str:
    """A value with its axes in another order."""
    return x if order == tuple(range(len(order))) else b.emit("Transpose", x, perm=order)


def _split(b: Builder, a: Attributes, x: str) -> tuple[str, ...]:
    if a.sizes is None:
        parts = b.emit_all("Split", a.parts, x, axis=a.axis, num_outputs=a.parts)
    else:
        parts = b.emit_all("Split", len(a.sizes), x, sizes.shape(b, a.sizes), axis=a.axis)
    return tuple(b.emit("Squeeze", part, b.ints(a.axis)) for part in parts) if a.squeeze else parts


def _concat(b: Builder, a: Attributes, *x: str) -> str:
    return b.emit("Concat", *x, axis=a.axis)


def _slice(b: Builder, a: Attributes, x: str) -> str:
    stop = b.ints(_END) if a.stop is None else sizes.size(b, a.stop)
    return b.emit("Slice", x, sizes.size(b, a.start), stop, b.ints(a.axis), b.ints(a.step))


def _select(b: Builder, a: Attributes, x: str) -> str:
    return b.emit("Gather", x, sizes.scalar(b, a.index), axis=a.axis)


def _pad(b: Builder, a: Attributes, x: str) -> str:
    value = b.scalar(a.value, b.types[x].dtype)
    # Of all axes: ONNX Runtime is wrong where it moves a Transpose past a Pad of some.
    others, rank = (0,) * a.axis, len(b.dims(x))
    rest = (0,) * (rank - a.axis - 1)
    return b.emit("Pad", x, sizes.shape(b, (*others, a.before, *rest, *others, a.after, *rest)), value)


def _expand(b: Builder, a: Attributes, x: str) -> str:
    return sizes.expand(b, x, b.dims(x), a.shape)


def _swap(b: Builder, a: Attributes, x: str) -> str:
    order = list(range(len(b.dims(x))))
    order[a.first], order[a.second] = order[a.second], order[a.first]
    return permute(b, x, tuple(order))


def _roll(b: Builder, a: Attributes, x: str) -> str:
    size = b.dims(x)[a.axis]
    places = b.emit("Sub", _count(b, size), b.scalar(a.shift, "int"))
    return b.emit("Gather", x, b.emit("Mod", places, sizes.scalar(b, size)), axis=a.axis)


def _gather(b: Builder, a: Attributes, x: str, index: str) -> str:
    return b.emit("Gather", x, index, axis=a.axis)


def _take_along(b: Builder, a: Attributes, x: str, index: str) -> str:
    return b.emit("GatherElements", x, index, axis=a.axis)


def _one_hot(b: Builder, a: Attributes, x: str) -> str:
    # The operator OneHot counts negative numbers from the end, where ours give a row of zeros.
    found = b.emit("Equal", b.emit("Unsqueeze", x, b.ints(-1)), _count(b, a.classes))
    return b.emit("Cast", found, to=b.element("float"))


def _positions(b: Builder, a: Attributes, x: str) -> str:
    return _count(b, b.dims(x)[a.axis])


def _iota(b: Builder, a: Attributes) -> str:
    return _count(b, a.size)


def _tensor(b: Builder, a: Attributes) -> str:
    return b.constant(np.array(a.values, dtype=b.numpy_type(tables.dtype(a.values))))


def _count(b: Builder, size: Size) -> str:
    """The integers 0 .. size-1."""
    if isinstance(size, int):
        return b.constant(np.arange(size, dtype=np.int64))
    return b.emit("Range", b.scalar(0, "int"), sizes.scalar(b, size), b.scalar(1, "int"))


SHAPE_LOWERINGS: dict[str, Callable[..., Any]] = {
    "positions": _positions,
    "iota": _iota,
    "tensor": _tensor,
    "rearrange": _rearrange,
    "split": _split,
    "concat": _concat,
    "slice": _slice,
    "select": _select,
    "pad": _pad,
    "expand": _expand,
    "swap": _swap,
    "roll": _roll,
    "gather": _gather,
    "take_along": _take_along,
    "one_hot": _one_hot,
}
