"""What each op does along each axis of its operands: which axis of the results it goes to, position by position.

`flows` gives for every axis of every operand the axis of the results that it lies on: position i of the results is then made
of position i of the operand, and of no other. An axis that is None is mixed, dropped, or treated in some way of the op's
own (a running sum is causal, a softmax is not). Results of one node all have their axes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Type
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import Rearrangement, parse_einsum, rearrangement

Axes = tuple[int | None, ...]


@dataclass(frozen=True)
class Site:
    """A node with the types of its operands."""

    node: Node
    types: Sequence[Type | None]
    a: Attributes

    def rank(self, place: int) -> int:
        found = self.types[place]
        return 0 if found is None else len(found.dims)

    def dims(self, place: int) -> tuple[Size, ...]:
        found = self.types[place]
        return () if found is None else found.dims

    @property
    def result_rank(self) -> int:
        return len(self.node.types[0].dims)

    def none(self, place: int) -> Axes:
        return (None,) * self.rank(place)

    def nones(self) -> list[Axes]:
        return [self.none(place) for place in range(len(self.types))]


def flows(graph: Graph, node: Node) -> list[Axes]:
    """For each operand of a node, where each of its axes goes; an op without a rule mixes all of them."""
    types = [None if value is None else graph.type(value) for value in node.inputs]
    site = Site(node, types, settings(graph, node))
    rule = RULES.get(node.op)
    return site.nones() if rule is None else rule(site)


def settings(graph: Graph, node: Node) -> Attributes:
    """The attributes of a node with their defaults, axes counted from the first."""
    filled = dict(vars(OPS[node.op].fill(node.attributes)))
    value = node.inputs[0] if node.inputs and node.op != "scan" else None  # of that, the first operand is a state
    for name in ("axis", "first", "second"):
        if value is not None and isinstance(filled.get(name), int):
            filled[name] %= max(len(graph.type(value).dims), 1)
    return Attributes(filled)


# --- rules -----------------------------------------------------------------------------------------------------------


def _same(s: Site) -> list[Axes]:
    """The first operand's axes stay where they are."""
    return [tuple(range(s.rank(0))), *s.nones()[1:]]


def _from_last(s: Site) -> list[Axes]:
    """Axes are matched from the last, as in arithmetic."""
    return [tuple(range(s.result_rank - s.rank(place), s.result_rank)) for place in range(len(s.types))]


def _without(place: int) -> Callable[[Site], list[Axes]]:
    """The first operand's axes stay, but for one."""

    def rule(s: Site) -> list[Axes]:
        lost = place % s.rank(0)
        return [tuple(None if axis == lost else axis for axis in range(s.rank(0))), *s.nones()[1:]]

    return rule


def _along(s: Site) -> list[Axes]:
    """All operands keep their axes, but for the one that the op runs along."""
    return [tuple(None if axis == s.a.axis else axis for axis in range(s.rank(place))) for place in range(len(s.types))]


def _taken(s: Site) -> list[Axes]:
    """What is taken lies where the number that asks for it lay."""
    return [_along(s)[0], tuple(range(s.rank(1)))]


def _dropped(s: Site) -> list[Axes]:
    """The axis that the op runs along is gone from the result, unless one of 1 stays in its place."""
    lost = s.a.axis
    gone = s.result_rank < s.rank(0)
    return [tuple(None if axis == lost else axis - (gone and axis > lost) for axis in range(s.rank(0)))]


def _kept_first(s: Site) -> list[Axes]:
    return [(0, *s.none(0)[1:]), *s.nones()[1:]]


def _embedding(s: Site) -> list[Axes]:
    return [tuple(range(s.rank(0))), s.none(1)]


def _attend(s: Site) -> list[Axes]:
    found: list[Axes] = [(0, 1, 2, None), (0, None, None, None), (0, None, None, 3)]
    for place in (3, 4):
        rank = s.rank(place)
        found.append(tuple(None if axis == 3 else axis for axis in range(4 - rank, 4)))
    return [*found, *s.nones()[5:]]


def _linear_attend(s: Site) -> list[Axes]:
    return [(0, None, None, None), (0, None, None, None), (0, None, None, 3), *s.nones()[3:]]


def _rotate(s: Site) -> list[Axes]:
    positions = s.rank(0) - 2
    found: list[Axes] = [tuple(None if axis == s.rank(0) - 1 else axis for axis in range(s.rank(0)))]
    return [*found, *(((0, positions, None) if s.rank(place) == 3 else (positions, None)) for place in (1, 2))]


