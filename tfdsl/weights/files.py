"""Weight files: safetensors, read lazily through a memory map and checked against a graph, and written atomically."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tfdsl.files import atomic_file
from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph, Weight, weights
from tfdsl.ir.paths import names
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError, did_you_mean, one
from tfdsl.weights.elements import FLOATS, INTS, NUMPY
from tfdsl.weights.source import Array, Place, Source, place_in

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_KINDS = {"float": FLOATS, "int": INTS}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its element type as the format spells it, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class WeightFile(Source):
    """The tensors of a safetensors file by name, read from the disk when they are asked for; floats come as float32.

    A float32 tensor is a view of the file's pages and takes no memory of its own.
    """

    def __init__(self, path: Path, entries: Mapping[str, Entry]):
        self.path, self.entries = path, entries
        self._bytes = np.memmap(path, mode="c")  # private pages: writing to a view changes no file

    def raw(self, name: str) -> Array:
        """A tensor as it is stored, as a view of the file's pages; the halves of bfloat16 come as whole numbers."""
        entry = self.entries[name]
        kind = np.dtype(NUMPY[entry.dtype]).newbyteorder("<")
        flat = np.frombuffer(self._bytes, dtype=kind, count=math.prod(entry.shape), offset=entry.start)
        return flat.reshape(entry.shape)

    def dtype(self, name: str) -> str:
        return self.entries[name].dtype

    def place(self, name: str) -> Place:
        entry = self.entries[name]
        return Place(self.path, entry.start, entry.stop - entry.start)

    def place_of(self, view: Array) -> Place | None:
        """Where the bytes of a view of this file's pages lie; None where they are not in order."""
        return place_in(self.path, self._bytes, view)

    def data(self, name: str) -> Array:
        """The bytes of a tensor of any element type."""
        return self._bytes[self.entries[name].start : self.entries[name].stop]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read(path: str | os.PathLike[str], graph: Graph) -> WeightFile:
    """The weights of a graph from a safetensors file; `SpecError` with all that is missing, left over or misshapen."""
    target = Path(path)
    entries = contents(target)
    faults = Collector()
    _compare(target, entries, weights(graph), faults)
    faults.check()
    return WeightFile(target, entries)


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array]) -> None:
    """Write tensors to a safetensors file, which appears under its name only when it is whole."""
    # Other libraries refuse a file that does not say which framework's layout it has; "pt" is rows first, as ours.
    arrays = {name: np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name])) for name in sorted(tensors)}
    with atomic_file(path) as temporary:
        try:
            save_file(arrays, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise one("T701", f"cannot write `{path}`: {error}") from None


def is_readable(dtype: str, kind: str) -> bool:
    """Whether weights of a kind ("float", "int") can be read from this element type."""
    return dtype in _KINDS[kind]


def contents(path: Path) -> dict[str, Entry]:
    """The table of contents of a safetensors file."""
    if path.suffix.lower() in PICKLES:
        raise one(
            "T806",
            f"`{path}` is a pickle by its name, and is not opened",
            note="a pickle is a program: reading it runs it",
            help="save the weights as safetensors: safetensors.torch.save_file(state_dict, 'model.safetensors')",
        )
    try:
        with safe_open(path, framework="numpy"):
            pass  # the library checks the header: its size, and that the tensors tile the file
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except SafetensorError as error:
        raise _unreadable(path, str(error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(path, reason) from None
    header.pop("__metadata__", None)
    return {
        name: Entry(entry["dtype"], tuple(entry["shape"]), *(8 + size + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
    }


def _unreadable(path: Path, reason: str) -> SpecError:
    help = "is it cut short, or of another format?" if path.is_file() else ""
    return one("T805", f"cannot read `{path}` as safetensors: {reason[:1].lower()}{reason[1:]}", help=help)


def _compare(path: Path, entries: Mapping[str, Entry], wanted: list[Weight], faults: Collector) -> None:
    """Note every difference between a file and the weights of a graph."""
    known = {name: weight for weight in wanted for name in weight.paths()}
    missing, unexpected = [name for name in known if name not in entries], [n for n in entries if n not in known]
    if missing:
        message = f"{_count(missing)} of the model {'are' if len(missing) > 1 else 'is'} not in `{path}`"
        help = did_you_mean(missing[0], unexpected)
        faults.add(
            Diagnostic(
                "T801",
                message,
                known[missing[0]].span if len(missing) == 1 else None,
                ", ".join(names(missing)),
                help=help,
            )
        )
    if unexpected:
        message = f"{_count(unexpected)} in `{path}` {'are' if len(unexpected) > 1 else 'is'} none of the model"
        faults.add(Diagnostic("T802", message, note=", ".join(names(unexpected))))
    misshapen: dict[tuple[Weight, tuple[int, ...]], list[str]] = {}
    mistyped: dict[tuple[Weight, str], list[str]] = {}
    for name, weight in known.items():
        entry = entries.get(name)
        if entry is None:
            continue
        if entry.shape != tuple(evaluate(dim, {}) for dim in weight.type.dims):
            misshapen.setdefault((weight, entry.shape), []).append(name)
        if entry.dtype not in _KINDS[weight.type.dtype]:
            mistyped.setdefault((weight, entry.dtype), []).append(name)
    for (weight, shape), paths in misshapen.items():
        message = f"{_quoted(paths)}: {list(shape)} in `{path}`, and {list(weight.type.dims)} in the model"
        faults.add(Diagnostic("T803", message, weight.span))
    for (weight, dtype), paths in mistyped.items():
        message = f"{_quoted(paths)}: element type {dtype} in `{path}`, and {weight.type.dtype} in the model"
        faults.add(
            Diagnostic("T804", message, weight.span, help=f"readable are {', '.join(_KINDS[weight.type.dtype])}")
        )


def _count(found: list[str]) -> str:
    return f"{len(found)} weights" if len(found) > 1 else "a weight"


def _quoted(paths: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names(paths))
