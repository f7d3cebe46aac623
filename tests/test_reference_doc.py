"""The language reference: every example in it is read and elaborated, and its tables are those of the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tfdsl.check import check_file
from tfdsl.language.parser import KEYWORDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "specs" / "language.md").read_text("utf-8")
EXAMPLES = [
    (TEXT[: match.start()].count("\n") + 1, match[1].strip(), match[2])
    for match in re.finditer(r"^```tfm([^\n]*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
]
AROUND = """
model Example(x: [batch, seq, 64], tokens: int[batch, seq], image: [batch, 3, 32, 32], q: [batch, 8, seq, 16],
              k: [batch, 2, seq, 16], v: [batch, 2, seq, 16], keep: bool[batch, seq]) -> [batch, seq, 64] {{
{}
  return x
}}
"""


def whole(text: str) -> str:
    """An example as a file: statements are put into the body of a model."""
    first = re.match(r"(?:\s*#[^\n]*\n)*\s*(\w+)", text)
    assert first is not None
    return text if first[1] in ("import", "block", "model", "plan", "mapping") else AROUND.format(text)


@pytest.mark.parametrize(("line", "kind", "text"), EXAMPLES, ids=[f"line {line}" for line, _, _ in EXAMPLES])
def test_examples_hold(line: int, kind: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.tfm"
    path.write_text(whole(text), encoding="utf-8")
    faults = check_file(path).faults
    expected = [kind.removeprefix("error ")] if kind else []
    assert [fault.code for fault in faults] == expected, "\n".join(fault.render() for fault in faults)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15
    assert sum(bool(kind) for _, kind, _ in EXAMPLES) >= 2


def test_tables_are_those_of_the_code() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "reference_tables.py"))
    assert tool["filled"](TEXT) == TEXT, "python tools/reference_tables.py writes them anew"


def test_every_keyword_is_listed() -> None:
    listed = re.search(r"These words cannot be names: `([^`]*)`", TEXT)
    assert listed is not None
    assert set(listed[1].split()) == set(KEYWORDS)
