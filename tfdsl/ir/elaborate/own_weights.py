"""The weights of layers: where they live, and the faults of two that would live at one path."""

from __future__ import annotations

from typing import Any

from tfdsl.ir.dims import Dim, product
from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.values import Fault, Instance, Place, Tensor
from tfdsl.ir.graph import Initializer, Type, Value
from tfdsl.ir.op import Op
from tfdsl.language.diagnostics import Label, Span

LARGEST_WEIGHT = 2**48  # elements


def own_weight(body: Body, place: Place, name: str, shape: tuple[Any, ...], init: Initializer, span: Span) -> Tensor:
    """A weight at a place, which every application of the layer shares."""
    known = _settle(body, place, place, name, Type("float", shape), init, span)
    return weight_tensor(body, place.join(name), known[0], known[1], span)


def named_weight(body: Body, place: Place, shape: tuple[Any, ...], init: Initializer, span: Span) -> Tensor:
    """A weight that is a layer by itself: `cls = weight(...)` is `cls`, not `cls.weight`."""
    assert place.parent is not None
    if not place.is_weight:
        refuse_clash(place)
        place.parent.weights.pop(place.name, None)
    known = _settle(body, place.parent, place, place.name, Type("float", shape), init, span)
    place.is_weight = True
    return weight_tensor(body, place.path, known[0], known[1], span)


def prepare_weights(body: Body, instance: Instance) -> None:
    """Make the weights of a layer that depend on no input known before it is applied (an embedding's table)."""
    layer, place = instance.layer, instance.place
    if isinstance(layer.callee, Op) and layer.callee.name == "embedding" and not place.weights:
        size, dim = (layer.given[name].value if name in layer.given else None for name in ("size", "dim"))
        if isinstance(size, int) and isinstance(dim, int) and size > 0 and dim > 0:
            assert layer.callee.weights is not None
            wanted = layer.callee.weights([None, None], layer.callee.fill({"size": size, "dim": dim}))
            for name, (shape, init) in wanted.items():
                _settle(body, place, place, name, Type("float", shape), init, layer.span)


def _settle(
    body: Body, holder: Place, place: Place, name: str, type_: Type, init: Initializer, span: Span
) -> tuple[Type, Initializer, Span]:
    """The weight of a name at its holder: the one that is there, or a new one."""
    known = holder.weights.get(name)
    if known is None:
        if not body.session.symbolic:
            check_weight(holder.join(name), type_, span)
        refuse_clash(place)
        known = holder.weights[name] = (type_, init, span)
    elif known[0] != type_:
        raise Fault(
            "T505",
            f"the weight `{holder.join(name)}` is shared, and would be both {known[0]} and {type_}",
            span,
            note=f"here it is {type_}",
            others=(Label(known[2], f"here it is {known[0]}"),),
            help="bind two layers, one for each shape",
        )
    return known


def weight_tensor(body: Body, path: str, type_: Type, init: Initializer, span: Span) -> Tensor:
    """A reference to a weight from this body."""
    name = path.rpartition(".")[2]
    attributes = {"path": path, "shape": type_.dims, "init": init}
    node = body.region.graph.add("weight", (), attributes, (type_,), span=span, scope=body.frames, name=name)
    return Tensor(Value(node.id), type_, body.region)


def check_weight(path: str, type_: Type, span: Span) -> None:
    """Refuse a weight of no size, of a size that only run time knows, or of an absurd one."""
    for dim in type_.dims:
        if isinstance(dim, Dim):
            raise Fault(
                "T407",
                f"the weight `{path}` would be {type_}, and {dim} is known at run time only",
                span,
                help="a weight's size is made of parameters and numbers",
            )
        if dim < 1:
            raise Fault("T407", f"the weight `{path}` would be {type_}", span)
    elements = product(type_.dims)
    assert isinstance(elements, int)
    if elements > LARGEST_WEIGHT:
        raise Fault("T407", f"the weight `{path}` would have {elements:,} elements", span)


def refuse_clash(place: Place) -> None:
    """Refuse weights at a path that another layer's weights have taken."""
    clash = place.clash()
    if clash is None:
        return
    second, first = clash
    assert second.span is not None and first.span is not None
    raise Fault(
        "T501",
        f"two layers would have their weights at `{second.path}`",
        second.span,
        note="the second",
        others=(Label(first.span, "the first"),),
        help="name each with `as`",
    )
