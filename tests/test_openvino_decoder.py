"""Decoders on OpenVINO: states op by op, models call by call, and the generators of openvino-genai."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from op_cases import Flat
from openvino._offline_transformations import paged_attention_transformation
from test_incremental import LENGTH, MODELS, PADS, PIECES, SNIPPETS, expected, inputs_of, snippet, streams

import tfdsl
from tfdsl.backends.compare import relative_error
from tfdsl.backends.openvino.decoder import build_decoder, decoder_session, make_decoder
from tfdsl.backends.openvino.decoder_session import StatefulSession
from tfdsl.backends.openvino.runtime import EXACT
from tfdsl.backends.reference import run
from tfdsl.decoding.manifest import read_manifest
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.join_linears import join_linears
from tfdsl.weights import trial

SPECS = Path(__file__).parents[1] / "specs"
ODD = Path(__file__).parent / "architectures" / "talking_hybrid.tfm"
BATCH, SEQ, TOTAL, KEPT = (symbol(name) for name in ("batch", "seq", "total", "kept"))
COUNTS = (6, 1, 3, 1, 1)  # of positions in each call

SMALL: dict[str, tuple[Path, str | None, dict[str, Any]]] = {
    "gpt2": (SPECS / "gpt2.tfm", "GPT2", {"depth": 2, "width": 32, "heads": 4, "vocab": 60}),
    "llama": (
        SPECS / "llama.tfm",
        "Llama",
        {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "vocab": 60},
    ),
    "mistral": (
        SPECS / "mistral.tfm",
        "Mistral",
        {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "vocab": 60, "window": 4},
    ),
    "gemma2": (
        SPECS / "gemma2.tfm",
        "Gemma2",
        {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "head": 8, "hidden": 48, "vocab": 60, "window": 4},
    ),
    "linear": (SPECS / "linear_transformer.tfm", None, {"depth": 2, "width": 32, "heads": 4, "vocab": 60}),
    "hybrid": (ODD, "Odd", {"vocab": 60}),
}


def small(name: str) -> tfdsl.Model:
    path, model, params = SMALL[name]
    return tfdsl.load(path, model, **params)


def built(name: str, folder: Path, **options: Any) -> tuple[tfdsl.Model, dict[str, Any]]:
    """A small model as a decoder in a folder, and its weights."""
    model = small(name)
    weights = trial(model.graph, 0)
    folder.mkdir(exist_ok=True)
    build_decoder(model.graph, weights, folder, **options)
    return model, weights


def spec(tmp_path: Path, body: str) -> tfdsl.Model:
    """A model of one attention that `body` gives from queries, keys and values."""
    path = tmp_path / "spec.tfm"
    path.write_text(
        "model Small(tokens: int[batch, seq]) -> logits: [batch, seq, vocab] {\n"
        "  param vocab = 20\n"
        "  param heads = 2\n"
        "  x = embedding(tokens, size=vocab, dim=16) as table\n"
        '  q, k, v = linear(x, out=48) as qkv |> rearrange("b s (three h d) -> three b h s d", three=3, h=heads)\n'
        "      |> split(parts=3, axis=0, squeeze=true)\n"
        f"  y = {body}\n"
        '  return rearrange(y, "b h s d -> b s (h d)") |> linear(out=vocab) as head\n'
        "}\n"
    )
    return tfdsl.load(path)


def kinds(session: StatefulSession) -> list[str]:
    """The layers that the CPU plugin runs."""
    nodes = session.compiled.get_runtime_model().get_ordered_ops()
    return [str(node.get_rt_info()["layerType"].astype(str)) for node in nodes]


# --- states, op by op ------------------------------------------------------------------------------------------------


def follow(graph: Graph, calls: list[dict[str, Any]], batch: int) -> None:
    """Every call gives what the reference gives; and the same again after all is forgotten."""
    compiled = openvino.Core().compile_model(make_decoder(graph, {}).model, "CPU", EXACT)
    request = compiled.create_infer_request()
    for _ in range(2):
        state: dict[str, Any] = {}
        for call in calls:
            found = request.infer({**call, "beam_idx": np.arange(batch, dtype=np.int32)})
            for name, wanted in run(graph, {}, call, state).items():
                got = np.array(found[compiled.output(name)])
                assert got.shape == wanted.shape
                assert relative_error(got, wanted) < 1e-5 if wanted.dtype == np.float64 else (got == wanted).all()
        request.reset_state()


def each_piece(name: str, whole: Any, axis: int) -> list[dict[str, Any]]:
    ends = np.cumsum(COUNTS)
    return [{name: part} for part in np.split(whole, ends[:-1], axis=axis)]


@pytest.mark.parametrize("dtype", ["float", "int", "bool"])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_state_that_grows(dtype: str, axis: int) -> None:
    f = Flat()
    dims = [BATCH, 3, 3]
    dims[axis] = SEQ
    f.input("mask", BATCH, TOTAL, dtype="int")
    x = f.input("x", *dims, dtype=dtype)
    f.give(f("append", x, path="state", axis=axis, size=TOTAL - SEQ))
    shape = [2, 3, 3]
    shape[axis] = sum(COUNTS)
    whole = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 99, shape)
    whole = whole.astype({"float": np.float32, "int": np.int64, "bool": bool}[dtype])
    calls = each_piece("x", whole, axis)
    for end, call in zip(np.cumsum(COUNTS), calls, strict=True):
        call["mask"] = np.ones((2, end), np.int64)
    follow(f.graph, calls, 2)


def test_a_state_that_slides_and_one_of_its_own_size() -> None:
    f = Flat()
    x = f.input("x", BATCH, SEQ, 4)
    sliding = f("append", x, path="slides", axis=1, size=2, last=2, fill=2)
    filling = f("append", x, path="fills", axis=1, size=KEPT, last=3)
    f.give(sliding, filling, f.constant(KEPT, "int"))
    whole = np.random.default_rng(0).normal(size=(2, sum(COUNTS), 4)).astype(np.float32)
    follow(f.graph, each_piece("x", whole, 1), 2)


@pytest.mark.parametrize("decay", ["none", "by step", "by head", "by feature"])
def test_a_running_attention_goes_on(decay: str) -> None:
    f = Flat()
    random = np.random.default_rng(0)
    shapes = {"q": (4, 5), "k": (2, 5), "v": (1, 3)}
    operands = [f.input(name, BATCH, heads, SEQ, size) for name, (heads, size) in shapes.items()]
    given = {name: random.normal(size=(2, h, sum(COUNTS), d)).astype(np.float32) for name, (h, d) in shapes.items()}
    if decay == "by head":
        operands.append(f("neg", f("abs", f.weight("decay", 4, 1))))
    elif decay != "none":
        features = (5,) if decay == "by feature" else ()
        operands.append(f("neg", f("abs", f.input("decay", BATCH, 4, SEQ, *features))))
        given["decay"] = random.normal(size=(2, 4, sum(COUNTS), *features)).astype(np.float32)
    f.give(f("running_attend", *operands, *([None] if decay == "none" else []), path="sum"))
    parts = [np.split(each, np.cumsum(COUNTS)[:-1], axis=2) for each in given.values()]
    calls = [dict(zip(given, pieces, strict=True)) for pieces in zip(*parts, strict=True)]
    if decay != "by head":
        follow(f.graph, calls, 2)
        return
    weights = {"decay": random.normal(size=(4, 1)).astype(np.float32)}
    compiled = openvino.Core().compile_model(make_decoder(f.graph, weights).model, "CPU", EXACT)
    request, state = compiled.create_infer_request(), {}
    for call in calls:
        found = request.infer({**call, "beam_idx": np.arange(2, dtype=np.int32)})
        assert relative_error(found[compiled.output(0)], run(f.graph, weights, call, state)["output"]) < 1e-5


@pytest.mark.parametrize("dtype", ["float", "int"])
def test_a_cumulative_sum_goes_on(dtype: str) -> None:
    f = Flat()
    f.give(f("running_sum", f.input("x", BATCH, SEQ, 3, dtype=dtype), axis=1, path="sum"))
    whole = np.random.default_rng(0).integers(-9, 9, (2, sum(COUNTS), 3))
    follow(f.graph, each_piece("x", whole.astype(np.float32 if dtype == "float" else np.int64), 1), 2)


def test_what_is_remembered_is_recalled() -> None:
    f = Flat()
    x = f.input("x", BATCH, 3)
    state = f("recall", x, path="sum")
    f.give(f("remember", state, f("add", state, x), path="sum"))
    calls = [{"x": np.full((2, 3), number, np.float32)} for number in (1, 5, 2)]
    follow(f.graph, calls, 2)


def test_rows_of_states_are_reordered() -> None:
    f = Flat()
    x = f.input("x", BATCH, SEQ)
    f.give(f("append", x, path="state", axis=1, size=symbol("past"), last=99))
    compiled = openvino.Core().compile_model(make_decoder(f.graph, {}).model, "CPU", EXACT)
    request = compiled.create_infer_request()
    request.infer({"x": np.array([[1.0], [2.0]], np.float32), "beam_idx": np.array([0, 1], np.int32)})
    found = request.infer({"x": np.array([[3.0], [4.0]], np.float32), "beam_idx": np.array([1, 1], np.int32)})
    np.testing.assert_array_equal(found[compiled.output(0)], [[2, 3], [2, 4]])


# --- models, call by call --------------------------------------------------------------------------------------------


def left_padded(vocab: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Tokens with padding on the left, the mask that tells, and the positions of what is real."""
    longest = max(lengths)
    tokens = np.random.default_rng(1).integers(0, vocab, (len(lengths), longest))
    mask = np.array([[0] * (longest - length) + [1] * length for length in lengths])
    return {"tokens": tokens, "attention_mask": mask, "position_ids": np.maximum(np.cumsum(mask, axis=1) - 1, 0)}


