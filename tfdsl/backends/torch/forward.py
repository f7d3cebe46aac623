"""One `forward` (or function) written out: which values get a name, which are written where they are used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfdsl.backends.torch import layers
from tfdsl.backends.torch.lowerings import ATOM, LOWERINGS, LOWEST, REFUSED, Code, Site, conv_padding
from tfdsl.backends.torch.names import NotPlain, identifier, number, same, spell
from tfdsl.backends.torch.structure import Unit
from tfdsl.ir import masks
from tfdsl.ir.dims import Atom, Dim, Size
from tfdsl.ir.graph import Constraint, Graph, Node, Value
from tfdsl.ir.ops import OPS
from tfdsl.language.diagnostics import one

if TYPE_CHECKING:
    from tfdsl.backends.torch.classes import Program

_ATOMIC = re.compile(r"[\w.]+(\([^()]*\))?\Z")  # a name, a number or a call
TAKE_NUMBERS = (
    *("add", "sub", "mul", "div", "pow", "floordiv", "mod", "maximum", "minimum", "where"),
    *("eq", "ne", "lt", "le", "gt", "ge", "both", "either"),
)
_STRING = re.compile(r"""(["']).*?\1""")
WIDEST_INLINE = 72
WIDEST_OPERANDS = 84
WIDEST_RETURN = 96
WIDEST_LINE = 108
MINIMUM_WRAP = 40
FLOATING = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "where", "concat", "einsum", "matmul")


@dataclass(eq=False)
class Scope:
    """Where a unit's code stands: the class it belongs to (None for a plain function) and its names.

    `wanted` gathers the names that the code reads as `self.name`, `extras` what must be handed in besides its inputs.
    """

    path: str | None
    names: dict[str, Any]
    wanted: dict[str, None] = field(default_factory=dict)
    plain: dict[str, None] = field(default_factory=dict)


def wrap(line: str) -> list[str]:
    """A statement over several lines, if it is a long call: one argument a line."""
    if len(line) <= WIDEST_LINE or not line.endswith(")"):
        return [line]
    # Brackets and commas inside strings are no structure.
    bare = _STRING.sub(lambda string: "_" * len(string[0]), line)
    depth = 0
    opening = len(line)
    for position in range(len(line) - 1, -1, -1):
        depth += (bare[position] in ")]}") - (bare[position] in "([{")
        if depth == 0:
            opening = position
            break
    if bare[opening - 1] in " =([{" or len(line) - opening < MINIMUM_WRAP:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    arguments: list[str] = [""]
    depth = 0
    for character, mark in zip(line[opening + 1 : -1], bare[opening + 1 : -1], strict=True):
        depth += (mark in "([{") - (mark in ")]}")
        if mark == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += character
    return [line[: opening + 1], *(f"{indent}    {each.strip()}," for each in arguments), f"{indent})"]


def _asks_positions(term: masks.Term) -> bool:
    return term.operand is None or term.kind == "prefix"


