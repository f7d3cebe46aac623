"""Drawings: what they show of a graph, in golden files and by asking; pictures through the program `dot`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tfdsl
from tfdsl.backends.graphviz import dot, draw, program
from tfdsl.backends.graphviz.looks import LOOKS
from tfdsl.backends.graphviz.turns import runs
from tfdsl.ir.graph import Frame, Graph, Initializer, Type, Value
from tfdsl.ir.ops import OPS
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.unroll import unroll

SPECS = Path(__file__).parent.parent / "specs"
MODELS = [("gpt2", "GPT2"), ("bert", "BertForMaskedLM"), ("llama", "Llama3_8B"), ("t5", "T5"), ("vit", "ViT")]
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is not installed")

BLOCKS = """
block MLP(x: [..., width]) -> [..., width] {
  param hidden = 4 * width
  return x |> linear(out=hidden) as up |> gelu |> linear(out=width) as down
}

block Attention(x: [batch, seq, width], memory: [batch, other, width]) -> [batch, seq, width] {
  q = linear(x, out=width) as q |> rearrange("b s (h d) -> b h s d", h=2)
  k, v = linear(memory, out=2 * width) as kv
      |> rearrange("b s (n h d) -> n b h s d", n=2, h=2)
      |> split(parts=2, axis=0, squeeze=true)
  return attend(q, k, v) |> rearrange("b h s d -> b s (h d)") |> linear(out=width) as out
}
"""

DECODER = """
model Decoder(tokens: int[batch, seq]) -> logits: [batch, seq, 10] {
  table = embedding(size=10, dim=8)
  places = embedding(size=16, dim=8)
  x = table(tokens) + places(positions(tokens)) |> dropout(p=0.1)
  repeat h[3] {
    n = layer_norm(x) as norm_1
    x = x + Attention(n, n) as attn
    x = x + MLP(layer_norm(x) as norm_2) as mlp
  }
  return project(layer_norm(x) as norm, table.weight)
}
"""

TRANSLATOR = """
model Translator(inputs: int[batch, source], outputs: int[batch, target]) -> [batch, target, 10] {
  table = embedding(size=10, dim=8)
  m = table(inputs)
  repeat encoder[2] { m = m + Attention(m, m) as self }
  x = table(outputs)
  repeat decoder[2] {
    x = x + Attention(x, x) as self
    x = x + Attention(x, m) as cross
  }
  return linear(x / 8, out=10) as head
}
"""

TURNS = """
model Turns(x: [batch, 8]) -> [batch, 8] {
  scale = weight(shape=[8], init=ones)
  repeat first[7] as i {
    x = if i == 0 then MLP(x, hidden=4) as mlp else if i % 2 == 1 then x + MLP(x) as mlp else x * scale
  }
  repeat last[24] as i { x = if (i * i + i) % 15 > 8 then linear(x, out=8) as a else relu(x) }
  return x
}
"""

OUTER = """
block Layer(x: [..., width]) -> [..., width] { return x + MLP(layer_norm(x) as norm) as mlp }

model Inner(x: [batch, 8]) -> y: [batch, 8], z: [batch] {
  repeat layers[4] { x = Layer(x) }
  return x, mean(x)
}

model Outer(x: [batch, 8], gate: [8]) -> [batch, 3] {
  y, z = Inner(x) as inner
  shared = MLP(hidden=2)
  return linear(shared(shared(y)) * sigmoid(gate), out=3) as head
}
"""

Load = Callable[..., Graph]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, model)`: the graph of a model of a spec given as text."""

    def make(text: str, model: str | None = None, **params: Any) -> Graph:
        file = tmp_path / "spec.tfm"
        file.write_text(BLOCKS + text, encoding="utf-8")
        return tfdsl.load(file, model, **params).graph

    return make


def titles(source: str) -> list[str]:
    """The text of every box of a drawing, its lines joined, in order."""
    labels = re.findall(r"^ *n\d+ \[.*?label=(<.*>|\"[^\"]*\")(?:,|\])", source, re.MULTILINE)
    plain = (re.sub(r"<[^>]*>", " ", label.removeprefix("<").removesuffix(">")).strip('"') for label in labels)
    return [" ".join(text.split()) for text in plain]


