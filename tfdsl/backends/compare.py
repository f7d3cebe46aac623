"""Comparing backends with the reference on random inputs. Targets come as functions: no framework is known here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.backends import trials
from tfdsl.backends.reference import run
from tfdsl.backends.trials import Sizes, choose_sizes, memory_needed, random_inputs
from tfdsl.ir.graph import Graph
from tfdsl.weights.memory import require_memory

Array = npt.NDArray[Any]
Target = Callable[[Mapping[str, Array]], Mapping[str, Array]]

# By the element type of weights and of computing: sums of a few hundred roundings, which partly cancel.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
TOLERANCE = TOLERANCES["float32"]
BATCHES = (1, 3)
# A length above 16 after length 1, since kernels change their ways there: it has shown a fault of a runtime that less hid.
LENGTHS = (1, 6, 33)
_TINY = 1e-6  # below it an output counts as zero, and its error as it stands


@dataclass(frozen=True)
class Result:
    """One output of one target for inputs of certain sizes; `problem` says why, where there is no error to measure."""

    target: str
    sizes: Mapping[str, int]
    output: str
    error: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.error <= self.tolerance


def compare(
    graph: Graph,
    weights: Mapping[str, Array],
    targets: Mapping[str, Target],
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    batches: Sequence[int] = BATCHES,
    lengths: Sequence[int] = LENGTHS,
) -> list[Result]:
    """Run the reference and every target on random inputs of several sizes; the largest error of each output."""
    results: list[Result] = []
    for sizes in all_sizes(graph, batches, lengths):
        results += compare_inputs(graph, weights, targets, random_inputs(graph, sizes, seed), sizes, tolerance)
    return results


def compare_inputs(
    graph: Graph,
    weights: Mapping[str, Array],
    targets: Mapping[str, Target],
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int],
    tolerance: float = TOLERANCE,
) -> list[Result]:
    """Run the reference and every target on given inputs, which have these sizes; the largest error of each output."""
    expected = run(graph, weights, inputs)
    found = [_results(name, sizes, target(inputs), expected, tolerance) for name, target in targets.items()]
    return [result for results in found for result in results]


def check_memory(
    graph: Graph, targets: int, *, batches: Sequence[int] = BATCHES, lengths: Sequence[int] = LENGTHS
) -> None:
    """Refuse a comparison with so many targets that would not fit into memory; ask before making weights."""
    needed = max(memory_needed(graph, sizes, targets) for sizes in all_sizes(graph, batches, lengths))
    require_memory(needed, f"comparing `{graph.name}` with the float64 reference")


def all_sizes(graph: Graph, batches: Iterable[int] = BATCHES, lengths: Iterable[int] = LENGTHS) -> list[Sizes]:
    """The different sizes that a comparison goes through: where there are several lengths, each is also 1 alone."""
    batches, lengths = tuple(batches), tuple(lengths)
    found = [choose_sizes(graph, batch, length) for batch in batches for length in lengths]
    names = trials.lengths(graph)
    if len(names) > 1:
        found += [choose_sizes(graph, batches[-1], lengths[-1], single=name) for name in names]
    return [sizes for place, sizes in enumerate(found) if sizes not in found[:place]]


def relative_error(found: Array, expected: Array) -> float:
    """The largest difference in proportion to the largest expected number; NaN where only one side is not finite."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("nan")
    if not finite.any():
        return 0.0
    difference = np.max(np.abs(found[finite] - expected[finite]))
    return float(difference / max(np.max(np.abs(expected[finite])), _TINY))


def _results(
    target: str, sizes: Mapping[str, int], found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float
) -> list[Result]:
    results = []
    for name, wanted in expected.items():
        error, problem = float("nan"), ""
        if name not in found:
            problem = "there is no such output"
        elif np.shape(found[name]) != wanted.shape:
            problem = f"the shape is {list(np.shape(found[name]))} and should be {list(wanted.shape)}"
        elif wanted.dtype.kind != "f":
            error, problem = _differing(np.asarray(found[name]), wanted)
        else:
            error = relative_error(found[name], wanted)
            problem = "numbers that are not finite stand on one side only" if np.isnan(error) else ""
        results.append(Result(target, sizes, name, error, tolerance, problem))
    results += [
        Result(target, sizes, name, float("nan"), tolerance, "the reference has no such output")
        for name in found
        if name not in expected
    ]
    return results


def _differing(found: Array, wanted: Array) -> tuple[float, str]:
    """Whole numbers and booleans must be equal."""
    wrong = np.count_nonzero(found != wanted)
    return float(wrong > 0), f"{wrong} of {wanted.size} differ" if wrong else ""
