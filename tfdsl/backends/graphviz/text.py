"""A scene as text in the dot language."""

from __future__ import annotations

import html
from collections.abc import Iterator

from tfdsl.backends.graphviz.scene import Box, Cluster, Edge, Scene
from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Type

COLOURS = {
    "attention": "#fbe0bd",
    "feed_forward": "#cbe4f6",
    "norm": "#f7f2c4",
    "embedding": "#f9dbdc",
    "linear": "#dddff2",
    "activation": "#d0e9d4",
    "parameter": "#f4e3ec",
    "plain": "#ededed",
}
FONT = "Helvetica,Arial,sans-serif"
_LINE, _FAINT, _SMALL = "#4a4a4a", "#666666", 9
_LONGEST = 48

_DEFAULTS = (
    f'graph [rankdir=BT, fontname="{FONT}", fontsize=13, nodesep=0.4, ranksep=0.3, pad=0.2, labelloc=b]',
    f'node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=12, color="{_LINE}", margin="0.14,0.05", height=0.3]',
    f'edge [fontname="{FONT}", fontsize={_SMALL}, color="{_LINE}", fontcolor="{_FAINT}", arrowsize=0.6]',
)


def write(scene: Scene) -> str:
    """The dot source of a scene, drawn from the bottom to the top."""
    boxes = {box.id: box for box in scene.root.boxes()}
    lines = [f"digraph {_quote(scene.name)} {{", *(f"  {line};" for line in _DEFAULTS)]
    lines.append(f"  label={_label(scene.name, scene.root.details, strong=True)};")
    lines += _children(scene.root, "  ", iter(range(len(boxes))))
    lines += (f"  {_edge(edge, boxes)};" for edge in scene.edges)
    inputs = [f"n{box.id}" for box in boxes.values() if box.kind == "input"]
    if len(inputs) > 1:
        lines.append(f"  {{ rank=min; {'; '.join(inputs)} }}")
    for first, second in scene.ties:
        lines.append(f'  n{first} -> n{second} [style=dashed, arrowhead=none, constraint=false, color="#9a9a9a"];')
    return "\n".join([*lines, "}"]) + "\n"


def _children(cluster: Cluster, indent: str, numbers: Iterator[int]) -> list[str]:
    lines = []
    for child in cluster.children:
        if isinstance(child, Box):
            lines.append(f"{indent}n{child.id} [{_box(child)}];")
            continue
        lines.append(f"{indent}subgraph cluster_{next(numbers)} {{")
        looks = '; style="rounded,filled"; color="#9a9a9a"; fillcolor="#00000008"; labeljust=r; labelloc=b; margin=12'
        title = child.title + (f" × {child.count}" if child.count is not None else "")
        lines.append(f"{indent}  label={_label(title.strip(), child.details, strong=child.count is None)}{looks};")
        lines += _children(child, indent + "  ", numbers)
        lines.append(f"{indent}}}")
    return lines


def _box(box: Box) -> str:
    if box.shape == "point":
        return f'shape=point, width=0.04, color="{_LINE}"'
    if box.shape == "circle":
        return f"shape=circle, label={_quote(box.title)}, width=0.25, fixedsize=true, margin=0, fontsize=14, fillcolor=white"
    if box.shape == "text":
        title = f"<i>{_escape(box.title)}</i>" if box.kind == "table" else _escape(box.title)
        return f'shape=plaintext, style="", margin="0.05,0.03", height=0.2, label=<{title}>'
    return f'label={_label(box.title, box.details, box.strong)}, fillcolor="{COLOURS[box.kind]}"'


def _edge(edge: Edge, boxes: dict[int, Box]) -> str:
    ends = f"n{edge.source} -> n{edge.target}"
    settings = []
    if edge.skip:
        ends = f"n{edge.source}:e -> n{edge.target}:e"
        settings.append("weight=0")
    elif boxes[edge.source].kind != "table":
        settings.append("weight=8")
    if boxes[edge.target].shape == "point":
        settings.append("arrowhead=none")
    if edge.labelled:
        settings.append(f"label={_quote(_edge_label(edge))}")
    elif edge.names:
        settings.append(f"label={_quote(' ' + ', '.join(map(_clean, edge.names)))}")
    return f"{ends} [{', '.join(settings)}]" if settings else ends


def _edge_label(edge: Edge) -> str:
    names = ", ".join(map(_clean, edge.names))
    return f" {names}: {shape(edge.type)}" if names else f" {shape(edge.type)}"


def shape(type_: Type) -> str:
    """A shape as papers write it: `batch × seq × 768`."""
    return " × ".join(map(_size, type_.dims)) or "1"


def _size(size: Size) -> str:
    text = str(size)
    return f"({text})" if isinstance(size, Dim) and " " in text else text


def _label(title: str, details: list[str], strong: bool = False) -> str:
    """A title and, in small below it, the rest."""
    head = f"<b>{_escape(title)}</b>" if strong else _escape(title)
    rest = _escape(" · ".join(details))
    below = f'<font point-size="{_SMALL}" color="{_FAINT}">{rest}</font>' if rest else ""
    return f"<{'<br/>'.join(filter(None, (head, below)))}>" if head or below else '""'


def _clean(text: str) -> str:
    """Text without what cannot be printed, and not too long for a box."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _escape(text: str) -> str:
    return html.escape(_clean(text))


def _quote(text: str) -> str:
    escaped = _clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
