"""Symbolic sizes: their arithmetic agrees with numbers, and exactness is claimed only where it holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdsl.ir import dims
from tfdsl.ir.dims import (
    Dim,
    DimError,
    Facts,
    Size,
    divide,
    evaluate,
    floor,
    maximum,
    minimum,
    remainder,
    rewrite,
    substitute,
    symbol,
)

A, B, C = (symbol(name) for name in "abc")
NUMBERS = st.fixed_dictionaries({name: st.integers(1, 40) for name in "abc"})


@st.composite
def sizes(draw: Callable[..., Size], depth: int = 3) -> Size:
    """A size of names, numbers and operators, or `reject` of what has no form."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([A, B, C, 1, 2, 3, 7]))
    left, right = draw(sizes(depth - 1)), draw(sizes(depth - 1))
    match draw(st.integers(0, 6)):
        case 0:
            return left + right
        case 1:
            return left - right
        case 2:
            return left * right
        case 3:
            return floor(left, draw(st.integers(1, 9)))
        case 4:
            return remainder(left, draw(st.integers(1, 9)))
        case 5:
            return minimum(left, right)
        case _:
            return maximum(left, right)


@given(sizes(), sizes(), NUMBERS)
def test_arithmetic_agrees_with_numbers(left: Size, right: Size, numbers: dict[str, int]) -> None:
    a, b = evaluate(left, numbers), evaluate(right, numbers)
    assert evaluate(left + right, numbers) == a + b
    assert evaluate(left - right, numbers) == a - b
    assert evaluate(left * right, numbers) == a * b
    assert evaluate(minimum(left, right), numbers) == min(a, b)
    assert evaluate(maximum(left, right), numbers) == max(a, b)


@given(sizes(), st.integers(1, 12), NUMBERS)
def test_floor_and_remainder_agree_with_numbers(size: Size, by: int, numbers: dict[str, int]) -> None:
    number = evaluate(size, numbers)
    assert evaluate(floor(size, by), numbers) == number // by
    assert evaluate(remainder(size, by), numbers) == number % by
    assert evaluate(floor(size, by) * by + remainder(size, by), numbers) == number


@given(sizes(), sizes(), NUMBERS)
def test_quotients_agree_with_numbers(left: Size, right: Size, numbers: dict[str, int]) -> None:
    try:
        quotient = divide(left, right)
    except DimError:
        return
    by = evaluate(right, numbers)
    if by == 0:
        return
    if Facts().exact(left, right):
        assert evaluate(quotient, numbers) * by == evaluate(left, numbers)


@given(sizes(), sizes(), sizes())
def test_laws(x: Size, y: Size, z: Size) -> None:
    assert x + y == y + x
    assert x * y == y * x
    assert (x + y) + z == x + (y + z)
    assert x * (y + z) == x * y + x * z
    assert x - x == 0
    assert x + 0 == x * 1 == x
    assert minimum(x, y) == minimum(y, x)
    assert hash(x + y) == hash(y + x)


@given(sizes(), sizes(), NUMBERS)
def test_substitution_agrees_with_numbers(size: Size, other: Size, numbers: dict[str, int]) -> None:
    number = evaluate(other, numbers)
    assert evaluate(substitute(size, {"a": other}), numbers) == evaluate(size, {**numbers, "a": number})
    assert substitute(size, numbers) == evaluate(size, numbers)


@given(sizes(), sizes(), NUMBERS)
def test_a_name_for_a_size_changes_no_number(size: Size, known: Size, numbers: dict[str, int]) -> None:
    if isinstance(known, Dim):
        found = rewrite(size, known, symbol("n"))
        assert evaluate(found, {**numbers, "n": evaluate(known, numbers)}) == evaluate(size, numbers)


@pytest.mark.parametrize(
    ("size", "known", "expected"),
    [
        (A * B - 1, A * B, symbol("n") - 1),
        (2 * A * B * C + C, A * B, 2 * symbol("n") * C + C),
        (2 * A + 7, A + 3, 2 * symbol("n") + 1),
        (A + 1, A * B, A + 1),
        (5, A, 5),
    ],
)
def test_a_name_stands_for_multiples_too(size: Size, known: Dim, expected: Size) -> None:
    assert rewrite(size, known, symbol("n")) == expected


@given(sizes())
def test_equal_text_is_equal_size(size: Size) -> None:
    assert isinstance(str(size), str)
    if isinstance(size, Dim):
        assert size.names() <= {"a", "b", "c"}


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (A, "a"),
        (A + 1, "a + 1"),
        (2 * A * B - 3, "2*a*b - 3"),
        (-A, "-a"),
        (A * A, "a**2"),
        (divide(A, 4), "a/4"),
        (divide(3 * A, 4 * B), "3*a/4/b"),
        (floor(A, 4), "(a // 4)"),
        (remainder(A + 1, 4), "((a + 1) % 4)"),
        (minimum(A, B), "min(a, b)"),
    ],
)
def test_text(size: Size, text: str) -> None:
    assert str(size) == text


@pytest.mark.parametrize(
    ("size", "by", "quotient"),
    [
        (12 * A, 4, 3 * A),
        (A * B, B, A),
        (A * B + 2 * B, B, A + 2),
        (A * A - B * B, A - B, A + B),
        (2 * A + 4, A + 2, 2),
        (0, A, 0),
    ],
)
def test_exact_division(size: Size, by: Size, quotient: Size) -> None:
    assert divide(size, by) == quotient
    assert Facts().exact(size, by)


@pytest.mark.parametrize(("size", "by"), [(A, 4), (A, B), (A + 1, 2), (A * B + 1, B)])
def test_division_that_is_not_known_to_be_exact(size: Size, by: Size) -> None:
    assert not Facts().exact(size, by)


def test_promises() -> None:
    facts = Facts()
    facts.promise(A, 8)
    assert facts.exact(A, 8)
    assert facts.exact(3 * A, 8)
    assert facts.exact(A * B, 8)
    assert facts.exact(A + 16, 8)
    assert not facts.exact(A, 16)
    assert not facts.exact(B, 8)


def test_a_promise_about_smaller_numbers_follows() -> None:
    facts = Facts()
    facts.promise(A, 8)
    assert facts.exact(A, 4)


def test_division_by_zero() -> None:
    for operation in (divide, floor, remainder):
        with pytest.raises(DimError):
            operation(A, 0)


def test_quotients_come_back() -> None:
    assert 4 * divide(A, 4) == A
    assert divide(A, 4) + divide(A, 4) == divide(A, 2)
    with pytest.raises(DimError, match="whole"):
        evaluate(divide(A, 4), {"a": 6})
    with pytest.raises(DimError, match="whole"):
        substitute(divide(A, 4), {"a": 6})
    with pytest.raises(KeyError):
        evaluate(A, {})


def test_bounds() -> None:
    with pytest.raises(DimError, match="terms"):
        _ = (A + B + C + symbol("d") + symbol("e")) ** 16
    with pytest.raises(DimError, match="raised"):
        _ = A**17
    size: Size = A
    with pytest.raises(DimError, match="names"):
        for _ in range(20):
            size = maximum(floor(size, 7), floor(size + 1, 5))


def test_products() -> None:
    assert dims.product([]) == 1
    assert dims.product([2, A, 3]) == 6 * A
    assert dims.names_of([1, A + B, floor(C, 2)]) == {"a", "b", "c"}
