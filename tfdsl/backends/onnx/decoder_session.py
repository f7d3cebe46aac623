"""Decoding with ONNX Runtime: a session that hands each call the states that the last one left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from tfdsl.backends.onnx.decoder_builder import STATES
from tfdsl.backends.onnx.runtime import DTYPES, opened
from tfdsl.decoding.manifest import MASK, broken, read_manifest
from tfdsl.ir.dims import evaluate
from tfdsl.ir.text_cursor import Cursor
from tfdsl.language.diagnostics import Source, one

Array = npt.NDArray[Any]

# What the runtime raises for files that it cannot make a session of; they have no common class but `Exception`.
_REFUSALS = (
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoSuchFile,
    faults.NotImplemented,
    faults.RuntimeException,
)
_CAPACITY = 256  # positions that a buffer has room for at first


def decoder_session(folder: Path) -> OnnxSession:
    """A session with the decoder in a folder. Raises `SpecError`."""
    manifest = read_manifest(folder)
    encoder = None if manifest.encoder is None else folder / manifest.encoder
    return OnnxSession(folder / manifest.decoder, encoder)


class OnnxSession:
    """A decoder, its encoder if it has one, and the states between calls."""

    def __init__(self, decoder: Path, encoder: Path | None = None):
        self._decoder = _opened(decoder)
        self._encoder = None if encoder is None else _opened(encoder)
        kept = self._decoder.get_modelmeta().custom_metadata_map.get(STATES)
        if kept is None:
            raise broken(decoder, "is a model without the states of a decoder")
        self._states = json.loads(kept)
        remembered = {state["past"] for state in self._states}
        self._inputs = {e.name: e for e in self._decoder.get_inputs() if e.name not in remembered}
        self._types = {each.name: DTYPES[each.type] for each in self._decoder.get_inputs()}
        presents = {state["present"] for state in self._states}
        self._outputs = [e.name for e in self._decoder.get_outputs() if e.name not in presents]
        self._given: dict[str, Array] = {}
        self._values: dict[str, Any] = {}  # of states that are handed over, by the names of the inputs
        self._buffers: dict[str, Array] = {}  # of states that are buffers
        self._length = 0

    def reset(self) -> None:
        """Forget all calls."""
        self._values, self._buffers, self._length = {}, {}, 0

    def encode(self, inputs: Mapping[str, Array]) -> None:
        """Run the encoder; its outputs are inputs of every step."""
        if self._encoder is None:
            raise one("T741", "this decoder has no encoder")
        names = [each.name for each in self._encoder.get_outputs()]
        feeds: dict[str, Array] = {
            each.name: np.asarray(inputs[each.name]).astype(DTYPES[each.type], copy=False)
            for each in self._encoder.get_inputs()
        }
        self._given = dict(zip(names, self._encoder.run(names, feeds), strict=True))

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call of the decoder; the outputs by name."""
        given = {**self._given, **inputs}
        arrays: dict[str, Array] = {
            name: np.ascontiguousarray(np.asarray(given[name]).astype(self._types[name], copy=False))
            for name in self._inputs
        }
        binding = self._decoder.io_binding()
        for name, array in arrays.items():
            _bind(binding.bind_input, name, array)
        if any(state["shared"] for state in self._states):
            self._make_room(arrays)
        for state in self._states:
            self._bind(binding, state, arrays)
        for name in self._outputs:
            binding.bind_output(name)
        self._decoder.run_with_iobinding(binding)
        self._length = arrays[MASK].shape[1] if MASK in arrays else 0
        results = dict(zip(self._bound(), binding.get_outputs(), strict=True))
        for state in self._states:
            if not state["shared"]:
                self._values[state["past"]] = results[state["present"]]
        return {name: results[name].numpy() for name in self._outputs}

    def _bound(self) -> list[str]:
        """The outputs in the order in which they are bound."""
        return [*(state["present"] for state in self._states), *self._outputs]

    def _bind(self, binding: Any, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        past, present = state["past"], state["present"]
        if state["shared"]:
            _bind(binding.bind_input, past, self._buffers[past])
            _bind(binding.bind_output, present, self._buffers[past])
            return
        if past not in self._values:
            empty: Array = np.zeros(self._dims(state, arrays), self._types[past])
            self._values[past] = onnxruntime.OrtValue.ortvalue_from_numpy(empty)
        binding.bind_ortvalue_input(past, self._values[past])
        binding.bind_output(present)

    def _make_room(self, arrays: Mapping[str, Array]) -> None:
        """Let the buffers hold what there will be after this call; they grow by doubling."""
        total = arrays[MASK].shape[1]
        for state in self._states:
            if not state["shared"]:
                continue
            axis, before = state["axis"], self._buffers.get(state["past"])
            if before is not None and before.shape[axis] >= total:
                continue
            dims = list(self._dims(state, arrays))
            dims[axis] = max(_CAPACITY, 1 << (total - 1).bit_length())
            after: Array = np.zeros(dims, self._types[state["past"]])
            if before is not None:
                filled = (*(slice(None),) * axis, slice(self._length))
                after[filled] = before[filled]
            self._buffers[state["past"]] = after

    def _dims(self, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[int, ...]:
        """The sizes of a state before the first call."""
        sizes = {
            name: size
            for each in self._inputs.values()
            for name, size in zip(each.shape, arrays[each.name].shape, strict=True)
        }
        return tuple(evaluate(Cursor(Source("a size", str(dim))).size(), sizes) for dim in state["dims"])


def _opened(path: Path) -> Any:
    """ONNX Runtime's session with a file. Raises `SpecError` for one that is not as it was built."""
    try:
        return opened(path)
    except _REFUSALS as error:
        raise broken(path, f"cannot be opened: {str(error).strip().splitlines()[0]}") from None


def _bind(bind: Any, name: str, array: Array) -> None:
    """Bind an array where it lies."""
    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
