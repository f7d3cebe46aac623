"""Parameters: what may be overridden. Defaults are evaluated after overrides, on demand, so that they follow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfdsl.ir.elaborate.arithmetic import is_number, is_size
from tfdsl.ir.elaborate.values import (
    ABSENT,
    POISON,
    Fault,
    Given,
    Instance,
    Layer,
    MaskValue,
    Poisoned,
    Tensor,
    kind_of,
)
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, Span, did_you_mean
from tfdsl.language.modules import Module

if TYPE_CHECKING:
    from tfdsl.ir.elaborate.body import Body

KINDS: dict[str, Any] = {
    "int": is_size,
    "float": is_number,
    "number": is_number,
    "bool": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "layer": lambda value: isinstance(value, (Layer, Instance)),
    "mask": lambda value: isinstance(value, MaskValue),
    "list": lambda value: isinstance(value, tuple),
}


@dataclass(frozen=True)
class Override:
    """A new default for a parameter: an expression with the file whose blocks it may name, and who gave it."""

    expression: syntax.Expression | None
    value: Any  # where it did not come as text
    module: Module | None
    span: Span | None
    origin: str


class Parameters(Mapping[str, Any]):
    """The parameters of one application of a block, by name."""

    def __init__(
        self,
        body: Body,
        declared: Mapping[str, syntax.Parameter],
        given: Mapping[str, Given],
        overrides: Mapping[str, Override],
    ):
        self.body = body
        self.declared = declared
        self.given = given
        self.overrides = overrides
        self.origins: dict[str, tuple[str, Span | None]] = {}
        self._values: dict[str, Any] = {}
        self._waiting: list[str] = []

    def __contains__(self, name: object) -> bool:
        return name in self.declared

    def __iter__(self) -> Iterator[str]:
        return iter(self.declared)

    def __len__(self) -> int:
        return len(self.declared)

    def __getitem__(self, name: str) -> Any:
        return self.value(name)

    def value(self, name: str) -> Any:
        """The value of a parameter; faults are reported once and poison it."""
        if name in self._waiting:
            raise self._cycle(self._waiting[self._waiting.index(name) :])
        if name not in self._values:
            self._waiting.append(name)
            try:
                self._values[name] = self._evaluate(name)
            except Fault as fault:
                self.body.report(fault)
                self._values[name] = POISON
            except Poisoned:
                self._values[name] = POISON
            finally:
                self._waiting.pop()
        value = self._values[name]
        if value is POISON:
            raise Poisoned
        return value

    @property
    def waiting(self) -> bool:
        """Whether a parameter is being evaluated just now."""
        return bool(self._waiting)

    def _cycle(self, names: list[str]) -> Fault:
        following = [*names[1:], names[0]]
        places = [self.origins.get(name, ("", None))[1] or self.declared[name].name.span for name in names]
        return Fault(
            "T311",
            f"the parameter `{names[0]}` depends on itself",
            places[0],
            note=f"needs `{following[0]}`",
            others=tuple(
                Label(place, f"`{name}` needs `{after}`")
                for name, place, after in zip(names[1:], places[1:], following[1:], strict=True)
            ),
        )

    def settle(self) -> None:
        """Evaluate all, so that every fault is found, and enter the plain ones into the frame's names."""
        from tfdsl.ir.elaborate.arithmetic import is_static

        for name in self.declared:
            try:
                value = self.value(name)
            except Poisoned:
                continue
            if is_static(value) or isinstance(value, (bool, str)):
                self.body.frame.names[name] = value  # type: ignore[index]

    def _evaluate(self, name: str) -> Any:
        from tfdsl.ir.elaborate.expressions import evaluate

        parameter = self.declared[name]
        frame = self.body.frame
        if name in self.given:
            given = self.given[name]
            self.origins[name] = ("given where it is applied", given.span)
            return self._checked(parameter, given.value, given.span)
        override = self.overrides.get(name)
        expression = override.expression if override else parameter.default
        if override is not None and expression is None:
            self.origins[name] = (override.origin, override.span)
            if override.value is POISON:
                raise Poisoned
            return self._checked(parameter, override.value, override.span)
        if expression is None:
            raise Fault(
                "T312",
                f"`{self.body.frame.block}` needs a value for `{name}`",
                frame.span or parameter.name.span,
                others=(Label(parameter.name.span, "it has no default"),),
                help=f"{name}=...",
            )
        self.origins[name] = (override.origin if override else "default", expression.span)
        module = override.module if override and override.module else self.body.module
        value = evaluate(self.body.in_module(module), expression)
        frame.defaults[name] = expression  # type: ignore[index]
        return self._checked(parameter, value, expression.span)

    def _checked(self, parameter: syntax.Parameter, value: Any, span: Span | None) -> Any:
        name = parameter.name.text
        if value is ABSENT:
            raise Fault("T308", f"`{name}` is set to an input that was not given", span)
        if parameter.kind is not None:
            kind = parameter.kind.text
            if kind not in KINDS:
                help_ = did_you_mean(kind, KINDS, "the kinds are " + ", ".join(KINDS))
                raise Fault("T309", f"`{kind}` is no kind of parameter", parameter.kind.span, help=help_)
            if not KINDS[kind](value) and not (value is None and parameter.default is not None):
                raise _wrong_kind(parameter, kind, value, span, parameter.kind.span)
            return value
        if isinstance(parameter.default, (syntax.Number, syntax.String)) or (
            isinstance(parameter.default, syntax.Literal) and parameter.default.value is not None
        ):
            kind = {syntax.Number: "number", syntax.String: "string"}.get(type(parameter.default), "bool")
            if not KINDS[kind](value) and not is_size(value) and value is not None:
                raise _wrong_kind(parameter, kind, value, span, parameter.default.span)
            if kind != "number" and not KINDS[kind](value):
                raise _wrong_kind(parameter, kind, value, span, parameter.default.span)
        if isinstance(value, Tensor):
            raise Fault(
                "T309", f"`{name}` is a parameter, and a tensor is an input", span, help="add it to the signature"
            )
        return value


def _wrong_kind(parameter: syntax.Parameter, kind: str, value: Any, span: Span | None, declared: Span) -> Fault:
    return Fault(
        "T309",
        f"`{parameter.name.text}` is of kind {kind}, and is given {kind_of(value)}",
        span,
        others=(Label(declared, f"so it is of kind {kind}"),) if span is not declared else (),
    )


def declared_parameters(block: syntax.Block, faults: Collector) -> dict[str, syntax.Parameter]:
    """The parameters that a block declares; a name that stands twice, among inputs and results too, is reported."""
    found: dict[str, syntax.Parameter] = {}
    inputs = _distinct([each.name for each in block.inputs], "two inputs are", faults)
    _distinct([each.name for each in block.outputs if each.name is not None], "two results are", faults)
    for statement in block.body:
        if not isinstance(statement, syntax.Parameter):
            continue
        name = statement.name
        first = found[name.text].name.span if name.text in found else inputs.get(name.text)
        if first is not None:
            others = (Label(first, "first here"),)
            faults.add(Diagnostic("T203", f"`{name.text}` is declared twice", name.span, others=others))
            continue
        found[name.text] = statement
    return found


def _distinct(names: list[syntax.Name], what: str, faults: Collector) -> dict[str, Span]:
    """The names with their places; those that stand twice are reported."""
    found: dict[str, Span] = {}
    for name in names:
        if name.text in found:
            others = (Label(found[name.text], "first here"),)
            faults.add(Diagnostic("T203", f"{what} called `{name.text}`", name.span, others=others))
        found.setdefault(name.text, name.span)
    return found