def _positions(s: Site) -> list[Axes]:
    return [tuple(0 if axis == s.a.axis else None for axis in range(s.rank(0)))]


def _matmul(s: Site) -> list[Axes]:
    result = s.result_rank
    left, right = s.rank(0), s.rank(1)
    leading = [tuple(range(result - rank, result - 2)) for rank in (left, right)]
    return [(*leading[0], result - 2, None), (*leading[1], None, result - 1)]


def _einsum(s: Site) -> list[Axes]:
    operands, result = parse_einsum(s.a.pattern)
    return [tuple(result.index(name) if name in result else None for name in names) for names in operands]


def pieces(s: Site) -> Rearrangement:
    """A rearrangement worked out for what it is given."""
    return rearrangement(s.a.pattern, s.dims(0), dict(s.a.sizes or ()))


def merged_places(done: Rearrangement) -> list[tuple[int, int]]:
    """For each piece that a rearrangement splits its operand into: the axis of the result, and of how many it is made."""
    places = [(-1, 0)] * len(done.order)
    position = 0
    for axis, count in enumerate(done.merged_groups):
        for piece in done.order[position : position + count]:
            places[piece] = axis, count
        position += count
    return places


def _rearrange(s: Site) -> list[Axes]:
    """An axis may move; one that is split or merged is followed no further here."""
    done = pieces(s)
    places = merged_places(done)
    found: list[int | None] = []
    first = 0
    for count in done.split_groups:
        axis, parts = places[first] if count else (-1, 0)
        found.append(axis if count == 1 and parts == 1 else None)
        first += count
    return [tuple(found)]


def _swap(s: Site) -> list[Axes]:
    first, second = s.a.first, s.a.second
    moved = {first: second, second: first}
    return [tuple(moved.get(axis, axis) for axis in range(s.rank(0)))]


def _gather(s: Site) -> list[Axes]:
    axis, index = s.a.axis, s.rank(1)
    x = tuple(None if each == axis else each + (index - 1) * (each > axis) for each in range(s.rank(0)))
    return [x, tuple(range(axis, axis + index))]


def _rows(s: Site) -> list[Axes]:
    """A mixture of experts: rows with their choices and weights; what is captured is the same for all."""
    return [(0, None), (0, None), (0, None), *s.nones()[3:]]


SAME = (
    *("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "relu", "silu", "softplus", "erf", "gelu"),
    *("neg", "abs", "floor", "negate", "cast", "dropout", "one_hot"),
)
FROM_LAST = (
    *("add", "sub", "mul", "maximum", "minimum", "div", "pow", "floordiv", "mod"),
    *("eq", "ne", "lt", "le", "gt", "ge", "both", "either", "where", "expand"),
)
_ALONG = ("softmax", "log_softmax", "cumsum", "top_k", "roll", "pad", "slice", "concat")
DROPPED = ("sum", "mean", "max", "min", "argmax", "select", "split")
RULES: dict[str, Callable[[Site], list[Axes]]] = {
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(FROM_LAST, _from_last),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(DROPPED, _dropped),
    **dict.fromkeys(("linear", "layer_norm", "rms_norm"), _without(-1)),
    **dict.fromkeys(("group_norm", "conv1d", "conv2d", "drop_path"), _kept_first),
    "embedding": _embedding,
    "attend": _attend,
    "linear_attend": _linear_attend,
    "running_attend": _linear_attend,
    "rotate": _rotate,
    "positions": _positions,
    "matmul": _matmul,
    "einsum": _einsum,
    "rearrange": _rearrange,
    "swap": _swap,
    "gather": _gather,
    "route": _rows,
    "append": _along,
    "running_sum": _along,
    "take_along": _taken,
}


def with_sizes(value: Any, change: Callable[[Dim], Size]) -> Any:
    """An attribute with every size in it that only run time knows changed, at any depth of tuples and dictionaries."""
    if isinstance(value, Dim):
        return change(value)
    if type(value) in (tuple, list):
        return tuple(with_sizes(each, change) for each in value)
    if isinstance(value, dict):
        return {name: with_sizes(each, change) for name, each in value.items()}
    return value


def sizes_in(value: Any) -> list[Any]:
    """The sizes in an attribute, at any depth."""
    if isinstance(value, (tuple, list)):
        return [size for each in value for size in sizes_in(each)]
    if isinstance(value, dict):
        return sizes_in(tuple(value.values()))
    return [value]
