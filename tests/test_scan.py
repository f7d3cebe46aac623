"""`scan`: recurrences against those of PyTorch, what a spec may say of them, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference
from tfdsl.ir.text import parse_graph, print_graph
from tfdsl.ir.verify import verify
from tfdsl.passes.clean import clean
from tfdsl.passes.unroll import unroll
from tfdsl.report import report
from tfdsl.weights import trial

torch = pytest.importorskip("torch")

# PyTorch's own, whose weights are all called as they are there.
GRU = """block Cell(x: [batch, width], h: [batch, hidden]) -> h: [batch, hidden], y: [batch, hidden] {
  weight_ih = weight(shape=[3 * hidden, width])
  weight_hh = weight(shape=[3 * hidden, hidden])
  bias_ih = weight(shape=[3 * hidden], init=zeros)
  bias_hh = weight(shape=[3 * hidden], init=zeros)
  r, z, n = linear(x, weight=weight_ih, bias=bias_ih) |> split(parts=3)
  r_h, z_h, n_h = linear(h, weight=weight_hh, bias=bias_hh) |> split(parts=3)
  n = tanh(n + sigmoid(r + r_h) * n_h)
  z = sigmoid(z + z_h)
  h = (1 - z) * n + z * h
  return h, h
}
model Recurrent(x: [batch, seq, 5]) -> y: [batch, seq, 7], last: [batch, 7] {
  last, y = scan(x, step=Cell(), start=[expand(0.0, shape=[batch, 7])]) as gru
  return y, last
}
"""

PLAIN = """block Step(x: [batch, width], h: [batch, width]) -> h: [batch, width], y: [batch, width] {
  h = tanh(linear(h, out=width) as inner + x)
  return h, h
}
model M(x: [batch, seq, 4], other: [batch, 4], ids: int[batch, seq]) -> [batch, seq, 4] {
  _, y = scan(x, step=Step, start=[other])
  return y
}
"""


def load(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "spec.tfm"
    path.write_text(text, "utf-8")
    return tfdsl.load(path)


@pytest.mark.parametrize("seq", [1, 2, 9])
def test_a_gated_unit_is_that_of_pytorch(tmp_path: Path, seq: int) -> None:
    theirs = torch.nn.GRU(5, 7, batch_first=True).double()
    weights = {f"gru.{name.removesuffix('_l0')}": each.detach().numpy() for name, each in theirs.named_parameters()}
    x = np.random.default_rng(0).normal(size=(3, seq, 5))
    found = reference.run(load(tmp_path, GRU).graph, weights, {"x": x})
    y, last = theirs(torch.tensor(x))
    np.testing.assert_allclose(found["y"], y.detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["last"], last[0].detach().numpy(), rtol=0, atol=1e-12)


def test_every_target_and_pass(tmp_path: Path) -> None:
    model = load(tmp_path, GRU)
    for each in (
        model,
        model.optimize("clean()", 'quantize("**", bits=4)'),
        model.optimize('prune("**", sparsity=0.5)'),
    ):
        verdict = each.verify()
        assert verdict.passed, [result for result in verdict.results if not result.passed]


@pytest.mark.parametrize("biases", ["of the layers", "added", "none"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_cells_that_openvino_makes_an_operator_of(tmp_path: Path, biases: str, activation: str) -> None:
    """A gated unit as papers write it (Cho et al., 2014), which OpenVINO recognises by its products, biases and gates."""
    pytest.importorskip("openvino")
    gates, new = (
        f"linear({x}, out={out}, bias={'true' if biases == 'of the layers' else 'false'}) as {name}"
        for x, out, name in (("concat(x, h)", "2 * hidden", "gates"), ("concat(x, reset * h)", "hidden", "new"))
    )
    added = ("weight(shape=[2 * hidden]) as first", "weight(shape=[hidden]) as second")
    if biases == "added":
        gates, new = f"({gates}) + {added[0]}", f"({new}) + {added[1]}"
    text = f"""block Cell(x: [batch, width], h: [batch, hidden]) -> [batch, hidden], [batch, hidden] {{
  reset, update = sigmoid({gates}) |> split(parts=2)
  h = update * h + (1 - update) * {activation}({new})
  return h, h
}}
model Recurrent(x: [batch, seq, 5]) -> [batch, seq, 7] {{
  last, y = scan(x, step=Cell(), start=[expand(0.0, shape=[batch, 7])]) as gru
  initialize "**" = normal(0.5)
  return y
}}
"""
    verdict = load(tmp_path, text).verify(targets=("openvino",))
    assert verdict.passed, verdict.results


def test_gradients(tmp_path: Path) -> None:
    module = load(tmp_path, GRU).to_torch(seed=0).double()
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module(x), x)
    module(x)[0].square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in module.parameters())


def test_other_axes_and_several_tensors(tmp_path: Path) -> None:
    """Along the last axis but one, a running product of matrices, and a count."""
    text = """block Step(a: [batch, d], on: bool[batch], total: [batch, d], n: int[]) -> [batch, d], int[], [batch, d, 1] {
  total = where(rearrange(on, "b -> b 1"), total * a, total)
  return total, n + 1, rearrange(total * (n + 1), "b d -> b d 1")
}
model M(a: [batch, seq, d], on: bool[batch, seq]) -> [batch, seq, d, 1], total: [batch, d], count: int[] {
  param d = 3
  total, count, y = scan(a, on, step=Step, start=[expand(1.0, shape=[batch, d]), 0], axis=-2)
  return y, total, count
}
"""
    model = load(tmp_path, text)
    generator = np.random.default_rng(0)
    a, on = generator.normal(size=(2, 6, 3)), generator.random((2, 6)) > 0.4
    found = reference.run(model.graph, {}, {"a": a, "on": on})
    products = np.cumprod(np.where(on[:, :, None], a, 1.0), axis=1)
    np.testing.assert_allclose(found["output_0"][..., 0], products * np.arange(1, 7)[:, None], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["total"], products[:, -1], rtol=0, atol=1e-12)
    assert found["count"] == 6
    assert model.verify().passed


def test_a_bound_step_shares_its_weights(tmp_path: Path) -> None:
    text = PLAIN.replace(
        "  _, y = scan(x, step=Step, start=[other])\n",
        "  step = Step()\n  last, y = scan(x, step=step, start=[other])\n  _, y = scan(y, step=step, start=[last])\n",
    )
    model = load(tmp_path, text)
    assert {each.path for each in tfdsl.ir.graph.weights(model.graph)} == {"step.inner.weight", "step.inner.bias"}
    assert model.verify().passed


def test_the_text_is_read_back(tmp_path: Path) -> None:
    graph = load(tmp_path, GRU).graph
    text = print_graph(graph)
    assert "scan @gru along 1 (h = %expand) over (x = %x) : [batch, 7], [batch, seq, 7] {" in text
    again = parse_graph(text)
    verify(again)
    assert print_graph(again) == text


def test_flat_and_clean_graphs_keep_it(tmp_path: Path) -> None:
    """Below a loop, its weights take the loop's index; what is the same at every position is computed before."""
    text = """block Step(x: [batch, width], h: [batch, width]) -> [batch, width], [batch, width] {
  rate = weight(shape=[width])
  h = h * exp(-exp(rate)) + (linear(x, out=width) as up)
  return h, h
}
model M(x: [batch, seq, 4]) -> [batch, seq, 4] {
  repeat h[3] {
    _, x = scan(x, step=Step, start=[expand(0.0, shape=[batch, 4])]) as cell
  }
  return x
}
"""
    graph = load(tmp_path, text).graph
    flat, _ = clean(unroll(graph))
    verify(flat)
    scans = [node for node in flat.nodes() if node.op == "scan"]
    assert [node.attributes["path"] for node in scans] == ["h.0.cell", "h.1.cell", "h.2.cell"]
    assert not any(node.op == "exp" for scan in scans for node in scan.bodies[0].nodes())
    weights = tfdsl.weights.trial(graph, 0)
    x = {"x": np.random.default_rng(0).normal(size=(2, 5, 4))}
    wanted = reference.run(graph, weights, x)["output"]
    np.testing.assert_allclose(reference.run(flat, weights, x)["output"], wanted, rtol=0, atol=1e-12)


