"""The text form of graphs: it prints what is there and parses back to the same graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES, Case
from random_graphs import graphs

import tfdsl
from tfdsl.ir import dims, masks
from tfdsl.ir.dims import Dim, DimError, Size, symbol
from tfdsl.ir.graph import Frame, Graph, Initializer, Type, Value
from tfdsl.ir.masks import Joined, Negated, Term
from tfdsl.ir.ops import OPS
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.ir.text_cursor import Cursor
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import Source, SpecError

SPECS = Path(__file__).parent.parent / "specs"
SEQ = symbol("seq")


def essence(graph: Graph) -> Any:
    """What a graph means, as data: two graphs that differ in this differ in more than names, spans and order."""
    order = {node: place for place, node in enumerate(graph.inputs)}
    frames: dict[int, int] = {}
    rows: list[Any] = []

    def number(value: Value | None) -> Any:
        if value is None:
            return None
        node = graph.node(value)
        if node.id not in order:
            inputs = [number(each) for each in node.inputs]
            scope = [(frames.setdefault(id(frame), len(frames)), frame.block, frame.path) for frame in node.scope]
            bodies = [essence(body) for body in node.bodies]
            order[node.id] = len(order)
            rows.append((node.op, inputs, settings_of(graph, node), node.types, scope, bodies))
        return order[node.id], value.index

    results = [(name, number(value)) for name, value in (*graph.outputs, *graph.penalties)]
    for node in graph.nodes():  # what leads to no result comes last
        if not any(graph.users(Value(node.id, index)) for index in range(len(node.types))):
            number(Value(node.id))
    inputs = [graph.node(node).type for node in graph.inputs]
    constraints = [(each.operator, each.left, each.right, each.why) for each in graph.constraints]
    return graph.name, inputs, rows, results, constraints


def settings_of(graph: Graph, node: Any) -> Any:
    """The attributes of a node, defaults filled in, axes counted from the first."""
    first = node.inputs[0] if node.inputs else None
    rank = len(graph.type(first).dims) if first is not None else 0
    found = {}
    for attribute in OPS[node.op].attributes:
        value = node.attributes.get(attribute.name, attribute.default)
        if attribute.kind == "axis":
            value %= rank
        if isinstance(value, masks.Term | Joined | Negated):
            value = str(value)
        if isinstance(value, Mapping):
            value = tuple(sorted(value.items()))
        found[attribute.name] = (type(value).__name__, value)
    return found


def assert_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text)
    assert print_graph(again) == text
    assert essence(again) == essence(graph)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_random_graphs_round_trip(graph: Graph) -> None:
    assert_round_trip(graph)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_round_trips(case: Case) -> None:
    graph = case.make()
    text = print_graph(graph)
    verify(parse_graph(text))
    assert print_graph(parse_graph(text)) == text


@pytest.mark.parametrize(
    "model", ["gpt2.tfm:GPT2", "bert.tfm:BertForMaskedLM", "llama.tfm:Llama3_8B", "t5.tfm:T5_Small"]
)
def test_specs_round_trip(model: str) -> None:
    file, _, name = model.partition(":")
    graph = tfdsl.load(SPECS / file, name).graph
    verify(graph)
    assert_round_trip(graph)


def test_a_graph_as_text(golden: Any) -> None:
    golden("graph_text/everything.txt", print_graph(everything()))
    assert_round_trip(everything())


def everything() -> Graph:
    """One of each construct."""
    graph = Graph("Everything")
    batch = symbol("batch")
    x = Value(graph.add("input", (), {"name": "x"}, (Type("float", (batch, SEQ, 8)),)).id)
    keep = Value(graph.add("input", (), {"name": "keep"}, (Type("bool", (batch, SEQ)),)).id)
    outer = Frame("outer", "Outer", {})
    inner, again = Frame("outer.inner", "Inner", {}), Frame("outer.inner", "Inner", {})
    shared = Value(
        graph.add(
            "weight",
            (),
            {"path": "shared", "shape": (8, 8), "init": Initializer("normal", (0.0123456789,))},
            scope=(outer,),
            name="shared",
        ).id
    )
    y = Value(graph.add("linear", (x, shared, None), {"out": 8}, name="y", scope=(outer, inner)).id)
    z = Value(graph.add("linear", (y, shared, None), {}, name="y", scope=(outer, again)).id)
    parts = graph.add("split", (z,), {"parts": 2, "axis": 2}, name="split", labels=("left", "right"))
    joined = Value(graph.add("concat", (Value(parts.id, 1), Value(parts.id, 0)), {"axis": 2}, name="joined").id)
    infinite = Value(graph.add("constant", (), {"value": float("-inf"), "dtype": "float"}).id)
    size = Value(graph.add("constant", (), {"value": SEQ * batch - 1, "dtype": "float"}).id)
    odd = Value(graph.add("add", (infinite, size), name="odd").id)
    heads = Value(
        graph.add(
            "rearrange",
            (joined,),
            {"pattern": "b s (h d) -> b h s d", "sizes": (("h", 2),)},
            name="a b",
            scope=(outer,),
        ).id
    )
    mask = Joined("&", masks.CAUSAL, Joined("|", Negated(Term("window", (4,))), Term("padding", (), 0)))
    mixed = Value(
        graph.add("attend", (heads,) * 3 + (None, None, None, keep), {"mask": mask, "drop": 0.1}, name="mixed").id
    )
    graph.outputs = [("mixed", mixed), ("odd", odd)]
    graph.penalties = [("size", odd)]
    return graph


# --- sizes and masks -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["batch", "seq", "memory"]).map(symbol)


def combine(children: st.SearchStrategy[Size]) -> st.SearchStrategy[Size]:
    operators: list[Any] = [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        dims.divide,
        dims.floor,
        dims.remainder,
        dims.minimum,
        dims.maximum,
    ]
    return st.tuples(st.sampled_from(operators), children, children).map(apply)


def apply(parts: Any) -> Size:
    function, left, right = parts
    try:
        return function(left, right)  # type: ignore[no-any-return]
    except DimError:
        return left  # type: ignore[no-any-return]


SIZE_TREES = st.recursive(st.integers(-4, 9) | NAMES, combine, max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(SIZE_TREES)
def test_sizes_round_trip(size: Size) -> None:
    assert Cursor(Source("size", str(size))).size() == size


MASKS = st.recursive(
    st.sampled_from([masks.FULL, masks.CAUSAL, Term("window", (3,)), Term("padding", (), 0), Term("documents", (), 1)]),
    lambda inner: st.builds(Negated, inner) | st.builds(Joined, st.sampled_from("&|"), inner, inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_masks_round_trip(mask: Any) -> None:
    assert str(Cursor(Source("mask", str(mask))).mask()) == str(mask)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message", "place"),
    [
        ("%y = exp(%z) : [4]", "there is no value `%z` here", "2:12"),
        ("%y = axp(%x) : [4]", "there is no op `axp`", "2:8"),
        ("%y = exp(%x) : flat[4]", "`flat` is no element type", "2:18"),
        ("%y = exp(%x : [4]", "expected `,`, not `:`", "2:15"),
        ("%y = exp(%x, %x) : [4]", "exp takes fewer operands", "2:8"),
        ("%y = sum(%x, axes=1) : [4]", "sum has no attribute `axes`", "2:16"),
        ("%y = sum(%x, axis=0.5) : [4]", "expected a whole number, not `0.5`", "2:21"),
        ("%y = sum(%x, keep=1) : [4]", "expected true or false, not `1`", "2:21"),
        ("%y = exp(@w) : [4]", "`@w` is not described", "2:12"),
        ("%y, %z = exp(%x) : [4]", "exp has 1 results, and 2 are named", "3:3"),
        ("%x = exp(%x) : [4]", "`%x` is there already", "3:3"),
        ("%y = attend(%x, %x, %x, mask=casual) : [4]", "`casual` is no mask", "2:32"),
        ("%y = attend(%x, %x, %x, mask=window) : [4]", "`window` is given other numbers than it takes", "2:32"),
        ("%y = exp(%x) : [4 / 0]", "4 is divided by zero", "2:19"),
        ("%y = repeat @h[2] (x = %x) : [4] { turns 0 { return x: %x } }", "turn 1 has no body", "3:3"),
        ("%y = repeat @h[1] (x = %x) : [4] { turns 0..1 { return x: %x } }", "there are 1 turns", "2:44"),
        ("%y = exp(%x) : [4] ~", "unexpected character `~` in a graph", "2:22"),
        ('%y = rearrange(%x, "\\q") : [4]', "the string has an escape that means nothing", "2:22"),
        ("require seq = 4", "expected a comparison, not `=`", "2:15"),
    ],
)
def test_faults_have_a_place(line: str, message: str, place: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_graph(f"graph Faulty(x: [4]) {{\n  {line}\n  return x: %x\n}}\n")
    (found,) = error.value.diagnostics
    assert (found.code, found.message) == ("T605", message)
    assert found.span is not None and str(found.span) == f"graph:{place}"


def test_names_near_are_suggested() -> None:
    with pytest.raises(SpecError) as error:
        parse_graph("graph Faulty(hidden: [4]) {\n  return x: %hiden\n}\n")
    assert error.value.diagnostics[0].help == "did you mean `hidden`?"


def test_comments_and_blank_lines_mean_nothing() -> None:
    text = "graph A(x: [4]) {\n  # a comment\n\n  %y = exp(%x) : [4] # another\n  return y: %y\n}\n"
    assert print_graph(parse_graph(text)) == "graph A(x: [4]) {\n  %y = exp(%x) : [4]\n  return y: %y\n}\n"
    assert isinstance(SEQ, Dim)
