"""Passes, as pairs of graph text before and after (tests/golden/passes), and what they promise of all graphs.

A golden file holds cases: a title after `== `, a request after `pass: `, the graph before, and after `---` the graph after
and the report. `pytest --update-golden` writes what stands after `---`; what stands before it is written by hand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES, Case
from random_graphs import SIZES, graphs, seeds

from tfdsl.backends import reference
from tfdsl.backends.trials import choose_sizes, random_inputs
from tfdsl.ir import dims, masks
from tfdsl.ir.graph import Graph, Type, Value, weights
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import Source, Span, SpecError
from tfdsl.passes import PASSES, Request, prepare, run, signature
from tfdsl.passes.clean import clean
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import trial

FOLDER = Path(__file__).parent / "golden" / "passes"
FILES = ("clean", "fuse_attention", "refused_attention", "checkpoint", "prune", "quantize", "unroll", "lower_masks")
PLAIN: dict[str, Callable[[Graph], Graph]] = {"unroll": unroll, "lower_masks": lower_masks}
Golden = Callable[[str, str], None]


def cases(name: str) -> list[tuple[str, str, str]]:
    """Title, request and graph before of each case of a file."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        title, _, rest = part.partition("\n")
        request, _, rest = rest.partition("\n")
        found.append((title, request.removeprefix("pass: "), rest.partition("\n---\n")[0].strip("\n") + "\n"))
    return found


def request(text: str) -> Request:
    """A request from text: names and arguments as Python writes them."""
    call: Any = ast.parse(text, mode="eval").body
    keywords = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    return Request(call.func.id, [ast.literal_eval(each) for each in call.args], keywords)


def apply(text: str, graph: Graph) -> tuple[Graph, str]:
    """The graph after a pass, and its report."""
    asked = request(text)
    if asked.name in PLAIN:
        after = PLAIN[asked.name](graph)
        verify(after, asked.name)
        return after, ""
    after, reports = run(graph, [asked])
    return after, "\n".join(map(str, reports)) + "\n"


def outputs(graph: Graph, given_weights: Any, inputs: Any) -> dict[str, Any]:
    return reference.run(graph, given_weights, inputs)


def assert_same(before: Graph, after: Graph, sizes: dict[str, int], tolerance: float = 1e-9) -> None:
    """Two graphs give the same on random inputs and weights."""
    values = {**trial(before, 1), **trial(after, 1)}
    inputs = random_inputs(before, sizes, 2)
    wanted, found = (outputs(graph, values, inputs) for graph in (before, after))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FILES)
def test_pairs(name: str, golden: Golden) -> None:
    parts = []
    for title, text, before in cases(name):
        graph = parse_graph(before)
        verify(graph)
        untouched = print_graph(graph)
        after, report = apply(text, graph)
        assert print_graph(graph) == untouched, "a pass changes its argument"
        parts.append(f"== {title}\npass: {text}\n{untouched}---\n{print_graph(after)}{report}")
    golden(f"passes/{name}.txt", "\n".join(parts))


MEANING_KEPT = ("clean", "fuse_attention", "refused_attention", "checkpoint", "unroll", "lower_masks")


@pytest.mark.parametrize(
    ("text", "before"),
    [pytest.param(text, before, id=f"{name}: {title}") for name in MEANING_KEPT for title, text, before in cases(name)],
)
def test_meaning_is_kept(text: str, before: str) -> None:
    graph = parse_graph(before)
    after, _ = apply(text, graph)
    if request(text).name == "unroll":
        assert not any(node.op == "repeat" for node in after.nodes())
    for batch, length in ((1, 1), (2, 5)):
        assert_same(graph, after, choose_sizes(graph, batch, length))
