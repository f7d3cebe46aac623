"""What decoding remembers, op by op: called piece by piece, a stateful op gives what its plain form gives of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_cases import Flat

from tfdsl.backends.reference import run
from tfdsl.ir import masks
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Graph
from tfdsl.ir.masks import Joined, Term
from tfdsl.ir.states import states
from tfdsl.ir.text import print_graph
from tfdsl.ir.text_parser import parse_graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.lower_masks import lower_masks

BATCH, SEQ, TOTAL, KEPT = (symbol(name) for name in ("batch", "seq", "total", "kept"))
PIECES = (3, 1, 4, 2)
random = np.random.default_rng(0)


def pieces(graph: Graph, whole: dict[str, Any], axis: int, output_axis: int) -> Any:
    """The output of calls with a few positions each, put together; `keep` is given as far as it has come."""
    state: dict[str, Any] = {}
    done, found = 0, []
    for count in PIECES:
        part = {
            name: np.take(value, range(done + count if name == "keep" else count), axis=1)
            if name == "keep"
            else np.take(value, range(done, done + count), axis=axis)
            for name, value in whole.items()
        }
        found.append(run(graph, {}, part, state)["output"])
        done += count
    return np.concatenate(found, axis=output_axis)


def test_attention_over_what_was_appended() -> None:
    for other in (masks.FULL, Term("window", (3,)), Term("documents", (), 0)):
        plain, cached = Flat(), Flat()
        for f in (plain, cached):
            q, k = f.input("q", BATCH, 4, SEQ, 8), f.input("k", BATCH, 2, SEQ, 8)
            keep = f.input("keep", BATCH, SEQ if f is plain else TOTAL, dtype="int")
            offset = 0
            if f is cached:
                offset = TOTAL - SEQ
                k = f("append", k, path="k", axis=2, size=offset)
            settings = {"mask": Joined("&", masks.CAUSAL, other), **({"offset": offset} if f is cached else {})}
            f.give(f("attend", q, k, k, None, None, None, *([keep] if other.operand == 0 else []), **settings))
        length = sum(PIECES)
        whole = {
            "q": random.normal(size=(2, 4, length, 8)),
            "k": random.normal(size=(2, 2, length, 8)),
            "keep": random.integers(0, 2, (2, length)),
        }
        verify(cached.graph)
        expected = run(plain.graph, {}, whole)["output"]
        for graph in (cached.graph, lower_masks(cached.graph), parse_graph(print_graph(cached.graph))):
            np.testing.assert_allclose(pieces(graph, whole, 2, 2), expected, rtol=1e-12)


def test_a_state_that_slides() -> None:
    f = Flat()
    x = f.input("x", BATCH, SEQ)
    f.give(f("append", x, path="tail", axis=1, size=2, last=2, fill=2))
    x = random.normal(size=(3, sum(PIECES)))
    state: dict[str, Any] = {}
    first = run(f.graph, {}, {"x": x[:, :1]}, state)["output"]
    np.testing.assert_array_equal(first, np.pad(x[:, :1], ((0, 0), (2, 0))))
    second = run(f.graph, {}, {"x": x[:, 1:4]}, state)["output"]
    np.testing.assert_array_equal(second, np.pad(x[:, :4], ((0, 0), (1, 0))))
    np.testing.assert_array_equal(state["tail"], x[:, 2:4])
    (only,) = states(f.graph)
    assert (only.paths, only.fill, only.last, only.type.dims) == (("tail",), 2, 2, (BATCH, 2))


def test_a_state_of_its_own_size() -> None:
    f = Flat()
    f.give(f("append", f.input("x", BATCH, SEQ), path="tail", axis=1, size=KEPT, last=3))
    verify(f.graph)
    x = random.normal(size=(3, sum(PIECES)))
    state: dict[str, Any] = {}
    sizes = [
        run(f.graph, {}, {"x": x[:, start : start + count]}, state)["output"].shape[1]
        for start, count in ((0, 1), (1, 1), (2, 4), (6, 1))
    ]
    assert sizes == [1, 2, 6, 4]


@pytest.mark.parametrize("decays", [False, True])
def test_a_running_sum_goes_on(decays: bool) -> None:
    plain, cached = Flat(), Flat()
    for f in (plain, cached):
        q, k, v = (f.input(name, BATCH, heads, SEQ, 4) for name, heads in (("q", 4), ("k", 2), ("v", 1)))
        decay = f("neg", f("abs", f.input("decay", BATCH, 4, SEQ))) if decays else None
        if f is plain:
            f.give(f("linear_attend", q, k, v, decay))
        else:
            f.give(f("running_attend", q, k, v, decay, path="sum"))
    whole = {name: random.normal(size=(2, heads, sum(PIECES), 4)) for name, heads in (("q", 4), ("k", 2), ("v", 1))}
    if decays:
        whole["decay"] = random.normal(size=(2, 4, sum(PIECES)))
    expected = run(plain.graph, {}, whole)["output"]
    np.testing.assert_allclose(pieces(cached.graph, whole, 2, 2), expected, rtol=1e-11)
    (only,) = states(cached.graph)
    assert only.type.dims == (BATCH, 4, 4, 4)


def test_a_cumulative_sum_goes_on() -> None:
    f = Flat()
    f.give(f("running_sum", f.input("x", BATCH, SEQ, 3), axis=1, path="so.far"))
    x = random.normal(size=(2, sum(PIECES), 3))
    np.testing.assert_allclose(pieces(f.graph, {"x": x}, 1, 1), np.cumsum(x, axis=1), rtol=1e-12)
    assert states(f.graph)[0].type.dims == (BATCH, 3)


def test_a_path_belongs_to_one_node() -> None:
    f = Flat()
    x = f.input("x", BATCH, SEQ)
    f.give(*(f("running_sum", x, axis=1, path="same") for _ in range(2)))
    with pytest.raises(SpecError, match="the state `same` belongs to another node"):
        verify(f.graph)
