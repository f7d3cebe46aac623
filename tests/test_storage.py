"""How weights get into artifacts: element types, copies made by the system, links, and builds that are cut off."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import tfdsl
from tfdsl import SpecError, progress
from tfdsl.cli import tfm
from tfdsl.files import atomic_directory, atomic_file
from tfdsl.verify import render
from tfdsl.weights import content, drawn, initial, materialise, read, write, writing
from tfdsl.weights.content import Content
from tfdsl.weights.elements import convert
from tfdsl.weights.source import Arrays
from tfdsl.weights.storing import Storing

onnx = pytest.importorskip("onnx")
for package in ("torch", "onnxruntime", "openvino"):
    pytest.importorskip(package)

SPECS = Path(__file__).parent.parent / "specs"
LLAMA = {"vocab": 60, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
GPT2 = {"vocab": 60, "context": 64, "width": 32, "depth": 2, "heads": 4}
TOKENS = {"tokens": np.arange(14).reshape(2, 7) * 5 % 60}
FILES = {"torch": "model.safetensors", "onnx": "model.onnx", "openvino": "model.xml"}


def llama(**settings: Any) -> tfdsl.Model:
    return tfdsl.load(SPECS / "llama.tfm", "Llama", **{**LLAMA, **settings})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights of a small Llama under our names, in float32."""
    path = tmp_path / "weights.safetensors"
    write(path, initial(llama().graph, 0))
    return path


def logits(target: str, folder: Path) -> Any:
    backend = __import__(f"tfdsl.backends.{target}", fromlist=["session"])
    return backend.session(folder / FILES[target])(TOKENS)["logits"]


def codes(error: pytest.ExceptionInfo[SpecError]) -> list[str]:
    return [diagnostic.code for diagnostic in error.value.diagnostics]


# --- element types ---------------------------------------------------------------------------------------------------


