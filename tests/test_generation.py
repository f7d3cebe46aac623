"""Greedy generation on every target: equal to the library that wrote the checkpoint, and to the runtimes' own generators.

A part of what `tools/check_generation.py` runs, at a few tokens.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tfdsl
from tfdsl.cli import tfm
from tfdsl.decoding.generate import step_inputs
from tfdsl.decoding.manifest import read_manifest
from tfdsl.decoding.running import open_runner
from tfdsl.decoding.sampling import Sampling
from tfdsl.decoding.session import open_session
from tfdsl.language.diagnostics import SpecError

for package in ("torch", "transformers", "onnxruntime", "openvino"):
    pytest.importorskip(package)
from generation import FORMS, LIMIT, PROMPTS, Peer, families, turns_at_a_limit  # noqa: E402

from tfdsl.backends.torch.decoder import decoder_session  # noqa: E402

NEW = 6
FAMILIES = {f"{place}-{family.model}": family for place, family in enumerate(families())}
CHOSEN = ("GPT2", "Mistral", "Gemma2", "Mixtral_8x7B", "T5", "Whisper")
BYTES = {"vocab": 256, "context": 40, "width": 32, "depth": 2, "heads": 4}
SPECS = Path(__file__).parent.parent / "specs"


@pytest.mark.parametrize("model", CHOSEN)
def test_every_form_generates_what_the_library_does(model: str, tmp_path: Path) -> None:
    family = next(each for each in FAMILIES.values() if each.model == model)
    peer = Peer(family, tmp_path)
    expected = peer.expected(NEW)
    assert len({token for row in expected for token in row}) > 1
    for form in FORMS:
        assert peer.found(form, NEW) == expected, form


@pytest.mark.parametrize("model", [name for name, family in FAMILIES.items() if turns_at_a_limit(family)])
def test_positions_that_change_at_a_limit_are_as_the_library_has_them_up_to_it(model: str, tmp_path: Path) -> None:
    """Up to the last position within the limit, and not one more: no token is wrong, and none beyond is promised."""
    peer = Peer(FAMILIES[model], tmp_path)
    new = LIMIT - max(map(len, PROMPTS)) + 1  # the last token is never fed back
    expected = peer.expected(new)
    for form in FORMS:
        for longest in (None, LIMIT + 1):
            with pytest.raises(SpecError, match="T720") as error:
                peer.build(form, longest)
            assert f"`--longest {LIMIT}` or less" in str(error.value)
        assert peer.found(form, new) == expected, form
        with pytest.raises(SpecError, match="T747"):
            peer.found(form, new + 1)


def test_the_list_has_decoders_and_encoder_decoders() -> None:
    assert len(FAMILIES) >= 20
    assert {family.theirs.partition("For")[0] for family in FAMILIES.values()} >= {"T5", "Llama", "Whisper", "Phi3"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a model of bytes, named after the forms."""
    folder = tmp_path_factory.mktemp("built")
    model = tfdsl.load(SPECS / "gpt2.tfm", "GPT2", **BYTES)
    for form, (target, options) in FORMS.items():
        model.build(target, folder / form, seed=3, cache=True, tokenizer="bytes", **options)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tfm, ["run", *map(str, arguments)])


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_tokens_as_they_come(form: str, built: Path) -> None:
    own = open_runner(built / form, "own")
    (expected,) = own.generate([[1, 2, 3]], max_new=5)
    for generator in ("own", "auto"):
        result = run(built / form, "--tokens", "1,2,3", "--max-new", "5", "--generator", generator)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"{','.join(map(str, expected))}\n"
        assert result.stderr.startswith("5 tokens: the first after ")
    result = run(built / form, "--tokens", "1,2,3", "--max-new", "5", "--eos", str(expected[0]))
    assert result.stdout == f"{expected[0]}\n"


