"""Arithmetic on constants while a model is compiled: numbers, and sizes that only run time knows."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tfdsl.ir import dims, tables
from tfdsl.ir.dims import Dim, DimError
from tfdsl.ir.graph import Graph, Node, Value
from tfdsl.passes.report import Report

LARGEST = 2**53  # whole numbers beyond it are not exact in every element type

_NUMBERS: dict[str, Callable[..., Any]] = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "abs": abs,
    "neg": operator.neg,
    "floor": lambda x: float(math.floor(x)),
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "maximum": max,
    "minimum": min,
    "both": lambda a, b: a and b,
    "either": lambda a, b: a or b,
    "negate": operator.not_,
}
_SIZES: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": dims.floor,
    "mod": dims.remainder,
    "maximum": dims.maximum,
    "minimum": dims.minimum,
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_CASTS: dict[str, Callable[[Any], Any]] = {"float": float, "int": int, "bool": bool}


def constant(graph: Graph, value: Value | None) -> Any:
    """The number or size that a value is, or None for one that is no constant."""
    node = graph.node(value) if value is not None else None
    return node.attributes["value"] if node is not None and node.op == "constant" else None


def fold(graph: Graph, report: Report) -> int:
    """Compute every node of a region that reads constants only and gives numbers; how many there were."""
    count = 0
    for node in graph.nodes():
        if not node.inputs or len(node.types) != 1:
            continue
        values = [_known(graph, value) for value in node.inputs]
        if any(value is None for value in values):
            continue
        result = _computed(node, values)
        if result is None:
            continue
        if isinstance(result, tuple):
            made = graph.add("tensor", (), {"values": result}, like=node)
            report.change(f"`{node.op}` of constants is a table of {' x '.join(map(str, node.type.dims))}", graph, node)
        else:
            made = graph.add("constant", (), {"value": result, "dtype": node.type.dtype}, like=node)
            report.change(f"`{node.op}` of constants is {result}", graph, node)
        graph.redirect(Value(node.id), Value(made.id))
        graph.remove(node)
        count += 1
    return count


def _known(graph: Graph, value: Value | None) -> Any:
    """The number, size or table that a value is, or None."""
    node = graph.node(value) if value is not None else None
    return node.attributes["values"] if node is not None and node.op == "tensor" else constant(graph, value)


def _computed(node: Node, values: Sequence[Any]) -> Any:
    """The result of an op on constants, element by element for tables of one shape beside numbers; None where there is none."""
    shapes = {tables.shape(value) for value in values if isinstance(value, tuple)}
    if not shapes:
        return _compute(node, values) if not node.type.dims else None
    if shapes != {node.type.dims} or any(isinstance(value, Dim) for value in values):
        return None
    columns = [itertools.repeat(value) if not isinstance(value, tuple) else tables.numbers(value) for value in values]
    results = [_compute(node, row) for row in zip(*columns, strict=False)]
    if any(result is None for result in results):
        return None
    found = iter(results)
    return tables.changed(next(value for value in values if isinstance(value, tuple)), lambda _: next(found))


def _compute(node: Node, values: Sequence[Any]) -> Any:
    """The result of an op on constants; None where there is none, or only run time knows it."""
    sizes = any(isinstance(value, Dim) for value in values)
    try:
        if node.op == "cast":
            result = _cast(values[0], node.attributes["to"])
        elif node.op in _COMPARISONS:
            difference = values[0] - values[1] if sizes else 0
            left, right = (difference, 0) if sizes else values
            result = None if isinstance(left, Dim) else _COMPARISONS[node.op](left, right)
        else:
            table = _SIZES if sizes else _NUMBERS
            operands = [_whole(value) for value in values] if sizes else values
            known = node.op in table and None not in operands
            result = table[node.op](*operands) if known else None
    except (ValueError, OverflowError, ZeroDivisionError, DimError):
        return None
    return _fitting(result, node.type.dtype)


def _whole(value: Any) -> Any:
    """A number as it can stand beside a size; None where it cannot."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def _cast(value: Any, to: str) -> Any:
    if isinstance(value, Dim):
        return None if to == "bool" else value
    return _CASTS[to](value)


def _fitting(result: Any, dtype: str) -> Any:
    """A result in its element type; None for one that is not finite, too large or of another kind."""
    if result is None or isinstance(result, Dim):
        return result
    if dtype == "float" and isinstance(result, (int, float)):
        return float(result) if math.isfinite(result) else None
    if dtype == "int" and isinstance(result, int):
        return result if abs(result) <= LARGEST else None
    return result if isinstance(result, bool) else None
