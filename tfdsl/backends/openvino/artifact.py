"""Building an OpenVINO model from a graph and its weights, and writing it as IR."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import openvino
from openvino import opset16

from tfdsl.backends.openvino import storage
from tfdsl.backends.openvino.builder import ELEMENTS, Builder, Tensor, identity, scope_of
from tfdsl.backends.openvino.lowerings import LOWERINGS, REFUSED, Lowering
from tfdsl.backends.openvino.parameters import Dims, add_parameters, ranges
from tfdsl.backends.openvino.recurrences import after_recurrences, is_chained
from tfdsl.backends.prepare import bits_by_path, fix_sizes
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one
from tfdsl.passes.clean import clean
from tfdsl.passes.lower_linear_attention import lower_linear_attention
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.unroll import unroll
from tfdsl.weights import materialise
from tfdsl.weights.storing import Storing

Array = npt.NDArray[Any]


def build(
    graph: Graph,
    weights: Mapping[str, Array],
    path: str | os.PathLike[str],
    *,
    dims: Dims | None = None,
    storing: Storing | None = None,
) -> None:
    """Write the model of a graph to `path` (an `.xml` file) and its weights to the `.bin` file beside it.

    `dims` fixes named sizes (`{"batch": 1}`) or gives their least and most (`{"seq": (1, 512)}`); the others stay
    dynamic. The element type of weights says nothing of that of computing, which the runtime is told. Raises `SpecError`.
    """
    target = Path(path)
    if target.suffix != ".xml":
        raise one("T702", f"OpenVINO reads a model from an `.xml` file, and `{target}` is not called so")
    storing = storing or Storing()
    builder, stored = _begin(graph, weights, dims or {}, storing.spelled, outside=True)
    model = model_of(builder, lower(builder))
    storage.write(model, list(builder.stored.values()), stored, target, storing)


def make(
    graph: Graph, weights: Mapping[str, Array], dims: Dims | None = None, dtype: str = "float32"
) -> openvino.Model:
    """The model of a graph; its constants lie in the memory of `weights` where they can. Raises `SpecError`."""
    builder, _ = _begin(graph, weights, dims or {}, Storing(dtype).spelled, outside=False)
    return model_of(builder, lower(builder))


def _begin(
    graph: Graph, weights: Mapping[str, Array], dims: Dims, dtype: str, outside: bool
) -> tuple[Builder, Mapping[str, Array]]:
    """A builder with the inputs of a model, and the weights to store."""
    _check_ends(graph)
    limits = ranges(graph, dims)
    flat = fix_sizes(unroll(graph), {name: size for name, size in dims.items() if isinstance(size, int)})
    flat.penalties = []
    flat, _ = clean(lower_linear_attention(lower_masks(flat)))
    bits = bits_by_path(flat)
    flat, stored = materialise(flat, weights)
    builder = Builder(flat, stored, bits, dtype, outside)
    add_parameters(builder, limits)
    return builder, stored


def lower(
    b: Builder, lowerings: Mapping[str, Lowering] = LOWERINGS, given: Mapping[Value, Tensor] | None = None
) -> dict[Value, Tensor]:
    """Lower every node that an output needs; some values may be given."""
    found: dict[Value, Tensor] = dict(given or {})
    needed = _needed(b.graph)
    for node in b.graph.nodes():
        if node.id not in needed or Value(node.id) in found:
            continue
        lowering = lowerings.get(node.op)
        if lowering is None:
            raise _refusal(node, REFUSED.get(node.op, "it has no lowering"))
        b.node = node
        with b.within(scope_of(node)):
            operands = [None if value is None else found[value] for value in node.inputs]
            try:
                results = lowering(b, OPS[node.op].fill(node.attributes), *operands)
            except RuntimeError as error:  # OpenVINO checks an operator when it is added
                raise _refusal(node, str(error).strip().splitlines()[-1]) from None
        for index, result in enumerate(results if isinstance(results, tuple) else (results,)):
            output = result.output if isinstance(result, Tensor) else result
            found[Value(node.id, index)] = Tensor(output, node.types[index])
    return found


def _check_ends(graph: Graph) -> None:
    """Refuse an output that is called like an input: in OpenVINO a name is one tensor."""
    inputs = {graph.node(place).attributes["name"] for place in graph.inputs}
    for name, value in graph.outputs:
        if name in inputs:
            message = f"the output `{name}` is called like an input, and OpenVINO cannot tell them apart"
            raise one("T709", message, graph.node(value).span, help="give the output another name in the signature")


def _needed(graph: Graph) -> set[int]:
    found: set[int] = set()
    waiting = [value.node for _, value in graph.outputs]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [value.node for value in graph.node(place).inputs if value is not None]
    return found


def _refusal(node: Node, reason: str) -> Exception:
    return one("T703", f"OpenVINO cannot hold `{node.op}` at `{scope_of(node) or 'the top'}`: {reason}", node.span)


def model_of(b: Builder, found: Mapping[Value, Tensor]) -> openvino.Model:
    """The model of what was lowered, with the graph's outputs as its own."""
    results = []
    taken: set[tuple[str, int]] = set()
    chained = is_chained(b.graph)
    for name, value in b.graph.outputs:
        output = found[value].output
        if chained and b.graph.type(value).dtype != "bool":
            output = after_recurrences(b, output)
        # A tensor has one name: what is an input, a weight or another output already is passed on.
        if identity(output) in taken or output.get_node().get_type_name() in ("Parameter", "Constant"):
            copied = opset16.identity(output)
            copied.set_friendly_name(f"{name}/Identity")
            output = copied.output(0)
        taken.add(identity(output))
        output.get_tensor().set_names({name})
        result = opset16.result(output)
        result.set_friendly_name(name)
        results.append(result)
    inputs = [*b.parameters.values(), *b.stand_ins]
    model = openvino.Model(results, b.sinks, inputs, b.graph.name or "model")
    _part_numbers(model)
    return model


def _part_numbers(model: openvino.Model) -> None:
    """Give every reader of a single number a constant of its own.

    The CPU plugin fuses attention into one kernel of several loops, and fails where two of them read one constant.
    """
    for node in model.get_ordered_ops():
        if _is_number(node):
            readers = sorted(node.output(0).get_target_inputs(), key=_order)
            for count, reader in enumerate(readers[1:], 2):
                twin = openvino.op.Constant(node.data.copy())
                twin.set_friendly_name(f"{node.get_friendly_name()}.{count}")
                reader.replace_source_output(twin.output(0))


def _is_number(node: openvino.Node) -> bool:
    """Whether a node is a constant of one element; a quantised weight is not counted, since it may lie packed."""
    return (
        node.get_type_name() == "Constant"
        and math.prod(node.get_output_shape(0)) == 1
        and node.get_element_type() in ELEMENTS.values()
    )


def _order(reader: openvino.Input) -> tuple[str, int]:
    return reader.get_node().get_friendly_name(), reader.get_index()
