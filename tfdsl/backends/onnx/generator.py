"""Driving the generator of onnxruntime-genai on a folder that has its `genai_config.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdsl.backends.onnx import genai
from tfdsl.decoding.manifest import Manifest
from tfdsl.decoding.sampling import Sampling
from tfdsl.language.diagnostics import SpecError, one


class GenaiGenerator:
    """One prompt at a time; `ends` are the tokens that the folder's configuration says end a text."""

    name = genai.NAME

    def __init__(self, package: Any, folder: Path, ends: tuple[int, ...]):
        self._package, self._folder, self.ends = package, folder, ends
        self._models: dict[tuple[int, ...], Any] = {}

    def generate(
        self, prompt: Sequence[int], new: int, sampling: Sampling, eos: Sequence[int], tell: Callable[[int], None]
    ) -> None:
        """Tell the new tokens of a prompt as they come. Raises `SpecError` where the runtime fails."""
        try:
            model = self._model(tuple(sorted(set(eos) - set(self.ends))))
            parameters = self._package.GeneratorParams(model)
            parameters.set_search_options(max_length=len(prompt) + new, **_options(sampling))
            generator = self._package.Generator(model, parameters)
            generator.append_tokens(np.asarray([prompt], np.int32))
            while not generator.is_done():
                generator.generate_next_token()
                tell(int(generator.get_next_tokens()[0]))
        except RuntimeError as error:
            raise _failed(error) from None

    def _model(self, more_ends: tuple[int, ...]) -> Any:
        """The model, opened, with more tokens that end a text: the runtime adds them to those of the folder."""
        if more_ends not in self._models:
            configuration = self._package.Config(str(self._folder))
            if more_ends:
                configuration.overlay(json.dumps({"model": {"eos_token_id": list(more_ends)}}))
            self._models[more_ends] = self._package.Model(configuration)
        return self._models[more_ends]


def open_generator(folder: Path, manifest: Manifest) -> GenaiGenerator:
    """The generator of onnxruntime-genai on a folder. Raises `SpecError` (T745) where it cannot be had."""
    if manifest.profile != "ort":
        raise one("T745", f"{genai.NAME} opens folders of the profile `ort`, and this is `{manifest.profile}`")
    if why := manifest.pipelines.get(genai.NAME, "the build says nothing of it"):
        raise one("T745", f"{genai.NAME} cannot run `{manifest.model}`: {why}")
    try:
        import onnxruntime_genai
    except ImportError as error:
        raise one("T745", f"{genai.NAME} does not load: {error}", help=f"pip install {genai.NAME}") from None
    return GenaiGenerator(onnxruntime_genai, folder, genai.ends_of(folder))


def _options(sampling: Sampling) -> dict[str, Any]:
    if sampling.greedy:
        return {"do_sample": False}
    found: dict[str, Any] = {"do_sample": True, "top_k": sampling.top_k or 0, "top_p": sampling.top_p or 1.0}
    found["temperature"] = 1.0 if sampling.temperature is None else sampling.temperature
    return found if sampling.seed is None else {**found, "random_seed": sampling.seed}


def _failed(error: RuntimeError) -> SpecError:
    reason = str(error).strip().splitlines()[0]
    return one("T745", f"{genai.NAME} failed: {reason}", help="`--generator own` goes without it")
