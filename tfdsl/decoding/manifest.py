"""`decoder.json`: what a folder with a decoder holds, for whoever opens it. Written by builds, read by sessions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Type
from tfdsl.ir.limits import limits
from tfdsl.ir.states import states
from tfdsl.language.diagnostics import SpecError, one

FILE = "decoder.json"
FORMAT = 1
MASK, POSITIONS = "attention_mask", "position_ids"
TARGETS = ("torch", "onnx", "openvino")


@dataclass(frozen=True)
class Argument:
    """The type of an input or state: "float", "int" or "bool", and its axes as numbers and as names or expressions."""

    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Kept:
    """A state: its path, its type before a call, the axis along which it grows, and how much of it is kept at most."""

    path: str
    dtype: str
    dims: tuple[int | str, ...]
    axis: int | None
    fill: int
    last: int | None


@dataclass(frozen=True)
class Manifest:
    """What `decoder.json` says.

    `inputs` are those that a step takes, by their names in the incremental graph (`tokens` is the one that is decoded,
    with `attention_mask` and `position_ids` as far as the graph reads them); `encoder_inputs` those of the encoder.
    `logits` is the output to choose tokens from, for the last position only, or for `all`; `vocab` is None for a model
    that chooses none. `limits` are the largest
    sizes that the model allows, by name. `files` maps what else a target needs to know of its files to their names.
    `pipelines` says of each runtime's own generator why it cannot run the folder, or "" where it can. `eos` are the
    tokens that end a text, and `start` is the one that an encoder-decoder begins with, as the tokenizer's files tell.
    """

    target: str
    model: str
    tokens: str
    logits: str
    decoder: str
    encoder: str | None = None
    profile: str | None = None
    all_logits: bool = False
    vocab: int | None = None
    inputs: Mapping[str, Argument] = field(default_factory=dict)
    encoder_inputs: Mapping[str, Argument] = field(default_factory=dict)
    states: tuple[Kept, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    pipelines: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    eos: tuple[int, ...] = ()
    start: int | None = None

    @property
    def longest(self) -> int | None:
        """How many positions a row may come to, prompt and new tokens together; None where there is no bound."""
        return self.limits.get(str(self.inputs[MASK].dims[1])) if MASK in self.inputs else None


def describe(
    decoder: Graph,
    *,
    target: str,
    file: str,
    tokens: str,
    encoder: Graph | None = None,
    encoder_file: str | None = None,
    given: tuple[str, ...] = (),
    profile: str | None = None,
    all_logits: bool = False,
    files: Mapping[str, str] | None = None,
    pipelines: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of an incremental graph, and of its encoder, whose outputs `given` are inputs of the decoder."""
    signature = _signature(decoder)
    return Manifest(
        target=target,
        model=decoder.name,
        tokens=tokens,
        logits=decoder.outputs[0][0],
        decoder=file,
        encoder=encoder_file,
        profile=profile,
        all_logits=all_logits,
        vocab=vocabulary_of(decoder),
        inputs={name: each for name, each in signature.items() if name not in given},
        encoder_inputs={} if encoder is None else _signature(encoder),
        states=tuple(
            Kept(path, each.type.dtype, _dims(each.type), each.axis, each.fill, each.last)
            for each in states(decoder)
            for path in each.paths
        ),
        limits=limits(decoder, *([] if encoder is None else [encoder])),
        files=files or {},
        pipelines=pipelines or {},
    )


def tokens_of(decoder: Graph) -> str:
    """The input of an incremental graph that is decoded: the first of tokens, `int[batch, seq]`, or of anything else."""
    signature = {node.attributes["name"]: node.type for node in map(decoder.node, decoder.inputs)}
    new = signature[POSITIONS].dims[1:] if POSITIONS in signature else None
    moving = [name for name, type_ in signature.items() if new in (None, type_.dims[1:2])]
    moving = [name for name in moving if name not in (MASK, POSITIONS)]
    tokens = [name for name in moving if signature[name].dtype == "int" and len(signature[name].dims) == 2]
    if not moving:
        raise one("T741", f"`{decoder.name}` has no input with positions to decode")
    return (tokens or moving)[0]