def step_by_step(session: Any, given: dict[str, Any], last: bool) -> Any:
    """The logits of calls with a few positions each."""
    done, found = 0, []
    for count in COUNTS:
        new = slice(done, done + count)
        call = {"attention_mask": given["attention_mask"][:, : done + count]}
        call |= {name: given[name][:, new] for name in ("tokens", "position_ids")}
        (logits,) = session.step(call).values()
        assert logits.shape[1] == (1 if last else count)
        found.append(logits)
        done += count
    return np.concatenate(found, axis=1)


def check(graph: Graph, folder: Path, logits: str) -> None:
    """Piece by piece, with padding on the left, each row is what it is by itself in one pass; and again after a reset."""
    folder.mkdir()
    weights, inputs = trial(graph, 0), inputs_of(graph)
    build_decoder(graph, weights, folder, logits=logits)
    session, manifest, stream = decoder_session(folder), read_manifest(folder), streams(graph)
    mask = np.array([[0] * pad + [1] * (LENGTH - pad) for pad in PADS])
    ids = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    rows = expected(graph, weights, inputs)
    for _ in range(2):
        if manifest.encoder:
            session.encode({name: inputs[name] for name in manifest.encoder_inputs})
        done = 0
        for count in PIECES:
            start, done = done, done + count
            call = {name: value[:, start:done] if name in stream else value for name, value in inputs.items()}
            call |= {"attention_mask": mask[:, :done], "position_ids": ids[:, start:done]}
            piece = session.step({name: call[name] for name in manifest.inputs})[graph.outputs[0][0]]
            assert piece.shape[1] == (1 if logits == "last" else count)
            for row, (pad, wanted) in enumerate(zip(PADS, rows, strict=True)):
                first = done - 1 if logits == "last" else max(start, pad)
                got = piece[row] if logits == "last" else piece[row, first - start :]
                np.testing.assert_allclose(
                    got, wanted[first - pad : done - pad], atol=1e-5 * np.abs(wanted).max(), rtol=0
                )
        session.reset()
    assert manifest.all_logits == (logits == "all")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("latent", "delta")])  # those decode no tokens
