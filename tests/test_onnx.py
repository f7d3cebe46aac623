"""The ONNX backend: every op against the reference in ONNX Runtime, what the files hold, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from op_cases import BATCH, CASES, SEQ, Case, Flat, attend, hidden, qkv, random_inputs, trial_weights

from tfdsl.backends.compare import relative_error
from tfdsl.backends.onnx import build, session, storage
from tfdsl.backends.reference import run
from tfdsl.ir import dims, masks
from tfdsl.ir.graph import Constraint, Frame, Graph, Value
from tfdsl.language.diagnostics import SpecError
from tfdsl.weights import materialise

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


def built(graph: Graph, path: Path, weights: Mapping[str, Any] | None = None, **settings: Any) -> onnx.ModelProto:
    """The model that a build writes, after the checker has seen it."""
    build(graph, trial_weights(graph, 1) if weights is None else weights, path, **settings)
    onnx.checker.check_model(path, full_check=True)
    return onnx.load(path)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The weights of a model; constants of the builder's own begin with a slash."""
    return {each.name: each for each in model.graph.initializer if not each.name.startswith("/")}


def named_sizes(graph: Graph) -> set[str]:
    return dims.names_of(size for place in graph.inputs for size in graph.node(place).type.dims)


# --- every op --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_op_is_what_the_reference_computes(each: Case, tmp_path: Path) -> None:
    graph = each.make()
    weights = trial_weights(graph, 1)
    model = built(graph, tmp_path / "model.onnx", weights)
    assert {node.domain for node in model.graph.node} == {""}
    running = session(tmp_path / "model.onnx")
    for seed, sizes in enumerate(each.sizes):
        inputs = random_inputs(graph, sizes, seed, each.ranges)
        check(running(inputs), run(graph, weights, inputs))


@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_op_is_the_same_at_fixed_sizes(each: Case, tmp_path: Path) -> None:
    graph = each.make()
    weights = trial_weights(graph, 1)
    sizes = each.sizes[-1]
    model = built(graph, tmp_path / "model.onnx", weights, dims={name: sizes[name] for name in named_sizes(graph)})
    assert "Shape" not in operators(model)
    ends = [*model.graph.input, *model.graph.output]
    assert not any(dim.dim_param for end in ends for dim in end.type.tensor_type.shape.dim)
    inputs = random_inputs(graph, sizes, 0, each.ranges)
    check(session(tmp_path / "model.onnx")(inputs), run(graph, weights, inputs))


@pytest.mark.parametrize("length", [33, 300])
def test_attention_over_many_keys(tmp_path: Path, length: int) -> None:
    f = Flat()
    window = masks.Joined("&", masks.CAUSAL, masks.Term("window", (16,)))
    padded = masks.Joined("&", window, masks.Term("padding", (), 0))
    q, k, v = (f.input(name, BATCH, heads, SEQ, 64) for name, heads in (("q", 4), ("k", 2), ("v", 2)))
    keep = f.input("keep", BATCH, SEQ, dtype="bool")
    graph = f.give(f("attend", q, k, v, None, None, None, keep, mask=padded), attend(f, q, k, v, mask=window))
    inputs = random_inputs(graph, {"batch": 2, "seq": length}, 0, {})
    inputs["keep"][0, :20] = False  # the first queries of this row see nothing
    build(graph, {}, tmp_path / "model.onnx")
    check(session(tmp_path / "model.onnx")(inputs), run(graph, {}, inputs))


