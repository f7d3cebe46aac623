"""Decoding derived from the graph: piece by piece with padding on the left, it equals each row by itself in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.ir.graph import Constraint, Graph
from tfdsl.ir.states import states
from tfdsl.ir.text import print_graph
from tfdsl.ir.verify import verify
from tfdsl.language.diagnostics import SpecError
from tfdsl.passes.binding_times import split
from tfdsl.passes.clean import clean
from tfdsl.passes.incremental import bounded, decoded_axis, incremental
from tfdsl.passes.unroll import unroll
from tfdsl.weights import trial

SPECS = Path(tfdsl.__file__).parents[1] / "specs"
ARCHITECTURES = Path(__file__).parent / "architectures"
PADS, PIECES, VOCAB = (0, 2, 5), (6, 1, 2, 1), 20
LENGTH = sum(PIECES)
SMALL = {"vocab": VOCAB, "width": 16, "depth": 2, "heads": 4}
GROUPED = {**SMALL, "kv_heads": 2, "hidden": 24}

MODELS: dict[str, tuple[Path, str | None, dict[str, Any]]] = {
    "gpt2": (SPECS / "gpt2.tfm", None, SMALL),
    "llama": (SPECS / "llama.tfm", "Llama", GROUPED),
    "mistral": (SPECS / "mistral.tfm", "Mistral_7B", {**GROUPED, "window": 3}),
    "mixtral": (SPECS / "mixtral.tfm", "Mixtral_8x7B", GROUPED),
    "gemma2": (SPECS / "gemma2.tfm", None, {**GROUPED, "head": 4, "window": 4}),
    "qwen2": (SPECS / "qwen2.tfm", None, GROUPED),
    "qwen3": (SPECS / "qwen3.tfm", None, {**GROUPED, "head": 4}),
    "phi3": (SPECS / "phi3.tfm", None, {**GROUPED, "window": 4}),
    "linear": (SPECS / "linear_transformer.tfm", None, SMALL),
    "t5": (SPECS / "t5.tfm", "T5", {**SMALL, "head": 4, "hidden": 24}),
    "switch": (SPECS / "switch.tfm", None, {**SMALL, "head": 4, "hidden": 24, "capacity": 2}),
    "whisper": (SPECS / "whisper.tfm", "Whisper", SMALL),
    "latent": (ARCHITECTURES / "latent_attention.tfm", None, {}),
    "differential": (ARCHITECTURES / "differential.tfm", None, {}),
    "turns": (ARCHITECTURES / "in_turns.tfm", None, {"vocab": VOCAB}),
    "lstm": (ARCHITECTURES / "recurrent.tfm", "LSTM", {}),
    "delta": (ARCHITECTURES / "recurrent.tfm", "DeltaNet", {}),
    "talking": (ARCHITECTURES / "talking_hybrid.tfm", "Odd", {}),
}

# ruff: noqa: E501 (each of the snippets is one line)
# Each computes logits [batch, seq, 20] from x [batch, seq, 16].
SNIPPETS = {
    "convolution with padding before": "swap(conv1d(swap(x), out=16, kernel=3, dilation=2, padding=[4, 0]) as c)",
    "convolution of what is padded": "swap(conv1d(pad(swap(x), axis=-1, before=2), out=16, kernel=3, groups=4) as c)",
    "convolution cut to length": "swap(slice(conv1d(swap(x), out=16, kernel=4, padding=3) as c, axis=-1, stop=seq))",
    "two convolutions": "swap(conv1d(relu(conv1d(swap(x), out=8, kernel=2, padding=[1, 0]) as a), out=16, kernel=3, padding=[2, 0]) as c)",
    "convolution with one position more": "swap(slice(conv1d(swap(x), out=16, kernel=2, padding=[3, 0], bias=false) as c, axis=-1, stop=seq))",
    "shift by padding": "x + pad(slice(x, axis=1, stop=seq - 1), axis=1, before=1)",
    "shift by cutting": "x - slice(pad(x, axis=1, before=2), axis=1, stop=seq)",
    "shift of the second part": "halved(x)",
    "shift by joining": "x * concat(expand(0.0, shape=[batch, 3, width]), slice(x, axis=1, stop=seq - 3), axis=1)",
    "running sum": 'cumsum(x, axis=1) / rearrange(cast(positions(x, axis=1) + 1, to="float"), "s -> s 1")',
    "running sum along features": "cumsum(x, axis=2)",
    "running sum over keys": "attended(softmax(where(see, cumsum(sigmoid(scores)), -1e9)) @ v)",
    "running sum over keys in front": "attended(swap(swap(v) @ softmax(where(swap(see), cumsum(swap(scores), axis=2), -1e9), axis=2)))",
    "running sum over what is hidden": "attended(where(see, exp(sum(past, keep=true) - cumsum(past)), 0.0) @ v)",
    "the best keys": "attended(attend(q, k, v, mask=causal, allowed=aged >= third(where(see, aged, -1e9))))",
    "running count of keys": 'attended(softmax(where(see, 0.1 * cast(cumsum(cast(see, to="int")), to="float"), -1e9)) @ v)',
    "decayed sum": 'attended(linear_attend(q, k, v, decay=-softplus(rearrange(linear(x, out=4) as d, "b s h -> b h s"))))',
    "one decay for all": "attended(linear_attend(q, k, v, decay=expand(-0.3, shape=[1, 1, seq])))",
    "grouped linear attention": "attended(linear_attend(q, slice(k, axis=1, stop=2), slice(v, axis=1, stop=1)))",
    "learned positions cut from a table": "x + slice(weight(shape=[64, 16], init=normal(1)) as table, axis=0, stop=seq)",
    "learned positions of iota": "x + gather(weight(shape=[64, 16], init=normal(1)) as table, iota(seq), axis=0)",
    "blocks": "attended(attend(q, k, v, mask=causal & blocks(4)))",
    "global tokens": "attended(attend(q, k, v, mask=causal & (window(2) | global_tokens(1))))",
    "strided": "attended(attend(q, k, v, mask=causal & strided(3)))",
    "prefix": "attended(attend(q, k, v, mask=causal & not prefix(1)))",
    "a table that pairs look up": "attended(softmax(where(see, take_along(q, expand(minimum(maximum(near, 0), 3), shape=[batch, 4, seq, seq])), -1e9)) @ v)",
    "softcap and bias": "attended(attend(q, k, v, mask=causal, softcap=3.0, bias=alibi(x, x, heads=4)))",
    "window forgets": "attended(attend(q, k, v, mask=causal & window(3)))",
    "two windows": "attended(attend(q, k, v, mask=causal & window(3)) + attend(q, k, v, mask=causal & window(5)))",
    "keys that are values": "attended(attend(q, k, k, mask=causal))",
    "keys of all heads": "attended(attend(q, expand(slice(k, axis=1, stop=1), shape=[batch, 4, seq, 4]), v, mask=causal))",
    "keys rotated after they are kept": 'attended(attend(rope(q), rope(linear(linear(x, out=2) as c, out=16) as up |> rearrange("b s (h d) -> b h s d", h=4)), v, mask=causal))',
    "hidden by hand": "attended(softmax(where(see, scores, -1e9)) @ v)",
    "hidden by minus infinity": "attended(softmax(where(see, scores, -1e30)) @ v)",
    "hidden by a bias": 'attended(softmax(scores + (1 - cast(see, to="float")) * -1e9) @ v)',
    "hidden by negation": "attended(softmax(where(not see, -1e9, scores)) @ v)",
    "hidden by a product": 'attended((cast(see, to="float") * relu(scores)) @ v)',
    "hidden and mixed": 'attended(einsum("b h s t, h g, b g t d -> b g s d", softmax(where(see, scores, -1e9)), weight(shape=[4, 4], init=normal(1)) as mix, v))',
    "allowed by hand": "attended(attend(q, k, v, allowed=see & (near < 3)))",
    "bias by hand": 'attended(attend(q, k, v, bias=where(see, -0.2 * cast(near, to="float"), -1e9)))',
    "positions split and put together": 'rearrange(rearrange(x, "b (n t) d -> b n t d", t=1), "b n t d -> b (n t) d")',
    "positions merged with features": 'rearrange(rearrange(x, "b s (t d) -> b (s t) d", t=2), "b (s t) d -> b s (t d)", t=2)',
    "recurrence": "recurred(x, first=0.0)",
    "recurrence that does not start with zeros": "recurred(x, first=0.5)",
    "recurrence along the last axis": "leaked(x)",
    "decay of each feature": "attended(linear_attend(q, k, v, decay=-softplus(k)))",
    "keys transposed": "attended(swap(swap(v) @ softmax(swap(where(see, scores, -1e9)), axis=-2)))",
}
FRAME = """import alibi, rope_dynamic, rope_long from "std/positions.tfm"
block leak(x: [batch, width], s: [batch, width]) -> [batch, width], [batch, width] {{
  s = 0.5 * s + tanh(x)
  return s, s * s
}}
block recurrence(x: [batch, width], s: [batch, hidden]) -> [batch, hidden], [batch, width] {{
  param hidden = 8
  s = tanh(linear(x, out=hidden) as input + linear(s, out=hidden, bias=false) as state)
  return s, linear(s, out=width) as output
}}
block attended(y: [batch, heads, seq, head]) -> [batch, seq, heads * head] {{ return rearrange(y, "b h s d -> b s (h d)") }}
block halved(x: [batch, seq, width]) -> [batch, seq, width] {{
  near, far = split(tanh(x), parts=2)
  return concat(near, slice(pad(far, axis=1, before=1), axis=1, stop=-1))
}}
block third(scores: [batch, heads, seq, keys]) -> [batch, heads, seq, 1] {{
  best, places = top_k(scores, k=3)
  return slice(best, axis=-1, start=2)
}}
block which(scores: [batch, heads, seq, keys]) -> int[batch, heads, seq, 1] {{
  best, places = top_k(scores, k=1)
  return places
}}
block recurred(x: [batch, seq, width]) -> [batch, seq, width] {{
  param first = 0.0
  last, y = scan(x, step=recurrence(hidden=8), start=[expand(first, shape=[batch, 8])]) as cell
  return y
}}
block leaked(x: [batch, seq, width]) -> [batch, seq, width] {{
  last, y = scan(swap(x), step=leak, start=[expand(0.25, shape=[batch, width])], axis=2)
  return swap(y)
}}
model Snippet(tokens: int[batch, seq]) -> logits: [batch, seq, 20] {{
  width = 16
  x = embedding(tokens, size=20, dim=width) as table
  repeat layers[{depth}] {{
    q, k, v = linear(layer_norm(x) as norm, out=48) as qkv |> split(parts=3)
    q = rearrange(q, "b s (h d) -> b h s d", h=4)
    k = rearrange(k, "b s (h d) -> b h s d", h=4)
    v = rearrange(v, "b s (h d) -> b h s d", h=4)
    i = positions(x, axis=1)
    near = rearrange(i, "q -> q 1") - rearrange(i, "k -> 1 k")
    see = near >= 0
    scores = q @ swap(k) / 2
    aged = scores - 0.01 * near  # no two are equal, where tokens repeat
    past = where(see, -softplus(scores), 0.0)
    x = x + {expression}
  }}
  return linear(layer_norm(x) as out_norm, out=20) as head
}}
"""


def snippet(folder: Path, expression: str, depth: int = 2) -> Graph:
    path = folder / "snippet.tfm"
    path.write_text(FRAME.format(expression=expression, depth=depth), "utf-8")
    return tfdsl.load(path).graph


def sized(graph: Graph) -> dict[str, int]:
    """A number for each named size of a model."""
    names = {dim.name for place in graph.inputs for dim in graph.node(place).type.dims if not isinstance(dim, int)}
    known = {"batch": len(PADS), decoded_axis(graph).name: LENGTH, "source": 5}
    return {name: known.get(name, 12) for name in names}


def inputs_of(graph: Graph, seed: int = 1) -> dict[str, Any]:
    random, sizes, found = np.random.default_rng(seed), sized(graph), {}
    for place in graph.inputs:
        node = graph.node(place)
        shape = [dim if isinstance(dim, int) else sizes[dim.name] for dim in node.type.dims]
        found[node.attributes["name"]] = {
            "int": lambda shape=shape: random.integers(0, 5, shape),
            "bool": lambda shape=shape: random.random(shape) < 0.8,
            "float": lambda shape=shape: random.normal(size=shape),
        }[node.type.dtype]()
    return found


def streams(graph: Graph) -> set[str]:
    """The inputs that are given position by position."""
    axis = decoded_axis(graph)
    return {graph.node(place).attributes["name"] for place in graph.inputs if axis in graph.node(place).type.dims}


def expected(graph: Graph, weights: Any, inputs: dict[str, Any]) -> list[Any]:
    """The output of each row by itself, without its padding, in one pass."""
    stream, name = streams(graph), graph.outputs[0][0]
    found = []
    for row, pad in enumerate(PADS):
        one = {
            key: value[row : row + 1, pad:] if key in stream else value[row : row + 1] for key, value in inputs.items()
        }
        found.append(run(graph, weights, one)[name][0])
    return found


def steps(
    decoder: Graph, stream: set[str], weights: Any, inputs: dict[str, Any], pieces: Iterable[int] = PIECES
) -> list[Any]:
    """The outputs of calls with a few positions each."""
    mask = np.array([[0] * pad + [1] * (LENGTH - pad) for pad in PADS])
    ids = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    state: dict[str, Any] = {}
    done, found = 0, []
    for count in pieces:
        part = {key: value[:, done : done + count] if key in stream else value for key, value in inputs.items()}
        part |= {"attention_mask": mask[:, : done + count], "position_ids": ids[:, done : done + count]}
        found.append(run(decoder, weights, part, state)[decoder.outputs[0][0]])
        done += count
    return found


def check(graph: Graph, decoder: Graph, weights: Any, last: bool) -> None:
    """Compare a decoder with the graph that it is made of, in every row and position that is no padding."""
    verify(decoder)
    inputs = inputs_of(graph)
    rows = expected(graph, weights, inputs)
    found = steps(decoder, streams(graph), weights, inputs)
    ends = np.cumsum(PIECES)
    for row, (pad, wanted) in enumerate(zip(PADS, rows, strict=True)):
        for end, count, piece in zip(ends, PIECES, found, strict=True):
            start = end - 1 if last else max(end - count, pad)
            got = piece[row] if last else piece[row, start - (end - count) :]
            np.testing.assert_allclose(got, wanted[start - pad : end - pad], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_decoding_equals_one_pass(name: str) -> None:
    path, model, settings = MODELS[name]
    graph = tfdsl.load(path, model, **settings).graph
    weights = trial(graph, 0)
    check(graph, incremental(graph, logits="all"), weights, last=False)
    check(graph, incremental(graph, windows="kept"), weights, last=True)
    check(graph, incremental(unroll(graph)), weights, last=True)
    check(graph, incremental(clean(graph)[0], logits="all", windows="kept"), weights, last=False)


@pytest.mark.parametrize("name", SNIPPETS)
def test_mechanisms(name: str, tmp_path: Path) -> None:
    graph = snippet(tmp_path, SNIPPETS[name])
    weights = trial(graph, 0)
    check(graph, incremental(graph, logits="all"), weights, last=False)
    check(graph, incremental(unroll(graph), windows="kept"), weights, last=True)


# --- what is remembered ----------------------------------------------------------------------------------------------


def remembered(graph: Graph) -> dict[str, str]:
    return {state.path: str(state.type) for state in states(incremental(graph))}


def test_latent_attention_remembers_latents() -> None:
    """12 numbers and 4 rotated ones a position, and not keys and values of all heads."""
    kept = remembered(tfdsl.load(ARCHITECTURES / "latent_attention.tfm").graph)
    assert kept == {
        "l.*.mla.c": "[batch, -seq + total, 12]",
        "l.*.mla.rope.kr": "[batch, 1, -seq + total, 4]",
    }


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("attended(attend(q, k, v, mask=causal))", {"key": [4, 4], "value": [4, 4]}),
        ("attended(attend(q, k, k, mask=causal))", {"key": [4, 4]}),
        (SNIPPETS["keys of all heads"], {"slice": [1, 4], "value": [4, 4]}),
        (SNIPPETS["keys rotated after they are kept"], {"c": [2], "value": [4, 4]}),
        (SNIPPETS["running sum"], {"sum": [16]}),
        (SNIPPETS["shift by padding"], {"before": [1, 16]}),
    ],
)
def test_the_fewest_bytes_are_remembered(expression: str, kept: dict[str, list[int]], tmp_path: Path) -> None:
    found = {
        state.path.removeprefix("layers.*."): [dim for dim in state.type.dims if isinstance(dim, int)]
        for state in states(incremental(snippet(tmp_path, expression)))
    }
    assert found == kept


def test_keys_that_layers_share_are_remembered_once(tmp_path: Path) -> None:
    """As in YOCO (Sun et al., 2024): computed before a loop, read in each of its turns."""
    text = """
