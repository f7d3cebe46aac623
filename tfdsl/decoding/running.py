"""Running a built decoder: from what a user gives to prompts and inputs, by a runtime's own generator or by our loop."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfdsl.build import TARGETS
from tfdsl.decoding.generate import OnToken, check_prompts, generate
from tfdsl.decoding.manifest import Argument, Manifest, read_manifest
from tfdsl.decoding.sampling import GREEDY, Sampling
from tfdsl.decoding.session import open_session
from tfdsl.decoding.tokenizers import Coder, open_coder
from tfdsl.language.diagnostics import SpecError, one

Array = npt.NDArray[Any]

OWN = "tfdsl's own loop"
# The module of each target that drives its runtime's own generator.
GENERATORS = {"onnx": "tfdsl.backends.onnx.generator", "openvino": "tfdsl.backends.openvino.generator"}


class Generator(Protocol):
    """A runtime's own generator, opened on a folder. `ends` are tokens that end a text whatever is asked for."""

    name: str
    ends: tuple[int, ...]

    def generate(
        self, prompt: Sequence[int], new: int, sampling: Sampling, eos: Sequence[int], tell: Callable[[int], None]
    ) -> None:
        """Tell the new tokens of one prompt as they come, the one that ends it included."""


class Runner:
    """A built decoder, opened. Our loop over a session does what the `generator` of the runtime's own cannot do.

    `name` says for people who generated last. With `insist`, our loop does nothing.
    """

    def __init__(self, folder: Path, manifest: Manifest, generator: Generator | None, *, insist: bool = False):
        self.folder, self.manifest, self.generator, self.insist = folder, manifest, generator, insist
        self.name = OWN
        self._coder: Coder | None = None
        self._session = open_session(folder) if generator is None else None

    @property
    def coder(self) -> Coder:
        """The tokenizer that the build copied. Raises `SpecError` where there is none."""
        if self._coder is None:
            self._coder = open_coder(self.folder, self.manifest.tokenizer)
        return self._coder

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new: int | None = None,
        sampling: Sampling = GREEDY,
        eos: Sequence[int] | None = None,
        inputs: Mapping[str, Array] | None = None,
        on_token: OnToken | None = None,
    ) -> list[list[int]]:
        """The new tokens of each prompt, as `tfdsl.decoding.generate.generate` gives them. Raises `SpecError`."""
        new = check_prompts(self.manifest, prompts, max_new)
        ends = self.manifest.eos if eos is None else eos
        if max_new is None and self.insist and self.manifest.longest is not None:
            new = min(new, max(self.manifest.longest - len(prompts[0]), 1))  # theirs has no room for a last one
        hindrance = self._hindrance(prompts, new, ends, inputs)
        if hindrance and self.insist:
            raise one("T745", hindrance, help="`--generator auto` lets tfdsl's own loop do that")
        if self.generator is not None and not hindrance:
            self.name = self.generator.name
            found: list[int] = []

            def tell(token: int) -> None:
                found.append(token)
                if on_token is not None:
                    on_token(0, token)

            self.generator.generate(prompts[0], new, sampling, ends, tell)
            return [found]
        self.name = OWN
        self._session = self._session or open_session(self.folder)
        options: dict[str, Any] = {"sampling": sampling, "eos": ends, "inputs": inputs, "on_token": on_token}
        return generate(self._session, self.manifest, prompts, max_new=new, **options)

    def _hindrance(
        self, prompts: Sequence[Sequence[int]], new: int, ends: Sequence[int], inputs: Mapping[str, Array] | None
    ) -> str:
        """Why the runtime's generator does not do what is asked; "" where it does, or where there is none."""
        if self.generator is None:
            return ""
        name, longest = self.generator.name, self.manifest.longest
        if len(prompts) != 1:
            return f"{name} is given one prompt at a time, and there are {len(prompts)}"
        if inputs:
            return f"{name} is given tokens and no further inputs"
        if longest is not None and len(prompts[0]) + new > longest:
            # The last token is never fed back, but theirs keeps a place for it.
            return f"{name} has room for {max(longest - len(prompts[0]), 0)} new tokens here, and {new} are asked for"
        more = sorted(set(self.generator.ends) - set(ends))
        if more:
            return f"{name} ends texts at the token {more[0]}, whatever is asked for: `--eos {more[0]}` asks for that"
        return ""


