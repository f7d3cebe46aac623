"""Running a decoder on the CPU plugin call by call, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset16

from tfdsl.backends.openvino.runtime import Session, compile_model, session
from tfdsl.backends.openvino.stateful import ROWS
from tfdsl.decoding.manifest import MASK, read_manifest
from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]

_BY_POSITION = {"MatMul", "Add", "Subtract", "Multiply", "Divide", "Tanh", "Convert"}
_RANK = 3  # of logits: batch, positions, vocabulary


def decoder_session(folder: Path) -> StatefulSession:
    """A session with the decoder in a folder. Raises `SpecError`."""
    manifest = read_manifest(folder)
    core = openvino.Core()
    model = _read(core, folder / manifest.decoder)
    if not manifest.all_logits:
        _last_only(model)
    encoder = None if manifest.encoder is None else session(folder / manifest.encoder)
    return StatefulSession(compile_model(core, model), manifest.tokens, manifest.logits, encoder)


class StatefulSession:
    """A compiled decoder; what pipelines call `input_ids` and `logits` has the names of the graph again."""

    def __init__(self, compiled: openvino.CompiledModel, tokens: str, logits: str, encoder: Session | None = None):
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = {port.get_any_name(): port.get_element_type().to_dtype() for port in compiled.inputs}
        self._outputs = {port.get_any_name(): port for port in compiled.outputs}
        self._tokens = {"input_ids": tokens} if tokens not in self._inputs else {}
        self._logits = {"logits": logits} if logits not in self._outputs else {}
        self._encoder = encoder
        self._given: Mapping[str, Array] = {}

    def reset(self) -> None:
        """Forget all calls."""
        self._request.reset_state()

    def encode(self, inputs: Mapping[str, Array]) -> None:
        """Run the encoder; its outputs are inputs of every step."""
        if self._encoder is None:
            raise one("T741", "this decoder has no encoder")
        self._given = self._encoder(inputs)

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call: outputs by name."""
        rows = {ROWS: np.arange(len(inputs[MASK]))}
        given = {**self._given, **inputs, **rows}
        feeds = {
            name: np.asarray(given[self._tokens.get(name, name)]).astype(dtype, copy=False)
            for name, dtype in self._inputs.items()
        }
        found = self._request.infer(feeds)
        return {self._logits.get(name, name): np.array(found[port]) for name, port in self._outputs.items()}


def _read(core: openvino.Core, path: Path) -> openvino.Model:
    try:
        return core.read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise one("T703", f"OpenVINO cannot open `{path}`: {reason}", help="build the folder again") from None


def _last_only(model: openvino.Model) -> None:
    """Let a model compute its first output for the last position only, as generators do with the models they open.

    The positions before are cut where the output layer begins, or at the output itself where that is not clear.
    """
    place = model.get_results()[0].input(0)
    while (above := _above(place)) is not None:
        place = above
        if place.get_node().get_type_name() == "MatMul":
            break
    source = place.get_source_output()
    one_, last = (openvino.op.Constant(np.array([number], dtype=np.int64)) for number in (1, -1))
    end = openvino.op.Constant(np.array([2**63 - 1], dtype=np.int64))
    place.replace_source_output(opset16.slice(source, last, end, one_, one_).output(0))
    model.validate_nodes_and_infer_types()


def _above(place: openvino.Input) -> openvino.Input | None:
    """Where the node that is read here reads positions itself, if it treats each alone and serves nobody else."""
    node = place.get_source_output().get_node()
    if node.get_type_name() not in _BY_POSITION or len(node.output(0).get_target_inputs()) > 1:
        return None
    reading = [each for each in node.inputs() if each.get_partial_shape().rank.get_length() == _RANK]
    return reading[0] if len(reading) == 1 else None
