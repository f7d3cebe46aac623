"""The ONNX graph of a decoder under construction: what is remembered, and tensors by position rather than by head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tfdsl.backends.onnx.artifact import all_nodes
from tfdsl.backends.onnx.builder import Builder
from tfdsl.decoding.manifest import MASK, POSITIONS
from tfdsl.ir.graph import Graph, Node, Type, Value
from tfdsl.ir.limits import limits
from tfdsl.ir.ops import OPS
from tfdsl.ir.states import State, states

CONTRIBUTED = "com.microsoft"  # the domain of ONNX Runtime's own operators
STATES = "tfdsl.states"  # among the metadata of a model: what a session must know of its states, as JSON
END = np.iinfo(np.int64).max
FLAT = (0, 0, -1)  # a Reshape to [batch, positions, all features]
_BY_POSITION = (0, 2, 1, 3)  # from [batch, heads, positions, features] to [batch, positions, heads, features], or back


@dataclass(frozen=True)
class Port:
    """A state in a model: what comes in, the value that goes out, and whether both are to be one buffer of any length."""

    state: State
    past: str
    present: str
    shared: bool


@dataclass(frozen=True)
class End:
    """A state as an input and an output of a model: its type before the first call, and the axis on which it grows."""

    past: str
    present: str
    value: str  # what the output is, inside the graph
    type: Type
    axis: int | None
    shared: bool


@dataclass(frozen=True)
class Appended:
    """New keys or values, by heads, that an attention itself is to put after those of a state."""

    new: str
    state: State


class DecoderBuilder(Builder):
    """A builder that knows states. `ort` says whether operators of ONNX Runtime's own may be used.

    An operator for attention reads [batch, positions, heads * features], where the graph says [batch, heads, positions,
    features]. `rows` has that form of values by head, as far as it was met, and whichever form nothing reads is dropped.
    """

    def __init__(self, graph: Graph, forms: Mapping[str, str], bits: Mapping[str, int], dtype: str, ort: bool):
        super().__init__(graph, forms, bits, dtype)
        self.ort = ort
        self.states = {state.path: state for state in states(graph)}
        self.ports: dict[str, Port] = {}
        self.rows: dict[str, str] = {}
        self.appended: dict[str, Appended] = {}
        ends = {node.attributes["name"]: node for node in map(graph.node, graph.inputs)}
        self.new, self.total = (ends[name].type.dims[1] for name in (POSITIONS, MASK))
        self.batch = ends[MASK].type.dims[0]
        self.longest = limits(graph).get(str(self.total))  # how many positions there may be, if that has a bound
        for state in self.states.values():
            self._taken.update((past_name(state.path), present_name(state.path)))
            if state.axis is not None:
                size = state.type.dims[state.axis]
                if not isinstance(size, int) and size.name is not None:
                    self.axes.setdefault(size.name, (past_name(state.path), state.axis))

    def past(self, state: State) -> str:
        """What was kept of a state by the last call."""
        return past_name(state.path)

    def keep(self, state: State, present: str, *, shared: bool = False) -> None:
        """Make a value what the next call has of a state."""
        self.ports[state.path] = Port(state, past_name(state.path), present, shared)

    def last_of(self, joined: str, state: State) -> str:
        """What is kept of a state with what was appended to it."""
        if state.last is None:
            return joined
        return self.emit("Slice", joined, self.ints(-state.last), self.ints(END), self.ints(state.axis or 0))

    def by_rows(self, value: str) -> str:
        """A value [batch, heads, positions, features] as [batch, positions, heads * features]."""
        if value not in self.rows:
            turned = self.emit("Transpose", value, perm=_BY_POSITION)
            self.rows[value] = self.emit("Reshape", turned, self.ints(*FLAT))
        return self.rows[value]

    def by_heads(self, rows: str, heads: int) -> str:
        """The value [batch, heads, positions, features] of which `rows` are the rows."""
        result = self.emit("Transpose", self.apart(rows, heads), perm=_BY_POSITION)
        self.rows[result] = rows
        return result

    def apart(self, rows: str, heads: int) -> str:
        """Rows as [batch, positions, heads, features]."""
        return self.emit("Reshape", rows, self.ints(0, 0, heads, -1))

    def stand_in(self, new: str, state: State) -> str:
        """A name for a state and what is appended to it, for the attention that is to join them."""
        name = self._unique(f"{new}/appended")
        self.appended[name] = Appended(new, state)
        return name

    def drop_unread(self, results: Iterable[str]) -> None:
        """Drop nodes that nothing needs."""
        needed, kept = set(results), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(name for each in all_nodes([node]) for name in each.input)
                kept.append(node)
        self.nodes = kept[::-1]


def past_name(path: str) -> str:
    """What the input of a state is called."""
    return f"past.{path}"


def present_name(path: str) -> str:
    """What the output of a state is called."""
    return f"present.{path}"


def attended(graph: Graph, append: Node) -> Node | None:
    """The attention that alone reads an `append`, as all its keys or values, and can do the appending itself."""
    found = _reader(graph, append)
    a = OPS["append"].fill(append.attributes)
    if found is None or a.axis != 2 or a.fill:
        return None
    node, place = found
    other = node.inputs[3 - place]
    twin = None if other is None else graph.node(other)
    if twin is None or twin.op != "append" or _reader(graph, twin) != (node, 3 - place):
        return None
    b = OPS["append"].fill(twin.attributes)
    return node if (a.axis, a.size, a.last, a.fill) == (b.axis, b.size, b.last, b.fill) else None


def _reader(graph: Graph, append: Node) -> tuple[Node, int] | None:
    """The attention that has an `append` as keys or values, and the place; what reads its length only does not count."""
    value = Value(append.id)
    users = [(user, place) for user, place in graph.users(value) if user.op != "positions"]
    if len(users) != 1 or graph.is_result(value):
        return None
    ((node, place),) = users
    return (node, place) if node.op == "attend" and place in (1, 2) else None


def plain_end(port: Port) -> End:
    """A state as an input and an output of its own."""
    state = port.state
    constant = state.axis is None or (state.last is not None and state.last == state.fill)
    axis = None if constant else state.axis
    return End(port.past, present_name(state.path), port.present, state.type, axis, port.shared)
