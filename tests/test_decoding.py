"""Decoding by the reference's session: the loop, padding, sampling, `decoder.json`, tokenizers, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_cases import Flat

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.backends.reference.decoder import ReferenceSession
from tfdsl.decoding.generate import generate, pad_left
from tfdsl.decoding.manifest import FILE, Manifest, describe, read_manifest, tokens_of, write_manifest
from tfdsl.decoding.sampling import Chooser, Sampling, probabilities_of
from tfdsl.decoding.tokenizers import Bytes, Stream, copy_tokenizer, open_coder
from tfdsl.ir import masks
from tfdsl.ir.dims import symbol
from tfdsl.ir.graph import Constraint, Graph
from tfdsl.ir.masks import Joined, Term
from tfdsl.language.diagnostics import SpecError

BATCH, SEQ, TOTAL = (symbol(name) for name in ("batch", "seq", "total"))
VOCAB, WIDTH, LONGEST = 13, 8, 20
random = np.random.default_rng(0)
WEIGHTS = {"table": random.normal(size=(VOCAB, WIDTH)), "places": random.normal(size=(LONGEST, WIDTH))}


def small(cached: bool) -> Graph:
    """One head of attention over tokens and learned positions: the whole model, and what it is call by call."""
    f = Flat("Small")
    total = TOTAL if cached else SEQ
    tokens = f.input("tokens", BATCH, SEQ, dtype="int")
    if cached:
        mask = f("cast", f.input("attention_mask", BATCH, TOTAL, dtype="int"), to="bool")
        positions = f.input("position_ids", BATCH, SEQ, dtype="int")
    else:
        mask, positions = None, f("positions", tokens, axis=1)
    table, places = f.weight("table", VOCAB, WIDTH), f.weight("places", LONGEST, WIDTH)
    x = f("add", f("embedding", tokens, table), f("embedding", positions, places))
    q = k = f("rearrange", x, pattern="b s (h d) -> b h s d", sizes={"h": 1})
    term: masks.Mask = masks.CAUSAL
    operands: list[Any] = []
    settings: dict[str, Any] = {}
    if cached:
        k = f("append", q, path="key", axis=2, size=TOTAL - SEQ)
        term, operands = Joined("&", masks.CAUSAL, Term("padding", (), 0)), [mask]
        settings = {"offset": TOTAL - SEQ}
    y = f("attend", q, k, k, None, None, None, *operands, mask=term, **settings)
    y = f("linear", f("rearrange", y, pattern="b h s d -> b s (h d)"), table, None)
    f.graph.outputs = [("logits", y)]
    f.graph.constraints.append(Constraint("<=", total, LONGEST, "the table of positions is this long"))
    return f.graph


def manifest_of(graph: Graph) -> Manifest:
    return describe(graph, target="onnx", file="model.onnx", tokens=tokens_of(graph), all_logits=True)


DECODER = small(True)
MANIFEST = manifest_of(DECODER)


def continued(prompt: list[int], count: int) -> list[int]:
    """Greedy continuation by whole forward passes."""
    tokens = list(prompt)
    for _ in range(count):
        logits = run(small(False), WEIGHTS, {"tokens": np.array([tokens])})["logits"]
        tokens.append(int(np.argmax(logits[0, -1])))
    return tokens[len(prompt) :]


def session() -> ReferenceSession:
    return ReferenceSession(DECODER, WEIGHTS)


def test_a_batch_of_prompts_goes_on_as_each_does_by_whole_passes() -> None:
    prompts = [[1, 2, 3, 4, 5], [7], [9, 8, 7]]
    told: list[tuple[int, int]] = []
    found = generate(session(), MANIFEST, prompts, max_new=8, on_token=lambda row, token: told.append((row, token)))
    assert found == [continued(prompt, 8) for prompt in prompts]
    assert [[token for row, token in told if row == number] for number in range(3)] == found


def test_rows_end_where_their_own_end_comes() -> None:
    prompts = [[1, 2, 3], [4, 5]]
    whole = [continued(prompt, 9) for prompt in prompts]
    for end in {token for row in whole for token in row}:
        expected = [row[: row.index(end) + 1] if end in row else row for row in whole]
        assert generate(session(), MANIFEST, prompts, max_new=9, eos=[end]) == expected
        assert generate(session(), replace(MANIFEST, eos=(end,)), prompts, max_new=9) == expected


def test_a_session_begins_anew() -> None:
    one_session = session()
    first = generate(one_session, MANIFEST, [[1, 2]], max_new=4)
    assert generate(one_session, MANIFEST, [[1, 2]], max_new=4) == first
    assert len(generate(one_session, MANIFEST, [[1, 2], [3, 4]])[0]) == LONGEST - 2 + 1


def test_draws_follow_from_the_seed_and_the_row() -> None:
    def draw(prompts: list[list[int]], **options: Any) -> list[list[int]]:
        sampling = Sampling(temperature=2.0, **options)
        return generate(session(), MANIFEST, prompts, max_new=12, sampling=sampling)

    first = draw([[1, 2], [3]], seed=1)
    assert draw([[1, 2], [3]], seed=1) == first
    assert draw([[1, 2]], seed=1) == first[:1]
    assert draw([[1, 2], [3]], seed=2) != first
    assert draw([[1, 2], [3]], seed=1, top_k=1) == [continued([1, 2], 12), continued([3], 12)]


def test_cuts_keep_what_they_say() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25]))
    np.testing.assert_allclose(probabilities_of(logits, Sampling(top_k=2)), [0, 2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(probabilities_of(logits, Sampling(top_p=0.5)), [0, 1, 0, 0])
    np.testing.assert_allclose(probabilities_of(logits, Sampling(top_p=0.51)), [0, 2 / 3, 0, 1 / 3])
    squares = np.array([0.01, 0.25, 0.0225, 0.0625])
    np.testing.assert_allclose(probabilities_of(logits, Sampling(temperature=0.5)), squares / squares.sum())
    assert (probabilities_of(np.array([0.0, -np.inf]), Sampling(temperature=1)) == [1, 0]).all()
    assert Sampling().greedy and Sampling(temperature=0, top_k=3).greedy and not Sampling(top_k=3).greedy


def test_padding_stands_on_the_left() -> None:
    tokens, mask = pad_left([[5, 6, 7], [8]])
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    with pytest.raises(SpecError, match=r"names the file .* which is not there"):
        read_manifest(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert read_manifest(tmp_path) == MANIFEST
    assert MANIFEST.longest == LONGEST
    assert (MANIFEST.tokens, MANIFEST.logits, MANIFEST.vocab) == ("tokens", "logits", VOCAB)
    assert list(MANIFEST.inputs) == ["tokens", "attention_mask", "position_ids"]
    assert MANIFEST.states[0].dims == ("batch", 1, "-seq + total", WIDTH)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"target": "coreml"},
        {"tokens": None},
        {"decoder": "../model.onnx"},
        {"encoder": 3},
        {"limits": {"total": "many"}},
        {"inputs": {"tokens": []}},
        {"inputs": []},
        {"states": [{}]},
        {"eos": ["</s>"]},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_a_broken_manifest_is_a_diagnostic(changes: dict[str, Any], tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    (tmp_path / "model.onnx").touch()
    document = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**document, **changes}))
    with pytest.raises(SpecError) as caught:
        read_manifest(tmp_path)
    assert caught.value.diagnostics[0].code == "T743"
    for name in ("model", "logits", "tokens", "decoder", "target", "format"):
        (tmp_path / FILE).write_text(json.dumps({key: value for key, value in document.items() if key != name}))
        with pytest.raises(SpecError, match=r"T743"):
            read_manifest(tmp_path)


def test_bytes_are_a_tokenizer_and_come_out_as_whole_characters() -> None:
    tokens = Bytes().encode("né€")
    stream = Stream(Bytes())
    assert [stream.add(token) for token in tokens] == ["n", "", "é", "", "", "€"]
    assert stream.rest() == ""
    stream.add(tokens[1])
    assert stream.rest() == "�"


def words(folder: Path) -> Path:
    """A tokenizer of words, made by the library, in a folder as one is published."""
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {"[UNK]": 0, "</s>": 1, "one": 2, "two": 3, "three": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["</s>"])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    (folder / "model.py").write_text("raise SystemExit")
    return folder


def test_a_tokenizer_is_copied_with_its_special_tokens(tmp_path: Path) -> None:
    source, folder = words(tmp_path / "source"), tmp_path / "made"
    folder.mkdir()
    tokenizer = copy_tokenizer(source, folder)
    assert (tokenizer.kind, tokenizer.eos, tokenizer.bos) == ("tokenizer.json", (1,), None)
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    coder = open_coder(folder, tokenizer.kind)
    assert coder.encode("three one") == [4, 2]
    assert coder.decode([2, 1]) == "one"
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3], "bos_token_id": 2}))
    assert (copy_tokenizer(source, folder).eos, copy_tokenizer(source, folder).bos) == ((1, 3), 2)


REFUSED: dict[str, tuple[str, Callable[[], Any]]] = {
    "no prompt": ("T747", lambda: generate(session(), MANIFEST, [])),
    "empty": ("T747", lambda: generate(session(), MANIFEST, [[1], []])),
    "foreign token": ("T747", lambda: generate(session(), MANIFEST, [[1, VOCAB]])),
    "no tokens wanted": ("T747", lambda: generate(session(), MANIFEST, [[1]], max_new=0)),
    "too long": ("T747", lambda: generate(session(), MANIFEST, [[1] * (LONGEST + 1)])),
    "too many": ("T747", lambda: generate(session(), MANIFEST, [[1, 2]], max_new=LONGEST)),
    "unknown input": ("T747", lambda: generate(session(), MANIFEST, [[1]], inputs={"keep": np.ones((1, 1))})),
    "cold": ("T748", lambda: Sampling(temperature=-1.0)),
    "warm": ("T748", lambda: Sampling(temperature=float("nan"))),
    "none kept": ("T748", lambda: Sampling(top_k=0)),
    "nothing kept": ("T748", lambda: Sampling(top_p=0.0)),
    "not a number": ("T749", lambda: Chooser(Sampling(), 1).choose(np.array([[0.0, np.nan]]))),
    "no folder": ("T742", lambda: read_manifest(Path("nowhere"))),
    "no coder": ("T746", lambda: open_coder(Path("nowhere"), None)),
    "no tokenizer": ("T746", lambda: copy_tokenizer("nowhere", Path())),
    "no encoder": ("T741", lambda: session().encode({})),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str) -> None:
    code, make = REFUSED[case]
    with pytest.raises(SpecError) as caught:
        make()
    assert [each.code for each in caught.value.diagnostics] == [code]


MODEL = """model Small(tokens: int[batch, seq]) -> logits: [batch, seq, 16] {
  table = embedding(size=16, dim=8)
  return project(table(tokens), table.weight)
}
"""


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("torch", {"profile": "ort"}),
        ("torch", {"cache": True, "profile": "ort"}),
        ("onnx", {"cache": True, "pipeline": "paged"}),
        ("onnx", {"cache": True, "profile": "rot"}),
        ("onnx", {"cache": True, "dims": {"batch": 1}}),
        ("openvino", {"tokenizer": "bytes"}),
    ],
    ids=str,
)
def test_options_that_do_not_apply_are_refused(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small.tfm").write_text(MODEL)
    with pytest.raises(SpecError) as caught:
        tfdsl.load(tmp_path / "small.tfm").build(target, tmp_path / "out", seed=0, **options)
    assert [each.code for each in caught.value.diagnostics] == ["T744"]
    assert not (tmp_path / "out").exists()
