"""Writing an OpenVINO model and its weights, which go from where they are to the `.bin` file one after another.

The model is written by OpenVINO with inputs in the place of weights. In the text that comes of it they become constants,
which is what they would have been, with the places of their bytes in the `.bin` file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import openvino
from openvino.passes import Manager, Serialize

from tfdsl.backends.openvino.builder import CONVERTED, Stored
from tfdsl.backends.openvino.linked import link_to, spell_out
from tfdsl.files import atomic_file, open_empty
from tfdsl.language.diagnostics import one
from tfdsl.weights.content import Content
from tfdsl.weights.source import source_of
from tfdsl.weights.storing import Storing
from tfdsl.weights.writing import append, require_room

Array = npt.NDArray[Any]

ALIGNMENT = 64  # of each weight in the `.bin` file, in bytes

_INPUT = re.compile(
    r'<layer id="(\d+)" name="([^"]*)" type="Parameter" version="opset1">\s*'
    r'<data shape="([^"]*)" element_type="([^"]*)" />(\s*<output>\s*<port id="0" precision="[^"]*")(?: names="[^"]*")?'
)

_CONVERT = re.compile(
    r'<layer id="\d+" name="([^"]*)" type="Convert" version="opset1">\s*<data destination_type="f32" />'
)
_MARK = '\n\t\t\t<rt_info>\n\t\t\t\t<attribute name="decompression" version="0" />\n\t\t\t</rt_info>'


def write(
    model: openvino.Model,
    stored: Sequence[Stored],
    weights: Mapping[str, Array],
    path: Path,
    storing: Storing | None = None,
) -> None:
    """Write a finished model, in which the inputs that `stored` names stand for weights, and the weights.

    `path` is an `.xml` file, and the weights go to the `.bin` file beside it; `weights` has their values by path, and is
    read tensor by tensor. With links the `.bin` file is the checkpoint under another name. Raises `SpecError`.
    """
    storing = storing or Storing()
    source = source_of(weights)
    contents = {each.name: [Content(source, *part, each.dtype) for part in each.parts] for each in stored}
    data = path.with_suffix(".bin")
    if storing.link:
        spell_out(model)
        with atomic_file(path) as xml:
            places = link_to({name: only for name, (only,) in contents.items()}, data, storing)
            text, _ = _serialised(model)
            text = re.sub(r'(type="Const" .*?>\s*<data .*? offset=")\d+"', r'\g<1>0"', text)
            xml.write_text(_with_places(text, contents, places), encoding="utf-8")
        return
    text, small = _serialised(model)
    places = {}
    # The weights are in place before the file that reads them.
    with atomic_file(path) as xml, atomic_file(data) as binary:
        total = sum(_count(parts) for parts in contents.values())
        require_room(data.parent, total)
        advance = storing.meter(total)
        with open_empty(binary) as file:
            file.write(small)
            for name, parts in contents.items():
                places[name] = file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
                for content in parts:
                    append(file, content, advance)
        xml.write_text(_with_places(text, contents, places), encoding="utf-8")


def _serialised(model: openvino.Model) -> tuple[str, bytes]:
    """The text of a model, and the bytes of its constants."""
    with tempfile.TemporaryDirectory(prefix="tfdsl-") as temporary:
        xml, data = Path(temporary, "model.xml"), Path(temporary, "model.bin")
        serialise = Manager()
        serialise.register_pass(Serialize(str(xml), str(data)))
        try:
            serialise.run_passes(model)
        except RuntimeError as error:  # the model is in order: what fails is the stream
            reason = str(error).strip().splitlines()[-1]
            raise one("T701", f"cannot write the model into `{temporary}`: {reason}") from None
        return xml.read_text("utf-8"), data.read_bytes()


def _count(parts: Sequence[Content]) -> int:
    return sum(content.count for content in parts)


def _with_places(text: str, contents: Mapping[str, Sequence[Content]], places: Mapping[str, int]) -> str:
    """The text with constants in the place of the inputs that stand for weights."""

    def constant(found: re.Match[str]) -> str:
        number, name, shape, element, port = found.groups()
        if name not in contents:
            return found[0]
        shape = ", ".join(shape.split(","))
        return (
            f'<layer id="{number}" name="{name}" type="Const" version="opset1">\n'
            f'\t\t\t<data element_type="{element}" shape="{shape}" offset="{places[name]}" '
            f'size="{_count(contents[name])}" />{port}'
        )

    text = _INPUT.sub(constant, text)
    # A runtime keeps weights short in memory whose conversion is marked.
    converted = {f"{name}/{CONVERTED}" for name in contents}
    return _CONVERT.sub(lambda found: found[0] + _MARK if found[1] in converted else found[0], text)
