"""Decoders as ONNX models: the graph of one call, whose states are inputs and outputs, in one of two profiles.

`portable` has standard operators only. `ort` has those of ONNX Runtime's own where they are faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from tfdsl.backends.onnx import storage
from tfdsl.backends.onnx.artifact import assembled, check_ends, end, lower
from tfdsl.backends.onnx.decoder_attention import never_stays, stays
from tfdsl.backends.onnx.decoder_builder import DecoderBuilder, Port, present_name
from tfdsl.backends.onnx.decoder_lowerings import LOWERINGS
from tfdsl.backends.onnx.decoder_session import STATES, decoder_session
from tfdsl.backends.onnx.precision import WIDE
from tfdsl.backends.onnx.prepare import layouts
from tfdsl.backends.prepare import bits_by_path
from tfdsl.decoding.manifest import describe, tokens_of, write_manifest
from tfdsl.decoding.tokenizers import Tokenizer
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph
from tfdsl.ir.states import State
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import materialise
from tfdsl.weights.storing import Storing

Array = npt.NDArray[Any]

FILE = "model.onnx"
PORTABLE, ORT = "portable", "ort"


def build_decoder(
    graph: Graph,
    weights: Mapping[str, Array],
    folder: Path,
    *,
    profile: str = PORTABLE,
    logits: str = "last",
    tokenizer: Tokenizer | None = None,
    storing: Storing | None = None,
) -> None:
    """Write the decoder of a model into a folder. Raises `SpecError`."""
    ort = profile == ORT
    check_ends(graph)
    flat = flat_decoder(graph, logits, ort)
    bits = bits_by_path(flat)
    tokens = tokens_of(flat)
    manifest = describe(flat, target="onnx", file=FILE, tokens=tokens, profile=profile, all_logits=logits == "all")
    storing = storing or Storing()
    flat, stored = materialise(flat, weights)
    b = DecoderBuilder(flat, layouts(flat), bits, storing.spelled, ort)
    model = _model(b)
    storage.write(model, list(b.stored.values()), stored, folder / FILE, storing=storing)
    write_manifest(folder, manifest)


def flat_decoder(graph: Graph, logits: str, ort: bool) -> Graph:
    """The graph of one call without loops, and with the masks that operators are told left as they are."""
    flat = unroll(incremental(graph, logits=logits, windows="masked" if ort else "kept"))
    flat = lower_masks(flat, stays if ort else never_stays)
    return clean(lower_linear_attention(flat))[0]


def _model(b: DecoderBuilder) -> onnx.ModelProto:
    names = lower(b, LOWERINGS, WIDE)
    inputs = [end(b.graph.node(place).attributes["name"], b.graph.node(place).type) for place in b.graph.inputs]
    outputs = [(names[value], end(name, b.graph.type(value))) for name, value in b.graph.outputs]
    for port in b.ports.values():
        inputs.append(_end_of(port, port.past))
        outputs.append((port.present, _end_of(port, present_name(port.state.path))))
    b.drop_unread(result for result, _ in outputs)
    model = assembled(b, inputs, outputs)
    entry = model.metadata_props.add()
    entry.key, entry.value = STATES, json.dumps([_described(port) for port in b.ports.values()])
    return model


def _end_of(port: Port, name: str) -> onnx.ValueInfoProto:
    """The input or output of a state; its axis that grows is of any length, and bears no name of another size."""
    type_ = port.state.type
    result = end(name, type_)
    if port.state.axis is not None and port.state.last != port.state.fill:
        result.type.tensor_type.shape.dim[port.state.axis].dim_param = f"{name}.length"
    return result


def _described(port: Port) -> dict[str, Any]:
    """What a session must know of a state: its ends, its dims before the first call, and whether it is a buffer."""
    dims = [str(dim) if isinstance(dim, Dim) else dim for dim in port.state.type.dims]
    if port.state.axis is not None:
        dims[port.state.axis] = port.state.fill
    return {
        "past": port.past,
        "present": present_name(port.state.path),
        "dims": dims,
        "axis": port.state.axis,
        "shared": port.shared,
    }


__all__ = ["State", "build_decoder", "decoder_session", "replace"]
