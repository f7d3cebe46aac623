"""The emitted program: its units, what is known of them, and their methods as they come to be called."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tfdsl.backends.torch.docstrings import docstring
from tfdsl.backends.torch.draft import HINTS, Draft, Extra, Scope
from tfdsl.backends.torch.forward import Forward
from tfdsl.backends.torch.handed_in import hand_in
from tfdsl.backends.torch.held import timing
from tfdsl.backends.torch.layout import signature
from tfdsl.backends.torch.measures import sides
from tfdsl.backends.torch.names import ModuleNames, Words, class_name, sanitised
from tfdsl.backends.torch.places import Places, is_below
from tfdsl.backends.torch.precision import derived_values
from tfdsl.backends.torch.provenance import Provenance, size_of
from tfdsl.backends.torch.reserved import MODULE_NAMES, ROOT_NAMES
from tfdsl.backends.torch.settings import Settings, Settled
from tfdsl.backends.torch.sights import Sight, decodes, prepare, sliding_sizes
from tfdsl.backends.torch.state_helpers import STATE_CLASSES
from tfdsl.backends.torch.structure import Unit, build, penalty_names
from tfdsl.backends.torch.turns import separate_turns
from tfdsl.ir.dims import names_of, symbol
from tfdsl.ir.graph import Constraint, Frame, Graph, Node, Value
from tfdsl.ir.states import states


@dataclass(eq=False)
class Method:
    """A written `forward` of a class; `extras` is what callers hand in besides the inputs."""

    name: str
    lines: list[str]
    head: list[str]
    extras: dict[Extra, str]


@dataclass(eq=False)
class Function:
    """A written function; `settled` are the names of its block that it takes."""

    name: str
    lines: list[str]
    head: list[str]
    extras: dict[Extra, str]
    settled: Settled
    uses_training: bool


@dataclass(eq=False)
class Sheet:
    """What the class at a path holds so far; a method under way stands as None."""

    scope: Scope
    methods: dict[str, Method | None] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)  # of `self`, for names of the block
    kept: str = ""  # the attribute that keeps what is computed once, if there is such


class Program:
    """Everything that one emitted file holds."""

    def __init__(self, graph: Graph):
        self.graph, kinds = separate_turns(prepare(graph))
        self.decodes = decodes(self.graph)  # position by position, with states
        self.sliding = sliding_sizes(states(self.graph))
        self.state_kinds = {STATE_CLASSES[op] for op in _stateful_ops(self.graph)}
        self.sights: dict[str, Sight] = {}  # masks that the model makes and hands to its parts
        self.graph.frame = self.graph.frame or Frame("", graph.name, {})
        self.derived = derived_values(self.graph)
        self.times = timing(self.graph) if self.decodes else {}
        self.provenance = Provenance()
        self.words = Words()
        self.settings = Settings(self.words, self.provenance)
        self.places = Places(self.graph, kinds)
        self.helpers: dict[str, None] = {}
        self.tables: dict[str, str] = {}  # names at the top of the file for long tables of numbers
        self.functions: list[Function] = []
        self.root = build(self.graph)
        self.loops: dict[str, tuple[Unit, Node]] = {}  # a loop at each path, and the unit that it stands in
        self.readers: dict[str, list[tuple[Unit, Node]]] = {}  # the nodes that read each weight
        self._regions: dict[int, Unit] = {}
        self._blocks: dict[str, None] = {}
        self._sheets: dict[str, Sheet] = {}
        self._methods: dict[int, Method] = {}
        self._functions: dict[int, Function] = {}
        self._gather(self.root)
        hand_in(self._units)
        self.constraints = self._place_constraints()
        inside = [self.words(name) for unit in self._units for name in unit.names]
        self.names = ModuleNames([*map(sanitised, self._blocks), *map(class_name, self._blocks)], inside)

    # --- looking around ------------------------------------------------------------------------------------------------

    def _gather(self, root: Unit) -> None:
        """Find all units, loops' bodies included, and which of them are classes."""
        self._units: list[Unit] = []
        waiting = [root]
        while waiting:
            unit = waiting.pop(0)
            self._units.append(unit)
            self._blocks[unit.frame.block] = None
            self.settings.enter(unit)
            if self.is_module(unit):
                self.places.add_class(unit)
            for item in unit.items:
                waiting += [item] if isinstance(item, Unit) else self._bodies(unit, item)

    def _bodies(self, unit: Unit, node: Node) -> list[Unit]:
        """The bodies of a node as units; of every node, what it reads is noted."""
        for value in node.inputs:
            source = unit.graph.node(value) if value is not None else None
            if source is not None and source.op == "weight":
                self.readers.setdefault(source.attributes["path"], []).append((unit, node))
        if not node.bodies:
            return []
        self.loops.setdefault(node.attributes["path"], (unit, node))
        bodies = [build(body, unit, node) for body in node.bodies]
        for body in bodies:
            self._regions[id(body.graph)] = body
            body.penalties = penalty_names(node.bodies)
        return bodies

    def _place_constraints(self) -> dict[int, list[Constraint]]:
        """The constraints by unit: with the block that states them, where that tells its sizes, else with the model."""
        found: dict[int, list[Constraint]] = {}
        for constraint in self.graph.constraints:
            units = [unit for unit in self._units if self._states(unit, constraint)]
            for unit in units or [self.root]:
                found.setdefault(id(unit), []).append(constraint)
        return found

    def _states(self, unit: Unit, constraint: Constraint) -> bool:
        origins = self.provenance.of(unit)
        over = [size_of(tree, origins.names) for tree in sides(unit, constraint)]
        known = [None if size is None else origins.known(size) for size in over]
        axes = {dim for value in unit.inputs for dim in unit.graph.type(value).dims}
        needed = names_of((constraint.left, constraint.right))
        return known == [constraint.left, constraint.right] and all(symbol(name) in axes for name in needed)

    def region_unit(self, graph: Graph) -> Unit:
        """The unit of a loop's body."""
        return self._regions[id(graph)]

    def is_module(self, unit: Unit) -> bool:
        """Whether a unit is a class: the model, a turn of a loop with weights, an application that owns some, or a state."""
        if unit.is_region:
            return unit.is_root or unit.path.rpartition(".")[0] in self.places.turns
        return any(is_below(unit.path, path) for path in unit.owned())

    def is_list(self, loop: Node) -> bool:
        """Whether the turns of a loop are modules."""
        return loop.attributes["path"] in self.places.turns

    def is_derived(self, graph: Graph, value: Value) -> bool:
        """Whether a value follows from positions and numbers alone."""
        return value in self.derived[id(graph)]

    def use_helper(self, name: str) -> None:
        """Let the file bring a helper along."""
        self.helpers[name] = None

    def table(self, text: str, wanted: str) -> str:
        """The name at the top of the file for a table of numbers."""
        if text not in self.tables:
            base = sanitised(wanted).strip("_").upper()
            numbered = (base if number == 1 else f"{base}_{number}" for number in itertools.count(1))
            self.tables[text] = next(name for name in numbered if self.names.claim(name))
        return self.tables[text]

    def name_sight(self, sight: Sight) -> str:
        """The name that a mask has wherever it is handed."""
        base = "allowed" if sight.window is None else "nearby"
        numbered = itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2)))
        return next(name for name in numbered if self.sights.setdefault(name, sight) == sight)

    # --- methods: units with weights -----------------------------------------------------------------------------------

    def sheet(self, path: str) -> Sheet:
        """What is known of the class at a path."""
        if path not in self._sheets:
            self._sheets[path] = Sheet(Scope(path, self.places.unit(path)))
        return self._sheets[path]

    def attribute(self, path: str, name: str) -> str:
        """The attribute of a class that holds the value of a name."""
        attributes = self.sheet(path).attributes
        if name not in attributes:
            attributes[name] = self._free_attribute(path, self.words(name))
        return attributes[name]

    def kept(self, path: str) -> str:
        """The attribute of a class that keeps what is computed once."""
        sheet = self.sheet(path)
        sheet.kept = sheet.kept or self._free_attribute(path, "kept")
        self.state_kinds.add("Kept")
        self.use_helper("Kept")
        return sheet.kept

    def _free_attribute(self, path: str, text: str) -> str:
        layer, sheet = self.places.layer(path), self.sheet(path)
        taken = {
            *self.places.children(path),
            *(layer.weights if layer else ()),
            *MODULE_NAMES,
            *(ROOT_NAMES if self.decodes and not path else ()),
            *sheet.attributes.values(),
            sheet.kept,
        }
        while text in taken or text.startswith("forward"):
            text += "_"
        return text

    def applications(self, path: str) -> int:
        """How many units a class serves."""
        return sum(unit.path == path for unit in self._units)

    def method(self, unit: Unit) -> Method:
        """The method that computes an application of a block."""
        return self.methods([unit])[0]

    def methods(self, units: Sequence[Unit]) -> list[Method]:
        """The methods that compute units which are called alike (the bodies of one loop): of one name, with equal extras."""
        if id(units[0]) not in self._methods:
            sheets = [self.sheet(unit.path) for unit in units]
            reserved = [sheet for sheet in sheets if not sheet.methods]
            for sheet in reserved:
                sheet.methods["forward"] = None
            drafts = [self._write(unit, sheet.scope) for unit, sheet in zip(units, sheets, strict=True)]
            _hand_in_alike([forward.draft for forward in drafts])
            self._enter(drafts, sheets, reserved)
        return [self._methods[id(unit)] for unit in units]

    def _write(self, unit: Unit, scope: Scope) -> Forward:
        forward = Forward(self, unit, scope)
        forward.write()
        return forward

    def _enter(self, forwards: list[Forward], sheets: list[Sheet], reserved: list[Sheet]) -> None:
        """Give methods the first name that is free for all, or under which each is written already."""
        for sheet in reserved:
            del sheet.methods["forward"]
        number = 1
        while True:
            name = "forward" if number == 1 else f"forward_{number}"
            made = [self._method(name, forward) for forward in forwards]
            known = [sheet.methods.get(name, method) for sheet, method in zip(sheets, made, strict=True)]
            if all(k is not None and k.lines == m.lines for k, m in zip(known, made, strict=True)):
                break
            number += 1
        for forward, sheet, method in zip(forwards, sheets, made, strict=True):
            sheet.methods.setdefault(name, method)
            self._methods[id(forward.unit)] = method  # alike, it may still be handed the states of another application

    def _method(self, name: str, forward: Forward) -> Method:
        parameters = ["self", *_parameters(forward.draft)]
        lines = [*signature(name, parameters, _result_hint(forward.unit), "    "), *forward.lines]
        if forward.is_decoder:
            lines.insert(0, "    @torch.no_grad()")
        head = docstring(
            forward.unit, forward.draft.parameters, self.provenance, "    " if name == "forward" else "        "
        )
        return Method(name, lines, head, forward.draft.extras)

    # --- functions: units without weights ------------------------------------------------------------------------------

    def function(self, unit: Unit) -> Function:
        """The function that computes an application of a block."""
        if id(unit) not in self._functions:
            self._functions[id(unit)] = self._write_function(unit)
        return self._functions[id(unit)]

    def _write_function(self, unit: Unit) -> Function:
        scope = Scope(None, unit)
        forward = Forward(self, unit, scope, indent="    ")
        forward.write()
        settled = self.settings.settle(unit, scope.wanted)
        parameters = _parameters(forward.draft)
        parameters += [self.settings.parameter(unit, n, settled) for n in self.settings.ordered(unit, settled)]
        if forward.draft.uses_training:
            parameters.append("training: bool = False")
        body = [*(f"    {each}" for each in settled.statements), *forward.lines]
        head = docstring(unit, forward.draft.parameters, self.provenance, "    ")
        base, number = sanitised(unit.frame.block), 1
        while True:
            name = base if number == 1 else f"{base}_{number}"
            lines = [*signature(name, parameters, _result_hint(unit)), *body]
            known = next((each for each in self.functions if each.name == name), None)
            if known is not None and known.lines == lines:
                return replace(known, extras=forward.draft.extras)
            if known is None and self.names.claim(name):
                break
            number += 1
        made = Function(name, lines, head, forward.draft.extras, settled, forward.draft.uses_training)
        self.functions.append(made)
        return made


def _stateful_ops(graph: Graph) -> set[str]:
    return {node.op for region in graph.regions() for node in region.nodes() if node.op in STATE_CLASSES}


def _parameters(draft: Draft) -> list[str]:
    """The tensors that a function takes, and what else is handed in."""
    extras = [f"{name}: {HINTS[kind]}" for (kind, _), name in draft.extras.items()]
    return [*(f"{name}: Tensor{' | None = None' * (name in draft.optional)}" for name in draft.parameters), *extras]


def _hand_in_alike(drafts: Sequence[Draft]) -> None:
    """Let functions that are called alike take the same extras in the same order."""
    wanted = {extra: name for draft in drafts for extra, name in draft.extras.items()}
    for draft in drafts:
        draft.extras = {
            extra: draft.extras[extra] if extra in draft.extras else draft.variables.keep(name)
            for extra, name in wanted.items()
        }


def _result_hint(unit: Unit) -> str:
    count = len(unit.results) + (0 if unit.is_root else len(unit.penalties))
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
