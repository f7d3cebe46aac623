"""`tfm verify` on every shipped spec, scaled down, on a spec of an architecture of its own, and on passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import tfdsl
from tfdsl import verify as verifying
from tfdsl.build import TARGETS
from tfdsl.cli import tfm

for package in ("torch", "onnxruntime", "openvino"):
    pytest.importorskip(package)

SPECS = Path(__file__).parent.parent / "specs"
SMALL: dict[str, dict[str, Any]] = {
    "gpt2.tfm": {"vocab": 101, "context": 32, "width": 32, "depth": 2, "heads": 4},
    "bert.tfm": {"vocab": 101, "context": 32, "width": 32, "depth": 2, "heads": 4},
    "llama.tfm": {"vocab": 101, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48},
    "t5.tfm": {"vocab": 101, "width": 32, "depth": 2, "heads": 4, "head": 8, "hidden": 48},
    "vit.tfm": {"size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 4, "classes": 10},
}
CASES = [
    ("gpt2.tfm", "GPT2", ()),
    ("bert.tfm", "Bert", ()),
    ("bert.tfm", "Bert", ("segments", "keep")),
    ("bert.tfm", "BertForMaskedLM", ("keep",)),
    ("bert.tfm", "BertForSequenceClassification", ("segments",)),
    ("llama.tfm", "Llama2_7B", ()),
    ("llama.tfm", "Llama3_405B", ()),
    ("t5.tfm", "T5", ()),
    ("t5.tfm", "T5_Base", ("keep",)),
    ("vit.tfm", "ViT", ()),
]


@pytest.mark.parametrize(
    ("file", "name", "inputs"), CASES, ids=["-".join((name, *inputs)) for _, name, inputs in CASES]
)
def test_shipped_specs_agree_on_every_target(file: str, name: str, inputs: tuple[str, ...]) -> None:
    verdict = tfdsl.load(SPECS / file, name, inputs=inputs, **SMALL[file]).verify()
    assert verdict.passed, verifying.render(verdict)
    assert {result.target for result in verdict.results} == set(TARGETS)
    if file == "gpt2.tfm":
        sizes = {(result.sizes["batch"], result.sizes["seq"]) for result in verdict.results}
        assert {batch for batch, _ in sizes} == {1, 3}
        assert 1 in {length for _, length in sizes}
        assert len(sizes) >= 6


def test_passes_of_one_model_agree_on_every_target() -> None:
    """Pruned, quantised and checkpointed: against the reference run on that same graph."""
    model = tfdsl.load(SPECS / "gpt2.tfm", **SMALL["gpt2.tfm"]).optimize(
        "clean",
        "fuse_attention",
        'prune("h.*.mlp", sparsity=0.5)',
        'quantize("h.**", bits=8)',
        'checkpoint("h.*", every=2)',
    )
    assert len(model.passes) == 5
    verdict = model.verify()
    assert verdict.passed, verifying.render(verdict)


def own_architecture(folder: Path) -> Path:
    """The spec of the language reference that no target knows anything of by name."""
    text = (SPECS / "language.md").read_text("utf-8")
    example = next(part for part in text.split("```tfm\n") if part.startswith("block TalkingHeads"))
    path = folder / "talking.tfm"
    path.write_text(example.partition("```")[0], encoding="utf-8")
    return path


def test_an_architecture_of_its_own_agrees_on_every_target(tmp_path: Path) -> None:
    model = tfdsl.load(own_architecture(tmp_path), width=32, heads=4)
    for each in (model, model.optimize("fuse_attention", 'quantize("layer.**", bits=8)')):
        verdict = each.verify()
        assert verdict.passed, verifying.render(verdict)
        assert {result.target for result in verdict.results} == set(TARGETS)


def test_an_architecture_of_its_own_trains(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    module = tfdsl.load(own_architecture(tmp_path), vocab=16, width=32, heads=4).to_torch(seed=0).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    tokens = (torch.arange(17) * 5 % 16).repeat(8, 1)  # the next token follows from the one before
    losses = []
    for _ in range(40):
        logits = module(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert losses[-1] < 0.2
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_command_prints_the_largest_error_of_each_output() -> None:
    arguments = ["verify", str(SPECS / "bert.tfm:Bert"), "--to", "torch"]
    for name, value in SMALL["bert.tfm"].items():
        arguments += ["--set", f"{name}={value}"]
    result = CliRunner().invoke(tfm, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines[1:]] == [["PyTorch", "hidden"], ["PyTorch", "pooled"]]
    assert all(line[-1] == "ok" for line in lines[1:])


def test_an_error_beyond_the_tolerance_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verifying.session

    def wrong(*arguments: Any, **options: Any) -> Any:
        run = right(*arguments, **options)
        return lambda inputs: {name: value * np.float32(1.001) for name, value in run(inputs).items()}

    monkeypatch.setattr(verifying, "session", wrong)
    arguments = ["verify", str(SPECS / "vit.tfm"), "--to", "torch"]
    for name, value in SMALL["vit.tfm"].items():
        arguments += ["--set", f"{name}={value}"]
    result = CliRunner().invoke(tfm, arguments)
    assert result.exit_code == 1
    assert "more than 0.0001" in result.stdout


def test_targets_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    arguments = ["verify", str(SPECS / "gpt2.tfm")]
    for name, value in SMALL["gpt2.tfm"].items():
        arguments += ["--set", f"{name}={value}"]
    result = CliRunner().invoke(tfm, arguments)
    assert result.exit_code == 0, result.output
    assert "not compared: OpenVINO needs `openvino`" in result.stdout
    result = CliRunner().invoke(tfm, [*arguments, "--to", "openvino"])
    assert result.exit_code == 1
    assert "error[T710]" in result.stderr
    assert "pip install 'tfdsl[openvino]'" in result.stderr
