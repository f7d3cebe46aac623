"""The scores of attention written by hand, taken apart from the softmax inwards to the product of queries and keys.

On the way out from that product there may stand factors, a soft cap, biases and `where`s that hide keys, in the order
in which `attend` has them. A `Mismatch` says what stands in the way of reading them so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.constants import constant

HIDDEN = -1e4  # scores from here down are far enough below all others for their weights to vanish


class Mismatch(Exception):
    """Why something that looks like attention is none that `attend` can do."""


@dataclass(frozen=True)
class Hiding:
    """A condition under which a key is seen (if `seen`) or hidden.

    Hidden scores become `fill`; or that is added to them by `bias`, multiplied by `factor`.
    """

    condition: Value
    seen: bool
    fill: float
    bias: Value | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Scores:
    """`softcap * tanh(scale * (q @ k) / softcap) + biases`, with keys hidden; `stretch` multiplies or divides q."""

    product: Node
    scale: float
    softcap: float | None
    biases: list[tuple[Value, float]]
    hidings: list[Hiding]
    stretch: list[tuple[str, Value]]


def read_scores(graph: Graph, scores: Value, readers: set[int]) -> Scores:
    """Take scores apart that no node may read but `readers`, those of the softmax. Raises `Mismatch`."""
    return _Peeler(graph).read(scores, readers)


def number(graph: Graph, value: Value | None) -> float | None:
    """The number that a value is everywhere, or None; seen through casts and stretches."""
    while value is not None:
        node = graph.node(value)
        if node.op == "constant":
            found = constant(graph, value)
            return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None
        value = node.inputs[0] if node.op in ("cast", "expand", "rearrange") else None
    return None


def is_product(node: Node) -> bool:
    """Whether a node may be the product of queries and keys."""
    return node.op == "matmul" or (node.op == "einsum" and len(node.inputs) == 2)


class _Peeler:
    """Walks inwards; `factor` is the product of the factors passed since the softmax, or since the soft cap."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.factor = 1.0
        self.softcap: float | None = None
        self.biases: list[tuple[Value, float]] = []
        self.hidings: list[Hiding] = []
        self.stretch: list[tuple[str, Value]] = []

    def read(self, value: Value, readers: set[int]) -> Scores:
        """The scores that a softmax reads, whose nodes are `readers`."""
        graph = self.graph
        while True:
            others = [user for user, _ in graph.users(value) if user.id not in readers]
            if others or graph.is_result(value):
                reader = f"`{others[0].name or others[0].op}` reads" if others else "the outputs hold"
                raise Mismatch(f"{reader} its scores as well, and they would be computed twice")
            node = graph.node(value)
            if is_product(node):
                scale = self.factor * (1.0 if self.softcap is None else self.softcap)
                return Scores(node, scale, self.softcap, self.biases, self.hidings, self.stretch)
            following = _STEPS[node.op](self, node) if node.op in _STEPS else None
            if following is None:
                raise Mismatch(
                    f"its scores come from `{node.name or node.op}`, and not from a product of queries and keys"
                )
            if node.inputs.count(following) > 1:
                raise Mismatch(f"`{node.name or node.op}` reads its scores twice")
            readers, value = {node.id}, following

    def _reaches_product(self, value: Value | None) -> bool:
        """Whether a product lies behind a value, past what may stand between it and a softmax."""
        return value is not None and value.node in self._reaching

    @cached_property
    def _reaching(self) -> set[int]:
        found: set[int] = set()
        for node in self.graph.nodes():
            inputs = node.inputs[node.op == "where" :] if node.op in _STEPS else ()
            if is_product(node) or any(value is not None and value.node in found for value in inputs):
                found.add(node.id)
        return found

    def _refuse_inside(self, what: str) -> None:
        if self.softcap is not None:
            raise Mismatch(f"{what} inside the soft cap of its scores")
        if self.stretch:
            raise Mismatch(f"{what} before its scores are scaled by a tensor")

    # --- one method for each op that may stand between the product and the softmax ----------------------------------

    def _where(self, node: Node) -> Value | None:
        condition, yes, no = node.inputs
        assert condition is not None
        self._refuse_inside("keys are hidden")
        for kept, fill, seen in ((yes, no, True), (no, yes, False)):
            hidden = number(self.graph, fill)
            if hidden is None or not self._reaches_product(kept):
                continue
            hidden *= self.factor
            if not hidden <= HIDDEN:
                raise Mismatch(
                    f"it hides scores by {hidden:g}, which is not far below all others ({HIDDEN:g} or less is)"
                )
            if self.biases and hidden != float("-inf"):
                raise Mismatch("a bias is added to scores that are hidden already")
            self.hidings.append(Hiding(condition, seen, hidden))
            return kept
        raise Mismatch("`where` chooses between scores and something else than one large negative number")

    def _add(self, node: Node) -> Value | None:
        self._refuse_inside("a bias is added")
        for inner, bias in (node.inputs, reversed(node.inputs)):
            if self._reaches_product(inner):
                assert bias is not None
                self._bias(bias, self.factor)
                return inner
        return None

    def _sub(self, node: Node) -> Value | None:
        self._refuse_inside("a bias is added")
        inner, bias = node.inputs
        assert bias is not None
        if not self._reaches_product(inner):
            return None
        self._bias(bias, -self.factor)
        return inner

    def _bias(self, bias: Value, factor: float) -> None:
        """A bias; one that is zero or a large negative number by a condition hides keys."""
        node = self.graph.node(bias)
        if node.op == "where" and node.inputs[0] is not None:
            yes, no = (number(self.graph, each) for each in node.inputs[1:])
            for kept, fill, seen in ((yes, no, True), (no, yes, False)):
                if kept == 0 and fill is not None and fill * factor <= HIDDEN:
                    self.hidings.append(Hiding(node.inputs[0], seen, fill * factor, bias, factor))
                    return
        self.biases.append((bias, factor))

    def _mul(self, node: Node) -> Value | None:
        for inner, other in (node.inputs, reversed(node.inputs)):
            if self._reaches_product(inner):
                return self._scaled(node, inner, other)
        return None

    def _div(self, node: Node) -> Value | None:
        inner, other = node.inputs
        return self._scaled(node, inner, other) if self._reaches_product(inner) else None

    def _scaled(self, node: Node, inner: Value | None, other: Value | None) -> Value | None:
        factor = number(self.graph, other)
        if factor is not None:
            if factor == 0:
                raise Mismatch(f"its scores are {'multiplied' if node.op == 'mul' else 'divided'} by zero")
            self.factor *= factor if node.op == "mul" else 1 / factor
            return inner
        assert other is not None
        dims = self.graph.type(other).dims
        if dims and dims[-1] != 1:
            raise Mismatch(f"`{node.name or node.op}` scales its scores differently from key to key")
        self.stretch.append((node.op, other))
        return inner

    def _neg(self, node: Node) -> Value | None:
        self.factor = -self.factor
        return node.inputs[0]

    def _tanh(self, node: Node) -> Value | None:
        self._refuse_inside("a soft cap is set")
        if self.factor <= 0:
            raise Mismatch("its soft cap is not positive")
        self.softcap, self.factor = self.factor, 1.0
        return node.inputs[0]


_STEPS: dict[str, Callable[[_Peeler, Node], Value | None]] = {
    "where": _Peeler._where,
    "add": _Peeler._add,
    "sub": _Peeler._sub,
    "mul": _Peeler._mul,
    "div": _Peeler._div,
    "neg": _Peeler._neg,
    "tanh": _Peeler._tanh,
}
