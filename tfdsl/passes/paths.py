"""Patterns of weight paths in plans: `*` is one part (the index of a loop among them), `**` any number of parts.

A pattern also stands for all that lies below what it names: `blocks.*.mlp` is every weight of every MLP.
"""

from __future__ import annotations

from collections.abc import Iterable

from tfdsl.ir.elaborate.patterns import compile_pattern
from tfdsl.language.diagnostics import SpecError, did_you_mean, one


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern names a path, or something above it."""
    return compile_pattern(pattern).match(path) is not None


def nothing_matches(pattern: str, paths: Iterable[str], what: str) -> SpecError:
    """The fault of a pattern that matches nothing (T604), with paths near it; `what` says what was looked for."""
    known = sorted(set(paths))
    above = {".".join(path.split(".")[:end]) for path in known for end in range(1, path.count(".") + 2)}
    if not known:
        return one("T604", f'no {what} matches "{pattern}"', help=f"the model has no {what}")
    help_ = did_you_mean(pattern, above)
    if any(part.isdigit() for part in pattern.split(".")) and any("*" in path for path in known):
        help_ = help_ or "the turns of a loop are treated alike: write `*` for its index"
    return one(
        "T604",
        f'no {what} matches "{pattern}"',
        help=help_ or f"there are {', '.join(known[:5])}{', ...' * (len(known) > 5)}",
    )
