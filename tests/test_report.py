"""The report: parameters, bytes and operations against counts made by hand, sizes, JSON and text."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tfdsl
from tfdsl.ir.graph import Graph, Initializer, Type, Value
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.unroll import unroll
from tfdsl.report import report
from tfdsl.report.quantities import short_bytes, short_count, short_operations

SPECS = Path(__file__).parent.parent / "specs"

SMALL = """
block MLP(x: [..., width]) -> [..., width] {
  return x |> linear(out=4 * width) as up |> gelu |> linear(out=width) as down
}

block Attention(x: [batch, seq, width]) -> [batch, seq, width] {
  q, k, v = linear(x, out=3 * width, bias=false) as qkv |> split(parts=3)
  q = rearrange(q, "b s (h d) -> b h s d", h=2)
  k = rearrange(k, "b s (h d) -> b h s d", h=2)
  v = rearrange(v, "b s (h d) -> b h s d", h=2)
  return attend(q, k, v, mask=causal) |> rearrange("b h s d -> b s (h d)") |> linear(out=width) as out
}

model Small(tokens: int[batch, seq]) -> [batch, seq, 10] {
  param depth = 3
  require seq <= 16
  table = embedding(size=10, dim=8)
  x = table(tokens)
  repeat h[depth] {
    x = x + Attention(x) as attn
    x = x + MLP(layer_norm(x) as norm) as mlp
  }
  return project(x, table.weight)
}
"""

Load = Callable[..., Graph]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, model)`: the graph of a model of a spec given as text."""

    def make(text: str, model: str | None = None, **params: Any) -> Graph:
        file = tmp_path / "spec.tfm"
        file.write_text(text, encoding="utf-8")
        return tfdsl.load(file, model, **params).graph

    return make


def code_of(error: pytest.ExceptionInfo[SpecError]) -> str:
    (diagnostic,) = error.value.diagnostics
    return diagnostic.code


ATTENTION, NORM, MLP = 24 * 8 + 8 * 8 + 8, 2 * 8, 32 * 8 + 32 + 8 * 32 + 8


def test_parameters_are_exact_and_tied_ones_count_once(load: Load) -> None:
    made = report(load(SMALL))
    assert made.parameters == made.trainable == 80 + 3 * (ATTENTION + NORM + MLP)


def test_blocks_collapse_the_turns_of_a_loop(load: Load) -> None:
    made = report(load(SMALL))
    found = {block.path: (block.copies, block.parameters_each, block.parameters) for _, block in made.blocks.walk()}
    assert found["table"] == (1, 80, 80)
    assert found["h.*"] == (3, ATTENTION + NORM + MLP, 3 * (ATTENTION + NORM + MLP))
    assert found["h.*.attn"] == (3, ATTENTION, 3 * ATTENTION)
    assert found["h.*.mlp.up"] == (3, 288, 864)
    assert found["h.*.attn.attend"] == (None, None, 0)
    assert list(found)[:4] == ["table", "h.*", "h.*.attn", "h.*.attn.qkv"]


def test_operations_by_hand(load: Load) -> None:
    made = report(load(SMALL), batch=2, seq=5)
    tokens = 2 * 5
    products = 3 * 2 * tokens * (8 * 24 + 8 * 8 + 8 * 32 + 32 * 8) + 2 * tokens * 8 * 10
    pairs = 5 * 6 // 2
    attention = 3 * 2 * 2 * pairs * (2 * (4 + 4) + 5)
    other = 3 * tokens * (8 * 2 + 8 * 8 + 32 * 8)
    assert made.flops_by_kind == {"matmul": products, "attention": attention, "other": other}
    assert made.flops == products + attention + other == made.blocks.flops
    by_path = {block.path: block.flops for _, block in made.blocks.walk()}
    assert by_path["h.*.attn.qkv"] == 3 * 2 * tokens * 8 * 24
    assert by_path["h.*.attn.attend"] == attention
    assert by_path["project"] == 2 * tokens * 8 * 10, "a tied output head does not count in the embedding"
    assert by_path["table"] == 0


def test_the_formula_gives_the_number(load: Load) -> None:
    made = report(load(SMALL), batch=3, seq=7)
    assert made.formula is not None
    assert eval(made.formula, {"batch": 3, "seq": 7}) == made.flops


def test_largest_value(load: Load) -> None:
    made = report(load(SMALL), batch=2, seq=5)
    assert made.largest is not None
    assert (made.largest.name, made.largest.shape, made.largest.elements) == ("up", (2, 5, 32), 320)


