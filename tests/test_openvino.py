"""The OpenVINO backend: every op against the reference on the CPU plugin, and what the written model looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from op_cases import BATCH, CASES, SEQ, Case, Flat, attend, qkv, random_inputs, trial_weights

import tfdsl
from tfdsl.backends.compare import relative_error
from tfdsl.backends.openvino import build, make, session
from tfdsl.backends.openvino.runtime import EXACT
from tfdsl.backends.reference import run
from tfdsl.ir import dims, masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Constraint, Graph, Type, Value
from tfdsl.language.diagnostics import SpecError

TOLERANCE = 1e-5


def check(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Names, shapes, element types and numbers of outputs are the same."""
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        assert found[name].dtype == (np.float32 if wanted.dtype == np.float64 else wanted.dtype), name
        if wanted.dtype == np.float64:
            assert relative_error(found[name], wanted) < TOLERANCE, name
        else:
            np.testing.assert_array_equal(found[name], wanted, err_msg=name)


def case(name: str) -> Case:
    return next(each for each in CASES if each.name == name)


def layers(model: openvino.Model) -> list[openvino.Node]:
    """The nodes that the CPU plugin runs."""
    compiled = openvino.Core().compile_model(model, "CPU", EXACT)
    return list(compiled.get_runtime_model().get_ordered_ops())


def kinds(model: openvino.Model) -> list[str]:
    return [kind(node) for node in layers(model)]


def kind(node: openvino.Node) -> str:
    return str(node.get_rt_info()["layerType"].astype(str))


def constants(model: openvino.Model, name: str) -> list[openvino.Node]:
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    return [node for node in nodes if node.get_friendly_name().startswith(name)]


# --- every op --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_op_is_what_the_reference_computes(each: Case) -> None:
    graph = each.make()
    weights = trial_weights(graph, 1)
    running = session(make(graph, weights))
    for seed, sizes in enumerate(each.sizes):
        inputs = random_inputs(graph, sizes, seed, each.ranges)
        check(running(inputs), run(graph, weights, inputs))


@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_op_is_the_same_at_fixed_sizes(each: Case) -> None:
    graph = each.make()
    weights = trial_weights(graph, 1)
    sizes = each.sizes[-1]
    named = dims.names_of(size for place in graph.inputs for size in graph.node(place).type.dims)
    model = make(graph, weights, {name: sizes[name] for name in named})
    assert not model.is_dynamic()
    inputs = random_inputs(graph, sizes, 0, each.ranges)
    check(session(model)(inputs), run(graph, weights, inputs))


@pytest.mark.parametrize("length", [33, 300])
def test_attention_over_many_keys_from_a_file(tmp_path: Path, length: int) -> None:
    f = Flat()
    window = masks.Joined("&", masks.CAUSAL, masks.Term("window", (16,)))
    padded = masks.Joined("&", window, masks.Term("padding", (), 0))
    q, k, v = (f.input(name, BATCH, heads, SEQ, 64) for name, heads in (("q", 4), ("k", 2), ("v", 2)))
    keep = f.input("keep", BATCH, SEQ, dtype="bool")
    graph = f.give(f("attend", q, k, v, None, None, None, keep, mask=padded), attend(f, q, k, v, mask=window))
    inputs = random_inputs(graph, {"batch": 2, "seq": length}, 0, {})
    inputs["keep"][0, :20] = False  # the first queries of this row see nothing
    build(graph, {}, tmp_path / "model.xml")
    check(session(tmp_path / "model.xml")(inputs), run(graph, {}, inputs))


def by_hand(f: Flat) -> Value:
    """Attention without a mask, in five ops."""
    q, k, v = qkv(f)
    scores = f("mul", f("matmul", q, f("swap", k, first=2, second=3)), f.constant(0.3, "float"))
    return f("matmul", f("softmax", scores, axis=3), v)


