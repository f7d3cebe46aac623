"""Running an OpenVINO model on the CPU plugin, in float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]

# The plugin's own choice is bfloat16 where the machine has it, a cache of bytes, and activations of eight bits for
# weights that are quantised.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


Session = Callable[[Mapping[str, Array]], dict[str, Array]]


def session(model: openvino.Model | str | os.PathLike[str]) -> Session:
    """A function from inputs by name to outputs by name, for a model or its `.xml` file. Raises `SpecError`."""
    compiled = compile_model(openvino.Core(), model)
    inputs = {port.get_any_name(): port.get_element_type().to_dtype() for port in compiled.inputs}
    outputs = {port.get_any_name(): port for port in compiled.outputs}

    def run(given: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: np.asarray(given[name]).astype(dtype, copy=False) for name, dtype in inputs.items()}
        found = compiled(feeds)
        return {name: np.array(found[port]) for name, port in outputs.items()}

    return run


def compile_model(core: openvino.Core, model: openvino.Model | str | os.PathLike[str]) -> openvino.CompiledModel:
    """A model or its `.xml` file as the CPU plugin runs it. Raises `SpecError` where the plugin refuses it."""
    source = model if isinstance(model, openvino.Model) else os.fspath(model)
    try:
        return core.compile_model(source, "CPU", EXACT)
    except RuntimeError as error:
        what = model.get_friendly_name() if isinstance(model, openvino.Model) else source
        reason = str(error).strip().splitlines()[-1]
        raise one("T703", f"OpenVINO cannot run `{what}` on the CPU: {reason}") from None
