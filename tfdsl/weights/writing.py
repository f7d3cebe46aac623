"""Writing tensors to files one after another: what lies in a file just so is copied by the system, unseen by us."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfdsl.files import open_empty
from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.source import Array, Place

Advance = Callable[[int], Any]  # is told how many bytes more are done

# Of every element type of the format, also those that we only pass on.
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_READ = 1 << 22  # bytes that are in memory at once where the system does not copy
_PIECE = 1 << 25  # bytes that are copied at once, so that whoever watches sees them move
# What a system answers that cannot copy between two files by itself.
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def append(file: BinaryIO, content: Content, advance: Advance | None = None) -> None:
    """Write a tensor where a buffered file stands, which stands behind it then."""
    told = advance or _nobody
    if content.place is not None:
        copy(file, content.place, told)
        return
    for block in content.blocks():
        file.write(block)
        told(block.nbytes)


def copy(file: BinaryIO, place: Place, advance: Advance) -> None:
    """Copy bytes of another file to where a file stands, within the system where it can."""
    file.flush()
    start = file.tell()
    with open(place.file, "rb") as source:
        done = 0
        while done < place.count:
            piece = min(_PIECE, place.count - done)
            moved = _copy_piece(source.fileno(), file.fileno(), place.start + done, start + done, piece)
            if moved == 0:
                raise OSError(errno.EIO, f"`{place.file}` has become shorter")
            done += moved
            advance(moved)
    file.seek(start + done)


def _copy_piece(source: int, target: int, start: int, place: int, count: int) -> int:
    """Copy some bytes from `start` in one open file to `place` in another, by the first way there is; how many."""
    for way in (_copy_range, _send):
        try:
            return way(source, target, start, place, count)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
        except AttributeError:  # not on this system
            continue
    os.lseek(source, start, os.SEEK_SET)
    os.lseek(target, place, os.SEEK_SET)
    return os.write(target, os.read(source, min(count, _READ)))


def _copy_range(source: int, target: int, start: int, place: int, count: int) -> int:
    return os.copy_file_range(source, target, count, start, place)


def _send(source: int, target: int, start: int, place: int, count: int) -> int:
    """Between two file systems."""
    os.lseek(target, place, os.SEEK_SET)
    return os.sendfile(target, source, start, count)


def require_room(folder: Path, count: int) -> None:
    """Refuse to write so many bytes where there is no room for them. Raises `SpecError`."""
    free = shutil.disk_usage(folder).free
    if count > free:
        message = f"cannot write {count:,} bytes of weights into `{folder}`: {free:,} are free"
        raise one("T701", message, help="nothing was written")


def write_contents(path: Path, contents: Mapping[str, Content], advance: Advance | None = None) -> None:
    """Write a safetensors file of tensors by the names that they are to have."""
    table = [(name, content.dtype, content.shape) for name, content in contents.items()]
    with open_empty(path) as file:
        for name in _write_header(file, table):
            append(file, contents[name], advance)


def write_stored(path: Path, table: Iterable[tuple[str, str, tuple[int, ...]]], data: Callable[[str], Array]) -> None:
    """Write a safetensors file of given names, element types and shapes; `data` gives each as it is stored, in turn."""
    with open_empty(path) as file:
        for name in _write_header(file, table):
            file.write(np.ascontiguousarray(data(name)).data)


def _write_header(file: BinaryIO, table: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[str]:
    """Write the beginning of a safetensors file; the names in the order in which the tensors are to follow.

    The file is the one that the safetensors library would write: large elements first, then by name.
    """
    order = sorted(table, key=lambda each: (-_BYTES.get(each[1], 1), each[0]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, dtype, shape in order:
        size = math.prod(shape) * _BYTES.get(dtype, 1)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    return [name for name, _, _ in order]


def _nobody(count: int) -> None:
    """Tell nobody."""