@pytest.mark.parametrize("make_attention", [lambda f: attend(f, *qkv(f)), by_hand], ids=["attend", "by_hand"])
def test_attention_that_runs_first_at_length_one(make_attention: Callable[[Flat], Value]) -> None:
    """Unmasked attention of the CPU plugin's is garbage from the second length on, unless it is kept from that."""
    f = Flat()
    graph = f.give(make_attention(f))
    running = session(make(graph, {}))
    for batch, length in ((1, 1), (3, 17), (1, 1), (2, 40)):
        inputs = random_inputs(graph, {"batch": batch, "seq": length}, 0, {})
        check(running(inputs), run(graph, {}, inputs))


def test_whole_numbers_divide_exactly_beyond_float32() -> None:
    f = Flat()
    a, b = f.input("a", SEQ, dtype="int"), f.input("b", SEQ, dtype="int")
    graph = f.give(f("floordiv", a, b), f("mod", a, b))
    top = 2**31 - 1
    pairs = [
        (2**25 + 1, 1),
        (top, 3),
        (-top, 3),
        (99_999_999, 99_999_998),
        (-1, 100),
        (7, -2),
        (-7, 2),
        (-7, -2),
        (0, -5),
    ]
    left, right = (np.array(numbers) for numbers in zip(*pairs, strict=True))
    inputs = {"a": left, "b": right}
    check(session(make(graph, {}))(inputs), run(graph, {}, inputs))


def test_softplus_keeps_its_digits_far_below_zero() -> None:
    f = Flat()
    graph = f.give(f("softplus", f.input("x", SEQ)))
    inputs = {"x": np.linspace(-60, 60, 121, dtype=np.float32)}
    np.testing.assert_allclose(session(make(graph, {}))(inputs)["output"], run(graph, {}, inputs)["output"], rtol=1e-6)


def test_sizes_are_exact_beyond_float32() -> None:
    f = Flat()
    f.input("x", SEQ)
    pairs = dims.divide(SEQ * (SEQ + 1), 2)
    graph = f.give(f.constant(pairs, "int"), f.constant(dims.floor(pairs, 3), "int"))
    inputs = {"x": np.zeros(8191, np.float32)}
    check(session(make(graph, {}))(inputs), run(graph, {}, inputs))


# --- what the model looks like ---------------------------------------------------------------------------------------


def tied() -> Graph:
    f = Flat("Tied")
    table = f.weight("wte.weight", 40, 32)
    x = f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), table, size=40, dim=32)
    other = f.weight("wte.weight", 40, 32)  # the same weight, named again
    return f.give(f("linear", x, other, f.weight("head.bias", 40), out=40))


def test_a_tied_weight_is_one_constant_without_a_copy() -> None:
    graph = tied()
    weights = trial_weights(graph, 0)
    (table,) = constants(make(graph, weights), "wte.weight")
    assert table.get_friendly_name() == "wte.weight"
    assert np.shares_memory(table.data, weights["wte.weight"])


def test_a_constant_keeps_the_memory_of_its_weight() -> None:
    graph = tied()
    expected = trial_weights(graph, 0)["wte.weight"]
    (table,) = constants(make(graph, trial_weights(graph, 0)), "wte.weight")  # nothing else holds the arrays now
    np.testing.assert_array_equal(table.data, expected)


def test_a_written_model_is_read_back_and_holds_its_weights_once(tmp_path: Path) -> None:
    graph = tied()
    weights = trial_weights(graph, 0)
    build(graph, weights, tmp_path / "model.xml")
    assert {file.name for file in tmp_path.iterdir()} == {"model.xml", "model.bin"}
    size = (tmp_path / "model.bin").stat().st_size
    assert 0 <= size - sum(array.nbytes for array in weights.values()) < 64 * (len(weights) + 1)
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    read = session(tmp_path / "model.xml")(inputs)
    check(read, run(graph, weights, inputs))
    np.testing.assert_array_equal(read["output"], session(make(graph, weights))(inputs)["output"])


