"""A tensor as an artifact is to hold it: what its bytes will be, before any of them has been read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.language.diagnostics import one
from tfdsl.weights.elements import PACKED, byte_count, convert
from tfdsl.weights.source import Place, Source

Array = npt.NDArray[Any]

BLOCK = 1 << 22  # elements that are converted at once


@dataclass(frozen=True)
class Content:
    """A weight in an element type ("F32", "F16", "BF16", "I8", "I4", ...), laid out "plain", "transposed" or "flat".

    `shape` is that of the weight itself, and is checked against what is there when the content is made. "transposed"
    is for matrices; "flat" leaves out all axes but the first, which the bytes do not show.
    """

    source: Source
    path: str
    shape: tuple[int, ...]
    dtype: str
    form: str = "plain"

    @property
    def count(self) -> int:
        """How many bytes it has."""
        return byte_count(self.dtype, math.prod(self.shape))

    @cached_property
    def place(self) -> Place | None:
        """The bytes of a file that are just these, so that they can be copied by the system, or referred to."""
        if self.form == "transposed" or self._stored != self.dtype:
            return None
        found = self.source.place(self.path)
        if found is not None and found.count != self.count:
            self._raw()  # says what is wrong
        return found

    def blocks(self) -> Iterator[memoryview]:
        """The bytes in order, converted some megabytes at a time."""
        raw = self._raw()
        if self.form == "transposed":
            raw = raw.T
        if raw.flags.c_contiguous:
            raw = raw.reshape(-1)
        stored = self._stored
        rows = max(1, BLOCK // max(1, math.prod(raw.shape[1:])))
        rows += rows % 2 if self.dtype == PACKED else 0  # a byte that two blocks share would be two bytes
        for start in range(0, len(raw), rows):
            block = np.ascontiguousarray(raw[start : start + rows])
            made = np.ascontiguousarray(convert(block, stored, self.dtype, self.path))
            yield made.reshape(-1).view(np.uint8).data

    def array(self) -> Array:
        """The whole tensor in memory; numbers of four bits are packed, and have no axes. A view where it can be one."""
        raw = self._raw()
        if self.form == "transposed":
            raw = np.ascontiguousarray(raw.T)
        made = convert(raw, self._stored, self.dtype, self.path)
        return made.reshape(self.shape[:1]) if self.form == "flat" else made

    @cached_property
    def _stored(self) -> str:
        try:
            return self.source.dtype(self.path)
        except KeyError:
            raise one("T801", f"there is no weight `{self.path}`") from None

    def _raw(self) -> Array:
        try:
            raw = self.source.raw(self.path)
        except KeyError:
            raise one("T801", f"there is no weight `{self.path}`") from None
        if raw.shape != self.shape:
            raise one("T803", f"`{self.path}` is {list(raw.shape)}, and the model's is {list(self.shape)}")
        return raw
