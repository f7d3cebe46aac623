"""`fuse_attention()`: attention written by hand becomes `attend`, which every target has a kernel for.

A softmax is looked at in three steps: the pattern around it is read (`attention_pattern`, `attention_scores`), what it
says of masks is proved (`attention_masks`, `conditions`), and the nodes are replaced. The result is the same for all
inputs; where that cannot be shown, nothing is changed and the report says why.
"""

from __future__ import annotations

import math
from typing import Any

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.op import ShapeError
from tfdsl.passes.attention_masks import visible
from tfdsl.passes.attention_pattern import Attention, Operand, lifted, match, softmaxes
from tfdsl.passes.attention_scores import Mismatch, number
from tfdsl.passes.regions import Region
from tfdsl.passes.report import PassResult, Report


def fuse_attention(graph: Graph) -> PassResult:
    """Replace attention written by hand by `attend`; the report names each softmax that stays, with the reason."""
    graph = graph.copy()
    report = Report("fuse_attention")
    for region in Region(graph).inside():
        for softmax in list(softmaxes(region.graph)):
            try:
                found = match(region.graph, softmax)
                _replace(region, found, report)
            except Mismatch as reason:
                name = softmax.node.name or softmax.node.op
                report.keep(f"`{name}` stays a softmax: {reason}", region.graph, softmax.node)
    return graph, report


def _replace(region: Region, found: Attention, report: Report) -> None:
    """Put an `attend` in the place of what was found. Raises `Mismatch`, and then leaves the graph as it was."""
    builder = _Builder(region, found)
    try:
        made, notes = builder.build()
    except (Mismatch, ShapeError) as error:
        builder.undo()
        raise Mismatch(str(error)) from None
    graph = region.graph
    graph.redirect(Value(found.product.id), made)
    _remove_unread(graph, found.product)
    attend = graph.node(builder.attend)
    settings = "".join(f", {name}={value}" for name, value in attend.attributes.items())
    name = found.softmax.node.name or found.softmax.node.op
    text = f"`{name}` and the products around it are attend(q, k, v{settings})"
    report.change("; ".join((text, *notes)), graph, attend)


def _remove_unread(graph: Graph, node: Node) -> None:
    """Remove a node that nothing reads, and what only it read."""
    results = set(graph.results())
    waiting = [node]
    while waiting:
        node = waiting.pop()
        values = [Value(node.id, index) for index in range(len(node.types))]
        if node.id not in graph or node.op == "input" or any(v in results or graph.users(v) for v in values):
            continue
        graph.remove(node)
        waiting += [graph.node(value) for value in node.inputs if value is not None and value.node in graph]


class _Builder:
    """Makes the nodes of one `attend`, and can take them back."""

    def __init__(self, region: Region, found: Attention):
        self.region = region
        self.graph = region.graph
        self.found = found
        self.attend = -1
        self._made: list[Node] = []

    def build(self) -> tuple[Value, list[str]]:
        """The value that replaces the product, and what there is to say of it."""
        found, scores = self.found, self.found.scores
        query, scale = self._query()
        key, value = self._arranged(found.key), self._arranged(found.value)
        *_, queries, keys = found.softmax.node.type.dims
        seen = visible(self.region, scores, queries, keys)
        attributes: dict[str, Any] = {} if seen.mask is None else {"mask": seen.mask}
        features = self.graph.type(query).dims[-1]
        if not isinstance(features, int) or not math.isclose(scale, features**-0.5, rel_tol=1e-9):
            attributes["scale"] = scale
        if scores.softcap is not None:
            attributes["softcap"] = scores.softcap
        if found.drop:
            attributes["drop"] = found.drop
        inputs = (query, key, value, self._bias(seen.biases), self._allowed(seen.conditions), None)
        name = "" if found.product.name == found.product.op else found.product.name
        attend = self._node("attend", *inputs, name=name, labels=found.product.labels, **attributes)
        self.attend = attend.node
        result = self._rearranged(attend, found.result)
        if self.graph.type(result) != found.product.type:
            raise Mismatch(f"`attend` would give {self.graph.type(result)}, and the product is {found.product.type}")
        return result, seen.notes

    def undo(self) -> None:
        """Remove what was made."""
        for node in reversed(self._made):
            self.graph.remove(node)

    def _node(
        self, op: str, *inputs: Value | None, name: str = "", labels: tuple[str, ...] = (), **attributes: Any
    ) -> Value:
        node = self.graph.add(op, inputs, attributes, like=self.found.product, name=name or op, labels=labels)
        self._made.append(node)
        return Value(node.id)

    def _number(self, value: float) -> Value:
        return self._node("constant", value=value, dtype="float")

    def _rearranged(self, value: Value, pattern: str) -> Value:
        return self._arranged(Operand(value, pattern))

    def _arranged(self, operand: Operand) -> Value:
        if not operand.pattern:
            return operand.value
        attributes: dict[str, Any] = {"pattern": operand.pattern}
        if operand.sizes:
            attributes["sizes"] = operand.sizes
        return self._node("rearrange", operand.value, name=operand.name, **attributes)

    def _lifted(self, value: Value) -> Value:
        """Something that goes with the scores, with an axis for the one head where the scores have none."""
        rank = len(self.graph.type(value).dims)
        return self._rearranged(value, lifted(rank, 3)) if self.found.rank == 3 and rank == 3 else value

    def _query(self) -> tuple[Value, float]:
        """The queries, and the scale; a factor on the queries themselves becomes part of it."""
        operand, scale = self.found.query, self.found.scores.scale
        node = self.graph.node(operand.value)
        if node.op in ("mul", "div"):
            for inner, other in (node.inputs, reversed(node.inputs)) if node.op == "mul" else (node.inputs,):
                factor = number(self.graph, other)
                if factor and inner is not None and self.graph.type(inner) == node.type:
                    scale = scale * factor if node.op == "mul" else scale / factor
                    operand = Operand(inner, operand.pattern, operand.sizes)
                    break
        query = self._arranged(operand)
        for op, tensor in reversed(self.found.scores.stretch):
            stretched = self._node(op, query, self._lifted(tensor))
            if self.graph.type(stretched) != self.graph.type(query):
                raise Mismatch("its scores are scaled by a tensor that has more rows than the queries")
            query = stretched
        return query, scale

    def _bias(self, biases: list[tuple[Value, float]]) -> Value | None:
        total: Value | None = None
        for value, factor in biases:
            bias = self._lifted(value)
            if factor == -1:
                bias = self._node("neg", bias)
            elif factor != 1:
                bias = self._node("mul", bias, self._number(factor))
            total = bias if total is None else self._node("add", total, bias)
        return total

    def _allowed(self, conditions: list[tuple[Value, bool]]) -> Value | None:
        """All conditions together."""
        total: Value | None = None
        for value, seen in conditions:
            each = value if seen else self._node("negate", value)
            total = each if total is None else self._node("both", total, each)
        return None if total is None else self._lifted(total)