def test_no_turns_and_parts_of_the_turns(load: Load) -> None:
    text = """
    model M(x: [batch, 4]) -> [batch, 4] {
      param never = 0
      repeat empty[never] { x = linear(x, out=4) as a }
      repeat some[5] as i {
        x = if i % 2 == 0 then linear(x, out=4) as even else linear(x, out=4, bias=false) as odd
      }
      return x
    }
    """
    made = report(load(text))
    found = {block.path: (block.copies, block.parameters_each) for _, block in made.blocks.walk()}
    assert made.parameters == 3 * 20 + 2 * 16
    assert found == {"some.*": (5, None), "some.*.even": (3, 20), "some.*.odd": (2, 16)}
    assert "varies" in str(made)
    assert report(unroll(load(text))).as_json() == made.as_json()


def test_nested_loops(load: Load) -> None:
    text = """
    model M(x: [batch, 4]) -> [batch, 4] {
      repeat outer[3] {
        repeat inner[2] { x = linear(x, out=4, bias=false) as f }
        x = linear(x, out=4, bias=false) as g
      }
      return x
    }
    """
    made = report(load(text), batch=1)
    found = {block.path: (block.copies, block.parameters_each) for _, block in made.blocks.walk()}
    assert found == {
        "outer.*": (3, 48),
        "outer.*.inner.*": (6, 16),
        "outer.*.inner.*.f": (6, 16),
        "outer.*.g": (3, 16),
    }
    assert made.flops == 9 * 2 * 16
    assert report(unroll(load(text))).as_json() == made.as_json()


def test_a_layer_shared_by_all_turns_counts_once(load: Load) -> None:
    text = """
    model M(x: [batch, 4]) -> [batch, 4] {
      f = linear(out=4, bias=false)
      repeat h[3] { x = f(x) }
      return f(x)
    }
    """
    made = report(load(text), batch=1)
    assert made.parameters == 16
    assert made.flops == 4 * 2 * 16
    assert {block.path: block.flops for _, block in made.blocks.walk()} == {"f": 4 * 2 * 16}


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2), ("int8", 1), ("int4", 0.5)]
)
def test_bytes(load: Load, dtype: str, size: float) -> None:
    made = report(load(SMALL), dtype=dtype)
    assert made.bytes == made.parameters * size
    assert made.as_json()["bytes"] == {"total": made.bytes, "dtype": dtype}


def quantised(group: int | None = None, bits: int = 8) -> Graph:
    """A linear layer without bias, [6, 4], whose weight is pruned by a quarter and then quantised."""
    graph = Graph("Q")
    x = graph.add("input", (), {"name": "x"}, (Type("float", (2, 4)),))
    attributes = {"path": "f.weight", "shape": (6, 4), "init": Initializer("zeros")}
    weight = graph.add("weight", (), attributes)
    pruned = graph.add("prune", [Value(weight.id)], {"sparsity": 0.3})
    whole = graph.add("quantize", [Value(pruned.id)], {"bits": bits, "group": group})
    back = graph.add("dequantize", [Value(whole.id), Value(whole.id, 1)])
    y = graph.add("linear", [Value(x.id), Value(back.id), None], {"out": 6, "bias": False}, name="f")
    graph.outputs = [("y", Value(y.id))]
    return graph


@pytest.mark.parametrize(
    ("group", "bits", "expected"), [(None, 8, 24 + 4 * 6), (2, 8, 24 + 4 * 12), (None, 4, 12 + 4 * 6)]
)
def test_quantised_weights_count_as_they_are_stored(group: int | None, bits: int, expected: int) -> None:
    made = report(quantised(group, bits), dtype="float16")
    assert made.bytes == expected
    assert (made.parameters, made.trainable, made.zeros) == (24, 0, 7)
    assert {block.path: block.flops for _, block in made.blocks.walk()} == {"f": 2 * 2 * 24}
    assert "7 (29.2%)" in str(made)


def test_zeros_of_a_pattern() -> None:
    graph = quantised()
    (pruned,) = (node for node in graph.nodes() if node.op == "prune")
    pruned.attributes |= {"pattern": "2:4"}
    assert report(graph).zeros == 12


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_sizes_follow_what_the_model_allows(load: Load) -> None:
    assert report(load(SMALL)).sizes == {"batch": 1, "seq": 16}
    free = load(SMALL.replace("require seq <= 16", ""))
    assert report(free).sizes == {"batch": 1, "seq": 128}
    assert report(free, batch=4, seq=9).sizes == {"batch": 4, "seq": 9}
    assert report(free, sizes={"batch": 2, "seq": 3}, batch=4, seq=9).sizes == {"batch": 2, "seq": 3}


@pytest.mark.parametrize(
    ("require", "expected"),
    [
        ("require seq < 100", 99),
        ("require seq % 48 == 0", 96),
        ("require seq >= 500", 500),
        ("require 64 >= seq", 64),
        ("require seq % 200 == 0", 200),
        ("require seq <= 1_000\n require seq % 64 == 0", 960),
    ],
)
def test_the_longest_length_that_is_allowed(load: Load, require: str, expected: int) -> None:
    assert report(load(SMALL.replace("require seq <= 16", require))).sizes["seq"] == expected


