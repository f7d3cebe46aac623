"""Decoders as ONNX models: the graph of one call, whose states are inputs and outputs, in one of two profiles.

`portable` has standard operators only. `ort` has those of ONNX Runtime's own where they are faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx

from tfdsl.backends.onnx import genai, storage
from tfdsl.backends.onnx.artifact import assembled, check_ends, end, lower, model_of
from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.decoder_attention import never_stays, stays
from tfdsl.backends.onnx.decoder_builder import STATES, DecoderBuilder, End, plain_end
from tfdsl.backends.onnx.decoder_lowerings import LOWERINGS
from tfdsl.backends.onnx.precision import WIDE
from tfdsl.backends.onnx.prepare import layouts
from tfdsl.backends.onnx.skip_norms import fuse_skip_norms
from tfdsl.backends.prepare import bits_by_path
from tfdsl.decoding.manifest import describe, tokens_of, write_manifest
from tfdsl.decoding.tokenizers import Tokenizer
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Value
from tfdsl.language.diagnostics import one
from tfdsl.passes.binding_times import split
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.passes.last_position import last_position
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import materialise
from tfdsl.weights.storing import Storing

if TYPE_CHECKING:
    from tfdsl.backends.onnx.decoder_session import OnnxSession

Array = npt.NDArray[Any]

FILE, ENCODER = "model.onnx", "encoder.onnx"
PORTABLE, ORT = "portable", "ort"
GENAI = "genai"  # the pipeline


def decoder_session(folder: Path) -> OnnxSession:
    """A session of a decoder in a folder."""
    # A build does without the runtime.
    from tfdsl.backends.onnx.decoder_session import decoder_session as start

    return start(folder)


def build_decoder(
    graph: Graph,
    weights: Mapping[str, Array],
    folder: Path,
    *,
    profile: str = PORTABLE,
    logits: str = "last",
    pipeline: str | None = None,
    tokenizer: Tokenizer | None = None,
    storing: Storing | None = None,
) -> None:
    """Write the decoder of a model into a folder, and its encoder if it has one. Raises `SpecError`.

    `profile` is "portable" or "ort", `logits` "last" or "all". With the profile "ort", the folder is one that
    `onnxruntime-genai` opens, unless `decoder.json` says why not; `pipeline="genai"` insists on that. Weights may be stored
    in 16 bits; floats are computed, and states kept, in float32.
    """
    check_ends(graph)
    storing = storing or Storing()
    ort = profile == ORT
    encoder, flat = split(flat_decoder(graph, logits, ort))
    given = () if encoder is None else tuple(name for name, _ in encoder.outputs)
    manifest = describe(
        flat,
        target="onnx",
        file=FILE,
        tokens=tokens_of(flat),
        encoder=encoder,
        encoder_file=None if encoder is None else ENCODER,
        given=given,
        profile=profile,
        all_logits=logits == "all",
    )
    if encoder is not None:
        _write_encoder(encoder, weights, folder / ENCODER, storing)
    bits = bits_by_path(flat)
    flat, stored = materialise(flat, weights)
    b = DecoderBuilder(flat, layouts(flat), bits, storing.spelled, ort)
    names = lower(b, LOWERINGS, WIDE)
    why = "it needs the profile `ort`"
    if ort:
        why = genai.obstacle(manifest, list(b.ports.values()))
    if pipeline == GENAI and why:
        message = f"{genai.NAME} cannot run `{graph.name}`: {why}"
        raise one("T735", message, help="without this option the build says what can run it; `tfm run` may")
    ends: Sequence[End] = [plain_end(port) for port in b.ports.values()]
    if not why:
        cache = genai.cache(b)
        ends = cache.ends
        genai.write(folder, genai.configuration(manifest, cache, tokenizer))
    storage.write(_model(b, names, ends), list(b.stored.values()), stored, folder / FILE, storing=storing)
    write_manifest(folder, replace(manifest, pipelines={genai.NAME: why}))


def flat_decoder(graph: Graph, logits: str, ort: bool) -> Graph:
    """The graph of one call without loops, and with the masks that operators are told left as they are."""
    looped = incremental(graph, logits="all", windows="masked" if ort else "kept")
    looped = lower_linear_attention(lower_masks(looped, stays if ort else never_stays))
    flat = unroll(clean(looped)[0])  # cleaned once for each body, and not for each turn; equal operators are made once
    # The operator for attention of `ort` has a query for each new key.
    return flat if logits == "all" else last_position(flat, attention=not ort)


def _write_encoder(encoder: Graph, weights: Mapping[str, Array], path: Path, storing: Storing) -> None:
    """Write what is computed once, before the first call."""
    bits = bits_by_path(encoder)
    encoder, stored = materialise(encoder, weights)
    b = Builder(encoder, layouts(encoder), bits, storing.spelled)
    names = lower(b, computed=WIDE)
    storage.write(model_of(b, names), list(b.stored.values()), stored, path, storing=storing)


def _model(b: DecoderBuilder, names: Mapping[Value, str], ends: Sequence[End]) -> onnx.ModelProto:
    inputs = [end(b.graph.node(place).attributes["name"], b.graph.node(place).type) for place in b.graph.inputs]
    outputs = [(names[value], end(name, b.graph.type(value))) for name, value in b.graph.outputs]
    for each in ends:
        inputs.append(_value_info(each, each.past))
        outputs.append((each.value, _value_info(each, each.present)))
    b.drop_unread(result for result, _ in outputs)
    if b.ort:
        fuse_skip_norms(b)
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
