"""Patterns of axes that say more than one node: axes repeated by `rearrange`, and `...` in `einsum`."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from tfdsl.ir.dims import Size
from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.nodes import node_of
from tfdsl.ir.elaborate.values import Tensor
from tfdsl.ir.op import ShapeError
from tfdsl.language.diagnostics import Span

_NAME = re.compile(r"\.\.\.|[A-Za-z_]\w*|1")


def repeated(pattern: str, sizes: Mapping[str, Size]) -> list[str]:
    """The names that stand on the right of a pattern only, and are given a size: axes that are to be repeated."""
    left, arrow, right = pattern.partition("->")
    known = _NAME.findall(left)
    return [name for name in _NAME.findall(right) if arrow and name in sizes and name not in known]


def repeat_axes(
    body: Body, x: Tensor, pattern: str, sizes: Mapping[str, Size], new: Sequence[str], span: Span
) -> Tensor:
    """`rearrange(x, "b g s d -> b (g r) s d", r=4)`: new axes of one, stretched, and then merged as the pattern says."""
    left, _, right = pattern.partition("->")
    names = _NAME.findall(right)
    apart = " ".join("1" if name in new else name for name in names)
    rest = tuple((name, size) for name, size in sizes.items() if name not in new)
    opened = node_of(body, "rearrange", [x], {"pattern": f"{left.strip()} -> {apart}", "sizes": rest}, span, (span,))
    leading = len(opened.type.dims) - len(names)  # what `...` stands for, less the axis that it counts as here
    shape = list(opened.type.dims)
    for place, name in enumerate(names):
        if name in new:
            later = "..." in names[:place]
            shape[place + (leading if later else 0)] = sizes[name]
    stretched = node_of(body, "expand", [opened], {"shape": tuple(shape)}, span, (span,))
    if "(" not in right:
        return stretched
    flat = " ".join(names)
    return node_of(body, "rearrange", [stretched], {"pattern": f"{flat} -> {right.strip()}"}, span, (span,))


def open_einsum(pattern: str, ranks: Sequence[int]) -> str:
    """A pattern of plain names, with names for the axes that `...` stands for; they are matched from the last."""
    left, arrow, right = pattern.partition("->")
    parts = left.split(",")
    if "..." not in pattern or not arrow or len(parts) != len(ranks):
        return pattern
    extras = [rank - len(_NAME.findall(part)) + 1 for part, rank in zip(parts, ranks, strict=True) if "..." in part]
    if not extras or min(extras) < 0:
        raise ShapeError(f"`{pattern}` names more axes than the tensors have", code="T406")
    free = [each for each in string.ascii_letters if each not in _NAME.findall(pattern)]
    names = free[: max(extras)]
    opened = []
    for part, rank in zip(parts, ranks, strict=True):
        extra = rank - len(_NAME.findall(part)) + 1
        opened.append(part.replace("...", " ".join(names[len(names) - extra :])) if "..." in part else part)
    return f"{','.join(opened)}->{right.replace('...', ' '.join(names))}"
