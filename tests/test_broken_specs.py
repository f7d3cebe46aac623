"""Broken specs: each gets a diagnostic at the right place, and none a traceback.

`tests/broken/*.tfm` are checked as `tfm check` does; what cannot lie in a repository is made here. The golden files are
the diagnostics as a user sees them: read them when they change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tfdsl
from tfdsl.check import check_file
from tfdsl.language.diagnostics import Diagnostic, SpecError

BROKEN = Path(__file__).parent / "broken"
SPECS = sorted(path.stem for path in BROKEN.glob("*.tfm"))
Golden = Callable[[str, str], None]

HEAD = "model M(x: [batch, 4]) -> [batch, 4] {\n"
TAIL = "  return x\n}\n"


def render(diagnostics: tuple[Diagnostic, ...] | list[Diagnostic]) -> str:
    return "\n\n".join(diagnostic.render() for diagnostic in diagnostics) + "\n"


def test_there_are_enough() -> None:
    assert len(SPECS) >= 80


@pytest.mark.parametrize("name", SPECS)
def test_broken(name: str, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    faults = check_file(f"{name}.tfm").faults
    assert faults, "this spec is sound"
    for fault in faults:
        assert fault.span is not None
        assert fault.as_json()["at"]
    golden(f"broken/{name}.txt", render(faults))


# --- what cannot lie in a repository ---------------------------------------------------------------------------------


def _doubling(depth: int) -> str:
    """Blocks that each apply the one before twice: 2 ** depth applications in a few lines."""
    text = "block B0(x: [batch, 4]) -> [batch, 4] {\n  return relu(x)\n}\n"
    for level in range(1, depth + 1):
        text += (
            f"block B{level}(x: [batch, 4]) -> [batch, 4] {{\n  return B{level - 1}(B{level - 1}(x) as a) as b\n}}\n"
        )
    return text + HEAD + f"  x = B{depth}(x)\n" + TAIL


def _lines(*statements: str) -> str:
    return HEAD + "".join(f"  {statement}\n" for statement in statements) + TAIL


MADE: dict[str, str | bytes] = {
    "not_utf8": b"# caf\xe9\n" + _lines().encode(),
    "utf16": _lines().encode("utf-16"),
    "nul": b"model M\0(x: [batch, 4])",
    "blank": "\n  # nothing but a comment\n",
    "control_characters": _lines('y = rearrange(x, "\x1b[2J")').encode(),
    "too_large": "# " + "x" * 1_000_000,
    "deep_parentheses": _lines("y = " + "relu(" * 200 + "x" + ")" * 200),
    "deep_lists": _lines("y = " + "[" * 5000 + "]" * 5000),
    "deep_minus": _lines("y = " + "-" * 20_000 + "x"),
    "open_parentheses": _lines("y = " + "(" * 20_000),
    "doubling_blocks": _doubling(30),
    "deep_blocks": _doubling(70).replace("(x) as a) as b", "(x)) as b"),
    "doubling_lists": _lines("a0 = [1, 1]", *(f"a{i} = [a{i - 1}, a{i - 1}]" for i in range(1, 60))),
    "doubling_sizes": "model M(x: [batch, seq]) -> [batch, seq] {\n  n0 = seq // 3\n"
    + "".join(f"  n{i} = max(n{i - 1} // 7, (n{i - 1} + 1) // 5)\n" for i in range(1, 60))
    + TAIL,
    "doubling_masks": _lines("m0 = causal", *(f"m{i} = m{i - 1} & (m{i - 1} | window({i}))" for i in range(1, 60))),
    "doubling_axis": _lines("y0 = x", *(f"y{i} = concat(y{i - 1}, y{i - 1})" for i in range(1, 60))),
    "many_terms": "model M(x: [batch, a, b, c]) -> [batch, a, b, c] {\n  n = (a + b + c + batch) ** 16\n" + TAIL,
    "many_parts": "model M(x: [batch, 4000000]) -> [batch, 4000000] {\n  y = split(x, parts=4000000)\n" + TAIL,
    "nested_loops": _lines("repeat h[10000] { repeat g[10000] { x = relu(x) } }"),
    "long_name": _lines("y = " + "a" * 500_000),
    "long_pattern": _lines('y = rearrange(x, "' + "a " * 100_000 + '-> b")'),
    "long_chain_of_variants": HEAD
    + "  param w = 4\n"
    + TAIL
    + "model V0 extends M {}\n"
    + "".join(f"model V{i} extends V{i - 1} {{ w = {i} }}\n" for i in range(1, 100)),
    "many_faults": "model\n" * 20_000,
    "wide_characters": "# 模型\n" + _lines('y = rearrange(x, "批 头") + zz').replace("  y", "\ty"),
}


@pytest.mark.parametrize("name", MADE)
def test_made(name: str, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = MADE[name]
    Path(f"{name}.tfm").write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    with pytest.raises(SpecError) as caught:
        tfdsl.load(f"{name}.tfm")
    assert time.monotonic() - started < 60, "a hostile spec takes too long"
    assert len(caught.value.diagnostics) <= 50
    golden(f"broken/made/{name}.txt", render(caught.value.diagnostics[:3]))


def _write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.tfm").write_text(text, encoding="utf-8")


USES_F = "model M(x: [batch, 4]) -> [batch, 4] {\n  return F(x)\n}\n"
F = "block F(x: [..., width]) -> [..., width] {\n  return relu(x)\n}\n"


def _cycle(folder: Path) -> str:
    _write(
        folder,
        a='import G from "b.tfm"\n' + F + USES_F,
        b='import H from "c.tfm"\nblock G(x: [..., width]) -> [..., width] {\n  return H(x)\n}\n',
        c='import F from "a.tfm"\nblock H(x: [..., width]) -> [..., width] {\n  return F(x)\n}\n',
    )
    return "a.tfm"


def _link_outside(folder: Path) -> str:
    (folder / "inside").mkdir()
    _write(folder, secret=F)
    _write(folder / "inside", spec='import F from "blocks.tfm"\n' + USES_F)
    (folder / "inside" / "blocks.tfm").symlink_to(folder / "secret.tfm")
    return "inside/spec.tfm"


def _folder_link_outside(folder: Path) -> str:
    (folder / "inside").mkdir()
    (folder / "outside").mkdir()
    _write(folder / "outside", blocks=F)
    _write(folder / "inside", spec='import F from "parts/blocks.tfm"\n' + USES_F)
    (folder / "inside" / "parts").symlink_to(folder / "outside", target_is_directory=True)
    return "inside/spec.tfm"


def _dots_outside(folder: Path) -> str:
    (folder / "inside").mkdir()
    _write(folder, blocks=F)
    _write(folder / "inside", spec='import F from "../blocks.tfm"\n' + USES_F)
    return "inside/spec.tfm"


def _out_of_std(folder: Path) -> str:
    _write(folder, spec='import F from "std/../../check.tfm"\n' + USES_F)
    return "spec.tfm"


def _many_files(folder: Path) -> str:
    _write(folder, **{f"f{i}": f'import F{i + 1} from "f{i + 1}.tfm"\n' + F.replace("F", f"F{i}") for i in range(250)})
    _write(folder, f250=F.replace("F", "F250"))
    return "f0.tfm"


def _missing(folder: Path) -> str:
    return "missing.tfm"


def _is_folder(folder: Path) -> str:
    (folder / "folder.tfm").mkdir()
    return "folder.tfm"


def _is_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.tfm")
    return "pipe.tfm"


def _imported_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.tfm")
    _write(folder, spec='import F from "pipe.tfm"\n' + USES_F)
    return "spec.tfm"


def _empty(folder: Path) -> str:
    _write(folder, empty="")
    return "empty.tfm"


def _faults_in_two_files(folder: Path) -> str:
    _write(
        folder, spec='import F from "blocks.tfm"\nimport G from "blocks.tfm"\n' + USES_F, blocks=F.replace("x)", "x")
    )
    return "spec.tfm"


def _two_models(folder: Path) -> str:
    _write(folder, spec=USES_F.replace("M", "A").replace("F", "relu") + USES_F.replace("F", "relu"))
    return "spec.tfm"


FILES = [
    _cycle,
    _link_outside,
    _folder_link_outside,
    _dots_outside,
    _out_of_std,
    _many_files,
    _missing,
    _is_folder,
    _is_pipe,
    _imported_pipe,
    _empty,
    _faults_in_two_files,
    _two_models,
]


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__[1:])
def test_files(make: Callable[[Path], str], golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    with pytest.raises(SpecError) as caught:
        tfdsl.load(path)
    golden(f"broken/files/{make.__name__[1:]}.txt", render(caught.value.diagnostics))


SMALL = """model Small(x: [batch, width], keep: bool[batch]?) -> [batch, width] {
  param width = 4
  param bias = true
  param act = gelu()
  param name: string = "small"
  param sizes: list = [1, 2]
  require width > 0, "there must be a width"
  return x |> linear(out=width, bias=bias) |> act
}