def test_two_builds_are_the_same_to_the_byte(tmp_path: Path) -> None:
    graph = case("attend_padding").make()
    for name in ("one", "two"):
        build(graph, {}, tmp_path / f"{name}.xml")
    assert (tmp_path / "one.xml").read_bytes() == (tmp_path / "two.xml").read_bytes()
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes()


@pytest.mark.parametrize(
    ("bits", "group", "size"), [(8, None, 64 * 64), (4, 16, 64 * 64 // 2), (4, None, 64 * 64 // 2)]
)
def test_quantised_weights_stay_whole_numbers(tmp_path: Path, bits: int, group: int | None, size: int) -> None:
    f = Flat()
    q, scale = f.every("quantize", f.weight("fc.weight", 64, 64), bits=bits, group=group)
    x = f.input("x", BATCH, 64)
    graph = f.give(f("linear", x, f("dequantize", q, scale), None, out=64))
    weights = trial_weights(graph, 0)
    build(graph, weights, tmp_path / "model.xml")
    scales = 4 * 64 * (64 // group if group else 1)
    assert 0 <= (tmp_path / "model.bin").stat().st_size - size - scales < 3 * 64
    inputs = random_inputs(graph, {"batch": 3}, 0, {})
    check(session(tmp_path / "model.xml")(inputs), run(graph, weights, inputs))
    (product,) = [node for node in layers(make(graph, weights)) if kind(node) == "FullyConnected"]
    assert product.input(1).get_element_type() == (openvino.Type.i8 if bits == 8 else openvino.Type.i4)


def test_scales_are_those_of_rows_where_columns_are_multiplied(tmp_path: Path) -> None:
    f = Flat()
    table = f("dequantize", *f.every("quantize", f.weight("table", 8, 6), bits=8))
    graph = f.give(f("matmul", f.input("x", BATCH, 4, 1, 8), table))
    weights = trial_weights(graph, 0)
    build(graph, weights, tmp_path / "model.xml")
    for batch in (1, 3):
        inputs = random_inputs(graph, {"batch": batch}, 0, {})
        check(session(tmp_path / "model.xml")(inputs), run(graph, weights, inputs))


@pytest.mark.parametrize("shape", [(3, 3), (5, 7), (1, 5)])
def test_rows_of_four_bits_need_not_end_with_a_byte(tmp_path: Path, shape: tuple[int, int]) -> None:
    f = Flat()
    rows, columns = shape
    table = f("dequantize", *f.every("quantize", f.weight("table", rows, columns), bits=4))
    read = f("embedding", f.input("ids", BATCH, dtype="int"), table, size=rows, dim=columns)
    graph = f.give(read, f("linear", f.input("x", BATCH, columns), table, f.weight("bias", rows), out=rows))
    weights = trial_weights(graph, 0)
    build(graph, weights, tmp_path / "model.xml")
    inputs = random_inputs(graph, {"batch": 4}, 0, {"ids": (0, rows)})
    check(session(tmp_path / "model.xml")(inputs), run(graph, weights, inputs))


def test_names_are_those_of_the_spec() -> None:
    model = make(tied(), trial_weights(tied(), 0))
    assert model.get_friendly_name() == "Tied"
    assert [(each.get_node().get_friendly_name(), each.get_names()) for each in model.inputs] == [("ids", {"ids"})]
    assert [each.get_names() for each in model.outputs] == [{"output"}]
    names = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert len(set(names)) == len(names)
    assert "linear/MatMul" in names


def test_outputs_that_are_inputs_weights_or_one_another_keep_their_names(tmp_path: Path) -> None:
    f = Flat()
    x, w = f.input("x", BATCH, 3), f.weight("w", 3)
    y = f("add", x, w)
    graph = f.give(y, x, w, y, f("dropout", y, p=0.1))
    build(graph, trial_weights(graph, 0), tmp_path / "model.xml")
    inputs = random_inputs(graph, {"batch": 2}, 0, {})
    check(session(tmp_path / "model.xml")(inputs), run(graph, trial_weights(graph, 0), inputs))


def test_a_causal_mask_is_made_once_for_all_layers() -> None:
    f = Flat()
    q, k, v = qkv(f)
    first = attend(f, q, k, v, mask=masks.CAUSAL)
    model = make(f.give(attend(f, first, k, v, mask=masks.CAUSAL)), {})
    names = [node.get_type_name() for node in model.get_ordered_ops()]
    assert names.count("ScaledDotProductAttention") == 2
    assert names.count("LessEqual") == names.count("Select") == 1


def test_what_the_cpu_plugin_runs_as_one_kernel() -> None:
    assert "RoPE" in kinds(make(case("rotate").make(), {}))
    assert "RoPE" in kinds(make(case("rotate_some_features_by_batch").make(), {}))
    for name, wanted in (("rms_norm", "RMS"), ("layer_norm", "MVN")):
        graph = case(name).make()
        found = kinds(make(graph, trial_weights(graph, 0)))
        assert wanted in found
        assert "Reduce" not in found


def test_no_two_readers_share_a_number() -> None:
    """The CPU plugin fails on attention whose one kernel reads a constant in two of its loops."""
    model = make(case("attend_padding").make(), {})
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and not node.get_output_shape(0):
            assert len(node.output(0).get_target_inputs()) == 1


# --- sizes -----------------------------------------------------------------------------------------------------------


def shape_of(graph: Graph, sizes: Mapping[str, Any] | None = None) -> str:
    return str(make(graph, trial_weights(graph, 0), sizes).input(0).get_partial_shape())


def test_sizes_are_dynamic_fixed_or_within_limits() -> None:
    graph = case("linear").make()
    assert shape_of(graph) == "[?,?,8]"
    assert shape_of(graph, {"batch": 2}) == "[2,?,8]"
    assert shape_of(graph, {"batch": 2, "seq": (1, 512)}) == "[2,1..512,8]"
    running = session(make(graph, trial_weights(graph, 0), {"seq": (2, 4)}))
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(running(inputs), run(graph, trial_weights(graph, 0), inputs))


def required(operator: str, left: Size, right: Size) -> Graph:
    graph = case("linear").make()
    graph.constraints.append(Constraint(operator, left, right, "why not"))
    return graph


@pytest.mark.parametrize(
    ("operator", "left", "right", "shape"),
    [
        ("<=", SEQ, 7, "[?,1..7,8]"),
        ("<", SEQ, 7, "[?,1..6,8]"),
        (">", SEQ, 7, "[?,8..,8]"),
        (">=", 7, SEQ, "[?,1..7,8]"),
        (">=", SEQ, 7, "[?,7..,8]"),
        ("==", 7, SEQ, "[?,7,8]"),
        ("!=", SEQ, 7, "[?,?,8]"),
        ("<=", SEQ, BATCH, "[?,?,8]"),
        ("==", dims.remainder(SEQ, 4), 0, "[?,?,8]"),
    ],
)
def test_what_a_model_requires_of_a_size_is_known_to_the_runtime(
    operator: str, left: Size, right: Size, shape: str
) -> None:
    assert shape_of(required(operator, left, right)) == shape


def test_the_narrower_of_two_limits_holds() -> None:
    graph = required("<=", SEQ, 7)
    assert shape_of(graph, {"seq": (2, 9)}) == "[?,2..7,8]"
    assert shape_of(graph, {"seq": 3}) == "[?,3,8]"


@pytest.mark.parametrize(
    ("sizes", "code"),
    [
        ({"sequence": 3}, "T704"),
        ({"sequence": (1, 3)}, "T704"),
        ({"seq": 0}, "T704"),
        ({"seq": (0, 3)}, "T704"),
        ({"seq": (4, 3)}, "T704"),
        ({"seq": 9}, "T706"),
        ({"seq": (8, 9)}, "T706"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, Any], code: str) -> None:
    with pytest.raises(SpecError) as raised:
        shape_of(required("<=", SEQ, 7), sizes)
    assert raised.value.diagnostics[0].code == code


@pytest.mark.parametrize(("name", "sizes"), [("split_of_a_symbol", {"seq": 3}), ("split_of_a_symbol", {"seq": 1})])
def test_sizes_at_which_an_op_has_no_result(name: str, sizes: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="with seq = ") as raised:
        shape_of(case(name).make(), sizes)
    assert raised.value.diagnostics[0].code == "T704"


# --- faults ----------------------------------------------------------------------------------------------------------


def code_of(graph: Graph, weights: Mapping[str, Any], path: Path) -> str:
    with pytest.raises(SpecError) as raised:
        build(graph, weights, path)
    return raised.value.diagnostics[0].code


def test_weights_that_are_missing_or_of_another_shape(tmp_path: Path) -> None:
    graph = tied()
    weights = trial_weights(graph, 0)
    assert code_of(graph, {"wte.weight": weights["wte.weight"]}, tmp_path / "model.xml") == "T801"
    assert code_of(graph, {**weights, "head.bias": np.zeros(3, np.float32)}, tmp_path / "model.xml") == "T803"
    assert not list(tmp_path.iterdir())


def test_an_output_called_like_an_input(tmp_path: Path) -> None:
    f = Flat()
    graph = f.give(f("neg", f.input("output", SEQ)))
    assert code_of(graph, {}, tmp_path / "model.xml") == "T709"


def test_an_op_that_only_a_build_computes(tmp_path: Path) -> None:
    f = Flat()
    graph = f.give(f("prune", f.input("x", SEQ, 4), sparsity=0.5))
    with pytest.raises(SpecError, match="OpenVINO cannot hold `prune` at `prune`") as raised:
        build(graph, {}, tmp_path / "model.xml")
    assert raised.value.diagnostics[0].code == "T703"


def test_what_openvino_refuses_is_told_with_its_place() -> None:
    f = Flat()
    x = f.input("x", BATCH, 3, SEQ)
    graph = f.give(f("conv1d", x, f.weight("w", 2, 3, 5), None, out=2, kernel=5, bias=False))
    graph.node(graph.inputs[0]).types = (Type("float", (BATCH, 4, SEQ)),)  # other channels than the op was made for
    with pytest.raises(SpecError, match="OpenVINO cannot hold `conv1d` at `conv1d`: ") as raised:
        make(graph, trial_weights(graph, 0))
    assert raised.value.diagnostics[0].code == "T703"


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(SpecError, match="OpenVINO cannot run") as raised:
        session(tmp_path / "model.xml")
    assert raised.value.diagnostics[0].code == "T703"


def test_a_file_that_the_runtime_would_not_find(tmp_path: Path) -> None:
    assert code_of(tied(), {}, tmp_path / "model.onnx") == "T702"


def test_what_is_for_training_only_is_left_out() -> None:
    f = Flat()
    x = f.input("x", SEQ, 4)
    graph = f.give(f("relu", x))
    graph.penalties.append(("spread", Value(graph.add("exp", (x,)).id)))
    assert "Exp" not in {node.get_type_name() for node in make(graph, {}).get_ordered_ops()}


@pytest.mark.parametrize("head", [64, 128, 192])
def test_masks_over_heads_of_any_size(head: int, tmp_path: Path) -> None:
    """The CPU plugin gives garbage where attention and what reads it read one mask, for heads of 128 features and more."""
    text = f"""
model Wide(x: [batch, seq, {2 * head}]) -> [batch, seq, {2 * head}] {{
  q, k, v = linear(x, out={6 * head}) as qkv
      |> rearrange("b s (t h d) -> t b h s d", t=3, h=2)
      |> split(parts=3, axis=0, squeeze=true)
  return rearrange(attend(q, k, v, mask=window(4)), "b h s d -> b s (h d)")
}}
"""
    (tmp_path / "wide.tfm").write_text(text, "utf-8")
    verdict = tfdsl.load(tmp_path / "wide.tfm").verify(["openvino"])
    assert [result for result in verdict.results if not result.passed] == []
