"""Verifying a model: random weights and inputs through the reference and every target, outputs compared."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tfdsl.build import TARGETS, load_backend, session, storing_of
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import SpecError

if TYPE_CHECKING:
    from tfdsl.backends.compare import Result


@dataclass
class Verdict:
    """The outcome: a result for each target, sizes and output; what targets refused; which are not installed."""

    results: list[Result] = field(default_factory=list)
    refused: dict[str, SpecError] = field(default_factory=dict)
    absent: dict[str, SpecError] = field(default_factory=dict)

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
) -> Verdict:
    """Compare targets with the reference at several sizes; all that are installed, if none are named.

    `dtype` is the element type that the targets are built for; the reference has the weights that are rounded to it.
    Raises `SpecError` for a named target that is not installed, and where memory would not do.
    """
    from tfdsl.backends.compare import TOLERANCES, check_memory, compare
    from tfdsl.weights import trial
    from tfdsl.weights.elements import rounded

    verdict = Verdict()
    chosen: list[str] = []
    for name in targets or TARGETS:
        try:
            load_backend(name)
            chosen.append(name)
        except SpecError as error:
            if targets:
                raise
            verdict.absent[name] = error
    check_memory(graph, len(chosen))
    spelled = storing_of(dtype).spelled
    weights = {path: rounded(array, spelled, path) for path, array in trial(graph, seed).items()}
    with tempfile.TemporaryDirectory(prefix="tfdsl-") as folder:
        running = {}
        for name in chosen:
            try:
                running[name] = session(graph, name, weights, Path(folder), dtype=dtype)
            except SpecError as error:
                verdict.refused[name] = error
        limit = TOLERANCES[dtype] if tolerance is None else tolerance
        verdict.results = compare(graph, weights, running, seed=seed, tolerance=limit) if running else []
        running.clear()  # runtimes hold the files open
    return verdict


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
            TARGETS[target].title,
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
    for name, error in verdict.refused.items():
        lines.append(f"{TARGETS[name].title} refuses the model:\n{error}")
    for error in verdict.absent.values():
        lines += [f"not compared: {each.message}" for each in error.diagnostics]
    return "\n".join(lines)


def _badness(result: Result) -> tuple[bool, float]:
    return bool(result.problem), result.error
