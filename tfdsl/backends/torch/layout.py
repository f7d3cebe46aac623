"""Long statements over several lines, as a formatter would lay them out."""

from __future__ import annotations

import re
from collections.abc import Iterator

WIDEST = 100
_SHORTEST = 20  # what is no longer is not worth lines of its own
_OPEN, _CLOSE = "([{", ")]}"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def statement(text: str, indent: str) -> list[str]:
    """A statement as lines: on one if it fits, else with what stands in its longest brackets below it, indented."""
    if len(indent) + len(text) <= WIDEST:
        return [indent + text]
    if text.startswith("return ") and len(results := split(text.removeprefix("return "))) > 1:
        text = f"return ({', '.join(results)})"
    opening, closing = max(_brackets(text), key=lambda pair: pair[1] - pair[0], default=(0, 0))
    if closing - opening < _SHORTEST:
        return [indent + text]
    head, inside, tail = text[: opening + 1], text[opening + 1 : closing], text[closing:]
    parts = split(inside)
    below = f"{indent}    "
    if len(below + inside) <= WIDEST:
        return [indent + head, below + inside, indent + tail]
    lines, comma = [indent + head], "," if len(parts) > 1 or inside.endswith(",") else ""
    clauses = _clauses(inside)
    if len(clauses) > 1:
        parts = clauses
    elif not comma and _is_call(text, opening) and inside[0] not in _OPEN:
        comma = ","
    for part in parts:
        lines += statement(f"{part}{comma}", below)
    return [*lines, indent + tail]


def signature(name: str, parameters: list[str], result: str, indent: str = "") -> list[str]:
    """The first lines of a function."""
    line = f"{indent}def {name}({', '.join(parameters)}) -> {result}:"
    if len(line) <= WIDEST:
        return [line]
    together = f"{indent}    {', '.join(parameters)}"
    if len(together) <= WIDEST:
        return [f"{indent}def {name}(", together, f"{indent}) -> {result}:"]
    return [f"{indent}def {name}(", *(f"{indent}    {each}," for each in parameters), f"{indent}) -> {result}:"]


def split(text: str) -> list[str]:
    """The parts between the commas that stand in no brackets and no string."""
    parts, start = [], 0
    for position, character, depth in _plain(text):
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def _plain(text: str) -> Iterator[tuple[int, str, int]]:
    """Each character that stands in no string, with its place and how many brackets are around it."""
    strings = [range(*match.span()) for match in _STRING.finditer(text)]
    depth = 0
    for position, character in enumerate(text):
        if any(position in each for each in strings):
            continue
        depth -= character in _CLOSE
        yield position, character, depth
        depth += character in _OPEN


def _brackets(text: str) -> Iterator[tuple[int, int]]:
    """The brackets that stand in no others: where each opens and closes."""
    opening = 0
    for position, character, depth in _plain(text):
        if depth == 0 and character in _OPEN:
            opening = position
        elif depth == 0 and character in _CLOSE:
            yield opening, position


def _clauses(text: str) -> list[str]:
    """The clauses of a generator: what it makes, the conditions in that, what it runs over; else the text."""
    bare = [(at, depth) for at, character, depth in _plain(text) if character == " "]
    cuts = [at for at, depth in bare if depth == 0 and text.startswith((" for ", " if ", " else "), at)]
    if not any(text.startswith(" for ", at) for at in cuts):
        return [text]
    return [text[start:stop].strip() for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _is_call(text: str, opening: int) -> bool:
    """Whether brackets are those of a call."""
    return text[opening] == "(" and opening > 0 and (text[opening - 1].isalnum() or text[opening - 1] in "_])")
