"""Tokenizers as OpenVINO models, which openvino-genai needs to take and give text."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import openvino

from tfdsl.decoding.tokenizers import BYTES, Tokenizer
from tfdsl.language.diagnostics import one

FILES = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")
NEEDED = ("openvino_tokenizers", "transformers")


def hindrance(tokenizer: Tokenizer) -> str:
    """Why a tokenizer cannot be made an OpenVINO model, or ""."""
    if tokenizer.kind == BYTES:
        return "OpenVINO has no tokenizer of bytes"
    missing = next((name for name in NEEDED if importlib.util.find_spec(name) is None), "")
    return f"the package `{missing}`, which makes a tokenizer an OpenVINO model, is not installed" if missing else ""


def convert_tokenizer(folder: Path) -> None:
    """Write the tokenizer of a folder, whose files are there, as OpenVINO models. Raises `SpecError`."""
    import openvino_tokenizers
    from transformers import PreTrainedTokenizerFast  # the one that a `tokenizer.json` is; others would load frameworks

    try:
        loaded = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        models = openvino_tokenizers.convert_tokenizer(loaded, with_detokenizer=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"the tokenizer cannot be made an OpenVINO model: {reason}"
        raise one("T736", message, help="without --tokenizer the folder takes tokens by number") from None
    for model, name in zip(models, FILES, strict=True):
        openvino.save_model(model, folder / name, compress_to_fp16=False)
