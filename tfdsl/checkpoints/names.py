"""The left sides of rules: one text for all the names that it stands for.

`{i}` is a number. `[a|b]` is one of two spellings, the first of which is written when a checkpoint is exported; `[a]` is
there or not, and `[|a]` the same, but not written. A `*` at the end stands for anything. In names of fields of the
configuration, a `?` at the end says that the field may be absent.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

_PIECE = re.compile(r"\{([A-Za-z_]\w*)\}|\[([^\[\]{}]*)\]|([^\[\]{}]+)")


@dataclass(frozen=True)
class Number:
    """A placeholder: `{i}`."""

    name: str


Piece = str | Number | tuple[str, ...]


@dataclass(frozen=True)
class Pattern:
    """A left side, taken apart; `optional` says that it ended with `?`."""

    text: str
    pieces: tuple[Piece, ...]
    optional: bool = False

    @property
    def placeholders(self) -> list[str]:
        return [piece.name for piece in self.pieces if isinstance(piece, Number)]

    def match(self, name: str) -> dict[str, int] | None:
        """The numbers of a name that this stands for, or None for another."""
        found = self._regex.fullmatch(name)
        return None if found is None else {key: int(number) for key, number in found.groupdict().items()}

    def spellings(self, numbers: Mapping[str, int] | None = None) -> list[str]:
        """Every name that this stands for with given numbers, the preferred one first."""
        spelled = {name: str(number) for name, number in (numbers or {}).items()}
        return ["".join(each) for each in itertools.product(*self._choices(spelled))]

    def _choices(self, numbers: Mapping[str, str]) -> list[tuple[str, ...]]:
        """What may stand for each piece."""
        return [
            piece if isinstance(piece, tuple) else (numbers[piece.name] if isinstance(piece, Number) else piece,)
            for piece in self.pieces
        ]

    def keys(self) -> list[str]:
        """Every spelling, with `{}` for a number: two patterns that share one stand for the same names."""
        numbers = dict.fromkeys(self.placeholders, "{}")
        return ["".join(each) for each in itertools.product(*self._choices(numbers))]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        text = ""
        for piece in self.pieces:
            if isinstance(piece, Number):
                text += f"(?P<{piece.name}>0|[1-9][0-9]{{0,8}})"
            elif isinstance(piece, tuple):
                text += f"(?:{'|'.join(map(re.escape, piece))})"
            elif piece.endswith("*"):
                text += re.escape(piece[:-1]) + ".+"
            else:
                text += re.escape(piece)
        return re.compile(text)


def pattern(text: str, *, field: bool = False) -> Pattern:
    """The pattern that a text is; `field` for the name of a field. Raises `ValueError` with what is wrong with it."""
    optional = field and text.endswith("?")
    rest, pieces = text[:-1] if optional else text, list[Piece]()
    place = 0
    while place < len(rest):
        found = _PIECE.match(rest, place)
        if found is None or (found[2] is not None and not found[2].strip("|")):
            raise ValueError(
                "a placeholder is a name in braces, as {i}, and spellings stand in brackets, as [weight|gamma]"
            )
        place = found.end()
        if found[1] is not None:
            if field:
                raise ValueError("the name of a field has no placeholders")
            if Number(found[1]) in pieces:
                raise ValueError(f"`{{{found[1]}}}` stands twice in one name")
            pieces.append(Number(found[1]))
        elif found[2] is not None:
            pieces.append(tuple(found[2].split("|")) if "|" in found[2] else (found[2], ""))
        else:
            pieces.append(found[3])
    return Pattern(text, tuple(pieces), optional)
