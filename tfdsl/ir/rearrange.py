"""Patterns of named axes: `rearrange` ("b s (h d) -> b h s d") and `einsum` ("b h s d, b h t d -> b h s t").

The notation is that of einops (Rogozhnikov, 2022): names are axes, parentheses group several into one, `1` is an axis of
one element, and `...` stands for any leading axes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tfdsl.ir.dims import DimError, Size, divide, product
from tfdsl.ir.op import ShapeError

Group = tuple[str, ...]
# `(...)` merges axes that `...` leaves apart: the empty name tells one from the other.
_GROUPED_REST: Group = ("...", "")
_TOKEN = re.compile(r"\s*(\.\.\.|[A-Za-z_]\w*|1|[()])")


@dataclass(frozen=True)
class Rearrangement:
    """A rearrangement for given sizes: reshape to `split`, permute by `order`, reshape to `merged`."""

    split: tuple[Size, ...]
    order: tuple[int, ...]
    merged: tuple[Size, ...]
    split_groups: tuple[int, ...]  # how many axes each input axis becomes
    merged_groups: tuple[int, ...]  # how many axes each output axis is made of (0 for a new axis of one)


@lru_cache(maxsize=512)
def _parse_side(text: str) -> tuple[Group, ...]:
    groups: list[Group] = []
    inside: list[str] | None = None
    position = 0
    stripped = text.strip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if not match:
            raise ShapeError(f"`{stripped[position]}` has no meaning in the pattern `{text.strip()}`", code="T406")
        token, position = match[1], match.end()
        if token == "(":
            if inside is not None:
                raise ShapeError("groups in a pattern cannot be nested", code="T406")
            inside = []
        elif token == ")":
            if inside is None:
                raise ShapeError("a `)` without its `(` in the pattern", code="T406")
            groups.append(_GROUPED_REST if inside == ["..."] else tuple(inside))
            inside = None
        elif inside is not None:
            if token != "1":
                inside.append(token)
        else:
            groups.append(() if token == "1" else (token,))
    if inside is not None:
        raise ShapeError("a `(` without its `)` in the pattern", code="T406")
    return tuple(groups)


def _open_ellipsis(groups: tuple[Group, ...], count: int) -> list[Group]:
    opened: list[Group] = []
    for group in groups:
        if "..." in group:
            names = [f".{i}" for i in range(count)]
            if group == ("...",):
                opened += [(name,) for name in names]
            else:
                at = group.index("...")
                opened.append((*group[:at], *names, *filter(None, group[at + 1 :])))
        else:
            opened.append(group)
    return opened


def rearrangement(pattern: str, dims: Sequence[Size], sizes: Mapping[str, Size]) -> Rearrangement:
    """Work a pattern out for an input shape; `sizes` are those given by keyword. Raises `ShapeError`."""
    return _worked_out(pattern, tuple(dims), tuple(sizes.items()))


@lru_cache(maxsize=512)
def _worked_out(pattern: str, dims: tuple[Size, ...], given: tuple[tuple[str, Size], ...]) -> Rearrangement:
    sizes = dict(given)
    sides = pattern.split("->")
    if len(sides) != 2:
        raise ShapeError(f"the pattern `{pattern}` needs one `->`", code="T406")
    left, right = (_parse_side(side) for side in sides)
    has_ellipsis = any("..." in group for group in left)
    if has_ellipsis and (left.count(("...",)) != 1 or sum("..." in group for group in left) != 1):
        raise ShapeError(f"`...` stands at most once, and in no group, on the left of `{pattern}`", code="T406")
    extra = len(dims) - (len(left) - 1) if has_ellipsis else 0
    if (not has_ellipsis and len(left) != len(dims)) or extra < 0:
        raise ShapeError(
            f"the pattern `{sides[0].strip()}` names {len(left) - has_ellipsis} axes, and the tensor has {len(dims)}",
            operand=0,
            code="T406",
        )
    inputs, outputs = _open_ellipsis(left, extra), _open_ellipsis(right, extra)
    axes = [name for group in inputs for name in group]
    order_names = [name for group in outputs for name in group]
    _check_names(axes, order_names, sizes, pattern)
    known = sizes.copy()
    for group, dim in zip(inputs, dims, strict=True):
        _solve(group, dim, known)
    return Rearrangement(
        split=tuple(known[name] for name in axes),
        order=tuple(axes.index(name) for name in order_names),
        merged=tuple(product(known[name] for name in group) for group in outputs),
        split_groups=tuple(len(group) for group in inputs),
        merged_groups=tuple(len(group) for group in outputs),
    )


def axis_names(pattern: str, rank: int) -> list[str]:
    """The names of the axes that the left side of a pattern splits a tensor of so many axes into."""
    groups = _parse_side(pattern.split("->")[0])
    extra = rank - (len(groups) - 1) if ("...",) in groups else 0
    return [name for group in _open_ellipsis(groups, extra) for name in group]


def _check_names(left: list[str], right: list[str], sizes: Mapping[str, Size], pattern: str) -> None:
    for side in (left, right):
        for name in side:
            if side.count(name) > 1:
                shown = "..." if name.startswith(".") else name
                raise ShapeError(f"`{shown}` stands twice on one side of `{pattern}`", code="T406")
    for name in sorted({*left} ^ {*right}):
        shown = "..." if name.startswith(".") else name
        raise ShapeError(
            f"`{shown}` stands on one side only of `{pattern}`",
            help="an axis is dropped by select or a mean; one that is new on the right is given its size, and repeated",
            code="T406",
        )
    for name in sizes:
        if name not in left:
            raise ShapeError(f"`{name}` is given a size and is not in the pattern `{pattern}`", code="T406")


def _solve(group: Group, dim: Size, known: dict[str, Size]) -> None:
    unknown = [name for name in group if name not in known]
    rest = product(known[name] for name in group if name in known)
    label = " ".join(group) or "1"
    if len(unknown) > 1:
        raise ShapeError(f"of `({label})`, the sizes of {' and '.join(unknown)} are not known", operand=0, code="T406")
    if not unknown:
        if rest != dim:
            raise ShapeError(f"`{label}` is {rest}, and the axis is {dim}", operand=0)
        return
    try:
        quotient = divide(dim, rest)
    except DimError as error:
        raise ShapeError(str(error), operand=0, code="T405") from None
    if isinstance(dim, int) and isinstance(rest, int) and not isinstance(quotient, int):
        raise ShapeError(f"an axis of {dim} does not divide into {rest}", operand=0, code="T405")
    known[unknown[0]] = quotient


@lru_cache(maxsize=512)
def parse_einsum(pattern: str) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The axis names of each operand and of the result."""
    sides = pattern.split("->")
    if len(sides) != 2:
        raise ShapeError(f"the pattern `{pattern}` needs one `->`", code="T406")
    operands = tuple(tuple(_flat(group) for group in _parse_side(part)) for part in sides[0].split(","))
    return operands, tuple(_flat(group) for group in _parse_side(sides[1]))


