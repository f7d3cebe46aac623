"""The emitted program: which classes and functions there are, how each is made, how they reach each other."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.backends.torch import layers, structure
from tfdsl.backends.torch.constructors import PLAIN, Constructor, defaults_last
from tfdsl.backends.torch.forward import Forward, Scope
from tfdsl.backends.torch.helpers import HELPERS
from tfdsl.backends.torch.layers import Layer
from tfdsl.backends.torch.names import NotPlain, class_name, identifier, number, same, spell
from tfdsl.backends.torch.reserved import MODULE_NAMES
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir.dims import Dim
from tfdsl.ir.graph import Graph, Node, Type, Value, changing, fed


@dataclass(eq=False)
class Method:
    """A written `forward` of a class; `extras` is what callers hand in besides the inputs."""

    method: str
    lines: list[str]
    parameters: list[str]
    extras: dict[tuple[str, str], str]
    docstring: str


@dataclass(eq=False)
class Function:
    name: str
    text: str
    extras: dict[tuple[str, str], str]
    settings: list[str]
    uses_training: bool


@dataclass(eq=False)
class Class:
    """A written class: `body` is its text below the `class` line, `settings` the names its constructor takes."""

    name: str
    body: str
    settings: list[str]


@dataclass(eq=False)
class Draft:
    """A class being written for the weights below one path."""

    path: str
    scope: Scope
    methods: list[Method] = field(default_factory=list)
    of_unit: dict[int, Method] = field(default_factory=dict)


class Program:
    """Everything that one emitted file holds."""

    def __init__(self, graph: Graph):
        graph = structure.separate_turns(graph)
        self.graph = graph
        self.layers: dict[str, Layer] = layers.collect(graph)
        self.helpers: dict[str, None] = {}
        self.root = structure.build(graph)
        self.root.penalties = penalty_names(graph)
        self.classes: list[Class] = []
        self.functions: list[Function] = []
        self._regions: dict[int, Unit] = {id(graph): self.root}
        self._loops: dict[str, tuple[Graph, Node]] = {}
        self._units: dict[str, list[Unit]] = {}
        self._drafts: dict[str, Draft] = {}
        self._made: dict[str, Class] = {}
        self._functions: dict[int, Function] = {}
        self._derived: dict[int, set[Value]] = {}
        self._overridden: set[tuple[str, str]] = set()
        self.reserved: set[str] = set(HELPERS)
        self._gather(self.root)
        self.reserved |= {identifier(unit.frame.block) for units in self._units.values() for unit in units}
        self._derive(graph, set())

    # --- looking around ------------------------------------------------------------------------------------------------

    def _gather(self, unit: Unit) -> None:
        """Enter a unit and all inside it by path, loops' bodies included."""
        self._units.setdefault(unit.path, []).append(unit)
        frame = unit.frame
        self._overridden |= {(frame.block, name) for name in frame.declared if name not in frame.defaults}
        for item in unit.items:
            if isinstance(item, Unit):
                self._gather(item)
            elif item.bodies:
                self._loops.setdefault(item.attributes["path"], (unit.graph, item))
                penalties = penalty_names(*item.bodies)
                for body in item.bodies:
                    inner = self._regions[id(body)] = structure.build(body, f"{item.attributes['path']}.*")
                    inner.penalties = penalties
                    self._gather(inner)

    def region_unit(self, graph: Graph) -> Unit:
        return self._regions[id(graph)]

    def has_weights(self, unit: Unit) -> bool:
        """Whether weights live below the unit's path."""
        prefix = f"{unit.path}." if unit.path else ""
        return any(path == unit.path or path.startswith(prefix) for path in self.layers) and any(
            self._mentions(unit, prefix)
        )

    def _mentions(self, unit: Unit, prefix: str) -> Any:
        for graph in self._graphs(unit):
            for node in graph:
                yield node.attributes["path"].startswith(prefix)

    def _graphs(self, unit: Unit) -> Any:
        """The weight nodes that a unit reads, region by region."""
        yield [
            unit.graph.node(value)
            for node in unit.nodes()
            for value in node.inputs
            if value is not None and unit.graph.node(value).op == "weight"
        ]
        for node in unit.nodes():
            for body in node.bodies:
                for region in body.regions():
                    yield [each for each in region.nodes() if each.op == "weight"]

    def owns_weights(self, unit: Unit) -> bool:
        return self.has_weights(unit)

    def _derive(self, graph: Graph, derived_inputs: set[int]) -> None:
        """Mark the float values that follow from positions and numbers alone."""
        derived: set[Value] = set()
        for node in graph.nodes():
            if node.op in ("weight", "constant") or (node.op == "input" and node.id not in derived_inputs):
                continue
            sources = [value for value in node.inputs if value is not None and graph.type(value).dtype == "float"]
            sources = [value for value in sources if graph.node(value).op != "constant"]
            if node.op in ("embedding", "one_hot", "repeat", "route"):
                sources = [Value(-1)]
            if all(value in derived for value in sources):
                derived |= {Value(node.id, i) for i, t in enumerate(node.types) if t.dtype == "float"}
            for body in node.bodies:
                inside = {
                    inner
                    for inner, value in list(zip(body.inputs, fed(node), strict=True))[changing(node) :]
                    if value in derived
                }
                self._derive(body, inside)
        self._derived[id(graph)] = derived

    def is_derived(self, graph: Graph, value: Value) -> bool:
        return value in self._derived[id(graph)]

    def named(self, names: dict[str, Any], size: int) -> str | None:
        """The name that a size goes by, if exactly the first of those that have it is meant."""
        for name, value in names.items():
            if isinstance(value, int) and not isinstance(value, bool) and value == size:
                return name
        return None

    def stored(self, path: str, name: str) -> str:
        """The attribute that keeps a number for the forwards of a class, apart from its layers and what modules have."""
        below = f"{path}.{name}" if path else name
        taken = name in MODULE_NAMES or any(f"{each}.".startswith(f"{below}.") for each in self.layers)
        return f"{identifier(name)}_" if taken else identifier(name)

    def attribute(self, start: str, path: str) -> str:
        """`self.a.b`, with what Python reserves reached by getattr."""
        text = start
        for part in path.split("."):
            text = f'getattr({text}, "{part}")' if keyword.iskeyword(part) or part.isdigit() else f"{text}.{part}"
        return text

    # --- functions: units without weights ---

    def function(self, unit: Unit) -> Function:
        if id(unit) not in self._functions:
            self._functions[id(unit)] = self._write_function(unit)
        return self._functions[id(unit)]

    def _write_function(self, unit: Unit) -> Function:
        scope = Scope(None, dict(unit.frame.names))
        forward = Forward(self, unit, scope, indent="    ")
        forward.write()
        settings, local = self.settle_names(unit, list(scope.plain))
        parameters = [f"{p}: Tensor" for p in forward.parameters]
        parameters += [f"{name}: {_KIND_HINTS[kind]}" for (kind, _), name in forward.extras.items()]
        parameters += [
            f"{identifier(n)}: {_hint(unit.frame.names[n])}{self._default(unit, n)}"
            for n in defaults_last(unit, settings)
        ]
        if forward.uses_training:
            parameters.append("training: bool = False")
        head = f"({', '.join(parameters)}) -> {_result_hint(unit)}:"
        lines = [
            f'    """{self._docstring(unit, forward.parameters)}"""',
            *(f"    {each}" for each in local),
            *forward.lines,
        ]
        body = "\n".join(lines)
        base = identifier(unit.frame.block)
        name, count = base, 1
        while True:
            text = f"def {name}{head}\n{body}\n"
            taken = next((each for each in self.functions if each.name == name), None)
            if taken is None and name not in self.helpers:
                break
            if taken is not None and taken.text == text:
                return Function(name, text, forward.extras, settings, forward.uses_training)
            count += 1
            name = f"{base}_{count}"
        function = Function(name, text, forward.extras, settings, forward.uses_training)
        self.functions.append(function)
        return function

    # --- classes: units with weights -----------------------------------------------------------------------------------

    def draft(self, path: str) -> Draft:
        """The class for a path, its forwards written."""
        if path not in self._drafts:
            units = self._units[path]
            draft = self._drafts[path] = Draft(path, Scope(path, dict(units[0].frame.names)))
            for unit in units:
                self._add_method(draft, unit)
        return self._drafts[path]

    def _add_method(self, draft: Draft, unit: Unit) -> None:
        forward = Forward(self, unit, draft.scope)
        forward.write()
        for known in draft.methods:
            if (known.lines, known.parameters, list(known.extras)) == (
                forward.lines,
                forward.parameters,
                list(forward.extras),
            ):
                draft.of_unit[id(unit)] = known
                return
        name = "forward" if not draft.methods else f"forward_{len(draft.methods) + 1}"
        method = Method(
            name, forward.lines, forward.parameters, forward.extras, self._docstring(unit, forward.parameters)
        )
        draft.methods.append(method)
        draft.of_unit[id(unit)] = method

    def method(self, unit: Unit) -> Method:
        return self.draft(unit.path).of_unit[id(unit)]

    def settle_extras(self, units: Sequence[Unit], extras: dict[tuple[str, str], str]) -> None:
        """Give the bodies of one loop the same extra parameters, in the same order."""
        for unit in units:
            self.method(unit).extras = dict(extras)

    def class_for(self, path: str, base: str) -> Class:
        """The class for a path, written or found to be one that exists."""
        if path in self._made:
            return self._made[path]
        draft = self.draft(path)
        unit = self._units[path][0]
        statements, settings = Constructor(self, draft, unit).write()
        body = self._class_body(draft, unit, statements, settings)
        name, tries = base, iter(self._other_names(path, base))
        while True:
            known = next((each for each in self.classes if each.name == name), None)
            if known is None and name not in [f.name for f in self.functions]:
                break
            if known is not None and _alike(known.body, body):
                self._made[path] = known
                return known
            name = next(tries)
        made = self._made[path] = Class(name, body, settings)
        self.classes.append(made)
        return made

    def _other_names(self, path: str, base: str) -> Any:
        parts = [part for part in path.split(".") if "*" not in part]
        for count in range(1, 0 if "*" in path.rpartition(".")[2] else len(parts) + 1):
            yield "".join(class_name(part) for part in parts[-count:]) + base
        for number_ in range(2, 10_000):
            yield f"{base}{number_}"

    def _class_body(self, draft: Draft, unit: Unit, statements: list[str], settings: list[str]) -> str:
        root = draft.path == ""
        parameters = ["self"]
        for name in settings if root else defaults_last(unit, settings):
            value = unit.frame.names[name]
            default = f" = {number(value)}" if root else self._default(unit, name)
            parameters.append(f"{identifier(name)}: {_hint(value)}{default}")
        lines = [f'    """{draft.methods[0].docstring}"""', ""]
        lines += _signature("__init__", parameters, "None")
        lines += ["        super().__init__()", *(f"        {each}" for each in statements), ""]
        for method in draft.methods:
            parameters = ["self", *(f"{name}: Tensor" for name in method.parameters)]
            parameters += [f"{name}: {_KIND_HINTS[kind]}" for (kind, _), name in method.extras.items()]
            lines += [*_signature(method.method, parameters, _result_hint(unit)), *method.lines, ""]
        return "\n".join(lines).rstrip() + "\n"

    # --- names of numbers ----------------------------------------------------------------------------------------------

    def settle_names(self, unit: Unit, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
        """Of the names that code wants: those that callers give, and the statements that derive the others."""
        given: dict[str, None] = {}
        statements: dict[str, str] = {}

        def need(name: str) -> str:
            if name in given or name in statements:
                return identifier(name)
            tree = unit.frame.defaults.get(name)
            value = unit.frame.names[name]
            derivable = (
                tree is not None
                and not isinstance(tree, PLAIN)
                and (name not in unit.frame.declared or (unit.frame.block, name) not in self._overridden)
            )
            if derivable and tree is not None:
                before = dict(given)
                try:
                    text, found = spell(tree, unit.frame.names, need)
                except NotPlain:
                    found = None
                    given.clear()
                    given.update(before)
                if found is not None and same(found, value):
                    statements[name] = f"{identifier(name)} = {text}"
                    return identifier(name)
            given[name] = None
            return identifier(name)

        for name in wanted:
            need(name)
        order = list(unit.frame.names)
        return sorted(given, key=order.index), list(statements.values())

    def _default(self, unit: Unit, name: str) -> str:
        tree = unit.frame.declared.get(name)
        if isinstance(tree, PLAIN):
            try:
                return f" = {spell(tree, {}, str)[0]}"
            except NotPlain:
                return ""
        return ""

    def value_for(self, unit: Unit, name: str, names: dict[str, Any], name_text: Any) -> str | None:
        """What a caller passes for a name of a unit, in the caller's names; None where the default is that."""
        value = unit.frame.names[name]
        tree, given = unit.frame.declared.get(name), unit.frame.spelled.get(name)
        if isinstance(tree, PLAIN) and not unit.is_region and (given is None or isinstance(given, PLAIN)):
            try:
                if same(spell(tree, {}, str)[1], value):
                    return None
            except NotPlain:
                pass
        if given is not None:
            try:
                text, found = spell(given, names, name_text)
                if same(found, value):
                    return text
            except NotPlain:
                pass
        if unit.is_region and name in names and same(names[name], value):
            return str(name_text(name))
        if given is None and isinstance(value, int) and not isinstance(value, bool):
            known = name if same(names.get(name), value) else self.named(names, value)
            if known is not None:
                return str(name_text(known))
        return number(value)

    # --- words ---------------------------------------------------------------------------------------------------------

    def _docstring(self, unit: Unit, parameters: Sequence[str]) -> str:
        names = dict(unit.frame.names)
        inputs = [f"{p} {self._shape(unit.graph.type(v), names)}" for p, v in zip(parameters, unit.inputs, strict=True)]
        results = [self._shape(unit.graph.type(value), names) for value in unit.results]
        return f"{', '.join(inputs)} -> {', '.join(results)}."

    def _shape(self, type_: Type, names: dict[str, Any]) -> str:
        dims = [str(dim) if isinstance(dim, Dim) else self.named(names, dim) or str(dim) for dim in type_.dims]
        return f"{'' if type_.dtype == 'float' else type_.dtype}[{', '.join(dims)}]"

    def loop(self, path: str) -> tuple[Graph, Node] | None:
        return self._loops.get(path)

    def units(self, path: str) -> list[Unit]:
        """The applications of the block whose weights live at a path; none where no block does."""
        return self._units.get(path, [])


_KIND_HINTS = {"module": "nn.Module", "weight": "Tensor", "size": "int", "device": "torch.device"}


def penalty_names(*graphs: Graph) -> tuple[str, ...]:
    """The auxiliary losses of graphs and of the loops inside them, each name once."""
    return tuple(dict.fromkeys(name for graph in graphs for region in graph.regions() for name, _ in region.penalties))


def _hint(value: Any) -> str:
    return type(value).__name__ if value is not None else "None"


def _result_hint(unit: Unit) -> str:
    count = len(unit.results) + (len(unit.penalties) if unit.path else 0)
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"


def _signature(name: str, parameters: Sequence[str], result: str) -> list[str]:
    line = f"    def {name}({', '.join(parameters)}) -> {result}:"
    if len(line) <= 100:
        return [line]
    return [f"    def {name}(", *(f"        {each}," for each in parameters), f"    ) -> {result}:"]


def _alike(one: str, other: str) -> bool:
    """Whether two classes differ in their docstrings at most, which tell the shapes of one place."""
    return one.partition("\n")[2] == other.partition("\n")[2]
