"""What names stand for while a spec is elaborated: tensors, layers, masks; and where weights and nodes go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Frame, Graph, Initializer, Node, Type, Value
from tfdsl.ir.masks import Mask
from tfdsl.ir.op import Op
from tfdsl.language.diagnostics import Diagnostic, Span
from tfdsl.language.modules import Declared
from tfdsl.language.syntax import Expression

if TYPE_CHECKING:
    from tfdsl.ir.elaborate.body import Body


class Fault(Exception):
    """One diagnostic, raised to the statement at fault."""

    def __init__(self, code: str, message: str, span: Span | None, **rest: Any):
        super().__init__(message)
        self.diagnostic = Diagnostic(code, message, span, **rest)


class Poisoned(Exception):
    """Something here depends on what was already reported; nothing more is said."""


class _Word:
    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


POISON = _Word("poison")  # stands for the result of a statement at fault
ABSENT = _Word("absent")  # stands for an optional input that the caller did not give


@dataclass(frozen=True)
class Tensor:
    """One value of a region's graph."""

    value: Value
    type: Type
    region: Region

    @property
    def node(self) -> Node:
        return self.region.graph.node(self.value)


@dataclass(frozen=True)
class Results:
    """What an application with several results gives."""

    tensors: tuple[Any, ...]
    names: tuple[str | None, ...]


@dataclass(frozen=True)
class Given:
    """A setting with where it was written: `body` is the scope whose names `expression` uses."""

    value: Any
    expression: Expression | None
    body: Body | None
    span: Span


@dataclass(frozen=True)
class Layer:
    """An op or a block with settings, not yet a place for weights."""

    callee: Op | Declared
    given: Mapping[str, Given]
    name: str | None
    span: Span

    @property
    def label(self) -> str:
        return self.callee.name


@dataclass(frozen=True)
class Instance:
    """A layer bound in a body: its weights have a place, and every application shares them."""

    layer: Layer
    place: Place


@dataclass(frozen=True)
class MaskValue:
    """A mask with the tensors that its terms read."""

    mask: Mask
    operands: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Range:
    """`1..64`, in a plan."""

    low: int
    high: int


@dataclass(frozen=True)
class Undecided:
    """Comparisons of sizes that only run time can make; all must hold."""

    parts: tuple[tuple[str, Size, Size], ...]


@dataclass(eq=False)
class Place:
    """A node in the tree of weight paths."""

    path: str
    children: dict[str, Place] = field(default_factory=dict)
    weights: dict[str, tuple[Type, Initializer, Span]] = field(default_factory=dict)
    claims: dict[str, tuple[object, Span]] = field(default_factory=dict)

    def join(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def claim(self, name: str, application: object, span: Span) -> Span | None:
        """Take a name for one application of a body; the place that has it already, if one does."""
        known = self.claims.get(name)
        if known is not None and known[0] is application:
            return known[1]
        self.claims[name] = (application, span)
        return None

    def child(self, name: str) -> Place:
        if name not in self.children:
            self.children[name] = Place(self.join(name))
        return self.children[name]


@dataclass(eq=False)
class Region:
    """A graph under construction: the model, or a body whose outer values come in as inputs when they are used."""

    graph: Graph
    parent: Region | None = None
    captures: list[Tensor] = field(default_factory=list)  # shared by all bodies of one loop
    _inside: dict[Value, Tensor] = field(default_factory=dict)
    _references: dict[tuple[int, Value], Value] = field(default_factory=dict)

    def use(self, tensor: Tensor) -> Value:
        """The value by which this region reads a tensor, captured from outside if need be."""
        if tensor.region is self:
            return tensor.value
        node = tensor.node
        if node.op in ("weight", "constant"):
            return self._again(tensor, node)
        assert self.parent is not None, "a tensor of another model"
        outer = self.parent.use(tensor)
        if outer not in self._inside:
            if outer not in [known.value for known in self.captures]:
                self.captures.append(Tensor(outer, tensor.type, self.parent))
            self._inside[outer] = self.add_input(tensor.node.name or "x", tensor.type)
        return self._inside[outer].value

    def _again(self, tensor: Tensor, node: Node) -> Value:
        """Weights and constants are references: a region that uses one names it anew."""
        key = (id(tensor.region), tensor.value)
        if key not in self._references:
            twin = self.graph.add(node.op, (), node.attributes, node.types, name=node.name, span=node.span)
            self._references[key] = Value(twin.id)
        return self._references[key]

    def add_input(self, name: str, type: Type) -> Tensor:
        node = self.graph.add("input", (), {"name": name}, (type,), name=name)
        return Tensor(Value(node.id), type, self)

    def finish(self, carried: list[int]) -> None:
        """Give this body an input for each of the loop's captures, in the same order as every other body."""
        for tensor in self.captures:
            if tensor.value not in self._inside:
                self._inside[tensor.value] = self.add_input(tensor.node.name or "x", tensor.type)
        self.graph.inputs = [*carried, *(self._inside[tensor.value].value.node for tensor in self.captures)]


def kind_of(value: Any) -> str:
    """What a value is, in words for a message."""
    if isinstance(value, Tensor):
        return f"a tensor {value.type}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'the string "{value}"'
    if isinstance(value, (int, float)):
        return f"the number {value:g}" if isinstance(value, float) else f"the number {value}"
    if isinstance(value, Dim):
        return f"the size {value}"
    if isinstance(value, (Layer, Instance)):
        return "a layer"
    for kind, words in (
        (MaskValue, "a mask"),
        (tuple, "a list"),
        (Results, "several tensors"),
        (Initializer, "an initialiser"),
        (Range, "a range"),
        (Undecided, "a condition that only run time knows"),
    ):
        if isinstance(value, kind):
            return words
    return "none" if value is None else "an input that was not given" if value is ABSENT else repr(value)

