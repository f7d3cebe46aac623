"""Ops applied: operands sorted out and converted, settings read, weights made, and a node of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tfdsl.ir.elaborate import attributes as settings
from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.expressions import as_tensor, cast, promote
from tfdsl.ir.elaborate.named_axes import open_einsum, repeat_axes, repeated
from tfdsl.ir.elaborate.nodes import make_node, shape_fault
from tfdsl.ir.elaborate.own_weights import named_weight, own_weight
from tfdsl.ir.elaborate.patterns import number_of
from tfdsl.ir.elaborate.values import ABSENT, Fault, Given, MaskValue, Place, Results, Tensor, kind_of
from tfdsl.ir.masks import FULL
from tfdsl.ir.op import Op, Operand, ShapeError
from tfdsl.ir.ops import OPS, XAVIER
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Label, Span


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
        return _apply_weight(body, op, given, place, positional, span)
    if op.name == "route":
        from tfdsl.ir.elaborate.routing import apply_route

        return apply_route(body, op, given, place, positional, tree)
    if op.name == "scan":
        from tfdsl.ir.elaborate.scanning import apply_scan

        return apply_scan(body, op, given, place, positional, tree)
    if op.name in _REDUCTIONS and "axis" in given and isinstance(given["axis"].value, tuple):
        return _reduce_axes(body, op, given, place, name, positional, tree)
    operands, spans, given = _operands(body, op, given, positional, span)
    filled = settings.read(body, op, given, operands, span)
    if op.name == "rearrange" and operands[0] is not None:
        sizes = dict(filled.get("sizes") or ())
        new = repeated(filled["pattern"], sizes)
        if new:
            return repeat_axes(body, operands[0], filled["pattern"], sizes, new, span)
    mask = filled.get("mask")
    if isinstance(mask, MaskValue):
        filled["mask"] = mask.mask if mask.mask != FULL else None
        operands += list(mask.operands)
        spans += [given["mask"].span] * len(mask.operands)
    operands = _convert(body, op, operands, spans)
    operands = _add_weights(body, op, operands, filled, place, span, spans)
    if op.name == "einsum":
        filled["pattern"] = _opened(filled["pattern"], operands, span)
    spelled = body.spellings(given)
    settings.constrain(body, op, operands, filled, span)
    places = {key: each.span for key, each in given.items()}
    return make_node(body, op.name, operands, filled, span, spans, name=name, spelled=spelled, settings=places)


def _opened(pattern: str, operands: Sequence[Tensor | None], span: Span) -> str:
    """An einsum pattern without `...`."""
    try:
        return open_einsum(pattern, [len(each.type.dims) for each in operands if each is not None])
    except ShapeError as error:
        raise Fault(error.code, f"einsum: {error.message}", span) from None


_REDUCTIONS = ("sum", "mean", "max", "min")


def _reduce_axes(
    body: Body,
    op: Op,
    given: Mapping[str, Given],
    place: Place,
    name: str,
    positional: list[Given],
    tree: syntax.Call,
) -> Any:
    """`sum(x, axis=[1, 2])`: one axis after another, the last first, so that the others keep their numbers."""
    listed = given["axis"]
    if len(positional) != 1:
        raise _wrong_count(op, op.data, positional, tree.span)
    rank = len(as_tensor(body, positional[0].value, positional[0].span).type.dims)
    axes = [settings.axis(replace(listed, value=each), rank) for each in listed.value]
    if not axes or len(set(axes)) < len(axes):
        what = "names an axis twice" if axes else "names no axis"
        raise Fault("T304", f"`axis` {what}", listed.span)
    for axis in sorted(axes, reverse=True):
        one = {**given, "axis": Given(axis, None, None, listed.span)}
        made = apply_op(body, op, one, place, name, positional, tree)
        positional = [Given(made, None, None, tree.span)]
    return made


def _apply_weight(
    body: Body, op: Op, given: Mapping[str, Given], place: Place, positional: list[Given], span: Span
) -> Tensor:
    if positional:
        raise Fault("T302", "weight takes no inputs", positional[0].span, help=op.signature())
    filled = settings.read(body, op, given, [], span)
    tensor = named_weight(body, place, filled["shape"], filled.get("init") or XAVIER, span)
    written = {"shape": given["shape"]}
    if "init" in given:
        written["init"] = replace(given["init"], expression=number_of(given["init"].expression))
    tensor.node.spelled.update(body.spellings(written))
    return tensor


def _operands(
    body: Body, op: Op, given: Mapping[str, Given], positional: list[Given], span: Span
) -> tuple[list[Tensor | None], list[Span], dict[str, Given]]:
    """The operands in the order of the record, their spans, and what is left of the settings."""
    plain = [operand for operand in op.data if not operand.variadic]
    if not plain and op.data:
        tensors = [as_tensor(body, each.value, each.span) for each in _flatten(positional)]
        if not tensors:
            raise Fault("T302", f"{op.name} needs at least one tensor", span, help=op.signature())
        return list(tensors), [each.span for each in _flatten(positional)], dict(given)
    if len(positional) != len(plain):
        raise _wrong_count(op, plain, positional, span)
    found: list[Tensor | None] = []
    spans: list[Span] = []
    rest = dict(given)
    waiting = list(positional)
    for operand in op.operands:
        if operand.variadic:
            continue
        each = waiting.pop(0) if operand in plain else _by_keyword(op, operand, rest)
        absent = each is None or each.value is ABSENT or each.value is None
        wanted = _wanted(op, operand, positional)
        found.append(None if absent else as_tensor(body, each.value, each.span, wanted))  # type: ignore[union-attr]
        _spell_number(body, found[-1], each)
        spans.append(each.span if each is not None else span)
        if absent and operand in plain:
            raise Fault(
                "T308",
                f"{op.name} is given an input that is not there",
                spans[-1],
                help="`given(x)` asks whether it is",
            )
    return found, spans, rest


def _wrong_count(op: Op, plain: Sequence[Operand], positional: list[Given], span: Span) -> Fault:
    """The fault of too few or too many inputs, at the first that is too many."""
    names = ", ".join(operand.name for operand in plain)
    count = f"{len(positional)} input{'s' if len(positional) != 1 else ''}"
    extra = positional[len(plain)] if len(positional) > len(plain) else None
    help_ = op.signature()
    if extra is not None and not isinstance(extra.value, (Tensor, Results)):
        help_ = f"settings are given by keyword: {help_}"
    return Fault("T302", f"{op.name} takes ({names}), and is given {count}", extra.span if extra else span, help=help_)


def _spell_number(body: Body, tensor: Tensor | None, given: Given | None) -> None:
    """Note on a constant what the spec wrote for it."""
    if tensor is None or given is None or given.expression is None or given.body is None:
        return
    if tensor.region is body.region and tensor.node.op == "constant" and body.sees(given.body.frame):
        tensor.node.spelled["value"] = given.expression


def _flatten(positional: Sequence[Given]) -> list[Given]:
    flat = []
    for each in positional:
        parts = each.value.tensors if isinstance(each.value, Results) else (each.value,)
        if isinstance(each.value, tuple):
            parts = each.value
        flat += [Given(part, None, None, each.span) for part in parts]
    return flat


def _wanted(op: Op, operand: Operand, positional: Sequence[Given]) -> str | None:
    """The element type that a number becomes: floats where floats are needed, or stand beside it in a `where`."""
    beside = [each.value for each in positional[1:]] if op.name == "where" and operand.dtype == "any" else []
    floats = any(isinstance(x, float) or (isinstance(x, Tensor) and x.type.dtype == "float") for x in beside)
    return "float" if operand.dtype == "float" or floats else None


def _by_keyword(op: Op, operand: Operand, rest: dict[str, Given]) -> Given | None:
    """An optional or weight operand, if its keyword gives a tensor (and not the setting of the same name)."""
    each = rest.get(operand.name)
    if each is None or (op.attribute(operand.name) and not isinstance(each.value, Tensor)):
        return None
    if operand.weight and not isinstance(each.value, Tensor) and each.value is not None and each.value is not ABSENT:
        raise Fault("T301", f"`{operand.name}` is a tensor, not {kind_of(each.value)}", each.span)
    return rest.pop(operand.name)


def _convert(body: Body, op: Op, operands: list[Tensor | None], spans: list[Span]) -> list[Tensor | None]:
    """Operands in the element types that the op takes; integers become floats where floats are needed."""
    if [(o.dtype, o.weight) for o in op.operands] in (
        [("number", False)] * 2,
        [("float", False)] * 2,
    ) and op.name != "matmul":
        dtype = "float" if op.operands[0].dtype == "float" else None
        return list(promote(body, tuple(operands), tuple(spans), dtype))
    if op.name == "where":
        operands = [operands[0], *promote(body, tuple(operands[1:]), tuple(spans[1:]), None)]
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
            raise _wrong_dtype(op, operand, tensor, spans[place])
        converted.append(tensor)
    return converted


def _wrong_dtype(op: Op, operand: Operand, tensor: Tensor, span: Span) -> Fault:
    wanted = "float" if operand.dtype == "number" else operand.dtype
    origin = tensor.node.span
    fault = Fault(
        "T403",
        f"{op.name} takes {operand.dtype} for `{operand.name}`, not {kind_of(tensor)}",
        span,
        help=f'cast(x, to="{wanted}") converts' if wanted != "bool" else "a comparison gives bool: `x > 0`",
    )
    return fault.because([Label(origin, str(tensor.type))] if origin else [])


def _add_weights(
    body: Body,
    op: Op,
    operands: list[Tensor | None],
    filled: dict[str, Any],
    place: Place,
    span: Span,
    spans: list[Span],
) -> list[Tensor | None]:
    if op.weights is None:
        return operands
    gives_any = any(o.weight and t is not None for o, t in zip(op.operands, operands, strict=False))
    missing = [o for o, t in zip(op.operands, operands, strict=False) if o.weight and t is None]
    if gives_any:  # those beside it that are optional are then left out: `linear(x, weight=w)` has no bias
        missing = [operand for operand in missing if not operand.optional]
    if not missing:
        return operands
    types = [None if tensor is None else tensor.type for tensor in operands]
    try:
        wanted = op.weights(types, op.fill(filled))
    except ShapeError as error:
        raise shape_fault(op.name, error, operands, span, spans) from None
    result = list(operands)
    for index, operand in enumerate(op.operands):
        if operand.name in wanted and operand in missing:
            result[index] = own_weight(body, place, operand.name, *wanted[operand.name], span)
    return result


# --- calls that are written like ops and become others ---------------------------------------------------------------


def _project(body: Body, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call) -> Any:
    """`project(x, w)`: `x @ w.T`, a linear layer with a weight that exists already."""
    if len(positional) != 2 or keywords:
        at = next(iter(keywords.values())).at if keywords else tree.span
        raise Fault("T302", "project takes (x, weight) and no settings", at)
    x, weight = (as_tensor(body, each.value, each.span) for each in positional)
    spans = [each.span for each in positional]
    return make_node(body, "linear", [cast(body, x, "float"), weight, None], {}, tree.span, spans, name="project")


def _expand(body: Body, positional: list[Given], keywords: dict[str, Given], tree: syntax.Call) -> Any:
    """`expand(x, shape=[...])`, or `expand(x, like=y, axis=n)`: one axis as long as that of another tensor."""
    if len(positional) != 1:
        raise Fault("T302", "expand takes (x, shape) or (x, like, axis)", tree.span)
    if "like" not in keywords:
        return apply_op(body, OPS["expand"], keywords, Place("expand"), "expand", positional, tree)
    x = as_tensor(body, positional[0].value, positional[0].span)
    like = as_tensor(body, keywords["like"].value, keywords["like"].span)
    for keyword in keywords:
        if keyword not in ("like", "axis"):
            raise Fault("T302", f"expand has no setting `{keyword}` beside `like`", keywords[keyword].at)
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
