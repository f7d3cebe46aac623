"""A golden file for each code of what comes after a spec: passes, targets, reports, weight files, the command line.

Specs themselves have theirs in `test_broken_specs.py`.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tfdsl
from tfdsl import cli
from tfdsl.backends import reference
from tfdsl.backends.onnx.lowerings import LOWERINGS
from tfdsl.backends.trials import choose_sizes
from tfdsl.decoding.generate import check_prompts
from tfdsl.decoding.manifest import Argument, Manifest, read_manifest
from tfdsl.decoding.running import runtime_generator
from tfdsl.decoding.sampling import Chooser, Sampling
from tfdsl.decoding.tokenizers import open_coder
from tfdsl.files import atomic_directory, atomic_file
from tfdsl.ir.graph import Graph, Initializer, Type, Value
from tfdsl.ir.text_parser import parse_graph
from tfdsl.ir.verify import verify
from tfdsl.language.codes import explain
from tfdsl.language.diagnostics import SpecError
from tfdsl.model import Model
from tfdsl.passes import Request, run
from tfdsl.passes.incremental import incremental
from tfdsl.passes.unroll import unroll
from tfdsl.weights import initial, materialise, memory, read

SMALL = """model Small(tokens: int[batch, seq]) -> logits: [batch, seq, 16] {
  param depth = 2
  require seq <= 8, "the table of positions is this long"
  table = embedding(size=16, dim=8)
  x = table(tokens)
  repeat h[depth] {
    x = x + linear(x, out=8) as up
  }
  return project(x, table.weight)
}

