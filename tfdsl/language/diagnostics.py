"""A diagnostic is data: code, message, place, the other places that disagree, and help. One renderer."""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True, eq=False)
class Source:
    """The text of one file, under the name that the user gave it."""

    name: str
    text: str

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for position, character in enumerate(self.text):
            if character == "\n":
                starts.append(position + 1)
        return starts

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from one."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, counted from one, without its newline."""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end]


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters in a source."""

    source: Source
    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def __str__(self) -> str:
        line, column = self.source.place(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Label:
    """A second place, and what it has to do with the fault."""

    span: Span
    text: str


@dataclass(frozen=True)
class Diagnostic:
    """One fault: what is wrong (`message`), where (`span`, `note` under the caret); only `help` proposes a change."""

    code: str
    message: str
    span: Span | None = None
    note: str = ""
    others: tuple[Label, ...] = ()
    help: str = ""

    def as_json(self) -> dict[str, object]:
        """The diagnostic as JSON data; positions are line and column counted from one."""
        return {
            "code": self.code,
            "message": self.message,
            "at": _json_place(self.span),
            "note": self.note,
            "others": [{"at": _json_place(label.span), "text": label.text} for label in self.others],
            "help": self.help,
        }

    def render(self) -> str:
        """The diagnostic as text for a terminal, with carets."""
        from tfdsl.language.excerpts import excerpts, printable

        lines = [printable(f"error[{self.code}]: {self.message}")]
        if self.span is None and self.note:
            lines.append(printable(f"  = {self.note}"))
        lines += excerpts(self)
        if self.help:
            lines.append(printable(f"help: {self.help}"))
        return "\n".join(lines)


class SpecError(Exception):
    """Raised once for all the faults that one phase found; `.diagnostics` holds them."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__("\n\n".join(diagnostic.render() for diagnostic in self.diagnostics))


MOST_DIAGNOSTICS = 50


@dataclass
class Collector:
    """Gathers the diagnostics of a phase, each once, and raises them together."""

    found: list[Diagnostic] = field(default_factory=list)
    _seen: set[tuple[str, str, object]] = field(default_factory=set)

    def add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        key = (diagnostic.code, diagnostic.message, span and (span.source.name, span.start, span.end))
        if key in self._seen or len(self.found) >= MOST_DIAGNOSTICS:
            return
        self._seen.add(key)
        self.found.append(diagnostic)

    def check(self) -> None:
        """Raise `SpecError` if anything was found, in the order of the text."""
        if self.found:
            raise SpecError(sorted(self.found, key=_order))


def _order(diagnostic: Diagnostic) -> tuple[str, int]:
    span = diagnostic.span
    return (span.source.name, span.start) if span else ("", -1)


def one(code: str, message: str, span: Span | None = None, **rest: object) -> SpecError:
    """A `SpecError` of a single diagnostic, ready to raise."""
    return SpecError([Diagnostic(code, message, span, **rest)])  # type: ignore[arg-type]


_LONGEST_NAME = 80


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Help text that names the nearest known names, or `otherwise`."""
    if len(name) > _LONGEST_NAME:  # comparing takes the square of the length
        return otherwise
    candidates = [each for each in set(known) if len(each) <= _LONGEST_NAME]
    ratios = {each: difflib.SequenceMatcher(None, name.lower(), each.lower()).ratio() for each in candidates}
    best = max(ratios.values(), default=0.0)
    # Names that are nearly as close as the closest: a third of a likely word more is noise.
    close = sorted(each for each, ratio in ratios.items() if ratio >= max(0.65, best - 0.08))
    if not close:
        return otherwise
    return "did you mean " + " or ".join(f"`{candidate}`" for candidate in close[:3]) + "?"


def _json_place(span: Span | None) -> dict[str, object] | None:
    if span is None:
        return None
    (line, column), (end_line, end_column) = span.source.place(span.start), span.source.place(span.end)
    return {"file": span.source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column}
