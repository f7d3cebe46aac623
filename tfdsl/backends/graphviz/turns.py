"""The turns of a loop as a reader would say them: `0 1 0 1 0 1` is three times `0 1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

_LONGEST_PATTERN = 16
_MOST_RUNS = 6


@dataclass(frozen=True)
class Run:
    """Bodies in a row, each with how often it runs, and how often the row is run; `start` is the first turn."""

    row: tuple[tuple[int, int], ...]
    count: int
    start: int

    @property
    def turns(self) -> int:
        return self.count * sum(count for _, count in self.row)


def runs(turns: Sequence[int]) -> list[Run] | None:
    """The turns as few runs, one after another; None where they have no pattern that a drawing could show."""
    found: list[Run] = []
    start = 0
    while start < len(turns):
        length, count = _longest(turns, start)
        row = tuple((body, len(list(group))) for body, group in groupby(turns[start : start + length]))
        found.append(Run(row, count, start))
        start += length * count
        if len(found) > _MOST_RUNS:
            return None
    return found


def _longest(turns: Sequence[int], start: int) -> tuple[int, int]:
    """The length of the pattern at `start` that covers most turns, and how often it comes; short ones go first."""
    best = (1, 1)
    for length in range(1, _LONGEST_PATTERN + 1):
        pattern = turns[start : start + length]
        count = 1
        while turns[start + count * length : start + (count + 1) * length] == pattern:
            count += 1
        if len(pattern) == length and (count > 1 or length == 1) and length * count > best[0] * best[1]:
            best = (length, count)
    return best
