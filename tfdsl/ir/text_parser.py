"""The text form of a graph read back (`tfdsl/ir/text.py` shows and explains it). Faults are `SpecError`s, T605."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Constraint, Frame, Graph, Initializer, Node, Type, Value
from tfdsl.ir.op import Attribute, Op
from tfdsl.ir.ops import OPS
from tfdsl.ir.text_cursor import Cursor
from tfdsl.language.diagnostics import Source, did_you_mean

_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


def parse_graph(text: str, name: str = "graph") -> Graph:
    """The graph that a text describes; `name` is what diagnostics call the text. Nothing but its form is checked."""
    reader = _Reader(Cursor(Source(name, text)))
    graph = reader.graph()
    if reader.cursor.token.kind != "end":
        reader.cursor.fail(f"expected the end, not `{reader.cursor.token.text}`")
    return graph


@dataclass
class _Region:
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


class _Reader:
    """One method a construct."""

    def __init__(self, cursor: Cursor):
        self.cursor = cursor
        self._weights: dict[str, tuple[Type, Initializer | None]] = {}

    def graph(self) -> Graph:
        cursor = self.cursor
        cursor.expect("graph")
        name = cursor.string() if cursor.token.kind == "string" else cursor.name()
        region = _Region(Graph(name))
        region.graph.frame = Frame("", name, {})
        cursor.expect("(")
        while not cursor.accept(")"):
            input_name = self._numbered_name()
            cursor.expect(":")
            self._input(region, input_name, cursor.type())
            if not cursor.has(")"):
                cursor.expect(",")
        self._statements(region)
        return region.graph

    def _numbered_name(self) -> str:
        """`x` or `x.2`, as it stands in a list of inputs."""
        cursor = self.cursor
        name = cursor.name()
        return f"{name}.{cursor.whole()}" if cursor.accept(".") else name

    def _input(self, region: _Region, name: str, type_: Type) -> None:
        base = name.partition(".")[0]
        node = region.graph.add("input", (), {"name": base}, (type_,), name=base)
        self._bind(region, name, Value(node.id))

    def _bind(self, region: _Region, name: str, value: Value) -> None:
        if name in region.values:
            self.cursor.fail(f"`%{name}` is there already")
        region.values[name] = value

    # --- statements ------------------------------------------------------------------------------------------------

    def _statements(self, region: _Region) -> None:
        """The statements of a region in braces, up to its `return`."""
        cursor = self.cursor
        cursor.expect("{")
        while not cursor.has("return"):
            if cursor.accept("require"):
                self._require(region)
            elif cursor.accept("penalty"):
                name = cursor.name()
                cursor.expect(":")
                region.graph.penalties.append((name, self._value(region)))
            else:
                self._item(region)
        cursor.expect("return")
        while not cursor.has("}"):
            name = cursor.name()
            cursor.expect(":")
            region.graph.outputs.append((name, self._value(region)))
            if not cursor.has("}"):
                cursor.expect(",")
        cursor.expect("}")

    def _require(self, region: _Region) -> None:
        cursor = self.cursor
        left = cursor.size()
        if not cursor.has(*_COMPARISONS):
            cursor.fail(f"expected a comparison, not `{cursor.token.text}`")
        operator = cursor.take().text
        right = cursor.size()
        why = cursor.string() if cursor.accept(",") else ""
        region.graph.constraints.append(Constraint(operator, left, right, why))

    def _item(self, region: _Region) -> None:
        """A node, or a frame with the nodes in it."""
        cursor = self.cursor
        if cursor.has("in"):
            self._frame(region)
            return
        results: list[str] = []
        while cursor.token.kind == "value":
            results.append(cursor.kind("value", "a value"))
            if not cursor.accept(","):
                break
        if results:
            cursor.expect("=")
        if cursor.token.kind == "path" or not self._starts_op():
            node = region.graph.node(self._operand(region))
        elif cursor.accept("repeat"):
            node = self._repeat(region)
        else:
            node = self._op(region)
        self._assign(region, node, results)

    def _starts_op(self) -> bool:
        """Whether an op's name comes next, and not a constant: `float(seq)` is one, `true` and `seq` are too."""
        cursor = self.cursor
        if cursor.token.kind != "name" or cursor.has("true", "false"):
            return False
        if cursor.has("repeat"):
            return True
        return cursor.ahead().text == "(" and not cursor.has("float", "min", "max") or self._is_op_call()

    def _is_op_call(self) -> bool:
        """`max(%x)` is the op, `max(seq, 2)` the size."""
        cursor = self.cursor
        return cursor.token.text in OPS and cursor.ahead().text == "(" and cursor.ahead(2).kind in ("value", "path")

    def _frame(self, region: _Region) -> None:
        cursor = self.cursor
        cursor.expect("in")
        block = cursor.name()
        number = cursor.whole() if cursor.accept(".") else 1
        path = cursor.kind("path", "a path") if cursor.token.kind == "path" else ""
        outer = region.scope[-1] if region.scope else None
        frame = region.frames.setdefault((id(outer), block, path, number), Frame(path, block, {}))
        before, region.scope = region.scope, (*region.scope, frame)
        cursor.expect("{")
        while not cursor.accept("}"):
            self._item(region)
        region.scope = before

    def _assign(self, region: _Region, node: Node, results: list[str]) -> None:
        """Name the results of a node; several names that differ are the spec's labels."""
        if len(results) != len(node.types):
            self.cursor.fail(f"{node.op} has {len(node.types)} results, and {len(results)} are named")
        bases = [result.partition(".")[0] for result in results]
        if len(set(bases)) > 1 or (node.op == "repeat" and bases):
            node.labels = tuple(bases)
        elif bases:
            node.name = bases[0]
        for index, result in enumerate(results):
            self._bind(region, result, Value(node.id, index))

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _op(self, region: _Region) -> Node:
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
        return self._add(region, record.name, inputs, arguments.attributes, self._types(), name=record.name)

    def _add(
        self, region: _Region, op: str, inputs: Any, attributes: dict[str, Any], types: tuple[Type, ...], **rest: Any
    ) -> Node:
        return region.graph.add(op, inputs, attributes, types, scope=region.scope, **rest)

    def _types(self) -> tuple[Type, ...]:
        cursor = self.cursor
        found: list[Type] = []
        if cursor.accept(":"):
            found.append(cursor.type())
            while cursor.accept(","):
                found.append(cursor.type())
        return tuple(found)

    def _arguments(self, region: _Region, record: Op) -> _Arguments:
        cursor = self.cursor
        found = _Arguments()
        cursor.expect("(")
        while not cursor.accept(")"):
            if cursor.token.kind == "string" and record.leading:
                found.attributes[record.leading] = cursor.string()
            elif cursor.token.kind == "name" and cursor.ahead().text == "=":
                self._keyword(region, record, found)
            else:
                found.positional.append(self._operand(region))
            if not cursor.has(")"):
                cursor.expect(",")
        return found

    def _keyword(self, region: _Region, record: Op, found: _Arguments) -> None:
        """An optional operand or an attribute; a layer norm's `bias=%b` is the one, `bias=false` the other."""
        cursor = self.cursor
        token = cursor.token
        name = cursor.name()
        cursor.expect("=")
        operand = next((each for each in record.operands if each.name == name), None)
        if operand is not None and cursor.token.kind in ("value", "path"):
            found.named[name] = self._operand(region)
        elif operand is not None and operand.variadic:
            cursor.expect("[")
            while not cursor.accept("]"):
                found.variadic.append(self._operand(region))
                if not cursor.has("]"):
                    cursor.expect(",")
        else:
            self._attribute(record, name, token, found)

    def _attribute(self, record: Op, name: str, token: Any, found: _Arguments) -> None:
        cursor = self.cursor
        attribute = record.attribute(name)
        names = next((each for each in record.attributes if each.kind == "names"), None)
        if names is not None and (attribute is None or attribute is names):
            known = dict(found.attributes.get(names.name, ()))
            found.attributes[names.name] = tuple(sorted({**known, name: cursor.size()}.items()))
            return
        if attribute is None:
            known_names = [each.name for each in (*record.attributes, *record.operands)]
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

    def _repeat(self, region: _Region) -> Node:
        """A loop; its bodies' inputs take the types of what the loop reads."""
        cursor = self.cursor
        path = cursor.kind("path", "the path of the loop")
        cursor.expect("[")
        count = cursor.whole()
        cursor.expect("]")
        attributes: dict[str, Any] = {"turns": (0,) * count, "carried": 0, "path": path, "index": None}
        if cursor.accept("as"):
            attributes["index"] = cursor.name()
        if cursor.accept("checkpoint"):
            attributes["checkpoint"] = cursor.whole()
        names, inputs = self._loop_inputs(region, attributes)
        types = self._types()
        bodies = self._bodies(region, attributes, [(n, region.graph.type(v)) for n, v in zip(names, inputs, strict=True)])
        name = path.rpartition(".")[2]
        return self._add(region, "repeat", inputs, attributes, types, name=name, bodies=tuple(bodies))

    def _loop_inputs(self, region: _Region, attributes: dict[str, Any]) -> tuple[list[str], list[Value]]:
        cursor = self.cursor
        cursor.expect("(")
        names: list[str] = []
        inputs: list[Value] = []
        carried: int | None = None
        while not cursor.accept(")"):
            if cursor.accept(";"):
                carried = len(inputs)
                continue
            names.append(self._numbered_name())
            cursor.expect("=")
            inputs.append(self._operand(region))
            if not cursor.has(")", ";"):
                cursor.expect(",")
        attributes["carried"] = len(inputs) if carried is None else carried
        return names, inputs

    def _bodies(self, outer: _Region, attributes: dict[str, Any], inputs: list[tuple[str, Type]]) -> list[Graph]:
        cursor = self.cursor
        path, count = attributes["path"], len(attributes["turns"])
        block = outer.scope[-1].block if outer.scope else outer.graph.frame.block  # type: ignore[union-attr]

        def body() -> Graph:
            region = _Region(Graph(f"{path}.*"))
            region.graph.frame = Frame(f"{path}.*", block, {})
            for name, type_ in inputs:
                self._input(region, name, type_)
            self._statements(region)
            return region.graph

        if cursor.ahead().text not in ("turns", "}"):
            return [body()]
        cursor.expect("{")
        bodies: list[Graph] = []
        turns = [-1] * count
        while not cursor.accept("}"):
            cursor.expect("turns")
            for turn in self._turns(count):
                turns[turn] = len(bodies)
            bodies.append(body())
        if -1 in turns:
            cursor.fail(f"turn {turns.index(-1)} has no body")
        attributes["turns"] = tuple(turns)
        return bodies

    def _turns(self, count: int) -> list[int]:
        """`0..3, 5` or `none`."""
        cursor = self.cursor
        found: list[int] = []
        while not cursor.has("{"):
            if cursor.accept("none"):
                continue
            token = cursor.token
            first = cursor.whole()
            last = cursor.whole() if cursor.accept("..") else first
            if last >= count:
                cursor.fail(f"there are {count} turns", token)
            found += range(first, last + 1)
            if not cursor.has("{"):
                cursor.expect(",")
        return found

    # --- operands --------------------------------------------------------------------------------------------------

    def _value(self, region: _Region) -> Value:
        """A value by its name."""
        token = self.cursor.token
        name = self.cursor.kind("value", "a value")
        if name not in region.values:
            self.cursor.fail(f"there is no value `%{name}` here", token, did_you_mean(name, region.values))
        return region.values[name]

    def _operand(self, region: _Region) -> Value:
        """A value, or a weight or a constant, which becomes a node."""
        cursor = self.cursor
        if cursor.token.kind == "value":
            return self._value(region)
        if cursor.token.kind == "path":
            return self._weight(region)
        value, dtype = self._constant()
        node = self._add(region, "constant", (), {"value": value, "dtype": dtype}, (Type(dtype, ()),), name="constant")
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

    def _weight(self, region: _Region) -> Value:
        cursor = self.cursor
        token = cursor.token
        path = cursor.kind("path", "a path")
        if cursor.accept(":"):
            type_ = cursor.type()
            self._weights[path] = type_, cursor.initializer() if cursor.accept("=") else None
        elif path not in self._weights:
            cursor.fail(f"`@{path}` is not described", token, "the first use of a weight has its shape: @w: [2, 3] = zeros")
        type_, init = self._weights[path]
        attributes = {"path": path, "shape": type_.dims, "init": init}
        return Value(self._add(region, "weight", (), attributes, (type_,), name=path.rpartition(".")[2]).id)


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


_READ: dict[str, Callable[[Cursor], Any]] = {
    "size": Cursor.size,
    "sizes": Cursor.sizes,
    "int": Cursor.whole,
    "axis": Cursor.whole,
    "ints": _read_ints,
    "number": Cursor.number,
    "bool": _read_bool,
    "string": Cursor.string,
    "mask": Cursor.mask,
    "initializer": Cursor.initializer,
}
