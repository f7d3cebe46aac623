"""Tables of numbers, as the op `tensor` holds them: lists in lists, each as long as those beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MOST_AXES = 8
_DTYPES = {bool: "bool", int: "int", float: "float"}


def numbers(table: Any) -> Iterator[Any]:
    """The numbers of a table, in order."""
    if isinstance(table, tuple):
        for row in table:
            yield from numbers(row)
    else:
        yield table


def dtype(table: Any) -> str:
    """The element type of a table. Raises `ValueError` for one of several kinds."""
    kinds = {type(number) for number in numbers(table)}
    if len(kinds) != 1 or not kinds <= {*_DTYPES}:
        raise ValueError("its numbers are of one kind: floats, whole numbers, or true and false")
    return _DTYPES[kinds.pop()]


def shape(table: Any) -> tuple[int, ...]:
    """The shape of a table. Raises `ValueError` for one that has none."""
    dims, rows = list[int](), [table]
    while isinstance(rows[0], tuple):
        lengths = {len(row) if isinstance(row, tuple) else None for row in rows}
        if 0 in lengths:
            raise ValueError("an empty list has no shape")
        if len(lengths) > 1:
            raise ValueError("lists side by side are of one length")
        if len(dims) == MOST_AXES:
            raise ValueError(f"lists in lists go {MOST_AXES} deep, as tensors have at most so many axes")
        dims.append(len(rows[0]))
        rows = [item for row in rows for item in row]
    if any(isinstance(row, tuple) for row in rows):
        raise ValueError("a list stands beside a number")
    return tuple(dims)


def changed(table: Any, change: Callable[[Any], Any]) -> Any:
    """A table with each number changed."""
    return tuple(changed(row, change) for row in table) if isinstance(table, tuple) else change(table)
