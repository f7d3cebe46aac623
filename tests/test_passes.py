"""Passes, as pairs of graph text before and after (tests/golden/passes), and what they promise of all graphs.

A golden file holds cases: a title after `== `, a request after `pass: `, the graph before, and after `---` the graph
after and the report. `pytest --update-golden` writes what stands after `---`; what is before it is written by hand.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES, Case
from op_cases import random_inputs as case_inputs
from random_graphs import BATCH, SEQ, SIZES, graphs, index_graphs

from tfdsl.backends import reference
from tfdsl.backends.trials import choose_sizes, random_inputs
from tfdsl.ir.dims import divide, floor, maximum, minimum, remainder, symbol
from tfdsl.ir.graph import Constraint, Graph, Type, Value
from tfdsl.ir.limits import extent, limits
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import Diagnostic, Source, Span, SpecError
from tfdsl.passes import PASSES, Report, Request, prepare, run, signature
from tfdsl.passes.clean import clean
from tfdsl.passes.fold_ranges import fold_ranges
from tfdsl.passes.fuse_attention import fuse_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.options import spell
from tfdsl.passes.unroll import MOST_NODES, count_unrolled, unroll
from tfdsl.weights import trial
from tfdsl.weights.compression import dequantize, quantize
from tfdsl.weights.compression import prune as pruned

FOLDER = Path(__file__).parent / "golden" / "passes"
FILES = (
    *("clean", "fold_ranges", "fuse_attention", "refused_attention", "checkpoint", "prune", "quantize", "unroll"),
    "lower_masks",
)
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


def assert_same(before: Graph, after: Graph, sizes: dict[str, int]) -> None:
    """Two graphs give the same on random inputs and weights."""
    values = trial(before, 1)
    inputs = random_inputs(before, sizes, 2)
    assert_equal(reference.run(after, values, inputs), reference.run(before, values, inputs))


def assert_equal(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9)


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


MEANING_KEPT = ("clean", "fold_ranges", "fuse_attention", "refused_attention", "checkpoint", "unroll", "lower_masks")


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


# --- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(graphs())
def test_clean_keeps_the_meaning_and_has_nothing_left_to_do(graph: Graph) -> None:
    cleaned, _ = clean(graph)
    verify(cleaned, "clean")
    again, report = clean(cleaned)
    assert not report.changed and print_graph(again) == print_graph(cleaned)
    for sizes in SIZES:
        assert_same(graph, cleaned, sizes)


@settings(max_examples=200, deadline=None)
@given(index_graphs())
def test_what_ranges_decide_is_so_at_every_length_that_is_allowed(graph: Graph) -> None:
    verify(graph)
    folded, _ = fold_ranges(graph)
    verify(folded, "fold_ranges")
    for length in range(1, limits(graph)["seq"] + 1):
        inputs = {"x": np.zeros((2, length))}
        with np.errstate(all="ignore"):
            wanted, found = reference.run(graph, {}, inputs), reference.run(folded, {}, inputs)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


_ENDS = ((-3, -1), (-2, 2), (0, 0), (0, 3), (1, 4), (2, 2))
_OF_ONE = ("neg", "abs", "floor", "cast", "negate")
_OF_TWO = ("add", "sub", "mul", "div", "floordiv", "mod", "maximum", "minimum", "lt", "le", "gt", "ge", "eq", "ne")


@pytest.mark.parametrize("op", [*_OF_ONE, *_OF_TWO, "both", "either", "where"])
def test_ranges_hold_all_that_an_op_gives(op: str) -> None:
    """Of numbers between all pairs of ends, every comparison with a number is decided as it comes out, or not at all."""
    kind = {"floor": float, "div": float, "negate": bool, "both": bool, "either": bool}.get(op, int)
    for ends in itertools.product(_ENDS, repeat=1 if op in _OF_ONE else 2):
        if op in ("div", "floordiv", "mod") and ends[1][0] <= 0 <= ends[1][1]:
            continue
        graph = Graph("Ends")
        graph.add("input", (), {"name": "x"}, (Type("float", (SEQ,)),))
        inputs = []
        for low, high in ends:
            numbers = tuple(kind(each) / 2 if kind is float else kind(each) for each in range(low, high + 1))
            inputs.append(Value(graph.add("tensor", (), {"values": numbers}).id))
        if len(inputs) == 2:
            inputs[0] = Value(graph.add("rearrange", inputs[:1], {"pattern": "a -> a 1"}).id)
        if op == "where":
            inputs.insert(0, Value(graph.add("cast", [inputs[0]], {"to": "bool"}).id))
        value = Value(graph.add(op, inputs, {"to": "bool"} if op == "cast" else {}).id)
        graph.outputs = [("y", value)]
        if graph.type(value).dtype == "bool":
            value = Value(graph.add("cast", [value], {"to": "int"}).id)
        for number in range(-13, 14):
            dtype = graph.type(value).dtype
            limit = graph.add("constant", (), {"value": number if dtype == "int" else number / 2, "dtype": dtype})
            below = graph.add("lt", (value, Value(limit.id)))
            graph.outputs.append((f"y{number}", Value(below.id)))
        folded, _ = fold_ranges(graph)
        verify(folded, "fold_ranges")
        given = {"x": np.zeros(1)}
        wanted, found = reference.run(graph, {}, given), reference.run(folded, {}, given)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_bounds_of_sizes() -> None:
    """The largest size that constraints allow, and nothing where they allow larger ones beyond a gap."""

    def bound(operator: str, left: Any, right: Any) -> int | None:
        graph = Graph("Bounded")
        graph.constraints = [Constraint(operator, left, right)]
        return limits(graph).get("seq")

    assert bound("<=", SEQ, 7) == bound(">", 8, SEQ) == bound("<", 2 * SEQ + 1, 16) == 7
    assert bound("<=", floor(SEQ, 4), 3) == 15
    assert bound("<=", SEQ * SEQ, 50) == 7
    assert bound("<=", maximum(SEQ, 9), 12) == 12
    assert bound("<=", 100 - SEQ, 30) is bound("<=", remainder(SEQ, 7), 1) is bound("<=", SEQ, 0) is None
    assert bound("==", SEQ, 7) is bound("<=", SEQ + BATCH, 7) is bound("<=", divide(SEQ, 2), 7) is None
    sizes = {"seq": 9, "batch": 4}
    assert extent(2 * SEQ - BATCH, sizes) == (-2, 17)
    assert extent(floor(SEQ, BATCH), sizes) == (0, 9)
    assert extent(remainder(symbol("other"), 5), sizes) == (0, 4)
    assert extent(minimum(SEQ - 3, BATCH), sizes) == (-2, 4)
    assert extent(symbol("other") + 1, sizes) is extent(divide(1, SEQ), sizes) is None


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_unrolled_and_lowered_graphs_keep_the_meaning(graph: Graph) -> None:
    flat = unroll(graph)
    verify(flat, "unroll")
    assert len(flat) == count_unrolled(graph)
    lowered = lower_masks(graph)
    verify(lowered, "lower_masks")
    for sizes in SIZES:
        assert_same(graph, flat, sizes)
        assert_same(graph, lowered, sizes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_survives_every_general_pass(case: Case) -> None:
    graph = case.make()
    values = trial(graph, 1)
    for name, change in {**PASSES_OF_ALL, **PLAIN}.items():
        after = change(graph)
        verify(after, name)
        for sizes in case.sizes:
            inputs = case_inputs(graph, sizes, 3, case.ranges)
            assert_equal(reference.run(after, values, inputs), reference.run(graph, values, inputs))


PASSES_OF_ALL: dict[str, Callable[[Graph], Graph]] = {
    "clean": lambda graph: clean(graph)[0],
    "fold_ranges": lambda graph: fold_ranges(graph)[0],
    "fuse_attention": lambda graph: fuse_attention(graph)[0],
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fused_attention_is_the_same_whatever_it_was_written_as(data: st.DataObject) -> None:
    graph = parse_graph(written(data.draw))
    verify(graph)
    fused, report = fuse_attention(graph)
    verify(fused, "fuse_attention")
    assert len(report.changed) + len(report.kept) == 1
    assert not any(node.op == "softmax" for node in fused.nodes()) or not report.changed
    for sizes in ({"batch": 1, "seq": 1, "memory": 1}, {"batch": 2, "seq": 5, "memory": 3}):
        inputs = random_inputs(graph, sizes, data.draw(st.integers(0, 9)))
        values = trial(graph, 1)
        wanted, found = (reference.run(each, values, inputs)["y"] for each in (graph, fused))
        told = np.isfinite(wanted)  # a query that sees nothing is NaN by minus infinity, and zero for `attend`
        np.testing.assert_allclose(found[told], wanted[told], rtol=1e-9, atol=1e-9)


def written(draw: Any) -> str:
    """Attention with random steps between the product and the softmax, in random order."""
    keys = draw(st.sampled_from(["seq", "memory"]))
    scores = f"[batch, 2, seq, {keys}]"
    lines = [
        f"graph Written(q: [batch, 2, seq, 4], k: [batch, 2, {keys}, 4], v: [batch, 2, {keys}, 4],",
        f"p: bool[seq, {keys}], m: [memory]) {{",
        "%iq = positions(%q, axis=2) : int[seq]",
        '%i = rearrange(%iq, "q -> q 1") : int[seq, 1]',
        f"%j = positions(%k, axis=2) : int[{keys}]",
        f"%t = swap(%k) : [batch, 2, 4, {keys}]",
        f"%s = matmul(%q, %t) : {scores}",
    ]
    for place in range(draw(st.integers(0, 4))):
        _step(draw, lines, str(place), scores, keys)
    if draw(st.booleans()):
        lines.append(f"%w = softmax(%s) : {scores}".replace("%s)", f"{_last(lines)})"))
    else:
        row = "[batch, 2, seq, 1]"
        lines += [
            f"%e = exp({_last(lines)}) : {scores}",
            f"%n = sum(%e, keep=true) : {row}",
            f"%w = div(%e, %n) : {scores}",
        ]
    return "\n".join([*lines, "%y = matmul(%w, %v) : [batch, 2, seq, 4]", "return y: %y", "}"])


def _last(lines: list[str]) -> str:
    return lines[-1].partition(" ")[0]


def _step(draw: Any, lines: list[str], place: str, scores: str, keys: str) -> None:
    """One step from the last value on."""
    last, name = _last(lines), f"%s{place}"
    kind = draw(st.sampled_from(["scale", "bias", "cap", "temperature", "where", "added", "negated"]))
    if kind == "scale":
        lines.append(
            f"{name} = {draw(st.sampled_from(['mul', 'div']))}({last}, {draw(st.sampled_from([0.5, 2.0]))}) : {scores}"
        )
    elif kind == "bias":
        lines.append(
            f"{name} = {draw(st.sampled_from(['add', 'sub']))}({last}, @b{place}: [2, 1, 1] = zeros) : {scores}"
        )
    elif kind == "cap":
        lines += [f"%h{place} = tanh({last}) : {scores}", f"{name} = mul(%h{place}, 3.0) : {scores}"]
    elif kind == "temperature":
        lines.append(f"{name} = mul({last}, @t{place}: [2, 1, 1] = ones) : {scores}")
    elif kind == "negated":
        lines.append(f"{name} = neg({last}) : {scores}")
    else:
        condition = _condition(draw, lines, place, keys)
        fill = draw(st.sampled_from(["-1e9", "-1e4", "-10.0", "float(-inf)"]))
        if kind == "where":
            sides = draw(st.permutations([last, fill]))
            lines.append(f"{name} = where({condition}, {', '.join(sides)}) : {scores}")
        else:
            sides = draw(st.permutations(["0.0", "-1e5"]))  # more would cost the scores their last digits
            lines.append(f"%a{place} = where({condition}, {', '.join(sides)}) : [seq, {keys}]")
            lines.append(f"{name} = add({last}, %a{place}) : {scores}")


def _condition(draw: Any, lines: list[str], place: str, keys: str) -> str:
    """A condition [seq, keys] over positions, or of the data, or of both."""
    type_ = f"bool[seq, {keys}]"
    offset, op = draw(st.integers(-2, 2)), draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
    lines.append(f"%o{place} = add(%i, {offset}) : int[seq, 1]")
    left, right = draw(st.permutations([f"%o{place}", "%j"]))
    if draw(st.booleans()):
        lines.append(f"%d{place} = sub({left}, {right}) : int[seq, {keys}]")
        lines.append(f"%m{place} = abs(%d{place}) : int[seq, {keys}]")
        left, right = f"%m{place}", str(draw(st.integers(0, 3)))
    lines.append(f"%c{place} = {op}({left}, {right}) : {type_}")
    found = f"%c{place}"
    if draw(st.booleans()):
        lines.append(f"%f{place} = negate({found}) : {type_}")
        found = f"%f{place}"
    if draw(st.booleans()):
        other = draw(st.sampled_from(["%p", "%past"]))
        if other == "%past":
            lines.append(f"%past{place} = le(%j, %i) : {type_}")
            other = f"%past{place}"
        lines.append(f"%g{place} = {draw(st.sampled_from(['both', 'either']))}({found}, {other}) : {type_}")
        found = f"%g{place}"
    return found


def chain(op: str, operand: str, count: int, type_: str) -> str:
    """Nodes %c0, %c1, ... that each read the one before twice."""
    lines = [f"%c0 = {op}({operand}, {operand}) : {type_}"]
    lines += [f"%c{each} = {op}(%c{each - 1}, %c{each - 1}) : {type_}" for each in range(1, count)]
    return "\n".join(lines)


LONG = """
graph Long(q: [batch, 2, seq, 4], k: [batch, 2, 4, seq], v: [batch, 2, seq, 4], p: bool[seq, seq]) {{
  %i = iota(size=seq) : int[seq]
  %j = rearrange(%i, "q -> q 1") : int[seq, 1]
  %past = le(%i, %j) : bool[seq, seq]
  %zero = sub(%i, %i) : int[seq]
  %product = matmul(%q, %k) : [batch, 2, seq, seq]
  {chain}
  {use}
  %weights = softmax(%scores) : [batch, 2, seq, seq]
  %y = matmul(%weights, %v) : [batch, 2, seq, 4]
  return y: %y
}}
"""


@pytest.mark.parametrize("count", [60, 3000])
@pytest.mark.parametrize(
    ("nodes", "use"),
    [
        (("both", "%past", "bool[seq, seq]"), "%scores = where(%c{last}, %product, -1e9) : [batch, 2, seq, seq]"),
        (("both", "%p", "bool[seq, seq]"), "%scores = where(%c{last}, %product, -1e9) : [batch, 2, seq, seq]"),
        (("add", "%product", "[batch, 2, seq, seq]"), "%scores = neg(%c{last}) : [batch, 2, seq, seq]"),
        (
            ("maximum", "%zero", "int[seq]"),
            "%near = le(%c{last}, %j) : bool[seq, seq]\n%scores = where(%near, %product, -1e9) : [batch, 2, seq, seq]",
        ),
        (
            ("add", "%zero", "int[seq]"),
            "%near = le(%c{last}, %j) : bool[seq, seq]\n%scores = where(%near, %product, -1e9) : [batch, 2, seq, seq]",
        ),
    ],
)
def test_long_chains_are_neither_slow_nor_too_deep(nodes: tuple[str, str, str], use: str, count: int) -> None:
    op, operand, type_ = nodes
    text = LONG.format(chain=chain(op, operand, count, type_), use=use.replace("{last}", str(count - 1)))
    graph = parse_graph(text)
    fused, report = fuse_attention(graph)
    verify(fused)
    assert len(report.changed) + len(report.kept) == 1
    cleaned, _ = clean(graph)
    verify(cleaned)


# --- pruning and quantisation ----------------------------------------------------------------------------------------

MLP = """
graph MLP(x: [batch, 8]) {
  %fc = linear(%x, @fc.weight: [16, 8] = xavier_uniform, @fc.bias: [16] = zeros, out=16) : [batch, 16]
  %relu = relu(%fc) : [batch, 16]
  %head = linear(%relu, @head.weight: [4, 16] = xavier_uniform, out=4) : [batch, 4]
  return y: %head
}
"""


@pytest.mark.parametrize(
    ("requests", "change"),
    [
        (['prune("fc", 0.4)'], lambda w: pruned(w, 0.4, None)),
        (['prune("fc", pattern="2:4")'], lambda w: pruned(w, 0.5, "2:4")),
        (['quantize("fc", bits=8)'], lambda w: dequantize(*quantize(w, 8, None))),
        (['quantize("fc", bits=4, group=4)'], lambda w: dequantize(*quantize(w, 4, 4))),
        (
            ['quantize("fc.weight")', 'prune("fc.*", 0.5)'],
            lambda w: dequantize(*quantize(pruned(w, 0.5, None), 8, None)),
        ),
    ],
)
def test_compressed_weights_are_what_the_definition_makes_of_them(requests: list[str], change: Any) -> None:
    graph = parse_graph(MLP)
    compressed, _ = run(graph, [request(text) for text in requests])
    values = trial(graph, 1)
    inputs = random_inputs(graph, {"batch": 3}, 2)
    wanted = reference.run(graph, {**values, "fc.weight": change(values["fc.weight"])}, inputs)
    assert_equal(reference.run(compressed, values, inputs), wanted)
    assert not np.allclose(wanted["y"], reference.run(graph, values, inputs)["y"], atol=1e-6)


# --- asking for passes -----------------------------------------------------------------------------------------------


def diagnostics(*requests: Request, graph: str = MLP) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as error:
        run(parse_graph(graph), requests)
    return error.value.diagnostics


PLACED = Source("plan", "quantize(fc, bits=9)")


@pytest.mark.parametrize(
    ("text", "code", "message", "help"),
    [
        ("clen()", "T602", "there is no pass `clen`", "did you mean `clean`?"),
        ("shrink()", "T602", "there is no pass `shrink`", f"the passes are {', '.join(PASSES)}"),
        ("clean(1)", "T602", "`clean` takes 0 arguments without a name", "clean()"),
        ("clean(depth=1)", "T602", "`clean` has no option `depth`", "clean()"),
        ('quantize("fc", bit=8)', "T602", "`quantize` has no option `bit`", "did you mean `bits`?"),
        ('quantize("fc", paths="fc")', "T602", "`paths` is given twice", "quantize(paths, bits=8, group=none)"),
        ("quantize()", "T602", "`quantize` needs `paths`", "quantize(paths, bits=8, group=none)"),
        ('quantize("fc", bits=9)', "T603", "`bits` of `quantize` is 4 or 8, not 9", None),
        ('quantize("fc", bits=8.0)', "T603", "`bits` of `quantize` is 4 or 8, not 8.0", None),
        ('quantize("fc", bits="8")', "T603", '`bits` of `quantize` is 4 or 8, not "8"', None),
        ("quantize(3)", "T603", "`paths` of `quantize` is a string, not 3", None),
        ('quantize("fc", group=1)', "T603", None, None),
        ('checkpoint("fc", every=0)', "T603", "`every` of `checkpoint` is at least 1 and at most 10000, not 0", None),
        ('checkpoint("fc", every=True)', "T603", "`every` of `checkpoint` is a whole number, not true", None),
        ('prune("fc", 1)', "T603", "`sparsity` of `prune` is at least 0 and below 1 or none, not 1", None),
        ('prune("fc", pattern="1:2")', "T603", '`pattern` of `prune` is "2:4" or none, not "1:2"', None),
        ('prune("fc")', "T603", "`prune` needs a sparsity or a pattern", None),
        ('prune("fc", 0.7, pattern="2:4")', "T603", '`pattern="2:4"` is a sparsity of 0.5, not 0.7', None),
        ('prune("fz.*", 0.5)', "T604", 'no weight matches "fz.*"', None),
        ('quantize("h.0.fc")', "T604", 'no weight matches "h.0.fc"', "there are fc.bias, fc.weight, head.weight"),
        ('checkpoint("h.*")', "T604", 'no loop matches "h.*"', "the model has no loop"),
    ],
)
def test_requests_at_fault(text: str, code: str, message: str | None, help: str | None) -> None:
    (found,) = diagnostics(request(text))
    assert found.code == code
    assert message is None or found.message == message
    assert help is None or found.help == help


def test_faults_of_all_requests_are_told_together_each_at_its_place() -> None:
    source = Source("plan", 'quantize(fc, bits=9) quantise("fc") checkpoint("h.*")')
    name, bits, other = Span(source, 9, 11), Span(source, 18, 19), Span(source, 21, 35)
    requests = (
        Request("quantize", [3], {"bits": 9}, Span(source, 0, 20), {0: name, "bits": bits}),
        Request("quantise", ["fc"], {}, other),
    )
    found = diagnostics(*requests)
    assert [(each.code, each.span) for each in found] == [("T603", name), ("T603", bits), ("T602", other)]


def test_a_pattern_that_matches_nothing_is_told_at_its_place() -> None:
    source = Source("plan", 'checkpoint("blocks.*")')
    pattern = Span(source, 11, 21)
    (found,) = diagnostics(Request("checkpoint", ["blocks.*"], {}, Span(source, 0, 22), {0: pattern}), graph=LOOP)
    assert (found.code, found.span) == ("T604", pattern)
    (found,) = diagnostics(Request("checkpoint", ["h.1"], {}, Span(source, 0, 22)), graph=LOOP)
    assert found.help == "did you mean `h.*`? the turns of a loop are treated alike"


LOOP = """
graph Loop(x: [seq, 8]) {
  %x.2 = repeat @h[2] (x = %x) : [seq, 8] {
    %x.2 = tanh(%x) : [seq, 8]
    return x: %x.2
  }
  return x: %x.2
}
"""


def test_a_pass_that_breaks_the_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(graph: Graph) -> tuple[Graph, Report]:
        broken = graph.copy()
        broken.outputs.append(("gone", Value(999)))
        return broken, Report("breaking")

    monkeypatch.setitem(PASSES, "breaking", breaking)
    (found,) = diagnostics(Request("breaking"))
    assert found.code == "T609"
    assert found.message.startswith("the pass `breaking` has left a graph that is not legal")


def test_signatures_of_passes() -> None:
    assert {name: signature(name, function) for name, function in PASSES.items()} == {
        "clean": "clean()",
        "fold_ranges": "fold_ranges()",
        "fuse_attention": "fuse_attention()",
        "checkpoint": "checkpoint(paths, every=1)",
        "prune": "prune(paths, sparsity=none, pattern=none)",
        "quantize": "quantize(paths, bits=8, group=none)",
    }
    assert spell([True, None, "a", 0.5]) == '[true, none, "a", 0.5]'
    ((_, function, options),) = prepare([Request("checkpoint", ["h"], {"every": 3})])
    assert function is PASSES["checkpoint"] and options == {"paths": "h", "every": 3}


def test_unrolling_a_graph_that_is_too_large_is_refused_before_it_is_tried() -> None:
    inside = "%x.2 = tanh(%x) : [seq, 8]"
    for path in ("@a.*.b.*.c", "@a.*.b", "@a"):
        inside = f"%x.2 = repeat {path}[10000] (x = %x) : [seq, 8] {{ {inside} return x: %x.2 }}"
    text = f"graph Large(x: [seq, 8]) {{ {inside} return x: %x.2 }}"
    graph = parse_graph(text)
    assert count_unrolled(graph) > MOST_NODES
    with pytest.raises(SpecError) as error:
        unroll(graph)
    assert error.value.diagnostics[0].code == "T606"
