"""Running an ONNX model in ONNX Runtime on the CPU, in float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}

# Products with weights in blocks compute in float32; the runtime's own choice rounds the activations to eight bits.
_IN_FLOAT32 = ("session.qdq_matmulnbits_accuracy_level", "1")


def session(model: str | os.PathLike[str] | bytes) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """A function from inputs by name to outputs by name, for a model in a file or in memory."""
    running = opened(model)
    inputs = {each.name: DTYPES[each.type] for each in running.get_inputs()}
    outputs = [each.name for each in running.get_outputs()]

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        feeds: dict[str, Array] = {
            name: np.asarray(given[name]).astype(dtype, copy=False) for name, dtype in inputs.items()
        }
        return dict(zip(outputs, running.run(outputs, feeds), strict=True))

    return run


def opened(model: str | os.PathLike[str] | bytes) -> Any:
    """ONNX Runtime's session with a model in a file or in memory."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*_IN_FLOAT32)
    source = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
