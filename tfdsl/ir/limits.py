"""How large sizes can become: the bounds that constraints put on each by itself, and those of what is made of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from tfdsl.ir.dims import Atom, Size, evaluate, names_of
from tfdsl.ir.graph import Constraint, Graph

_FURTHEST = 1 << 40  # a size that no model has: what still holds there is no bound
_COMPARE: dict[str, Callable[[int, int], bool]] = {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b}
_MIRRORED = {">": "<", ">=": "<="}


def limits(*graphs: Graph) -> dict[str, int]:
    """The largest number that the constraints of graphs allow each size that is in one alone."""
    found: dict[str, int] = {}
    for graph in graphs:
        for each in graph.constraints:
            names = names_of((each.left, each.right))
            if len(names) == 1 and (most := _most(each, name := next(iter(names)))) is not None:
                found[name] = min(found.get(name, most), most)
    return found


def extent(size: Size, largest: Mapping[str, int]) -> tuple[int, int] | None:
    """The lowest and the highest number that a size can be, with each name from one to its largest; None if not told."""
    if isinstance(size, int):
        return size, size
    low = high = Fraction(0)
    for monomial, coefficient in size.terms:
        least = most = Fraction(1)
        for factor, power in monomial:
            ends = _ends(factor, largest)
            if ends is None or power < 0 or (ends[0] < 0 and power > 1):
                return None
            corners = [end * each**power for end in (least, most) for each in ends]
            least, most = min(corners), max(corners)
        low += coefficient * (least if coefficient > 0 else most)
        high += coefficient * (most if coefficient > 0 else least)
    return math.ceil(low), math.floor(high)


def _ends(factor: str | Atom, largest: Mapping[str, int]) -> tuple[int, int] | None:
    """The lowest and the highest number that a factor of a size can be."""
    if isinstance(factor, str):
        return (1, largest[factor]) if factor in largest else None
    left, right = extent(factor.left, largest), extent(factor.right, largest)
    if factor.operator == "%":
        return (0, right[1] - 1) if right is not None and right[0] > 0 else None
    if left is None or right is None or (factor.operator == "//" and right[0] < 1):
        return None
    if factor.operator == "//":
        ends = [above // below for above in left for below in right]
        return min(ends), max(ends)
    pick = min if factor.operator == "min" else max
    return pick(left[0], right[0]), pick(left[1], right[1])


def _most(constraint: Constraint, name: str) -> int | None:
    """The largest number for a size that a bound from above allows; None where the constraint is none."""
    left, operator, right = constraint.left, constraint.operator, constraint.right
    if operator in _MIRRORED:
        left, operator, right = right, _MIRRORED[operator], left
    difference = left - right
    if operator not in _COMPARE or not _rises(difference):
        return None

    def fits(number: int) -> bool:
        return _COMPARE[operator](evaluate(difference, {name: number}), 0)

    low, high = 1, _FURTHEST  # fits at low, not at high
    if fits(high) or not fits(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _rises(size: Size) -> bool:
    """Whether a size falls nowhere as a name in it grows, and is whole everywhere: beyond one bound it then has no other."""
    if isinstance(size, int):
        return True
    for monomial, coefficient in size.terms:
        if coefficient.denominator != 1:
            return False
        plain = all(isinstance(factor, str) and power > 0 for factor, power in monomial)
        if monomial and (coefficient < 0 or not (plain or (len(monomial) == 1 and _atom_rises(*monomial[0])))):
            return False
    return True


def _atom_rises(factor: str | Atom, power: int) -> bool:
    if not isinstance(factor, Atom) or power != 1 or factor.operator == "%":
        return False
    if factor.operator == "//" and not (isinstance(factor.right, int) and factor.right > 0):
        return False
    return _rises(factor.left) and _rises(factor.right)
