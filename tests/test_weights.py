"""Weights: initialisers against torch's formulas, files and all that can be wrong with them, and what builds store."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from tfdsl import SpecError
from tfdsl.backends.reference import run
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Graph, Initializer, Type, Value
from tfdsl.ir.graph import weights as weights_of
from tfdsl.ir.paths import names
from tfdsl.weights import bytes_needed, initial, materialise, memory, needs_values, read, trial, write
from tfdsl.weights.beginning import fans, generator, start
from tfdsl.weights.compression import dequantize, prune, quantize

BATCH = symbol("batch")


def weight(
    graph: Graph, path: str, *shape: int, init: str = "xavier_uniform", arguments: tuple[float, ...] = ()
) -> Value:
    attributes = {"path": path, "shape": shape, "init": Initializer(init, arguments)}
    return Value(graph.add("weight", (), attributes).id)


def several(shapes: dict[str, tuple[int, ...]]) -> Graph:
    """A graph of weights that are its outputs."""
    graph = Graph("several")
    graph.outputs = [(path, weight(graph, path, *shape)) for path, shape in shapes.items()]
    return graph


def stack(depth: int, width: int = 4) -> Graph:
    """x -> x @ h.0.w -> x @ h.1.w ..., as one loop, and then a norm."""
    graph = Graph("Stack")
    type = Type("float", (BATCH, width))
    x = Value(graph.add("input", (), {"name": "x"}, (type,)).id)
    body = Graph("body")
    inner = Value(body.add("input", (), {"name": "x"}, (type,)).id)
    w = weight(body, "h.*.w", width, width)
    body.outputs = [("x", Value(body.add("linear", (inner, w, None), {"out": width, "bias": False}).id))]
    attributes = {"turns": (0,) * depth, "carried": 1, "path": "h"}
    x = Value(graph.add("repeat", (x,), attributes, (type,), bodies=(body,)).id)
    norm = weight(graph, "norm.weight", width, init="ones")
    graph.outputs = [("y", Value(graph.add("rms_norm", (x, norm)).id))]
    return graph


def codes(error: pytest.ExceptionInfo[SpecError]) -> list[str]:
    return [diagnostic.code for diagnostic in error.value.diagnostics]


# --- first values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 50), (20, 30, 5), (16, 8, 3, 4)])
def test_fans_are_those_of_torch(shape: tuple[int, ...]) -> None:
    assert fans(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


@pytest.mark.parametrize(
    ("kind", "arguments", "bound", "deviation"),
    [
        ("zeros", (), 0, 0),
        ("normal", (0.3,), math.inf, 0.3),
        ("normal", (), math.inf, 0.02),
        ("trunc_normal", (0.3,), 0.6, 0.3 * 0.8796),
        ("uniform", (0.5,), 0.5, 0.5 / math.sqrt(3)),
        ("xavier_uniform", (2.0,), 2 * math.sqrt(6 / 500), 2 * math.sqrt(2 / 500)),
        ("xavier_normal", (), math.inf, math.sqrt(2 / 500)),
        ("kaiming_uniform", (math.sqrt(2),), math.sqrt(6 / 200), math.sqrt(2 / 200)),
        ("kaiming_normal", (), math.inf, math.sqrt(1 / 200)),
    ],
)
def test_initialisers(kind: str, arguments: tuple[float, ...], bound: float, deviation: float) -> None:
    values = start(Initializer(kind, arguments), (300, 200), generator(0, "w"))
    assert values.dtype == np.float32 and values.shape == (300, 200)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert values.std() == pytest.approx(deviation, rel=0.02)
    assert abs(values.mean()) <= 0.02 * deviation


def test_initialisers_that_are_one_number() -> None:
    assert (start(Initializer("ones"), (3,), generator(0, "w")) == 1).all()
    assert (start(Initializer("constant", (0.5,)), (3,), generator(0, "w")) == 0.5).all()


def test_first_values_depend_on_seed_and_path_only() -> None:
    one = initial(several({"a": (3, 4), "b": (3, 4)}), 0)
    other = initial(several({"b": (3, 4), "c": (2,), "a": (3, 4)}), 0)
    assert np.array_equal(one["a"], other["a"]) and np.array_equal(one["b"], other["b"])
    assert not np.array_equal(one["a"], one["b"])
    assert not np.array_equal(one["a"], initial(several({"a": (3, 4)}), 1)["a"])
    assert initial(several({"a": (3, 4)}), -1)["a"].shape == (3, 4)


def test_every_copy_in_a_loop_and_a_tied_weight_once() -> None:
    graph = stack(3)
    graph.outputs.append(("again", weight(graph, "norm.weight", 4, init="ones")))
    values = initial(graph, 0)
    assert list(values) == ["h.0.w", "h.1.w", "h.2.w", "norm.weight"]
    assert not np.array_equal(values["h.0.w"], values["h.1.w"])
    assert bytes_needed(graph) == (3 * 16 + 4) * 4


def test_trial_weights_are_all_at_work() -> None:
    graph = Graph("trial")
    made = {"matrix": (64, 64), "cls": (1, 1, 64), "ones": (64,), "zeros": (64,), "gate": (64,)}
    kinds = {"matrix": "zeros", "cls": "zeros", "ones": "ones", "zeros": "zeros", "gate": "constant"}
    for path, shape in made.items():
        arguments = (1e-6,) if path == "gate" else ()
        graph.outputs.append((path, weight(graph, path, *shape, init=kinds[path], arguments=arguments)))
    values = trial(graph, 0)
    for value in values.values():
        assert value.dtype == np.float32 and not np.isin(value, (0, 1)).any()
    assert values["matrix"].std() == pytest.approx(1 / 8, rel=0.1)
    assert values["ones"].mean() == pytest.approx(1, abs=0.05) and values["zeros"].std() == pytest.approx(0.1, rel=0.3)


def test_weights_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes_available", lambda: 100)
    with pytest.raises(SpecError) as caught:
        initial(stack(3), 0)
    assert codes(caught) == ["T807"] and "--set depth=2" in str(caught.value)


def test_available_memory_is_known_here() -> None:
    available = memory.bytes_available()
    assert available is None or available > 2**20


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    graph = stack(3)
    values = initial(graph, 0)
    write(tmp_path / "w.safetensors", values)
    found = read(tmp_path / "w.safetensors", graph)
    assert set(found) == set(values) and len(found) == 4
    for path, value in values.items():
        assert found[path].dtype == np.float32 and np.array_equal(found[path], value)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_float32_is_not_copied_and_the_file_is_not_written_through(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors", {"w": np.ones((2, 2), np.float32)})
    before = (tmp_path / "w.safetensors").read_bytes()
    found = read(tmp_path / "w.safetensors", several({"w": (2, 2)}))["w"]
    assert found.base is not None and found.flags.writeable
    found[0, 0] = 5
    assert (tmp_path / "w.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_element_types(tmp_path: Path, dtype: torch.dtype) -> None:
    values = {"a": torch.randn(5, 3).to(dtype), "b": torch.tensor(2.5).to(dtype), "c": torch.zeros(3, dtype=dtype)}
    save_torch_file(values, tmp_path / "w.safetensors")
    found = read(tmp_path / "w.safetensors", several({"a": (5, 3), "b": (), "c": (3,)}))
    for path, value in values.items():
        assert found[path].dtype == np.float32
        assert np.array_equal(found[path], value.float().numpy())


def test_transposed_arrays_are_written_in_their_own_order(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write(tmp_path / "w.safetensors", {"w": value})
    assert np.array_equal(read(tmp_path / "w.safetensors", several({"w": (3, 2)}))["w"], value)


def test_everything_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    values: dict[str, Any] = {f"h.{turn}.w": np.zeros((4, 5), np.float32) for turn in (0, 1, 3)}
    values |= {"norm.wait": np.zeros(4, np.float32), "norm.weight": np.zeros(4, np.int32)}
    del values["norm.wait"], values["h.1.w"]
    save_file(values | {"extra": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(SpecError) as caught:
        read(tmp_path / "w.safetensors", stack(4))
    assert codes(caught) == ["T801", "T802", "T803", "T804"]
    text = str(caught.value).replace(str(tmp_path), "")
    assert "2 weights of the model are not in `/w.safetensors`" in text and "h.{1-2}.w" in text
    assert "a weight in `/w.safetensors` is none of the model" in text and "extra" in text
    assert "`h.{0,3}.w`: [4, 5] in `/w.safetensors`, and [4, 4] in the model" in text
    assert "`norm.weight`: element type I32 in `/w.safetensors`, and float in the model" in text


def test_a_name_that_is_nearly_right(tmp_path: Path) -> None:
    save_file({"norm.wait": np.zeros(4, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(SpecError, match=r"did you mean `norm\.wait`"):
        read(tmp_path / "w.safetensors", several({"norm.weight": (4,)}))


def header(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw


ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WHOLE = header(json.dumps({"w": ENTRY})) + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and so on, as zip files begin",
        WHOLE[:5],
        WHOLE[:-1],
        WHOLE + b"more",
        header("{}")[:-1],
        header("no json"),
        header(b"\xff\xfe"),
        header("[1, 2]"),
        header('{"w": 3}'),
        (2**63).to_bytes(8, "little") + b"{}",
        header(json.dumps({"w": {**ENTRY, "shape": [5]}})) + bytes(16),
        header(json.dumps({"w": {**ENTRY, "shape": [-4]}})) + bytes(16),
        header(json.dumps({"w": {**ENTRY, "shape": [2**62, 2**62]}})) + bytes(16),
        header(json.dumps({"w": {**ENTRY, "dtype": "Q7"}})) + bytes(16),
        header(json.dumps({"w": {**ENTRY, "data_offsets": [8, 24]}})) + bytes(16),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read(file, several({"w": (4,)}))
    assert codes(caught) == ["T805"]


def test_paths_without_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(SpecError) as caught:
            read(path, several({"w": (4,)}))
        assert codes(caught) == ["T805"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.PTH", "w.pkl"])
def test_a_pickle_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(tmp_path / name, several({"w": (4,)}))  # there is no such file: it is not even looked for
    assert codes(caught) == ["T806"]


def test_eight_bit_floats_are_an_element_type_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(header(json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}})) + bytes(4))
    with pytest.raises(SpecError, match="F8_E4M3") as caught:
        read(file, several({"w": (4,)}))
    assert codes(caught) == ["T804"]


def test_names_that_differ_in_a_number_are_one() -> None:
    paths = ["wte", "h.0.w", "h.2.w", "h.1.w", "h.5.w", "0.w", "h.3.b", "a.1.b.2.c", "a.1.b.3.c", "h2.w"]
    assert names(paths) == ["wte", "h.{0-2,5}.w", "0.w", "h.3.b", "a.1.b.2.c", "a.1.b.3.c", "h2.w"]


# --- pruning and quantisation ----------------------------------------------------------------------------------------


def test_the_smallest_are_pruned_and_of_equals_the_first() -> None:
    values = np.array([[1, -3, 2], [-1, 1, 4]], np.float32)
    assert prune(values, 1 / 3, None).tolist() == [[0, -3, 2], [0, 1, 4]]
    assert prune(values, 0.0, None).tolist() == values.tolist()
    assert prune(values, 0.49, None).tolist() == [[0, -3, 2], [0, 1, 4]]
    many = np.random.default_rng(0).standard_normal((37, 41)).astype(np.float32)
    assert np.count_nonzero(prune(many, 0.3, None)) == many.size - math.floor(0.3 * many.size)


def test_two_of_four_stay() -> None:
    values = np.array([[1, -3, 2, 0.5, 1, 1, 1, 1]], np.float32)
    assert prune(values, 0.5, "2:4").tolist() == [[0, -3, 2, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [None, 8])
def test_quantisation(bits: int, group: int | None) -> None:
    values = np.random.default_rng(0).standard_normal((6, 32)).astype(np.float32)
    values[2] = 0
    q, scale = quantize(values, bits, group)
    highest = 2 ** (bits - 1) - 1
    assert q.dtype == np.int8 and scale.dtype == np.float32
    assert scale.shape == ((6, 1) if group is None else (6, 4))
    assert np.abs(q).max() == highest and (scale[2] == 1).all()
    steps = np.repeat(scale, 32 // scale.shape[1], axis=1)
    assert (np.abs(dequantize(q, scale) - values) <= steps / 2 * 1.0001).all()


def test_quantised_convolutions_and_vectors_have_a_scale_for_each_row() -> None:
    assert quantize(np.ones((4, 3, 2, 2), np.float32), 8, None)[1].shape == (4, 1, 1, 1)
    assert quantize(np.ones(4, np.float32), 8, None)[1].shape == (4,)


# --- what a build stores ---------------------------------------------------------------------------------------------


def compress(region: Graph, source: Value, *steps: tuple[str, dict[str, Any]]) -> Value:
    """The value of a weight after some steps; after `quantize` it is dequantised."""
    for op, settings in steps:
        node = region.add(op, (source,), settings)
        source = Value(node.id)
        if op == "quantize":
            source = Value(region.add("dequantize", (source, Value(node.id, 1))).id)
    return source


QUANTIZE, PRUNE = ("quantize", {"bits": 8}), ("prune", {"sparsity": 0.5})
GROUPS = ("quantize", {"bits": 4, "group": 2})


def compressed_stack(*steps: tuple[str, dict[str, Any]]) -> Graph:
    """`stack` with the weights in its loop changed."""
    graph = stack(3)
    (loop,) = (node for node in graph.nodes() if node.op == "repeat")
    (body,) = loop.bodies
    source = next(Value(node.id) for node in body.nodes() if node.op == "weight")
    linear = next(node for node in body.nodes() if node.op == "linear")
    body.set_inputs(linear, (linear.inputs[0], compress(body, source, *steps), None))
    return graph


def ops(graph: Graph) -> set[str]:
    return {node.op for region in graph.regions() for node in region.nodes()}


@pytest.mark.parametrize(
    ("steps", "quantised"),
    [
        ((QUANTIZE,), True),
        ((GROUPS,), True),
        ((PRUNE,), False),
        ((PRUNE, QUANTIZE), True),
        ((QUANTIZE, PRUNE), False),
        ((PRUNE, GROUPS, ("prune", {"sparsity": 0.5, "pattern": "2:4"}), QUANTIZE), True),
    ],
)
def test_the_stored_graph_computes_the_same(steps: tuple[Any, ...], quantised: bool) -> None:
    graph = compressed_stack(*steps)
    values = trial(graph, 0)
    node = needs_values(graph)
    assert node is not None and node.op == steps[0][0]
    twin, stored = materialise(graph, values)
    assert needs_values(twin) is None and needs_values(graph) is not None
    assert ("dequantize" in ops(twin)) == quantised
    assert set(stored) == {path for weight in weights_of(twin) for path in weight.paths()}
    for each in weights_of(twin):
        for path in each.paths():
            assert stored[path].shape == each.type.dims
            assert stored[path].dtype == (np.int8 if each.type.dtype == "int" else np.float32)
    assert ("h.2.w_scale" in stored) == quantised
    x = {"x": np.random.default_rng(1).standard_normal((2, 4))}
    assert np.array_equal(run(twin, stored, x)["y"], run(graph, values, x)["y"])


def test_a_graph_without_such_nodes_is_stored_as_it_is() -> None:
    values = initial(stack(2), 0)
    assert needs_values(stack(2)) is None
    twin, stored = materialise(stack(2), values)
    assert len(stored) == 3 and all(stored[path] is values[path] for path in values)
    assert ops(twin) == ops(stack(2))


def tied(*chains: tuple[tuple[str, dict[str, Any]], ...]) -> Graph:
    """A weight read once for each chain, after its steps."""
    graph = Graph("tied")
    for place, steps in enumerate(chains):
        graph.outputs.append((f"y{place}", compress(graph, weight(graph, "w", 4, 4), *steps)))
    return graph


def test_a_tied_weight_is_stored_once() -> None:
    values = trial(tied(()), 0)
    twin, stored = materialise(tied((PRUNE, QUANTIZE), (PRUNE, QUANTIZE)), values)
    assert set(stored) == {"w", "w_scale"}
    found = run(twin, stored, {})
    assert np.array_equal(found["y0"], found["y1"])


@pytest.mark.parametrize(
    "chains", [((QUANTIZE,), ()), ((PRUNE,), (QUANTIZE,)), ((QUANTIZE,), (GROUPS,)), ((), (PRUNE,))]
)
def test_two_forms_of_one_weight_are_refused(chains: tuple[Any, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        materialise(tied(*chains), {})
    assert codes(caught) == ["T808"]


def test_a_weight_read_in_two_forms_from_one_node_is_refused() -> None:
    graph = tied(())
    source = graph.outputs[0][1]
    graph.outputs.append(("quantised", compress(graph, source, QUANTIZE)))
    with pytest.raises(SpecError) as caught:
        materialise(graph, {})
    assert codes(caught) == ["T808"]


def test_a_weight_that_nothing_reads_has_no_say_in_its_form() -> None:
    graph = Graph("unread")
    weight(graph, "w", 4, 4)
    weight(graph, "idle", 2)
    graph.outputs = [("y", compress(graph, weight(graph, "w", 4, 4), QUANTIZE))]
    twin, stored = materialise(graph, trial(graph, 0))
    assert set(stored) == {"w", "w_scale", "idle"}
    assert sorted(str(each.type) for each in weights_of(twin)) == ["[2]", "[4, 1]", "int[4, 4]"]


def test_bodies_may_store_their_turns_differently() -> None:
    graph = compressed_stack(QUANTIZE)
    loop = next(node for node in graph.nodes() if node.op == "repeat")
    plain = next(node for node in stack(3).nodes() if node.op == "repeat").bodies[0]
    loop.bodies, loop.attributes["turns"] = (loop.bodies[0], plain), (0, 1, 0)
    values = trial(graph, 0)
    twin, stored = materialise(graph, values)
    assert set(stored) == {"h.0.w", "h.0.w_scale", "h.1.w", "h.2.w", "h.2.w_scale", "norm.weight"}
    assert stored["h.1.w"] is values["h.1.w"] and stored["h.0.w"].dtype == np.int8
    x = {"x": np.ones((1, 4))}
    assert np.array_equal(run(twin, stored, x)["y"], run(graph, values, x)["y"])
