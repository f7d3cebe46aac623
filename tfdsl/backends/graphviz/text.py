"""A scene as text in the dot language."""

from __future__ import annotations

import html
from collections.abc import Iterator

from tfdsl.backends.graphviz.scene import Box, Cluster, Edge, Scene
from tfdsl.backends.graphviz.tidy import locate
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
_WIDTH_OF_A_LETTER, _WIDTH_OF_A_SMALL_LETTER = 7.0, 4.8  # in points, on average

_CLUSTER = 'style="rounded,filled"; color="#9a9a9a"; fillcolor="#00000008"; labeljust=r; labelloc=b; margin=12'
_TIE = 'n{} -> n{} [style=dashed, arrowhead=none, weight=0, minlen=0, color="#9a9a9a"]'
_DEFAULTS = (
    f'graph [rankdir=BT, fontname="{FONT}", fontsize=13, nodesep=0.4, ranksep=0.22, pad=0.2, labelloc=b]',
    f'node [shape=box, style="rounded,filled", color="{_LINE}", margin="0.14,0.05", height=0.3, '
    f'fontname="{FONT}", fontsize=12]',
    f'edge [color="{_LINE}", arrowsize=0.6]',
)


def write(scene: Scene) -> str:
    """The dot source of a scene, drawn from the bottom to the top."""
    return "\n".join(_Writer(scene).lines()) + "\n"


class _Writer:
    """The scene with its edges sorted into the clusters that hold both of their ends.

    An edge that stands outside the clusters of its ends would be led around them.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.boxes = {box.id: box for box in scene.root.boxes()}
        self.clusters = 0
        self.around = locate(scene.root)
        self.edges: dict[Cluster, list[str]] = {}
        for number, edge in enumerate(scene.edges):
            for line in _edge(edge, number, self.boxes):
                self._place(edge.source, edge.target, line)
        for first, second in scene.ties:
            self._place(first, second, _TIE.format(first, second))

    def lines(self) -> list[str]:
        """The whole source, line by line."""
        root = self.scene.root
        lines = [f"digraph {_quote(self.scene.name)} {{", *(f"  {line};" for line in _DEFAULTS)]
        lines.append(f"  label={_label(self.scene.name, root.details, strong=True)};")
        for kind, rank in (("input", "min"), ("output", "max")):
            names = [f"n{box.id}" for box in self.boxes.values() if box.kind == kind]
            if len(names) > 1:
                lines.append(f"  {{ rank={rank}; {'; '.join(names)} }}")
        return [*lines, *self._inside(root, "  "), "}"]

    def _place(self, first: int, second: int, line: str) -> None:
        common = [a for a, b in zip(self.around[first], self.around[second], strict=False) if a is b]
        self.edges.setdefault(common[-1] if common else self.scene.root, []).append(line)

    def _inside(self, cluster: Cluster, indent: str) -> Iterator[str]:
        for child in cluster.children:
            if isinstance(child, Box):
                yield f"{indent}n{child.id} [{_box(child)}];"
                continue
            yield f"{indent}subgraph cluster_{self.clusters} {{"
            self.clusters += 1
            yield f"{indent}  label={_corner(child)}; {_CLUSTER};"
            yield from self._inside(child, indent + "  ")
            yield f"{indent}}}"
        yield from (f"{indent}{line};" for line in self.edges.get(cluster, ()))


def _box(box: Box) -> str:
    return _look(box) + _column(box.group)


def _look(box: Box) -> str:
    if box.shape == "point":
        return f'shape=point, width=0.04, color="{_LINE}"'
    if box.shape == "circle":
        size = "width=0.25, fixedsize=true, margin=0, fontsize=14"
        return f"shape=circle, label={_quote(box.title)}, {size}, fillcolor=white"
    if box.shape == "text":
        text = _escape(box.title) or " "
        title = f"<i>{text}</i>" if box.kind == "table" else text
        return f'shape=plaintext, style="", margin="0.05,0.03", height=0.2, label=<{title}>'
    return f'label={_label(box.title, box.details, box.strong)}, fillcolor="{COLOURS[box.kind]}"'


def _edge(edge: Edge, number: int, boxes: dict[int, Box]) -> list[str]:
    """The lines of an edge. A label is a node of its own on the line: beside the line, it would bend it."""
    source, target = f"n{edge.source}", f"n{edge.target}"
    pull = ["weight=20"] if edge.trunk else []
    head = ["arrowhead=none"] if boxes[edge.target].shape == "point" else []
    if edge.skip:
        return [f"{source}:e -> {target}:e [{', '.join(['weight=0', *head])}]"]
    label = _edge_label(edge)
    if not label:
        return [f"{source} -> {target}" + _settings(pull + head)]
    column = boxes[edge.source].group if edge.trunk else None
    look = f'shape=plaintext, style="", margin="0.02,0", height=0.15, fontsize={_SMALL}, fontcolor="{_FAINT}"'
    return [
        f"e{number} [{look}, label={_quote(label)}{_column(column)}]",
        f"{source} -> e{number}" + _settings([*pull, "arrowhead=none"]),
        f"e{number} -> {target}" + _settings(pull + head),
    ]


def _settings(settings: list[str]) -> str:
    return f" [{', '.join(settings)}]" if settings else ""


def _column(group: int | None) -> str:
    return "" if group is None else f", group=g{group}"


def _edge_label(edge: Edge) -> str:
    names = ", ".join(map(_clean, edge.names))
    if not edge.labelled:
        return names
    return f"{names}: {shape(edge.type)}" if names else shape(edge.type)


def shape(type_: Type) -> str:
    """A shape as papers write it: `batch × seq × 768`."""
    return " × ".join(map(_size, type_.dims)) or "1"


def _size(size: Size) -> str:
    text = str(size)
    return f"({text})" if isinstance(size, Dim) and " " in text else text


def _label(title: str, details: list[str], strong: bool = False) -> str:
    """A title and, in small below it, the rest."""
    head = f"<b>{_escape(title)}</b>" if strong and title else _escape(title)
    rest = _escape(" · ".join(details))
    below = f'<font point-size="{_SMALL}" color="{_FAINT}">{rest}</font>' if rest else ""
    return f"<{'<br/>'.join(filter(None, (head, below)))}>" if head or below else '""'


def _corner(cluster: Cluster) -> str:
    """The label of a cluster, in its right half only: the line through the middle must not cross it."""
    title = cluster.title if cluster.count is None else f"{cluster.title} × {cluster.count}".strip()
    label = _label(title, cluster.details, strong=cluster.count is None)
    if not label.startswith("<"):
        return label
    width = round(max(len(title) * _WIDTH_OF_A_LETTER, len(" · ".join(cluster.details)) * _WIDTH_OF_A_SMALL_LETTER))
    cells = f'<tr><td width="{width}"></td><td>{label[1:-1]}</td></tr>'
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0">{cells}</table>>'


def _clean(text: str) -> str:
    """Text without what cannot be printed, and not too long for a box."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _escape(text: str) -> str:
    return html.escape(_clean(text))


def _quote(text: str) -> str:
    escaped = _clean(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
