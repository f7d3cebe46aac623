"""The states of a decoder as `onnxruntime-genai` can hold them, and the configuration that it opens a folder by.

It holds keys and values in pairs [batch, heads, length, features] that grow, and a pair of states of fixed size that begin
as zeros. All else is laid side by side in one such pair: what grows position by position in one, what keeps its size in the
other. Its names for them go by number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from tfdsl.backends.onnx.artifact import all_nodes
from tfdsl.backends.onnx.decoder_builder import DecoderBuilder, End, Port
from tfdsl.decoding.manifest import MASK, POSITIONS, Manifest, broken
from tfdsl.decoding.tokenizers import Tokenizer
from tfdsl.ir.dims import Size, product
from tfdsl.ir.graph import Type

NAME = "onnxruntime-genai"
FILE = "genai_config.json"
_LONGEST = 131_072  # positions, where a model has no bound of its own
_LARGEST = 2**31 - 1  # the runtime reads whole numbers in 32 bits
_USUAL = 2048  # positions that room is made for, unless a caller asks for more


@dataclass(frozen=True)
class Cache:
    """The ends of all states, and what the runtime must know of them."""

    ends: tuple[End, ...]
    shared: bool  # whether keys and values lie in buffers of the full length
    layers: int
    heads: int
    features: int


def obstacle(manifest: Manifest, ports: Sequence[Port]) -> str:
    """Why the runtime's generator cannot run a decoder; "" where it can."""
    if manifest.encoder is not None:
        return "it has an encoder"
    tokens = manifest.inputs[manifest.tokens]
    if tokens.dtype != "int" or len(tokens.dims) != 2:
        return f"`{manifest.tokens}` is not `int[batch, seq]`"
    if manifest.vocab is None:
        return f"`{manifest.logits}` has no number of tokens"
    others = [name for name in manifest.inputs if name not in (manifest.tokens, MASK, POSITIONS)]
    if others:
        return f"it has another input, `{others[0]}`"
    for port in ports:
        state = port.state
        dims = list(state.type.dims)
        batch = dims.pop(0)
        if state.axis is not None and (state.last is None):
            dims.pop(state.axis - 1)
        if state.type.dtype != "float":
            return f"the state `{state.path}` has whole numbers"
        if isinstance(batch, int) or state.axis == 0 or not all(isinstance(dim, int) for dim in dims):
            return f"the state `{state.path}` has sizes besides the batch and the length that differ"
        if state.last is not None and state.last != state.fill:
            return f"the state `{state.path}` forgets"
    return ""


