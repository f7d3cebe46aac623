"""Driving the pipeline of openvino-genai on a folder with a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from tfdsl.backends.openvino.pipelines import PAGED_WAY, STATEFUL_WAY
from tfdsl.backends.openvino.runtime import EXACT
from tfdsl.decoding.manifest import Manifest
from tfdsl.decoding.sampling import Sampling
from tfdsl.language.diagnostics import SpecError, one

NAME = "openvino-genai"
_BACKENDS = {PAGED_WAY: "PA", STATEFUL_WAY: "SDPA"}  # the better first


class PipelineGenerator:
    """One prompt at a time through `LLMPipeline`."""

    ends: tuple[int, ...] = ()

    def __init__(self, package: Any, folder: Path, way: str):
        self._package = package
        self.name = f"{NAME}, {way}"
        try:
            self._pipeline = package.LLMPipeline(str(folder), "CPU", ATTENTION_BACKEND=_BACKENDS[way], **EXACT)
        except RuntimeError as error:
            raise _failed(error) from None

    def generate(
        self, prompt: Sequence[int], new: int, sampling: Sampling, eos: Sequence[int], tell: Callable[[int], None]
    ) -> None:
        """Tell the new tokens of a prompt as they come. Raises `SpecError` where the runtime fails."""
        tokens, mask = (openvino.Tensor(np.asarray([row], np.int64)) for row in (prompt, [1] * len(prompt)))
        inputs = self._package.TokenizedInputs(tokens, mask)
        try:
            self._pipeline.generate(inputs, self._configuration(new, sampling, eos), _streamer(self._package, tell))
        except RuntimeError as error:
            raise _failed(error) from None

    def _configuration(self, new: int, sampling: Sampling, eos: Sequence[int]) -> Any:
        found = self._package.GenerationConfig()
        found.max_new_tokens = new
        found.set_eos_token_id(eos[0] if eos else 0)
        found.stop_token_ids = set(eos)
        found.ignore_eos = not eos
        found.do_sample = not sampling.greedy
        if not sampling.greedy:
            found.temperature = 1.0 if sampling.temperature is None else sampling.temperature
            found.top_p = 1.0 if sampling.top_p is None else sampling.top_p
            if sampling.top_k is not None:
                found.top_k = sampling.top_k
            if sampling.seed is not None:
                found.rng_seed = sampling.seed
        return found


def open_generator(folder: Path, manifest: Manifest) -> PipelineGenerator:
    """The pipeline of openvino-genai on a folder. Raises `SpecError` (T745) where it cannot be had."""
    way = next((way for way in _BACKENDS if manifest.pipelines.get(way) == ""), None)
    if way is None:
        why = manifest.pipelines.get(STATEFUL_WAY, "the build says nothing of it")
        raise one("T745", f"{NAME} cannot run `{manifest.model}`: {why}")
    try:
        import openvino_genai
    except ImportError as error:
        raise one("T745", f"{NAME} does not load: {error}", help=f"pip install {NAME}") from None
    return PipelineGenerator(openvino_genai, folder, way)


def _streamer(package: Any, tell: Callable[[int], None]) -> Any:
    """What the pipeline hands tokens to, one by one or several at once."""

    class Telling(package.StreamerBase):
        def write(self, tokens: Any) -> Any:
            for token in [tokens] if isinstance(tokens, int) else tokens:
                tell(int(token))
            return package.StreamingStatus.RUNNING

        def end(self) -> None:
            """All were told as they came."""

    return Telling()


def _failed(error: RuntimeError) -> SpecError:
    reason = str(error).strip().splitlines()[-1]
    return one("T745", f"{NAME} failed: {reason}", help="`--generator own` goes without it")
