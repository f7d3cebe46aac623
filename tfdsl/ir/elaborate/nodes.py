"""Nodes made and checked: shapes inferred by the op's rule, and a fault that shows what disagrees where one refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.values import Fault, Results, Tensor
from tfdsl.ir.graph import Node, Spelling, Value
from tfdsl.ir.op import ShapeError
from tfdsl.ir.ops import OPS, infer
from tfdsl.language.diagnostics import Label, Span

LARGEST_AXIS = 2**48


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
    spelled: Mapping[str, Spelling] | None = None,
    settings: Mapping[str, Span] | None = None,
) -> Any:
    """A node, its shapes inferred and checked; one tensor, or `Results` for several.

    `spans` are the places of the operands, `settings` those of the attributes.
    """
    body.session.spend(span)
    try:
        types = infer(op, [None if tensor is None else tensor.type for tensor in operands], attributes)
    except ShapeError as error:
        raise shape_fault(name or op, error, operands, span, spans, settings) from None
    for each in types:
        for dim in each.dims:
            _check_dim(body, name or op, dim, span)
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
        if dim < 0 or dim > LARGEST_AXIS:
            raise Fault("T407", f"{op} would make an axis of {dim:,}", span)
    elif not body.session.facts.exact(dim, 1):
        raise Fault(
            "T405",
            f"{op} would make an axis of {dim}, which is not known to be a whole number",
            span,
            help="a `require x % n == 0` before it makes the division exact",
        )


def shape_fault(
    op: str,
    error: ShapeError,
    operands: Sequence[Tensor | None],
    span: Span,
    spans: Sequence[Span],
    settings: Mapping[str, Span] | None = None,
) -> Fault:
    """The fault for a shape rule's refusal: at the operand that it names, and where all the operands come from."""
    shown = _OPERATORS.get(op, op)
    place = error.operand
    if place is None or place >= len(operands):
        at = (settings or {}).get("pattern", span) if error.code == "T406" else span
        return Fault(error.code, f"{shown}: {error.message}", at, help=error.help)
    at = spans[place] if place < len(spans) and spans[place].source is span.source else span
    wrong = operands[place]
    fault = Fault(
        error.code,
        f"{shown}: {error.message}",
        at,
        note=f"this is {wrong.type}" if wrong is not None and at != span else "",
        help=error.help,
    )
    if error.code != "T406":
        fault.because(_origins(op, operands, spans, span, place))
    return fault.because(Label(each, "") for name, each in (settings or {}).items() if _is_relevant(op, name))


def _is_relevant(op: str, setting: str) -> bool:
    """Whether a refusal of shapes may be about a setting."""
    return setting in _RELEVANT.get(op, ()) or (op == "rearrange" and setting != "pattern")


def _origins(op: str, operands: Sequence[Tensor | None], spans: Sequence[Span], span: Span, wrong: int) -> list[Label]:
    """Where the operand at fault and its neighbours were made, with their types."""
    labels: list[Label] = []
    for index, tensor in enumerate(operands):
        if tensor is None or (index > 2 and index != wrong) or tensor.node.op == "constant":
            continue
        origin = tensor.node.span
        # A layer's own weight is made where the layer is: nothing is learnt from showing that again.
        if origin is None or origin == span or any(label.span == origin for label in labels):
            continue
        labels.append(Label(origin, f"the weight is {tensor.type}" if tensor.node.op == "weight" else str(tensor.type)))
    return labels


_OPERATORS = {
    "add": "`+`",
    "sub": "`-`",
    "mul": "`*`",
    "div": "`/`",
    "pow": "`**`",
    "matmul": "`@`",
    "floordiv": "`//`",
    "mod": "`%`",
}
_OPERATORS |= {
    "eq": "`==`",
    "ne": "`!=`",
    "lt": "`<`",
    "le": "`<=`",
    "gt": "`>`",
    "ge": "`>=`",
    "both": "`&`",
    "either": "`|`",
}
_RELEVANT = {
    "split": ("parts", "sizes"),
    "expand": ("shape",),
    "slice": ("start", "stop"),
    "select": ("index",),
    "top_k": ("k",),
}
