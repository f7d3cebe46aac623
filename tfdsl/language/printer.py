"""Syntax tree to text: the formatter behind `tfm fmt`. There is one style and no option."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tfdsl.language import syntax
from tfdsl.language.comments import STEP, close_before
from tfdsl.language.diagnostics import Source, SpecError
from tfdsl.language.expressions import SUM, ExpressionPrinter
from tfdsl.language.layout import HANG, Document, Group, Indent, Line, Newline, render
from tfdsl.language.parser import parse

WIDTH = 100


class FormatterFault(RuntimeError):
    """A fault of the formatter itself: its text would not have meant what was written."""


def format_source(source: Source) -> str:
    """The canonical text of a source, checked to mean the same and to keep every comment.

    Raises `SpecError` where the source does not parse.
    """
    tree = parse(source)
    text = print_file(tree)
    try:
        again = parse(Source(source.name, text))
    except SpecError as error:
        raise FormatterFault(f"internal error: the formatted text of `{source.name}` does not parse\n{error}") from None
    for what, before, after in (
        ("meaning", tree.items, again.items),
        ("numbers", _spellings(tree), _spellings(again)),
        ("comments", [each.text for each in tree.comments], [each.text for each in again.comments]),
    ):
        if before != after:
            raise FormatterFault(f"internal error: formatting `{source.name}` would have changed its {what}")
    return text


def print_file(tree: syntax.File) -> str:
    """The canonical text of a file, its comments included."""
    text = render(_Printer(tree.comments, keep_breaks=True).file(tree), WIDTH)
    return text + "\n" if text else ""


def print_expression(expr: syntax.Expression) -> str:
    """An expression as text on one line, with no more parentheses than it needs to be read."""
    return render(ExpressionPrinter((), keep_breaks=False).expression(expr), math.inf)


def _spellings(tree: syntax.File) -> list[str]:
    return [node.text for node in tree.walk() if isinstance(node, syntax.Number)]


class _Printer(ExpressionPrinter):
    """Makes documents of what stands on lines of its own, and of signatures."""

    # --- top level ---------------------------------------------------------------------------------------------------

    def file(self, tree: syntax.File) -> Document:
        """The document of a whole file."""
        return self.rows(
            tree.items,
            math.inf,
            self.row,
            apart=lambda one, other: not (isinstance(one, syntax.Import) and isinstance(other, syntax.Import)),
        )

    def row(self, node: syntax.Tree) -> Document:
        """The document of what stands on a line of its own: an item, a section, a rule, a setting or a statement."""
        close = node.span.end - 1  # where a node ends with a brace, that is where it stands
        match node:
            case syntax.Import():
                names = self.names(node.names)
                return ("import ", names, Indent(HANG, Group((Line(), "from ", self.expression(node.path)))))
            case syntax.Block():
                header = (f"{node.kind} ", self.name(node.name), self._signature(node), " ")
                return (*header, self._braces(node.body, close))
            case syntax.Variant():
                return (*self._header("model", node.name, "extends", node.base), self._braces(node.settings, close))
            case syntax.Plan():
                return (*self._header("plan", node.name, "for", node.model), self._braces(node.sections, close))
            case syntax.Mapping():
                return (*self._header("mapping", node.name, "for", node.model), self._braces(node.rules, close))
            case syntax.Section():
                return (f"{node.kind} ", self._braces(node.items, close))
            case syntax.Rule():
                return self._value((self.expression(node.theirs), " ->"), node.ours)
            case syntax.Setting():
                return self._value((self.name(node.name), " ="), node.value)
            case _:
                return self._statement(node)

    def _header(self, kind: str, name: syntax.Name, word: str, other: syntax.Name) -> tuple[Document, ...]:
        return (f"{kind} ", self.name(name), f" {word} ", self.name(other), " ")

    def _braces(self, nodes: Sequence[syntax.Tree], close: float) -> Document:
        rows = self.rows(nodes, close, self.row, apart=lambda one, other: False)
        return ("{", Indent(STEP, rows), Newline(), "}") if rows else "{}"

    def _signature(self, node: syntax.Block) -> Document:
        arrow = node.outputs[0].span.start
        inputs = self.brackets("()", node.inputs, close_before(arrow, node), self._input, comma=",", tall=True)
        remarks = self.remarks(arrow)
        outputs: list[Document] = []
        for output in node.outputs:
            lead: Document = (self.name(output.name), ": ") if output.name else ""
            outputs += [*((",", Line()) if outputs else ()), lead, self._tensor(output.type)]
        # What does not fit breaks at the inputs first: they are in the outer group, the outputs in one of their own.
        start = inputs.body if isinstance(inputs, Group) else inputs
        return Group((start, " -> ", *remarks, Group(Indent(HANG, tuple(outputs)))))

    def _input(self, node: syntax.Input) -> Document:
        return (self.name(node.name), ": ", self._tensor(node.type), "?" if node.optional else "")

    def _tensor(self, node: syntax.TensorType) -> Document:
        remarks = self.remarks_before(node)
        dtype = self.name(node.dtype) if node.dtype else ""
        return (*remarks, dtype, self.brackets("[]", node.extents, node.span.end - 1, self._extent))

    def _extent(self, node: syntax.Expression | syntax.Ellipsis_) -> Document:
        return "..." if isinstance(node, syntax.Ellipsis_) else self.expression(node, SUM)

    # --- statements --------------------------------------------------------------------------------------------------

    def _statement(self, node: syntax.Tree) -> Document:
        match node:
            case syntax.Parameter():
                lead = ("param ", self.name(node.name), (": ", self.name(node.kind)) if node.kind else "")
                return self._value((*lead, " ="), node.default) if node.default else lead
            case syntax.Require():
                condition = self.expression(node.condition)
                why = (",", Line(), self.expression(node.why)) if node.why else ()
                return ("require ", Group((condition, Indent(HANG, why))))
            case syntax.Initialize():
                return self._value(("initialize ", self.expression(node.pattern), " ="), node.value)
            case syntax.Penalty():
                return self._value(("penalty ", self.name(node.name), " ="), node.value)
            case syntax.Bind():
                return self._value((self.names(node.names), " ="), node.value)
            case syntax.Return():
                first, *others = node.values
                shown = self.expression(first)
                rest: list[Document] = []
                for other in others:
                    rest += [",", Line(), self.expression(other)]
                return ("return ", Group((shown, Indent(HANG, tuple(rest)))) if rest else shown)
            case syntax.Repeat():
                name = self.name(node.name)
                close = node.span.source.text.find("]", node.count.span.end)
                count = self.brackets("[]", [node.count], close, self.expression)
                index: Document = (" as ", self.name(node.index)) if node.index else ""
                return ("repeat ", name, count, index, " ", self._braces(node.body, node.span.end - 1))
            case _:
                return self.expression(node)  # type: ignore[arg-type]  # a pass of a plan is a call

    def _value(self, lead: Document, value: syntax.Expression) -> Document:
        """`lead value`; what cannot be broken itself may go to the next line as a whole."""
        remarks = self.remarks_before(value)
        shown = self.expression(value, hang=0 if remarks else HANG)
        if remarks:
            return (lead, Indent(HANG, (Newline(), *remarks, shown)))
        if isinstance(value, (syntax.Path, syntax.String, syntax.Number)):
            return Group((lead, Indent(HANG, (Line(), shown))))
        return (lead, " ", shown)
