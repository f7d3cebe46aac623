"""The options of a pass are the parameters of its function: names, defaults and kinds come from its signature.

A kind is an annotation: `str`, `int`, `float` (a whole number will do), `bool`, `Literal[...]`, `... | None`, and
`Annotated[kind, Between(low, high)]`. What is given is checked before any pass runs.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfdsl.language.diagnostics import Collector, Diagnostic, Span, did_you_mean


@dataclass(frozen=True)
class Between:
    """The bounds of a number, both included unless `open_end` leaves out the upper one."""

    low: float
    high: float
    open_end: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value and (value < self.high if self.open_end else value <= self.high)

    def __str__(self) -> str:
        return f"at least {self.low:g} and {'below' if self.open_end else 'at most'} {self.high:g}"


@dataclass(frozen=True)
class Option:
    """A parameter of a pass. `required` ones have no default; `positional` ones may be given without their name."""

    name: str
    kind: Any
    default: Any
    required: bool
    positional: bool


@dataclass(frozen=True)
class Request:
    """A pass that is asked for, and what is given to it; `spans` has the place of each argument by position or name."""

    name: str
    positional: Sequence[Any] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    span: Span | None = None
    spans: Mapping[int | str, Span] = field(default_factory=dict)

    def at(self, argument: int | str) -> Span | None:
        """The place of an argument, or that of the whole request."""
        return self.spans.get(argument, self.span)


def options(function: Callable[..., Any]) -> list[Option]:
    """The options of a pass, in order."""
    hints = typing.get_type_hints(function, include_extras=True)
    _, *parameters = inspect.signature(function).parameters.values()  # the first is the graph
    return [
        Option(
            each.name,
            hints[each.name],
            None if each.default is each.empty else each.default,
            each.default is each.empty,
            each.kind is not each.KEYWORD_ONLY,
        )
        for each in parameters
    ]


def signature(name: str, function: Callable[..., Any]) -> str:
    """How a pass is called, as text for help."""
    parts = [
        option.name if option.required else f"{option.name}={spell(option.default)}" for option in options(function)
    ]
    return f"{name}({', '.join(parts)})"


def bind(request: Request, function: Callable[..., Any], faults: Collector) -> dict[str, Any]:
    """What a pass is to be called with; unknown options (T602) and wrong values (T603) are collected."""
    known = {option.name: option for option in options(function)}
    given: dict[str, tuple[Any, Span | None]] = {}
    places = [option for option in known.values() if option.positional]
    help_ = signature(request.name, function)
    for place, value in enumerate(request.positional):
        if place < len(places):
            given[places[place].name] = value, request.at(place)
        else:
            message = f"`{request.name}` takes {len(places)} arguments without a name"
            faults.add(Diagnostic("T602", message, request.at(place), help=help_))
    for name, value in request.keywords.items():
        if name not in known:
            message = f"`{request.name}` has no option `{name}`"
            faults.add(Diagnostic("T602", message, request.at(name), help=did_you_mean(name, known, help_)))
        elif name in given:
            faults.add(Diagnostic("T602", f"`{name}` is given twice", request.at(name), help=help_))
        else:
            given[name] = value, request.at(name)
    for option in known.values():
        if option.required and option.name not in given:
            faults.add(Diagnostic("T602", f"`{request.name}` needs `{option.name}`", request.span, help=help_))
    for name, (value, span) in given.items():
        need = _misfit(known[name].kind, value)
        if need:
            message = f"`{name}` of `{request.name}` is {need}, not {spell(value)}"
            faults.add(Diagnostic("T603", message, span, help=help_))
    return {name: value for name, (value, _) in given.items()}


def spell(value: Any) -> str:
    """A value as the language writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spell, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _misfit(kind: Any, value: Any) -> str:
    """What a kind of option needs, where a value is not that; "" where it is."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        needs = [_misfit(each, value) for each in typing.get_args(kind)]
        return "" if "" in needs else " or ".join(needs)
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        fits = any(value == choice and type(value) is type(choice) for choice in choices)
        return "" if fits else " or ".join(map(spell, choices))
    if origin is typing.Annotated:
        plain, *bounds = typing.get_args(kind)
        need = _misfit(plain, value)
        return need or next((str(bound) for bound in _broken(bounds, value)), "")
    return "" if _is_a(kind, value) else _WORDS[kind]


def _broken(bounds: Sequence[Any], value: Any) -> Iterator[Between]:
    return (bound for bound in bounds if isinstance(bound, Between) and not bound.holds(value))


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return kind is type(value)
    return isinstance(value, (int, float) if kind is float else kind)


_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "none"}
