"""What of a sequence attention with a window still needs: a state that slides, in the place of one that grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir import masks
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Value
from tfdsl.passes.incremental.causality import Causality
from tfdsl.passes.incremental.cuts import Reader


@dataclass
class Windows:
    """How many positions before the new ones each remembered value is needed of, by region; all for those not here."""

    lasts: dict[tuple[int, Value], int] = field(default_factory=dict)

    def kept(self, region: int, value: Value) -> dict[str, Any] | None:
        """The attributes of a state that slides, or None for one that grows."""
        last = self.lasts.get((region, value))
        return None if last is None else {"size": symbol(f"kept_{last}"), "last": last}


def window(mask: masks.Mask | None) -> int | None:
    """The size of the window that a causal mask keeps to, where it does."""
    if mask is None:
        return None
    if isinstance(mask, masks.Joined):
        known = [size for size in (window(mask.left), window(mask.right)) if size is not None]
        if mask.operator == "&":
            return min(known, default=None)
        return max(known) if len(known) == 2 else None
    return mask.arguments[0] if isinstance(mask, masks.Term) and mask.kind == "window" else None


def find(causality: Causality, needed: Mapping[Value, set[Reader]], cuts: set[Value]) -> dict[Value, int]:
    """The remembered values of a region that only attention with one window reads, directly, with what it needs of them."""
    found: dict[Value, int] = {}
    pairs: dict[int, list[Value]] = {}
    for value in cuts:
        sizes: set[int | None] = set()
        for node_id, place in needed.get(value, ()):
            reader = causality.graph.node(node_id)
            fits = reader.op == "attend" and place in (1, 2)
            sizes.add(window(reader.attributes.get("mask")) if fits else None)
            pairs.setdefault(node_id, []).append(value)
        if len(sizes) == 1 and (size := sizes.pop()) is not None and size > 1:
            found[value] = size - 1
    # Keys and values of one attention slide together or not at all.
    changed = True
    while changed:
        changed = False
        for node_id, values in pairs.items():
            reader = causality.graph.node(node_id)
            both = reader.op == "attend" and all(value in found for value in reader.inputs[1:3])
            for value in values:
                if not both and value in found:
                    del found[value]
                    changed = True
    return found
