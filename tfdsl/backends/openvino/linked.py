"""OpenVINO models whose `.bin` file is a checkpoint under another name, which has their weights and nothing else.

Numbers of the graph's own (axes, shapes, scales) have no place in such a file. They are written as a byte of it, whatever
that is, forced between a least and a largest number that are the one wanted; the runtime folds them when it loads a model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset16

from tfdsl.files import atomic_file
from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.linking import check_linked, hard_link, linkable
from tfdsl.weights.storing import Storing

Array = npt.NDArray[Any]

LARGEST = 4096  # numbers of one constant that can be written so
_EXACT = 1 << 53  # the bounds are written as float64


def link_to(contents: Mapping[str, Content], data: Path, storing: Storing) -> dict[str, int]:
    """Let `data` be another name of the file that has all weights; where in it each begins. Raises `SpecError`."""
    places = {name: linkable(content) for name, content in contents.items()}
    found = {name: place for name, place in places.items() if place is not None}
    storing.linked += check_linked(contents.values(), (contents[name] for name in found))
    other = next((contents[name].path for name in contents if name not in found), None)
    if other is not None:
        raise _refused(f"`{other}` does not lie in the checkpoint as the build needs it")
    files = sorted({place.file for place in found.values()})
    if len(files) > 1:
        raise _refused(f"the weights lie in {len(files)} files")
    if not hard_link(files[0], data):
        _refer(files[0], data)
    return {name: place.start for name, place in found.items()}


def _refused(why: str) -> Exception:
    return one(
        "T717",
        "OpenVINO reads all weights of a model from one file, and the checkpoint cannot be that file",
        note=why,
        help="build without --link",
    )


def _refer(file: Path, data: Path) -> None:
    """A symbolic link, relative so that the two can be moved together."""
    with atomic_file(data) as temporary:
        temporary.unlink()
        temporary.symlink_to(os.path.relpath(os.path.realpath(file), os.path.realpath(data.parent)))


def spell_out(model: openvino.Model) -> None:
    """Replace every constant of a model by operators that make its numbers out of any byte. Raises `SpecError`."""
    made: dict[Key, openvino.Node] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant":
            spelled = _spelled(node.data, made)
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(spelled.output(0))


Key = tuple[str, tuple[int, ...], bytes]  # the element type, the shape and the numbers of a constant


def _spelled(array: Array, made: dict[Key, openvino.Node]) -> openvino.Node:
    """The operators for a constant, which are made once: most are made of the same few numbers."""
    key = (array.dtype.str, array.shape, array.tobytes())
    if key not in made:
        exact = array.dtype.kind != "i" or np.max(np.abs(array), initial=0) <= _EXACT
        if not 0 < array.size <= LARGEST or not exact or not np.isfinite(array).all():
            raise _refused(f"the graph has a constant of {array.size} numbers of its own, which must stand in a file")
        if array.size == 1:
            made[key] = _number(array)
        else:
            axis = next(axis for axis, size in enumerate(array.shape) if size > 1)
            parts = np.split(array, array.shape[axis], axis)
            made[key] = opset16.concat([_spelled(part, made) for part in parts], axis)
    return made[key]


def _number(array: Array) -> openvino.Node:
    """A constant of one number, which the attributes of `Clamp` hold."""
    byte = openvino.op.Constant(np.zeros(array.shape, np.uint8))
    value = float(array.reshape(())[()])
    wide = opset16.convert(byte, "i64" if array.dtype.kind == "i" else "f32")
    made = opset16.clamp(wide, value, value)
    wanted = openvino.Type(array.dtype)
    return made if made.get_output_element_type(0) == wanted else opset16.convert(made, wanted.to_string())