model Shared(tokens: int[batch, seq]) -> logits: [batch, seq, 20] {
  x = embedding(tokens, size=20, dim=16) as table
  k, v = linear(x, out=32) as kv |> rearrange("b s (h d) -> b h s d", h=4) |> split(parts=2)
  repeat layers[3] {
    q = linear(layer_norm(x) as norm, out=16) as q |> rearrange("b s (h d) -> b h s d", h=4)
    x = x + rearrange(attend(q, k, v, mask=causal), "b h s d -> b s (h d)")
  }
  return linear(x, out=20) as head
}
"""
    (tmp_path / "shared.tfm").write_text(text, "utf-8")
    graph = tfdsl.load(tmp_path / "shared.tfm").graph
    assert remembered(graph) == {"k": "[batch, 4, -seq + total, 4]", "v": "[batch, 4, -seq + total, 4]"}
    check(graph, incremental(graph), trial(graph, 0), last=True)


def test_the_last_layer_computes_one_query() -> None:
    graph = unroll(tfdsl.load(SPECS / "llama.tfm", "Llama", **GROUPED).graph)
    lengths = [str(node.type.dims[2]) for node in incremental(graph).nodes() if node.op == "attend"]
    assert lengths == ["seq", "1"]


# --- encoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t5", "switch", "whisper"])
def test_what_does_not_depend_on_decoding_is_computed_once(name: str) -> None:
    path, model, settings = MODELS[name]
    graph = tfdsl.load(path, model, inputs=["keep"] if name == "t5" else (), **settings).graph
    weights, inputs = trial(graph, 0), inputs_of(graph)
    encoder, decoder = split(incremental(unroll(graph)))
    assert encoder is not None
    verify(encoder)
    names = {encoder.node(place).attributes["name"] for place in encoder.inputs}
    memory = run(encoder, weights, {key: value for key, value in inputs.items() if key in names})
    assert len(memory) == 4  # keys and values of two layers
    wanted = {decoder.node(place).attributes["name"] for place in decoder.inputs}
    given = {key: value for key, value in {**inputs, **memory}.items() if key in wanted}
    verify(decoder)
    rows = expected(graph, weights, inputs)
    for end, found in zip(np.cumsum(PIECES), steps(decoder, streams(graph), weights, given), strict=True):
        for row, pad in enumerate(PADS):
            np.testing.assert_allclose(found[row, 0], rows[row][end - 1 - pad], rtol=1e-9, atol=1e-10)
    assert not any(
        node.op == "attend" and node.scope[0].path.startswith("encoder") for node in decoder.nodes() if node.scope
    )


def test_a_window_beside_an_encoder(tmp_path: Path) -> None:
    """How long a state that slides is, no input of a step tells, and no encoder either."""
    text = """
