"""`tfm verify --decode`, and the search for the first node that differs, with faults put into targets on purpose."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tfdsl
from tfdsl import verify as verifying
from tfdsl.backends.compare_decoding import GREEDY, compare_decoding, trials
from tfdsl.backends.differing import culprit, ending_at
from tfdsl.backends.reference.decoder import reference_decoder
from tfdsl.cli import tfm
from tfdsl.ir.graph import Graph
from tfdsl.language import modules
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.unroll import unroll
from tfdsl.weights import trial

for package in ("torch", "onnxruntime", "openvino"):
    pytest.importorskip(package)

SPECS = Path(__file__).parent.parent / "specs"
SMALL: dict[str, dict[str, Any]] = {
    "gpt2.tfm": {"vocab": 61, "context": 40, "width": 32, "depth": 2, "heads": 4},
    "llama.tfm": {"vocab": 61, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48},
    "mistral.tfm": {"vocab": 61, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48, "window": 5},
    "t5.tfm": {"vocab": 61, "width": 32, "depth": 2, "heads": 4, "head": 8, "hidden": 48},
}
NAMES = {"gpt2.tfm": "GPT2", "llama.tfm": "Llama3_8B", "mistral.tfm": "Mistral_7B", "t5.tfm": "T5"}
TARGETS = ("torch", "onnx", "openvino")


def small(file: str = "gpt2.tfm") -> Any:
    return tfdsl.load(SPECS / file, NAMES[file], **SMALL[file])


@pytest.mark.parametrize("file", SMALL)
@pytest.mark.parametrize("windows", ["masked", "kept"])
def test_the_reference_decodes_as_it_computes(file: str, windows: str) -> None:
    graph = small(file).graph
    weights = trial(graph, 0)
    session, manifest = reference_decoder(graph, weights, windows=windows)
    for each in trials(graph, weights):
        results = compare_decoding(graph, each, "reference", session, manifest, 1e-10)
        assert all(result.passed for result in results), results
    assert {len(each.padding) for each in trials(graph, weights)} == {3, 1}


@pytest.mark.parametrize("file", SMALL)
def test_every_form_of_every_decoder_agrees(file: str) -> None:
    verdict = small(file).verify(decode=True, lengths=[6], batches=[1])
    assert verdict.passed, verifying.render(verdict)
    forms = {result.target for result in verdict.results if result.output == GREEDY}
    assert forms == {f"{each} decoder" for each in ("torch,", "onnx, portable", "onnx, ort", "openvino,")} | {
        "reference"
    }


@pytest.mark.parametrize(
    "name", ["differential", "latent_attention", "talking_hybrid", "recurrent", "over_keys", "depths"]
)
def test_architectures_that_nobody_lists_decode_on_every_target(name: str) -> None:
    path = Path(__file__).parent / "architectures" / f"{name}.tfm"
    first = next(declared.name for declared in modules.load(path).models())
    verdict = tfdsl.load(path, first).verify(decode=True, lengths=[6], batches=[1])
    assert verdict.passed, verifying.render(verdict)
    greedy = {result.output for result in verdict.results} >= {GREEDY}
    assert greedy == (name != "latent_attention"), "it takes numbers, and chooses no tokens"


def test_rows_begin_with_as_many_positions_as_a_model_needs() -> None:
    graph = tfdsl.load(Path(__file__).parent / "architectures" / "over_keys.tfm", "OverKeys", count=7).graph
    for each in trials(graph, trial(graph, 0)):
        assert all(each.calls[0] - pad >= 7 for pad in each.padding)


LIMITED = {
    ("llama.tfm", "Llama"): "rope_dynamic(factor=4, limit=13)",
    ("phi3.tfm", "Phi3"): "rope_long(context=13, reach=52, short=[1.0, 1.1, 1.2, 1.5], long=[2.0, 3.0, 5.0, 9.0])",
}


@pytest.mark.parametrize(("file", "name"), LIMITED)
def test_models_with_a_limit_agree_within_it(file: str, name: str) -> None:
    settings = {key: str(value) for key, value in SMALL["llama.tfm"].items()} | {"rotary": LIMITED[file, name]}
    model = tfdsl.load(SPECS / file, name, settings=settings)
    verdict = model.verify(decode=True, lengths=[20], batches=[1], longest=13)
    assert verdict.passed, verifying.render(verdict)
    assert len({result.target for result in verdict.results if result.output == GREEDY}) == 5
    with pytest.raises(SpecError, match="T720"):
        model.verify(decode=True, longest=14)
    with pytest.raises(SpecError, match="T744"):
        model.verify(longest=13)


def break_op(target: str, op: str, monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any]) -> None:
    """Let the lowering of an op be `wrong(right lowering, ...)`, in whole models and in decoders."""
    backend = f"tfdsl.backends.{target}"
    tables = [importlib.import_module(f"{backend}.lowerings").LOWERINGS]
    for name in ("decoder_lowerings", "decoder"):
        try:
            tables.append(getattr(importlib.import_module(f"{backend}.{name}"), "LOWERINGS", {}))
        except ModuleNotFoundError:
            continue
    for table in tables:
        if op in table:
            right = table[op]
            monkeypatch.setitem(table, op, lambda *a, right=right, **b: wrong(right, *a, **b))


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_activation_is_found(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    relu = importlib.import_module(f"tfdsl.backends.{target}.lowerings").LOWERINGS["relu"]
    break_op(target, "gelu", monkeypatch, lambda right, *arguments, **rest: relu(*arguments, **rest))
    verdict = small().verify([target], lengths=[6], batches=[1], decode=True)
    assert not verdict.passed
    assert target in verdict.differing and len(verdict.differing) == (3 if target == "onnx" else 2)
    for name, error in verdict.differing.items():
        (found,) = error.diagnostics
        assert found.code == "T750"
        assert found.message == f"{verifying.title(name)} first differs from the reference at `gelu`"
        assert found.span is not None and found.span.text == "gelu(approximate=true)"
        assert found.note == "it is in `h.0.mlp`"
        assert str(error) in verifying.render(verdict)


def test_a_fault_in_one_turn_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fourth(right: Callable[..., Any], builder: Any, *arguments: Any) -> Any:
        builder.additions = getattr(builder, "additions", 0) + 1
        attributes, a, b = arguments
        return right(builder, attributes, a, a if builder.additions == 4 else b)

    break_op("onnx", "add", monkeypatch, fourth)
    verdict = small().verify(["onnx"], lengths=[6], batches=[1])
    (found,) = verdict.differing["onnx"].diagnostics
    assert found.message.endswith("at `add`")
    assert found.note == "it follows `h.1.attn`"


def test_a_fault_of_loops_alone_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that is gone when the graph is flat is still reported, without a place."""
    layers = importlib.import_module("tfdsl.backends.torch")
    right = layers.session

    def wrong(graph: Graph, *arguments: Any) -> Any:
        looped = any(node.op == "repeat" for node in graph.nodes())
        made = right(graph, *arguments)
        return (lambda inputs: {name: 2 * value for name, value in made(inputs).items()}) if looped else made

    monkeypatch.setattr(layers, "session", wrong)
    verdict = small().verify(["torch"], lengths=[6], batches=[1])
    assert not verdict.passed
    assert not verdict.differing