def test_floats_are_rounded_as_everywhere() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    numbers = np.concatenate([bits[np.isfinite(bits)], [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    small = numbers[~(np.abs(numbers) >= 65520) | ~np.isfinite(numbers)]
    np.testing.assert_array_equal(convert(small, "F32", "F16", "w"), small.astype(np.float16))
    inside = numbers[~(np.abs(numbers) > 3.38e38) | ~np.isfinite(numbers)]
    found = convert(inside, "F32", "BF16", "w").view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found, inside.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("wanted", ["F64", "F32", "F16", "BF16"])
def test_every_float_type_becomes_every_other(stored: str, wanted: str) -> None:
    numbers = np.array([1.5, -2.25, 0.0, 3e-3], np.float32)
    there = convert(numbers, "F32", stored, "w")
    back = convert(convert(there, stored, wanted, "w"), wanted, "F32", "w")
    np.testing.assert_allclose(back, numbers, rtol=4e-3)


@pytest.mark.parametrize(("dtype", "number"), [("F16", 65_520.0), ("BF16", 3.4e38)])
def test_a_number_that_does_not_fit_is_refused(dtype: str, number: float) -> None:
    with pytest.raises(SpecError, match="`w` has") as raised:
        convert(np.array([1.0, -number], np.float32), "F32", dtype, "w")
    assert codes(raised) == ["T809"]
    assert np.isinf(convert(np.array([np.inf], np.float32), "F32", "F16", "w")).all()  # it was so before


@pytest.mark.parametrize("form", ["plain", "transposed"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (64, 3)])
def test_a_tensor_in_blocks_is_the_tensor(
    form: str, dtype: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK", 10)
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = Content(Arrays({"w": array}), "w", shape, dtype, form)
    whole = convert(np.ascontiguousarray(array.T if form == "transposed" else array), "F32", dtype, "w")
    blocks = [bytes(block) for block in found.blocks()]
    assert b"".join(blocks) == whole.tobytes() == found.array().tobytes()
    assert len(b"".join(blocks)) == found.count
    assert len(blocks) > 1 or array.size <= 10


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1, 1), (7, 3)])
@pytest.mark.parametrize("form", ["plain", "transposed"])
def test_numbers_of_four_bits_lie_two_in_a_byte_across_blocks(
    shape: tuple[int, int], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK", 4)
    array = np.random.default_rng(0).integers(-7, 8, shape, dtype=np.int8)
    found = Content(Arrays({"w": array}), "w", shape, "I4", form)
    flat = (array.T if form == "transposed" else array).ravel()
    low, high = flat[::2] & 0xF, np.append(flat, np.int8(0))[1::2][: (flat.size + 1) // 2] & 0xF
    wanted = (low | (high << 4)).astype(np.uint8).tobytes()
    assert b"".join(bytes(block) for block in found.blocks()) == wanted
    assert found.count == len(wanted)


def test_weights_are_drawn_when_they_are_read() -> None:
    graph = llama().graph
    source, made = drawn(graph, 3), initial(graph, 3)
    assert source.keys() == made.keys()
    for path, array in made.items():
        np.testing.assert_array_equal(source[path], array)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("file", "settings"), [("llama.tfm", LLAMA), ("gpt2.tfm", GPT2), ("t5.tfm", {**GPT2, "head": 8, "hidden": 48})]
)
def test_targets_agree_in_half_precision(file: str, settings: dict[str, Any], dtype: str) -> None:
    settings = {name: value for name, value in settings.items() if file != "t5.tfm" or name != "context"}
    name = "Llama" if file == "llama.tfm" else None
    verdict = tfdsl.load(SPECS / file, name, **settings).verify(dtype=dtype, batches=(3,), lengths=(1, 33))
    assert verdict.passed, render(verdict)
    assert {result.target for result in verdict.results} == {"torch", "onnx", "openvino"}


@pytest.mark.parametrize("call", ['quantize("layers.**", bits=8)', 'quantize("layers.**", bits=4, group=16)'])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_quantised_weights_in_half_precision(call: str, dtype: str) -> None:
    verdict = llama().optimize(call).verify(dtype=dtype, batches=(2,), lengths=(7,))
    assert verdict.passed, render(verdict)


def test_what_float16_cannot_hold_is_computed_in_float32(tmp_path: Path) -> None:
    """Sums of squares beyond 65504, a mask of -1e9, and angles of positions beyond 2048."""
    spec = tmp_path / "wide.tfm"
    spec.write_text(
        """model Wide(x: [batch, seq, 64], keep: bool[batch, seq]) -> y: [batch, seq, 64], z: [batch, seq, seq] {
          h = linear(x, out=64) as up
          h = h * 300
          h = h / sqrt(mean(h * h, keep=true) + 1e-6)
          q = rope(rearrange(h, "b s (n d) -> b n s d", n=4))
          scores = q @ swap(q) / 4
          chance = softmax(where(rearrange(keep, "b t -> b 1 1 t"), scores, -1e9))
          y = rearrange(chance @ q, "b n s d -> b s (n d)")
          far = cos((positions(x, axis=1) + 30_000) * 0.001)
          return y, softmax(where(rearrange(keep, "b t -> b 1 t"), h @ swap(h) * rearrange(far, "t -> 1 1 t"), -1e9))
        }"""
    )
    verdict = tfdsl.load(spec).verify(["onnx"], dtype="float16", batches=(2,), lengths=(9, 40))
    assert verdict.passed, render(verdict)


def test_artifacts_hold_the_element_type_and_whole_numbers_stay(tmp_path: Path) -> None:
    model = llama().optimize('quantize("layers.*.mlp.**", bits=8)')
    for dtype, element in (("float16", onnx.TensorProto.FLOAT16), ("bfloat16", onnx.TensorProto.BFLOAT16)):
        model.to_onnx(tmp_path / "model.onnx", seed=0, dtype=dtype)
        held = {each.name: each.data_type for each in onnx.load(tmp_path / "model.onnx").graph.initializer}
        assert held["lm_head.weight"] == held["norm.weight"] == element
        assert held["layers.0.mlp.up_proj.weight"] == onnx.TensorProto.INT8
        ends = onnx.load(tmp_path / "model.onnx").graph
        assert ends.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        model.build("torch", tmp_path / dtype, seed=0, dtype=dtype)
        text = (tmp_path / dtype / "model.safetensors").read_bytes()[:20_000].decode("latin1")
        assert ('"F16"' if dtype == "float16" else '"BF16"') in text and '"I8"' in text
        model.to_openvino(tmp_path / "model.xml", seed=0, dtype=dtype)
        assert f'element_type="{"f16" if dtype == "float16" else "bf16"}"' in (tmp_path / "model.xml").read_text()


def test_a_module_in_half_precision() -> None:
    import torch

    module = llama().to_torch(seed=0, dtype="bfloat16").eval()
    assert {each.dtype for each in module.parameters()} == {torch.bfloat16}
    assert module(torch.zeros(1, 3, dtype=torch.int64)).dtype == torch.bfloat16


def test_element_types_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="T716"):
        llama().build("onnx", tmp_path / "out", seed=0, dtype="float8")
    with pytest.raises(SpecError, match="T711"):
        llama().build("torch", tmp_path / "out", dtype="float16")


def test_a_plan_gives_a_target_its_element_type(tmp_path: Path) -> None:
    spec = tmp_path / "planned.tfm"
    text = (
        "model M(x: [batch, 8]) -> [batch, 8] {{ return linear(x, out=8) }}\nplan small for M {{ deploy {{ {} }} }}\n"
    )
    spec.write_text(text.format('onnx(batch=1, dtype="float16") torch(dtype="bfloat16")'))
    plan = tfdsl.load(spec).plan("small")
    assert plan.dtypes == {"onnx": "float16", "torch": "bfloat16"}
    assert plan.deploy == {"onnx": {"batch": 1}, "torch": {}}
    arguments = ["build", str(spec), "--plan", "small", "--to", "onnx", "--seed", "1", "-o", str(tmp_path / "out")]
    for more, element in (((), "FLOAT16"), (("--dtype", "float32"), "FLOAT")):
        assert CliRunner().invoke(tfm, [*arguments, *more]).exit_code == 0
        held = onnx.load(tmp_path / "out" / "model.onnx").graph.initializer
        assert {each.data_type for each in held} == {onnx.TensorProto.DataType.Value(element)}
    for setting, code in (('dtype="fp8"', "T612"), ('dtype="float16", dtype="float32"', "T610")):
        spec.write_text(text.format(f"onnx({setting})"))
        with pytest.raises(SpecError, match=code):
            tfdsl.load(spec).plan("small")


# --- copies ----------------------------------------------------------------------------------------------------------


def refuse(code: int) -> Callable[..., int]:
    def call(*arguments: Any) -> int:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("absent", [(), ("copy_file_range",), ("copy_file_range", "sendfile")])
@pytest.mark.parametrize("target", ["torch", "onnx", "openvino"])
def test_bytes_arrive_by_whatever_way_the_system_has(
    target: str, absent: tuple[str, ...], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in absent:
        monkeypatch.setattr(os, name, refuse(errno.EXDEV))
    monkeypatch.setattr(writing, "_PIECE", 1000)
    monkeypatch.setattr(writing, "_READ", 700)
    told: list[tuple[int, int]] = []
    llama().build(target, tmp_path / "out", weights=checkpoint, report=lambda done, total: told.append((done, total)))
    llama().build(target, tmp_path / "wanted", weights=dict(read(checkpoint, llama().graph)))
    for path in (tmp_path / "wanted").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert told[-1][0] == told[-1][1] == sum(array.nbytes for array in load_file(checkpoint).values())
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_where_bytes_lie_is_known_through_a_mapping(tmp_path: Path) -> None:
    model = tfdsl.load(SPECS / "gpt2.tfm", **GPT2)
    model.export(tmp_path / "hub", weights=initial(model.graph, 0))
    opened = model._opened(tmp_path / "hub")
    _, stored = materialise(model.graph, opened)
    data = (tmp_path / "hub" / "model.safetensors").read_bytes()
    for path in stored:
        place = stored.place(path)
        if ".c_" in path and path.endswith("weight"):  # published with its axes exchanged
            assert place is None, path
            continue
        assert place is not None and place.file == tmp_path / "hub" / "model.safetensors"
        assert data[place.start : place.start + place.count] == stored[path].tobytes(), path


def test_bfloat16_is_copied_as_it_is(tmp_path: Path) -> None:
    arrays = {
        name: array.astype(ml_dtypes.bfloat16).astype(np.float32) for name, array in initial(llama().graph, 0).items()
    }
    llama().build("torch", tmp_path / "short", weights=arrays, dtype="bfloat16")
    file = tmp_path / "short" / "model.safetensors"
    llama().build("torch", tmp_path / "again", weights=file, dtype="bfloat16")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == file.read_bytes()
    source = read(file, llama().graph)
    assert Content(source, "norm.weight", (32,), "BF16").place == source.place("norm.weight")
    np.testing.assert_array_equal(source["lm_head.weight"], arrays["lm_head.weight"])


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["torch", "onnx", "openvino"])
def test_a_linked_artifact_is_the_checkpoint_and_computes_the_same(
    target: str, checkpoint: Path, tmp_path: Path
) -> None:
    before = checkpoint.read_bytes()
    built = llama().build(target, tmp_path / "out", weights=checkpoint, link=True)
    assert built.linked == sum(array.nbytes for array in load_file(checkpoint).values())
    shared = [path for path in built.files if path.exists() and os.path.samefile(path, checkpoint)]
    assert len(shared) == 1
    assert sum(path.stat().st_size for path in built.files if path not in shared) < 400_000
    llama().build(target, tmp_path / "copy", weights=checkpoint)
    if target != "torch":
        np.testing.assert_array_equal(logits(target, tmp_path / "out"), logits(target, tmp_path / "copy"))
    llama().build(target, tmp_path / "out", weights=checkpoint, link=True)  # over what is there
    llama(depth=1).build(target, tmp_path / "out", seed=1)  # and the name goes to another file
    assert checkpoint.read_bytes() == before


def test_a_published_checkpoint_is_linked_to(tmp_path: Path) -> None:
    llama().export(tmp_path / "hub", weights=initial(llama().graph, 0))
    for target in ("onnx", "openvino"):
        built = llama().build(target, tmp_path / target, weights=tmp_path / "hub", link=True)
        assert built.linked
        llama().build(target, tmp_path / "copy", weights=tmp_path / "hub")
        np.testing.assert_array_equal(logits(target, tmp_path / target), logits(target, tmp_path / "copy"))
    with pytest.raises(SpecError, match="T717"):
        llama().build("torch", tmp_path / "torch", weights=tmp_path / "hub", link=True)  # under other names


def test_shards_are_linked_to_one_by_one(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    llama().export(hub, weights=initial(llama().graph, 0))
    llama().build("onnx", tmp_path / "copy", weights=hub)
    tensors = load_file(hub / "model.safetensors")
    half = len(tensors) // 2
    shards = {"a.safetensors": list(tensors)[:half], "b.safetensors": list(tensors)[half:]}
    for file, names in shards.items():
        write(hub / file, {name: tensors[name] for name in names})
    (hub / "model.safetensors").unlink()
    places = {name: file for file, names in shards.items() for name in names}
    (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    built = llama().build("onnx", tmp_path / "out", weights=hub, link=True)
    assert {path.name for path in built.files} == {"model.onnx", *shards}
    np.testing.assert_array_equal(logits("onnx", tmp_path / "out"), logits("onnx", tmp_path / "copy"))
    with pytest.raises(SpecError, match="the weights lie in 2 files"):
        llama().build("openvino", tmp_path / "ov", weights=hub, link=True)


def test_what_does_not_lie_there_is_copied_beside(checkpoint: Path, tmp_path: Path) -> None:
    model = llama().optimize('quantize("layers.*.mlp.**", bits=8)')
    built = model.build("onnx", tmp_path / "out", weights=checkpoint, link=True)
    assert 0 < built.linked < checkpoint.stat().st_size
    model.build("onnx", tmp_path / "copy", weights=checkpoint)
    np.testing.assert_array_equal(logits("onnx", tmp_path / "out"), logits("onnx", tmp_path / "copy"))
    with pytest.raises(SpecError, match="does not lie in the checkpoint as the build needs it"):
        model.build("openvino", tmp_path / "ov", weights=checkpoint, link=True)
    assert not (tmp_path / "ov").exists()


def test_a_linked_decoder_for_openvino_says_what_can_run_it(checkpoint: Path, tmp_path: Path) -> None:
    from tfdsl.decoding.manifest import read_manifest

    found = {}
    for link in (False, True):
        llama().build("openvino", tmp_path / str(link), weights=checkpoint, cache=True, link=link)
        found[link] = read_manifest(tmp_path / str(link)).pipelines
    assert not found[False]["paged"] and "--link" in found[True]["paged"]
    assert not found[False]["stateful"] and not found[True]["stateful"]
    with pytest.raises(SpecError, match="T735"):
        llama().build("openvino", tmp_path / "out", weights=checkpoint, cache=True, link=True, pipeline="paged")


@pytest.mark.parametrize("target", ["torch", "onnx", "openvino"])
@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"weights": None, "seed": 1}])
def test_nothing_to_link_to(target: str, options: dict[str, Any], checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        llama().build(target, tmp_path / "out", **{"weights": checkpoint, "link": True, **options})
    assert codes(raised) == ["T717"]
    assert not (tmp_path / "out").exists()


def test_where_a_file_cannot_have_two_names(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EXDEV))
    for target in ("onnx", "torch"):
        with pytest.raises(SpecError, match="T718"):
            llama().build(target, tmp_path / "out", weights=checkpoint, link=True)
    llama().build("openvino", tmp_path / "out", weights=checkpoint, link=True)
    assert os.readlink(tmp_path / "out" / "model.bin") == "../weights.safetensors"
    llama().build("openvino", tmp_path / "copy", weights=checkpoint)
    np.testing.assert_array_equal(logits("openvino", tmp_path / "out"), logits("openvino", tmp_path / "copy"))


