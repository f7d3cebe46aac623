"""Initial weights have the distributions that the specs state, and deep models at initialisation keep their signal.

Distributions are told apart by their moments. A sample of n numbers has its mean within s / sqrt(n) of the true one, its
variance within v * sqrt((k - 1) / n) and its kurtosis k within sqrt(24 / n) or less; six times that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfdsl
from tfdsl.ir.elaborate.patterns import compile_pattern
from tfdsl.ir.graph import Initializer, weights
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
    ("shape", "text"), [(shape, text) for shape, kinds in SHAPES.items() for text in kinds], ids=lambda each: each
)
def test_initialiser(shape: str, text: str, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "spec.tfm"
    bare = " + ".join(["x", *("max(" * shape.count(",") + "w" + ")" * shape.count(",") for _ in (0,))])
    reduced = "w" if "," not in shape else "max(max(w))" if shape.count(",") == 2 else "max(w)"
    path.write_text(
        f"model M(x: [batch, 1]) -> [] {{\n  w = weight(shape={shape}, init={text})\n"
        f"  return max(max(x)) + max({reduced})\n}}\n",
        "utf-8",
    )
    values = source(tfdsl.load(path))["w"]
    assert list(values.shape) == [int(size) for size in shape.strip("[]").split(",")]
    check(values, SHAPES[shape][text])
