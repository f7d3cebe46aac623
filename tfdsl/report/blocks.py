"""A model as a tree of blocks by weight path: `h.*` is every turn of the loop `h`, and `h.*.attn` a block in it."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tfdsl.ir.graph import Weight

Box = tuple[tuple[int, ...], ...]
_OPERANDS = ("weight", "bias")
_MOST_PLACES = 20_000


@dataclass
class Block:
    """A part of the model: its own counts and those of the parts below it, over all turns of the loops around it."""

    name: str
    path: str
    own_parameters: int = 0
    own_flops: int = 0
    children: dict[str, Block] = field(default_factory=dict)
    places: list[tuple[Box, int]] = field(default_factory=list)  # for each weight, the turns and the elements in each

    @property
    def parameters(self) -> int:
        return self.own_parameters + sum(child.parameters for child in self.children.values())

    @property
    def flops(self) -> int:
        return self.own_flops + sum(child.flops for child in self.children.values())

    @property
    def copies(self) -> int | None:
        """How many there are of the block, by the weights in it; None for a block that has none."""
        return self._census()[0]

    @property
    def parameters_each(self) -> int | None:
        """The parameters of one of the copies; None where the copies differ."""
        return self._census()[1]

    def add_weight(self, box: Box, elements: int) -> None:
        """Count a weight of so many elements, once for each of the turns in `box`."""
        self.own_parameters += elements * math.prod(map(len, box))
        self.places.append((box, elements))

    def at(self, path: str) -> Block:
        """The block at a path below this one, made if there is none yet."""
        block = self
        for part in parts_of(path):
            below = f"{block.path}.{part}" if block.path else part
            block = block.children.setdefault(part, Block(part, below))
        return block

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Block]]:
        """The blocks below this one with their depth, outer first."""
        for child in self.children.values():
            yield depth, child
            yield from child.walk(depth + 1)

    def as_json(self) -> dict[str, object]:
        """The block as JSON data."""
        return {
            "path": self.path,
            "copies": self.copies,
            "parameters": self.parameters,
            "parameters_each": self.parameters_each,
            "flops": self.flops,
            "blocks": [child.as_json() for child in self.children.values()],
        }

    def _places(self) -> Iterator[tuple[Box, int]]:
        yield from self.places
        for child in self.children.values():
            yield from child._places()

    def _census(self) -> tuple[int | None, int | None]:
        """The number of places (loop indices) at which the block stands, and the parameters at each."""
        stars = self.path.split(".").count("*")
        boxes = [(box[:stars], elements * math.prod(map(len, box[stars:]))) for box, elements in self._places()]
        if not boxes:
            return None, None
        first, _ = boxes[0]
        if all(box == first for box, _ in boxes):
            return math.prod(map(len, first)), sum(elements for _, elements in boxes)
        if sum(math.prod(map(len, box)) for box, _ in boxes) > _MOST_PLACES:
            return None, None
        each: Counter[tuple[int, ...]] = Counter()
        for box, elements in boxes:
            for place in itertools.product(*box):
                each[place] += elements
        return len(each), next(iter(each.values())) if len({*each.values()}) == 1 else None


def parts_of(path: str) -> list[str]:
    """The parts of a weight path; an index belongs to the name of its loop: `h.*.attn` is `h.*` and `attn`."""
    parts: list[str] = []
    for part in filter(None, path.split(".")):
        if part == "*" and parts:
            parts[-1] += ".*"
        else:
            parts.append(part)
    return parts


def collapse(weight: Weight) -> list[tuple[str, Box]]:
    """A weight's path with every index a `*`, and the indices; the same for a graph whose loops were unrolled."""
    path = starred(weight.path)
    if path == weight.path:
        return [(path, box) for box in weight.boxes]
    found = []
    for box in weight.boxes:
        turns = iter(box)
        parts = weight.path.split(".")
        indices = tuple(next(turns) if part == "*" else (int(part),) for part in parts if part == "*" or part.isdigit())
        found.append((path, indices))
    return found


def block_path(path: str) -> str:
    """The path of the block that a weight counts in: its layer, or the weight itself where it stands alone."""
    layer, _, name = path.rpartition(".")
    return layer if layer and name in _OPERANDS else path


def starred(path: str) -> str:
    """A path with its loop indices replaced by `*`."""
    return ".".join("*" if part.isdigit() else part for part in path.split("."))
