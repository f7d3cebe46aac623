"""The graph that decodes: every value for the new positions, and for all positions where attention needs them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir.axes import flows, with_sizes
from tfdsl.ir.dims import Dim, DimError, Size, substitute
from tfdsl.ir.graph import Graph, Node, Type, Value, fed
from tfdsl.ir.op import ShapeError
from tfdsl.language.diagnostics import SpecError, one
from tfdsl.passes.incremental.causality import Causality
from tfdsl.passes.incremental.cuts import Reader, can_recompute
from tfdsl.passes.incremental.flow import NEW, Fault, Flow, Full
from tfdsl.passes.incremental.frames import reframe
from tfdsl.passes.incremental.rows import Emitter, Made
from tfdsl.passes.incremental.rules import Looks
from tfdsl.passes.incremental.special import SPECIAL, SUMS
from tfdsl.passes.incremental.windows import Windows

NAMED = {"key": 1, "value": 2}  # what states that attention reads are called, with their places among its operands


@dataclass
class Decoding:
    """What all regions of one graph share: sizes, and what was found out so far."""

    name: str
    positions: Dim
    total: Dim
    batch: Size
    windows: Windows
    needed: dict[int, dict[Value, set[Reader]]] = field(default_factory=dict)  # by region: of all positions, by whom
    cuts: dict[int, set[Value]] | None = None  # by region; None while what is needed is being found out
    paths: set[tuple[str, int]] = field(default_factory=set)

    @property
    def past(self) -> Size:
        return self.total - self.positions


class Builder:
    """Makes one region of the new graph out of one of the old."""

    def __init__(self, decoding: Decoding, causality: Causality, graph: Graph, outer: Loop | None = None):
        self.shared, self.causality, self.old, self.graph = decoding, causality, causality.graph, graph
        self.outer = outer
        self.emitter = Emitter(graph, decoding.batch)
        self._made: dict[tuple[Value, Full], Made] = {}
        self._nodes: dict[tuple[int, Full], Made] = {}
        self._helpers: dict[Hashable, Made] = {}
        self.redirected: dict[Value, Made] = {}  # results that pass through another node before they are read

    # --- values ------------------------------------------------------------------------------------------------------

    def make(self, value: Value, full: Full = NEW, reader: Reader | None = None) -> Made:
        """A value of the old graph for the new positions, or for all of them along the axes of `full`."""
        state = self.causality.states[value]
        if isinstance(state, Fault):
            raise refusal(self.shared.name, state)
        key = (value, full if state.axes else NEW)
        if full and len(state.axes) == 1 and reader is not None and self.shared.cuts is None:
            self.shared.needed.setdefault(id(self.causality), {}).setdefault(value, set()).add(reader)
        if key not in self._made:
            try:
                self._made[key] = self._make(value, state, key[1])
            except (Looks, ShapeError, DimError) as reason:
                raise refusal(self.shared.name, Fault(self.old.node(value), str(reason))) from None
        return self._made[key]

    def _make(self, value: Value, flow: Flow, full: Full) -> Made:
        node = self.old.node(value)
        if node.op == "input":
            return self._input(node, flow, full)
        if len(flow.axes) == 2 and len(full) != 1:
            raise Looks("pairs positions with positions where each is to stand alone")
        if full and len(flow.axes) == 1 and flow.data and self._is_remembered(value):
            return self._append(value, flow)
        first, rows = self._node(node, flow, full)
        return self.redirected.get(value, Made(Value(first.node, first.index + value.index), rows))

    def _is_remembered(self, value: Value) -> bool:
        cuts = self.shared.cuts
        if cuts is None:
            return True
        return value in cuts.get(id(self.causality), ()) or not can_recompute(self.causality, value)

    def _input(self, node: Node, flow: Flow, full: Full) -> Made:
        """An input of the model; in a loop, what is carried was made before, and the rest comes from outside."""
        place = self.old.inputs.index(node.id)
        if self.outer is None:
            if full:
                return self._append(Value(node.id), flow)
            return Made(
                Value(self.graph.add("input", (), node.attributes, node.types, span=node.span, labels=node.labels).id)
            )
        if self.outer.is_carried(place):
            assert full, "what is carried is made when the loop is entered"
            return self._append(Value(node.id), flow)
        return self.outer.capture(self, place, full)

    def _node(self, node: Node, flow: Flow, full: Full) -> Made:
        """What stands for the first result of a node; the others follow it."""
        key = (node.id, full)
        if key not in self._nodes:
            self._nodes[key] = self._emit(node, flow, full)
        return self._nodes[key]

    def _emit(self, node: Node, flow: Flow, full: Full) -> Made:
        if node.op == "repeat":
            return _first(Loop(self, node).build())
        streams = any(value is not None and self.causality.is_stream(value) for value in node.inputs)
        if not flow.axes and not streams:
            return _first(self._copy(node))
        special = SPECIAL.get(node.op)
        found = special(self, node, flow, full) if special is not None else None
        # What is passed on as it was made may be any result of its node: the second of a split, say.
        return found if isinstance(found, Made) else _first(*(found or self.general(node, full)))

    def _copy(self, node: Node) -> Node:
        """What has no positions, as it was."""
        return self.graph.add(
            node.op,
            [None if value is None else self.make(value).value for value in node.inputs],
            node.attributes,
            node.types,
            like=node,
            spelled=dict(node.spelled),
            labels=node.labels,
            bodies=tuple(body.copy() for body in node.bodies),
        )

    def reframe(self) -> None:
        """Let the blocks in the new region name its values."""
        reframe(self.graph, {value: made.value for (value, full), made in self._made.items() if full == NEW})

    def general(self, node: Node, full: Full) -> tuple[Node, bool]:
        """An op that goes position by position, on operands whose axes hold what those of the result are to hold."""
        operands: list[Made | None] = []
        for place, (value, goes) in enumerate(zip(node.inputs, flows(self.old, node), strict=True)):
            operands.append(None if value is None else self.operand(node, place, value, goes, full))
        given = dict(node.attributes)
        if full and len(full) == len(self.causality.flow(Value(node.id)).axes):
            given = {name: self.lengthened(each) for name, each in given.items()}
        return self.emitter.emit(node, operands, given)

    def operand(self, node: Node, place: int, value: Value, goes: tuple[int | None, ...], full: Full) -> Made:
        flow = self.causality.flow(value)
        if node.op not in SUMS and any(goes[axis] is None for axis in flow.axes):
            raise Looks("lays positions out so that they cannot be followed")
        # An axis that goes nowhere is summed over, position by position: it holds all of them.
        wanted = frozenset(axis for axis in flow.axes if goes[axis] is None or goes[axis] in full)
        return self.make(value, wanted, (node.id, place))

    def lengthened(self, value: Any) -> Any:
        """An attribute for all positions."""
        names = {self.shared.positions.name or "": self.shared.total}
        return with_sizes(value, lambda size: substitute(size, names))

    # --- states ------------------------------------------------------------------------------------------------------

    def _append(self, value: Value, flow: Flow) -> Made:
        """All positions of a value, of which only the new ones are computed."""
        if not flow.settled or flow.merged:
            raise Looks("is needed of all positions, and is longer or shorter than they are")
        made = self.make(value)
        assert not made.rows, "what follows from positions alone is computed, and not remembered"
        node, hint = self._named(value)
        (axis,) = flow.axes
        kept = self.shared.windows.kept(id(self.causality), value)
        sizes: dict[str, Any] = {"size": self.shared.past} if kept is None else kept
        return Made(self.emitter.add("append", made.value, like=node, path=self.path(node, hint), axis=axis, **sizes))

    def _named(self, value: Value) -> tuple[Node, str]:
        """The node whose block a state belongs to, and what the state is called."""
        own = self.old.node(value)
        for hint, wanted in NAMED.items():
            for node_id, place in sorted(self.shared.needed.get(id(self.causality), {}).get(value, ())):
                reader = self.old.node(node_id)
                if reader.op == "attend" and place == wanted:
                    return reader, hint
        label = own.labels[value.index] if value.index < len(own.labels) else ""
        return own, label or own.name or str(own.attributes.get("name", own.op))

    def path(self, node: Node, hint: str) -> str:
        """A path for a state in the block of a node: one of its own, with a `*` for each loop around it."""
        prefix = node.scope[-1].path if node.scope else ""
        loop = f"{self.outer.path}.*" if self.outer is not None else ""
        if loop and prefix != loop and not prefix.startswith(f"{loop}."):
            prefix = f"{loop}.{prefix}" if prefix and "*" not in prefix else loop
        prefix = prefix if prefix.count("*") == loop.count("*") else loop
        stem = ".".join(filter(None, (prefix, hint.replace(".", "_"))))
        path, count = stem, 2
        # Bodies of one loop are for different turns: the same path is then another state in each.
        mine = {id(self.graph), *(self.outer.siblings if self.outer is not None else ())}
        while any(
            taken == path and (region == id(self.graph) or region not in mine) for taken, region in self.shared.paths
        ):
            path, count = f"{stem}_{count}", count + 1
        self.shared.paths.add((path, id(self.graph)))
        return path

    def look_back(self, made: Made, axis: int, count: int, node: Node, hint: str) -> Value:
        """New positions of a value with the `count` before them; padding and what is before the first are zero."""
        zeroed = self.zeroed(made, axis, node)
        path = self.path(node, hint)
        return self.emitter.add("append", zeroed, like=node, path=path, axis=axis, size=count, last=count, fill=count)

    def zeroed(self, made: Made, axis: int, node: Node) -> Value:
        """New positions with zeros for padding."""
        dims = self.graph.type(made.value).dims
        rank = max(len(dims), len(dims) - axis + 1)  # one without a batch gets an axis for it
        if made.rows or (rank == len(dims) and dims[0] not in (1, self.shared.batch)):
            raise Looks("has no axis of the batch in front, as positions with padding need")
        place = rank - (len(dims) - axis)
        names = " ".join(["b", *("s" if each == place else "1" for each in range(1, rank))])
        real = self.emitter.add("rearrange", self.helper("real").value, like=node, pattern=f"b s -> {names}")
        dtype = self.graph.type(made.value).dtype
        nothing: Any = {"float": 0.0, "int": 0, "bool": False}[dtype]
        zero = self.emitter.add("constant", like=node, value=nothing, dtype=dtype)
        return self.emitter.add("where", real, made.value, zero, like=node)

    # --- what the decoder is told: padding and positions -------------------------------------------------------------

    def helper(self, name: str) -> Made:
        """`real` [batch, seq] and `seen` [batch, total]: what is no padding; `ids` and `key_ids`: their positions."""
        if name not in self._helpers:
            self._helpers[name] = self.outer.capture_helper(self, name) if self.outer else self._top_helper(name)
        return self._helpers[name]

    def _top_helper(self, name: str) -> Made:
        shared = self.shared
        if name in ("attention_mask", "position_ids"):
            length = shared.total if name == "attention_mask" else shared.positions
            node = self.graph.add("input", (), {"name": name}, (Type("int", (shared.batch, length)),), name=name)
            return Made(Value(node.id))
        if name == "ids":
            return Made(self.helper("position_ids").value, rows=True)
        like = Node(-1, "", (), {}, (), order=-0.5)
        if name == "seen":
            return Made(self.emitter.add("cast", self.helper("attention_mask").value, like=like, to="bool"))
        if name == "real":
            mask = self.emitter.add("slice", self.helper("seen").value, like=like, axis=1, start=shared.past)
            return Made(mask)
        count = self.emitter.add("cumsum", self.helper("attention_mask").value, like=like, axis=1)
        one_, zero = (self.emitter.add("constant", like=like, value=each, dtype="int") for each in (1, 0))
        ids = self.emitter.add("maximum", self.emitter.add("sub", count, one_, like=like), zero, like=like)
        return Made(ids, rows=True)


def _first(node: Node, rows: bool = False) -> Made:
    """The first result of a node."""
    return Made(Value(node.id), rows)


class Loop:
    """A `repeat` on its way into the new graph: its bodies, and what they read from outside."""

    def __init__(self, builder: Builder, node: Node):
        self.builder, self.node = builder, node
        self.path = node.attributes["path"]
        self.carried = node.attributes["carried"]
        self.siblings: set[int] = set()
        self._asked: dict[Hashable, Made] = {}
        self._inputs: dict[int, dict[Hashable, Value]] = {}  # by body: what stands for what is asked for

    def is_carried(self, place: int) -> bool:
        return place < self.carried

    def build(self) -> Node:
        """The loop over new positions."""
        first = [self._carried_in(value) for value in self.node.inputs[: self.carried]]
        bodies = [self._body(variant, body) for variant, body in enumerate(self.node.bodies)]
        for body in bodies:
            known = self._inputs[id(body)]
            for key, made in self._asked.items():
                if key not in known:
                    known[key] = self._new_input(body, made)
            body.inputs = [*body.inputs[: self.carried], *(known[key].node for key in self._asked)]
        inputs = [*first, *(made.value for made in self._asked.values())]
        types = tuple(self.builder.graph.type(value) for value in first)
        rest = {"labels": self.node.labels, "spelled": dict(self.node.spelled), "bodies": tuple(bodies)}
        return self.builder.graph.add("repeat", inputs, self.node.attributes, types, like=self.node, **rest)

    def _carried_in(self, value: Value | None) -> Value:
        assert value is not None
        made = self.builder.make(value)
        if made.rows:
            raise Looks("carries positions, which differ from row to row of the batch")
        return made.value

    def _body(self, variant: int, old: Graph) -> Graph:
        body = Graph(old.name)
        body.frame = old.frame
        self._inputs[id(body)] = {}
        self.siblings.add(id(body))
        inside = Builder(self.builder.shared, self.builder.causality.bodies[self.node.id, variant], body, self)
        for place in old.inputs[: self.carried]:
            node = old.node(place)
            made = body.add(
                "input", (), node.attributes, node.types, name=node.name, span=node.span, labels=node.labels
            )
            inside._made[Value(place), NEW] = Made(Value(made.id))
        for name, value in old.outputs:
            made_ = inside.make(value)
            if made_.rows:
                raise Looks("carries positions, which differ from row to row of the batch")
            body.outputs.append((name, made_.value))
        inside.reframe()
        return body

    def capture(self, inside: Builder, place: int, full: Full) -> Made:
        """An outer value, in a body."""
        value = fed(self.node)[place]
        assert value is not None
        key = ("value", value, full)
        if key not in self._asked:
            self._asked[key] = self.builder.make(value, full, (self.node.id, place))
        return self._inside(inside, key)

    def capture_helper(self, inside: Builder, name: str) -> Made:
        key = ("helper", name)
        if key not in self._asked:
            self._asked[key] = self.builder.helper(name)
        return self._inside(inside, key)

    def _inside(self, inside: Builder, key: Hashable) -> Made:
        made = self._asked[key]
        known = self._inputs[id(inside.graph)]
        if key not in known:
            known[key] = self._new_input(inside.graph, made)
        return Made(known[key], made.rows)

    def _new_input(self, body: Graph, made: Made) -> Value:
        outside = self.builder.graph.node(made.value)
        label = outside.labels[made.value.index] if made.value.index < len(outside.labels) else outside.name
        types = (self.builder.graph.type(made.value),)
        return Value(body.add("input", (), {"name": label or outside.op}, types, name=label or outside.op).id)


def refusal(model: str, fault: Fault) -> SpecError:
    """A model that cannot decode, with the op at fault and its place."""
    node = fault.node
    place = node.scope[-1].path if node.scope else ""
    where = f" at `{place}`" if place else ""
    return one(
        "T720",
        f"`{model}` cannot decode position by position: `{node.op}`{where} {fault.why}",
        node.span,
        note=f"called `{node.name}`" if node.name and node.name != node.op else "",
        help="a cache needs each position to depend on none after it; build without one, or change this op",
    )


__all__ = ["Builder", "Decoding", "refusal"]