@pytest.mark.parametrize("logits", ["all", "last"])
def test_prefill_and_steps_are_the_full_forward_pass(tmp_path: Path, name: str, logits: str) -> None:
    path, model, settings = MODELS[name]
    check(tfdsl.load(path, model, **settings).graph, tmp_path / "out", logits)


@pytest.mark.parametrize("name", SNIPPETS)
def test_mechanisms(tmp_path: Path, name: str) -> None:
    check(snippet(tmp_path, SNIPPETS[name]), tmp_path / "out", "all")


def test_one_row_after_three(tmp_path: Path) -> None:
    model, weights = built("llama", tmp_path / "out")
    session = decoder_session(tmp_path / "out")
    step_by_step(session, left_padded(60, (12, 11, 10)), True)
    session.reset()
    given = left_padded(60, (12,))
    found = step_by_step(session, given, True)
    wanted = run(model.graph, weights, {"tokens": given["tokens"]})["logits"]
    assert relative_error(found[0], wanted[0, np.cumsum(COUNTS) - 1]) < 1e-5


def test_what_the_plugin_fuses(tmp_path: Path) -> None:
    built("mistral", tmp_path / "out")
    found = kinds(decoder_session(tmp_path / "out"))
    assert [found.count(kind) for kind in ("ScaledDotProductAttention", "RoPE", "RMS", "Softmax")] == [2, 4, 5, 0]
    assert found.count("FullyConnected") == 2 * 6 + 1  # gate and up are one product


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_two_bytes(tmp_path: Path, dtype: str) -> None:
    from tfdsl.weights.storing import Storing

    model, weights = built("llama", tmp_path / "out", storing=Storing(dtype))
    given = left_padded(60, (12, 11, 10))
    found = step_by_step(decoder_session(tmp_path / "out"), given, True)
    wanted = run(model.graph, weights, {"tokens": given["tokens"][:1]})["logits"][0, np.cumsum(COUNTS) - 1]
    assert 1e-6 < relative_error(found[0], wanted) < (3e-3 if dtype == "float16" else 3e-2)
    count = sum(array.size for array in weights.values())
    assert (tmp_path / "out" / "openvino_model.bin").stat().st_size < 2.2 * count + 8000


