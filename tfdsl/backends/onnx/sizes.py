"""Sizes that only run time knows, computed from the shapes of the model's inputs, and what is done with them.

Reshaping computes as few of them as can be: ONNX copies an axis, or infers one, where that will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

from tfdsl.backends.onnx.builder import Builder
from tfdsl.ir.dims import Atom, Dim, Factor, Size

_COPY = 0  # in the target of a Reshape: the input's axis at the same place
_INFER = -1


def size(b: Builder, dim: Size) -> str:
    """A size as an int64 vector of one element."""
    if isinstance(dim, int):
        return b.ints(dim)
    with b.within("/sizes"):
        if dim.name is not None:
            source, axis = b.axes[dim.name]
            return b.emit("Shape", source, start=axis, end=axis + 1)
        return _polynomial(b, dim)


def scalar(b: Builder, dim: Size) -> str:
    """A size as an int64 without axes."""
    if isinstance(dim, int):
        return b.scalar(dim, "int")
    with b.within("/sizes"):
        return b.emit("Squeeze", size(b, dim), b.ints(0))


def shape(b: Builder, dims: Sequence[Size]) -> str:
    """A shape as an int64 vector."""
    parts: list[str] = []
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
    return parts[0] if len(parts) == 1 else b.emit("Concat", *parts, axis=0)


def reshape(b: Builder, x: str, old: Sequence[Size], new: Sequence[Size]) -> str:
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
    return b.emit("Reshape", x, shape(b, target))


def expand(b: Builder, x: str, old: Sequence[Size], new: Sequence[Size]) -> str:
    """`x` of shape `old` stretched to shape `new`."""
    added = len(new) - len(old)
    # Expand stretches both ways, so a 1 in its target leaves an axis as it is.
    target = [1 if place >= added and old[place - added] == dim else dim for place, dim in enumerate(new)]
    if not added and all(dim == 1 for dim in target):
        return x
    return b.emit("Expand", x, shape(b, target))


def floor_division(b: Builder, left: str, right: str) -> str:
    """`left // right` of integers, rounded down as in Python (ONNX's Div rounds towards zero)."""
    return b.emit("Div", b.emit("Sub", left, b.emit("Mod", left, right)), right)


def _polynomial(b: Builder, dim: Dim) -> str:
    """Terms over one common divisor: the sum of whole terms first, then one exact division."""
    below: dict[Factor, int] = {}
    whole = math.lcm(*(coefficient.denominator for _, coefficient in dim.terms))
    for monomial, _ in dim.terms:
        for factor, power in monomial:
            below[factor] = max(below.get(factor, 0), -power)
    total: str | None = None
    for monomial, coefficient in dim.terms:
        powers = {factor: below[factor] for factor in below}
        for factor, power in monomial:
            powers[factor] += power
        number = int(coefficient * whole)
        term = _product(b, abs(number), powers)
        if total is None:
            total = term if number > 0 else b.emit("Neg", term)
        else:
            total = b.emit("Add" if number > 0 else "Sub", total, term)
    assert total is not None, "a size has terms"
    if whole == 1 and not any(below.values()):
        return total
    return b.emit("Div", total, _product(b, whole, below))


def _product(b: Builder, number: int, powers: dict[Factor, int]) -> str:
    factors = [_factor(b, factor) for factor, power in powers.items() for _ in range(power)]
    if number != 1 or not factors:
        factors.append(b.ints(number))
    return reduce(lambda left, right: b.emit("Mul", left, right), factors)


def _factor(b: Builder, factor: Factor) -> str:
    if not isinstance(factor, Atom):
        source, axis = b.axes[factor]
        return b.emit("Shape", source, start=axis, end=axis + 1)
    left, right = size(b, factor.left), size(b, factor.right)
    if factor.operator == "//":
        return floor_division(b, left, right)
    return b.emit({"%": "Mod", "min": "Min", "max": "Max"}[factor.operator], left, right)
