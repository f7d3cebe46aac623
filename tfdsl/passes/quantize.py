"""`quantize("blocks.**", bits=8)`: weights are stored as small whole numbers and scales."""

from __future__ import annotations

from typing import Annotated, Literal

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.matrices import reads, treat
from tfdsl.passes.options import Between
from tfdsl.passes.report import PassResult, Report


def quantize(
    graph: Graph, paths: str, bits: Literal[4, 8] = 8, group: Annotated[int, Between(2, 2**20)] | None = None
) -> PassResult:
    """Quantise the weights that `paths` names: a scale for each row, or for each `group` of elements of the last axis.

    Raises `SpecError` (T604) where no weight matches.
    """
    graph = graph.copy()
    report = Report("quantize")

    def treatment(region: Graph, weight: Node, value: Value) -> Value | str:
        if reads(region, value, "quantize"):
            return "it is quantised already"
        reason = _unfit(weight, group)
        if reason:
            return reason
        labels = (f"{weight.name}_whole", f"{weight.name}_scale")
        made = region.add("quantize", [value], {"bits": bits, "group": group}, like=weight, labels=labels)
        return Value(region.add("dequantize", [Value(made.id, 0), Value(made.id, 1)], like=weight).id)

    done = f"is stored in {bits} bits" + (f", a scale for {group} elements" if group else ", a scale a row")
    treat(graph, paths, report, treatment, ("prune",), done)
    return graph, report


def _unfit(weight: Node, group: int | None) -> str:
    """Why a weight cannot be quantised in groups; "" where it can."""
    dims = weight.type.dims
    if group is None:
        return ""
    if len(dims) != 2:
        return f"it has {len(dims)} axes, and groups are for matrices"
    if not isinstance(dims[1], int) or dims[1] % group:
        return f"groups of {group} do not divide its last axis of {dims[1]}"
    return ""