def test_quantised_weights(tmp_path: Path) -> None:
    model = small("llama").optimize('quantize("layers.**", bits=8)')
    weights = trial(model.graph, 0)
    build_decoder(model.graph, weights, tmp_path)
    given = left_padded(60, (12, 11, 10))
    found = step_by_step(decoder_session(tmp_path), given, True)
    wanted = run(model.graph, weights, {"tokens": given["tokens"][:1]})["logits"][0, np.cumsum(COUNTS) - 1]
    assert relative_error(found[0], wanted) < 1e-5
    assert read_manifest(tmp_path).pipelines == {"stateful": "", "paged": ""}


def test_what_is_joined(tmp_path: Path) -> None:
    """Maps of one tensor, unless their weights serve others or they give an output."""
    path = tmp_path / "spec.tfm"
    path.write_text(
        "model Small(tokens: int[batch]) -> [batch, 8], [batch, 9], [batch, 6] {\n"
        "  table = embedding(size=9, dim=8)\n"
        "  x = table(tokens)\n"
        "  y = concat(linear(x, out=4) as a, linear(x, out=4) as b)\n"
        "  y = y * (linear(x, out=8, bias=false) as c) + (linear(x, out=8, bias=false) as d)\n"
        "  return y, tanh(project(x, table.weight)), linear(x, out=6) as f\n"
        "}\n"
    )
    graph = tfdsl.load(path).graph
    joined = join_linears(graph)
    verify(joined)
    assert sorted(node.type.dims[-1] for node in joined.nodes() if node.op == "linear") == [6, 8, 9, 16]
    weights, given = trial(graph, 0), {"tokens": np.arange(5)}
    for name, wanted in run(graph, weights, given).items():
        np.testing.assert_allclose(run(joined, weights, given)[name], wanted, rtol=1e-12)


# --- which generators can run it -------------------------------------------------------------------------------------

