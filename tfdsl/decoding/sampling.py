"""Choosing the next token from logits: the largest, or one drawn at random from those that remain after cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.language.diagnostics import one

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: greedily, unless one of the first three is given. Raises `SpecError` for what cannot be.

    `temperature` divides the logits (1 if only the others are given, 0 is greedy), `top_k` keeps so many of the largest,
    `top_p` the fewest whose probabilities come to it; `seed` makes the draws repeatable.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            raise one("T748", f"a temperature cannot be {self.temperature}: it is 0, or a number above it")
        if self.top_k is not None and self.top_k < 1:
            raise one("T748", f"`top_k` cannot be {self.top_k}: at least one token is kept")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise one("T748", f"`top_p` cannot be {self.top_p}: it is above 0 and at most 1")

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is taken, the first of equal ones."""
        return self.temperature == 0 or (self.temperature, self.top_k, self.top_p) == (None, None, None)


GREEDY = Sampling()


class Chooser:
    """The next token of each row; a row's draws depend on the seed and its place alone, not on the rows beside it."""

    def __init__(self, sampling: Sampling, rows: int):
        self.sampling = sampling
        seeds = np.random.SeedSequence(sampling.seed).spawn(rows)
        self._random = [np.random.default_rng(seed) for seed in seeds]

    def choose(self, logits: Array) -> list[int]:
        """A token for each row of logits, [rows, vocab]."""
        if np.isnan(logits).any():
            raise one("T749", "the model gave logits that are no numbers (NaN)", help="`tfm verify` finds where")
        if self.sampling.greedy:
            return [int(token) for token in np.argmax(logits, axis=-1)]
        return [self._draw(random, row) for random, row in zip(self._random, logits, strict=True)]

    def _draw(self, random: np.random.Generator, logits: Array) -> int:
        probabilities = probabilities_of(logits, self.sampling)
        return int(random.choice(len(probabilities), p=probabilities))


def probabilities_of(logits: Array, sampling: Sampling) -> Array:
    """The probability of each token in a row of logits after temperature and cuts, in that order, in float64."""
    scaled = np.asarray(logits, np.float64) / (1.0 if sampling.temperature is None else sampling.temperature)
    order = np.argsort(-scaled, kind="stable")
    exponentials = np.exp(scaled[order] - scaled[order[0]])
    kept = np.ones(len(order), bool)
    if sampling.top_k is not None:
        kept[sampling.top_k :] = False
    shares = np.where(kept, exponentials, 0.0)
    shares /= shares.sum()
    if sampling.top_p is not None:
        before = np.cumsum(shares) - shares  # of the larger ones: the first is always kept
        shares = np.where(before < sampling.top_p, shares, 0.0)
        shares /= shares.sum()
    result = np.zeros(len(order))
    result[order] = shares
    return result
