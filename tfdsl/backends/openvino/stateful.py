"""What decoding remembers, as variables of the model: read, brought into the order of the rows, and assigned anew.

Every variable that is read goes through a Gather of rows: pipelines reorder beams by it, and the CPU plugin does not run
a variable that is joined with others as it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import openvino
from openvino import opset16

from tfdsl.backends.openvino import sizes
from tfdsl.backends.openvino.attention import repeated
from tfdsl.backends.openvino.builder import Builder, Operand, Tensor
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Node, Type
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.ir.states import state_type

# Variables of 64 bits are refused by the CPU plugin, which computes whole numbers in 32 anyway; booleans are not forgotten.
_KEPT_AS = {"float": "f32", "int": "i32", "bool": "i32"}
ROWS = "beam_idx"  # as pipelines call it
_END = 2**63 - 1  # a Slice that stops here stops where its axis does


def append(b: Builder, a: Attributes, x: Tensor) -> Operand:
    assert b.node is not None
    past = before(b, b.node)
    whole = b.emit("concat", past, _kept(b, x), axis=a.axis)
    last = whole
    if a.last is not None:
        last = b.emit("slice", whole, b.ints(-a.last), b.ints(_END), b.ints(1), b.ints(a.axis))
    b.assign(a.path, last)
    return _restored(b, whole, x.type.dtype)


def running_sum(b: Builder, a: Attributes, x: Tensor) -> Operand:
    assert b.node is not None
    past = b.emit("unsqueeze", before(b, b.node), b.ints(a.axis))
    sums = b.emit("add", b.emit("cum_sum", _kept(b, x), b.scalar(a.axis, "int")), past)
    b.assign(a.path, b.emit("gather", sums, b.scalar(-1, "int"), b.scalar(a.axis, "int")))
    return _restored(b, sums, x.type.dtype)


def running_attend(b: Builder, a: Attributes, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None) -> Operand:
    """All pairs of new positions at their true weights, and what the state holds of those before."""
    assert b.node is not None
    heads = b.node.type.dims[1]
    past = before(b, b.node)
    queries, keys, values = (repeated(b, each, heads) for each in (q, k, v))
    if decay is None:
        scores = b.emit("matmul", queries, keys, transpose_a=False, transpose_b=True)
        left = _Left(scores, queries, keys, past)
    else:
        left = _decayed(b, decay, (*b.node.type.dims[:3], k.dims[3]), queries, keys, past)
    seen = b.emit("select", _order(b, k.dims[2], "less_equal"), left.scores, b.scalar(0, "float"))
    inside = b.emit("matmul", seen, values, transpose_a=False, transpose_b=False)
    outside = b.emit("matmul", left.queries, past, transpose_a=False, transpose_b=False)
    added = b.emit("matmul", left.keys, values, transpose_a=True, transpose_b=False)
    b.assign(a.path, b.emit("add", left.state, added))
    return b.emit("add", inside, outside)


def recall(b: Builder, a: Attributes, like: Tensor) -> Operand:
    assert b.node is not None
    return _restored(b, before(b, b.node), like.type.dtype)


def remember(b: Builder, a: Attributes, x: Tensor, state: Tensor) -> Operand:
    b.assign(a.path, _kept(b, state))
    return x


class _Left(NamedTuple):
    """What decay leaves: scores [b, h, q, k], queries as the past is seen, keys and state as the last position sees them."""

    scores: Operand
    queries: Operand
    keys: Operand
    state: Operand


def _decayed(
    b: Builder, decay: Tensor, dims: tuple[Size, ...], queries: Operand, keys: Operand, past: Operand
) -> _Left:
    """Decay of each step [b, h, s], or of each feature of it [b, h, s, d]; `dims` are [b, h, s, d]."""
    by_feature = decay.rank == 4
    dims = dims if by_feature else dims[:3]
    steps = sizes.expand(b, decay, decay.dims, dims)
    two = b.scalar(2, "int")
    passed = _order(b, dims[2], "less")
    if by_feature:
        passed = b.emit("unsqueeze", passed, b.ints(2))
    # Summed for each key anew: a difference of two sums from the start would lose the digits that count.
    each = b.emit("select", passed, b.emit("unsqueeze", steps, b.ints(3)), b.scalar(0, "float"))
    left = b.emit("exp", b.emit("cum_sum", each, two))
    since = b.emit("exp", b.emit("cum_sum", steps, two))
    at_last = [b.emit("gather", found, b.scalar(-1, "int"), two) for found in (left, since)]
    if by_feature:
        pairs = b.emit("multiply", b.emit("unsqueeze", queries, b.ints(3)), b.emit("unsqueeze", keys, b.ints(2)))
        scores = b.emit("reduce_sum", b.emit("multiply", pairs, left), b.ints(-1), keep_dims=False)
        of_state = b.emit("unsqueeze", at_last[1], b.ints(3))
    else:
        scores = b.emit("multiply", b.emit("matmul", queries, keys, transpose_a=False, transpose_b=True), left)
        since, at_last[0] = (b.emit("unsqueeze", found, b.ints(3)) for found in (since, at_last[0]))
        of_state = b.emit("unsqueeze", at_last[1], b.ints(2, 3))
    return _Left(
        scores,
        b.emit("multiply", queries, since),
        b.emit("multiply", keys, at_last[0]),
        b.emit("multiply", past, of_state),
    )


def before(b: Builder, node: Node) -> openvino.Output:
    """The state of a node before the call: zeros at first, its rows in the order that is asked for."""
    type_, axis = state_type(b.graph, node)
    a = OPS[node.op].fill(node.attributes)
    first = list(type_.dims)
    if axis is not None and node.op == "append":
        first[axis] = a.fill
    with b.within(a.path):
        zero = b.emit("convert", b.scalar(0, "float"), destination_type=_KEPT_AS[type_.dtype])
        initial = _nothing(b, zero, first) if 0 in first else b.emit("broadcast", zero, sizes.shape(b, first))
        read = b.read(a.path, initial, [dim if isinstance(dim, int) else -1 for dim in type_.dims])
        return b.emit("gather", read, _rows(b, type_), b.scalar(0, "int"))


def begin(b: Builder) -> None:
    """Add the input that says which rows of the last call the rows of this one go on from.

    As many as the first axis of the model's inputs has. Sizes that no input tells are those of states.
    """
    batch = b.graph.node(b.graph.inputs[0]).type.dims[0]
    parameter = opset16.parameter(openvino.PartialShape([-1]), openvino.Type.i32)
    parameter.set_friendly_name(ROWS)
    parameter.output(0).get_tensor().set_names({ROWS})
    b.parameters[ROWS] = parameter
    b.rows = Tensor(parameter.output(0), Type("int", (batch,)))
    for node in b.graph.nodes():
        size = node.attributes["size"] if node.op == "append" else None
        if isinstance(size, Dim) and size.name is not None and size.name not in b.axes:
            b.lengths[size.name] = partial(_length, node)


def _length(node: Node, b: Builder) -> openvino.Output:
    """The length of the state of a node as an int64 vector of one element."""
    axis = b.ints(node.attributes["axis"])
    return b.emit("gather", b.emit("shape_of", before(b, node)), axis, b.scalar(0, "int"))


def _nothing(b: Builder, zero: Operand, dims: Sequence[Size]) -> openvino.Output:
    """No positions: a slice, to an end that only run time knows, of as many as only run time knows.

    The CPU plugin takes a variable that is known to begin with nothing, or with little, for one that stays so, and does
    not forget one whose beginning is made by broadcasting.
    """
    known = next(dim for dim in dims if not isinstance(dim, int))
    some = b.emit("broadcast", zero, sizes.shape(b, [known if dim == 0 else dim for dim in dims]))
    none = b.emit("subtract", sizes.size(b, known), sizes.size(b, known))
    return b.emit("slice", some, b.ints(0), none, b.ints(1), b.ints(dims.index(0)))


def _rows(b: Builder, type_: Type) -> Operand:
    """Which rows of a state to go on from: those of the model's input where the first axis is the batch."""
    if b.rows is not None and type_.dims[:1] == b.rows.dims:
        return b.rows
    return sizes.count(b, type_.dims[0])


def _order(b: Builder, positions: Size, relation: str) -> openvino.Output:
    """Whether a key stands before a query (or at it) among new positions, [queries, keys]."""
    counted = sizes.count(b, positions)
    return b.emit(relation, b.emit("unsqueeze", counted, b.ints(0)), b.emit("unsqueeze", counted, b.ints(1)))


def _kept(b: Builder, x: Tensor) -> Operand:
    """A tensor in the element type that its variable has."""
    return x if x.type.dtype == "float" else b.emit("convert", x, destination_type=_KEPT_AS[x.type.dtype])


def _restored(b: Builder, x: Operand, dtype: str) -> Operand:
    return x if dtype == "float" else b.emit("convert", x, destination_type={"int": "i64", "bool": "boolean"}[dtype])


STATEFUL_LOWERINGS: dict[str, Callable[..., Any]] = {
    "append": append,
    "running_attend": running_attend,
    "running_sum": running_sum,
    "recall": recall,
    "remember": remember,
}
