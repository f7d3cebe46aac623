"""Sizes that only run time knows, from the shapes of the inputs; and reshaping with as few of them as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import openvino

from tfdsl.backends.openvino.builder import Builder, Operand
from tfdsl.ir.dims import Atom, Dim, Factor, Size

_COPY = 0  # in the target of a Reshape: the input's axis at the same place
_INFER = -1


def size(b: Builder, dim: Size) -> openvino.Output:
    """A size as an int64 vector of one element."""
    if isinstance(dim, int):
        return b.ints(dim)
    with b.within("sizes"):
        return _named(b, dim.name) if dim.name is not None else _polynomial(b, dim)


def scalar(b: Builder, dim: Size) -> openvino.Output:
    """A size as an int64 without axes."""
    if isinstance(dim, int):
        return b.scalar(dim, "int")
    with b.within("sizes"):
        return b.emit("squeeze", size(b, dim), b.ints(0))


def shape(b: Builder, dims: Sequence[Size]) -> openvino.Output:
    """A shape as an int64 vector."""
    parts: list[openvino.Output] = []
    run: list[int] = []
    for dim in [*dims, None]:
        if isinstance(dim, int):
            run.append(dim)
            continue
        if run:
            parts.append(b.ints(*run))
            run = []
        if dim is not None:
            parts.append(size(b, dim))
    if not parts:
        return b.ints()
    return parts[0] if len(parts) == 1 else b.emit("concat", *parts, axis=0)


def reshape(b: Builder, x: Operand, old: Sequence[Size], new: Sequence[Size]) -> Operand:
    """`x` of shape `old` in shape `new`; sizes are computed only where neither copying nor inferring them will do."""
    if tuple(old) == tuple(new):
        return x
    target: list[Size] = [
        _COPY if isinstance(dim, Dim) and place < len(old) and old[place] == dim else dim
        for place, dim in enumerate(new)
    ]
    unknown = [place for place, dim in enumerate(target) if isinstance(dim, Dim)]
    if unknown:
        target[unknown[-1]] = _INFER
    return b.emit("reshape", x, shape(b, target), special_zero=True)


def expand(b: Builder, x: Operand, old: Sequence[Size], new: Sequence[Size]) -> Operand:
    """`x` of shape `old` stretched to shape `new`."""
    added = len(new) - len(old)
    # The broadcast goes both ways, so a 1 in its target leaves an axis as it is.
    target = [1 if place >= added and old[place - added] == dim else dim for place, dim in enumerate(new)]
    if not added and all(dim == 1 for dim in target):
        return x
    return b.emit("broadcast", x, shape(b, target), broadcast_spec="BIDIRECTIONAL")


def count(b: Builder, number: Size) -> openvino.Output:
    """The integers 0 .. size-1."""
    if isinstance(number, int):
        return b.constant(np.arange(number, dtype=np.int64))
    return b.emit("range", b.scalar(0, "int"), scalar(b, number), b.scalar(1, "int"), output_type="i64")


def floor_division(b: Builder, left: Operand, right: Operand) -> openvino.Output:
    """`left // right` of integers, rounded down.

    The CPU plugin divides whole numbers as float32, which is off beyond 2 ** 24, and rounds towards zero; its products
    and differences are exact. So what a first quotient leaves over is divided again, and a remainder of the wrong sign
    takes one from the result.
    """
    first = b.emit("divide", left, right)
    rest = b.emit("subtract", left, b.emit("multiply", first, right))
    quotient = b.emit("add", first, b.emit("divide", rest, right))
    rest = b.emit("subtract", left, b.emit("multiply", quotient, right))
    zero = b.scalar(0, "int")
    apart = b.emit("not_equal", b.emit("less", rest, zero), b.emit("less", right, zero))
    over = b.emit("logical_and", apart, b.emit("not_equal", rest, zero))
    return b.emit("subtract", quotient, b.emit("convert", over, destination_type="i64"))


def remainder(b: Builder, left: Operand, right: Operand) -> openvino.Output:
    """What `floor_division` leaves over, with the sign of `right`."""
    return b.emit("subtract", left, b.emit("multiply", floor_division(b, left, right), right))


def _named(b: Builder, name: str) -> openvino.Output:
    if name not in b.axes:
        return b.lengths[name](b)
    source, axis = b.axes[name]
    shape = b.emit("shape_of", b.parameters[source].output(0))
    return b.emit("gather", shape, b.ints(axis), b.scalar(0, "int"))


def _polynomial(b: Builder, dim: Dim) -> openvino.Output:
    """Terms over one common divisor: the sum of whole terms first, then one exact division."""
    below: dict[Factor, int] = {}
    whole = math.lcm(*(coefficient.denominator for _, coefficient in dim.terms))
    for monomial, _ in dim.terms:
        for factor, power in monomial:
            below[factor] = max(below.get(factor, 0), -power)
    terms = []
    for monomial, coefficient in dim.terms:
        powers = dict(below)
        for factor, power in monomial:
            powers[factor] += power
        terms.append(_product(b, int(coefficient * whole), powers))
    total = reduce(lambda left, right: b.emit("add", left, right), terms)
    if whole == 1 and not any(below.values()):
        return total
    return floor_division(b, total, _product(b, whole, below))


def _product(b: Builder, number: int, powers: dict[Factor, int]) -> openvino.Output:
    factors = [_factor(b, factor) for factor, power in powers.items() for _ in range(power)]
    if number != 1 or not factors:
        factors.append(b.ints(number))
    return reduce(lambda left, right: b.emit("multiply", left, right), factors)


def _factor(b: Builder, factor: Factor) -> openvino.Output:
    if not isinstance(factor, Atom):
        return _named(b, factor)
    return _ATOMS[factor.operator](b, size(b, factor.left), size(b, factor.right))


_ATOMS = {
    "//": floor_division,
    "%": remainder,
    "min": lambda b, left, right: b.emit("minimum", left, right),
    "max": lambda b, left, right: b.emit("maximum", left, right),
}