def cache(b: DecoderBuilder) -> Cache:
    """Lay out all states; what is laid side by side is taken apart and joined in the graph."""
    buffers = [port for port in b.ports.values() if port.shared]
    growing = [p for p in b.ports.values() if not p.shared and p.state.axis is not None and p.state.last is None]
    fixed = [port for port in b.ports.values() if not port.shared and port not in growing]
    layout = _Layout(b)
    for place in range(0, len(buffers), 2):
        layout.pair(place // 2, buffers[place : place + 2])
    layers = len(buffers) // 2
    if growing:
        layout.side_by_side(growing, layers)
    if fixed:
        layout.packed(fixed, layers + bool(growing))
    layout.finish()
    _, heads, _, features = layout.ends[0].type.dims if buffers or growing else (0, 1, 0, 1)
    assert isinstance(heads, int) and isinstance(features, int)
    return Cache(tuple(layout.ends), bool(buffers) and not growing, layers + bool(growing), heads, features)


class _Layout:
    """The nodes before and after those of a decoder, and the ends that they are between."""

    def __init__(self, b: DecoderBuilder):
        self._b = b
        self._inside = b.nodes
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        self._renamed: dict[str, str] = {}
        self.ends: list[End] = []

    def pair(self, layer: int, ports: Sequence[Port]) -> None:
        """Keys and values as they are, under the runtime's names."""
        for kind, port in zip(_PAIR, ports, strict=True):
            past, present = _names(layer, kind)
            self._renamed[port.past] = past
            self.ends.append(End(past, present, port.present, port.state.type, 2, True))

    def side_by_side(self, ports: Sequence[Port], layer: int) -> None:
        """What grows, its features for each position one after another: the first half as keys, the other as values."""
        b = self._b
        counts = [_features(port) for port in ports]
        half = (sum(counts) + 1) // 2
        spare = 2 * half - sum(counts)
        (key, present_key), (value, present_value) = (_names(layer, kind) for kind in _PAIR)
        with self._part(self._before):
            whole = b.emit("Squeeze", b.emit("Concat", key, value, axis=3), b.ints(1))
            sizes = [*counts, *([spare] if spare else [])]
            parts = b.emit_all("Split", len(sizes), whole, b.ints(*sizes), axis=2)
            for port, part in zip(ports, parts, strict=False):
                self._renamed[port.past] = _grown(b, port, part)
        with self._part(self._after):
            rows = [_by_position(b, port) for port in ports]
            joined = b.emit("Concat", *rows, axis=2)
            if spare:
                joined = b.emit("Pad", joined, b.ints(0, 0, 0, 0, 0, 1))
            halves = b.emit_all("Split", 2, b.emit("Unsqueeze", joined, b.ints(1)), axis=3, num_outputs=2)
        state = ports[0].state
        type_ = Type("float", (state.type.dims[0], 1, state.type.dims[state.axis or 0], half))
        self.ends.append(End(key, present_key, halves[0], type_, 2, False))
        self.ends.append(End(value, present_value, halves[1], type_, 2, False))

    def packed(self, ports: Sequence[Port], layer: int) -> None:
        """What keeps its size, in one row. The runtime gives past and present one buffer, and `Split` copies."""
        b = self._b
        counts = [int(product(port.state.type.dims[1:])) for port in ports]  # type: ignore[arg-type]
        (past, present), (dummy, dummy_present) = (_names(layer, kind) for kind in _STATES)
        with self._part(self._before):
            parts = b.emit_all("Split", len(ports) + 1, past, b.ints(*counts, 1), axis=3)
            for port, part in zip(ports, parts, strict=False):
                self._renamed[port.past] = b.emit("Reshape", part, b.ints(0, *_numbers(port.state.type.dims[1:])))
        with self._part(self._after):
            rows = [b.emit("Reshape", port.present, b.ints(0, 1, 1, -1)) for port in ports]
            joined = b.emit("Concat", *rows, parts[-1], axis=3)
        batch = ports[0].state.type.dims[0]
        self.ends.append(End(dummy, dummy_present, dummy, Type("float", (batch, 1, 1)), None, False))
        self.ends.append(End(past, present, joined, Type("float", (batch, 1, 1, sum(counts) + 1)), None, False))

    def finish(self) -> None:
        """Put the parts of the graph together."""
        for node in all_nodes((*self._inside, *self._after)):
            for place, name in enumerate(node.input):
                if name in self._renamed:
                    node.input[place] = self._renamed[name]
        self.ends = [replace(end, value=self._renamed.get(end.value, end.value)) for end in self.ends]
        self._b.nodes = [*self._before, *self._inside, *self._after]

    @contextmanager
    def _part(self, nodes: list[onnx.NodeProto]) -> Iterator[None]:
        """Add to a part of the graph."""
        self._b.nodes = nodes
        with self._b.within("/states"):
            yield


_PAIR, _STATES = ("key", "value"), ("recurrent_state", "conv_state")


def _names(layer: int, kind: str) -> tuple[str, str]:
    return f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"


def _numbers(dims: Sequence[Size]) -> tuple[int, ...]:
    """Sizes that are numbers."""
    return tuple(dim for dim in dims if isinstance(dim, int))


def _features(port: Port) -> int:
    """How many numbers a state has for each position."""
    return math.prod(_numbers(port.state.type.dims[1:]))


def _by_position(b: DecoderBuilder, port: Port) -> str:
    """What a state is after a call, as [batch, length, features]."""
    dims, axis = port.state.type.dims, port.state.axis or 0
    order = (0, axis, *(each for each in range(1, len(dims)) if each != axis))
    turned = port.present if axis == 1 else b.emit("Transpose", port.present, perm=order)
    return turned if len(dims) == 3 else b.emit("Reshape", turned, b.ints(0, 0, _features(port)))


def _grown(b: DecoderBuilder, port: Port, part: str) -> str:
    """A state before a call, from [batch, length, features]."""
    dims, axis = port.state.type.dims, port.state.axis or 0
    order = (0, *range(2, axis + 1), 1, *range(axis + 1, len(dims)))
    if len(dims) != 3:
        part = b.emit("Reshape", part, b.ints(0, 0, *_numbers(dims[1:])))
    return part if axis == 1 else b.emit("Transpose", part, perm=order)


def configuration(manifest: Manifest, cache: Cache, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """`genai_config.json`. `intra_op_num_threads` of 0 is all cores: the runtime's own choice is half of them."""
    longest = min(manifest.longest or _LONGEST, _LARGEST)
    special = _special(tokenizer)
    decoder = {
        "session_options": {"intra_op_num_threads": 0},
        "filename": manifest.decoder,
        "num_hidden_layers": cache.layers,
        "num_attention_heads": cache.heads,
        "num_key_value_heads": cache.heads,
        "head_size": cache.features,
        "hidden_size": cache.heads * cache.features,
        "inputs": {
            "input_ids": manifest.tokens,
            "attention_mask": MASK,
            "position_ids": POSITIONS,
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": manifest.logits,
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {"type": "decoder", "vocab_size": manifest.vocab, "context_length": longest, **special, "decoder": decoder}
    search = {
        "do_sample": False,
        "max_length": min(longest, _USUAL),
        "num_beams": 1,
        "past_present_share_buffer": cache.shared,
    }
    return {"model": model, "search": search}


def _special(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The tokens that end, begin and pad a text.

    The runtime always has a token that ends a text (that of padding, or 0, if it is told none), so it is told which.
    """
    known = tokenizer or Tokenizer("")
    ends = list(known.eos) or [0]
    begin = {} if known.bos is None else {"bos_token_id": known.bos}
    return {"eos_token_id": ends, **begin, "pad_token_id": ends[0] if known.pad is None else known.pad}


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the configuration into a folder."""
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def ends_of(folder: Path) -> tuple[int, ...]:
    """The tokens that end a text in the runtime, whatever it is asked for."""
    try:
        return tuple(json.loads((folder / FILE).read_bytes())["model"]["eos_token_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise broken(folder / FILE, f"cannot be read: {error}") from None
