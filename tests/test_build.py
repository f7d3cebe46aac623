"""Building: what a target's folder holds, where weights come from, what is refused, and what is left after that."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tfdsl
from tfdsl.cli import tfm

torch = pytest.importorskip("torch")

SPECS = Path(__file__).parent.parent / "specs"
GPT2 = str(SPECS / "gpt2.tfm")
SIZES = {"vocab": 60, "context": 32, "width": 32, "depth": 2, "heads": 4}
SMALL = [part for name, value in SIZES.items() for part in ("--set", f"{name}={value}")]
FILES = {
    "torch": ["model.py", "model.safetensors"],
    "onnx": ["model.onnx"],
    "openvino": ["model.xml", "model.bin"],
}


def build(*arguments: Any, spec: str = GPT2) -> Result:
    return CliRunner().invoke(tfm, ["build", spec, *SMALL, *map(str, arguments)])


def load(**rest: Any) -> tfdsl.Model:
    return tfdsl.load(GPT2, **SIZES, **rest)


def needs(target: str) -> None:
    pytest.importorskip({"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}[target])


@pytest.mark.parametrize("target", FILES)
def test_a_folder_holds_what_the_command_names(target: str, tmp_path: Path) -> None:
    needs(target)
    folder = tmp_path / "deep" / "out"
    result = build("--to", target, "--seed", 1, "-o", folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(folder / name) for name in FILES[target]]
    assert sorted(os.listdir(folder)) == sorted(FILES[target])
    assert os.listdir(folder.parent) == ["out"]


def test_source_for_pytorch_needs_no_weights_and_no_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(
        tfm, ["build", f"{SPECS / 'llama.tfm'}:Llama3_8B", "--to", "torch", "-o", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert os.listdir(tmp_path) == ["model.py"]
    assert "class Llama3" in (tmp_path / "model.py").read_text()


def test_names_that_modules_have_are_known_without_pytorch() -> None:
    from tfdsl.backends.torch.reserved import MODULE_NAMES

    others = {"smart_apply"}  # which transformers puts there once it makes a model
    assert {name for name in dir(torch.nn.Module()) if not name.startswith("__")} - others <= MODULE_NAMES


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_other_targets_need_weights(target: str, tmp_path: Path) -> None:
    result = build("--to", target, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "error[T711]" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", ['quantize("h.**")', 'prune("h.**", sparsity=0.5)'])
def test_passes_over_values_need_weights(call: str, tmp_path: Path) -> None:
    result = build("--to", "torch", "-o", tmp_path / "out", "--pass", call)
    assert result.exit_code == 1
    assert "error[T712]" in result.stderr


def test_one_file_of_weights_serves_every_target(tmp_path: Path) -> None:
    """A module's weights are written, read by each build, and every artifact computes what the module does."""
    for target in FILES:
        needs(target)
    from tfdsl.backends import onnx, openvino

    assert build("--to", "torch", "--seed", 1, "-o", tmp_path / "torch").exit_code == 0
    weights = tmp_path / "torch" / "model.safetensors"
    module = load().to_torch(weights=weights).eval()
    tokens = np.arange(12).reshape(2, 6) * 5 % 60
    with torch.no_grad():
        expected = module(torch.tensor(tokens)).numpy()
    for target, backend in (("onnx", onnx), ("openvino", openvino)):
        result = build("--to", target, "--weights", weights, "-o", tmp_path / target)
        assert result.exit_code == 0, result.output
        found = backend.session(tmp_path / target / FILES[target][0])({"tokens": tokens})
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)


def test_weights_from_a_module_and_from_arrays(tmp_path: Path) -> None:
    needs("onnx")
    from tfdsl.backends import onnx

    model = load()
    module = model.to_torch(seed=4).eval()
    model.to_onnx(tmp_path / "a.onnx", weights=module)
    model.to_onnx(tmp_path / "b.onnx", weights={name: value.numpy() for name, value in module.state_dict().items()})
    tokens = {"tokens": np.arange(7)[None]}
    first, second = (onnx.session(tmp_path / name)(tokens)["logits"] for name in ("a.onnx", "b.onnx"))
    np.testing.assert_array_equal(first, second)


def test_arrays_that_do_not_fit_are_all_told() -> None:
    arrays = {name: value.numpy() for name, value in load().to_torch().state_dict().items()}
    arrays["wte.wieght"] = arrays.pop("wte.weight")
    arrays["ln_f.bias"] = np.zeros(3)
    with pytest.raises(tfdsl.SpecError) as raised:
        load().to_torch(weights=arrays)
    assert sorted(each.code for each in raised.value.diagnostics) == ["T801", "T802", "T803"]
    assert "wte.wieght" in next(each.help for each in raised.value.diagnostics if each.code == "T801")


def test_weights_and_a_seed_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(tfdsl.SpecError, match="T715"):
        load().build("torch", tmp_path / "out", weights={}, seed=1)
    assert not (tmp_path / "out").exists()


def test_a_plan_fixes_the_sizes_of_a_target(tmp_path: Path) -> None:
    needs("onnx")
    import onnx

    result = build("--to", "onnx", "--seed", 1, "--plan", "laptop", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    assert "quantize: 4 changes" in result.stderr
    shape = onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_value == 1
    assert shape[1].dim_param == "seq"


def test_a_plan_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.tfm"
    path.write_text(
        "model A(x: [batch, 4]) -> [batch, 4] { return linear(x, out=4) }\n"
        "model B(x: [batch, 4]) -> [batch, 4] { return linear(x, out=4) }\n"
        "plan fast for A { optimize { clean() } }\n"
    )
    result = CliRunner().invoke(tfm, ["ir", f"{path}:B", "--plan", "fast"])
    assert result.exit_code == 1
    assert "error[T601]" in result.stderr


def test_passes_up_to_one_of_a_plan() -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(tfm, ["ir", GPT2, *SMALL, *arguments])

    whole = run("--plan", "laptop")
    assert "quantize(" in whole.stdout
    part = run("--plan", "laptop", "--after", "clean")
    assert part.exit_code == 0
    assert "quantize(" not in part.stdout
    assert run("--plan", "laptop", "--after", "prune").exit_code == 1
    assert "repeat" not in run("--after", "unroll").stdout
    assert run("--after", "cleen").exit_code == 1


def test_an_unknown_target_in_python() -> None:
    with pytest.raises(tfdsl.SpecError, match="did you mean `onnx`"):
        load().build("onxx", "nowhere", seed=1)
    assert not Path("nowhere").exists()


def test_a_decoder_says_which_outputs_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "two.tfm"
    path.write_text(
        "model Two(tokens: int[batch, seq]) -> logits: [batch, seq, 9], hidden: [batch, seq, 8] {\n"
        "  x = embedding(tokens, size=9, dim=8) as table\n"
        "  return linear(x, out=9) as head, x\n"
        "}\n"
    )
    result = CliRunner().invoke(tfm, ["build", str(path), "--to", "torch", "--cache", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "left out, since a decoder has the first output alone: hidden" in result.stderr
    assert tfdsl.load(path).build("torch", tmp_path / "out", cache=True).left_out == ("hidden",)
    assert not load().build("torch", tmp_path / "other", cache=True).left_out
