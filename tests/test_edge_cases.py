"""Numbers at the edge: rows that see nothing, rows of equal values, large logits, half precision at long lengths.

What comes out is finite and what the reference computes: on every target in float32, in PyTorch in half precision too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.backends.reference import run
from tfdsl.build import TARGETS, session
from tfdsl.ir.graph import Graph
from tfdsl.weights import trial

torch = pytest.importorskip("torch")
from tfdsl.backends.torch import make  # noqa: E402 (it needs torch)
from tfdsl.backends.torch.helpers import HELPERS  # noqa: E402
from tfdsl.backends.torch.state_helpers import STATE_HELPERS  # noqa: E402

torch.set_num_threads(1)

SPECS = Path(__file__).parent.parent / "specs"
Arrays = dict[str, Any]
INSTALLED = [name for name in TARGETS if find_spec({"onnx": "onnxruntime"}.get(name, name))]


@pytest.fixture(params=INSTALLED)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(tmp_path: Path, text: str, **parameters: Any) -> Graph:
    path = tmp_path / "spec.tfm"
    path.write_text(text, "utf-8")
    return tfdsl.load(path, **parameters).graph


def outcome(graph: Graph, target: str, folder: Path, inputs: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """What a target makes of the inputs with random weights, which must be finite, and what the reference does."""
    weights = trial(graph, 0)
    found, wanted = dict(session(graph, target, weights, folder / target)(inputs)), run(graph, weights, inputs)
    for name, values in wanted.items():
        assert np.isfinite(values).all(), name
        assert np.isfinite(found[name]).all(), name
        assert found[name].shape == values.shape
    return found, wanted


def agree(found: Any, wanted: Any, tolerance: Any = 2e-6) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1.0))


# --- rows that see nothing -------------------------------------------------------------------------------------------

HIDDEN = """model Hidden(
  x: [batch, seq, 16], keep: bool[batch, seq], allowed: bool[batch, 1, seq, seq], near: [4, seq, seq]
) -> {names} {{
  q = rearrange(linear(x, out=16) as query, "b s (h d) -> b h s d", h=4)
  k = rearrange(linear(x, out=8) as key, "b s (h d) -> b h s d", h=2)
  v = rearrange(linear(x, out=8) as value, "b s (h d) -> b h s d", h=2)
  sinks = weight(shape=[4], init=normal(1.0))
  return {results}
}}
"""
CALLS = {
    "padding": "mask=padding(keep)",
    "causal": "mask=causal & padding(keep)",
    "window": "mask=causal & window(2) & padding(keep)",
    "tensor": "allowed=allowed",
    "joined": "allowed=allowed, mask=causal & padding(keep)",
    "biased": "bias=near, mask=padding(keep)",
    "capped": "mask=causal & padding(keep), softcap=5.0",
    "sunk": "mask=causal & padding(keep), sinks=sinks",
    "nothing": "mask=not full",
}


def hiding_inputs(length: int) -> Arrays:
    """Texts of which the first has all positions, the second its last ones, as left padding has them, and the third none."""
    generator = np.random.default_rng(0)
    keep = np.arange(length) >= np.array([[0], [length // 2 + 1], [length]])
    allowed = generator.random((3, 1, length, length)) < 0.5
    allowed[:, :, ::2] = False
    return {
        "x": generator.normal(size=(3, length, 16)).astype(np.float32),
        "keep": keep,
        "allowed": allowed,
        "near": generator.normal(size=(4, length, length)).astype(np.float32),
    }


@pytest.mark.parametrize("length", [1, 6, 40])
def test_queries_that_see_nothing_give_zeros(target: str, length: int, tmp_path: Path) -> None:
    names = ", ".join(f"{name}: [batch, 4, seq, 4]" for name in CALLS)
    results = ", ".join(f"attend(q, k, v, {settings})" for settings in CALLS.values())
    inputs = hiding_inputs(length)
    found, wanted = outcome(load(tmp_path, HIDDEN.format(names=names, results=results)), target, tmp_path, inputs)
    before, padded = ~inputs["keep"], [name for name in CALLS if name not in ("tensor", "nothing")]
    for name in padded:
        assert (np.moveaxis(found[name], 1, 2)[2] == 0).all(), name
    for name in ("causal", "window", "joined", "capped", "sunk"):
        assert (np.moveaxis(found[name], 1, 2)[before] == 0).all(), name
    assert (found["tensor"][:, :, ::2] == 0).all()
    assert (found["nothing"] == 0).all()
    for name, values in wanted.items():
        agree(found[name], values)


def test_models_bear_texts_that_are_all_padding(target: str, tmp_path: Path) -> None:
    """A batch with an empty text: what is made of the other text is the same as without it."""
    sizes = {"vocab": 50, "context": 16, "width": 16, "depth": 2, "heads": 2}
    graph = tfdsl.load(SPECS / "bert.tfm", "Bert", inputs=["keep"], **sizes).graph
    tokens = np.random.default_rng(0).integers(0, 50, (2, 9))
    keep = np.array([[True] * 6 + [False] * 3, [False] * 9])
    found, wanted = outcome(graph, target, tmp_path, {"tokens": tokens, "keep": keep})
    alone, _ = outcome(graph, target, tmp_path, {"tokens": tokens[:1], "keep": keep[:1]})
    for name, values in wanted.items():
        agree(found[name], values, 2e-5)
        agree(found[name][:1], alone[name], 2e-5)


# --- rows of equal values --------------------------------------------------------------------------------------------

NORMS = """model Norms(x: [batch, seq, width]) -> layer: [batch, seq, width], bare: [batch, seq, width],
  rms: [batch, seq, width], groups: [batch, width, seq] {
  param width = 48
  return layer_norm(x) as a, layer_norm(x, eps=1e-12, scale=false, bias=false), rms_norm(x) as b,
    group_norm(swap(x), groups=2) as c
}
"""


@pytest.mark.parametrize("width", [48, 64])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e-20, 12345.678, -1e4])
def test_a_row_of_equal_values_into_a_norm(target: str, width: int, value: float, tmp_path: Path) -> None:
    """Its deviation is zero: what is left is rounding of the mean, a few units in the last place, over the root of eps."""
    rounding = 4 * np.spacing(np.float32(abs(value)))
    graph = load(tmp_path, NORMS, width=width)
    found, wanted = outcome(graph, target, tmp_path, {"x": np.full((2, 3, width), value, np.float32)})
    for name, eps in {"layer": 1e-5, "bare": 1e-12, "groups": 1e-5}.items():
        agree(found[name], wanted[name], 2e-6 + rounding / np.sqrt(eps))
    agree(found["rms"], wanted["rms"])


# --- large logits ----------------------------------------------------------------------------------------------------

LARGE = """model Large(x: [batch, seq, seq], q: [batch, 2, seq, 4]) -> softmax: [batch, seq, seq],
  log_softmax: [batch, seq, seq], attended: [batch, 2, seq, 4], causal: [batch, 2, seq, 4], capped: [batch, 2, seq, 4],
  sunk: [batch, 2, seq, 4], biased: [batch, 2, seq, 4], byhand: [batch, 2, seq, 4] {
  sinks = weight(shape=[2], init=constant(1e4))
  near = rearrange(x, "b q k -> b 1 q k")
  return softmax(x), log_softmax(x), attend(q, q, q), attend(q, q, q, mask=causal), attend(q, q, q, softcap=50.0),
    attend(q, q, q, mask=causal, sinks=sinks), attend(q, q, q, bias=near),
    softmax(where(causal_places(x), q @ swap(q), -1e9)) @ q
}

