"""Initial weights have the distributions that the specs state, and deep models at initialisation keep their signal.

Distributions are told apart by their moments. A sample of n numbers has its mean within s / sqrt(n) of the true one, its
variance within v * sqrt((k - 1) / n) and its kurtosis k within sqrt(96 / n) or less; six times that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.weights import initial

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

SPECS = Path(__file__).parent.parent / "specs"
Array = Any
SIGMAS = 6
TRUNCATED = 0.7737413, 2.3656  # variance and kurtosis of the standard normal within two deviations


@dataclass(frozen=True)
class Normal:
    deviation: float
    kurtosis = 3.0
    bound = math.inf

    @property
    def variance(self) -> float:
        return self.deviation**2


@dataclass(frozen=True)
class Truncated(Normal):
    """Normal, and drawn anew beyond two deviations; `deviation` is that before."""

    kurtosis = TRUNCATED[1]

    @property
    def variance(self) -> float:
        return TRUNCATED[0] * self.deviation**2

    @property
    def bound(self) -> float:  # type: ignore[override]
        return 2 * self.deviation


@dataclass(frozen=True)
class Uniform:
    bound: float
    kurtosis = 1.8

    @property
    def variance(self) -> float:
        return self.bound**2 / 3


@dataclass(frozen=True)
class Number:
    value: float


Distribution = Normal | Uniform | Number


def check(values: Array, wanted: Distribution) -> None:
    """The values are a sample of the distribution, as far as so many can tell."""
    values = np.asarray(values, np.float64)
    if isinstance(wanted, Number):
        assert (values == np.float32(wanted.value)).all()
        return
    count, variance, kurtosis = values.size, wanted.variance, wanted.kurtosis
    assert abs(values.mean()) <= SIGMAS * math.sqrt(variance / count)
    if count < 8:
        return
    assert abs((values**2).mean() / variance - 1) <= SIGMAS * math.sqrt((kurtosis - 1) / count)
    assert np.abs(values).max() <= wanted.bound * (1 + 1e-6)
    if count >= 2000:
        assert abs((values**4).mean() / variance**2 - kurtosis) <= SIGMAS * math.sqrt(96 / count)
    if math.isfinite(wanted.bound) and count >= 2000:
        assert np.abs(values).max() >= 0.97 * wanted.bound


Source = Callable[[tfdsl.Model], Mapping[str, Array]]


def emitted(model: tfdsl.Model) -> Mapping[str, Array]:
    """The weights that the emitted module draws by itself."""
    torch.manual_seed(0)
    return {name: value.numpy() for name, value in model.to_torch().state_dict().items()}


def drawn(model: tfdsl.Model) -> Mapping[str, Array]:
    return initial(model.graph, 0)


@pytest.fixture(params=[emitted, drawn], ids=["emitted", "drawn"])
def source(request: pytest.FixtureRequest) -> Source:
    return request.param


# --- every initialiser -----------------------------------------------------------------------------------------------

FAN_IN, FAN_OUT = 100, 300
MATRIX = {
    "zeros": Number(0),
    "ones": Number(1),
    "constant(0.25)": Number(0.25),
    "normal": Normal(0.02),
    "normal(0.3)": Normal(0.3),
    "trunc_normal": Truncated(0.02),
    "trunc_normal(0.3)": Truncated(0.3),
    "uniform(0.5)": Uniform(0.5),
    "xavier_uniform": Uniform(math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "xavier_uniform(2)": Uniform(2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "xavier_normal": Normal(math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "xavier_normal(0.5)": Normal(0.5 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming_uniform": Uniform(math.sqrt(3 / FAN_IN)),
    "kaiming_uniform(sqrt(2))": Uniform(math.sqrt(6 / FAN_IN)),
    "kaiming_normal": Normal(math.sqrt(1 / FAN_IN)),
    "kaiming_normal(sqrt(2))": Normal(math.sqrt(2 / FAN_IN)),
}
# Both fans of a vector are its length, and those of a convolution count its kernel.
VECTOR = {
    "normal(0.3)": Normal(0.3),
    "trunc_normal(0.3)": Truncated(0.3),
    "xavier_uniform": Uniform(math.sqrt(3 / 4000)),
    "xavier_normal(2)": Normal(2 / math.sqrt(4000)),
    "kaiming_uniform": Uniform(math.sqrt(3 / 4000)),
    "kaiming_normal(2)": Normal(2 / math.sqrt(4000)),
}
KERNEL = {
    "xavier_uniform": Uniform(math.sqrt(6 / (50 * 5 + 20 * 5))),
    "xavier_normal": Normal(math.sqrt(2 / (50 * 5 + 20 * 5))),
    "kaiming_uniform(2)": Uniform(2 * math.sqrt(3 / (20 * 5))),
    "kaiming_normal": Normal(math.sqrt(1 / (20 * 5))),
}
SHAPES = {"[300, 100]": MATRIX, "[4000]": VECTOR, "[50, 20, 5]": KERNEL}


@pytest.mark.parametrize(
    ("shape", "kind"), [(shape, kind) for shape, kinds in SHAPES.items() for kind in kinds], ids=lambda each: each
)
def test_initialiser(shape: str, kind: str, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "spec.tfm"
    text = f"model M(x: [batch, 1]) -> [batch, 1], {shape} {{ w = weight(shape={shape}, init={kind}) return x, w }}"
    path.write_text(text, "utf-8")
    values = source(tfdsl.load(path))["w"]
    assert list(values.shape) == [int(size) for size in shape.strip("[]").split(",")]
    check(values, SHAPES[shape][kind])


def test_initialisers_of_a_number_and_of_layers(source: Source, tmp_path: Path) -> None:
    """A weight without axes, and what layers begin with where the spec says nothing."""
    path = tmp_path / "spec.tfm"
    path.write_text(
        """model M(x: [batch, seq, 100]) -> [batch, seq, 100], [50, 80] {
  scale = weight(shape=[], init=kaiming_normal)
  y = linear(x, out=300) as up |> layer_norm(eps=1e-6) as norm |> linear(out=100) as down |> rms_norm(eps=1e-6) as rms
  z = rearrange(y, "b s d -> b d s") |> conv1d(out=100, kernel=3, padding=1) as conv |> group_norm(groups=4) as groups
  table = embedding(size=50, dim=80)
  return y * scale + rearrange(z, "b d s -> b s d"), table.weight
}
""",
        "utf-8",
    )
    values = source(tfdsl.load(path))
    assert values["scale"].shape == () and abs(values["scale"]) < SIGMAS
    check(values["up.weight"], Uniform(math.sqrt(6 / 400)))
    check(values["conv.weight"], Uniform(math.sqrt(6 / 600)))
    check(values["table.weight"], Normal(0.02))
    for name in ("norm.weight", "rms.weight", "groups.weight"):
        check(values[name], Number(1))
    for name in ("up.bias", "down.bias", "conv.bias", "norm.bias", "groups.bias"):
        check(values[name], Number(0))


# --- the shipped specs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """A spec at a small size, and how its weights begin: of the patterns that match a path the last counts."""

    file: str
    model: str
    sizes: Mapping[str, int]
    rules: Mapping[str, Distribution]

    def load(self) -> tfdsl.Model:
        return tfdsl.load(SPECS / self.file, self.model, **self.sizes)

    def __str__(self) -> str:
        return self.model


def xavier(fan_in: int, fan_out: int) -> Uniform:
    return Uniform(math.sqrt(6 / (fan_in + fan_out)))


SMALL = Normal(0.02)
BERT = Truncated(0.02)
STATED = [
    Stated(  # Radford et al., 2019, section 2.3: residual layers start smaller by one over the root of their number
        "gpt2.tfm",
        "GPT2",
        {"vocab": 100, "context": 64, "width": 64, "depth": 3, "heads": 4},
        {
            "wte.weight": SMALL,
            "wpe.weight": Normal(0.01),
            "h.*.*.*.weight": SMALL,
            "h.*.*.c_proj.weight": Normal(0.02 / math.sqrt(6)),
            "**.bias": Number(0),
            "h.*.ln_1.weight": Number(1),
            "h.*.ln_2.weight": Number(1),
            "ln_f.weight": Number(1),
        },
    ),
    Stated(
        "llama.tfm",
        "Llama",
        {"vocab": 100, "width": 64, "depth": 3, "heads": 4, "hidden": 96},
        {
            "embed_tokens.weight": SMALL,
            "lm_head.weight": SMALL,
            "layers.*.self_attn.*.weight": SMALL,
            "layers.*.mlp.*.weight": SMALL,
            "layers.*.input_layernorm.weight": Number(1),
            "layers.*.post_attention_layernorm.weight": Number(1),
            "norm.weight": Number(1),
        },
    ),
    Stated(
        "t5.tfm",
        "T5",
        {"vocab": 100, "width": 64, "depth": 3, "heads": 4, "head": 8, "hidden": 96},
        {
            "shared.weight": Normal(1.0),
            "*_positions.bias.weight": Normal(64**-0.5),
            "**.q.weight": Normal((64 * 8) ** -0.5),
            "**.k.weight": Normal(64**-0.5),
            "**.v.weight": Normal(64**-0.5),
            "**.o.weight": Normal((4 * 8) ** -0.5),
            "**.wi.weight": Normal(64**-0.5),
            "**.wo.weight": Normal(96**-0.5),
            "**_norm.weight": Number(1),
        },
    ),
    Stated(  # Devlin et al., 2019, as released: all matrices and tables are drawn alike
        "bert.tfm",
        "BertForSequenceClassification",
        {"vocab": 100, "context": 64, "width": 64, "depth": 3, "heads": 4, "inner": 96, "classes": 3},
        {"**.weight": BERT, "**.bias": Number(0), "**_norm.weight": Number(1)},
    ),
    Stated(
        "vit.tfm",
        "ViT",
        {"size": 32, "patch": 8, "width": 64, "depth": 3, "heads": 4, "hidden": 96, "classes": 10},
        {
            "cls_token": Number(0),
            "pos_embed": SMALL,
            "**.bias": Number(0),
            "**.mlp.*.bias": Normal(1e-6),
            "patch_embed.proj.weight": Normal((3 * 8 * 8) ** -0.5),
            "blocks.*.attn.qkv.weight": xavier(64, 192),
            "blocks.*.attn.proj.weight": xavier(64, 64),
            "blocks.*.mlp.*.weight": xavier(64, 96),
            "blocks.*.norm1.weight": Number(1),
            "blocks.*.norm2.weight": Number(1),
            "norm.weight": Number(1),
            "head.weight": Number(0),
        },
    ),
]


@pytest.mark.parametrize("stated", STATED, ids=str)
def test_weights_of_a_spec_begin_as_it_states(stated: Stated, source: Source) -> None:
    """Each by itself, those of one kind in all layers together, and no two of them the same."""
    together: dict[str, list[Array]] = {}
    for name, values in source(stated.load()).items():
        pattern = [each for each in stated.rules if fnmatchcase(name, each)]
        assert pattern, f"nothing is stated for {name}"
        check(values, stated.rules[pattern[-1]])
        together.setdefault(pattern[-1], []).append(values.ravel())
    assert set(together) == set(stated.rules), "a rule that no weight follows"
    for pattern, values in together.items():
        check(np.concatenate(values), stated.rules[pattern])
        if not isinstance(stated.rules[pattern], Number):
            assert len({each.tobytes() for each in values}) == len(values)


SETTINGS = {"GPT2": {"width": 32, "depth": 5}, "T5": {"width": 32, "head": 16}, "ViT": {"width": 32}}


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_of_emitted_source_begin_as_its_constructor_is_told(name: str) -> None:
    """The spread of the spec follows a width and a depth that are given to the class, as they do in the spec."""
    from tfdsl.backends.torch import emit

    stated = next(each for each in STATED if each.model == name)
    namespace: dict[str, Any] = {}
    exec(emit(stated.load().graph), namespace)
    torch.manual_seed(0)
    made = namespace[name](**SETTINGS[name]).state_dict()
    sizes = {**stated.sizes, **SETTINGS[name]}
    wanted = emitted(tfdsl.load(SPECS / stated.file, name, **sizes))
    assert set(made) == set(wanted)
    for path, values in made.items():
        np.testing.assert_array_equal(values.numpy(), wanted[path], err_msg=path)


SPREADS = """block Inner(x: [..., width]) -> [..., width] {
  param gain = 1.0
  table = weight(shape=[width], init=uniform(gain / width))
  initialize "up.weight" = kaiming_normal(gain)
  return linear(x, out=width) as up + table
}

