"""Paths of weights for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable


def names(paths: Iterable[str]) -> list[str]:
    """Paths for a message, where those that differ in one number only are one: `h.{0-2,5}.weight`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        match = re.match(r"((?:[^.]+\.)*?)(\d+)(\..*)$", path)
        key = (match[1], match[3]) if match else (path, "")
        groups.setdefault(key, []).append(match[2] if match else "")
    shown = []
    for (before, after), numbers in groups.items():
        if len(numbers) == 1:
            shown.append(before + numbers[0] + after)
        else:
            shown.append(f"{before}{{{_ranges(sorted(int(number) for number in numbers))}}}{after}")
    return shown


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
