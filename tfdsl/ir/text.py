"""The text form of a graph: what `tfm ir` shows, and what the tests of passes are written in.

    graph Tiny(x: [batch, seq, 8]) {
      require seq <= 16, "too long"
      %x.2 = repeat @h[2] (x = %x) : [batch, seq, 8] {
        in MLP @h.*.mlp {
          %fc = linear(%x, @h.*.mlp.fc.weight: [8, 8] = xavier_uniform, out=8) : [batch, seq, 8]
        }
        %x.2 = add(%x, %fc) : [batch, seq, 8]
        return x: %x.2
      }
      return output: %x.2
    }

A line is a node: results, op, operands, attributes that are not at their defaults, types. `%x.2` is the second value
called `x`. A weight is written where it is used, `@path: shape = initialiser` the first time and `@path` after that; so
is a constant. One that has several readers, or another scope than its reader, has a line of its own. `in` lists the
nodes of one application of a block (`MLP.2` is another application with the same weights). `repeat` names the carried
inputs of its body before `;` and the captured ones after it; `route` the rows, then what is captured, and the block
that its experts are of; `scan` the states, then the tensors that it goes through, then what is captured. Spans and
source expressions are not part of the text.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Frame, Graph, Initializer, Node, Type, Value, changing, fed, turns_of
from tfdsl.ir.op import Attribute, Op
from tfdsl.ir.ops import OPS
from tfdsl.ir.text_parser import parse_graph

__all__ = ["initializer_text", "parse_graph", "print_graph", "value_names"]


def print_graph(graph: Graph) -> str:
    """The graph as text, which `parse_graph` reads back."""
    printer = _Printer()
    name = graph.name if graph.name.isidentifier() else json.dumps(graph.name)
    names = value_names(graph)
    inputs = ", ".join(f"{names[Value(i)]}: {graph.node(i).type}" for i in graph.inputs)
    printer.lines.append(f"graph {name}({inputs}) {{")
    printer.region(graph, names, "  ")
    printer.lines.append("}")
    return "\n".join(printer.lines) + "\n"


def value_names(graph: Graph) -> dict[Value, str]:
    """A name for each value of a region that has a line, unique in the region: `x`, `x.2`, ... in order."""
    hidden = _inlined(graph)
    taken: dict[str, int] = {}
    names: dict[Value, str] = {}
    inputs = [graph.node(node) for node in graph.inputs]
    for node in (*inputs, *(each for each in graph.nodes() if each.id not in hidden and each.op != "input")):
        for index, base in enumerate(_result_names(graph, node)):
            base = re.sub(r"\W", "_", base)
            taken[base] = taken.get(base, 0) + 1
            names[Value(node.id, index)] = base if taken[base] == 1 else f"{base}.{taken[base]}"
    return names


def _result_names(graph: Graph, node: Node) -> list[str]:
    """What the results of a node are called, before they are made unique."""
    if node.op == "input":
        return [node.attributes["name"]]
    if node.op == "repeat":
        return [name.partition(".")[0] for name in _input_names(graph, node)[: len(node.types)]]
    if len(node.types) > 1 and len(node.labels) == len(node.types):
        return [label or node.op for label in node.labels]
    return [node.name or node.op] * len(node.types)


def initializer_text(initializer: Initializer) -> str:
    """An initialiser with all digits of its numbers."""
    numbers = ", ".join(repr(float(number)) for number in initializer.arguments)
    return f"{initializer.kind}({numbers})" if numbers else initializer.kind


def _inlined(graph: Graph) -> set[int]:
    """The weights and constants that are written where they are used."""
    found: set[int] = set()
    results = set(graph.results())
    for node in graph.nodes():
        if node.op not in ("weight", "constant") or len(node.types) != 1 or Value(node.id) in results:
            continue
        users = graph.users(Value(node.id))
        if len(users) != 1 or users[0][0].scope != node.scope:
            continue
        user, place = users[0]
        if node.op == "weight" or user.bodies or user.op == "repeat" or _is_positional(OPS[user.op], user, place):
            found.add(node.id)
    return found


def _is_positional(record: Op, node: Node, place: int) -> bool:
    """Whether an operand is written by position: nothing before it is absent, and it is needed or is a weight."""
    operand = record.operands[min(place, len(record.operands) - 1)]
    if operand.variadic:
        return len(record.operands) == 1
    before = all(value is not None for value in node.inputs[:place])
    return before and (operand.weight or not operand.optional)


class _Printer:
    """Lines, and what is known of weights that were written before."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._weights: dict[str, str] = {}

    def region(self, graph: Graph, names: dict[Value, str], indent: str) -> None:
        """The statements of a region."""
        for each in graph.constraints:
            why = f", {json.dumps(each.why)}" if each.why else ""
            self.lines.append(f"{indent}require {each.left} {each.operator} {each.right}{why}")
        hidden = _inlined(graph)
        numbers = _frame_numbers(graph, hidden)
        scope: tuple[Frame, ...] = ()
        for node in graph.nodes():
            if node.id in hidden or node.op == "input":
                continue
            self._enter(scope, node.scope, numbers, indent)
            scope = node.scope
            self._node(graph, node, names, hidden, indent + "  " * len(scope))
        self._enter(scope, (), numbers, indent)
        for name, value in graph.penalties:
            self.lines.append(f"{indent}penalty {name}: %{names[value]}")
        outputs = ", ".join(f"{name}: %{names[value]}" for name, value in graph.outputs)
        self.lines.append(f"{indent}return {outputs}".rstrip())

    def _enter(self, old: tuple[Frame, ...], new: tuple[Frame, ...], numbers: dict[int, int], indent: str) -> None:
        """Close the frames that end here and open those that begin."""
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], zip(old, new, strict=False)))
        for depth in reversed(range(common, len(old))):
            self.lines.append(f"{indent}{'  ' * depth}}}")
        for depth in range(common, len(new)):
            frame = new[depth]
            number = f".{numbers[id(frame)]}" if numbers[id(frame)] > 1 else ""
            path = f" @{frame.path}" if frame.path else ""
            self.lines.append(f"{indent}{'  ' * depth}in {frame.block}{number}{path} {{")

    def _node(self, graph: Graph, node: Node, names: dict[Value, str], hidden: set[int], indent: str) -> None:
        if node.op not in ("repeat", "route", "scan"):
            self.lines.append(indent + self.statement(graph, node, names, hidden))
            return
        head = {"repeat": self.repeat_head, "route": self.route_head, "scan": self.scan_head}[node.op]
        self.lines.append(f"{indent}{head(graph, node, names, hidden)} {{")
        plain = len(node.bodies) == 1 and all(body == 0 for body in node.attributes["turns"])
        for variant, body in enumerate(node.bodies):
            inner = indent + ("  " if plain else "    ")
            if not plain:
                self.lines.append(f"{indent}  turns {_ranges(turns_of(node, variant))} {{")
            inside = value_names(body)
            inside |= dict(zip(map(Value, body.inputs), _input_names(graph, node), strict=True))
            self.region(body, inside, inner)
            if not plain:
                self.lines.append(f"{indent}  }}")
        self.lines.append(f"{indent}}}")

    def repeat_head(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int] = ()) -> str:
        """The first line of a loop, without its `{`."""
        a = OPS["repeat"].fill(node.attributes)
        rest = (f" as {a.index}" if a.index else "") + (f" checkpoint {a.checkpoint}" if a.checkpoint else "")
        head = f"repeat @{a.path}[{len(a.turns)}]{rest} ({self._fed(graph, node, names, hidden)})"
        return self._assigned(node, names) + head + _types_text(node.types)

    def route_head(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int] = ()) -> str:
        """The first line of a mixture of experts, without its `{`."""
        a = OPS["route"].fill(node.attributes)
        frame = node.bodies[0].frame
        of = f" of {frame.block}" if frame is not None else ""
        chosen, weight = (self._operand(graph, value, names, hidden) for value in node.inputs[1:3])
        head = f"route @{a.path}[{len(a.turns)}]{of} ({self._fed(graph, node, names, hidden)}) by {chosen}, {weight}"
        return self._assigned(node, names) + head + _types_text(node.types)

    def scan_head(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int] = ()) -> str:
        """The first line of a recurrence, without its `{`."""
        a = OPS["scan"].fill(node.attributes)
        parts = self._fed_parts(graph, node, names, hidden)
        states, rest = ", ".join(parts[: a.carried]), _semicolon(parts[a.carried :], a.scanned)
        head = f"scan @{a.path} along {a.axis} ({states}) over ({rest})"
        return self._assigned(node, names) + head + _types_text(node.types)

    def _fed(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int]) -> str:
        """What goes into the bodies of a node: what changes from run to run, and after `;` what does not."""
        return _semicolon(self._fed_parts(graph, node, names, hidden), changing(node))

    def _fed_parts(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int]) -> list[str]:
        return [
            f"{inside} = {self._operand(graph, value, names, hidden)}"
            for inside, value in zip(_input_names(graph, node), fed(node), strict=True)
        ]

    def statement(self, graph: Graph, node: Node, names: dict[Value, str], hidden: Iterable[int]) -> str:
        """The line of a node that has no bodies."""
        left = self._assigned(node, names)
        if node.op in ("weight", "constant"):
            return left + self._reference(node)
        record = OPS[node.op]
        parts: list[str] = []
        variadic: list[str] = []
        for place, value in enumerate(node.inputs):
            if value is None:
                continue
            operand = record.operands[min(place, len(record.operands) - 1)]
            text = self._operand(graph, value, names, hidden)
            if _is_positional(record, node, place):
                parts.append(text)
            elif operand.variadic:
                variadic.append(text)
            else:
                parts.append(f"{operand.name}={text}")
        if variadic:
            parts.append(f"{record.operands[-1].name}=[{', '.join(variadic)}]")
        parts += self._attributes(graph, record, node)
        return f"{left}{node.op}({', '.join(parts)}){_types_text(node.types)}"

    def _attributes(self, graph: Graph, record: Op, node: Node) -> Iterator[str]:
        first = node.inputs[0] if node.inputs else None
        rank = len(graph.type(first).dims) if first is not None else 0
        for attribute in record.attributes:
            value = node.attributes.get(attribute.name, attribute.default)
            if attribute.kind == "names":
                yield from (f"{name}={size}" for name, size in sorted(dict(value or ()).items()))
            elif attribute.name in node.attributes if attribute.required else not _is_default(attribute, value, rank):
                text = _value_text(attribute.kind, value)
                leads = attribute.name == record.leading and attribute.kind == "string"
                yield text if leads else f"{attribute.name}={text}"

    def _assigned(self, node: Node, names: dict[Value, str]) -> str:
        results = ", ".join(f"%{names[Value(node.id, index)]}" for index in range(len(node.types)))
        return f"{results} = " if results else ""

    def _operand(self, graph: Graph, value: Value | None, names: dict[Value, str], hidden: Iterable[int]) -> str:
        if value is None:
            return "none"
        return self._reference(graph.node(value)) if value.node in hidden else f"%{names[value]}"

    def _reference(self, node: Node) -> str:
        """A weight or a constant; a weight in full the first time."""
        if node.op == "constant":
            return _constant_text(node.attributes["value"], node.attributes["dtype"])
        path, init = node.attributes["path"], node.attributes.get("init")
        full = f"@{path}: {node.type}" + (f" = {initializer_text(init)}" if init is not None else "")
        if self._weights.get(path) == full:
            return f"@{path}"
        self._weights[path] = full
        return full