block Wide(x: [..., width]) -> [..., width] {
  return x
}
"""
SETTINGS: dict[str, dict[str, str]] = {
    "unknown": {"widht": "8"},
    "wrong_kind": {"bias": "1"},
    "wrong_kind_of_layer": {"act": "3"},
    "unknown_name": {"width": "hidden * 2"},
    "fails": {"width": "-1"},
    "syntax": {"width": "8 +"},
    "two_expressions": {"width": "8 9"},
    "statement": {"width": "8 return 1"},
    "empty": {"width": ""},
    "division": {"width": "7 / 2"},
    "not_a_list": {"sizes": "3"},
    "brackets": {"width": "(8"},
    "depth": {"width": "-" * 500 + "1"},
    "two": {"width": "8 +", "bias": "maybe"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, small=SMALL)
    with pytest.raises(SpecError) as caught:
        tfdsl.load("small.tfm", settings=SETTINGS[name])
    golden(f"broken/settings/{name}.txt", render(caught.value.diagnostics))


def test_python_values_and_names(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, small=SMALL)
    attempts = [
        lambda: tfdsl.load("small.tfm", width=object),
        lambda: tfdsl.load("small.tfm", width="8"),
        lambda: tfdsl.load("small.tfm", bias=0.5),
        lambda: tfdsl.load("small.tfm", "Smal"),
        lambda: tfdsl.load("small.tfm", "Wide"),
        lambda: tfdsl.load("small.tfm", inputs=["kepe"]),
    ]
    shown = []
    for attempt in attempts:
        with pytest.raises(SpecError) as caught:
            attempt()
        shown.append(render(caught.value.diagnostics))
    golden("broken/python.txt", "\n".join(shown))
