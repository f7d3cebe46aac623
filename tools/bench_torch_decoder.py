"""Decoding in PyTorch: our module with its cache against `transformers` (eager attention) with its own, alternating.

`python tools/bench_torch_decoder.py [--threads 2] [--new 24] [--rounds 5]` prints, for a Llama of 125M parameters in float32,
milliseconds a token after prompts of 32 and of 512 tokens and for the prompt of 512, and the ratios of the medians. Both
have the same weights, and the tokens that they give are compared. Needs `torch` and `transformers`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import tfdsl
from tfdsl.backends.torch.decoder import build_decoder, decoder_session

SPEC = Path(__file__).parent.parent / "specs" / "llama.tfm"
SIZES = {"vocab": 32_000, "width": 768, "depth": 12, "heads": 12, "kv_heads": 4, "hidden": 2048}
CONFIG = {
    "vocab_size": SIZES["vocab"],
    "hidden_size": SIZES["width"],
    "num_hidden_layers": SIZES["depth"],
    "num_attention_heads": SIZES["heads"],
    "num_key_value_heads": SIZES["kv_heads"],
    "intermediate_size": SIZES["hidden"],
    "rms_norm_eps": 1e-5,
}


class Clock:
    """Notes when tokens come; what `generate` calls a streamer."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def peer(model: Any, tokens: torch.Tensor, new: int) -> tuple[torch.Tensor, list[float]]:
    """Greedy tokens of `transformers`, and when they came, the beginning first."""
    clock, start = Clock(), time.perf_counter()
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0, "streamer": clock}
    found = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)
    return found[:, tokens.shape[1] :], [start, *clock.times[1:]]  # the first call hands the prompt over


def ours(model: Any, tokens: torch.Tensor, new: int) -> tuple[torch.Tensor, list[float]]:
    """Greedy tokens of our decoder, and when they came, the beginning first."""
    model.reset()
    times, found, given = [time.perf_counter()], [], tokens
    for _ in range(new):
        given = model(given)[:, -1].argmax(-1, keepdim=True)
        found.append(given)
        times.append(time.perf_counter())
    return torch.cat(found, dim=1), times


def models() -> tuple[Any, Any]:
    """Both models with the same weights."""
    config = transformers.LlamaConfig(**CONFIG, attn_implementation="eager")
    theirs = transformers.LlamaForCausalLM(config).eval()
    weights = {name.removeprefix("model."): each.numpy() for name, each in theirs.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        build_decoder(tfdsl.load(SPEC, "Llama", **SIZES).graph, weights, Path(folder))
        return theirs, decoder_session(Path(folder)).model


def main(threads: int, new: int, rounds: int) -> None:
    """Print times and ratios."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    theirs, decoder = models()
    for length in (32, 512):
        tokens = torch.randint(0, SIZES["vocab"], (1, length))
        first: dict[str, list[float]] = {"peer": [], "ours": []}
        later: dict[str, list[float]] = {"peer": [], "ours": []}
        found = {}
        for _ in range(rounds):
            for name, (generated, times) in {
                "peer": peer(theirs, tokens, new),
                "ours": ours(decoder, tokens, new),
            }.items():
                spans = [1000 * (after - before) for before, after in zip(times, times[1:], strict=False)]
                first[name].append(spans[0])
                later[name] += spans[1:]
                found[name] = generated
        same = "equal" if torch.equal(found["peer"], found["ours"]) else "DIFFERENT"
        print(f"{same} tokens after {length}; {describe('a token', later)}; {describe('the prompt', first)}")


def describe(what: str, times: dict[str, list[float]]) -> str:
    """Both medians and their ratio."""
    peer_, ours_ = (statistics.median(times[name]) for name in ("peer", "ours"))
    return f"{what} {peer_:.1f} ms against our {ours_:.1f} ms, {peer_ / ours_:.2f}x"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    main(**vars(parser.parse_args()))
