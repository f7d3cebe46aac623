"""How a build stores weights, whatever it builds: their element type, copied or referred to, and who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# The element types of numbers that a build can be asked for, as people write them and as safetensors does.
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
Report = Callable[[int, int], None]  # is told the bytes that are done, and those that there will be


@dataclass
class Storing:
    """What a build is asked to do with weights, and what it tells of that.

    `dtype` is that of floats: "float32", "float16" or "bfloat16". With `link`, an artifact refers to the bytes of the
    checkpoint wherever they are just those that it needs; `linked` counts them afterwards. `report` is called as
    bytes are written.
    """

    dtype: str = "float32"
    link: bool = False
    report: Report | None = None
    linked: int = field(default=0, init=False)

    @property
    def spelled(self) -> str:
        """The element type as safetensors spells it."""
        return DTYPES[self.dtype]

    def meter(self, total: int) -> Callable[[int], None]:
        """What is called with the number of bytes that were written just now, of so many."""
        report, done = self.report, 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if report is not None:
                report(done, total)

        return advance
