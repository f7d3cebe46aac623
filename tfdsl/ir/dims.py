"""Symbolic sizes: polynomials over named sizes, with equality and exact division.

A size is a plain `int` or a `Dim`. A `Dim` is a sum of terms, each a rational coefficient times powers of atoms; an
atom is a name bound at run time (`batch`, `seq`) or a floor, remainder, minimum or maximum that does not simplify.
Terms may have rational coefficients and negative powers, so that `4 * (seq / 4)` is `seq`; whether such a quotient is
exact is asked of `Facts`, which are what the `require` statements of a spec promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Union

MOST_TERMS = 64
HEAVIEST = 512  # names and numbers in a size, those of atoms within atoms counted each time: they are compared as text


class DimError(ValueError):
    """A size that cannot be: not exact, not whole, or too large to handle."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A floor division, remainder, minimum or maximum (`//`, `%`, `min`, `max`) that has no simpler form."""

    operator: str
    left: Size
    right: Size

    def __str__(self) -> str:
        if self.operator in ("min", "max"):
            return f"{self.operator}({self.left}, {self.right})"
        return f"({_bracket(self.left)} {self.operator} {_bracket(self.right)})"


Factor = Union[str, Atom]
Monomial = tuple[tuple[Factor, int], ...]


class Dim:
    """A size that is not known until run time. Arithmetic gives an `int` again where everything cancels."""

    __slots__ = ("_hash", "terms", "weight")

    def __init__(self, terms: tuple[tuple[Monomial, Fraction], ...]):
        self.terms = terms
        self._hash = hash(terms)
        self.weight = sum(_weight(factor) for monomial, _ in terms for factor, _ in monomial)
        if self.weight > HEAVIEST:
            raise DimError(f"a size made of more than {HEAVIEST} names")

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __add__(self, other: Size) -> Size:
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
        return _build(total)

    def __mul__(self, other: Size) -> Size:
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        total: dict[Monomial, Fraction] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = _times(left, right)
                total[monomial] = total.get(monomial, Fraction(0)) + a * b
        return _build(total)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: Size) -> Size:
        return self * -1 + other

    def __pow__(self, power: int) -> Size:
        if not isinstance(power, int) or not 0 <= power <= 16:
            raise DimError(f"a size that is not known can be raised to 0 .. 16, not {power}")
        result: Size = 1
        for _ in range(power):
            result = self * result
        return result

    def __str__(self) -> str:
        text = ""
        for position, (monomial, coefficient) in enumerate(self.terms):
            sign = "-" if coefficient < 0 else "+"
            part = _term_text(monomial, abs(coefficient))
            if position == 0:
                text = part if sign == "+" else f"-{part}"
            else:
                text += f" {sign} {part}"
        return text

    __repr__ = __str__

    @property
    def name(self) -> str | None:
        """The name, for a size that is one name and nothing else."""
        if len(self.terms) == 1:
            monomial, coefficient = self.terms[0]
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], str):
                return monomial[0][0]
        return None

    def names(self) -> set[str]:
        """All names that the size depends on."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for factor, _ in monomial:
                if isinstance(factor, str):
                    found.add(factor)
                else:
                    for side in (factor.left, factor.right):
                        found |= side.names() if isinstance(side, Dim) else set()
        return found


Size = Union[int, Dim]


def _weight(factor: Factor) -> int:
    if isinstance(factor, str):
        return 1
    return 1 + sum(side.weight if isinstance(side, Dim) else 1 for side in (factor.left, factor.right))


def symbol(name: str) -> Dim:
    """The size that run time binds to a name."""
    return Dim(((((name, 1),), Fraction(1)),))


def substitute(size: Size, sizes: Mapping[str, Size]) -> Size:
    """The size with names replaced by other sizes; names that are not given stay."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, coefficient in size.terms:
        value = _Rational.of(coefficient)
        for factor, power in monomial:
            if isinstance(factor, str):
                base: Size = sizes.get(factor, symbol(factor))
            else:
                base = _APPLY[factor.operator](substitute(factor.left, sizes), substitute(factor.right, sizes))
            value = value.times(base, power)
        total = total + value.size()
    if isinstance(total, Dim) and not total.names():
        raise DimError(f"{size} is not a whole number here")
    return total


def rewrite(size: Size, known: Dim, name: Size) -> Size:
    """The size with `name` in the place of `known` and of its multiples: `2 * a * b - 1` for `a * b` is `2 * name - 1`."""
    lead, share = known.terms[0]
    inverse = tuple((factor, -power) for factor, power in lead)
    for monomial, coefficient in _terms(size):
        multiple = _build({_times(monomial, inverse): coefficient / share})
        if isinstance(multiple, int) or _whole(multiple):
            size = size + (name - known) * multiple
    return size


