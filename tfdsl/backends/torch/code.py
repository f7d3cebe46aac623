"""Pieces of Python source with how tightly they bind, so that parentheses stand only where they must."""

from __future__ import annotations

import re
from dataclasses import dataclass

ATOM, POWER, UNARY, PRODUCT, SUM, JOIN, COMPARE, CHOICE = 8, 7, 6, 5, 4, 3, 2, 1
_SIMPLE = re.compile(r"-?[\w.]+\Z")


@dataclass(frozen=True)
class Code:
    """An expression as source; `level` is that of its loosest operator."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text, in parentheses where its surroundings bind tighter."""
        return self.text if self.level >= level else f"({self.text})"


def infix(left: Code, sign: str, right: Code, level: int) -> Code:
    """Two operands and the operator between them, which is of a level and groups to the left."""
    if level == POWER:
        base, exponent = left.at(ATOM), right.at(UNARY)
        space = "" if _SIMPLE.match(base) and _SIMPLE.match(exponent) else " "
        return Code(f"{base}{space}**{space}{exponent}", POWER)
    if level in (COMPARE, JOIN):
        return Code(f"{left.at(level + 1)} {sign} {right.at(level + 1)}", level)
    return Code(f"{left.at(level)} {sign} {right.at(level + 1)}", level)


def call(function: str, *arguments: str) -> Code:
    """A call of a function by its text."""
    return Code(f"{function}({', '.join(arguments)})")


def tuple_of(items: list[str]) -> str:
    """A tuple as source."""
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