def lay_out(source: str) -> None:
    """Have `dot` read and lay out a drawing; it must have nothing to complain of."""
    done = subprocess.run(["dot", "-Tplain"], input=source.encode(), capture_output=True, check=True, timeout=60)
    assert done.stderr == b""


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "model", "depth"),
    [
        ("decoder", DECODER, None, 2),
        ("decoder_overview", DECODER, None, 1),
        ("decoder_open", DECODER, None, 3),
        ("translator", TRANSLATOR, None, 2),
        ("turns", TURNS, None, 2),
        ("outer", OUTER, "Outer", 2),
    ],
)
def test_golden(load: Load, golden: Callable[[str, str], None], name: str, text: str, model: str, depth: int) -> None:
    graph = load(text, model)
    source = dot(graph, depth)
    golden(f"graphviz/{name}.dot", source)
    assert dot(graph, depth) == source, "the same graph is drawn the same"
    assert dot(parse_graph(print_graph(graph)), depth) == source, "and so is its text form"


@needs_dot
@pytest.mark.parametrize("name", ["decoder", "decoder_overview", "decoder_open", "translator", "turns", "outer"])
def test_golden_drawings_are_dot(name: str) -> None:
    lay_out((Path(__file__).parent / "golden" / "graphviz" / f"{name}.dot").read_text(encoding="utf-8"))


def test_boxes_hold_their_parameters(load: Load) -> None:
    shown = titles(dot(load(DECODER)))
    attention, mlp = 8 * 8 + 8 + 16 * 8 + 16 + 8 * 8 + 8, 32 * 8 + 32 + 8 * 32 + 8
    assert f"Attention attn · {attention}" in shown
    assert f"MLP {mlp}" in shown
    assert "Embedding table · 80" in shown
    assert "Linear tied to table" in shown
    total = 80 + 128 + 3 * (attention + mlp + 32) + 16
    assert f"{total:,} parameters" in dot(load(DECODER))
    assert f">{3 * (attention + mlp + 32):,}</font>" in dot(load(DECODER)), "those of all turns, on the loop"


def test_residual_paths_and_ties_are_drawn(load: Load) -> None:
    source = dot(load(DECODER))
    assert len(re.findall(r"n\d+:e -> n\d+:e \[weight=0\]", source)) == 2
    assert len(re.findall("style=dashed", source)) == 1
    assert titles(source).count("+") == 3


def test_shapes_are_on_the_edges(load: Load) -> None:
    source = dot(load(DECODER))
    for shape in ("batch × seq", "seq", "batch × seq × 8", "seq × 8", "batch × seq × 10"):
        assert f'label="{shape}"' in source
    assert 'label="k, v: batch × 2 × seq × 4"' in dot(load(DECODER), 3)


def test_plumbing_is_folded_away(load: Load) -> None:
    for depth in (1, 2, 3, 9):
        assert not {"rearrange", "dropout", "split", "cast"} & {
            word for t in titles(dot(load(DECODER), depth)) for word in t.split()
        }


def test_memory_reaches_the_decoder(load: Load) -> None:
    source = dot(load(TRANSLATOR))
    assert titles(source).count("÷ 8") == 1
    assert len(re.findall(r"subgraph cluster_\d+", source)) == 2


def test_a_loop_without_turns_is_not_drawn(load: Load) -> None:
    text = "model M(x: [n, 4]) -> [n, 4] { param d = 0\n repeat h[d] { x = relu(x) }\n return tanh(x) }"
    source = dot(load(text))
    assert titles(source) == ["x", "Tanh", "output"] and "cluster" not in source
    assert titles(dot(load(text, d=1))) == ["x", "ReLU", "Tanh", "output"]


def test_what_only_a_penalty_needs_is_left_out(load: Load) -> None:
    text = "model M(x: [n, 4]) -> [n, 4] { penalty p = mean(mean(exp(x)))\n return tanh(x) }"
    assert titles(dot(load(text))) == ["x", "Tanh", "output"]


def test_inputs_that_go_nowhere_and_straight_through(load: Load) -> None:
    graph = load("model M(x: [n, 4], y: [n, 4]) -> a: [n, 4], b: [n, 4] { return x, x }")
    assert titles(dot(graph)) == ["x", "y", "a", "b"]
    assert dot(graph).count("->") == 4, "two edges, each with its shape on it"


def test_both_operands_of_a_square_are_drawn(load: Load) -> None:
    source = dot(load("model M(x: [n, 4]) -> [n, 4] { y = tanh(x)\n return y * y }"))
    assert source.count("n1 -> n2;") == 2


