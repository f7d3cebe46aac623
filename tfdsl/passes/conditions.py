"""What a condition over positions says: as a mask where it is one, and whether every query sees some key.

A tensor of whole numbers that is a sum of multiples of its own indices (`positions`, `iota` and arithmetic on them) is
an `Affine`. A comparison of two of them relates the query's position to the key's, which are the last axis but one and
the last of a tensor of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tfdsl.ir import masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Node, Value
from tfdsl.ir.masks import Mask, Term
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import rearrangement
from tfdsl.passes.regions import Region

KEY, QUERY = 1, 2  # axes, counted from the last


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


def affine(region: Region, value: Value | None) -> Affine | None:
    """A tensor as a sum of multiples of its indices, or None where it is none that can be told."""
    if value is None:
        return None
    region, value = region.origin(value)
    node = region.graph.node(value)
    rule = _AFFINE.get(node.op)
    return rule(region, node) if rule is not None else None


def _range(region: Region, node: Node) -> Affine | None:
    return Affine({1: 1})


def _constant(region: Region, node: Node) -> Affine | None:
    value = node.attributes["value"]
    if isinstance(value, float):
        return Affine({}, int(value)) if value.is_integer() else None
    return None if isinstance(value, bool) else Affine({}, value)


def _cast(region: Region, node: Node) -> Affine | None:
    return None if node.attributes["to"] == "bool" else affine(region, node.inputs[0])


def _neg(region: Region, node: Node) -> Affine | None:
    inner = affine(region, node.inputs[0])
    return inner.times(-1) if inner is not None else None


def _sum(region: Region, node: Node) -> Affine | None:
    left, right = (affine(region, value) for value in node.inputs)
    if left is None or right is None:
        return None
    return left.plus(right, 1 if node.op == "add" else -1)


def _mul(region: Region, node: Node) -> Affine | None:
    left, right = (affine(region, value) for value in node.inputs)
    if left is None or right is None:
        return None
    for one, other in ((left, right), (right, left)):
        if not one.multiples and isinstance(one.offset, int):
            return other.times(one.offset)
    return None


def _moved(region: Region, node: Node, new_axis: Callable[[int, int], int | None]) -> Affine | None:
    """The operand with each axis where `new_axis(axis, rank)` puts it, both counted from the first."""
    value = node.inputs[0]
    inner = affine(region, value)
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


def _swap(region: Region, node: Node) -> Affine | None:
    a = OPS["swap"].fill(node.attributes)
    exchange = {a.first: a.second, a.second: a.first}
    return _moved(region, node, lambda axis, rank: exchange.get(axis, axis))


def _expand(region: Region, node: Node) -> Affine | None:
    return _moved(region, node, lambda axis, rank: len(node.type.dims) - rank + axis)


def _rearrange(region: Region, node: Node) -> Affine | None:
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

    return _moved(region, node, new_axis)


def _slice(region: Region, node: Node) -> Affine | None:
    a = OPS["slice"].fill(node.attributes)
    inner = affine(region, node.inputs[0])
    if inner is None:
        return None
    axis = len(node.type.dims) - a.axis
    multiple = inner.of(axis)
    return Affine(
        {**inner.multiples, axis: multiple * a.step} if multiple else inner.multiples, inner.offset + a.start * multiple
    )


_AFFINE: dict[str, Callable[[Region, Node], Affine | None]] = {
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


# --- comparisons -----------------------------------------------------------------------------------------------------


def at_most_zero(region: Region, node: Node, holds: bool) -> list[Affine] | None:
    """What must all be at most zero for a comparison to hold (or not to hold); None for what is no such thing."""
    op = node.op if holds else _OPPOSITE.get(node.op, "")
    if op not in ("lt", "le", "gt", "ge"):
        return None
    left, right = node.inputs if op in ("lt", "le") else reversed(node.inputs)
    strict = 1 if op in ("lt", "gt") else 0
    distance = _absolute(region, left)
    limit = affine(region, right)
    if limit is None:
        return None
    sides = [distance, distance.times(-1)] if distance is not None else [affine(region, left)]
    return [side.plus(limit, -1).shifted(strict) for side in sides if side is not None] or None


def _absolute(region: Region, value: Value | None) -> Affine | None:
    """What stands in `abs(...)`."""
    if value is None:
        return None
    region, value = region.origin(value)
    node = region.graph.node(value)
    return affine(region, node.inputs[0]) if node.op == "abs" else None


_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def conjuncts(region: Region, value: Value, holds: bool = True) -> Iterator[tuple[Region, Value, bool]]:
    """The conditions that all hold where one does; with each, whether it must be true or false."""
    region, value = region.origin(value)
    node = region.graph.node(value)
    first, *others = (each for each in node.inputs if each is not None) if node.inputs else (value,)
    if node.op == "negate":
        yield from conjuncts(region, first, not holds)
    elif node.op == ("both" if holds else "either"):
        for each in (first, *others):
            yield from conjuncts(region, each, holds)
    elif node.op in ("rearrange", "expand") and _keeps_last_axes(region, node, first):
        yield from conjuncts(region, first, holds)
    else:
        yield region, value, holds


def _keeps_last_axes(region: Region, node: Node, operand: Value) -> bool:
    """Whether a node only adds axes in front: what it says of queries and keys is what its operand says."""
    before, after = region.graph.type(operand).dims, node.type.dims
    if node.op == "expand":
        return True
    steps = rearrangement(node.attributes["pattern"], before, dict(node.attributes.get("sizes") or ()))
    in_order = list(steps.order) == sorted(steps.order)
    return in_order and len(after) >= len(before) and after[len(after) - len(before) :] == before


def as_masks(region: Region, conditions: list[tuple[Value, bool]]) -> tuple[list[Mask], list[tuple[Value, bool]]]:
    """The masks that conditions imply together, and those conditions that say more; each with whether it must hold."""
    bounds: list[list[Affine]] = []
    unknown: set[int] = set()
    for place, (value, holds) in enumerate(conditions):
        bounds.append([])
        for where, part, wanted in conjuncts(region, value, holds):
            found = at_most_zero(where, where.graph.node(part), wanted)
            bounds[-1] += found or []
            if found is None:
                unknown.add(place)
    told = _Told([each for several in bounds for each in several])
    rest = [
        condition
        for place, condition in enumerate(conditions)
        if place in unknown or not all(told.says(each) for each in bounds[place])
    ]
    return told.terms, rest


class _Told:
    """The mask terms that bounds come to; a bound says how far at most keys lie behind or ahead of a query."""

    def __init__(self, bounds: list[Affine]):
        behind, ahead, first = ({_less_than(each, kind) for each in bounds} - {0} for kind in (_BEHIND, _AHEAD, _FIRST))
        self._causal = 1 in ahead
        # Keys after the query are hidden by a causal mask in any case; without one, a window needs both of its sides.
        self._windows = behind if self._causal else behind & ahead
        self.terms: list[Mask] = [masks.CAUSAL] if self._causal else []
        self.terms += [Term("window", (size,)) for size in sorted(self._windows)]
        self.terms += [Term("prefix", (count,)) for count in sorted(first)]

    def says(self, bound: Affine) -> bool:
        """Whether the terms say what a bound says."""
        ahead = _less_than(bound, _AHEAD)
        return (
            (ahead > 0 and (self._causal or ahead in self._windows))
            or _less_than(bound, _BEHIND) in self._windows
            or _less_than(bound, _FIRST) > 0
        )


_BEHIND, _AHEAD, _FIRST = {QUERY: 1, KEY: -1}, {KEY: 1, QUERY: -1}, {KEY: 1}


def _less_than(bound: Affine, kind: Mapping[int, int]) -> int:
    """The number that a bound puts a distance of some kind below; 0 for one of another kind, or that no key keeps."""
    if bound.multiples != kind or not isinstance(bound.offset, int):
        return 0
    return max(1 - bound.offset, 0)


def every_query_sees_a_key(parts: list[tuple[Region, Value, bool]], queries: Size, keys: Size) -> bool:
    """Whether some conditions together leave each query at least one key: the one at its own position, or the first."""
    witnesses = [lambda each: (each.of(QUERY), each.offset)]
    if queries == keys:
        witnesses.append(lambda each: (each.of(QUERY) + each.of(KEY), each.offset))
    return any(all(_surely(*part, witness, queries) for part in parts) for witness in witnesses)


def _surely(
    region: Region, value: Value, holds: bool, witness: Callable[[Affine], tuple[int, Size]], queries: Size
) -> bool:
    """Whether a condition is true (or false) for every query at the key that a witness gives."""
    region, value = region.origin(value)
    node = region.graph.node(value)
    inputs = [each for each in node.inputs if each is not None]
    if node.op == "constant":
        return bool(node.attributes["value"]) == holds
    if node.op == "negate":
        return _surely(region, inputs[0], not holds, witness, queries)
    if node.op in ("both", "either"):
        sides = (_surely(region, each, holds, witness, queries) for each in inputs)
        return all(sides) if (node.op == "both") == holds else any(sides)
    if node.op in ("rearrange", "expand") and _keeps_last_axes(region, node, inputs[0]):
        return _surely(region, inputs[0], holds, witness, queries)
    if node.op in ("eq", "ne"):
        left, right = (affine(region, each) for each in inputs)
        equal = left is not None and right is not None and _is_zero(left.plus(right, -1), witness)
        return equal and (node.op == "eq") == holds
    bounds = at_most_zero(region, node, holds)
    return bounds is not None and all(_at_most_zero(each, witness, queries) for each in bounds)


def _is_zero(difference: Affine, witness: Callable[[Affine], tuple[int, Size]]) -> bool:
    return set(difference.multiples) <= {QUERY, KEY} and witness(difference) == (0, 0)


def _at_most_zero(bound: Affine, witness: Callable[[Affine], tuple[int, Size]], queries: Size) -> bool:
    """Whether a bound is at most zero from the first query to the last; it is linear, so the ends decide."""
    if not set(bound.multiples) <= {QUERY, KEY}:
        return False
    multiple, offset = witness(bound)
    ends = (offset,) if multiple <= 0 else (offset, (queries - 1) * multiple + offset)
    return all(isinstance(end, int) and end <= 0 for end in ends)
