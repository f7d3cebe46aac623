"""What the README shows is true: its specs elaborate, and its commands are those that exist."""

from __future__ import annotations

import re
from pathlib import Path

import tfdsl
from tfdsl.cli import tfm
from tfdsl.ir.graph import weights
from tfdsl.language import modules
from tfdsl.language.parser import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_spec_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "small.tfm"
    path.write_text(fenced("tfm")[0], encoding="utf-8")
    model = tfdsl.load(path)
    paths = {path for weight in weights(model.graph) for path in weight.paths()}
    assert "layers.3.mlp.up.weight" in paths
    assert len(fenced("tfm")[0].splitlines()) <= 30


def test_the_plan_is_one(tmp_path: Path) -> None:
    text = (ROOT / "specs" / "gpt2.tfm").read_text("utf-8") + fenced("tfm")[1]
    path = tmp_path / "gpt2.tfm"
    path.write_text(text, encoding="utf-8")
    plan = tfdsl.load(path, "GPT2").plan("small")
    assert [each.name for each in plan.optimize] == ["fuse_attention", "prune", "quantize"]
    assert modules.load(path).plans["small"]


def test_commands_and_paths_exist() -> None:
    lines = [line.partition("#")[0].split() for block in fenced("sh") for line in block.splitlines()]
    commands = [words[1] for words in lines if words[:1] == ["tfm"]]
    assert commands and set(commands) <= set(tfm.commands)
    for words in lines:
        for word in words:
            file = word.split(":")[0]
            if re.match(r"(specs|tools|examples)/[\w/.]+$", file):
                assert (ROOT / file).exists(), file


def test_python_example_is_syntax_and_names_that_exist() -> None:
    for block in fenced("python"):
        if "import tfdsl" in block:
            compile(block, "README", "exec")
            assert all(hasattr(tfdsl.Model, name) for name in re.findall(r"model\.(\w+)\(", block))


def test_all_shipped_specs_parse() -> None:
    from tfdsl.language.diagnostics import Source

    for path in sorted((ROOT / "specs").glob("*.tfm")):
        assert parse(Source(path.name, path.read_text("utf-8"))).items
