"""Attention written by hand: `softmax(q @ k) @ v` in its spellings, found and read, or refused with the reason.

Nothing is changed here. What is found says which values are queries, keys and values and how each is to be rearranged
to the axes that `attend` takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.ir.rearrange import parse_einsum
from tfdsl.passes.attention_scores import Mismatch, Scores, read_scores
from tfdsl.passes.regions import is_random


@dataclass(frozen=True)
class Softmax:
    """A softmax, by the op or by hand: the node that gives the weights, the scores, and the nodes that read those."""

    node: Node
    scores: Value
    readers: frozenset[int]
    axis: int


@dataclass(frozen=True)
class Operand:
    """A value, and the rearrangement that gives it the axes that `attend` takes; none for one that has them."""

    value: Value
    pattern: str = ""
    sizes: tuple[tuple[str, Size], ...] = ()
    name: str = "rearrange"


@dataclass(frozen=True)
class Attention:
    """What was found. `product` is the node to replace, `result` the rearrangement from what `attend` gives to it."""

    softmax: Softmax
    product: Node
    result: str
    query: Operand
    key: Operand
    value: Operand
    scores: Scores
    drop: float
    rank: int


def softmaxes(graph: Graph) -> Iterator[Softmax]:
    """Every softmax of a region, those written out as `exp(x) / sum(exp(x))` among them."""
    for node in graph.nodes():
        if node.op == "softmax" and node.inputs[0] is not None:
            axis = OPS["softmax"].fill(node.attributes).axis % max(len(node.type.dims), 1)
            yield Softmax(node, node.inputs[0], frozenset({node.id}), axis)
        elif node.op == "div":
            written = _by_hand(graph, node)
            if written is not None:
                yield written


def _by_hand(graph: Graph, node: Node) -> Softmax | None:
    """`exp(x - max(x)) / sum(exp(x - max(x)))`, with or without the maximum."""
    above, below = (graph.node(value) if value is not None else None for value in node.inputs)
    if above is None or below is None or above.op != "exp" or below.op != "sum" or not below.attributes.get("keep"):
        return None
    axis = below.attributes["axis"]
    if not alike(graph, Value(above.id), below.inputs[0]):
        return None
    inner = above.inputs[0]
    assert inner is not None
    shifted = graph.node(inner)
    if shifted.op == "sub" and shifted.inputs[1] is not None:
        highest = graph.node(shifted.inputs[1])
        same_axis = highest.attributes.get("axis") == axis and highest.attributes.get("keep")
        if highest.op == "max" and same_axis and alike(graph, shifted.inputs[0], highest.inputs[0]):
            assert shifted.inputs[0] is not None
            readers = {user.id for user, _ in graph.users(shifted.inputs[0]) if user.op in ("sub", "max")}
            return Softmax(node, shifted.inputs[0], frozenset(readers), axis)
    return Softmax(node, inner, frozenset(user.id for user, _ in graph.users(inner) if user.op == "exp"), axis)


def alike(graph: Graph, left: Value | None, right: Value | None) -> bool:
    """Whether two values are one, or computed in the same way from the same values."""
    waiting = [(left, right)]
    seen: set[tuple[Value | None, Value | None]] = set()
    while waiting:
        pair = first, second = waiting.pop()
        if first == second or pair in seen:
            continue
        seen.add(pair)
        if first is None or second is None or first.index != second.index:
            return False
        a, b = graph.node(first), graph.node(second)
        fixed = a.op == "input" or bool(a.bodies) or is_random(a)
        if fixed or a.op != b.op or a.attributes != b.attributes or len(a.inputs) != len(b.inputs):
            return False
        waiting += zip(a.inputs, b.inputs, strict=True)
    return True


def match(graph: Graph, softmax: Softmax) -> Attention:
    """The attention that a softmax is part of. Raises `Mismatch` with the reason where it is part of none."""
    rank = len(softmax.node.type.dims)
    product, place, drop = _product(graph, softmax.node)
    if softmax.axis != rank - 1:
        raise Mismatch(f"its softmax is along axis {softmax.axis}, and the keys are the last of {rank} axes")
    if rank not in (3, 4):
        raise Mismatch(f"its scores have {rank} axes, and `attend` takes [batch, heads, queries, keys]")
    scores = read_scores(graph, softmax.scores, set(softmax.readers))
    if scores.product.type.dims != softmax.node.type.dims:
        raise Mismatch(
            f"its scores are {scores.product.type}, and become {softmax.node.type} on the way to the softmax"
        )
    query, key = _queries_and_keys(graph, scores.product, rank)
    value, result = _values(graph, product, place, rank)
    return Attention(softmax, product, result, query, key, value, scores, drop, rank)


def _product(graph: Graph, node: Node) -> tuple[Node, int, float]:
    """The product of the weights with the values, the place of the weights in it, and the dropout between."""
    drop = 0.0
    while True:
        value = Value(node.id)
        users = graph.users(value)
        if graph.is_result(value):
            raise Mismatch("its weights are an output, and `attend` gives none")
        if len(users) != 1:
            names = " and ".join(f"`{user.name or user.op}`" for user, _ in users[:2]) or "nothing"
            raise Mismatch(f"its weights are read by {names}, and by one product with values they should be")
        user, place = users[0]
        if user.op == "dropout" and not drop:
            drop, node = float(user.attributes["p"]), user
        elif _sums_over_keys(user, place):
            return user, place, drop
        else:
            raise Mismatch(f"its weights go to `{user.name or user.op}`, and not straight to a product with values")


def _sums_over_keys(node: Node, place: int) -> bool:
    """Whether a node multiplies weights, its operand at a place, with something and sums over their last axis."""
    if node.op == "einsum" and len(node.inputs) == 2:
        operands, result = parse_einsum(node.attributes["pattern"])
        return operands[place][-1] in operands[1 - place] and operands[place][-1] not in result
    return node.op == "matmul" and place == 0


# --- axes ------------------------------------------------------------------------------------------------------------


def lifted(rank: int, scores_rank: int) -> str:
    """The rearrangement of an operand of so many axes to the four that `attend` takes; "" for one that has them."""
    names = ("b", "h", "s", "d") if scores_rank == 4 else ("b", "s", "d")
    own = names[len(names) - rank :]
    wanted = [name if name in own else "1" for name in ("b", "h", "s", "d")]
    return "" if rank == 4 else f"{' '.join(own)} -> {' '.join(wanted)}"


def _queries_and_keys(graph: Graph, product: Node, rank: int) -> tuple[Operand, Operand]:
    left, right = product.inputs
    assert left is not None and right is not None
    if product.op == "matmul":
        if len(graph.type(left).dims) != rank:
            raise Mismatch(f"its queries are {graph.type(left)}, and its scores have {rank} axes")
        return Operand(left, lifted(rank, rank)), _transposed(graph, right, rank)
    (first, second), result = parse_einsum(product.attributes["pattern"])
    batch, query, key = result[:-2], result[-2], result[-1]
    inner = [name for name in first if name in second and name not in result]
    if query not in first:
        left, first, right, second = right, second, left, first
    apart = query in first and key in second and key not in first and query not in second
    if len(inner) != 1 or not {*first, *second} <= {*result, *inner} or not apart:
        named = product.name or product.op
        raise Mismatch(f"its scores come from `{named}`, which is no product of queries and keys over one axis")
    return _arranged(left, first, [*batch, query, inner[0]]), _arranged(right, second, [*batch, key, inner[0]])


def _arranged(value: Value, names: tuple[str, ...], wanted: list[str]) -> Operand:
    """An operand of an einsum in the order of axes that is wanted; a batch axis that it lacks is one of one element."""
    missing = [name for name in wanted[-2:] if name not in names]
    if missing or not set(names) <= set(wanted):
        raise Mismatch(f"an operand with the axes `{' '.join(names)}` does not fit among `{' '.join(wanted)}`")
    axes = [name if name in names else "1" for name in wanted]
    if len(axes) == 3:
        axes.insert(1, "1")
    return Operand(value, "" if axes == list(names) else f"{' '.join(names)} -> {' '.join(axes)}")


def _transposed(graph: Graph, value: Value, scores_rank: int) -> Operand:
    """Keys [..., features, positions] as [batch, heads, positions, features], without turning them twice."""
    node, rank = graph.node(value), len(graph.type(value).dims)
    source = node.inputs[0] if node.inputs else None
    if node.op == "swap" and source is not None:
        a = OPS["swap"].fill(node.attributes)
        if {a.first % rank, a.second % rank} == {rank - 2, rank - 1}:
            return Operand(source, lifted(rank, scores_rank))
    left, _, right = lifted(rank, scores_rank).partition(" -> ")
    if node.op == "rearrange" and source is not None and scores_rank == 4 == rank:
        before, _, after = node.attributes["pattern"].partition("->")
        groups = re.findall(r"\([^)]*\)|\S+", after)
        if len(groups) == 4:
            pattern = f"{before.strip()} -> {' '.join((*groups[:2], groups[3], groups[2]))}"
            return Operand(source, pattern, tuple(dict(node.attributes.get("sizes") or ()).items()), node.name)
    own = (left or "b h s d").split()
    own[-2:] = own[-1], own[-2]
    return Operand(value, f"{' '.join(own)} -> {right or 'b h s d'}")


def _values(graph: Graph, product: Node, place: int, rank: int) -> tuple[Operand, str]:
    """The values, and the rearrangement from [batch, heads, queries, features] to the axes of the product."""
    value = product.inputs[1 - place]
    assert value is not None
    if product.op == "matmul":
        if len(product.type.dims) != rank:
            raise Mismatch(f"its result is {product.type}, and its scores have {rank} axes")
        return Operand(value, lifted(len(graph.type(value).dims), rank)), "" if rank == 4 else "b 1 s d -> b s d"
    operands, result = parse_einsum(product.attributes["pattern"])
    weights, names = operands[place], operands[1 - place]
    *batch, query, key = weights
    own = [name for name in names if name not in weights]
    if key in result or key not in names or query in names or len(own) != 1 or {*result} != {*batch, query, *own}:
        raise Mismatch(f'"{product.attributes["pattern"]}" is no product of its weights and values over the keys')
    given = [*batch, query, own[0]]
    if rank == 3:
        given.insert(1, "1")
    return _arranged(value, names, [*batch, key, own[0]]), "" if given == [
        *result
    ] else f"{' '.join(given)} -> {' '.join(result)}"
