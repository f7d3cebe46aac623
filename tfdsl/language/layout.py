"""Layout: documents that say where a line may break, and the one function that decides where it does.

The scheme is Wadler's and Prettier's: a group is printed on one line if it fits, else broken at all its lines. What is
added is the remark, a comment with its place in the flow of text. What follows it can never end up inside the comment:
the page starts a new line for it even where the document has none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HANG = 4  # how much deeper the rest of a broken statement stands


@dataclass(frozen=True)
class Line:
    """A place where the enclosing group may break; `flat` is printed where it does not."""

    flat: str = " "


@dataclass(frozen=True)
class Newline:
    """A line that always breaks; `blank` leaves an empty line."""

    blank: bool = False


@dataclass(frozen=True)
class Indent:
    """Lines broken inside stand deeper by `by` columns."""

    by: int
    body: Document


@dataclass(frozen=True)
class Group:
    """Breaks at all its lines or at none; `broken` decides for all."""

    body: Document
    broken: bool = False


@dataclass(frozen=True)
class IfBroken:
    """Text that is there only where the enclosing group breaks."""

    text: str


@dataclass(frozen=True)
class Remark:
    """A comment: at the end of the line before it (`trailing`), or on a line of its own."""

    text: str
    trailing: bool


Document = str | tuple["Document", ...] | Line | Newline | Indent | Group | IfBroken | Remark
SOFT = Line("")


def render(document: Document, width: float) -> str:
    """The text of a document, in lines of at most `width` characters where it can be done."""
    page = _Page()
    waiting: list[tuple[int, bool, Document]] = [(0, False, document)]  # indentation, on one line?, what
    while waiting:
        indent, flat, now = waiting.pop()
        match now:
            case str():
                page.write(now)
            case tuple():
                waiting.extend((indent, flat, part) for part in reversed(now))
            case Indent():
                waiting.append((indent + now.by, flat, now.body))
            case Group():
                flat = flat or (not now.broken and _fits(now.body, waiting, width - page.column))
                waiting.append((indent, flat, now.body))
            case Line():
                page.write(now.flat) if flat else page.newline(indent)
            case Newline():
                page.newline(indent, now.blank)
            case IfBroken():
                page.write("" if flat else now.text)
            case Remark():
                page.remark(now, indent)
    return page.text()


def _fits(document: Document, rest: list[tuple[int, bool, Document]], room: float) -> bool:
    """Whether a document, on one line, and what must follow it on that line need at most `room` columns."""
    waiting: list[tuple[bool, Document]] = [(True, document)]
    following = len(rest)
    while room >= 0:
        if not waiting:
            if following == 0:
                return True
            following -= 1
            waiting.append(rest[following][1:])
        flat, now = waiting.pop()
        match now:
            case str():
                room -= len(now)
            case tuple():
                waiting.extend((flat, part) for part in reversed(now))
            case Indent():
                waiting.append((flat, now.body))
            case Group():
                if flat and now.broken:
                    return False
                waiting.append((flat, now.body))
            case Line():
                if not flat:
                    return True
                room -= len(now.flat)
            case IfBroken():
                room -= 0 if flat else len(now.text)
            case Newline() | Remark():
                return not flat
    return False


@dataclass
class _Page:
    """The lines so far. A new line starts only when its first text comes, so that a trailing remark can still join."""

    lines: list[str] = field(default_factory=list)
    line: str = ""
    breaks: int = 0  # newlines that the next text must write first
    indent: int = 0  # and the column where it then starts
    remarked: bool = False  # the line ends with a comment

    @property
    def column(self) -> int:
        return self.indent if self.breaks else len(self.line)

    def newline(self, indent: int, blank: bool = False) -> None:
        self.breaks, self.indent = max(self.breaks, 2 if blank else 1), indent

    def write(self, text: str) -> None:
        if self.breaks:
            text = text.lstrip(" ")
            if text:
                self._start_line()
        self.line += text

    def remark(self, remark: Remark, indent: int) -> None:
        after = indent + HANG
        if remark.trailing and self.line and not self.remarked:
            self.line = f"{self.line.rstrip(' ')}  {remark.text}"
        else:
            if self.line and not self.breaks:
                self.newline(after)
            self._start_line()
            self.line += remark.text
            after = self.indent
        if not self.breaks:
            self.newline(after)
        self.remarked = True

    def text(self) -> str:
        return "\n".join([*self.lines, self.line.rstrip(" ")])

    def _start_line(self) -> None:
        if self.line:
            self.lines += [self.line.rstrip(" ")] + [""] * (self.breaks - 1)
        self.line, self.breaks, self.remarked = " " * self.indent, 0, False
