"""An ONNX graph under construction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Node, Type

Array = npt.NDArray[Any]

_DTYPES: dict[str, Any] = {"int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
_FLOATS: dict[str, Any] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
ELEMENTS = {"float": onnx.TensorProto.FLOAT, "int": onnx.TensorProto.INT64, "bool": onnx.TensorProto.BOOL}
# The element types of weights as they are stored, spelled as safetensors does.
STORED_ELEMENTS: dict[str, int] = {
    "F32": onnx.TensorProto.FLOAT,
    "F16": onnx.TensorProto.FLOAT16,
    "BF16": onnx.TensorProto.BFLOAT16,
    "I8": onnx.TensorProto.INT8,
    "I4": onnx.TensorProto.INT4,
}

_LONGEST_SPELLED = 8  # a constant of more numbers is named by a count


@dataclass(frozen=True)
class Stored:
    """A weight as the file holds it: under which name, in which element type ("F32", "I4", ...), and laid out how.

    `form` is "plain", "transposed" (a weight [out, in] as [in, out], for products) or "flat" (a scale for each row).
    """

    name: str
    path: str
    shape: tuple[int, ...]  # of the weight itself
    dtype: str
    form: str


class Builder:
    """Nodes and initialisers of one graph. Equal nodes are made once: every operator used here is a pure function."""

    def __init__(self, graph: Graph, forms: Mapping[str, str], bits: Mapping[str, int], dtype: str = "F32"):
        """`forms` and `bits` say by path how weights are laid out in the file and how wide their numbers are.

        `dtype` is the element type of float weights in the file. Floats that are computed have that of `precision`,
        "F32" or "F16", at the time when they are added.
        """
        self.graph = graph
        self.stored_floats = dtype
        self.precision = "F32"
        self.floats: dict[str, str] = {}  # the element types of float values
        self.numbers: dict[str, float] = {}  # float constants without axes that are nodes of the graph
        self.node: Node | None = None  # the node being lowered
        self.forms, self.bits = forms, bits
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.stored: dict[str, Stored] = {}
        self.types: dict[str, Type] = {}
        self.layout: dict[str, str] = {}  # values that are weights, or dequantised ones, in another form than "plain"
        self.axes: dict[str, tuple[str, int]] = {}
        self._made: dict[Any, tuple[str, ...]] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}  # how often each name was asked for
        self._scope = ""
        self._reserve_ends()

    def dims(self, value: str) -> tuple[Any, ...]:
        """The shape, in the graph's sizes, of a value that a node of the graph gave."""
        return self.types[value].dims

    def emit(self, op: str, *inputs: str | None, **attributes: Any) -> str:
        """Add an operator of one result, and give the name of that."""
        (only,) = self.emit_all(op, 1, *inputs, **attributes)
        return only

    def emit_all(self, op: str, count: int, *inputs: str | None, **attributes: Any) -> tuple[str, ...]:
        """Add an operator of `count` results, and give their names; attributes that are None are left out."""
        given = {name: value for name, value in attributes.items() if value is not None}
        key = (op, count, inputs, tuple(sorted(given.items())))
        if key not in self._made:
            name = self._unique(f"{self._scope}/{op}")
            results = (name,) if count == 1 else tuple(self._unique(f"{name}.{index}") for index in range(count))
            spelled = ["" if value is None else value for value in inputs]
            while spelled and not spelled[-1]:
                spelled.pop()
            self.nodes.append(helper.make_node(op, spelled, list(results), name=name, **given))
            self._made[key] = results
        return self._made[key]

    def constant(self, array: Array) -> str:
        """A small array that stands in the graph itself."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = self._unique(f"/constants/{_spelled(array)}")
            self.constants[name] = array
            self._made[key] = (name,)
        return self._made[key][0]

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def numpy_type(self, dtype: str) -> Any:
        """NumPy's element type for float, int or bool."""
        return _FLOATS[self.precision] if dtype == "float" else _DTYPES[dtype]

    def element(self, dtype: str) -> int:
        """ONNX's element type for float, int or bool."""
        return STORED_ELEMENTS[self.precision] if dtype == "float" else ELEMENTS[dtype]

    def scalar(self, value: Any, dtype: str) -> str:
        """A constant without axes; `dtype` is float, int or bool. A float beyond the precision is its largest."""
        kind = self.numpy_type(dtype)
        if dtype == "float" and np.isfinite(value):
            value = np.clip(value, np.finfo(kind).min, np.finfo(kind).max)
        return self.constant(np.array(value, dtype=kind))

    def number(self, value: Any, dtype: str) -> str:
        """A constant that is a node of the graph: it is made anew for whoever reads it in another precision."""
        name = self.scalar(value, dtype)
        if dtype == "float":
            self.numbers[name] = value
        return name

    def fitted(self, value: str) -> str:
        """A value of the graph in the precision of what is being added."""
        if self.types[value].dtype != "float" or self.floats[value] == self.precision:
            return value
        if value in self.numbers:
            result = self.number(self.numbers[value], "float")
        else:
            result = self.emit("Cast", value, to=self.element("float"))
        self.types.setdefault(result, self.types[value])
        self.floats[result] = self.precision
        if value in self.layout:
            self.layout[result] = self.layout[value]
        return result

    def weight(self, path: str, type: Type, dtype: str | None = None) -> str:
        """A weight by its path, stored once however many nodes name it; `dtype` is for floats that are no others'."""
        if path not in self.stored:
            form = self.forms.get(path, "plain")
            name = self._unique(path)
            kind = dtype or self.stored_floats
            if type.dtype != "float":
                kind = "I4" if self.bits.get(path, 8) <= 4 else "I8"
            self.stored[path] = Stored(name, path, _whole(type.dims), kind, form)
            self.layout[name] = form
            self.floats[name] = kind
        return self.stored[path].name

    def recurrence(
        self, body: onnx.GraphProto, inputs: Sequence[str], results: int, axes: Sequence[int], axis: int
    ) -> tuple[str, ...]:
        """Add a Scan: its last inputs, as many as `axes`, are gone through along those; results are stacked along `axis`."""
        name = self._unique(f"{self._scope}/Scan")
        outputs = [self._unique(f"{name}.{index}") for index in range(results)]
        stacked = results - (len(inputs) - len(axes))
        settings = {"num_scan_inputs": len(axes), "scan_input_axes": list(axes), "scan_output_axes": [axis] * stacked}
        self.nodes.append(helper.make_node("Scan", list(inputs), outputs, name=name, body=body, **settings))
        return tuple(outputs)

    def fresh(self, name: str) -> str:
        """A name for a value that no operator of this graph gives."""
        return self._unique(f"{self._scope}/{name}")

    @contextmanager
    def reading(self, graph: Graph) -> Iterator[None]:
        """Lower nodes of another graph for a while: the body of a node."""
        before = self.graph, self.node, self.precision
        self.graph = graph
        yield
        self.graph, self.node, self.precision = before

    @contextmanager
    def inside(self) -> Iterator[list[onnx.NodeProto]]:
        """Add what follows to a graph within this one, which reads what was made before; the nodes of that graph."""
        before = self.nodes, dict(self._made)
        self.nodes = []
        yield self.nodes
        self.nodes, self._made = before

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

    def _unique(self, name: str) -> str:
        found, count = name, self._counts.get(name, 1)
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        self._counts[name] = count
        return found


def _spelled(array: Array) -> str:
    """A name for a constant: its numbers, where they are few; scalars and what is not int64 say so."""
    kind = [] if array.dtype == np.int64 else [str(array.dtype)]
    if not array.ndim:
        kind.append("scalar")
    few = array.size <= _LONGEST_SPELLED
    return "_".join([*kind, *(str(number) for number in array.ravel())] if few else [*kind, "array"])


def _whole(dims: tuple[Any, ...]) -> tuple[int, ...]:
    assert all(isinstance(dim, int) for dim in dims), "the sizes of weights are numbers"
    return dims


_BEFORE_NAME = re.compile(r"\.(?!\d+(?:\.|$))")


def scope_of(node: Node) -> str:
    """Where a node stands, after its block's path and its own name: "/h.3/attn/c_attn"."""
    path = next((frame.path for frame in reversed(node.scope) if frame.path), "")
    parts = _BEFORE_NAME.split(path) if path else []
    return "".join(f"/{part}" for part in (*parts, *filter(None, [node.name])))
