"""Numbers in the emitted source: as the spec wrote them, where that still gives the value in the graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tfdsl.backends.torch.code import ATOM, CHOICE, COMPARE, POWER, PRODUCT, SUM, UNARY, Code, infix
from tfdsl.language import syntax

Names = Mapping[str, Any]
NameText = Callable[[str], str]

_LEVELS = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "**": POWER}
_APPLY: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if isinstance(a, int) and isinstance(b, int) else a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sqrt": ("math.sqrt", math.sqrt),
    "exp": ("math.exp", math.exp),
    "log": ("math.log", math.log),
    "sin": ("math.sin", math.sin),
    "cos": ("math.cos", math.cos),
    "tanh": ("math.tanh", math.tanh),
    "abs": ("abs", abs),
    "min": ("min", min),
    "max": ("max", max),
    "minimum": ("min", min),
    "maximum": ("max", max),
    "float": ("float", float),
    "int": ("int", int),
    "round": ("round", round),
    "floor": ("math.floor", math.floor),
    "ceil": ("math.ceil", math.ceil),
}
_CONSTANTS = {math.pi: "math.pi", math.tau: "math.tau"}
_PYTHON = re.compile(r"(0|[1-9](_?\d)*)(\.\d+)?(?P<power>[eE][+-]?\d+)?\Z")


class NotPlain(Exception):
    """An expression that has no counterpart in plain Python arithmetic."""


def number(value: Any) -> str:
    """A number as a person would write it."""
    if isinstance(value, (bool, str)) or value is None:
        return repr(value)
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)
    if not math.isfinite(value):
        return f'float("{value}")'
    return repr(float(value)).replace("e-0", "e-").replace("e+0", "e")


def table_text(table: Any) -> str:
    """A table as lists in lists."""
    return f"[{', '.join(map(table_text, table))}]" if isinstance(table, tuple) else number(table)


def number_code(value: Any) -> Code:
    """A number as code: one below zero binds like a minus."""
    text = number(value)
    return Code(text, UNARY if text.startswith("-") else ATOM)


def same(a: Any, b: Any) -> bool:
    """Whether two numbers are one in the emitted source."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and float(a) == float(b)
    return bool(a == b)


def spell(tree: syntax.Expression, names: Names, name_text: NameText) -> tuple[Code, Any]:
    """Python code and value of an expression over known numbers. Raises `NotPlain`.

    `name_text` gives the text of a name, and is asked only for names that stand in the text.
    """
    try:
        return _spell(tree, names, name_text)
    except (ArithmeticError, TypeError, ValueError):
        raise NotPlain from None


def spelled_as(tree: syntax.Expression | None, value: Any, names: Names, name_text: NameText = str) -> Code | None:
    """The code of an expression if it still gives a value; None if it does not, or cannot be written."""
    if tree is None:
        return None
    try:
        found = spell(tree, names, str)[1]
        return spell(tree, names, name_text)[0] if same(found, value) else None
    except NotPlain:
        return None


def _spell(tree: syntax.Expression, names: Names, name_text: NameText) -> tuple[Code, Any]:
    if isinstance(tree, syntax.Number):
        return Code(_literal(tree)), tree.value
    if isinstance(tree, syntax.Literal):
        return Code(repr(tree.value)), tree.value
    if isinstance(tree, syntax.Path) and len(tree.parts) == 1:
        value = names.get(tree.text)
        if isinstance(value, (bool, int, float)):
            return Code(name_text(tree.text)), value
    if isinstance(tree, syntax.Unary) and tree.operator == "-":
        inner, value = _spell(tree.operand, names, name_text)
        return Code(f"-{inner.at(UNARY)}", UNARY), -value
    if isinstance(tree, syntax.Binary):
        return _binary(tree, names, name_text)
    if isinstance(tree, syntax.Call):
        return _call(tree, names, name_text)
    if isinstance(tree, syntax.Choice):
        return _choice(tree, names, name_text)
    raise NotPlain


def _literal(tree: syntax.Number) -> str:
    """A number as it is written, if that is the same number in Python."""
    match = _PYTHON.match(tree.text)
    if tree.value in _CONSTANTS:
        return _CONSTANTS[tree.value]
    return tree.text if match and not (match["power"] and isinstance(tree.value, int)) else number(tree.value)


def _binary(tree: syntax.Binary, names: Names, name_text: NameText) -> tuple[Code, Any]:
    if tree.operator in _COMPARE:
        (left, a), (right, b) = _spell(tree.left, names, name_text), _spell(tree.right, names, name_text)
        return infix(left, tree.operator, right, COMPARE), _COMPARE[tree.operator](a, b)
    if tree.operator not in _APPLY:
        raise NotPlain
    left, a = _spell(tree.left, names, name_text)
    divisor = _converted(tree.right) if tree.operator == "/" else None
    right, b = _spell(divisor or tree.right, names, name_text)
    if divisor is not None:  # Python's `/` needs no conversion to give a fraction
        return infix(left, "/", right, PRODUCT), a / b
    whole = tree.operator == "/" and isinstance(a, int) and isinstance(b, int)
    return infix(left, "//" if whole else tree.operator, right, _LEVELS[tree.operator]), _APPLY[tree.operator](a, b)


def _converted(tree: syntax.Expression) -> syntax.Expression | None:
    """`x` of `float(x)`."""
    if isinstance(tree, syntax.Call) and tree.callee.text == "float" and len(tree.arguments) == 1:
        return tree.arguments[0].value
    return None


def _call(tree: syntax.Call, names: Names, name_text: NameText) -> tuple[Code, Any]:
    if tree.callee.text not in _FUNCTIONS or tree.name is not None or any(each.keyword for each in tree.arguments):
        raise NotPlain
    text, function = _FUNCTIONS[tree.callee.text]
    parts = [_spell(each.value, names, name_text) for each in tree.arguments]
    value = function(*(value for _, value in parts))
    return Code(f"{text}({', '.join(code.text for code, _ in parts)})"), value


def _choice(tree: syntax.Choice, names: Names, name_text: NameText) -> tuple[Code, Any]:
    """`a if condition else b`, where sizes decide; a flag has decided the structure, and its branch stands alone."""
    if isinstance(tree.condition, syntax.Path):
        decided = names.get(tree.condition.text)
        if isinstance(decided, bool):
            return _spell(tree.then if decided else tree.otherwise, names, name_text)
    condition, decided = _spell(tree.condition, names, name_text)
    (then, a), (otherwise, b) = _spell(tree.then, names, name_text), _spell(tree.otherwise, names, name_text)
    text = f"{then.at(COMPARE)} if {condition.at(COMPARE)} else {otherwise.at(CHOICE)}"
    return Code(text, CHOICE), a if decided else b
