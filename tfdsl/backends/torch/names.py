"""Names and arithmetic in the emitted source: what the spec wrote, where that still gives the value in the graph."""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable, Mapping
from typing import Any

from tfdsl.language import syntax

Names = Mapping[str, Any]
RESERVED = {"self", "torch", "nn", "F", "math", "Tensor", "checkpoint", "super", "range", "len", "float", "int", "bool"}


def identifier(name: str) -> str:
    """A name of the spec as a Python identifier."""
    text = "".join(character if character.isalnum() or character == "_" else "_" for character in name) or "x"
    if text[0].isdigit():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in RESERVED else text


def class_name(name: str) -> str:
    """A name of the spec as the name of a class."""
    text = identifier(name)
    if "_" in text and not text[0].isupper():
        return "".join(part[:1].upper() + part[1:] for part in text.split("_") if part)
    return text[:1].upper() + text[1:]


def number(value: Any) -> str:
    """A number as a person would write it."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)
    if value == math.inf or value == -math.inf:
        return f'float("{value}")'
    text = repr(float(value))
    return text.replace("e-0", "e-").replace("e+0", "e")


_ADDED = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 4}
_APPLY: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if isinstance(a, int) and isinstance(b, int) else a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
}
_FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sqrt": ("math.sqrt", math.sqrt),
    "exp": ("math.exp", math.exp),
    "log": ("math.log", math.log),
    "min": ("min", min),
    "max": ("max", max),
    "minimum": ("min", min),
    "maximum": ("max", max),
    "float": ("float", float),
    "round": ("round", round),
    "floor": ("math.floor", math.floor),
    "ceil": ("math.ceil", math.ceil),
}


class NotPlain(Exception):
    """An expression that has no counterpart in plain Python arithmetic."""


def spell(tree: syntax.Expression, names: Names, name_text: Callable[[str], str]) -> tuple[str, Any]:
    """Python text and value of an expression over known numbers. Raises `NotPlain`."""
    text, value, _ = _spell(tree, names, name_text)
    return text, value


def _spell(tree: syntax.Expression, names: Names, name_text: Callable[[str], str]) -> tuple[str, Any, int]:
    if isinstance(tree, syntax.Number):
        return tree.text, tree.value, 5
    if isinstance(tree, syntax.Literal):
        return repr(tree.value), tree.value, 5
    if isinstance(tree, syntax.Path) and len(tree.parts) == 1:
        value = names.get(tree.text)
        if isinstance(value, (bool, int, float)):
            return name_text(tree.text), value, 5
    if isinstance(tree, syntax.Unary) and tree.operator == "-":
        text, value, level = _spell(tree.operand, names, name_text)
        return f"-{text}" if level >= 3 else f"-({text})", -value, 3
    if isinstance(tree, syntax.Binary) and tree.operator in _APPLY:
        return _spell_binary(tree, names, name_text)
    if isinstance(tree, syntax.Call) and tree.callee.text in _FUNCTIONS and tree.name is None:
        text, function = _FUNCTIONS[tree.callee.text]
        parts = [_spell(each.value, names, name_text) for each in tree.arguments if each.keyword is None]
        if len(parts) == len(tree.arguments):
            value = function(*(part[1] for part in parts))
            return f"{text}({', '.join(part[0] for part in parts)})", value, 5
    raise NotPlain


def _spell_binary(tree: syntax.Binary, names: Names, name_text: Callable[[str], str]) -> tuple[str, Any, int]:
    left, a, left_level = _spell(tree.left, names, name_text)
    right, b, right_level = _spell(tree.right, names, name_text)
    level = _ADDED[tree.operator]
    operator = "//" if tree.operator == "/" and isinstance(a, int) and isinstance(b, int) else tree.operator
    try:
        value = _APPLY[tree.operator](a, b)
    except (ZeroDivisionError, OverflowError, TypeError):
        raise NotPlain from None
    if tree.operator == "**":
        left = left if left_level > level else f"({left})"
        right = right if right_level >= 3 else f"({right})"
        return f"{left}**{right}", value, level
    left = left if left_level >= level else f"({left})"
    right = right if right_level > level else f"({right})"
    return f"{left} {operator} {right}", value, level


def same(a: Any, b: Any) -> bool:
    """Whether two numbers are one in the emitted source."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and float(a) == float(b)
    return bool(a == b)
