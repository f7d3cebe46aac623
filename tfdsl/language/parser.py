"""Text to syntax tree. Reading a file runs no code, and a hostile file gets a diagnostic."""

from __future__ import annotations

import os
import re
import stat
import threading
from functools import cache
from typing import Any

import lark
from lark import Transformer_NonRecursive, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken, VisitError

from tfdsl.language import syntax, tables
from tfdsl.language.diagnostics import MOST_DIAGNOSTICS, Collector, Source, Span, SpecError, one
from tfdsl.language.syntax_faults import syntax_fault

LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 120  # nested expressions; the phases after this one recurse over them

KEYWORDS = frozenset(
    "import from block model extends plan for train optimize deploy mapping param require initialize penalty "
    "repeat as return if then else not true false none".split()
)


def read(path: str | os.PathLike[str]) -> Source:
    """Read a spec as text; the error is a `SpecError` (T001 to T004) for what cannot be one."""
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise one("T001", f"`{name}` is not a regular file")
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise one("T001", f"cannot read `{name}`: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise one("T001", "cannot read a path that contains a NUL character") from None
    if len(data) > LARGEST_FILE:
        raise one(
            "T002", f"`{name}` is larger than {LARGEST_FILE:,} bytes", help="a spec is text; weights go in safetensors"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = data[: error.start].decode("utf-8", "replace")
        span = Span(Source(name, good + "\ufffd"), len(good), len(good) + 1)
        raise one(
            "T003", f"byte 0x{data[error.start]:02x} is not UTF-8 text", span, help="save the file as UTF-8"
        ) from None
    return Source(name, text.replace("\r\n", "\n"))


def parse(source: Source) -> syntax.File:
    """The syntax tree of a source; raises `SpecError` with every syntax error found."""
    faults = Collector()
    text = source.text
    with _LOCK:
        while len(faults.found) < MOST_DIAGNOSTICS:
            try:
                items, comments = _tree_of(source, text, "start")
                break
            except (UnexpectedToken, UnexpectedCharacters) as error:
                fault = syntax_fault(source, error, KEYWORDS, _parser())
                faults.add(fault)
                # Go on at the next item that starts a line, with what stood before it blanked, so that places hold.
                restart = _ITEM.search(text, fault.span.start + 1 if fault.span else len(text))
                if restart is None:
                    break
                text = re.sub(r"[^\n]", " ", text[: restart.start()]) + text[restart.start() :]
    faults.check()
    tree = syntax.File(tuple(items), comments, span=Span(source, 0, len(source.text)))
    _refuse_depth(tree)
    return tree


_ITEM = re.compile(r"^(?:import|block|model|plan|mapping)\b", re.MULTILINE)
_LOCK = threading.Lock()  # one builder serves all


def parse_expression(source: Source) -> syntax.Expression:
    """The tree of a text that is one expression (a value given by `--set`)."""
    with _LOCK:
        try:
            expression: syntax.Expression = _tree_of(source, source.text, "value")[0]
        except (UnexpectedToken, UnexpectedCharacters) as error:
            raise SpecError([syntax_fault(source, error, KEYWORDS, _parser())]) from None
    _refuse_depth(expression)
    return expression


def _tree_of(source: Source, text: str, start: str) -> tuple[Any, tuple[syntax.Comment, ...]]:
    _BUILDER.begin(source)
    try:
        return _BUILDER.transform(_parser().parse(text, start=start)), tuple(_BUILDER.comments)
    except VisitError as error:  # Lark's wrapping of what a builder method raised
        raise error.orig_exc from None


def _refuse_depth(tree: syntax.Tree) -> None:
    depths: list[tuple[syntax.Tree, int]] = [(child, 0) for child in tree.children()]
    while depths:
        node, depth = depths.pop()
        if depth > DEEPEST:
            raise one(
                "T104",
                f"nested more than {DEEPEST} deep",
                Span(node.span.source, node.span.start, min(node.span.end, node.span.start + 1)),
                help="bind parts of it to names",
            )
        depths += [(child, depth + 1) for child in node.children()]


@cache
def _parser() -> lark.Lark:
    return tables.load({"COMMENT": _BUILDER.take_comment})


class _Builder(Transformer_NonRecursive[Any, Any]):
    """Builds the syntax tree from Lark's; one instance serves all files, one after the other."""

    source: Source
    comments: list[syntax.Comment]

    def begin(self, source: Source) -> None:
        self.source, self.comments = source, []

    def span(self, meta: Any) -> Span:
        return Span(self.source, getattr(meta, "start_pos", 0), getattr(meta, "end_pos", 0))

    def token_span(self, token: lark.Token) -> Span:
        return Span(self.source, token.start_pos or 0, token.end_pos or 0)

    def take_comment(self, token: lark.Token) -> lark.Token:
        text = str(token).rstrip()
        start = token.start_pos or 0
        self.comments.append(syntax.Comment(text, span=Span(self.source, start, start + len(text))))
        return token

    def name(self, token: lark.Token | None) -> syntax.Name | None:
        return None if token is None else syntax.Name(str(token), span=self.token_span(token))

    def text(self, token: lark.Token | None) -> syntax.String | None:
        return None if token is None else syntax.String(str(token)[1:-1], span=self.token_span(token))


def _rule(build: Any) -> Any:
    """A builder method that gets `(self, children, span)`."""

    @v_args(meta=True)
    def method(self: _Builder, meta: Any, children: list[Any]) -> Any:
        return build(self, children, self.span(meta))

    return method


def _present(children: list[Any]) -> tuple[Any, ...]:
    return tuple(child for child in children if child is not None)


def _call(build: _Builder, c: list[Any], span: Span) -> syntax.Call:
    arguments = tuple(
        a if isinstance(a, syntax.Argument) else syntax.Argument(None, a, span=a.span) for a in _present(c[1:-1])
    )
    return syntax.Call(c[0], arguments, build.name(c[-1]), span=span)


def _number(build: _Builder, c: list[Any], span: Span) -> syntax.Number:
    text = str(c[0])
    if len(text) > 40:
        raise one("T105", "a number has at most 40 characters", span)
    value = float(text) if any(mark in text for mark in ".eE") else int(text)
    if value in (float("inf"),):
        raise one("T105", f"`{text}` is too large for a number", span)
    return syntax.Number(value, text, span=span)


def _operator(c: list[Any], span: Span) -> syntax.Binary:
    return syntax.Binary(str(c[1]), c[0], c[2], span=span)


_LITERALS = {"true": True, "false": False, "none": None}

# One line a rule of the grammar: `b` is the builder, `c` the children, `s` the span.
_RULES: dict[str, Any] = {
    "start": lambda b, c, s: c,
    "value": lambda b, c, s: c[0],
    "import_": lambda b, c, s: syntax.Import(c[0], b.text(c[1]), span=s),
    "block": lambda b, c, s: syntax.Block("block", b.name(c[0]), c[1][0], c[1][1], c[2], span=s),
    "model": lambda b, c, s: syntax.Block("model", b.name(c[0]), c[1][0], c[1][1], c[2], span=s),
    "variant": lambda b, c, s: syntax.Variant(b.name(c[0]), b.name(c[1]), tuple(c[2:]), span=s),
    "plan": lambda b, c, s: syntax.Plan(b.name(c[0]), b.name(c[1]), tuple(c[2:]), span=s),
    "section": lambda b, c, s: syntax.Section(c[0], tuple(c[1:]), span=s),
    "kind": lambda b, c, s: str(c[0]),
    "mapping": lambda b, c, s: syntax.Mapping(b.name(c[0]), b.name(c[1]), tuple(c[2:]), span=s),
    "rule": lambda b, c, s: syntax.Rule(b.text(c[0]), c[1], span=s),
    "signature": lambda b, c, s: c,
    "inputs": lambda b, c, s: _present(c),
    "outputs": lambda b, c, s: tuple(c),
    "output": lambda b, c, s: syntax.Output(b.name(c[0]), c[1], span=s),
    "input": lambda b, c, s: syntax.Input(b.name(c[0]), c[1], c[2] is not None, span=s),
    "tensor": lambda b, c, s: syntax.TensorType(b.name(c[0]), _present(c[1:]), span=s),
    "ellipsis": lambda b, c, s: syntax.Ellipsis_(span=s),
    "body": lambda b, c, s: tuple(c),
    "param": lambda b, c, s: syntax.Parameter(b.name(c[0]), b.name(c[1]), c[2], span=s),
    "require": lambda b, c, s: syntax.Require(c[0], b.text(c[1]), span=s),
    "initialize": lambda b, c, s: syntax.Initialize(b.text(c[0]), c[1], span=s),
    "penalty": lambda b, c, s: syntax.Penalty(b.name(c[0]), c[1], span=s),
    "bind": lambda b, c, s: syntax.Bind(c[0], c[1], span=s),
    "repeat": lambda b, c, s: syntax.Repeat(b.name(c[0]), c[1], b.name(c[2]), c[3], span=s),
    "result": lambda b, c, s: syntax.Return(tuple(c), span=s),
    "setting": lambda b, c, s: syntax.Setting(b.name(c[0]), c[1], span=s),
    "pipe": lambda b, c, s: syntax.Pipe(c[0], c[2], span=s),
    "choice": lambda b, c, s: syntax.Choice(*c, span=s),
    "binary": lambda b, c, s: _operator(c, s),
    "unary": lambda b, c, s: syntax.Unary(str(c[0]), c[1], span=s),
    "number": _number,
    "string": lambda b, c, s: b.text(c[0]),
    "literal": lambda b, c, s: syntax.Literal(_LITERALS[str(c[0])], span=s),
    "path": lambda b, c, s: syntax.Path(tuple(b.name(part) for part in c), span=s),
    "call": _call,
    "keyword": lambda b, c, s: syntax.Argument(b.name(c[0]), c[1], span=s),
    "index": lambda b, c, s: syntax.Index(c[0], c[1], span=s),
    "member": lambda b, c, s: syntax.Member(c[0], b.name(c[1]), span=s),
    "list": lambda b, c, s: syntax.ListOf(_present(c), span=s),
    "names": lambda b, c, s: tuple(b.name(part) for part in c),
}
for _name, _build in _RULES.items():
    setattr(_Builder, _name, _rule(_build))
_BUILDER = _Builder()
