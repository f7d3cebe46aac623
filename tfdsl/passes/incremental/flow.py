"""How the positions of a decoded sequence lie in a value: what the analysis of causality says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tfdsl.ir.graph import Node

# What a matrix over (query, key) positions holds wherever the key comes after the query, by the pair of axes.
Above = Mapping[tuple[int, int], float]

Full = frozenset[int]  # the axes of a value that hold all positions, and not only the new ones
NEW: Full = frozenset()


@dataclass(frozen=True)
class Flow:
    """A value whose element at a position depends on that position and those before it alone.

    `axes` are those along which positions lie: none for a value that knows of no position, one for most, two for a matrix
    over pairs. Along a single axis there are `lead` elements before that of the first position and `ahead` after that of the
    last (fewer, if negative), and those before are zero where `zeros` holds. `merged` says that the axis holds the batch as
    well. `data` says that the value depends on what the model is given, and not only on how much of it.
    """

    axes: tuple[int, ...] = ()
    lead: int = 0
    ahead: int = 0
    zeros: bool = True
    merged: bool = False
    data: bool = False
    above: Above = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether there is one element for each position, and no other."""
        return self.lead == 0 and self.ahead == 0

    def on(self, *axes: int) -> Flow:
        """The flow with its positions on other axes, and nothing known of pairs."""
        return replace(self, axes=axes, above={})


STATIC = Flow()


@dataclass(frozen=True)
class Fault:
    """Why a value cannot be computed position by position: the node at fault, and what it does."""

    node: Node
    why: str


State = Flow | Fault
