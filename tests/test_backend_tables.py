"""Every op of the table is lowered by every backend, or refused with a reason."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import tfdsl.backends
from tfdsl.ir.ops import OPS

# `graphviz` draws graphs and runs no op.
BACKENDS = ("reference", "torch", "onnx", "openvino")


def test_all_backends_are_known_here() -> None:
    folders = {init.parent.name for init in Path(tfdsl.backends.__file__).parent.glob("*/__init__.py")}
    assert folders == {*BACKENDS, "graphviz"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_op_is_lowered_or_refused(backend: str) -> None:
    tables = importlib.import_module(f"tfdsl.backends.{backend}.lowerings")
    lowered, refused = {*tables.LOWERINGS}, {*tables.REFUSED}
    assert {*OPS} - lowered - refused == set(), f"ops that {backend} neither lowers nor refuses"
    assert lowered & refused == set(), f"ops that {backend} both lowers and refuses"
    assert lowered | refused == {*OPS}, f"{backend} names ops that are not in the table"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refusal_gives_its_reason(backend: str) -> None:
    tables = importlib.import_module(f"tfdsl.backends.{backend}.lowerings")
    assert all(callable(lowering) for lowering in tables.LOWERINGS.values())
    for op, reason in tables.REFUSED.items():
        assert len(reason.split()) > 1, f"{backend} refuses {op} without saying why"
