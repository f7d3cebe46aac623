"""Positions that differ from row to row of the batch: an op done for each row by itself.

With padding on the left, position 0 is elsewhere in each row. What was one tensor for the whole batch then has an axis of
the batch in front (`Made.rows`), until it meets a value that has one of its own there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfdsl.ir.axes import DROPPED, FROM_LAST, SAME
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.rearrange import parse_einsum
from tfdsl.passes.incremental.rules import Looks


class Made(NamedTuple):
    """A value of the new graph; `rows` says that it has an axis of the batch before those that it had."""

    value: Value
    rows: bool = False


@dataclass(frozen=True)
class Emitter:
    """Adds nodes to a region of the new graph, with operands that may have an axis of rows."""

    graph: Graph
    batch: Size

    def add(self, op: str, *inputs: Value | None, like: Node, **attributes: Any) -> Value:
        """A node that the old graph has none for, in the place of one that it has."""
        return Value(self.graph.add(op, inputs, attributes, like=like, name=op).id)

    def emit(self, node: Node, operands: Sequence[Made | None], attributes: dict[str, Any]) -> tuple[Node, bool]:
        """The old node with new operands, and whether its results have an axis of rows."""
        rows = [place for place, made in enumerate(operands) if made is not None and made.rows]
        inputs: list[Value | None] = [None if made is None else made.value for made in operands]
        apart = False
        if rows:
            rule = _RULES.get(node.op)
            if rule is None:
                raise Looks("is not done for each row of the batch by itself, as positions with padding need")
            inputs, attributes, apart = rule(self, node, list(operands), dict(attributes))
        spelled = {} if rows else dict(node.spelled)
        made = self.graph.add(node.op, inputs, attributes, like=node, spelled=spelled, labels=node.labels)
        return made, apart

    def has_batch(self, node: Node) -> bool:
        """Whether the results of an old node have an axis of the batch in front."""
        return node.types[0].dims[:1] == (self.batch,)

    def aligned(self, made: Made, rank: int, absorbed: bool, like: Node) -> Value:
        """An operand with rows, as one of `rank` axes that begins with the batch (one more, unless `absorbed`)."""
        if not made.rows:
            return made.value
        dims = self.graph.type(made.value).dims
        own = list(dims[1:])
        wanted = rank - 1 if absorbed else rank
        while len(own) > wanted and own[0] == 1:
            own.pop(0)
        if len(own) > wanted:
            raise Looks("is not done for each row of the batch by itself, as positions with padding need")
        gap = wanted - len(own)
        if not gap and len(own) == len(dims) - 1:
            return made.value
        names = [f"a{axis}" for axis in range(len(dims) - 1)]
        dropped = len(dims) - 1 - len(own)
        left = ["1"] * dropped + names[dropped:]
        pattern = f"rows {' '.join(left)} -> rows {' '.join(['1'] * gap + names[dropped:])}"
        return self.add("rearrange", made.value, like=like, pattern=" ".join(pattern.split()))


Ruled = tuple[list[Value | None], dict[str, Any], bool]
Operands = list[Made | None]
Rule = Callable[[Emitter, Node, Operands, dict[str, Any]], Ruled]


def _values(operands: Operands) -> list[Value | None]:
    return [None if made is None else made.value for made in operands]


def _same(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    """Ops that leave leading axes alone; only the first operand may have rows."""
    if any(made is not None and made.rows for made in operands[1:]):
        raise Looks("has weights that differ from row to row of the batch")
    return _values(operands), a, True


def _from_last(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    rank, absorbed = len(node.types[0].dims), e.has_batch(node)
    inputs = [None if made is None else e.aligned(made, rank, absorbed, node) for made in operands]
    return list(inputs), a, not absorbed


def _axis(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    """Ops along an axis, which is one further back."""
    if not all(made is not None and made.rows for made in operands):
        raise Looks("joins what differs from row to row of the batch with what does not")
    first = operands[0]
    assert first is not None
    rank = len(e.graph.type(first.value).dims) - 1
    a["axis"] = a.get("axis", -1) % rank + 1
    return _values(operands), a, True


def _swap(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    rank = len(node.type.dims)
    a["first"], a["second"] = a.get("first", -1) % rank + 1, a.get("second", -2) % rank + 1
    return _values(operands), a, True


def _rearrange(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    left, right = (side.strip() for side in a["pattern"].split("->"))
    a["pattern"] = f"rows {left} -> rows {right}"
    return _values(operands), a, True


def _expand(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    (made,) = operands
    assert made is not None
    shape, absorbed = tuple(a["shape"]), e.has_batch(node)
    a["shape"] = shape if absorbed else (e.batch, *shape)
    return [e.aligned(made, len(shape), absorbed, node)], a, not absorbed


def _gather(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    x, index = operands
    assert x is not None and index is not None
    if x.rows and not index.rows:
        a["axis"] += 1
    elif x.rows or a["axis"] != 0:
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    return _values(operands), a, True


def _rotate(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    x, *angles = operands
    assert x is not None
    if x.rows or not e.has_batch(node) or any(m is None or len(e.graph.type(m.value).dims) != 3 for m in angles):
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    return _values(operands), a, False


def _attend(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    if any(made is not None and made.rows for place, made in enumerate(operands) if place not in (3, 4)):
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    return [None if made is None else e.aligned(made, 4, True, node) for made in operands], a, False


def _embedding(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    return _values(operands), a, True


def _einsum(e: Emitter, node: Node, operands: Operands, a: dict[str, Any]) -> Ruled:
    names, result = parse_einsum(a["pattern"])
    own = [each[0] for each, made in zip(names, operands, strict=True) if made and not made.rows and _is_batch(e, made)]
    absorbed = bool(own) and e.has_batch(node) and result[0] == own[0]
    batch = own[0] if absorbed else "rows"
    if own and not absorbed:
        raise Looks("is not done for each row of the batch by itself, as positions with padding need")
    sides = [
        " ".join((batch, *each) if made and made.rows else each) for each, made in zip(names, operands, strict=True)
    ]
    a["pattern"] = f"{', '.join(sides)} -> {' '.join(result if absorbed else (batch, *result))}"
    return _values(operands), a, not absorbed


def _is_batch(e: Emitter, made: Made) -> bool:
    return e.graph.type(made.value).dims[:1] == (e.batch,)


_RULES: dict[str, Rule] = {
    **dict.fromkeys((*SAME, "linear", "layer_norm", "rms_norm"), _same),
    **dict.fromkeys((*(op for op in FROM_LAST if op != "expand"), "matmul"), _from_last),
    **dict.fromkeys((*DROPPED, "softmax", "log_softmax", "cumsum", "top_k", "pad", "slice", "concat", "roll"), _axis),
    "take_along": _axis,
    "swap": _swap,
    "rearrange": _rearrange,
    "expand": _expand,
    "gather": _gather,
    "rotate": _rotate,
    "attend": _attend,
    "embedding": _embedding,
    "einsum": _einsum,
}
