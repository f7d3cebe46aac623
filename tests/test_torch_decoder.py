"""Decoders as PyTorch modules: piece by piece with padding on the left, they equal each row by itself in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_incremental import LENGTH, MODELS, PADS, PIECES, SNIPPETS, SPECS, expected, inputs_of, snippet, streams
from test_incremental_properties import graphs

import tfdsl
from tfdsl.backends.torch import emit, import_source, make
from tfdsl.backends.torch.decoder import TorchSession, build_decoder, decoder_graph, decoder_session
from tfdsl.backends.torch.emit import emit_named
from tfdsl.backends.torch.helpers import HELPERS
from tfdsl.ir.graph import Graph
from tfdsl.ir.graph import weights as weights_of
from tfdsl.language.diagnostics import SpecError
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
    path, model, sizes = MODELS[name]
    check(tfdsl.load(path, model, **sizes).graph, tmp_path / "built", logits)


@pytest.mark.parametrize("name", SNIPPETS)
def test_mechanisms(name: str, tmp_path: Path) -> None:
    check(snippet(tmp_path, SNIPPETS[name]), tmp_path / "built", "all")


def test_a_shared_layer_has_a_state_for_each_application(tmp_path: Path) -> None:
    path = tmp_path / "shared.tfm"
    path.write_text(ALBERT)
    check(tfdsl.load(path).graph, tmp_path / "built", "last")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.booleans())
def test_random_graphs(graph: Graph, last: bool) -> None:
    weights = trial(graph, 0)
    try:
        session = Emitted(graph, weights, "last" if last else "all")
        rows = expected(graph, weights, inputs_of(graph))
    except SpecError:
        return  # not causal, or a row is too short for what is cut off of it
    scale = max(float(np.abs(row).max()) for row in rows)
    assume(np.isfinite(scale) and scale < 1e4)
    found = decoded(session, graph, inputs_of(graph))
    for row, (pad, wanted) in enumerate(zip(PADS, rows, strict=True)):
        for end, count, piece in zip(np.cumsum(PIECES), PIECES, found, strict=True):
            start = end - 1 if last else max(end - count, pad)
            got = piece[row] if last else piece[row, start - (end - count) :]
            np.testing.assert_allclose(got, wanted[start - pad : end - pad], rtol=0, atol=1e-3 * max(scale, 1e-6))


# --- the source --------------------------------------------------------------------------------------------------------

GOLDEN = {"GPT2": ("gpt2", None), "Llama3_8B": ("llama", "Llama3_8B"), "T5": ("t5", "T5")}


@pytest.mark.parametrize("name", GOLDEN)
def test_emitted_source_of_decoders(name: str, golden: Any) -> None:
    file, model = GOLDEN[name]
    source = emit(decoder_graph(tfdsl.load(SPECS / f"{file}.tfm", model).graph))
    assert "tfdsl" not in source
    golden(f"torch/decoders/{name}.py", source)


def small(name: str = "llama") -> tuple[Graph, Any, torch.nn.Module]:
    """A graph with weights for it, and its decoder in memory."""
    path, model, sizes = MODELS[name]
    graph = tfdsl.load(path, model, **sizes).graph
    weights = {path: np.asarray(each, np.float32) for path, each in trial(graph, 0).items()}
    return graph, weights, make(decoder_graph(graph), weights).eval()


def test_a_decoder_has_the_parameters_of_the_module_that_is_trained() -> None:
    graph, weights, decoder = small()
    trained = make(graph, weights)
    state = decoder.state_dict()
    assert {name: each.shape for name, each in trained.state_dict().items()} == {n: e.shape for n, e in state.items()}
    tokens = torch.randint(0, 20, (2, 7))
    decoder.load_state_dict(trained.state_dict())
    torch.testing.assert_close(decoder(tokens), trained(tokens)[:, -1:].detach(), rtol=1e-5, atol=1e-5)


def test_without_mask_and_positions_nothing_is_padding() -> None:
    _, _, decoder = small("mistral")
    tokens = torch.randint(0, 20, (2, 9))
    whole = [decoder(part) for part in tokens.split((5, 1, 1, 2), dim=1)]
    decoder.reset()
    for start, stop, found in zip((0, 5, 6, 7), (5, 6, 7, 9), whole, strict=True):
        positions = torch.arange(start, stop).expand(2, -1)
        torch.testing.assert_close(decoder(tokens[:, start:stop], torch.ones(2, stop).long(), positions), found)


def test_without_padding_a_token_needs_no_mask() -> None:
    _, _, decoder = small()
    made: list[Any] = []
    source = names_of(decoder)
    plain = source["cached_mask"]
    source["cached_mask"] = lambda *inputs, **rest: made.append(plain(*inputs, **rest)) or made[-1]
    tokens = torch.randint(0, 20, (1, 6))
    decoder(tokens)
    decoder(tokens[:, :1])
    decoder(tokens[:, :2])
    decoder(tokens[:, :1], torch.tensor([[0] + [1] * 9]))
    assert [each is None for each in made] == [True, True, False, False]


def names_of(module: torch.nn.Module) -> dict[str, Any]:
    """The names at the top of the source that a module was made from."""
    return type(module).reset.__globals__  # type: ignore[no-any-return, attr-defined]


def caches(decoder: torch.nn.Module) -> list[Any]:
    return [each for each in decoder.modules() if type(each).__name__ == "Cache"]


def test_buffers_grow_by_doubling_and_are_written_in_place() -> None:
    _, _, decoder = small()
    tokens = torch.randint(0, 20, (1, 64))
    places = set()
    for position in range(64):
        decoder(tokens[:, position : position + 1])
        places.add(caches(decoder)[0].buffer.data_ptr())
    assert len(places) <= 8
    assert caches(decoder)[0].buffer.shape[2] <= 128
    decoder.reset()
    assert all(each.buffer is None for each in caches(decoder)) and decoder.past == 0


def test_a_window_keeps_no_more_than_it_needs() -> None:
    _, _, decoder = small("mistral")  # a window of 3
    for token in torch.randint(0, 20, (40,)):
        decoder(token.reshape(1, 1))
    assert max(each.buffer.shape[2] for each in caches(decoder)) <= 8


def test_an_encoder_runs_once() -> None:
    _, _, decoder = small("t5")
    runs: list[int] = []
    for name, module in decoder.named_modules():
        if name in ("encoder.0.ffn", "decoder.0.cross.k"):
            module.register_forward_hook(lambda *_: runs.append(1))
    source, tokens = torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (2, 3))
    first = [decoder(source, part) for part in tokens.split(1, dim=1)]
    assert len(runs) == 2
    decoder.reset()
    again = [decoder(source, part) for part in tokens.split(1, dim=1)]
    assert len(runs) == 4
    torch.testing.assert_close(first, again)


def test_weights_by_columns_are_the_same_weights(tmp_path: Path) -> None:
    _, weights, decoder = small()
    tokens = torch.randint(0, 20, (2, 7))
    before = decoder(tokens)
    decoder.reset()
    decoder.arrange()
    torch.testing.assert_close(decoder(tokens), before)
    torch.set_num_threads(2)
    try:
        decoder.reset()
        each = [decoder(token) for token in tokens[:1].split(1, dim=1)]
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(each[-1], before[:1, -1:])
    for name, each in decoder.state_dict().items():
        np.testing.assert_array_equal(each.numpy(), weights[name])


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_cores_share_a_row(columns: bool, biased: bool) -> None:
    head = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n"
    helper = import_source("helper", head + HELPERS["parallel_linear"])
    weight, bias = torch.randn(12, 5), torch.randn(12) if biased else None
    if columns:
        weight = weight.t().contiguous().t()
    before = torch.get_num_threads()
    try:
        for cores in (1, 2, 4, 5, 8):  # of which 1, 2, 4, 1 and 4 have as many of the outputs each
            torch.set_num_threads(cores)
            for shape in ((5,), (1, 5), (1, 1, 5), (3, 5), (2, 1, 5)):
                x = torch.randn(shape)
                found = helper.parallel_linear(x, weight, bias)
                torch.testing.assert_close(found, torch.nn.functional.linear(x, weight, bias))
            for shape in ((1, 6), (5, 1)):
                with pytest.raises(RuntimeError):
                    helper.parallel_linear(torch.randn(shape), weight, bias)
    finally:
        torch.set_num_threads(before)


def test_the_manifest_tells_what_goes_in_once(tmp_path: Path) -> None:
    path, model, sizes = MODELS["t5"]
    session, _ = opened(tfdsl.load(path, model, **sizes).graph, tmp_path / "built", "last")
    manifest = session.manifest
    assert (manifest.tokens, [*manifest.encoder_inputs]) == ("outputs", ["inputs"])
    assert [*manifest.inputs] == ["outputs", "attention_mask", "position_ids"]


def test_source_without_weights_is_built_and_does_not_run(tmp_path: Path) -> None:
    path, model, sizes = MODELS["llama"]
    build_decoder(tfdsl.load(path, model, **sizes).graph, None, tmp_path)
    assert "class Llama(nn.Module)" in (tmp_path / "model.py").read_text()
    with pytest.raises(SpecError, match="T711"):
        decoder_session(tmp_path)


def test_a_layer_cannot_be_called_like_what_a_decoder_has(tmp_path: Path) -> None:
    path = tmp_path / "clash.tfm"
    path.write_text(
        "model Clash(tokens: int[batch, seq]) -> logits: [batch, seq, 8] {\n"
        "  return embedding(tokens, size=8, dim=8) as past\n}\n"
    )
    graph = tfdsl.load(path).graph
    assert "self.past = nn.Embedding" in emit(graph)
    with pytest.raises(SpecError, match=r"T709.*attribute `past`"):
        emit(decoder_graph(graph))


def test_a_state_is_not_called_like_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "named.tfm"
    path.write_text(ALBERT.replace("as o", "as key"))
    check(tfdsl.load(path).graph, tmp_path / "built", "last")


def test_a_shared_layer_in_turns_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "turns.tfm"
    turns = "repeat turn[5] as i {\n    x = layer(x)\n    x = if i % 2 == 0 then linear(x, out=16) as up else x\n  }"
    path.write_text(ALBERT.replace("repeat turn[3] { x = layer(x) }", turns))
    graph = tfdsl.load(path).graph
    check(graph, tmp_path / "built", "last")
    source = emit(decoder_graph(graph))
    assert "getattr" not in source


def test_the_source_of_one_size_serves_others() -> None:
    path, model, sizes = MODELS["llama"]
    source, name = emit_named(decoder_graph(tfdsl.load(path, model).graph))  # Llama 2 7B
    big = getattr(import_source("big", source), name)
    _, _, decoder = small()
    other = big(**sizes, theta=10_000).eval()
    other.load_state_dict(decoder.state_dict())
    tokens = torch.randint(0, 20, (2, 7))
    torch.testing.assert_close(other(tokens), decoder(tokens))
    decoder.reset()
    moved = big(**sizes, theta=500).eval()
    moved.load_state_dict(decoder.state_dict())
    assert not torch.allclose(moved(tokens), decoder(tokens))