def test_numbers_stand_in_the_boxes_that_read_them(load: Load) -> None:
    text = "model M(x: [n, 4]) -> [n, 4] { return 1 - (2 + x) * 0.125 / 3 + maximum(x, 0.5) }"
    assert {"+ 2", "× 0.125", "÷ 3", "1 −", "maximum 0.5"} <= {*titles(dot(load(text)))}


def test_what_passes_did_to_weights_is_noted() -> None:
    graph = Graph("Q")
    x = graph.add("input", (), {"name": "x"}, (Type("float", (2, 4)),))
    weight = graph.add("weight", (), {"path": "f.weight", "shape": (6, 4), "init": Initializer("zeros")})
    pruned = graph.add("prune", [Value(weight.id)], {"sparsity": 0.5})
    whole = graph.add("quantize", [Value(pruned.id)], {"bits": 8})
    back = graph.add("dequantize", [Value(whole.id), Value(whole.id, 1)])
    y = graph.add("linear", [Value(x.id), Value(back.id), None], {"out": 6, "bias": False})
    graph.outputs = [("y", Value(y.id))]
    assert titles(dot(graph)) == ["x", "Linear f · 50% sparse · int8 · 24", "y"]
    z = graph.add("relu", [Value(y.id)])
    graph.outputs = [("z", Value(z.id))]
    frame = Frame("f", "F", {})
    for node in (weight, pruned, whole, back, y):
        node.scope = (frame,)
    assert titles(dot(graph)) == ["x", "F 50% sparse · int8 · 24", "ReLU", "z"], "on the box of a block, too"


def test_tables_of_numbers_are_named_where_they_matter(load: Load) -> None:
    text = """
    model M(x: [batch, seq, 4]) -> [batch, seq, seq] {
      at = positions(x, axis=1)
      seen = rearrange(at, "q -> q 1") >= rearrange(at, "k -> 1 k")
      return where(seen, softmax(x @ swap(x)), 0.0)
    }
    """
    assert {"seen", "Where 0"} <= {*titles(dot(load(text)))}


def test_turns_with_a_pattern() -> None:
    def shown(turns: str) -> list[tuple[str, int, int]]:
        return [
            (" ".join(f"{body}x{count}" for body, count in run.row), run.count, run.start)
            for run in runs(tuple(map(int, turns))) or []
        ]

    assert shown("") == []
    assert shown("0000") == [("0x1", 4, 0)]
    assert shown("010101") == [("0x1 1x1", 3, 0)]
    assert shown("000111") == [("0x1", 3, 0), ("1x1", 3, 3)]
    assert shown("000001000001") == [("0x5 1x1", 2, 0)]
    assert shown("2010101") == [("2x1", 1, 0), ("0x1 1x1", 3, 1)]
    assert runs([0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 0]) is None


# --- any graph -------------------------------------------------------------------------------------------------------


@needs_dot
@pytest.mark.parametrize(("spec", "model"), MODELS)
def test_shipped_specs_at_every_depth(spec: str, model: str) -> None:
    graph = tfdsl.load(SPECS / f"{spec}.tfm", model).graph
    for depth in (1, 2, 3, 4):
        lay_out(dot(graph, depth))
    lay_out(dot(unroll(graph)))


def test_a_loop_of_many_layers_is_drawn_once() -> None:
    graph = tfdsl.load(SPECS / "llama.tfm", "Llama3_405B").graph
    source = dot(graph)
    assert "× 126" in source and len(source) < 10_000


def test_every_op_can_be_drawn() -> None:
    """A graph in which each op stands alone, with inputs that nothing else has: no op may be unknown to the drawing."""
    graph = Graph("Ops")
    for op in OPS.values():
        if op.name in ("input", "repeat", "route", "weight", "constant"):
            continue
        operands = [operand for operand in op.operands if not operand.optional]
        inputs = [graph.add("input", (), {"name": f"{op.name}_{o.name}"}, (Type("float", (2, 4)),)) for o in operands]
        inputs += [graph.add("weight", (), {"path": f"{op.name}.w", "shape": (2,), "init": Initializer("ones")})] * (
            not inputs
        )
        values: list[Value | None] = [Value(node.id) for node in inputs]
        values += [None] * (len(op.operands) - len(values))
        attributes = {a.name: _SOME.get(a.kind, 1) for a in op.attributes if a.required}
        node = graph.add(op.name, values, attributes, (Type("float", (2, 4)),))
        graph.outputs.append((op.name, Value(node.id)))
    source = dot(graph)
    assert {*LOOKS} <= {*OPS}
    if shutil.which("dot"):
        lay_out(source)


