"""Decoders on ONNX Runtime, in both profiles: call by call they give what the model gives of the whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_cases import Flat

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.decoding.manifest import MASK, POSITIONS, read_manifest
from tfdsl.ir import masks
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Graph
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import SpecError
from tfdsl.weights import trial

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tfdsl.backends.onnx import decoder_lowerings, decoder_session, genai  # noqa: E402
from tfdsl.backends.onnx.decoder import build_decoder  # noqa: E402

HERE = Path(__file__).parent
SPECS, ARCHITECTURES = HERE.parent / "specs", HERE / "architectures"
PROFILES = ("portable", "ort")
LENGTH, VOCAB = 12, 50
SMALL: dict[str, Any] = {"vocab": VOCAB, "width": 32, "depth": 2, "heads": 4}
GATED: dict[str, Any] = {**SMALL, "kv_heads": 2, "hidden": 48}
CLOSE = 5e-6  # of the largest logit

LATENT = """
model Latent(tokens: int[batch, seq]) -> logits: [batch, seq, 50] {
  x = embedding(tokens, size=50, dim=16) as table
  repeat l[2] { x = x + MLA(rms_norm(x) as n) as mla }
  return linear(x, out=50) as head
}
"""
RETENTION = """
import Retention from "std/linear_attention.tfm"
model Retentive(tokens: int[batch, seq]) -> logits: [batch, seq, 50] {
  x = embedding(tokens, size=50, dim=16) as table
  repeat l[2] { x = x + Retention(layer_norm(x) as norm, heads=2) as mix }
  return linear(x, out=50) as head
}
"""
SINKS = """
model Sinking(tokens: int[batch, seq]) -> logits: [batch, seq, 50] {
  x = embedding(tokens, size=50, dim=16) as table
  q = linear(x, out=16) as q |> rearrange("b s (h d) -> b h s d", h=2)
  k = linear(x, out=8) as k |> rearrange("b s (h d) -> b h s d", h=1)
  v = linear(x, out=8) as v |> rearrange("b s (h d) -> b h s d", h=1)
  y = attend(q, k, v, sinks=weight(shape=[2]) as sinks, mask=causal, softcap=4.0)
  return linear(rearrange(y, "b h s d -> b s (h d)"), out=50) as head
}
"""
SUMS = """
model Sums(tokens: int[batch, seq]) -> logits: [batch, seq, 50] {
  x = embedding(tokens, size=50, dim=16) as table
  repeat l[2] {
    x = x + linear(rms_norm(x) as before, out=16) as first
    a = linear(rms_norm(x) as left, out=16) as left_map
    b = linear(rms_norm(x, eps=1e-3) as right, out=16) as right_map
    q = rearrange(a, "b s (h d) -> b h s d", h=2)
    x = x + rearrange(attend(q, q, q, mask=causal), "b h s d -> b s (h d)") + b
  }
  x = rms_norm(x + weight(shape=[16]) as shift) as shifted
  return linear(rms_norm(x + x) as final, out=50) as head
}
"""

# All states so far, of which the last layer reads a sum: the batch is not the first axis of them, nor positions the second.
DEPTHS = """
model Depths(tokens: int[batch, seq]) -> logits: [batch, seq, 50] {
  x = embedding(tokens, size=50, dim=16) as table
  past = rearrange(x, "b s d -> 1 b s d")
  repeat l[2] as i {
    h = rearrange(layer_norm(x) as norm, "b s (h d) -> b h s d", h=2)
    x = x + rearrange(attend(h, h, h, mask=causal), "b h s d -> b s (h d)")
    past = concat(past, rearrange(x, "b s d -> 1 b s d"), axis=0)
    x = einsum("n, n b s d -> b s d", weight(shape=[i + 2], init=normal(1.0)) as share, past)
  }
  return linear(x, out=50) as head
}
"""


def spec(name: str, folder: Path) -> tuple[Path, str, Mapping[str, Any]]:
    """The file, the model and its settings, of a small model of each kind."""
    written = {"Latent": LATENT, "Retentive": RETENTION, "Sinking": SINKS, "Sums": SUMS, "Depths": DEPTHS}
    if name in written:
        block = (ARCHITECTURES / "latent_attention.tfm").read_text().split("model ")[0] if name == "Latent" else ""
        (folder / "spec.tfm").write_text(block + written[name])
        return folder / "spec.tfm", name, {}
    files: dict[str, tuple[Path, Mapping[str, Any]]] = {
        "GPT2": (SPECS / "gpt2.tfm", {**SMALL, "context": 32}),
        "Llama": (SPECS / "llama.tfm", GATED),
        "Mistral": (SPECS / "mistral.tfm", {**GATED, "window": 4}),
        "Gemma2": (SPECS / "gemma2.tfm", {**GATED, "head": 8, "window": 4}),
        "Qwen3": (SPECS / "qwen3.tfm", {**GATED, "head": 8}),
        "LinearTransformer": (SPECS / "linear_transformer.tfm", SMALL),
        "Odd": (ARCHITECTURES / "talking_hybrid.tfm", {}),
        "InTurns": (ARCHITECTURES / "in_turns.tfm", {}),
        "LSTM": (ARCHITECTURES / "recurrent.tfm", {}),
    }
    return files[name][0], name, files[name][1]


ALL = "GPT2 Llama Mistral Gemma2 Qwen3 LinearTransformer Retentive Odd InTurns LSTM Latent Sinking Sums Depths".split()


class Case:
    """A model with weights, what it gives of whole rows, and its decoder in one profile."""

    def __init__(self, name: str, folder: Path, profile: str, **options: Any):
        self.graph = tfdsl.load(*spec(name, folder)[:2], **spec(name, folder)[2]).graph
        self.weights = trial(self.graph, 0)
        self.folder = folder / profile
        self.folder.mkdir()
        build_decoder(self.graph, self.weights, self.folder, profile=profile, **options)
        self.manifest = read_manifest(self.folder)
        self.session = decoder_session.decoder_session(self.folder)
        words = {"LSTM": 5, "InTurns": 40}.get(name, VOCAB)
        self.tokens = np.random.default_rng(1).integers(0, words, (3, LENGTH))
        self.whole = self.full(self.tokens)

    def full(self, tokens: Any) -> Any:
        name, _ = self.graph.outputs[0]
        return run(self.graph, self.weights, {"tokens": tokens})[name]

    def step(self, tokens: Any, mask: Any) -> Any:
        """The logits of new tokens, with the mask of all so far."""
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, -tokens.shape[1] :]
        return self.session.step({"tokens": tokens, MASK: mask, POSITIONS: positions})[self.manifest.logits]

    def greedy(self, row: Sequence[int], length: int, end: int) -> list[int]:
        """A row continued by whole passes."""
        found = list(row)
        while len(found) < length and found[-1] != end:
            found.append(int(np.argmax(self.full(np.array([found]))[0, -1])))
        return found


def assert_close(found: Any, expected: Any, whole: Any) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() <= CLOSE * np.abs(whole).max()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ALL)
def test_call_by_call_is_the_whole(name: str, profile: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path, profile)
    for pieces in ((5, 1, 1, 2, 1), (1, 1, 1)):  # the second after a reset
        case.session.reset()
        done = 0
        for count in pieces:
            new = case.tokens[:, done : done + count]
            done += count
            found = case.step(new, np.ones((3, done), np.int64))
            assert_close(found, case.whole[:, done - 1 : done], case.whole)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ALL)
def test_rows_padded_on_the_left_are_as_alone(name: str, profile: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path, profile, logits="all")
    pads = (0, 3, 6)
    tokens, mask = case.tokens.copy(), np.ones((3, LENGTH), np.int64)
    for row, pad in enumerate(pads):
        tokens[row, pad:], mask[row, :pad] = case.tokens[row, : LENGTH - pad], 0
    done = 0
    for count in (8, 1, 1, 2):
        found = case.step(tokens[:, done : done + count], mask[:, : done + count])
        for row, pad in enumerate(pads):
            first = max(done, pad)
            expected = case.whole[row, first - pad : done + count - pad]
            assert_close(found[row, first - done :], expected, case.whole)
        done += count


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Odd", "LinearTransformer"])
def test_portable_models_run_on_another_runtime(name: str, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    case = Case(name, tmp_path, "portable")
    model = onnx.load(case.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [each.domain for each in model.opset_import] == [""]
    states = json.loads(next(each.value for each in model.metadata_props if each.key == decoder_session.STATES))
    values = {each["past"]: np.zeros([3 if dim == "batch" else dim for dim in each["dims"]], "f4") for each in states}
    other, names = ReferenceEvaluator(model), [each.name for each in model.graph.output]
    done = 0
    for count in (5, 1):
        given = {"tokens": case.tokens[:, done : done + count], MASK: np.ones((3, done + count), np.int64)}
        given[POSITIONS] = np.broadcast_to(np.arange(done, done + count), (3, count))
        found = dict(zip(names, other.run(None, {**given, **values}), strict=True))
        values = {each["past"]: found[each["present"]] for each in states}
        done += count
        assert_close(found["logits"], case.whole[:, done - 1 : done], case.whole)


def operators(case: Case) -> list[str]:
    return [node.op_type for node in onnx.load(case.folder / "model.onnx").graph.node]


def test_the_fast_operators_are_used(tmp_path: Path) -> None:
    found = {}
    for name in ("Llama", "Gemma2", "LinearTransformer", "Sinking"):
        (tmp_path / name).mkdir()
        found[name] = operators(Case(name, tmp_path / name, "ort"))
    for name, layers in (("Llama", 2), ("Gemma2", 2), ("Sinking", 1)):
        assert found[name].count("GroupQueryAttention") == layers
        assert "Transpose" not in found[name] and "MatMul" not in found[name]
    assert found["LinearTransformer"].count("LinearAttention") == 2


def test_sums_are_made_with_their_normalisations(tmp_path: Path) -> None:
    found = operators(Case("Sums", tmp_path, "ort"))
    # In each layer two sums are normalised, the first of them twice; a shift is no sum of two alike. After the loop, a
    # sum of the last position is one too.
    assert found.count("SkipSimplifiedLayerNormalization") == 4
    assert found.count("RMSNormalization") == 4


def test_portable_attention_joins_the_past_by_itself(tmp_path: Path) -> None:
    found = operators(Case("Llama", tmp_path, "portable"))
    assert found.count("Attention") == 2 and "Concat" not in found


def test_a_window_keeps_what_it_shows(tmp_path: Path) -> None:
    case = Case("Mistral", tmp_path, "portable")
    for done in range(1, LENGTH):
        case.step(case.tokens[:, done - 1 : done], np.ones((3, done), np.int64))
    lengths = {value.shape()[2] for value in case.session._values.values()}
    assert lengths == {3}


def test_buffers_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_session, "_CAPACITY", 2)
    case = Case("Llama", tmp_path, "ort")
    for done in range(1, LENGTH + 1):
        found = case.step(case.tokens[:, done - 1 : done], np.ones((3, done), np.int64))
        assert_close(found, case.whole[:, done - 1 : done], case.whole)


@pytest.mark.parametrize("profile", PROFILES)
def test_an_encoder_runs_once(profile: str, tmp_path: Path) -> None:
    settings = {**SMALL, "head": 8, "hidden": 48}
    graph = tfdsl.load(SPECS / "t5.tfm", "T5", **settings).graph
    weights = trial(graph, 0)
    build_decoder(graph, weights, tmp_path, profile=profile)
    manifest, session = read_manifest(tmp_path), decoder_session.decoder_session(tmp_path)
    random = np.random.default_rng(2)
    source, target = random.integers(0, VOCAB, (2, 7)), random.integers(0, VOCAB, (2, 6))
    whole = run(graph, weights, {"inputs": source, "outputs": target})["logits"]
    session.encode({"inputs": source})
    done = 0
    for count in (3, 1, 2):
        given = {manifest.tokens: target[:, done : done + count], MASK: np.ones((2, done + count), np.int64)}
        given[POSITIONS] = np.broadcast_to(np.arange(done, done + count), (2, count))
        done += count
        assert_close(session.step(given)["logits"], whole[:, done - 1 : done], whole)
    assert manifest.pipelines == {genai.NAME: "it has an encoder" if profile == "ort" else "it needs the profile `ort`"}
    with pytest.raises(SpecError, match="onnxruntime-genai cannot run `T5`: it ") as raised:
        build_decoder(graph, weights, tmp_path / "other", profile=profile, pipeline="genai")
    assert raised.value.diagnostics[0].code == "T735"


def small(mask: masks.Mask, operands: Sequence[str] = ()) -> Graph:
    """One head over tokens."""
    batch, seq = symbol("batch"), symbol("seq")
    f = Flat("Small")
    tokens = f.input("tokens", batch, seq, dtype="int")
    table = f.weight("table", VOCAB, 8)
    x = f("rearrange", f("embedding", tokens, table), pattern="b s d -> b 1 s d")
    y = f("attend", x, x, x, None, None, None, mask=mask)
    f.graph.outputs = [("logits", f("linear", f("rearrange", y, pattern="b 1 s d -> b s d"), table, None))]
    return f.graph


def test_what_may_see_nothing_is_left_to_the_standard_operator(tmp_path: Path) -> None:
    before = masks.Joined("&", masks.CAUSAL, masks.Negated(masks.Term("window", (1,))))  # not even itself
    graph = small(before)
    weights = trial(graph, 0)
    tokens = np.arange(8)[None] % VOCAB
    whole = run(graph, weights, {"tokens": tokens})["logits"]
    build_decoder(graph, weights, tmp_path, profile="ort", logits="all")
    assert "GroupQueryAttention" not in {n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node}
    session, found = decoder_session.decoder_session(tmp_path), []
    for done in range(1, 9):
        given = {"tokens": tokens[:, done - 1 : done], MASK: np.ones((1, done), int), POSITIONS: np.array([[done - 1]])}
        found.append(session.step(given)["logits"])
    assert_close(np.concatenate(found, axis=1), whole, whole)


def test_every_op_is_lowered_or_refused() -> None:
    lowered, refused = set(decoder_lowerings.LOWERINGS), set(decoder_lowerings.REFUSED)
    assert lowered | refused == set(OPS) and not lowered & refused


# --- in onnxruntime-genai ---------------------------------------------------------------------------------------------


def generated(folder: Path, rows: Sequence[Sequence[int]], length: int, end: int = 0) -> list[list[int]]:
    """What onnxruntime-genai makes of rows that it pads itself, each up to its end."""
    runtime = pytest.importorskip("onnxruntime_genai")
    model = runtime.Model(str(folder))
    parameters = runtime.GeneratorParams(model)
    parameters.set_search_options(max_length=length, batch_size=len(rows))
    generator = runtime.Generator(model, parameters)
    longest = max(map(len, rows))
    generator.append_tokens(np.array([[*row, *[end] * (longest - len(row))] for row in rows], np.int32))
    found = [list(row) for row in rows]
    while not generator.is_done():
        generator.generate_next_token()
        for row, token in zip(found, generator.get_next_tokens(), strict=True):
            if row[-1] != end:
                row.append(int(token))
    return found


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Gemma2", "LinearTransformer", "Odd", "InTurns", "Latent"])
def test_the_generator_goes_on_as_whole_passes_do(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path, "ort", pipeline="genai")
    assert case.manifest.pipelines == {genai.NAME: ""}
    for row in ([3, 4, 5, 6, 7], [9]):
        assert generated(case.folder, [row], len(row) + 12) == [case.greedy(row, len(row) + 12, end=0)]


@pytest.mark.parametrize("name", ["GPT2", "Llama", "LinearTransformer"])
def test_the_generator_pads_rows(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path, "ort")
    rows = [[3, 4, 5, 6, 7], [9, 8, 3], [5]]
    found = generated(case.folder, rows, 5 + 12)
    for row, prompt in zip(found, rows, strict=True):
        assert row == case.greedy(prompt, len(row), end=0) and (len(row) == len(prompt) + 12 or row[-1] == 0)


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Qwen3", "Depths"])
def test_the_last_position_is_the_last_real_one(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path, "ort")
    mask = np.ones((3, LENGTH), np.int64)
    for row, length in enumerate((LENGTH, 3, 7)):
        mask[row, length:] = 0
    found = case.step(case.tokens, mask)
    expected = [case.whole[row, length - 1] for row, length in enumerate((LENGTH, 3, 7))]
    assert_close(found[:, 0], np.array(expected), case.whole)


@pytest.mark.parametrize("profile", PROFILES)
def test_positions_have_an_end_in_any_session(profile: str, tmp_path: Path) -> None:
    turned = tmp_path / "dynamic.tfm"
    turned.write_text(
        'import Llama from "zoo/llama.tfm"\nimport rope_dynamic from "std/positions.tfm"\n'
        "model Dynamic extends Llama { rotary = rope_dynamic(base=theta, factor=4, limit=16) }\n"
    )
    tfdsl.load(turned, **GATED).build("onnx", tmp_path / "out", seed=0, cache=True, longest=16, profile=profile)
    session = decoder_session.decoder_session(tmp_path / "out")  # as any other program opens it
    for count, total in ((16, 16), (17, 17), (1, 17), (1, 16)):
        session.reset()
        given = {
            "tokens": np.ones((2, count), np.int64),
            MASK: np.ones((2, total), np.int64),
            POSITIONS: np.arange(total)[None, total - count :].repeat(2, axis=0),
        }
        if past := total - count:
            start = np.arange(past)[None].repeat(2, axis=0)
            session.step({"tokens": np.ones_like(start), MASK: np.ones_like(start), POSITIONS: start})
        if total == 17:
            with pytest.raises(Exception, match="at most 16 positions"):
                session.step(given)
        else:
            assert np.isfinite(session.step(given)["logits"]).all()


def test_the_configuration_uses_all_cores_and_shares_buffers(tmp_path: Path) -> None:
    case = Case("GPT2", tmp_path, "ort")
    written = json.loads((case.folder / genai.FILE).read_text())
    decoder = written["model"]["decoder"]
    assert written["model"]["type"] == "decoder" and written["model"]["context_length"] == 32
    assert decoder["session_options"] == {"intra_op_num_threads": 0}
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (2, 4, 8)
    assert written["search"]["past_present_share_buffer"] is True
    logits = onnx.load(case.folder / "model.onnx").graph.output[0]
    assert [dim.dim_value for dim in logits.type.tensor_type.shape.dim] == [0, 1, VOCAB]


def test_whole_numbers_that_are_remembered_are_nothing_for_the_generator(tmp_path: Path) -> None:
    case = Case("LSTM", tmp_path, "ort")
    assert "whole numbers" in case.manifest.pipelines[genai.NAME] and not (case.folder / genai.FILE).exists()


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Gemma2", "Qwen3"])
def test_the_generator_agrees_with_the_library(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    pytest.importorskip("transformers")
    from generation import PROMPTS, Peer, families

    peer = Peer(next(each for each in families() if each.model == name), tmp_path)
    peer.ours.build("onnx", tmp_path / "ours", weights=tmp_path / "theirs", cache=True, profile="ort", pipeline="genai")
    for prompt, expected in zip(PROMPTS, peer.expected(16), strict=True):
        if 0 in expected:  # ends a text in the folder, where no other token does
            expected = expected[: expected.index(0) + 1]
        (found,) = generated(tmp_path / "ours", [prompt], len(prompt) + 16)
        assert found == [*prompt, *expected]