def test_a_graph_that_ends_early_has_what_it_needs() -> None:
    graph = unroll(small().graph)
    half = graph.nodes()[len(graph) // 2]
    short = ending_at(graph, graph.outputs[0][1]._replace(node=half.id, index=0))
    assert len(short) < len(graph)
    assert [short.node(place).attributes for place in short.inputs] == [
        graph.node(place).attributes for place in graph.inputs
    ]


def test_a_model_that_looks_ahead_cannot_be_decoded() -> None:
    model = tfdsl.load(SPECS / "bert.tfm", "BertForMaskedLM", vocab=61, context=32, width=32, depth=1, heads=4)
    with pytest.raises(SpecError, match="T720"):
        model.verify(["onnx"], decode=True)


def test_the_command_takes_sizes_and_a_tolerance() -> None:
    settings = [part for name, value in SMALL["gpt2.tfm"].items() for part in ("--set", f"{name}={value}")]
    arguments = ["verify", str(SPECS / "gpt2.tfm"), *settings, "--to", "onnx", "--batch", "2", "--seq", "7"]
    found = CliRunner().invoke(tfm, arguments)
    assert (found.exit_code, "at batch=2, seq=7" in found.output) == (0, True), found.output
    found = CliRunner().invoke(tfm, [*arguments, "--tolerance", "1e-30"])
    assert (found.exit_code, "more than 1e-30" in found.output) == (1, True), found.output


def test_element_types_reach_decoders() -> None:
    verdict = small().verify(["onnx"], decode=True, lengths=[6], batches=[1], dtype="float16")
    assert verdict.passed, verifying.render(verdict)
    assert max(result.error for result in verdict.results) > 1e-5


def test_the_culprit_is_named(golden: Callable[[str, str], None]) -> None:
    graph = small().graph
    node = next(node for node in graph.nodes() if node.op == "layer_norm")
    error = culprit(graph, node, "ONNX")
    shown = str(error).replace(str(SPECS), "specs")
    golden("codes/T750.txt", f"{shown}\n")
