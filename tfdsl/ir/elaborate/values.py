"""What names stand for while a spec is elaborated: tensors, layers, masks; and where weights and nodes go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Graph, Initializer, Node, Type, Value
from tfdsl.ir.masks import Mask
from tfdsl.ir.op import Op
from tfdsl.language.diagnostics import Diagnostic, Label, Span
from tfdsl.language.modules import Declared
from tfdsl.language.syntax import Expression

if TYPE_CHECKING:
    from tfdsl.ir.elaborate.body import Body


class Fault(Exception):
    """One diagnostic, raised to the statement at fault."""

    def __init__(self, code: str, message: str, span: Span | None, **rest: Any):
        super().__init__(message)
        self.diagnostic = Diagnostic(code, message, span, **rest)

    def because(self, labels: Iterable[Label]) -> Fault:
        """The fault with more places that have to do with it, each once."""
        seen = [label.span for label in self.diagnostic.others]
        new = [label for label in labels if label.span not in seen and label.span != self.diagnostic.span]
        self.diagnostic = replace(self.diagnostic, others=(*self.diagnostic.others, *new))
        return self


class Poisoned(Exception):
    """Something here depends on what was already reported; nothing more is said."""


class Exhausted(Exception):
    """The spec takes more work than any model needs: nothing of it is looked at any more."""

    def __init__(self, code: str, message: str, span: Span):
        super().__init__(message)
        self.diagnostic = Diagnostic(code, message, span)


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
    keyword: Span | None = None

    @property
    def at(self) -> Span:
        """The keyword, or the value where it has none: what is at fault when a setting is unknown."""
        return self.keyword or self.span


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
    """A node in the tree of weight paths; `span` is where it got its name.

    A name may be used again and again by layers without weights: then several places have one path, and at most one of
    them may come to hold weights.
    """

    path: str
    parent: Place | None = None
    span: Span | None = None
    children: dict[str, list[Place]] = field(default_factory=dict)
    weights: dict[str, tuple[Type, Initializer, Span]] = field(default_factory=dict)
    is_weight: bool = False
    _claims: dict[str, tuple[object, int]] = field(default_factory=dict)

    def join(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def claim(self, name: str, application: object, span: Span) -> Place:
        """The place for what is called `name`: another for each use in one application of a body."""
        known, count = self._claims.get(name, (None, 0))
        count = count + 1 if known is application else 1
        self._claims[name] = (application, count)
        places = self.children.setdefault(name, [])
        if len(places) < count:
            places.append(Place(self.join(name), self, span))
        return places[count - 1]

    def child(self, name: str) -> Place | None:
        """The place below that holds the weights of a name, or else the last that goes by it."""
        places = self.children.get(name, ())
        return next((place for place in places if place.has_weights()), places[-1] if places else None)

    def has_weights(self) -> bool:
        return (
            self.is_weight
            or bool(self.weights)
            or any(each.has_weights() for all_ in self.children.values() for each in all_)
        )

    def clash(self) -> tuple[Place, Place] | None:
        """This place or one above it, and another of the same path that has weights already."""
        place = self
        while place.parent is not None:
            for other in place.parent.children[place.name]:
                if other is not place and other.has_weights():
                    return place, other
            place = place.parent
        return None


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
        return f"the number {value}"
    if isinstance(value, Dim):
        return f"the size {value}"
    if isinstance(value, (Layer, Instance)):
        return "a layer"
    for kind, words in (
        (MaskValue, "a mask"),
        (tuple, f"a list of {len(value) if isinstance(value, tuple) else 0}"),
        (Results, "several tensors"),
        (Initializer, "an initialiser"),
        (Range, "a range"),
        (Undecided, "a condition that only run time knows"),
    ):
        if isinstance(value, kind):
            return words
    return "none" if value is None else "an input that was not given" if value is ABSENT else repr(value)
