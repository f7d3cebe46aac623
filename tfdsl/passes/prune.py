"""`prune("blocks.*.mlp.*", sparsity=0.5, pattern="2:4")`: the smallest magnitudes of weights become zero."""

from __future__ import annotations

from typing import Annotated, Literal

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.matrices import reads, treat
from tfdsl.passes.options import Between
from tfdsl.passes.report import PassResult, Report


def prune(
    graph: Graph,
    paths: str,
    sparsity: Annotated[float, Between(0, 1, open_end=True)] = 0.5,
    *,
    pattern: Literal["2:4"] | None = None,
) -> PassResult:
    """Prune the weights that `paths` names: a share of each, or with "2:4" two of every four along the last axis.

    Raises `SpecError`: T604 where no weight matches, T603 where pattern and sparsity contradict each other.
    """
    graph = graph.copy()
    report = Report("prune")

    def treatment(region: Graph, weight: Node, value: Value) -> Value | str:
        last = weight.type.dims[-1]
        if value.node != weight.id:
            return "it is pruned already"
        if pattern is not None and (not isinstance(last, int) or last % 4):
            return f"its last axis is {last}, which groups of four do not divide"
        attributes = {"sparsity": float(sparsity), "pattern": pattern}
        return Value(region.add("prune", [value], attributes, like=weight).id)

    done = f"keeps {pattern.replace(':', ' of every ')}" if pattern else f"loses {sparsity:.0%}"
    treat(graph, paths, report, treatment, ("prune",), done)
    return graph, report


__all__ = ["prune", "reads"]
