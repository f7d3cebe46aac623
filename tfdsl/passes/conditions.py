"""What a condition over positions says: as a mask where it is one, and whether every query sees some key.

A comparison of two affine tensors relates the query's position to the key's, which are the last axis but one and the
last of a tensor of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tfdsl.ir import masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Node, Value
from tfdsl.ir.masks import Mask, Term
from tfdsl.ir.rearrange import rearrangement
from tfdsl.passes.affine import DEEPEST, Affine, Affines
from tfdsl.passes.regions import Region

KEY, QUERY = 1, 2  # axes, counted from the last
_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}

Condition = tuple[Value, bool]  # with whether it must be true or false
Witness = Callable[[Affine], tuple[int, Size]]  # what an affine tensor is at one key of each query, by query and offset


class Conditions:
    """The conditions of one region, each looked at once."""

    def __init__(self, region: Region):
        self.region = region
        self._affines = Affines()

    def as_masks(self, conditions: Sequence[Condition]) -> tuple[list[Mask], list[Condition]]:
        """The masks that conditions imply together, and those conditions that say more than the masks."""
        bounds: list[list[Affine]] = []
        unknown: set[int] = set()
        for place, condition in enumerate(conditions):
            bounds.append([])
            for region, part, holds in self._conjuncts([condition]):
                found = self.bounds(region, region.graph.node(part), holds)
                bounds[-1] += found
                if not found:
                    unknown.add(place)
        told = _Told([each for several in bounds for each in several])
        rest = [
            condition
            for place, condition in enumerate(conditions)
            if place in unknown or not all(told.says(each) for each in bounds[place])
        ]
        return told.terms, rest

    def leave_every_query_a_key(self, conditions: Sequence[Condition], queries: Size, keys: Size) -> bool:
        """Whether conditions together surely leave each query a key: the one at its own position, or the first."""
        witnesses: list[Witness] = [lambda each: (each.of(QUERY), each.offset)]
        if queries == keys:
            witnesses.append(lambda each: (each.of(QUERY) + each.of(KEY), each.offset))
        parts = self._conjuncts(conditions)
        return any(all(_Sure(self, witness, queries).is_sure(*part) for part in parts) for witness in witnesses)

    def _conjuncts(self, conditions: Sequence[Condition]) -> list[tuple[Region, Value, bool]]:
        """The conditions that all hold where some do, each once."""
        waiting = [(self.region, value, holds) for value, holds in reversed(conditions)]
        seen: set[tuple[int, Value, bool]] = set()
        found: list[tuple[Region, Value, bool]] = []
        while waiting:
            region, value, holds = waiting.pop()
            region, value = region.origin(value)
            if (id(region.graph), value, holds) in seen:
                continue
            seen.add((id(region.graph), value, holds))
            node = region.graph.node(value)
            operands = [each for each in node.inputs if each is not None]
            if node.op == "negate" or node.op == ("both" if holds else "either") or adds_axes(region, node):
                holds = holds != (node.op == "negate")
                waiting += [(region, each, holds) for each in reversed(operands)]
            else:
                found.append((region, value, holds))
        return found

    def bounds(self, region: Region, node: Node, holds: bool) -> list[Affine]:
        """What must all be at most zero for a comparison to hold (or not to hold); none for what is no such thing."""
        op = node.op if holds else _OPPOSITE.get(node.op, "")
        if op not in ("lt", "le", "gt", "ge"):
            return []
        left, right = node.inputs if op in ("lt", "le") else reversed(node.inputs)
        limit = self._affines.of(region, right)
        distance = self._absolute(region, left)
        sides = [distance, distance.times(-1)] if distance is not None else [self._affines.of(region, left)]
        if limit is None:
            return []
        strict = 1 if op in ("lt", "gt") else 0
        return [side.plus(limit, -1).shifted(strict) for side in sides if side is not None]

    def _absolute(self, region: Region, value: Value | None) -> Affine | None:
        """What stands in `abs(...)`."""
        if value is None:
            return None
        region, value = region.origin(value)
        node = region.graph.node(value)
        return self._affines.of(region, node.inputs[0]) if node.op == "abs" else None

    def difference(self, region: Region, node: Node) -> Affine | None:
        """The left operand less the right one."""
        left, right = (self._affines.of(region, value) for value in node.inputs)
        return None if left is None or right is None else left.plus(right, -1)


class _Sure:
    """Whether conditions hold for every query at the key that a witness gives, whatever the data."""

    def __init__(self, conditions: Conditions, witness: Witness, queries: Size):
        self._conditions, self._witness, self._queries = conditions, witness, queries
        self._known: dict[tuple[int, Value, bool], bool] = {}
        self._depth = 0

    def is_sure(self, region: Region, value: Value, holds: bool) -> bool:
        """Whether a condition is true (or false)."""
        region, value = region.origin(value)
        key = (id(region.graph), value, holds)
        if key not in self._known:
            self._depth += 1
            self._known[key] = self._depth < DEEPEST and self._look(region, region.graph.node(value), holds)
            self._depth -= 1
        return self._known[key]

    def _look(self, region: Region, node: Node, holds: bool) -> bool:
        operands = [each for each in node.inputs if each is not None]
        if node.op == "constant":
            return bool(node.attributes["value"]) == holds
        if node.op == "negate":
            return self.is_sure(region, operands[0], not holds)
        if node.op in ("both", "either"):
            sides = (self.is_sure(region, each, holds) for each in operands)
            return all(sides) if (node.op == "both") == holds else any(sides)
        if adds_axes(region, node):
            return self.is_sure(region, operands[0], holds)
        if node.op in ("eq", "ne"):
            difference = self._conditions.difference(region, node)
            return difference is not None and self._is_zero(difference) and (node.op == "eq") == holds
        bounds = self._conditions.bounds(region, node, holds)
        return bool(bounds) and all(map(self._at_most_zero, bounds))

    def _is_zero(self, difference: Affine) -> bool:
        return set(difference.multiples) <= {QUERY, KEY} and self._witness(difference) == (0, 0)

    def _at_most_zero(self, bound: Affine) -> bool:
        """Whether a bound is at most zero from the first query to the last; it is linear, so the ends decide."""
        if not set(bound.multiples) <= {QUERY, KEY}:
            return False
        multiple, offset = self._witness(bound)
        ends = (offset,) if multiple <= 0 else (offset, (self._queries - 1) * multiple + offset)
        return all(isinstance(end, int) and end <= 0 for end in ends)


def adds_axes(region: Region, node: Node) -> bool:
    """Whether a node only adds axes in front: what it says of queries and keys is what its operand says."""
    if node.op == "expand":
        return True
    value = node.inputs[0] if node.op == "rearrange" else None
    if value is None:
        return False
    before, after = region.graph.type(value).dims, node.type.dims
    steps = rearrangement(node.attributes["pattern"], before, dict(node.attributes.get("sizes") or ()))
    in_order = list(steps.order) == sorted(steps.order)
    return in_order and len(after) >= len(before) and after[len(after) - len(before) :] == before


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
