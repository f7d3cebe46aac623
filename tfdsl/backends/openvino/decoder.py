"""Decoders: stateful models that the CPU plugin runs call by call, and that openvino-genai opens where it can."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt
import openvino

from tfdsl.backends.openvino import decoder_attention, pipelines, stateful, storage
from tfdsl.backends.openvino.artifact import build, lower, model_of
from tfdsl.backends.openvino.builder import Builder
from tfdsl.backends.openvino.decoder_inputs import inputs_of
from tfdsl.backends.openvino.decoder_session import decoder_session
from tfdsl.backends.openvino.joined import join_stored
from tfdsl.backends.openvino.lowerings import LOWERINGS
from tfdsl.backends.openvino.parameters import add_parameters
from tfdsl.backends.openvino.pipelines import Hindrance, Ways
from tfdsl.backends.openvino.tokenizers import convert_tokenizer, hindrance
from tfdsl.backends.prepare import bits_by_path
from tfdsl.decoding.manifest import describe, tokens_of, write_manifest
from tfdsl.decoding.tokenizers import Tokenizer
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import one
from tfdsl.passes.binding_times import split
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.passes.join_linears import join_linears
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import materialise
from tfdsl.weights.storing import Storing

Array = npt.NDArray[Any]

# As openvino-genai looks for them.
FILE, ENCODER_FILE, GENERATION_FILE = "openvino_model.xml", "openvino_encoder_model.xml", "generation_config.json"
TOKENS, LOGITS = "input_ids", "logits"
TEXT = "text"  # said of pipelines besides: whether they take text, and not only tokens


def build_decoder(
    graph: Graph,
    weights: Mapping[str, Array],
    folder: Path,
    *,
    logits: str = "last",
    pipeline: str | None = None,
    tokenizer: Tokenizer | None = None,
    storing: Storing | None = None,
) -> None:
    """Write a decoder of a full-sequence graph into a folder that is there, with `decoder.json` beside it.

    `pipeline` ("stateful" or "paged") asks for what openvino-genai can run in that way; without it the build tells in
    `decoder.json` what can. Raises `SpecError`.
    """
    storing = storing or Storing()
    encoder, flat = _apart(incremental(graph, logits="all"))
    tokens = tokens_of(flat)
    found = pipelines.ways(flat, tokens, encoder)
    if found[pipelines.STATEFUL_WAY] is not None and logits == "last":
        # Generators cut logits themselves, and so does our session then; nobody else would.
        encoder, flat = _apart(incremental(graph, logits="last"))
    if pipeline is not None:
        pipelines.require(found, pipeline, graph.name)
    if not storing.link:  # what is referred to lies apart
        flat = join_linears(flat)
    made = make_decoder(flat, weights, _form(found, tokens), storing.spelled, outside=True)
    join_stored(made.model, made.builder)
    found = _as_linked(found) if storing.link else _as_seen(made.model, found)
    if pipeline is not None:
        pipelines.require(found, pipeline, graph.name)
    storage.write(made.model, list(made.builder.stored.values()), made.weights, folder / FILE, storing)
    if encoder is not None:
        build(encoder, weights, folder / ENCODER_FILE, storing=storing)
    reasons = {way: "" if each is None else str(each) for way, each in found.items()}
    if tokenizer is not None:
        reasons[TEXT] = _give_text(folder, tokenizer, insist=pipeline is not None)
    manifest = describe(
        flat,
        target="openvino",
        file=FILE,
        tokens=tokens,
        encoder=encoder,
        encoder_file=None if encoder is None else ENCODER_FILE,
        given=() if encoder is None else tuple(name for name, _ in encoder.outputs),
        all_logits=logits == "all",
        pipelines=reasons,
    )
    write_manifest(folder, manifest)


class Form(NamedTuple):
    """What pipelines want of a model: inputs called otherwise than in the graph, and its only output.

    With `guarded`, attention cannot be replaced by the paged one, which would drop what it says.
    """

    names: Mapping[str, str]
    output: str | None
    guarded: bool


class Made(NamedTuple):
    """A model, and what is needed to write its weights."""

    model: openvino.Model
    builder: Builder
    weights: Mapping[str, Array]


PLAIN = Form({}, None, False)


def make_decoder(
    flat: Graph, weights: Mapping[str, Array], form: Form = PLAIN, dtype: str = "F32", *, outside: bool = False
) -> Made:
    """The stateful model of an incremental graph without loops. Raises `SpecError`.

    Its constants lie in the memory of `weights` where they can; with `outside`, inputs stand for them.
    """
    flat = lower_linear_attention(lower_masks(flat, decoder_attention.stays))
    bits = bits_by_path(flat)
    flat, stored = materialise(flat, weights)
    if form.output is not None:
        flat.outputs = [(form.output, value) for _, value in flat.outputs]
    builder = Builder(flat, stored, bits, dtype, outside)
    add_parameters(builder, {}, form.names)
    stateful.begin(builder)
    unpadded = next((name for name, new in form.names.items() if new == TOKENS), None) if form.guarded else None
    lowerings = {**LOWERINGS, "attend": decoder_attention.attend, "input": inputs_of(flat, unpadded)}
    return Made(model_of(builder, lower(builder, lowerings)), builder, stored)


def _form(found: Ways, tokens: str) -> Form:
    if found[pipelines.STATEFUL_WAY] is not None:
        return PLAIN
    return Form({tokens: TOKENS}, LOGITS, found[pipelines.PAGED_WAY] is not None)


def _apart(graph: Graph) -> tuple[Graph | None, Graph]:
    """What is computed once and what each step computes, of an incremental graph, without loops."""
    looped, _ = clean(graph)  # once for each body, and not for each turn; equal operators are made once anyway
    return split(unroll(looped))


def _as_seen(model: openvino.Model, found: Ways) -> Ways:
    """What hinders each way, after the runtime's own transformation was tried on the model."""
    paged = pipelines.is_paged(model)
    if found[pipelines.PAGED_WAY] is None and not paged:
        return {**found, pipelines.PAGED_WAY: Hindrance("the installed OpenVINO does not know its attention")}
    assert not paged or found[pipelines.PAGED_WAY] is None, "paged attention would drop what this model says"
    return found


def _as_linked(found: Ways) -> Ways:
    """What hinders each way where the `.bin` file is a checkpoint, and operators make the numbers that are not in it."""
    why = "a build with --link has operators for its shapes, and paged attention wants to read them"
    return {**found, pipelines.PAGED_WAY: found[pipelines.PAGED_WAY] or Hindrance(why)}


def _give_text(folder: Path, tokenizer: Tokenizer, insist: bool) -> str:
    """Let pipelines take and give text, or say why they cannot."""
    _write_generation(folder, tokenizer)
    why = hindrance(tokenizer)
    if not why:
        convert_tokenizer(folder)
    elif insist:
        raise one("T736", why, help="pip install openvino-tokenizers transformers, or leave --tokenizer out")
    return why


def _write_generation(folder: Path, tokenizer: Tokenizer) -> None:
    """Say where a text ends, in the words of openvino-genai, if nothing that was copied does."""
    path = folder / GENERATION_FILE
    if not path.is_file() and tokenizer.eos:
        document = {"eos_token_id": list(tokenizer.eos), "bos_token_id": tokenizer.bos, "pad_token_id": tokenizer.pad}
        text = json.dumps({name: value for name, value in document.items() if value is not None}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")


__all__ = ["build_decoder", "decoder_session", "make_decoder"]
