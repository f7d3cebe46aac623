"""Arithmetic on numbers and sizes while a spec is read: exact, and bounded, since specs come from strangers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tfdsl.ir import dims
from tfdsl.ir.dims import Dim, DimError, Facts, Size
from tfdsl.ir.elaborate.values import Fault, Undecided, kind_of
from tfdsl.language.diagnostics import Span

LARGEST = 2**53  # whole numbers beyond it are not exact in float64 either


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_size(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, Dim)


def is_static(value: Any) -> bool:
    """A number or a size."""
    return is_number(value) or isinstance(value, Dim)


def calculate(operator: str, left: Any, right: Any, facts: Facts, span: Span) -> Any:
    """`left operator right` for numbers and sizes."""
    try:
        value = _CALCULATE[operator](left, right, facts)
    except DimError as error:
        raise Fault("T405", str(error), span, help=_division_help(operator)) from None
    except ZeroDivisionError:
        raise Fault("T303", "division by zero", span) from None
    except OverflowError:
        raise Fault("T305", "the number is too large", span) from None
    return bounded(value, span)


def bounded(value: Any, span: Span) -> Any:
    """Refuse numbers that no model needs, before they eat the machine."""
    if isinstance(value, complex):
        raise Fault("T303", "a negative number has no such power", span)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        raise Fault("T305", "the number is beyond 2**53", span)
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault("T305", "the number is not finite", span)
    return value


def _division_help(operator: str) -> str:
    return "`//` rounds down; a `require x % n == 0` before it makes a division exact" if operator == "/" else ""


def _no_mixing(left: Any, right: Any) -> None:
    if (isinstance(left, Dim) and isinstance(right, float)) or (isinstance(left, float) and isinstance(right, Dim)):
        size = left if isinstance(left, Dim) else right
        raise DimError(f"{size} is known at run time only, and cannot be mixed with a number that is not whole")


def _simple(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Facts], Any]:
    def apply(left: Any, right: Any, facts: Facts) -> Any:
        _no_mixing(left, right)
        return function(left, right)

    return apply


def _divide(left: Any, right: Any, facts: Facts) -> Any:
    _no_mixing(left, right)
    if isinstance(left, float) or isinstance(right, float):
        return left / right
    if right == 0:
        raise ZeroDivisionError
    if isinstance(left, int) and isinstance(right, int):
        if left % right:
            raise DimError(f"{left} / {right} is not a whole number")
        return left // right
    if not facts.exact(left, right):
        raise DimError(f"{left} / {right} is not known to be a whole number")
    return dims.divide(left, right)


def _floor(left: Any, right: Any, facts: Facts) -> Any:
    _no_mixing(left, right)
    if isinstance(left, float) or isinstance(right, float):
        return left // right
    if right == 0:
        raise ZeroDivisionError
    return dims.floor(left, right)


def _remainder(left: Any, right: Any, facts: Facts) -> Any:
    _no_mixing(left, right)
    if isinstance(left, float) or isinstance(right, float):
        return left % right
    if right == 0:
        raise ZeroDivisionError
    if isinstance(left, Dim) or isinstance(right, Dim):
        return 0 if facts.exact(left, right) else dims.remainder(left, right)
    return left % right


def _power(left: Any, right: Any, facts: Facts) -> Any:
    _no_mixing(left, right)
    if isinstance(left, Dim):
        return left**right
    if isinstance(right, Dim):
        raise DimError("the power is known at run time only")
    if left == 0 and right < 0:
        raise ZeroDivisionError
    # Powers of whole numbers are bounded before they are computed: 10 ** 10 ** 10 has ten thousand million digits.
    if abs(left) > 1 and abs(right) * math.log2(abs(left)) > 1024:
        raise OverflowError
    return left**right


_CALCULATE: dict[str, Callable[[Any, Any, Facts], Any]] = {
    "+": _simple(lambda a, b: a + b),
    "-": _simple(lambda a, b: a - b),
    "*": _simple(lambda a, b: a * b),
    "/": _divide,
    "//": _floor,
    "%": _remainder,
    "**": _power,
}

_DECIDE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def compare(operator: str, left: Any, right: Any, span: Span) -> bool | Undecided:
    """A comparison, decided now where it can be."""
    if is_static(left) and is_static(right):
        if isinstance(left, Dim) or isinstance(right, Dim):
            return _compare_sizes(operator, left, right, span)
        return _DECIDE[operator](left, right)
    if operator in ("==", "!=") and type(left) is type(right):
        return _DECIDE[operator](left, right)
    if operator in ("==", "!=") and (left is None or right is None):
        return (left is right) == (operator == "==")
    raise Fault("T301", f"cannot compare {kind_of(left)} with {kind_of(right)}", span)


def _compare_sizes(operator: str, left: Any, right: Any, span: Span) -> bool | Undecided:
    if isinstance(left, float) or isinstance(right, float):
        raise Fault("T301", f"cannot compare {kind_of(left)} with {kind_of(right)}", span)
    difference: Size = left - right
    if isinstance(difference, int):
        return _DECIDE[operator](difference, 0)
    least, negated = _least(difference), _least(-difference)
    most = None if negated is None else -negated
    if least is not None:
        if operator in (">", ">=", "!=") and _DECIDE[operator](least, 0) and least >= 0:
            return True
        if operator in ("<", "<=", "==") and not _DECIDE[operator](least, 0) and least >= 0:
            return False
    if most is not None:
        if operator in ("<", "<=", "!=") and _DECIDE[operator](most, 0) and most <= 0:
            return True
        if operator in (">", ">=", "==") and not _DECIDE[operator](most, 0) and most <= 0:
            return False
    return Undecided(((operator, left, right),))


def _least(size: Size) -> Fraction | None:
    """A number that a size cannot go below, given that every name is at least one; None where none is known."""
    shifted = dims.substitute(size, {name: dims.symbol(name) + 1 for name in dims.names_of([size])})
    if isinstance(shifted, int):
        return Fraction(shifted)
    least = Fraction(0)
    for monomial, coefficient in shifted.terms:
        if not monomial:
            least = coefficient
        elif coefficient < 0 or any(not isinstance(factor, str) or power < 0 for factor, power in monomial):
            return None
    return least
