"""The sizes that a report is made for: a number for each name in the shapes of a model's inputs."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence

from tfdsl.ir.dims import Dim, DimError, Size, evaluate, names_of
from tfdsl.ir.graph import Constraint, Graph
from tfdsl.language.diagnostics import did_you_mean, one

BATCH = "batch"
USUAL_LENGTH = 128

_HOLDS = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
_MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<", "==": "=="}


def choose_sizes(graph: Graph, sizes: Mapping[str, int] | None, batch: int, seq: int | None) -> dict[str, int]:
    """A number for each named size of the model's inputs.

    `sizes` goes first; then `batch` is for the name `batch` and `seq` for every other. Where `seq` is None, a name gets
    the largest number that the model's `require`s allow it, or 128 where they set no limit.
    Raises `SpecError` for names that no input has, numbers below one, and sizes that a `require` rules out.
    """
    names = _names(graph)
    given = dict(sizes or {})
    for name in given:
        if name not in names:
            otherwise = f"its sizes are {', '.join(names)}" if names else "all its sizes are known"
            help_ = did_you_mean(name, names, otherwise)
            raise one("T722", f"`{graph.name}` has no size `{name}`", help=help_)
    if BATCH in names:
        given.setdefault(BATCH, batch)
    if seq is not None:
        given = {**dict.fromkeys(names, seq), **given}
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise one("T722", f"`{name}` is a whole number above zero, not {number!r}")
    for name in names:
        if name not in given:
            given[name] = _largest(name, graph.constraints, given)
    _check(graph.constraints, given)
    return {name: given[name] for name in names}


def _names(graph: Graph) -> list[str]:
    """The named sizes in the order in which the inputs mention them."""
    found: dict[str, None] = {}
    for node in graph.inputs:
        for size in graph.node(node).type.dims:
            found.update(dict.fromkeys(sorted(names_of([size]))))
    return list(found)


def _largest(name: str, constraints: Sequence[Constraint], given: Mapping[str, int]) -> int:
    """The largest length that a name may have; without a limit, the usual one or the nearest that is allowed."""
    upper, lower = _bounds(name, constraints)
    start = max(USUAL_LENGTH, lower) if upper is None else upper
    about = [each for each in constraints if names_of([each.left, each.right]) <= {name, *given}]
    tried = itertools.chain(range(start, lower - 1, -1), range(start + 1, (upper or 2 * start) + 1))
    return next((length for length in tried if all(_holds(each, {**given, name: length}) for each in about)), start)


def _bounds(name: str, constraints: Sequence[Constraint]) -> tuple[int | None, int]:
    """The least upper and the greatest lower bound that constraints of the form `name <= number` set."""
    upper: int | None = None
    lower = 1
    for constraint in constraints:
        sides: tuple[str, Size, Size] = (constraint.operator, constraint.left, constraint.right)
        if isinstance(constraint.left, int) and constraint.operator in _MIRRORED:
            sides = (_MIRRORED[constraint.operator], constraint.right, constraint.left)
        sign, left, right = sides
        if not (isinstance(left, Dim) and left.name == name and isinstance(right, int)):
            continue
        if sign in ("<=", "<", "=="):
            bound = right - (sign == "<")
            upper = bound if upper is None else min(upper, bound)
        if sign in (">=", ">", "=="):
            lower = max(lower, right + (sign == ">"))
    return upper, lower


def _holds(constraint: Constraint, sizes: Mapping[str, int]) -> bool:
    try:
        left, right = evaluate(constraint.left, sizes), evaluate(constraint.right, sizes)
    except DimError:
        return False
    return bool(_HOLDS[constraint.operator](left, right))


def _check(constraints: Sequence[Constraint], sizes: Mapping[str, int]) -> None:
    for constraint in constraints:
        if not _holds(constraint, sizes):
            names = sorted(names_of([constraint.left, constraint.right]))
            shown = ", ".join(f"{name} = {sizes[name]}" for name in names)
            required = f"{constraint.left} {constraint.operator} {constraint.right}"
            raise one(
                "T723",
                f"the model requires {required}, and {shown} is asked for",
                constraint.span,
                note=constraint.why,
                help="give sizes that the model allows",
            )
