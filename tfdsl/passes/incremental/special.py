"""Ops that do more along an axis than go position by position: each for the new positions, with the states it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfdsl.ir import masks
from tfdsl.ir.axes import flows, settings
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.ir.op import Attributes
from tfdsl.passes.incremental.flow import NEW, Flow, Full
from tfdsl.passes.incremental.rows import Made
from tfdsl.passes.incremental.rules import Looks, is_zero

if TYPE_CHECKING:
    from tfdsl.passes.incremental.build import Builder

SUMS = ("matmul", "einsum", "sum", "max", "softmax", "top_k")  # over keys, where none is later than its query
Emitted = tuple[Node, bool] | Made | None


def _ids(b: Builder, full: Full) -> Made:
    return b.helper("key_ids" if full else "ids")


def _positions(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    if flow.axes:
        return _ids(b, full)
    (value,) = node.inputs
    assert value is not None
    return Made(b.emitter.add("iota", like=node, size=b.old.type(value).dims[settings(b.old, node).axis]))


def _iota(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    return _ids(b, full) if flow.axes else None


def _slice(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    """Of a table, the rows of the positions; of positions, those that come some later."""
    (value,) = node.inputs
    assert value is not None
    a = settings(b.old, node)
    if not b.causality.is_stream(value):
        table, axis = b.make(value).value, a.axis
        if axis != 0:
            table = b.emitter.add("swap", table, like=node, first=0, second=axis)
        rows = b.emitter.add("gather", table, _ids(b, full).value, like=node, axis=0)
        return Made(rows if axis == 0 else b.emitter.add("swap", rows, like=node, first=1, second=axis + 1), rows=True)
    return _delayed(b, node, value, a) if a.axis in b.causality.flow(value).axes else None


def _pad(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    value = node.inputs[0]
    assert value is not None
    a = settings(b.old, node)
    return _delayed(b, node, value, a) if a.axis in b.causality.flow(value).axes else None


def _concat(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    a = settings(b.old, node)
    for value in node.inputs:
        if value is not None and a.axis in b.causality.flow(value).axes:
            return _delayed(b, node, value, a)
    return None


def _delayed(b: Builder, node: Node, value: Value, a: Attributes) -> Emitted:
    """What is cut off or put before and after new positions changes nothing of them, until they come some later."""
    made = b.make(value)
    by = _delay(b, node, value)
    if not by:
        return made
    tail = b.look_back(made, a.axis, by, node, node.labels[0] if node.labels else "before")
    length = b.graph.type(made.value).dims[a.axis]
    return Made(b.emitter.add("slice", tail, like=node, axis=a.axis, start=0, stop=length))


def _delay(b: Builder, node: Node, value: Value) -> int:
    """By how many positions a node delays its operand: by the elements before the first, where no others are left over."""
    return _leads(b, node, value) if b.causality.flow(Value(node.id)).settled else 0


def _leads(b: Builder, node: Node, value: Value) -> int:
    before, a = b.causality.flow(value), settings(b.old, node)
    if node.op == "slice":
        return before.lead - int(a.start)
    if node.op == "pad":
        return before.lead + int(a.before)
    place = node.inputs.index(value)
    sizes = [b.old.type(each).dims[a.axis] for each in node.inputs[:place] if each is not None]
    return before.lead + sum(size for size in sizes if isinstance(size, int))


def _conv1d(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    value = node.inputs[0]
    assert value is not None
    if 2 not in b.causality.flow(value).axes:
        return None
    a = settings(b.old, node)
    before, _ = a.padding if isinstance(a.padding, tuple) else (a.padding, a.padding)
    span = a.dilation * (a.kernel - 1)
    made, old = b.make(value), b.causality.flow(value)
    later = old.lead + before - span if flow.settled else 0
    count = span + later
    x = made.value if not count else b.look_back(made, 2, count, node, "tail")
    if later:
        x = b.emitter.add("slice", x, like=node, axis=2, start=0, stop=b.shared.positions + span)
    weights = [None if each is None else b.make(each).value for each in node.inputs[1:]]
    attributes = {name: each for name, each in node.attributes.items() if name != "padding"}
    return b.graph.add("conv1d", (x, *weights), attributes, like=node, labels=node.labels), False


def _attend(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    q, k, v, *others = node.inputs
    assert q is not None and k is not None and v is not None
    a = settings(b.old, node)
    attributes = dict(node.attributes)
    if not b.causality.is_stream(k):
        return _attend_elsewhere(b, node, attributes)
    operands: list[Made | None] = [
        b.make(q),
        b.make(k, frozenset({2}), (node.id, 1)),
        b.make(v, frozenset({2}), (node.id, 2)),
    ]
    for place, value in enumerate(others, 3):
        operands.append(None if value is None else _beside(b, node, place, value))
    keys = operands[1]
    assert keys is not None
    length = b.graph.type(keys.value).dims[2]
    past = length - b.shared.positions
    seen = b.helper("seen").value
    if length != b.shared.total:
        seen = b.emitter.add("slice", seen, like=node, axis=1, start=b.shared.total - length)
        operands[3:5] = [_cut(b, node, each, length) for each in operands[3:5]]
        operands[6:] = [_cut(b, node, each, length) for each in operands[6:]]
    hidden = masks.Term("padding", (), len(node.inputs) - 6)
    attributes["mask"] = hidden if a.mask is None else masks.Joined("&", a.mask, hidden)
    attributes["offset"] = past
    return b.emitter.emit(node, [*operands, Made(seen)], attributes)


def _cut(b: Builder, node: Node, made: Made | None, length: Size) -> Made | None:
    """The last keys of an operand whose last axis holds those of all positions."""
    if made is None or b.graph.type(made.value).dims[-1:] != (b.shared.total,):
        return made
    axis = len(b.graph.type(made.value).dims) - 1
    return Made(b.emitter.add("slice", made.value, like=node, axis=axis, start=b.shared.total - length), made.rows)


def _beside(b: Builder, node: Node, place: int, value: Value) -> Made:
    """A bias or a mask's operand: all positions along its last axis, which is that of keys."""
    flow = b.causality.flow(value)
    last = len(b.old.type(value).dims) - 1
    return b.make(value, frozenset({last} & set(flow.axes)), (node.id, place))


