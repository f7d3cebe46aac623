"""Axes by name: `rearrange` that repeats, `einsum` with `...`, reductions over several axes; and names known from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference
from tfdsl.ir.elaborate.elsewhere import ELSEWHERE
from tfdsl.ir.masks import KINDS
from tfdsl.ir.ops import OPS

X, Z = "x: [batch, seq, 8]", "z: [batch, 2, seq, 4]"


def load(tmp_path: Path, text: str) -> tfdsl.Model:
    path = tmp_path / "spec.tfm"
    path.write_text(text, "utf-8")
    return tfdsl.load(path)


@pytest.mark.parametrize(
    ("call", "shape", "wanted"),
    [
        ('rearrange(x, "b s d -> b n s d", n=3)', "[batch, 3, seq, 8]", lambda x, z: np.stack([x] * 3, 1)),
        ('rearrange(z, "b g s d -> b (g r) s d", r=4)', "[batch, 8, seq, 4]", lambda x, z: np.repeat(z, 4, 1)),
        ('rearrange(z, "b g s d -> b (r g) s d", r=4)', "[batch, 8, seq, 4]", lambda x, z: np.tile(z, (1, 4, 1, 1))),
        ('rearrange(x, "... d -> ... (d m)", m=2)', "[batch, seq, 16]", lambda x, z: np.repeat(x, 2, 2)),
        ('rearrange(x, "... d -> n ... d 1", n=2)', "[2, batch, seq, 8, 1]", lambda x, z: np.stack([x, x])[..., None]),
        (
            'rearrange(x, "b s (h d) -> b h (s r) d", h=2, r=3)',
            "[batch, 2, 3 * seq, 4]",
            lambda x, z: np.repeat(x.reshape(*x.shape[:2], 2, 4).transpose(0, 2, 1, 3), 3, 2),
        ),
        ('rearrange(x, "b s d -> b s d n", n=seq)', "[batch, seq, 8, seq]", lambda x, z: np.stack([x] * x.shape[1], 3)),
        (
            'einsum("... i, ... j -> ... i j", x, x)',
            "[batch, seq, 8, 8]",
            lambda x, z: x[..., :, None] * x[..., None, :],
        ),
        ('einsum("... s d, ... d -> ... s", z, z)', None, None),
        ('einsum("... d -> ...", z)', "[batch, 2, seq]", lambda x, z: z.sum(-1)),
        ('einsum("b ... d, ... d -> ... b", z, select(z, axis=0, index=0))', None, None),
        (
            'einsum("a ..., ... -> a ...", x, select(x, axis=0, index=0))',
            "[batch, seq, 8]",
            lambda x, z: x * x[0],
        ),
        ("sum(z, axis=[1, -1])", "[batch, seq]", lambda x, z: z.sum((1, 3))),
        ("mean(z, axis=[1, 3, 2], keep=true)", "[batch, 1, 1, 1]", lambda x, z: z.mean((1, 2, 3), keepdims=True)),
        ("max(z, axis=[0, 2])", "[2, 4]", lambda x, z: z.max((0, 2))),
        ("min(x, axis=[2])", "[batch, seq]", lambda x, z: x.min(2)),
        ("top_k(x, k=seq, axis=1)[0]", "[batch, seq, 8]", lambda x, z: -np.sort(-x, axis=1)),
    ],
)
def test_calls(tmp_path: Path, call: str, shape: str | None, wanted: object) -> None:
    text = f"model M({X}, {Z}) -> {shape or '[batch]'} {{\n  return {call}\n}}\n"
    if shape is None or wanted is None:
        with pytest.raises(tfdsl.SpecError):
            load(tmp_path, text)
        return
    generator = np.random.default_rng(0)
    x, z = generator.normal(size=(3, 5, 8)), generator.normal(size=(3, 2, 5, 4))
    found = reference.run(load(tmp_path, text).graph, {}, {"x": x, "z": z})["output"]
    np.testing.assert_allclose(found, wanted(x, z), rtol=0, atol=1e-12)  # type: ignore[operator]


def test_targets_agree(tmp_path: Path) -> None:
    text = f"""model M({X}, {Z}) -> [batch, 8, seq, 4], [batch, seq, 8], [batch] {{
  w = weight(shape=[8, 8])
  penalty size = mean(x * x, axis=[0, 1, 2])
  values, order = top_k(x, k=(seq + 1) // 2, axis=1)
  y = einsum("... i, i j -> ... j", x, w) + sum(values, axis=1, keep=true) * float(seq) ** -0.5
  return rearrange(z, "b g s d -> b (g r) s d", r=4), y, sum(z, axis=[1, 2, 3])
}}
"""
    assert load(tmp_path, text).verify().passed


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("sum(x, axis=[])", "T304"),
        ("sum(x, axis=[1, -2])", "T304"),
        ("sum(x, axis=[1, 5])", "T401"),
        ("sum(x, axis=[1, 0.5])", "T301"),
        ("sum(x, z, axis=[1])", "T302"),
        ("softmax(x, axis=[1, 2])", "T301"),
        ('rearrange(x, "b s d -> b s d", n=3)', "T406"),
        ('rearrange(x, "b s d -> b s d n")', "T406"),
        ('einsum("... i j k l -> ...", x)', "T406"),
    ],
)
def test_calls_that_mean_nothing(tmp_path: Path, call: str, code: str) -> None:
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, f"model M({X}, {Z}) -> [batch] {{\n  return {call}\n}}\n")
    assert [each.code for each in caught.value.diagnostics] == [code]


def test_names_known_from_elsewhere_are_told_how_it_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(tfdsl.SpecError) as caught:
        load(tmp_path, f"model M({X}) -> [batch] {{\n  return clamp(x)\n}}\n")
    assert caught.value.diagnostics[0].help == "`minimum(maximum(x, low), high)`"
    assert not {*ELSEWHERE} & {*OPS, *KINDS}
