"""`fold_ranges()`: what follows from the sizes that a model allows, whatever its data, is decided when it is compiled.

An interval analysis (Moore, 1966; compare Cousot and Cousot, 1977): `require seq <= 2048` says that positions are 0 .. 2047,
and arithmetic carries that on to what they are compared with. A value gets a range only where all its elements are
numbers within it, as float64 computes them, so that none is infinite or NaN; an op without a rule has none.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfdsl.ir import tables
from tfdsl.ir.axes import settings
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Value, changing, fed
from tfdsl.ir.limits import extent, limits
from tfdsl.ir.op import Attributes
from tfdsl.passes.constants import LARGEST
from tfdsl.passes.dead import drop_dead
from tfdsl.passes.report import PassResult, Report


class Range(NamedTuple):
    """The lowest and the highest number that the elements of a value can be; of truth values, 0 and 1."""

    low: float
    high: float

    @property
    def only(self) -> bool:
        """Whether there is but one number."""
        return self.low == self.high

    def join(self, other: Range) -> Range:
        """The range of what is in one of two."""
        return Range(min(self.low, other.low), max(self.high, other.high))


UNDECIDED = Range(0, 1)  # of truth values


class Site(NamedTuple):
    """A node with the ranges of its operands, and the largest number of each size."""

    graph: Graph
    node: Node
    a: Attributes
    operands: Sequence[Range | None]
    largest: Mapping[str, int]

    def known(self) -> list[Range] | None:
        """The ranges of the operands, if all have one."""
        found = [each for each in self.operands if each is not None]
        return found if len(found) == len(self.node.inputs) else None

    def below(self, size: Size) -> Range | None:
        """The whole numbers from zero to below a size."""
        ends = extent(size, self.largest)
        return None if ends is None else Range(0, max(ends[1] - 1, 0))


def fold_ranges(graph: Graph) -> PassResult:
    """Replace what the sizes that the model allows decide: comparisons, choices by them, limits that are never reached."""
    graph = graph.copy()
    report = Report("fold_ranges")
    _Fold(limits(graph), report).region(graph, [None] * len(graph.inputs))
    if report.changed:
        for region in reversed(list(graph.regions())):
            drop_dead(region, Report(report.name))  # what dies of these changes is part of them
    return graph, report


class _Fold:
    """Goes through a graph, outer regions first: what a body captures has its range by then."""

    def __init__(self, largest: Mapping[str, int], report: Report):
        self.largest, self.report = largest, report

    def region(self, graph: Graph, given: Sequence[Range | None]) -> None:
        """Fold the nodes of a region whose inputs have these ranges."""
        known: dict[Value, Range | None] = {}
        for node in graph.nodes():
            if node.op == "input":
                found = [given[graph.inputs.index(node.id)]]
            else:
                operands = [None if value is None else known[value] for value in node.inputs]
                for body in node.bodies:
                    self.region(body, _captured(node, known))
                found = self._ranges(graph, node, operands)
                made = self._decided(graph, node, operands, found[0]) if len(found) == 1 else None
                if made is not None:
                    known.update(dict.fromkeys(made, found[0]))
                    graph.redirect(Value(node.id), made[-1])
                    graph.remove(node)
                    continue
            for index, each in enumerate(found):
                truth = node.types[index].dtype == "bool" and each is None
                known[Value(node.id, index)] = UNDECIDED if truth else each

    def _ranges(self, graph: Graph, node: Node, operands: Sequence[Range | None]) -> list[Range | None]:
        """The ranges of a node's results."""
        rule = _RULES.get(node.op)
        if rule is None or node.bodies:
            return [None] * len(node.types)
        found = rule(Site(graph, node, settings(graph, node), operands, self.largest))
        several = found if isinstance(found, list) else [found] * len(node.types)
        return [_fitting(each, type_.dtype) for each, type_ in zip(several, node.types, strict=True)]

    def _decided(
        self, graph: Graph, node: Node, operands: Sequence[Range | None], found: Range | None
    ) -> list[Value] | None:
        """What a node can be replaced by, after the nodes that were made for it; None if it stays."""
        taken = _operand(node, operands)
        if taken is not None and graph.type(taken).dtype == node.type.dtype:
            self.report.change(f"`{node.op}` always gives its operand {node.inputs.index(taken) + 1}", graph, node)
            made = [taken]
        elif (
            found is not None
            and found.only
            and (node.op not in _GIVEN or isinstance(node.attributes.get("value"), Dim))
        ):
            number = _NUMBERS[node.type.dtype](found.low)
            self.report.change(f"`{node.op}` is always {str(number).lower()}", graph, node)
            attributes = {"value": number, "dtype": node.type.dtype}
            made = [Value(graph.add("constant", (), attributes, like=node).id)]
        else:
            return None
        if graph.type(made[-1]).dims != node.type.dims:
            made.append(Value(graph.add("expand", made, {"shape": node.type.dims}, like=node).id))
        return made


