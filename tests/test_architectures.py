"""Architectures that no exporter knows: each is verified on every target, and again after the passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tfdsl
from tfdsl.language import modules

for package in ("torch", "onnxruntime", "openvino"):
    pytest.importorskip(package)

FOLDER = Path(__file__).parent / "architectures"
FILES = sorted(path for path in FOLDER.glob("*.tfm") if modules.load(path).models())
MODELS = [(path, model.name) for path in FILES for model in modules.load(path).models()]


@pytest.mark.parametrize(("path", "name"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_all_targets_agree(path: Path, name: str) -> None:
    verdict = tfdsl.load(path, name).verify()
    assert verdict.results
    assert [result for result in verdict.results if not result.passed] == []


@pytest.mark.parametrize(("path", "name"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_all_targets_agree_after_passes(path: Path, name: str) -> None:
    optimised = tfdsl.load(path, name).optimize("clean()", "fuse_attention()", 'quantize("**", bits=8)')
    verdict = optimised.verify()
    assert [result for result in verdict.results if not result.passed] == []


@pytest.mark.parametrize(("path", "name"), MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_emitted_modules_train(path: Path, name: str) -> None:
    model = tfdsl.load(path, name)
    module = model.to_torch(seed=0).train()
    inputs = []
    torch.manual_seed(0)
    sizes = {"batch": 2, "seq": 8}
    for place in model.graph.inputs:
        type_ = model.graph.node(place).type
        shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in type_.dims]
        inputs.append(torch.randn(shape) if type_.dtype == "float" else torch.randint(0, 5, shape))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)
        results = module(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        loss = sum((result - 0.3).square().mean() for result in results if result.is_floating_point())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
