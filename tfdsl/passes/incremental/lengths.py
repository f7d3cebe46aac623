"""How long texts are: the axis that is decoded, a bound on it, and the longest that a model can decode."""

from __future__ import annotations

from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Constraint, Graph
from tfdsl.ir.limits import limits
from tfdsl.language.diagnostics import one
from tfdsl.passes.fold_ranges import fold_ranges
from tfdsl.passes.incremental.causality import analyse
from tfdsl.passes.incremental.flow import Fault

_SHORTEST, _FURTHEST = 2, 1 << 24  # between these the longest is looked for; more than the latter is no bound


def decoded_axis(graph: Graph) -> Dim:
    """The size that grows by one with each step of decoding: that of axis 1 of the first output, an input's too."""
    name, value = graph.outputs[0]
    dims = graph.type(value).dims
    given = {dim for place in graph.inputs for dim in graph.node(place).type.dims[1:2]}
    if len(dims) < 2 or not isinstance(dims[1], Dim) or dims[1].name is None or dims[1] not in given:
        message = (
            f"`{graph.name}` cannot decode: its first output `{name}: {graph.type(value)}` has no axis of positions"
        )
        help_ = "axis 1 of the first output must be an axis of an input, as in `tokens: int[batch, seq]`"
        raise one("T720", message, graph.node(value).span, help=help_)
    return dims[1]


def bounded(graph: Graph, longest: int) -> Graph:
    """The graph with the constraint that texts are of at most so many positions, prompt and new tokens together.

    Raises `SpecError`: T751 for no whole number above zero, or more than the model itself takes, T720 for a model
    without positions.
    """
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        raise one("T751", f"texts of at most {longest!r} positions cannot be", help="it is a whole number above zero")
    positions = decoded_axis(graph)
    most = limits(graph).get(str(positions))
    if most is not None and longest > most:
        message = f"`{graph.name}` takes {most} positions at most, and no texts of {longest}"
        raise one("T751", message, help=f"`--longest {most}` is the most")
    graph = graph.copy()
    graph.constraints.append(Constraint("<=", positions, longest, f"built for texts of at most {longest} positions"))
    return graph


def longest_causal(graph: Graph, positions: Dim) -> int | None:
    """The most positions up to which nothing of a model looks ahead; None where there is no such number."""
    if not _is_causal(graph, positions, _SHORTEST):
        return None
    low, high = _SHORTEST, 2 * _SHORTEST
    while _is_causal(graph, positions, high):
        low, high = high, 2 * high
        if high > _FURTHEST:
            return None
    while high - low > 1:  # causal at low, and not at high
        middle = (low + high) // 2
        low, high = (middle, high) if _is_causal(graph, positions, middle) else (low, middle)
    return low


def _is_causal(graph: Graph, positions: Dim, longest: int) -> bool:
    """Whether nothing looks ahead in texts of up to so many positions."""
    short = graph.copy()
    short.constraints.append(Constraint("<=", positions, longest))
    folded, _ = fold_ranges(short)
    return not isinstance(analyse(folded, positions).states[folded.outputs[0][1]], Fault)
