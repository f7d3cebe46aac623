"""The report itself: data, JSON, and text for a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdsl.report.blocks import Block

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Largest:
    """The largest value that a forward pass computes."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def as_json(self) -> dict[str, object]:
        """The value as JSON data."""
        return {"name": self.name, "shape": list(self.shape), "elements": self.elements}


@dataclass(frozen=True)
class Report:
    """What a model costs at given sizes. A multiply-add counts as two operations; a tied weight counts once.

    `zeros` are the parameters that pruning sets to zero, `trainable` those that are not stored as whole numbers, and
    `bytes` those of all weights at `dtype` (of quantised ones as they are stored). `formula` gives the operations for
    any sizes.
    """

    model: str
    sizes: dict[str, int]
    dtype: str
    parameters: int
    trainable: int
    zeros: int
    bytes: int
    flops: int
    flops_by_kind: dict[str, int]
    formula: str | None
    largest: Largest | None
    blocks: Block

    def as_json(self) -> dict[str, object]:
        """The report as JSON data."""
        return {
            "model": self.model,
            "sizes": self.sizes,
            "parameters": {"total": self.parameters, "trainable": self.trainable, "zeros": self.zeros},
            "bytes": {"total": self.bytes, "dtype": self.dtype},
            "flops": {"total": self.flops, **self.flops_by_kind, "formula": self.formula},
            "largest_value": self.largest.as_json() if self.largest else None,
            "blocks": [child.as_json() for child in self.blocks.children.values()],
        }

    def __str__(self) -> str:
        from tfdsl.report.rendering import as_text

        return as_text(self)

    def __rich__(self) -> RenderableType:
        from tfdsl.report.rendering import as_rich

        return as_rich(self)