block causal_places(x: [batch, seq, seq]) -> bool[seq, seq] {
  place = positions(x, axis=1)
  return rearrange(place, "t -> 1 t") <= rearrange(place, "s -> s 1")
}
"""
SMOOTH = ("exp(minimum(x, 0))", "tanh(x)", "sigmoid(x)", "relu(x)", "silu(x)", "softplus(x)", "erf(x)", "gelu(x)")
SMOOTH += ("gelu(x, approximate=true)",)


@pytest.mark.parametrize("length", [1, 7, 40])
def test_logits_of_ten_thousand(target: str, length: int, tmp_path: Path) -> None:
    """Spread over plus and minus 1e4, and rows in which all are 1e4 or differ by one only; halves, so that sums are exact."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1e4, 1e4, (2, length, length)).astype(np.float32).round()
    x[0, 0] = 1e4
    x[0, -1] = 1e4 - np.arange(length)
    q = (generator.uniform(-1, 1, (2, 2, length, 4)) * 100).astype(np.float32).round()
    q[0, 0] = 100.0
    inputs = {"x": x, "q": q}
    found, wanted = outcome(load(tmp_path, LARGE), target, tmp_path, inputs)
    for name, values in wanted.items():
        agree(found[name], values, 1e-5)
    np.testing.assert_allclose(found["softmax"].sum(-1), 1, rtol=0, atol=1e-5)
    assert (found["log_softmax"] <= 0).all()


