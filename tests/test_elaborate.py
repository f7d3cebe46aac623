"""What specs mean: the ten rules of the language, seen in the graphs that elaboration makes."""

from __future__ import annotations

from typing import Any

import pytest

from tfdsl.ir.dims import symbol
from tfdsl.ir.elaborate import Elaborated, Override, elaborate
from tfdsl.ir.graph import Graph, Initializer, Node, Type, weights
from tfdsl.language import modules
from tfdsl.language.diagnostics import Source, SpecError
from tfdsl.language.parser import parse_expression
from tfdsl.model import choose

B, S = symbol("batch"), symbol("seq")


def make(text: str, model: str | None = None, optional: tuple[str, ...] = (), **settings: str) -> Elaborated:
    module = modules.load_text(text)
    overrides = {
        name: Override(parse_expression(Source(name, value)), None, module, None, "--set")
        for name, value in settings.items()
    }
    return elaborate(choose(module, model), overrides, optional)


def graph(text: str, model: str | None = None, optional: tuple[str, ...] = (), **settings: str) -> Graph:
    return make(text, model, optional, **settings).graph


def body(statements: str, inputs: str = "x: [batch, 4]", result: str = "[batch, 4]", before: str = "") -> Graph:
    return graph(f"{before}\nmodel M({inputs}) -> {result} {{\n{statements}\n}}")


def paths(of: Graph) -> list[str]:
    return [path for weight in weights(of) for path in weight.paths()]


def ops(of: Graph) -> list[str]:
    return [node.op for node in of.nodes() if node.op not in ("input", "weight")]


def only(of: Graph, op: str) -> Node:
    (node,) = [node for region in of.regions() for node in region.nodes() if node.op == op]
    return node


def code(text: str, **settings: str) -> str:
    with pytest.raises(SpecError) as caught:
        make(text, **settings)
    return caught.value.diagnostics[0].code


# --- shapes and signatures -------------------------------------------------------------------------------------------


def test_sizes_of_inputs_are_names_and_numbers() -> None:
    found = body("return x", "x: int[batch, seq, 4]", "int[batch, seq, 4]")
    assert found.type(found.outputs[0][1]) == Type("int", (B, S, 4))


def test_sizes_may_be_computed_from_parameters() -> None:
    text = "model M(x: [batch, heads * head]) -> [batch, heads * head] { param heads = 2 param head = 8 return x }"
    assert graph(text).type(graph(text).outputs[0][1]).dims == (B, 16)
    assert graph(text, head="3").type(graph(text, head="3").outputs[0][1]).dims == (B, 6)


def test_a_name_of_a_signature_is_bound_by_each_caller_anew() -> None:
    before = "block Up(x: [..., width]) -> [..., 2 * width] { return linear(x, out=2 * width) }"
    found = body("return Up(Up(x) as a) as b", result="[batch, 16]", before=before)
    assert [(w.path, w.type.dims) for w in weights(found)] == [
        ("a.linear.weight", (8, 4)),
        ("a.linear.bias", (8,)),
        ("b.linear.weight", (16, 8)),
        ("b.linear.bias", (16,)),
    ]


@pytest.mark.parametrize("leading", ["", "batch, ", "batch, seq, "])
def test_dots_stand_for_any_leading_axes(leading: str) -> None:
    before = "block Scale(x: [..., width]) -> [..., width] { return x * 2 }"
    found = body("return Scale(x)", f"x: [{leading}4]", f"[{leading}4]", before)
    assert len(found.type(found.outputs[0][1]).dims) == leading.count(",") + 1


def test_several_results_by_position_and_by_name() -> None:
    before = "block Two(x: [b, w]) -> twice: [b, w], half: [b, w] { return x + x, x / 2 }"
    assert ops(body("a, c = Two(x)\nreturn a * c", before=before)) == ["add", "constant", "div", "mul"]
    assert ops(body("r = Two(x)\nreturn r.half", before=before)) == ["add", "constant", "div"]


def test_results_of_a_model_are_named() -> None:
    found = body("return x, relu(x)", result="plain: [batch, 4], [batch, 4]")
    assert [name for name, _ in found.outputs] == ["plain", "output_1"]
    assert [name for name, _ in body("return x").outputs] == ["output"]


def test_a_model_may_be_applied_inside_another() -> None:
    text = """
    model Inner(x: [batch, 4]) -> [batch, 4] {
      param width = 8
      return x |> linear(out=width) as up |> linear(out=4) as down
    }
    model Outer(x: [batch, 4]) -> [batch, 4] { return Inner(x, width=3) as inner }
    """
    found = graph(text, "Outer")
    assert paths(found)[0] == "inner.up.weight"
    assert weights(found)[0].type.dims == (3, 4)


