"""The body of a block while it is elaborated: its names, its statements, its loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfdsl.ir import dims
from tfdsl.ir.dims import Facts
from tfdsl.ir.elaborate.arithmetic import compare, is_static
from tfdsl.ir.elaborate.causes import applications, causes
from tfdsl.ir.elaborate.values import (
    ABSENT,
    POISON,
    Exhausted,
    Fault,
    Given,
    Instance,
    Layer,
    Place,
    Poisoned,
    Region,
    Results,
    Tensor,
    Undecided,
    kind_of,
)
from tfdsl.ir.graph import Constraint, Elsewhere, Frame, Graph, Initializer, Spelling, Value
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Label, Span
from tfdsl.language.modules import Module

# Faults that may lie with what a block was given rather than with the block: they show where it was applied.
_BY_CALLER = frozenset("T303 T304 T305 T306 T308 T310 T401 T402 T403 T404 T405 T406 T407 T505".split())
MOST_STEPS = 50_000
MOST_TURNS = 10_000
MOST_EXPERTS = 100_000
DEEPEST_BLOCKS = 60


@dataclass(eq=False)
class Session:
    """What one elaboration shares: faults, what is known of sizes, and a bound on the work."""

    faults: Collector = field(default_factory=Collector)
    facts: Facts = field(default_factory=Facts)
    constraints: list[Constraint] = field(default_factory=list)
    steps: int = 0
    symbolic: bool = False  # sizes stand for any: what depends on how large they are is not judged
    reached: set[int] = field(default_factory=set)  # the identities of the blocks that were applied

    def spend(self, span: Span, steps: int = 1) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise Exhausted("T307", f"the model takes more than {MOST_STEPS:,} steps to read", span)

    def constrain(self, operator: str, left: Any, right: Any, why: str, span: Span) -> None:
        if compare(operator, left, right, span) is True:
            return
        constraint = Constraint(operator, left, right, why, span)
        if constraint not in self.constraints:
            self.constraints.append(constraint)
        if operator == "==" and right == 0:
            for atom in _atoms(left):
                if atom.operator == "%":
                    self.facts.promise(atom.left, atom.right)


def _atoms(size: Any) -> list[dims.Atom]:
    """The atoms of a size that is one atom and nothing else."""
    if isinstance(size, dims.Dim) and len(size.terms) == 1:
        monomial, coefficient = size.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0][0], dims.Atom):
            return [monomial[0][0]]
    return []


@dataclass(eq=False)
class Body:
    """One application of a block (or one turn of a loop in it): a scope of names over a region of the graph."""

    session: Session
    module: Module
    region: Region
    place: Place
    frame: Frame
    frames: tuple[Frame, ...]
    outer: Body | None = None  # of a loop's body: the body that the loop stands in
    env: dict[str, Any] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    parameters: Any = None
    application: object = field(default_factory=object)
    base: str = ""  # the name that the block was declared under, where a variant of it is applied
    blocks: tuple[syntax.Block, ...] = ()  # those that are being applied, this body's own last
    statements: Sequence[syntax.Statement] = ()
    turns: int = 1  # of all the loops around, multiplied

    # --- names -----------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> Any:
        """The value of a name, or None with no such name; raises `Poisoned` for one whose statement was at fault."""
        value = self.env.get(name)
        if value is None and name not in self.env:
            if self.parameters is not None and name in self.parameters:
                value = self.parameters.value(name)
            elif self.outer is not None:
                return self.outer.lookup(name)
            else:
                return _NOTHING
        if value is POISON:
            raise Poisoned
        return value

    def knows(self, name: str) -> bool:
        return (
            name in self.env
            or (self.parameters is not None and name in self.parameters)
            or (self.outer is not None and self.outer.knows(name))
        )

    @property
    def makes_nodes(self) -> bool:
        """Whether tensors may be computed here: the default of a parameter is a number or a layer."""
        waiting = self.parameters is not None and self.parameters.waiting
        return not waiting and (self.outer is None or self.outer.makes_nodes)

    def names(self) -> list[str]:
        own = [*self.env, *(self.parameters or ())]
        return own + (self.outer.names() if self.outer else [])

    def sees(self, frame: Frame) -> bool:
        """Whether names of `frame` mean the same here."""
        return frame is self.frame or (self.outer is not None and self.outer.sees(frame))

    def spellings(self, given: Mapping[str, Given]) -> dict[str, Spelling]:
        """What was written for settings; where its names mean something else here, with the frame that they are of."""
        found: dict[str, Spelling] = {}
        for name, each in given.items():
            if each.expression is not None and each.body is not None:
                frame = each.body.frame
                found[name] = each.expression if self.sees(frame) else Elsewhere(each.expression, frame)
        return found

    def where(self, name: str) -> Span | None:
        """The place where a name got its value."""
        if name in self.spans:
            return self.spans[name]
        if self.parameters is not None and name in self.parameters:
            found: Span | None = self.parameters.origins.get(name, ("", None))[1]
            return found
        return self.outer.where(name) if self.outer else None

    def bound_elsewhere(self, name: str) -> tuple[Span | None, str]:
        """A place in the same block that binds a name that is not bound here, and why that does not count."""
        for statement in self.statements:
            for each in binders(statement):
                if each.text == name:
                    if self.parameters is not None and self.parameters.waiting:
                        return (
                            each.span,
                            "bound here; a parameter sees other parameters and the sizes of the inputs only",
                        )
                    inside = isinstance(statement, syntax.Repeat)
                    return (
                        each.span,
                        "bound inside the loop only" if inside else "bound here, which does not count before",
                    )
        return self.outer.bound_elsewhere(name) if self.outer else (None, "")

    def in_module(self, module: Module) -> Body:
        """The same scope, with blocks looked up in another file."""
        return self if module is self.module else replace(self, module=module)

    def claim(self, name: str, span: Span) -> Place:
        """The place below this body's weight path for the weights of what is called `name`."""
        return self.place.claim(name, self.application, span)

    # --- statements ------------------------------------------------------------------------------------------------

    def run(self, statements: Sequence[syntax.Statement]) -> syntax.Return | None:
        """Execute statements; a fault in one is reported and poisons what it binds. The `return`, if one is reached."""
        self.statements = statements
        return self._run([each for each in statements if not isinstance(each, syntax.Initialize)])

    def initialize(self, statements: Sequence[syntax.Statement]) -> None:
        """Set initialisers once all weights are there (those of the `return` too), wherever they are written."""
        self._run([each for each in statements if isinstance(each, syntax.Initialize)])

    def _run(self, statements: Sequence[syntax.Statement]) -> syntax.Return | None:
        for position, statement in enumerate(statements):
            if isinstance(statement, syntax.Return):
                if position + 1 < len(statements):
                    later = statements[position + 1].span
                    ends = Label(statement.span, "the block ends here")
                    self.report(Fault("T210", "nothing can follow `return`", later, others=(ends,)))
                return statement
            try:
                self.session.spend(statement.span)
                self._execute(statement)
            except Fault as fault:
                self.report(fault)
                self._poison(statement)
                if isinstance(statement, syntax.Require):
                    raise Poisoned from None  # what follows relies on it
            except Poisoned:
                self._poison(statement)
        return None

    def _execute(self, statement: syntax.Statement) -> None:
        if isinstance(statement, syntax.Bind):
            self._bind(statement)
        elif isinstance(statement, syntax.Repeat):
            from tfdsl.ir.elaborate.loops import run_repeat

            run_repeat(self, statement)
        elif isinstance(statement, syntax.Require):
            self._require(statement)
        elif isinstance(statement, syntax.Initialize):
            self._initialize(statement)
        elif isinstance(statement, syntax.Penalty):
            self._penalty(statement)
        elif isinstance(statement, syntax.Parameter) and self.outer is not None:
            raise Fault("T211", "a `param` belongs to a block or a model, not to a loop", statement.span)

    def report(self, fault: Fault) -> None:
        """Keep a fault; where it may be the caller's doing, with the applications that led here."""
        if fault.diagnostic.code in _BY_CALLER:
            fault.because(applications(self))
        self.session.faults.add(fault.diagnostic)

    def _poison(self, statement: syntax.Statement) -> None:
        for name in bound_names((statement,)):
            self.env[name] = POISON
        if isinstance(statement, syntax.Parameter):
            self.env[statement.name.text] = POISON

    def _bind(self, statement: syntax.Bind) -> None:
        from tfdsl.ir.elaborate.expressions import evaluate

        single = statement.names[0] if len(statement.names) == 1 else None
        value = evaluate(self, statement.value, hint=single.text if single else None)
        if single is not None:
            if isinstance(value, Results) and not any(value.names):
                raise Fault(
                    "T302",
                    f"{len(value.tensors)} results for one name",
                    statement.value.span,
                    help="bind each: " + ", ".join(f"{single.text}_{i}" for i in range(len(value.tensors))) + " = ...",
                )
            self._bind_one(single, value, statement.value)
            return
        values = value.tensors if isinstance(value, Results) else value if isinstance(value, tuple) else None
        if values is None or len(values) != len(statement.names):
            found = "one result" if values is None or len(values) == 1 else f"{len(values)} results"
            names = statement.names[0].span.to(statement.names[-1].span)
            wrong = Label(statement.value.span, found)
            raise Fault("T302", f"{len(statement.names)} names for {found}", names, others=(wrong,))
        for name, each in zip(statement.names, values, strict=True):
            self._bind_one(name, each, None)

    def _bind_one(self, name: syntax.Name, value: Any, expression: syntax.Expression | None) -> None:
        self._refuse_rebinding(name, value)
        if isinstance(value, Layer):
            value = Instance(value, self.claim(value.name or name.text, name.span))
        elif isinstance(value, Tensor):
            self._label(value, name.text)
        elif value is ABSENT:
            raise Fault(
                "T308", "an input that was not given has no value", name.span, help="`given(x)` asks whether it was"
            )
        elif expression is not None and (is_static(value) or isinstance(value, (bool, str))):
            self.frame.names[name.text] = value  # type: ignore[index]
            self.frame.defaults[name.text] = expression  # type: ignore[index]
        self.env[name.text] = value
        self.spans[name.text] = name.span

    def _refuse_rebinding(self, name: syntax.Name, value: Any) -> None:
        if self.parameters is not None and name.text in self.parameters:
            first = Label(self.parameters.declared[name.text].name.span, "declared here")
            raise Fault(
                "T209",
                f"`{name.text}` is a parameter, and cannot be bound again",
                name.span,
                others=(first,),
                help="give what is derived from it another name",
            )
        old = self.env.get(name.text)
        if (
            name.text in self.env
            and old is not POISON
            and not isinstance(old, (Tensor, Instance, Results))
            and old is not ABSENT
        ):
            others = (Label(self.spans[name.text], "bound here"),) if name.text in self.spans else ()
            raise Fault(
                "T209",
                f"`{name.text}` is bound already, and only tensors may be bound again",
                name.span,
                others=others,
                help="use another name",
            )

    def _label(self, tensor: Tensor, name: str) -> None:
        node = tensor.node
        if tensor.region is self.region and node.scope == self.frames:
            labels = list(node.labels or [""] * len(node.types))
            labels[tensor.value.index] = name
            node.labels = tuple(labels)
            if len(labels) == 1 and node.op != "input":
                node.name = name
        elif tensor.region is self.region:
            self.frame.labels.setdefault(tensor.value, name)
            if node.name == node.op:
                node.name = name

    def _require(self, statement: syntax.Require) -> None:
        from tfdsl.ir.elaborate.expressions import evaluate, explain

        condition = evaluate(self, statement.condition)
        why = statement.why.value if statement.why else ""
        if isinstance(condition, Undecided):
            for operator, left, right in condition.parts:
                self.session.constrain(operator, left, right, why, statement.span)
        elif not isinstance(condition, bool):
            help_ = "what the elements of a tensor are, only run time knows" if isinstance(condition, Tensor) else ""
            message = f"a condition is needed, not {kind_of(condition)}"
            raise Fault("T301", message, statement.condition.span, help=help_)
        elif not condition:
            note = explain(self, statement.condition)
            message = why or f"`{statement.condition.span.text}` does not hold"
            raise Fault("T310", message, statement.condition.span, note=note).because(causes(self, statement.condition))

    def _initialize(self, statement: syntax.Initialize) -> None:
        from tfdsl.ir.elaborate.expressions import evaluate
        from tfdsl.ir.elaborate.patterns import number_of, reinitialize

        value = evaluate(self, statement.value)
        if not isinstance(value, Initializer):
            raise Fault(
                "T301", f"an initialiser is needed, not {kind_of(value)}", statement.value.span, help="normal(0.02)"
            )
        number = number_of(statement.value)
        spelling = Elsewhere(number, self.frame) if number is not None else None
        reinitialize(self.region.graph, self.place, statement.pattern, value, spelling)

    def _penalty(self, statement: syntax.Penalty) -> None:
        from tfdsl.ir.elaborate.expressions import evaluate

        value = evaluate(self, statement.value)
        if not isinstance(value, Tensor) or value.type.dims:
            help_ = "sum and mean take an axis away" if isinstance(value, Tensor) else ""
            raise Fault(
                "T404", f"a penalty is a tensor of one number, not {kind_of(value)}", statement.value.span, help=help_
            )
        self.region.graph.penalties.append((statement.name.text, self.region.use(value)))

    # --- nodes -----------------------------------------------------------------------------------------------------

    def add(
        self, op: str, inputs: Sequence[Value | None], attributes: dict[str, Any], span: Span, **rest: Any
    ) -> Tensor:
        """A node of one result in this body's region and scope."""
        self.session.spend(span)
        node = self.region.graph.add(op, inputs, attributes, span=span, scope=self.frames, **{"name": op, **rest})
        return Tensor(Value(node.id), node.types[0], self.region)


class _Nothing:
    pass


_NOTHING = _Nothing()


def is_unknown(value: Any) -> bool:
    """Whether `Body.lookup` found no such name."""
    return value is _NOTHING


def binders(statement: syntax.Statement) -> list[syntax.Name]:
    """The names that a statement binds, where it does."""
    if isinstance(statement, syntax.Bind):
        return list(statement.names)
    if isinstance(statement, syntax.Repeat):
        return [name for each in statement.body for name in binders(each)]
    return []


def bound_names(statements: Sequence[syntax.Statement]) -> list[str]:
    """The names that statements bind, those of loops inside included, in order."""
    return list(dict.fromkeys(name.text for statement in statements for name in binders(statement)))


def new_graph(name: str, frame: Frame) -> Graph:
    graph = Graph(name)
    graph.frame = frame
    return graph
