"""Bytes of weights as they are stored: at an element type, or as the passes left them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfdsl.ir.dims import evaluate, product
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.language.diagnostics import did_you_mean, one

BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}
_SCALE_BITS = 32


@dataclass
class Form:
    """How a weight is stored, and what passes have done to it."""

    quantised: Node | None = None
    pruned: Node | None = None

    def join(self, other: Form) -> None:
        self.quantised = self.quantised or other.quantised
        self.pruned = self.pruned or other.pruned


def element_bits(dtype: str) -> int:
    """The bits of an element. Raises `SpecError` for a type that weights are not stored at."""
    if dtype not in BITS:
        help_ = did_you_mean(dtype, BITS, f"one of {', '.join(BITS)}")
        raise one("T721", f"weights are not counted at `{dtype}`", help=help_)
    return BITS[dtype]


def form_of(graph: Graph, weight: Node) -> Form:
    """What stands between a weight and the nodes that use it."""
    form = Form()
    waiting = [Value(weight.id)]
    while waiting:
        for user, _ in graph.users(waiting.pop()):
            if user.op == "prune":
                form.pruned = user
                waiting.append(Value(user.id))
            elif user.op == "quantize":
                form.quantised = user
    return form


def stored_bits(elements: int, form: Form, bits: int) -> int:
    """The bits of one weight; if quantised, those of its whole numbers (two to a byte if they fit) and scales."""
    if form.quantised is None:
        return elements * bits
    scales = evaluate(product(form.quantised.types[1].dims), {})
    return elements * (4 if form.quantised.attributes["bits"] <= 4 else 8) + scales * _SCALE_BITS


def zeros(elements: int, form: Form) -> int:
    """How many elements of a weight pruning has set to zero."""
    if form.pruned is None:
        return 0
    pattern = form.pruned.attributes.get("pattern")
    if pattern is not None:
        keep, size = (int(part) for part in pattern.split(":"))
        return elements // size * (size - keep)
    return math.floor(form.pruned.attributes["sparsity"] * elements)