# --- optional inputs -------------------------------------------------------------------------------------------------

OPTIONAL = """
block Bias(x: [batch, 4], bias: [4]?) -> [batch, 4] { return if given(bias) then x + bias else x }
model M(x: [batch, 4], bias: [4]?) -> [batch, 4] { return Bias(x, bias) }
"""


def test_optional_inputs_are_asked_for() -> None:
    assert ops(graph(OPTIONAL)) == []
    assert ops(graph(OPTIONAL, optional=("bias",))) == ["add"]


def test_an_absent_input_may_be_passed_to_an_optional_operand() -> None:
    text = """model M(q: [batch, 2, seq, 4], bias: [2, seq, seq]?) -> [batch, 2, seq, 4] {
      return attend(q, q, q, bias=bias)
    }"""
    assert only(graph(text), "attend").inputs[3] is None
    assert only(graph(text, optional=("bias",)), "attend").inputs[3] is not None


# --- parameters ------------------------------------------------------------------------------------------------------

HEADS = """
model Small(x: [batch, seq, width]) -> [batch, seq, width] {
  param head = width / heads
  param heads = 2
  param width = 8
  doubled = 2 * heads
  return x |> linear(out=doubled * head) as up |> linear(out=width) as down
}
model Wide extends Small { width = 16 }
model Wider extends Wide { heads = 4  width = 24 }
"""


def test_defaults_follow_what_overrides_them() -> None:
    assert dict(make(HEADS).parameters) == {"head": 4, "heads": 2, "width": 8}
    assert dict(make(HEADS, heads="4").parameters) == {"head": 2, "heads": 4, "width": 8}
    assert dict(make(HEADS, "Wide").parameters) == {"head": 8, "heads": 2, "width": 16}
    assert dict(make(HEADS, "Wider").parameters) == {"head": 6, "heads": 4, "width": 24}
    assert dict(make(HEADS, "Wider", heads="3").parameters)["head"] == 8


def test_origins_say_who_set_a_parameter() -> None:
    origins = make(HEADS, "Wider", heads="3").parameters.origins
    assert {name: origin for name, (origin, _) in origins.items()} == {
        "head": "default",
        "heads": "--set",
        "width": "set by Wider",
    }


def test_an_override_may_name_other_parameters() -> None:
    assert make(HEADS, heads="width / 2").parameters["head"] == 2


def test_division_of_sizes_is_exact_or_refused() -> None:
    assert code(HEADS, heads="3") == "T405"


def test_derived_numbers_cannot_be_set() -> None:
    assert code(HEADS, doubled="3") == "T313"


LAYERS = """
block Gated(x: [..., width]) -> [..., width] {
  param hidden: int
  return silu(linear(x, out=hidden) as gate) |> linear(out=width) as down
}
block Residual(x: [..., width]) -> [..., width] { param f: layer return x + f(x) }
model M(x: [batch, 4]) -> [batch, 4] {
  param hidden = 8
  param ffn = Gated(hidden=hidden)
  mlp = ffn
  return Residual(mlp(x), f=linear(out=4, bias=false) as inner) as residual
}
model Plain extends M { ffn = linear(out=4) }
"""


def test_layers_are_parameters() -> None:
    assert paths(graph(LAYERS)) == [
        "mlp.gate.weight",
        "mlp.gate.bias",
        "mlp.down.weight",
        "mlp.down.bias",
        "residual.inner.weight",
    ]
    assert paths(graph(LAYERS, "Plain")) == ["mlp.weight", "mlp.bias", "residual.inner.weight"]
    assert weights(graph(LAYERS, hidden="3"))[0].type.dims == (3, 4)
    assert weights(graph(LAYERS, ffn="Gated(hidden=5)"))[0].type.dims == (5, 4)


def test_a_block_may_hold_itself_as_a_layer() -> None:
    before = "block Apply(x: [batch, w]) -> [batch, w] { param f: layer return f(x) }"
    assert ops(body("return Apply(x, f=Apply(f=Apply(f=relu())))", before=before)) == ["relu"]


def test_requires() -> None:
    text = """model M(x: [batch, seq]) -> [batch, seq] {
      param context = 16
      require context % 4 == 0, "in fours"
      require seq <= context & batch >= 1, "too long"
      return x
    }"""
    (constraint,) = graph(text).constraints
    assert (constraint.operator, constraint.left, constraint.right, constraint.why) == ("<=", S, 16, "too long")
    assert code(text, context="6") == "T310"