def test_whole_numbers_divide_as_in_python(tmp_path: Path) -> None:
    f = Flat()
    a, b = f.input("a", SEQ, dtype="int"), f.input("b", SEQ, dtype="int")
    graph = f.give(f("floordiv", a, b), f("mod", a, b))
    pairs = [(7, 2), (-7, 2), (7, -2), (-7, -2), (0, -5), (-1, 100), (2**40 + 1, 3), (-(2**40), 7)]
    left, right = (np.array(numbers) for numbers in zip(*pairs, strict=True))
    built(graph, tmp_path / "model.onnx")
    found = session(tmp_path / "model.onnx")({"a": left, "b": right})
    assert found["output"].tolist() == [a // b for a, b in pairs]
    assert found["output_1"].tolist() == [a % b for a, b in pairs]


@pytest.mark.parametrize(("bits", "group"), [(8, None), (8, 32), (4, 32), (4, 128), (4, None)])
def test_quantised_products_compute_in_float32(bits: int, group: int | None, tmp_path: Path) -> None:
    """Left to itself, ONNX Runtime rounds activations to eight bits: an error of 5e-4 at this size."""
    f = Flat()
    q, scale = f.every("quantize", f.weight("fc.weight", 64, 512), bits=bits, group=group)
    graph = f.give(f("linear", hidden(f, features=512), f("dequantize", q, scale), None, out=64))
    weights = trial_weights(graph, 0)
    built(graph, tmp_path / "model.onnx", weights)
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(session(tmp_path / "model.onnx")(inputs), run(graph, weights, inputs))


# --- what the model looks like ---------------------------------------------------------------------------------------


def test_a_model_says_what_made_it_and_keeps_the_names_of_the_spec(tmp_path: Path) -> None:
    model = built(case("rearrange_heads").make(), tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 24)]
    assert model.producer_name == "tfdsl"
    assert {each.key: each.value for each in model.metadata_props} == {"tfdsl.model": "rearrange_heads"}
    assert [each.name for each in model.graph.input] == ["x"]
    assert [each.name for each in model.graph.output] == ["output", "output_1"]


def test_sizes_that_are_not_fixed_keep_their_names(tmp_path: Path) -> None:
    model = built(case("linear").make(), tmp_path / "model.onnx", dims={"batch": 2})
    for end in (*model.graph.input, *model.graph.output):
        batch, seq, _ = end.type.tensor_type.shape.dim
        assert (batch.dim_value, seq.dim_param) == (2, "seq")


def test_nodes_are_named_after_the_place_in_the_spec(tmp_path: Path) -> None:
    f = Flat()
    x, weight = hidden(f), f.weight("h.3.attn.c_attn.weight", 8, 8)
    scope = (Frame("", "Model", {}), Frame("h.3.attn", "Attention", {}))
    node = f.graph.add("linear", (x, weight, None), {"out": 8}, name="c_attn", scope=scope)
    model = built(f.give(Value(node.id)), tmp_path / "model.onnx")
    assert [each.name for each in model.graph.node] == ["/h.3/attn/c_attn/Transpose", "/h.3/attn/c_attn/MatMul"]


def test_heads_are_split_and_joined_without_computing_a_size(tmp_path: Path) -> None:
    f = Flat()
    apart = f("rearrange", hidden(f), pattern="b s (h d) -> b h s d", sizes={"h": 2})
    joined = f("rearrange", f("exp", apart), pattern="b h s d -> b s (h d)")
    assert operators(built(f.give(joined), tmp_path / "model.onnx")) == {"Reshape": 2, "Transpose": 2, "Exp": 1}


def test_what_depends_on_the_angles_alone_is_made_once(tmp_path: Path) -> None:
    f = Flat()
    x, cos, sin = f.input("x", BATCH, 2, SEQ, 8), f.input("cos", SEQ, 4), f.input("sin", SEQ, 4)
    for _ in range(3):
        x = f("rotate", x, cos, sin)
    model = built(f.give(x), tmp_path / "model.onnx")
    assert operators(model) == {"RotaryEmbedding": 3, "Expand": 2, "Concat": 1, "Shape": 1}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attend_causal", {"Attention": 1}),
        ("attend_grouped", {"Attention": 1}),
        ("attend_bias_softcap_causal", {"Attention": 1}),
        ("attend_allowed_rows_may_be_empty", {"Attention": 1}),
        ("rms_norm", {"RMSNormalization": 1}),
        ("rotate_some_features_by_batch", {"RotaryEmbedding": 1}),
        ("gelu", {"Gelu": 1}),
        ("quantized_linear", {"DequantizeLinear": 1, "MatMul": 1}),
        ("dropout", {"Identity": 1}),
    ],
)
def test_an_op_is_one_standard_operator_where_there_is_one(name: str, expected: dict[str, int], tmp_path: Path) -> None:
    assert operators(built(case(name).make(), tmp_path / "model.onnx")) == expected


