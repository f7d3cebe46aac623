"""`scan` as OpenVINO's TensorIterator: a model of the step, into which all that it reads comes as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import openvino
from openvino import opset16

from tfdsl.backends.openvino import sizes
from tfdsl.backends.openvino.builder import ELEMENTS, Builder, Operand, Tensor, identity
from tfdsl.ir.dims import Dim, Size, symbol
from tfdsl.ir.graph import Graph, Type, Value
from tfdsl.ir.op import Attributes

_LAST = -1


class StepBuilder(Builder):
    """A step under construction: weights, sizes and captured values are the outer model's, and inputs here."""

    def __init__(self, outer: Builder, body: Graph):
        super().__init__(body, {}, {})
        self.axes = {}
        self.lengths = {name: partial(_length, name=name) for name in (*outer.axes, *outer.lengths)}
        self.outer = outer
        self.entered: dict[tuple[str, int], tuple[openvino.op.Parameter, openvino.Output]] = {}

    def enter(self, value: openvino.Output) -> openvino.Output:
        """A value of the outer model, the same at every position."""
        key = identity(value)
        if key not in self.entered:
            parameter = opset16.parameter(value.get_partial_shape(), value.get_element_type())
            self.entered[key] = parameter, value
        return self.entered[key][0].output(0)

    def weight(self, path: str, type: Type, stored: Sequence[int], scale: bool = False) -> openvino.Output:
        """A weight of the outer model; whole numbers are made floats there."""
        value = self.outer.weight(path, type, stored, scale)
        if type.dtype != "float":
            value = self.outer.emit("convert", value, destination_type="f32")
        return self.enter(value)


def scan(b: Builder, a: Attributes, *operands: Tensor) -> tuple[openvino.Output, ...]:
    """The last states and the stacked results."""
    from tfdsl.backends.openvino.artifact import lower

    assert b.node is not None
    body, changing = b.node.bodies[0], a.carried + a.scanned
    inner = StepBuilder(b, body)
    given: dict[Value, Tensor] = {}
    entries: list[openvino.op.Parameter] = []
    for number, (place, operand) in enumerate(zip(body.inputs, operands, strict=True)):
        type_ = body.node(place).type
        if number >= changing:
            given[Value(place)] = Tensor(inner.enter(operand.output), type_)
            continue
        is_state = number < a.carried
        entries.append(_parameter(type_.dims if is_state else _with_one(type_.dims, a.axis), type_))
        here: Operand = entries[-1].output(0)
        if not is_state:
            here = inner.emit("squeeze", here, inner.ints(a.axis))
        given[Value(place)] = Tensor(here, type_)
    found = lower(inner, given=given)
    results = []
    for number, (_, value) in enumerate(body.outputs):
        output: Operand = found[value].output
        output = inner.emit("unsqueeze", output, inner.ints(a.axis)) if number >= a.carried else output
        results.append(opset16.result(opset16.identity(output)))
    iterated = _iterated(a, inner, entries, results, operands)
    b.iterated += iterated
    return iterated


def is_chained(graph: Graph) -> bool:
    """Whether a recurrence begins with what another has given."""
    for node in graph.nodes():
        if node.op == "scan":
            seen = {value for value in node.inputs[: node.attributes["carried"]] if value is not None}
            waiting = list(seen)
            while waiting:
                value = waiting.pop()
                if graph.node(value).op == "scan":
                    return True
                fresh = {each for each in graph.node(value).inputs if each is not None} - seen
                seen |= fresh
                waiting += fresh
    return False


def after_recurrences(b: Builder, output: openvino.Output) -> openvino.Output:
    """An output of a model with chained recurrences, plus the sum of no element of what each of them gave: nothing.

    Where a recurrence begins with what another gave, the CPU plugin lets go of that too early once shapes have grown, and
    computes with what others have written there. What is read after the output was made, it keeps until then.
    """
    zero = b.ints(0)
    none = b.emit("multiply", b.emit("reduce_prod", b.emit("shape_of", output), zero, keep_dims=True), zero)
    for each in b.iterated:
        flat = b.emit("reshape", each, b.ints(-1), special_zero=False)
        nothing = b.emit("reduce_sum", b.emit("slice", flat, zero, none, b.ints(1), zero), zero, keep_dims=False)
        output = b.emit("add", output, b.emit("convert_like", nothing, output))
    return output


def _iterated(
    a: Attributes,
    inner: StepBuilder,
    entries: Sequence[openvino.op.Parameter],
    results: Sequence[openvino.Node],
    operands: Sequence[Tensor],
) -> tuple[openvino.Output, ...]:
    loop = opset16.tensor_iterator()
    loop.set_body(openvino.Model(list(results), [*entries, *(each for each, _ in inner.entered.values())], "step"))
    for number, (entry, operand) in enumerate(zip(entries, operands, strict=False)):
        if number < a.carried:
            loop.set_merged_input(entry, operand.output, results[number].output(0))
        else:
            loop.set_sliced_input(entry, operand.output, 0, 1, 1, _LAST, a.axis)
    for entry, value in inner.entered.values():
        loop.set_invariant_input(entry, value)
    return tuple(
        loop.get_iter_value(result.output(0), _LAST)
        if number < a.carried
        else loop.get_concatenated_slices(result.output(0), 0, 1, 1, _LAST, a.axis)
        for number, result in enumerate(results)
    )


def _length(b: Builder, name: str) -> openvino.Output:
    """A named size, computed in the outer model."""
    assert isinstance(b, StepBuilder)
    return b.enter(sizes.size(b.outer, symbol(name)))


def _parameter(dims: Sequence[Size], type: Type) -> openvino.op.Parameter:
    shape = [openvino.Dimension() if isinstance(dim, Dim) else openvino.Dimension(dim) for dim in dims]
    return opset16.parameter(openvino.PartialShape(shape), ELEMENTS[type.dtype])


def _with_one(dims: Sequence[Size], axis: int) -> tuple[Size, ...]:
    return (*dims[:axis], 1, *dims[axis:])
