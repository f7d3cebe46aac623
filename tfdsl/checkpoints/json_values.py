"""Values of JSON and of the language: they are numbers, strings, booleans, lists and nothing else that both have."""

from __future__ import annotations

from typing import Any

from tfdsl.ir.elaborate.parameters import Override, declared_parameters
from tfdsl.ir.elaborate.scopes import parameters_of
from tfdsl.ir.elaborate.values import Fault, Instance, Layer, Place, Poisoned
from tfdsl.ir.op import Op
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Span
from tfdsl.language.modules import Declared, base_block

LARGEST = 2**53  # beyond it, readers of JSON disagree


def as_expression(value: Any, span: Span) -> syntax.Expression | None:
    """A value of JSON as the language writes it, or None for one that it cannot write."""
    if value is None or isinstance(value, bool):
        return syntax.Literal(value, span=span)
    if isinstance(value, (int, float)):
        if abs(value) > LARGEST and isinstance(value, int):
            return None
        size = abs(value)
        text = f"{size:_}" if isinstance(size, int) and size >= 10_000 else repr(size)
        number = syntax.Number(size, text, span=span)
        return syntax.Unary("-", number, span=span) if value < 0 else number
    if isinstance(value, str):
        return None if '"' in value or not value.isprintable() else syntax.String(value, span=span)
    if isinstance(value, list):
        items = tuple(as_expression(item, span) for item in value)
        return None if None in items else syntax.ListOf(items, span=span)  # type: ignore[arg-type]
    return None


def as_json(value: Any) -> Any:
    """A value of the language as JSON; raises `TypeError` for what it has no form for."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same, of JSON or of the language; layers are the same where all their settings are."""
    if isinstance(one, (Layer, Instance)) and isinstance(other, (Layer, Instance)):
        one, other = layer_of(one), layer_of(other)
        assert one is not None and other is not None
        return _same_callee(one.callee, other.callee) and all(
            same(setting(one, key), setting(other, key)) for key in {*one.given, *other.given}
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _same_callee(one: Op | Declared, other: Op | Declared) -> bool:
    """Whether two layers are of one op or block; a file that was read twice has each of its blocks twice."""
    if isinstance(one, Declared) and isinstance(other, Declared):
        return (one.name, one.module.path) == (other.name, other.module.path)
    return one is other


def layer_of(value: Any) -> Layer | None:
    """The layer that a value is, wherever its weights are."""
    return value.layer if isinstance(value, Instance) else value if isinstance(value, Layer) else None


def known_settings(layer: Layer) -> list[str]:
    """The names of the settings that a layer may be given."""
    if isinstance(layer.callee, Declared):
        return list(declared_parameters(base_block(layer.callee), Collector()))
    return [each.name for each in layer.callee.attributes]


NOTHING = Place("")  # stands for a setting that depends on what the layer is applied to


def setting(layer: Layer, name: str) -> Any:
    """The value of a setting of a layer: the one given, or its default."""
    if name in layer.given:
        return layer.given[name].value
    if not isinstance(layer.callee, Declared):
        return next((each.default for each in layer.callee.attributes if each.name == name), NOTHING)
    overrides = {key: Override(None, each.value, None, each.span, "given") for key, each in layer.given.items()}
    parameters = parameters_of(layer.callee, overrides)
    try:
        return parameters.value(name) if name in parameters else NOTHING
    except (Fault, Poisoned):
        return NOTHING