def test_an_operator_without_use_is_left_out_and_its_input_stays(tmp_path: Path) -> None:
    f = Flat()
    x, unused = hidden(f), f.input("unused", BATCH)
    f("exp", unused)
    f.graph.penalties = [("balance", f("sum", unused, axis=0))]
    model = built(f.give(f("neg", x)), tmp_path / "model.onnx")
    assert operators(model) == {"Neg": 1}
    assert [each.name for each in model.graph.input] == ["x", "unused"]


def test_one_value_may_be_several_outputs_and_an_input_one(tmp_path: Path) -> None:
    f = Flat()
    x = hidden(f)
    y = f("neg", x)
    graph = f.give(y, x, y)
    built(graph, tmp_path / "model.onnx")
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(session(tmp_path / "model.onnx")(inputs), run(graph, {}, inputs))


def test_names_that_are_alike_stay_apart(tmp_path: Path) -> None:
    f = Flat()
    x = hidden(f, "bias")
    graph = f.give(f("mul", f("add", x, f.weight("bias", 8)), f.weight("output", 8)))
    weights = trial_weights(graph, 0)
    built(graph, tmp_path / "model.onnx", weights)
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(session(tmp_path / "model.onnx")(inputs), run(graph, weights, inputs))


# --- weights ---------------------------------------------------------------------------------------------------------


def test_a_weight_of_a_product_lies_as_in_a_checkpoint(tmp_path: Path) -> None:
    graph = case("linear").make()
    weights = trial_weights(graph, 0)
    found = initializers(built(graph, tmp_path / "model.onnx", weights))
    assert list(found) == ["fc.weight", "fc.bias"]
    np.testing.assert_array_equal(numpy_helper.to_array(found["fc.weight"]), weights["fc.weight"])


def test_a_weight_of_two_products_is_stored_once(tmp_path: Path) -> None:
    model = built(case("linear_shared_by_two").make(), tmp_path / "model.onnx")
    assert list(initializers(model)) == ["fc.weight", "fc.bias"]
    assert operators(model)["Transpose"] == 1


def test_a_table_tied_to_a_head_is_stored_once_as_it_is(tmp_path: Path) -> None:
    graph = case("embedding_tied_to_head").make()
    weights = trial_weights(graph, 0)
    model = built(graph, tmp_path / "model.onnx", weights)
    assert operators(model) == {"Gather": 1, "Transpose": 1, "MatMul": 1}
    found = initializers(model)
    assert list(found) == ["wte.weight"]
    np.testing.assert_array_equal(numpy_helper.to_array(found["wte.weight"]), weights["wte.weight"])


def test_quantised_weights_are_stored_in_their_bits(tmp_path: Path) -> None:
    eight = initializers(built(case("quantized_linear").make(), tmp_path / "eight.onnx"))
    assert eight["fc.weight"].data_type == onnx.TensorProto.INT8
    assert list(eight["fc.weight_scale"].dims) == [6]
    graph = case("quantized_linear_in_groups_of_four_bits").make()
    weights = trial_weights(graph, 1)
    four = initializers(built(graph, tmp_path / "four.onnx", weights))
    assert four["fc.weight"].data_type == onnx.TensorProto.INT4
    assert len(four["fc.weight"].raw_data) == 6 * 32 // 2
    assert list(four["fc.weight_scale"].dims) == [2, 6]
    numbers = materialise(graph, weights)[1]["fc.weight"].T
    np.testing.assert_array_equal(numpy_helper.to_array(four["fc.weight"]).astype(np.int8), numbers)


