"""Patterns of weight paths in plans: `*` is one part (the index of a loop among them), `**` any number of parts.

A pattern also stands for all that lies below what it names: `blocks.*.mlp` is every weight of every MLP.
"""

from __future__ import annotations

from collections.abc import Iterable

from tfdsl.ir.elaborate.patterns import compile_pattern
from tfdsl.language.diagnostics import SpecError, did_you_mean, one

MOST_SHOWN = 5


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern names a path, or something above it."""
    return compile_pattern(pattern).match(path) is not None


def nothing_matches(pattern: str, paths: Iterable[str], what: str) -> SpecError:
    """The fault of a pattern that matches nothing (T604), with paths near it; `what` says what was looked for."""
    known = sorted(set(paths))
    more = ", ..." if len(known) > MOST_SHOWN else ""
    help_ = f"there are {', '.join(known[:MOST_SHOWN])}{more}" if known else f"the model has no {what}"
    above = {".".join(path.split(".")[:end]) for path in known for end in range(1, path.count(".") + 2)}
    help_ = did_you_mean(pattern, above, help_)
    starred = ".".join("*" if part.isdigit() else part for part in pattern.split("."))
    if starred != pattern and any(matches(starred, path) for path in known):
        help_ = f"did you mean `{starred}`? the turns of a loop are treated alike"
    return one("T604", f'no {what} matches "{pattern}"', help=help_)
