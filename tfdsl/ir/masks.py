"""Masks as values: what a query at one position may look at, said symbolically and never as a dense tensor.

A mask is a tree of terms joined by `&`, `|` and `not`. A term relates a query position `q` and a key position `k`.
Terms that depend on data (`padding(keep)`) refer to an operand of the `attend` node by its place among the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Union


@dataclass(frozen=True)
class Kind:
    """A mask constructor: its arguments, the operand it reads (if any), and what it allows.

    `each` is for one whose only argument may also be an operand: a tensor [batch] in the place of a number.
    """

    name: str
    summary: str
    arguments: tuple[str, ...] = ()
    operand: str | None = None
    each: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("full", "every query sees every key"),
        Kind("causal", "k <= q"),
        Kind("window", "abs(q - k) < size", ("size",)),
        Kind("strided", "(q - k) % step == 0", ("step",)),
        Kind("blocks", "q // size == k // size", ("size",)),
        Kind("global_tokens", "q < count or k < count", ("count",)),
        Kind(
            "random_blocks",
            "k // size is among the `count` blocks that a hash of q // size and `seed` gives",
            ("count", "size", "seed"),
        ),
        Kind("prefix", "k < count, where count is a number or an int tensor [batch]", ("count",), each=True),
        Kind("padding", "keep[batch, k]: keys that are real", (), "keep"),
        Kind("documents", "ids[batch, q] == ids[batch, k]", (), "ids"),
    )
}


@dataclass(frozen=True)
class Term:
    """One constructor with its numbers; `operand` counts among the mask operands of the node."""

    kind: str
    arguments: tuple[int, ...] = ()
    operand: int | None = None

    def __str__(self) -> str:
        inside = [str(argument) for argument in self.arguments]
        if self.operand is not None:
            inside.append(f"${self.operand}")
        return f"{self.kind}({', '.join(inside)})" if inside else self.kind


@dataclass(frozen=True)
class Joined:
    """`left & right` or `left | right`."""

    operator: str
    left: Mask
    right: Mask

    def __str__(self) -> str:
        sides = [
            f"({side})" if isinstance(side, Joined) and side.operator != self.operator else str(side)
            for side in (self.left, self.right)
        ]
        return f" {self.operator} ".join(sides)


@dataclass(frozen=True)
class Negated:
    inner: Mask

    def __str__(self) -> str:
        return f"not ({self.inner})" if isinstance(self.inner, Joined) else f"not {self.inner}"


Mask = Union[Term, Joined, Negated]
FULL = Term("full")
CAUSAL = Term("causal")


def terms(mask: Mask) -> Iterator[Term]:
    """The terms of a mask, left to right."""
    if isinstance(mask, Term):
        yield mask
    elif isinstance(mask, Joined):
        yield from terms(mask.left)
        yield from terms(mask.right)
    else:
        yield from terms(mask.inner)


def transform(mask: Mask, change: Callable[[Term], Mask]) -> Mask:
    """The mask with every term changed."""
    if isinstance(mask, Term):
        return change(mask)
    if isinstance(mask, Joined):
        return Joined(mask.operator, transform(mask.left, change), transform(mask.right, change))
    return Negated(transform(mask.inner, change))


def shift_operands(mask: Mask, by: int) -> Mask:
    """The mask with its operands counted from `by` on."""
    return transform(mask, lambda t: t if t.operand is None else replace(t, operand=t.operand + by))


def simplify(mask: Mask) -> Mask:
    """The mask without `full` where that changes nothing."""
    if isinstance(mask, Negated):
        inner = simplify(mask.inner)
        return inner.inner if isinstance(inner, Negated) else Negated(inner)
    if isinstance(mask, Joined):
        left, right = simplify(mask.left), simplify(mask.right)
        if left == right:
            return left
        for one, other in ((left, right), (right, left)):
            if one == FULL:
                return other if mask.operator == "&" else FULL
        return Joined(mask.operator, left, right)
    return mask


def evaluate(mask: Mask, q: Any, k: Any, term: Callable[[Term, Any, Any], Any]) -> Any:
    """The mask over positions `q` and `k` of any array-like kind; `term` handles the terms that read operands."""
    if isinstance(mask, Joined):
        left, right = evaluate(mask.left, q, k, term), evaluate(mask.right, q, k, term)
        return left & right if mask.operator == "&" else left | right
    if isinstance(mask, Negated):
        return ~evaluate(mask.inner, q, k, term)
    if mask.operand is not None:
        return term(mask, q, k)
    return RELATIONS[mask.kind](q, k, *mask.arguments)


RANDOM_PRIME = 46_337  # its square is below 2**31: some runtimes compute whole numbers in 32 bits


def random_block(block: Any, place: int, seed: int, blocks: Any) -> Any:
    """The number of a key block, out of `blocks`, that a block of queries sees as one of its random ones."""
    first, second = random_offsets(place, seed)
    mixed = (block % RANDOM_PRIME * RANDOM_FACTORS[0] + first) % RANDOM_PRIME
    mixed = (mixed * mixed % RANDOM_PRIME * RANDOM_FACTORS[1] + second) % RANDOM_PRIME
    return mixed * mixed % RANDOM_PRIME % blocks


RANDOM_FACTORS = (31_607, 17_389)


def random_offsets(place: int, seed: int) -> tuple[int, int]:
    """Two numbers below the prime that tell the random blocks of one query block, and those of other seeds, apart."""
    return (seed * 40_503 + place * 12_289 + 1) % RANDOM_PRIME, (seed * 9973 + place * 28_657 + 2) % RANDOM_PRIME


def _random_blocks(q: Any, k: Any, count: int, size: int, seed: int) -> Any:
    blocks = -(-k.shape[-1] // size)
    seen = (q < 0) & (k < 0)
    for place in range(count):
        seen = seen | (k // size == random_block(q // size, place, seed, blocks))
    return seen


# The terms without operands, over integer arrays that broadcast. Backends that have no arrays to hand build the same
# relations out of graph nodes, by `tfdsl/passes/lower_masks.py`.
RELATIONS: dict[str, Callable[..., Any]] = {
    "full": lambda q, k: (q == q) & (k == k),
    "causal": lambda q, k: k <= q,
    "window": lambda q, k, size: (q - k < size) & (k - q < size),
    "strided": lambda q, k, step: (q - k) % step == 0,
    "blocks": lambda q, k, size: q // size == k // size,
    "global_tokens": lambda q, k, count: (q < count) | (k < count),
    "random_blocks": _random_blocks,
    "prefix": lambda q, k, count: (q == q) & (k < count),
}


def may_hide_all(mask: Mask) -> bool:
    """Whether some query may see no key at all (its attention is then zero, by definition)."""
    if isinstance(mask, Negated):
        return True
    if isinstance(mask, Joined):
        if mask.operator == "|":
            return may_hide_all(mask.left) and may_hide_all(mask.right)
        return any(may_hide_all(side) for side in (mask.left, mask.right)) or not (
            _sees_itself(mask.left) and _sees_itself(mask.right)
        )
    sees_some = mask.operand is None and mask.kind in ("prefix", "random_blocks")
    return not _sees_itself(mask) and not sees_some


def _sees_itself(mask: Mask) -> bool:
    """Whether every query sees the key of its own position (true of self-attention only)."""
    if isinstance(mask, Joined):
        sides = _sees_itself(mask.left), _sees_itself(mask.right)
        return all(sides) if mask.operator == "&" else any(sides)
    return isinstance(mask, Term) and mask.kind in ("full", "causal", "window", "strided", "blocks")
