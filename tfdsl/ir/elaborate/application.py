"""Layers configured and applied: settings are gathered, weights get their place, and an op or a block does the rest."""

from __future__ import annotations

from typing import Any

from tfdsl.ir.elaborate.body import Body, is_unknown
from tfdsl.ir.elaborate.expressions import evaluate, refuse_recursion, unknown
from tfdsl.ir.elaborate.op_application import apply_op
from tfdsl.ir.elaborate.values import Fault, Given, Instance, Layer, Place, Results, Tensor, kind_of
from tfdsl.ir.op import Op
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label
from tfdsl.language.modules import Declared, base_block


def configure(
    body: Body,
    tree: syntax.Call,
    positional: list[Given],
    keywords: dict[str, Given],
    hint: str | None,
) -> Any:
    """A call of a layer: applied if it is given inputs (or takes none), else the layer with its settings."""
    callee = _callee(body, tree)
    if isinstance(callee, Instance):
        return _apply_instance(body, callee, tree, positional, keywords)
    layer = Layer(callee.callee, {**callee.given, **keywords}, tree.name.text if tree.name else callee.name, tree.span)
    op = layer.callee if isinstance(layer.callee, Op) else None
    if op is not None and op.leading:
        positional, layer = _take_leading(op, positional, layer)
    takes_none = not (op.operands if op else base_block(layer.callee).inputs)  # type: ignore[arg-type]
    if not positional and not takes_none and not _gives_all(layer):
        return layer
    own = tree.callee.parts[-1].text if isinstance(tree.callee, syntax.Path) else layer.label
    own = op.place if op is not None and op.place else own
    name = layer.name or (hint if takes_none and hint else own)
    span = tree.name.span if tree.name else tree.callee.span
    return apply(body, layer, body.place.claim(name, body.application, span), name, positional, tree)


def _gives_all(layer: Layer) -> bool:
    """Whether all that a block needs is given by name: `Attention(x=x)`."""
    if isinstance(layer.callee, Op):
        return False
    return all(each.name.text in layer.given for each in base_block(layer.callee).inputs if not each.optional)


def _callee(body: Body, tree: syntax.Call) -> Layer | Instance:
    if isinstance(tree.callee, syntax.Index):
        found = evaluate(body, tree.callee)
        if isinstance(found, (Layer, Instance)):
            return found
        raise Fault("T301", f"`{tree.callee.text}` is {kind_of(found)}, and cannot be applied", tree.callee.span)
    name = tree.callee.parts[0]
    value = evaluate(body, tree.callee) if len(tree.callee.parts) > 1 else body.lookup(name.text)
    if isinstance(value, (Layer, Instance)):
        return value
    declared, op = body.module.find(tree.callee.text), OPS.get(tree.callee.text)
    if declared is not None:
        refuse_recursion(body, declared, tree.callee.span)
        return Layer(declared, {}, None, tree.span)
    if op is not None and not op.inner:
        return Layer(op, {}, None, tree.span)
    if is_unknown(value):
        raise unknown(body, name.text, tree.callee.span)
    origin = body.where(name.text)
    raise Fault(
        "T301",
        f"`{tree.callee.text}` is {kind_of(value)}, and cannot be applied",
        tree.callee.span,
        others=(Label(origin, "bound here"),) if origin else (),
    )


def _take_leading(op: Op, positional: list[Given], layer: Layer) -> tuple[list[Given], Layer]:
    """Take the setting that may be given by position (the pattern of `rearrange`) out of the inputs."""
    rest = [given for given in positional if isinstance(given.value, (Tensor, Results))]
    leading = [given for given in positional if not isinstance(given.value, (Tensor, Results))]
    if not leading:
        return rest, layer
    assert op.leading is not None
    if len(leading) > 1 or op.leading in layer.given:
        raise Fault("T302", f"{op.name} takes one {op.leading}", leading[-1].span, help=op.signature())
    return rest, Layer(layer.callee, {**layer.given, op.leading: leading[0]}, layer.name, layer.span)


def _apply_instance(
    body: Body, instance: Instance, tree: syntax.Call, positional: list[Given], keywords: dict[str, Given]
) -> Any:
    bound = Label(instance.place.span or instance.layer.span, "bound here")
    if tree.name is not None:
        message = f"`{tree.callee.text}` has a name already"
        raise Fault("T504", message, tree.name.span, others=(bound,), help="leave out the `as`")
    layer = instance.layer
    callee = layer.callee
    inputs = (
        {o.name for o in callee.operands if not o.weight}
        if isinstance(callee, Op)
        else {each.name.text for each in base_block(callee).inputs}
    )
    for keyword, given in keywords.items():
        if keyword not in inputs:
            raise Fault(
                "T302",
                f"`{tree.callee.text}` is bound, and `{keyword}` is not one of its inputs",
                given.at,
                others=(bound,),
                help="settings are given where the layer is bound",
            )
    if isinstance(callee, Op) and callee.leading:
        positional, layer = _take_leading(callee, positional, layer)
    layer = Layer(callee, {**layer.given, **keywords}, layer.name, tree.span)
    return apply(body, layer, instance.place, instance.place.name, positional, tree)


def apply(body: Body, layer: Layer, place: Place, name: str, positional: list[Given], tree: syntax.Call) -> Any:
    """Apply a layer whose weights live at `place`."""
    if isinstance(layer.callee, Declared):
        from tfdsl.ir.elaborate.blocks import apply_block

        return apply_block(body, layer, place, positional, tree.span)
    return apply_op(body, layer.callee, layer.given, place, name, positional, tree)
