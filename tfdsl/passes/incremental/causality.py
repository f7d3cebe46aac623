"""Causality along the decoded axis: whether each position of a value depends on no later one, and where positions lie.

An abstract interpretation: every value of every region gets a `Flow`, or the `Fault` of the first op that lets it look at
later positions. A fault matters only if what is decoded depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tfdsl.ir.axes import flows, settings, sizes_in
from tfdsl.ir.dims import Dim, Size, names_of
from tfdsl.ir.graph import Graph, Node, Value, fed
from tfdsl.ir.op import Attributes
from tfdsl.passes.conditions import Conditions
from tfdsl.passes.incremental.above import above
from tfdsl.passes.incremental.flow import STATIC, Fault, Flow, State
from tfdsl.passes.incremental.rules import RULES, Looks, Site
from tfdsl.passes.regions import Region

# Attributes that may name the number of positions, since a rule of the op says what then follows.
_SIZED = {"expand", "slice", "iota", "rearrange", "append", "attend", "input", "weight"}


class Causality:
    """The flows of one region; `bodies` has those of the loops in it, by node and variant."""

    def __init__(self, region: Region, positions: Dim, inputs: Sequence[State]):
        self.region, self.graph, self.positions = region, region.graph, positions
        self.bodies: dict[tuple[int, int], Causality] = {}
        self.states: dict[Value, State] = {}
        self.conditions = Conditions(region)
        for place, state in zip(self.graph.inputs, inputs, strict=True):
            self.states[Value(place)] = state
        for node in self.graph.nodes():
            if node.op != "input":
                for index, state in enumerate(self._of(node)):
                    self.states[Value(node.id, index)] = state

    def flow(self, value: Value) -> Flow:
        """The flow of a value that has no fault."""
        state = self.states[value]
        assert isinstance(state, Flow)
        return state

    def is_stream(self, value: Value | None) -> bool:
        """Whether positions lie in a value."""
        return value is not None and bool(self.flow(value).axes)

    def _of(self, node: Node) -> Sequence[State]:
        if node.op == "repeat":
            return self._loop(node)
        if node.op == "scan":
            return self._scan(node)
        operands = [None if value is None else self.states[value] for value in node.inputs]
        fault = next((each for each in operands if isinstance(each, Fault)), None)
        state: State
        if fault is not None:
            state = fault
        else:
            try:
                state = self._plain(node, [each if isinstance(each, Flow) else None for each in operands])
            except Looks as reason:
                state = Fault(node, str(reason))
        if node.op == "top_k" and isinstance(state, Flow) and _chooses_keys(operands[0], state):
            return [state, Fault(node, "gives the places of keys, which padding moves")]
        return [state] * len(node.types)

    def _plain(self, node: Node, operands: list[Flow | None]) -> Flow:
        a = settings(self.graph, node)
        if not any(each is not None and each.axes for each in operands):
            return self._source(node, a, operands)
        if node.op not in _SIZED and self._names_positions(list(node.attributes.values())):
            raise Looks("asks how many positions there are")
        site = Site(self.graph, node, a, operands, flows(self.graph, node), self.positions)
        rule = RULES.get(node.op)
        found = rule(site) if rule is not None else None
        if found is None:
            found = site.by_position()
        dims = [dim for type_ in node.types for axis, dim in enumerate(type_.dims) if axis not in found.axes]
        if self._names_positions(dims):
            raise Looks("asks how many positions there are")
        return replace(found, above=above(self.region, self.conditions, site, found))

    def _source(self, node: Node, a: Attributes, operands: list[Flow | None]) -> Flow:
        """Positions that come of sizes: numbers from 0 on, or what is stretched or cut to as many as there are."""
        if not self._names_positions([*node.attributes.values(), *(dim for type in node.types for dim in type.dims)]):
            return replace(STATIC, data=any(each is not None and each.data for each in operands))
        axes = tuple(axis for axis, dim in enumerate(node.types[0].dims) if dim == self.positions)
        if node.op == "iota" and axes:
            return Flow(axes)
        if node.op == "expand" and axes and len(axes) < 3:
            return Flow(axes)
        if node.op == "slice" and axes == (a.axis,) and a.start == 0 and a.step == 1 and a.stop == self.positions:
            return Flow(axes)
        raise Looks("asks how many positions there are")

    def _names_positions(self, attributes: Sequence[object]) -> bool:
        (name,) = self.positions.names()
        sizes: list[Size] = [each for each in sizes_in(tuple(attributes)) if isinstance(each, Dim)]
        return name in names_of(sizes)

    def _scan(self, node: Node) -> Sequence[State]:
        """A recurrence along positions: its results are causal, and its last states are not known before the end."""
        a = settings(self.graph, node)
        states = [STATIC if value is None else self.states[value] for value in node.inputs]
        fault = next((each for each in states if isinstance(each, Fault)), None)
        found = [each for each in states if isinstance(each, Flow)]
        if fault is None and any(each.axes for each in found):
            along = found[a.carried : a.carried + a.scanned]
            others = [*found[: a.carried], *found[a.carried + a.scanned :]]
            if any(each.axes != (a.axis,) or not each.settled or each.merged for each in along):
                fault = Fault(node, "goes through what is laid out otherwise than by position")
            elif any(each.axes for each in others):
                fault = Fault(node, "starts with positions, or reads all of them at each")
        if fault is not None or not any(each.axes for each in found):
            state = fault or Flow(data=any(each.data for each in found))
            return [state] * len(node.types)
        ended = Fault(node, "gives the state after the last position")
        return [ended] * a.carried + [Flow((a.axis,), data=True)] * (len(node.types) - a.carried)

    def _loop(self, node: Node) -> Sequence[State]:
        carried = node.attributes["carried"]
        inputs = [STATIC if value is None else self.states[value] for value in fed(node)]
        while True:  # each round knows less of what is carried than the one before, until nothing changes
            results: list[State] = list(inputs[:carried])
            for variant, body in enumerate(node.bodies):
                inside = Causality(Region(body, node, self.region), self.positions, inputs)
                self.bodies[node.id, variant] = inside
                ends = [inside.states[value] for _, value in body.outputs]
                results = [_join(node, *pair) for pair in zip(results, ends, strict=True)]
            if results == inputs[:carried]:
                return results
            inputs[:carried] = results


def _chooses_keys(scores: State | None, chosen: Flow) -> bool:
    """Whether the largest are of scores along keys, and not of those along an axis without positions."""
    return isinstance(scores, Flow) and scores.axes != chosen.axes


def _join(node: Node, before: State, after: State) -> State:
    """What is known of a carried value before a turn and after it."""
    if isinstance(before, Fault) or isinstance(after, Fault):
        return before if isinstance(before, Fault) else after
    if (before.axes, before.lead, before.ahead, before.merged) != (after.axes, after.lead, after.ahead, after.merged):
        return Fault(node, "carries a value whose positions lie otherwise after a turn than before it")
    same = {pair: number for pair, number in before.above.items() if after.above.get(pair) == number}
    return replace(before, data=before.data or after.data, zeros=before.zeros and after.zeros, above=same)


def analyse(graph: Graph, positions: Dim) -> Causality:
    """The flows of a whole model, whose inputs with an axis of that size give the decoded sequence."""
    inputs: list[State] = []
    for place in graph.inputs:
        dims = graph.node(place).type.dims
        axes = tuple(axis for axis, dim in enumerate(dims) if dim == positions)
        inputs.append(
            Flow(axes[:1], data=True) if len(axes) < 2 else Fault(graph.node(place), "has two axes of positions")
        )
    return Causality(Region(graph), positions, inputs)
