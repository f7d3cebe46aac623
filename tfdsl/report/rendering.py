"""A report as text, facts first and then the tree of blocks: plain, or in colour by way of `rich`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tfdsl.report.blocks import Block
from tfdsl.report.quantities import short_bytes, short_operations
from tfdsl.report.result import Report

if TYPE_CHECKING:
    from rich.console import RenderableType

_LEAST_SHARE = 0.0005  # of the operations; below it, a block without weights is not worth a row
_HEADS = ("block", "copies", "parameters", "each", "FLOPs", "share")


def facts(report: Report) -> list[tuple[str, str]]:
    """What the report says of the whole model, as names and values."""
    kinds = ", ".join(f"{name} {_share(number, report.flops)}" for name, number in report.flops_by_kind.items())
    found = [
        ("parameters", f"{report.parameters:,}"),
        ("weights", f"{short_bytes(report.bytes)} ({report.bytes:,} bytes) at {report.dtype}"),
        ("sizes", ", ".join(f"{name} = {number}" for name, number in report.sizes.items()) or "all known"),
        ("forward pass", f"{short_operations(report.flops)}FLOP ({kinds})"),
    ]
    if report.formula is not None and report.sizes:
        found.append(("for any size", re.sub(r"\d{4,}", lambda digits: f"{int(digits[0]):,}", report.formula)))
    if report.largest is not None:
        shape = " x ".join(map(str, report.largest.shape))
        found.append(("largest value", f"{report.largest.name} [{shape}], {report.largest.elements:,} elements"))
    if report.trainable != report.parameters:
        found.insert(1, ("trainable", f"{report.trainable:,}"))
    if report.zeros:
        found.insert(1, ("zeros", f"{report.zeros:,} ({_share(report.zeros, report.parameters)})"))
    return found


def rows(report: Report) -> list[tuple[str, ...]]:
    """The tree of blocks as rows of a table, the whole model last."""
    table = []
    above: list[int | None] = [1]
    for depth, block in report.blocks.walk():
        if not block.parameters and block.flops < _LEAST_SHARE * report.flops:
            continue
        del above[depth + 1 :]
        table.append(_row(block, depth, above[-1], report))
        above.append(block.copies if block.copies is not None else above[-1])
    share = _share(report.flops, report.flops)
    table.append((report.model, "", f"{report.parameters:,}", "", short_operations(report.flops).strip(), share))
    return table


def _row(block: Block, depth: int, above: int | None, report: Report) -> tuple[str, ...]:
    copies, each = block.copies, block.parameters_each
    repeated = copies is not None and copies != above
    many = copies is not None and copies != 1
    return (
        "  " * depth + block.name,
        f"x {copies}" if repeated else "",
        f"{block.parameters:,}" if block.parameters else "",
        ("varies" if each is None else f"{each:,}") if many else "",
        short_operations(block.flops) if block.flops else "",
        _share(block.flops, report.flops) if block.flops else "",
    )


def as_text(report: Report) -> str:
    """The report as plain text."""
    known = facts(report)
    width = max(len(name) for name, _ in known)
    lines = [report.model, *(f"  {name:<{width}}  {value}" for name, value in known), ""]
    table = [_HEADS, *rows(report)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADS))]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    rule = "-" * max(map(len, lines[-len(table) :]))
    lines.insert(len(lines) - len(table) + 1, rule)
    lines.insert(len(lines) - 1, rule)
    return "\n".join(lines)


def as_rich(report: Report) -> RenderableType:
    """The report for a terminal, in colour."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="dim")
    summary.add_column()
    for name, value in facts(report):
        summary.add_row(Text(name), Text(value))
    blocks = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    for head in _HEADS:
        blocks.add_column(head, justify="left" if head == _HEADS[0] else "right", no_wrap=True)
    body = rows(report)
    for row in body:
        last = row is body[-1]
        blocks.add_row(*map(Text, row), style="bold" if last else "", end_section=last)
    return Group(Text(report.model, style="bold"), summary, Text(), blocks)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "0.0%"