def _attend_elsewhere(b: Builder, node: Node, attributes: dict[str, Any]) -> Emitted:
    """Attention to what is no decoded position: a mask that compares positions means those of the queries."""
    mask = attributes.get("mask")
    if mask is not None and any(term.kind not in ("full", "prefix", "padding") for term in masks.terms(mask)):
        raise Looks("compares its positions with those of another sequence")
    return b.emitter.emit(node, [None if value is None else b.make(value) for value in node.inputs], attributes)


def _linear_attend(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    q, k, v, decay = node.inputs
    assert q is not None and k is not None and v is not None
    keys = b.zeroed(b.make(k), 2, node)
    inputs = [b.make(q).value, keys, b.make(v).value, None]
    if decay is not None:
        made = b.make(decay)
        axes = b.causality.flow(decay).axes
        inputs[3] = b.zeroed(made, axes[0], node) if axes else _stretched(b, node, made)
    attributes = {"path": b.path(node, "sum")}
    return b.graph.add("running_attend", inputs, attributes, like=node, labels=node.labels), False


def _stretched(b: Builder, node: Node, decay: Made) -> Value:
    """A decay that is the same at each position, as one that padding does not undergo."""
    shape: tuple[Size, ...] = (b.shared.batch, node.type.dims[1], b.shared.positions)
    if len(b.graph.type(decay.value).dims) == 4:  # a decay of each feature
        shape = (*shape, b.graph.type(decay.value).dims[3])
    return b.zeroed(Made(b.emitter.add("expand", decay.value, like=node, shape=shape)), 2, node)


def _scan(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    """A recurrence goes on from the states that the last call left; padding leaves them as they are."""
    if full:
        raise Looks("is needed of all positions, and goes through them one by one")
    a = settings(b.old, node)
    made = [None if value is None else b.make(value) for value in node.inputs]
    if any(each is None or each.rows for each in made):
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    inputs = [each.value for each in made if each is not None]
    paths = [b.path(node, f"state_{place}" if a.carried > 1 else "state") for place in range(a.carried)]
    starts = [_started(b, node, start, path) for start, path in zip(inputs[: a.carried], paths, strict=True)]
    ones = " ".join(["b", *("1" for _ in range(1, a.axis)), "s"])
    real = b.emitter.add("rearrange", b.helper("real").value, like=node, pattern=f"b s -> {ones}")
    scanned = [*inputs[a.carried : a.carried + a.scanned], real]
    body = _padded_step(b, node, a)
    attributes = {**node.attributes, "scanned": a.scanned + 1}
    given = [*starts, *scanned, *inputs[a.carried + a.scanned :]]
    twin = b.graph.add("scan", given, attributes, node.types, like=node, labels=node.labels, bodies=(body,))
    result = Value(twin.id, a.carried)
    for place, path in enumerate(paths):
        result = b.emitter.add("remember", result, Value(twin.id, place), like=node, path=path)
    b.redirected[Value(node.id, a.carried)] = Made(result)
    return twin, False


def _started(b: Builder, node: Node, start: Value, path: str) -> Value:
    """The states to go on from: those of the last call, or in the first those that the recurrence starts with."""
    if b.graph.type(start).dims[:1] != (b.shared.batch,):
        raise Looks("has states without an axis of the batch in front, as positions with padding need")
    recalled = b.emitter.add("recall", start, like=node, path=path)
    if is_zero(b.graph, start):
        return recalled
    past = b.emitter.add("constant", like=node, value=b.shared.past, dtype="int")
    none = b.emitter.add("constant", like=node, value=0, dtype="int")
    return b.emitter.add("where", b.emitter.add("eq", past, none, like=node), start, recalled, like=node)


def _padded_step(b: Builder, node: Node, a: Attributes) -> Graph:
    """The step with one more input after those of a position: whether it is real."""
    body = node.bodies[0].copy()
    dims = (b.shared.batch, *(1 for _ in range(1, a.axis)))
    real = body.add("input", (), {"name": "real"}, (Type("bool", dims),), name="real")
    place = a.carried + a.scanned
    body.inputs = [*body.inputs[:place], real.id, *(each for each in body.inputs[place:] if each != real.id)]
    for index in range(a.carried):
        name, value = body.outputs[index]
        rank = len(body.type(value).dims)
        if rank < len(dims):
            raise Looks("has states with fewer axes than padding needs")
        names = [f"a{axis}" for axis in range(len(dims))]
        wide = f"{' '.join(names)} -> {' '.join(names + ['1'] * (rank - len(dims)))}"
        here = Value(body.add("rearrange", (Value(real.id),), {"pattern": wide}, name="real").id)
        kept = body.add("where", (here, value, Value(body.inputs[index])), name="kept")
        body.outputs[index] = (name, Value(kept.id))
    return body


def _cumsum(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    (value,) = node.inputs
    assert value is not None
    axis = settings(b.old, node).axis
    if axis not in b.causality.flow(value).axes:
        return None
    if len(flow.axes) == 2:
        return _cumsum_of_keys(b, node, value, axis, full)
    attributes = {"axis": axis, "path": b.path(node, node.labels[0] if node.labels else "sum")}
    zeroed = b.zeroed(b.make(value), axis, node)
    return b.graph.add("running_sum", (zeroed,), attributes, like=node, labels=node.labels), False


def _cumsum_of_keys(b: Builder, node: Node, value: Value, axis: int, full: Full) -> Emitted:
    """A running sum over the keys of each query, which are all there: nothing is remembered, and padding is zero in it."""
    if axis not in full:
        raise Looks("sums up pairs from query to query, and those of earlier calls are not kept")
    made = b.make(value, full, (node.id, 0))
    (query,) = set(b.causality.flow(value).axes) - full
    if b.causality.flow(value).above.get((query, axis)) != 0:  # what hides later keys has not hidden padding yet
        old = b.old.node(value)
        rank = len(b.old.type(value).dims)
        names = " ".join("t" if each == axis else "1" for each in range(rank))
        seen = b.emitter.add("rearrange", b.helper("seen").value, like=node, pattern=f"b t -> b {names}")
        zero = b.emitter.add("constant", like=node, value=0, dtype=b.old.type(value).dtype)
        like = Node(-1, "where", (), {}, (b.old.type(value),), old.name, node.scope, node.span, order=node.order)
        hidden, rows = b.emitter.emit(like, [Made(seen, rows=True), made, Made(zero)], {})
        made = Made(Value(hidden.id), rows)
    return b.emitter.emit(node, [made], dict(node.attributes))


def _expand(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    shape = tuple(
        b.shared.total if dim == b.shared.positions and axis in full else dim
        for axis, dim in enumerate(node.attributes["shape"])
    )
    return _positional(b, node, full, shape)


def _rearrange(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    """Rows of a batch put one after another are new positions still."""
    (value,) = node.inputs
    assert value is not None
    before = b.causality.flow(value)
    if len(before.axes) != 1:
        return None
    if full and (before.merged or flow.merged):
        raise Looks("is needed of all positions, and holds the rows of the batch one after another")
    made = b.make(value, frozenset(before.axes) if full else NEW, (node.id, 0))
    return b.emitter.emit(node, [made], b.lengthened(dict(node.attributes)) if full else dict(node.attributes))


def _route(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    if full:
        raise Looks("is needed of all positions, and chooses experts anew for each")
    made = [None if value is None else b.make(value) for value in node.inputs]
    if any(each is not None and each.rows for each in made):
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    return b.graph.add(
        "route",
        [None if each is None else each.value for each in made],
        node.attributes,
        node.types,
        like=node,
        spelled=dict(node.spelled),
        labels=node.labels,
        bodies=tuple(body.copy() for body in node.bodies),
    ), False


def _positional(b: Builder, node: Node, full: Full, shape: tuple[Size, ...]) -> Emitted:
    (value,) = node.inputs
    assert value is not None
    (goes,) = flows(b.old, node)
    return b.emitter.emit(node, [b.operand(node, 0, value, goes, full)], {**node.attributes, "shape": shape})


def _masked(b: Builder, node: Node, flow: Flow, full: Full) -> Emitted:
    """Where a comparison of positions begins to hide keys, it hides padding too."""
    (condition, *others) = node.inputs
    assert condition is not None
    state = b.causality.flow(condition)
    if len(flow.axes) != 2 or b.old.type(condition).dtype != "bool" or node.attributes.get("to") == "bool":
        return None
    goes, *rest = flows(b.old, node)
    pair = tuple(goes.index(axis) for axis in (*(set(flow.axes) - full), *full) if axis in goes)
    hides = state.above.get(pair) if len(pair) == 2 else None
    if hides is None:
        return None
    made = b.operand(node, 0, condition, goes, full)
    rank = len(b.old.type(condition).dims)
    names = " ".join("t" if axis == pair[1] else "1" for axis in range(rank))
    seen = b.helper("seen").value
    if hides:
        seen = b.emitter.add("negate", seen, like=node)
    keys = Made(b.emitter.add("rearrange", seen, like=node, pattern=f"b t -> b {names}"), rows=True)
    like = b.old.node(condition)
    twin = Node(
        -1, "either" if hides else "both", (), {}, like.types, like.name, node.scope, node.span, order=node.order
    )
    joined, rows = b.emitter.emit(twin, [made, keys], {})
    operands: list[Made | None] = [Made(Value(joined.id), rows)]
    for place, (value, axes) in enumerate(zip(others, rest, strict=True), 1):
        operands.append(None if value is None else b.operand(node, place, value, axes, full))
    return b.emitter.emit(node, operands, dict(node.attributes))


SPECIAL: Mapping[str, Any] = {
    "positions": _positions,
    "iota": _iota,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "conv1d": _conv1d,
    "attend": _attend,
    "linear_attend": _linear_attend,
    "cumsum": _cumsum,
    "scan": _scan,
    "expand": _expand,
    "rearrange": _rearrange,
    "route": _route,
    "where": _masked,
    "cast": _masked,
}
