"""Linear attention as ordinary nodes, for targets that have no running sum: all pairs of positions, at their true weights."""

from __future__ import annotations

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Value


def lower_linear_attention(graph: Graph) -> Graph:
    """The graph with each `linear_attend` as the masked product of queries and keys that it equals, exactly.

    It then costs the square of the length, and with a decay of each feature the features times as much memory. The
    logarithm of what is left of a key is summed over the steps after it, for each key anew: a difference of two sums
    from the start would lose the digits that count.
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
        queries = self._node("rearrange", self._node("positions", q, axis=2), pattern="q -> q 1")
        keys = self._node("rearrange", self._node("positions", k, axis=2), pattern="k -> 1 k")
        past = self._node("le", keys, queries)
        decay = self._old.inputs[3]
        if decay is not None and len(self._graph.type(decay).dims) == 4:
            scores = self._by_feature(q, k, self._decayed(decay, self._node("lt", keys, queries)))
        else:
            scores = self._node("matmul", q, self._node("swap", k, first=3, second=2))
            if decay is not None:
                scores = self._node("mul", scores, self._decayed(decay, self._node("lt", keys, queries)))
        seen = self._node("where", past, scores, self._zero())
        made = self._graph.add("matmul", (seen, v), like=self._old, labels=self._old.labels)
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

    def _by_feature(self, q: Value, k: Value, left: Value) -> Value:
        """The scores of queries and keys of which each feature is left by a part of its own [b, h, q, k, d]."""
        return self._node("einsum", q, k, left, pattern="b h q d, b h k d, b h q k d -> b h q k")

    def _decayed(self, decay: Value, passed: Value) -> Value:
        """What is left [batch, heads, queries, keys] of a key when a query comes; 1 where it has yet to come.

        With a decay of each feature it has one more axis, theirs.
        """
        shape = self._old.type.dims[:3]
        pattern = "b h q -> b h q 1"
        if len(self._graph.type(decay).dims) == 4:
            features = self._graph.type(self._old.inputs[1]).dims[3]  # type: ignore[arg-type]
            shape, pattern = (*shape, features), "b h q d -> b h q 1 d"
            passed = self._node("rearrange", passed, pattern="q k -> q k 1")
        if self._graph.type(decay).dims != shape:
            decay = self._node("expand", decay, shape=shape)
        steps = self._node("rearrange", decay, pattern=pattern)
        return self._node("exp", self._node("cumsum", self._node("where", passed, steps, self._zero()), axis=2))
