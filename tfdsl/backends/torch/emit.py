"""The emitted file as a whole."""

from __future__ import annotations

from pathlib import PurePath

from tfdsl.backends.torch.classes import Program
from tfdsl.backends.torch.helpers import HELPERS
from tfdsl.backends.torch.names import class_name
from tfdsl.ir.graph import Graph


def emit(graph: Graph) -> str:
    """Readable stand-alone PyTorch source of a graph: the model's class is the last one, and imports nothing of ours."""
    program = Program(graph)
    program.class_for("", class_name(graph.name))
    parts = [_header(graph, program)]
    parts += [HELPERS[name].strip() + "\n" for name in program.helpers if HELPERS[name]]
    parts += [function.text for function in program.functions]
    parts += [f"class {each.name}(nn.Module):\n{each.body}" for each in program.classes]
    return "\n\n".join(part.rstrip("\n") + "\n" for part in parts)


def _header(graph: Graph, program: Program) -> str:
    span = graph.frame.span if graph.frame else None
    origin = f", generated from {PurePath(span.source.name).name}" if span else ""
    body = "\n".join([*(f.text for f in program.functions), *(c.body for c in program.classes)])
    helpers = "\n".join(HELPERS[name] for name in program.helpers)
    lines = [f'"""{graph.name}{origin}. It is yours: train it, change it, ship it."""', ""]
    if "math." in body:
        lines += ["import math", ""]
    lines += ["import torch"]
    if "F." in body or "F." in helpers:
        lines.append("import torch.nn.functional as F")
    lines.append("from torch import Tensor, nn")
    if "checkpoint" in program.helpers:
        lines.append("from torch.utils.checkpoint import checkpoint")
    return "\n".join(lines) + "\n"
