"""Tensors that are sums of multiples of their own indices: `positions`, `iota` and whole-number arithmetic on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import rearrangement
from tfdsl.passes.regions import Region

DEEPEST = 100  # nodes that are followed from a tensor back to positions


@dataclass(frozen=True)
class Affine:
    """`offset` plus, for some axes counted from the last, a multiple of the index along each."""

    multiples: Mapping[int, int]
    offset: Size = 0

    def plus(self, other: Affine, times: int = 1) -> Affine:
        axes = {*self.multiples, *other.multiples}
        total = {axis: self.multiples.get(axis, 0) + times * other.multiples.get(axis, 0) for axis in axes}
        return Affine(
            {axis: multiple for axis, multiple in total.items() if multiple}, self.offset + other.offset * times
        )

    def times(self, number: int) -> Affine:
        return Affine({}, 0).plus(self, number)

    def shifted(self, number: int) -> Affine:
        return Affine(self.multiples, self.offset + number)

    def of(self, axis: int) -> int:
        return self.multiples.get(axis, 0)


class Affines:
    """Works out what tensors are, each once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Value], Affine | None] = {}
        self._depth = 0

    def of(self, region: Region, value: Value | None) -> Affine | None:
        """A tensor as a sum of multiples of its indices, or None where it is none that can be told."""
        if value is None:
            return None
        region, value = region.origin(value)
        key = (id(region.graph), value)
        if key not in self._known:
            node = region.graph.node(value)
            rule = _RULES.get(node.op) if self._depth < DEEPEST else None
            self._depth += 1
            self._known[key] = rule(self, region, node) if rule is not None else None
            self._depth -= 1
        return self._known[key]


def _range(known: Affines, region: Region, node: Node) -> Affine | None:
    return Affine({1: 1})


def _constant(known: Affines, region: Region, node: Node) -> Affine | None:
    value = node.attributes["value"]
    if isinstance(value, float):
        return Affine({}, int(value)) if value.is_integer() else None
    return None if isinstance(value, bool) else Affine({}, value)


def _cast(known: Affines, region: Region, node: Node) -> Affine | None:
    return None if node.attributes["to"] == "bool" else known.of(region, node.inputs[0])


def _neg(known: Affines, region: Region, node: Node) -> Affine | None:
    inner = known.of(region, node.inputs[0])
    return inner.times(-1) if inner is not None else None


def _sum(known: Affines, region: Region, node: Node) -> Affine | None:
    left, right = (known.of(region, value) for value in node.inputs)
    if left is None or right is None:
        return None
    return left.plus(right, 1 if node.op == "add" else -1)


def _mul(known: Affines, region: Region, node: Node) -> Affine | None:
    left, right = (known.of(region, value) for value in node.inputs)
    if left is None or right is None:
        return None
    for one, other in ((left, right), (right, left)):
        if not one.multiples and isinstance(one.offset, int):
            return other.times(one.offset)
    return None


def _moved(known: Affines, region: Region, node: Node, new_axis: Callable[[int, int], int | None]) -> Affine | None:
    """The operand with each axis where `new_axis(axis, rank)` puts it, both counted from the first."""
    value = node.inputs[0]
    inner = known.of(region, value)
    if inner is None or value is None:
        return None
    before, after = len(region.graph.type(value).dims), len(node.type.dims)
    moved: dict[int, int] = {}
    for axis, multiple in inner.multiples.items():
        place = new_axis(before - axis, before)
        if place is None:
            return None
        moved[after - place] = multiple
    return Affine(moved, inner.offset)


def _swap(known: Affines, region: Region, node: Node) -> Affine | None:
    a = OPS["swap"].fill(node.attributes)
    exchange = {a.first: a.second, a.second: a.first}
    return _moved(known, region, node, lambda axis, rank: exchange.get(axis, axis))


def _expand(known: Affines, region: Region, node: Node) -> Affine | None:
    return _moved(known, region, node, lambda axis, rank: len(node.type.dims) - rank + axis)


def _rearrange(known: Affines, region: Region, node: Node) -> Affine | None:
    a = OPS["rearrange"].fill(node.attributes)
    value = node.inputs[0]
    assert value is not None
    steps = rearrangement(a.pattern, region.graph.type(value).dims, dict(a.sizes or ()))
    sources = [group for group, count in enumerate(steps.split_groups) for _ in range(count)]
    targets = [group for group, count in enumerate(steps.merged_groups) for _ in range(count)]

    def new_axis(axis: int, rank: int) -> int | None:
        parts = [part for part, source in enumerate(sources) if source == axis and steps.split[part] != 1]
        if len(parts) != 1:
            return None
        target = targets[steps.order.index(parts[0])]
        beside = [part for part, group in zip(steps.order, targets, strict=True) if group == target]
        return target if all(part == parts[0] or steps.split[part] == 1 for part in beside) else None

    return _moved(known, region, node, new_axis)


def _slice(known: Affines, region: Region, node: Node) -> Affine | None:
    a = OPS["slice"].fill(node.attributes)
    inner = known.of(region, node.inputs[0])
    if inner is None:
        return None
    axis = len(node.type.dims) - a.axis
    multiple = inner.of(axis)
    return Affine(
        {**inner.multiples, axis: multiple * a.step} if multiple else inner.multiples, inner.offset + a.start * multiple
    )


_RULES: dict[str, Callable[[Affines, Region, Node], Affine | None]] = {
    "positions": _range,
    "iota": _range,
    "constant": _constant,
    "cast": _cast,
    "neg": _neg,
    "add": _sum,
    "sub": _sum,
    "mul": _mul,
    "swap": _swap,
    "expand": _expand,
    "rearrange": _rearrange,
    "slice": _slice,
}
