"""Greedy generation against the library that wrote the checkpoints: the models, what it generates, and what ours do.

`tools/check_generation.py` runs all of it, and `test_generation.py` as much as there is time for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from test_checkpoints import EVERY, published
from test_zoo import Family

import tfdsl
from tfdsl.checkpoints.importing import import_folder
from tfdsl.decoding.generate import pad_left
from tfdsl.decoding.running import Runner, open_runner, source_inputs

PROMPTS = [[5, 17, 3, 60, 8, 41, 33], [29, 11, 50], [71]]
SOURCES = [[9, 23, 4, 31, 77, 12], [48, 6, 90], [15, 15, 62, 35]]
MELS, FRAMES = 8, 40
# The forms that decoders come in: the target, and the options of the build.
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "PyTorch": ("torch", {}),
    "ONNX portable": ("onnx", {"profile": "portable"}),
    "ONNX ort": ("onnx", {"profile": "ort"}),
    "OpenVINO": ("openvino", {}),
}
# Room for what is generated, and for every token at an expert: a token that the library drops in a whole pass, it keeps
# in a call of its own.
LIMIT = 80  # as long as all texts are that are generated here, for models with a limit
_LIMITS = ("max_position_embeddings", "original_max_position_embeddings")
_ROOMY = {"n_positions": 128, "max_target_positions": 128, "expert_capacity": 1000}


def families() -> Iterator[Family]:
    """The decoders and encoder-decoders among the models that are compared with the library: all of them."""
    for family in EVERY:
        if re.search("ForCausalLM|LMHeadModel|ForConditionalGeneration", family.theirs):
            settings = {name: _ROOMY.get(name, value) for name, value in family.config.items()}
            family = replace(family, config=settings)
            limits = {name: LIMIT for name in _LIMITS if name in settings}
            yield replace(family, config=settings | limits) if turns_at_a_limit(family) else family


def turns_at_a_limit(family: Family) -> bool:
    """Whether a model has other rotary positions for texts beyond `LIMIT`; ours decode those within it alone.

    The library turns to other angles on the way, with the keys of the old ones in its cache.
    """
    return family.config.get("rope_parameters", {}).get("rope_type") in ("dynamic", "longrope")


class Peer:
    """A model of the library with random weights, saved, imported and loaded as ours; both go on from the same prompts."""

    def __init__(self, family: Family, folder: Path):
        self.family, self.folder = family, folder
        self.theirs = published(family)
        start = self.theirs.config.to_dict().get("decoder_start_token_id")
        start = 0 if start is None else int(start)
        self.begun = [[start, 7], [start, 42], [start, 19]]  # what an encoder-decoder goes on from
        settings = {"eos_token_id": None, "pad_token_id": 0, "decoder_start_token_id": start, "do_sample": False}
        self.theirs.generation_config.update(**settings)
        self.theirs.save_pretrained(folder / "theirs")
        import_folder(folder / "theirs", folder / "spec.tfm")
        self.encodes = bool(self.theirs.config.is_encoder_decoder)
        inputs = ["keep"] if self.encodes and not self.hears else []  # which tokens of the sources are real
        self.ours = tfdsl.load(folder / "spec.tfm", inputs=inputs)

    def expected(self, new: int) -> list[list[int]]:
        """What the library generates for the batch."""
        given: dict[str, Any]
        if not self.encodes:
            tokens, mask = pad_left(PROMPTS)
            given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
        else:
            given = {"decoder_input_ids": torch.tensor(self.begun)}
            if self.hears:
                given["input_features"] = torch.tensor(self.sound())
            else:
                tokens, mask = pad_left(SOURCES)
                given |= {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
        with torch.no_grad():
            found = transformers.GenerationMixin.generate(self.theirs, **given, max_new_tokens=new)
        return [row[-new:] for row in found.tolist()]

    def found(self, form: str, new: int) -> list[list[int]]:
        """What one of our forms generates, in a batch, through the loop that is ours."""
        runner = open_runner(self.build(form, LIMIT if turns_at_a_limit(self.family) else None), "own")
        if not self.encodes:
            return runner.generate(PROMPTS, max_new=new, eos=())
        inputs = {"audio": self.sound()} if self.hears else self.sources(runner)
        return runner.generate(self.begun, max_new=new, eos=(), inputs=inputs)

    def build(self, form: str, longest: int | None = None) -> Path:
        """Build one of our forms, for texts of at most so many positions; the folder that it is in."""
        target, options = FORMS[form]
        folder = self.folder / form.replace(" ", "_")
        self.ours.build(target, folder, weights=self.folder / "theirs", cache=True, longest=longest, **options)
        return folder

    def sources(self, runner: Runner) -> dict[str, Any]:
        """The batch of sources as the encoder takes it, padded on the left."""
        tokens, mask = pad_left(SOURCES)
        usual = source_inputs(runner.manifest, SOURCES)  # padded on the right
        return {name: mask.astype(bool) if each.dtype == bool else tokens for name, each in usual.items()}

    @property
    def hears(self) -> bool:
        """Whether it takes sound, and no tokens."""
        return "input_features" in self.family.inputs()[1]

    def sound(self) -> Any:
        """A spectrogram for each row."""
        shape = (len(SOURCES), *self.family.inputs()[0]["audio"].shape[1:])
        return np.random.default_rng(4).normal(size=shape).astype(np.float32)