def test_the_command_tells_what_was_not_copied(checkpoint: Path, tmp_path: Path) -> None:
    settings = [part for name, value in LLAMA.items() for part in ("--set", f"{name}={value}")]
    arguments = ["build", f"{SPECS / 'llama.tfm'}:Llama", *settings, "--to", "onnx", "--weights", str(checkpoint)]
    result = CliRunner().invoke(tfm, [*arguments, "--link", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "bytes of weights stay in" in result.stderr


# --- builds that are cut off -----------------------------------------------------------------------------------------

BUILD = """
import os, resource, signal, sys
import tfdsl
target, spec, weights, out = sys.argv[1:5]
{before}
def report(done, total):
    {report}
settings = {settings!r}
tfdsl.load(spec, "Llama", **settings).build(target, out, weights=weights, report=report)
"""


def run_build(target: str, checkpoint: Path, out: Path, before: str = "", report: str = "pass") -> Any:
    program = BUILD.format(before=before, report=report, settings=LLAMA)
    arguments = [target, str(SPECS / "llama.tfm"), str(checkpoint), str(out)]
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["torch", "onnx", "openvino"])
def test_a_killed_build_leaves_nothing_and_confuses_nobody(target: str, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = run_build(target, checkpoint, out, report="os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL
    left = os.listdir(out.parent)
    assert not out.exists() and len(left) == 1 and left[0].startswith(".out.tfm-")
    assert run_build(target, checkpoint, out).returncode == 0
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("target", ["torch", "onnx", "openvino"])
def test_a_build_that_the_disk_is_too_small_for_leaves_what_was_there(
    target: str, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    assert run_build(target, checkpoint, out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    done = run_build(target, checkpoint, out, before=limit)
    assert done.returncode == 1 and "T701" in done.stderr, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(out.parent) == ["out"]


def test_a_full_disk(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
    with pytest.raises(SpecError, match="no space left on device") as raised:
        llama().build("onnx", tmp_path / "out", weights=checkpoint)
    assert codes(raised) == ["T701"]
    assert os.listdir(tmp_path) == ["weights.safetensors"]
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(SpecError, match="1,000 are free"):
        llama().build("openvino", tmp_path / "out", weights=checkpoint)
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_temporaries_of_living_programs_stay_and_those_of_users_too(tmp_path: Path) -> None:
    (tmp_path / ".out.mine").mkdir()
    with atomic_directory(tmp_path / "out") as one:
        with atomic_directory(tmp_path / "out") as other:
            (other / "a").write_text("second")
        assert one.is_dir() and (tmp_path / "out" / "a").read_text() == "second"
        (one / "a").write_text("first")
    assert (tmp_path / "out" / "a").read_text() == "first"
    with atomic_file(tmp_path / "x.onnx") as kept:
        kept.write_text("kept")
        with atomic_file(tmp_path / "x.onnx") as second:
            second.write_text("second")
    assert (tmp_path / "x.onnx").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) == [".out.mine", "out", "x.onnx"]


def test_the_file_that_is_read_first_is_away_while_the_others_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model.onnx", "model.onnx.data", "notes.txt"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("old")
    whole, moved = os.replace, itertools.count()

    def stop_at_the_second(*names: Any) -> None:
        if next(moved) == 1:
            raise OSError(errno.EIO, "Input/output error")
        whole(*names)

    with pytest.raises(SpecError), atomic_directory(tmp_path / "out", last="model.onnx") as folder:
        (folder / "model.onnx").write_text("new")
        (folder / "model.onnx.data").write_text("new")
        monkeypatch.setattr(os, "replace", stop_at_the_second)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "model.onnx.data": "new",
        "notes.txt": "old",
    }


# --- who watches, and what is loaded ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What a bar is drawn on."""

    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress.bar("writing") as report:
        assert report is None
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.bar("writing out", least=100) as report:
        assert report is not None
        report(10, 99)
        assert not terminal.getvalue()
        report(10, 1000)
        report(1000, 1000)
    assert "writing out" in terminal.getvalue()


@pytest.mark.parametrize(
    ("target", "absent"),
    [("onnx", ("onnxruntime", "torch", "openvino")), ("openvino", ("onnx", "torch")), ("torch", ("torch", "onnx"))],
)
def test_a_build_loads_no_more_than_it_needs(
    target: str, absent: tuple[str, ...], checkpoint: Path, tmp_path: Path
) -> None:
    settings = [part for name, value in LLAMA.items() for part in ("--set", f"{name}={value}")]
    spec = f"{SPECS / 'llama.tfm'}:Llama"
    arguments = ["build", spec, *settings, "--to", target, "--weights", str(checkpoint), "-o", str(tmp_path / "out")]
    program = (
        "import sys\nfrom tfdsl.cli import tfm\n"
        f"tfm({arguments!r}, standalone_mode=False)\n"
        f"print([name for name in {absent!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_settings_of_storing_count_what_they_saw() -> None:
    told: list[tuple[int, int]] = []
    advance = Storing(report=lambda done, total: told.append((done, total))).meter(10)
    advance(3)
    advance(7)
    assert told == [(3, 10), (10, 10)]
    assert Storing("bfloat16").spelled == "BF16"
