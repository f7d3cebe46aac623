"""Attention over keys and values that were remembered, in the words that runtimes know.

The CPU plugin and the paged attention of openvino-genai both look for a scaled dot-product attention over a joined variable.
The latter takes for granted that the mask is the causal one, or one with a window if it is spelled as the exporter of
gpt-oss spells it, and drops whatever else a mask says. So an attention is told this way only where nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import openvino

from tfdsl.backends.openvino import attention, sizes
from tfdsl.backends.openvino.attention import repeated, scale_of
from tfdsl.backends.openvino.builder import Builder, Tensor
from tfdsl.decoding.manifest import MASK
from tfdsl.ir import masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.masks import Mask, Term
from tfdsl.ir.op import Attributes
from tfdsl.ir.ops import OPS
from tfdsl.passes.lower_masks import conjuncts

_HIDDEN = -65504.0  # the least number of float16: exporters write it whatever the type, and patterns look for it


@dataclass(frozen=True)
class Told:
    """What is told of a causal attention: the size of its window, if it has one."""

    window: int | None


def told(graph: Graph, node: Node) -> Told | str:
    """What an attention is told as, or why it is none that paged attention knows."""
    a = OPS["attend"].fill(node.attributes)
    for place in (1, 2):
        why = _not_remembered(graph, node, place, a.offset)
        if why:
            return why
    for place, what in ((3, "a bias on its scores"), (4, "a mask of its own")):
        if node.inputs[place] is not None:
            return f"it has {what}"
    if a.softcap is not None:
        return "it caps its scores"
    parts = list(conjuncts(masks.simplify(a.mask))) if a.mask is not None else []
    found = [part for part in parts if not _hides_padding(graph, node, part)]
    windows = [part.arguments[0] for part in found if isinstance(part, Term) and part.kind == "window"]
    others = [part for part in found if part != masks.CAUSAL and not _is_window(part)]
    if others:
        return f"its mask says `{others[0]}`"
    if masks.CAUSAL not in found or len(found) == len(parts) or len(windows) > 1:
        return "its mask is not the causal one"
    return Told(windows[0] if windows else None)


def stays(graph: Graph, node: Node, part: Mask) -> bool:
    """Whether a conjunct of a mask is left to the lowering of its attention: all of them or none are."""
    return isinstance(told(graph, node), Told)


def attend(
    b: Builder,
    a: Attributes,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    allowed: Tensor | None,
    sinks: Tensor | None,
    *rest: Tensor,
) -> openvino.Output:
    """Attention as it is told, and else as any other."""
    assert b.node is not None
    how = told(b.graph, b.node)
    if not isinstance(how, Told):
        return attention.attend(b, a, q, k, v, bias, allowed, sinks, *rest)
    keep = next(each for each in rest if each.type.dtype == "bool")
    return remembered(b, a, q, k, v, sinks, keep, how.window)


def remembered(
    b: Builder,
    a: Attributes,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    keep: Tensor,
    window: int | None,
) -> openvino.Output:
    """Causal attention of new positions over all; what padding gets is anything, since nothing reads it."""
    queries, keys = q.dims[2], k.dims[2]
    mask = _mask(b, keep, (q.dims[0], queries, keys), a.offset, window)
    joined = (repeated(b, each, q.dims[1]) for each in (k, v))
    if sinks is None:
        return b.emit("scaled_dot_product_attention", q, *joined, mask, scale_of(b, a, q))
    heads = b.emit("reshape", sinks, b.ints(1, -1, 1, 1), special_zero=False)
    return b.emit("attention_with_sinks", q, *joined, mask, scale_of(b, a, q), heads)


def _mask(b: Builder, keep: Tensor, dims: tuple[Size, Size, Size], past: Size, window: int | None) -> openvino.Output:
    """Numbers to add to scores [batch, 1, queries, keys]."""
    batch, queries, keys = dims
    key = b.emit("unsqueeze", sizes.count(b, keys), b.ints(0, 1, 2))
    query = b.emit("add", sizes.count(b, queries), sizes.size(b, past))
    query = b.emit("unsqueeze", query, b.ints(0, 1, 3))
    seen = b.emit("less_equal", key, query)
    real = b.emit("unsqueeze", keep, b.ints(1, 2))
    # Three parts of four, where a window is, stand only for what the pattern wants to see there.
    if window is not None:
        inside = b.emit("greater", key, b.emit("add", query, b.scalar(-window, "int")))
        inside = b.emit("bitwise_and", b.scalar(True, "bool"), inside)
        seen = b.emit("bitwise_and", b.scalar(True, "bool"), b.emit("bitwise_and", inside, seen))
    seen = b.emit("bitwise_and", seen, real)
    shape = sizes.shape(b, (batch, 1, queries, keys))
    seen = b.emit("broadcast", seen, shape, broadcast_spec="BIDIRECTIONAL")
    mask = b.emit("select", seen, b.scalar(0, "float"), b.scalar(_HIDDEN, "float"))
    if window is None:
        return mask
    return b.emit("slice", mask, b.ints(0), sizes.size(b, keys), b.ints(1), b.ints(3))


def _not_remembered(graph: Graph, node: Node, place: int, offset: Size) -> str:
    value = node.inputs[place]
    assert value is not None
    made = graph.node(value)
    if made.op != "append":
        return "its keys and values are computed anew from what is remembered"
    a = OPS["append"].fill(made.attributes)
    if a.last is not None or a.fill or a.axis != 2 or a.size != offset:
        return "it does not remember all keys and values"
    if [user.id for user, _ in graph.users(value)] != [node.id] or graph.is_result(value):
        return "its keys or values are read by others too"
    return ""


def _is_window(part: Mask) -> bool:
    return isinstance(part, Term) and part.kind == "window"


def _hides_padding(graph: Graph, node: Node, part: Mask) -> bool:
    """Whether a conjunct says no more than that the padding of the input is not to be seen."""
    if not isinstance(part, Term) or part.kind != "padding" or part.operand is None:
        return False
    value = node.inputs[6 + part.operand]
    return value is not None and reads_mask(graph, value)


def reads_mask(graph: Graph, value: Value) -> bool:
    """Whether a value is the input that tells tokens from padding, as booleans."""
    node = graph.node(value)
    source = node.inputs[0] if node.op == "cast" else None
    given = None if source is None else graph.node(source)
    return given is not None and given.op == "input" and given.attributes["name"] == MASK
