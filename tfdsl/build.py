"""Building a model for a target: weights are read or drawn, the backend is called, the files appear at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfdsl.files import atomic_directory
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import did_you_mean, one

if TYPE_CHECKING:
    from tfdsl.weights.storing import Report, Storing


@dataclass(frozen=True)
class Target:
    """What can be built: its name for people, the file that it is loaded from, and what must be installed for a build."""

    title: str
    file: str
    packages: tuple[str, ...]
    runtimes: tuple[str, ...] = ()  # what it takes to run what was built, too
    needs_weights: bool = True


TARGETS = {
    "torch": Target("PyTorch", "model.py", ("torch",), needs_weights=False),
    "onnx": Target("ONNX", "model.onnx", ("onnx",), ("onnxruntime",)),
    "openvino": Target("OpenVINO", "model.xml", ("openvino",)),
}


@dataclass(frozen=True)
class Decoding:
    """What is asked of a build with a cache, as the options of `tfm build` say it; None is the target's own choice.

    `profile` is "portable" or "ort" (ONNX), `logits` "last" or "all", `pipeline` "stateful" or "paged" (OpenVINO) or
    "genai" (ONNX), and `tokenizer` a folder with `tokenizer.json`, or "bytes". `longest` is how many positions a text has
    at most, prompt and new tokens together: no more than the model itself takes, and that many without it.
    """

    profile: str | None = None
    logits: str | None = None
    pipeline: str | None = None
    tokenizer: str | os.PathLike[str] | None = None
    longest: int | None = None

    def check(self, target: Target, dims: Mapping[str, int] | None) -> None:
        """Refuse what does not apply to a target. Raises `SpecError`."""
        for name, of_target in CHOICES.items():
            value = getattr(self, name)
            if value is None:
                continue
            choices = next((choices for key, choices in of_target.items() if TARGETS[key] is target), None)
            if choices is None:
                help_ = "it is for " + " and ".join(TARGETS[key].title for key in of_target)
                raise one("T744", f"`{name}` says nothing to a build for {target.title}", help=help_)
            if value not in choices:
                help_ = did_you_mean(value, choices, "it is one of " + ", ".join(choices))
                raise one("T744", f"`{name}` cannot be {value!r}", help=help_)
        if dims:
            names = ", ".join(f"`{name}`" for name in dims)
            raise one("T744", f"a decoder's sizes stay open, and {names} cannot be fixed in one")

    def options(self) -> dict[str, str]:
        """What the backend is told: those that were given."""
        return {name: getattr(self, name) for name in CHOICES if getattr(self, name) is not None}


# The choices of each option, for each target that it is for.
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "profile": {"onnx": ("portable", "ort")},
    "logits": dict.fromkeys(TARGETS, ("last", "all")),
    "pipeline": {"openvino": ("stateful", "paged"), "onnx": ("genai",)},
}


def decoding_of(cache: bool, **settings: Any) -> Decoding | None:
    """The settings as a `Decoding`, or None without a cache; any setting is refused then. Raises `SpecError`."""
    given = [name for name, value in settings.items() if value is not None]
    if cache:
        return Decoding(**settings)
    if given:
        message = f"`{given[0]}` is about decoding, and no cache is asked for"
        raise one("T744", message, help="add --cache (in Python cache=True)")
    return None


@dataclass(frozen=True)
class Built:
    """What a build wrote: the paths of the files, and how many bytes of weights lie in a checkpoint that it refers to.

    `pipelines` says of each way that the runtime's own generator has of running a decoder why it cannot, or "". `left_out`
    are the outputs of the model that a decoder does not have: all but the first.
    """

    target: str
    files: tuple[Path, ...]
    linked: int = 0
    pipelines: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def build(
    graph: Graph,
    target: str,
    directory: str | os.PathLike[str],
    *,
    weights: Any = None,
    seed: int | None = None,
    dims: Mapping[str, int] | None = None,
    decoding: Decoding | None = None,
    dtype: str = "float32",
    link: bool = False,
    report: Report | None = None,
) -> Built:
    """Build a graph into a folder. Raises `SpecError`, and leaves the folder as it was then.

    `weights` is a safetensors file, a mapping from paths to arrays, or a module with a `state_dict`; `seed` draws
    initial ones. PyTorch's source can be had without either, and without PyTorch. `dims` fixes sizes by name.
    `decoding` asks for a decoder with a cache in place of the model as a whole. `dtype` ("float32", "float16" or
    "bfloat16") is the element type of float weights, and of what is computed where the target has that; with `link` the
    artifact refers to the bytes of a checkpoint where it can. `report` is told of bytes as they are written.
    """
    wanted = find_target(target)
    given = weights is not None or seed is not None
    if decoding is not None:
        decoding.check(wanted, dims)
        graph = _bounded(graph, decoding)
    require_values(graph, wanted, given)
    if not given and (link or dtype != "float32"):
        message = "the element type of weights, and links to them, say nothing to a build without weights"
        raise one("T711", message, help="--weights FILE reads them, --seed N draws initial ones")
    if target == "torch":
        backend = importlib.import_module("tfdsl.backends.torch")
        if dims:
            raise one("T713", "PyTorch takes its sizes from its inputs, and none can be fixed in a build for it")
    else:
        backend = load_backend(target, to_run=False)
    values = values_of(graph, weights, seed)
    storing = storing_of(dtype, link, report) if given else None
    folder = Path(directory)
    if decoding is not None:
        return _build_decoder(graph, target, folder, values, decoding, storing)
    if target == "torch":
        written = backend.build(graph, values, folder, storing=storing)
        return Built(target, tuple(folder / name for name in written), storing.linked if storing else 0)
    with atomic_directory(folder, last=wanted.file) as temporary:
        backend.build(graph, values, temporary / wanted.file, dims=dict(dims or {}), storing=storing)
        names = sorted(each.name for each in temporary.iterdir())
    names.sort(key=lambda name: name != wanted.file)
    return Built(target, tuple(folder / name for name in names), storing.linked if storing else 0)


def _bounded(graph: Graph, decoding: Decoding) -> Graph:
    """The graph with the bound on texts that is asked for. Raises `SpecError`."""
    from tfdsl.passes.incremental import bounded

    return graph if decoding.longest is None else bounded(graph, decoding.longest)


def storing_of(dtype: str, link: bool = False, report: Report | None = None) -> Storing:
    """How weights are to be stored. Raises `SpecError` for an element type that is none."""
    from tfdsl.weights.storing import DTYPES, Storing

    if dtype not in DTYPES:
        help_ = did_you_mean(dtype, DTYPES, "it is one of " + ", ".join(DTYPES))
        raise one("T716", f"there is no element type `{dtype}` for weights", help=help_)
    return Storing(dtype, link, report)


def _build_decoder(
    graph: Graph,
    target: str,
    folder: Path,
    values: Mapping[str, Any] | None,
    decoding: Decoding,
    storing: Storing | None,
) -> Built:
    """Build a decoder into a folder, with the tokenizer's files there before the backend looks for them."""
    from tfdsl.decoding.manifest import FILE, read_manifest, write_manifest
    from tfdsl.decoding.tokenizers import copy_tokenizer

    backend = importlib.import_module(f"tfdsl.backends.{target}.decoder")
    with atomic_directory(folder, last=FILE) as temporary:
        tokenizer = None if decoding.tokenizer is None else copy_tokenizer(decoding.tokenizer, temporary)
        backend.build_decoder(graph, values, temporary, tokenizer=tokenizer, storing=storing, **decoding.options())
        manifest = read_manifest(temporary)
        if tokenizer is not None:
            told: dict[str, Any] = {"tokenizer": tokenizer.kind, "eos": tokenizer.eos, "start": tokenizer.start}
            write_manifest(temporary, replace(manifest, **told))
        names = sorted(str(each.relative_to(temporary)) for each in temporary.rglob("*") if each.is_file())
    names.sort(key=lambda name: name != FILE)
    linked = storing.linked if storing else 0
    left_out = tuple(name for name, _ in graph.outputs[1:])
    return Built(target, tuple(folder / name for name in names), linked, manifest.pipelines, left_out)


def find_target(name: str) -> Target:
    """The target of a name. Raises `SpecError` for a name that is none."""
    if name not in TARGETS:
        help_ = did_you_mean(name, TARGETS, "they are " + ", ".join(TARGETS))
        raise one("T714", f"there is no target `{name}`", help=help_)
    return TARGETS[name]


def load_backend(name: str, *, to_run: bool = True) -> ModuleType:
    """The backend of a target. Raises `SpecError` where what it needs is not installed, or does not load.

    Without `to_run`, what builds do not need is neither asked for nor loaded.
    """
    target = find_target(name)
    for package in (*target.packages, *(target.runtimes if to_run else ())):
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
        from tfdsl.weights import drawn

        return drawn(graph, seed)
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


def session(graph: Graph, target: str, weights: Mapping[str, Any], folder: Path, *, dtype: str = "float32") -> Session:
    """A built model that runs: a function from inputs to outputs by name. Files that it needs are put into `folder`."""
    backend = load_backend(target)
    if target == "torch":
        return backend.session(graph, weights, dtype)
    path = folder / TARGETS[target].file
    backend.build(graph, weights, path, storing=storing_of(dtype))
    return backend.session(path)