def test_smooth_functions_far_from_zero(target: str, tmp_path: Path) -> None:
    names = ", ".join(f"y{number}: [batch]" for number in range(len(SMOOTH)))
    graph = load(tmp_path, f"model Smooth(x: [batch]) -> {names} {{ return {', '.join(SMOOTH)} }}")
    x = np.array([-1e4, -800, -90, -40, -20, -5.5, -1e-4, 0, 1e-4, 5.5, 20, 40, 90, 800, 1e4], np.float32)
    found, wanted = outcome(graph, target, tmp_path, {"x": x})
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-5, atol=2e-6)


# --- half precision --------------------------------------------------------------------------------------------------

LONG = 4096
SMALL = {"vocab": 64, "width": 32, "depth": 1, "heads": 2}
ATTENTION = {**SMALL, "kv_heads": 1, "hidden": 48}
MODELS: dict[str, tuple[str, str | None, tuple[str, ...], dict[str, int]]] = {
    "learned positions": ("gpt2.tfm", "GPT2", (), {**SMALL, "context": LONG}),
    "rotary positions": ("llama.tfm", "Llama", (), ATTENTION),
    "scaled rotary positions": ("llama.tfm", "Llama3_405B", (), ATTENTION),
    "padding": ("bert.tfm", "Bert", ("keep",), {**SMALL, "context": LONG, "inner": 48}),
    "windows": ("mistral.tfm", "Mistral", (), {**ATTENTION, "window": 100}),
    "sums": ("linear_transformer.tfm", None, (), SMALL),
}
HEAVY: dict[str, tuple[str, str | None, tuple[str, ...], dict[str, int]]] = {
    "relative positions": ("t5.tfm", "T5", ("keep",), {**SMALL, "head": 16, "hidden": 48}),
    "soft caps": ("gemma2.tfm", "Gemma2", (), {**ATTENTION, "head": 16, "window": 100}),
}
# Relative to the largest number; the units in the last place are 2 ** -11 and 2 ** -8.
HALVES = {"float16": 5e-3, "bfloat16": 4e-2}
CASES = [
    pytest.param(each, marks=[pytest.mark.heavy] if kind in HEAVY else [], id=kind)
    for kind, each in {**MODELS, **HEAVY}.items()
]


def long_inputs(graph: Graph, length: int) -> Arrays:
    """One text, of which the last tenth is padding."""
    made: Arrays = {}
    for place in graph.inputs:
        name, kind = graph.node(place).attributes["name"], graph.node(place).type.dtype
        tokens = np.random.default_rng(place).integers(0, 64, (1, length))
        made[name] = np.arange(length)[None] < length - length // 10 if kind == "bool" else tokens
    return made


def computed(module: Any, inputs: Arrays) -> list[Any]:
    """The outputs of a module, in float64."""
    with torch.no_grad():
        found = module(*(torch.from_numpy(value) for value in inputs.values()))
    return [each.double().numpy() for each in (found if isinstance(found, tuple) else (found,))]


