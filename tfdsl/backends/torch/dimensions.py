"""Sizes as source: polynomials over names, as Python would compute them in whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from tfdsl.backends.torch.arithmetic import number_code
from tfdsl.backends.torch.code import PRODUCT, SUM, UNARY, Code, call, infix
from tfdsl.ir.dims import Atom, Dim, Factor, Monomial, Size, product

NameText = Callable[[str], str]


def size_code(size: Size, name_text: NameText, order: Sequence[str] = ()) -> Code:
    """A size as an expression over its names; `name_text` gives the text of each, `order` tells which comes first."""
    if isinstance(size, int):
        return number_code(size)
    fractions = [(monomial, coefficient) for monomial, coefficient in size.terms if _is_fraction(monomial, coefficient)]
    if len(fractions) > 1:  # only their sum may be whole: they are added before they are divided
        below = _common_divisor(fractions)
        return infix(size_code(size * below, name_text, order), "//", size_code(below, name_text, order), PRODUCT)
    (monomial, coefficient), *others = size.terms
    code = _term(monomial, abs(coefficient), name_text, order)
    if coefficient < 0:
        code = Code(f"-{code.at(UNARY)}", UNARY)
    for monomial, coefficient in others:
        code = infix(code, "-" if coefficient < 0 else "+", _term(monomial, abs(coefficient), name_text, order), SUM)
    return code


def _is_fraction(monomial: Monomial, coefficient: Fraction) -> bool:
    return coefficient.denominator != 1 or any(power < 0 for _, power in monomial)


def _common_divisor(terms: list[tuple[Monomial, Fraction]]) -> Size:
    """What every one of some terms can be multiplied with to be whole."""
    powers: dict[Factor, int] = {}
    for monomial, _ in terms:
        for factor, power in monomial:
            powers[factor] = max(powers.get(factor, 0), -power)
    number = math.lcm(*(coefficient.denominator for _, coefficient in terms))
    factors = [Dim(((((factor, power),), Fraction(1)),)) for factor, power in powers.items() if power]
    return product([number, *factors])


def _term(monomial: Monomial, coefficient: Fraction, name_text: NameText, order: Sequence[str]) -> Code:
    monomial = tuple(sorted(monomial, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))
    above = [code for factor, power in monomial if power > 0 for code in [_factor(factor, name_text)] * power]
    below = [code for factor, power in monomial if power < 0 for code in [_factor(factor, name_text)] * -power]
    if coefficient.numerator != 1 or not above:
        above.insert(0, number_code(coefficient.numerator))
    if coefficient.denominator != 1:
        below.insert(0, number_code(coefficient.denominator))
    code, *others = above
    for other in others:
        code = infix(code, "*", other, PRODUCT)
    for other in below:
        code = infix(code, "//", other, PRODUCT)
    return code


def _factor(factor: Factor, name_text: NameText) -> Code:
    if isinstance(factor, str):
        return Code(name_text(factor))
    return _atom(factor, name_text)


def _atom(atom: Atom, name_text: NameText) -> Code:
    left, right = size_code(atom.left, name_text), size_code(atom.right, name_text)
    if atom.operator in ("min", "max"):
        return call(atom.operator, left.text, right.text)
    return infix(left, atom.operator, right, PRODUCT)
