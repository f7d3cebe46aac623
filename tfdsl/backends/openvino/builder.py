"""An OpenVINO graph under construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset16
from openvino.utils.node_factory import NodeFactory

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Type
from tfdsl.weights.content import Content
from tfdsl.weights.source import source_of

Array = npt.NDArray[Any]

DTYPES: dict[str, Any] = {"float": np.dtype(np.float32), "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
_OF_A_LIST = ("concat", "einsum")  # these take their inputs as one list
ELEMENTS = {"float": openvino.Type.f32, "int": openvino.Type.i64, "bool": openvino.Type.boolean}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph: the OpenVINO output that holds it, and its type in the graph's sizes."""

    output: openvino.Output
    type: Type

    @property
    def dims(self) -> tuple[Size, ...]:
        return self.type.dims

    @property
    def rank(self) -> int:
        return len(self.type.dims)


Operand = Union[Tensor, openvino.Output]

CONVERTED = "Convert"  # what is added to the name of a weight for that of its conversion to float32
# The element types of weights as they are stored, spelled as safetensors does.
STORED_ELEMENTS = {
    "F32": openvino.Type.f32,
    "F16": openvino.Type.f16,
    "BF16": openvino.Type.bf16,
    "I8": openvino.Type.i8,
    "I4": openvino.Type.i4,
}


@dataclass(frozen=True)
class Stored:
    """What is to be written: the name of the input that stands for it, and weights, by path and shape, one after another."""

    name: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str


def _attention_with_sinks(*inputs: openvino.Output) -> openvino.Node:
    """Attention whose last input is a logit for each head [1, h, 1, 1] that takes part in the softmax alone."""
    attributes = {"causal": False}
    return NodeFactory("opset13").create("ScaledDotProductAttention", list(inputs), attributes)


# Operators that the functions of the opset do not make, or not with all their inputs.
_MORE: dict[str, Callable[..., openvino.Node]] = {"attention_with_sinks": _attention_with_sinks}


