"""The verifier: a table of broken graphs, one or more for each rule, each with what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from op_cases import CASES, Case
from random_graphs import graphs

from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Constraint, Frame, Graph, Initializer, Node, Type, Value
from tfdsl.ir.masks import Term
from tfdsl.ir.node_rules import NODE_RULES
from tfdsl.ir.text import parse_graph
from tfdsl.ir.verify import REGION_RULES, verify
from tfdsl.language.diagnostics import Diagnostic, SpecError

SOUND = """
graph Sound(ids: int[batch, seq], p: bool[seq]) {
  require seq <= 16
  %x = embedding(%ids, @wte.weight: [16, 8] = normal(0.02), size=16, dim=8) : [batch, seq, 8]
  %sum = sum(%x) : [batch, seq]
  %half = mul(%x, 0.5) : [batch, seq, 8]
  %heads = rearrange(%half, "b s (h d) -> b h s d", h=2) : [batch, 2, seq, 4]
  %mixed = attend(%heads, %heads, %heads, operands=[%p], mask=padding($0)) : [batch, 2, seq, 4]
  %a, %b = repeat @h[3] as i (a = %half, b = %x; outer = %sum) : [batch, seq, 8], [batch, seq, 8] {
    turns 0, 2 {
      %fc = linear(%a, @h.*.fc.weight: [8, 8] = zeros, @h.*.fc.bias: [8] = zeros, out=8) : [batch, seq, 8]
      %mean = mean(%outer) : [batch]
      %mean.2 = mean(%mean) : []
      penalty size: %mean.2
      return a: %fc, b: %a
    }
    turns 1 {
      %tanh = tanh(%a) : [batch, seq, 8]
      return a: %tanh, b: %b
    }
  }
  %logits = linear(%a, @wte.weight) : [batch, seq, 16]
  %rows = rearrange(%b, "b s d -> (b s) d") : [batch*seq, 8]
  %best, %chosen = top_k(%rows, k=1) : [batch*seq, 1], int[batch*seq, 1]
  %routed = route @experts[4] (rows = %rows) by %chosen, %best : [batch*seq, 8] {
    %fc = linear(%rows, @experts.*.fc.weight: [8, 8] = zeros, out=8) : [batch*seq, 8]
    return y: %fc
  }
  %zero = expand(0.0, shape=[batch, 8]) : [batch, 8]
  %last, %steps = scan @cell along 1 (h = %zero) over (x = %a) : [batch, 8], [batch, seq, 8] {
    %h.2 = add(%x, %h) : [batch, 8]
    return h: %h.2, y: %h.2
  }
  return logits: %logits, mixed: %mixed, routed: %routed, steps: %steps
}
"""


def find(graph: Graph, name: str) -> tuple[Graph, Node]:
    """The node of a name, with its region."""
    return next((region, node) for region in graph.regions() for node in region.nodes() if name in (node.name, node.op))


def node(graph: Graph, name: str) -> Node:
    return find(graph, name)[1]


Breakage = Callable[[Graph], Any]
BROKEN: list[tuple[str, Breakage, str]] = []


def broken(rule: str, message: str) -> Callable[[Breakage], Breakage]:
    """Enter a way to break the sound graph, with the rule that says so and its words."""

    def enter(breakage: Breakage) -> Breakage:
        BROKEN.append((rule, breakage, message))
        return breakage

    return enter


def reads(graph: Graph, name: str, place: int, value: Value | None) -> None:
    region, found = find(graph, name)
    inputs = list(found.inputs)
    inputs[place] = value
    region.set_inputs(found, inputs)


def told(rule: str, message: str, name: str, /, **attributes: Any) -> None:
    """A case that gives a node other attributes."""
    broken(rule, message)(lambda graph: node(graph, name).attributes.update(attributes))


def typed(rule: str, message: str, name: str, *types: Type) -> None:
    """A case that gives a node other types."""

    def breakage(graph: Graph) -> None:
        node(graph, name).types = types

    broken(rule, message)(breakage)


# --- regions ---------------------------------------------------------------------------------------------------------


@broken("a node reads", "reads result 3 of node 2, which is not there")
def _(graph: Graph) -> None:
    reads(graph, "sum", 0, Value(2, 3))


@broken("a node reads", "reads result 0 of node 999, which is not there")
def _(graph: Graph) -> None:
    node(graph, "sum").inputs = (Value(999),)


@broken("who reads a node", "the edges into `sum` called `sum` are {0: (3, 0)}, and its inputs {0: (6, 0)}")
def _(graph: Graph) -> None:
    node(graph, "sum").inputs = (Value(node(graph, "half").id),)


@broken("no node depends on itself", "nodes depend on themselves: ")
def _(graph: Graph) -> None:
    reads(graph, "half", 1, Value(node(graph, "half").id))


@broken("the inputs of a region", "the inputs are listed as [0], and the `input` nodes are [0, 1]")
def _(graph: Graph) -> None:
    graph.inputs.pop()


told("the inputs of a region", "two inputs are called `p`", "ids", name="p")


@broken("outputs and penalties", "`logits` is result 1 of node")
def _(graph: Graph) -> None:
    graph.outputs[0] = ("logits", Value(graph.outputs[0][1].node, 1))


@broken("outputs and penalties", "two outputs are called `mixed`")
def _(graph: Graph) -> None:
    graph.outputs[0] = ("mixed", graph.outputs[0][1])


@broken("a penalty", "the penalty `size` is [batch, seq, 8], and a penalty is one float")
def _(graph: Graph) -> None:
    graph.penalties.append(("size", Value(node(graph, "x").id)))


@broken("a constraint", "`~` is no comparison")
def _(graph: Graph) -> None:
    graph.constraints.append(Constraint("~", 1, 2))


@broken("a constraint", "`length <= 4` names `length`, which no input binds")
def _(graph: Graph) -> None:
    graph.constraints.append(Constraint("<=", symbol("length"), 4))


# --- nodes -----------------------------------------------------------------------------------------------------------


@broken("an op is one", "`add_all` called `sum`: there is no such op")
def _(graph: Graph) -> None:
    node(graph, "sum").op = "add_all"


@broken("every operand", "its `x` is missing")
def _(graph: Graph) -> None:
    reads(graph, "sum", 0, None)


@broken("every operand", "it has 1 inputs, and its record has 3 operands")
def _(graph: Graph) -> None:
    region, found = find(graph, "logits")
    region.set_inputs(found, found.inputs[:1])


@broken("every operand", "it has no inputs")
def _(graph: Graph) -> None:
    graph.add("concat", (), {"axis": 0}, (Type("float", ()),))


@broken("operands have the element types", "its `x` is int, and the record says float")
def _(graph: Graph) -> None:
    graph.add("tanh", (Value(graph.inputs[0]),))


@broken("operands have the element types", "its `x` is bool, and the record says number")
def _(graph: Graph) -> None:
    graph.add("neg", (Value(graph.inputs[1]),))


@broken("operands have the element types", "its operands are int and float, and must be of one element type")
def _(graph: Graph) -> None:
    x = Value(node(graph, "sum").id)
    graph.add("add", (Value(graph.inputs[0]), x), {}, (graph.type(x),))


told("attributes are those", "its record has no attribute `axes`", "sum", axes=1)
told("attributes are those", "its `keep` is 1, and no bool", "sum", keep=1)
told("attributes are those", "its `keep` is none", "sum", keep=None)
told("attributes are those", "its `out` is 'wide', and no size", "logits", out="wide")
told("attributes are those", "its `mask` is 'causal', and no mask", "mixed", mask="causal")
told("attributes are those", "its `sizes` is (('h', 0.5),), and no names", "heads", sizes=(("h", 0.5),))


@broken("attributes are those", "its attribute `pattern` is missing")
def _(graph: Graph) -> None:
    del node(graph, "heads").attributes["pattern"]


@broken("attributes are those", "`width` has a source expression and is no attribute")
def _(graph: Graph) -> None:
    node(graph, "sum").spelled["width"] = None  # type: ignore[assignment]


told("what a layer says", "its `size` is 15, and its weight is (16, 8)", "embedding", size=15)
told("an axis is one", "its `axis` is 3, and its operand has 3 axes, counted from 0", "sum", axis=3)
told("an axis is one", "its `axis` is -1, and its operand has 3 axes, counted from 0", "sum", axis=-1)
told("an attention", "its mask reads the operands [1], and there are 1", "mixed", mask=Term("padding", (), 1))
told("an attention", "its mask reads the operands [], and there are 1", "mixed", mask=None)
told("a constant", "0.5 is no int", "constant", dtype="int")
typed("sizes are above zero", "an axis of 0", "half", Type("float", (0,)))
typed("sizes are above zero", "an axis is 0.5, and no size", "half", Type("float", (0.5,)))  # type: ignore[arg-type]
typed("sizes are above zero", "`half` is no element type", "half", Type("half", (1,)))
typed(
    "sizes are above zero", "no input of the model binds the size `length`", "half", Type("float", (symbol("length"),))
)
told("sizes are above zero", "no input of the model binds the size `length`", "constant", value=symbol("length"))
typed("results have the types", "its results are [8], and its rule infers [batch, seq]", "sum", Type("float", (8,)))
told("results have the types", "an axis of 8 does not divide into 3", "heads", sizes=(("h", 3),))
typed("results have the types", "an input has one type, not 2", "p", Type("bool", (8,)), Type("bool", (8,)))
told("a weight", "its path is 'h..weight'", "weight", path="h..weight")
told("a weight", "its path is None", "weight", path=None)


@broken("a weight", "its path `h.*.fc.weight` names ")
def _(graph: Graph) -> None:
    attributes = {"path": "h.*.fc.weight", "shape": (8, 8), "init": Initializer("zeros")}
    graph.add("weight", (), attributes)


@broken("a weight", "the weight `wte.weight` is [16, 8] in one place and [4] in another")
def _(graph: Graph) -> None:
    graph.add("weight", (), {"path": "wte.weight", "shape": (4,), "init": Initializer("normal", (0.02,))})


@broken("a weight", "the weight `wte.weight` begins as normal(0.02) in one place and as zeros in another")
def _(graph: Graph) -> None:
    graph.add("weight", (), {"path": "wte.weight", "shape": (16, 8), "init": Initializer("zeros")})


@broken("a loop's turns", "it has bodies, and is no loop")
def _(graph: Graph) -> None:
    node(graph, "sum").bodies = node(graph, "repeat").bodies


told("a loop's turns", "its turns name the bodies [0, 2], and it has 2", "repeat", turns=(0, 2, 0))
told("a loop's turns", "it carries 4 of 3 inputs", "repeat", carried=4)
told("a loop's turns", "it recomputes groups of 0 turns", "repeat", checkpoint=0)
told(
    "a loop's turns",
    "it carries [batch, seq, 8], and its results are [batch, seq, 8], [batch, seq, 8]",
    "repeat",
    carried=1,
)


@broken("a loop's turns", "body 1 takes [batch, seq, 8], [batch, seq, 8], [batch, seq], and the loop gives it")
def _(graph: Graph) -> None:
    found = node(graph, "repeat")
    graph.set_inputs(found, (*found.inputs, Value(graph.inputs[1])))
    found.bodies[0].add("input", (), {"name": "p"}, (Type("bool", (symbol("seq"),)),))


@broken("a loop's turns", "body 0 gives [batch, seq, 8], and the loop carries [batch, seq, 8], [batch, seq, 8]")
def _(graph: Graph) -> None:
    node(graph, "repeat").bodies[0].outputs.pop()


@broken("operands have the element types", "`exp` called `exp`: its `x` is int, and the record says float")
def _(graph: Graph) -> None:
    body = node(graph, "repeat").bodies[1]
    positions = body.add("positions", (Value(body.inputs[0]),), {"axis": 1})
    body.add("exp", (Value(positions.id),))


told("experts agree", "it has 2 experts of 1 kinds", "route", turns=(0, 1))


@broken("experts agree", "its rows, choices and weights are [batch*seq, 8], int[batch*seq, 1], [batch*seq, 8]")
def _(graph: Graph) -> None:
    reads(graph, "route", 2, Value(node(graph, "rows").id))


@broken("experts agree", "its expert takes [batch*seq, 8], and it gives [batch*seq, 8], bool[seq]")
def _(graph: Graph) -> None:
    found = node(graph, "route")
    graph.set_inputs(found, (*found.inputs, Value(graph.inputs[1])))


@broken("experts agree", "its expert gives none, and its result is [batch*seq, 8]")
def _(graph: Graph) -> None:
    node(graph, "route").bodies[0].outputs.clear()


@broken("experts agree", "the rows of its expert meet in `softmax`")
def _(graph: Graph) -> None:
    body = node(graph, "route").bodies[0]
    mixed = body.add("softmax", (body.outputs[0][1],), {"axis": 0})
    body.outputs = [("y", Value(mixed.id))]


@broken("experts agree", "its expert has penalties")
def _(graph: Graph) -> None:
    body = node(graph, "route").bodies[0]
    number = body.add("constant", (), {"value": 1.0, "dtype": "float"})
    body.penalties.append(("size", Value(number.id)))


told("a recurrence's step", "it has 1 steps, carries 0 states and goes through 1 tensors", "scan", carried=0)
told("a recurrence's step", "it goes along axis 3 of [batch, seq, 8]", "scan", axis=3)
told("a recurrence's step", "its step takes [batch, 8], [batch, 8], and it gives [batch, 8], [seq, 8]", "scan", axis=0)
typed(
    "a recurrence's step",
    "its step gives [batch, 8], [batch, 8], and its results are [batch, 8], [batch, 8]",
    "scan",
    *[Type("float", (symbol("batch"), 8))] * 2,
)


@broken("a recurrence's step", "it goes along [batch, seq, 8], [batch, 8], which differ in length")
def _(graph: Graph) -> None:
    found = node(graph, "scan")
    found.attributes["scanned"] = 2
    graph.set_inputs(found, (*found.inputs, found.inputs[0]))
    found.bodies[0].add("input", (), {"name": "p"}, (Type("float", (symbol("batch"),)),))


@broken("a recurrence's step", "its step gives [batch, 8, 1], [batch, 8], and it carries [batch, 8]")
def _(graph: Graph) -> None:
    body = node(graph, "scan").bodies[0]
    other = body.add("rearrange", (body.outputs[0][1],), {"pattern": "b d -> b d 1"})
    body.outputs[0] = ("h", Value(other.id))


@broken("a recurrence's step", "its step has penalties")
def _(graph: Graph) -> None:
    body = node(graph, "scan").bodies[0]
    number = body.add("constant", (), {"value": 1.0, "dtype": "float"})
    body.penalties.append(("size", Value(number.id)))


@broken("a state has one node", "the state `so.far` belongs to another node")
def _(graph: Graph) -> None:
    (x,) = (Value(place) for place in graph.inputs[:1])
    for name in ("one", "two"):
        made = graph.add("running_sum", (x,), {"axis": 0, "path": "so.far"})
        graph.outputs.append((name, Value(made.id)))


@broken("a state has one node", "does not name the index of each of the 1 loops around it")
def _(graph: Graph) -> None:
    body = node(graph, "repeat").bodies[0]
    body.add("running_sum", (body.outputs[0][1],), {"axis": 0, "path": "so.far"})


@broken("a state has one node", "its path is 'so..far'")
def _(graph: Graph) -> None:
    graph.add("running_sum", (Value(graph.inputs[0]),), {"axis": 0, "path": "so..far"})


# --- tests -----------------------------------------------------------------------------------------------------------


def faults(graph: Graph, after: str = "") -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as error:
        verify(graph, after)
    return error.value.diagnostics


@pytest.mark.parametrize(("rule", "breakage", "message"), BROKEN, ids=[message[:60] for _, _, message in BROKEN])
def test_broken_graphs(rule: str, breakage: Breakage, message: str) -> None:
    graph = parse_graph(SOUND)
    verify(graph)
    breakage(graph)
    found = faults(graph, "prune")
    assert all(each.code == "T609" for each in found)
    assert found[0].message.startswith("the pass `prune` has left a graph that is not legal: ")
    assert message in found[0].message
    assert found[0].note.startswith(f"the rule: {rule}")


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    for rule in (*REGION_RULES, *NODE_RULES):
        assert any(rule.summary.startswith(start) for start, _, _ in BROKEN), rule.summary


def test_all_faults_are_told_together() -> None:
    graph = parse_graph(SOUND)
    node(graph, "sum").attributes["keep"] = 1
    node(graph, "logits").attributes["out"] = "wide"
    assert [each.message.split(": ")[1] for each in faults(graph)] == ["`sum` called `sum`", "`linear` called `logits`"]


def test_variants_of_a_loop_may_have_weights_of_other_shapes_under_one_path() -> None:
    graph = parse_graph(SOUND)
    found = node(graph, "repeat")
    attributes = {"path": "h.*.fc.weight", "shape": (4, 4), "init": Initializer("zeros")}
    found.bodies[1].add("weight", (), attributes)
    verify(graph)
    found.attributes["turns"] = (0, 1, 0)
    found.bodies[0].add("weight", (), attributes)
    assert "is [8, 8] in one place and [4, 4] in another" in faults(graph)[0].message


def test_weights_stored_as_whole_numbers_are_legal() -> None:
    graph = parse_graph("graph Stored(x: [4]) {\n  %w = @w: int[2, 4]\n  return w: %w\n}\n")
    verify(graph)
    found = node(graph, "weight")
    found.types = (replace_dtype(found.type, "bool"),)
    assert "its rule infers [2, 4]" in faults(graph)[0].message


def replace_dtype(type_: Type, dtype: str) -> Type:
    return type_._replace(dtype=dtype)


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_sound_graphs_are_legal(graph: Graph) -> None:
    verify(graph)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_is_legal(case: Case) -> None:
    verify(case.make())


def test_a_copy_of_a_node_has_all_of_it_and_shares_nothing_that_changes() -> None:
    body = Graph("body")
    values: dict[str, Any] = {
        "id": 7,
        "op": "repeat",
        "inputs": (Value(3), None),
        "attributes": {"path": "layers"},
        "types": (Type("float", (2,)),),
        "name": "layers",
        "scope": (Frame("", "m", {}),),
        "span": None,
        "spelled": {"count": None},
        "labels": ("x",),
        "bodies": (body,),
        "order": 2.5,
    }
    assert set(values) == {each.name for each in fields(Node)}
    whole = Node(**values)
    twin = whole.copy()
    assert twin.bodies[0] is not body and twin.attributes is not whole.attributes and twin.spelled is not whole.spelled
    twin.bodies = whole.bodies
    assert twin == whole