WAYS = {
    "gpt2": "",
    "llama": "",
    "mistral": "",
    "gemma2": "`attend` at `layers.0.self_attn.y`: paged attention has no place for what it does: it caps its scores",
    "linear": "it remembers what is no key or value of an attention",
    "hybrid": "it remembers what is no key or value of an attention",
}


@pytest.mark.parametrize("name", WAYS)
def test_a_build_tells_what_can_run_it(tmp_path: Path, name: str) -> None:
    built(name, tmp_path / "out")
    found = read_manifest(tmp_path / "out").pipelines
    assert found["stateful"] == ""
    assert WAYS[name] in found["paged"] and bool(WAYS[name]) == bool(found["paged"])


@pytest.mark.parametrize("name", ["gemma2", "linear", "hybrid"])
def test_a_pipeline_that_cannot_be_had_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        built(name, tmp_path / "out", pipeline="paged")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "T735" and diagnostic.span is not None
    assert "openvino-genai cannot run" in diagnostic.message and " at `" in diagnostic.message
    assert not list((tmp_path / "out").iterdir())


BIASED = 'attend(q, k, v, mask=causal, bias=rearrange(positions(k, axis=2) / 9.0, "k -> 1 1 1 k"))'
BEYOND = {
    "a bias": (BIASED, "it has a bias on its scores"),
    "strides": ("attend(q, k, v, mask=causal & strided(2))", "its mask says `strided(2)`"),
    "two windows": ("attend(q, k, v, mask=causal & (window(2) | strided(3)))", "its mask says"),
    "a softcap": ("attend(q, k, v, mask=causal, softcap=5.0)", "it caps its scores"),
    "shared keys": ("attend(q, k, v, mask=causal) + attend(v, k, q, mask=causal & window(3))", "are read by others"),
}


@pytest.mark.parametrize("each", BEYOND)
def test_no_mask_is_given_to_those_who_drop_it(tmp_path: Path, each: str) -> None:
    """What paged attention does not know is kept from it, and computed by the model itself."""
    body, reason = BEYOND[each]
    model = spec(tmp_path, body)
    weights = trial(model.graph, 0)
    build_decoder(model.graph, weights, tmp_path, logits="all")
    assert reason in read_manifest(tmp_path).pipelines["paged"]
    written = openvino.Core().read_model(tmp_path / "openvino_model.xml")
    with pytest.raises(RuntimeError):
        paged_attention_transformation(written)
        written.validate_nodes_and_infer_types()
    given = left_padded(20, (12, 9))
    found = step_by_step(decoder_session(tmp_path), given, False)
    for row, pad in enumerate((0, 3)):
        wanted = run(model.graph, weights, {"tokens": given["tokens"][row : row + 1, pad:]})["logits"][0]
        assert relative_error(found[row, pad:], wanted) < 1e-5


def test_further_inputs_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "spec.tfm"
    path.write_text(
        "model Small(tokens: int[batch, seq], extra: [batch, 8]) -> logits: [batch, seq, 9] {\n"
        "  x = embedding(tokens, size=9, dim=8) as table\n"
        '  x = x + rearrange(extra, "b w -> b 1 w")\n'
        '  h = rearrange(x, "b s (h d) -> b h s d", h=2)\n'
        '  return rearrange(attend(h, h, h, mask=causal), "b h s d -> b s (h d)") |> linear(out=9) as head\n'
        "}\n"
    )
    model = tfdsl.load(path)
    with pytest.raises(SpecError, match="tokens and nothing else, and not `extra`"):
        build_decoder(model.graph, trial(model.graph, 0), tmp_path, pipeline="stateful")


# --- the generators of openvino-genai --------------------------------------------------------------------------------

HINTS = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
NEW = 12


def peer(name: str) -> Any:
    """A model of `transformers` with random weights, as the small one of that name."""
    import torch
    import transformers

    torch.manual_seed(0)
    shared = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0, "initializer_range": 0.3}
    if name == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, **shared)
        return transformers.GPT2LMHeadModel(config).eval()
    shared |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shared |= {"intermediate_size": 48}
    if name == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(rms_norm_eps=1e-5, **shared)).eval()
    if name == "mistral":
        config = transformers.MistralConfig(sliding_window=4, rms_norm_eps=1e-5, **shared)
        return transformers.MistralForCausalLM(config).eval()
    config = transformers.Gemma2Config(
        head_dim=8, query_pre_attn_scalar=8, sliding_window=4, attn_implementation="eager", **shared
    )
    return transformers.Gemma2ForCausalLM(config).eval()