import DecoderLayer from "std/layers.tfm"
model Windowed(source: [batch, frames, 16], tokens: int[batch, seq]) -> logits: [batch, seq, 20] {
  x = embedding(tokens, size=20, dim=16) as table
  m = tanh(source)
  repeat layers[2] { x = DecoderLayer(x, m, heads=4, hidden=24, mask=causal & window(3)) as layer }
  return linear(x, out=20) as head
}
"""
    (tmp_path / "windowed.tfm").write_text(text, "utf-8")
    graph = tfdsl.load(tmp_path / "windowed.tfm").graph
    encoder, decoder = split(incremental(unroll(graph), windows="kept"))
    assert encoder is not None
    verify(decoder)
    assert [state.last for state in states(decoder)] == [2] * 4
    check(graph, incremental(graph, windows="kept"), trial(graph, 0), last=True)


def test_sizes_that_follow_from_what_an_encoder_hands_on(tmp_path: Path) -> None:
    """Features of an image stand where the text has marks (Liu et al., 2023): the last of them is one less than their number."""
    text = """
model Marks(image: [batch, 3, height, across], tokens: int[batch, seq]) -> logits: [batch, seq, 20] {
  seen = conv2d(image, out=16, kernel=4, stride=4) as patches |> rearrange("b c h w -> b (h w) c")
  count = (height // 4) * (across // 4)
  marked = tokens == 3
  place = maximum(cumsum(cast(marked, to="int"), axis=1) - 1, 0) |> minimum(count - 1)
  x = where(rearrange(marked, "b s -> b s 1"), one_hot(place, classes=count) @ seen, embedding(tokens, size=20, dim=16) as table)
  return linear(cumsum(x, axis=1) / (2 * count), out=20) as head
}
"""
    (tmp_path / "marks.tfm").write_text(text, "utf-8")
    graph = tfdsl.load(tmp_path / "marks.tfm").graph
    weights, inputs = trial(graph, 0), inputs_of(graph)
    encoder, decoder = split(incremental(unroll(graph)))
    assert encoder is not None
    verify(decoder)
    assert "across" not in print_graph(decoder) and "memory - 1" in print_graph(decoder)
    memory = run(encoder, weights, {"image": inputs["image"]})
    rows = expected(graph, weights, inputs)
    found = steps(decoder, streams(graph), weights, {"tokens": inputs["tokens"], **memory})
    for row, pad in enumerate(PADS):
        np.testing.assert_allclose(found[-1][row, 0], rows[row][LENGTH - 1 - pad], rtol=1e-9, atol=1e-10)


def test_a_decoder_alone_has_no_encoder() -> None:
    graph = incremental(unroll(tfdsl.load(SPECS / "gpt2.tfm", **SMALL).graph))
    assert split(graph) == (None, graph)


def test_what_is_carried_settles_however_long_it_takes(tmp_path: Path) -> None:
    """What the model is given reaches the last of many carried values one turn at a time."""
    values = [f"v{place}" for place in range(8)]
    begin = "\n".join(f"  {name} = expand(0.0, shape=[batch, seq, 16])" for name in values)
    turn = "\n".join(f"    {name} = {after}" for name, after in zip(values, [*values[1:], "x"], strict=True))
    text = f"""
model Carried(tokens: int[batch, seq]) -> logits: [batch, seq, 20] {{
  x = embedding(tokens, size=20, dim=16) as table
{begin}
  repeat layers[10] {{
{turn}
    x = x + 0.1 * v0
  }}
  k = rearrange(v0, "b s d -> b 1 s d")
  y = attend(rearrange(x, "b s d -> b 1 s d"), k, k, mask=causal)
  return linear(rearrange(y, "b 1 s d -> b s d"), out=20) as head
}}
"""
    (tmp_path / "carried.tfm").write_text(text, "utf-8")
    graph = tfdsl.load(tmp_path / "carried.tfm").graph
    check(graph, incremental(graph), trial(graph, 0), last=True)


# --- texts of bounded length ------------------------------------------------------------------------------------------

# Each is causal for up to LENGTH positions.
BOUNDED = {
    "a base that grows": "attended(attend(rope_dynamic(q, factor=4, limit=10), rope_dynamic(k, factor=4, limit=10), v, mask=causal))",
    "factors for long texts": "attended(attend(rope_long(q, context=10, short=[1.0, 1.5], long=[2.0, 9.0]), rope_long(k, context=10, reach=40, short=[1.0, 1.5], long=[2.0, 9.0]), v, mask=causal))",
    "the length as a number": 'x / cast(maximum(seq, 10), to="float")',
    "the length in steps": 'x * cast(1 + max(i, axis=0) // 10, to="float")',
    "the length of a share": 'x * minimum(10.0 / cast(max(i, axis=0) + 1, to="float"), 1.0)',
    "hidden from long texts": "attended(softmax(where(see, where(max(i, axis=0) > 9, -1e9, scores), -1e9)) @ v)",
}


@pytest.mark.parametrize("name", BOUNDED)
def test_models_that_are_causal_up_to_some_length(name: str, tmp_path: Path) -> None:
    graph = snippet(tmp_path, BOUNDED[name])
    weights = trial(graph, 0)
    for refused in (graph, bounded(graph, LENGTH + 1)):
        with pytest.raises(SpecError, match="T720") as error:
            incremental(refused)
        assert f"with `--longest {LENGTH}` or less" in error.value.diagnostics[0].help
    short = bounded(graph, LENGTH)
    check(graph, incremental(short, logits="all"), weights, last=False)
    check(graph, incremental(unroll(short), windows="kept"), weights, last=True)
    own = graph.copy()
    own.constraints = [Constraint("<", 2 * decoded_axis(graph), 2 * LENGTH + 1)]
    check(graph, incremental(own), weights, last=True)


def test_a_bound_changes_nothing_of_models_that_are_causal_without() -> None:
    graph = tfdsl.load(SPECS / "gpt2.tfm", **SMALL).graph
    made = incremental(bounded(graph, 100))
    assert made.constraints.pop().right == 100
    assert print_graph(made) == print_graph(incremental(graph))


@pytest.mark.parametrize("longest", [0, -1, 1.5, True, "8", 1025])
def test_bounds_that_there_cannot_be(longest: Any) -> None:
    with pytest.raises(SpecError, match="T751"):
        bounded(tfdsl.load(SPECS / "gpt2.tfm", **SMALL).graph, longest)


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED = {
    "attention to all": "attended(attend(q, k, v))",
    "a window without causal": "attended(attend(q, k, v, mask=window(3)))",
    "random blocks": "attended(attend(q, k, v, mask=causal & random_blocks(1, 2, 0)))",
    "a causal mask or another": "attended(attend(q, k, v, mask=causal | global_tokens(1)))",
    "a convolution on both sides": "swap(conv1d(swap(x), out=16, kernel=3, padding=1) as c)",
    "a mean over the sequence": "mean(x, axis=1, keep=true)",
    "a sum from query to query": "attended(softmax(where(see, cumsum(scores, axis=2), -1e9)) @ v)",
    "the best of all": "attended(attend(q, k, v, mask=causal, allowed=scores >= third(scores)))",
    "where the best are": 'attended(attend(q, k, v, bias=cast(which(where(see, scores, -1e9)), to="float"), mask=causal))',
    "a softmax over the sequence": "softmax(x, axis=1)",
    "scores that nothing hides": "attended(softmax(scores) @ v)",
    "the other triangle": "attended(softmax(where(near <= 0, scores, -1e9)) @ v)",
    "a mask that is too mild": "attended(softmax(where(see, scores, -5.0)) @ v)",
    "a shift to the left": "pad(slice(x, axis=1, start=1), axis=1, after=1)",
    "as many features as positions": "sum(slice(x, axis=2, stop=seq), axis=2, keep=true)",
    "features counted from the length": "slice(concat(x, x, axis=2), axis=2, start=seq, stop=seq + 16)",
    "roll": "roll(x, shift=1, axis=1)",
    "the length as a number": 'x / cast(seq, to="float")',
    "latents that see all": 'expand(mean(rearrange(attend(weight(shape=[4, 2, 4], init=normal(1)) as latent |> rearrange("h n d -> 1 h n d") |> expand(shape=[batch, 4, 2, 4]), k, v), "b h n d -> b n (h d)"), axis=1, keep=true), shape=[batch, seq, 16])',
    "a convolution that strides": "x + mean(conv1d(swap(x), out=16, kernel=1, stride=2) as c |> swap, axis=1, keep=true)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path, golden: Any) -> None:
    graph = snippet(tmp_path, REFUSED[name], depth=1)
    with pytest.raises(SpecError) as error:
        incremental(graph)
    (only,) = error.value.diagnostics
    assert only.code == "T720" and only.span is not None
    golden(f"decoding/{name.replace(' ', '_')}.txt", f"{only.message}\n")


@pytest.mark.parametrize(
    ("path", "model"), [("bert.tfm", "BertForMaskedLM"), ("vit.tfm", "ViT"), ("bigbird.tfm", None)]
)
def test_models_that_do_not_decode(path: str, model: str | None) -> None:
    graph = tfdsl.load(SPECS / path, model).graph
    with pytest.raises(SpecError, match="T720"):
        incremental(graph)