def _captured(node: Node, known: Mapping[Value, Range | None]) -> list[Range | None]:
    """The ranges of what the inputs of a node's bodies stand for: of what changes from run to run, none."""
    outside = [None if value is None else known[value] for value in fed(node)]
    return [None if place < changing(node) else each for place, each in enumerate(outside)]


def _operand(node: Node, operands: Sequence[Range | None]) -> Value | None:
    """The operand that a node gives in every case."""
    if node.op == "where":
        condition = operands[0]
        return node.inputs[1 if condition.low else 2] if condition is not None and condition.only else None
    if node.op not in ("both", "either", "maximum", "minimum", "mod"):
        return None
    first, second = operands
    if first is None or second is None:
        return None
    if node.op in ("both", "either"):
        neutral = Range(*(1, 1) if node.op == "both" else (0, 0))
        return node.inputs[1] if first == neutral else node.inputs[0] if second == neutral else None
    if node.op == "mod":
        return node.inputs[0] if first.low >= 0 and first.high < second.low else None
    higher = 0 if first.low >= second.high else 1 if second.low >= first.high else None
    return None if higher is None else node.inputs[higher if node.op == "maximum" else 1 - higher]


def _fitting(found: Range | None, dtype: str) -> Range | None:
    """A range in an element type; None beyond the numbers that are exact in every one."""
    if found is None or not (-LARGEST <= found.low <= found.high <= LARGEST):
        return None
    kind = float if dtype == "float" else int
    return Range(kind(found.low), kind(found.high))


# --- rules -----------------------------------------------------------------------------------------------------------

Rule = Callable[[Site], "Range | list[Range | None] | None"]


def _constant(s: Site) -> Range | None:
    value = s.a.value
    ends = (value, value) if isinstance(value, float) else extent(value, s.largest)
    return None if ends is None else Range(*ends)


def _tensor(s: Site) -> Range | None:
    numbers = list(tables.numbers(s.a.values))
    return Range(min(numbers), max(numbers))


def _index(s: Site) -> Range | None:
    return s.below(s.node.type.dims[0])


def _argmax(s: Site) -> Range | None:
    return s.below(_read(s)[s.a.axis])


def _top_k(s: Site) -> list[Range | None]:
    return [s.operands[0], s.below(_read(s)[s.a.axis])]


def _read(s: Site) -> tuple[Size, ...]:
    """The shape of the first operand."""
    value = s.node.inputs[0]
    assert value is not None
    return s.graph.type(value).dims


def _first(s: Site) -> Range | None:
    """The elements of the first operand, in another order or some of them."""
    return s.operands[0]


def _any(s: Site) -> Range | None:
    """The elements of all operands."""
    known = s.known()
    return None if not known else Range(min(each.low for each in known), max(each.high for each in known))


def _pad(s: Site) -> Range | None:
    inner = s.operands[0]
    return None if inner is None else inner.join(Range(s.a.value, s.a.value))


def _where(s: Site) -> Range | None:
    condition, yes, no = s.operands
    if condition is not None and condition.only:
        return yes if condition.low else no
    return None if yes is None or no is None else yes.join(no)


