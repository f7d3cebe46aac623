"""Decoders as PyTorch modules: source with a cache, with the parameters of the module that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.backends.torch.emit import emit_named
from tfdsl.backends.torch.names import sanitised
from tfdsl.backends.torch.sights import tidied
from tfdsl.decoding.manifest import (
    MASK,
    POSITIONS,
    Argument,
    Manifest,
    broken,
    describe,
    read_manifest,
    tokens_of,
    write_manifest,
)
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import one
from tfdsl.passes.incremental import incremental

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from tfdsl.decoding.tokenizers import Tokenizer
    from tfdsl.weights.storing import Storing

    Array = npt.NDArray[Any]

FILE, WEIGHTS = "model.py", "model.safetensors"


def build_decoder(
    graph: Graph,
    weights: Mapping[str, Array] | None,
    folder: Path,
    *,
    logits: str = "last",
    tokenizer: Tokenizer | None = None,
    storing: Storing | None = None,
) -> None:
    """Write the decoder of a model into a folder, as source and, with weights, their file. Raises `SpecError`."""
    graph = decoder_graph(graph, logits)
    manifest = describe(graph, target="torch", file=FILE, tokens=tokens_of(graph), all_logits=logits == "all")
    if weights is not None:
        from tfdsl.backends.torch.storage import write
        from tfdsl.weights import materialise

        graph, stored = materialise(graph, weights)
        write(folder / WEIGHTS, graph, stored, storing)
    source, name = emit_named(graph)
    (folder / FILE).write_text(source, encoding="utf-8")
    files = {"class": name, **({} if weights is None else {"weights": WEIGHTS})}
    write_manifest(folder, replace(_apart(manifest), files=files))


def decoder_graph(graph: Graph, logits: str = "last") -> Graph:
    """The graph of one call, with its loops, and without what decoding has no use for."""
    return tidied(incremental(graph, logits=logits, windows="kept"))


def _apart(manifest: Manifest) -> Manifest:
    """The manifest with the inputs that go in once, and not step by step, as those of an encoder."""
    stepwise = {dim for name in (MASK, POSITIONS) for dim in manifest.inputs[name].dims[1:]}

    def once(argument: Argument) -> bool:
        return stepwise.isdisjoint(argument.dims)

    inputs = {name: each for name, each in manifest.inputs.items() if not once(each)}
    return replace(
        manifest, inputs=inputs, encoder_inputs={name: each for name, each in manifest.inputs.items() if once(each)}
    )


class TorchSession:
    """A decoder that was built into a folder, opened."""

    def __init__(self, folder: Path):
        self.manifest = read_manifest(folder)
        self.model = _opened(folder, self.manifest)
        self._given: dict[str, Array] = {}

    def reset(self) -> None:
        """Forget all calls, and what goes in once."""
        self.model.reset()  # type: ignore[operator]

    def encode(self, inputs: Mapping[str, Array]) -> None:
        """Take what goes in once: the first step computes what follows from it, and the model keeps that."""
        self.model.reset()  # type: ignore[operator]
        self._given = dict(inputs)

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one call by name."""
        import torch

        type_ = next((each.dtype for each in self.model.parameters()), torch.float32)
        tensors = {sanitised(name): torch.from_numpy(array) for name, array in {**self._given, **inputs}.items()}
        tensors = {name: each.to(type_) if each.is_floating_point() else each for name, each in tensors.items()}
        with torch.inference_mode():
            return {self.manifest.logits: self.model(**tensors).float().numpy()}


def decoder_session(folder: Path) -> TorchSession:
    """A session with the decoder in a folder. Raises `SpecError`."""
    return TorchSession(folder)


def _opened(folder: Path, manifest: Manifest) -> torch.nn.Module:
    """The module of a folder, with its weights in it."""
    import torch

    from tfdsl.backends.torch import import_source
    from tfdsl.weights.files import WeightFile, contents

    if "weights" not in manifest.files:
        message = f"`{folder}` holds a decoder without weights"
        raise one("T711", message, help="build it with --weights FILE or --seed N")
    path = folder / manifest.decoder
    with torch.device("meta"):
        try:
            module = import_source(path.stem, path.read_text(encoding="utf-8"))
            model: torch.nn.Module = getattr(module, manifest.files["class"])()
        except (SyntaxError, UnicodeDecodeError, AttributeError, NameError) as error:
            raise broken(path, f"is not as it was built: {error}") from None
    file = folder / manifest.files["weights"]
    stored = WeightFile(file, contents(file))
    state = {name: _tensor(stored.raw(name), stored.dtype(name)) for name in stored}
    model.load_state_dict(state, strict=True, assign=True)
    if all(each.dtype == torch.float32 for each in model.parameters()):
        model.arrange()  # type: ignore[operator]
    return model.eval()


def _tensor(array: Array, dtype: str) -> torch.Tensor:
    """A stored tensor in memory of its own."""
    import numpy
    import torch

    made = torch.from_numpy(numpy.array(array))
    return made.view(torch.bfloat16) if dtype == "BF16" else made
