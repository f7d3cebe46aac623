"""Writing safetensors one tensor at a time, in the element types that they are in, so that a large model is never in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tfdsl.weights.files import Array

_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


def write_stored(path: Path, table: Iterable[tuple[str, str, tuple[int, ...]]], data: Callable[[str], Array]) -> None:
    """Write tensors of given names, element types and shapes; `data` gives each as it is stored, and is called in turn.

    The file is the one that the safetensors library would write: large elements first, then by name.
    """
    order = sorted(table, key=lambda each: (-_BYTES.get(each[1], 1), each[0]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, dtype, shape in order:
        size = int(np.prod(shape, dtype=np.int64)) * _BYTES.get(dtype, 1)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, _, _ in order:
            file.write(np.ascontiguousarray(data(name)).data)