def greedy(genai: Any) -> Any:
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = NEW, True, False
    config.set_eos_token_id(2)
    return config


@pytest.fixture(scope="module")
def generated(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, dict[str, Any], list[list[int]]]]:
    """Builds the decoder of a `transformers` model: its folder, a padded batch, and what `generate` makes of that."""
    import torch

    made: dict[str, tuple[Path, dict[str, Any], list[list[int]]]] = {}

    def make(name: str) -> tuple[Path, dict[str, Any], list[list[int]]]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = peer(name)
            model.save_pretrained(folder / "checkpoint")
            small(name).build("openvino", folder / "out", weights=folder / "checkpoint", cache=True)
            given = left_padded(60, (7, 4, 6))
            tensors = {key: torch.tensor(given[key]) for key in ("tokens", "attention_mask")}
            out = model.generate(
                tensors["tokens"], attention_mask=tensors["attention_mask"], max_new_tokens=NEW, do_sample=False
            )
            made[name] = (folder / "out", given, out[:, 7:].tolist())
        return made[name]

    return make


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2"])
@pytest.mark.parametrize("way", ["default", "SDPA", "PA"])
def test_the_pipeline_generates_what_transformers_does(generated: Any, name: str, way: str) -> None:
    genai = pytest.importorskip("openvino_genai")
    folder, given, wanted = generated(name)
    settings = dict(HINTS) if way == "default" else {**HINTS, "ATTENTION_BACKEND": way}
    if way == "PA" and name == "gemma2":
        with pytest.raises(RuntimeError):
            genai.LLMPipeline(folder, "CPU", **settings)
        return
    pipeline = genai.LLMPipeline(folder, "CPU", **settings)
    config = greedy(genai)
    tensors = (openvino.Tensor(np.ascontiguousarray(given[key])) for key in ("tokens", "attention_mask"))
    assert pipeline.generate(genai.TokenizedInputs(*tensors), config).tokens == wanted


def by_session(folder: Path, given: dict[str, Any]) -> list[list[int]]:
    """The new tokens that a session gives greedily."""
    session, found = decoder_session(folder), []
    for _ in range(NEW):
        (logits,) = session.step(given).values()
        new = logits[:, -1].argmax(axis=-1)[:, None]
        found.append(new)
        mask = np.concatenate([given["attention_mask"], np.ones_like(new)], axis=1)
        given = {"tokens": new, "attention_mask": mask, "position_ids": given["position_ids"][:, -1:] + 1}
    return np.concatenate(found, axis=1).tolist()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2"])
def test_the_session_generates_what_transformers_does(generated: Any, name: str) -> None:
    folder, given, wanted = generated(name)
    assert by_session(folder, given) == wanted


@pytest.mark.parametrize("way", ["PA", "SDPA"])
def test_sinks_in_a_window(tmp_path: Path, way: str) -> None:
    genai = pytest.importorskip("openvino_genai")
    model = spec(tmp_path, "attend(q, k, v, sinks=weight(shape=[heads]) as sinks, mask=causal & window(4))")
    weights = {path: array * 5 for path, array in trial(model.graph, 0).items()}
    build_decoder(model.graph, weights, tmp_path, logits="all", pipeline="paged")
    given = left_padded(20, (12, 9))
    session = decoder_session(tmp_path)
    assert kinds(session).count("ScaledDotProductAttention") == 1
    found = step_by_step(session, given, False)
    for row, pad in enumerate((0, 3)):
        wanted = run(model.graph, weights, {"tokens": given["tokens"][row : row + 1, pad:]})["logits"][0]
        assert relative_error(found[row, pad:], wanted) < 1e-5
    pipeline = genai.LLMPipeline(tmp_path, "CPU", **HINTS, ATTENTION_BACKEND=way)
    tensors = (openvino.Tensor(np.ascontiguousarray(given[key])) for key in ("tokens", "attention_mask"))
    assert pipeline.generate(genai.TokenizedInputs(*tensors), greedy(genai)).tokens == by_session(tmp_path, given)


