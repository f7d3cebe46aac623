"""Names for values that the spec gives none: after what they become, or after what they are."""

from __future__ import annotations

from tfdsl.backends.torch.layers import LAYER_OPS
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.graph import Node, Value

_NOUNS = {
    "positions": "positions",
    "iota": "indices",
    "tensor": "table",
    "attend": "attended",
    "softmax": "weights",
    "log_softmax": "log_weights",
    "matmul": "product",
    "einsum": "product",
    "mul": "product",
    "add": "total",
    "sub": "difference",
    "div": "quotient",
    "floordiv": "quotient",
    "mod": "rest",
    "pow": "power",
    "sum": "total",
    "mean": "mean",
    "max": "highest",
    "min": "lowest",
    "cumsum": "running",
    "argmax": "best",
    "one_hot": "chosen",
    "sin": "sine",
    "cos": "cosine",
    "concat": "joined",
    "dequantize": "weight",
}
_CONDITIONS = ("eq", "ne", "lt", "le", "gt", "ge", "both", "either", "negate")
_SHAPING = ("rearrange", "swap", "expand", "slice", "select", "dropout", "drop_path", "cast", "neg", "roll")
_LAST_RESORTS = ("x", "y", "z")


class Temporaries:
    """What the values of a unit may be called."""

    def __init__(self, unit: Unit):
        self.unit = unit
        self._losses = {value: name for name, value in unit.graph.penalties}
        self._readers: dict[Value, list[Node | Unit]] = {}
        self._made_by: dict[Value, Node | Unit] = {}
        for item in unit.items:
            for value in item.inputs:
                if value is not None:
                    self._readers.setdefault(value, []).append(item)
            for value in _results(item):
                self._made_by[value] = item

    def label(self, value: Value) -> str:
        """What the spec calls a value in this unit."""
        if value in self._losses:
            return self._losses[value]
        if value in self.unit.frame.labels:
            return self.unit.frame.labels[value]
        node = self._made_by.get(value)
        return node.labels[value.index] if isinstance(node, Node) and value.index < len(node.labels) else ""

    def input_name(self, value: Value) -> str:
        """What an input of the unit is called: as the block declares it, or as it is called where it is made."""
        for name, bound in self.unit.frame.arguments.items():
            if bound == value and not self.unit.is_turn:
                return name
        node = self.unit.graph.node(value)
        if node.op == "input":
            return str(node.attributes["name"])
        return (node.labels[value.index] if value.index < len(node.labels) else "") or self._noun(value) or "x"

    def names(self, value: Value) -> tuple[str, ...]:
        """What a value may be called, the best first."""
        label = self.label(value)
        if label:
            return (label,)
        node = self._made_by.get(value)
        if isinstance(node, Node) and node.op == "append":
            name = node.attributes["path"].rpartition(".")[2]
            return name if name.endswith("s") else f"{name}s", *_LAST_RESORTS
        return tuple(filter(None, (self._destination(value), self._noun(value), *_LAST_RESORTS)))

    def _destination(self, value: Value) -> str:
        """What the spec calls that which a value only serves to compute."""
        while not self.label(value):
            readers = self._readers.get(value, [])
            results = _results(readers[0]) if len(readers) == 1 else []
            if value in self.unit.results:
                return "" if readers else "x"
            if len(results) != 1:
                return ""
            value = results[0]
        return self.label(value)

    def _noun(self, value: Value) -> str:
        """A word for what a value is; one that only changes shape is called after what it changes."""
        item = self._made_by.get(value)
        if isinstance(item, Unit):
            return item.path.rpartition(".")[2].partition("#")[0].strip("*")
        node = self.unit.graph.node(value)
        while node.op in _SHAPING:
            first = node.inputs[0]
            assert first is not None
            if self.label(first) or first in self.unit.inputs:
                return self.label(first)
            node = self.unit.graph.node(first)
        if node.op in _CONDITIONS:
            return "condition"
        return node.name if node.op in LAYER_OPS else _NOUNS.get(node.op, "")


def _results(item: Node | Unit) -> list[Value]:
    if isinstance(item, Unit):
        return item.results
    return [Value(item.id, index) for index in range(len(item.types))]
