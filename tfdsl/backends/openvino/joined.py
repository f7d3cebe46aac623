"""Weights that a model puts together, as one tensor in the file: their bytes lie one after another there."""

from __future__ import annotations

import openvino
from openvino import opset16

from tfdsl.backends.openvino.builder import Builder, Stored


def join_stored(model: openvino.Model, b: Builder) -> None:
    """Let one input stand for weights that are joined along their first axis and read by nothing else."""
    stand_ins = {node.get_name(): node for node in b.stand_ins}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Concat" or node.get_axis() != 0:
            continue
        sources = [_source(each) for each in node.inputs()]
        parts = [stand_ins.get(each.get_name()) for each in sources if each is not None]
        if len(parts) == node.get_input_size() and None not in parts:
            _join(model, b, node, parts)
    model.validate_nodes_and_infer_types()


def _source(place: openvino.Input) -> openvino.Node | None:
    """What is read here and nowhere else, before a conversion if there is one."""
    output = place.get_source_output()
    if len(output.get_target_inputs()) > 1:
        return None
    node = output.get_node()
    return _source(node.input(0)) if node.get_type_name() == "Convert" else node


def _join(model: openvino.Model, b: Builder, node: openvino.Node, parts: list[openvino.op.Parameter]) -> None:
    names = [each.get_friendly_name() for each in parts]
    stored = [b.stored.pop(name) for name in names]
    made = opset16.parameter(node.get_output_shape(0), parts[0].get_element_type())
    name = " + ".join(names)
    made.set_friendly_name(name)
    b.stored[name] = Stored(name, tuple(part for each in stored for part in each.parts), stored[0].dtype)
    b.stand_ins.append(made)
    result = made.output(0)
    if made.get_element_type() != node.get_output_element_type(0):
        converted = opset16.convert(made, node.get_output_element_type(0).to_string())
        converted.set_friendly_name(f"{name}/Convert")
        result = converted.output(0)
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(result)
    for each in parts:
        model.remove_parameter(each)
    model.add_parameters([made])