@pytest.mark.parametrize("form", FORMS)
def test_the_command_takes_text_where_there_is_a_tokenizer(form: str, built: Path) -> None:
    result = run(built / form, "--prompt", "né", "--prompt", "b", "--max-new", "5", "--generator", "own")
    assert result.exit_code == 0, result.output
    expected = open_runner(built / form, "own").generate([list("né".encode()), [98]], max_new=5)
    assert result.stdout == "".join(f"{bytes(row).decode('utf-8', 'replace')}\n" for row in expected)


@pytest.mark.parametrize(("form", "package"), [("ONNX ort", "onnxruntime_genai"), ("OpenVINO", "openvino_genai")])
def test_the_runtimes_own_generators_agree_with_our_loop(form: str, package: str, built: Path) -> None:
    pytest.importorskip(package)
    runtime, own = open_runner(built / form), open_runner(built / form, "own")
    for prompt in ([1, 2, 3], [200]):
        (expected,) = own.generate([prompt], max_new=12)
        for end in (None, (), (expected[4],), (0, expected[4])):
            assert runtime.generate([prompt], max_new=12, eos=end) == own.generate([prompt], max_new=12, eos=end)
            # onnxruntime-genai always has a token that ends a text, 0 if none is known: without one our loop goes on.
            assert (runtime.name == own.name) == (form == "ONNX ort" and 0 not in (end or ()))
    sampling = Sampling(temperature=1.5, top_k=8, seed=5)
    (drawn,) = runtime.generate([[1, 2]], max_new=12, sampling=sampling, eos=(0,))
    assert runtime.generate([[1, 2]], max_new=12, sampling=sampling, eos=(0,)) == [drawn]
    (most,) = runtime.generate(
        [[1]], max_new=BYTES["context"]
    )  # the last is never fed back, and theirs has no room for it
    assert (len(most), runtime.name) == (BYTES["context"], own.name)


@pytest.mark.parametrize(("form", "package"), [("ONNX ort", "onnxruntime_genai"), ("OpenVINO", "openvino_genai")])
def test_a_runtimes_generator_that_is_insisted_on_does_it_or_says_why_not(form: str, package: str, built: Path) -> None:
    pytest.importorskip(package)
    runtime = open_runner(built / form, "runtime")
    assert runtime.generate([[1, 2]], max_new=4, eos=(0,)) and runtime.name == runtime.generator.name
    full = list(range(1, BYTES["context"] - 1))
    (two,) = runtime.generate([full], eos=(0,))  # as many as fit
    assert len(two) == 2 or two[-1] == 0
    asked: list[tuple[list[list[int]], dict[str, Any], str]] = [
        ([[1], [2]], {}, "is given one prompt at a time, and there are 2"),
        ([full], {"max_new": 3}, "has room for 2 new tokens here, and 3 are asked for"),
        ([[1]], {"inputs": {"more": np.zeros(1)}}, "is given tokens and no further inputs"),
    ]
    if runtime.generator.ends:
        asked.append(([[1]], {"eos": ()}, "ends texts at the token 0, whatever is asked for: `--eos 0` asks for that"))
    for prompts, options, reason in asked:
        with pytest.raises(SpecError, match=reason) as caught:
            runtime.generate(prompts, **{"eos": (0,), **options})
        assert [each.code for each in caught.value.diagnostics] == ["T745"]


def test_sampling_on_all_forms_draws_alike(built: Path) -> None:
    sampling = Sampling(temperature=2.0, top_p=0.9, seed=11)
    drawn = [open_runner(built / form, "own").generate([[1, 2], [3]], max_new=8, sampling=sampling) for form in FORMS]
    assert all(rows == drawn[0] for rows in drawn)


