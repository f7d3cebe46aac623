"""The syntax tree: frozen dataclasses, each with the span of text that it came from.

Equality ignores spans, so that a tree equals the tree of its own printed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Union

from tfdsl.language.diagnostics import Source, Span


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A node of the syntax tree."""

    span: Span = field(compare=False, repr=False)

    def children(self) -> Iterator[Tree]:
        """The nodes directly below, in the order of the text."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tree):
                yield value
            elif isinstance(value, tuple):
                for item in value:
                    if isinstance(item, Tree):
                        yield item

    def walk(self) -> Iterator[Tree]:
        """This node and all below it, parents first; safe at any depth."""
        waiting: list[Tree] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(list(node.children())))


# --- expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name(Tree):
    """A name where one is declared or bound."""

    text: str


@dataclass(frozen=True)
class Number(Tree):
    """A number; `text` keeps its spelling (`10_000`, `1e6`)."""

    value: int | float
    text: str = field(compare=False)


@dataclass(frozen=True)
class String(Tree):
    value: str


@dataclass(frozen=True)
class Literal(Tree):
    """`true`, `false` or `none`."""

    value: bool | None


@dataclass(frozen=True)
class Path(Tree):
    """A name, or names joined by dots: `wte.weight`."""

    parts: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Argument(Tree):
    """An argument of a call; `keyword` is None for one given by position."""

    keyword: Name | None
    value: Expression


@dataclass(frozen=True)
class Call(Tree):
    """`callee(arguments) as name`; the callee is a name, or an element of a list."""

    callee: Path | Index
    arguments: tuple[Argument, ...]
    name: Name | None = None


@dataclass(frozen=True)
class Index(Tree):
    base: Expression
    index: Expression

    @property
    def text(self) -> str:
        """What is written, for messages."""
        return self.span.text


@dataclass(frozen=True)
class Member(Tree):
    """A name after an index: `h[i].attn`; names joined by dots alone are a `Path`."""

    base: Expression
    name: Name


@dataclass(frozen=True)
class ListOf(Tree):
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Unary(Tree):
    """`-x` or `not x`."""

    operator: str
    operand: Expression


@dataclass(frozen=True)
class Binary(Tree):
    """Two operands: arithmetic, a comparison, `&`, `|` or a range `..`."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Choice(Tree):
    """`if condition then this else that`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True)
class Pipe(Tree):
    """`value |> stage`."""

    value: Expression
    stage: Path | Call | Index


Expression = Union[Number, String, Literal, Path, Call, Index, Member, ListOf, Unary, Binary, Choice, Pipe]


# --- statements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter(Tree):
    """`param name: kind = default`."""

    name: Name
    kind: Name | None
    default: Expression | None


@dataclass(frozen=True)
class Require(Tree):
    condition: Expression
    why: String | None


@dataclass(frozen=True)
class Initialize(Tree):
    """`initialize "pattern" = initialiser`."""

    pattern: String
    value: Expression


@dataclass(frozen=True)
class Penalty(Tree):
    """`penalty name = expr`: an auxiliary loss."""

    name: Name
    value: Expression


@dataclass(frozen=True)
class Bind(Tree):
    names: tuple[Name, ...]
    value: Expression


@dataclass(frozen=True)
class Repeat(Tree):
    """`repeat name[count] as index { body }`."""

    name: Name
    count: Expression
    index: Name | None
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Return(Tree):
    values: tuple[Expression, ...]


Statement = Union[Parameter, Require, Initialize, Penalty, Bind, Repeat, Return]


# --- top level -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ellipsis_(Tree):
    """`...` in a shape: any number of leading axes."""


@dataclass(frozen=True)
class TensorType(Tree):
    """`int[batch, seq]`; `dtype` is None where it is not written."""

    dtype: Name | None
    extents: tuple[Expression | Ellipsis_, ...]


@dataclass(frozen=True)
class Input(Tree):
    name: Name
    type: TensorType
    optional: bool


@dataclass(frozen=True)
class Output(Tree):
    name: Name | None
    type: TensorType


@dataclass(frozen=True)
class Import(Tree):
    names: tuple[Name, ...]
    path: String


@dataclass(frozen=True)
class Block(Tree):
    """A `block` or a `model` (`kind` says which)."""

    kind: str
    name: Name
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Setting(Tree):
    """`name = value` in a variant or a plan."""

    name: Name
    value: Expression


@dataclass(frozen=True)
class Variant(Tree):
    """`model name extends base { settings }`."""

    name: Name
    base: Name
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Section(Tree):
    """`train`, `optimize` or `deploy` of a plan."""

    kind: str
    items: tuple[Setting | Call, ...]

    @property
    def kind_span(self) -> Span:
        """The word that says the kind."""
        return Span(self.span.source, self.span.start, self.span.start + len(self.kind))


@dataclass(frozen=True)
class Plan(Tree):
    name: Name
    model: Name
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Rule(Tree):
    """`"their.name" -> expression` of a mapping."""

    theirs: String
    ours: Expression


@dataclass(frozen=True)
class Mapping(Tree):
    name: Name
    model: Name
    rules: tuple[Rule, ...]


Item = Union[Import, Block, Variant, Plan, Mapping]


@dataclass(frozen=True)
class Comment(Tree):
    """A comment, with its `#`."""

    text: str


@dataclass(frozen=True)
class File(Tree):
    """A whole file; comments stand beside the items, in order, for the printer."""

    items: tuple[Item, ...]
    comments: tuple[Comment, ...] = field(compare=False, default=())

    @property
    def source(self) -> Source:
        return self.span.source
