"""A session with a decoder: calls with a few new positions each, and what they leave behind."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from tfdsl.decoding.manifest import MASK, read_manifest
from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]


class DecoderSession(Protocol):
    """One decoder of any target, opened; all targets are called by the names of the incremental graph.

    A batch is begun by `reset` (and by `encode`, where there is an encoder) and goes on with `step`; its number of rows
    stays what the first call made it.
    """

    def reset(self) -> None:
        """Forget all calls: states are empty again."""

    def encode(self, inputs: Mapping[str, Array]) -> None:
        """Run the encoder once, for all steps until the next call; only sessions of encoder-decoders are asked to."""

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one call by name. `inputs` are those that the manifest lists: int64, float32 and bool arrays.

        What the encoder gives is not among them: the session hands it on by itself.
        """


def open_session(folder: str | os.PathLike[str]) -> DecoderSession:
    """A session with the decoder in a folder that a build with a cache has written. Raises `SpecError`."""
    from tfdsl.build import load_backend

    path = Path(folder)
    manifest = read_manifest(path)
    load_backend(manifest.target)
    backend = importlib.import_module(f"tfdsl.backends.{manifest.target}.decoder")
    session: DecoderSession = backend.decoder_session(path)
    return session if manifest.longest is None else _Bounded(session, manifest.model, manifest.longest)


class _Bounded:
    """A session of a model that takes so many positions at most: runtimes would go on with wrong numbers."""

    def __init__(self, session: DecoderSession, model: str, longest: int):
        self._session, self._model, self._longest = session, model, longest
        self.reset, self.encode = session.reset, session.encode

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call. Raises `SpecError` (T747) where the positions become too many."""
        total = inputs[MASK].shape[1]
        if total > self._longest:
            raise one("T747", f"there are {total} positions, and `{self._model}` takes {self._longest} at most")
        return self._session.step(inputs)
