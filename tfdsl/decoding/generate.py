"""The loop that generates: a batch of prompts goes in at once, padded on the left, and then a token of each row a step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfdsl.decoding.manifest import MASK, POSITIONS, Manifest
from tfdsl.decoding.sampling import GREEDY, Chooser, Sampling
from tfdsl.decoding.session import DecoderSession
from tfdsl.language.diagnostics import did_you_mean, one

Array = npt.NDArray[Any]
OnToken = Callable[[int, int], None]

NEW = 128  # how many tokens are generated where nobody says
_PAD = 0  # any token does: padding is masked


def generate(
    session: DecoderSession,
    manifest: Manifest,
    prompts: Sequence[Sequence[int]],
    *,
    max_new: int | None = None,
    sampling: Sampling = GREEDY,
    eos: Collection[int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    on_token: OnToken | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt, the token that ends a row included. Raises `SpecError`.

    `eos` are the tokens that end a row, those of the manifest if none are given. `inputs` are the arrays of further
    inputs by name, an encoder's among them, with a row for each prompt. `on_token` is told row and token as they come.
    """
    new = check_prompts(manifest, prompts, max_new)
    given = _checked_inputs(manifest, inputs or {}, len(prompts))
    ends = set(manifest.eos if eos is None else eos)
    chooser = Chooser(sampling, len(prompts))
    session.reset()
    if manifest.encoder_inputs:
        session.encode({name: given[name] for name in manifest.encoder_inputs})
    tokens, mask = pad_left(prompts)
    found: list[list[int]] = [[] for _ in prompts]
    running = [True] * len(prompts)
    for count in range(new):
        if count:
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        logits = session.step(step_inputs(manifest, tokens, mask, given))[manifest.logits]
        chosen = chooser.choose(np.asarray(logits)[:, -1])
        for row, token in enumerate(chosen):
            if running[row]:
                found[row].append(token)
                running[row] = token not in ends
                if on_token is not None:
                    on_token(row, token)
        if not any(running):
            break
        tokens = np.asarray(chosen, np.int64)[:, None]
    return found


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Tokens and attention mask of prompts, int64 [rows, longest]: padding stands on the left, and has mask 0."""
    width = max(map(len, prompts))
    tokens = np.full((len(prompts), width), _PAD, np.int64)
    mask = np.zeros((len(prompts), width), np.int64)
    for row, prompt in enumerate(prompts):
        if len(prompt):
            tokens[row, -len(prompt) :] = prompt
            mask[row, -len(prompt) :] = 1
    return tokens, mask


def step_inputs(manifest: Manifest, tokens: Array, mask: Array, given: Mapping[str, Array]) -> dict[str, Array]:
    """What a step takes for new tokens [rows, new] behind a mask [rows, past + new], as far as the graph reads it."""
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, -tokens.shape[1] :]
    everything = {**given, manifest.tokens: tokens, MASK: mask, POSITIONS: positions}
    return {name: everything[name] for name in manifest.inputs}


def check_prompts(manifest: Manifest, prompts: Sequence[Sequence[int]], max_new: int | None) -> int:
    """How many tokens to generate at most. Raises `SpecError` for prompts that the model cannot take."""
    given = manifest.inputs.get(manifest.tokens)
    if manifest.vocab is None or given is None or (given.dtype, len(given.dims)) != ("int", 2):
        help_ = "it takes `int[batch, seq]` and gives numbers over the vocabulary, [batch, seq, vocab]"
        raise one("T741", f"`{manifest.model}` is no model that goes on from tokens", help=help_)
    if not prompts or not all(map(len, prompts)):
        raise one("T747", "a prompt of no tokens has nothing to go on from", help="give at least one token")
    for token in (token for prompt in prompts for token in prompt):
        if not 0 <= token < manifest.vocab:
            message = f"`{manifest.model}` has no token {token}: its vocabulary is {manifest.vocab}"
            raise one("T747", message, help="is it the tokenizer of this model?")
    if max_new is not None and max_new < 1:
        raise one("T747", f"{max_new} new tokens cannot be generated: at least one")
    longest, width = manifest.longest, max(map(len, prompts))
    if longest is None:
        return NEW if max_new is None else max_new
    # The last token is never fed back, so that a row may come to one more than the model takes.
    room = longest - width + 1
    if room < 1:
        raise one("T747", f"the prompt has {width} tokens, and `{manifest.model}` takes {longest} at most")
    if max_new is not None and max_new > room:
        message = f"{width} tokens and {max_new} new ones are more than the {longest} that `{manifest.model}` takes"
        raise one("T747", message, help=f"`--max-new {room}` is the most")
    return min(NEW, room) if max_new is None else max_new


def _checked_inputs(manifest: Manifest, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """Further inputs as arrays; refuses those that are missing or unknown, and such as have another number of rows."""
    own = {manifest.tokens, MASK, POSITIONS}
    wanted = [name for name in {**manifest.encoder_inputs, **manifest.inputs} if name not in own]
    for name in inputs:
        if name not in wanted:
            help_ = did_you_mean(name, wanted, f"it takes {', '.join(wanted)}" if wanted else "it takes tokens alone")
            raise one("T747", f"`{manifest.model}` has no further input `{name}`", help=help_)
    for name in wanted:
        if name not in inputs:
            raise one("T747", f"`{manifest.model}` takes an input `{name}` beside its tokens, which is not given")
        if np.ndim(inputs[name]) and len(inputs[name]) != rows:
            raise one("T747", f"the input `{name}` has {len(inputs[name])} rows for {rows} prompts")
    return {name: np.asarray(inputs[name]) for name in wanted}
