"""How many bytes weights take, and whether the machine has them."""

from __future__ import annotations

import os
from pathlib import Path

from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph, weights
from tfdsl.language.diagnostics import one

_LIMIT_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def bytes_needed(graph: Graph, each: int = 4) -> int:
    """The bytes of all weights of a graph, tied ones once, at `each` bytes a number."""
    sizes = {}
    for weight in weights(graph):
        size = 1
        for dim in weight.type.dims:
            size *= evaluate(dim, {})
        for path in weight.paths():
            sizes[path] = size
    return sum(sizes.values()) * each


def bytes_available() -> int | None:
    """The bytes that can be had without swapping; None where the system does not say."""
    found = [_unused(*files) for files in _LIMIT_FILES] + [_free()]
    known = [number for number in found if number is not None]
    return min(known) if known else None


def require_memory(needed: int, what: str) -> None:
    """Refuse what would not fit into memory, before the system ends the process."""
    available = bytes_available()
    if available is not None and needed > available:
        raise one(
            "T807",
            f"{what} needs {_show(needed)} of memory, and {_show(available)} are free",
            help="a smaller model of the same structure: --set depth=2, or whatever its parameters are called",
        )


def _unused(limit: str, usage: str) -> int | None:
    """What a container's limit leaves, in bytes."""
    try:
        return int(Path(limit).read_text()) - int(Path(usage).read_text())
    except (OSError, ValueError):  # no such limit, or the word "max"
        return None


def _free() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _show(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
