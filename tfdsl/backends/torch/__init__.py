"""PyTorch: readable stand-alone source, and modules made from that very source."""

from __future__ import annotations

import linecache
import os
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfdsl.backends.torch.emit import emit, emit_named
from tfdsl.ir.graph import Graph

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tfdsl.weights.storing import Storing

__all__ = ["build", "emit", "import_source", "make", "session"]


def make(graph: Graph, weights: Mapping[str, Any] | None = None, dtype: str = "float32") -> torch.nn.Module:
    """A module from the emitted source, with the given weights (by path) or with its own initial ones.

    `dtype` is the element type of its parameters and of what it computes: "float32", "float16" or "bfloat16".
    """
    import torch

    if weights is not None:
        from tfdsl.weights import bytes_needed, require_memory

        require_memory(bytes_needed(graph), f"`{graph.name}` as a module")
    source, name = emit_named(graph)
    module = import_source(graph.name, source)
    model: torch.nn.Module = getattr(module, name)().to(getattr(torch, dtype))
    if weights is not None:
        _load(model, weights)
    return model


def _load(model: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Copy weights into a module one by one; their paths and shapes have been compared with the graph's."""
    import torch

    from tfdsl.weights.elements import convert

    state = model.state_dict()
    assert state.keys() == weights.keys(), "a module's state has the paths of its graph"
    with torch.no_grad():
        for path, tensor in state.items():
            array = weights[path]
            if tensor.dtype == torch.float16:
                array = convert(array, "F32", "F16", path)
            tensor.copy_(torch.from_numpy(_own(array)))


def _own(array: Any) -> Any:
    """An array that torch may keep: contiguous and writable."""
    import numpy

    return numpy.require(array, requirements=["C", "W"])


_MADE = 0


def import_source(name: str, source: str) -> types.ModuleType:
    """Run emitted source as a module, with its lines known to tracebacks and to `inspect`."""
    import sys

    global _MADE
    _MADE += 1
    module = types.ModuleType(f"tfdsl_model_{_MADE}")
    filename = f"<{name}.py, emitted by tfdsl, {_MADE}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module.__file__ = filename
    sys.modules[module.__name__] = module
    exec(compile(source, filename, "exec"), module.__dict__)
    return module


def build(
    graph: Graph,
    weights: Mapping[str, Any] | None,
    directory: str | os.PathLike[str],
    *,
    storing: Storing | None = None,
) -> list[str]:
    """Write `model.py` and, with weights, `model.safetensors`; the names written. Raises `SpecError`."""
    from pathlib import Path

    from tfdsl.backends.torch.storage import write
    from tfdsl.files import atomic_directory
    from tfdsl.weights import materialise

    if weights is not None:
        graph, weights = materialise(graph, weights)
    with atomic_directory(directory, last="model.py") as folder:
        Path(folder, "model.py").write_text(emit(graph), encoding="utf-8")
        if weights is not None:
            write(Path(folder, "model.safetensors"), graph, weights, storing)
    return ["model.py"] + (["model.safetensors"] if weights is not None else [])


def session(
    graph: Graph, weights: Mapping[str, Any], dtype: str = "float32"
) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
    """The model as a function of arrays, without dropout; floats come and go as float32 whatever it computes in."""
    import torch

    from tfdsl.weights import materialise

    graph, stored = materialise(graph, weights)
    model = make(graph, stored, dtype).eval()
    names = [name for name, _ in graph.outputs]

    def run(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        order = [graph.node(node).attributes["name"] for node in graph.inputs]
        tensors = []
        for name in order:
            tensor = torch.from_numpy(_own(inputs[name]))
            tensors.append(tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor)
        with torch.no_grad():
            results = model(*tensors)
        results = results if isinstance(results, tuple) else (results,)
        results = [each.float() if each.is_floating_point() else each for each in results]
        return {name: result.detach().numpy() for name, result in zip(names, results, strict=True)}

    return run
