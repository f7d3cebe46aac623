"""Which whole numbers an input may hold: worked out backwards from what its values index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfdsl.ir import tables
from tfdsl.ir.dims import Size, evaluate
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS

_USUAL = (0, 3)  # for numbers that index nothing: flags, kinds of token, documents
_FAR = 2**62  # stands for no limit
_NEAR = 2**40  # limits are nearer than this, also after arithmetic on them

# Ops that hand numbers on as they are; the operand that is an index, where there is one, is treated first.
_HAND_ON = {"rearrange", "split", "concat", "slice", "select", "pad", "expand", "swap", "roll", "gather", "take_along",
            "where", "max", "min", "cast"}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """The whole numbers low .. high-1."""

    low: int = -_FAR
    high: int = _FAR

    def meet(self, other: Range) -> Range:
        return Range(max(self.low, other.low), min(self.high, other.high))


def index_range(graph: Graph, node: Node, sizes: Mapping[str, int]) -> tuple[int, int]:
    """The lowest number and one more than the highest that an int input may hold."""
    found = _needed(graph, Value(node.id), sizes)
    low = found.low if found.low > -_NEAR else min(_USUAL[0], found.high - 1)
    high = found.high if found.high < _NEAR else max(_USUAL[1], low + 1)
    return low, max(high, low + 1)


def _needed(graph: Graph, value: Value, sizes: Mapping[str, int]) -> Range:
    """What all the readers of a value need of it."""
    needed = Range()
    for user, place in graph.users(value):
        needed = needed.meet(_needed_by(graph, user, place, sizes))
    return needed


def _needed_by(graph: Graph, user: Node, place: int, sizes: Mapping[str, int]) -> Range:
    limit = _limit(graph, user, place)
    if limit is not None:
        return Range(0, evaluate(limit, sizes))
    if user.op == "repeat" or (user.op == "route" and place > 2):
        return _needed_by_loop(graph, user, place, sizes)
    results = (_needed(graph, Value(user.id, index), sizes) for index in range(len(user.types)))
    if user.op in _HAND_ON:
        needed = Range()
        for result in results:
            needed = needed.meet(result)
        return needed
    if user.op in _BACKWARDS and len(user.inputs) == 2:
        other = user.inputs[1 - place]
        assert other is not None
        known = _possible(graph, other, sizes)
        if known is not None:
            return _BACKWARDS[user.op](next(results), known, place)
    return Range()


def _limit(graph: Graph, user: Node, place: int) -> Size | None:
    """The size of what an operand indexes."""
    settings = OPS[user.op].fill(user.attributes)
    operands = [None if value is None else graph.type(value) for value in user.inputs]
    if user.op == "embedding" and place == 0 and operands[1] is not None:
        return operands[1].dims[0]
    if user.op in ("gather", "take_along") and place == 1 and operands[0] is not None:
        return operands[0].dims[settings.axis]
    if user.op == "route" and place == 1:
        return len(settings.turns)
    if user.op == "one_hot":
        return settings.classes
    return None


def _needed_by_loop(graph: Graph, loop: Node, place: int, sizes: Mapping[str, int]) -> Range:
    """What the bodies of a loop need of an operand; a carried one is also needed by what reads the loop's result."""
    needed = Range()
    if loop.op == "repeat" and place < loop.attributes["carried"]:
        needed = _needed(graph, Value(loop.id, place), sizes)
    inside = place if loop.op == "repeat" else place - 2  # a route's bodies have no input for choices and weights
    for body in loop.bodies:
        needed = needed.meet(_needed(body, Value(body.inputs[inside]), sizes))
    return needed


def _possible(graph: Graph, value: Value, sizes: Mapping[str, int]) -> Range | None:
    """The numbers that a value made of constants and positions can hold; None for any other."""
    node = graph.node(value)
    settings = OPS[node.op].fill(node.attributes)
    if node.op == "constant" and settings.dtype == "int":
        number = evaluate(settings.value, sizes)
        return Range(number, number + 1)
    if node.op == "tensor" and node.type.dtype == "int":
        return Range(min(tables.numbers(settings.values)), max(tables.numbers(settings.values)) + 1)
    if node.op in ("iota", "positions"):
        return Range(0, evaluate(node.type.dims[0], sizes))
    if node.op in _HAND_ON and len(node.inputs) == 1 and node.inputs[0] is not None:
        return _possible(graph, node.inputs[0], sizes)
    return None


def _add(needed: Range, other: Range, place: int) -> Range:
    return Range(needed.low - other.low, needed.high - (other.high - 1))


def _sub(needed: Range, other: Range, place: int) -> Range:
    if place == 0:  # value - other
        return Range(needed.low + other.high - 1, needed.high + other.low)
    return Range(other.high - needed.high, other.low - needed.low + 1)


def _mul(needed: Range, other: Range, place: int) -> Range:
    if other.low < 1:
        return Range()
    most = other.high - 1
    return Range(-(-needed.low // most), -(-needed.high // most))


def _floordiv(needed: Range, other: Range, place: int) -> Range:
    if place == 1 or other.low < 1:
        return Range()
    return Range(needed.low * other.low, needed.high * other.low)


def _minimum(needed: Range, other: Range, place: int) -> Range:
    return Range(needed.low, _FAR if other.high <= needed.high else needed.high)


def _maximum(needed: Range, other: Range, place: int) -> Range:
    return Range(-_FAR if other.low >= needed.low else needed.low, needed.high)


# For an op of two operands, what the other one can be and what is needed of the result give what is needed of this
# one. `mod` needs nothing: its result is below the divisor in any case.
_BACKWARDS = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "floordiv": _floordiv,
    "minimum": _minimum,
    "maximum": _maximum,
}
