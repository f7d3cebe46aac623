"""Where tensors come from: files on the disk, arrays in memory, and steps from one to the other. Nothing is read early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.weights.elements import as_float, is_known, spelling

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """Bytes of a file: `count` of them from `start` on."""

    file: Path
    start: int
    count: int


class Source(Mapping[str, Array]):
    """Tensors by name, each read, drawn or computed when it is asked for; as a mapping, floats come as float32."""

    def dtype(self, name: str) -> str:
        """The element type of a tensor as it is stored, as safetensors spells it. Raises `KeyError`."""
        raise NotImplementedError

    def raw(self, name: str) -> Array:
        """A tensor as it is stored; the halves of bfloat16 come as whole numbers. Raises `KeyError`."""
        raise NotImplementedError

    def place(self, name: str) -> Place | None:
        """The bytes of a file that are the tensor, whole and in order; None where there are none."""
        return None

    def __getitem__(self, name: str) -> Array:
        return as_float(self.raw(name), self.dtype(name))


class Arrays(Source):
    """Tensors from a mapping of arrays, which may make each when it is asked for."""

    def __init__(self, arrays: Mapping[str, Array]):
        self._arrays = arrays

    def dtype(self, name: str) -> str:
        return spelling(self.raw(name))

    def raw(self, name: str) -> Array:
        array = np.asarray(self._arrays[name])
        return array if is_known(array) else array.astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def source_of(tensors: Mapping[str, Array]) -> Source:
    """A mapping of arrays as a source."""
    return tensors if isinstance(tensors, Source) else Arrays(tensors)


def place_in(file: Path, pages: Array, view: Array) -> Place | None:
    """Where the bytes of a view of a file's pages lie in the file; None where they are not all there, and in order."""
    start = view.__array_interface__["data"][0] - pages.__array_interface__["data"][0]
    if not view.flags.c_contiguous or start < 0 or start + view.nbytes > pages.nbytes:
        return None
    return Place(file, start, view.nbytes)
