"""Verifying a model: random weights and inputs through the reference and every target, outputs compared."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.build import TARGETS, load_backend, session, storing_of
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import SpecError, one

if TYPE_CHECKING:
    from tfdsl.backends.compare import Result


REFERENCE = "reference"  # stands among the targets where the reference's own decoding is compared


@dataclass
class Verdict:
    """The outcome: a result for each target, sizes and output; what targets refused; which are not installed.

    `differing` says of each target that failed at which node it first differs, as far as that can be found.
    """

    results: list[Result] = field(default_factory=list)
    refused: dict[str, SpecError] = field(default_factory=dict)
    absent: dict[str, SpecError] = field(default_factory=dict)
    differing: dict[str, SpecError] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.results) and not self.refused and all(result.passed for result in self.results)


def verify(
    graph: Graph,
    targets: Sequence[str] | None = None,
    *,
    seed: int = 0,
    tolerance: float | None = None,
    dtype: str = "float32",
    batches: Sequence[int] = (),
    lengths: Sequence[int] = (),
    decode: bool = False,
    longest: int | None = None,
) -> Verdict:
    """Compare targets with the reference at several sizes; all that are installed, if none are named.

    `dtype` is the element type that the targets are built for; the reference has the weights that are rounded to it.
    `batches` and `lengths` are the sizes to try, in all pairs; `decode` compares decoders too, call by call, built for texts
    of at most `longest` positions. Raises `SpecError` for a named target that is not installed, for a model that cannot
    decode, and where memory would not do.
    """
    from tfdsl.backends.compare import BATCHES, LENGTHS, TOLERANCES, check_memory, compare
    from tfdsl.passes.incremental import bounded
    from tfdsl.weights import trial
    from tfdsl.weights.elements import rounded

    if longest is not None and not decode:
        message = "`longest` is about decoding, and no decoders are to be compared"
        raise one("T744", message, help="add --decode (in Python decode=True)")
    decoded = graph if longest is None else bounded(graph, longest)
    verdict = Verdict()
    chosen = _installed(targets, verdict)
    sizes = {"batches": batches or BATCHES, "lengths": lengths or LENGTHS}
    check_memory(graph, len(chosen), **sizes)
    spelled = storing_of(dtype).spelled
    weights = {path: rounded(array, spelled, path) for path, array in trial(graph, seed).items()}
    limit = TOLERANCES[dtype] if tolerance is None else tolerance
    with tempfile.TemporaryDirectory(prefix="tfdsl-") as folder:
        running = {}
        for name in chosen:
            try:
                running[name] = session(graph, name, weights, Path(folder), dtype=dtype)
            except SpecError as error:
                verdict.refused[name] = error
        verdict.results = compare(graph, weights, running, seed=seed, tolerance=limit, **sizes) if running else []
        running.clear()  # runtimes hold the files open
    _look_closer(verdict, graph, weights, seed, dtype)
    if decode:
        _compare_decoders(verdict, chosen, decoded, weights, seed=seed, tolerance=limit, dtype=dtype)
    return verdict


def _installed(targets: Sequence[str] | None, verdict: Verdict) -> list[str]:
    """The targets to compare; those that are not installed are noted, unless they were asked for."""
    chosen: list[str] = []
    for name in targets or TARGETS:
        try:
            load_backend(name)
            chosen.append(name)
        except SpecError as error:
            if targets:
                raise
            verdict.absent[name] = error
    return chosen


def _look_closer(verdict: Verdict, graph: Graph, weights: Mapping[str, Any], seed: int, dtype: str) -> None:
    """Find the first node at which each target that failed differs, where the first failure was."""
    from tfdsl.backends.compare import compare_inputs
    from tfdsl.backends.differing import culprit, ending_at, first_differing
    from tfdsl.backends.trials import random_inputs
    from tfdsl.passes.unroll import unroll

    for name in dict.fromkeys(result.target for result in verdict.results if not result.passed):
        failed = next(each for each in verdict.results if each.target == name and not each.passed)
        if failed.output not in dict(graph.outputs):
            continue
        flat, inputs = unroll(graph), random_inputs(graph, failed.sizes, seed)

        def differs(short: Graph, target: str = name, failed: Result = failed, inputs: Any = inputs) -> bool:
            with tempfile.TemporaryDirectory(prefix="tfdsl-") as folder:
                running = {target: session(short, target, weights, Path(folder), dtype=dtype)}
                found = compare_inputs(short, weights, running, inputs, failed.sizes, failed.tolerance)
                running.clear()
            return not all(each.passed for each in found)

        node = first_differing(flat, failed.output, differs, ending_at)
        if node is not None:
            verdict.differing[name] = culprit(flat, node, TARGETS[name].title)


def _compare_decoders(
    verdict: Verdict, targets: Sequence[str], graph: Graph, weights: Mapping[str, Any], **options: Any
) -> None:
    from tfdsl.verify_decoding import Decoders

    with tempfile.TemporaryDirectory(prefix="tfdsl-") as folder:
        decoders = Decoders(graph, weights, Path(folder), **options)
        for name in targets:
            decoders.compare(name)
    verdict.results += decoders.results
    verdict.refused |= decoders.refused
    verdict.differing |= decoders.differing


def render(verdict: Verdict) -> str:
    """The largest error of each output on each target, as a table, and whatever went wrong."""
    worst: dict[tuple[str, str], Result] = {}
    sizes: dict[tuple[str, str], int] = {}
    for result in verdict.results:
        key = (result.target, result.output)
        sizes[key] = sizes.get(key, 0) + 1
        if key not in worst or _badness(result) > _badness(worst[key]):
            worst[key] = result
    rows = [
        (
            title(target),
            output,
            f"{result.error:.1e}",
            "at " + ", ".join(f"{name}={number}" for name, number in result.sizes.items()),
            ("ok" if result.passed else result.problem or f"more than {result.tolerance:g}"),
        )
        for (target, output), result in worst.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)] if rows else []
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if rows:
        lines.insert(0, f"largest relative error of each output over {max(sizes.values())} sizes, against float64:")
    lines += [str(error) for error in verdict.differing.values()]
    for name, error in verdict.refused.items():
        lines.append(f"{title(name)} refuses the model:\n{error}")
    for error in verdict.absent.values():
        lines += [f"not compared: {each.message}" for each in error.diagnostics]
    return "\n".join(lines)


def title(name: str) -> str:
    """The name of a target for people, with the form of its decoder, if the name has one: "onnx, ort decoder"."""
    target, comma, form = name.partition(", ")
    return name if target == REFERENCE else f"{TARGETS[target].title}{comma}{form}"


def _badness(result: Result) -> tuple[bool, float]:
    return bool(result.problem), result.error