class Forward:
    """The statements of one unit."""

    def __init__(self, program: Program, unit: Unit, scope: Scope, indent: str = "        "):
        self.program, self.unit, self.scope = program, unit, scope
        self.graph: Graph = unit.graph
        self.lines: list[str] = []
        self.parameters: list[str] = []
        self.extras: dict[tuple[str, str], str] = {}  # (kind, path or symbol) -> the name it comes in under
        self.uses_training = False
        self.loop_penalties: list[tuple[str, str]] = []  # names, and the variables that sum them
        self._indent = indent
        self._code: dict[Value, Code] = {}
        self._reads: dict[Value, set[str]] = {}  # the variables that a pending expression mentions
        self._variable: dict[str, Value | None] = {}
        self._left: dict[Value, int] = {}
        self._sizes: dict[str, str] = {}
        self._head: list[str] = []
        self._positions: dict[Value, str] = {}

    # --- the whole -----------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Fill `lines` and `parameters`."""
        self._count()
        for value in self.unit.inputs:
            self.parameters.append(self._bind(value, self._input_name(value)))
        if self.unit.frame.path == "" and self.unit.is_region:
            for constraint in self.graph.constraints:
                self._constraint(constraint)
        for item in self.unit.items:
            if isinstance(item, Unit):
                self._call_unit(item)
            elif item.op == "repeat":
                LOWERINGS["repeat"](self.site(item, []))
            else:
                self._node(item)
        self._finish()
        self.lines = self._head + self.lines

    def _finish(self) -> None:
        results = [self.code(value).text for value in self.unit.results]
        sums = self.penalty_sums()
        if sums and self.unit.frame.path == "":
            pairs = ", ".join(f'"{name}": {text}' for name, text in sums.items())
            self.line(f"self.penalties = {{{pairs}}}")
        else:
            results += sums.values()
        self.line("return " + ", ".join(results))

    def penalty_sums(self) -> dict[str, str]:
        """The auxiliary losses of a region: its own, and those of the loops inside it."""
        if not self.unit.is_region:
            return {}
        own = [(name, self.code(value).text) for name, value in self.graph.penalties]
        parts = {
            name: [text for each, text in [*self.loop_penalties, *own] if each == name] for name in self.unit.penalties
        }
        return {name: " + ".join(texts) or "0.0" for name, texts in parts.items()}

    def _input_name(self, value: Value) -> str:
        for name, bound in self.unit.frame.arguments.items():
            if bound == value and not self.unit.is_region:
                return name
        node = self.graph.node(value)
        if node.op == "input":
            return str(node.attributes["name"])
        return self.label(value) or node.name or "x"

    def _count(self) -> None:
        for item in self.unit.items:
            for value in self._consumed(item):
                self._left[value] = self._left.get(value, 0) + 1
        penalties = [value for _, value in self.graph.penalties] if self.unit.is_region else []
        for value in [*self.unit.results, *penalties]:
            self._left[value] = self._left.get(value, 0) + 1

    def _consumed(self, item: Node | Unit) -> list[Value]:
        values = item.inputs if isinstance(item, (Unit, Node)) else ()
        return [
            value for value in values if value is not None and self.graph.node(value).op not in ("weight", "constant")
        ]

    def line(self, text: str) -> None:
        self.lines += [""] if not text else wrap(f"{self._indent}{text}")

    def settle(self, value: Value, wanted: str) -> None:
        """Give a value a variable if it is still an expression."""
        code = self.code(value)
        if self.graph.node(value).op not in ("weight", "constant") and not code.text.isidentifier():
            self.assign([value], code.text, [self.label(value) or wanted])

    # --- values --------------------------------------------------------------------------------------------------------

    def label(self, value: Value) -> str:
        """What the spec calls a value, here or where it was made."""
        if value in self.unit.frame.labels:
            return self.unit.frame.labels[value]
        labels = self.graph.node(value).labels
        return labels[value.index] if value.index < len(labels) else ""

    def code(self, value: Value) -> Code:
        """A value as code: its variable, or the expression that was kept for its one use."""
        node = self.graph.node(value)
        if node.op in ("weight", "constant"):
            return LOWERINGS[node.op](self.site(node, []))
        return self._code[value]

    def site(self, node: Node, args: Sequence[Code | None]) -> Site:
        """A node with what its lowering may ask for."""
        types = [None if value is None else self.graph.type(value) for value in node.inputs]
        return Site(self, node, args, types, OPS[node.op].fill(node.attributes))

    def constant(self, node: Node) -> Code:
        value = node.attributes["value"]
        if isinstance(value, Dim):
            return Code(self.size(value, node))
        if isinstance(value, bool):
            return Code(number(value))
        text = self.setting(node, "value", value)
        if text == number(value) and isinstance(value, float) and value == int(value) and abs(value) < 1e9:
            text = number(int(value))  # beside a tensor of floats, a whole number reads better and means the same
        return Code(text, ATOM if _ATOMIC.match(text) else LOWEST)

    def is_number(self, node: Node, place: int) -> bool:
        value = node.inputs[place]
        return value is not None and self.graph.node(value).op == "constant"

    def take(self, value: Value) -> Code:
        """A value for one of its uses."""
        code = self.code(value)
        if value in self._left:
            self._left[value] -= 1
        return code

    def _bind(self, value: Value, wanted: str) -> str:
        """A variable for a value; a name is used again only when nothing still needs what it held."""
        base = identifier(wanted)
        name, count = base, 0
        while name in self.program.reserved or (name in self._variable and not self._free(name)):
            count += 1
            name = f"{base}_{count}"
        self._variable[name] = value
        self._code[value] = Code(name)
        self._reads[value] = {name}
        return name

    def _free(self, name: str) -> bool:
        held = self._variable[name]
        if len(self.parameters) < len(self.unit.inputs):
            return False  # while the parameters get their names, each needs one, be it read or not
        if held is None or self._left.get(held, 0) > 0:
            return False
        return not any(
            name in reads for value, reads in self._reads.items() if self._left.get(value, 0) > 0 and value != held
        )

    def assign(self, values: Sequence[Value], text: str, wanted: Sequence[str]) -> None:
        """`a, b = text`."""
        names = []
        for value, name in zip(values, wanted, strict=True):
            names.append(self._bind(value, name) if self._left.get(value, 0) or self.label(value) else "_")
        self.line(f"{', '.join(names)} = {text}")

    def _keep(self, value: Value, code: Code, reads: set[str]) -> None:
        """Name a value, or keep its expression for its one use."""
        label = self.label(value)
        if self._left.get(value, 0) == 0 and not label:
            return
        widest = WIDEST_RETURN if value in self.unit.results else WIDEST_INLINE
        if self._left.get(value, 0) == 1 and not label and len(code.text) <= widest:
            self._code[value] = code
            self._reads[value] = reads
        else:
            self.assign([value], code.text, [label or self._temporary(value)])

    def _temporary(self, value: Value) -> str:
        name = self.graph.node(value).name
        return name if name and name not in ("input",) else "x"

    def reads(self, values: Sequence[Value | None]) -> set[str]:
        return {name for value in values if value is not None for name in self._reads.get(value, ())}

    # --- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if node.op == "attend":
            self._settle_operands(node)
        self._shorten(node.inputs)
        reads = self.reads(node.inputs)
        args = [None if value is None else self.take(value) for value in node.inputs]
        args = self._in_one_dtype(node, self._numbers_as_tensors(node, args))
        if node.op in REFUSED:
            raise one("T703", f"torch: `{node.op}`: {REFUSED[node.op]}", node.span, help="give weights or a seed")
        site = self.site(node, args)
        code = self._layer_call(site) or LOWERINGS[node.op](site)
        results = [Value(node.id, index) for index in range(len(node.types))]
        if len(results) == 1:
            self._keep(results[0], code, reads)
        else:
            self.assign(results, code.text, [self.label(value) or f"{node.name}_{value.index}" for value in results])

    def _numbers_as_tensors(self, node: Node, args: list[Code | None]) -> list[Code | None]:
        """Numbers stand for themselves beside tensors; alone, or under a method, they must be tensors."""
        numbers = [self.is_number(node, place) for place in range(len(args))]
        if not any(numbers) or (node.op in TAKE_NUMBERS and not all(numbers)):
            return args
        made = list(args)
        for place, is_number in enumerate(numbers):
            code, value = args[place], node.inputs[place]
            if is_number and code is not None and value is not None:
                text = code.text if self.graph.type(value).dtype != "float" else f"float({code.text})"
                made[place] = Code(f"torch.tensor({text}, device={self.device()})")
        return made

    def _shorten(self, values: Sequence[Value | None]) -> None:
        """Name the longest of several operands that would make too long a line together."""
        pending = {value: self._code[value].text for value in values if value is not None and value in self._code}
        while len(pending) > 1 and sum(len(text) for text in pending.values()) > WIDEST_OPERANDS:
            longest = max(pending, key=lambda value: len(pending[value]))
            if pending[longest].isidentifier():
                return
            self.settle(longest, self._temporary(longest))
            pending[longest] = self.code(longest).text

    def _settle_operands(self, node: Node) -> None:
        """A mask over positions asks queries and keys for their lengths: they get names first."""
        mask = node.attributes.get("mask")
        if mask is None or mask == masks.CAUSAL or not any(_asks_positions(term) for term in masks.terms(mask)):
            return
        for place in (0, 1):
            value = node.inputs[place]
            assert value is not None
            self.settle(value, "qk"[place])

    def _layer_call(self, site: Site) -> Code | None:
        node = site.node
        if node.op not in layers.LAYER_OPS:
            return None
        weight = node.inputs[1]
        if weight is None or self.graph.node(weight).op != "weight":
            return None
        path = self.graph.node(weight).attributes["path"].rpartition(".")[0]
        if path == self.scope.path or not layers.serves(self.program.layers.get(path), self.graph, node):
            return None
        x = site.arg(0)
        if node.op == "conv1d":
            x, _ = conv_padding(site, x)
        return Code(f"{self.module(path)}({x})")

    def _in_one_dtype(self, node: Node, args: list[Code | None]) -> list[Code | None]:
        """Positions are floats of full precision; beside activations they take the activations' type."""
        if node.op not in FLOATING or node.types[0].dtype != "float":
            return args
        floats = [
            (place, value)
            for place, value in enumerate(node.inputs)
            if value is not None and self.graph.type(value).dtype == "float" and self.graph.node(value).op != "constant"
        ]
        derived = [place for place, value in floats if self.program.is_derived(self.graph, value)]
        if not derived or len(derived) == len(floats):
            return args
        anchor = next(args[place] for place, _ in floats if place not in derived)
        assert anchor is not None
        dtype = f"{anchor.text}.dtype" if anchor.text.replace(".", "").isidentifier() else self.float_dtype()
        return [
            Code(f"{code.at(ATOM)}.to({dtype})") if place in derived and code is not None else code
            for place, code in enumerate(args)
        ]

    def matching(self, site: Site, place: int) -> str:
        return site.arg(place)

    def like(self, site: Site, place: int) -> str:
        """The dtype that a bias must be converted to, if it was made of positions."""
        value = site.node.inputs[3]
        assert value is not None
        if not self.program.is_derived(self.graph, value):
            return ""
        text = site.arg(place)
        return f"{text}.dtype" if text.isidentifier() else self.float_dtype()

    def as_float(self, site: Site) -> str:
        return f"{site.atom(0)}.to({self.float_dtype()})"

    def float_dtype(self) -> str:
        """The type of the activations here."""
        for value in self.unit.inputs:
            if self.graph.type(value).dtype == "float" and not self.program.is_derived(self.graph, value):
                return f"{self.parameters[self.unit.inputs.index(value)]}.dtype"
        if self.scope.path is not None:
            for path, layer in self.program.layers.items():
                below = path == self.scope.path or self._below(path)
                if below and "*" not in self._relative(path):
                    for name, weight in layer.weights.items():
                        if weight.type.dtype == "float" and layer.op in ("embedding", "linear", None):
                            return f"{self.weight(f'{path}.{name}' if path else name)}.dtype"
        return "torch.get_default_dtype()"

    def device(self) -> str:
        if self.parameters and self.unit.inputs:
            return f"{self.parameters[0]}.device"
        return self._extra("device", "device", "device")

    def query_positions(self, site: Site) -> str:
        return self._position(site, 0, "queries", "[:, None]")

    def key_positions(self, site: Site) -> str:
        return self._position(site, 1, "keys", "")

    def _position(self, site: Site, place: int, name: str, suffix: str) -> str:
        value = site.node.inputs[place]
        assert value is not None
        key = Value(-1 - place - 2 * value.node, value.index)
        if key not in self._positions:
            x = site.arg(place)
            self._left[key] = 1
            variable = self._bind(key, name)
            self.line(f"{variable} = torch.arange({x}.shape[2], device={x}.device){suffix}")
            self._positions[key] = variable
        return self._positions[key]

    def training(self) -> str:
        if self.scope.path is None:
            self.uses_training = True
            return "training"
        return "self.training"

    def needs_helper(self, name: str) -> None:
        self.program.helpers[name] = None

    # --- numbers -------------------------------------------------------------------------------------------------------

    def setting(self, node: Node, name: str, value: Any) -> str:
        """An attribute as source: as the spec wrote it, if that still gives its value; else the number."""
        if isinstance(value, tuple):
            return f"({', '.join(number(each) for each in value)})"
        tree = node.spelled.get(name)
        frame = node.scope[-1] if node.scope else self.graph.frame
        if tree is not None and frame is self.unit.frame:
            try:
                text, found = spell(tree, self.scope.names, self._name)
            except NotPlain:
                pass
            else:
                if same(found, value):
                    return text
        return number(value)

    def _name(self, name: str) -> str:
        if self.scope.path is None:
            self.scope.plain[name] = None
            return identifier(name)
        self.scope.wanted[name] = None
        return f"self.{self.program.stored(self.scope.path, name)}"

    def size(self, size: Size, node: Node, spelled: str | None = None) -> str:
        """A size as source; one that run time knows comes from a shape."""
        if isinstance(size, int):
            if spelled is not None and spelled in node.spelled:
                return self.setting(node, spelled, size)
            name = self.program.named(self.scope.names, size)
            return self._name(name) if name and size > 1 else number(size)
        return self._dim(size)

    def _dim(self, size: Dim, bracket: bool = False) -> str:
        parts: list[str] = []
        for monomial, coefficient in size.terms:
            above = [self._factor(f) for f, p in monomial if p > 0 for _ in range(p)]
            below = [self._factor(f) for f, p in monomial if p < 0 for _ in range(-p)]
            if abs(coefficient.numerator) != 1 or not above:
                above.insert(0, str(abs(coefficient.numerator)))
            if coefficient.denominator != 1:
                below.insert(0, str(coefficient.denominator))
            text = " * ".join(above) + "".join(f" // {part}" for part in below)
            parts.append(("- " if coefficient < 0 else "+ ") + text)
        text = " ".join(parts)
        text = text[2:] if text.startswith("+ ") else f"-{text[2:]}"
        # Terms that are not whole each are added before they are divided.
        if sum(c.denominator != 1 for _, c in size.terms) > 1:
            common = max(c.denominator for _, c in size.terms)
            whole = size * common
            text = f"({self._dim(whole) if isinstance(whole, Dim) else whole}) // {common}"
        return f"({text})" if bracket and " " in text else text

    def _factor(self, factor: str | Atom) -> str:
        if isinstance(factor, str):
            return self.symbol(factor)
        left, right = (
            self._dim(side, factor.operator not in ("min", "max")) if isinstance(side, Dim) else str(side)
            for side in (factor.left, factor.right)
        )
        if factor.operator in ("min", "max"):
            return f"{factor.operator}({left}, {right})"
        return f"({left} {factor.operator} {right})"

    def symbol(self, name: str) -> str:
        """A size that run time knows, from the shape of an input; handed in where no input tells it."""
        if name not in self._sizes:
            for value, parameter in zip(self.unit.inputs, self.parameters, strict=True):
                for axis, dim in enumerate(self.graph.type(value).dims):
                    if isinstance(dim, Dim) and dim.name == name:
                        key = Value(-10_000_000 - len(self._sizes), 0)
                        self._left[key] = 1
                        self._sizes[name] = self._bind(key, name)
                        self._head.append(f"{self._indent}{self._sizes[name]} = {parameter}.shape[{axis}]")
                        return self._sizes[name]
            self._sizes[name] = self._extra("size", name, name)
        return self._sizes[name]

    def _constraint(self, constraint: Constraint) -> None:
        opposite = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "==": "!=", "!=": "=="}[constraint.operator]
        sides = []
        anything = self.unit.graph.nodes()[0]
        for side in (constraint.left, constraint.right):
            sides.append(self.size(side, anything))
        why = constraint.why or f"{constraint.left} {constraint.operator} {constraint.right} does not hold"
        self.line(f"if {sides[0]} {opposite} {sides[1]}:")
        self.line(
            f"    raise ValueError({why!r})".replace("'", '"') if '"' not in why else f"    raise ValueError({why!r})"
        )

    # --- modules and weights -------------------------------------------------------------------------------------------

    def _below(self, path: str) -> bool:
        return self.scope.path is not None and (self.scope.path == "" or path.startswith(f"{self.scope.path}."))

    def _relative(self, path: str) -> str:
        assert self.scope.path is not None
        return path[len(self.scope.path) + 1 :] if self.scope.path else path

    def module(self, path: str) -> str:
        """The module at a path, as this code reaches it."""
        if self._below(path):
            return self.program.attribute("self", self._relative(path))
        return self._extra("module", path, path.rpartition(".")[2])

    def weight(self, path: str) -> str:
        """The tensor of a weight, as this code reaches it."""
        if self._below(path):
            return self.program.attribute("self", self._relative(path))
        parent, _, name = path.rpartition(".")
        return self._extra("weight", path, f"{parent.rpartition('.')[2]}_{name}" if parent else name)

    def _extra(self, kind: str, what: str, name: str) -> str:
        if (kind, what) not in self.extras:
            key = Value(-20_000_000 - len(self.extras), hash(what) % 1000)
            self._left[key] = 1
            self.extras[kind, what] = self._bind(key, name)
        return self.extras[kind, what]

    def extra_arguments(self, extras: dict[tuple[str, str], str]) -> list[str]:
        """What a unit that is called from here wants besides its inputs, as this code reaches it."""
        found = []
        for kind, what in extras:
            if kind == "module":
                found.append(self.module(what))
            elif kind == "weight":
                found.append(self.weight(what))
            elif kind == "device":
                found.append(self.device())
            else:
                found.append(self.symbol(what))
        return found

    # --- units inside --------------------------------------------------------------------------------------------------

    def _call_unit(self, unit: Unit) -> None:
        self._shorten(unit.inputs)
        reads = self.reads(unit.inputs)
        arguments = [self.take(value).text for value in unit.inputs]
        if self.program.has_weights(unit):
            written = self.program.method(unit)
            callee = self.module(unit.path)
            if written.method != "forward":
                callee += f".{written.method}"
            text = f"{callee}({', '.join(arguments + self.extra_arguments(written.extras))})"
        else:
            function = self.program.function(unit)
            settings = self._function_settings(unit, function.settings)
            if function.uses_training:
                settings.append(f"training={self.training()}")
            text = f"{function.name}({', '.join(arguments + self.extra_arguments(function.extras) + settings)})"
        if len(unit.results) == 1:
            self._keep_result(unit, Code(text), reads)
        elif unit.results:
            wanted = [
                self.label(value) or f"{identifier(unit.frame.block.lower())}_{i}"
                for i, value in enumerate(unit.results)
            ]
            self.assign(unit.results, text, wanted)

    def _keep_result(self, unit: Unit, code: Code, reads: set[str]) -> None:
        value = unit.results[0]
        widest = WIDEST_RETURN if value in self.unit.results else WIDEST_INLINE
        label = self.unit.frame.labels.get(value, "")
        if self._left.get(value, 0) == 1 and not label and len(code.text) <= widest:
            self._code[value], self._reads[value] = code, reads
        elif self._left.get(value, 0):
            self.assign([value], code.text, [label or unit.path.rpartition(".")[2] or "x"])

    def _function_settings(self, unit: Unit, wanted: Sequence[str]) -> list[str]:
        return [f"{identifier(name)}={text}" for name, text in self.settings_for(unit, wanted) if text is not None]

    def settings_for(self, unit: Unit, wanted: Sequence[str]) -> list[tuple[str, str | None]]:
        """The values that a unit's parameters have here, in the names of this code (None where the default serves)."""
        return [(name, self.program.value_for(unit, name, self.scope.names, self._name)) for name in wanted]

    # --- for loops -----------------------------------------------------------------------------------------------------

    def is_spent(self, value: Value) -> bool:
        return self._left.get(value, 0) == 0

    def hold(self, name: str, value: Value) -> None:
        """Let a variable hold a value from now on."""
        self._variable[name] = value
        self._code[value] = Code(name)
        self._reads[value] = {name}

    def bind_text(self, value: Value, wanted: str, text: str) -> str:
        name = self._bind(value, wanted)
        self.line(f"{name} = {text}")
        return name

    def rename(self, value: Value, name: str) -> None:
        self.hold(name, value)

    def fresh(self, wanted: str) -> str:
        key = Value(-30_000_000 - len(self._variable), 0)
        self._left[key] = 1
        return self._bind(key, wanted)

    def release(self, name: str) -> None:
        del self._variable[name]

    def start_penalties(self, names: Sequence[str]) -> list[str]:
        """Variables that sum the auxiliary losses of a loop's turns."""
        variables = [self.fresh(name) for name in names]
        for name, variable in zip(names, variables, strict=True):
            self.line(f"{variable} = 0.0")
            self.loop_penalties.append((name, variable))
        return variables

    def inline(self, unit: Unit, arguments: list[str], pad: str) -> tuple[list[str], list[str], list[str]]:
        """The statements of a region written in place, over the variables given for its inputs.

        With them come the code of its results and of its auxiliary losses.
        """
        inner = Forward(self.program, unit, self.scope, self._indent + pad)
        inner.unit = unit
        inner._variable = dict.fromkeys(self._variable, None) | {
            name: held for name, held in self._variable.items() if held is not None and self._left.get(held, 0) > 0
        }
        inner._left = {held: 1 for held in inner._variable.values() if held is not None}
        inner._extras_of(self)
        for value, name in zip(unit.inputs, arguments, strict=True):
            inner.hold(name, value)
            inner.parameters.append(name)
        inner._count()
        for item in unit.items:
            if isinstance(item, Unit):
                inner._call_unit(item)
            elif item.op == "repeat":
                LOWERINGS["repeat"](inner.site(item, []))
            else:
                inner._node(item)
        results = [inner.code(value).text for value in unit.results]
        return inner._head + inner.lines, results, list(inner.penalty_sums().values())

    def _extras_of(self, outer: Forward) -> None:
        """Share what must be handed in with the code that this stands in."""
        self.extras = outer.extras
