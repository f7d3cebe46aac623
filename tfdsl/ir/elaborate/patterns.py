"""Patterns of weight paths in `initialize`: `h.*.attn.c_proj.weight`, where `*` is one part and `**` any number."""

from __future__ import annotations

import re
from functools import lru_cache

from tfdsl.ir.elaborate.values import Fault, Place
from tfdsl.ir.graph import Graph, Initializer, Spelling
from tfdsl.language import syntax
from tfdsl.language.diagnostics import did_you_mean


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for a path pattern, which also matches whatever lies below what it names."""
    parts = [r".*" if part == "**" else r"[^.]*" if part == "*" else re.escape(part) for part in pattern.split(".")]
    return re.compile(r"\.".join(parts).replace(r".*\.", r"(?:.*\.)?") + r"(?:\..*)?\Z")


def reinitialize(
    graph: Graph, place: Place, pattern: syntax.String, value: Initializer, spelling: Spelling | None
) -> None:
    """Give the weights below a place that match a pattern another initialiser; `spelling` is how its number is written.

    A pattern that matches nothing is a fault, unless it ends with `?`.
    """
    expression = compile_pattern(pattern.value.removesuffix("?"))
    below: list[str] = []
    matched = False
    for region in graph.regions():
        for node in region.nodes():
            if node.op != "weight":
                continue
            short = _below(place, node.attributes["path"])
            if short is None:
                continue
            below.append(short)
            if expression.match(short):
                matched = True
                node.attributes["init"] = value
                node.spelled.pop("init", None)
                if spelling is not None:
                    node.spelled["init"] = spelling
    if not matched and not pattern.value.endswith("?"):
        help_ = did_you_mean(pattern.value, below, "`tfm show` lists the paths of all weights")
        raise Fault("T502", f'no weight matches "{pattern.value}"', pattern.span, help=help_)
    _remember(place, place, expression, value)


def number_of(made: syntax.Expression | None) -> syntax.Expression | None:
    """The number of an initialiser that is written out: the `0.02` of `normal(0.02)`."""
    arguments = made.arguments if isinstance(made, syntax.Call) else ()
    return arguments[0].value if len(arguments) == 1 else None


def _below(place: Place, path: str) -> str | None:
    """A weight's path as seen from a place, if it is below it."""
    if not place.path:
        return path
    return path[len(place.path) + 1 :] if path.startswith(place.path + ".") else None


def _remember(top: Place, place: Place, expression: re.Pattern[str], value: Initializer) -> None:
    """Enter the initialiser at the places, for those who name the weights later."""
    for name, (type_, _, span) in place.weights.items():
        if expression.match(_below(top, place.join(name)) or ""):
            place.weights[name] = (type_, value, span)
    for places in place.children.values():
        for child in places:
            _remember(top, child, expression, value)
