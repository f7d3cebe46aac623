"""Decoders: stateful models that the CPU plugin runs call by call, and that openvino-genai opens where it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset16

from tfdsl.backends.openvino import decoder_attention, stateful
from tfdsl.backends.openvino.artifact import lower, model_of
from tfdsl.backends.openvino.builder import Builder
from tfdsl.backends.openvino.lowerings import LOWERINGS
from tfdsl.backends.openvino.parameters import add_parameters, ranges
from tfdsl.backends.prepare import bits_by_path
from tfdsl.ir.graph import Graph
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import incremental
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import materialise

Array = npt.NDArray[Any]


def make_decoder(graph: Graph, weights: Mapping[str, Array]) -> openvino.Model:
    """The stateful model of an incremental graph. Raises `SpecError`."""
    limits = ranges(graph, {})
    flat = lower_masks(unroll(graph), decoder_attention.stays)
    flat, _ = clean(lower_linear_attention(flat))
    bits = bits_by_path(flat)
    flat, stored = materialise(flat, weights)
    builder = Builder(flat, stored, bits)
    add_parameters(builder, limits)
    stateful.begin(builder, flat.node(flat.inputs[0]).type.dims[0])
    found = lower(builder, {**LOWERINGS, "attend": decoder_attention.attend})
    return model_of(builder, found)
