"""Layers configured and applied: an op becomes a node with its weights, a block becomes the nodes of its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfdsl.ir.dims import Dim
from tfdsl.ir.elaborate import attributes as settings
from tfdsl.ir.elaborate.body import Body, is_unknown
from tfdsl.ir.elaborate.expressions import as_tensor, callable_names, cast, evaluate, promote, weight_tensor
from tfdsl.ir.elaborate.values import ABSENT, Fault, Given, Instance, Layer, MaskValue, Place, Results, Tensor, kind_of
from tfdsl.ir.graph import Node, Type, Value
from tfdsl.ir.op import Op, Operand, ShapeError
from tfdsl.ir.ops import OPS, XAVIER, infer
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span, did_you_mean
from tfdsl.language.modules import Declared


def configure(
    body: Body,
    tree: syntax.Call,
    positional: list[Given],
    keywords: dict[str, Given],
    hint: str | None,
    piped: bool,
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
    if not positional and not takes_none:
        return layer
    name = layer.name or (hint if takes_none and hint else tree.callee.parts[-1].text)
    return _apply_named(body, layer, name, positional, tree)


def _callee(body: Body, tree: syntax.Call) -> Layer | Instance:
    value: Any
    if len(tree.callee.parts) > 1:
        value = evaluate(body, tree.callee)
    else:
        name = tree.callee.text
        value = body.lookup(name)
        if is_unknown(value) or not isinstance(value, (Layer, Instance)):
            declared = body.module.find(name)
            op = OPS.get(name)
            if declared is not None:
                return Layer(declared, {}, None, tree.span)
            if op is not None and not op.inner:
                return Layer(op, {}, None, tree.span)
            if is_unknown(value):
                help_ = did_you_mean(name, [*body.names(), *callable_names(body)])
                raise Fault("T201", f"nothing is called `{name}` here", tree.callee.span, help=help_)
    if not isinstance(value, (Layer, Instance)):
        raise Fault("T301", f"`{tree.callee.text}` is {kind_of(value)}, and cannot be applied", tree.callee.span)
    return value


def _take_leading(op: Op, positional: list[Given], layer: Layer) -> tuple[list[Given], Layer]:
    """Take the setting that may be given by position (the pattern of `rearrange`) out of the inputs."""
    rest = [given for given in positional if isinstance(given.value, (Tensor, Results))]
    leading = [given for given in positional if not isinstance(given.value, (Tensor, Results))]
    if not leading:
        return rest, layer
    if len(leading) > 1 or op.leading in layer.given:
        raise Fault("T302", f"{op.name} takes one {op.leading}", leading[-1].span, help=op.signature())
    return rest, Layer(layer.callee, {**layer.given, op.leading: leading[0]}, layer.name, layer.span)  # type: ignore[dict-item]


def _apply_named(body: Body, layer: Layer, name: str, positional: list[Given], tree: syntax.Call) -> Any:
    span = tree.name.span if tree.name else tree.callee.span
    known = body.place.claims.get(name)
    if known is None or known[0] is not body.application:
        body.place.claim(name, body.application, span)
        return apply(body, layer, body.place.child(name), name, positional, tree)
    # The name is taken; that matters only where both have weights.
    place = Place(body.place.join(name))
    result = apply(body, layer, place, name, positional, tree)
    if _has_weights(place):
        if _has_weights(body.place.child(name)):
            raise Fault(
                "T501",
                f"two weights would have the path `{_first_weight(place)}`",
                span,
                note="the second",
                others=(Label(known[1], "the first"),),
                help="name each with `as`",
            )
        body.place.children[name] = place
        body.place.claims[name] = (body.application, span)
    return result


def _has_weights(place: Place) -> bool:
    return bool(place.weights) or any(_has_weights(child) for child in place.children.values())


def _first_weight(place: Place) -> str:
    for name in place.weights:
        return place.join(name)
    return next(_first_weight(child) for child in place.children.values() if _has_weights(child))


def _apply_instance(
    body: Body, instance: Instance, tree: syntax.Call, positional: list[Given], keywords: dict[str, Given]
) -> Any:
    if tree.name is not None:
        raise Fault("T504", f"`{tree.callee.text}` has a name already", tree.name.span, help="leave out the `as`")
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
                given.span,
                help="settings are given where the layer is bound",
            )
    if isinstance(callee, Op) and callee.leading:
        positional, layer = _take_leading(callee, positional, layer)
    layer = Layer(callee, {**layer.given, **keywords}, layer.name, tree.span)
    return apply(body, layer, instance.place, instance.place.path.rpartition(".")[2], positional, tree)


def apply(body: Body, layer: Layer, place: Place, name: str, positional: list[Given], tree: syntax.Call) -> Any:
    """Apply a layer whose weights live at `place`."""
    if isinstance(layer.callee, Declared):
        from tfdsl.ir.elaborate.blocks import apply_block

        return apply_block(body, layer, place, positional, tree.span)
    return apply_op(body, layer.callee, layer.given, place, name, positional, tree)


def base_block(declared: Declared) -> syntax.Block:
    """The block that a model is, or is a variant of."""
    while isinstance(declared.item, syntax.Variant):
        found = declared.module.find(declared.item.base.text)
        assert found is not None, "checked when the module was loaded"
        declared = found
    return declared.item


# --- ops -------------------------------------------------------------------------------------------------------------


def apply_op(
    body: Body,
    op: Op,
    given: Mapping[str, Given],
    place: Place,
    name: str,
    positional: list[Given],
    tree: syntax.Call,
) -> Any:
    """One op applied: a node with weights at `place`."""
    span = tree.span
    if op.name == "weight":
        return _apply_weight(body, op, given, place, name, span)
    operands, spans, given = _operands(body, op, given, positional, span)
    filled = settings.read(body, op, given, operands, span)
    mask = filled.get("mask")
    if isinstance(mask, MaskValue):
        filled["mask"] = mask.mask if mask.mask != settings.FULL else None
        operands += list(mask.operands)
    operands = _convert(body, op, operands, spans)
    operands = _add_weights(body, op, operands, filled, place, span, spans)
    spelled = {
        key: each.expression
        for key, each in given.items()
        if each.expression is not None and each.body is not None and body.sees(each.body.frame)
    }
    settings.constrain(body, op, operands, filled, span)
    return make_node(body, op.name, operands, filled, span, spans, name=name, spelled=spelled)


def _apply_weight(body: Body, op: Op, given: Mapping[str, Given], place: Place, name: str, span: Span) -> Tensor:
    filled = settings.read(body, op, given, [], span)
    path, _, last = place.path.rpartition(".")
    type_ = Type("float", filled["shape"])
    init = filled.get("init") or XAVIER
    # The place is that of the weight itself: `cls = weight(...)` is `cls`, not `cls.weight`.
    body.place.weights[last] = (type_, init, span)
    tensor = weight_tensor(body, place.path, type_, init, span)
    spelled = {"shape": given["shape"].expression} if body.sees(given["shape"].body.frame) else {}  # type: ignore[union-attr]
    tensor.node.spelled.update({k: v for k, v in spelled.items() if v is not None})
    place.weights.clear()
    return tensor


def _operands(
    body: Body, op: Op, given: Mapping[str, Given], positional: list[Given], span: Span
) -> tuple[list[Tensor | None], list[Span], dict[str, Given]]:
    """The operands in the order of the record, their spans, and what is left of the settings."""
    data = [operand for operand in op.operands if not operand.weight and not operand.optional]
    variadic = bool(data) and data[-1].variadic and len(data) == 1
    plain = [operand for operand in data if not operand.variadic]
    if variadic:
        tensors = [as_tensor(body, each.value, each.span) for each in _flatten(positional)]
        if not tensors:
            raise Fault("T302", f"{op.name} needs at least one tensor", span, help=op.signature())
        return list(tensors), [each.span for each in _flatten(positional)], dict(given)
    if len(positional) != len(plain):
        names = ", ".join(operand.name for operand in plain)
        count = f"{len(positional)} input{'s' if len(positional) != 1 else ''}"
        raise Fault("T302", f"{op.name} takes ({names}), and is given {count}", span, help=op.signature())
    found: list[Tensor | None] = []
    spans: list[Span] = []
    rest = dict(given)
    waiting = list(positional)
    for operand in op.operands:
        if operand.variadic:
            continue
        each = waiting.pop(0) if operand in plain else _by_keyword(op, operand, rest)
        absent = each is None or each.value is ABSENT or each.value is None
        found.append(None if absent else as_tensor(body, each.value, each.span, _wanted(operand)))  # type: ignore[union-attr]
        spans.append(each.span if each is not None else span)
        if absent and operand in plain:
            raise Fault("T308", f"{op.name} is given an input that is not there", span, help="`given(x)` asks whether it is")
    return found, spans, rest


def _flatten(positional: Sequence[Given]) -> list[Given]:
    flat = []
    for each in positional:
        parts = each.value.tensors if isinstance(each.value, Results) else (each.value,)
        if isinstance(each.value, tuple):
            parts = each.value
        flat += [Given(part, None, None, each.span) for part in parts]
    return flat


def _wanted(operand: Operand) -> str | None:
    return "float" if operand.dtype == "float" else None


def _by_keyword(op: Op, operand: Operand, rest: dict[str, Given]) -> Given | None:
    """An optional or weight operand, if its keyword gives a tensor (and not the setting of the same name)."""
    each = rest.get(operand.name)
    if each is None or (op.attribute(operand.name) and not isinstance(each.value, Tensor)):
        return None
    return rest.pop(operand.name)


def _convert(body: Body, op: Op, operands: list[Tensor | None], spans: list[Span]) -> list[Tensor | None]:
    """Operands in the element types that the op takes; integers become floats where floats are needed."""
    if [(o.dtype, o.weight) for o in op.operands] in ([("number", False)] * 2, [("float", False)] * 2) and op.name != "matmul":
        dtype = "float" if op.operands[0].dtype == "float" else None
        return list(promote(body, tuple(operands), tuple(spans), dtype))
    converted: list[Tensor | None] = []
    for place, tensor in enumerate(operands):
        operand = op.operands[min(place, len(op.operands) - 1)]
        if tensor is None or operand.dtype == "any":
            converted.append(tensor)
            continue
        kind = tensor.type.dtype
        if operand.dtype == "float" and kind == "int":
            converted.append(cast(body, tensor, "float"))
            continue
        if kind != operand.dtype and not (operand.dtype == "number" and kind != "bool"):
            raise Fault(
                "T403",
                f"{op.name} takes {operand.dtype} for `{operand.name}`, not {kind_of(tensor)}",
                spans[place],
                help=f'cast(x, to="{"float" if operand.dtype == "number" else operand.dtype}") converts',
            )
        converted.append(tensor)
    return converted


def _add_weights(
    body: Body,
    op: Op,
    operands: list[Tensor | None],
    filled: dict[str, Any],
    place: Place,
    span: Span,
    spans: list[Span],
) -> list[Tensor | None]:
    if op.weights is None or any(o.weight and t is not None for o, t in zip(op.operands, operands, strict=False)):
        return operands
    types = [None if tensor is None else tensor.type for tensor in operands]
    try:
        wanted = op.weights(types, op.fill(filled))
    except ShapeError as error:
        raise shape_fault(op.name, error, operands, span, spans) from None
    result = list(operands)
    for index, operand in enumerate(op.operands):
        if operand.name in wanted and operand.weight:
            result[index] = own_weight(body, place, operand.name, *wanted[operand.name], span)
    return result


def own_weight(body: Body, place: Place, name: str, shape: tuple[Any, ...], init: Any, span: Span) -> Tensor:
    """A weight at a place, which every application of the layer shares."""
    type_ = Type("float", shape)
    known = place.weights.get(name)
    if known is not None and known[0] != type_:
        raise Fault(
            "T505",
            f"the weight `{place.join(name)}` is shared, and would be both {known[0]} and {type_}",
            span,
            note=f"here it is {type_}",
            others=(Label(known[2], f"here it is {known[0]}"),),
        )
    if known is None:
        for dim in shape:
            if isinstance(dim, Dim):
                raise Fault("T407", f"the weight `{place.join(name)}` would have a size that only run time knows: {type_}", span)
            if dim < 1:
                raise Fault("T407", f"the weight `{place.join(name)}` would be {type_}", span)
        place.weights[name] = (type_, init, span)
    return weight_tensor(body, place.join(name), type_, init, span)


def prepare_weights(instance: Instance) -> None:
    """Make the weights of a layer that depend on no input known before it is applied (an embedding's table)."""
    layer = instance.layer
    if isinstance(layer.callee, Op) and layer.callee.name == "embedding" and not instance.place.weights:
        size, dim = (layer.given[name].value if name in layer.given else None for name in ("size", "dim"))
        if isinstance(size, int) and isinstance(dim, int) and size > 0 and dim > 0:
            wanted = layer.callee.weights([None, None], layer.callee.fill({"size": size, "dim": dim}))  # type: ignore[misc]
            for name, (shape, init) in wanted.items():
                instance.place.weights[name] = (Type("float", shape), init, layer.span)


def node_of(
    body: Body, op: str, tensors: Sequence[Tensor], attributes: dict[str, Any], span: Span, spans: Sequence[Span]
) -> Tensor:
    """A node of one result over tensors."""
    made = make_node(body, op, list(tensors), attributes, span, spans)
    assert isinstance(made, Tensor)
    return made


def make_node(
    body: Body,
    op: str,
    operands: Sequence[Tensor | None],
    attributes: dict[str, Any],
    span: Span,
    spans: Sequence[Span],
    *,
    name: str = "",
    spelled: Mapping[str, syntax.Expression] | None = None,
) -> Any:
    """A node, its shapes inferred and checked; one tensor, or `Results` for several."""
    body.session.spend(span)
    try:
        types = infer(op, [None if tensor is None else tensor.type for tensor in operands], attributes)
    except ShapeError as error:
        raise shape_fault(op, error, operands, span, spans) from None
    for each in types:
        for dim in each.dims:
            _check_dim(body, op, dim, span)
    inputs = [None if tensor is None else body.region.use(tensor) for tensor in operands]
    record = OPS[op]
    kept = {k: v for k, v in attributes.items() if (a := record.attribute(k)) is None or a.required or v != a.default}
    node: Node = body.region.graph.add(
        op, inputs, kept, types, span=span, scope=body.frames, name=name or op, spelled=dict(spelled or {})
    )
    tensors = tuple(Tensor(Value(node.id, index), each, body.region) for index, each in enumerate(types))
    return tensors[0] if len(tensors) == 1 else Results(tensors, (None,) * len(tensors))


def _check_dim(body: Body, op: str, dim: Any, span: Span) -> None:
    if isinstance(dim, int):
        if dim < 0 or dim > 2**48:
            raise Fault("T407", f"{op} would make an axis of {dim:,}", span)
    elif not body.session.facts.exact(dim, 1):
        raise Fault(
            "T405",
            f"{op} would make an axis of {dim}, which is not known to be a whole number",
            span,
            help="a `require x % n == 0` before it makes the division exact",
        )


def shape_fault(
    op: str, error: ShapeError, operands: Sequence[Tensor | None], span: Span, spans: Sequence[Span]
) -> Fault:
    """The fault for a shape rule's refusal, with the place that made the operand at fault."""
    others: list[Label] = []
    place = error.operand
    at = span
    if place is not None and place < len(operands):
        if place < len(spans) and spans[place].source is span.source:
            at = spans[place]
        for index, tensor in enumerate(operands):
            if tensor is None or index > 2 or len(others) >= 2:
                continue
            origin = tensor.node.span
            if origin is not None and (origin.start, origin.end) != (at.start, at.end) and tensor.node.op != "constant":
                others.append(Label(origin, f"{tensor.type}" if tensor.node.op != "weight" else f"its weight is {tensor.type}"))
    return Fault(error.code, f"{op}: {error.message}", at, others=tuple(others), help=error.help)


# --- calls that are written like ops and become others ---------------------------------------------------------------


def _project(body: Body, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call) -> Any:
    """`project(x, w)`: `x @ w.T`, a linear layer with a weight that exists already."""
    if len(positional) != 2 or keywords:
        raise Fault("T302", "project takes (x, weight)", tree.span)
    x, weight = (as_tensor(body, each.value, each.span) for each in positional)
    spans = [each.span for each in positional]
    return make_node(body, "linear", [cast(body, x, "float"), weight, None], {}, tree.span, spans, name="project")


def _expand(body: Body, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call) -> Any:
    """`expand(x, shape=[...])`, or `expand(x, like=y, axis=n)`: one axis as long as that of another tensor."""
    if len(positional) != 1:
        raise Fault("T302", "expand takes (x, shape) or (x, like, axis)", tree.span)
    if "like" not in keywords:
        return apply_op(body, OPS["expand"], keywords, Place(""), "expand", positional, tree)
    x = as_tensor(body, positional[0].value, positional[0].span)
    like = as_tensor(body, keywords["like"].value, keywords["like"].span)
    for keyword in keywords:
        if keyword not in ("like", "axis"):
            raise Fault("T302", f"expand has no setting `{keyword}` beside `like`", keywords[keyword].span)
    shape = list(like.type.dims)
    if "axis" in keywords:
        axis = settings.axis(keywords["axis"], min(len(x.type.dims), len(shape)))
        shape = list(x.type.dims)
        shape[axis] = like.type.dims[axis]
    return make_node(body, "expand", [x], {"shape": tuple(shape)}, tree.span, [positional[0].span], name="expand")


SUGAR: dict[str, Callable[[Body, list[Given], dict[str, Given], syntax.Call], Any]] = {
    "project": _project,
    "expand": _expand,
}