def _cast(s: Site) -> Range | None:
    inner = s.operands[0]
    if inner is None or s.a.to != "bool":
        return inner if inner is None or s.a.to != "int" else Range(int(inner.low), int(inner.high))
    if inner.low > 0 or inner.high < 0:
        return Range(1, 1)
    return Range(0, 0) if inner.only else UNDECIDED


def _one_by_one(function: Callable[[Any], Any]) -> Rule:
    """An op that rises, or falls, with its operand."""

    def rule(s: Site) -> Range | None:
        inner = s.operands[0]
        return None if inner is None else Range(*sorted((function(inner.low), function(inner.high))))

    return rule


def _abs(s: Site) -> Range | None:
    inner = s.operands[0]
    if inner is None:
        return None
    return Range(max(inner.low, -inner.high, 0), max(-inner.low, inner.high))


def _corners(function: Callable[[Any, Any], Any]) -> Rule:
    """An op that, with either operand held, rises or falls with the other: its ends lie at theirs."""

    def rule(s: Site) -> Range | None:
        known = s.known()
        if known is None:
            return None
        left, right = known
        found = [function(a, b) for a in left for b in right]
        return Range(min(found), max(found))

    return rule


def _divided(function: Callable[[Any, Any], Any]) -> Rule:
    """A quotient by what is above zero."""
    inner = _corners(function)
    return lambda s: inner(s) if s.operands[1] is not None and s.operands[1].low > 0 else None


def _mod(s: Site) -> Range | None:
    known = s.known()
    if known is None or known[1].low <= 0:
        return None
    left, right = known
    return left if left.low >= 0 and left.high < right.low else Range(0, right.high - 1)


def _ordered(strict: bool, swapped: bool) -> Rule:
    """Whether the first operand is below the second, or the other way round."""

    def rule(s: Site) -> Range | None:
        known = s.known()
        if known is None:
            return UNDECIDED
        left, right = reversed(known) if swapped else known
        below = operator.lt if strict else operator.le
        if below(left.high, right.low):
            return Range(1, 1)
        return UNDECIDED if below(left.low, right.high) else Range(0, 0)

    return rule


def _equal(same: int) -> Rule:
    def rule(s: Site) -> Range | None:
        known = s.known()
        if known is None:
            return UNDECIDED
        left, right = known
        if left.only and left == right:
            return Range(same, same)
        return Range(1 - same, 1 - same) if left.high < right.low or right.high < left.low else UNDECIDED

    return rule


_NUMBERS: dict[str, Callable[[Any], Any]] = {"float": float, "int": int, "bool": bool}
# What is as simple as a number that would stand in its place, or says where positions lie.
_GIVEN = {"constant", "tensor", "iota", "positions", "expand"}
_MOVES = ("rearrange", "split", "slice", "select", "expand", "swap", "roll", "gather", "take_along", "max", "min")
_RULES: dict[str, Rule] = {
    "constant": _constant,
    "tensor": _tensor,
    "iota": _index,
    "positions": _index,
    "argmax": _argmax,
    "top_k": _top_k,
    **dict.fromkeys(_MOVES, _first),
    "concat": _any,
    "pad": _pad,
    "where": _where,
    "cast": _cast,
    "neg": _one_by_one(operator.neg),
    "floor": _one_by_one(math.floor),
    "negate": _one_by_one(lambda x: 1 - x),
    "abs": _abs,
    "add": _corners(operator.add),
    "sub": _corners(operator.sub),
    "mul": _corners(operator.mul),
    "div": _divided(operator.truediv),
    "floordiv": _divided(operator.floordiv),
    "mod": _mod,
    "maximum": _corners(max),
    "minimum": _corners(min),
    "both": _corners(min),
    "either": _corners(max),
    "lt": _ordered(strict=True, swapped=False),
    "le": _ordered(strict=False, swapped=False),
    "gt": _ordered(strict=True, swapped=True),
    "ge": _ordered(strict=False, swapped=True),
    "eq": _equal(1),
    "ne": _equal(0),
}
