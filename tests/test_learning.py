"""Emitted modules learn in a plain PyTorch loop, each task beyond what its structure is needed for, and reproducibly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import learning  # noqa: E402 (it needs torch)

import tfdsl  # noqa: E402


def test_causal_language_model_learns_from_context() -> None:
    """On files that it has not seen it is better than the frequencies of pairs of bytes make it."""
    text = learning.library_text()
    model = learning.load("gpt2.tfm", "GPT2", vocab=256, context=64, width=64, depth=2, heads=4)

    def loss_of(generator: np.random.Generator) -> Any:
        return learning.next_byte_loss(model, learning.windows(text.seen, 32, 65, generator))

    learning.train(model, loss_of, 350, 1e-2)
    unseen = learning.windows(text.held_out, 256, 65, np.random.default_rng(1))
    with torch.no_grad():
        loss = learning.next_byte_loss(model.eval(), unseen).item()
    assert loss < 2.2 < text.entropy(context=1)


@pytest.mark.parametrize(("whole_words", "steps", "context"), [(False, 800, 1), (True, 500, 0)], ids=["bytes", "words"])
def test_masked_language_model_learns_from_both_sides(whole_words: bool, steps: int, context: int) -> None:
    """Single bytes become likelier than after the byte before alone; of whole words less can be known.

    The test hides half as many as the training does, in files that the model has not seen.
    """
    text = learning.library_text()
    model = learning.load("bert.tfm", "BertForMaskedLM", vocab=257, context=16, width=64, depth=2, heads=4, inner=128)

    def loss_on(bytes_: Any, count: int, share: float, generator: np.random.Generator) -> Any:
        tokens = learning.windows(bytes_, count, 16, generator)
        hidden = learning.hidden_places(tokens, share, whole_words, generator)
        return learning.hidden_byte_loss(model, tokens, hidden)

    learning.train(model, lambda generator: loss_on(text.seen, 128, 0.3, generator), steps, 1e-2)
    with torch.no_grad():
        loss = loss_on(text.held_out, 1024, 0.15, np.random.default_rng(1)).item()
    assert loss < text.entropy(context=context) - (0.5 if whole_words else 0.0)


def test_whole_words_are_hidden_whole() -> None:
    """Every run of letters, digits and underscores is hidden or shown as one, and 15 % of the places are chosen."""
    generator = np.random.default_rng(0)
    tokens = learning.windows(learning.library_text().seen, 500, 64, generator)
    hidden = learning.hidden_places(tokens, 0.15, True, generator)
    together = learning.WORD[tokens[:, 1:]] & learning.WORD[tokens[:, :-1]]
    assert together.mean() > 0.3
    assert (hidden[:, 1:] == hidden[:, :-1])[together].all()
    assert 0.13 < hidden.mean() < 0.17
    assert (hidden[:, 1:] != hidden[:, :-1])[~together].any()


@pytest.mark.parametrize("change", [lambda symbols: symbols[::-1], np.sort], ids=["reverse", "sort"])
def test_encoder_decoder_learns_to(change: Callable[[Any], Any]) -> None:
    """Above 99 % of sequences that are drawn anew come out exactly, decoded greedily."""
    sizes = {"vocab": 13, "width": 64, "depth": 2, "heads": 4, "head": 16, "hidden": 128}
    model = learning.load("t5.tfm", "T5", ("keep",), **sizes)
    learning.train(model, lambda generator: learning.pair_loss(model, learning.pairs(change, 64, generator)), 900, 3e-3)
    unseen = learning.pairs(change, 1000, np.random.default_rng(1))
    assert learning.exact_matches(model.eval(), unseen) > 0.99


def test_vision_transformer_learns_digits() -> None:
    pytest.importorskip("sklearn")
    seen, unseen = learning.digits()
    sizes = {"size": 8, "patch": 4, "width": 64, "depth": 2, "heads": 4, "hidden": 128, "classes": 10}
    model = learning.load("vit.tfm", "ViT", **sizes)
    learning.train(model, lambda generator: learning.digit_loss(model, seen, 64, generator), 1400, 4e-3)
    assert learning.accuracy(model.eval(), unseen) > 0.97


def train_anew(seed: int) -> tuple[list[float], dict[str, Any]]:
    """A few steps of a model with dropout: its losses, and its weights after them."""
    model = learning.load("gpt2.tfm", "GPT2", vocab=256, context=32, width=32, depth=2, heads=2, drop=0.1)
    text = learning.library_text().seen

    def loss_of(generator: np.random.Generator) -> Any:
        return learning.next_byte_loss(model, learning.windows(text, 8, 33, generator))

    return learning.train(model, loss_of, 20, 1e-2, seed), model.state_dict()


def test_same_seed_same_result() -> None:
    """To the bit, dropout included; and another seed gives another result."""
    losses, weights = train_anew(0)
    again, same = train_anew(0)
    assert losses == again
    assert all(torch.equal(weights[path], same[path]) for path in weights)
    assert losses != train_anew(1)[0]


def test_same_seed_same_weights_to_begin_with() -> None:
    """Whether they are drawn by tfdsl or, with torch's own seed, by the emitted source."""
    spec = tfdsl.load(learning.SPECS / "gpt2.tfm", vocab=50, width=32, depth=2, heads=2)

    def own(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        return spec.to_torch().state_dict()

    for make in (own, lambda seed: spec.to_torch(seed=seed).state_dict()):
        first, same, other = make(0), make(0), make(1)
        assert all(torch.equal(first[path], same[path]) for path in first)
        assert not torch.equal(first["wte.weight"], other["wte.weight"])
