"""Tables that a checkpoint stores and a model computes, sinusoids for instance: what is stored must be what is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfdsl.checkpoints.names import Pattern
from tfdsl.ir.elaborate import elaborate
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Source, Span
from tfdsl.language.modules import Declared, Module
from tfdsl.language.parser import parse
from tfdsl.language.printer import print_expression

if TYPE_CHECKING:
    from tfdsl.checkpoints.folder import Folder

MOST_ELEMENTS = 2**24
# Published tables were worked out in float32, of which angles of a thousand turns lose digits, and may be stored shorter.
_TOLERANCES = {"F64": 2e-3, "F32": 2e-3, "F16": 2e-3, "BF16": 1e-2}


@dataclass(frozen=True)
class Computed:
    """A table [positions, features] of theirs that a block makes of a sequence of that length and width."""

    theirs: Pattern
    block: syntax.Expression  # as the mapping names it, with settings or without
    module: Module
    span: Span


def check_computed(folder: Folder, tables: list[Computed], faults: Collector) -> None:
    """Note every table of a folder that holds something else than its block computes. Raises `SpecError` for a faulty block."""
    for table in tables:
        for name in folder:
            if table.theirs.match(name) is not None and not _agrees(folder, name, table):
                message = f"`{name}` is not what `{print_expression(table.block)}` computes"
                help_ = "the model computes this table, and cannot be given another"
                faults.add(Diagnostic("T814", message, table.span, help=help_))


def _agrees(folder: Folder, name: str, table: Computed) -> bool:
    import numpy as np

    from tfdsl.backends.reference import run
    from tfdsl.weights.elements import as_float

    entry = folder.entry(name)
    if len(entry.shape) != 2 or entry.dtype not in _TOLERANCES or not 0 < math.prod(entry.shape) <= MOST_ELEMENTS:
        return False
    rows, columns = entry.shape
    applied = f"x |> {print_expression(table.block)}"
    text = f"model Table(x: [1, {rows}, {columns}]) -> table: [{rows}, {columns}] {{\n  return {applied}\n}}\n"
    (block,) = parse(Source(f"{name} of {folder.path}", text)).items
    assert isinstance(block, syntax.Block)
    graph = elaborate(Declared(block, table.module)).graph
    wanted = run(graph, {}, {"x": np.zeros((1, rows, columns))})["table"]
    found = as_float(folder.raw(name), entry.dtype)
    return bool(np.allclose(found, wanted, rtol=0, atol=_TOLERANCES[entry.dtype]))
