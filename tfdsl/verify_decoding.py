"""Verifying decoders: every target's, in each form that it can be built in, against whole passes of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.backends.compare_decoding import Layout, Trial, compare_decoding, expected, trials
from tfdsl.backends.differing import culprit, ending_at, first_differing
from tfdsl.backends.reference.decoder import reference_decoder
from tfdsl.build import Decoding, build
from tfdsl.decoding.manifest import read_manifest
from tfdsl.decoding.session import open_session
from tfdsl.ir.graph import Graph, Value
from tfdsl.ir.graph import weights as weights_of
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.unroll import unroll
from tfdsl.verify import REFERENCE, title

if TYPE_CHECKING:
    from tfdsl.backends.compare import Result

Weights = Mapping[str, Any]

# The forms that a target's decoder comes in: what is said of each, and the options of the build.
FORMS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "torch": (("decoder", {}),),
    "onnx": (("portable decoder", {"profile": "portable"}), ("ort decoder", {"profile": "ort"})),
    "openvino": (("decoder", {}),),
}


class Decoders:
    """The comparison of a model's decoders: `results`, and by the name of a form what it refused or where it differs."""

    def __init__(self, graph: Graph, weights: Weights, folder: Path, *, seed: int, tolerance: float, dtype: str):
        self.graph, self.weights, self.folder = graph, weights, folder
        self.tolerance, self.dtype = tolerance, dtype
        session, manifest = reference_decoder(graph, weights)  # refuses a model that looks ahead
        self.trials = trials(graph, weights, seed=seed)
        # The passes that all targets build on, by themselves: a fault of theirs is no fault of a target.
        self.results: list[Result] = [
            result
            for trial in self.trials
            for result in compare_decoding(graph, trial, REFERENCE, session, manifest, tolerance)
        ]
        self.refused: dict[str, SpecError] = {}
        self.differing: dict[str, SpecError] = {}

    def compare(self, target: str) -> None:
        """Build all forms of a target's decoder, and compare each."""
        for form, options in FORMS[target]:
            name = f"{target}, {form}"
            try:
                results = self._results(self.graph, name, target, options, self.trials)
            except SpecError as error:
                self.refused[name] = error
                continue
            self.results += results
            if not all(result.passed for result in results):
                self._look_closer(name, target, options)

    def _results(
        self, graph: Graph, name: str, target: str, options: dict[str, Any], trials: list[Trial]
    ) -> list[Result]:
        folder = self.folder / f"{len(list(self.folder.iterdir()))}"
        own = {path: self.weights[path] for each in weights_of(graph) for path in each.paths()}
        build(graph, target, folder, weights=own, decoding=Decoding(**options), dtype=self.dtype)
        session, manifest = open_session(folder), read_manifest(folder)
        return [
            result
            for trial in trials
            for result in compare_decoding(graph, trial, name, session, manifest, self.tolerance)
        ]

    def _look_closer(self, name: str, target: str, options: dict[str, Any]) -> None:
        """Find the first node at which a form differs."""
        flat = unroll(self.graph)

        def differs(short: Graph) -> bool:
            try:
                cut = [replace(each, expected=expected(short, self.weights, each)) for each in self.trials]
                return not all(each.passed for each in self._results(short, name, target, options, cut))
            except SpecError:  # a value that cannot be decoded by itself
                return False

        node = first_differing(flat, flat.outputs[0][0], differs, decodable)
        if node is not None:
            self.differing[name] = culprit(flat, node, title(name))


def decodable(graph: Graph, value: Value) -> Graph | None:
    """The graph that ends at a value, as features of each position; None for a value that has no positions."""
    type_, positions = graph.type(value), Layout.of(graph).positions
    axes = [axis for axis, size in enumerate(type_.dims) if size == positions]
    if len(axes) != 1 or axes[0] == 0:
        return None
    short = ending_at(graph, value)
    if type_.dtype != "float":
        value = Value(short.add("cast", [value], {"to": "float"}).id)
    names = [f"x{axis}" for axis in range(len(type_.dims))]
    features = " ".join(name for axis, name in enumerate(names) if axis not in (0, axes[0]))
    pattern = f"{' '.join(names)} -> x0 {names[axes[0]]} {f'({features})' if features else '1'}"
    short.outputs = [("value", Value(short.add("rearrange", [value], {"pattern": pattern}).id))]
    return short
