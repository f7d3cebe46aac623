"""Where comments go when a tree is printed.

They wait in a queue and are put down before the first token that stood after them. So none can be lost or change places
with another, wherever it was written; a printer only has to ask (`remarks`) wherever a comment may want to stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from tfdsl.language import syntax
from tfdsl.language.layout import SOFT, Document, Group, IfBroken, Indent, Line, Newline, Remark

STEP = 2  # how much deeper stands what is between brackets or braces
Node = TypeVar("Node", bound=syntax.Tree)


class CommentQueue:
    """The comments of a file that are still to be printed, and the sequences of nodes that they may stand between."""

    def __init__(self, comments: Sequence[syntax.Comment]):
        self._comments = comments
        self._taken = 0

    def take(self, before: float) -> list[syntax.Comment]:
        """The comments not yet printed that start before an offset."""
        first = self._taken
        while self.waiting(before):
            self._taken += 1
        return list(self._comments[first : self._taken])

    def waiting(self, before: float) -> bool:
        """Whether there are any such."""
        return self._taken < len(self._comments) and self._comments[self._taken].span.start < before

    def remarks(self, before: float) -> tuple[Document, ...]:
        """The comments not yet printed that start before an offset, to be put down here."""
        return tuple(Remark(each.text, _ends_line(each)) for each in self.take(before))

    def remarks_before(self, node: syntax.Tree) -> tuple[Document, ...]:
        """The comments not yet printed that stand before the first token of a node."""
        return self.remarks(_first_token(node))

    def rows(
        self, nodes: Sequence[Node], close: float, show: Callable[[Node], Document], apart: Callable[[Node, Node], bool]
    ) -> Document:
        """Nodes and comments, a line each, with at most one of the blank lines that the author left between them.

        Nodes that stand `apart` get one in any case.
        """
        parts: list[Document] = []
        last: syntax.Tree | None = None  # what stands on the line above
        for position, node in enumerate((*nodes, None)):
            comments = self.take(close if node is None else node.span.start)
            if comments and _ends_line(comments[0]):
                last = last and comments[0]
                parts.append(Remark(comments.pop(0).text, trailing=True))
            things: list[syntax.Tree] = [*comments] if node is None else [*comments, node]
            blanks = [_blank_between(above, thing) for above, thing in zip([last, *things], things, strict=False)]
            if node and position and apart(nodes[position - 1], node) and not any(blanks):
                blanks[0] = True
            for comment, blank in zip(comments, blanks, strict=False):
                parts += [Newline(blank), Remark(comment.text, trailing=False)]
            if node:
                parts += [Newline(blanks[-1]), show(node)]
            last = things[-1] if things else last
        return tuple(parts)

    def brackets(
        self,
        pair: str,
        nodes: Sequence[syntax.Tree],
        close: float,
        show: Callable[..., Document],
        comma: str = "",
        fill: bool = False,
        tall: bool = False,
    ) -> Document:
        """Nodes between brackets: on one line, else all on the next, else one a line (`tall` at once, `fill` never)."""
        opening = self.remarks_before(nodes[0]) if nodes else ()
        fill = fill and not self.waiting(close)
        parts: list[Document] = []
        for position, node in enumerate(nodes, start=1):
            item = (*self.remarks_before(node), show(node), "," if position < len(nodes) else "")
            between: tuple[Document, ...] = (Line(),) if parts else ()
            parts.append(Group((*between, *item)) if fill else (*between, *item))
        closing = self.remarks(close)
        if not nodes and not closing:
            return pair
        last = IfBroken(comma) if nodes and not fill else ""
        inner: Document = (*parts, last, *((SOFT, *closing) if closing else ()))
        inner = inner if tall or fill else Group(inner)
        return Group((pair[0], Indent(STEP, (SOFT, *opening, inner)), SOFT, pair[1]))


def newline_between(one: syntax.Tree, other: syntax.Tree) -> bool:
    """Whether the author broke the line between two nodes."""
    return "\n" in _between(one, other)


def close_before(offset: int, node: syntax.Tree) -> int:
    """Where the last `)` before an offset stands; one in a comment counts too, and costs it only its place."""
    return node.span.source.text.rfind(")", node.span.start, offset)


def _first_token(node: syntax.Tree) -> int:
    """Where a node starts but for the parentheses around it and around its parts, since those come and go."""
    while True:
        match node:
            case syntax.Argument():
                node = node.keyword or node.value
            case syntax.Binary():
                node = node.left
            case syntax.Pipe():
                node = node.value
            case syntax.Index() | syntax.Member():
                node = node.base
            case _:
                return node.span.start


def _between(one: syntax.Tree, other: syntax.Tree) -> str:
    return one.span.source.text[one.span.end : other.span.start]


def _blank_between(above: syntax.Tree | None, below: syntax.Tree) -> bool:
    return above is not None and re.search(r"\n\s*\n", _between(above, below)) is not None


def _ends_line(comment: syntax.Comment) -> bool:
    """Whether a comment was written behind something on its line."""
    text, start = comment.span.source.text, comment.span.start
    return text[text.rfind("\n", 0, start) + 1 : start].strip() != ""
