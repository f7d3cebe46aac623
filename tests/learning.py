"""A plain PyTorch training loop and the data that models learn from in tests: text, pairs of sequences and digits."""

from __future__ import annotations

import math
import re
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tfdsl

torch.set_num_threads(1)  # sums are made in one order, and two workers of pytest share two cores

SPECS = Path(__file__).parent.parent / "specs"
Array = npt.NDArray[Any]
Loss = Callable[[np.random.Generator], Tensor]


def load(file: str, model: str, inputs: tuple[str, ...] = (), **sizes: Any) -> nn.Module:
    """A shipped model at a small size, without dropout unless `sizes` has `drop`, in training."""
    spec = tfdsl.load(SPECS / file, model, inputs=inputs, **{"drop": 0.0, **sizes})
    return spec.to_torch(seed=0).train()


def train(model: nn.Module, loss_of: Loss, steps: int, rate: float, seed: int = 0) -> list[float]:
    """AdamW, a warm-up over a tenth of the steps, half a cosine down to zero, clipped gradients; the loss of each step.

    `loss_of` draws a batch from the generator and gives the loss on it; `seed` is for batches and dropout.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, 10 * (step + 1) / steps) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = loss_of(generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- text ------------------------------------------------------------------------------------------------------------

MASK = 256  # the token of hidden bytes
WORD = np.array([re.match(rb"\w", bytes([byte])) is not None for byte in range(256)])


@dataclass(frozen=True)
class Text:
    """Bytes to learn from, and others to test on."""

    seen: Array
    held_out: Array

    def entropy(self, context: int) -> float:
        """Nats a byte for who knows how frequent each byte is after each one (context 1) or at all (context 0)."""
        bytes_ = self.seen.astype(np.int64)
        before = bytes_[:-1] if context else np.zeros(len(bytes_) - 1, np.int64)
        share = np.bincount(before * 256 + bytes_[1:], minlength=256 * 256).reshape(256, 256) / (len(bytes_) - 1)
        given = share / np.maximum(share.sum(1, keepdims=True), 1e-30)
        return float(-(share[share > 0] * np.log(given[share > 0])).sum())


@cache
def library_text() -> Text:
    """The source of Python's standard library; the last 200,000 bytes are held out."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = np.frombuffer(b"\n".join(path.read_bytes() for path in files), np.uint8)
    return Text(text[:-200_000], text[-200_000:])


def windows(text: Array, count: int, length: int, generator: np.random.Generator) -> Array:
    """Random pieces of a text, as integers [count, length]."""
    starts = generator.integers(0, len(text) - length, count)
    return np.stack([text[start : start + length] for start in starts]).astype(np.int64)


def next_byte_loss(model: nn.Module, tokens: Array) -> Tensor:
    """Cross-entropy of each byte given those before it, in nats."""
    given = torch.from_numpy(tokens)
    return F.cross_entropy(model(given[:, :-1]).flatten(0, 1), given[:, 1:].flatten())


def hidden_places(tokens: Array, share: float, whole_words: bool, generator: np.random.Generator) -> Array:
    """Which of the bytes [batch, seq] are hidden: a share of them, or all bytes of a share of the words."""
    chosen = generator.random(tokens.shape) < share
    if not whole_words:
        return chosen
    in_word = WORD[tokens]
    goes_on = np.zeros_like(in_word)
    goes_on[:, 1:] = in_word[:, 1:] & in_word[:, :-1]
    return np.take_along_axis(chosen, np.cumsum(~goes_on, axis=1) - 1, axis=1)


def hidden_byte_loss(model: nn.Module, tokens: Array, hidden: Array) -> Tensor:
    """Cross-entropy of the hidden bytes given all others, in nats."""
    logits = model(torch.from_numpy(np.where(hidden, MASK, tokens)))
    return F.cross_entropy(logits[torch.from_numpy(hidden)], torch.from_numpy(tokens[hidden]))


# --- pairs of sequences ----------------------------------------------------------------------------------------------

PADDING, START, END, SYMBOLS = 0, 1, 2, 10
LONGEST = 8


@dataclass(frozen=True)
class Pairs:
    """Sources and targets [batch, LONGEST + 1]: 3 to 8 of ten symbols, an end and padding."""

    sources: Tensor
    targets: Tensor

    @property
    def real(self) -> Tensor:
        """Which tokens of the sources, and of the targets too, are not padding."""
        return self.sources != PADDING


def pairs(change: Callable[[Array], Array], count: int, generator: np.random.Generator) -> Pairs:
    """Random sequences and what `change` makes of each."""
    sources, targets = np.full((2, count, LONGEST + 1), PADDING)
    for row, length in enumerate(generator.integers(3, LONGEST + 1, count)):
        symbols = generator.integers(END + 1, END + 1 + SYMBOLS, length)
        sources[row, : length + 1] = [*symbols, END]
        targets[row, : length + 1] = [*change(symbols), END]
    return Pairs(torch.from_numpy(sources), torch.from_numpy(targets))


def pair_loss(model: nn.Module, batch: Pairs) -> Tensor:
    """Cross-entropy of each token of the target given the source and the tokens before."""
    before = F.pad(batch.targets[:, :-1], (1, 0), value=START)
    logits = model(batch.sources, before, batch.real)
    return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=PADDING)


@torch.no_grad()
def exact_matches(model: nn.Module, batch: Pairs) -> float:
    """The share of sources that are answered without a fault, each token being the likeliest after those before it."""
    found = torch.full((len(batch.sources), 1), START)
    for _ in range(LONGEST + 1):
        likeliest = model(batch.sources, found, batch.real)[:, -1:].argmax(dim=-1)
        found = torch.cat([found, likeliest], dim=1)
    return ((found[:, 1:] == batch.targets) | ~batch.real).all(dim=1).double().mean().item()


# --- digits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Images [count, 3, 8, 8] with values -1 .. 1, and what they show."""

    images: Tensor
    labels: Tensor


def digits() -> tuple[Digits, Digits]:
    """scikit-learn's handwritten digits: 1,347 to learn from and 450 to test on, always the same."""
    from sklearn.datasets import load_digits

    values, shown = load_digits(return_X_y=True)
    images = torch.from_numpy((values / 8 - 1).astype(np.float32)).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1)
    labels, order = torch.from_numpy(shown), torch.from_numpy(np.random.default_rng(0).permutation(len(shown)))
    seen, unseen = order[450:], order[:450]
    return Digits(images[seen], labels[seen]), Digits(images[unseen], labels[unseen])


def moved(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Images turned, slanted, shifted and scaled a little, each in its own way, before a background of -1."""
    angle, slant, right, down = generator.uniform(-1, 1, (4, len(images))) * [[0.25], [0.15], [0.15], [0.15]]
    size = generator.uniform(0.85, 1.15, len(images))
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    maps = np.stack([np.stack([cos, slant - sin, right], 1), np.stack([sin, cos, down], 1)], 1)
    grid = F.affine_grid(torch.from_numpy(maps).float(), list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def digit_loss(model: nn.Module, known: Digits, count: int, generator: np.random.Generator) -> Tensor:
    """Cross-entropy of what so many images show, which are drawn at random and moved."""
    chosen = generator.integers(0, len(known.labels), count)
    return F.cross_entropy(model(moved(known.images[chosen], generator)), known.labels[chosen])


@torch.no_grad()
def accuracy(model: nn.Module, known: Digits) -> float:
    """The share of images that are recognised."""
    return (model(known.images).argmax(dim=-1) == known.labels).double().mean().item()