_SOME: dict[str, Any] = {"string": "a b -> b a", "sizes": (2, 4), "ints": (1, 1), "number": 0.5}


NASTY = 'a"b\\<i>&amp;\n\x00\ud800{|}' + "x" * 200


@needs_dot
def test_names_are_escaped(tmp_path: Path) -> None:
    graph = Graph(NASTY)
    x = graph.add("input", (), {"name": NASTY}, (Type("float", (2, 4)),))
    weight = graph.add("weight", (), {"path": f"{NASTY}.weight", "shape": (4, 4), "init": Initializer("zeros")})
    frame = Frame(f"{NASTY}.{NASTY}", NASTY, {})
    y = graph.add("linear", [Value(x.id), Value(weight.id), None], {"out": 4, "bias": False}, scope=(frame,))
    z = graph.add("split", [Value(y.id)], {"parts": 2}, labels=(NASTY, NASTY))
    w = graph.add("add", [Value(z.id), Value(z.id, 1)], scope=(frame,))
    graph.outputs = [(NASTY, Value(w.id))]
    for depth in (1, 2, 3):
        lay_out(dot(graph, depth))
    for ending in ("dot", "svg"):
        draw(graph, tmp_path / f"nasty.{ending}")
    assert "&lt;i&gt;" in (tmp_path / "nasty.svg").read_text(encoding="utf-8")


@needs_dot
def test_a_block_in_pieces() -> None:
    """Passes may leave a block's nodes apart, so that its box both feeds and follows another."""
    graph = Graph("Pieces")
    frame = Frame("a", "A", {})
    node = graph.add("input", (), {"name": "x"}, (Type("float", (2, 4)),))
    for op, scope in (("tanh", (frame,)), ("exp", ()), ("relu", (frame,)), ("gelu", ())):
        node = graph.add(op, [Value(node.id)], scope=scope)
    graph.outputs = [("y", Value(node.id))]
    assert titles(dot(graph)) == ["x", "A", "Exp", "GELU", "y"]
    lay_out(dot(graph))


def test_the_graph_is_left_as_it_was(load: Load) -> None:
    graph = load(DECODER)
    before = print_graph(graph)
    dot(graph, 1)
    dot(graph, 9)
    assert print_graph(graph) == before


# --- files -----------------------------------------------------------------------------------------------------------


@needs_dot
@pytest.mark.parametrize(
    ("ending", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_pictures(load: Load, tmp_path: Path, ending: str, start: bytes) -> None:
    target = tmp_path / f"model.{ending}"
    draw(load(DECODER), target)
    assert target.read_bytes().startswith(start)


def test_without_the_program(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    graph = load(DECODER)
    draw(graph, tmp_path / "model.dot")
    assert (tmp_path / "model.dot").read_text(encoding="utf-8") == dot(graph)
    with pytest.raises(SpecError) as error:
        draw(graph, tmp_path / "model.svg")
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "T732"
    assert "apt install graphviz" in diagnostic.help and ".dot" in diagnostic.help
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.dot", "spec.tfm"], "nothing half-written is left"


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("echo broken >&2; exit 1", "T733", "`dot` failed: broken"),
        ("exec sleep 5", "T733", "still at work after 1 seconds"),
    ],
)
def test_a_program_that_fails(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, code: str, said: str
) -> None:
    fake = tmp_path / "bin" / "dot"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/bin:/usr/bin")
    monkeypatch.setattr(program, "SECONDS", 1)
    with pytest.raises(SpecError) as error:
        draw(load(DECODER), tmp_path / "out" / "model.png")
    (diagnostic,) = error.value.diagnostics
    assert (diagnostic.code, said in diagnostic.message) == (code, True)
    assert not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("name", ["model.jpeg", "model", "model.pngg", ".dot"])
def test_other_endings(load: Load, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as error:
        draw(load(DECODER), tmp_path / name)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "T731" and ".png" in diagnostic.help


def test_a_depth_of_nothing(load: Load) -> None:
    with pytest.raises(SpecError) as error:
        dot(load(DECODER), 0)
    assert error.value.diagnostics[0].code == "T734"


def test_a_drawing_loads_no_framework(tmp_path: Path) -> None:
    script = (
        "import sys, tfdsl;"
        f"tfdsl.load({str(SPECS / 't5.tfm')!r}, 'T5').draw({str(tmp_path / 'x.dot')!r});"
        "print([name for name in ('torch', 'onnx', 'openvino', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
