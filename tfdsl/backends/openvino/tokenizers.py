"""Tokenizers as OpenVINO models, which openvino-genai needs to take and give text."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import openvino

from tfdsl.decoding.tokenizers import BYTES, Tokenizer
from tfdsl.language.diagnostics import one

FILES = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")
NEEDED = ("openvino_tokenizers", "transformers")


def missing() -> str:
    """The first package that converting a tokenizer needs and that is not installed, or ""."""
    return next((name for name in NEEDED if importlib.util.find_spec(name) is None), "")


def convert_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer of a folder, whose files are there, as OpenVINO models. Raises `SpecError`."""
    if tokenizer.kind == BYTES or missing():
        return
    import openvino_tokenizers
    import transformers

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        models = openvino_tokenizers.convert_tokenizer(loaded, with_detokenizer=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise one("T736", f"the tokenizer cannot be made an OpenVINO model: {error}") from None
    for model, name in zip(models, FILES, strict=True):
        openvino.save_model(model, folder / name, compress_to_fp16=False)
