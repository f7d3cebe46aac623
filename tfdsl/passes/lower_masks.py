"""Masks as ordinary nodes, for targets that know none but the causal one: relations of positions and of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce

from tfdsl.ir import masks
from tfdsl.ir.dims import Size, floor
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.masks import Joined, Mask, Negated, Term


def plainly_causal(graph: Graph, node: Node, part: Mask) -> bool:
    """Whether a conjunct is the causal mask of an attention whose queries begin where its keys do."""
    return part == masks.CAUSAL and "offset" not in node.attributes


def lower_masks(graph: Graph, stays: Callable[[Graph, Node, Mask], bool] = plainly_causal) -> Graph:
    """The graph with each mask of an `attend` given as its `allowed` operand, but for conjuncts that `stays` leaves.

    Queries are 0 .. s-1 and keys 0 .. t-1, as `positions` nodes on axis 2 of q and k; an `offset` is added to the
    queries.
    """
    graph = graph.copy()
    for region in graph.regions():
        for node in region.nodes():
            mask = node.attributes.get("mask") if node.op == "attend" else None
            if mask is not None:
                parts = [part for part in conjuncts(masks.simplify(mask)) if part != masks.FULL]
                kept = [part for part in parts if stays(region, node, part)]
                if kept != list(conjuncts(mask)):
                    _lower(region, node, kept, [part for part in parts if part not in kept])
    return graph


def conjuncts(mask: Mask) -> Iterator[Mask]:
    """The masks that all hold where a mask does."""
    if isinstance(mask, Joined) and mask.operator == "&":
        yield from conjuncts(mask.left)
        yield from conjuncts(mask.right)
    elif isinstance(mask, Negated) and isinstance(mask.inner, Joined) and mask.inner.operator == "|":
        yield from conjuncts(Negated(mask.inner.left))
        yield from conjuncts(Negated(mask.inner.right))
    elif isinstance(mask, Negated) and isinstance(mask.inner, Negated):
        yield from conjuncts(mask.inner.inner)
    else:
        yield mask


def _lower(graph: Graph, node: Node, kept: list[Mask], lowered: list[Mask]) -> None:
    relations = _Relations(graph, node)
    allowed = node.inputs[4]
    for part in lowered:
        relation = relations.mask(part)
        allowed = relation if allowed is None else relations.node("both", allowed, relation)
    gone = ("mask",) if kept else ("mask", "offset")
    attributes = {name: value for name, value in node.attributes.items() if name not in gone}
    if kept:
        attributes["mask"] = reduce(lambda left, right: Joined("&", left, right), kept)
    made = graph.add("attend", (*node.inputs[:4], allowed, node.inputs[5]), attributes, like=node, labels=node.labels)
    made.spelled = {name: expression for name, expression in node.spelled.items() if name != "mask"}
    graph.redirect(Value(node.id), Value(made.id))
    graph.remove(node)


class _Relations:
    """Builds nodes for the masks of one `attend`; queries are [s, 1] and keys [1, t]."""

    def __init__(self, graph: Graph, attend: Node):
        self._graph = graph
        self._attend = attend
        self._made: dict[str, Value] = {}

    def node(self, op: str, *inputs: Value | None, **attributes: object) -> Value:
        """A node in the scope of the attention."""
        return Value(self._graph.add(op, inputs, attributes, like=self._attend, name=op).id)

    def number(self, number: Size) -> Value:
        return self.node("constant", value=number, dtype="int")

    def mask(self, mask: Mask) -> Value:
        """What a mask allows, as booleans that stretch to the scores."""
        if isinstance(mask, Joined):
            return self.node("both" if mask.operator == "&" else "either", self.mask(mask.left), self.mask(mask.right))
        if isinstance(mask, Negated):
            return self.node("negate", self.mask(mask.inner))
        return _RELATIONS[mask.kind](self, mask)

    def queries(self) -> Value:
        offset = self._attend.attributes.get("offset", 0)
        if "offset" not in self._made:
            queries = self._positions("q -> q 1", 0)
            moved = self.node("add", queries, self.number(offset)) if offset != 0 else queries
            self._made["offset"] = moved
        return self._made["offset"]

    def keys(self) -> Value:
        return self._positions("k -> 1 k", 1)

    def _positions(self, pattern: str, operand: int) -> Value:
        if pattern not in self._made:
            positions = self.node("positions", self._attend.inputs[operand], axis=2)
            self._made[pattern] = self.node("rearrange", positions, pattern=pattern)
        return self._made[pattern]

    def of_queries(self, values: Value) -> Value:
        """Those of values [batch, keys] that belong to the queries."""
        offset = self._attend.attributes.get("offset", 0)
        return self.node("slice", values, axis=1, start=offset) if offset != 0 else values

    def blocks(self, size: int) -> Value:
        """How many blocks of a size the keys fill."""
        keys = self._attend.inputs[1]
        assert keys is not None
        return self.node("constant", value=floor(self._graph.type(keys).dims[2] + (size - 1), size), dtype="int")

    def tensor(self, term: Term) -> Value:
        """The tensor that a term reads."""
        assert term.operand is not None
        value = self._attend.inputs[6 + term.operand]
        assert value is not None
        return value

    def operand(self, term: Term) -> Value:
        """The tensor [batch, keys] that a term reads, stretched from [keys] where it has no batch."""
        value = self.tensor(term)
        if len(self._graph.type(value).dims) == 1:
            value = self.node("rearrange", value, pattern="k -> 1 k")
        return value


def _window(r: _Relations, term: Term) -> Value:
    distance = r.node("abs", r.node("sub", r.queries(), r.keys()))
    return r.node("lt", distance, r.number(term.arguments[0]))


def _strided(r: _Relations, term: Term) -> Value:
    distance = r.node("sub", r.queries(), r.keys())
    return r.node("eq", r.node("mod", distance, r.number(term.arguments[0])), r.number(0))


def _blocks(r: _Relations, term: Term) -> Value:
    size = r.number(term.arguments[0])
    return r.node("eq", r.node("floordiv", r.queries(), size), r.node("floordiv", r.keys(), size))


def _global_tokens(r: _Relations, term: Term) -> Value:
    count = r.number(term.arguments[0])
    return r.node("either", r.node("lt", r.queries(), count), r.node("lt", r.keys(), count))


def _documents(r: _Relations, term: Term) -> Value:
    ids = r.operand(term)
    return r.node(
        "eq",
        r.node("rearrange", r.of_queries(ids), pattern="b q -> b 1 q 1"),
        r.node("rearrange", ids, pattern="b k -> b 1 1 k"),
    )


def _prefix(r: _Relations, term: Term) -> Value:
    if term.operand is None:
        return r.node("lt", r.keys(), r.number(term.arguments[0]))
    return r.node("lt", r.keys(), r.node("rearrange", r.tensor(term), pattern="b -> b 1 1 1"))


def _random_blocks(r: _Relations, term: Term) -> Value:
    """The arithmetic of `masks.random_block`, in nodes."""
    count, size, seed = term.arguments
    prime, factors = r.number(masks.RANDOM_PRIME), [r.number(each) for each in masks.RANDOM_FACTORS]
    keys = r.node("floordiv", r.keys(), r.number(size))
    block = r.node("mod", r.node("floordiv", r.queries(), r.number(size)), prime)
    seen: Value | None = None
    for place in range(count):
        mixed = block
        for factor, offset in zip(factors, masks.random_offsets(place, seed), strict=True):
            mixed = r.node("mod", r.node("add", r.node("mul", mixed, factor), r.number(offset)), prime)
            mixed = r.node("mod", r.node("mul", mixed, mixed), prime)
        here = r.node("eq", keys, r.node("mod", mixed, r.blocks(size)))
        seen = here if seen is None else r.node("either", seen, here)
    assert seen is not None
    return seen


_RELATIONS: dict[str, Callable[[_Relations, Term], Value]] = {
    "full": lambda r, term: r.node("eq", r.keys(), r.keys()),
    "causal": lambda r, term: r.node("le", r.keys(), r.queries()),
    "window": _window,
    "strided": _strided,
    "blocks": _blocks,
    "global_tokens": _global_tokens,
    "random_blocks": _random_blocks,
    "prefix": _prefix,
    "padding": lambda r, term: r.node("rearrange", r.operand(term), pattern="b k -> b 1 1 k"),
    "documents": _documents,
}