def _frame_numbers(graph: Graph, hidden: set[int]) -> dict[int, int]:
    """Which application of a block a frame is, among those alike in a region: 1, 2, ... as they are written."""
    alike: dict[tuple[Any, ...], int] = {}
    numbers: dict[int, int] = {}
    for node in graph.nodes():
        if node.id in hidden or node.op == "input":
            continue
        outer: int | None = None
        for frame in node.scope:
            key = (outer, frame.block, frame.path)
            outer = id(frame)
            if id(frame) not in numbers:
                alike[key] = alike.get(key, 0) + 1
                numbers[id(frame)] = alike[key]
    return numbers


def _input_names(graph: Graph, node: Node) -> list[str]:
    """Names for the inputs of a loop's bodies: those of the first body, or of what the loop carries and reads."""
    if node.bodies:
        names = value_names(node.bodies[0])
        return [names[Value(place)] for place in node.bodies[0].inputs]
    read = [_result_names(graph, graph.node(value))[value.index] if value else "x" for value in node.inputs]
    read[: len(node.labels)] = node.labels
    return [base if base not in read[:at] else f"{base}.{read[:at].count(base) + 1}" for at, base in enumerate(read)]


def _semicolon(parts: list[str], count: int) -> str:
    """So many parts, and after `;` the others."""
    first, rest = ", ".join(parts[:count]), ", ".join(parts[count:])
    between = " " if first and rest else ""
    return first + (f";{between}{rest}" if rest else "")


def _ranges(turns: Iterable[int]) -> str:
    """Numbers in order, runs of them as `first..last`."""
    parts: list[str] = []
    for _, run in itertools.groupby(enumerate(turns), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}")
    return ", ".join(parts) or "none"


def _types_text(types: tuple[Type, ...]) -> str:
    return f" : {', '.join(str(type) for type in types)}" if types else ""


def _is_default(attribute: Attribute, value: Any, rank: int) -> bool:
    if attribute.kind == "axis" and isinstance(value, int) and attribute.default < 0:
        return value in (attribute.default, attribute.default + rank)
    return type(value) is type(attribute.default) and value == attribute.default


def _value_text(kind: str, value: Any) -> str:
    """An attribute's value as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_value_text(kind, each) for each in value)}]"
    if isinstance(value, Initializer):
        return initializer_text(value)
    return repr(value) if isinstance(value, float) else str(value)


def _constant_text(value: Any, dtype: str) -> str:
    """A constant, whose spelling shows its element type: `2`, `2.0`, `true`, `seq`, `float(seq)`."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype == "int":
        return str(value if isinstance(value, Dim) else int(value))
    if isinstance(value, Dim) or not math.isfinite(value):
        return f"float({value})"
    return repr(float(value))
