"""A loaded model: what `tfdsl.load` gives, and the one way from a file to a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.ir.elaborate import Override, elaborate
from tfdsl.ir.graph import Graph
from tfdsl.language import modules, syntax
from tfdsl.language.diagnostics import Source, did_you_mean, one
from tfdsl.language.modules import Declared, Module
from tfdsl.language.parser import parse_expression

if TYPE_CHECKING:
    import torch  # noqa: TID251

    from tfdsl.build import Built
    from tfdsl.passes import Report as PassReport
    from tfdsl.plans import Plan
    from tfdsl.report import Report
    from tfdsl.verify import Verdict
    from tfdsl.weights.storing import Report as BytesReport
    from tfdsl.weights.storing import Storing


def load(
    path: str | os.PathLike[str],
    model: str | None = None,
    *,
    inputs: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    **params: Any,
) -> Model:
    """The model of a spec: `model` names it, or it is the file's one model that extends no other.

    `params` override parameters with Python values (numbers, strings, booleans, lists), `settings` with expressions of
    the language as text; `inputs` names optional inputs that the model is to have. Raises `SpecError`.
    """
    module = modules.load(path)
    declared = choose(module, model)
    overrides = {name: _from_value(name, value) for name, value in params.items()}
    overrides |= {name: _from_text(name, text, module) for name, text in (settings or {}).items()}
    elaborated = elaborate(declared, overrides, inputs)
    return Model(declared, elaborated.graph, elaborated.parameters)


class Model:
    """A model with its parameters settled.

    `graph` is its graph, `name` its name; `parameters` maps each parameter to its value, with `origins` saying where it
    came from, and `passes` tells what the passes did that it has been through.
    """

    def __init__(self, declared: Declared, graph: Graph, parameters: Any, passes: tuple[PassReport, ...] = ()):
        self.declared = declared
        self.graph = graph
        self.parameters = parameters
        self.passes = passes

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def module(self) -> Module:
        return self.declared.module

    def plan(self, name: str) -> Plan:
        """A plan of the model's file, evaluated for the model's parameters. Raises `SpecError`."""
        from tfdsl.plans import find_plan

        return find_plan(self.module, name, self.declared, self.parameters)

    def optimize(self, *passes: str, plan: str | None = None, after: str | None = None) -> Model:
        """This model after passes: those of a plan of its file, then those given as they are written in one.

        `after` names the last to be run, and is run alone where it is all that is given. What each pass did is in
        `.passes` of the model that comes back. Raises `SpecError`.
        """
        from tfdsl.optimize import optimize

        graph, reports = optimize(self, passes, plan, after)
        return Model(self.declared, graph, self.parameters, (*self.passes, *reports))

    def report(
        self,
        *,
        batch: int = 1,
        seq: int | None = None,
        sizes: Mapping[str, int] | None = None,
        dtype: str = "float32",
    ) -> Report:
        """Parameters, operations and bytes at the given sizes; without `seq`, at the longest that the model allows."""
        from tfdsl.report import report

        return report(self.graph, sizes=sizes, batch=batch, seq=seq, dtype=dtype)

    def draw(self, path: str | os.PathLike[str], *, depth: int = 2) -> None:
        """Draw so many levels of blocks into a `.dot`, `.svg`, `.png` or `.pdf`. Raises `SpecError`."""
        from tfdsl.backends.graphviz import draw

        draw(self.graph, path, depth)

    def to_torch(self, *, weights: Any = None, seed: int | None = None, dtype: str = "float32") -> torch.nn.Module:
        """A PyTorch module, made from the source that a build would write.

        `weights` is a safetensors file, the folder of a published checkpoint, arrays or tensors by path, or a module;
        `seed` draws initial ones. Without either the module draws its own. `dtype` is that of its parameters and of
        what it computes: "float32", "float16" or "bfloat16". Raises `SpecError`.
        """
        from tfdsl.build import find_target, load_backend, require_values, storing_of, values_of
        from tfdsl.weights import materialise

        backend = load_backend("torch")
        require_values(self.graph, find_target("torch"), weights is not None or seed is not None)
        values = values_of(self.graph, self._opened(weights), seed)
        graph, stored = (self.graph, None) if values is None else materialise(self.graph, values)
        return backend.make(graph, stored, storing_of(dtype).dtype)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        weights: Any = None,
        seed: int | None = None,
        dims: Mapping[str, int] | None = None,
        dtype: str = "float32",
        link: bool = False,
    ) -> None:
        """Write an ONNX model to `path`, with weights as for `to_torch`; `dims` fixes sizes. Raises `SpecError`.

        `dtype` and `link` are those of `build`.
        """
        from tfdsl.build import storing_of

        self._to_file("onnx", path, weights, seed, dims, storing_of(dtype, link))

    def to_openvino(
        self,
        path: str | os.PathLike[str],
        *,
        weights: Any = None,
        seed: int | None = None,
        dims: Mapping[str, int] | None = None,
        dtype: str = "float32",
        link: bool = False,
    ) -> None:
        """Write an OpenVINO model to `path` (an `.xml` file), with weights as for `to_torch`. Raises `SpecError`.

        `dtype` and `link` are those of `build`.
        """
        from tfdsl.build import storing_of

        self._to_file("openvino", path, weights, seed, dims, storing_of(dtype, link))

    def _to_file(
        self,
        target: str,
        path: str | os.PathLike[str],
        weights: Any,
        seed: int | None,
        dims: Mapping[str, int] | None,
        storing: Storing,
    ) -> None:
        from tfdsl.build import find_target, load_backend, require_values, values_of

        require_values(self.graph, find_target(target), weights is not None or seed is not None)
        backend = load_backend(target, to_run=False)
        values = values_of(self.graph, self._opened(weights), seed)
        backend.build(self.graph, values, path, dims=dict(dims or {}), storing=storing)

    def build(
        self,
        target: str,
        directory: str | os.PathLike[str],
        *,
        weights: Any = None,
        seed: int | None = None,
        dims: Mapping[str, int] | None = None,
        cache: bool = False,
        profile: str | None = None,
        logits: str | None = None,
        pipeline: str | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        longest: int | None = None,
        dtype: str = "float32",
        link: bool = False,
        report: BytesReport | None = None,
    ) -> Built:
        """Build for a target ("torch", "onnx", "openvino") into a folder. Raises `SpecError`.

        `weights` are as for `to_torch`. `dtype` is the element type of float weights, and of what is computed where the
        target has that; with `link`, an artifact refers to the bytes of a checkpoint wherever they are just those that
        it needs. `report` is called, as bytes are written, with those that are done and those that there will be.

        With `cache`, a decoder that remembers, which `tfm run` and `tfdsl.decoding` generate from; the settings after it
        are those of `tfdsl.build.Decoding`.
        """
        from tfdsl.build import build, decoding_of

        settings = {"profile": profile, "logits": logits, "pipeline": pipeline, "tokenizer": tokenizer}
        decoding = decoding_of(cache, **settings, longest=longest)
        values = self._opened(weights)
        storing: dict[str, Any] = {"dtype": dtype, "link": link, "report": report}
        return build(self.graph, target, directory, weights=values, seed=seed, dims=dims, decoding=decoding, **storing)

    def export(
        self, directory: str | os.PathLike[str], *, weights: Any, mapping: str | None = None
    ) -> tuple[Path, ...]:
        """Write `config.json` and `model.safetensors` in the naming of published checkpoints; the files that were written.

        `mapping` names the one to use where the model has several. Raises `SpecError`.
        """
        from tfdsl.checkpoints.exporting import export

        return export(self, weights, directory, mapping)

    def _opened(self, weights: Any) -> Any:
        """What was given as weights; the folder of a checkpoint as the weights in it."""
        if not isinstance(weights, (str, os.PathLike)) or not os.path.isdir(weights):
            return weights
        from tfdsl.checkpoints.reading import read_weights

        return read_weights(weights, self)

    def verify(
        self,
        targets: Sequence[str] | None = None,
        *,
        seed: int = 0,
        tolerance: float | None = None,
        dtype: str = "float32",
        batches: Sequence[int] = (),
        lengths: Sequence[int] = (),
        decode: bool = False,
        longest: int | None = None,
    ) -> Verdict:
        """Compare targets (all that are installed, if none are named) with the reference on random inputs.

        `dtype` is that of `build`; without a tolerance, it is that of the element type. `batches` and `lengths` are the
        sizes to try. `decode` compares the decoders of a causal model too: call by call, padded on the left, in all forms;
        `longest` is then that of `tfdsl.build.Decoding`.
        """
        from tfdsl.verify import verify

        options: dict[str, Any] = {"batches": batches, "lengths": lengths, "decode": decode, "longest": longest}
        return verify(self.graph, targets, seed=seed, tolerance=tolerance, dtype=dtype, **options)


def choose(module: Module, name: str | None) -> Declared:
    """The model of a file by name, or its only one that extends no other."""
    models = {declared.name: declared for declared in module.models()}
    shown = module.tree.source.name
    if name is not None:
        if name in models:
            return models[name]
        found = module.imported.get(name)
        if found is not None and modules.is_model(found):
            return found
        if name in module.own or found is not None:
            raise one("T315", f"`{name}` of `{shown}` is a block, and only models stand alone")
        help_ = did_you_mean(name, models, f"its models are {', '.join(models)}" if models else "it declares no model")
        raise one("T315", f"`{shown}` has no model `{name}`", help=help_)
    bases = [declared for declared in models.values() if isinstance(declared.item, syntax.Block)] or list(
        models.values()
    )
    if len(bases) == 1:
        return bases[0]
    if not models:
        raise one("T315", f"`{shown}` declares no model")
    candidates = [declared.name for declared in bases]
    raise one(
        "T315",
        f"`{shown}` has {len(candidates)} models to choose from",
        help="name one: " + ", ".join(f"{shown}:{candidate}" for candidate in candidates[:8]),
    )


def _from_text(name: str, text: str, module: Module) -> Override:
    source = Source(f"--set {name}", text)
    expression = parse_expression(source)
    return Override(expression, None, module, expression.span, "--set")


def _from_value(name: str, value: Any) -> Override:
    plain = _plain(value)
    if plain is _UNFIT:
        raise one(
            "T309",
            f"`{name}` cannot be {value!r}",
            help="numbers, strings, booleans, None and lists of them can be given",
        )
    return Override(None, plain, None, None, "given to load")


_UNFIT = object()


def _plain(value: Any) -> Any:
    """A Python value as a value of the language; NumPy's numbers count as numbers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = tuple(_plain(item) for item in value)
        return _UNFIT if any(item is _UNFIT for item in items) else items
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return _UNFIT


__all__ = ["Model", "choose", "load"]
