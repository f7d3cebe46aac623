"""A checkpoint on the disk: `config.json` and safetensors, in one file or in shards with an index.

Everything in it may come from a stranger: no name in it leads out of the folder, and no pickle is ever opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfdsl.ir.paths import names
from tfdsl.language.diagnostics import SpecError, one
from tfdsl.weights.files import PICKLES, Array, Entry, WeightFile, contents

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST_JSON = 64_000_000  # bytes; the index of the largest published models has a few


@dataclass(frozen=True)
class Folder:
    """The configuration of a checkpoint, and the file that each of its tensors is in. No tensor has been read."""

    path: Path
    config: dict[str, Any]
    files: dict[str, WeightFile]  # by the name of a tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def entry(self, name: str) -> Entry:
        """Element type and shape of a tensor."""
        return self.files[name].entries[name]

    def raw(self, name: str) -> Array:
        """A tensor as it is stored, mapped into memory."""
        return self.files[name].raw(name)

    def differ(self, one: str, other: str) -> bool:
        """Whether two tensors are both there, and not the same."""
        if one not in self.files or other not in self.files:
            return False
        a, b = self.entry(one), self.entry(other)
        alike = (a.dtype, a.shape) == (b.dtype, b.shape)
        return not alike or not np.array_equal(self.data(one), self.data(other))

    def data(self, name: str) -> Array:
        """The bytes of a tensor of any element type."""
        return self.files[name].data(name)


def open_folder(path: str | os.PathLike[str], *, weights: bool = True) -> Folder:
    """A checkpoint, of which the table of contents has been read. Raises `SpecError`.

    Without `weights`, a folder that has none but a configuration is taken as well.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise one("T810", f"`{folder}` is not a folder", help=f"a checkpoint is a folder with `{CONFIG}` and weights")
    config = _read_json(folder / CONFIG)
    if (folder / WHOLE).exists():
        return Folder(folder, config, _open(folder / WHOLE))
    if (folder / INDEX).exists():
        return Folder(folder, config, _shards(folder))
    pickles = sorted(each.name for each in folder.iterdir() if each.suffix.lower() in PICKLES)
    if pickles:
        raise one(
            "T806",
            f"`{folder}` has its weights as pickles only, and they are not opened: {', '.join(pickles[:4])}",
            help="a pickle is a program; save the model with safe_serialization=True",
        )
    if weights:
        raise one("T810", f"`{folder}` has no `{WHOLE}`, nor `{INDEX}`")
    return Folder(folder, config, {})


def _open(path: Path) -> dict[str, WeightFile]:
    file = WeightFile(path, contents(path))
    return dict.fromkeys(file, file)


def _shards(folder: Path) -> dict[str, WeightFile]:
    """The file of each tensor by the index, which must say what is in the shards, no more and no less."""
    index = _read_json(folder / INDEX)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(each, str) for each in places.values()):
        raise one("T810", f"`{folder / INDEX}` has no `weight_map` of names to files")
    opened: dict[str, WeightFile] = {}
    for name in sorted(set(places.values())):
        if not _is_plain(name):
            raise one(
                "T811",
                f"`{folder / INDEX}` names the file `{name}`, which is not one of the folder",
                help="shards lie beside their index; nothing outside the folder is opened",
            )
        opened[name] = WeightFile(folder / name, contents(folder / name))
    within = {tensor: name for name, file in opened.items() for tensor in file}
    wrong = sorted(tensor for tensor in {*places, *within} if places.get(tensor) != within.get(tensor))
    if wrong:
        raise one("T810", f"`{folder / INDEX}` and the shards disagree about {', '.join(names(wrong)[:8])}")
    if sum(map(len, opened.values())) != len(within):
        raise one("T810", f"a tensor is in two shards of `{folder}`")
    return {tensor: opened[name] for tensor, name in within.items()}


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the same folder."""
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0:") and name.endswith(".safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `SpecError` for what is none, has a name twice, or numbers that are none."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
        if len(data) > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON:,} bytes")
        found = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise _unreadable(path, "it is nested too deeply") from None
    except OSError as error:
        raise _unreadable(path, (error.strerror or str(error)).lower()) from None
    except ValueError as error:
        raise _unreadable(path, str(error)) from None
    if not isinstance(found, dict):
        raise _unreadable(path, "it is not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if [each for each, _ in pairs].count(name) > 1)
        raise ValueError(f"`{twice}` stands twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"`{text}` is no number of JSON")


def _unreadable(path: Path, reason: str) -> SpecError:
    return one("T810", f"cannot read `{path}`: {reason[:1].lower()}{reason[1:]}")