def evaluate(size: Size, sizes: Mapping[str, int]) -> int:
    """The size in numbers. Raises `DimError` where it is not a whole number, `KeyError` for a missing name."""
    if isinstance(size, int):
        return size
    total = Fraction(0)
    for monomial, coefficient in size.terms:
        value = coefficient
        for factor, power in monomial:
            if isinstance(factor, str):
                base = sizes[factor]
            else:
                base = _NUMBERS[factor.operator](evaluate(factor.left, sizes), evaluate(factor.right, sizes))
            value *= Fraction(base) ** power
        total += value
    if total.denominator != 1:
        bound = ", ".join(f"{name} = {sizes[name]}" for name in sorted(size.names()))
        raise DimError(f"{size} is not a whole number with {bound}")
    return total.numerator


@dataclass
class Facts:
    """What `require` promises of sizes: `seq % 4 == 0` makes `seq / 4` exact."""

    divisible: list[tuple[Size, Size]] = field(default_factory=list)

    def promise(self, size: Size, divisor: Size) -> None:
        self.divisible.append((size, divisor))

    def exact(self, size: Size, divisor: Size) -> bool:
        """Whether `size / divisor` is known to be a whole number."""
        quotient = divide(size, divisor)
        if isinstance(quotient, int):
            return True
        if _whole(quotient):
            return True
        rest: Size = quotient
        for known, by in self.divisible:
            # Take from the quotient every whole multiple of a quotient that is known to be exact.
            part = divide(known, by)
            if isinstance(part, int) or isinstance(rest, int):
                continue
            lead, share = part.terms[0]
            inverse = tuple((factor, -power) for factor, power in lead)
            for monomial, coefficient in rest.terms:
                if _is_whole(monomial, coefficient):
                    continue
                multiple = _build({_times(monomial, inverse): coefficient / share})
                if isinstance(multiple, int) or _whole(multiple):
                    rest = rest - part * multiple
            if isinstance(rest, int) or _whole(rest):
                return True
        return False


def divide(size: Size, divisor: Size) -> Size:
    """The quotient as an expression, whether or not it is exact; `DimError` for what has no form."""
    if divisor == 0:
        raise DimError(f"{size} is divided by zero")
    if isinstance(size, int) and isinstance(divisor, int) and size % divisor == 0:
        return size // divisor
    terms = _terms(divisor)
    if size == divisor:
        return 1
    if len(terms) == 1:
        monomial, coefficient = terms[0]
        inverse = tuple((factor, -power) for factor, power in monomial)
        return _build({_times(m, inverse): c / coefficient for m, c in _terms(size)})
    quotient = _long_division(size, divisor)
    if quotient is None:
        raise DimError(f"{size} / {divisor} is not known to be exact")
    return quotient


def floor(size: Size, divisor: Size) -> Size:
    """Floor division; terms of which the divisor is a factor come out of it."""
    if divisor == 0:
        raise DimError(f"{size} is divided by zero")
    if isinstance(size, int) and isinstance(divisor, int):
        return size // divisor
    if divisor == 1:
        return size
    whole, rest = _split(size, divisor)
    if isinstance(rest, int) and isinstance(divisor, int):
        return whole + rest // divisor
    return whole + _atom("//", rest, divisor)


def remainder(size: Size, divisor: Size) -> Size:
    """The remainder that goes with `floor`."""
    if divisor == 0:
        raise DimError(f"{size} is divided by zero")
    if isinstance(size, int) and isinstance(divisor, int):
        return size % divisor
    if divisor == 1:
        return 0
    _, rest = _split(size, divisor)
    if isinstance(rest, int) and isinstance(divisor, int):
        return rest % divisor
    return _atom("%", rest, divisor)


def minimum(left: Size, right: Size) -> Size:
    return _extreme("min", left, right)


def maximum(left: Size, right: Size) -> Size:
    return _extreme("max", left, right)


def names_of(sizes: Iterable[Size]) -> set[str]:
    """All names in several sizes."""
    return {name for size in sizes if isinstance(size, Dim) for name in size.names()}