plan fast for Small { optimize { clean() } }
"""
DEEP = f"""model Deep(x: [batch, 4]) -> [batch, 4] {{
  repeat h[10_000] {{
    x = x{" |> relu" * 110}
  }}
  return x
}}
"""
CLASH = "model Clash(x: [batch, 4]) -> x: [batch, 4] {\n  return relu(x)\n}\n"
AHEAD = """model Ahead(tokens: int[batch, seq]) -> logits: [batch, seq, 16] {
  table = embedding(size=16, dim=8)
  x = table(tokens)
  q = rearrange(x, "b s d -> b 1 s d")
  y = attend(q, q, q) as look |> rearrange("b 1 s d -> b s d")
  return project(y, table.weight)
}
"""
CAPPED = """model Capped(tokens: int[batch, seq]) -> logits: [batch, seq, 16] {
  x = embedding(tokens, size=16, dim=8) as table
  q = rearrange(x, "b s d -> b 1 s d")
  y = attend(q, q + 1, q, mask=causal, softcap=30) as look |> rearrange("b 1 s d -> b s d")
  return linear(y, out=16) as head
}
"""
FAR = 'model Far(x: [batch, seq]) -> [batch, seq] {\n  require seq > 100_000, "it is for long inputs"\n  return x\n}\n'


def load(text: str = SMALL, **parameters: Any) -> Model:
    Path("spec.tfm").write_text(text, "utf-8")
    return tfdsl.load("spec.tfm", **parameters)


def tokens(*shape: int) -> dict[str, np.ndarray]:
    return {"tokens": np.zeros(shape, dtype=np.int64)}


def small_weights(**changed: Any) -> dict[str, Any]:
    return {**initial(load().graph, 0), **changed}


def _tied_and_pruned_once() -> None:
    graph = Graph("Tied")
    attributes = {"path": "table", "shape": (4, 4), "init": Initializer("zeros")}
    first, second = (Value(graph.add("weight", (), attributes).id) for _ in range(2))
    pruned = Value(graph.add("prune", [first], {"sparsity": 0.5}).id)
    graph.outputs = [("a", pruned), ("b", second)]
    materialise(graph, {"table": np.ones((4, 4), np.float32)})


def _illegal_graph() -> None:
    graph = Graph("Illegal")
    x = Value(graph.add("input", (), {"name": "x"}, (Type("float", (4,)),)).id)
    graph.outputs = [("y", Value(graph.add("relu", [x], {}, (Type("float", (5,)),)).id))]
    verify(graph, "some_pass")


def _saved(path: str, arrays: dict[str, Any]) -> str:
    save_file(arrays, path)
    return path


def _read(**changed: Any) -> None:
    read(_saved("weights.safetensors", small_weights(**changed)), load().graph)


def _missing() -> None:
    arrays = small_weights()
    del arrays["h.1.up.bias"]
    read(_saved("weights.safetensors", arrays), load().graph)


def _write_into_a_file() -> None:
    Path("file").write_text("")
    with atomic_file("file/model.onnx"):
        pass


def _folder_over_a_file() -> None:
    Path("file").write_text("")
    with atomic_directory("file"):
        pass


def _with_a_large_number() -> dict[str, Any]:
    return small_weights(**{"h.0.up.bias": np.full(8, 1e5, np.float32)})


def _cut_short() -> None:
    Path("decoder.json").write_text('{"format": 1, "target": ')
    read_manifest(Path())


def _manifest() -> Manifest:
    tokens = {"tokens": Argument("int", ("batch", "seq"))}
    return Manifest("onnx", "Small", "tokens", "logits", "model.onnx", vocab=16, inputs=tokens)


def _run(**options: Any) -> None:
    reference.run(load().graph, small_weights(), **options)


CASES: dict[str, Callable[[], object]] = {
    "T601": lambda: load().plan("fats"),
    "T604": lambda: run(load().graph, [Request("prune", ("h.*.upp",), {"sparsity": 0.5})]),
    "T605": lambda: parse_graph("model Small {"),
    "T606": lambda: unroll(load(DEEP).graph),
    "T609": _illegal_graph,
    "T701": _write_into_a_file,
    "T702": _folder_over_a_file,
    "T704": lambda: load().to_onnx("model.onnx", seed=0, dims={"bacth": 1}),
    "T705": lambda: _run(inputs={"token": np.zeros((1, 4), dtype=np.int64)}),
    "T706": lambda: _run(inputs=tokens(1, 9)),
    "T707": lambda: _run(inputs={"tokens": np.full((1, 4), 16)}),
    "T708": lambda: choose_sizes(load(FAR).graph, 1, 4),
    "T709": lambda: load(CLASH).to_onnx("model.onnx", seed=0),
    "T711": lambda: load().build("onnx", "out"),
    "T712": lambda: load().optimize('prune("h.**", sparsity=0.5)').build("torch", "out"),
    "T713": lambda: load().build("torch", "out", dims={"batch": 1}),
    "T714": lambda: load().build("onxx", "out", seed=0),
    "T715": lambda: load().build("onnx", "out", seed=0, weights={}),
    "T716": lambda: load().build("onnx", "out", seed=0, dtype="float61"),
    "T717": lambda: load().build("onnx", "out", seed=0, link=True),
    "T720": lambda: incremental(load(AHEAD).graph),
    "T721": lambda: load().report(dtype="float23"),
    "T722": lambda: load().report(sizes={"sequence": 4}),
    "T723": lambda: load().report(seq=9),
    "T731": lambda: load().draw("model.jpg"),
    "T734": lambda: load().draw("model.dot", depth=0),
    "T735": lambda: load(CAPPED).build("openvino", "out", seed=0, cache=True, pipeline="paged"),
    "T741": lambda: check_prompts(Manifest("onnx", "Silent", "x", "y", "model.onnx"), [[1]], None),
    "T742": lambda: read_manifest(Path()),
    "T743": _cut_short,
    "T744": lambda: load().build("torch", "out", cache=True, profile="ort"),
    "T745": lambda: runtime_generator(Path(), Manifest("torch", "Small", "tokens", "logits", "model.py")),
    "T746": lambda: open_coder(Path(), None),
    "T747": lambda: check_prompts(_manifest(), [[16]], None),
    "T748": lambda: Sampling(top_p=2),
    "T749": lambda: Chooser(Sampling(), 1).choose(np.array([[np.nan]])),
    "T751": lambda: load().build("torch", "out", cache=True, longest=9),
    "T801": _missing,
    "T802": lambda: _read(extra=np.zeros(3, np.float32)),
    "T803": lambda: _read(**{"h.0.up.bias": np.zeros(3, np.float32)}),
    "T804": lambda: _read(**{"h.0.up.bias": np.zeros(8, np.int64)}),
    "T805": lambda: read(Path("spec.tfm"), load().graph),
    "T806": lambda: read("pytorch_model.bin", load().graph),
    "T808": _tied_and_pruned_once,
    "T809": lambda: load().to_onnx("model.onnx", weights=_with_a_large_number(), dtype="float16"),
    "T903": lambda: explain("T999"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(code: str, make: Callable[[], object], golden: Callable[[str, str], None]) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {code}
    golden(f"codes/{code}.txt", f"{caught.value}\n")


@pytest.mark.parametrize("code", CASES)
def test_code(code: str, golden: Callable[[str, str], None]) -> None:
    check(code, CASES[code], golden)


def test_an_op_without_a_lowering(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LOWERINGS, "linear")
    check("T703", lambda: load().to_onnx("model.onnx", seed=0), golden)


def test_a_package_that_is_missing(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module

    def without_onnx(name: str, package: str | None = None) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return whole(name, package)

    monkeypatch.setattr(importlib, "import_module", without_onnx)
    check("T710", lambda: load().to_onnx("model.onnx", seed=0), golden)


def test_no_other_name_for_a_file(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*names: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    file = _saved("weights.safetensors", small_weights())
    check("T718", lambda: load().build("onnx", "out", weights=file, link=True), golden)


def test_no_converter(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfdsl.backends.openvino.tokenizers.NEEDED", ("a_converter",))
    Path("tokenizer.json").write_text('{"added_tokens": [{"id": 2, "content": "</s>"}]}')
    settings = {"seed": 0, "cache": True, "pipeline": "stateful", "tokenizer": Path()}
    check("T736", lambda: load().build("openvino", "out", **settings), golden)


def test_no_graphviz(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    check("T732", lambda: load().draw("model.svg"), golden)


def test_graphviz_fails(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path("dot").absolute()
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'Error: out of memory' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    check("T733", lambda: load().draw("model.svg"), golden)


def test_no_memory(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: 2**30)
    check("T807", lambda: memory.require_memory(2**33, "a model of this size"), golden)


def _command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.tfm.main(arguments, "tfm")
    assert ended.value.code
    return capsys.readouterr().err


def test_wrong_usage(golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    golden("codes/T901.txt", _command(["shwo", "spec.tfm"], capsys))


def test_the_system_refuses(
    golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    load()
    monkeypatch.setattr(cli, "_load", full)
    golden("codes/T902.txt", _command(["show", "spec.tfm"], capsys))
