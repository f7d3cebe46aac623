"""Decoding in float64: the incremental graph of a model interpreted call by call, the oracle of every target's sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from tfdsl.backends.reference.interpreter import run
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]


class ReferenceSession:
    """A session with an incremental graph, and with the encoder whose outputs are inputs of it."""

    def __init__(self, decoder: Graph, weights: Mapping[str, Array], encoder: Graph | None = None):
        self.decoder, self.encoder, self.weights = decoder, encoder, weights
        self.state: dict[str, Array] = {}
        self.given: dict[str, Array] = {}

    def reset(self) -> None:
        """Forget all calls."""
        self.state = {}

    def encode(self, inputs: Mapping[str, Array]) -> None:
        """Run the encoder; its outputs are inputs of every step."""
        if self.encoder is None:
            raise one("T741", f"`{self.decoder.name}` has no encoder")
        self.given = run(self.encoder, self.weights, inputs)

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call: outputs by name, in float64."""
        return run(self.decoder, self.weights, {**self.given, **inputs}, self.state)