def test_cost_grows_with_the_length(tmp_path: Path) -> None:
    graph = load(tmp_path, GRU).graph
    assert report(graph, seq=64).flops == 2 * report(graph, seq=32).flops
    assert report(graph, batch=3, seq=8).flops_by_kind["matmul"] == 3 * 8 * 2 * (21 * 5 + 21 * 7)
    assert "batch*seq" in str(report(graph, seq=8).formula)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("scan(x, step=Step)", "T302"),
        ("scan(x, start=[other])", "T302"),
        ("scan(step=Step, start=[other])", "T302"),
        ("scan(x, step=Step, start=[])", "T302"),
        ("scan(x, step=Step, start=[other], reverse=true)", "T302"),
        ("scan(x, step=other, start=[other])", "T301"),
        ("scan(x, step=Step, start=[other], axis=0.5)", "T301"),
        ("scan(x, step=Step, start=[other], axis=3)", "T401"),
        ("scan(x, other, step=Step, start=[other])", "T401"),
        ("scan(x, step=tanh, start=[other])", "T302"),
        ('scan(x, step=Step, start=[rearrange(other, "b d -> b 1 d")])', "T402"),
        ("scan(x, step=Loses, start=[other, other])", "T402"),
        ("scan(x, step=Grows, start=[other])", "T402"),
        ("scan(x, step=Penalised, start=[other])", "T302"),
    ],
)
def test_calls_that_mean_nothing(tmp_path: Path, call: str, code: str) -> None:
    others = """block Loses(x: [batch, width], h: [batch, width], g: [batch, width]) -> [batch, width] {
  return h + x
}
block Grows(x: [batch, width], h: [batch, wide]) -> [batch, width + wide], [batch, width] {
  return concat(h, x), x
}
block Penalised(x: [batch, width], h: [batch, width]) -> [batch, width], [batch, width] {
  penalty size = mean(mean(x * x))
  return h + x, x
}
"""
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, others + PLAIN.replace("scan(x, step=Step, start=[other])", call))
    assert [each.code for each in caught.value.diagnostics][:1] == [code], str(caught.value)


