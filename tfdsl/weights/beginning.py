"""First values of weights: those that a spec asks for, and random ones on which every weight makes a difference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np

from tfdsl.ir.dims import evaluate
from tfdsl.ir.graph import Graph, Initializer, Weight, weights
from tfdsl.weights.memory import bytes_needed, require_memory
from tfdsl.weights.source import Array, Source

Shape = tuple[int, ...]
_XAVIER = Initializer("xavier_uniform")


def initial(graph: Graph, seed: int) -> dict[str, Array]:
    """Every weight as its initialiser says, in float32; it depends on the seed and its path, and on no other weight."""
    return _make(graph, lambda weight, path, shape: start(weight.initializer or _XAVIER, shape, generator(seed, path)))


def drawn(graph: Graph, seed: int) -> Source:
    """What `initial` gives, each weight drawn when it is read, so that a large model is never in memory at once."""
    return _Drawn(graph, seed)


class _Drawn(Source):
    """Weights as their initialisers say."""

    def __init__(self, graph: Graph, seed: int):
        self._weights = {path: weight for weight in weights(graph) for path in weight.paths()}
        self._seed = seed

    def dtype(self, name: str) -> str:
        return "F32"

    def raw(self, name: str) -> Array:
        weight = self._weights[name]
        shape = tuple(evaluate(dim, {}) for dim in weight.type.dims)
        return start(weight.initializer or _XAVIER, shape, generator(self._seed, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def trial(graph: Graph, seed: int) -> dict[str, Array]:
    """Weights to compare backends on, in float32: activations stay near one, and nothing is exactly zero or one.

    Matrices are normal with deviation 1/sqrt(fan in); what begins at zero or one is moved from there by 0.1 * normal.
    """
    return _make(graph, lambda weight, path, shape: _disturbed(weight.initializer, shape, generator(seed, path)))


def fans(shape: Shape) -> tuple[float, float]:
    """Fan in and fan out of a weight [out, in, *kernel], at least one each; a vector's are its length."""
    if len(shape) < 2:
        return (math.prod(shape),) * 2
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def generator(seed: int, path: str) -> np.random.Generator:
    """The random numbers of one weight."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest(), "little"))


def start(initializer: Initializer, shape: Shape, random: np.random.Generator) -> Array:
    """A float32 array as an initialiser says; one without numbers takes its defaults."""
    return _INITIALIZERS[initializer.kind](shape, random, *initializer.arguments)


def _make(graph: Graph, make: Callable[[Weight, str, Shape], Array]) -> dict[str, Array]:
    require_memory(bytes_needed(graph), f"`{graph.name}` with its weights")
    made: dict[str, Array] = {}
    for weight in weights(graph):
        shape = tuple(evaluate(dim, {}) for dim in weight.type.dims)
        for path in weight.paths():
            if path not in made:
                made[path] = make(weight, path, shape)
    return made


def _disturbed(initializer: Initializer | None, shape: Shape, random: np.random.Generator) -> Array:
    kind = initializer.kind if initializer else ""
    if kind in ("ones", "constant") or (len(shape) < 2 and kind == "zeros"):
        assert initializer is not None
        return start(initializer, shape, random) + _normal(shape, random, 0.1)
    return _normal(shape, random, 1 / math.sqrt(max(fans(shape)[0], 1)))


def _normal(shape: Shape, random: np.random.Generator, deviation: float = 0.02) -> Array:
    return random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)


def _truncated(shape: Shape, random: np.random.Generator, deviation: float = 0.02) -> Array:
    """Normal, and drawn anew beyond two deviations."""
    values = random.standard_normal(shape, dtype=np.float32)
    beyond = np.abs(values) > 2
    while beyond.any():
        values[beyond] = random.standard_normal(np.count_nonzero(beyond), dtype=np.float32)
        beyond = np.abs(values) > 2
    return values * np.float32(deviation)


def _uniform(shape: Shape, random: np.random.Generator, bound: float) -> Array:
    return (random.random(shape, dtype=np.float32) * 2 - 1) * np.float32(bound)


def _xavier_uniform(shape: Shape, random: np.random.Generator, gain: float = 1.0) -> Array:
    return _uniform(shape, random, gain * math.sqrt(6 / sum(fans(shape))))


def _xavier_normal(shape: Shape, random: np.random.Generator, gain: float = 1.0) -> Array:
    return _normal(shape, random, gain * math.sqrt(2 / sum(fans(shape))))


def _kaiming_uniform(shape: Shape, random: np.random.Generator, gain: float = 1.0) -> Array:
    return _uniform(shape, random, gain * math.sqrt(3 / fans(shape)[0]))


def _kaiming_normal(shape: Shape, random: np.random.Generator, gain: float = 1.0) -> Array:
    return _normal(shape, random, gain / math.sqrt(fans(shape)[0]))


_INITIALIZERS: dict[str, Callable[..., Array]] = {
    "zeros": lambda shape, random: np.zeros(shape, np.float32),
    "ones": lambda shape, random: np.ones(shape, np.float32),
    "constant": lambda shape, random, value: np.full(shape, value, np.float32),
    "normal": _normal,
    "trunc_normal": _truncated,
    "uniform": _uniform,
    "xavier_uniform": _xavier_uniform,
    "xavier_normal": _xavier_normal,
    "kaiming_uniform": _kaiming_uniform,
    "kaiming_normal": _kaiming_normal,
}