def test_each_length_has_its_own_limit(load: Load) -> None:
    text = """
    model M(a: [batch, source, 4], b: [batch, target, 4]) -> [batch, target, 4] {
      require source <= 40
      require target <= source
      q = rearrange(b, "b s (h d) -> b h s d", h=1)
      k = rearrange(a, "b s (h d) -> b h s d", h=1)
      return attend(q, k, k) |> rearrange("b h s d -> b s (h d)")
    }
    """
    assert report(load(text)).sizes == {"batch": 1, "source": 40, "target": 40}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"dtype": "float23"}, "T721"),
        ({"sizes": {"sequence": 4}}, "T722"),
        ({"batch": 0}, "T722"),
        ({"seq": -1}, "T722"),
        ({"seq": 2.5}, "T722"),
        ({"seq": 17}, "T723"),
    ],
)
def test_what_cannot_be_counted(load: Load, options: dict[str, Any], code: str) -> None:
    with pytest.raises(SpecError) as error:
        report(load(SMALL), **options)
    assert code_of(error) == code


def test_a_broken_requirement_is_shown_where_it_stands(load: Load) -> None:
    with pytest.raises(SpecError) as error:
        report(load(SMALL), seq=17)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.span is not None and diagnostic.span.text == "require seq <= 16"
    assert "seq = 17" in diagnostic.message


def test_a_size_below_zero_is_refused(load: Load) -> None:
    text = "model M(x: [batch, 1, seq]) -> [batch, 1, seq - 4] { return conv1d(x, out=1, kernel=5) as c }"
    assert report(load(text)).sizes["seq"] == 128
    with pytest.raises(SpecError) as error:
        report(load(text), seq=2)
    assert code_of(error) == "T723"


# --- the whole -------------------------------------------------------------------------------------------------------


def test_json_and_text_stay_as_they_are(load: Load, golden: Callable[[str, str], None]) -> None:
    made = report(load(SMALL), batch=2)
    golden("report/small.json", json.dumps(made.as_json(), indent=2) + "\n")
    golden("report/small.txt", str(made) + "\n")


def test_rich_says_what_the_text_says(load: Load) -> None:
    from rich.console import Console

    made = report(load(SMALL))
    console = Console(width=140, file=io.StringIO())
    with console.capture() as captured:
        console.print(made)
    words = [word for word in captured.get().split() if not set(word) <= set("─-")]
    assert words == [word for word in str(made).split() if not set(word) <= set("-")]


def test_the_graph_is_left_as_it_was(load: Load) -> None:
    graph = load(SMALL)
    before = repr([(node, node.bodies and [body.nodes() for body in node.bodies]) for node in graph.nodes()])
    report(graph)
    assert before == repr([(node, node.bodies and [body.nodes() for body in node.bodies]) for node in graph.nodes()])


@pytest.mark.parametrize(
    ("spec", "model"),
    [("gpt2", "GPT2"), ("bert", "BertForMaskedLM"), ("t5", "T5"), ("vit", "ViT"), ("llama", "Llama3_8B")],
)
def test_an_unrolled_model_counts_the_same(spec: str, model: str) -> None:
    graph = tfdsl.load(SPECS / f"{spec}.tfm", model).graph
    made, flat = report(graph), report(unroll(graph))
    assert (made.parameters, made.bytes, made.flops, made.formula) == (
        flat.parameters,
        flat.bytes,
        flat.flops,
        flat.formula,
    )
    rows = [(b.path, b.copies, b.parameters_each, b.parameters) for _, b in made.blocks.walk() if b.parameters]
    assert rows == [(b.path, b.copies, b.parameters_each, b.parameters) for _, b in flat.blocks.walk() if b.parameters]


def test_a_report_loads_no_framework() -> None:
    script = (
        "import sys, tfdsl;"
        f"tfdsl.load({str(SPECS / 'llama.tfm')!r}, 'Llama3_405B').report().as_json();"
        "print([name for name in ('torch', 'onnx', 'openvino', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_quantities() -> None:
    assert [short_count(n) for n in (0, 9_999, 10_000, 124_439_808, 999_600_000)] == [
        "0",
        "9,999",
        "10.0 K",
        "124 M",
        "1.00 B",
    ]
    assert [short_operations(n) for n in (5, 999_499, 17_800_000_000_000)] == ["5", "999 K", "17.8 T"]
    assert [short_bytes(n) for n in (5, 1024, 497_759_232)] == ["5 B", "1.00 KiB", "475 MiB"]
