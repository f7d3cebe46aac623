"""std/resampling.tfm against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference

torch = pytest.importorskip("torch")
F = torch.nn.functional

HEAD = 'import overlap_add, transposed_conv1d, transposed_conv2d, resize from "std/resampling.tfm"\n'


def load(tmp_path: Path, signature: str, call: str) -> tfdsl.Model:
    path = tmp_path / "spec.tfm"
    path.write_text(f"{HEAD}model M({signature} {{\n  return {call}\n}}\n", "utf-8")
    return tfdsl.load(path)


def agree(model: tfdsl.Model, x: Any, theirs: Any) -> None:
    weights = {f"up.{name}": each.detach().numpy() for name, each in theirs.named_parameters()}
    found = reference.run(model.graph, weights, {"x": x})["output"]
    wanted = theirs(torch.tensor(x)).detach().numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 4, 0), (10, 4, 1), (5, 3, 1), (3, 1, 1), (2, 5, 0)])
def test_transposed_convolutions(tmp_path: Path, kernel: int, stride: int, padding: int) -> None:
    """With kernels shorter than the stride, as long, and longer, of which several overlap."""
    generator = np.random.default_rng(0)
    settings = f"out=4, kernel={kernel}, stride={stride}, padding={padding}"
    length = f"(seq - 1) * {stride} + {kernel} - {2 * padding}"
    model = load(tmp_path, f"x: [batch, 3, seq]) -> [batch, 4, {length}]", f"transposed_conv1d(x, {settings}) as up")
    theirs = torch.nn.ConvTranspose1d(3, 4, kernel, stride, padding).double()
    agree(model, generator.normal(size=(2, 3, 6)), theirs)
    sizes = [(size - 1) * stride + kernel - 2 * padding for size in (3, 5)]
    signature = f"x: [batch, 3, 3, 5]) -> [batch, 4, {sizes[0]}, {sizes[1]}]"
    model = load(tmp_path, signature, f"transposed_conv2d(x, {settings}) as up")
    theirs = torch.nn.ConvTranspose2d(3, 4, kernel, stride, padding).double()
    agree(model, generator.normal(size=(2, 3, 3, 5)), theirs)
    assert model.verify().passed


@pytest.mark.parametrize("length", [1, 3, 7, 14, 15])
def test_resizing(tmp_path: Path, length: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 7))
    model = load(tmp_path, f"x: [batch, 3, 7]) -> [batch, 3, {length}]", f"resize(x, length={length})")
    wanted = F.interpolate(torch.tensor(x), size=length, mode="linear", align_corners=False).numpy()
    np.testing.assert_allclose(reference.run(model.graph, {}, {"x": x})["output"], wanted, rtol=0, atol=1e-12)


def test_overlaps_are_added(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 9, 4))
    model = load(tmp_path, "x: [batch, seq, 4]) -> [batch, (seq - 1) * 3 + 4]", "overlap_add(x, stride=3)")
    columns = torch.tensor(x).transpose(1, 2)
    wanted = F.fold(columns, (1, 28), kernel_size=(1, 4), stride=(1, 3))[:, 0, 0].numpy()
    np.testing.assert_allclose(reference.run(model.graph, {}, {"x": x})["output"], wanted, rtol=0, atol=1e-12)
    assert model.verify().passed
