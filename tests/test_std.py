"""The blocks of the standard library: each against its formula, written out by hand or taken from another library."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.backends.torch import make
from tfdsl.ir.graph import Graph
from tfdsl.language import syntax
from tfdsl.language.parser import parse, read
from tfdsl.language.printer import format_source
from tfdsl.verify import render, verify
from tfdsl.weights import initial, trial

torch = pytest.importorskip("torch")

OF_NO_PAPER = ("Identity", "resize")
STD = Path(tfdsl.__file__).parent / "std"
FILES = sorted(STD.glob("*.tfm"))
Arrays = dict[str, Any]
HEADS = 4


def heads(x: Any) -> Any:
    return x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)


def merged(x: Any) -> Any:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def affine(w: Arrays, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def positive(x: Any) -> Any:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def projected(w: Arrays, x: Any, source: Any | None = None) -> tuple[Any, Any, Any]:
    source = x if source is None else source
    return heads(affine(w, "b.query", x)), heads(affine(w, "b.key", source)), heads(affine(w, "b.value", source))


def multi_head(w: Arrays, x: Any, memory: Any, keep: Any) -> Any:
    q, k, v = projected(w, x, memory)
    scores = np.where(keep[:, None, None], q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf)
    return affine(w, "b.output", merged(softmax(scores) @ v))


def grouped_query(w: Arrays, x: Any) -> Any:
    """Two key heads for four query heads, normed, with a soft cap and a window of three."""
    q = heads(affine(w, "b.q_proj", x))
    k, v = (affine(w, f"b.{name}_proj", x).reshape(*x.shape[:2], 2, -1).swapaxes(1, 2) for name in "kv")

    def normed(name: str, y: Any) -> Any:
        return y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-6) * w[f"b.{name}_norm.weight"]

    scores = normed("q", q) @ normed("k", k).repeat(2, 1).swapaxes(2, 3) / np.sqrt(q.shape[-1])
    place = np.arange(x.shape[1])
    behind = place[:, None] - place
    scores = np.where((behind >= 0) & (behind < 3), 5 * np.tanh(scores / 5), -np.inf)
    return affine(w, "b.o_proj", merged(softmax(scores) @ v.repeat(2, 1)))


def talking_heads(w: Arrays, x: Any, keep: Any) -> Any:
    q, k, v = projected(w, x)
    scores = np.einsum("bhst,gh->bgst", q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), w["b.before"])
    shares = np.einsum("bhst,gh->bgst", softmax(np.where(keep[:, None, None], scores, -1e9)), w["b.after"])
    return affine(w, "b.output", merged(shares @ v))


def linear_attention(w: Arrays, x: Any, seen: Any) -> Any:
    """The quadratic form: shares of all pairs, by the products of their features."""
    q, k, v = projected(w, x)
    q = positive(q) / (positive(q).sum(-1, keepdims=True) + 1e-6)
    shares = q @ positive(k).swapaxes(2, 3) * seen
    return affine(w, "b.output", merged(shares @ v / (shares.sum(-1, keepdims=True) + 1e-6)))


def retention(w: Arrays, x: Any) -> Any:
    """Retention in its parallel form, pairs of neighbours turned (Sun et al., 2023, equation 5)."""
    q, k, v = projected(w, x)
    place = np.arange(x.shape[1])
    angle = np.outer(place, 10_000 ** (-np.arange(8) / 8))
    q, k = (
        turned(np.concatenate([y[..., ::2], y[..., 1::2]], -1), angle) for y in (q, k)
    )  # the order of features is the same in both
    kept = 1 - 2.0 ** (-5 - np.arange(HEADS))[:, None, None]
    scores = q @ k.swapaxes(2, 3) / 4 * np.tril(kept ** np.abs(place[:, None] - place))
    gate = activated("silu", affine(w, "b.gate", x))
    return affine(w, "b.output", gate * merged(normed(scores @ v, 1e-5)))


def sinusoids(x: Any) -> Any:
    length, width = x.shape[1:]
    table = np.zeros((length, width))
    for place in range(length):
        for pair in range(width // 2):
            angle = place / 10_000 ** (2 * pair / width)
            table[place, 2 * pair : 2 * pair + 2] = np.sin(angle), np.cos(angle)
    return x + table


def sinusoids_in_halves(x: Any) -> Any:
    from transformers.models.whisper.modeling_whisper import sinusoids as whisper

    return x + whisper(*x.shape[1:]).double().numpy()


def turned(x: Any, angle: Any, factor: float = 1.0) -> Any:
    """Pairs (i, i + half) of the features of heads, turned by angles [positions, half]."""
    a, b = np.split(x, 2, -1)
    pair = (a + 1j * b) * np.exp(1j * angle) * factor
    return np.concatenate([pair.real, pair.imag], -1)


def scaled_rope(kind: str, longest: int = 128, **parameters: Any) -> Callable[..., Any]:
    """The angles that `transformers` has for a kind of rotary scaling."""

    def rope(w: Arrays, x: Any) -> Any:
        from transformers import LlamaConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        rope_parameters = {"rope_type": kind, "rope_theta": 100.0, **parameters}
        config = LlamaConfig(head_dim=16, max_position_embeddings=128, rope_parameters=rope_parameters)
        config.max_position_embeddings = longest
        frequency, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=x.shape[1])
        angle = np.arange(x.shape[1])[:, None] * frequency.double().numpy()
        return merged(turned(heads(x), angle, factor))

    return rope


def rope_of_images(w: Arrays, x: Any) -> Any:
    y = heads(x)
    frequency = 10_000 ** (-np.arange(4) / 4)
    rows, columns = np.arange(x.shape[1]) // 3, np.arange(x.shape[1]) % 3
    parts = [
        turned(part, np.outer(place, frequency))
        for part, place in zip(np.split(y, 2, -1), (rows, columns), strict=True)
    ]
    return merged(np.concatenate(parts, -1))


def alibi(w: Arrays, x: Any) -> Any:
    """Four heads have the slopes 1/4, 1/16, 1/64 and 1/256."""
    y, place = heads(x), np.arange(x.shape[1])
    slopes = np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256])[:, None, None]
    scores = y @ y.swapaxes(2, 3) / 4 - slopes * np.abs(place[:, None] - place)
    return merged(softmax(np.where(place[:, None] >= place, scores, -np.inf)) @ y)


def activated(kind: str, x: Any) -> Any:
    return getattr(torch.nn.functional, kind)(torch.tensor(x)).numpy()


def normed(x: Any, eps: float) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def masked_head(w: Arrays, x: Any) -> Any:
    h = normed(activated("gelu", affine(w, "b.dense", x)), 1e-12) * w["b.norm.weight"] + w["b.norm.bias"]
    return h @ w["table.weight"].T + w["b.bias"]


def sentence(w: Arrays, x: Any, keep: Any) -> Any:
    means = np.stack([rows[real].mean(0) for rows, real in zip(x, keep, strict=True)])
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def norm_by(w: Arrays, name: str, x: Any) -> Any:
    return normed(x, 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attended(w: Arrays, name: str, x: Any, memory: Any, seen: Any) -> Any:
    """Multi-head attention whose weights are at a name."""
    q = heads(affine(w, f"{name}.query", x))
    k, v = heads(affine(w, f"{name}.key", memory)), heads(affine(w, f"{name}.value", memory))
    scores = np.where(seen, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf)
    return affine(w, f"{name}.output", merged(softmax(scores) @ v))


def mlp(w: Arrays, name: str, x: Any, activation: str = "gelu") -> Any:
    return affine(w, f"{name}.down", activated(activation, affine(w, f"{name}.up", x)))


def encoder_layer(w: Arrays, name: str, x: Any, keep: Any, norms: str, activation: str = "gelu") -> Any:
    """One norm for each place, by where they stand."""
    seen = keep[:, None, None]
    for sublayer in ("attention", "mlp"):
        h = x if norms == "post" else norm_by(w, f"{name}.{sublayer}_norm", x)
        own = f"{name}.{sublayer}"
        h = attended(w, own, h, h, seen) if sublayer == "attention" else mlp(w, own, h, activation)
        x = x + (norm_by(w, f"{name}.{sublayer}_out_norm", h) if norms == "sandwich" else h)
        x = norm_by(w, f"{name}.{sublayer}_norm", x) if norms == "post" else x
    return x


def decoder_layer(w: Arrays, name: str, x: Any, memory: Any, keep: Any, activation: str = "gelu") -> Any:
    h = norm_by(w, f"{name}.attention_norm", x)
    x = x + attended(w, f"{name}.attention", h, h, np.tri(x.shape[1], dtype=bool))
    if memory is not None:
        h = norm_by(w, f"{name}.cross_norm", x)
        x = x + attended(w, f"{name}.cross", h, memory, keep[:, None, None])
    return x + mlp(w, f"{name}.mlp", norm_by(w, f"{name}.mlp_norm", x), activation)


def parallel_layer(w: Arrays, x: Any) -> Any:
    h = norm_by(w, "b.norm", x)
    return x + attended(w, "b.attention", h, h, np.tri(x.shape[1], dtype=bool)) + mlp(w, "b.mlp", h)


def encoder_decoder(w: Arrays, x: Any, keep: Any) -> Any:
    """Over the places of the largest features, taken for tokens; the decoder reads them too."""
    table = w["b.table.weight"]
    m = d = sinusoids(table[x.argmax(-1)] * np.sqrt(table.shape[1]))
    for turn in range(2):
        m = encoder_layer(w, f"b.encoder.{turn}.layer", m, keep, "pre", "relu")
    m = norm_by(w, "b.encoder_norm", m)
    for turn in range(2):
        d = decoder_layer(w, f"b.decoder.{turn}.layer", d, m, keep, "relu")
    return norm_by(w, "b.head.norm", d) @ table.T


def patch_embedding(w: Arrays, x: Any) -> Any:
    """An image of 8 by 8 for each position, in four patches."""
    patches = x.reshape(-1, 2, 4, 2, 4).swapaxes(2, 3).reshape(-1, 4, 16)
    return patches @ w["b.proj.weight"].reshape(16, 16).T + w["b.proj.bias"]


def spectrogram(w: Arrays, x: Any) -> Any:
    h = torch.tensor(x).mT
    for name, stride in (("conv1", 1), ("conv2", 2)):
        weight, bias = (torch.tensor(w[f"b.{name}.{kind}"]) for kind in ("weight", "bias"))
        h = torch.nn.functional.gelu(torch.nn.functional.conv1d(h, weight, bias, stride, 1))
    return h.mT.numpy()


@dataclass(frozen=True)
class Case:
    """An expression over x [batch, seq, 64], memory and keep, and what it should be."""

    block: str
    expression: str
    shape: str
    expected: Callable[..., Any]

    def __str__(self) -> str:
        return self.block


SHORT, LONG = [1.0 + place / 8 for place in range(8)], [2.0 + 3 * place for place in range(8)]
WHOLE = "[batch, seq, 64]"
TURN = 'rearrange(x, "b s (h d) -> b h s d", h=4) |> {} |> rearrange("b h s d -> b s (h d)")'
CASES = [
    Case("attention.Identity", "Identity(x)", WHOLE, lambda w, x: x),
    Case("attention.MultiHeadAttention", "MultiHeadAttention(x, memory, keep, heads=4) as b", WHOLE, multi_head),
    Case(
        "attention.GroupedQueryAttention",
        "GroupedQueryAttention(x, heads=4, kv_heads=2, norm=rms_norm, softcap=5, mask=causal & window(3)) as b",
        WHOLE,
        grouped_query,
    ),
    Case("attention.TalkingHeads", "TalkingHeads(x, keep, heads=4) as b", WHOLE, talking_heads),
    Case(
        "attention.LinearAttention",
        "LinearAttention(x, keep, heads=4) as b",
        WHOLE,
        lambda w, x, keep: linear_attention(w, x, keep[:, None, None]),
    ),
    Case(
        "attention.CausalLinearAttention",
        "CausalLinearAttention(x, heads=4) as b",
        WHOLE,
        lambda w, x: linear_attention(w, x, np.tri(x.shape[1])),
    ),
    Case("linear_attention.Retention", "Retention(x, heads=4) as b", WHOLE, retention),
    Case("attention.Positive", "Positive(x)", WHOLE, lambda w, x: activated("elu", x) + 1),
    Case("positions.sinusoidal", "x + sinusoidal(x)", WHOLE, lambda w, x: sinusoids(x)),
    Case("positions.sinusoidal_halves", "x + sinusoidal_halves(x)", WHOLE, lambda w, x: sinusoids_in_halves(x)),
    Case(
        "positions.learned_positions",
        "x + learned_positions(x, size=30, offset=2) as b",
        WHOLE,
        lambda w, x: x + w["b.position.weight"][2 : 2 + x.shape[1]],
    ),
    Case(
        "positions.rope_linear",
        TURN.format("rope_linear(base=100, factor=4)"),
        WHOLE,
        scaled_rope("linear", factor=4.0),
    ),
    Case(
        "positions.rope_llama3",
        TURN.format("rope_llama3(base=100, context=32, factor=4)"),
        WHOLE,
        scaled_rope(
            "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
    ),
    Case(
        "positions.rope_yarn",
        TURN.format("rope_yarn(base=100, context=64, factor=2.5, fast=8)"),
        WHOLE,
        scaled_rope("yarn", factor=2.5, beta_fast=8, beta_slow=1, original_max_position_embeddings=64),
    ),
    *(
        Case(
            "positions.rope_long",
            TURN.format(f"rope_long(base=100, context={context}, reach=128, short={SHORT}, long={LONG})"),
            WHOLE,
            scaled_rope("longrope", short_factor=SHORT, long_factor=LONG, original_max_position_embeddings=context),
        )
        for context in (4, 16)  # before and after the length of the comparison
    ),
    Case(
        "positions.rope_long",
        TURN.format(f"rope_long(base=100, context=16, reach=128, short={SHORT}, long={LONG}, adaptive=false)"),
        WHOLE,
        scaled_rope("longrope", short_factor=LONG, long_factor=LONG, original_max_position_embeddings=16),
    ),
    *(
        Case(
            "positions.rope_dynamic",
            TURN.format(f"rope_dynamic(base=100, factor=4, limit={limit})"),
            WHOLE,
            scaled_rope("dynamic", limit, factor=4.0),
        )
        for limit in (3, 16)
    ),
    Case("positions.rope_2d", TURN.format("rope_2d(columns=3)"), WHOLE, rope_of_images),
    Case(
        "positions.alibi",
        'attend(h, h, h, mask=causal, bias=alibi(x, x, heads=4)) |> rearrange("b h s d -> b s (h d)")',
        WHOLE,
        alibi,
    ),
    Case(
        "feed_forward.MLP",
        "MLP(x, hidden=24, activation=relu) as b",
        WHOLE,
        lambda w, x: affine(w, "b.down", activated("relu", affine(w, "b.up", x))),
    ),
    Case(
        "feed_forward.GatedMLP",
        "GatedMLP(x, hidden=24) as b",
        WHOLE,
        lambda w, x: affine(
            w, "b.down_proj", activated("silu", affine(w, "b.gate_proj", x)) * affine(w, "b.up_proj", x)
        ),
    ),
    Case(
        "norms.rms_norm_plus_one",
        "rms_norm_plus_one(x) as b",
        WHOLE,
        lambda w, x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * (1 + w["b.weight"]),
    ),
    Case("norms.layer_scale", "layer_scale(x) as b", WHOLE, lambda w, x: x * w["b.gamma"]),
    Case(
        "norms.frozen_batch_norm",
        "frozen_batch_norm(x) as b",
        WHOLE,
        lambda w, x: (x - w["b.running_mean"]) / np.sqrt(w["b.running_var"] + 1e-5) * w["b.weight"] + w["b.bias"],
    ),
    *(
        Case(
            "layers.EncoderLayer",
            f'EncoderLayer(x, keep, heads=4, hidden=24, norms="{norms}") as b',
            WHOLE,
            lambda w, x, keep, norms=norms: encoder_layer(w, "b", x, keep, norms),
        )
        for norms in ("pre", "post", "sandwich")
    ),
    Case(
        "layers.DecoderLayer",
        "DecoderLayer(x, memory, keep, heads=4, hidden=24) as b",
        WHOLE,
        lambda w, x, memory, keep: decoder_layer(w, "b", x, memory, keep),
    ),
    Case(
        "layers.DecoderLayer",
        "DecoderLayer(x, heads=4, hidden=24) as b",
        WHOLE,
        lambda w, x: decoder_layer(w, "b", x, None, None),
    ),
    Case("layers.ParallelLayer", "ParallelLayer(x, heads=4, hidden=24) as b", WHOLE, parallel_layer),
    Case(
        "layers.EncoderDecoder",
        "EncoderDecoder(argmax(x), argmax(x), keep, vocab=64, width=16, depth=2, heads=4, hidden=24) as b",
        WHOLE,
        encoder_decoder,
    ),
    Case(
        "stems.PatchEmbedding",
        'rearrange(x, "b s (h w) -> (b s) 1 h w", h=8) |> PatchEmbedding(patch=4, out=16) as b',
        "[batch * seq, 4, 16]",
        patch_embedding,
    ),
    Case(
        "stems.SpectrogramStem",
        "SpectrogramStem(swap(x), out=16) as b",
        "[batch, (seq + 1) // 2, 16]",
        spectrogram,
    ),
    Case(
        "stems.FactorizedEmbedding",
        "FactorizedEmbedding(argmax(x), size=64, inner=4, out=16) as b",
        "[batch, seq, 16]",
        lambda w, x: affine(w, "b.widen", w["b.table.weight"][x.argmax(-1)]),
    ),
    Case(
        "heads.LanguageHead",
        "LanguageHead(linear(x, out=24) as last, table.weight) as b",
        "[batch, seq, 9]",
        lambda w, x: norm_by(w, "b.norm", affine(w, "last", x)) @ w["table.weight"].T,
    ),
    Case("heads.MaskedHead", "MaskedHead(x, table.weight) as b", "[batch, seq, 9]", masked_head),
    Case("heads.Pooler", "Pooler(x) as b", "[batch, 64]", lambda w, x: np.tanh(affine(w, "b.dense", x[:, 0]))),
    Case(
        "heads.SequenceHead",
        "select(x, axis=1, index=0) |> SequenceHead(classes=3) as b",
        "[batch, 3]",
        lambda w, x: affine(w, "b.classifier", x[:, 0]),
    ),
    Case(
        "heads.TokenHead",
        "TokenHead(x, classes=3) as b",
        "[batch, seq, 3]",
        lambda w, x: affine(w, "b.classifier", x),
    ),
    Case(
        "heads.SpanHead",
        "span.start + 2 * span.end",
        "[batch, seq]",
        lambda w, x: affine(w, "span.outputs", x) @ np.array([1, 2]),
    ),
    Case("heads.SentenceEmbedding", "SentenceEmbedding(x, keep)", "[batch, 64]", sentence),
    Case(
        "heads.ImageHead",
        "ImageHead(x, classes=3) as b",
        "[batch, 3]",
        lambda w, x: affine(w, "b.classifier", x.mean(1)),
    ),
]


def spec(case: Case) -> str:
    file, name = case.block.split(".")
    lines = [f'import {name} from "std/{file}.tfm"']
    inputs = [f"x: {WHOLE}"]
    if "memory" in case.expression:
        inputs.append("memory: [batch, places, 48]")
    if "keep" in case.expression:
        inputs.append(f"keep: bool[batch, {'places' if 'memory' in case.expression else 'seq'}]")
    before = {
        "span": "span = SpanHead(x) as span",
        "table": "table = embedding(size=9, dim=24)",
        "(h,": 'h = rearrange(x, "b s (h d) -> b h s d", h=4)',
    }
    lines += [f"model M({', '.join(inputs)}) -> y: {case.shape} {{"]
    lines += [line for word, line in before.items() if word in case.expression]
    return "\n".join([*lines, f"return {case.expression}", "}"])


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def graph(case: Case, tmp_path: Path) -> Graph:
    path = tmp_path / "case.tfm"
    path.write_text(spec(case))
    return tfdsl.load(path).graph


def given(case: Case, batch: int = 2, length: int = 7, places: int = 5) -> Arrays:
    """Random inputs; of the last text of a batch three positions are real."""
    random = np.random.default_rng(2)
    inputs: Arrays = {"x": random.normal(size=(batch, length, 64))}
    if "memory" in case.expression:
        inputs["memory"] = random.normal(size=(batch, places, 48))
    if "keep" in case.expression:
        size = places if "memory" in case.expression else length
        inputs["keep"] = np.arange(size) < np.array([[size]] * (batch - 1) + [[3]])
    return inputs


def test_block_is_its_formula(case: Case, graph: Graph) -> None:
    weights = {name: value.astype(np.float64) for name, value in trial(graph, 1).items()}
    inputs = given(case)
    wanted = case.expected(weights, **inputs)
    found = run(graph, weights, inputs)["y"]
    assert found.shape == wanted.shape
    precision = 1e-6 if "rope_" in case.block or "halves" in case.block else 1e-10  # theirs are in float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=precision * np.abs(wanted).max())


def test_block_is_the_same_on_every_target(graph: Graph) -> None:
    verdict = verify(graph)
    assert verdict.passed, render(verdict)


def test_block_has_its_gradients(case: Case, graph: Graph) -> None:
    """Those of inputs and weights, against differences, in float64."""
    weights = {name: value.astype(np.float64) for name, value in trial(graph, 1).items()}
    module = make(graph, weights).double().eval()
    inputs = {name: torch.tensor(value) for name, value in given(case, length=4, places=4).items()}
    names = [name for name, value in inputs.items() if value.is_floating_point()]
    learned = dict(module.named_parameters())

    def forward(*values: Any) -> Any:
        given = {**inputs, **dict(zip(names, values, strict=False))}
        own = dict(zip(learned, values[len(names) :], strict=True))
        return torch.func.functional_call(module, own, (), given)

    values = [*(inputs[name] for name in names), *learned.values()]
    assert torch.autograd.gradcheck(forward, [value.detach().requires_grad_() for value in values], fast_mode=True)


def blocks(file: Path) -> list[syntax.Block]:
    return [item for item in parse(read(file)).items if isinstance(item, syntax.Block)]


def test_every_block_has_its_case() -> None:
    """The prelude's blocks are compared in the specs that use them, those of some files in their own tests."""
    files = [file for file in FILES if file.stem not in ("prelude", "moe", "resampling")]
    ours = {f"{file.stem}.{block.name.text}" for file in files for block in blocks(file)}
    assert ours == {case.block for case in CASES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_formatted(file: Path) -> None:
    source = read(file)
    assert format_source(source) == source.text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_blocks_are_explained_by_an_example(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    for block in blocks(file):
        line, _ = block.span.source.place(block.span.start)
        comment = []
        while line >= 2 and lines[line - 2].startswith("#"):
            line -= 1
            comment.append(lines[line - 1])
        assert len(comment) >= 2, block.name.text
        assert comment[0].startswith("#   "), block.name.text
        assert f"{block.name.text}(" in comment[0] or f" {block.name.text}" in comment[0]
        if block.name.text not in OF_NO_PAPER:
            assert re.search(r"\b(19|20)\d\d\b", "".join(comment)), f"{block.name.text} says where it comes from"


def test_patches_of_images_of_any_size(tmp_path: Path) -> None:
    """That patches divide an image is required of sizes that run time knows, and tested there."""
    text = """import PatchEmbedding from "std/stems.tfm"
model Patches(image: [batch, 3, height, across]) -> [batch, (height // 4) * (across // 4), 8] {
  return PatchEmbedding(image, patch=4, out=8)
}
"""
    (tmp_path / "spec.tfm").write_text(text, "utf-8")
    graph = tfdsl.load(tmp_path / "spec.tfm").graph
    weights = initial(graph, 0)
    assert run(graph, weights, {"image": np.zeros((2, 3, 8, 12))})["output"].shape == (2, 6, 8)
    with pytest.raises(tfdsl.SpecError, match="patches divide the height"):
        run(graph, weights, {"image": np.zeros((2, 3, 9, 12))})
