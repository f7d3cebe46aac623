"""Pictures through the `dot` program of Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tfdsl.language.diagnostics import one

FORMATS = ("svg", "png", "pdf")
SECONDS = 120
_FOR_PRINT = {"png": ("-Gdpi=160",)}


def render(source: str, format: str, target: Path) -> None:
    """Lay dot source out and write it as a picture. Raises `SpecError` where there is no `dot` or it fails."""
    program = shutil.which("dot")
    if program is None:
        raise one(
            "T732",
            f"drawing {format} needs the program `dot`, which is not installed",
            help="install Graphviz (on Debian: apt install graphviz), or write a .dot file, which needs nothing",
        )
    command = [program, f"-T{format}", *_FOR_PRINT.get(format, ()), "-o", str(target)]
    try:
        done = subprocess.run(command, input=source.encode(), capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        help_ = "write a .dot file and lay it out by hand, or draw with a smaller depth"
        raise one("T733", f"`dot` was still at work after {SECONDS} seconds", help=help_) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise one("T733", f"`dot` failed: {said[0]}", help="write a .dot file to see what it was given")
