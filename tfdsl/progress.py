"""A bar for builds that take a while: on stderr, and only where somebody sits before it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

LEAST = 200_000_000  # bytes; fewer are written before one has read anything

Report = Callable[[int, int], None]


@contextmanager
def bar(what: str, least: int = LEAST) -> Iterator[Report | None]:
    """A function that is told the bytes that are done and those that there will be; None where nobody watches.

    The bar appears when it is told of at least `least` bytes, and goes when the block ends.
    """
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        shown: list[Report] = []

        def report(done: int, total: int) -> None:
            if total < least:
                return
            if not shown:
                shown.append(_begin(stack, what))
            shown[0](done, total)

        yield report


def _begin(stack: ExitStack, what: str) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = progress.add_task(what)
    return lambda done, total: progress.update(task, completed=done, total=total)
