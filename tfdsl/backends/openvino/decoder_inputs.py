"""What a decoder makes of its inputs before anything reads them, so that no generator goes on with what it does not see."""

from __future__ import annotations

from tfdsl.backends.openvino import sizes
from tfdsl.backends.openvino.builder import Builder, Operand
from tfdsl.backends.openvino.lowerings import Lowering
from tfdsl.decoding.manifest import MASK, POSITIONS
from tfdsl.ir.graph import Graph
from tfdsl.ir.limits import limits
from tfdsl.ir.op import Attributes


def inputs_of(graph: Graph, unpadded: str | None) -> Lowering:
    """How the inputs of an incremental graph are read: the one called `unpadded` without padding, positions within bounds.

    Paged attention must not take the place of an attention whose mask or state it would drop, but generators try it on
    every model. It fails where a model needs the mask elsewhere, which clearing padding does, and changes nothing else.
    """
    types = {node.attributes["name"]: node.type for node in map(graph.node, graph.inputs)}
    longest = limits(graph).get(str(types[MASK].dims[1])) if MASK in types else None

    def lowering(b: Builder, a: Attributes) -> Operand:
        given = b.parameters[a.name].output(0)
        if a.name == unpadded and b.node is not None:
            mask = b.parameters[MASK].output(0)
            count = b.emit("negative", sizes.size(b, b.node.type.dims[1]))
            new = b.emit("slice", mask, count, b.ints(2**63 - 1), b.ints(1), b.ints(1))
            return b.emit("multiply", given, new)
        return given if a.name != POSITIONS or longest is None else _bounded(b, given, longest)

    return lowering


def _bounded(b: Builder, positions: Operand, longest: int) -> Operand:
    """Positions, if all are less than `longest`: else the call fails, as two numbers cannot be added to three.

    openvino-genai has no setting for the length of a context, and would go on with wrong numbers.
    """
    with b.within(f"at most {longest} positions"):  # what the failure names
        last = b.emit("reduce_max", positions, b.ints(0, 1), keep_dims=False)
        beyond = b.emit("convert", b.emit("greater_equal", last, b.scalar(longest, "int")), destination_type="i64")
        count = b.emit("add", beyond, b.scalar(1, "int"))  # 1, or 2 where a position is too far
        zero, step = b.scalar(0, "int"), b.scalar(1, "int")
        zeros = b.emit("add", b.emit("range", zero, count, step, output_type="i64"), b.ints(0, 0, 0))
        return b.emit("add", positions, b.emit("reduce_max", zeros, b.ints(0), keep_dims=False))