block Outer(x: [..., width]) -> [..., width] {
  return x + Inner(x) as inner
}

model Spreads(x: [batch, width]) -> [batch, width] {
  param width = 200
  param depth = 2
  param gain = 0.5
  repeat layer[depth] {
    x = x + linear(x, out=width) as mix
    x = Outer(x) as outer
  }
  x = Inner(x, gain=gain) as last
  x = Inner(x) as untouched
  initialize "layer.*.mix.weight" = trunc_normal(gain / sqrt(depth))
  initialize "layer.*.outer.**.weight" = xavier_normal(gain)
  initialize "layer.*.mix.bias" = constant(gain)
  initialize "untouched.up.weight" = ones
  return x
}
"""


@pytest.mark.parametrize(("width", "depth", "gain"), [(200, 2, 0.5), (100, 3, 2.0)])
def test_spreads_that_are_written_around_a_block_follow_its_settings(
    width: int, depth: int, gain: float, source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "spec.tfm"
    path.write_text(SPREADS, "utf-8")
    values = source(tfdsl.load(path, width=width, depth=depth, gain=gain))
    if source is emitted:  # of the source for other settings, by its constructor
        from tfdsl.backends.torch import emit

        namespace: dict[str, Any] = {}
        exec(emit(tfdsl.load(path).graph), namespace)
        torch.manual_seed(0)
        values = {name: value.numpy() for name, value in namespace["Spreads"](width, depth, gain).state_dict().items()}
    for turn in range(depth):
        check(values[f"layer.{turn}.mix.weight"], Truncated(gain / math.sqrt(depth)))
        check(values[f"layer.{turn}.mix.bias"], Number(gain))
        check(values[f"layer.{turn}.outer.inner.up.weight"], Normal(gain / math.sqrt(width)))
        check(values[f"layer.{turn}.outer.inner.table"], Uniform(1 / width))
    check(values["last.up.weight"], Normal(gain / math.sqrt(width)))
    check(values["last.table"], Uniform(gain / width))
    check(values["untouched.up.weight"], Number(1))


# --- deep models -----------------------------------------------------------------------------------------------------

DEPTH = 48


TOKENS = {"vocab": 1000, "width": 64, "heads": 4}


@dataclass(frozen=True)
class Deep:
    """A model of many layers: its loops with the number of sublayers in a turn, and how the stream grows in them.

    `scaled` says that sublayers begin smaller the more there are, `normed` that each turn ends in a norm.
    """

    file: str
    model: str
    loops: Mapping[str, int]
    sizes: Mapping[str, int]
    scaled: bool = False
    normed: bool = False

    def __str__(self) -> str:
        return self.model

    def streams(self, depth: int) -> tuple[dict[str, list[float]], dict[str, list[float]], Any]:
        """The root mean square of the stream before and after each turn, the norm of its gradients, and the output."""
        model = tfdsl.load(SPECS / self.file, self.model, depth=depth, **self.sizes).to_torch(seed=0).eval()
        sizes: dict[str, list[float]] = {loop: [] for loop in self.loops}
        for loop in self.loops:
            turns = getattr(model, loop)
            note = sizes[loop].append
            turns[0].register_forward_pre_hook(lambda _, given, note=note: note(rms(given[0])))
            for turn in turns:
                turn.register_forward_hook(lambda _, given, result, note=note: note(rms(result)))
        result = model(*self.inputs())
        result = result[0] if isinstance(result, tuple) else result
        generator = torch.Generator().manual_seed(1)
        (result * torch.randn(result.shape, generator=generator)).mean().backward()
        slopes = {
            loop: [max(rms(weight.grad) for weight in turn.parameters() if weight.dim() > 1) for turn in turns]
            for loop in self.loops
            for turns in [getattr(model, loop)]
        }
        return sizes, slopes, result.detach()

    def inputs(self) -> tuple[Any, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randint(1000, (4, 32), generator=generator) for _ in self.loops)


def rms(x: Any) -> float:
    return float(x.detach().double().square().mean().sqrt())


DEEP = [
    Deep("gpt2.tfm", "GPT2", {"h": 2}, {**TOKENS, "context": 32}, scaled=True),
    Deep("llama.tfm", "Llama", {"layers": 2}, {**TOKENS, "hidden": 172}),
    Deep("t5.tfm", "T5", {"encoder": 2, "decoder": 3}, {**TOKENS, "head": 16, "hidden": 128}),
    Deep("bert.tfm", "Bert", {"layer": 2}, {**TOKENS, "context": 32}, normed=True),
]


@pytest.mark.parametrize("deep", DEEP, ids=str)
def test_signal_of_48_layers_neither_vanishes_nor_explodes(deep: Deep) -> None:
    """Sublayers add independent numbers of variance one at most, so that the stream grows as the root of the depth.

    Where each begins smaller by the root of their number, as GPT-2's paper has it, it grows as much at any depth.
    Gradients of all layers are of one order.
    """
    sizes, slopes, result = deep.streams(48)
    fewer, _, _ = deep.streams(12)
    for loop, found in sizes.items():
        first, last = found[0], found[-1]
        assert len(found) == 49
        assert all(0.5 * first <= each <= 2 * last for each in found), "the stream falls, or is largest on the way"
        assert last <= math.sqrt(first**2 + 48 * deep.loops[loop])
        if deep.scaled:
            assert last == pytest.approx(fewer[loop][-1], rel=0.05)
        elif deep.normed:
            assert found == pytest.approx([1.0] * 49, rel=1e-2)
        else:
            assert 1.2 * fewer[loop][-1] <= last <= 1.1 * math.sqrt(48 / 12) * fewer[loop][-1] + first
        assert max(slopes[loop]) <= 20 * min(slopes[loop])
    assert 0.05 < result.std() < 5
