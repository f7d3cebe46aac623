"""Decoding in float64: the incremental graph of a model interpreted call by call, the oracle of every target's sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from tfdsl.backends.reference.interpreter import run
from tfdsl.decoding.manifest import Manifest, describe, tokens_of
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import one
from tfdsl.passes.binding_times import split
from tfdsl.passes.incremental import incremental
from tfdsl.passes.unroll import unroll

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


def reference_decoder(
    graph: Graph, weights: Mapping[str, Array], *, logits: str = "last", windows: str = "masked"
) -> tuple[ReferenceSession, Manifest]:
    """A session with a causal model, through the same passes that targets go through, and what it takes and gives."""
    encoder, decoder = split(unroll(incremental(graph, logits=logits, windows=windows)))
    given = () if encoder is None else tuple(name for name, _ in encoder.outputs)
    tokens = tokens_of(decoder)
    manifest = describe(decoder, target="reference", file="", tokens=tokens, encoder=encoder, given=given)
    return ReferenceSession(decoder, weights, encoder), manifest