def vocabulary_of(decoder: Graph) -> int | None:
    """How many tokens there are to choose from: the last axis of an output `[batch, seq, vocab]`, None without one."""
    type_ = decoder.type(decoder.outputs[0][1])
    size = type_.dims[-1]
    return size if type_.dtype == "float" and len(type_.dims) == 3 and isinstance(size, int) else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `decoder.json` into a folder."""
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `decoder.json` from a folder. Raises `SpecError` for a folder without one, and for a broken one."""
    path = folder / FILE
    if not folder.is_dir():
        raise one("T742", f"there is no folder `{folder}`")
    if not path.is_file():
        help_ = "`tfm build ... --cache -o DIR` makes one"
        raise one("T742", f"`{folder}` holds no decoder: it has no `{FILE}`", help=help_)
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise broken(path, f"cannot be read: {error}") from None
    return _parsed(path, document)


def _parsed(path: Path, document: Any) -> Manifest:
    if not isinstance(document, dict):
        raise broken(path, "is no JSON object")
    if document.get("format") != FORMAT:
        raise broken(path, f"is of format {document.get('format')!r}, and this version reads format {FORMAT}")
    if document.get("target") not in TARGETS:
        raise broken(path, f"is for the target {document.get('target')!r}, which is none")
    try:
        manifest = _manifest(document)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise broken(path, f"lacks a field or has one of the wrong kind: {error}") from None
    for name in (manifest.decoder, manifest.encoder):
        if name is not None and not (path.parent / name).is_file():
            raise broken(path, f"names the file `{name}`, which is not there")
    return manifest


def _manifest(document: Mapping[str, Any]) -> Manifest:
    """The document as a manifest; raises whatever a wrong kind of value raises."""
    plain = {name: value for name, value in document.items() if name != "format"}
    for name in ("model", "tokens", "logits", "decoder"):
        _is(plain[name], str, name)
    for name in ("encoder", "profile", "tokenizer"):
        _is(plain.get(name), (str, type(None)), name)
    for name in ("start", "vocab"):
        _is(plain.get(name), (int, type(None)), name)
    for name in ("decoder", "encoder"):
        if plain.get(name) is not None and Path(plain[name]).name != plain[name]:
            raise ValueError(f"`{name}` is no file of the folder itself")
    _is(plain.get("all_logits", False), bool, "all_logits")
    for name in ("inputs", "encoder_inputs"):
        given = _is(plain.get(name, {}), dict, name)
        plain[name] = {key: Argument(**_typed(each)) for key, each in given.items()}
    if plain["tokens"] not in plain["inputs"]:
        raise ValueError("the tokens are not among the inputs")
    if MASK in plain["inputs"] and len(plain["inputs"][MASK].dims) != 2:
        raise ValueError(f"`{MASK}` has two axes")
    plain["states"] = tuple(Kept(**_typed(each)) for each in plain.get("states", ()))
    plain["eos"] = tuple(_is(each, int, "eos") for each in plain.get("eos", ()))
    for name, kind in (("limits", int), ("files", str), ("pipelines", str)):
        for value in _is(plain.get(name, {}), dict, name).values():
            _is(value, kind, name)
    return Manifest(**plain)


def _typed(document: Any) -> dict[str, Any]:
    """What is said of a tensor, with its axes as a tuple."""
    fields = dict(_is(document, dict, "a tensor"))
    if fields["dtype"] not in ("float", "int", "bool"):
        raise ValueError(f"there is no element type {fields['dtype']!r}")
    dims = tuple(_is(each, (int, str), "dims") for each in _is(fields["dims"], (list, tuple), "dims"))
    return {**fields, "dims": dims}


def _is(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` cannot be {value!r}")
    return value


def broken(path: Path, what: str) -> SpecError:
    """What is said of a file of a decoder that is not as it was built."""
    return one("T743", f"`{path}` {what}", help="build the folder again")


def _signature(graph: Graph) -> dict[str, Argument]:
    nodes = [graph.node(place) for place in graph.inputs]
    return {node.attributes["name"]: Argument(node.type.dtype, _dims(node.type)) for node in nodes}


def _dims(type_: Type) -> tuple[int | str, ...]:
    return tuple(str(size) if isinstance(size, Dim) else size for size in type_.dims)
