"""ONNX: a full-sequence graph of standard operators, with dynamic sizes, and ONNX Runtime to run it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfdsl.backends.onnx.artifact import build

if TYPE_CHECKING:
    import numpy as np

__all__ = ["build", "session"]


def session(model: str | os.PathLike[str] | bytes) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    """A function from inputs by name to outputs by name, for a model in a file or in memory."""
    # A build does without the runtime.
    from tfdsl.backends.onnx.runtime import session as start

    return start(model)
