"""Reading the text form of a graph word by word: tokens, faults with their place, sizes, types, masks, initialisers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from tfdsl.ir import dims, masks
from tfdsl.ir.dims import DimError, Size
from tfdsl.ir.graph import Initializer, Type
from tfdsl.language.diagnostics import Source, Span, did_you_mean, one

_TOKEN = re.compile(
    r"""
    (?P<blank> [ \t\r\n]+ | \#[^\n]* )
  | (?P<value> %[A-Za-z_]\w*(?:\.\d+)? )
  | (?P<path> @[\w.*]+ )
  | (?P<string> "(?:[^"\\\n]|\\.)*" )
  | (?P<number> \d+\.(?!\.)\d*(?:e[+-]?\d+)? | \d+e[+-]?\d+ | \d+ )
  | (?P<name> [A-Za-z_]\w* )
  | (?P<mark> \.\. | \*\* | // | <= | >= | == | != | [-+*/%(){}\[\],:;=<>&|$.] )
""",
    re.VERBOSE,
)
DTYPES = ("float", "int", "bool")


@dataclass(frozen=True)
class Token:
    """A word of the text; `kind` is value, path, string, number, name, mark or end."""

    kind: str
    text: str
    span: Span


def tokens(source: Source) -> list[Token]:
    """The words of a text, blanks and comments left out, an `end` last. Raises `SpecError` (T605)."""
    found: list[Token] = []
    position = 0
    while position < len(source.text):
        match = _TOKEN.match(source.text, position)
        if match is None:
            span = Span(source, position, position + 1)
            raise one("T605", f"unexpected character `{source.text[position]}` in a graph", span)
        if match.lastgroup != "blank":
            assert match.lastgroup is not None
            found.append(Token(match.lastgroup, match[0], Span(source, position, match.end())))
        position = match.end()
    end = max(len(source.text.rstrip()), 1)
    return [*found, Token("end", "the end", Span(source, end - 1, end))]


class Cursor:
    """A place in a list of tokens."""

    def __init__(self, source: Source):
        self._tokens = tokens(source)
        self._at = 0

    # --- tokens ----------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        """The token that comes next."""
        return self._tokens[self._at]

    def ahead(self, count: int = 1) -> Token:
        """The token after the next one."""
        return self._tokens[min(self._at + count, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Go past the next token."""
        token = self.token
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def fail(self, message: str, token: Token | None = None, help: str = "") -> NoReturn:
        """Raise the fault of a text that cannot be read."""
        raise one("T605", message, (token or self.token).span, help=help)

    def has(self, *texts: str) -> bool:
        """Whether a name or mark of such a text comes next."""
        return self.token.kind in ("name", "mark") and self.token.text in texts

    def accept(self, text: str) -> bool:
        """Go past a name or mark if it comes next."""
        if self.has(text):
            self.take()
            return True
        return False

    def expect(self, text: str) -> Token:
        """Go past a name or mark that must come next."""
        if not self.has(text):
            self.fail(f"expected `{text}`, not `{self.token.text}`")
        return self.take()

    def kind(self, kind: str, what: str) -> str:
        """The text of the next token, which must be of a kind; without its sigil."""
        if self.token.kind != kind:
            self.fail(f"expected {what}, not `{self.token.text}`")
        text = self.take().text
        return text[1:] if kind in ("value", "path") else text

    def name(self) -> str:
        return self.kind("name", "a name")

    def string(self) -> str:
        token = self.token
        try:
            return str(json.loads(self.kind("string", "a string")))
        except json.JSONDecodeError:
            self.fail("the string has an escape that means nothing", token)

    # --- numbers and sizes -----------------------------------------------------------------------------------------

    def starts_float(self) -> bool:
        """Whether a number with a point or an exponent comes next."""
        token = self.ahead() if self.has("-") else self.token
        return token.kind == "number" and not token.text.isdigit()

    def number(self) -> int | float:
        """A number, whole or not."""
        sign = -1 if self.accept("-") else 1
        if self.has("inf", "nan"):
            return sign * float(self.take().text)
        text = self.kind("number", "a number")
        return sign * (int(text) if text.isdigit() else float(text))

    def whole(self) -> int:
        token = self.token
        number = self.number()
        if isinstance(number, float):
            self.fail(f"expected a whole number, not `{token.text}`", token)
        return number

    def size(self) -> Size:
        """A size: sums of products of names, numbers, `//`, `%`, min and max."""
        token = self.token
        try:
            return self._sum()
        except DimError as error:
            self.fail(str(error), token)

    def _sum(self) -> Size:
        total = self._product()
        while self.has("+", "-"):
            plus = self.take().text == "+"
            right = self._product()
            total = total + right if plus else total - right
        return total

    def _product(self) -> Size:
        left = self._signed()
        while self.has("*", "/", "//", "%"):
            operator = self.take().text
            right = self._signed()
            if operator == "*":
                left = left * right
            else:
                left = {"/": dims.divide, "//": dims.floor, "%": dims.remainder}[operator](left, right)
        return left

    def _signed(self) -> Size:
        if self.accept("-"):
            return -self._signed()
        base = self._atom()
        return base ** self.whole() if self.accept("**") else base

    def _atom(self) -> Size:
        if self.accept("("):
            inside = self._sum()
            self.expect(")")
            return inside
        if self.token.kind == "number":
            return self.whole()
        if self.has("min", "max") and self.ahead().text == "(":
            function = {"min": dims.minimum, "max": dims.maximum}[self.take().text]
            self.expect("(")
            left = self._sum()
            self.expect(",")
            right = self._sum()
            self.expect(")")
            return function(left, right)
        return dims.symbol(self.kind("name", "a size"))

    def sizes(self) -> tuple[Size, ...]:
        """Sizes in brackets."""
        self.expect("[")
        found: list[Size] = []
        while not self.accept("]"):
            found.append(self.size())
            if not self.has("]"):
                self.expect(",")
        return tuple(found)

    def type(self) -> Type:
        """An element type, `float` if none is written, and a shape."""
        dtype = "float"
        if self.token.kind == "name":
            token = self.take()
            dtype = token.text
            if dtype not in DTYPES:
                self.fail(f"`{dtype}` is no element type", token, did_you_mean(dtype, DTYPES, "float, int or bool"))
        return Type(dtype, self.sizes())

    # --- attributes of a kind of their own -------------------------------------------------------------------------

    def initializer(self) -> Initializer:
        """`normal(0.02)`, `zeros`."""
        kind = self.name()
        numbers: list[float] = []
        if self.accept("("):
            while not self.accept(")"):
                numbers.append(float(self.number()))
                if not self.has(")"):
                    self.expect(",")
        return Initializer(kind, tuple(numbers))

    def mask(self) -> masks.Mask:
        """Terms joined by `|`, `&` and `not`."""
        return self._joined("|")

    def _joined(self, operator: str) -> masks.Mask:
        left = self._joined("&") if operator == "|" else self._mask_term()
        while self.accept(operator):
            right = self._joined("&") if operator == "|" else self._mask_term()
            left = masks.Joined(operator, left, right)
        return left

    def _mask_term(self) -> masks.Mask:
        if self.accept("not"):
            return masks.Negated(self._mask_term())
        if self.accept("("):
            inside = self.mask()
            self.expect(")")
            return inside
        token = self.token
        kind = masks.KINDS.get(self.name())
        if kind is None:
            self.fail(f"`{token.text}` is no mask", token, did_you_mean(token.text, masks.KINDS))
        arguments: list[int] = []
        operand: int | None = None
        if self.accept("("):
            while not self.accept(")"):
                if self.accept("$"):
                    operand = self.whole()
                else:
                    arguments.append(self.whole())
                if not self.has(")"):
                    self.expect(",")
        for_each = kind.each and not arguments and operand is not None
        if not for_each and (len(arguments) != len(kind.arguments) or (operand is None) != (kind.operand is None)):
            self.fail(f"`{kind.name}` is given other numbers than it takes", token)
        return masks.Term(kind.name, tuple(arguments), operand)