@pytest.mark.parametrize("form", FORMS)
def test_a_decoder_takes_texts_up_to_its_bound(form: str, tmp_path: Path) -> None:
    """Our loop, the runtime's own and each session refuse one position more, and so does PyTorch's source."""
    target, options = FORMS[form]
    model = tfdsl.load(SPECS / "gpt2.tfm", "GPT2", **BYTES)
    settings = [f"--{name}={value}" for name, value in options.items()]
    spec = [str(SPECS / "gpt2.tfm"), *(part for name, value in BYTES.items() for part in ("--set", f"{name}={value}"))]
    command = ["build", *spec, "--to", target, "--cache", "--longest", "12", "--seed", "3", "-o", str(tmp_path / "out")]
    made = CliRunner().invoke(tfm, [*command, *settings])
    assert made.exit_code == 0, made.output
    for generator in ("own", "auto"):
        runner = open_runner(tmp_path / "out", generator)
        assert runner.manifest.longest == 12
        assert len(runner.generate([[1, 2, 3]], eos=())[0]) == 10  # the last is never fed back
        past = run(tmp_path / "out", "--tokens", "1,2,3", "--max-new", "11", "--generator", generator)
        assert past.exit_code == 1 and past.stderr.count("error[") == 1 and "error[T747]" in past.stderr
    session, manifest = open_session(tmp_path / "out"), read_manifest(tmp_path / "out")
    whole, longer = (np.ones((1, count), np.int64) for count in (12, 13))
    session.step(step_inputs(manifest, whole, whole, {}))
    with pytest.raises(SpecError, match="there are 13 positions, and `GPT2` takes 12 at most"):
        session.step(step_inputs(manifest, whole[:, :1], longer, {}))
    if target == "torch":
        built = decoder_session(tmp_path / "out")
        with pytest.raises(ValueError, match="built for texts of at most 12 positions"):
            built.step(step_inputs(manifest, longer, longer, {}))
    if form == "ONNX ort":
        document = json.loads((tmp_path / "out" / "genai_config.json").read_text())
        assert (document["model"]["context_length"], document["search"]["max_length"]) == (12, 12)
    for longest in (0, BYTES["context"] + 1):
        with pytest.raises(SpecError, match="T751"):
            model.build(target, tmp_path / "no", seed=3, cache=True, longest=longest, **options)
    with pytest.raises(SpecError, match="T744"):
        model.build(target, tmp_path / "no", seed=3, longest=12)


def test_the_build_command_makes_a_decoder(tmp_path: Path) -> None:
    settings = [part for name, value in BYTES.items() for part in ("--set", f"{name}={value}")]
    options = ["--to", "onnx", "--profile", "portable", "--cache", "--tokenizer", "bytes", "--seed", "3"]
    made = CliRunner().invoke(tfm, ["build", str(SPECS / "gpt2.tfm"), *settings, *options, "-o", str(tmp_path / "out")])
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[0] == str(tmp_path / "out" / "decoder.json")
    assert all(Path(line).is_file() for line in made.stdout.splitlines())
    assert run(tmp_path / "out", "--tokens", "1", "--max-new", "2").exit_code == 0
    without = CliRunner().invoke(
        tfm, ["build", str(SPECS / "gpt2.tfm"), "--to", "onnx", "--profile", "ort", "-o", "out"]
    )
    assert without.exit_code == 1 and "error[T744]" in without.stderr


def refusals(built: Path, folder: Path) -> dict[str, tuple[Any, ...]]:
    """Wrong ways to call the command, and the code of the diagnostic that each gets."""
    form = built / "PyTorch"
    return {
        "T742": (folder / "nowhere", "--tokens", "1"),
        "T745": (form, "--tokens", "1", "--generator", "runtime"),
        "T747": (form, "--tokens", "1", "--max-new", str(BYTES["context"] + 1)),
        "T748": (form, "--tokens", "1", "--top-p", "2"),
        "T901": (form, "--tokens", "1", "--prompt", "a"),
    }


@pytest.mark.parametrize("code", ["T742", "T745", "T747", "T748", "T901"])
def test_wrong_calls_are_refused(code: str, built: Path, tmp_path: Path) -> None:
    result = run(*refusals(built, tmp_path)[code])
    assert result.exit_code in (1, 2)
    assert f"error[{code}]" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_was_damaged_is_refused(form: str, built: Path, tmp_path: Path) -> None:
    names = [path.name for path in (built / form).iterdir() if path.suffix in (".py", ".onnx", ".xml", ".safetensors")]
    assert names
    for name in names:
        folder = tmp_path / name
        shutil.copytree(built / form, folder)
        for content in ((built / form / name).read_bytes()[:100], b"", None):  # cut short, empty, and not there at all
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
            result = run(folder, "--tokens", "1", "--max-new", "2", "--generator", "own")
            assert result.exit_code == 1, result.output
            assert any(f"error[{code}]" in result.stderr for code in ("T743", "T703", "T805"))


