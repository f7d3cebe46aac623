"""The graph that decodes: every value for the new positions, and for all positions where attention needs them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.axes import flows, settings
from tfdsl.ir.dims import Dim, DimError, Size, substitute
from tfdsl.ir.graph import Graph, Node, Type, Value, fed
from tfdsl.ir.op import Attributes, ShapeError
from tfdsl.language.diagnostics import SpecError, one
from tfdsl.passes.incremental.causality import Causality
from tfdsl.passes.incremental.cuts import Reader, can_recompute
from tfdsl.passes.incremental.flow import Fault, Flow
from tfdsl.passes.incremental.frames import reframe
from tfdsl.passes.incremental.rows import Emitter, Made
from tfdsl.passes.incremental.rules import Looks, is_zero
from tfdsl.passes.incremental.windows import Windows

Full = frozenset[int]  # the axes of a value that hold all positions, and not only the new ones
NEW: Full = frozenset()

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
        self._nodes: dict[tuple[int, Full], tuple[Node, bool]] = {}
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
        made, rows = self._node(node, flow, full)
        return self.redirected.get(value, Made(Value(made.id, value.index), rows))

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

    def _node(self, node: Node, flow: Flow, full: Full) -> tuple[Node, bool]:
        key = (node.id, full)
        if key not in self._nodes:
            self._nodes[key] = self._emit(node, flow, full)
        return self._nodes[key]

    def _emit(self, node: Node, flow: Flow, full: Full) -> tuple[Node, bool]:
        if node.op == "repeat":
            return Loop(self, node).build(), False
        streams = any(value is not None and self.causality.is_stream(value) for value in node.inputs)
        if not flow.axes and not streams:
            return self._copy(node), False
        special = _SPECIAL.get(node.op)
        found = special(self, node, flow, full) if special is not None else None
        if isinstance(found, Made):
            return self.graph.node(found.value), found.rows
        return found if found is not None else self.general(node, full)

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

    def general(self, node: Node, full: Full, **attributes: Any) -> tuple[Node, bool]:
        """An op that goes position by position, on operands whose axes hold what those of the result are to hold."""
        operands: list[Made | None] = []
        for place, (value, goes) in enumerate(zip(node.inputs, flows(self.old, node), strict=True)):
            operands.append(None if value is None else self._operand(node, place, value, goes, full))
        given = {**node.attributes, **attributes}
        if full and len(full) == len(self.causality.flow(Value(node.id)).axes):
            given = {name: self._lengthened(each) for name, each in given.items()}
        return self.emitter.emit(node, operands, given)

    def _operand(self, node: Node, place: int, value: Value, goes: tuple[int | None, ...], full: Full) -> Made:
        flow = self.causality.flow(value)
        if node.op not in _SUMS and any(goes[axis] is None for axis in flow.axes):
            raise Looks("lays positions out so that they cannot be followed")
        # An axis that goes nowhere is summed over, position by position: it holds all of them.
        wanted = frozenset(axis for axis in flow.axes if goes[axis] is None or goes[axis] in full)
        return self.make(value, wanted, (node.id, place))

    def _lengthened(self, value: Any) -> Any:
        """An attribute for all positions."""
        if isinstance(value, Dim):
            return substitute(value, {self.shared.positions.name or "": self.shared.total})
        if type(value) is tuple:
            return tuple(self._lengthened(each) for each in value)
        if isinstance(value, dict):
            return {name: self._lengthened(each) for name, each in value.items()}
        return value

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

    def zeroed(self, made: Made, axis: int, node: Node, low: float = 0.0) -> Value:
        """New positions with zeros for padding."""
        dims = self.graph.type(made.value).dims
        rank = max(len(dims), len(dims) - axis + 1)  # one without a batch gets an axis for it
        if made.rows or (rank == len(dims) and dims[0] not in (1, self.shared.batch)):
            raise Looks("has no axis of the batch in front, as positions with padding need")
        place = rank - (len(dims) - axis)
        names = " ".join(["b", *("s" if each == place else "1" for each in range(1, rank))])
        real = self.emitter.add("rearrange", self.helper("real").value, like=node, pattern=f"b s -> {names}")
        dtype = self.graph.type(made.value).dtype
        nothing: Any = {"float": float, "int": int, "bool": bool}[dtype](low)
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


# --- ops that do more along an axis than go position by position -----------------------------------------------------

_SUMS = ("matmul", "einsum", "sum", "max", "softmax")  # over keys, where none is later than its query
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
    """By how many positions a node delays its operand: by the elements before the first, if all are then of one length."""
    before, after = b.causality.flow(value), b.causality.flow(Value(node.id))
    size, axis = b.old.type(value), after.axes[0]
    grown = node.type.dims[axis] - size.dims[axis]
    if not after.settled or (before.lead == 0 and before.ahead == 0 and grown != 0):
        return 0
    return _leads(b, node, value)


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
    attributes = {"axis": axis, "path": b.path(node, node.labels[0] if node.labels else "sum")}
    zeroed = b.zeroed(b.make(value), axis, node)
    return b.graph.add("running_sum", (zeroed,), attributes, like=node, labels=node.labels), False


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
    return b.emitter.emit(node, [made], b._lengthened(dict(node.attributes)) if full else dict(node.attributes))


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
    return b.emitter.emit(node, [b._operand(node, 0, value, goes, full)], {**node.attributes, "shape": shape})


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
    made = b._operand(node, 0, condition, goes, full)
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
        operands.append(None if value is None else b._operand(node, place, value, axes, full))
    return b.emitter.emit(node, operands, dict(node.attributes))


_SPECIAL: Mapping[str, Any] = {
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
