"""Whether a region treats the rows of its input by themselves, so that some of them may be left out.

Each value of the region has an axis that its rows lie on, or none where it does not depend on them. `RULES` says for an
op where the rows of its results lie; one that lets rows mix, or that asks how many there are, raises `Mixes`. What has no
rule mixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tfdsl.ir.dims import Dim, Size, names_of
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import parse_einsum, rearrangement

Axis = int | None


class Mixes(Exception):
    """A node whose results are not made of one row each; `counts` is for one that asks how many there are."""

    def __init__(self, node: Node, counts: bool = False):
        super().__init__(node.op)
        self.node, self.counts = node, counts


class _Mixed(Exception):
    """Raised by a rule; the walk knows the node."""


@dataclass(frozen=True)
class _Site:
    """A node with the axes that the rows of its operands lie on."""

    node: Node
    types: Sequence[Type | None]
    axes: Sequence[Axis]
    a: Attributes

    @property
    def rank(self) -> int:
        return len(self.dims(0))

    def dims(self, place: int) -> tuple[Size, ...]:
        found = self.types[place]
        assert found is not None
        return found.dims

    def first(self) -> int:
        """The axis of the first operand, which is the only one with rows."""
        axis = self.axes[0]
        if axis is None or any(each is not None for each in self.axes[1:]):
            raise _Mixed
        return axis


def check_rows(graph: Graph, axes: Sequence[Axis], rows: Size) -> tuple[Axis, ...]:
    """The axes that the rows of a region's outputs lie on, given those of its inputs; `rows` is how many there are.

    Raises `Mixes` at the first node that is not computed for each row by itself.
    """
    names = names_of([rows])
    known: dict[Value, Axis] = {Value(place): axis for place, axis in zip(graph.inputs, axes, strict=True)}
    for node in graph.nodes():
        if node.op != "input":
            if names_of(_sizes(tuple(node.attributes.values()))) & names:
                raise Mixes(node, counts=True)
            try:
                found = _axes_of(graph, node, known, rows)
            except _Mixed:
                raise Mixes(node) from None
            known.update({Value(node.id, index): axis for index, axis in enumerate(found)})
    return tuple(known[value] for _, value in graph.outputs)


def _axes_of(graph: Graph, node: Node, known: dict[Value, Axis], rows: Size) -> tuple[Axis, ...]:
    axes = [None if value is None else known[value] for value in node.inputs]
    if node.op == "repeat":
        return _repeat(node, axes, rows)
    if all(axis is None for axis in axes):
        return (None,) * len(node.types)
    types = [None if value is None else graph.type(value) for value in node.inputs]
    rule = RULES.get(node.op)
    if rule is None:
        raise _Mixed
    axis = rule(_Site(node, types, axes, OPS[node.op].fill(node.attributes)))
    return (axis,) * len(node.types)


def _sizes(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [size for each in value for size in _sizes(each)]
    if isinstance(value, dict):
        return _sizes(tuple(value.values()))
    return [value] if isinstance(value, Dim) else []


def _repeat(node: Node, axes: list[Axis], rows: Size) -> tuple[Axis, ...]:
    """A loop: what is carried keeps its axis from turn to turn."""
    carried = node.attributes["carried"]
    for body in node.bodies:
        if list(check_rows(body, axes, rows)) != axes[:carried]:
            raise _Mixed
    return tuple(axes[:carried])


# --- rules -----------------------------------------------------------------------------------------------------------


def _kept(s: _Site) -> Axis:
    return s.first()


def _elementwise(s: _Site) -> Axis:
    """Operands are matched from the last axis; one without rows must not have an axis of its own beside them."""
    back = {len(s.dims(place)) - axis for place, axis in enumerate(s.axes) if axis is not None}
    if len(back) != 1:
        raise _Mixed
    (distance,) = back
    for place, axis in enumerate(s.axes):
        if axis is None and s.types[place] is not None:
            _refuse_size(s.dims(place), distance)
    return len(s.node.types[0].dims) - distance


def _refuse_size(dims: Sequence[Size], distance: int) -> None:
    if len(dims) >= distance and dims[-distance] != 1:
        raise _Mixed


def _along(s: _Site) -> Axis:
    axis = s.first()
    if s.a.axis == axis:
        raise _Mixed
    return axis


def _drops(s: _Site) -> Axis:
    """An axis that goes, unless it is kept as one of 1."""
    axis = _along(s)
    assert axis is not None
    kept = getattr(s.a, "keep", False) or not getattr(s.a, "squeeze", True)
    return axis - (s.a.axis < axis and not kept)


def _concat(s: _Site) -> Axis:
    if len(set(s.axes)) != 1 or s.a.axis == s.axes[0]:
        raise _Mixed
    return s.axes[0]


def _not_last(s: _Site) -> Axis:
    axis = s.first()
    if axis == s.rank - 1:
        raise _Mixed
    return axis


def _at_front(s: _Site) -> Axis:
    """Ops whose first axis counts examples."""
    if s.first() != 0:
        raise _Mixed
    return 0


def _rotate(s: _Site) -> Axis:
    if s.first() >= s.rank - 2 or any(len(s.dims(place)) != 2 for place in (1, 2)):
        raise _Mixed
    return s.axes[0]


def _attend(s: _Site) -> Axis:
    if list(s.axes[:3]) != [0, 0, 0] or any(each is not None for each in s.types[3:]):
        raise _Mixed
    return 0


def _positions(s: _Site) -> Axis:
    _along(s)
    return None


def _matmul(s: _Site) -> Axis:
    back = [None if axis is None else len(s.dims(place)) - axis for place, axis in enumerate(s.axes)]
    left, right = back
    if left == 1 or right == 2 or (left is not None and right is not None and left != right):
        raise _Mixed
    distance = left if left is not None else right
    assert distance is not None
    for place, each in enumerate(back):
        if each is None and distance > 2:
            _refuse_size(s.dims(place), distance)
    return len(s.node.types[0].dims) - distance


def _einsum(s: _Site) -> Axis:
    operands, result = parse_einsum(s.a.pattern)
    names = {operands[place][axis] for place, axis in enumerate(s.axes) if axis is not None}
    free = [names_ for names_, axis in zip(operands, s.axes, strict=True) if axis is None]
    if len(names) != 1 or not names <= set(result) or any(names & set(each) for each in free):
        raise _Mixed
    return result.index(names.pop())


def _rearrange(s: _Site) -> Axis:
    """An axis of rows may move, and may not be split or merged."""
    axis = s.first()
    done = rearrangement(s.a.pattern, s.dims(0), dict(s.a.sizes or ()))
    if done.split_groups[axis] != 1:
        raise _Mixed
    place = done.order.index(sum(done.split_groups[:axis]))
    start = 0
    for result, count in enumerate(done.merged_groups):
        if start == place and count == 1:
            return result
        start += count
    raise _Mixed


def _swap(s: _Site) -> Axis:
    axis = s.first()
    return {s.a.first: s.a.second, s.a.second: s.a.first}.get(axis, axis)


def _gather(s: _Site) -> Axis:
    x, index = s.axes
    if x is None and index is not None:
        return s.a.axis + index
    if x is None or index is not None or s.a.axis == x:
        raise _Mixed
    return x + (len(s.dims(1)) - 1 if s.a.axis < x else 0)


def _take_along(s: _Site) -> Axis:
    if s.axes[0] != s.axes[1] or s.a.axis == s.axes[0]:
        raise _Mixed
    return s.axes[0]


def _route(s: _Site) -> Axis:
    if list(s.axes[:3]) != [0, 0, 0] or any(axis is not None for axis in s.axes[3:]):
        raise _Mixed
    return 0


_KEPT = (
    *("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "relu", "silu", "softplus", "erf", "gelu"),
    *("neg", "abs", "floor", "negate", "cast", "dropout", "one_hot"),
)
_ELEMENTWISE = (
    *("add", "sub", "mul", "maximum", "minimum", "div", "pow", "floordiv", "mod"),
    *("eq", "ne", "lt", "le", "gt", "ge", "both", "either", "where"),
)
_ALONG = ("softmax", "log_softmax", "cumsum", "top_k", "roll", "pad", "slice")
_DROPS = ("sum", "mean", "max", "min", "argmax", "select", "split")
RULES: dict[str, Callable[[_Site], Axis]] = {
    **dict.fromkeys(_KEPT, _kept),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(_DROPS, _drops),
    **dict.fromkeys(("linear", "layer_norm", "rms_norm"), _not_last),
    **dict.fromkeys(("group_norm", "conv1d", "conv2d", "drop_path"), _at_front),
    "concat": _concat,
    "embedding": _kept,
    "rotate": _rotate,
    **dict.fromkeys(("attend", "linear_attend"), _attend),
    "positions": _positions,
    "matmul": _matmul,
    "einsum": _einsum,
    "rearrange": _rearrange,
    "swap": _swap,
    "gather": _gather,
    "take_along": _take_along,
    "route": _route,
}
