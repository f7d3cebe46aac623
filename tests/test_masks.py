"""Masks that depend on data or on a hash: `prefix` with a number for each example, and `random_blocks`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tfdsl
from tfdsl.backends import reference
from tfdsl.ir import masks
from tfdsl.ir.graph import Graph

HEADS = "x: [batch, 2, seq, 4], length: int[batch], rows: int[batch, seq]"


def attending(tmp_path: Path, mask: str) -> Graph:
    path = tmp_path / "spec.tfm"
    path.write_text(f"model M({HEADS}) -> [batch, 2, seq, 4] {{\n  return attend(x, x, x, mask={mask})\n}}\n", "utf-8")
    return tfdsl.load(path).graph


def seen(tmp_path: Path, mask: str, seq: int, length: tuple[int, ...] = (0, 2)) -> np.ndarray:
    """Which keys each query sees, [batch, seq, seq], by the values that come through for keys of zeros."""
    path = tmp_path / "spec.tfm"
    path.write_text(
        f"model M(q: [batch, 1, seq, 4], v: [batch, 1, seq, seq], length: int[batch]) -> [batch, 1, seq, seq] {{\n"
        f"  return attend(q, q, v, mask={mask})\n}}\n",
        "utf-8",
    )
    graph = tfdsl.load(path).graph
    batch = len(length)
    inputs = {
        "q": np.zeros((batch, 1, seq, 4)),
        "v": np.broadcast_to(np.eye(seq), (batch, 1, seq, seq)),
        "length": np.array(length),
    }
    return reference.run(graph, {}, inputs)["output"][:, 0] > 0


def test_prefix_of_each_example(tmp_path: Path) -> None:
    found = seen(tmp_path, "prefix(length)", 4)
    assert not found[0].any()
    assert (found[1] == [True, True, False, False]).all()
    joined = seen(tmp_path, "causal | prefix(length)", 4)
    assert (joined[0] == np.tri(4, dtype=bool)).all()
    assert (joined[1] == np.tri(4, dtype=bool) | (np.arange(4) < 2)).all()


def test_prefix_of_each_example_is_named_in_the_graph(tmp_path: Path) -> None:
    from tfdsl.ir.text import parse_graph, print_graph

    graph = attending(tmp_path, "causal | prefix(length) | prefix(3)")
    text = print_graph(graph)
    assert "mask=causal | prefix($0) | prefix(3)" in text
    assert print_graph(parse_graph(text)) == text


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        ("prefix(rows)", "T301"),
        ("prefix(x)", "T301"),
        ("prefix(0)", "T304"),
        ("prefix(length, 2)", "T302"),
        ("random_blocks(2, 4)", "T302"),
        ("random_blocks(0, 4, 1)", "T304"),
        ("random_blocks(65, 4, 1)", "T304"),
        ("random_blocks(2, 4, -1)", "T304"),
        ("random_blocks(2, 4, 0.5)", "T304"),
    ],
)
def test_masks_that_mean_nothing(tmp_path: Path, mask: str, code: str) -> None:
    with pytest.raises(tfdsl.SpecError) as caught:
        attending(tmp_path, mask)
    assert [each.code for each in caught.value.diagnostics] == [code]


def test_random_blocks_are_whole_blocks_and_depend_on_the_seed(tmp_path: Path) -> None:
    one, other = (seen(tmp_path, f"random_blocks(3, 4, {seed})", 62)[0] for seed in (1, 2))
    assert (one != other).any()
    for found in (one, other):
        blocks = found[::4, ::4]
        assert (found == np.kron(blocks, np.ones((4, 4), bool))[:62, :62]).all()
        assert ((blocks.sum(1) >= 1) & (blocks.sum(1) <= 3)).all()


def test_random_blocks_are_spread_evenly() -> None:
    """Over many query blocks and seeds each key block is chosen about as often, whatever their number."""
    query = np.arange(400)
    for blocks in (2, 7, 64):
        chosen = [masks.random_block(query, place, seed, blocks) for place in range(3) for seed in range(20)]
        counts = np.bincount(np.concatenate(chosen), minlength=blocks)
        assert len(counts) == blocks
        assert (abs(counts / counts.mean() - 1) < 0.25).all()


def test_random_blocks_stay_within_32_bits() -> None:
    query = np.arange(masks.RANDOM_PRIME, dtype=np.int64)
    for seed in (0, 1, 2**53):
        narrow = masks.random_block(query.astype(np.int32), 63, seed, 1000)
        assert narrow.dtype == np.int32
        assert (narrow == masks.random_block(query, 63, seed, 1000)).all()