class Builder:
    """Operators and constants of one model. Equal operators are made once: every one used here is a pure function."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Array],
        bits: Mapping[str, int],
        dtype: str = "F32",
        outside: bool = False,
    ):
        """`dtype` is the element type that float weights are stored in; they are converted where they are read.

        With `outside`, inputs stand for the weights: a writer makes constants of those that are in `stored`.
        """
        self.graph = graph
        self.stored: dict[str, Stored] = {}
        self.stand_ins: list[openvino.op.Parameter] = []
        self._dtype, self._outside = dtype, outside
        self.node: Node | None = None  # the node being lowered
        self.parameters: dict[str, openvino.op.Parameter] = {}
        self.axes: dict[str, tuple[str, int]] = {}  # which axis of which input tells a named size
        self.lengths: dict[str, Callable[[Builder], openvino.Output]] = {}  # named sizes that only states tell
        self.rows: Tensor | None = None  # which rows of the last call those of this one go on from, if that is asked
        self.sinks: list[openvino.Node] = []
        self.iterated: list[openvino.Output] = []  # what recurrences gave
        self._weights, self._bits = weights, bits
        self._made: dict[Any, tuple[openvino.Output, ...]] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}  # how often each name was asked for
        self._scope = ""
        self._reserve_ends()

    def emit(self, op: str, *inputs: Operand | None, **attributes: Any) -> openvino.Output:
        """Add an operator of one result, by its name in `openvino.opset16` or here."""
        (only,) = self.emit_all(op, *inputs, **attributes)
        return only

    def emit_all(self, op: str, *inputs: Operand | None, **attributes: Any) -> tuple[openvino.Output, ...]:
        """Add an operator and give all its results; trailing inputs that are None are left out."""
        outputs = [each.output if isinstance(each, Tensor) else each for each in inputs]
        sources = tuple(None if each is None else identity(each) for each in outputs)
        key = (op, sources, tuple(sorted(attributes.items())))
        if key not in self._made:
            given = (outputs,) if op in _OF_A_LIST else outputs
            node = (_MORE.get(op) or getattr(opset16, op))(*given, **attributes)
            self._name(node, node.get_type_name())
            self._made[key] = tuple(node.outputs())
        return self._made[key]

    def constant(self, array: Array) -> openvino.Output:
        """A small array that is part of the computation."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            with self.within("constants"):
                node = openvino.op.Constant(array)
                self._name(node, str(array.dtype))
            self._made[key] = (node.output(0),)
        return self._made[key][0]

    def ints(self, *values: int) -> openvino.Output:
        """A constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: Any, dtype: str) -> openvino.Output:
        """A constant without axes; `dtype` is float, int or bool."""
        return self.constant(np.array(value, dtype=DTYPES[dtype]))

    def weight(self, path: str, type: Type, stored: Sequence[int], scale: bool = False) -> openvino.Output:
        """A weight by its path, in the shape `stored`; one constant however many nodes name it.

        Floats come out as float32. A scale is stored as such, and so is a single number.
        """
        key = ("weight", path)
        if key not in self._made:
            dtype = self._stored_type(path, type, scale)
            content = Content(source_of(self._weights), path, _whole(type.dims), dtype)
            name = self._unique(path)
            if self._outside and math.prod(stored) > 1:
                node: openvino.Node = opset16.parameter(list(stored), STORED_ELEMENTS[dtype])
                self.stand_ins.append(node)
                self.stored[name] = Stored(name, ((path, content.shape),), dtype)
            else:
                node = _constant(content, stored)
            node.set_friendly_name(name)
            if dtype in ("F16", "BF16"):
                node = opset16.convert(node, "f32")
                node.set_friendly_name(self._unique(f"{name}/{CONVERTED}"))
            self._made[key] = (node.output(0),)
        return self._made[key][0]

    def _stored_type(self, path: str, type: Type, scale: bool) -> str:
        if type.dtype != "float":
            return "I4" if self._bits.get(path, 8) <= 4 else "I8"
        return "F32" if scale or math.prod(_whole(type.dims)) == 1 else self._dtype

    def read(self, name: str, initial: openvino.Output, dims: Sequence[int]) -> openvino.Output:
        """The variable of a name, which begins as `initial`; a size of -1 is one that changes."""
        key = ("variable", name)
        if key not in self._made:
            shape = openvino.PartialShape([openvino.Dimension(dim) for dim in dims])
            node = opset16.read_value(initial, name, initial.get_element_type(), shape)
            self._name(node, "ReadValue")
            self._made[key] = (node.output(0),)
        return self._made[key][0]

    def assign(self, name: str, value: Operand) -> None:
        """What the variable of a name, which was read before, holds from the next call on."""
        output = value.output if isinstance(value, Tensor) else value
        source = output.get_node()
        # It is told a node, and means the first result.
        node = opset16.assign(source if len(source.outputs()) == 1 else opset16.identity(output), name)
        self._name(node, "Assign")
        self.sinks.append(node)

    @contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Name what is added inside the block under `scope`."""
        before, self._scope = self._scope, scope
        yield
        self._scope = before

    def _reserve_ends(self) -> None:
        """Keep the names of inputs and outputs free, and note which axis of which input tells each named size."""
        for place in self.graph.inputs:
            node = self.graph.node(place)
            name = node.attributes["name"]
            self._taken.add(name)
            for axis, dim in enumerate(node.type.dims):
                if isinstance(dim, Dim) and dim.name is not None:
                    self.axes.setdefault(dim.name, (name, axis))
        self._taken.update(name for name, _ in self.graph.outputs)

    def _name(self, node: openvino.Node, kind: str) -> None:
        node.set_friendly_name(self._unique(f"{self._scope}/{kind}" if self._scope else kind))

    def _unique(self, name: str) -> str:
        found, count = name, self._counts.get(name, 1)
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        self._counts[name] = count
        return found


def scope_of(node: Node) -> str:
    """Where a node stands, after its block's path and its own name: "h.3.attn.c_attn"."""
    path = next((frame.path for frame in reversed(node.scope) if frame.path), "")
    return ".".join(filter(None, (path, node.name)))


def identity(output: openvino.Output) -> tuple[str, int]:
    """What tells an output from all others; the objects that stand for it in Python come and go."""
    return output.get_node().get_name(), output.get_index()


def _whole(dims: tuple[Any, ...]) -> tuple[int, ...]:
    assert all(isinstance(dim, int) for dim in dims), "the sizes of weights are numbers"
    return dims


def _constant(content: Content, shape: Sequence[int]) -> openvino.op.Constant:
    """A constant over the memory of a weight, which is copied only where it must be put in order or converted."""
    array = content.array()
    if content.dtype in ("F32", "I8"):
        return openvino.op.Constant(np.require(array.reshape(shape), requirements=["C", "W"]), shared_memory=True)
    # Neither tensor nor constant would keep the bytes alive: the constant is a copy.
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    tensor = openvino.Tensor(data, openvino.Shape(shape), STORED_ELEMENTS[content.dtype])
    return openvino.op.Constant(tensor, shared_memory=False)
