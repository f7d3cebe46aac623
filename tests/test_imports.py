"""The import rules of the architecture: a phase knows those before it and none after, and a framework has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tfdsl

ROOT = Path(tfdsl.__file__).parent

# Which parts of tfdsl a part may import, at any depth. A part that is not listed is a command's or the public face.
MAY_IMPORT = {
    "language": ("language",),
    "ir": ("language", "ir"),
    "passes": ("language", "ir", "passes"),
    "report": ("language", "ir", "report"),
    "weights": ("language", "ir", "weights", "files"),
    "decoding": ("language", "ir", "files", "decoding", "build"),  # targets are found by name, through `build`
    "backends/reference": ("language", "ir", "passes", "weights", "decoding", "backends/reference"),
    "backends/torch": ("language", "ir", "passes", "weights", "files", "decoding", "backends/torch"),
    "backends/onnx": ("language", "ir", "passes", "weights", "files", "decoding", "backends/onnx"),
    "backends/openvino": ("language", "ir", "passes", "weights", "files", "decoding", "backends/openvino"),
    "backends/graphviz": ("language", "ir", "report", "files", "backends/graphviz"),  # parameter counts in the boxes
}
# What two backends share stands beside them, in files of `backends/` itself.
SHARED = "backends"
HOMES = {
    "torch": "backends/torch",
    "onnx": "backends/onnx",
    "onnxruntime": "backends/onnx",
    "onnxruntime_genai": "backends/onnx",
    "openvino": "backends/openvino",
    "openvino_genai": "backends/openvino",
    "openvino_tokenizers": "backends/openvino",
}


def part_of(module: str) -> str:
    """`tfdsl.backends.onnx.builder` is of `backends/onnx`, `tfdsl.ir.dims` of `ir`."""
    parts = module.split(".")[1:]
    if not parts:
        return ""
    if parts[0] == "backends" and len(parts) > 1 and (ROOT / "backends" / parts[1]).is_dir():
        return f"backends/{parts[1]}"
    return parts[0]


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """The modules that a file imports, each with its line and whether for type checking only."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno, id(node) in typing_only


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_it_may(path: Path) -> None:
    module = "tfdsl." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = part_of(module.removesuffix(".__init__"))
    for name, line, typing_only in imports(path):
        top = name.split(".")[0]
        place = f"{path.relative_to(ROOT)}:{line}"
        if top in HOMES and not typing_only:
            assert own == HOMES[top], f"{place} imports {name}, whose home is {HOMES[top]}"
        if top == "tfdsl" and own in MAY_IMPORT and not typing_only:
            target = part_of(name)
            allowed = (*MAY_IMPORT[own], SHARED, "")
            assert target in allowed, f"{place} imports {name}, and `{own}` may import {', '.join(MAY_IMPORT[own])}"


@pytest.mark.parametrize("module", ["torch", "onnx", "onnxruntime", "openvino", "numpy", "rich", "transformers"])
def test_importing_tfdsl_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, tfdsl; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