def test_a_model_that_is_no_decoder_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "ONNX portable", tmp_path / "out")
    tfdsl.load(SPECS / "gpt2.tfm", "GPT2", **BYTES).to_onnx(tmp_path / "out" / "model.onnx", seed=0)
    result = run(tmp_path / "out", "--tokens", "1", "--generator", "own")
    assert result.exit_code == 1
    assert "error[T743]" in result.stderr and "is a model without the states of a decoder" in result.stderr


def test_text_without_a_tokenizer_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "ONNX portable", tmp_path / "bare")
    document = json.loads((tmp_path / "bare" / "decoder.json").read_text())
    (tmp_path / "bare" / "decoder.json").write_text(json.dumps({**document, "tokenizer": None}))
    result = run(tmp_path / "bare", "--prompt", "a")
    assert result.exit_code == 1 and "error[T746]" in result.stderr


def test_an_encoder_decoder_goes_on_from_a_source(tmp_path: Path) -> None:
    settings = {"vocab": 61, "width": 32, "depth": 1, "heads": 4, "head": 8, "hidden": 48}
    model = tfdsl.load(SPECS / "t5.tfm", "T5", inputs=["keep"], **settings)
    model.build("onnx", tmp_path / "t5", seed=0, cache=True)
    rows = ["--source-tokens", "5,6,7", "--source-tokens", "8", "--max-new", "4"]
    without = run(tmp_path / "t5", *rows)
    assert without.exit_code == 1 and "error[T747]" in without.stderr and "--tokens" in without.stderr
    both = run(tmp_path / "t5", *rows, "--tokens", "0", "--tokens", "0")
    alone = [run(tmp_path / "t5", "--source-tokens", row, "--max-new", "4", "--tokens", "0") for row in ("5,6,7", "8")]
    assert both.exit_code == 0, both.output
    assert both.stdout == "".join(each.stdout for each in alone)
    np.save(tmp_path / "source.npy", np.array([[5, 6, 7]]))
    np.save(tmp_path / "keep.npy", np.ones((1, 3), bool))
    files = ["--input", f"inputs={tmp_path}/source.npy", "--input", f"keep={tmp_path}/keep.npy"]
    assert run(tmp_path / "t5", *files, "--max-new", "4", "--tokens", "0").stdout == alone[0].stdout
    broken = run(tmp_path / "t5", "--input", f"inputs={tmp_path}/decoder.npy", "--tokens", "0")
    assert broken.exit_code == 1 and "error[T747]" in broken.stderr


def test_sources_of_different_lengths_need_to_be_told_apart(tmp_path: Path) -> None:
    settings = {"vocab": 61, "width": 32, "depth": 1, "heads": 4, "head": 8, "hidden": 48}
    tfdsl.load(SPECS / "t5.tfm", "T5", **settings).build("onnx", tmp_path / "t5", seed=0, cache=True)
    result = run(tmp_path / "t5", "--source-tokens", "5,6", "--source-tokens", "8", "--tokens", "0", "--tokens", "0")
    assert result.exit_code == 1 and "cannot tell padding" in result.stderr


def test_a_model_that_looks_ahead_is_not_built(tmp_path: Path) -> None:
    model = tfdsl.load(SPECS / "bert.tfm", "BertForMaskedLM", vocab=61, context=32, width=32, depth=1, heads=4)
    for target, options in FORMS.values():
        with pytest.raises(SpecError, match="T720"):
            model.build(target, tmp_path / "out", seed=0, cache=True, **options)
        assert not (tmp_path / "out").exists()
