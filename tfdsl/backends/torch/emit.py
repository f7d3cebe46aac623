"""The emitted file as a whole."""

from __future__ import annotations

import textwrap
from pathlib import PurePath

from tfdsl.backends.torch.classes import Classes
from tfdsl.backends.torch.helpers import HELPERS
from tfdsl.backends.torch.layout import WIDEST, split
from tfdsl.backends.torch.names import class_name
from tfdsl.backends.torch.program import Program
from tfdsl.ir.graph import Graph

WIDEST_TITLE = 50


def emit(graph: Graph) -> str:
    """Readable stand-alone PyTorch source of a graph: the model's class is the last one, and imports nothing of ours."""
    return emit_named(graph)[0]


def emit_named(graph: Graph) -> tuple[str, str]:
    """The source, and the name of the model's class in it."""
    program = Program(graph)
    program.method(program.root)
    classes = Classes(program)
    root = classes.at("", class_name(graph.name))
    parts = [HELPERS[name].strip() for name in program.helpers if HELPERS[name]]
    parts[:0] = ["\n\n".join(_table(name, text) for text, name in program.tables.items())] if program.tables else []
    parts += ["\n".join([*_with_head(each.lines, each.head)]) for each in program.functions]
    parts += ["\n".join([f"class {each.name}(nn.Module):", *each.head, "", *each.lines]) for each in classes.written]
    return "\n\n\n".join([_header(graph, program, "\n".join(parts)), *parts]) + "\n", root.name


def _table(name: str, text: str) -> str:
    """A table at the top of the file: its numbers fill lines, and each list in it begins one."""
    if len(name) + len(text) + 3 <= WIDEST:
        return f"{name} = {text}"
    lines = [f"{name} = ["]
    for row in split(text[1:-1]) if text.startswith("[[") else [text[1:-1]]:
        lines += textwrap.wrap(f"{row},", WIDEST, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "]"])


def _with_head(lines: list[str], head: list[str]) -> list[str]:
    """A function with its docstring behind its signature."""
    start = next(at for at, line in enumerate(lines) if line.endswith(":")) + 1
    return [*lines[:start], *head, *lines[start:]]


def _header(graph: Graph, program: Program, body: str) -> str:
    span = graph.frame.span if graph.frame else None
    origin = f", generated from {PurePath(span.source.name).name}" if span else ""
    between = " " if len(graph.name + origin) < WIDEST_TITLE else "\n\n"
    lines = [f'"""{graph.name}{origin}.{between}It is yours: train it, change it, ship it.', '"""', ""]
    if between == " ":
        lines[:2] = [f'{lines[0]}"""']
    if "math." in body:
        lines += ["import math", ""]
    if "Callable" in program.helpers:
        lines += ["from collections.abc import Callable", ""]
    lines.append("import torch")
    if "F." in body:
        lines.append("import torch.nn.functional as F")
    lines.append("from torch import Tensor, nn")
    if "checkpoint" in program.helpers:
        lines.append("from torch.utils.checkpoint import checkpoint")
    return "\n".join(lines)
