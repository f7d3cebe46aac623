"""Decoding with a cache, derived from the graph: of a causal model, the graph of one call with state in between.

`causality` finds where positions lie and what looks ahead, op by op (`rules`, `above`); `cuts` chooses what to remember;
`build` makes the new graph, with positions that differ from row to row of the batch (`rows`) and windows that slide.
"""

from __future__ import annotations

from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, substitute, symbol
from tfdsl.ir.graph import Constraint, Graph, Value
from tfdsl.language.diagnostics import one
from tfdsl.passes.dead import drop_dead
from tfdsl.passes.incremental import windows as sliding
from tfdsl.passes.incremental.build import Builder, Decoding
from tfdsl.passes.incremental.causality import Causality, analyse
from tfdsl.passes.incremental.cuts import choose
from tfdsl.passes.incremental.windows import Windows
from tfdsl.passes.last_position import last_position
from tfdsl.passes.lower_masks import lower_masks
from tfdsl.passes.report import Report

# Masks that tell positions from each other by their number, and not by how far apart they are.
_ABSOLUTE = {"blocks", "global_tokens", "random_blocks", "prefix"}


def incremental(graph: Graph, *, logits: str = "last", windows: str = "masked") -> Graph:
    """The graph of one decoding call of a causal model: it computes its first output for new positions, with state.

    Inputs of the model with the axis that is decoded (axis 1 of the first output) are given for the new positions, `seq`
    say; further inputs are `attention_mask: int[batch, total]`, 1 for what is real and 0 for padding on the left, and
    `position_ids: int[batch, seq]`. `logits` is "last" for the output of the last position only ([batch, 1, ...]) or "all".
    With `windows="kept"`, keys and values beyond a sliding window are forgotten; with "masked" they are hidden.
    Raises `SpecError` (T720) for a model that is not causal, with the op at fault.
    """
    graph = _prepared(graph)
    positions = decoded_axis(graph)
    causality = analyse(graph, positions)
    batch = next(d.dims[0] for d in (graph.node(n).type for n in graph.inputs) if positions in d.dims[1:2])
    total = symbol(_free(graph, "total"))
    found = Windows()
    decoding = Decoding(graph.name, positions, total, batch, found)
    _build(decoding, causality)  # once to learn what is needed of all positions
    decoding.cuts, decoding.paths = {}, set()
    for region in _regions(causality):
        needed = decoding.needed.get(id(region), {})
        decoding.cuts[id(region)] = choose(region, needed)
        if windows == "kept":
            slides = sliding.find(region, needed, decoding.cuts[id(region)])
            found.lasts.update({(id(region), value): last for value, last in slides.items()})
    made = _build(decoding, causality)
    return last_position(made) if logits == "last" else made


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


def _prepared(graph: Graph) -> Graph:
    """The graph of the first output without what is for training; masks by the number of a position are ordinary nodes."""
    graph = lower_masks(graph, lambda _graph, _node, part: not any(t.kind in _ABSOLUTE for t in masks.terms(part)))
    for region in graph.regions():
        region.penalties = []
        for node in region.nodes():
            if node.op in ("dropout", "drop_path") and node.inputs[0] is not None:
                region.redirect(Value(node.id), node.inputs[0])
                region.remove(node)
            elif node.op == "attend":
                node.attributes.pop("drop", None)
                node.spelled.pop("drop", None)
    del graph.outputs[1:]
    for region in reversed(list(graph.regions())):
        drop_dead(region, Report("incremental"))
    return graph


def _build(decoding: Decoding, causality: Causality) -> Graph:
    old = causality.graph
    graph = Graph(old.name)
    graph.frame = old.frame
    builder = Builder(decoding, causality, graph)
    name, value = old.outputs[0]
    for place in old.inputs:  # in the order of the signature, whether or not they are read
        builder.make(Value(place))
    for helper in ("attention_mask", "position_ids"):
        builder.helper(helper)
    made = builder.make(value)
    graph.outputs = [(name, made.value)]
    builder.reframe()
    names = {decoding.positions.name or "": decoding.total}
    graph.constraints = [
        Constraint(each.operator, substitute(each.left, names), substitute(each.right, names), each.why, each.span)
        for each in old.constraints
    ]
    return graph


def _regions(causality: Causality) -> list[Causality]:
    return [causality, *(inner for body in causality.bodies.values() for inner in _regions(body))]


def _free(graph: Graph, name: str) -> str:
    """A name for a size that the model has none of."""
    taken = {d.name for n in graph.inputs for d in graph.node(n).type.dims if isinstance(d, Dim)}
    while name in taken:
        name += "_"
    return name


__all__ = ["decoded_axis", "incremental"]
