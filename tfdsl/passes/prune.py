"""`prune("blocks.*.mlp.*", sparsity=0.5, pattern="2:4")`: the smallest magnitudes of weights become zero."""

from __future__ import annotations

from typing import Annotated, Literal

from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.language.diagnostics import one
from tfdsl.passes.matrices import treat
from tfdsl.passes.options import Between
from tfdsl.passes.report import PassResult, Report


def prune(
    graph: Graph,
    paths: str,
    sparsity: Annotated[float, Between(0, 1, open_end=True)] | None = None,
    *,
    pattern: Literal["2:4"] | None = None,
) -> PassResult:
    """Prune the weights that `paths` names: a share of each, or with "2:4" two of every four along the last axis.

    Raises `SpecError`: T604 where no weight matches, T603 where pattern and sparsity do not go together.
    """
    if sparsity is None and pattern is None:
        raise one("T603", "`prune` needs a sparsity or a pattern", help='sparsity=0.5, or pattern="2:4"')
    if pattern is not None and sparsity not in (None, 0.5):
        raise one("T603", f'`pattern="{pattern}"` is a sparsity of 0.5, not {sparsity}')
    share = 0.5 if sparsity is None else float(sparsity)
    graph = graph.copy()
    report = Report("prune")

    def treatment(region: Graph, weight: Node, value: Value) -> Value | str:
        last = weight.type.dims[-1]
        if value.node != weight.id:
            return "it is pruned already"
        if pattern is not None and (not isinstance(last, int) or last % 4):
            return f"its last axis is {last}, which groups of four do not divide"
        return Value(region.add("prune", [value], {"sparsity": share, "pattern": pattern}, like=weight).id)

    done = "keeps the two largest of every four" if pattern else f"loses {share:.0%} of its elements"
    treat(graph, paths, report, treatment, ("prune",), done)
    return graph, report
