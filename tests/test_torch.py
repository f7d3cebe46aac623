"""The PyTorch backend: every op against the reference, and what a user does with an emitted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from op_cases import CASES, Case, random_inputs, trial_weights

import tfdsl
from tfdsl.backends import reference
from tfdsl.backends import torch as backend
from tfdsl.ir.graph import Graph
from tfdsl.weights import initial, materialise

torch.set_num_threads(1)


def spec(tmp_path: Path, text: str, model: str | None = None, **params: Any) -> Graph:
    path = tmp_path / "spec.tfm"
    path.write_text(text)
    return tfdsl.load(path, model, **params).graph


def agree(graph: Graph, weights: dict[str, Any], inputs: dict[str, Any], tolerance: float = 2e-5) -> None:
    wanted = reference.run(graph, weights, inputs)
    found = backend.session(graph, weights)(inputs)
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        if array.dtype.kind == "f":
            scale = max(float(np.abs(array).max(initial=0.0)), 1e-9)
            assert float(np.abs(found[name] - array).max(initial=0.0)) <= tolerance * scale
        else:
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op_against_the_reference(case: Case) -> None:
    graph = case.make()
    weights = trial_weights(graph, 0)
    for sizes in case.sizes:
        agree(graph, weights, random_inputs(graph, sizes, 0, case.ranges))


def first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


SHARED = """
block MLP(x: [..., w]) -> [..., w] {
  param hidden = 2 * w
  param act: layer = gelu
  return x |> linear(out=hidden) as fc |> act |> linear(out=w) as proj
}
block Layer(x: [b, s, w], memory: [b, m, w]?) -> [b, s, w] {
  h = layer_norm(x, bias=false) as n1
  q = linear(h, out=w) as q |> rearrange("b s (h d) -> b h s d", h=2)
  both = if given(memory) then concat(h, memory, axis=1) else h
  k = linear(both, out=w) as k |> rearrange("b s (h d) -> b h s d", h=2)
  v = linear(both, out=w) as v |> rearrange("b s (h d) -> b h s d", h=2)
  near = causal & window(3) | global_tokens(1)
  a = attend(q, k, v, mask=near, softcap=5.0, sinks=weight(shape=[2], init=normal(1.0)) as sinks)
  return x + (rearrange(a, "b h s d -> b s (h d)") |> linear(out=w) as o)
}
model Shared(x: [batch, seq, width], keep: bool[batch, seq]?) -> [batch, seq, width] {
  param width = 16
  param turns = 3
  layer = Layer()
  mlp = MLP(act=silu)
  first = x
  repeat outer[2] {
    y = linear(x, out=width) as inp
    repeat inner[turns] {
      x = layer(x)
      y = mlp(y) + (linear(y, out=width, bias=false) as lin)
    }
    x = x + y
  }
  z = layer(x, first)
  return if given(keep) then where(rearrange(keep, "b s -> b s 1"), z, 0.0) else z
}
"""

TURNS = """
block Attention(x: [batch, seq, width]) -> [batch, seq, width] {
  param drop = 0.0
  q, k, v = linear(x, out=3 * width) as qkv |> rearrange("b s (h d) -> b h s d", h=2) |> split(parts=3)
  return attend(q, k, v, mask=causal, drop=drop) |> rearrange("b h s d -> b s (h d)")
}
model Turns(tokens: int[batch, seq]) -> logits: [batch, seq, 11], pooled: [batch, width] {
  param width = 8
  param depth = 4
  param drop = 0.2
  table = embedding(size=11, dim=width)
  x = table(tokens)
  repeat layers[depth] as i {
    wide = width * (i % 2 + 1)
    h = Attention(rms_norm(x) as norm, drop=drop) as attn
    x = x + (h |> drop_path(p=drop * i / depth))
    x = x + (linear(x, out=wide) as up |> relu |> linear(out=width) as down)
    penalty size = mean(mean(mean(x * x)))
  }
  return project(x, table.weight), mean(x, axis=1)
}
"""


@pytest.mark.parametrize(("text", "inputs"), [(SHARED, ()), (SHARED, ("keep",)), (TURNS, ())])
def test_shared_blocks_loops_and_turns_that_differ(tmp_path: Path, text: str, inputs: tuple[str, ...]) -> None:
    graph = spec(tmp_path, text, inputs=inputs)
    weights = initial(graph, 0)
    for sizes in ({"batch": 1, "seq": 1}, {"batch": 3, "seq": 5}):
        agree(graph, weights, random_inputs(graph, sizes, 1, {}))


def test_state_dict_has_the_paths_of_the_spec_and_ties_once(tmp_path: Path) -> None:
    graph = spec(tmp_path, TURNS)
    model = backend.make(graph)
    assert set(model.state_dict()) == set(initial(graph, 0))
    assert "layers.1.up.weight" in model.state_dict()
    assert model.state_dict()["layers.0.up.weight"].shape == (8, 8)
    assert model.state_dict()["layers.1.up.weight"].shape == (16, 8)
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


@pytest.mark.parametrize("text", [SHARED, TURNS], ids=["shared", "turns"])
def test_emitted_source(tmp_path: Path, text: str, golden: Any) -> None:
    graph = spec(tmp_path, text)
    source = backend.emit(graph)
    assert "tfdsl" not in source
    golden(f"torch/{graph.name}.py", source)


SPECS = Path(__file__).parent.parent / "specs"
SHIPPED = [
    ("gpt2", "GPT2", {"vocab": 50, "context": 16, "width": 16, "depth": 2, "heads": 2}),
    ("bert", "BertForMaskedLM", {"vocab": 50, "context": 16, "width": 16, "depth": 2, "heads": 2}),
    ("llama", "Llama3_8B", {"vocab": 50, "width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "hidden": 24}),
    ("t5", "T5", {"vocab": 50, "width": 16, "depth": 2, "heads": 2, "head": 8, "hidden": 24}),
    ("vit", "ViT", {"size": 32, "width": 16, "depth": 2, "heads": 2}),
]


@pytest.mark.parametrize(("file", "name", "small"), SHIPPED, ids=lambda value: value if isinstance(value, str) else "")
def test_emitted_source_of_the_shipped_specs(file: str, name: str, small: dict[str, int], golden: Any) -> None:
    golden(f"torch/{name}.py", backend.emit(tfdsl.load(SPECS / f"{file}.tfm", name).graph))


@pytest.mark.parametrize(("file", "name", "small"), SHIPPED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_constructor_takes_the_settings_of_the_spec(file: str, name: str, small: dict[str, int]) -> None:
    """`GPT2(width=16, ...)` in the emitted source is the model that the spec with those settings is."""
    full = tfdsl.load(SPECS / f"{file}.tfm", name)
    namespace: dict[str, Any] = {}
    exec(backend.emit(full.graph), namespace)
    made = namespace[name](**small).state_dict()
    wanted = tfdsl.load(SPECS / f"{file}.tfm", name, **small).to_torch().state_dict()
    assert {path: tensor.shape for path, tensor in made.items()} == {path: t.shape for path, t in wanted.items()}


def test_penalties_are_summed_over_the_turns(tmp_path: Path) -> None:
    model = backend.make(spec(tmp_path, TURNS)).eval()
    model(torch.zeros(2, 3, dtype=torch.long))
    assert model.penalties["size"].shape == ()
    assert model.penalties["size"] > 0
    model.penalties["size"].backward()
    assert model.table.weight.grad is not None


def test_dropout_in_training_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = backend.make(spec(tmp_path, TURNS, drop=0.5))
    tokens = torch.arange(10).reshape(2, 5)
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])
    model.train()
    assert not torch.equal(model(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize("text", [SHARED, TURNS], ids=["shared", "turns"])
def test_meta_device_compile_and_gradients(tmp_path: Path, text: str) -> None:
    graph = spec(tmp_path, text)
    with torch.device("meta"):
        assert all(p.is_meta for p in backend.make(graph).parameters())
    model = backend.make(graph, initial(graph, 3)).eval()
    inputs = torch.randint(0, 11, (2, 5)) if graph.name == "Turns" else torch.randn(2, 5, 16)
    eager = first(model(inputs))
    compiled = first(torch.compile(model, backend="aot_eager", fullgraph=True)(inputs))
    torch.testing.assert_close(compiled, eager)
    eager.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("carried", ["x", "x, y"])
def test_checkpoint_recomputes_and_changes_nothing(tmp_path: Path, every: int, carried: str) -> None:
    two = carried == "x, y"
    text = f"""
    model C(x: [batch, 8]) -> [batch, 8] {{
      y = x * 2
      repeat h[5] {{
        x = x + tanh(linear(x, out=8) as fc)
        {"y = y + x" if two else ""}
      }}
      return x + y
    }}
    """
    graph = spec(tmp_path, text)
    plain = backend.make(graph, initial(graph, 0))
    (loop,) = [node for node in graph.nodes() if node.op == "repeat"]
    loop.attributes["checkpoint"] = every
    source = backend.emit(graph)
    assert "checkpoint(" in source
    recomputing = backend.make(graph, initial(graph, 0))
    x = torch.randn(4, 8)
    for model in (plain, recomputing):
        model.train()
        model(x).square().sum().backward()
    for a, b in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("every", [1, 2])
def test_checkpoint_of_turns_that_share_all_weights(tmp_path: Path, every: int) -> None:
    text = "model C(x: [batch, 8]) -> [batch, 8] { f = linear(out=8) repeat h[5] { x = x + tanh(f(x)) } return x }"
    graph = spec(tmp_path, text)
    plain = backend.make(graph, initial(graph, 0))
    (loop,) = [node for node in graph.nodes() if node.op == "repeat"]
    loop.attributes["checkpoint"] = every
    assert "checkpoint(" in backend.emit(graph)
    recomputing = backend.make(graph, initial(graph, 0))
    x = torch.randn(4, 8)
    for model in (plain, recomputing):
        model.train()
        model(x).square().sum().backward()
    torch.testing.assert_close(plain.f.weight.grad, recomputing.f.weight.grad)


def test_queries_that_are_written_out_where_they_are_attended(tmp_path: Path) -> None:
    for extra in ("bias=weight(shape=[2, 1, 1])", "softcap=3.0"):
        text = f"""
