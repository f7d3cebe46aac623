"""The zoo's index: every spec and every model of it is there, with the parameters that it has today."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tfdsl.check import check_file

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "specs" / "README.md").read_text("utf-8")
FILES = sorted((ROOT / "specs").glob("*.tfm"))


@pytest.fixture(scope="module")
def tool() -> dict[str, object]:
    return runpy.run_path(str(ROOT / "tools" / "zoo_index.py"))


def section(file: Path) -> str:
    """What the index says about a file, from its heading to the next."""
    return TEXT.partition(f"[`{file.name}`]({file.name})\n")[2].partition("\n#")[0]


def test_index_is_as_the_specs_have_it(tool: dict) -> None:
    assert tool["filled"](TEXT) == TEXT, "python tools/reference_tables.py writes it anew"


def test_every_spec_has_one_place(tool: dict) -> None:
    assert sorted(tool["listed"](TEXT)) == [file.name for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_model_is_listed_and_every_paper_is_linked(file: Path) -> None:
    listed = re.findall(r"^\| `(\w+)` \| [\d,]+ \|", section(file), re.MULTILINE)
    assert listed == list(check_file(file).models)
    assert re.search(r"\[[^\]]+\]\(https://[^)]+\) \([^)]+, \d{4}\)", section(file))
