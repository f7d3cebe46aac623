"""Expressions to documents: parentheses where the grammar or a reader needs them, and where a long one breaks."""

from __future__ import annotations

from collections.abc import Sequence

from tfdsl.language import syntax
from tfdsl.language.comments import STEP, CommentQueue, close_before, newline_between
from tfdsl.language.layout import HANG, SOFT, Document, Group, Indent, Line

# How tightly an expression holds together, as in the grammar: what is below the wanted level needs parentheses.
_PIPE, _CHOICE, _RANGE, _NOT, SUM, _UNARY, _ATOM = 0, 1, 2, 5, 7, 9, 11
_OPERATORS: dict[str, tuple[int, int, int]] = {  # operator: its level, and those of its two operands
    "..": (_RANGE, 3, 3),
    "|": (3, 3, 4),
    "&": (4, 4, _NOT),
    **dict.fromkeys(("==", "!=", "<=", ">=", "<", ">"), (6, SUM, SUM)),
    **dict.fromkeys(("+", "-"), (SUM, SUM, 8)),
    **dict.fromkeys(("*", "//", "/", "%", "@"), (8, 8, _UNARY)),
    "**": (10, _ATOM, _UNARY),
}


class ExpressionPrinter(CommentQueue):
    """Makes documents of expressions and names, in the order of the text, taking comments as it passes them."""

    def __init__(self, comments: Sequence[syntax.Comment], keep_breaks: bool):
        super().__init__(comments)
        self._keep_breaks = keep_breaks

    def name(self, node: syntax.Name) -> Document:
        """A name, after the comments that stand before it."""
        return (*self.remarks_before(node), node.text)

    def names(self, nodes: Sequence[syntax.Name]) -> Document:
        """Names with commas between them, as many on a line as fit."""
        first, *others = (self.name(node) for node in nodes)
        return (first, Indent(HANG, tuple((",", Group((Line(), other))) for other in others)))

    def expression(self, node: syntax.Expression, level: int = _PIPE, hang: int = HANG) -> Document:
        """An expression, in parentheses where it binds less tightly than `level`; broken, its rest hangs by `hang`."""
        remarks = self.remarks_before(node)
        if _level(node) < level:
            inside = self._bare(node, 0)
            return (*remarks, Group(("(", Indent(STEP, (SOFT, inside)), SOFT, ")")))
        return (*remarks, self._bare(node, hang)) if remarks else self._bare(node, hang)

    def _bare(self, node: syntax.Expression, hang: int) -> Document:
        match node:
            case syntax.Number():
                return node.text
            case syntax.String():
                return f'"{node.value}"'
            case syntax.Literal():
                return {True: "true", False: "false", None: "none"}[node.value]
            case syntax.Path():
                return node.text
            case syntax.Call():
                return self._call(node)
            case syntax.Index():
                base = self.expression(node.base, _ATOM)
                return (base, self.brackets("[]", [node.index], node.span.end - 1, self.expression))
            case syntax.Member():
                return (self.expression(node.base, _ATOM), ".", self.name(node.name))
            case syntax.ListOf():
                numbers = all(_is_number(item) for item in node.items)
                return self.brackets("[]", node.items, node.span.end - 1, self.expression, comma=",", fill=numbers)
            case syntax.Unary():
                word, level = ("-", _UNARY) if node.operator == "-" else ("not ", _NOT)
                return (word, self.expression(node.operand, level))
            case syntax.Binary():
                return self._binary(node, hang)
            case syntax.Choice():
                return self._choice(node, hang)
            case syntax.Pipe():
                return self._pipe(node, hang)

    def _call(self, node: syntax.Call) -> Document:
        close: float = node.span.end - 1
        if node.name:
            close = close_before(node.name.span.start, node)
        callee = self.expression(node.callee, _ATOM)
        arguments = self.brackets("()", node.arguments, close, self._argument, comma=",")
        return (callee, arguments, (" as ", self.name(node.name)) if node.name else "")

    def _argument(self, node: syntax.Argument) -> Document:
        if node.keyword is None:
            return self.expression(node.value)
        return (self.name(node.keyword), "=", self.expression(node.value))

    def _binary(self, node: syntax.Binary, hang: int) -> Document:
        """Operands of one level make one chain, which breaks before each operator or nowhere."""
        chain, left = [node], node.left
        while isinstance(left, syntax.Binary) and _joins(left, chain[-1].operator):
            chain.append(left)
            left = left.left
        level = _OPERATORS[chain[-1].operator][1]
        if isinstance(left, syntax.Binary) and _level(left) == level:
            level += 1  # the grammar asks for no parentheses in `(a / b) * c`, but a reader does
        first = self.expression(left, level)
        rest: list[Document] = []
        for link in reversed(chain):
            remarks = self.remarks_before(link.right)
            right = self.expression(link.right, _OPERATORS[link.operator][2])
            space = "" if link.operator == ".." and _is_short(link.left) and _is_short(link.right) else " "
            if len(chain) == 1 and self._breaks_inside(link):
                return (first, space, *remarks, f"{link.operator}{space}", right)
            rest += [Line(space), *remarks, f"{link.operator}{space}", right]
        return Group((first, Indent(hang, tuple(rest))))

    def _breaks_inside(self, node: syntax.Binary) -> bool:
        """Whether only the right operand should break: `x + block(...)` reads best so."""
        brackets = isinstance(node.right, (syntax.Call, syntax.ListOf))
        return _is_short(node.left) and (brackets or _level(node.right) < _OPERATORS[node.operator][2])

    def _choice(self, node: syntax.Choice, hang: int) -> Document:
        arms: list[Document] = []
        last: syntax.Expression = node
        while isinstance(last, syntax.Choice):
            before = (Line(), *self.remarks_before(last.condition), "else ") if arms else ()
            condition = self.expression(last.condition, _RANGE)
            then = (*self.remarks_before(last.then), "then ", self.expression(last.then, _RANGE))
            arms.append((*before, Group(("if ", condition, Indent(HANG, (Line(), *then))))))
            last = last.otherwise
        otherwise = (Line(), *self.remarks_before(last), "else ", self.expression(last, _CHOICE))
        return Group((arms[0], Indent(hang, (*arms[1:], *otherwise))))

    def _pipe(self, node: syntax.Pipe, hang: int) -> Document:
        """A chain of stages stands on one line only if the author wrote it so and it fits."""
        chain = [node]
        while isinstance(chain[-1].value, syntax.Pipe):
            chain.append(chain[-1].value)
        value = self.expression(chain[-1].value, _RANGE)
        rest: list[Document] = []
        for link in reversed(chain):
            rest += [Line(), *self.remarks_before(link.stage), "|> ", self.expression(link.stage)]
        broken = self._keep_breaks and any(newline_between(link.value, link.stage) for link in chain)
        return Group((value, Indent(hang, tuple(rest))), broken)


def _level(node: syntax.Expression) -> int:
    match node:
        case syntax.Pipe():
            return _PIPE
        case syntax.Choice():
            return _CHOICE
        case syntax.Unary():
            return _UNARY if node.operator == "-" else _NOT
        case syntax.Binary():
            return _OPERATORS[node.operator][0]
    return _ATOM


def _joins(left: syntax.Binary, operator: str) -> bool:
    """Whether a left operand needs no parentheses before an operator of its own level."""
    level, of_left, _ = _OPERATORS[operator]
    return level == of_left == _level(left) and (left.operator == operator or left.operator not in ("/", "//", "%"))


def _is_number(node: syntax.Expression) -> bool:
    return isinstance(node.operand if isinstance(node, syntax.Unary) else node, syntax.Number)


def _is_short(node: syntax.Expression) -> bool:
    return isinstance(node, (syntax.Number, syntax.Path, syntax.Literal))
