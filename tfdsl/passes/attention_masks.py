"""What hides keys in attention written by hand, as a mask, as conditions or as biases; or why it is none of these.

Hidden scores are large negative numbers in most models, and `attend` takes them for minus infinity. That is the same
only where each query sees some key whose score is far above: it is proved here, or the attention stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tfdsl.ir import masks
from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Value
from tfdsl.passes.attention_scores import HIDDEN, Hiding, Mismatch, Scores
from tfdsl.passes.conditions import Condition, Conditions
from tfdsl.passes.constants import constant
from tfdsl.passes.regions import Region

# Ops whose results are as large as their operands: a large negative number is looked for through them.
_ELEMENTWISE = {"add", "sub", "mul", "div", "neg", "where", "cast", "maximum", "minimum"}
_SHAPE = {"rearrange", "swap", "expand", "slice", "select", "concat", "pad"}


@dataclass
class Visible:
    """What a query sees: a mask, conditions (each with whether it must be true), biases with factors; and notes."""

    mask: masks.Mask | None = None
    conditions: list[tuple[Value, bool]] = field(default_factory=list)
    biases: list[tuple[Value, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def visible(region: Region, scores: Scores, queries: Size, keys: Size) -> Visible:
    """What the scores of so many queries and keys hide. Raises `Mismatch` where `attend` may be something else."""
    hidings, found = _settled(region, scores, queries, keys)
    conditions = [leaf for each in hidings for leaf in _leaves(region, each.condition, each.seen)]
    terms, found.conditions = Conditions(region).as_masks(conditions)
    for term in terms:
        found.mask = term if found.mask is None else masks.Joined("&", found.mask, term)
    return found


def _settled(region: Region, scores: Scores, queries: Size, keys: Size) -> tuple[list[Hiding], Visible]:
    """What hides keys as a mask does, and the rest: a bias of large negative numbers may always stay a bias."""

    def sure(hidings: list[Hiding]) -> bool:
        conditions = [(each.condition, each.seen) for each in hidings]
        return Conditions(region).leave_every_query_a_key(conditions, queries, keys)

    far = any(_may_be_far_below(region, bias) for bias, _ in scores.biases)
    if sure(scores.hidings) and not far:
        return scores.hidings, Visible(biases=list(scores.biases))
    demoted = [(each.bias, each.factor) for each in scores.hidings if each.bias is not None]
    rest = [each for each in scores.hidings if each.bias is None]
    found = Visible(biases=[*scores.biases, *demoted])
    finite = [each.fill for each in rest if each.fill != -math.inf]
    if not finite:
        if not sure(rest):
            found.notes.append("a query that sees no key gives zeros, and no longer NaN")
        return rest, found
    if not sure(rest):
        raise Mismatch(
            f"a query that sees no key would get zeros from `attend`, and gets the mean of values by {finite[0]:g}; "
            "it cannot be shown that there is none"
        )
    if far or demoted:
        raise Mismatch(
            f"its bias may be as far below zero as the {finite[0]:g} that hides keys, "
            "and keys hidden by the one could then outweigh keys hidden by the other"
        )
    return rest, found


def _leaves(region: Region, condition: Value, seen: bool) -> list[Condition]:
    """The conditions of a region that all hold (or all do not) where a key is seen, each once."""
    waiting: list[Condition] = [(condition, seen)]
    found: dict[Condition, None] = {}
    known: set[Condition] = set()
    while waiting:
        each = value, holds = waiting.pop()
        node = region.graph.node(value)
        if each in known:
            continue
        known.add(each)
        if node.op == "negate" or node.op == ("both" if holds else "either"):
            holds = holds != (node.op == "negate")
            waiting += [(operand, holds) for operand in reversed(node.inputs) if operand is not None]
        else:
            found[each] = None
    return list(found)


def _may_be_far_below(region: Region, bias: Value) -> bool:
    """Whether a bias may hold large negative numbers: it is made with one, or an input of the model gives it."""
    waiting = [(region, bias)]
    seen: set[tuple[int, Value]] = set()
    while waiting:
        where, value = waiting.pop()
        where, value = where.origin(value)
        if (id(where.graph), value) in seen:
            continue
        seen.add((id(where.graph), value))
        node = where.graph.node(value)
        number = constant(where.graph, value)
        if isinstance(number, (int, float)) and abs(number) >= -HIDDEN:
            return True
        if node.op == "input" and node.type.dtype == "float":
            return True
        if node.op in _ELEMENTWISE or node.op in _SHAPE:
            waiting += [(where, each) for each in node.inputs if each is not None]
    return False