def test_a_promise_makes_a_division_exact() -> None:
    statements = 'require seq % 4 == 0\nquarter = seq / 4\nreturn rearrange(x, "b (n f) -> b n f", n=quarter)'
    found = body(statements, "x: [batch, seq]", "[batch, seq / 4, 4]")
    assert str(found.type(found.outputs[0][1])) == "[batch, seq/4, 4]"
    assert code("model M(x: [batch, seq]) -> [batch, seq] { n = seq / 4 return x }") == "T405"


# --- weights and their paths -----------------------------------------------------------------------------------------


def test_names_make_paths() -> None:
    before = """block Attention(x: [batch, seq, width]) -> [batch, seq, width] {
      return linear(x, out=3 * width) as c_attn |> split(parts=3) |> concat |> linear(out=width) as c_proj
    }"""
    statements = """
      wte = embedding(size=10, dim=8)
      y = wte(x)
      repeat h[2] { y = y + Attention(layer_norm(y) as ln_1) as attn }
      return project(layer_norm(y) as ln_f, wte.weight)
    """
    found = body(statements, "x: int[batch, seq]", "[batch, seq, 10]", before)
    assert sorted(paths(found)) == sorted(
        ["wte.weight", "ln_f.weight", "ln_f.bias"]
        + [f"h.{i}.ln_1.{part}" for i in range(2) for part in ("weight", "bias")]
        + [
            f"h.{i}.attn.{layer}.{part}"
            for i in range(2)
            for layer in ("c_attn", "c_proj")
            for part in ("weight", "bias")
        ]
    )


def test_a_layer_bound_outside_a_loop_is_shared() -> None:
    shared = body("f = linear(out=4)\nrepeat h[3] { x = f(x) }\nreturn x")
    assert paths(shared) == ["f.weight", "f.bias"]
    own = body("repeat h[3] {\n f = linear(out=4)\n x = f(x) }\nreturn x")
    assert paths(own) == [f"h.{i}.f.{part}" for part in ("weight", "bias") for i in range(3)]


def test_a_layer_applied_twice_has_one_set_of_weights() -> None:
    assert paths(body("f = linear(out=4)\nreturn f(f(x))")) == ["f.weight", "f.bias"]


def test_a_block_bound_and_applied_twice_shares_what_is_in_it() -> None:
    before = "block Two(x: [..., w]) -> [..., w] { return x |> linear(out=w) as a |> linear(out=w) as b }"
    assert len(paths(body("f = Two()\nreturn f(x) + f(-x)", before=before))) == 4


def test_weightless_layers_need_no_names() -> None:
    statements = "q = rope(x) + rope(x, base=3)\nreturn rope(relu(relu(q)))"
    assert paths(body(statements, "x: [batch, 2, seq, 4]", "[batch, 2, seq, 4]")) == []


def test_a_weightless_name_does_not_take_a_path() -> None:
    assert paths(body("y = relu(x) as up\nreturn linear(y, out=4) as up")) == ["up.weight", "up.bias"]
    assert paths(body("y = relu(x) as h\nrepeat h[1] { y = linear(y, out=4) as up }\nreturn y"))[0] == "h.0.up.weight"


def test_the_same_name_in_different_turns_and_blocks() -> None:
    before = "block F(x: [..., w]) -> [..., w] { return linear(x, out=w) as up }"
    statements = "repeat h[2] { x = F(linear(x, out=4) as up) as f }\nreturn linear(x, out=4) as up"
    assert paths(body(statements, before=before))[-2:] == ["up.weight", "up.bias"]


def test_a_weight_is_called_after_its_binding() -> None:
    found = body("cls = weight(shape=[1, 4], init=normal(0.5))\nreturn x + cls + (weight(shape=[4]) as pos)")
    assert [(w.path, w.initializer) for w in weights(found)] == [
        ("cls", Initializer("normal", (0.5,))),
        ("pos", Initializer("xavier_uniform")),
    ]


def test_a_path_into_a_block_reaches_its_weights() -> None:
    before = """block Embed(ids: int[batch, seq]) -> [batch, seq, 8] {
      tokens = embedding(size=10, dim=8)
      return tokens(ids)
    }"""
    statements = "embed = Embed()\nreturn project(embed(x), embed.tokens.weight)"
    assert paths(body(statements, "x: int[batch, seq]", "[batch, seq, 10]", before)) == ["embed.tokens.weight"]


