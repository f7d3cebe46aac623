"""Building a model for a target: weights are read or drawn, the backend is called, the files appear at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfdsl.files import atomic_directory
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import did_you_mean, one


@dataclass(frozen=True)
class Target:
    """What can be built: its name for people, the file that it is loaded from, and what must be installed."""

    title: str
    file: str
    packages: tuple[str, ...]
    needs_weights: bool = True


TARGETS = {
    "torch": Target("PyTorch", "model.py", ("torch",), needs_weights=False),
    "onnx": Target("ONNX", "model.onnx", ("onnx", "onnxruntime")),
    "openvino": Target("OpenVINO", "model.xml", ("openvino",)),
}


@dataclass(frozen=True)
class Built:
    """What a build wrote: the paths of the files."""

    target: str
    files: tuple[Path, ...]


def build(
    graph: Graph,
    target: str,
    directory: str | os.PathLike[str],
    *,
    weights: Any = None,
    seed: int | None = None,
    dims: Mapping[str, int] | None = None,
) -> Built:
    """Build a graph into a folder. Raises `SpecError`, and leaves the folder as it was then.

    `weights` is a safetensors file, a mapping from paths to arrays, or a module with a `state_dict`; `seed` draws
    initial ones. PyTorch's source can be had without either, and without PyTorch. `dims` fixes sizes by name.
    """
    wanted = find_target(target)
    require_values(graph, wanted, weights is not None or seed is not None)
    if target == "torch":
        backend = importlib.import_module("tfdsl.backends.torch")
        if dims:
            raise one("T713", "PyTorch takes its sizes from its inputs, and none can be fixed in a build for it")
    else:
        backend = load_backend(target)
    values = values_of(graph, weights, seed)
    folder = Path(directory)
    if target == "torch":
        return Built(target, tuple(folder / name for name in backend.build(graph, values, folder)))
    with atomic_directory(folder) as temporary:
        backend.build(graph, values, temporary / wanted.file, dims=dict(dims or {}))
        names = sorted(each.name for each in temporary.iterdir())
    names.sort(key=lambda name: name != wanted.file)
    return Built(target, tuple(folder / name for name in names))


def find_target(name: str) -> Target:
    """The target of a name. Raises `SpecError` for a name that is none."""
    if name not in TARGETS:
        help_ = did_you_mean(name, TARGETS, "they are " + ", ".join(TARGETS))
        raise one("T714", f"there is no target `{name}`", help=help_)
    return TARGETS[name]


def load_backend(name: str) -> ModuleType:
    """The backend of a target. Raises `SpecError` where what it needs is not installed, or does not load."""
    target = find_target(name)
    for package in target.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == package
            reason = "is not installed" if missing else f"does not load: {error}"
            help_ = f"pip install 'tfdsl[{name}]'"
            raise one("T710", f"{target.title} needs `{package}`, which {reason}", help=help_) from None
    return importlib.import_module(f"tfdsl.backends.{name}")


def require_values(graph: Graph, target: Target, given: bool) -> None:
    """Refuse a build that needs the values of weights and has none."""
    from tfdsl.weights.build_time import needs_values

    if given:
        return
    node = needs_values(graph)
    help_ = "--weights FILE reads them, --seed N draws initial ones"
    if node is not None:
        raise one("T712", f"`{node.op}` needs the values of the weights", node.span, help=help_)
    if target.needs_weights:
        raise one("T711", f"a build for {target.title} needs weights", help=help_)


def values_of(graph: Graph, weights: Any, seed: int | None) -> Mapping[str, Any] | None:
    """The values of the weights by path, or None where none were asked for."""
    if weights is not None and seed is not None:
        raise one("T715", "weights and a seed are two ways to the same thing; give one")
    if seed is not None:
        from tfdsl.weights import initial

        return initial(graph, seed)
    if weights is None:
        return None
    if isinstance(weights, (str, os.PathLike)):
        from tfdsl.weights import read

        return read(weights, graph)
    from tfdsl.checkpoints.tensors import Checkpoint
    from tfdsl.weights.arrays import from_arrays

    if isinstance(weights, Checkpoint):  # it was compared with the graph when it was opened
        return weights
    return from_arrays(weights, graph)


Session = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def session(graph: Graph, target: str, weights: Mapping[str, Any], folder: Path) -> Session:
    """A built model that runs: a function from inputs to outputs by name. Files that it needs are put into `folder`."""
    backend = load_backend(target)
    if target == "torch":
        return backend.session(graph, weights)
    path = folder / TARGETS[target].file
    backend.build(graph, weights, path)
    return backend.session(path)
