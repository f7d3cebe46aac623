"""Nodes in the text form of a graph: an op with its operands and attributes; weights and constants where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir.dims import Dim, Size
from tfdsl.ir.graph import Frame, Graph, Initializer, Node, Type, Value
from tfdsl.ir.op import Attribute, Op
from tfdsl.ir.ops import OPS
from tfdsl.ir.text_cursor import Cursor
from tfdsl.language.diagnostics import did_you_mean


@dataclass
class Reading:
    """A region that is being read: its values by name, and the frames that were opened in it."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    frames: dict[tuple[Any, ...], Frame] = field(default_factory=dict)
    scope: tuple[Frame, ...] = ()


@dataclass
class _Arguments:
    """What stands in the parentheses of a node."""

    positional: list[Value] = field(default_factory=list)
    named: dict[str, Value] = field(default_factory=dict)
    variadic: list[Value] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


class NodeReader:
    """Reads nodes into a region; it knows the weights that were described before."""

    def __init__(self, cursor: Cursor):
        self.cursor = cursor
        self._weights: dict[str, tuple[Type, Initializer | None]] = {}

    def op(self, region: Reading) -> Node:
        cursor = self.cursor
        token = cursor.token
        record = OPS.get(cursor.name())
        if record is None:
            cursor.fail(f"there is no op `{token.text}`", token, did_you_mean(token.text, OPS))
        arguments = self._arguments(region, record)
        inputs: list[Value | None] = []
        waiting = list(arguments.positional)
        for operand in record.operands:
            if operand.variadic:
                inputs += arguments.variadic or waiting
                waiting = []
            else:
                inputs.append(arguments.named.get(operand.name) or (waiting.pop(0) if waiting else None))
        if waiting:
            cursor.fail(f"{record.name} takes fewer operands", token, record.signature())
        first = inputs[0] if inputs else None
        for attribute in record.attributes:
            if attribute.kind == "axis" and attribute.name not in arguments.attributes and first is not None:
                arguments.attributes[attribute.name] = attribute.default + len(region.graph.type(first).dims)
        return self.add(region, record.name, inputs, arguments.attributes, self.types(), name=record.name)

    def add(
        self, region: Reading, op: str, inputs: Any, attributes: dict[str, Any], types: tuple[Type, ...], **rest: Any
    ) -> Node:
        return region.graph.add(op, inputs, attributes, types, scope=region.scope, **rest)

    def types(self) -> tuple[Type, ...]:
        cursor = self.cursor
        found: list[Type] = []
        if cursor.accept(":"):
            found.append(cursor.type())
            while cursor.accept(","):
                found.append(cursor.type())
        return tuple(found)

    def _arguments(self, region: Reading, record: Op) -> _Arguments:
        cursor = self.cursor
        found = _Arguments()
        cursor.expect("(")
        while not cursor.accept(")"):
            if cursor.token.kind == "string" and record.leading:
                found.attributes[record.leading] = cursor.string()
            elif cursor.token.kind == "name" and cursor.ahead().text == "=":
                self._keyword(region, record, found)
            else:
                found.positional.append(self.operand(region))
            if not cursor.has(")"):
                cursor.expect(",")
        return found

    def _keyword(self, region: Reading, record: Op, found: _Arguments) -> None:
        """An optional operand or an attribute; a layer norm's `bias=%b` is the one, `bias=false` the other."""
        cursor = self.cursor
        token = cursor.token
        name = cursor.name()
        cursor.expect("=")
        operand = next((each for each in record.operands if each.name == name), None)
        if operand is not None and cursor.token.kind in ("value", "path"):
            found.named[name] = self.operand(region)
        elif operand is not None and operand.variadic:
            cursor.expect("[")
            while not cursor.accept("]"):
                found.variadic.append(self.operand(region))
                if not cursor.has("]"):
                    cursor.expect(",")
        else:
            self._attribute(record, name, token, found)

    def _attribute(self, record: Op, name: str, token: Any, found: _Arguments) -> None:
        cursor = self.cursor
        attribute = record.attribute(name)
        names = next((each for each in record.attributes if each.kind == "names"), None)
        if names is not None and (attribute is None or attribute is names):
            known: tuple[tuple[str, Size], ...] = found.attributes.get(names.name, ())
            found.attributes[names.name] = tuple(sorted((*known, (name, cursor.size()))))
            return
        if attribute is None:
            known_names = [each.name for each in record.attributes] + [each.name for each in record.operands]
            cursor.fail(f"{record.name} has no attribute `{name}`", token, did_you_mean(name, known_names))
        found.attributes[name] = self._attribute_value(attribute)

    def _attribute_value(self, attribute: Attribute) -> Any:
        cursor = self.cursor
        if cursor.accept("none"):
            return None
        read = _READ.get(attribute.kind)
        if read is None:
            cursor.fail(f"`{attribute.name}` cannot be written as an attribute")
        return read(cursor)

    # --- operands --------------------------------------------------------------------------------------------------

    def value(self, region: Reading) -> Value:
        """A value by its name."""
        token = self.cursor.token
        name = self.cursor.kind("value", "a value")
        if name not in region.values:
            self.cursor.fail(f"there is no value `%{name}` here", token, did_you_mean(name, region.values))
        return region.values[name]

    def operand(self, region: Reading) -> Value:
        """A value, or a weight or a constant, which becomes a node."""
        cursor = self.cursor
        if cursor.token.kind == "value":
            return self.value(region)
        if cursor.token.kind == "path":
            return self._weight(region)
        value, dtype = self._constant()
        node = self.add(region, "constant", (), {"value": value, "dtype": dtype}, (Type(dtype, ()),), name="constant")
        return Value(node.id)

    def _constant(self) -> tuple[bool | int | float | Dim, str]:
        cursor = self.cursor
        if cursor.has("true", "false"):
            return cursor.take().text == "true", "bool"
        if cursor.has("float") and cursor.ahead().text == "(":
            cursor.take()
            cursor.expect("(")
            special = cursor.ahead() if cursor.has("-") else cursor.token
            value = cursor.number() if special.text in ("inf", "nan") else cursor.size()
            cursor.expect(")")
            return value, "float"
        return (cursor.number(), "float") if cursor.starts_float() else (cursor.size(), "int")

    def _weight(self, region: Reading) -> Value:
        cursor = self.cursor
        token = cursor.token
        path = cursor.kind("path", "a path")
        if cursor.accept(":"):
            type_ = cursor.type()
            self._weights[path] = type_, cursor.initializer() if cursor.accept("=") else None
        elif path not in self._weights:
            cursor.fail(
                f"`@{path}` is not described", token, "the first use of a weight has its shape: @w: [2, 3] = zeros"
            )
        type_, init = self._weights[path]
        attributes = {"path": path, "shape": type_.dims, "init": init}
        return Value(self.add(region, "weight", (), attributes, (type_,), name=path.rpartition(".")[2]).id)