def _flat(group: Group) -> str:
    if len(group) != 1 or group[0] == "...":
        raise ShapeError("an einsum pattern is of names: no groups and no `1`", code="T406")
    return group[0]


def einsum_sizes(pattern: str, shapes: Sequence[Sequence[Size]]) -> dict[str, Size]:
    """The size of each name of an einsum pattern. Raises `ShapeError` where operands disagree."""
    operands, result = parse_einsum(pattern)
    if len(operands) != len(shapes):
        raise ShapeError(f"`{pattern}` takes {len(operands)} tensors, and {len(shapes)} are given", code="T406")
    sizes: dict[str, Size] = {}
    for place, (names, dims) in enumerate(zip(operands, shapes, strict=True)):
        if len(names) != len(dims):
            raise ShapeError(
                f"`{' '.join(names)}` names {len(names)} axes, and the tensor has {len(dims)}",
                operand=place,
                code="T406",
            )
        for name, dim in zip(names, dims, strict=True):
            if sizes.setdefault(name, dim) != dim:
                raise ShapeError(f"`{name}` is both {sizes[name]} and {dim}", operand=place)
    for name in result:
        if name not in sizes:
            raise ShapeError(f"`{name}` is in the result of `{pattern}` and in no operand", code="T406")
    if len(set(result)) != len(result):
        raise ShapeError(f"an axis stands twice in the result of `{pattern}`", code="T406")
    return sizes


def letters(pattern: str) -> str:
    """An einsum pattern in single letters, as array libraries want it: "bhsd,bhtd->bhst"."""
    operands, result = parse_einsum(pattern)
    names = list(dict.fromkeys(name for operand in operands for name in operand))
    if all(len(name) == 1 for name in names):
        spell = {name: name for name in names}
    else:
        spell = {name: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[i] for i, name in enumerate(names)}
    return (
        ",".join("".join(spell[n] for n in operand) for operand in operands) + "->" + "".join(spell[n] for n in result)
    )
