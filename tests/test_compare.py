"""The logic of `tfm verify`: sizes, inputs that index what they are used on, and errors of outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tfdsl import SpecError
from tfdsl.backends.compare import Result, all_sizes, check_memory, compare, relative_error
from tfdsl.backends.reference import run
from tfdsl.backends.trials import choose_sizes, memory_needed, random_inputs
from tfdsl.ir.dims import Size, divide, floor, remainder, symbol
from tfdsl.ir.graph import Constraint, Graph, Initializer, Type, Value
from tfdsl.weights import memory, trial

Array = npt.NDArray[Any]
BATCH, SEQ, MEMORY = symbol("batch"), symbol("seq"), symbol("memory")


class Builder:
    """A graph, an op at a time."""

    def __init__(self, **inputs: tuple[str, tuple[Size, ...]]):
        self.graph = Graph("Small")
        self.inputs = {
            name: Value(self.graph.add("input", (), {"name": name}, (Type(dtype, dims),)).id)
            for name, (dtype, dims) in inputs.items()
        }

    def __call__(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        return Value(self.graph.add(op, inputs, attributes).id)

    def weight(self, path: str, *shape: int) -> Value:
        return self("weight", path=path, shape=shape, init=Initializer("normal", (0.02,)))

    def table(self, ids: Value, size: int, path: str = "table") -> Value:
        return self("embedding", ids, self.weight(path, size, 4), size=size, dim=4)

    def number(self, value: int) -> Value:
        return self("constant", value=value, dtype="int")


TOKENS = {"tokens": ("int", (BATCH, SEQ))}


def model(*constraints: Constraint) -> Graph:
    """Tokens to rows of a table, added to an encoding of another length, summed."""
    build = Builder(tokens=("int", (BATCH, SEQ)), encoded=("float", (BATCH, MEMORY, 4)))
    rows = build.table(build.inputs["tokens"], 11)
    both = build("concat", rows, build.inputs["encoded"], axis=1)
    build.graph.outputs = [("y", build("sum", both, axis=1)), ("best", build("argmax", both, axis=2))]
    build.graph.constraints = list(constraints)
    return build.graph


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraints", "wanted"),
    [
        ((), {"batch": 3, "seq": 6, "memory": 13}),
        ((Constraint("==", remainder(SEQ, 4), 0),), {"batch": 3, "seq": 8, "memory": 13}),
        ((Constraint("<=", SEQ, 4), Constraint("<", MEMORY, SEQ)), {"batch": 3, "seq": 4, "memory": 3}),
        ((Constraint("==", MEMORY, SEQ),), {"batch": 3, "seq": 6, "memory": 6}),
        ((Constraint(">=", SEQ, 1000), Constraint("!=", MEMORY, 13)), {"batch": 3, "seq": 1000, "memory": 14}),
        ((Constraint("<=", BATCH, 2),), {"batch": 2, "seq": 6, "memory": 13}),
        ((Constraint("==", divide(SEQ, 4) * 4, SEQ),), {"batch": 3, "seq": 6, "memory": 13}),
    ],
)
def test_sizes_obey_constraints(constraints: tuple[Constraint, ...], wanted: dict[str, int]) -> None:
    assert choose_sizes(model(*constraints), 3, 6) == wanted


def test_sizes_make_every_axis_of_the_graph_whole_and_not_empty() -> None:
    build = Builder(image=("float", (BATCH, 3, SEQ, MEMORY)))
    patches = build(
        "conv2d", build.inputs["image"], build.weight("w", 2, 3, 16, 16), None, out=2, kernel=16, stride=16, bias=False
    )
    build.graph.outputs = [("y", patches)]
    assert choose_sizes(build.graph, 1, 1) == {"batch": 1, "seq": 16, "memory": 16}
    build = Builder(**TOKENS)
    build.graph.outputs = [("y", build("slice", build.inputs["tokens"], axis=1, stop=divide(SEQ, 3)))]
    assert choose_sizes(build.graph, 1, 4) == {"batch": 1, "seq": 3}
    build.graph.outputs = [("y", build("slice", build.inputs["tokens"], axis=1, stop=floor(SEQ, 5)))]
    assert choose_sizes(build.graph, 1, 4) == {"batch": 1, "seq": 6}


def test_constraints_that_nothing_meets() -> None:
    with pytest.raises(SpecError) as caught:
        choose_sizes(model(Constraint("<", SEQ, MEMORY), Constraint("<", MEMORY, SEQ)), 1, 1)
    assert [each.code for each in caught.value.diagnostics] == ["T708"]


def test_a_comparison_goes_through_each_size_once() -> None:
    sizes = all_sizes(model(), (1, 3), (1, 6))
    assert [tuple(each.values()) for each in sizes] == [
        (1, 1, 1),
        (1, 6, 13),
        (3, 1, 1),
        (3, 6, 13),
        (3, 1, 13),
        (3, 6, 1),
    ]
    assert len(all_sizes(Builder(**TOKENS).graph)) == 6
    assert all_sizes(model(Constraint("==", SEQ, 2), Constraint("==", MEMORY, 2), Constraint("==", BATCH, 1))) == [
        {"batch": 1, "seq": 2, "memory": 2}
    ]
    assert all_sizes(Builder(x=("float", (4,))).graph) == [{}]


# --- inputs ----------------------------------------------------------------------------------------------------------


def shifted(build: Builder, ids: Value) -> Value:
    return build.table(build("add", ids, build.number(2)), 11)


def after_positions(build: Builder, ids: Value) -> Value:
    """Learned positions that begin where an input says."""
    return build.table(build("add", build("positions", ids, axis=1), ids), 90)


def flipped(build: Builder, ids: Value) -> Value:
    return build.table(build("sub", build.number(20), ids), 11)


def two_tables(build: Builder, ids: Value) -> Value:
    return build("add", build.table(ids, 30), build.table(build("floordiv", ids, build.number(4)), 5, "other"))


def clipped(build: Builder, ids: Value) -> Value:
    return build.table(build("maximum", build("minimum", ids, build.number(9)), build.number(0)), 10)


def wrapped(build: Builder, ids: Value) -> Value:
    return build.table(build("mod", ids, build.number(7)), 7)


def scaled(build: Builder, ids: Value) -> Value:
    return build.table(build("mul", build.number(3), ids), 17)


def joined(build: Builder, ids: Value) -> Value:
    return build.table(build("concat", build("swap", ids), build("swap", ids), axis=0), 6)


def one_hot(build: Builder, ids: Value) -> Value:
    return build("one_hot", ids, classes=5)


def gathered(build: Builder, ids: Value) -> Value:
    return build("gather", build.weight("rows", 2, 8), ids, axis=1)


def own_positions(build: Builder, ids: Value) -> Value:
    """Indices into an axis whose size only run time knows."""
    return build("take_along", ids, ids, axis=1)


def flags(build: Builder, ids: Value) -> Value:
    return build("ne", ids, build.number(0))


RANGES: list[tuple[Callable[[Builder, Value], Value], int, int]] = [
    (shifted, -2, 8),
    (after_positions, 0, 50),
    (flipped, 10, 20),
    (two_tables, 0, 19),
    (clipped, 0, 2),
    (wrapped, 0, 2),
    (scaled, 0, 5),
    (joined, 0, 5),
    (one_hot, 0, 4),
    (gathered, 0, 7),
    (own_positions, 0, 39),
    (flags, 0, 2),
]


@pytest.mark.parametrize(("use", "low", "high"), RANGES, ids=lambda each: getattr(each, "__name__", ""))
def test_whole_numbers_index_what_they_are_used_on(use: Callable[[Builder, Value], Value], low: int, high: int) -> None:
    build = Builder(**TOKENS)
    build.graph.outputs = [("y", use(build, build.inputs["tokens"]))]
    inputs = random_inputs(build.graph, {"batch": 20, "seq": 40}, 0)
    assert (inputs["tokens"].min(), inputs["tokens"].max()) == (low, high)
    assert inputs["tokens"].dtype == np.int64
    run(build.graph, trial(build.graph, 0), inputs)


@pytest.mark.parametrize("place", [0, 1])
def test_indices_that_a_loop_reads(place: int) -> None:
    """As the value that is carried, or as one that is captured."""
    build = Builder(**TOKENS)
    body = Builder(a=TOKENS["tokens"], b=TOKENS["tokens"])
    chosen = body.table((body.inputs["a"], body.inputs["b"])[place], 6)
    body.graph.outputs = [("a", body("cast", body("sum", chosen, axis=2), to="int") if place else body.inputs["a"])]
    ids = build.inputs["tokens"]
    attributes = {"turns": (0,), "carried": 1, "path": "h"}
    loop = build.graph.add("repeat", (ids, ids), attributes, (Type(*TOKENS["tokens"]),), bodies=(body.graph,))
    build.graph.outputs = [("y", Value(loop.id))]
    assert random_inputs(build.graph, {"batch": 9, "seq": 9}, 0)["tokens"].max() == 5


def test_random_inputs_depend_on_the_seed_only() -> None:
    sizes = {"batch": 2, "seq": 3, "memory": 4}
    one, same, other = (random_inputs(model(), sizes, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["encoded"], other["encoded"])
    assert one["encoded"].dtype == np.float32 and one["encoded"].shape == (2, 4, 4)
    kept = random_inputs(Builder(keep=("bool", (BATCH, SEQ))).graph, {"batch": 10, "seq": 10}, 0)["keep"]
    assert kept.dtype == np.bool_ and 50 < kept.sum() < 95


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 4.0], [1.0, 5.0], 0.2),
        ([0.0], [0.0], 0.0),
        ([1e-9], [0.0], 1e-3),
        ([math.inf, 1.0], [math.inf, 1.0], 0.0),
        ([math.nan, 1.5], [math.nan, 1.0], 0.5),
        ([math.inf], [-math.inf], math.nan),
        ([1.0], [math.nan], math.nan),
        ([math.inf], [1.0], math.nan),
        ([], [], 0.0),
    ],
)
def test_relative_error(found: list[float], expected: list[float], error: float) -> None:
    assert relative_error(np.array(found), np.array(expected)) == pytest.approx(error, nan_ok=True)


def single(graph: Graph) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """A target that computes in float64 and answers in float32."""
    weights = trial(graph, 0)
    return lambda inputs: {
        name: value.astype(np.float32) if value.dtype == np.float64 else value
        for name, value in run(graph, weights, inputs).items()
    }


def test_a_target_that_agrees() -> None:
    graph = model()
    results = compare(graph, trial(graph, 0), {"good": single(graph)})
    assert len(results) == 8 * 2 and all(result.passed for result in results)
    assert 0 < max(result.error for result in results) < 1e-6
    assert [result.sizes for result in results[::2]] == all_sizes(graph)
    assert {result.output for result in results} == {"y", "best"}


def wrong(change: Callable[[dict[str, Array]], dict[str, Array]], place: int = 0) -> Result:
    graph = model()
    target = single(graph)
    return compare(graph, trial(graph, 0), {"bad": lambda i: change(target(i))}, batches=(2,), lengths=(3,))[place]


def test_targets_that_do_not() -> None:
    result = wrong(lambda outputs: {**outputs, "y": outputs["y"] * 1.01})
    assert not result.passed and result.error == pytest.approx(0.01, rel=1e-3) and result.target == "bad"
    assert wrong(lambda outputs: {**outputs, "y": outputs["y"] * 1.00005}).passed
    assert "no such output" in wrong(lambda outputs: {"best": outputs["best"]}).problem
    assert "[2, 3] and should be [2, 4]" in wrong(lambda outputs: {**outputs, "y": outputs["y"][:, 1:]}).problem
    assert "not finite" in wrong(lambda outputs: {**outputs, "y": outputs["y"] * math.nan}).problem
    assert "of 20 differ" in wrong(lambda outputs: {**outputs, "best": outputs["best"] + 1}, 1).problem
    extra = wrong(lambda outputs: {**outputs, "more": outputs["y"]}, 2)
    assert extra.output == "more" and not extra.passed


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_counted_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = model()
    needed = memory_needed(graph, {"batch": 1, "seq": 1, "memory": 1}, targets=1)
    assert 2 * 44 * 4 < needed < 4000
    check_memory(graph, targets=3)
    monkeypatch.setattr(memory, "bytes_available", lambda: 1000)
    with pytest.raises(SpecError) as caught:
        check_memory(graph, targets=3)
    assert [each.code for each in caught.value.diagnostics] == ["T807"]
