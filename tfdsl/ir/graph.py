"""The graph: nodes in a deterministic order, ordered inputs, and who reads what.

A graph is a region: the whole model, or the body of one `repeat` or `route` node, which stays a single node until a
backend asks for it unrolled (`tfdsl/passes/unroll.py`). Nodes of one region are flat: which block application a node came
from is a colour on it (`scope`), so that passes see across blocks and the PyTorch backend can still write a class a block.
What NetworkX has algorithms for goes through `Graph.network`.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tfdsl.ir.dims import Size
from tfdsl.language.diagnostics import Span
from tfdsl.language.syntax import Block, Expression

if TYPE_CHECKING:
    import networkx as nx


class Type(NamedTuple):
    """The element type (`float`, `int`, `bool`) and shape of a tensor."""

    dtype: str
    dims: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{'' if self.dtype == 'float' else self.dtype}[{', '.join(str(dim) for dim in self.dims)}]"


class Value(NamedTuple):
    """One result of one node."""

    node: int
    index: int = 0  # type: ignore[assignment]  # shadows tuple.index, which nobody asks of a value


@dataclass(frozen=True, slots=True)
class Initializer:
    """How a weight begins: `normal(0.02)`, `xavier_uniform`, `zeros`, ..."""

    kind: str
    arguments: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{a:g}' for a in self.arguments)})" if self.arguments else self.kind


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """What was written for a setting of a layer that was handed in: an expression in the names of another frame."""

    expression: Expression
    frame: Frame


Spelling = Expression | Elsewhere


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One application of a block: the names that its nodes were written in.

    `path` is where its weights live, `block` the name it was declared under, `names` its parameters and bound sizes with
    their values here, `spelled` what the caller wrote for them, in the caller's names, and `defaults` the expressions of
    those that were left at their defaults or derived, in its own names; `declared` has the defaults that the block declares,
    whether or not they hold here. `declaration` is the block as the spec writes it.
    """

    path: str
    block: str
    names: Mapping[str, Any]
    spelled: Mapping[str, Spelling] = field(default_factory=dict)
    defaults: Mapping[str, Expression] = field(default_factory=dict)
    declared: Mapping[str, Expression] = field(default_factory=dict)
    arguments: dict[str, Value] = field(default_factory=dict)  # what its inputs were bound to, to name them after
    labels: dict[Value, str] = field(default_factory=dict)  # what it calls values that inner applications made
    span: Span | None = None
    declaration: Block | None = None


@dataclass(slots=True)
class Node:
    """One op applied. `spelled` holds the attributes' source expressions, in the names of the innermost frame."""

    id: int
    op: str
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any]
    types: tuple[Type, ...]
    name: str = ""
    scope: tuple[Frame, ...] = ()
    span: Span | None = None
    spelled: dict[str, Spelling] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # what the spec calls the results, where it names them
    bodies: tuple[Graph, ...] = ()
    order: float = 0.0  # where it stands among the nodes that it does not depend on

    @property
    def type(self) -> Type:
        """The type of the only result."""
        (only,) = self.types
        return only

    def copy(self) -> Node:
        """A copy with attributes and bodies of its own."""
        return Node(  # five times as fast as `replace`: passes do little else
            self.id,
            self.op,
            self.inputs,
            self.attributes.copy(),
            self.types,
            self.name,
            self.scope,
            self.span,
            self.spelled.copy(),
            self.labels,
            tuple(body.copy() for body in self.bodies) if self.bodies else (),
            self.order,
        )


@dataclass(frozen=True, slots=True)
class Constraint:
    """A `require` over sizes that only run time knows: `left operator right`."""

    operator: str
    left: Size
    right: Size
    why: str = ""
    span: Span | None = field(default=None, compare=False)


class CycleError(ValueError):
    """Nodes of a graph depend on themselves, so that none of them can come first."""