def _read_bool(cursor: Cursor) -> bool:
    if not cursor.has("true", "false"):
        cursor.fail(f"expected true or false, not `{cursor.token.text}`")
    return cursor.take().text == "true"


def _read_ints(cursor: Cursor) -> Any:
    if not cursor.accept("["):
        return cursor.whole()
    found: list[int] = []
    while not cursor.accept("]"):
        found.append(cursor.whole())
        if not cursor.has("]"):
            cursor.expect(",")
    return tuple(found)


def _read_numbers(cursor: Cursor) -> Any:
    """A list of numbers or of true and false, or of lists of them."""
    if cursor.accept("["):
        found: list[Any] = []
        while not cursor.accept("]"):
            found.append(_read_numbers(cursor))
            if not cursor.has("]"):
                cursor.expect(",")
        return tuple(found)
    return _read_bool(cursor) if cursor.has("true", "false") else cursor.number()


_READ: dict[str, Callable[[Cursor], Any]] = {
    "size": Cursor.size,
    "sizes": Cursor.sizes,
    "int": Cursor.whole,
    "axis": Cursor.whole,
    "ints": _read_ints,
    "number": Cursor.number,
    "numbers": _read_numbers,
    "bool": _read_bool,
    "string": Cursor.string,
    "mask": Cursor.mask,
    "initializer": Cursor.initializer,
}