def open_runner(folder: str | os.PathLike[str], generator: str = "auto") -> Runner:
    """Open a built decoder. `generator` is "own" for our loop, "runtime" to insist on the runtime's, "auto" for either.

    Raises `SpecError` for a folder that holds none, a target that is not installed, and a runtime's generator that is
    insisted on and cannot be had; the runner raises it for what such a generator cannot do.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if generator == "own":
        return Runner(path, manifest, None)
    try:
        return Runner(path, manifest, runtime_generator(path, manifest), insist=generator == "runtime")
    except SpecError:
        if generator == "runtime":
            raise
    return Runner(path, manifest, None)


def runtime_generator(folder: Path, manifest: Manifest) -> Generator:
    """The generator of the target's own runtime. Raises `SpecError` with the reason where there is none."""
    if manifest.target not in GENERATORS:
        raise one(
            "T745", f"{TARGETS[manifest.target].title} has no generator of its own", help="`--generator own` runs it"
        )
    if manifest.encoder_inputs:
        raise one("T745", "runtimes' own generators are for decoders alone", help="`--generator own` runs it")
    made: Generator = importlib.import_module(GENERATORS[manifest.target]).open_generator(folder, manifest)
    return made


@dataclass(frozen=True)
class Given:
    """What a user gave for one run, before it is known what the decoder takes."""

    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    source_texts: tuple[str, ...] = ()
    source_tokens: tuple[tuple[int, ...], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def prepare(runner: Runner, given: Given) -> tuple[list[list[int]], dict[str, Array]]:
    """The prompts, and the arrays of further inputs, that were given. Raises `SpecError`."""
    inputs = {name: _loaded(name, path) for name, path in given.files.items()}
    sources = [runner.coder.encode(text) for text in given.source_texts] + [list(row) for row in given.source_tokens]
    if sources:
        inputs |= source_inputs(runner.manifest, sources, inputs)
    prompts = [runner.coder.encode(text) for text in given.texts] + [list(row) for row in given.tokens]
    if not prompts and runner.manifest.encoder_inputs:
        rows = max([len(sources), *(len(value) for value in inputs.values() if value.ndim)], default=1)
        prompts = [[_start(runner.manifest)]] * rows
    return prompts, inputs


def source_inputs(
    manifest: Manifest, sources: Sequence[Sequence[int]], given: Mapping[str, Array] = {}
) -> dict[str, Array]:
    """The encoder's inputs for tokens of sources: the tokens, and which of them are real, where it reads that."""
    plain = {name: each for name, each in manifest.encoder_inputs.items() if len(each.dims) == 2 and name not in given}
    names = [name for name, each in plain.items() if each.dtype == "int"]
    if not names:
        takes = ", ".join(manifest.encoder_inputs) or "no source"
        raise one("T747", f"`{manifest.model}` takes no tokens of a source: it takes {takes}")
    if not all(map(len, sources)):
        raise one("T747", "a source of no tokens has nothing to go on from", help="give at least one token")
    tokens = np.zeros((len(sources), max(map(len, sources))), np.int64)
    real = np.zeros(tokens.shape, np.bool_)
    for row, source in enumerate(sources):
        tokens[row, : len(source)], real[row, : len(source)] = source, True
    masks = {name: real for name, each in plain.items() if _is_mask(each, plain[names[0]])}
    if not masks and not real.all():
        help_ = "build it with its optional input for the padding (`--with`), or run them one by one"
        raise one("T747", f"`{manifest.model}` cannot tell padding in sources of different lengths", help=help_)
    return {names[0]: tokens, **masks}


def _is_mask(each: Argument, tokens: Argument) -> bool:
    """Whether an input says which tokens are real: booleans on the same axes."""
    return each.dtype == "bool" and each.dims == tokens.dims


def _start(manifest: Manifest) -> int:
    if manifest.start is None:
        help_ = "give it with `--tokens`"
        raise one("T747", f"it is not known which token `{manifest.model}` begins with", help=help_)
    return manifest.start


def _loaded(name: str, path: str) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise one(
            "T747", f"`{path}`, for the input `{name}`, cannot be read: {error}", help="it is a .npy file"
        ) from None
    return array
