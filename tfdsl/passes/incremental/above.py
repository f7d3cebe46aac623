"""What a matrix over pairs of positions holds where the key comes after the query: how hand-written masks are seen."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator

from tfdsl.ir.graph import Value
from tfdsl.passes.affine import Affine
from tfdsl.passes.conditions import KEY, QUERY, Conditions
from tfdsl.passes.constants import constant
from tfdsl.passes.incremental.flow import Above, Flow
from tfdsl.passes.incremental.rules import LOW, Site
from tfdsl.passes.regions import Region

Pair = tuple[int, int]

_UNARY: dict[str, Callable[[float], float]] = {
    "exp": lambda x: 0.0 if x <= LOW else math.exp(min(x, 700.0)),
    "neg": operator.neg,
    "abs": abs,
    "relu": lambda x: max(x, 0.0),
    "negate": lambda x: 1.0 - x,
    "cast": float,
    "dropout": float,
}
_LINEAR = ("matmul", "einsum", "linear")
_MOVES = ("rearrange", "swap", "expand", "slice", "concat", "split", "select")


def above(region: Region, conditions: Conditions, site: Site, result: Flow) -> Above:
    """What is known above the diagonal of a node's result, for each pair of axes taken as (query, key)."""
    if len(result.axes) != 2:
        return {}
    first, second = result.axes
    found: dict[Pair, float] = {}
    for pair in ((first, second), (second, first)):
        number = _compared(region, conditions, site, pair)
        if number is None:
            number = _computed(site, pair)
        if number is not None and not math.isnan(number):
            found[pair] = number
    return found


def _compared(region: Region, conditions: Conditions, site: Site, pair: Pair) -> float | None:
    """A comparison of positions that every later key fails, or that every later key meets."""
    node = site.node
    rank = len(node.type.dims) if len(node.types) == 1 else 0
    if rank < 2 or {*pair} != {rank - 2, rank - 1}:
        return None
    key, query = (KEY, QUERY) if pair == (rank - 2, rank - 1) else (QUERY, KEY)
    if node.op == "eq":
        difference = conditions.difference(region, node)
        if difference is not None and _later_is_off(difference, query, key):
            return 0.0
    for holds, number in ((True, 0.0), (False, 1.0)):
        for bound in conditions.bounds(region, node, holds):
            if bound.multiples == {key: 1, query: -1} and isinstance(bound.offset, int) and bound.offset >= 0:
                return number
    return None


def _later_is_off(difference: Affine, query: int, key: int) -> bool:
    """Whether a difference of positions is zero for no key after the query."""
    multiple = difference.of(key)
    if set(difference.multiples) != {query, key} or difference.of(query) != -multiple:
        return False
    return isinstance(difference.offset, int) and difference.offset * (1 if multiple > 0 else -1) >= 0


def _computed(site: Site, pair: Pair) -> float | None:
    """What a node makes of what is known of its operands."""
    op = site.node.op
    known = list(_known(site, pair))
    if op == "where":
        condition, yes, no = known
        if condition is not None:
            return yes if condition else no
        return yes if yes == no else None
    if op == "softmax" and pair[1] == site.a.axis and site.operands[0] is not None:
        return 0.0 if site.operands[0].above.get(pair, 0.0) <= LOW else None
    if op in _LINEAR:
        return 0.0 if 0.0 in known and not (op == "linear" and site.node.inputs[2] is not None) else None
    if op in _MOVES:
        return known[0] if len({*known}) == 1 else None
    if op in _UNARY:
        return None if known[0] is None else _UNARY[op](known[0])
    if op in _BINARY:
        return _BINARY[op](known[0], known[1])
    return None


def _known(site: Site, pair: Pair) -> Iterator[float | None]:
    """For each operand, what it holds above the diagonal: of its own pair, or everywhere for a number."""
    for place, flow in enumerate(site.operands):
        value: Value | None = site.node.inputs[place]
        if value is None or flow is None:
            continue
        number = constant(site.graph, value)
        if isinstance(number, (int, float)):
            yield float(number)
            continue
        lies = {goes: axis for axis, goes in enumerate(site.axes[place]) if goes is not None}
        yield flow.above.get((lies.get(pair[0], -1), lies.get(pair[1], -1)))


def _mul(a: float | None, b: float | None) -> float | None:
    if a == 0 or b == 0:
        return 0.0
    return a * b if a is not None and b is not None else None


def _div(a: float | None, b: float | None) -> float | None:
    if a == 0:
        return 0.0
    return a / b if a is not None and b else None


def _add(a: float | None, b: float | None) -> float | None:
    if a is not None and b is not None:
        return a + b
    low = a if a is not None else b
    return -math.inf if low is not None and low <= LOW else None


def _sub(a: float | None, b: float | None) -> float | None:
    return _add(a, None if b is None else -b)


def _both(a: float | None, b: float | None) -> float | None:
    return 0.0 if a == 0 or b == 0 else (1.0 if a and b else None)


def _either(a: float | None, b: float | None) -> float | None:
    return 1.0 if a or b else (0.0 if a == 0 and b == 0 else None)


def _minimum(a: float | None, b: float | None) -> float | None:
    if a is not None and b is not None:
        return min(a, b)
    low = a if a is not None else b
    return low if low is not None and low <= LOW else None


_BINARY: dict[str, Callable[[float | None, float | None], float | None]] = {
    "mul": _mul,
    "div": _div,
    "add": _add,
    "sub": _sub,
    "both": _both,
    "either": _either,
    "minimum": _minimum,
    "maximum": lambda a, b: max(a, b) if a is not None and b is not None else None,
}
