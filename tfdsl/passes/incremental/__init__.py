"""Decoding with a cache, derived from the graph: of a causal model, the graph of one call with state in between.

`causality` finds where positions lie and what looks ahead, op by op (`rules`, `above`); `cuts` chooses what to remember;
`build` makes the new graph, with positions that differ from row to row of the batch (`rows`) and windows that slide;
`lengths` bounds texts, for models that are causal up to some length.
"""

from __future__ import annotations

from dataclasses import replace

from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, substitute, symbol
from tfdsl.ir.graph import Constraint, Graph, Value
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.dead import drop_dead
from tfdsl.passes.fold_ranges import fold_ranges
from tfdsl.passes.incremental import windows as sliding
from tfdsl.passes.incremental.build import Builder, Decoding
from tfdsl.passes.incremental.causality import Causality, analyse
from tfdsl.passes.incremental.cuts import choose
from tfdsl.passes.incremental.lengths import bounded, decoded_axis, longest_causal
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
    A model that is causal for as many positions only as its constraints allow (`bounded`) decodes too.
    Raises `SpecError` (T720) for a model that is not causal, with the op at fault.
    """
    graph = _prepared(graph)
    positions = decoded_axis(graph)
    try:
        made = _decoder(graph, positions, windows)
    except SpecError as error:
        most = longest_causal(graph, positions)
        if most is None:
            raise
        help_ = f"texts of up to {most} positions can be decoded: build it for those, with `--longest {most}` or less"
        raise SpecError(replace(each, help=help_) for each in error.diagnostics) from None
    return last_position(made) if logits == "last" else made


def _decoder(graph: Graph, positions: Dim, windows: str) -> Graph:
    """The graph of one call as the model stands, or else as it is within what its constraints allow."""
    try:
        return _derived(graph, positions, windows)
    except SpecError:
        folded, report = fold_ranges(graph)
        if not report.changed:
            raise
    return _derived(folded, positions, windows)


def _derived(graph: Graph, positions: Dim, windows: str) -> Graph:
    """The graph of one call, for the output at all new positions."""
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
    return _build(decoding, causality)


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


__all__ = ["bounded", "decoded_axis", "incremental"]
