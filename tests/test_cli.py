"""The command line: what it prints, where, with which exit status; that it shows no traceback and loads little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tfdsl
from tfdsl import cli
from tfdsl.cli import tfm

SPECS = Path(__file__).parent.parent / "specs"
GPT2 = str(SPECS / "gpt2.tfm")
SMALL = [part for name in ("depth=2", "width=32", "heads=4", "vocab=60") for part in ("--set", name)]
BROKEN = """
model Broken(x: [batch, seq, 8]) -> [batch, seq, 8] {
  y = linear(x, out=9)
  z = nonsense(x)
  return y
}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tfm, [str(argument) for argument in arguments])


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.tfm"
    path.write_text(BROKEN)
    return str(path)


@pytest.mark.parametrize("command", ["check", "fmt", "show", "ir", "report", "draw", "build", "verify", "explain"])
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: tfm {command}" in result.output.replace("root", "tfm").replace("main", "tfm")


def test_without_a_command_there_is_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert "check" in result.output


def test_version() -> None:
    assert run("--version").output == f"tfm {tfdsl.__version__}\n"


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_what_it_read() -> None:
    result = run("check", GPT2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{GPT2}: 4 models, no errors\n"


def test_check_finds_every_fault_and_counts_them(broken: str) -> None:
    result = run("check", broken, GPT2)
    assert result.exit_code == 1
    assert "error[T402]" in result.stderr
    assert "error[T201]" in result.stderr
    assert result.stderr.endswith(f"2 errors in {broken}, {GPT2}\n")
    assert "Traceback" not in result.output


def test_check_as_json_is_a_list_on_stdout(broken: str) -> None:
    result = run("check", broken, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert [each["code"] for each in found] == ["T201", "T402"]
    assert found[0]["at"]["file"] == broken
    assert (found[0]["at"]["line"], found[0]["at"]["column"]) == (4, 7)
    assert json.loads(run("check", GPT2, "--json").stdout) == []


def test_check_reads_optional_inputs_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "optional.tfm"
    path.write_text(
        "model M(x: [batch, 4], y: [batch, 5]?) -> [batch, 4] {\n  return if given(y) then x + y else x\n}\n"
    )
    result = run("check", str(path))
    assert result.exit_code == 1
    assert "error[T401]" in result.stderr


def test_check_leaves_a_model_that_is_there_to_be_extended(tmp_path: Path) -> None:
    path = tmp_path / "base.tfm"
    path.write_text("model M(x: [batch, 4]) -> [batch, n] {\n  param n: int\n  return linear(x, out=n)\n}\n")
    result = run("check", str(path))
    assert result.exit_code == 0
    assert "M needs a value for `n`" in result.stdout
    path.write_text(path.read_text() + "model N extends M { n = 0 }\n")
    assert run("check", str(path)).exit_code == 1


def test_check_of_one_model_with_settings() -> None:
    assert run("check", f"{GPT2}:GPT2_XL", *SMALL).exit_code == 0
    result = run("check", GPT2, "--set", "heads=5")
    assert result.exit_code == 1
    assert "heads must divide width" in result.stderr


def test_check_of_a_file_that_is_not_there() -> None:
    result = run("check", "nowhere.tfm")
    assert result.exit_code == 1
    assert "error[T001]" in result.stderr


# --- fmt -------------------------------------------------------------------------------------------------------------


def test_fmt_writes_only_what_changes(tmp_path: Path) -> None:
    path = tmp_path / "spec.tfm"
    path.write_bytes(b"block   B(x:[batch,4])->[batch,4]{return x} # a block\r\n")
    result = run("fmt", "--check", str(path))
    assert (result.exit_code, result.stdout) == (1, f"would format {path}\n")
    assert b"\r\n" in path.read_bytes()
    result = run("fmt", str(path))
    assert (result.exit_code, result.stdout) == (0, f"formatted {path}\n")
    assert b"\r" not in path.read_bytes()
    assert b"# a block" in path.read_bytes()
    result = run("fmt", str(path))
    assert (result.exit_code, result.output) == (0, "")


def test_fmt_goes_on_after_a_file_that_does_not_parse(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.tfm", tmp_path / "good.tfm"
    bad.write_text("block {")
    good.write_text("block  B(x: [4]) -> [4] { return x }")
    result = run("fmt", str(bad), str(good))
    assert result.exit_code == 1
    assert "error[T1" in result.stderr
    assert result.stdout == f"formatted {good}\n"
    assert bad.read_text() == "block {"


# --- show, ir, report, draw ------------------------------------------------------------------------------------------


def test_show_tells_where_values_come_from() -> None:
    result = run("show", f"{GPT2}:GPT2_XL", "--set", "depth=2")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "depth 2 --set" in lines
    assert any(line.startswith("width 1_600 set by GPT2_XL (") for line in lines)
    assert any(line.startswith("vocab 50_257 default (") for line in lines)
    assert "h.{0-1}.attn.c_attn.weight [4800, 1600] x 2 normal(0.02)" in lines
    assert "wte.weight [50257, 1600] normal(0.02)" in lines
    assert "seq <= 1024 the sequence is longer than the position table" in lines


def test_show_cuts_what_is_long() -> None:
    """The layer with two lists of 48 numbers is told by its beginning."""
    shown = run("show", f"{SPECS / 'phi3.tfm'}:Phi3_Mini_128k").stdout
    line = next(line for line in shown.splitlines() if line.startswith("  rotary"))
    assert "rope_long(" in line and "..." in line and "64.76" not in line


def test_show_of_a_model_with_an_optional_input() -> None:
    bert = str(SPECS / "bert.tfm")
    assert "keep" not in run("show", f"{bert}:Bert").stdout.partition("weights:")[0]
    assert "bool[batch, seq]" in run("show", f"{bert}:Bert", "--with", "keep").stdout
    result = run("show", f"{bert}:Bert", "--with", "mask")
    assert result.exit_code == 1
    assert "error[T314]" in result.stderr


def test_ir_prints_the_graph() -> None:
    result = run("ir", GPT2, *SMALL)
    assert result.exit_code == 0
    assert result.stdout.startswith("graph GPT2(tokens: int[batch, seq])")


def test_report_counts() -> None:
    assert "124,439,808" in run("report", GPT2).stdout
    found = json.loads(run("report", GPT2, "--json", "--batch", "2", "--seq", "5").stdout)
    assert found["parameters"]["total"] == 124_439_808
    assert found["sizes"] == {"batch": 2, "seq": 5}


def test_draw_writes_dot(tmp_path: Path) -> None:
    path = tmp_path / "gpt2.dot"
    result = run("draw", GPT2, "-o", str(path))
    assert result.exit_code == 0
    assert path.read_text().startswith("digraph")
    assert run("draw", GPT2, "-o", str(tmp_path / "gpt2.doc")).exit_code == 1


# --- naming ----------------------------------------------------------------------------------------------------------


def test_a_name_splits_at_its_last_colon(tmp_path: Path) -> None:
    assert cli.split_name("a/b.tfm") == ("a/b.tfm", None)
    assert cli.split_name("a/b.tfm:M") == ("a/b.tfm", "M")
    assert cli.split_name("C:\\specs\\b.tfm") == ("C:\\specs\\b.tfm", None)
    assert cli.split_name("C:\\specs\\b.tfm:M") == ("C:\\specs\\b.tfm", "M")
    odd = tmp_path / "odd:name"
    odd.write_text("")
    assert cli.split_name(str(odd)) == (str(odd), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", GPT2, "--set", "depth"], "`depth` is not of the form name=value"),
        (["show", GPT2, "--set", "depth="], "`depth=` is not of the form name=value"),
        (["show", GPT2, "--set", "depth=1", "--set", "depth=2"], "`depth` is set twice"),
        (["shwo", GPT2], "there is no command `shwo`; did you mean `show`?"),
        (["show"], "missing argument 'FILE[:MODEL]'"),
        (["show", GPT2, "--sett", "a=1"], "no such option"),
        (["report", GPT2, "--batch", "0"], "0 is not in the range x>=1"),
        (["report", GPT2, "--batch", "many"], "'many' is not a whole number"),
        (["verify", GPT2, "--tolerance", "some"], "'some' is not a number"),
        (["build", GPT2, "--to", "tensorflow", "-o", "x"], "'tensorflow' is not one of"),
        (
            ["build", GPT2, "--to", "torch", "-o", "x", "--weights", "a", "--seed", "1"],
            "--weights and --seed are two ways",
        ),
    ],
)
def test_wrong_usage_is_told_as_all_faults_are(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error[T901]: ")
    assert message in result.stderr
    assert "--help" in result.stderr


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("nothing=1", "T313"),
        ("depth=1 +", "T1"),
        ("depth=nowhere", "T201"),
        ("depth=true", "T309"),
        ("depth=10 ** 9", "T306"),
    ],
)
def test_a_wrong_setting_is_a_fault_at_its_place(setting: str, code: str) -> None:
    result = run("show", GPT2, "--set", setting)
    assert result.exit_code == 1
    assert f"error[{code}" in result.stderr
    assert "--set" in result.stderr


# --- what goes wrong outside of specs --------------------------------------------------------------------------------


def failing(error: BaseException) -> Any:
    def fail(*arguments: object, **rest: object) -> None:
        raise error

    return fail


def test_an_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_load", failing(KeyboardInterrupt()))
    result = run("show", GPT2)
    assert result.exit_code == 130
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "there is not enough memory"),
        (PermissionError(13, "Permission denied", "out.dot"), "`out.dot`: permission denied"),
        (OSError(28, "No space left on device"), "no space left on device"),
    ],
)
def test_what_the_system_refuses_is_a_fault(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    monkeypatch.setattr(cli, "_load", failing(error))
    result = run("show", GPT2)
    assert result.exit_code == 1
    assert result.stderr.startswith("error[T902]: ")
    assert message in result.stderr


def test_a_fault_of_our_own_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_load", failing(RuntimeError("a surprise")))
    result = run("show", GPT2)
    assert result.exit_code == 70
    assert "a fault of tfm itself: RuntimeError: a surprise" in result.stderr
    assert "--traceback" in result.stderr
    result = run("--traceback", "show", GPT2)
    assert isinstance(result.exception, RuntimeError)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("draw", GPT2, "-o", str(tmp_path / "file" / "gpt2.dot"))
    assert result.exit_code == 1
    assert result.stderr.startswith("error[T70")


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SPECS.parent)}
    return subprocess.run([sys.executable, *arguments], text=True, env=environment, timeout=60, **options)


@pytest.mark.skipif(os.name != "posix", reason="pipes that close are those of POSIX")
def test_a_reader_that_goes_away_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = process("-m", "tfdsl", "show", GPT2, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_terminal_that_knows_no_unicode_still_gets_its_message(tmp_path: Path) -> None:
    path = tmp_path / "spec.tfm"
    path.write_text("model M(x: [batch, 4]) -> [batch, 4] { return \N{SNOWMAN} }", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(SPECS.parent), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "tfdsl", "check", str(path)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 1
    assert b"T102" in done.stderr


HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "numpy", "transformers", "safetensors", "rich")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", GPT2],
        ["fmt", "--check", GPT2],
        ["show", GPT2],
        ["ir", GPT2],
        ["report", GPT2, "--json"],
        ["draw", GPT2, "-o", os.devnull + ".dot"],
        ["explain", "T402"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_load_no_more_than_they_need(arguments: list[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path / "x.dot") if part.endswith(".dot") else part for part in arguments]
    program = (
        "import sys\nfrom tfdsl.cli import tfm\n"
        f"tfm({arguments!r}, standalone_mode=False)\n"
        f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = process("-c", program, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded []\n")