def test_an_odd_count_of_four_bits_fills_its_last_byte(tmp_path: Path) -> None:
    f = Flat()
    q, scale = f.every("quantize", f.weight("fc.weight", 3, 5), bits=4)
    graph = f.give(f("linear", hidden(f, features=5), f("dequantize", q, scale), None, out=3))
    weights = trial_weights(graph, 0)
    built(graph, tmp_path / "model.onnx", weights)
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(session(tmp_path / "model.onnx")(inputs), run(graph, weights, inputs))


def test_weights_of_other_element_types_become_float32(tmp_path: Path) -> None:
    graph = case("linear").make()
    weights = {path: array.astype(np.float16) for path, array in trial_weights(graph, 0).items()}
    found = initializers(built(graph, tmp_path / "model.onnx", weights))
    assert {each.data_type for each in found.values()} == {onnx.TensorProto.FLOAT}
    np.testing.assert_array_equal(numpy_helper.to_array(found["fc.bias"]), weights["fc.bias"].astype(np.float32))


def large(features: int = 32) -> Graph:
    """A model with some weights that go beside it and some that are too small for that."""
    f = Flat("Large")
    table = f.weight("wte.weight", 40, features)
    x = f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), table, size=40, dim=features)
    q, scale = f.every("quantize", f.weight("fc.weight", 48, features), bits=8)
    y = f("linear", x, f("dequantize", q, scale), f.weight("fc.bias", 48), out=48)
    return f.give(f("linear", y, f.weight("head.weight", features, 48), None, out=features))


def test_weights_past_the_limit_go_to_a_file_beside_the_model(tmp_path: Path) -> None:
    graph = large()
    weights = trial_weights(graph, 0)
    within = built(graph, tmp_path / "within" / "model.onnx", weights)
    beside = built(graph, tmp_path / "model.onnx", weights, inline_limit=1000)
    assert sorted(each.name for each in (tmp_path / "within").iterdir()) == ["model.onnx"]
    assert {"model.onnx", "model.onnx.data"} <= {each.name for each in tmp_path.iterdir()}
    lean = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    outside = {each.name: each for each in lean.graph.initializer if each.external_data}
    assert sorted(outside) == ["fc.weight", "head.weight", "wte.weight"]
    for each in outside.values():
        entries = {entry.key: entry.value for entry in each.external_data}
        assert entries["location"] == "model.onnx.data"
        assert int(entries["offset"]) % storage.ALIGNMENT == 0
    for name, tensor in initializers(within).items():
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), numpy_helper.to_array(initializers(beside)[name]), err_msg=name
        )
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    expected = run(graph, weights, inputs)
    check(session(tmp_path / "model.onnx")(inputs), expected)
    check(session(tmp_path / "within" / "model.onnx")(inputs), expected)


def test_the_file_is_what_protobuf_itself_would_write(tmp_path: Path) -> None:
    """The bytes round the weights are put together by hand; parsing and writing them again changes nothing."""
    built(large(), tmp_path / "model.onnx")
    written = (tmp_path / "model.onnx").read_bytes()
    again = onnx.load_model_from_string(written).SerializeToString(deterministic=True)
    assert len(again) == len(written)
    assert onnx.load_model_from_string(again) == onnx.load_model_from_string(written)


