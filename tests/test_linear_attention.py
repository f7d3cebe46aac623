"""`linear_attend`: the running sum against all pairs of positions, its gradients, and the blocks that are built on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference
from tfdsl.ir.graph import Graph
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.report import report

torch = pytest.importorskip("torch")

DECAYING = """model Decaying(
  q: [batch, 4, seq, 3], k: [batch, 2, seq, 3], v: [batch, 1, seq, 5], decay: [batch, 4, seq]
) -> [batch, 4, seq, 5] {
  return linear_attend(q, k, v, decay=decay)
}
"""


# The same with a decay for each feature of the keys.
GATED = DECAYING.replace("decay: [batch, 4, seq]", "decay: [batch, 4, seq, 3]")


def load(tmp_path: Path, text: str) -> Graph:
    path = tmp_path / "spec.tfm"
    path.write_text(text, "utf-8")
    return tfdsl.load(path).graph


def helper(name: str = "linear_attend") -> Any:
    """A function that emitted files bring along."""
    from tfdsl.backends.torch.helpers import HELPERS

    names: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor}
    exec(HELPERS[name], names)
    return names[name]


def inputs(seq: int, *features: int) -> dict[str, Any]:
    steps = (2, 4, seq, *features)
    generator = np.random.default_rng(0)
    shapes = {"q": (2, 4, seq, 3), "k": (2, 2, seq, 3), "v": (2, 1, seq, 5)}
    found = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return {**found, "decay": -generator.exponential(size=steps) * generator.choice([0.01, 1, 30], steps)}


FORMS = pytest.mark.parametrize(
    ("text", "name", "features"), [(DECAYING, "linear_attend", ()), (GATED, "gated_linear_attend", (3,))]
)


@FORMS
@pytest.mark.parametrize("seq", [1, 7, 16, 17, 64, 65, 200])
def test_chunks_are_the_running_sum(tmp_path: Path, seq: int, text: str, name: str, features: tuple[int, ...]) -> None:
    """Lengths below, at and beyond the chunk, with steps that forget nearly nothing and nearly all."""
    given = inputs(seq, *features)
    graph = load(tmp_path, text)
    wanted = reference.run(graph, {}, given)["output"]
    found = helper(name)(*(torch.from_numpy(each) for each in given.values())).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    lowered = reference.run(lower_linear_attention(graph), {}, given)["output"]
    np.testing.assert_allclose(lowered, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@FORMS
def test_gradients(text: str, name: str, features: tuple[int, ...]) -> None:
    given = [torch.from_numpy(each).requires_grad_() for each in inputs(5, *features).values()]
    assert torch.autograd.gradcheck(lambda *x: helper(name)(*x, chunk=2), given)
    long = [torch.from_numpy(each).float().requires_grad_() for each in inputs(300, *features).values()]
    helper(name)(*long).square().sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in long)


def test_cost_grows_with_the_length(tmp_path: Path) -> None:
    graph = load(tmp_path, DECAYING)
    assert report(graph, seq=64).flops * 4 == report(graph, seq=256).flops
    assert report(graph, seq=64).flops_by_kind["attention"] == 64 * 4 * 3 * 5 * 5


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("linear_attend(q, k)", "T302"),
        ("linear_attend(q, slice(k, axis=3, stop=2), v)", "T401"),
        ("linear_attend(q, k, slice(v, axis=2, start=1))", "T401"),
        ("linear_attend(q, concat(k, slice(k, axis=1, stop=1), axis=1), v)", "T405"),
        ("linear_attend(q, k, v, decay=k)", "T401"),
        ("linear_attend(q, k, v, mask=causal)", "T302"),
    ],
)
def test_calls_that_mean_nothing(tmp_path: Path, call: str, code: str) -> None:
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, DECAYING.replace("linear_attend(q, k, v, decay=decay)", call))
    assert [each.code for each in caught.value.diagnostics] == [code]


BLOCKS = """import CausalLinearAttention from "std/attention.tfm"
import Retention from "std/linear_attention.tfm"
model Blocks(x: [batch, seq, 32]) -> [batch, seq, 32] {
  x = x + CausalLinearAttention(layer_norm(x) as norm, heads=4) as attention
  return x + Retention(layer_norm(x) as norm2, heads=4) as retention
}
"""


def test_blocks_agree_on_every_target_and_see_no_future(tmp_path: Path) -> None:
    graph = load(tmp_path, BLOCKS)
    assert tfdsl.load(tmp_path / "spec.tfm").verify().passed
    weights = tfdsl.weights.trial(graph, 0)
    x = np.random.default_rng(0).normal(size=(2, 70, 32)).astype(np.float32)
    whole = reference.run(graph, weights, {"x": x})["output"]
    part = reference.run(graph, weights, {"x": x[:, :40]})["output"]
    np.testing.assert_allclose(whole[:, :40], part, rtol=0, atol=1e-10)
