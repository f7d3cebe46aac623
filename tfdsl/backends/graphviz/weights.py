"""Which box of a drawing holds which weights: each is counted where it is first drawn, and tied from there on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tfdsl.ir.graph import Graph, Node, Type


class Loop(NamedTuple):
    """A loop around a weight: its path, which of its turns are meant, and for how many of them a box stands."""

    path: str
    part: str
    turns: int


Loops = tuple[Loop, ...]
Key = tuple[str, Type, tuple[str, ...]]


class Weights:
    """The weights of the boxes of a drawing. A box inside the frame of a loop counts the weights of one turn."""

    def __init__(self) -> None:
        self.ties: dict[tuple[int, int], None] = {}  # each box that shares a weight, with the one drawn before it
        self._readers: dict[Key, int] = {}  # the box drawn last that reads a weight
        self._counts: dict[int, int] = {}

    def give(self, box: int, weight: Node, loops: Loops) -> None:
        """Count a weight in a box, or tie the box to the one that has it."""
        key, parameters = _key(weight, loops)
        known = self._readers.get(key)
        if known is None:
            self._readers[key] = box
            self._counts[box] = self._counts.get(box, 0) + parameters
        elif known != box:
            # A line from each to the next crosses less of the page than lines that all start at the first.
            self.ties[known, box] = None
            self._readers[key] = box

    def count(self, box: int) -> int:
        """The parameters that a box holds."""
        return self._counts.get(box, 0)

    def tied_to(self, box: int) -> list[int]:
        """The boxes whose weights a box shares."""
        return [first for first, second in self.ties if second == box]

    def count_new(self, found: Iterable[tuple[Node, Loops]]) -> int:
        """The parameters of weights that no box holds yet, each once."""
        new = dict(_key(weight, loops) for weight, loops in found)
        return sum(parameters for key, parameters in new.items() if key not in self._readers)


def weights_in(region: Graph, loops: Loops) -> Iterator[tuple[Node, Loops]]:
    """The weights of a region and of the loops in it, each with the loops around it."""
    for node in region.nodes():
        yield from weights_of(node, loops)


def weights_of(node: Node, loops: Loops) -> Iterator[tuple[Node, Loops]]:
    """A weight itself, or the weights in the bodies of a loop."""
    if node.op == "weight":
        yield node, loops
    for variant, body in enumerate(node.bodies):
        turns = node.attributes["turns"].count(variant)
        yield from weights_in(body, (*loops, Loop(node.attributes["path"], str(variant), turns)))


def own_loops(weight: Node, loops: Loops) -> Loops:
    """The loops whose turns have a weight each; in the others it is the same in all turns."""
    path = weight.attributes["path"]
    return tuple(loop for loop in loops if path == f"{loop.path}.*" or path.startswith(f"{loop.path}.*."))


def _key(weight: Node, loops: Loops) -> tuple[Key, int]:
    """What makes a weight the same weight, and the parameters that a box counts for it."""
    own = own_loops(weight, loops)
    elements = math.prod(dim for dim in weight.type.dims if isinstance(dim, int))
    key = weight.attributes["path"], weight.type, tuple(loop.part for loop in own)
    return key, elements * math.prod(loop.turns for loop in own)
