"""A session with a decoder: calls with a few new positions each, and what they leave behind."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

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
    from tfdsl.decoding.manifest import read_manifest

    path = Path(folder)
    target = read_manifest(path).target
    load_backend(target)
    session: DecoderSession = importlib.import_module(f"tfdsl.backends.{target}.decoder").decoder_session(path)
    return session
