"""Graphs that decode with a state, made ready for emission: masks that many layers share are made once a call.

A mask of a decoder is nearly always "what is real, up to oneself, perhaps not further back than a window". The attention
that has it is marked with a `Sight` (under the attribute `sight`, which is this backend's own), and reads no mask operand any
more: the tensor is made by the model's own method, and handed to whatever needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfdsl.backends.torch.outside import note
from tfdsl.ir import masks
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Node, Value, fed
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.ir.states import WITH_PATH, State

MASK, POSITIONS = "attention_mask", "position_ids"


@dataclass(frozen=True)
class Sight:
    """What `queries` see of `keys` positions that are kept: those that the input `padding` has, up to their own.

    `window` bounds how far back they see. `fused` says that the attention is a kernel that knows a causal mask by itself.
    """

    padding: str
    queries: Size
    keys: Size
    window: int | None
    fused: bool


@dataclass(frozen=True)
class _Padding:
    """A value that is an input of the model, or the last `keys` columns of it."""

    name: str
    keys: Size


def decodes(graph: Graph) -> bool:
    """Whether a graph is that of one call of a decoder: it is told of padding, and which positions are new."""
    dims = {graph.node(place).attributes["name"]: graph.node(place).type.dims for place in graph.inputs}
    return MASK in dims and POSITIONS in dims and dims[MASK] != dims[POSITIONS]


def prepare(graph: Graph) -> Graph:
    """A copy of a graph, marked if it is a decoder's; any other graph is left as it is."""
    if not decodes(graph):
        return graph
    from tfdsl.passes.dead import drop_dead
    from tfdsl.passes.report import Report

    graph = tidied(graph)
    for node in (node for region in graph.regions() for node in region.nodes()):
        node.attributes.pop("checkpoint", None)  # a decoder has no backward pass
    _mark(graph, _of_inputs(graph))
    for region in reversed(list(graph.regions())):  # what only masks read
        drop_dead(region, Report("clean"))
    _rename_states(graph)
    return graph


def tidied(graph: Graph) -> Graph:
    """A decoder's graph with nothing computed in vain, or in every layer anew; what leaves loops keeps its names."""
    from tfdsl.passes.clean import clean

    graph = graph.copy()
    note(graph)
    return clean(graph)[0]


def sliding_sizes(kept: Sequence[State]) -> dict[str, int]:
    """How many positions states that slide hold at most, by the name of the size that says how many they hold now."""
    found = {}
    for state in kept:
        size = state.type.dims[state.axis] if state.axis is not None else 0
        if state.last is not None and isinstance(size, Dim) and size.name is not None:
            found[size.name] = state.last
    return found


def _rename_states(graph: Graph) -> None:
    """Give a state another name where weights live at or below its path."""
    nodes = [node for region in graph.regions() for node in region.nodes()]
    taken: set[str] = set()
    for path in [node.attributes["path"] for node in nodes if node.op == "weight"]:
        parts = path.split(".")
        taken |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    for node in nodes:
        while node.op in WITH_PATH and node.attributes["path"] in taken:
            node.attributes["path"] += "_state"


def _of_inputs(graph: Graph) -> dict[Value, _Padding]:
    found = {}
    for place in graph.inputs:
        node = graph.node(place)
        if len(node.type.dims) == 2 and node.type.dtype != "float":
            found[Value(place)] = _Padding(node.attributes["name"], node.type.dims[1])
    return found


def _mark(region: Graph, known: Mapping[Value, _Padding]) -> None:
    """Mark the attention of a region, in which some values are known to be padding, and of the loops in it."""
    found = dict(known)
    for node in region.nodes():
        source = found.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
        if source is not None:
            made = _still_padding(region, node, source)
            if made is not None:
                found[Value(node.id)] = made
        if node.op == "attend":
            _mark_attention(region, node, found)
        for body in node.bodies:
            outside = list(zip(body.inputs, fed(node), strict=True))
            first = node.attributes.get("carried", 1)
            _mark(body, {Value(inner): found[value] for inner, value in outside[first:] if value in found})


def _still_padding(region: Graph, node: Node, source: _Padding) -> _Padding | None:
    """What a node makes of padding: the same as truth values, or its last columns."""
    if node.op == "cast" and node.type.dtype in ("bool", "int"):
        return source
    a = OPS[node.op].fill(node.attributes)
    if node.op == "slice" and a.axis == 1 and a.step == 1 and a.stop in (None, source.keys):
        return _Padding(source.name, node.type.dims[1])
    return None


def _mark_attention(region: Graph, node: Node, known: Mapping[Value, _Padding]) -> None:
    a = OPS["attend"].fill(node.attributes)
    sight = _sight(region, node, a, known)
    if sight is not None:
        attributes = {name: value for name, value in node.attributes.items() if name not in ("mask", "offset")}
        node.attributes = {**attributes, "sight": sight}
        region.set_inputs(node, node.inputs[:6])


def _sight(region: Graph, node: Node, a: Attributes, known: Mapping[Value, _Padding]) -> Sight | None:
    """What the queries of a node see, where it can be told so."""
    queries, keys = (region.type(value).dims[2] for value in node.inputs[:2] if value is not None)
    if a.mask is None or a.offset != keys - queries or node.inputs[4] is not None or a.drop:
        return None
    parts = list(conjuncts(a.mask))
    kinds = [part.kind for part in parts]
    if "causal" not in kinds or not {*kinds} <= {"full", "causal", "window", "padding"} or kinds.count("padding") != 1:
        return None
    operand = next(part.operand for part in parts if part.kind == "padding")
    source = known.get(node.inputs[6 + operand]) if operand is not None else None  # type: ignore[arg-type]
    if source is None or source.keys != keys:
        return None
    window = min((part.arguments[0] for part in parts if part.kind == "window"), default=None)
    fused = node.inputs[3] is None and node.inputs[5] is None and a.softcap is None
    return Sight(source.name, queries, keys, window, fused)


def conjuncts(mask: masks.Mask) -> list[masks.Term]:
    """The terms that a mask joins by `&`; a term of no kind stands for anything else in it."""
    if isinstance(mask, masks.Joined) and mask.operator == "&":
        return [*conjuncts(mask.left), *conjuncts(mask.right)]
    return [mask if isinstance(mask, masks.Term) else masks.Term("")]