class Graph:
    """A region of nodes with named inputs and outputs."""

    def __init__(self, name: str):
        self.name = name
        self._nodes: dict[int, Node] = {}
        # Who reads each node: the reader and the place among its inputs, with the result that is read.
        self._readers: dict[int, dict[tuple[int, int], int]] = {}
        self._ordered: list[Node] | None = None  # what `nodes` found, until an edge changes
        self.inputs: list[int] = []
        self.outputs: list[tuple[str, Value]] = []
        self.penalties: list[tuple[str, Value]] = []
        self.constraints: list[Constraint] = []
        self.frame: Frame | None = None
        self._next = 0

    # --- reading ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: int) -> bool:
        return node in self._nodes

    def node(self, node: int | Value) -> Node:
        return self._nodes[node.node if isinstance(node, Value) else node]

    def type(self, value: Value) -> Type:
        return self.node(value).types[value.index]

    def nodes(self) -> list[Node]:
        """All nodes, each after what it depends on; otherwise inputs first, and the others as their `order` says.

        Raises `CycleError` where nodes depend on themselves.
        """
        if self._ordered is None:
            self._ordered = self._sorted(sorted(self._nodes.values(), key=_place))
        return self._ordered.copy()

    def unordered(self) -> Iterable[Node]:
        """All nodes as they were added, whether or not there is an order in which they can run."""
        return self._nodes.values()

    def operands(self) -> dict[int, dict[int, tuple[int, int]]]:
        """What each node reads by the book that `users` is read from: source and result by place among the inputs."""
        found: dict[int, dict[int, tuple[int, int]]] = {node: {} for node in self._nodes}
        for source, readers in self._readers.items():
            for (reader, place), index in readers.items():
                found[reader][place] = (source, index)
        return found

    def users(self, value: Value) -> list[tuple[Node, int]]:
        """The nodes that read a value, each with the place among its inputs."""
        readers = self._readers[value.node].items()
        return [(self._nodes[reader], place) for (reader, place), index in readers if index == value.index]

    def network(self) -> nx.MultiDiGraph:
        """The graph as NetworkX knows graphs: ids, and an edge for each operand from what computes it to what reads it.

        An edge has the place among the inputs as its key, and the number of the result as `index`.
        """
        import networkx  # what loads as long as all of the rest together, for the few who ask

        network = networkx.MultiDiGraph()
        network.add_nodes_from((node.id, {"node": node}) for node in self._nodes.values())
        for reader, operands in self.operands().items():
            network.add_edges_from((source, reader, place, {"index": i}) for place, (source, i) in operands.items())
        return network

    def results(self) -> list[Value]:
        """The values that the region must compute: outputs and penalties."""
        return [value for _, value in self.outputs] + [value for _, value in self.penalties]

    def is_result(self, value: Value) -> bool:
        return value in self.results()

    def regions(self) -> Iterator[Graph]:
        """This region and all regions inside it, outer first."""
        yield self
        for node in self.nodes():
            for body in node.bodies:
                yield from body.regions()

    # --- writing ---------------------------------------------------------------------------------------------------

    def add(
        self,
        op: str,
        inputs: Iterable[Value | None] = (),
        attributes: Mapping[str, Any] | None = None,
        types: tuple[Type, ...] | None = None,
        *,
        like: Node | None = None,
        **rest: Any,
    ) -> Node:
        """Add a node; its types follow from the op's rule unless given. `like` lends its scope, span, name and order."""
        inputs = tuple(inputs)
        attributes = dict(attributes or {})
        if types is None:
            from tfdsl.ir.ops import infer

            types = infer(op, [v if v is None else self.type(v) for v in inputs], attributes)
        if like is not None:
            rest = {"scope": like.scope, "span": like.span, "name": like.name, "order": like.order, **rest}
        rest.setdefault("order", -1 if op == "input" else self._next)
        node = Node(self._next, op, inputs, attributes, types, **rest)
        self._next += 1
        self._put(node)
        if op == "input":
            self.inputs.append(node.id)
        return node

    def set_inputs(self, node: Node, inputs: Iterable[Value | None]) -> None:
        self._disconnect(node)
        node.inputs = tuple(inputs)
        self._connect(node)

    def redirect(self, old: Value, new: Value) -> None:
        """Make everything that reads `old` read `new`."""
        for user, _ in self.users(old):
            self.set_inputs(user, [new if value == old else value for value in user.inputs])
        self.outputs = [(name, new if value == old else value) for name, value in self.outputs]
        self.penalties = [(name, new if value == old else value) for name, value in self.penalties]

    def remove(self, node: Node) -> None:
        """Remove a node that nothing reads."""
        assert not self._readers[node.id], f"{node.op} is still read"
        self._disconnect(node)
        del self._nodes[node.id], self._readers[node.id]
        self._ordered = None
        if node.id in self.inputs:
            self.inputs.remove(node.id)

    def copy(self) -> Graph:
        """A deep copy; node ids stay."""
        twin = Graph(self.name)
        for node in self.nodes():
            twin._put(node.copy())
        twin.inputs, twin.outputs, twin.penalties = list(self.inputs), list(self.outputs), list(self.penalties)
        twin.constraints, twin.frame, twin._next = list(self.constraints), self.frame, self._next
        return twin

    def _put(self, node: Node) -> None:
        self._nodes[node.id] = node
        self._readers[node.id] = {}
        self._connect(node)

    def _connect(self, node: Node) -> None:
        self._ordered = None
        for place, value in enumerate(node.inputs):
            if value is not None:
                self._readers[value.node][node.id, place] = value.index

    def _disconnect(self, node: Node) -> None:
        for place, value in enumerate(node.inputs):
            if value is not None:
                del self._readers[value.node][node.id, place]

    def _sorted(self, preferred: list[Node]) -> list[Node]:
        """The nodes in an order in which they can run, as near to the preferred one as that allows (Kahn, 1962)."""
        seen: set[int] = set()
        for node in preferred:
            if any(value is not None and value.node not in seen for value in node.inputs):
                break
            seen.add(node.id)
        else:
            return preferred
        place = {node.id: place for place, node in enumerate(preferred)}
        missing = [sum(value is not None for value in node.inputs) for node in preferred]
        ready = [place for place, count in enumerate(missing) if count == 0]
        found = []
        while ready:
            node = preferred[heapq.heappop(ready)]
            found.append(node)
            for reader, _ in self._readers[node.id]:
                missing[place[reader]] -= 1
                if missing[place[reader]] == 0:
                    heapq.heappush(ready, place[reader])
        if len(found) < len(preferred):
            raise CycleError(f"nodes of `{self.name}` depend on themselves")
        return found