class _Rational:
    """A product under construction, which may pass through values that are no whole numbers."""

    def __init__(self, total: dict[Monomial, Fraction]):
        self.total = total

    @staticmethod
    def of(value: Fraction) -> _Rational:
        return _Rational({(): value})

    def times(self, base: Size, power: int) -> _Rational:
        if power < 0:
            terms = _terms(base)
            if len(terms) != 1:
                raise DimError(f"cannot divide by {base}")
            monomial, coefficient = terms[0]
            if coefficient == 0:
                raise DimError("a size is divided by zero")
            factors = [(tuple((f, -p) for f, p in monomial), 1 / coefficient)]
        else:
            factors = list(_terms(base))
        total = self.total
        for _ in range(abs(power)):
            product: dict[Monomial, Fraction] = {}
            for left, a in total.items():
                for right, b in factors:
                    monomial = _times(left, right)
                    product[monomial] = product.get(monomial, Fraction(0)) + a * b
            total = product
        return _Rational(total)

    def size(self) -> Size:
        return _build(self.total)


def _terms(size: Size) -> tuple[tuple[Monomial, Fraction], ...]:
    return size.terms if isinstance(size, Dim) else (((), Fraction(size)),)


def _build(total: Mapping[Monomial, Fraction]) -> Size:
    kept = {monomial: coefficient for monomial, coefficient in total.items() if coefficient != 0}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept and kept[()].denominator == 1:
        return kept[()].numerator
    if len(kept) > MOST_TERMS:
        raise DimError(f"a size with more than {MOST_TERMS} terms")
    return Dim(tuple(sorted(kept.items(), key=_order)))


def _order(term: tuple[Monomial, Fraction]) -> tuple[int, str]:
    monomial, _ = term
    return -sum(power for _, power in monomial), "*".join(f"{factor}^{power}" for factor, power in monomial)


def _times(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    powers = dict(left)
    for factor, power in right:
        powers[factor] = powers.get(factor, 0) + power
    return tuple(sorted(((f, p) for f, p in powers.items() if p != 0), key=lambda pair: str(pair[0])))


def _term_text(monomial: Monomial, coefficient: Fraction) -> str:
    above = [f"{f}**{p}" if p > 1 else str(f) for f, p in monomial if p > 0]
    below = [f"{f}**{-p}" if p < -1 else str(f) for f, p in monomial if p < 0]
    if coefficient.numerator != 1 or not above:
        above.insert(0, str(coefficient.numerator))
    if coefficient.denominator != 1:
        below.insert(0, str(coefficient.denominator))
    return "*".join(above) + "".join(f"/{part}" for part in below)


def _bracket(size: Size) -> str:
    return f"({size})" if isinstance(size, Dim) and (len(size.terms) > 1 or size.name is None) else str(size)


def _whole(size: Dim) -> bool:
    return all(_is_whole(monomial, coefficient) for monomial, coefficient in size.terms)


def _is_whole(monomial: Monomial, coefficient: Fraction) -> bool:
    return coefficient.denominator == 1 and all(power > 0 for _, power in monomial)


def _split(size: Size, divisor: Size) -> tuple[Size, Size]:
    """`size` as a whole multiple of `divisor` and the rest."""
    whole: Size = 0
    rest: Size = 0
    for monomial, coefficient in _terms(size):
        term = _build({monomial: coefficient})
        quotient: Size | None
        try:
            quotient = divide(term, divisor)
        except DimError:
            quotient = None
        if quotient is not None and (isinstance(quotient, int) or _whole(quotient)):
            whole = whole + quotient
        elif not monomial and isinstance(divisor, int) and coefficient.denominator == 1:
            whole = whole + coefficient.numerator // divisor
            rest = rest + coefficient.numerator % divisor
        else:
            rest = rest + term
    return whole, rest


def _long_division(size: Size, divisor: Size) -> Size | None:
    lead, by = _terms(divisor)[0]
    inverse = tuple((factor, -power) for factor, power in lead)
    quotient: Size = 0
    rest = size
    for _ in range(MOST_TERMS):
        if rest == 0:
            return quotient
        monomial, coefficient = _terms(rest)[0]
        term = _build({_times(monomial, inverse): coefficient / by})
        if isinstance(term, Dim) and not _whole(term):
            return None
        quotient = quotient + term
        rest = rest - term * divisor
    return None


def _atom(operator: str, left: Size, right: Size) -> Size:
    if left == 0 and operator in ("//", "%"):
        return 0
    return Dim(((((Atom(operator, left, right), 1),), Fraction(1)),))


def _extreme(operator: str, left: Size, right: Size) -> Size:
    difference = left - right
    if isinstance(difference, int):
        return left if (difference <= 0) == (operator == "min") else right
    first, second = sorted((left, right), key=str)
    return _atom(operator, first, second)


_APPLY: dict[str, Callable[[Size, Size], Size]] = {"//": floor, "%": remainder, "min": minimum, "max": maximum}
_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "min": min,
    "max": max,
}


def product(sizes: Iterable[Size]) -> Size:
    """The number of elements of a shape."""
    total: Size = 1
    for size in sizes:
        total = size * total
    return total
