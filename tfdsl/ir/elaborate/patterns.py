"""Patterns of weight paths in `initialize`: `h.*.attn.c_proj.weight`, where `*` is one part and `**` any number."""

from __future__ import annotations

import re
from functools import lru_cache

from tfdsl.ir.elaborate.values import Fault
from tfdsl.ir.graph import Graph, Initializer
from tfdsl.language import syntax
from tfdsl.language.diagnostics import did_you_mean


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for a path pattern, which also matches whatever lies below what it names."""
    parts = [r".*" if part == "**" else r"[^.]*" if part == "*" else re.escape(part) for part in pattern.split(".")]
    return re.compile(r"\.".join(parts).replace(r".*\.", r"(?:.*\.)?") + r"(?:\..*)?\Z")


def reinitialize(graph: Graph, path: str, pattern: syntax.String, value: Initializer) -> None:
    """Give the weights below `path` that match a pattern another initialiser."""
    expression = compile_pattern(pattern.value)
    below: list[str] = []
    matched = False
    for region in graph.regions():
        for node in region.nodes():
            if node.op != "weight":
                continue
            full = node.attributes["path"]
            if path and not full.startswith(path + "."):
                continue
            short = full[len(path) + 1 :] if path else full
            below.append(short)
            if expression.match(short):
                matched = True
                node.attributes["init"] = value
    if not matched:
        help_ = did_you_mean(pattern.value, below, "`tfm show` lists the paths of all weights")
        raise Fault("T502", f'no weight matches "{pattern.value}"', pattern.span, help=help_)
