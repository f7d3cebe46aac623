"""What `tfm run` prints: one row as it comes, several when they are done, and how fast it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfdsl.decoding.running import Given, Runner, prepare
from tfdsl.decoding.tokenizers import Stream

Write = Callable[[str], None]


@dataclass
class Row:
    """One row as text or as numbers, piece by piece."""

    stream: Stream | None
    first: bool = True

    def add(self, token: int) -> str:
        """What a token adds to the line."""
        if self.stream is not None:
            return self.stream.add(token)
        comma, self.first = "" if self.first else ",", False
        return f"{comma}{token}"

    def rest(self) -> str:
        """What is left to be said at the end."""
        return "" if self.stream is None else self.stream.rest()


def run_and_print(runner: Runner, given: Given, write: Write, **options: Any) -> str:
    """Generate, and write what comes; what came to be is told in the words that are returned. Raises `SpecError`."""
    prompts, inputs = prepare(runner, given)
    by_number = bool(given.tokens or given.source_tokens) or runner.manifest.tokenizer is None
    rows = [Row(None if by_number else Stream(runner.coder)) for _ in prompts]
    at_once = len(rows) == 1
    parts: list[list[str]] = [[] for _ in rows]
    times: list[float] = []

    def tell(row: int, token: int) -> None:
        times.append(time.perf_counter())
        piece = rows[row].add(token)
        if at_once:
            write(piece)
        parts[row].append(piece)

    begun = time.perf_counter()
    runner.generate(prompts, inputs=inputs, on_token=tell, **options)
    for row, pieces in zip(rows, parts, strict=True):
        write(f"{row.rest()}\n" if at_once else f"{''.join(pieces)}{row.rest()}\n")
    return _speed(len(times), times[0] - begun, times[-1] - times[0], runner)


def _speed(count: int, first: float, rest: float, runner: Runner) -> str:
    speed = f", then {(count - 1) / rest:.1f} tokens/s" if count > 1 and rest > 0 else ""
    return f"{count} token{'s' * (count != 1)}: the first after {first:.2f} s{speed} ({runner.name})"
