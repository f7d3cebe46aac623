"""An OpenVINO graph under construction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset16

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Type
from tfdsl.language.diagnostics import one

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


class Builder:
    """Operators and constants of one model. Equal operators are made once: every one used here is a pure function."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], bits: Mapping[str, int]):
        self.graph = graph
        self.node: Node | None = None  # the node being lowered
        self.parameters: dict[str, openvino.op.Parameter] = {}
        self.axes: dict[str, tuple[str, int]] = {}  # which axis of which input tells a named size
        self.lengths: dict[str, tuple[Node, int]] = {}  # which axis of the state of which node tells a named size
        self.batch: Size | None = None
        self.rows: openvino.op.Parameter | None = None  # which rows of the last call those of this one go on from
        self.sinks: list[openvino.Node] = []
        self._weights, self._bits = weights, bits
        self._made: dict[Any, tuple[openvino.Output, ...]] = {}
        self._taken: set[str] = set()
        self._scope = ""
        self._reserve_ends()

    def emit(self, op: str, *inputs: Operand | None, **attributes: Any) -> openvino.Output:
        """Add an operator of one result, by its name in `openvino.opset16`."""
        (only,) = self.emit_all(op, *inputs, **attributes)
        return only

    def emit_all(self, op: str, *inputs: Operand | None, **attributes: Any) -> tuple[openvino.Output, ...]:
        """Add an operator and give all its results; trailing inputs that are None are left out."""
        outputs = [each.output if isinstance(each, Tensor) else each for each in inputs]
        sources = tuple(None if each is None else identity(each) for each in outputs)
        key = (op, sources, tuple(sorted(attributes.items())))
        if key not in self._made:
            given = (outputs,) if op in _OF_A_LIST else outputs
            node = getattr(opset16, op)(*given, **attributes)
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

    def weight(self, path: str, type: Type, stored: Sequence[int]) -> openvino.Output:
        """A weight by its path, in the shape `stored`; one constant however many nodes name it."""
        key = ("weight", path)
        if key not in self._made:
            node = _shared(self._array(path, type).reshape(stored), self._bits.get(path, 8))
            node.set_friendly_name(self._unique(path))
            self._made[key] = (node.output(0),)
        return self._made[key][0]

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
        node = opset16.assign(value.output if isinstance(value, Tensor) else value, name)
        self._name(node, "Assign")
        self.sinks.append(node)

    @contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Name what is added inside the block under `scope`."""
        before, self._scope = self._scope, scope
        yield
        self._scope = before

    def _array(self, path: str, type: Type) -> Array:
        if path not in self._weights:
            raise one("T801", f"there is no weight `{path}`", None if self.node is None else self.node.span)
        array = np.asarray(self._weights[path])
        if array.shape != type.dims:
            message = f"`{path}` is {list(array.shape)}, and the model's is {list(type.dims)}"
            raise one("T803", message, None if self.node is None else self.node.span)
        return array.astype(np.float32 if type.dtype == "float" else np.int8, copy=False)

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
        for node in self.graph.nodes():
            size = node.attributes["size"] if node.op == "append" else None
            if isinstance(size, Dim) and size.name is not None and size.name not in self.axes:
                self.lengths.setdefault(size.name, (node, node.attributes["axis"]))

    def _name(self, node: openvino.Node, kind: str) -> None:
        node.set_friendly_name(self._unique(f"{self._scope}/{kind}" if self._scope else kind))

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found


def scope_of(node: Node) -> str:
    """Where a node stands, after its block's path and its own name: "h.3.attn.c_attn"."""
    path = next((frame.path for frame in reversed(node.scope) if frame.path), "")
    return ".".join(filter(None, (path, node.name)))


def identity(output: openvino.Output) -> tuple[str, int]:
    """What tells an output from all others; the objects that stand for it in Python come and go."""
    return output.get_node().get_name(), output.get_index()


def _shared(array: Array, bits: int) -> openvino.op.Constant:
    """A constant over the memory of an array, which is copied only where it must be put in order or packed."""
    if array.dtype == np.int8 and bits <= 4:
        packed = _packed(array)  # neither tensor nor constant would keep it alive: the constant is a copy
        tensor = openvino.Tensor(packed, openvino.Shape(array.shape), openvino.Type.i4)
        return openvino.op.Constant(tensor, shared_memory=False)
    array = np.require(array, requirements=["C", "W"])
    return openvino.op.Constant(array, shared_memory=True)


def _packed(array: Array) -> Array:
    """Two numbers of four bits in a byte, the first of them in its low half."""
    flat = np.zeros(2 * math.ceil(array.size / 2), dtype=np.uint8)
    flat[: array.size] = array.reshape(-1).view(np.uint8) & 0xF
    return flat[::2] | flat[1::2] << 4
