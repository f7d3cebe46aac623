"""Large numbers in short."""

from __future__ import annotations

_THOUSANDS = ("", "K", "M", "B", "T")
_OPERATIONS = ("", "K", "M", "G", "T", "P", "E")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def short_count(number: int) -> str:
    """A count of parameters: `1,536` where that is short enough, else in three digits, `124 M`."""
    return f"{number:,}" if number < 10_000 else _short(number, 1000, _THOUSANDS)


def short_operations(number: int) -> str:
    """A number of operations in three digits: `291 G`."""
    return _short(number, 1000, _OPERATIONS)


def short_bytes(number: int) -> str:
    """A number of bytes in three digits: `475 MiB`."""
    return _short(number, 1024, _BYTES)


def _short(number: int, base: int, units: tuple[str, ...]) -> str:
    value, unit = float(number), 0
    # 999.6 would be written as 1000.
    while value >= (999.5 if base == 1000 else 1023.5) and unit + 1 < len(units):
        value, unit = value / base, unit + 1
    if unit == 0:
        return f"{number} {units[0]}".strip()
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {units[unit]}"