@pytest.mark.parametrize("way", ["default", "SDPA"])
@pytest.mark.parametrize("name", ["linear", "hybrid", "turns"])
def test_the_pipeline_generates_with_states_of_every_kind(tmp_path: Path, name: str, way: str) -> None:
    genai = pytest.importorskip("openvino_genai")
    if name == "turns":
        model = tfdsl.load(MODELS[name][0], vocab=60)
        build_decoder(model.graph, trial(model.graph, 0), tmp_path)
    else:
        built(name, tmp_path)
    settings = HINTS if way == "default" else {**HINTS, "ATTENTION_BACKEND": way}
    given = left_padded(60, (7, 4, 6))
    pipeline = genai.LLMPipeline(tmp_path, "CPU", **settings)
    tensors = (openvino.Tensor(np.ascontiguousarray(given[key])) for key in ("tokens", "attention_mask"))
    for _ in range(2):
        assert pipeline.generate(genai.TokenizedInputs(*tensors), greedy(genai)).tokens == by_session(tmp_path, given)
        tensors = (openvino.Tensor(np.ascontiguousarray(given[key])) for key in ("tokens", "attention_mask"))


@pytest.mark.parametrize("way", ["PA", "SDPA"])
@pytest.mark.parametrize("name", ["gpt2", "dynamic"])
def test_the_pipeline_goes_no_further_than_the_model(tmp_path: Path, name: str, way: str) -> None:
    """Positions have an end: that of a table, or of what holds up to so many. Beyond it numbers would be wrong."""
    genai = pytest.importorskip("openvino_genai")
    if name == "gpt2":
        model = tfdsl.load(MODELS["gpt2"][0], "GPT2", **{**MODELS["gpt2"][2], "context": 16})
    else:
        turned = tmp_path / "dynamic.tfm"
        turned.write_text(
            'import Llama from "zoo/llama.tfm"\nimport rope_dynamic from "std/positions.tfm"\n'
            "model Dynamic extends Llama { rotary = rope_dynamic(base=theta, factor=4, limit=16) }\n"
        )
        model = tfdsl.load(turned, **MODELS["llama"][2])
    model.build("openvino", tmp_path / "out", seed=0, cache=True, longest=16, pipeline="paged")
    pipeline = genai.LLMPipeline(tmp_path / "out", "CPU", **HINTS, ATTENTION_BACKEND=way)

    def generated(new: int) -> list[list[int]]:
        given = left_padded(20, (7, 4))
        tensors = (openvino.Tensor(np.ascontiguousarray(given[key])) for key in ("tokens", "attention_mask"))
        config = greedy(genai)
        config.max_new_tokens = new
        tokens: list[list[int]] = pipeline.generate(genai.TokenizedInputs(*tensors), config).tokens
        return tokens

    assert [len(row) for row in generated(10)] == [10, 10]  # the last token is not fed back
    with pytest.raises(RuntimeError, match="at most 16 positions"):
        generated(12)


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123":
        letters[letter] = len(letters)
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    document = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "left", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(document))


def test_text_goes_in_and_out(tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    pytest.importorskip("openvino_tokenizers")
    write_tokenizer(tmp_path / "tokenizer")
    model = small("llama")
    model.build("openvino", tmp_path / "out", seed=0, cache=True, tokenizer=tmp_path / "tokenizer", pipeline="paged")
    config = greedy(genai)
    found = [genai.LLMPipeline(tmp_path / "out", "CPU", **HINTS).generate("a b c", config)]
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1
    batching = genai.ContinuousBatchingPipeline(str(tmp_path / "out"), scheduler, "CPU", HINTS)
    found += [each.m_generation_ids[0] for each in batching.generate(["a b c"], [config])]
    assert found[0] == found[1] and found[0]