def test_two_builds_are_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(large(), trial_weights(large(), 0), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_model_in_memory_runs(tmp_path: Path) -> None:
    graph = case("linear").make()
    weights = trial_weights(graph, 0)
    built(graph, tmp_path / "model.onnx", weights)
    inputs = random_inputs(graph, {"batch": 2, "seq": 3}, 0, {})
    check(session((tmp_path / "model.onnx").read_bytes())(inputs), run(graph, weights, inputs))


@pytest.mark.heavy
def test_more_than_two_gigabytes(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.config.getoption("-m") != "heavy":
        pytest.skip("writes more than two gigabytes")
    rows, features = 70_000, 8192
    f = Flat()
    table = f.weight("wte.weight", rows, features)
    graph = f.give(f("embedding", f.input("ids", BATCH, SEQ, dtype="int"), table, size=rows, dim=features))
    values = np.memmap(tmp_path / "table", np.float32, "w+", shape=(rows, features))  # zeros that take no room
    values[-1] = np.arange(features)
    build(graph, {"wte.weight": values}, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert (tmp_path / "model.onnx").stat().st_size < 10_000
    found = session(tmp_path / "model.onnx")({"ids": np.array([[rows - 1]])})
    np.testing.assert_array_equal(found["output"][0, 0], values[-1])
    (tmp_path / "model.onnx.data").unlink()


def test_the_limit_leaves_room_below_two_gigabytes() -> None:
    assert storage.INLINE_LIMIT < 2**31 - 2**28


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(graph: Graph, path: Path, weights: Mapping[str, Any] | None = None, **settings: Any) -> str:
    """The rendered faults of a build, which must leave nothing behind."""
    with pytest.raises(SpecError) as caught:
        build(graph, trial_weights(graph, 0) if weights is None else weights, path, **settings)
    assert not path.parent.exists() or not list(path.parent.iterdir())
    return str(caught.value)


def test_a_size_that_the_model_does_not_have(tmp_path: Path) -> None:
    text = refused(case("linear").make(), tmp_path / "model.onnx", dims={"length": 2})
    assert "error[T704]: `length` is no size of the inputs of `linear`" in text


def test_a_fixed_size_that_a_requirement_forbids(tmp_path: Path) -> None:
    graph = case("linear").make()
    graph.constraints = [Constraint("<=", SEQ, 8, "the table ends there")]
    text = refused(graph, tmp_path / "model.onnx", dims={"seq": 9})
    assert "error[T706]: `seq <= 8` does not hold with seq = 9" in text
    built(graph, tmp_path / "model.onnx", dims={"seq": 8})


def test_an_output_that_is_called_like_an_input(tmp_path: Path) -> None:
    f = Flat()
    f.graph.outputs = [("x", f("neg", hidden(f)))]
    assert "error[T709]: the output `x`" in refused(f.graph, tmp_path / "model.onnx")


@pytest.mark.parametrize("limit", [storage.INLINE_LIMIT, 0])
def test_weights_that_are_missing_or_of_another_shape(limit: int, tmp_path: Path) -> None:
    graph = case("linear").make()
    weights = trial_weights(graph, 0)
    short = {path: array for path, array in weights.items() if path != "fc.bias"}
    assert "error[T801]" in refused(graph, tmp_path / "out" / "model.onnx", short, inline_limit=limit)
    wrong = {**weights, "fc.weight": weights["fc.weight"].T}
    assert "error[T803]" in refused(graph, tmp_path / "out" / "model.onnx", wrong, inline_limit=limit)


# --- what the lowerings rely on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries_keys", [(5, 5), (3, 7), (7, 3), (1, 4)])
def test_the_runtime_aligns_causal_attention_at_the_first_key(queries_keys: tuple[int, int], tmp_path: Path) -> None:
    queries, keys = queries_keys
    f = Flat()
    graph = f.give(attend(f, *qkv(f, keys=dims.symbol("memory")), mask=masks.CAUSAL))
    built(graph, tmp_path / "model.onnx")
    inputs = random_inputs(graph, {"batch": 1, "seq": queries, "memory": keys}, 0, {})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    expected = run(graph, {}, inputs)
    check({"output": plain.run(None, inputs)[0]}, expected)
