"""Building an ONNX model from a graph and its weights."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper

from tfdsl.backends.onnx import storage
from tfdsl.backends.onnx.builder import ELEMENTS, Builder, scope_of
from tfdsl.backends.onnx.lowerings import LOWERINGS, REFUSED, Lowering
from tfdsl.backends.onnx.precision import WIDE, precisions
from tfdsl.backends.onnx.prepare import flat_graph, layouts
from tfdsl.backends.prepare import bits_by_path
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one
from tfdsl.weights import materialise
from tfdsl.weights.storing import Storing

Array = npt.NDArray[Any]

OPSET = 24


def build(
    graph: Graph,
    weights: Mapping[str, Array],
    path: str | os.PathLike[str],
    *,
    dims: Mapping[str, int] | None = None,
    inline_limit: int = storage.INLINE_LIMIT,
    storing: Storing | None = None,
) -> None:
    """Write the ONNX model of a graph to `path`, a `.onnx` file.

    Its weights stand in it, or in `path` with `.data` after it where they take more than `inline_limit` bytes. `dims`
    fixes sizes by name; the others stay dynamic. Inputs and outputs are float32 whatever the element type of the
    weights: float16 is computed with too, bfloat16 is what weights are stored in. Raises `SpecError`.
    """
    storing = storing or Storing()
    check_ends(graph)
    flat = flat_graph(graph, dims)
    bits = bits_by_path(flat)
    flat, stored = materialise(flat, weights)
    builder = Builder(flat, layouts(flat), bits, storing.spelled)
    names = lower(builder)
    storage.write(model_of(builder, names), list(builder.stored.values()), stored, Path(path), inline_limit, storing)


def check_ends(graph: Graph) -> None:
    """Refuse an output that is called like an input: in ONNX a name is one value."""
    inputs = {graph.node(place).attributes["name"]: graph.node(place) for place in graph.inputs}
    for name, value in graph.outputs:
        if name in inputs:
            message = f"the output `{name}` is called like an input, and ONNX cannot tell them apart"
            raise one("T709", message, graph.node(value).span, help="give the output another name in the signature")


def lower(
    b: Builder,
    lowerings: Mapping[str, Lowering] = LOWERINGS,
    computed: str | None = None,
    given: Mapping[Value, str] | None = None,
    only: Container[str] | None = None,
) -> dict[Value, str]:
    """Lower every node that an output needs; the names of the graph's values.

    Those that are `given` are not made; with `only`, no other ops are lowered.
    Floats are computed in the precision that suits the stored weights, node by node, or all in `computed`.
    """
    names: dict[Value, str] = dict(given or {})
    needed = _needed(b.graph)
    kinds = precisions(b.graph, computed or b.stored_floats)
    for node in b.graph.nodes():
        if (node.id not in needed and node.op != "input") or Value(node.id) in names:
            continue
        if only is not None and node.op not in only:
            continue
        lowering = lowerings.get(node.op)
        if lowering is None:
            raise _refusal(node)
        b.node, b.precision = node, kinds[node.id]
        with b.within(scope_of(node)):
            operands = [None if value is None else names[value] for value in node.inputs]
            floats = b.precision
            if node.op == "embedding":  # rows are chosen first, and converted then
                floats = b.floats[str(operands[1])]
            else:
                operands = [None if operand is None else b.fitted(operand) for operand in operands]
            results = lowering(b, OPS[node.op].fill(node.attributes), *operands)
        for index, result in enumerate(results if isinstance(results, tuple) else (results,)):
            names[Value(node.id, index)] = result
            b.types.setdefault(result, node.types[index])
            b.floats.setdefault(result, floats)
    b.precision = WIDE
    for _, value in b.graph.outputs if only is None else ():
        names[value] = b.fitted(names[value])
    return names


def _needed(graph: Graph) -> set[int]:
    found: set[int] = set()
    waiting = [value.node for _, value in graph.outputs]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [value.node for value in graph.node(place).inputs if value is not None]
    return found


def _refusal(node: Node) -> Exception:
    reason = REFUSED.get(node.op, "it has no lowering")
    place = scope_of(node) or "/"
    return one("T703", f"ONNX cannot hold `{node.op}` at {place}: {reason}", node.span)


def model_of(b: Builder, names: Mapping[Value, str]) -> onnx.ModelProto:
    """The model without its weights."""
    inputs = [end(b.graph.node(place).attributes["name"], b.graph.node(place).type) for place in b.graph.inputs]
    outputs = [(names[value], end(name, b.graph.type(value))) for name, value in b.graph.outputs]
    return assembled(b, inputs, outputs)


def assembled(
    b: Builder, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[tuple[str, onnx.ValueInfoProto]]
) -> onnx.ModelProto:
    """A model of what was built, without its weights; each output is given as the value that it is."""
    _name_outputs(b, [(result, output.name) for result, output in outputs])
    read = {name for node in all_nodes(b.nodes) for name in node.input}
    graph = helper.make_graph(
        b.nodes,
        b.graph.name or "model",
        inputs,
        [output for _, output in outputs],
        [_tensor(name, array) for name, array in b.constants.items() if name in read],
    )
    domains = sorted({node.domain for node in b.nodes if node.domain})
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    version = helper.find_min_ir_version_for(opsets[:1])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="tfdsl")
    helper.set_model_props(model, {"tfdsl.model": b.graph.name})
    return model


def _name_outputs(b: Builder, outputs: Sequence[tuple[str, str]]) -> None:
    """Give results their outputs' names; what is no node's result, or is an output already, goes through `Identity`."""
    made = {result for node in b.nodes for result in node.output}
    renamed: dict[str, str] = {}
    for result, name in outputs:
        if result in made and result not in renamed:
            renamed[result] = name
        else:
            b.nodes.append(helper.make_node("Identity", [result], [name], name=f"/outputs/{name}"))
    for node in all_nodes(b.nodes):
        for values in (node.input, node.output):
            for place, each in enumerate(values):
                if each in renamed:
                    values[place] = renamed[each]


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs inside them, which read what is outside by name."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g.node)


def end(name: str, type: Type) -> onnx.ValueInfoProto:
    """An input or output of a model."""
    shape = [str(dim) if isinstance(dim, Dim) else dim for dim in type.dims]
    return helper.make_tensor_value_info(name, ELEMENTS[type.dtype], shape)


def _tensor(name: str, array: Array) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return tensor
