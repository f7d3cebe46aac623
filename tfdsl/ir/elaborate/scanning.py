"""`scan`: a recurrence, one node that holds the graph of a step and runs it at one position after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfdsl.ir.elaborate import attributes as settings
from tfdsl.ir.elaborate.body import Body, new_graph
from tfdsl.ir.elaborate.expressions import as_tensor
from tfdsl.ir.elaborate.values import Fault, Given, Instance, Layer, Place, Region, Results, Tensor, kind_of
from tfdsl.ir.graph import Frame, Type, Value
from tfdsl.ir.op import Op
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Span
from tfdsl.language.modules import Declared, base_block

_SETTINGS = ("step", "start", "axis")


def apply_scan(
    body: Body, op: Op, given: Mapping[str, Given], place: Place, positional: list[Given], tree: syntax.Call
) -> Any:
    """The last states, and the results of all positions: one tensor, or `Results` for several."""
    for name, each in given.items():
        if name not in _SETTINGS:
            raise Fault("T302", f"scan has no setting `{name}`", each.at, help=op.signature())
    for name in ("step", "start"):
        if name not in given:
            raise Fault("T302", f"scan needs `{name}`", tree.span, help=op.signature())
    scanned, spans = _scanned(body, op, positional, tree.span)
    axis = _axis(given.get("axis"), scanned, spans)
    states = _states(body, given["start"])
    slices = [Type(each.type.dtype, _without(each.type, axis)) for each in scanned]
    captures: list[Tensor] = []
    region, results = _elaborate_step(body, given["step"], place, states, slices, captures, tree)
    _check_states(states, results, given["step"].span)
    length = scanned[0].type.dims[axis]
    types = tuple(
        each.type if number < len(states) else _stacked(each.type, axis, length, given["step"].span)
        for number, each in enumerate(results)
    )
    node = body.region.graph.add(
        "scan",
        (*(body.region.use(each) for each in (*states, *scanned)), *(each.value for each in captures)),
        {"carried": len(states), "scanned": len(scanned), "axis": axis, "turns": (0,), "path": place.path},
        types,
        name=place.name,
        scope=body.frames,
        span=tree.span,
        bodies=(region.graph,),
    )
    tensors = tuple(Tensor(Value(node.id, number), each, body.region) for number, each in enumerate(types))
    return tensors[0] if len(tensors) == 1 else Results(tensors, (None,) * len(tensors))


def _scanned(body: Body, op: Op, positional: list[Given], span: Span) -> tuple[list[Tensor], list[Span]]:
    """The tensors to go through, each with its place in the spec."""
    found: list[Tensor] = []
    spans: list[Span] = []
    for each in positional:
        parts = each.value.tensors if isinstance(each.value, Results) else (each.value,)
        found += [as_tensor(body, part, each.span) for part in parts]
        spans += [each.span] * len(parts)
    if not found:
        raise Fault("T302", "scan needs at least one tensor to go through", span, help=op.signature())
    return found, spans


def _axis(given: Given | None, scanned: list[Tensor], spans: list[Span]) -> int:
    """The axis to go along, counted from the first; all tensors must have it, and be of one length."""
    axis = settings.axis(given or Given(1, None, None, spans[0]), len(scanned[0].type.dims))
    length = scanned[0].type.dims[axis]
    for each, span in zip(scanned, spans, strict=True):
        if axis >= len(each.type.dims) or each.type.dims[axis] != length:
            message = f"scan: all tensors go along axis {axis}, which is {length} of the first, and this is {each.type}"
            raise Fault("T401", message, span)
    return axis


def _states(body: Body, given: Given) -> list[Tensor]:
    """The states before the first position."""
    values = given.value.tensors if isinstance(given.value, Results) else given.value
    values = values if isinstance(values, tuple) else (values,)
    if not values:
        raise Fault("T302", "scan needs at least one state in `start`", given.span)
    return [as_tensor(body, value, given.span) for value in values]


def _elaborate_step(
    body: Body,
    given: Given,
    place: Place,
    states: list[Tensor],
    slices: list[Type],
    captures: list[Tensor],
    tree: syntax.Call,
) -> tuple[Region, list[Tensor]]:
    """The region of a step, whose inputs are the states and then the slices, and its results."""
    from tfdsl.ir.elaborate.application import apply

    layer = given.value
    if not isinstance(layer, (Layer, Instance)):
        raise Fault("T301", f"`step` is a layer, not {kind_of(layer)}", given.span)
    path = place.join("*")
    frame = Frame(path, body.base or body.frame.block, dict(body.frame.names), span=tree.span)
    region = Region(new_graph(path, frame), body.region, captures)
    inside = Body(
        body.session,
        body.module,
        region,
        place,
        frame,
        (),
        outer=body,
        blocks=body.blocks,
        turns=body.turns,
        base=body.base,
    )
    home, own = (layer.place, layer.layer) if isinstance(layer, Instance) else (place, layer)
    names = _names(own, len(slices) + len(states))
    entered = [region.add_input(name, each.type) for name, each in zip(names[len(slices) :], states, strict=True)]
    here = [region.add_input(name, each) for name, each in zip(names, slices, strict=False)]
    result = apply(inside, own, home, own.label, [Given(x, None, inside, given.span) for x in (*here, *entered)], tree)
    found = list(result.tensors) if isinstance(result, Results) else [as_tensor(inside, result, given.span)]
    region.graph.outputs = [(f"result_{number}", region.use(each)) for number, each in enumerate(found)]
    _label(frame, own, region, names[len(slices) :])
    region.finish(region.graph.inputs[: len(states) + len(slices)])
    for each in region.graph.regions():
        for name, _ in each.penalties:
            raise Fault("T302", f"a step has no penalties, and this has `{name}`", given.span)
    return region, found


def _names(layer: Layer, count: int) -> list[str]:
    """What the inputs of a step are called: as a block declares them."""
    declared = base_block(layer.callee).inputs if isinstance(layer.callee, Declared) else ()
    names = [each.name.text for each in declared][:count]
    return [*names, *(f"x_{number}" for number in range(len(names), count))]


def _label(frame: Frame, layer: Layer, region: Region, states: list[str]) -> None:
    """Note what the step calls its results: as its block declares them, or as the states that they are."""
    outputs = base_block(layer.callee).outputs if isinstance(layer.callee, Declared) else ()
    declared = [each.name.text if each.name else "" for each in outputs]
    for number, (_, value) in enumerate(region.graph.outputs):
        name = declared[number] if number < len(declared) else ""
        name = name or (states[number] if number < len(states) else "")
        if name and region.graph.node(value).op != "input":
            frame.labels.setdefault(value, name)


def _check_states(states: list[Tensor], results: list[Tensor], span: Span) -> None:
    """Refuse a step that does not give every state again as it was."""
    if len(results) < len(states):
        message = f"the step gives {len(results)} of the {len(states)} states that the next position takes"
        raise Fault("T402", message, span)
    for number, (before, after) in enumerate(zip(states, results[: len(states)], strict=True), 1):
        if before.type != after.type:
            message = f"state {number} begins as {before.type}, and the step makes it {after.type}"
            raise Fault("T402", message, span, help="a step gives the states first, each as it was, then its results")


def _without(type: Type, axis: int) -> tuple[Any, ...]:
    return (*type.dims[:axis], *type.dims[axis + 1 :])


def _stacked(type: Type, axis: int, length: Any, span: Span) -> Type:
    """A result of one position as one of all positions."""
    if axis > len(type.dims):
        raise Fault("T402", f"a result {type} of a step cannot have the positions as its axis {axis}", span)
    return Type(type.dtype, (*type.dims[:axis], length, *type.dims[axis:]))