CHAINED = """
block Reading(x: [batch, width], h: [batch, width]) -> h: [batch, width], y: [batch, width] {
  h = tanh(linear(h, out=width) as new + x)
  return h, h
}
block Attending(x: [batch, width], h: [batch, width], memory: [batch, source, width])
    -> h: [batch, width], memory: [batch, source, width], y: [batch, width] {
  score = linear(tanh(memory + rearrange(h, "b d -> b 1 d")), out=1, bias=false) as score
  h = x + sum(softmax(score, axis=1) * memory, axis=1)
  return h, memory, h
}
model Chained(m: [batch, source, 8], x: [batch, target, 8]) -> [batch, target, 8] {
  zero = expand(0.0, shape=[batch, 8])
  last, memory = scan(m, step=Reading(), start=[zero]) as encoder
  _, _, y = scan(x, step=Attending, start=[tanh(linear(last, out=8) as begin), memory]) as decoder
  return y
}
"""


def test_a_recurrence_that_begins_with_another_has_it_until_the_end(tmp_path: Path) -> None:
    """OpenVINO once wrote over what a recurrence had given, in calls with larger shapes than before."""
    pytest.importorskip("openvino")
    from tfdsl.backends.openvino import session

    (tmp_path / "chained.tfm").write_text(CHAINED)
    model = tfdsl.load(tmp_path / "chained.tfm")
    weights = trial(model.graph, 0)
    model.build("openvino", tmp_path / "out", weights=weights)
    running = session(tmp_path / "out" / "model.xml")
    rng = np.random.default_rng(0)
    for batch, source, target in ((1, 1, 1), (1, 6, 13), (1, 33, 67), (3, 6, 13), (3, 33, 67), (3, 33, 1), (3, 33, 67)):
        given = {"m": rng.normal(size=(batch, source, 8)), "x": rng.normal(size=(batch, target, 8))}
        (wanted,) = reference.run(model.graph, weights, given).values()
        (found,) = running(given).values()
        np.testing.assert_allclose(found, wanted, atol=1e-5)
