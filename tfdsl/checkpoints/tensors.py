"""The weights of a model from a checkpoint in another naming, each put together from its tensors when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tfdsl.checkpoints.computed import check_computed
from tfdsl.checkpoints.folder import Folder
from tfdsl.checkpoints.layout import Group, Layout, Piece, Shape, leaves, order_of, part_of, pieces
from tfdsl.checkpoints.weight_rules import Change, OurWeight, Tensor
from tfdsl.ir.paths import names
from tfdsl.language.diagnostics import Collector, Diagnostic, did_you_mean
from tfdsl.weights.files import is_readable
from tfdsl.weights.source import Array, Place, Source

_MOST = 12  # names in one message


class Checkpoint(Source):
    """The weights of a model by our paths, from a folder; floats come as float32, and `raw` as they are stored."""

    def __init__(self, folder: Folder, layout: Layout):
        self.folder, self.layout = folder, layout

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.shapes)

    def __len__(self) -> int:
        return len(self.layout.shapes)

    def dtype(self, path: str) -> str:
        return self.folder.entry(self.name_of(self.layout.sources[path][0])).dtype

    def raw(self, path: str) -> Array:
        """A weight as it is stored: a view of the file where it lies there in one piece."""
        found = self._pieces(path)
        shape = self.layout.shapes[path]
        if len(found) == 1:
            return found[0].array
        whole = np.empty(shape, found[0].array.dtype)
        for piece in found:
            whole[tuple(slice(*each) for each in piece.ranges)] = piece.array
        return whole

    def place(self, path: str) -> Place | None:
        found, groups = self._pieces(path), self.layout.sources[path]
        if len(found) > 1:
            return None
        return self.folder.files[self.name_of(groups[0])].place_of(found[0].array)

    def _pieces(self, path: str) -> list[Piece]:
        return [
            piece
            for group in self.layout.sources[path]
            for piece in pieces(group.tree, self.folder.raw(self.name_of(group)), self.layout.shapes)
            if piece.path == path
        ]

    def name_of(self, group: Group) -> str:
        """The name under which a tensor is in the folder."""
        return next(name for name in group.names if name in self.folder.files)


def compare(folder: Folder, layout: Layout, faults: Collector) -> None:
    """Note every difference between a folder and what a mapping says of it: names, shapes, element types, copies."""
    missing = [group.names[0] for group in layout.groups if not any(name in folder.files for name in group.names)]
    unknown = [name for name in folder if name not in layout.by_name and not layout.ignores(name)]
    if missing:
        message = f"{_tensors(missing, 'of the model')} not in `{folder.path}`"
        faults.add(Diagnostic("T801", message, note=_listed(missing), help=did_you_mean(missing[0], unknown)))
    if unknown:
        message = f"{_tensors(unknown, f'of `{folder.path}`')} not understood"
        faults.add(Diagnostic("T802", message, note=_listed(unknown), help="no rule of the mapping names them"))
    misshapen: dict[tuple[Shape, Shape], list[str]] = {}
    mistyped: dict[str, list[str]] = {}
    for group in layout.groups:
        kinds = {layout.weights[leaf.path].type.dtype for leaf in leaves(group.tree)}
        for name in group.names:
            if name not in folder.files:
                continue
            entry = folder.entry(name)
            if entry.shape != group.shape:
                misshapen.setdefault((entry.shape, group.shape), []).append(name)
            if not all(is_readable(entry.dtype, kind) for kind in kinds):
                mistyped.setdefault(entry.dtype, []).append(name)
    for (found, wanted), tensors in misshapen.items():
        message = f"{_listed(tensors)}: {list(found)} in `{folder.path}`, and {list(wanted)} in the model"
        faults.add(Diagnostic("T803", message))
    for dtype, tensors in mistyped.items():
        faults.add(Diagnostic("T804", f"{_listed(tensors)}: element type {dtype}, and the model has floats"))
    if not faults.found:
        _compare_copies(folder, layout, faults)
        check_computed(folder, layout.computed, faults)


def _compare_copies(folder: Folder, layout: Layout, faults: Collector) -> None:
    """Tensors under several names must be one; the parts of one weight must be of one element type."""
    for group in layout.groups:
        first, *others = [name for name in group.names if name in folder.files]
        for other in others:
            same = folder.entry(first).dtype == folder.entry(other).dtype
            if not same or not np.array_equal(folder.data(first), folder.data(other)):
                faults.add(Diagnostic("T814", f"`{first}` and `{other}` are one weight of the model, and differ"))
    for path, groups in layout.sources.items():
        dtypes = {folder.entry(next(n for n in group.names if n in folder.files)).dtype for group in groups}
        if len(dtypes) > 1:
            faults.add(Diagnostic("T804", f"`{path}` would be made of {' and '.join(sorted(dtypes))}"))


def assemble(tree: Tensor, get: Mapping[str, Array]) -> Array:
    """Their tensor from our weights: the inverse of `pieces`."""
    if isinstance(tree, OurWeight):
        return get[tree.path]
    parts = [assemble(part, get) for part in tree.parts]
    axis = tree.options.get("axis", 0)
    if tree.kind in ("transpose", "permute"):
        return parts[0].transpose(order_of(tree))
    if tree.kind == "split":
        return _cut(tree, parts[0])
    return (np.stack if tree.kind == "stack" else np.concatenate)(parts, axis=axis)


def _cut(tree: Change, whole: Array) -> Array:
    axis = tree.options.get("axis", 0)
    start, stop = part_of(tree, whole.shape[axis])
    return whole[(*[slice(None)] * axis, slice(start, stop))]


def _tensors(found: Sequence[str], whose: str) -> str:
    return f"{len(found)} tensors {whose} are" if len(found) > 1 else f"a tensor {whose} is"


def _listed(found: Sequence[str]) -> str:
    shown = names(found)
    more = f", and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
    return ", ".join(f"`{name}`" for name in shown[:_MOST]) + more
