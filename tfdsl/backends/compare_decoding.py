"""Comparing decoders with the reference: call by call and padded on the left, against whole passes over each row alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.backends.compare import TOLERANCE, Result, relative_error
from tfdsl.backends.index_ranges import index_range
from tfdsl.backends.reference import bind_sizes, run
from tfdsl.backends.trials import choose_sizes, random_inputs
from tfdsl.decoding.manifest import MASK, POSITIONS, Manifest
from tfdsl.decoding.session import DecoderSession
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph
from tfdsl.passes.incremental import decoded_axis

Array = npt.NDArray[Any]

BATCH, LENGTH = 3, 14
GREEDY = "greedy tokens"
# How many positions the calls after the first bring: of a batch with padding, and of a row alone.
_BATCH_CALLS, _ROW_CALLS = (1, 1, 2, 1), (1, 1)


@dataclass(frozen=True)
class Trial:
    """A batch to decode: its inputs, what each row has of padding, how many positions each call brings, what to expect.

    Rows of `inputs` begin with their padding. `expected` are the outputs of each row alone, by position, in float64.
    """

    inputs: Mapping[str, Array]
    padding: Sequence[int]
    calls: Sequence[int]
    expected: Sequence[Array]


@dataclass(frozen=True)
class Layout:
    """Which inputs of a model go on from call to call, along axis 1, and which have a row for each of the batch."""

    positions: Dim
    moving: frozenset[str]
    by_row: frozenset[str]
    tokens: str | None

    @classmethod
    def of(cls, graph: Graph) -> Layout:
        """The layout of a causal model. Raises `SpecError` for a model without positions."""
        positions = decoded_axis(graph)
        types = {node.attributes["name"]: node.type for node in map(graph.node, graph.inputs)}
        moving = {name for name, type_ in types.items() if positions in type_.dims[1:2]}
        batch = types[next(iter(moving))].dims[0]
        by_row = {name for name, type_ in types.items() if batch in type_.dims[:1]}
        tokens = [name for name, type_ in types.items() if name in moving and type_.dtype == "int"]
        return cls(positions, frozenset(moving), frozenset(by_row), tokens[0] if tokens else None)

    def part(self, inputs: Mapping[str, Array], positions: slice, row: int | None = None) -> dict[str, Array]:
        """The inputs at some positions, of all rows or of one."""
        found = {name: value[:, positions] if name in self.moving else value for name, value in inputs.items()}
        if row is None:
            return found
        return {name: value[row : row + 1] if name in self.by_row else value for name, value in found.items()}


def trials(
    graph: Graph, weights: Mapping[str, Array], *, seed: int = 0, batch: int = BATCH, length: int = LENGTH
) -> list[Trial]:
    """A batch with padding, called with many positions first, then one by one and two at once; and a row alone.

    After the first call tokens are those that the reference chooses. Raises `SpecError` where no sizes will do.
    """
    layout = Layout.of(graph)
    made = []
    for rows, calls in ((batch, _BATCH_CALLS), (1, _ROW_CALLS)):
        sizes = choose_sizes(graph, rows, length)
        inputs = random_inputs(graph, sizes, seed)
        whole = sizes[str(layout.positions)]
        least = min(choose_sizes(graph, rows, 1)[str(layout.positions)], whole)  # that a row must have to begin with
        later = [count for place, count in enumerate(calls) if sum(calls[: place + 1]) <= whole - least]
        first = whole - sum(later)
        padding = [row * (first - least) // max(rows - 1, 1) for row in range(rows)]
        for row, pad in enumerate(padding):
            _choose_greedily(graph, weights, layout, inputs, row, pad, range(first, whole))
        trial = Trial(inputs, padding, (first, *later), ())
        made.append(replace(trial, expected=expected(graph, weights, trial)))
    return made


def expected(graph: Graph, weights: Mapping[str, Array], trial: Trial) -> list[Array]:
    """The first output of a whole pass over each row alone, by position."""
    layout = Layout.of(graph)
    return [
        _alone(graph, weights, layout.part(trial.inputs, slice(pad, None), row))
        for row, pad in enumerate(trial.padding)
    ]


def compare_decoding(
    graph: Graph, trial: Trial, target: str, session: DecoderSession, manifest: Manifest, tolerance: float = TOLERANCE
) -> list[Result]:
    """The error of each call of a session, and how many tokens it would choose otherwise."""
    session.reset()
    if manifest.encoder_inputs:
        session.encode({name: trial.inputs[name] for name in manifest.encoder_inputs})
    results, wrong, done, layout = [], 0, 0, Layout.of(graph)
    for inputs, count in calls_of(layout, trial):
        found = np.asarray(session.step({name: inputs[name] for name in manifest.inputs})[manifest.logits])
        done += count
        wanted = np.stack([row[done - 1 - pad] for row, pad in zip(trial.expected, trial.padding, strict=True)])
        sizes = {"batch": len(trial.expected), "past": done - count, "new": count}
        problem, error = "", float("nan")
        if found.ndim != wanted.ndim + 1 or found[:, -1].shape != wanted.shape:
            problem = f"the shape is {list(found.shape)}, and its last position should be {list(wanted.shape)}"
        else:
            error = relative_error(found[:, -1], wanted)
            wrong += _wrong_choices(found[:, -1], wanted, tolerance)
            problem = "numbers that are not finite stand on one side only" if np.isnan(error) else ""
        results.append(Result(target, sizes, f"{manifest.logits}, call by call", error, tolerance, problem))
    if layout.tokens is not None and manifest.vocab is not None:
        sizes = {"batch": len(trial.expected), "past": 0, "new": done}
        results.append(Result(target, sizes, GREEDY, float(wrong > 0), tolerance, f"{wrong} differ" if wrong else ""))
    return results


def calls_of(layout: Layout, trial: Trial) -> Iterator[tuple[dict[str, Array], int]]:
    """The inputs of each call, attention mask and positions among them, and how many positions it brings."""
    total, done = sum(trial.calls), 0
    mask = np.stack([np.arange(total) >= pad for pad in trial.padding]).astype(np.int64)
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    for count in trial.calls:
        new = slice(done, done + count)
        done += count
        yield {**layout.part(trial.inputs, new), MASK: mask[:, :done], POSITIONS: positions[:, new]}, count


def _alone(graph: Graph, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Array:
    """The first output of a whole pass over one row, by position."""
    return run(graph, weights, inputs)[graph.outputs[0][0]][0]


def _choose_greedily(
    graph: Graph,
    weights: Mapping[str, Array],
    layout: Layout,
    inputs: Mapping[str, Array],
    row: int,
    padding: int,
    places: Sequence[int],
) -> None:
    """Put the tokens that the reference chooses into a row; whatever else the model computes, its inputs stay as drawn."""
    type_ = graph.type(graph.outputs[0][1])
    node = next((each for each in map(graph.node, graph.inputs) if each.attributes["name"] == layout.tokens), None)
    if layout.tokens is None or node is None or type_.dtype != "float" or len(type_.dims) != 3:
        return
    _, most = index_range(graph, node, bind_sizes(graph, inputs))
    for place in places:
        before = layout.part(inputs, slice(padding, place), row)
        chosen = int(np.argmax(_alone(graph, weights, before)[-1]))
        if chosen < most:  # a model may choose from more than it reads
            inputs[layout.tokens][row, place] = chosen


def _wrong_choices(found: Array, wanted: Array, tolerance: float) -> int:
    """How many rows choose another token, though not one that is as good within the tolerance."""
    chosen = np.argmax(found, axis=-1)
    short = wanted.max(axis=-1) - np.take_along_axis(wanted, chosen[..., None], axis=-1)[..., 0]
    return int(np.count_nonzero(short > 2 * tolerance * np.abs(wanted).max()))
