"""Weights that a program holds: a module's, or arrays by path, checked against a graph as a file would be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph, weights
from tfdsl.language.diagnostics import Collector, Diagnostic, did_you_mean

Array = npt.NDArray[Any]


def from_arrays(source: Any, graph: Graph) -> dict[str, Array]:
    """Float32 arrays by path from a module with a `state_dict`, or from a mapping of arrays or tensors.

    Raises `SpecError` with every weight that is missing, left over or misshapen.
    """
    given: Mapping[str, Any] = source.state_dict() if hasattr(source, "state_dict") else source
    wanted = {path: weight for weight in weights(graph) for path in weight.paths()}
    faults = Collector()
    found: dict[str, Array] = {}
    for path, weight in wanted.items():
        if path not in given:
            help_ = did_you_mean(path, given)
            faults.add(Diagnostic("T801", f"there is no weight `{path}` among those given", weight.span, help=help_))
            continue
        array, shape = _array(given[path]), [evaluate(dim, {}) for dim in weight.type.dims]
        if list(array.shape) != shape:
            message = f"`{path}` is given as {list(array.shape)}, and is {shape} in the model"
            faults.add(Diagnostic("T803", message, weight.span))
        found[path] = array
    for path in given:
        if path not in wanted:
            faults.add(Diagnostic("T802", f"`{path}` is given, and is no weight of `{graph.name}`"))
    faults.check()
    return found


def _array(value: Any) -> Array:
    """An array, or a tensor of PyTorch on any device and of any float type, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    return np.asarray(value, dtype=np.float32)
