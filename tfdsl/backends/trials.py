"""Inputs to try a model on: sizes that its constraints allow, and random values that its ops accept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.backends.index_ranges import index_range
from tfdsl.backends.reference.inputs import holds
from tfdsl.ir.dims import Dim, DimError, evaluate, names_of, product
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import one
from tfdsl.weights.memory import bytes_needed

Array = npt.NDArray[Any]
Sizes = dict[str, int]

Condition = Callable[[Sizes], bool]

_REACH = 4096  # how far from what is asked sizes are looked for
_MOST_ATTEMPTS = 50_000
_FLOAT64 = 8


def random_inputs(graph: Graph, sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Inputs by name: normal float32 numbers, int64 numbers that index what they are used on, and mostly true bools."""
    random = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for node in map(graph.node, graph.inputs):
        shape = tuple(evaluate(dim, sizes) for dim in node.type.dims)
        if node.type.dtype == "float":
            value: Array = random.standard_normal(shape, dtype=np.float32)
        elif node.type.dtype == "bool":
            value = random.random(shape) < 0.75
        else:
            low, high = index_range(graph, node, sizes)
            value = random.integers(low, high, shape, dtype=np.int64)
        made[node.attributes["name"]] = value
    return made


def choose_sizes(graph: Graph, batch: int, length: int, single: str | None = None) -> Sizes:
    """A number for each named size, as near as the constraints allow to `batch` and `length`; `single` is wanted 1.

    Above 1, each length is wanted longer than the one before: two axes that an op confuses are seen to differ.
    """
    wanted: Sizes = {}
    for name in _names(graph):
        wanted[name] = batch if name == "batch" else 1 if name == single else length
        if name != "batch" and length > 1:
            length = 2 * length + 1
    conditions: list[tuple[set[str], Condition]]
    conditions = [(names_of((c.left, c.right)), partial(holds, c)) for c in graph.constraints]
    conditions += [(dim.names(), partial(_is_size, dim)) for dim in _derived_sizes(graph)]
    found = next(_assignments(wanted, conditions), None)
    if found is None:
        asked = ", ".join(f"{name} = {number}" for name, number in wanted.items())
        span = graph.constraints[0].span if graph.constraints else None
        raise one("T708", f"no sizes near {asked} are allowed by the constraints of `{graph.name}`", span)
    return found


def memory_needed(graph: Graph, sizes: Mapping[str, int], targets: int) -> int:
    """An upper bound, in bytes, for one comparison: weights for everyone, and the reference's values in float64."""
    largest = max((_count(region, sizes) for region in graph.regions()), default=0)
    return bytes_needed(graph) * (1 + targets) + largest * _FLOAT64


def _count(region: Graph, sizes: Mapping[str, int]) -> int:
    """The numbers in all values of a region, the scores of attention among them."""
    total = 0
    for node in region.nodes():
        total += sum(evaluate(product(type.dims), sizes) for type in node.types)
        if node.op == "attend":
            q, k = (region.type(value).dims for value in node.inputs[:2] if value is not None)
            total += 4 * evaluate(product((*q[:3], k[2])), sizes)
    return total


def lengths(graph: Graph) -> list[str]:
    """The named sizes of a model that are not its batch."""
    return [name for name in _names(graph) if name != "batch"]


def _names(graph: Graph) -> list[str]:
    """The named sizes of a model in the order of its inputs' axes."""
    found: dict[str, None] = {}
    for node in graph.inputs:
        for dim in graph.node(node).type.dims:
            found.update(dict.fromkeys(sorted(names_of((dim,)))))
    return list(found)


def _derived_sizes(graph: Graph) -> list[Dim]:
    """Every size in the graph that follows from named ones; it must be a whole number and at least one."""
    found: dict[Dim, None] = {}
    for region in graph.regions():
        for node in region.nodes():
            for type in node.types:
                found.update((dim, None) for dim in type.dims if isinstance(dim, Dim) and dim.name is None)
    return list(found)


def _is_size(dim: Dim, sizes: Mapping[str, int]) -> bool:
    try:
        return evaluate(dim, sizes) >= 1
    except DimError:
        return False


def _assignments(wanted: Sizes, conditions: list[tuple[set[str], Condition]]) -> Iterator[Sizes]:
    """Numbers for all names that meet the conditions, those near what is wanted first."""
    names = list(wanted)
    # A condition is tested as soon as the last of its names has a number.
    due: dict[str, list[Condition]] = {name: [] for name in names}
    for needed, condition in conditions:
        if needed:
            due[max(needed, key=names.index)].append(condition)
    attempts = itertools.count()

    def extend(chosen: Sizes) -> Iterator[Sizes]:
        if len(chosen) == len(names):
            yield chosen
            return
        name = names[len(chosen)]
        for number in _near(wanted[name]):
            if next(attempts) > _MOST_ATTEMPTS:
                return
            trial = {**chosen, name: number}
            if all(condition(trial) for condition in due[name]):
                yield from extend(trial)

    return extend({})


def _near(wanted: int) -> Iterator[int]:
    """Whole numbers from one on, the nearest first, above before below."""
    yield wanted
    for distance in range(1, _REACH):
        yield wanted + distance
        if wanted > distance:
            yield wanted - distance