def compare_in_half(graph: Graph, inputs: Arrays, precision: str, tolerance: float) -> None:
    """An emitted module in half precision against itself in float64, with weights that are numbers of both types."""
    module = make(graph, trial(graph, 0)).to(getattr(torch, precision)).eval()
    found = computed(module, inputs)
    for values, wanted in zip(found, computed(module.double(), inputs), strict=True):
        assert np.isfinite(values).all()
        assert 0 < np.abs(values - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("each", CASES)
def test_half_precision_at_long_lengths(
    request: pytest.FixtureRequest, each: tuple[str, str | None, tuple[str, ...], dict[str, int]]
) -> None:
    if request.node.get_closest_marker("heavy") and request.config.getoption("-m") != "heavy":
        pytest.skip("makes tables of scores in float64; run with -m heavy")
    file, model, optional, sizes = each
    graph = tfdsl.load(SPECS / file, model, inputs=optional, **sizes).graph
    for precision, tolerance in HALVES.items():
        compare_in_half(graph, long_inputs(graph, LONG), precision, tolerance)


def test_modules_in_float64_are_the_reference_at_long_lengths() -> None:
    graph = tfdsl.load(SPECS / "gpt2.tfm", "GPT2", **{**SMALL, "context": LONG, "heads": 1}).graph
    weights, inputs = trial(graph, 0), long_inputs(graph, LONG)
    (found,) = computed(make(graph, weights).double().eval(), inputs)
    wanted = run(graph, weights, inputs)["logits"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


def test_running_sums_in_half_precision_do_not_stop() -> None:
    """At 32,768 positions a sum in bfloat16 would long have been too large for what comes to change it."""
    graph = tfdsl.load(SPECS / "linear_transformer.tfm", **SMALL).graph
    for precision, tolerance in HALVES.items():
        compare_in_half(graph, long_inputs(graph, 2**15), precision, tolerance / 4)


def test_the_state_of_running_sums_does_not_stop_in_half_precision() -> None:
    """A decoder adds one position after another; 256 + 1 is 256 in bfloat16."""
    names: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor, "nn": torch.nn, "Callable": Callable}
    exec(HELPERS["linear_attend"] + STATE_HELPERS["RunningAttention"], names)
    state = names["RunningAttention"](names["linear_attend"])
    one = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16)
    found = [state.attend(one, one, one).item() for _ in range(1024)]
    assert found[255] == 256 and found[-1] == 1024


SWITCH = """import Switch from "std/moe.tfm"
import MLP from "std/feed_forward.tfm"
model One(x: [batch, seq, 8]) -> [batch, seq, 8] {
  return Switch(x, expert=MLP(hidden=12), experts=1, capacity=1601) as switch
}
"""


@pytest.mark.parametrize("precision", HALVES)
def test_places_are_counted_in_half_precision(precision: str, tmp_path: Path) -> None:
    """An expert takes as many positions as it should, though 1601 is no number of bfloat16."""
    graph = load(tmp_path, SWITCH)
    dtype = getattr(torch, precision)
    module = make(graph, trial(graph, 0)).to(dtype).eval()
    x = torch.randn(1, LONG, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        taken = (module(x) != 0).any(dim=-1)
    assert taken[0].tolist() == [place < 1601 for place in range(LONG)]


@pytest.mark.parametrize("precision", HALVES)
def test_edges_in_half_precision(precision: str, tmp_path: Path) -> None:
    """Rows that see nothing, rows of equal values into norms, and logits of ten thousand."""
    dtype, tolerance = getattr(torch, precision), HALVES[precision]
    names = ", ".join(f"{name}: [batch, 4, seq, 4]" for name in CALLS)
    results = ", ".join(f"attend(q, k, v, {settings})" for settings in CALLS.values())
    hidden = load(tmp_path, HIDDEN.format(names=names, results=results))
    norms = load(tmp_path, NORMS)
    large = load(tmp_path, LARGE)
    generator = np.random.default_rng(0)
    x = generator.choice([-1e4, 0, 1e4, 9984], (2, 9, 9)).astype(np.float32)  # all are numbers of both types
    x = torch.tensor(x).to(dtype).float().numpy()
    q = generator.choice([-64.0, 0, 64], (2, 2, 9, 4)).astype(np.float32)
    cases = [(hidden, hiding_inputs(9)), (large, {"x": x, "q": q})]
    cases += [(norms, {"x": np.full((2, 3, 48), value, np.float32)}) for value in (0.0, 1.0, -0.25, 300.0, 2.0**14)]
    for graph, inputs in cases:
        module = make(graph, trial(graph, 0)).to(dtype).eval()
        given = {name: torch.from_numpy(value) for name, value in inputs.items()}
        given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}
        with torch.no_grad():
            found = module(*given.values())
        weights = {name: value.double().numpy() for name, value in module.state_dict().items()}
        rounded = {n: v.double().numpy() if v.is_floating_point() else v.numpy() for n, v in given.items()}
        for values, (name, wanted) in zip(found, run(graph, weights, rounded).items(), strict=True):
            assert torch.isfinite(values).all(), name
            if name != "groups":  # PyTorch's kernel subtracts products there
                agree(values.double().numpy(), wanted, 4 * tolerance)