def test_initialisers() -> None:
    found = body(
        """y = x
        repeat h[2] { y = y |> linear(out=8) as up |> linear(out=4) as down }
        initialize "h.*.down" = normal(0.01)
        initialize "**.bias" = ones
        initialize "norm.weight" = constant(0.5)
        return layer_norm(y) as norm"""
    )
    assert {w.path: str(w.initializer) for w in weights(found)} == {
        "h.*.up.weight": "xavier_uniform",
        "h.*.up.bias": "ones",
        "h.*.down.weight": "normal(0.01)",
        "h.*.down.bias": "ones",
        "norm.weight": "constant(0.5)",
        "norm.bias": "ones",
    }


def test_an_initialiser_of_a_tied_weight_holds_for_all_its_uses() -> None:
    statements = 'wte = embedding(size=10, dim=8)\ninitialize "wte" = normal(1)\nreturn project(wte(x), wte.weight)'
    found = body(statements, "x: int[batch, seq]", "[batch, seq, 10]")
    assert [str(w.initializer) for w in weights(found)] == ["normal(1)"]


def test_an_initialiser_may_be_for_a_weight_that_is_not_always_there() -> None:
    def initial(bias: str) -> list[str]:
        statements = f'y = linear(x, out=4, bias={bias}) as up\ninitialize "up.bias?" = ones\nreturn y'
        return [str(w.initializer) for w in weights(body(statements, result="[batch, 4]"))]

    assert initial("true") == ["xavier_uniform", "ones"]
    assert initial("false") == ["xavier_uniform"]


def test_an_element_of_a_list_is_applied_like_any_layer() -> None:
    shared = "up = linear(out=4)\nlayers = [up, linear(out=4), up]\n"
    found = paths(body(shared + "return layers[0](x) |> layers[1](bias=false) |> layers[-1]"))
    assert found == ["up.weight", "up.bias", "linear.weight"]
    named = "layers = [[linear(out=4)]]\nreturn x |> layers[0][0]() as one |> layers[0][0] |> tanh"
    found = paths(body(named))
    assert found == ["one.weight", "one.bias", "linear.weight", "linear.bias"]


def test_weights_may_be_given_by_keyword() -> None:
    statements = "w = weight(shape=[8, 4])\nreturn linear(x, weight=w)"
    assert only(body(statements, result="[batch, 8]"), "linear").inputs[2] is None


# --- loops -----------------------------------------------------------------------------------------------------------


def test_equal_turns_are_one_body() -> None:
    node = only(body("repeat h[12] { x = linear(x, out=4) }\nreturn x"), "repeat")
    assert (node.attributes["turns"], node.attributes["carried"], len(node.bodies)) == ((0,) * 12, 1, 1)


def test_turns_that_choose_alike_are_one_body() -> None:
    statements = "repeat h[6] as i { x = if (i + 1) % 3 == 0 then linear(x, out=4) as a else relu(x) }\nreturn x"
    node = only(body(statements), "repeat")
    assert (node.attributes["turns"], len(node.bodies)) == ((0, 0, 1, 0, 0, 1), 2)
    assert paths(body(statements))[:2] == ["h.2.a.weight", "h.5.a.weight"]


def test_the_index_is_a_number_and_indexes_lists() -> None:
    statements = """param widths = [4, 8, 4]
      repeat h[len(widths)] as i { x = x |> linear(out=widths[i]) as up |> linear(out=4) as down }
      return x"""
    node = only(body(statements), "repeat")
    assert node.attributes["turns"] == (0, 1, 0)
    assert {w.type.dims for w in weights(body(statements)) if w.path == "h.*.up.weight"} == {(4, 4), (8, 4)}


def test_negative_indices_count_from_the_end() -> None:
    assert ops(body("fs = [relu(), gelu()]\nf = fs[-1]\nreturn f(x)")) == ["gelu"]


def test_several_names_are_carried_and_outer_ones_captured() -> None:
    node = only(body("y = x * 2\nz = x * 3\nrepeat h[4] { x, y = [y + z, x] }\nreturn x"), "repeat")
    assert node.attributes["carried"] == 2
    assert len(node.inputs) == 3
    assert node.labels == ("x", "y")


def test_no_turns_at_all() -> None:
    found = body("param depth = 0\nrepeat h[depth] { x = linear(x, out=4) }\nreturn x")
    assert only(found, "repeat").attributes["turns"] == ()
    assert paths(found) == []


def test_loops_in_loops() -> None:
    found = body("repeat h[2] { repeat g[3] { x = linear(x, out=4) } }\nreturn x")
    assert paths(found)[:6] == [f"h.{i}.g.{j}.linear.weight" for i in range(2) for j in range(3)]


