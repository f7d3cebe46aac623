"""The table of codes: it has every code that the source uses, none besides, and a golden file shows each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tfdsl.language.codes import CODES, explain
from tfdsl.language.diagnostics import SpecError

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


def _in_source() -> set[str]:
    """The codes that are raised: string literals, those of the table itself left out."""
    texts = [path.read_text("utf-8") for path in (ROOT / "tfdsl").rglob("*.py") if path.name != "codes.py"]
    return {code for text in texts for code in re.findall(r'"(T\d{3})"', text)} | {"T903"}


def _in_golden_files() -> set[str]:
    texts = [path.read_text("utf-8") for path in GOLDEN.rglob("*.txt")]
    return {code for text in texts for code in re.findall(r"error\[(T\d{3})\]", text)}


def test_every_code_has_an_entry_and_every_entry_a_use() -> None:
    assert sorted(_in_source()) == sorted(CODES)


def test_every_code_has_a_snapshot() -> None:
    assert sorted(set(CODES) - _in_golden_files()) == []


@pytest.mark.parametrize("code", CODES)
def test_entries_are_in_shape(code: str) -> None:
    entry = CODES[code]
    assert entry.title[0].islower() or entry.title[0].isupper()
    assert not entry.title.endswith(".")
    assert entry.explanation.endswith((".", "!", ")"))
    text = explain(code.lower())
    assert text.startswith(f"{code}: {entry.title}\n\n")
    assert all(len(line) <= 88 for line in text.splitlines()[2:] if not line.startswith("    "))


def test_unknown_code() -> None:
    with pytest.raises(SpecError) as caught:
        explain("E0308")
    assert caught.value.diagnostics[0].code == "T903"
