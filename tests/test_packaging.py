"""What an installed tfdsl holds: every package, the standard library, the zoo and the parser's tables."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_package_is_listed() -> None:
    found = {".".join(init.parent.relative_to(ROOT).parts) for init in ROOT.glob("tfdsl/**/__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"tfdsl.std", "tfdsl.zoo"}


def test_every_other_file_has_a_kind_that_is_packed() -> None:
    kinds = {pattern.lstrip("*") for pattern in PROJECT["tool"]["setuptools"]["package-data"]["*"]}
    files = [path for path in (ROOT / "tfdsl").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    others = [path for path in files if path.suffix != ".py"]
    assert others and all(path.suffix in kinds or path.name in kinds for path in others)
    assert (ROOT / PROJECT["tool"]["setuptools"]["package-dir"]["tfdsl.zoo"] / "gpt2.tfm").exists()


def test_constraints_name_what_is_required() -> None:
    pinned = {line.split("==")[0].lower() for line in (ROOT / "tools" / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(each for name in extras if name != "all" for each in extras[name])]
    assert {each.split(">")[0].lower() for each in wanted} <= pinned
