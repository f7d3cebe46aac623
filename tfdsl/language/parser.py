"""Text to syntax tree. Reading a file runs no code, and a hostile file gets a diagnostic."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from functools import cache
from typing import Any

import lark
from lark import Transformer_NonRecursive, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedToken, VisitError

from tfdsl.language import syntax, tables
from tfdsl.language.diagnostics import Collector, Diagnostic, Source, Span, SpecError, did_you_mean, one

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
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise one("T001", f"`{name}` is not a regular file")
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
    while True:
        _BUILDER.begin(source)
        try:
            items = _BUILDER.transform(_parser().parse(text))
            break
        except VisitError as error:  # Lark's wrapping of what a builder method raised
            raise error.orig_exc from None
        except (UnexpectedToken, UnexpectedCharacters) as error:
            diagnostic = _syntax_fault(source, error)
            faults.add(diagnostic)
            # Go on at the next item that starts a line, with what stood before it blanked, so that places hold.
            restart = _ITEM.search(text, diagnostic.span.start + 1 if diagnostic.span else len(text))
            if restart is None:
                break
            text = re.sub(r"[^\n]", " ", text[: restart.start()]) + text[restart.start() :]
    faults.check()
    span = Span(source, 0, len(source.text))
    tree = syntax.File(tuple(items), tuple(_BUILDER.comments), span=span)
    _refuse_depth(tree)
    return tree


_ITEM = re.compile(r"^(?:import|block|model|plan|mapping)\b", re.MULTILINE)


def parse_expression(source: Source) -> syntax.Expression:
    """The tree of a text that is one expression (a value given by `--set`)."""
    prefix = "plan p for m { train { v = "
    try:
        tree = parse(Source(source.name, prefix + source.text + "\n}}"))
        setting = tree.items[0].sections[0].items[0]  # type: ignore[union-attr]
        if len(tree.items) == 1 and len(tree.items[0].sections[0].items) == 1:  # type: ignore[union-attr]
            return setting.value  # type: ignore[union-attr]
    except SpecError:
        pass
    raise one("T101", f"`{source.text}` is not an expression", Span(source, 0, len(source.text)))


def _refuse_depth(tree: syntax.File) -> None:
    depths: list[tuple[syntax.Tree, int]] = [(item, 0) for item in tree.items]
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


def _syntax_fault(source: Source, error: UnexpectedToken | UnexpectedCharacters) -> Diagnostic:
    if isinstance(error, UnexpectedCharacters):
        start = error.pos_in_stream or 0
        character = source.text[start]
        help_ = "strings are closed on the line they start on" if character == '"' else _CHARACTER_HELP.get(character, "")
        return Diagnostic("T102", f"unexpected character `{character}`", Span(source, start, start + 1), help=help_)
    token = error.token
    expected = _expected(error)
    if token.type == "$END":
        end = len(source.text.rstrip())
        span = Span(source, max(end - 1, 0), max(end, 1))
        return Diagnostic("T103", "the file ends too early", span, note=f"after this, expected {expected}")
    span = Span(source, token.start_pos or 0, token.end_pos or 0)
    help_ = ""
    if token in KEYWORDS:
        help_ = f"`{token}` is a keyword and cannot be a name"
    elif token.type == "NAME" and token not in KEYWORDS:
        help_ = did_you_mean(str(token), _words(error.accepts or error.expected))
    help_ = help_ or _misspelt_before(error)
    return Diagnostic("T101", f"unexpected `{token}`", span, note=f"expected {expected}", help=help_)


_CHARACTER_HELP = {"'": "strings take double quotes", ";": "statements need no terminator", "\\": "lines need no continuation"}
_TERMINAL_WORDS = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "$END": "the end of the file",
    "ADD": "an operator",
    "SUB": "an operator",
    "MUL": "an operator",
    "POW": "an operator",
    "COMPARE": "an operator",
    "AND": "an operator",
    "OR": "an operator",
    "RANGE": "an operator",
    "PIPE": "`|>`",
    "OPTIONAL": "`?`",
    "ELLIPSIS": "`...`",
    "_OPERATOR": "an operator",
}


def _words(terminals: Iterable[str]) -> list[str]:
    """The keywords among the terminals that could have stood at a place."""
    return [name.lower() for name in terminals if name.lower() in KEYWORDS]


def _misspelt_before(error: UnexpectedToken) -> str:
    """Help where the token before the fault is a name that nearly is a keyword: `retrun x` stops at `x` only."""
    before: Any = error.interactive_parser.copy(deepcopy_values=False)  # type: ignore[no-untyped-call]
    if not before.parser_state.value_stack:
        return ""
    before.parser_state.state_stack.pop()
    name = before.parser_state.value_stack.pop()
    if not isinstance(name, lark.Token) or name.type != "NAME":
        return ""
    help_ = did_you_mean(str(name), _words(before.accepts()))
    return f"`{name}` was read as a name; {help_}" if help_ else ""


def _expected(error: UnexpectedToken) -> str:
    accepted = set(error.accepts or error.expected)
    if {"NUMBER", "NAME", "STRING", "LPAR"} <= accepted:
        return "an expression"
    patterns = {terminal.name: terminal.pattern for terminal in _terminals()}
    words = []
    for name in sorted(accepted):
        word = _TERMINAL_WORDS.get(name)
        if word is None:
            word = f"`{patterns[name].value}`" if name in patterns else f"`{name.lower()}`"
        if word not in words:
            words.append(word.replace("\\", ""))
    words.sort(key=lambda word: (word == "an operator", not word.startswith("`"), word))
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1] if words else "nothing more"


def _terminals() -> list[lark.lexer.TerminalDef]:
    return _parser().terminals


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
    "import_": lambda b, c, s: syntax.Import(c[0], b.text(c[1]), span=s),
    "block": lambda b, c, s: syntax.Block("block", b.name(c[0]), *c[1], c[2], span=s),
    "model": lambda b, c, s: syntax.Block("model", b.name(c[0]), *c[1], c[2], span=s),
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
    "list": lambda b, c, s: syntax.ListOf(_present(c), span=s),
    "names": lambda b, c, s: tuple(b.name(part) for part in c),
}
for _name, _build in _RULES.items():
    setattr(_Builder, _name, _rule(_build))
_BUILDER = _Builder()