model Warm(x: [batch, seq, 8]) -> [batch, seq, 8] {{
  h = rearrange(x, "b s (h d) -> b h s d", h=2)
  heat = exp(weight(shape=[2, 1, 1]) as heat)
  return rearrange(attend(h * heat, h + 1, h, mask=causal, {extra}), "b h s d -> b s (h d)")
}}
"""
        graph = spec(tmp_path, text)
        agree(graph, trial_weights(graph, 0), random_inputs(graph, {"batch": 2, "seq": 5}, 0, {}))


def test_rows_that_see_nothing_have_finite_gradients(tmp_path: Path) -> None:
    text = """
    model M(x: [batch, seq, 8], keep: bool[batch, seq]) -> [batch, seq, 8] {
      h = rearrange(linear(x, out=8) as q, "b s (h d) -> b h s d", h=2)
      a = attend(h, h, h, mask=causal & padding(keep))
      b = attend(h, h, h, mask=causal & padding(keep), softcap=3.0)
      return rearrange(a + b, "b h s d -> b s (h d)")
    }
    """
    graph = spec(tmp_path, text)
    weights = initial(graph, 0)
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32)
    keep = np.array([[False, False, True, True], [False, False, False, False]])
    agree(graph, weights, {"x": x, "keep": keep})
    model = backend.make(graph, weights)
    model(torch.from_numpy(x), torch.from_numpy(keep)).square().sum().backward()
    assert torch.isfinite(model.q.weight.grad).all()


def test_names_that_torch_keeps_for_itself_are_refused(tmp_path: Path) -> None:
    graph = spec(tmp_path, "model M(x: [b, 4]) -> [b, 4] { return linear(x, out=4) as half }")
    with pytest.raises(tfdsl.SpecError, match="half"):
        backend.emit(graph)


def test_names_that_python_keeps_for_itself_work(tmp_path: Path) -> None:
    text = "model M(x: [b, 4]) -> [b, 4] { lambda = linear(x, out=4) as class return lambda }"
    graph = spec(tmp_path, text)
    agree(graph, initial(graph, 0), {"x": np.ones((2, 4), np.float32)})


def test_constraint_is_checked(tmp_path: Path) -> None:
    text = 'model M(x: [b, s]) -> [b, s] { param most = 4 require s <= most, "too long" return x * 2 }'
    model = backend.make(spec(tmp_path, text))
    with pytest.raises(ValueError, match="too long"):
        model(torch.zeros(1, 5))


def test_half_precision_runs_with_positions_of_full_precision(tmp_path: Path) -> None:
    text = """
    model M(x: [b, s, 16]) -> [b, s, 16] {
      q = linear(x, out=16) as q |> rearrange("b s (h d) -> b h s d", h=2) |> rope
      angle = cast(positions(x, axis=1), to="float") * 0.5
      y = rearrange(attend(q, q, q, mask=causal), "b h s d -> b s (h d)")
      return linear(y + rearrange(cos(angle), "s -> s 1"), out=16) as o
    }
    """
    graph = spec(tmp_path, text)
    weights = initial(graph, 0)
    x = torch.randn(2, 300, 16)
    exact = backend.make(graph, weights)(x)
    half = backend.make(graph, weights).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_weights_that_were_quantised_are_buffers(tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case.name == "quantized_linear"]
    graph = case.make()
    graph, stored = materialise(graph, trial_weights(graph, 0))
    model = backend.make(graph, stored)
    assert any(buffer.dtype == torch.int8 for buffer in model.buffers())
