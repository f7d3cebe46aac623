"""What to say of a syntax error: what was expected, the bracket that is still open, the slip that was likely made."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import lark
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from tfdsl.language.diagnostics import Diagnostic, Label, Source, Span, did_you_mean

_CHARACTER_HELP = {
    "'": "strings take double quotes",
    "\u2018": "strings take plain double quotes",
    "\u201c": 'strings take plain double quotes, `"`',
    "\u201d": 'strings take plain double quotes, `"`',
    ";": "statements need no terminator",
    "\\": "lines need no continuation",
    "^": "a power is written `**`",
    "!": "a negation is written `not`",
    "\u2212": "this is a minus sign of print; a plain `-` is wanted",
    "\u00a0": "this is a space that does not break; a plain one is wanted",
    "$": "names are written without a sign before them",
    "\0": "this does not look like a text file",
}
_TERMINAL_WORDS = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "$END": "the end of the file",
    "OPTIONAL": "`?`",
    "ELLIPSIS": "`...`",
}
# Groups of what may stand at a place that a reader takes as one.
_STATEMENT = {"PARAM", "REQUIRE", "INITIALIZE", "PENALTY", "REPEAT", "RETURN"}
_CONTINUATION = {"ADD", "SUB", "MUL", "POW", "COMPARE", "AND", "OR", "RANGE", "PIPE", "LPAR", "LSQB", "DOT"}
_EXPRESSION = {"NUMBER", "NAME", "STRING", "LPAR"}
_WORD_HELP = {
    "and": "conditions and masks are joined with `&`",
    "or": "conditions and masks are joined with `|`",
    "elif": "choices are chained with `else if`",
    "lambda": "a layer with settings is a value: `linear(out=8)`",
    "def": "a `block` is what other languages call a function",
    "class": "a `block` is what other languages call a class",
    "let": "a name is bound by `name = value` alone",
    "var": "a name is bound by `name = value` alone",
    "while": "`repeat name[count] { ... }` is the only loop",
    "for": "`repeat name[count] as i { ... }` is the only loop",
    "if": "`if c then a else b` is an expression: `y = if c then a else b`",
}
_PIECE = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]')
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}


def syntax_fault(
    source: Source, error: UnexpectedToken | UnexpectedCharacters, keywords: Collection[str], parser: lark.Lark
) -> Diagnostic:
    """The diagnostic for what Lark could not go on from."""
    if isinstance(error, UnexpectedCharacters):
        return _unexpected_character(source, error.pos_in_stream or 0)
    token = error.token
    accepted = set(error.accepts or error.expected)
    expected = _expected(accepted, parser)
    if token.type == "$END":
        return _ends_early(source, accepted, expected)
    span = Span(source, token.start_pos or 0, token.end_pos or 0)
    starts_line = not source.text[: span.start].rpartition("\n")[2].strip()
    outside = token in keywords or token in _CLOSED_BY.values() or starts_line
    outside = outside and not _names_a_layer(token, accepted)
    opened = _open_bracket(source, span.start, accepted) if outside else None
    help_ = "" if starts_line and accepted >= _EXPRESSION else _slip(error, accepted, keywords)
    if not help_ and opened is None:
        help_ = _misspelt_before(error, keywords)
    others = (opened,) if opened else ()
    return Diagnostic("T101", f"unexpected `{token}`", span, note=f"expected {expected}", others=others, help=help_)


def _unexpected_character(source: Source, start: int) -> Diagnostic:
    character = source.text[start]
    span = Span(source, start, start + 1)
    if character == '"':
        end = source.text.find("\n", start)
        span = Span(source, start, len(source.text) if end < 0 else end)
        return Diagnostic("T102", "a string is not closed", span, help="a string ends on the line that it starts on")
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    return Diagnostic("T102", f"unexpected character `{shown}`", span, help=_CHARACTER_HELP.get(character, ""))


def _ends_early(source: Source, accepted: set[str], expected: str) -> Diagnostic:
    end = len(source.text.rstrip())
    if not end:
        return Diagnostic("T103", "there is no text here", Span(source, 0, 0), note=f"expected {expected}")
    span = Span(source, end - 1, end)
    opened = _open_bracket(source, end, accepted)
    return Diagnostic(
        "T103",
        "the text ends too early",
        span,
        note=f"after this, expected {expected}",
        others=(opened,) if opened else (),
    )


def _open_bracket(source: Source, before: int, accepted: set[str]) -> Label | None:
    """The innermost bracket that is open at a place, if what closes it could stand there."""
    opened: list[re.Match[str]] = []
    for piece in _PIECE.finditer(source.text, 0, before):
        if piece[0] in _CLOSED_BY:
            opened.append(piece)
        elif opened and piece[0] == _CLOSED_BY[opened[-1][0]]:
            opened.pop()
    closer = {"(": "RPAR", "[": "RSQB", "{": "RBRACE"}
    if not opened or closer[opened[-1][0]] not in accepted:
        return None
    piece = opened[-1]
    return Label(Span(source, piece.start(), piece.end()), f"this `{piece[0]}` is not closed")


def _slip(error: UnexpectedToken, accepted: set[str], keywords: Collection[str]) -> str:
    """Help for the slips that people make who come from other languages."""
    token, before = str(error.token), _token_before(error)
    if before in _WORD_HELP and before not in keywords:
        return _WORD_HELP[before]
    if token in ("if", "for") and "RETURN" in accepted:
        return _WORD_HELP[token]
    if _names_a_layer(error.token, accepted):
        return "the name of a layer follows its parentheses: `x |> layer_norm() as norm`"
    if token in keywords and "NAME" in accepted:
        return f"`{token}` is a keyword and cannot be a name"
    if error.token.type == "PIPE" and "ELSE" in accepted:
        return "a pipe before `else` stands in parentheses: `if c then (x |> f) else y`"
    if token == "=" and before in keywords:
        return f"`{before}` is a keyword and cannot be a name"
    if token == "=" and "COMPARE" in accepted:
        return "`==` compares"
    if error.token.type == "COMPARE" and "AND" in accepted:
        return "comparisons do not chain; `a < b & b < c` joins two"
    if token == "//" and not accepted >= _EXPRESSION:
        return "a comment starts with `#`"
    if "BLOCK" in accepted and error.token.type == "NAME":
        return did_you_mean(token, _words(accepted, keywords), "statements stand inside a `block` or a `model`")
    if error.token.type == "NAME":
        return _WORD_HELP.get(token, "") or did_you_mean(token, _words(accepted, keywords))
    return ""


def _names_a_layer(token: lark.Token, accepted: set[str]) -> bool:
    """Whether an `as` stands where the parentheses of a call could."""
    return token == "as" and "LPAR" in accepted


def _token_before(error: UnexpectedToken) -> str:
    stack: list[Any] = error.interactive_parser.parser_state.value_stack if error.interactive_parser else []
    return str(stack[-1]) if stack and isinstance(stack[-1], lark.Token) else ""


def _words(terminals: Iterable[str], keywords: Collection[str]) -> list[str]:
    """The keywords among the terminals that could have stood at a place."""
    return [name.lower() for name in terminals if name.lower() in keywords]


def _misspelt_before(error: UnexpectedToken, keywords: Collection[str]) -> str:
    """Help where the token before the fault is a name that nearly is a keyword: `retrun x` stops at `x` only."""
    before: Any = error.interactive_parser.copy(deepcopy_values=False)
    if not before.parser_state.value_stack:
        return ""
    before.parser_state.state_stack.pop()
    name = before.parser_state.value_stack.pop()
    if not isinstance(name, lark.Token) or name.type != "NAME":
        return ""
    help_ = did_you_mean(str(name), _words(before.accepts(), keywords))
    return f"`{name}` was read as a name; {help_}" if help_ else ""


def _expected(accepted: set[str], parser: lark.Lark) -> str:
    """What could have stood at a place, in words."""
    if accepted >= _EXPRESSION:
        return "an expression"
    patterns = {terminal.name: terminal.pattern.value.replace("\\", "") for terminal in parser.terminals}
    last = []
    rest = set(accepted)
    for group, word in ((_STATEMENT, "another statement"), (_CONTINUATION, "an operator")):
        if len(group & rest) >= 4:
            rest -= group | ({"NAME"} if group is _STATEMENT else set())
            last.append(word)
    words = [_TERMINAL_WORDS.get(name, f"`{patterns.get(name, name.lower())}`") for name in sorted(rest)]
    words = sorted(set(words), key=lambda word: (not word.startswith("`"), word)) + last
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1] if words else "nothing more"
