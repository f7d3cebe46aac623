"""Writing a model: its weights go from their arrays to the file one after another, and are never in memory together.

Up to `INLINE_LIMIT` bytes of weights stand in the `.onnx` file itself, whose protobuf is put together here by hand
round the arrays; more than that go to a file beside it, since protobuf ends at two gigabytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx

from tfdsl.backends.onnx.builder import Stored
from tfdsl.files import atomic_file
from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]

INLINE_LIMIT = 1_500_000_000
SMALLEST_EXTERNAL = 1024  # bytes; what is smaller stays in the .onnx file
ALIGNMENT = 4096  # of each weight in the data file, so that it can be mapped into memory

_ELEMENTS: dict[int, Any] = {
    onnx.TensorProto.FLOAT: np.dtype("<f4"),
    onnx.TensorProto.INT8: np.dtype("i1"),
    onnx.TensorProto.INT4: np.dtype("i1"),
}


def write(
    model: onnx.ModelProto, stored: list[Stored], weights: Mapping[str, Array], path: Path, inline_limit: int
) -> None:
    """Write a model, and `path` with `.data` after it where the weights take more than `inline_limit` bytes."""
    with ExitStack() as files:
        target = files.enter_context(atomic_file(path))
        inline = stored
        if sum(_bytes(each) for each in stored) > inline_limit:
            data = files.enter_context(atomic_file(path.with_name(f"{path.name}.data")))
            inline = [each for each in stored if _bytes(each) < SMALLEST_EXTERNAL]
            beside = [each for each in stored if _bytes(each) >= SMALLEST_EXTERNAL]
            with open(data, "wb") as file:
                for each in beside:
                    model.graph.initializer.append(_external(each, weights, file, f"{path.name}.data"))
        with open(target, "wb") as file:
            _write_model(model, inline, weights, file)


def _external(stored: Stored, weights: Mapping[str, Array], file: BinaryIO, location: str) -> onnx.TensorProto:
    file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
    tensor = _header(stored)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", file.tell()), ("length", _bytes(stored))):
        tensor.external_data.add(key=key, value=str(value))
    file.write(content(stored, weights))
    return tensor


def _write_model(model: onnx.ModelProto, stored: list[Stored], weights: Mapping[str, Array], file: BinaryIO) -> None:
    """Write what `model.SerializeToString()` would give if the weights were among its initialisers."""
    graph = model.graph.SerializeToString(deterministic=True)
    heads = [_raw_head(each) for each in stored]
    length = len(graph) + sum(len(head) + _bytes(each) for head, each in zip(heads, stored, strict=True))
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    outside.ClearField("graph")
    file.write(outside.SerializeToString(deterministic=True))
    file.write(_tag(onnx.ModelProto.GRAPH_FIELD_NUMBER, length))
    file.write(graph)
    for head, each in zip(heads, stored, strict=True):
        file.write(head)
        file.write(content(each, weights))


def _raw_head(stored: Stored) -> bytes:
    """All of an initialiser that comes before its bytes."""
    header = _header(stored).SerializeToString(deterministic=True)
    raw = _tag(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, _bytes(stored))
    tag = _tag(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(header) + len(raw) + _bytes(stored))
    return tag + header + raw


def _header(stored: Stored) -> onnx.TensorProto:
    return onnx.TensorProto(name=stored.name, data_type=stored.element, dims=stored.dims)


def _tag(field: int, length: int) -> bytes:
    """The protobuf key and length of a field that holds bytes."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _bytes(stored: Stored) -> int:
    count = int(np.prod(stored.shape, dtype=np.int64))
    return (count + 1) // 2 if stored.element == onnx.TensorProto.INT4 else count * _ELEMENTS[stored.element].itemsize


def content(stored: Stored, weights: Mapping[str, Array]) -> Any:
    """The bytes of a weight in its form, without a copy where it already lies that way."""
    try:
        array = np.asarray(weights[stored.path])
    except KeyError:
        raise one("T801", f"there is no weight `{stored.path}`") from None
    if array.shape != stored.shape:
        raise one("T803", f"`{stored.path}` is {list(array.shape)}, and the model's is {list(stored.shape)}")
    array = array.astype(_ELEMENTS[stored.element], copy=False)
    array = np.ascontiguousarray(array.T if stored.form == "transposed" else array)
    if stored.element == onnx.TensorProto.INT4:
        array = _packed(array)
    return array.reshape(-1).view(np.uint8).data


def _packed(array: Array) -> Array:
    """Two numbers of four bits in a byte, the first of them in its low half."""
    flat = array.reshape(-1).view(np.uint8) & 0xF
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return flat[::2] | flat[1::2] << 4
