"""Tables of numbers in a spec: `tensor(list)`, from the language to every target, and what passes make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.backends.torch.emit import emit
from tfdsl.ir.graph import Graph
from tfdsl.ir.tables import dtype, shape
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.ir.verify import verify
from tfdsl.passes.clean import clean

SPEC = """
block scaled(x: [..., width]) -> [..., width] {
  param factors: list
  return x * tensor(factors)
}

model M(x: [batch, 3]) -> [batch, 3] {
  param factors = [1, 2.5, 4]
  param rows = [[1, 2, 3], [4, 5, 6]]
  y = scaled(x, factors=factors) + sum(tensor(rows), axis=0)
  return where(tensor([true, false, true]), y, -y)
}
"""
X = np.array([[1.0, 2.0, 3.0]])


def load(path: Path, text: str = SPEC, **settings: object) -> Graph:
    path = path / "spec.tfm"
    path.write_text(text)
    return tfdsl.load(path, "M", **settings).graph


def test_numbers_of_lists_are_a_tensor(tmp_path: Path) -> None:
    np.testing.assert_array_equal(run(load(tmp_path), {}, {"x": X})["output"], [[6, -12, 21]])


def test_lists_are_parameters_from_outside(tmp_path: Path) -> None:
    graph = load(tmp_path, factors=[0, 0.5, 1], rows=[[10, 20, 30]])
    np.testing.assert_array_equal(run(graph, {}, {"x": X})["output"], [[10, -21, 33]])


def test_whole_numbers_stay_whole_and_one_float_makes_all_floats(tmp_path: Path) -> None:
    text = "model M(x: [batch, 2]) -> a: int[2], b: [2] {\nreturn tensor([1, 2]), tensor([1, 0.5])\n}"
    graph = load(tmp_path, text)
    assert [node.attributes["values"] for node in graph.nodes() if node.op == "tensor"] == [(1, 2), (1.0, 0.5)]


def test_text_form_holds_tables(tmp_path: Path) -> None:
    graph = load(tmp_path)
    text = print_graph(graph)
    assert "tensor(values=[[1, 2, 3], [4, 5, 6]]) : int[2, 3]" in text
    assert "tensor(values=[true, false, true]) : bool[3]" in text
    again = parse_graph(text)
    verify(again)
    assert print_graph(again) == text


def test_a_long_table_stands_at_the_top_of_the_emitted_file(tmp_path: Path) -> None:
    short = [1.0 + place / 64 for place in range(48)]
    text = """
block scaled(x: [..., width]) -> [..., width] {
  param short: list
  return x * tensor(short)
}
model M(x: [batch, 48]) -> [batch, 48] {
  param near: list
  param far: list
  return scaled(scaled(scaled(x, short=near), short=far), short=near)
}"""
    source = emit(load(tmp_path, text, near=short, far=[2 * each for each in short]))
    assert source.count("SHORT = [\n    1.0, 1.015625, ") == 1
    assert source.count("SHORT_2 = [\n    2.0, 2.03125, ") == 1
    assert "torch.tensor(SHORT, device=x.device)" in source and "torch.tensor(SHORT_2, device=x.device)" in source
    assert max(map(len, source.splitlines())) <= 100
    compile(source, "model.py", "exec")


def test_clean_computes_with_tables(tmp_path: Path) -> None:
    text = """
model M(x: [batch, 3]) -> [batch, 3] {
  a = tensor([1, 2, 4]) * 3 + 1
  b = sqrt(tensor([1.0, 4.0, 9.0])) / tensor([1, 2, 3])
  return where(a > 5, x * b, x + exp(tensor([1000.0, 0, 0])))
}"""
    graph = load(tmp_path, text)
    cleaned, report = clean(graph)
    tables = [node.attributes["values"] for node in cleaned.nodes() if node.op == "tensor"]
    assert (False, True, True) in tables and (1.0, 1.0, 1.0) in tables
    assert any(node.op == "exp" for node in cleaned.nodes()), "what is not finite is left to run time"
    assert any("a table of 3" in str(note) for note in report.changed)
    x = {"x": X}
    np.testing.assert_array_equal(run(graph, {}, x)["output"], run(cleaned, {}, x)["output"])


def test_lists_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(tfdsl.SpecError, match="10,000"):
        load(tmp_path, f"model M(x: [batch, 2]) -> [10001] {{\nreturn tensor([{', '.join(['1'] * 10_001)}])\n}}")


def test_lists_of_lists_are_bounded(tmp_path: Path) -> None:
    names = "\n".join(f"a{level} = [a{level - 1}]" for level in range(1, 400))
    with pytest.raises(tfdsl.SpecError, match="8 deep"):
        load(tmp_path, f"model M(x: [batch, 2]) -> [batch, 2] {{\na0 = [1]\n{names}\nreturn x + tensor(a399)\n}}")


@pytest.mark.parametrize("table", [(), ((1,), (1, 2)), ((1,), 2), (1, (2,)), ((), ())])
def test_what_is_no_table_has_no_shape(table: tuple) -> None:
    with pytest.raises(ValueError):
        shape(table)


def test_kinds_are_not_mixed() -> None:
    with pytest.raises(ValueError):
        dtype((1, True))
