"""Linear attention as ordinary nodes, for targets that have no running sum: products of all pairs of positions, or a scan."""

from __future__ import annotations

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Type, Value


def lower_linear_attention(graph: Graph) -> Graph:
    """The graph with each `linear_attend` as the masked product of queries and keys that it equals, exactly.

    It then costs the square of the length. The logarithm of what is left of a key is summed over the steps after it, for
    each key anew: a difference of two sums from the start would lose the digits that count. With a decay of each feature
    that would take all pairs for each of them, and the sum runs step by step instead.
    """
    graph = graph.copy()
    for region in graph.regions():
        for node in region.nodes():
            if node.op == "linear_attend":
                _Lowering(region, node).run()
    return graph


class _Lowering:
    """The nodes that take the place of one."""

    def __init__(self, graph: Graph, old: Node):
        self._graph, self._old = graph, old
        self._heads = old.type.dims[1]

    def run(self) -> None:
        q, k, v = (self._each_head(value) for value in self._old.inputs[:3] if value is not None)
        decay = self._old.inputs[3]
        if decay is not None and len(self._graph.type(decay).dims) == 4:
            self._run_step_by_step(q, k, v, decay)
            return
        queries = self._node("rearrange", self._node("positions", q, axis=2), pattern="q -> q 1")
        keys = self._node("rearrange", self._node("positions", k, axis=2), pattern="k -> 1 k")
        past = self._node("le", keys, queries)
        scores = self._node("matmul", q, self._node("swap", k, first=3, second=2))
        if decay is not None:
            scores = self._node("mul", scores, self._decayed(decay, self._node("lt", keys, queries)))
        seen = self._node("where", past, scores, self._zero())
        self._replace(self._graph.add("matmul", (seen, v), like=self._old, labels=self._old.labels))

    def _replace(self, made: Node) -> None:
        self._graph.redirect(Value(self._old.id), Value(made.id))
        self._graph.remove(self._old)

    def _node(self, op: str, *inputs: Value, **attributes: object) -> Value:
        return Value(self._graph.add(op, inputs, attributes, like=self._old, name=op).id)

    def _zero(self) -> Value:
        return self._node("constant", value=0.0, dtype="float")

    def _each_head(self, value: Value) -> Value:
        """A tensor [batch, groups, s, n] with as many heads as the result."""
        batch, groups, length, features = self._graph.type(value).dims
        if groups == self._heads:
            return value
        assert isinstance(self._heads, int) and isinstance(groups, int)
        shape: tuple[Size, ...] = (batch, groups, self._heads // groups, length, features)
        apart = self._node("rearrange", value, pattern="b g s d -> b g 1 s d")
        return self._node("rearrange", self._node("expand", apart, shape=shape), pattern="b g r s d -> b (g r) s d")

    def _run_step_by_step(self, q: Value, k: Value, v: Value, decay: Value) -> None:
        """The running sum as a scan over its own definition, with what does not need the state computed before."""
        batch, heads, length, features = self._graph.type(k).dims
        shape = (batch, heads, length, features)
        if self._graph.type(decay).dims != shape:
            decay = self._node("expand", decay, shape=shape)
        rows, columns = "b h s d -> b h s 1 d", "b h s d -> b h s d 1"
        kept = self._node("rearrange", self._node("exp", decay), pattern=columns)
        state = self._node("expand", self._zero(), shape=(batch, heads, features, self._graph.type(v).dims[3]))
        scanned = [
            self._node("rearrange", value, pattern=pattern) for value, pattern in ((q, rows), (k, columns), (v, rows))
        ]
        inputs = (state, *scanned, kept)
        body = self._step([self._graph.type(value) for value in inputs])
        stacked = Type("float", (batch, heads, length, *body.type(body.outputs[1][1]).dims[2:]))
        made = self._graph.add(
            "scan",
            inputs,
            {"carried": 1, "scanned": 4, "axis": 2, "turns": (0,), "path": self._old.name or "linear_attend"},
            (self._graph.type(state), stacked),
            like=self._old,
            bodies=(body,),
        )
        rest = {"pattern": "b h s 1 e -> b h s e"}
        self._replace(self._graph.add("rearrange", (Value(made.id, 1),), rest, like=self._old, labels=self._old.labels))

    def _step(self, types: list[Type]) -> Graph:
        """One step: the state is left in part, grows by the outer product of key and value, and is read by the query."""
        body = Graph(self._old.name or "linear_attend")
        body.frame = self._graph.frame
        state = types[0]
        slices = [Type(each.dtype, (*each.dims[:2], *each.dims[3:])) for each in types[1:]]
        names = ("state", "q", "k", "v", "kept")
        entered = [
            Value(body.add("input", (), {"name": name}, (type_,), name=name).id)
            for name, type_ in zip(names, (state, *slices), strict=True)
        ]

        def node(op: str, *inputs: Value) -> Value:
            return Value(body.add(op, inputs, name=op, span=self._old.span).id)

        before, q, k, v, kept = entered
        after = node("add", node("mul", before, kept), node("mul", k, v))
        body.outputs = [("state", after), ("y", node("matmul", q, after))]
        return body

    def _decayed(self, decay: Value, passed: Value) -> Value:
        """What is left [batch, heads, queries, keys] of a key when a query comes; 1 where it has yet to come."""
        shape = self._old.type.dims[:3]
        if self._graph.type(decay).dims != shape:
            decay = self._node("expand", decay, shape=shape)
        steps = self._node("rearrange", decay, pattern="b h q -> b h q 1")
        return self._node("exp", self._node("cumsum", self._node("where", passed, steps, self._zero()), axis=2))
