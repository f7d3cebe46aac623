"""Causality, op by op: what a rule says of ops that do more along an axis than go position by position.

A rule gets a node with the flows of its operands and gives that of its results; it raises `Looks` for an op that looks at
later positions, and returns None to leave the node to the general rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.axes import Axes, merged_places, pieces
from tfdsl.ir.axes import Site as Types
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.op import Attributes
from tfdsl.passes.constants import constant
from tfdsl.passes.incremental.flow import Flow

LOW = -1e4  # scores as low as this are hidden: beside any that is seen, their share is zero in every precision


class Looks(Exception):
    """An op that looks at later positions, or whose result is not laid out by position; the words say how."""


@dataclass(frozen=True)
class Site:
    """A node with the flows of its operands and where their axes go."""

    graph: Graph
    node: Node
    a: Attributes
    operands: Sequence[Flow | None]
    axes: Sequence[Axes]
    positions: Dim

    def dims(self, place: int) -> tuple[Size, ...]:
        value = self.node.inputs[place]
        return () if value is None else self.graph.type(value).dims

    def streams(self) -> list[tuple[int, Flow]]:
        """The operands in which positions lie, with their places."""
        return [(place, flow) for place, flow in enumerate(self.operands) if flow is not None and flow.axes]

    @property
    def data(self) -> bool:
        return any(flow is not None and flow.data for flow in self.operands)

    def by_position(self) -> Flow:
        """The flow of an op that goes position by position along every axis on which positions lie."""
        found: set[int] = set()
        streams = self.streams()
        for place, flow in streams:
            for axis in flow.axes:
                goes = self.axes[place][axis]
                if goes is None:
                    raise Looks(f"mixes positions along axis {axis} of [{_spell(self.dims(place))}]")
                found.add(goes)
        if len(found) > 2:
            raise Looks("has more than two axes of positions")
        ends = {(flow.lead, flow.ahead, flow.merged) for _, flow in streams}
        if len(ends) > 1:
            raise Looks("joins values whose positions do not lie alike")
        ((lead, ahead, merged),) = ends
        if (lead, ahead) != (0, 0) and (len(found) > 1 or self.node.op not in _SHAPES):
            raise Looks("computes with a sequence that is longer or shorter than the positions")
        return Flow(tuple(sorted(found)), lead, ahead, all(flow.zeros for _, flow in streams), merged, self.data)


_SHAPES = ("rearrange", "swap", "expand", "cast", "split", "slice", "concat", "select", "pad", "mul")


def _spell(dims: Sequence[Size]) -> str:
    return ", ".join(str(dim) for dim in dims)


def settle(flow: Flow) -> Flow:
    """A sequence as long as the positions that begins with zeros is one delayed by as many."""
    if flow.lead + flow.ahead != 0 or flow.lead == 0:
        return flow
    if flow.lead < 0:
        raise Looks("moves later positions to earlier ones")
    if not flow.zeros:
        raise Looks("begins with values that are not zero")
    return replace(flow, lead=0, ahead=0)


def _single(s: Site, place: int = 0) -> Flow | None:
    """The flow of an operand with positions on one axis, if that is the axis that the op runs along."""
    flow = s.operands[place]
    return flow if flow is not None and flow.axes == (s.a.axis,) and not flow.merged else None


def _pad(s: Site) -> Flow | None:
    flow = _single(s)
    if flow is None:
        return None
    if not isinstance(s.a.before, int) or not isinstance(s.a.after, int):
        raise Looks("adds as many positions as there are")
    if flow.ahead < 0 < s.a.after:
        raise Looks("puts others in the place of the last positions")
    zeros = flow.zeros and (s.a.value == 0 or s.a.before == 0)
    return settle(replace(flow, lead=flow.lead + s.a.before, ahead=flow.ahead + s.a.after, zeros=zeros, above={}))


def _slice(s: Site) -> Flow | None:
    flow = _single(s)
    if flow is None:
        if _names(s.a.start, s.positions) or (s.a.stop is not None and _names(s.a.stop, s.positions)):
            raise Looks("asks how many positions there are")
        return None
    size = s.dims(0)[s.a.axis]
    lost = 0 if s.a.stop is None else size - s.a.stop
    if s.a.step != 1 or not isinstance(s.a.start, int) or not isinstance(lost, int) or lost < 0:
        raise Looks("takes some of the positions")
    if s.a.start > max(flow.lead, 0):
        raise Looks("leaves out the first positions")
    return settle(replace(flow, lead=flow.lead - s.a.start, ahead=flow.ahead - lost, above={}))


def _concat(s: Site) -> Flow | None:
    streams = s.streams()
    if all(flow.axes != (s.a.axis,) for _, flow in streams):
        return None
    if len(streams) > 1 or streams[0][1].merged:
        raise Looks("puts sequences one after another")
    ((place, flow),) = streams
    before = [s.dims(each)[s.a.axis] for each in range(place)]
    after = [s.dims(each)[s.a.axis] for each in range(place + 1, len(s.operands))]
    lead, ahead = sum(before), sum(after)
    if not isinstance(lead, int) or not isinstance(ahead, int):
        raise Looks("adds as many positions as there are")
    if flow.ahead < 0 < ahead:
        raise Looks("puts others in the place of the last positions")
    zeros = flow.zeros and all(is_zero(s.graph, s.node.inputs[each]) for each in range(place))
    return settle(replace(flow, lead=flow.lead + lead, ahead=flow.ahead + ahead, zeros=zeros, data=s.data, above={}))


def is_zero(graph: Graph, value: Value | None) -> bool:
    """Whether a tensor is zeros, whatever the data."""
    while value is not None:
        node = graph.node(value)
        if node.op == "constant":
            return bool(constant(graph, value) == 0)
        if node.op not in ("expand", "cast", "rearrange", "swap", "slice"):
            return False
        value = node.inputs[0]
    return False


def _conv1d(s: Site) -> Flow | None:
    flow = s.operands[0]
    if flow is None or flow.axes != (2,):
        return None
    before, after = s.a.padding if isinstance(s.a.padding, tuple) else (s.a.padding, s.a.padding)
    span = s.a.dilation * (s.a.kernel - 1)
    if s.a.stride != 1:
        raise Looks("gives one position for several")
    if not flow.zeros and flow.lead > 0:
        raise Looks("begins with values that are not zero")
    if flow.ahead < 0 < after:
        raise Looks("puts others in the place of the last positions")
    lead, ahead = flow.lead + before - span, flow.ahead + after
    if lead < 0:
        seen = f"sees {-lead} later position{'s' if lead < -1 else ''}"
        raise Looks(seen if lead + ahead == 0 else "gives nothing for the first positions")
    zeros = lead == 0 or s.node.inputs[2] is None  # what is made of nothing but padding
    return settle(Flow((2,), lead, ahead, zeros=zeros, data=s.data))


def _attend(s: Site) -> Flow | None:
    q, k, v = s.operands[:3]
    if any(flow is not None and flow.merged for flow in s.operands):
        raise Looks("attends to the batch")
    for flow in (q, k, v):
        if flow is not None and flow.axes not in ((), (2,)):
            raise Looks("attends along another axis than that of positions")
    if k is None or v is None or q is None or not (k.axes or v.axes):
        extra = [flow for flow in s.operands[3:] if flow is not None and flow.axes]
        if any(2 not in (axis + 4 - len(s.dims(3 + place)) for axis in flow.axes) for place, flow in enumerate(extra)):
            return None
        return Flow((2,), data=True)
    if not q.axes:
        raise Looks("lets what is no position attend to all positions")
    if not (k.axes and v.axes):
        raise Looks("has positions in its keys or its values alone")
    if not (q.settled and k.settled and v.settled):
        raise Looks("attends to a sequence that is longer or shorter than the positions")
    if not _hides_later(s):
        raise Looks("lets positions attend to later ones: its mask is not causal")
    return Flow((2,), data=True)


def _hides_later(s: Site) -> bool:
    """Whether the mask, the allowed pairs or the bias of an attention hide the keys after a query."""
    if s.a.mask is not None and implies_causal(s.a.mask):
        return True
    for place, hidden in ((3, LOW), (4, 0.0)):
        flow = s.operands[place]
        rank = len(s.dims(place))
        if flow is not None and flow.above.get((rank - 2, rank - 1), 1.0) <= hidden:
            return True
    return False


def implies_causal(mask: Any) -> bool:
    """Whether a mask lets no query see a later key."""
    if isinstance(mask, masks.Joined):
        sides = implies_causal(mask.left), implies_causal(mask.right)
        return any(sides) if mask.operator == "&" else all(sides)
    return bool(mask == masks.CAUSAL)


def _linear_attend(s: Site) -> Flow | None:
    flows = [flow for flow in s.operands if flow is not None]
    for place, flow in enumerate(s.operands):
        rank = len(s.dims(place))
        axis = rank - 1 if place == 3 and rank < 4 else 2
        if flow is not None and flow.axes not in ((), (axis,)):
            raise Looks("attends along another axis than that of positions")
        if flow is not None and not flow.settled:
            raise Looks("attends to a sequence that is longer or shorter than the positions")
    if not all(flow.axes for flow in flows[:3]):
        raise Looks("has positions in some of its queries, keys and values alone")
    return Flow((2,), data=True)


def _cumsum(s: Site) -> Flow | None:
    """Along the positions, or along an axis of pairs: up to a key, none after it counts."""
    whole = s.operands[0]
    if whole is not None and len(whole.axes) == 2 and s.a.axis in whole.axes:
        return Flow(whole.axes, data=whole.data)
    flow = _single(s)
    if flow is None:
        return None
    if not flow.settled:
        raise Looks("sums up a sequence that is longer or shorter than the positions")
    return Flow(flow.axes, data=flow.data)


def _positions(s: Site) -> Flow | None:
    flow = s.operands[0]
    if flow is None or s.a.axis not in flow.axes:
        size = s.dims(0)[s.a.axis]
        if isinstance(size, Dim) and size.names() & s.positions.names():
            raise Looks("counts along an axis that positions are part of")
        return Flow()
    if not flow.settled or flow.merged:
        raise Looks("counts along an axis that is longer or shorter than the positions")
    return Flow((0,))


def _rearrange(s: Site) -> Flow | None:
    """Positions may be merged with the batch, as rows, and come apart again."""
    (flow,) = (each for each in s.operands if each is not None)
    if len(flow.axes) != 1 or not flow.settled:
        return None
    done = pieces(Types(s.node, [s.graph.type(value) for value in s.node.inputs if value is not None], s.a))
    places = merged_places(done)
    start = sum(done.split_groups[: flow.axes[0]])
    mine = range(start, start + done.split_groups[flow.axes[0]])
    here = [piece for piece in mine if done.split[piece] == s.positions]
    if flow.merged and len(mine) == 1:
        here = list(mine)
    if len(here) != 1 or any(_names(done.split[piece], s.positions) for piece in mine if piece not in here):
        raise Looks("splits the axis of positions")
    axis, _ = places[here[0]]
    whole = done.split[here[0]] == s.positions
    others = [done.split[piece] for piece, (place, _) in enumerate(places) if place == axis and piece != here[0]]
    return replace(flow, axes=(axis,), merged=bool([size for size in others if size != 1]) or not whole, above={})


def _names(size: Size, positions: Dim) -> bool:
    return isinstance(size, Dim) and bool(size.names() & positions.names())


def _expand(s: Site) -> Flow | None:
    """An axis of 1 may be stretched to as many positions as there are; it then lies alike at each of them."""
    flow = s.operands[0]
    assert flow is not None
    found = s.by_position()
    added = {axis for axis, dim in enumerate(s.a.shape) if dim == s.positions} - set(found.axes)
    if any(_names(dim, s.positions) for axis, dim in enumerate(s.a.shape) if axis not in (*found.axes, *added)):
        raise Looks("asks how many positions there are")
    if not added:
        return None
    if len(added) + len(found.axes) > 2 or not found.settled or found.merged:
        raise Looks("has more than two axes of positions")
    return Flow(tuple(sorted({*found.axes, *added})), data=found.data)


def _reduce(s: Site) -> Flow | None:
    """Along the keys of pairs: a sum of what is zero above, the largest of what is low above."""
    flow = s.operands[0]
    assert flow is not None
    if len(flow.axes) != 2 or s.a.axis not in flow.axes:
        return None
    query = next(axis for axis in flow.axes if axis != s.a.axis)
    known = flow.above.get((query, s.a.axis))
    fits = known is not None and {"sum": known == 0, "max": known <= LOW}.get(s.node.op, False)
    if not fits:
        raise Looks("takes later positions together with earlier ones")
    return Flow((query if s.a.keep or query < s.a.axis else query - 1,), data=flow.data)


def _top_k(s: Site) -> Flow | None:
    """Of the keys of each query, the largest: those that are hidden are all alike, so it does not count how many there are."""
    flow = s.operands[0]
    assert flow is not None
    if s.a.axis not in flow.axes:
        return None
    query = next((axis for axis in flow.axes if axis != s.a.axis), None)
    known = None if query is None else flow.above.get((query, s.a.axis))
    if query is None or known is None or not -math.inf < known <= LOW:
        raise Looks("chooses among later positions too: none hides them by one number")
    return Flow((query,), data=flow.data)


def _softmax(s: Site) -> Flow | None:
    flow = s.operands[0]
    assert flow is not None
    if s.a.axis not in flow.axes:
        return None
    query = next((axis for axis in flow.axes if axis != s.a.axis), None)
    if query is None or flow.above.get((query, s.a.axis), 0.0) > LOW:
        raise Looks("gives shares to later positions: none hides them")
    return Flow(flow.axes, data=flow.data)


def _product(s: Site) -> Flow | None:
    """A sum over keys of what is zero above, times what lies at the keys."""
    streams = s.streams()
    lost = [(place, flow, [axis for axis in flow.axes if s.axes[place][axis] is None]) for place, flow in streams]
    lost = [each for each in lost if each[2]]
    if not lost:
        return None
    pair = next((each for each in lost if len(each[1].axes) == 2), None)
    if pair is None or len(lost) != 2 or any(len(each[2]) != 1 for each in lost):
        raise Looks("sums over positions")
    place, flow, (key,) = pair
    query = next(axis for axis in flow.axes if axis != key)
    if flow.above.get((query, key)) != 0:
        raise Looks("sums over positions, later ones too")
    goes = s.axes[place][query]
    other = next(each for each in lost if each[0] != place)
    if goes is None or len(other[1].axes) != 1 or not (flow.settled and other[1].settled):
        raise Looks("sums over positions")
    return Flow((goes,), data=s.data)


def _never(s: Site) -> Flow | None:
    """Ops that mix along the axis they are given, if positions lie on it."""
    for place, flow in s.streams():
        if s.a.axis in flow.axes and place == 0:
            raise Looks("mixes positions")
    return None


RULES: dict[str, Callable[[Site], Flow | None]] = {
    "pad": _pad,
    "slice": _slice,
    "concat": _concat,
    "conv1d": _conv1d,
    "attend": _attend,
    "linear_attend": _linear_attend,
    "cumsum": _cumsum,
    "positions": _positions,
    "rearrange": _rearrange,
    "expand": _expand,
    "sum": _reduce,
    "max": _reduce,
    "softmax": _softmax,
    "top_k": _top_k,
    "matmul": _product,
    "einsum": _product,
    **dict.fromkeys(("roll", "argmax", "min", "mean", "log_softmax", "split", "select", "take_along"), _never),
}
