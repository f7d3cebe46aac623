"""`route`: a mixture of experts, one node that holds an expert's graph and runs it with each expert's own weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tfdsl.ir.dims import Size, product
from tfdsl.ir.elaborate.body import MOST_EXPERTS, Body, new_graph
from tfdsl.ir.elaborate.expressions import as_tensor, cast
from tfdsl.ir.elaborate.nodes import node_of
from tfdsl.ir.elaborate.values import Fault, Given, Instance, Layer, Place, Region, Tensor, kind_of
from tfdsl.ir.graph import Frame, Type, Value
from tfdsl.ir.op import Op
from tfdsl.ir.rows import Mixes, check_rows
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span

_AXES = "abcdefgh"


@dataclass
class _Route:
    """One application of `route`: what is routed, and to how many of which expert."""

    body: Body
    place: Place
    expert: Given
    count: int
    tree: syntax.Call
    captures: list[Tensor] = field(default_factory=list)


def apply_route(
    body: Body, op: Op, given: Mapping[str, Given], place: Place, positional: list[Given], tree: syntax.Call
) -> Tensor:
    """The result [..., out] of rows x [..., width] sent to the chosen experts [..., k] and weighed [..., k]."""
    x, chosen, weight = _operands(body, op, given, positional, tree.span)
    spans = [each.span for each in positional]
    route = _Route(body, place, given["expert"], _count(body, given["count"]), tree)
    leading = x.type.dims[:-1]
    x, chosen, weight = (_flat(body, each, span) for each, span in zip((x, chosen, weight), spans, strict=True))
    region, result = _elaborate_expert(route, x.type)
    node = body.region.graph.add(
        "route",
        (*(body.region.use(each) for each in (x, chosen, weight)), *(each.value for each in route.captures)),
        {"turns": (0,) * route.count, "path": place.path},
        (result,),
        name=place.name,
        scope=body.frames,
        span=tree.span,
        spelled=body.spellings({"turns": given["count"]}),
        bodies=(region.graph,),
    )
    return _unflat(body, Tensor(Value(node.id), result, body.region), leading, tree.span)


def _operands(
    body: Body, op: Op, given: Mapping[str, Given], positional: list[Given], span: Span
) -> tuple[Tensor, Tensor, Tensor]:
    if len(positional) != 3:
        message = f"route takes (x, chosen, weight), and is given {len(positional)} inputs"
        raise Fault("T302", message, span, help=op.signature())
    for name, each in given.items():
        if name not in ("expert", "count"):
            raise Fault("T302", f"route has no setting `{name}`", each.at, help=op.signature())
    for name in ("expert", "count"):
        if name not in given:
            raise Fault("T302", f"route needs `{name}`", span, help=op.signature())
    x, chosen, weight = (as_tensor(body, each.value, each.span) for each in positional)
    if chosen.type.dtype != "int":
        help_ = "the second result of top_k, or an argmax"
        raise Fault("T403", f"route takes int for `chosen`, not {kind_of(chosen)}", positional[1].span, help=help_)
    _check_shapes(x, chosen, weight, positional)
    return cast(body, x, "float"), chosen, cast(body, weight, "float")


def _check_shapes(x: Tensor, chosen: Tensor, weight: Tensor, positional: list[Given]) -> None:
    if not x.type.dims or not chosen.type.dims:
        which = 1 if x.type.dims else 0
        raise Fault("T401", "route: needs at least 1 axis", positional[which].span)
    if chosen.type.dims[:-1] != x.type.dims[:-1]:
        message = f"route: all axes but the last of x, {x.type}, and of `chosen`, {chosen.type}, must agree"
        raise Fault("T401", message, positional[1].span, note=f"this is {chosen.type}")
    if weight.type.dims != chosen.type.dims:
        message = f"route: `weight` is {weight.type}, and `chosen` is {chosen.type}"
        raise Fault("T401", message, positional[2].span, note=f"this is {weight.type}")


def _count(body: Body, given: Given) -> int:
    count = given.value
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise Fault("T306", f"the number of experts is a whole number above zero, not {kind_of(count)}", given.span)
    if count * body.turns > MOST_EXPERTS:
        message = f"{count * body.turns:,} experts are more than the {MOST_EXPERTS:,} that a model may have"
        raise Fault("T306", message, given.span)
    return count


def _flat(body: Body, tensor: Tensor, span: Span) -> Tensor:
    """A tensor [..., n] as rows [rows, n]."""
    rank = len(tensor.type.dims)
    if rank == 2:
        return tensor
    leading = _AXES[: rank - 1]
    pattern = f"{' '.join(leading)} z -> ({' '.join(leading)}) z" if leading else "z -> 1 z"
    return node_of(body, "rearrange", [tensor], {"pattern": pattern}, span, (span,))


def _unflat(body: Body, tensor: Tensor, leading: tuple[Size, ...], span: Span) -> Tensor:
    """Rows [rows, n] with their axes again."""
    if len(leading) == 1:
        return tensor
    axes = _AXES[: len(leading)]
    pattern = f"({' '.join(axes)}) z -> {' '.join(axes)} z" if leading else "1 z -> z"
    attributes: dict[str, Any] = {"pattern": pattern}
    if leading:
        attributes["sizes"] = tuple(zip(axes[1:], leading[1:], strict=True))
    return node_of(body, "rearrange", [tensor], attributes, span, (span,))


# --- the expert ------------------------------------------------------------------------------------------------------


def _elaborate_expert(route: _Route, rows: Type) -> tuple[Region, Type]:
    """The region of an expert over rows [rows, width], and the type of its result."""
    body, given = route.body, route.expert
    layer = given.value
    if not isinstance(layer, (Layer, Instance)):
        raise Fault("T301", f"`expert` is a layer, not {kind_of(layer)}", given.span)
    path = route.place.join("*")
    frame = Frame(path, "Expert", dict(body.frame.names), span=route.tree.span)
    region = Region(new_graph(path, frame), body.region, route.captures)
    star = route.place.children.setdefault("*", [Place(path, route.place)])[0]
    inside = Body(
        body.session,
        body.module,
        region,
        star,
        frame,
        (),
        outer=body,
        blocks=body.blocks,
        turns=body.turns * route.count,
        base=body.base,
    )
    result = _apply_expert(inside, layer, region.add_input("x", rows), route)
    region.graph.outputs.append(("y", region.use(result)))
    region.finish(region.graph.inputs[:1])
    _check_expert(route, region, rows, result)
    _adopt_frame(region)
    return region, result.type


def _apply_expert(inside: Body, layer: Layer | Instance, x: Tensor, route: _Route) -> Tensor:
    from tfdsl.ir.elaborate.application import apply

    span = route.expert.span
    place, own = (layer.place, layer.layer) if isinstance(layer, Instance) else (inside.place, layer)
    result = apply(inside, own, place, own.label, [Given(x, None, inside, span)], route.tree)
    if not isinstance(result, Tensor):
        raise Fault("T301", f"an expert gives one tensor, not {kind_of(result)}", span)
    return result


def _check_expert(route: _Route, region: Region, rows: Type, result: Tensor) -> None:
    """Refuse an expert that routing cannot run: rows must be its own affair, and it must have weights to differ by."""
    span = route.expert.span
    graph = region.graph
    for each in graph.regions():
        for name, _ in each.penalties:
            help_ = "take it from what goes into the route"
            raise Fault("T410", f"an expert has no penalties, and this has `{name}`", span, help=help_)
    if result.type.dtype != "float" or len(result.type.dims) != 2:
        raise Fault("T402", f"an expert makes {rows} into rows of floats, and this gives {result.type}", span)
    paths = [node.attributes["path"] for each in graph.regions() for node in each.nodes() if node.op == "weight"]
    if not any(path.startswith(f"{graph.name}.") for path in paths):
        help_ = "a layer that is bound elsewhere has its weights there: give the block, or the op with its settings"
        bound = route.expert.value
        at = bound.place.span if isinstance(bound, Instance) else None
        raise Fault(
            "T410",
            "the expert has no weights of its own, and all would be the same",
            span,
            others=(Label(at, "bound here"),) if at is not None else (),
            help=help_,
        )
    axes = [0, *(None for _ in graph.inputs[1:])]
    try:
        (axis,) = check_rows(graph, axes, product(rows.dims[:-1]))
    except Mixes as mixes:
        raise _mixes(mixes, span) from None
    if axis != 0:
        raise Fault("T402", f"an expert makes rows {rows} into rows, and {result.type} has none of its own", span)


def _mixes(mixes: Mixes, span: Span) -> Fault:
    at = mixes.node.span
    what = "this counts them" if mixes.counts else f"`{mixes.node.op}` does not"
    return Fault(
        "T410",
        f"an expert treats each row by itself, and {what}",
        span,
        others=(Label(at, "here rows meet" if not mixes.counts else "here"),) if at is not None and at != span else (),
        help="compute it before the route",
    )


def _adopt_frame(region: Region) -> None:
    """Let the frame of the expert's block be the region's: its path is `experts.*`, and stands there once."""
    graph = region.graph
    scopes = [node.scope for node in graph.nodes() if node.scope]
    if not scopes:
        return
    frame = scopes[0][0]
    for node in graph.nodes():
        node.scope = node.scope[1:]
    graph.frame = replace(frame, declared={})  # its settings are always given: no class has defaults for them
