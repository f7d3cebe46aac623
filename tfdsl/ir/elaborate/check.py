"""Every fault of a file: all its models with their defaults, and what no model reaches as far as it can be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir import dims
from tfdsl.ir.dims import Facts, Size
from tfdsl.ir.elaborate.blocks import bind_inputs, dtype_of, overrides_of, run_block
from tfdsl.ir.elaborate.body import Body, Session, new_graph
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.model import Elaborated, elaborate, room_for_depth
from tfdsl.ir.elaborate.parameters import Override, Parameters, declared_parameters
from tfdsl.ir.elaborate.values import POISON, Exhausted, Fault, Given, Place, Poisoned, Region
from tfdsl.ir.graph import Frame, Type
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError
from tfdsl.language.modules import Declared, Module, base_block, home

# Faults that hold however large the sizes are and whatever is given for parameters.
_CERTAIN = frozenset("T201 T203 T209 T210 T211 T212 T302 T311 T313 T408 T409 T501 T504".split())
_AXES = 2  # how many axes `...` stands for where no caller says


@dataclass
class ModuleCheck:
    """What the models of a file come to: faults, the graphs of those without any, and those that lack a value."""

    faults: list[Diagnostic] = field(default_factory=list)
    models: dict[str, Elaborated] = field(default_factory=dict)
    unsettled: dict[str, str] = field(default_factory=dict)


def check_module(module: Module) -> ModuleCheck:
    """Elaborate all models of a file, without and with their optional inputs, and judge what none of them reaches."""
    found = ModuleCheck()
    faults = _Distinct(found.faults)
    reached: set[int] = set()
    for declared in module.models():
        missing = _without_value(declared)
        if missing is not None:
            found.unsettled[declared.name] = missing
            continue
        _check_model(declared, found, faults, reached)
    for declared in module.own.values():
        if isinstance(declared.item, syntax.Block) and id(declared.item) not in reached:
            faults.add_all(certain_faults(declared))
    return found


class _Distinct:
    """Collects faults, one for each place and code: a model's fault shows again in all that extend it."""

    def __init__(self, found: list[Diagnostic]):
        self.found = found
        self.seen: set[Any] = set()

    def add_all(self, diagnostics: Sequence[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            span = diagnostic.span
            key = (diagnostic.code, (span and (span.source.name, span.start, span.end)) or diagnostic.message)
            if key not in self.seen:
                self.seen.add(key)
                self.found.append(diagnostic)


def _check_model(declared: Declared, found: ModuleCheck, faults: _Distinct, reached: set[int]) -> None:
    block = base_block(declared)
    reached.add(id(block))
    optional = tuple(each.name.text for each in block.inputs if each.optional)
    for inputs in ((), optional) if optional else ((),):
        session = Session()
        try:
            elaborated = elaborate(declared, {}, inputs, session)
            found.models.setdefault(declared.name, elaborated)
        except SpecError as error:
            faults.add_all(error.diagnostics)
        reached |= session.reached


def _without_value(declared: Declared) -> str | None:
    """A parameter that neither the model nor what it extends gives a value: such a model is there to be extended."""
    given = overrides_of(declared, Collector())
    for statement in base_block(declared).body:
        if isinstance(statement, syntax.Parameter) and statement.default is None and statement.name.text not in given:
            return statement.name.text
    return None


def certain_faults(declared: Declared) -> list[Diagnostic]:
    """The faults of a block (or model) that it has whoever applies it, found with names for all its sizes."""
    session = Session(symbolic=True, facts=_Whole())
    block = base_block(declared)
    with room_for_depth():
        try:
            _run(session, declared, block)
        except Fault as fault:
            session.faults.add(fault.diagnostic)
        except (Poisoned, Exhausted, dims.DimError, RecursionError):
            pass
    return [each for each in session.faults.found if each.code in _CERTAIN]


class _Whole(Facts):
    """Takes every division for exact."""

    def exact(self, size: Size, divisor: Size) -> bool:
        return True


def _run(session: Session, declared: Declared, block: syntax.Block) -> None:
    frame = Frame("", block.name.text, {}, span=block.name.span)
    body = Body(session, home(declared).module, Region(new_graph("", frame)), Place(""), frame, ())
    body.blocks, body.statements = (block,), block.body
    parameters = declared_parameters(block, session.faults)
    stand_ins = {name: _stand_in(each) for name, each in parameters.items() if each.default is None}
    body.parameters = Parameters(body, parameters, {}, stand_ins)
    inputs = {each.name.text: _input(body, each) for each in block.inputs}
    bind_inputs(body, block, inputs, block.name.span)
    run_block(body, block, block.name.span)


def _stand_in(parameter: syntax.Parameter) -> Override:
    """A value for a parameter without one: a size of its name where that may be, else nothing that is known."""
    kind = parameter.kind.text if parameter.kind else "int"
    value = dims.symbol(parameter.name.text) if kind == "int" else POISON
    return Override(None, value, None, parameter.name.span, "unknown")


def _input(body: Body, declared: syntax.Input) -> Given:
    sizes: list[Any] = []
    for extent in declared.type.extents:
        if isinstance(extent, syntax.Ellipsis_):
            sizes += [dims.symbol(f"axis_{place}") for place in range(_AXES)]
        elif isinstance(extent, syntax.Path) and len(extent.parts) == 1 and extent.text not in body.parameters:
            sizes.append(dims.symbol(extent.text))
            body.env.setdefault(extent.text, sizes[-1])
            body.spans.setdefault(extent.text, extent.span)
        else:
            sizes.append(evaluate(body, extent))
    tensor = body.region.add_input(declared.name.text, Type(dtype_of(declared.type), tuple(sizes)))
    return Given(tensor, None, None, declared.name.span)
