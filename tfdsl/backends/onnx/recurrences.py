"""`scan` as ONNX's Scan: the step is a graph inside the operator, which reads weights and captured values by name."""

from __future__ import annotations

from onnx import helper

from tfdsl.backends.onnx.builder import Builder
from tfdsl.backends.onnx.precision import WIDE
from tfdsl.ir.graph import Value
from tfdsl.ir.op import Attributes


def scan(b: Builder, a: Attributes, *operands: str) -> tuple[str, ...]:
    """The last states and the stacked results; a step computes in float32, since states add up."""
    from tfdsl.backends.onnx.artifact import end, lower

    node = b.node
    assert node is not None
    body, changing = node.bodies[0], a.carried + a.scanned
    # The runtime fuses products with quantised weights, and looks for those beside the product only.
    with b.reading(body):
        given = lower(b, computed=WIDE, only=("weight", "dequantize"))
    with b.reading(body), b.inside() as nodes:
        inputs = []
        for number, (place, operand) in enumerate(zip(body.inputs, operands, strict=True)):
            type_, name = body.node(place).type, operand
            if number < changing:
                name = b.fresh(body.node(place).attributes["name"])
                b.types[name], b.floats[name] = type_, WIDE
                inputs.append(end(name, type_))
            given[Value(place)] = name
        names = lower(b, computed=WIDE, given=given)
        outputs = []
        for name, value in body.outputs:
            result = b.fresh(name)
            nodes.append(helper.make_node("Identity", [names[value]], [result], name=result))
            outputs.append(end(result, body.type(value)))
        step = helper.make_graph(nodes, f"{body.name or 'step'}", inputs, outputs)
    return b.recurrence(step, operands[:changing], len(node.types), [a.axis] * a.scanned, a.axis)
