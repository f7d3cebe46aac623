"""Plans and mappings: what a plan comes to for a model, and which rules of a mapping are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import tfdsl
from tfdsl.check import check_file
from tfdsl.ir.elaborate.values import Range
from tfdsl.language.diagnostics import SpecError
from tfdsl.plans import Plan, find_plan, parse_request

SPEC = """
model M(x: [batch, seq, width]) -> [batch, seq, width] {
  param width = 8
  param depth = 2
  repeat h[depth] {
    x = x |> linear(out=width) as a |> linear(out=width) as b
  }
  return x
}
model Wide extends M { width = 16 }
model Other(x: [batch, 4]) -> [batch, 4] { return x }

plan fast for M {
  train {
    loss      = cross_entropy(shift=1)
    optimizer = adamw(lr=6e-4, betas=[0.9, 0.95])
    schedule  = cosine(warmup=10, steps=100 * depth)
    batch     = 2 * width
    precision = "bf16"
  }
  optimize {
    quantize("h.*.a.weight", bits=8)
    prune("**", sparsity=0.5)
    quantize("h.*.b.weight", bits=4)
  }
  deploy {
    onnx(batch=1..64, seq=width)
    torch()
  }
}
plan empty for M {}
plan short for M { train { loss = mean_squared_error schedule = constant() } }
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.tfm"
    path.write_text(SPEC, "utf-8")
    return path


def plan(spec: Path, name: str, model: str | None = "M") -> Plan:
    loaded = tfdsl.load(spec, model)
    return find_plan(loaded.module, name, loaded.declared, loaded.parameters)


def test_a_plan_is_evaluated_for_the_models_parameters(spec: Path) -> None:
    for model, width in (("M", 8), ("Wide", 16)):
        found = plan(spec, "fast", model)
        assert found.train.batch == 2 * width
        assert found.deploy == {"onnx": {"batch": Range(1, 64), "seq": width}, "torch": {}}
    train = plan(spec, "fast").train
    assert train.loss is not None and (train.loss.name, train.loss.settings) == ("cross_entropy", {"shift": 1})
    assert train.optimizer is not None
    assert train.optimizer.settings == {"lr": 6e-4, "betas": (0.9, 0.95), "decay": 0.01, "eps": 1e-8}
    assert train.schedule is not None
    assert train.schedule.settings == {"warmup": 10, "steps": 200, "floor": 0.0}
    assert (train.precision, train.seq, train.steps) == ("bf16", None, None)


def test_passes_keep_their_order_and_may_run_twice(spec: Path) -> None:
    requests = plan(spec, "fast").optimize
    assert [(each.name, each.positional, dict(each.keywords)) for each in requests] == [
        ("quantize", ("h.*.a.weight",), {"bits": 8}),
        ("prune", ("**",), {"sparsity": 0.5}),
        ("quantize", ("h.*.b.weight",), {"bits": 4}),
    ]


def test_a_plan_may_leave_all_open(spec: Path) -> None:
    found = plan(spec, "empty")
    assert (found.train.loss, found.train.precision, found.optimize, found.deploy) == (None, "fp32", [], {})
    short = plan(spec, "short").train
    assert short.loss is not None and short.loss.settings == {}
    assert short.schedule is not None and short.schedule.name == "constant"


@pytest.mark.parametrize(("name", "model"), [("fasst", "M"), ("fast", "Other")])
def test_a_plan_that_does_not_fit(spec: Path, name: str, model: str) -> None:
    with pytest.raises(SpecError, match="T601"):
        plan(spec, name, model)


def test_a_pass_from_text(spec: Path) -> None:
    loaded = tfdsl.load(spec, "M")
    request = parse_request('quantize("h.**", bits=width)', loaded.module, loaded.parameters)
    assert (request.name, request.positional, dict(request.keywords)) == ("quantize", ("h.**",), {"bits": 8})
    assert parse_request("clean", loaded.module, loaded.parameters).name == "clean"
    for text in ("3", "quantise()", "quantize(bits=8,)", 'quantize("h.**", bits="8")', "clean() as c", "clean("):
        with pytest.raises(SpecError):
            parse_request(text, loaded.module, loaded.parameters)


# --- mappings --------------------------------------------------------------------------------------------------------


def faults_of(spec: Path, *rules: str) -> list[str]:
    """The codes of what `tfm check` finds in the rules of a mapping; that it is complete is another matter (T626)."""
    spec.write_text(SPEC + "mapping published for M {\n" + "\n".join(rules) + "\n}\n", "utf-8")
    return [fault.code for fault in check_file(spec).faults if fault.code != "T626"]


@pytest.mark.parametrize(
    "rule",
    [
        '"layers.{i}.a.weight" -> transpose(h[i].a.weight)',
        '"layers.{i}.ab.bias" -> concat(h[i].a.bias, h[i].b.bias)',
        '"first.weight" -> h[0].b.weight',
    ],
)
def test_rules_name_weights_and_changes_of_layout(spec: Path, rule: str) -> None:
    assert faults_of(spec, rule) == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ('"a" -> h[0].c.weight', "T623"),
        ('"a" -> h[2].a.weight', "T623"),
        ('"a" -> h.a.weight', "T623"),
        ('"a.{i}" -> h[0].a.weight', "T621"),
        ('"a.{j}" -> h[i].a.weight', "T621"),
        ('"a" -> permute(h[0].a.weight)', "T622"),
        ('"a" -> permute(h[0].a.weight, order=[0, 0])', "T622"),
        ('"a" -> transpose(h[0].a.weight, axis=0)', "T622"),
        ('"a" -> concat()', "T622"),
        ('"a" -> h[0].a.weight * 2', "T622"),
        ('"a" -> 3', "T622"),
    ],
)
def test_rules_at_fault(spec: Path, rule: str, code: str) -> None:
    assert faults_of(spec, rule) == [code]


def test_a_name_is_mapped_once(spec: Path) -> None:
    assert faults_of(spec, '"a" -> h[0].a.weight', '"a" -> h[0].b.weight') == ["T620"]
