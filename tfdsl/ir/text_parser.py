"""The text form of a graph read back (`tfdsl/ir/text.py` shows and explains it). Faults are `SpecError`s, T605."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tfdsl.ir.graph import Constraint, Frame, Graph, Node, Type, Value
from tfdsl.ir.text_cursor import Cursor
from tfdsl.ir.text_nodes import NodeReader, Reading
from tfdsl.language.diagnostics import Source

_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


def parse_graph(text: str, name: str = "graph") -> Graph:
    """The graph that a text describes; `name` is what diagnostics call the text. Nothing but its form is checked."""
    reader = _Reader(Cursor(Source(name, text)))
    graph = reader.graph()
    if reader.cursor.token.kind != "end":
        reader.cursor.fail(f"expected the end, not `{reader.cursor.token.text}`")
    return graph


class _Reader(NodeReader):
    """One method a construct that holds nodes."""

    def graph(self) -> Graph:
        cursor = self.cursor
        cursor.expect("graph")
        name = cursor.string() if cursor.token.kind == "string" else cursor.name()
        region = Reading(Graph(name))
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

    def _input(self, region: Reading, name: str, type_: Type) -> None:
        base = name.partition(".")[0]
        node = region.graph.add("input", (), {"name": base}, (type_,), name=base)
        self._bind(region, name, Value(node.id))

    def _bind(self, region: Reading, name: str, value: Value) -> None:
        if name in region.values:
            self.cursor.fail(f"`%{name}` is there already")
        region.values[name] = value

    # --- statements ------------------------------------------------------------------------------------------------

    def _statements(self, region: Reading) -> None:
        """The statements of a region in braces, up to its `return`."""
        cursor = self.cursor
        cursor.expect("{")
        while not cursor.has("return"):
            if cursor.accept("require"):
                self._require(region)
            elif cursor.accept("penalty"):
                name = cursor.name()
                cursor.expect(":")
                region.graph.penalties.append((name, self.value(region)))
            else:
                self._item(region)
        cursor.expect("return")
        while not cursor.has("}"):
            name = cursor.name()
            cursor.expect(":")
            region.graph.outputs.append((name, self.value(region)))
            if not cursor.has("}"):
                cursor.expect(",")
        cursor.expect("}")

    def _require(self, region: Reading) -> None:
        cursor = self.cursor
        left = cursor.size()
        if not cursor.has(*_COMPARISONS):
            cursor.fail(f"expected a comparison, not `{cursor.token.text}`")
        operator = cursor.take().text
        right = cursor.size()
        why = cursor.string() if cursor.accept(",") else ""
        region.graph.constraints.append(Constraint(operator, left, right, why))

    def _item(self, region: Reading) -> None:
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
            node = region.graph.node(self.operand(region))
        elif cursor.accept("repeat"):
            node = self._repeat(region)
        elif cursor.has("route"):
            node = self._route(region)
        elif cursor.has("scan"):
            node = self._scan(region)
        else:
            node = self.op(region)
        self._assign(region, node, results)

    def _starts_op(self) -> bool:
        """Whether an op comes next, and not a constant: `max(%x)` is an op, `max(seq, 2)` and `float(seq)` are none."""
        cursor = self.cursor
        if cursor.token.kind != "name" or cursor.ahead().text != "(" or cursor.has("float"):
            return cursor.has("repeat", "route", "scan")
        return not cursor.has("min", "max") or cursor.ahead(2).kind in ("value", "path")

    def _frame(self, region: Reading) -> None:
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

    def _assign(self, region: Reading, node: Node, results: list[str]) -> None:
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

    def _repeat(self, region: Reading) -> Node:
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
        types = self.types()
        bodies = self._bodies(
            region, attributes, [(n, region.graph.type(v)) for n, v in zip(names, inputs, strict=True)]
        )
        name = path.rpartition(".")[2]
        return self.add(region, "repeat", inputs, attributes, types, name=name, bodies=tuple(bodies))

    def _route(self, region: Reading) -> Node:
        """A mixture of experts; the inputs of its body take the types of what it reads."""
        cursor = self.cursor
        cursor.expect("route")
        path = cursor.kind("path", "the path of the experts")
        cursor.expect("[")
        attributes: dict[str, Any] = {"turns": (0,) * cursor.whole(), "path": path}
        cursor.expect("]")
        block = cursor.name() if cursor.accept("of") else None
        names, inputs = self._loop_inputs(region, {})
        cursor.expect("by")
        chosen = self.operand(region)
        cursor.expect(",")
        weight = self.operand(region)
        types = self.types()
        given = [(name, region.graph.type(value)) for name, value in zip(names, inputs, strict=True)]
        bodies = self._bodies(region, attributes, given)
        for body in bodies:
            body.frame = replace(body.frame, block=block) if block is not None and body.frame is not None else None
        operands = [*inputs[:1], chosen, weight, *inputs[1:]]
        name = path.rpartition(".")[2]
        return self.add(region, "route", operands, attributes, types, name=name, bodies=tuple(bodies))

    def _scan(self, region: Reading) -> Node:
        """A recurrence; its step takes the states as they are, and the others without the axis that it goes along."""
        cursor = self.cursor
        cursor.expect("scan")
        path = cursor.kind("path", "the path of the recurrence")
        cursor.expect("along")
        axis = cursor.whole()
        state_names, states = self._loop_inputs(region, {})
        cursor.expect("over")
        attributes: dict[str, Any] = {}
        names, inputs = self._loop_inputs(region, attributes)
        scanned = attributes["carried"]
        attributes = {"carried": len(states), "scanned": scanned, "axis": axis, "turns": (0,), "path": path}
        types = self.types()
        given = [(name, region.graph.type(value)) for name, value in zip(state_names, states, strict=True)]
        for place, (name, value) in enumerate(zip(names, inputs, strict=True)):
            type_ = region.graph.type(value)
            dims = type_.dims if place >= scanned else (*type_.dims[:axis], *type_.dims[axis + 1 :])
            given.append((name, Type(type_.dtype, dims)))
        bodies = self._bodies(region, attributes, given)
        name = path.rpartition(".")[2]
        return self.add(region, "scan", [*states, *inputs], attributes, types, name=name, bodies=tuple(bodies))

    def _loop_inputs(self, region: Reading, attributes: dict[str, Any]) -> tuple[list[str], list[Value]]:
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
            inputs.append(self.operand(region))
            if not cursor.has(")", ";"):
                cursor.expect(",")
        attributes["carried"] = len(inputs) if carried is None else carried
        return names, inputs

    def _bodies(self, outer: Reading, attributes: dict[str, Any], inputs: list[tuple[str, Type]]) -> list[Graph]:
        cursor = self.cursor
        path, count = attributes["path"], len(attributes["turns"])
        block = outer.scope[-1].block if outer.scope else outer.graph.frame.block  # type: ignore[union-attr]

        def body(changed: list[Type]) -> Graph:
            region = Reading(Graph(f"{path}.*"))
            region.graph.frame = Frame(f"{path}.*", block, {})
            types = [*changed, *(type_ for _, type_ in inputs[len(changed) :])]
            for (name, _), type_ in zip(inputs, types, strict=True):
                self._input(region, name, type_)
            self._statements(region)
            return region.graph

        if cursor.ahead().text not in ("turns", "}"):
            return [body([])]
        cursor.expect("{")
        bodies: list[Graph] = []
        turns = [-1] * count
        while not cursor.accept("}"):
            cursor.expect("turns")
            own = self._turns(count)
            for turn in own:
                turns[turn] = len(bodies)
            # A body takes what the one in the turn before it gave.
            first = own[0] if own else 0
            before = turns[first - 1] if first else -1
            given = bodies[before] if 0 <= before < len(bodies) else None
            bodies.append(body([given.type(value) for _, value in given.outputs] if given else []))
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
