"""How long the largest report takes as a whole process, start-up included: `python tools/bench_report.py [runs]`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

SPEC = Path(__file__).parent.parent / "specs" / "llama.tfm"


def main(runs: int) -> None:
    """Print the shortest, the median and the longest time in seconds."""
    command = [sys.executable, "-m", "tfdsl", "report", f"{SPEC}:Llama3_405B", "--json"]
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    print(f"{min(times):.3f} s to {max(times):.3f} s, median {statistics.median(times):.3f} s, of {runs} runs")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
