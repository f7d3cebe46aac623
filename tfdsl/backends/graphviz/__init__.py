"""The architecture as a paper would draw it, through Graphviz."""

from __future__ import annotations

import os
from pathlib import Path

from tfdsl.backends.graphviz.compose import compose
from tfdsl.backends.graphviz.program import FORMATS, render
from tfdsl.backends.graphviz.text import write
from tfdsl.backends.graphviz.tidy import tidy
from tfdsl.files import atomic_file
from tfdsl.ir.graph import Graph
from tfdsl.language.diagnostics import did_you_mean, one

DEPTH = 2


def dot(graph: Graph, depth: int = DEPTH) -> str:
    """The drawing of a graph as text in the dot language.

    `depth` is how many levels are drawn: 1 shows loops and blocks as boxes, 2 what is in the loops, 3 also what is in
    the blocks, and so on. Raises `SpecError` for a depth below one.
    """
    if depth < 1:
        raise one("T734", f"a drawing has a depth of 1 or more, not {depth}")
    scene = compose(graph, depth)
    tidy(scene)
    return write(scene)


def draw(graph: Graph, path: str | os.PathLike[str], depth: int = DEPTH) -> None:
    """Draw a graph into a file: `.dot` always, `.svg`, `.png` and `.pdf` by means of the program `dot`.

    Raises `SpecError` for other endings, and where `dot` is missing or fails.
    """
    target = Path(path)
    ending = target.suffix.lower().removeprefix(".")
    if ending not in ("dot", *FORMATS):
        known = [f".{each}" for each in ("dot", *FORMATS)]
        help_ = did_you_mean(f".{ending}", known, f"a drawing is one of {', '.join(known)}")
        raise one("T731", f"`{target.name}` says nothing of a format that drawings have", help=help_)
    source = dot(graph, depth)
    with atomic_file(target) as temporary:
        if ending == "dot":
            temporary.write_text(source, encoding="utf-8", newline="\n")
        else:
            render(source, ending, temporary)


__all__ = ["dot", "draw"]
