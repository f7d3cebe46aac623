"""Decoders as ONNX models: the graph of one call, whose states are inputs and outputs, in one of two profiles.

`portable` has standard operators only. `ort` has those of ONNX Runtime's own where they are faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from tfdsl.backends.onnx import genai, storage
from tfdsl.backends.onnx.artifact import assembled, check_ends, end, lower
from tfdsl.backends.onnx.decoder_attention import never_stays, stays
from tfdsl.backends.onnx.decoder_builder import DecoderBuilder, End, plain_end
from tfdsl.backends.onnx.decoder_lowerings import LOWERINGS
from tfdsl.backends.onnx.decoder_session import STATES, decoder_session
from tfdsl.backends.onnx.precision import WIDE
from tfdsl.backends.onnx.prepare import layouts
from tfdsl.backends.prepare import bits_by_path
from tfdsl.decoding.manifest import describe, tokens_of, write_manifest
from tfdsl.decoding.tokenizers import Tokenizer
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Value
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.passes.last_position import last_position
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
    names = lower(b, LOWERINGS, WIDE)
    if ort:
        why = genai.obstacle(manifest, list(b.ports.values()), encoder=False)
        manifest = replace(manifest, pipelines={genai.NAME: why})
    if ort and not why:
        cache = genai.cache(b)
        ends: Sequence[End] = cache.ends
        genai.write(folder, genai.configuration(manifest, cache, tokenizer))
    else:
        ends = [plain_end(port) for port in b.ports.values()]
    storage.write(_model(b, names, ends), list(b.stored.values()), stored, folder / FILE, storing=storing)
    write_manifest(folder, manifest)


def flat_decoder(graph: Graph, logits: str, ort: bool) -> Graph:
    """The graph of one call without loops, and with the masks that operators are told left as they are."""
    flat = unroll(incremental(graph, logits="all", windows="masked" if ort else "kept"))
    if logits == "last":  # the operator of `ort` for attention has a query for each new key
        flat = last_position(flat, attention=not ort)
    return clean(lower_linear_attention(lower_masks(flat, stays if ort else never_stays)))[0]


def _model(b: DecoderBuilder, names: Mapping[Value, str], ends: Sequence[End]) -> onnx.ModelProto:
    inputs = [end(b.graph.node(place).attributes["name"], b.graph.node(place).type) for place in b.graph.inputs]
    outputs = [(names[value], end(name, b.graph.type(value))) for name, value in b.graph.outputs]
    for each in ends:
        inputs.append(_value_info(each, each.past))
        outputs.append((each.value, _value_info(each, each.present)))
    b.drop_unread(result for result, _ in outputs)
    model = assembled(b, inputs, outputs)
    entry = model.metadata_props.add()
    entry.key, entry.value = STATES, json.dumps([_described(each) for each in ends])
    return model


def _value_info(each: End, name: str) -> onnx.ValueInfoProto:
    """The input or output of a state; its axis that grows is of any length, and bears no name of another size."""
    result = end(name, each.type)
    if each.axis is not None:
        result.type.tensor_type.shape.dim[each.axis].dim_param = f"{name}.length"
    return result


def _described(each: End) -> dict[str, Any]:
    """What a session must know of a state: its ends, its sizes before the first call, and whether it is a buffer."""
    dims = [str(dim) if isinstance(dim, Dim) else dim for dim in each.type.dims]
    if each.axis is not None:
        dims[each.axis] = 0
    return {"past": each.past, "present": each.present, "dims": dims, "axis": each.axis, "shared": each.shared}


__all__ = ["build_decoder", "decoder_session"]
