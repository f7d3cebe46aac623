"""Decoders as PyTorch modules: piece by piece with padding on the left, they equal each row by itself in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_incremental import LENGTH, MODELS, PADS, PIECES, SNIPPETS, SPECS, expected, inputs_of, snippet, streams

import tfdsl
from tfdsl.backends.torch import emit, make
from tfdsl.backends.torch.decoder import TorchSession, build_decoder, decoder_graph, decoder_session
from tfdsl.ir.graph import Graph
from tfdsl.ir.graph import weights as weights_of
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.weights import trial

torch.set_num_threads(1)

ALBERT = """
block Layer(x: [batch, seq, width]) -> [batch, seq, width] {
  q, k, v = linear(x, out=3 * width) as qkv |> split(parts=3)
  q = rearrange(q, "b s (h d) -> b h s d", h=4)
  k = rearrange(k, "b s (h d) -> b h s d", h=4)
  v = rearrange(v, "b s (h d) -> b h s d", h=4)
  y = rearrange(attend(rope(q), rope(k), v, mask=causal), "b h s d -> b s (h d)") |> linear(out=width) as o
  return layer_norm(x + y) as norm
}
model Shared(tokens: int[batch, seq]) -> logits: [batch, seq, 20] {
  x = embedding(tokens, size=20, dim=16) as table
  layer = Layer()
  repeat turn[3] { x = layer(x) }
  x = layer(layer(x))
  return linear(x, out=20) as head
}
"""


class Emitted:
    """A decoder made in memory, for models that decode something else than tokens and are no artifacts of their own."""

    def __init__(self, graph: Graph, weights: dict[str, Any], logits: str):
        self.graph = decoder_graph(graph, logits)
        names = [path for weight in weights_of(self.graph) for path in weight.paths()]
        self.model = make(self.graph, {name: np.asarray(weights[name], np.float32) for name in names}).eval()

    def reset(self) -> None:
        self.model.reset()

    def step(self, inputs: dict[str, Any]) -> dict[str, Any]:
        names = [self.graph.node(place).attributes["name"] for place in self.graph.inputs]
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in names]
        given = [each.float() if each.is_floating_point() else each for each in tensors]
        return {self.graph.outputs[0][0]: self.model(*given).numpy()}


def opened(graph: Graph, folder: Path, logits: str) -> tuple[Any, Any]:
    """A decoder that was written to a folder and opened again, and the weights that it has."""
    weights = trial(graph, 0)
    if not any(graph.node(place).type.dtype == "int" for place in graph.inputs):
        return Emitted(graph, weights, logits), weights
    folder.mkdir()
    build_decoder(graph, {path: np.asarray(each, np.float32) for path, each in weights.items()}, folder, logits=logits)
    return decoder_session(folder), weights


def padded(pads: Sequence[int]) -> tuple[Any, Any]:
    """Mask and positions of rows with so much padding on the left."""
    mask = np.array([[0] * pad + [1] * (LENGTH - pad) for pad in pads])
    return mask, np.maximum(np.cumsum(mask, axis=1) - 1, 0)


def decoded(session: Any, graph: Graph, inputs: dict[str, Any], pieces: Sequence[int] = PIECES) -> list[Any]:
    """The outputs of calls with a few positions each."""
    stream, done, found = streams(graph), 0, []
    mask, ids = padded(PADS)
    if isinstance(session, TorchSession):
        session.encode({name: inputs[name] for name in session.manifest.encoder_inputs})
    for count in pieces:
        given = {name: inputs[name][:, done : done + count] for name in stream}
        given |= {"attention_mask": mask[:, : done + count], "position_ids": ids[:, done : done + count]}
        found.append(session.step(given)[graph.outputs[0][0]])
        done += count
    return found


def check(graph: Graph, folder: Path, logits: str) -> None:
    session, weights = opened(graph, folder, logits)
    inputs = inputs_of(graph)
    rows = expected(graph, weights, inputs)
    for _ in range(2):  # what is left of the first batch is nothing
        found = decoded(session, graph, inputs)
        for row, (pad, wanted) in enumerate(zip(PADS, rows, strict=True)):
            for end, count, piece in zip(np.cumsum(PIECES), PIECES, found, strict=True):
                start = end - 1 if logits == "last" else max(end - count, pad)
                got = piece[row] if logits == "last" else piece[row, start - (end - count) :]
                scale = float(np.abs(wanted).max())
                np.testing.assert_allclose(got, wanted[start - pad : end - pad], rtol=0, atol=2e-5 * scale)
        session.reset()


@pytest.mark.parametrize("logits", ["last", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_decoding_equals_one_pass(name: str, logits: str, tmp_path: Path) -> None:
    path, model, settings = MODELS[name]
    check(tfdsl.load(path, model, **settings).graph, tmp_path / "built", logits)


@pytest.mark.parametrize("name", SNIPPETS)
def test_mechanisms(name: str, tmp_path: Path) -> None:
    check(snippet(tmp_path, SNIPPETS[name]), tmp_path / "built", "all")


def test_a_shared_layer_has_a_state_for_each_application(tmp_path: Path) -> None:
    path = tmp_path / "shared.tfm"
    path.write_text(ALBERT)
    check(tfdsl.load(path).graph, tmp_path / "built", "last")
