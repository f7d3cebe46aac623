"""What an op is: one frozen record, declared by its signature and its shape rule (`tfdsl/ir/ops.py` is the table)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tfdsl.ir.dims import Size
from tfdsl.ir.graph import Initializer, Type


class ShapeError(Exception):
    """An op that cannot be applied to what it was given; `operand` says to which, where that is known."""

    def __init__(self, message: str, *, operand: int | None = None, help: str = "", code: str = "T401"):
        super().__init__(message)
        self.message, self.operand, self.help, self.code = message, operand, help, code


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that an op reads. `weight` operands come into being with the layer unless they are given."""

    name: str
    dtype: str  # float, int, bool, number (float or int) or any
    optional: bool = False
    variadic: bool = False
    weight: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """A setting of an op, given by keyword."""

    name: str
    kind: str  # size, sizes, int, ints, axis, number, numbers, bool, string, mask, initializer, layer, value, any
    required: bool
    default: Any = None


class Attributes:
    """The attributes of one application, defaults filled in, read as fields."""

    def __init__(self, given: Mapping[str, Any]):
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


TypeRule = Callable[[Sequence[Any], Attributes], tuple[Type, ...]]
WeightRule = Callable[[Sequence[Any], Attributes], dict[str, tuple[tuple[Size, ...], Initializer]]]
FlopRule = Callable[[Sequence[Any], Attributes, Sequence[Type]], Size]


@dataclass(frozen=True)
class Op:
    """One primitive: operands, attributes, weights with initialisers, shape rule, floating-point operations."""

    name: str
    summary: str
    operands: tuple[Operand, ...]
    attributes: tuple[Attribute, ...]
    types: TypeRule
    weights: WeightRule | None = None
    flops: FlopRule | None = None
    leading: str | None = None  # the attribute that may also be given by position: the pattern of `rearrange`
    inner: bool = False  # made by elaboration or by passes, with no name in the language
    called: str = ""  # how it is called, where its settings in the language are not those of its nodes
    place: str = ""  # where its weights live if it is given no name, where that is not its own name

    @property
    def data(self) -> tuple[Operand, ...]:
        """The operands that a caller gives by position."""
        return tuple(operand for operand in self.operands if not operand.weight and not operand.optional)

    @property
    def results(self) -> bool:
        return True

    def attribute(self, name: str) -> Attribute | None:
        return next((attribute for attribute in self.attributes if attribute.name == name), None)

    def fill(self, given: Mapping[str, Any]) -> Attributes:
        """The attributes with defaults for those that are not given."""
        usual = self._usual
        return Attributes({**usual, **{name: value for name, value in given.items() if name in usual}})

    @cached_property
    def _usual(self) -> dict[str, Any]:
        return {a.name: a.default for a in self.attributes}

    def signature(self) -> str:
        """How the op is called, as text for the reference and for help."""
        if self.called:
            return self.called
        parts = [
            operand.name + ("..." if operand.variadic else "?" if operand.optional else "")
            for operand in self.operands
            if not operand.weight
        ]
        for a in self.attributes:
            shown = a.name if a.required else f"{a.name}={_spell(a.default)}"
            parts.append("name=size..." if a.kind == "names" else shown)
        return f"{self.name}({', '.join(parts)})"


_SIGNATURE = re.compile(r"(\w+)\((.*)\)$")
_WORDS = {"true": True, "false": False, "none": None}


def parse_signature(text: str) -> tuple[str, tuple[Operand, ...], tuple[Attribute, ...]]:
    """Name, operands and attributes of `linear(x: float, weight: @float; out: size, bias: bool = true)`.

    Operands stand before the `;`: `@` marks a weight, `?` an optional one, `*` any number. Attributes stand after it.
    """
    match = _SIGNATURE.match(text)
    assert match, text
    before, _, after = match[2].partition(";")
    operands = []
    for part in filter(None, (piece.strip() for piece in before.split(","))):
        name, _, kind = (piece.strip() for piece in part.partition(":"))
        operands.append(Operand(name, kind.strip("@?*"), "?" in kind, "*" in kind, "@" in kind))
    attributes = []
    for part in filter(None, (piece.strip() for piece in after.split(", "))):
        declared, equals, default = (piece.strip() for piece in part.partition("="))
        name, _, kind = (piece.strip() for piece in declared.partition(":"))
        attributes.append(Attribute(name, kind, not equals, _default(default) if equals else None))
    return match[1], tuple(operands), tuple(attributes)


def _default(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith('"'):
        return text[1:-1]
    return float(text) if any(mark in text for mark in ".e") else int(text)


def _spell(value: Any) -> str:
    for word, meaning in _WORDS.items():
        if value is meaning:
            return word
    return f'"{value}"' if isinstance(value, str) else str(value)