def _place(node: Node) -> tuple[float, int]:
    return node.order, node.id


@dataclass(frozen=True)
class Weight:
    """A weight of a graph. A `*` in its path stands for an index of the loop around it, outermost first.

    `boxes` holds, for each body that uses it, the indices that each `*` runs over.
    """

    path: str
    type: Type
    initializer: Initializer
    boxes: tuple[tuple[tuple[int, ...], ...], ...]
    span: Span | None = field(default=None, compare=False)

    def paths(self) -> Iterator[str]:
        """Every path that the pattern stands for, in order."""
        for box in self.boxes:
            for indices in itertools.product(*box):
                yield fill_indices(self.path, indices)

    @property
    def copies(self) -> int:
        return sum(math.prod(len(indices) for indices in box) for box in self.boxes)


class Loop(NamedTuple):
    """A loop around a region: the path of its `repeat`, and the turn or turns that are meant."""

    path: str
    turns: tuple[int, ...]


def own_loops(path: str, loops: Iterable[Loop]) -> tuple[Loop, ...]:
    """The loops whose indices a weight's path names: what was bound outside a loop is the same in all its turns."""
    return tuple(loop for loop in loops if path == f"{loop.path}.*" or path.startswith(f"{loop.path}.*."))


def fill_path(path: str, loops: Iterable[Loop]) -> str:
    """The path with the turn of each of its own loops in the place of its `*`s."""
    return fill_indices(path, [loop.turns[0] for loop in own_loops(path, loops)])


def fill_indices(path: str, indices: Iterable[int]) -> str:
    """The path with its first `*`s replaced by numbers."""
    for index in indices:
        path = path.replace("*", str(index), 1)
    return path


def all_paths(path: str, loops: Iterable[Loop]) -> list[str]:
    """The paths that a pattern stands for in all turns of the loops around it, in order."""
    boxes = [loop.turns for loop in own_loops(path, loops)]
    return [fill_indices(path, indices) for indices in itertools.product(*boxes)]


def weights(graph: Graph) -> list[Weight]:
    """The weights of a graph and of the regions inside it, each once, in order of first use."""
    found: dict[tuple[str, Type], Weight] = {}

    def visit(region: Graph, loops: tuple[Loop, ...]) -> None:
        for node in region.nodes():
            if node.op == "weight":
                path = node.attributes["path"]
                box = tuple(loop.turns for loop in own_loops(path, loops))
                known = found.get((path, node.type))
                if known is None:
                    found[path, node.type] = Weight(path, node.type, node.attributes["init"], (box,), node.span)
                elif box not in known.boxes:
                    found[path, node.type] = replace(known, boxes=(*known.boxes, box))
            for variant, body in enumerate(node.bodies):
                visit(body, (*loops, Loop(node.attributes["path"], turns_of(node, variant))))

    visit(graph, ())
    return list(found.values())


def fed(node: Node) -> tuple[Value | None, ...]:
    """What the inputs of a node's bodies stand for, in order: of a `route`, its rows and what it captures."""
    return (*node.inputs[:1], *node.inputs[3:]) if node.op == "route" else node.inputs


def changing(node: Node) -> int:
    """How many of the bodies' inputs, from the first on, are not the same in every run of a body."""
    if node.op == "route":
        return 1
    scanned: int = node.attributes.get("scanned", 0)
    carried: int = node.attributes["carried"]
    return carried + scanned


def turns_of(node: Node, variant: int) -> tuple[int, ...]:
    """The turns of a `repeat` (or the experts of a `route`) that run a given body."""
    return tuple(turn for turn, body in enumerate(node.attributes["turns"]) if body == variant)
