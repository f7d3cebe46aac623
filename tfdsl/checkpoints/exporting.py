"""From a model to a checkpoint in the naming of its family: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.checkpoints.describing import write_configuration
from tfdsl.checkpoints.family import family_of
from tfdsl.checkpoints.folder import CONFIG, WHOLE, Folder, open_folder
from tfdsl.checkpoints.layout import Group, Layout, leaves
from tfdsl.checkpoints.reading import read_folder
from tfdsl.checkpoints.tensors import Checkpoint, assemble
from tfdsl.files import atomic_directory
from tfdsl.language.diagnostics import Diagnostic, SpecError
from tfdsl.weights import WeightFile, read
from tfdsl.weights.arrays import from_arrays
from tfdsl.weights.files import Array
from tfdsl.weights.writing import write_stored

if TYPE_CHECKING:
    from tfdsl.model import Model


def export(
    model: Model, weights: Any, directory: str | os.PathLike[str], mapping: str | None = None
) -> tuple[Path, ...]:
    """Write a model with its weights as a checkpoint of its family; the files that were written. Raises `SpecError`.

    `weights` is a safetensors file, arrays by path, a module, or the folder of a checkpoint of the same family. Element
    types stay; from a folder, names and fields without influence stay as they are there, too.
    """
    source: _Source
    if isinstance(weights, (str, os.PathLike)) and Path(weights).is_dir():
        opened = open_folder(weights)
        family = family_of(model.declared, mapping, opened.config)
        source = _FromFolder(read_folder(opened, model, family))
    else:
        family = family_of(model.declared, mapping)
        layout = family.layout(model.graph, model.parameters)
        if isinstance(weights, (str, os.PathLike)):
            source = _FromFile(read(weights, model.graph), layout)
        else:
            source = _FromArrays(from_arrays(weights, model.graph), layout)
    config = write_configuration(family, model.parameters, source.config, source.dtypes(), source.folder)
    folder = Path(directory)
    with atomic_directory(folder) as temporary:
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8", newline="\n")
        write_stored(temporary / WHOLE, source.table(), source.data)
    return folder / CONFIG, folder / WHOLE


# --- tensors ---------------------------------------------------------------------------------------------------------


class _Source:
    """Weights to be written: their configuration, if they came with one, and each of their tensors as it is stored."""

    config: Mapping[str, Any] | None = None
    folder: Folder | None = None

    def __init__(self, layout: Layout):
        self.layout = layout

    def raw(self, path: str) -> Array:
        """One of our weights as it is stored."""
        raise NotImplementedError

    def dtype(self, path: str) -> str:
        """The element type of one of our weights, as safetensors spells it."""
        raise NotImplementedError

    def names(self, group: Group) -> list[str]:
        """The names that a tensor is written under."""
        return group.names[:1]

    def dtypes(self) -> set[str]:
        return {self.dtype(path) for path in self.layout.shapes}

    def table(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Name, element type and shape of each tensor of the file."""
        for group in self.layout.groups:
            dtypes = {self.dtype(leaf.path) for leaf in leaves(group.tree)}
            if len(dtypes) > 1:
                message = f"`{group.names[0]}` would be made of {' and '.join(sorted(dtypes))}"
                raise SpecError([Diagnostic("T804", message, group.span)])
            for name in self.names(group):
                yield name, next(iter(dtypes)), group.shape

    def data(self, name: str) -> Array:
        """A tensor of the file, as it is stored."""
        return assemble(self.layout.by_name[name].tree, _Raw(self))


class _Raw(Mapping[str, Array]):
    """The weights of a source as they are stored."""

    def __init__(self, source: _Source):
        self.source = source

    def __getitem__(self, path: str) -> Array:
        return self.source.raw(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.layout.shapes)

    def __len__(self) -> int:
        return len(self.source.layout.shapes)


class _FromArrays(_Source):
    def __init__(self, arrays: Mapping[str, Array], layout: Layout):
        super().__init__(layout)
        self.arrays = arrays

    def raw(self, path: str) -> Array:
        return self.arrays[path]

    def dtype(self, path: str) -> str:
        return "F32"


class _FromFile(_Source):
    def __init__(self, file: WeightFile, layout: Layout):
        super().__init__(layout)
        self.file = file

    def raw(self, path: str) -> Array:
        return self.file.raw(path)

    def dtype(self, path: str) -> str:
        return self.file.entries[path].dtype


class _FromFolder(_Source):
    """A checkpoint of the same family: what has no influence is copied as it is."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__(checkpoint.layout)
        self.checkpoint = checkpoint
        self.folder, self.config = checkpoint.folder, checkpoint.folder.config

    def raw(self, path: str) -> Array:
        return self.checkpoint.raw(path)

    def dtype(self, path: str) -> str:
        return self.checkpoint.dtype(path)

    def names(self, group: Group) -> list[str]:
        return [name for name in group.names if name in self.checkpoint.folder.files]

    def table(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        yield from super().table()
        for name in self.checkpoint.folder:
            if name not in self.layout.by_name:
                entry = self.checkpoint.folder.entry(name)
                yield name, entry.dtype, entry.shape

    def data(self, name: str) -> Array:
        return super().data(name) if name in self.layout.by_name else self.checkpoint.folder.data(name)
