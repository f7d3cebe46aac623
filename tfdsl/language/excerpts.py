"""The lines of text that a diagnostic is about, with carets under the fault and dashes under what it disagrees with."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfdsl.language.diagnostics import Diagnostic, Source, Span

_WIDEST = 160  # of a line of the source
_LONGEST = 600  # of a message


@dataclass
class _Mark:
    """A stretch of one line, with what is said of it; the fault itself is the primary one."""

    start: int
    end: int
    text: str
    primary: bool


def printable(text: str) -> str:
    """Text that a terminal takes for text: control characters, which could move the cursor, become a replacement."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c for c in text)


def excerpts(diagnostic: Diagnostic) -> list[str]:
    """The marked lines of each file that a diagnostic mentions, that of the fault first."""
    places = [(label.span, label.text, False) for label in diagnostic.others]
    if diagnostic.span is not None:
        places.insert(0, (diagnostic.span, diagnostic.note, True))
    files: dict[tuple[str, str], list[tuple[Span, str, bool]]] = {}
    for place in places:
        source = place[0].source
        files.setdefault((source.name, source.text), []).append(place)
    lines: list[str] = []
    for group in files.values():
        lines += _file(group)
    return lines


def _file(places: list[tuple[Span, str, bool]]) -> list[str]:
    first = places[0][0]
    lines: dict[int, list[_Mark]] = {}
    for span, text, primary in places:
        number, mark = _mark(span, text, primary)
        marks = lines.setdefault(number, [])
        twin = next((each for each in marks if (each.start, each.end) == (mark.start, mark.end)), None)
        if twin is None:
            marks.append(mark)
        elif mark.text and mark.text != twin.text:
            twin.text = f"{twin.text}; {mark.text}" if twin.text else mark.text
    gutter = " " * len(str(max(lines)))
    shown = [f"{gutter}{'-->' if places[0][2] else ':::'} {printable(str(first))}", f"{gutter} |"]
    before = None
    for number in sorted(lines):
        if before is not None and number > before + 1:
            shown.append("...")
        shown += _line(first.source, number, lines[number], gutter)
        before = number
    return shown


def _mark(span: Span, text: str, primary: bool) -> tuple[int, _Mark]:
    """The line that a span starts on, and the part of that line that it covers."""
    number, column = span.source.place(span.start)
    end_line, end_column = span.source.place(max(span.end - 1, span.start))
    length = len(span.source.line(number).rstrip())
    last = end_column if end_line == number else max(length, column)
    return number, _Mark(column - 1, max(last, column), text, primary)


def _line(source: Source, number: int, marks: list[_Mark], gutter: str) -> list[str]:
    text = source.line(number).replace("\t", " ").rstrip()  # a tab would put the carets out of step
    offset = 0
    if len(text) > _WIDEST:
        cut = max(0, min(mark.start for mark in marks) - _WIDEST // 2)
        before, after = "..." if cut else "", "..." if cut + _WIDEST < len(text) else ""
        text, offset = f"{before}{text[cut : cut + _WIDEST]}{after}", len(before) - cut
    text = printable(text)
    rows = [f"{number:>{len(gutter)}} | {text}"]
    for mark in marks:
        start = min(mark.start + offset, len(text))
        end = max(min(mark.end + offset, len(text)), start + 1)
        under = ("^" if mark.primary else "-") * max(_width(text[start:end]), 1)
        note = f" {printable(mark.text)}" if mark.text else ""
        rows.append(f"{gutter} | {' ' * _width(text[:start])}{under}{note}")
    return rows


def _width(text: str) -> int:
    """The columns that text takes in a terminal: two for a wide character, none for one that joins the one before."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
