"""Writing a model and its weights, which go to the files one after another and are never in memory together.

Up to `INLINE_LIMIT` bytes of weights stand in the `.onnx` file itself, whose protobuf is put together here by hand
round them; more than that go to a file beside it, which runtimes map into memory. With links, those that lie in a
checkpoint as they are needed stay there, and its file gets another name beside the model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt
import onnx

from tfdsl.backends.onnx.builder import STORED_ELEMENTS, Stored
from tfdsl.files import atomic_file, open_empty
from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.linking import check_linked, hard_link, linkable
from tfdsl.weights.source import Source, source_of
from tfdsl.weights.storing import Storing
from tfdsl.weights.writing import Advance, append, require_room

Array = npt.NDArray[Any]

INLINE_LIMIT = 64_000_000
SMALLEST_EXTERNAL = 1024  # bytes; what is smaller stays in the .onnx file
ALIGNMENT = 4096  # of each weight in the data file, so that it can be mapped into memory


def write(
    model: onnx.ModelProto,
    stored: Sequence[Stored],
    weights: Mapping[str, Array],
    path: Path,
    inline_limit: int = INLINE_LIMIT,
    storing: Storing | None = None,
) -> None:
    """Write a finished model without its weights to `path`, and the weights that it names with it.

    `stored` says of each weight under which name the model knows it, and how it is to lie in the file; `weights` has
    their values by path, and is read tensor by tensor. Beside `path` there is `path` with `.data` after it where the
    weights take more than `inline_limit` bytes, and with links the files of the checkpoint. Raises `SpecError`.
    """
    storing = storing or Storing()
    source = source_of(weights)
    contents = {each.name: content_of(each, source) for each in stored}
    advance = storing.meter(sum(content.count for content in contents.values()))
    inline = list(contents)
    with ExitStack() as files:
        target = files.enter_context(atomic_file(path))
        if storing.link:
            inline = _refer(model, contents, path, storing)
        require_room(target.parent, sum(contents[name].count for name in inline))
        if sum(contents[name].count for name in inline) > inline_limit:
            beside = [name for name in inline if contents[name].count >= SMALLEST_EXTERNAL]
            inline = [name for name in inline if contents[name].count < SMALLEST_EXTERNAL]
            data = files.enter_context(atomic_file(path.with_name(f"{path.name}.data")))
            with open_empty(data) as file:
                for name in beside:
                    file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
                    place = f"{path.name}.data", file.tell()
                    model.graph.initializer.append(_external(name, contents[name], *place))
                    append(file, contents[name], advance)
        with open_empty(target) as file:
            _write_model(model, {name: contents[name] for name in inline}, file, advance)


def content_of(stored: Stored, weights: Source) -> Content:
    """A weight as the file is to hold it."""
    return Content(weights, stored.path, stored.shape, stored.dtype, stored.form)


def _refer(model: onnx.ModelProto, contents: Mapping[str, Content], path: Path, storing: Storing) -> list[str]:
    """Let the model refer to the checkpoint for the weights that lie there as they are needed; the names of the others."""
    places = {name: place for name, content in contents.items() if (place := linkable(content)) is not None}
    storing.linked += check_linked(contents.values(), (contents[name] for name in places))
    for file in sorted({place.file for place in places.values()}):
        beside = path.with_name(file.name)
        if beside in (path, path.with_name(f"{path.name}.data")) or not hard_link(file, beside):
            raise one(
                "T718",
                f"`{file}` cannot get another name beside `{path.name}`",
                note="ONNX Runtime opens no data outside the folder of a model, also not through a symbolic link",
                help="build into a folder on the file system of the checkpoint, or without --link",
            )
    for name, place in places.items():
        model.graph.initializer.append(_external(name, contents[name], place.file.name, place.start))
    return [name for name in contents if name not in places]


def _external(name: str, content: Content, location: str, offset: int) -> onnx.TensorProto:
    tensor = _header(name, content)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", content.count)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _write_model(model: onnx.ModelProto, contents: Mapping[str, Content], file: BinaryIO, advance: Advance) -> None:
    """Write what `model.SerializeToString()` would give if the weights were among its initialisers."""
    graph = model.graph.SerializeToString(deterministic=True)
    heads = {name: _raw_head(name, content) for name, content in contents.items()}
    length = len(graph) + sum(len(heads[name]) + content.count for name, content in contents.items())
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    outside.ClearField("graph")
    file.write(outside.SerializeToString(deterministic=True))
    file.write(_tag(onnx.ModelProto.GRAPH_FIELD_NUMBER, length))
    file.write(graph)
    for name, content in contents.items():
        file.write(heads[name])
        append(file, content, advance)


def _raw_head(name: str, content: Content) -> bytes:
    """All of an initialiser that comes before its bytes."""
    header = _header(name, content).SerializeToString(deterministic=True)
    raw = _tag(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, content.count)
    tag = _tag(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(header) + len(raw) + content.count)
    return tag + header + raw


def _header(name: str, content: Content) -> onnx.TensorProto:
    dims = {"plain": content.shape, "transposed": content.shape[::-1], "flat": content.shape[:1]}[content.form]
    return onnx.TensorProto(name=name, data_type=STORED_ELEMENTS[content.dtype], dims=dims)


def _tag(field: int, length: int) -> bytes:
    """The protobuf key and length of a field that holds bytes."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
