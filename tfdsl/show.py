"""What `tfm show` prints: a model's parameters with their origins, its inputs and outputs, and its weights."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from tfdsl.ir.elaborate.values import Instance, Layer, MaskValue
from tfdsl.ir.graph import Graph, weights
from tfdsl.language.diagnostics import Span
from tfdsl.model import Model

LONGEST = 120  # characters of a value
Box = tuple[tuple[int, ...], ...]


def describe(model: Model) -> str:
    """A model in full, as text of four tables."""
    graph = model.graph
    parts = [
        f"model {model.name}",
        _table("parameters", _parameters(model.parameters)),
        _table("inputs", [(name, str(type_)) for name, type_ in _inputs(graph)]),
        _table("outputs", [(name, str(graph.type(value))) for name, value in graph.outputs]),
        _table("requires", _constraints(graph)),
        _table("weights", _weights(graph)),
    ]
    return "\n\n".join(part for part in parts if part)


def _parameters(parameters: Any) -> Iterable[tuple[str, str, str]]:
    for name, value in parameters.items():
        origin, span = parameters.origins[name]
        yield name, _spell(value, span), f"{origin}{_at(span)}"


def _at(span: Span | None) -> str:
    return f" ({span})" if span is not None and not span.source.name.startswith("--set") else ""


def _spell(value: Any, span: Span | None) -> str:
    """A value as the language writes it; a layer or a mask as it was written."""
    if isinstance(value, (Layer, Instance, MaskValue)) and span is not None:
        return _cut(re.sub(r"([(\[])\s+", r"\1", span.text))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return _cut(f"[{', '.join(_spell(item, span) for item in value)}]")
    return "none" if value is None else f"{value:_}" if isinstance(value, int) else str(value)


def _cut(text: str) -> str:
    """A text on one line; of a long one its beginning."""
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


def _inputs(graph: Graph) -> Iterable[tuple[str, Any]]:
    for place in graph.inputs:
        node = graph.node(place)
        yield node.attributes["name"], node.type


def _constraints(graph: Graph) -> Iterable[tuple[str, str]]:
    return [(f"{each.left} {each.operator} {each.right}", each.why) for each in graph.constraints]


def _weights(graph: Graph) -> list[tuple[str, ...]]:
    """Each weight once; those of a loop in one row, with the indices that they have."""
    rows: list[tuple[str, ...]] = []
    sizes: dict[str, int] = {}
    for weight in weights(graph):
        sizes |= dict.fromkeys(weight.paths(), math.prod(dim for dim in weight.type.dims if isinstance(dim, int)))
        for box in _merged(weight.boxes):
            path = weight.path
            for indices in box:
                path = path.replace("*", _ranges(indices), 1)
            times = f"x {math.prod(map(len, box))}" if box else ""
            rows.append((path, str(weight.type), times, str(weight.initializer)))
    rows.append(("in all", f"{sum(sizes.values()):,}", "", ""))
    return rows


def _merged(boxes: tuple[Box, ...]) -> Iterable[Box]:
    """The index ranges of a weight's uses; those in one loop, by bodies that take turns, are one range."""
    if all(len(box) == 1 for box in boxes):
        return [(tuple(index for (indices,) in boxes for index in indices),)]
    return boxes


def _ranges(indices: Sequence[int]) -> str:
    """Loop indices in short: `{0-3,7}`, or `3` for one alone."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if len(indices) == 1 else f"{{{text}}}"


def _table(title: str, rows: Iterable[Sequence[str]]) -> str:
    """Rows under a title, their columns aligned; nothing for no rows."""
    rows = list(rows)
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{title}:", *(f"  {line}" for line in lines)])