def test_names_bound_inside_a_loop_stay_there() -> None:
    assert code("model M(x: [batch, 4]) -> [batch, 4] { repeat h[2] { y = x x = y } return y }") == "T201"


def test_tensors_may_be_bound_again() -> None:
    assert ops(body("x = relu(x)\nx = gelu(x)\nreturn x")) == ["relu", "gelu"]


# --- expressions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7 // 2", 3),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("6 / 3", 2),
        ("1 / 2.0", 0.5),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10_000", 10_000),
        ("1e3", 1000.0),
        ("sqrt(16)", 4.0),
        ("max(2, min(5, 3))", 3),
        ("floor(2.7) + ceil(2.2) + round(2.6)", 8),
        ("int(4.0)", 4),
        ("float(2) / 4", 0.5),
        ("len([1, 2, 3])", 3),
        ("if 1 < 2 then 3 else 4", 3),
        ("if 1 == 2 | 2 >= 2 & not false then 3 else 4", 3),
        ("if 1 == 2 then 3 else if 2 == 2 then 4 else 5", 4),
        ("xs[1][0] + xs[-2]", 3),
    ],
)
def test_numbers(text: str, value: Any) -> None:
    found = make(
        f"model M(x: [batch, 4]) -> [batch, 4] {{ param xs = [1, [2, 3]] param n = {text} return x }}"
    ).parameters["n"]
    assert found == value
    assert type(found) is type(value)


def test_conditions_that_are_decided_beforehand() -> None:
    text = "model M(x: [batch, seq]) -> [batch, seq] { return if seq + 1 > seq then x else relu(x) }"
    assert ops(graph(text)) == []


def test_numbers_join_tensors() -> None:
    found = body("return 2 * x - 1")
    assert [node.type.dtype for node in found.nodes() if node.op == "constant"] == ["float", "float"]
    counted = body("return x + 1", "x: int[batch]", "int[batch]")
    assert [node.type.dtype for node in counted.nodes() if node.op == "constant"] == ["int"]
    assert ops(body("return x * seq", "x: [batch, seq]", "[batch, seq]")) == ["constant", "mul"]


def test_whole_numbers_become_floats() -> None:
    assert ops(body('return x + cast(x > 0, to="int")')) == ["constant", "gt", "cast", "cast", "add"]


def test_pipes_and_applications_are_the_same() -> None:
    one = body("return x |> linear(out=4) as f |> gelu(approximate=true)")
    other = body("return gelu(linear(x, out=4) as f, approximate=true)")
    assert [(n.op, n.attributes, n.types) for n in one.nodes()] == [
        (n.op, n.attributes, n.types) for n in other.nodes()
    ]


def test_masks() -> None:
    inputs, result = "x: [batch, 2, seq, 4], keep: bool[batch, seq]", "[batch, 2, seq, 4]"

    def mask(text: str) -> str:
        return str(only(body(f"return attend(x, x, x, mask={text})", inputs, result), "attend").attributes.get("mask"))

    assert mask("full") == "None"
    assert mask("causal") == "causal"
    assert mask("causal & full") == "causal"
    assert mask("causal & window(4) | not prefix(2)") == "(causal & window(4)) | not prefix(2)"
    assert mask('padding(keep) & causal & documents(cast(keep, to="int"))') == "padding($0) & causal & documents($1)"


def test_penalties() -> None:
    found = body("penalty size = 0.1 * mean(mean(x * x))\nreturn x")
    ((name, value),) = found.penalties
    assert (name, found.type(value)) == ("size", Type("float", ()))


def test_axes_count_from_either_end() -> None:
    first, last = (only(body(f"return softmax(x, axis={axis})"), "softmax") for axis in (1, -1))
    assert first.attributes == last.attributes


def test_slices_from_the_end_constrain_sizes() -> None:
    found = body("return slice(x, axis=1, start=-2)", "x: [batch, seq]", "[batch, 2]")
    assert [(c.operator, c.left, c.right) for c in found.constraints] == [(">=", S, 2)]


def test_frames_hold_what_the_torch_backend_names_things_after() -> None:
    before = """block Up(x: [..., width]) -> [..., width] {
      param by = 2
      return linear(x, out=by * width) as up |> linear(out=width) as down
    }"""
    found = body("return Up(x, by=3) as f", before=before)
    (frame,) = {id(node.scope[-1]): node.scope[-1] for node in found.nodes() if node.scope}.values()
    assert (frame.path, frame.block, dict(frame.names)) == ("f", "Up", {"width": 4, "by": 3})
    assert frame.spelled["by"].span.text == "3"
