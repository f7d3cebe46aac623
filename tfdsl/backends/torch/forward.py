"""One `forward` (or function) written out: which values get a name, which are written where they are used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tfdsl.backends.torch import layers
from tfdsl.backends.torch.code import ATOM, Code, call
from tfdsl.backends.torch.decoding import count_past, defaults
from tfdsl.backends.torch.draft import Draft, Scope
from tfdsl.backends.torch.held import write_items as write_decoder_items
from tfdsl.backends.torch.layout import WIDEST, statement
from tfdsl.backends.torch.loops import write_loop
from tfdsl.backends.torch.lowerings import LOWERINGS, REFUSED
from tfdsl.backends.torch.measures import Measures
from tfdsl.backends.torch.places import LAYER
from tfdsl.backends.torch.precision import misfits
from tfdsl.backends.torch.recurrences import write_scan
from tfdsl.backends.torch.reshaping import padded_by_hand
from tfdsl.backends.torch.site import Site
from tfdsl.backends.torch.structure import REFERENCES, Unit
from tfdsl.backends.torch.temporaries import Temporaries
from tfdsl.backends.torch.variables import Variables
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one

if TYPE_CHECKING:
    from tfdsl.backends.torch.program import Program

# Ops of two or three operands of which some may be plain numbers.
TAKE_NUMBERS = (
    *("add", "sub", "mul", "div", "pow", "floordiv", "mod", "maximum", "minimum", "where"),
    *("eq", "ne", "lt", "le", "gt", "ge", "both", "either"),
)
WIDEST_INLINE = 72
WORTH_NAMING = 16


class Forward:
    """The statements of one unit. A loop's body that stands in the loop itself shares the draft of what is around it."""

    def __init__(
        self,
        program: Program,
        unit: Unit,
        scope: Scope,
        indent: str = "        ",
        draft: Draft | None = None,
        variables: Variables | None = None,
    ):
        self.program, self.unit, self.indent = program, unit, indent
        self.graph: Graph = unit.graph
        self.draft: Draft = draft or Draft(program, unit, scope, indent)
        self.variables: Variables = variables or self.draft.variables
        self.numbers = Measures(self.draft, unit)
        self.temporaries = Temporaries(unit)
        self.lines: list[str] = []
        self.sums: list[tuple[str, str]] = []  # auxiliary losses: their names, and the variables that sum them
        self.positions: dict[tuple[Value, str], str] = {}  # along queries and keys, where a mask asks for them
        self.locals: dict[int, str] = {}  # what a node has been given a variable or functions of its own for

    @property
    def is_decoder(self) -> bool:
        """Whether this is the call of a model that decodes with a state."""
        return self.unit.is_root and self.program.decodes

    # --- the whole -----------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Fill `lines`, and the draft's parameters."""
        self.count()
        for value in self.unit.inputs:
            name = self.variables.fresh(self.temporaries.input_name(value))  # its own, be it read or not
            self.draft.parameters.append(name)
        for value, name in zip(self.unit.inputs, self.draft.parameters, strict=True):
            self.hold(name, value)
        if self.is_decoder:
            defaults(self)
        self._constraints()
        self.run()
        self._finish()
        self.lines = self.draft.head + self.lines

    def run(self) -> None:
        """Write the statements of all items."""
        if self.program.decodes:
            write_decoder_items(self)
        else:
            self.write_items(self.unit.items)

    def write_items(self, items: Iterable[Node | Unit]) -> None:
        """Write the statements of some items."""
        for item in items:
            if isinstance(item, Unit):
                self._call_unit(item)
            elif item.op == "repeat":
                write_loop(self, item)
            elif item.op == "scan":
                write_scan(self, item)
            else:
                self._node(item)

    def count(self) -> None:
        """Expect every use of every value."""
        penalties = [value for _, value in self.graph.penalties] if self.unit.is_region else []
        for item in self.unit.items:
            for value in item.inputs:
                if value is not None:
                    self.variables.expect(value)
        for value in [*self.unit.results, *penalties]:
            self.variables.expect(value)

    def _constraints(self) -> None:
        for constraint in self.program.constraints.get(id(self.unit), ()):
            condition = self.numbers.violated(constraint)
            why = constraint.why or f"{constraint.left} {constraint.operator} {constraint.right} does not hold"
            self.line(f"if {condition.text}:")
            self.line(f"raise ValueError({json.dumps(why)})", "    ")

    def _finish(self) -> None:
        results = [self.whole(value) for value in self.unit.results]
        sums = self.penalty_sums()
        if sums and self.unit.is_root:
            self.line(f"self.penalties = {{{', '.join(f'{json.dumps(name)}: {text}' for name, text in sums.items())}}}")
        else:
            results += sums.values()
        if self.is_decoder:
            self.line(count_past(self))
        self.line("return " + ", ".join(results))

    def penalty_sums(self) -> dict[str, str]:
        """The auxiliary losses of a unit: its own, and those of the loops and units inside it."""
        own = [(name, self.whole(value)) for name, value in self.graph.penalties] if self.unit.is_region else []
        parts: dict[str, list[str]] = {name: [] for name in self.unit.penalties}
        for name, text in [*self.sums, *own]:
            parts[name].append(text)
        return {name: " + ".join(texts) or "0.0" for name, texts in parts.items()}

    def line(self, text: str, more_indent: str = "") -> None:
        """Add a statement."""
        self.lines += statement(text, self.indent + more_indent) if text else [""]

    # --- values --------------------------------------------------------------------------------------------------------

    def bind(self, value: Value, *wanted: str) -> str:
        """A variable for a value."""
        name = self.variables.name(value, *wanted)
        self._note(name, value)
        return name

    def hold(self, name: str, value: Value) -> None:
        """Let a variable hold a value from now on."""
        self.variables.hold(name, value)
        self._note(name, value)

    def _note(self, name: str, value: Value) -> None:
        if self.graph.type(value).dtype != "float":
            self.draft.not_float.add(name)

    def code(self, value: Value) -> Code:
        """A value as code: its variable, or the expression that was kept for its one use."""
        node = self.graph.node(value)
        if value not in self.variables and node.op in REFERENCES:
            return LOWERINGS[node.op](self.site(node, []))
        return self.variables.code(value)

    def whole(self, value: Value) -> str:
        """A value for one of its uses, where it must be a tensor: a number is made one."""
        text = self.tensor_code(value)
        self.variables.spend(value)
        return text

    def tensor_code(self, value: Value) -> str:
        """A value as code that is a tensor: a number is made one."""
        node, text = self.graph.node(value), self.code(value).text
        if node.op != "constant":
            return text
        if node.type.dtype == "float" and "." not in text:
            text = f"float({text})"
        return f"torch.tensor({text}, device={self.draft.device()})"

    def site(self, node: Node, args: Sequence[Code | None]) -> Site:
        """A node with what its lowering may ask for."""
        types = [None if value is None else self.graph.type(value) for value in node.inputs]
        return Site(self, node, args, types, OPS[node.op].fill(node.attributes))

    def is_number(self, node: Node, place: int) -> bool:
        """Whether an operand is a plain number."""
        value = node.inputs[place]
        return value is not None and self.graph.node(value).op == "constant"

    def settle(self, value: Value, *wanted: str) -> None:
        """Give a value a variable if it is still an expression."""
        if value in self.variables and not self.variables.is_named(value):
            self._assign([value], self.variables.code(value).text, [wanted or self.temporaries.names(value)])

    def _assign(self, values: Sequence[Value], text: str, wanted: Sequence[Sequence[str]]) -> None:
        """`a, b = text`."""
        names = [
            self.bind(value, *each) if self.variables.uses(value) else "_"
            for value, each in zip(values, wanted, strict=True)
        ]
        self.line(f"{', '.join(names)} = {text}" if any(name != "_" for name in names) else text)

    # --- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if node.op in REFUSED:
            raise one("T703", f"torch: `{node.op}`: {REFUSED[node.op]}", node.span, help="give weights or a seed")
        results = [Value(node.id, index) for index in range(len(node.types))]
        if not node.bodies and not any(map(self.variables.uses, results)):
            for value in node.inputs:
                if value is not None:
                    self.variables.spend(value)
            return
        code = self._lower(node)
        while self._is_too_wide(results, code) and self._shorten(node.inputs, code):
            code = self._lower(node)
        self._keep(node.inputs, results, code)

    def _keep(self, inputs: Sequence[Value | None], results: list[Value], code: Code) -> None:
        """Let an expression wait for its one use, or assign it."""
        reads = self.variables.read_by(inputs)
        for value in inputs:
            if value is not None:
                self.variables.spend(value)
        if len(results) == 1 and not self._needs_name(results[0], code):
            self.variables.wait(results[0], code, reads)
        else:
            self._assign(results, code.text, [self.temporaries.names(value) for value in results])

    def _needs_name(self, value: Value, code: Code) -> bool:
        label, uses = self.temporaries.label(value), self.variables.uses(value)
        return uses > 1 or bool(label) or (len(code.text) > WIDEST_INLINE and not self._is_returned(value))

    def _is_returned(self, value: Value) -> bool:
        return value in self.unit.results and self.variables.uses(value) == 1

    def _is_too_wide(self, results: list[Value], code: Code) -> bool:
        """Whether an expression is better written with a name for a part of it."""
        if len(results) > 1 or code.text.startswith("F.scaled_dot_product_attention"):
            return False
        label = self.temporaries.label(results[0])
        if label or self._is_returned(results[0]):
            return len(self.indent) + len(label or "return") + 3 + len(code.text) > WIDEST
        return len(code.text) > WIDEST_INLINE

    def _shorten(self, values: Sequence[Value | None], code: Code) -> bool:
        """Name the longest operand that is still an expression; whether there is one worth it."""
        waiting = [v for v in values if v is not None and v in self.variables and not self.variables.is_named(v)]
        longest = max(waiting, key=lambda value: len(self.variables.code(value).text), default=None)
        if longest is None or len(self.variables.code(longest).text) < WORTH_NAMING:
            return False
        self.settle(longest)
        return True

    def _lower(self, node: Node) -> Code:
        args = [None if value is None else self.code(value) for value in node.inputs]
        args = self._in_one_type(node, self._numbers_as_tensors(node, args))
        site = self.site(node, args)
        return self._layer_call(site) or LOWERINGS[node.op](site)

    def _numbers_as_tensors(self, node: Node, args: list[Code | None]) -> list[Code | None]:
        """Numbers stand for themselves beside tensors; alone, or under a method, they must be tensors."""
        numbers = [self.is_number(node, place) for place in range(len(args))]
        if node.op in TAKE_NUMBERS and not all(numbers):
            return args
        return [
            Code(self.tensor_code(value)) if is_number and value is not None else code
            for is_number, code, value in zip(numbers, args, node.inputs, strict=True)
        ]

    def _in_one_type(self, node: Node, args: list[Code | None]) -> list[Code | None]:
        """Positions are floats of full precision; beside activations they take the activations' type."""
        found = misfits(self.graph, node, self.program.derived[id(self.graph)])
        if found is None:
            return args
        places, other = found
        anchor = args[other]
        assert anchor is not None
        is_name = anchor.text.replace(".", "").isidentifier()
        type_ = f"{anchor.text}.dtype" if is_name else self.draft.float_type()
        return [
            Code(f"{code.at(ATOM)}.to({type_})") if place in places and code is not None else code
            for place, code in enumerate(args)
        ]

    def _layer_call(self, site: Site) -> Code | None:
        """A call of the layer that holds the weights of a node, where one does."""
        node = site.node
        weight = node.inputs[1] if node.op in layers.LAYER_OPS else None
        if weight is None or self.graph.node(weight).op != "weight":
            return None
        path = self.graph.node(weight).attributes["path"].rpartition(".")[0]
        places = self.program.places
        if places.kind(path) != LAYER or not layers.serves(places.layer(path), self.graph, node):
            return None
        return call(self.draft.module(path), padded_by_hand(site) or site.arg())

    # --- units inside --------------------------------------------------------------------------------------------------

    def _call_unit(self, unit: Unit) -> None:
        code = self._unit_call(unit)
        while len(unit.results) == 1 and self._is_too_wide(unit.results, code) and self._shorten(unit.inputs, code):
            code = self._unit_call(unit)
        if not unit.penalties:
            self._keep(unit.inputs, unit.results, code)
            return
        for value in unit.inputs:
            self.variables.spend(value)
        names = [self.bind(value, *self.temporaries.names(value)) for value in unit.results]
        sums = [self.variables.fresh(name) for name in unit.penalties]
        self.sums += zip(unit.penalties, sums, strict=True)
        self.line(f"{', '.join([*names, *sums])} = {code.text}")

    def _unit_call(self, unit: Unit) -> Code:
        arguments = [self.code(value).text for value in unit.inputs]
        if self.program.is_module(unit):
            method = self.program.method(unit)
            module = self.draft.module(unit.path)
            callee = module if method.name == "forward" else f"{module}.{method.name}"
            return call(callee, *arguments, *self.draft.arguments(method.extras))
        function = self.program.function(unit)
        settings = self.program.settings.arguments(unit, function.settled, self.draft.scope.unit, self.draft.name)
        if function.uses_training:
            settings.append(f"training={self.draft.training()}")
        return call(function.name, *arguments, *self.draft.arguments(function.extras), *settings)

    # --- loops ---------------------------------------------------------------------------------------------------------

    def inside(self, unit: Unit, indent: str) -> Forward:
        """The statements of a loop's body that stands in the loop itself."""
        return Forward(self.program, unit, self.draft.scope, self.indent + indent, self.draft, self.variables.inside())

    def capture(self, value: Value, text: str) -> None:
        """Let a value be what the code around a loop has for it."""
        if text.isidentifier():
            self.variables.occupy(text)
        self.variables.wait(value, Code(text), frozenset({text} if text.isidentifier() else ()))

    def start_sums(self, names: Sequence[str]) -> list[str]:
        """Variables that sum the auxiliary losses of a loop's turns."""
        variables = [self.variables.fresh(name) for name in names]
        for variable in variables:
            self.line(f"{variable} = 0.0")
        self.sums += zip(names, variables, strict=True)
        return variables
