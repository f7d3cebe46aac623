"""Sums that a root-mean-square normalisation reads, as one operator of ONNX Runtime's own that gives both."""

from __future__ import annotations

import onnx
from onnx import helper

from tfdsl.backends.onnx.decoder_builder import CONTRIBUTED, DecoderBuilder

FUSED = "SkipSimplifiedLayerNormalization"  # reads the summands and a scale; the fourth result is the sum


def fuse_skip_norms(b: DecoderBuilder) -> None:
    """Put the operator for both in the place of each sum whose normalisation can be had as soon as it is."""
    made = {result: place for place, node in enumerate(b.nodes) for result in node.output}
    sums = {node.output[0]: place for place, node in enumerate(b.nodes) if node.op_type == "Add"}
    dropped = set()
    for place, norm in enumerate(b.nodes):
        if norm.op_type != "RMSNormalization" or norm.input[0] not in sums:
            continue
        at = sums[norm.input[0]]
        if made.get(norm.input[1], -1) < at and _alike(b, b.nodes[at]):
            del sums[norm.input[0]]  # it gives one normalisation
            dropped.add(place)
            b.nodes[at] = _fused(b.nodes[at], norm)
    b.nodes = [node for place, node in enumerate(b.nodes) if place not in dropped]


def _alike(b: DecoderBuilder, total: onnx.NodeProto) -> bool:
    """Whether the summands have the shape of their sum, [batch, positions, features]."""
    types = [b.types.get(name) for name in (*total.input, *total.output)]
    return types[0] is not None and len(types[0].dims) == 3 and types[0].dtype == "float" and len(set(types)) == 1


def _fused(total: onnx.NodeProto, norm: onnx.NodeProto) -> onnx.NodeProto:
    settings = {each.name: helper.get_attribute_value(each) for each in norm.attribute}
    return helper.make_node(
        FUSED,
        [*total.input, norm.input[1]],
        [norm.output[0], "", "", total.output[0]],
        name=norm.name,
        domain=CONTRIBUTED,
        epsilon=settings["epsilon"],
    )
