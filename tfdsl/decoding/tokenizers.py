"""Text and tokens: the tokenizer that a build copied, or bytes; nothing of a tokenizer is run but its data."""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tfdsl.language.diagnostics import SpecError, one

BYTES = "bytes"
FILE = "tokenizer.json"
# What runtimes look for beside a decoder; no program (`.py`) and no pickle is among them.
COPIED = (
    FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)
_NUMBERS, _NAMES = ("config.json", "generation_config.json"), ("special_tokens_map.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a decoder: `tokenizer.json` or "bytes", with the tokens that end, begin and pad a text.

    `start` is the token that the decoder of an encoder-decoder begins with.
    """

    kind: str
    eos: tuple[int, ...] = ()
    bos: int | None = None
    pad: int | None = None
    start: int | None = None


class Coder(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those around it that the tokenizer adds."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; a character that is not whole yet is a replacement character."""


class Bytes:
    """A text as its bytes in UTF-8, each of them a token."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8"))

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode("utf-8", "replace")


class Loaded:
    """A `tokenizer.json`, run by the `tokenizers` library."""

    def __init__(self, path: Path):
        try:
            import tokenizers
        except ImportError:
            message = f"`{path}` needs the package `tokenizers`, which is not installed"
            raise one("T746", message, help="pip install tokenizers, or give tokens by number") from None
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise one("T746", f"`{path}` is no tokenizer: {error}") from None

    def encode(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer.encode(text).ids
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


class Stream:
    """Text as tokens come: each call gives what can be said for certain since the last."""

    def __init__(self, coder: Coder):
        self._coder = coder
        self._tokens: list[int] = []
        self._told = 0

    def add(self, token: int) -> str:
        """The text that a token adds; nothing while a character lacks bytes."""
        self._tokens.append(token)
        text = self._coder.decode(self._tokens)
        whole = len(text.rstrip("�"))
        new, self._told = text[self._told : whole], max(self._told, whole)
        return new

    def rest(self) -> str:
        """What was held back."""
        return self._coder.decode(self._tokens)[self._told :]


def open_coder(folder: Path, kind: str | None) -> Coder:
    """The tokenizer of a folder with a decoder. Raises `SpecError` where it has none."""
    if kind == BYTES:
        return Bytes()
    if kind is None or not (folder / FILE).is_file():
        help_ = "build with `--tokenizer DIR`, or give tokens by number with `--tokens`"
        raise one("T746", f"`{folder}` has no tokenizer, and text needs one", help=help_)
    return Loaded(folder / FILE)


def copy_tokenizer(source: str | os.PathLike[str], folder: Path) -> Tokenizer:
    """Copy a tokenizer's files from a folder; "bytes" has none. Raises `SpecError` for a folder without one."""
    path = Path(source)
    if os.fspath(source) == BYTES and not path.is_dir():
        return Tokenizer(BYTES)
    if not (path / FILE).is_file():
        what = "has no `tokenizer.json`" if path.is_dir() else "is no folder"
        raise one("T746", f"`{path}` {what}", help="give the folder of a tokenizer, or `bytes`")
    for name in COPIED:
        if (path / name).is_file():
            shutil.copyfile(path / name, folder / name)
    return read_special(path)


def read_special(folder: Path) -> Tokenizer:
    """The special tokens of a tokenizer's folder, by number, as far as its files tell."""
    ids = _ids(_read(folder / FILE))
    numbers: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for name in _NUMBERS:  # the later file has the last word
        numbers |= {key: value for key, value in _read(folder / name).items() if value is not None}
    for name in _NAMES:
        named |= _read(folder / name)

    def number(key: str) -> int | None:
        given = numbers.get(f"{key}_token_id")
        if isinstance(given, int):
            return given
        text = named.get(f"{key}_token")
        text = text.get("content") if isinstance(text, dict) else text
        return ids.get(text) if isinstance(text, str) else None

    several = numbers.get("eos_token_id")
    ends = several if isinstance(several, list) else [number("eos")]
    return Tokenizer(
        FILE, tuple(end for end in ends if isinstance(end, int)), number("bos"), number("pad"), number("decoder_start")
    )


def _ids(document: dict[str, Any]) -> dict[str, int]:
    """The numbers of the tokens that `tokenizer.json` lists as added: the special ones are among them."""
    added = document.get("added_tokens")
    if not isinstance(added, list):
        return {}
    return {
        each["content"]: each["id"] for each in added if isinstance(each, dict) and {"content", "id"} <= each.keys()
    }


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises `SpecError` for a file that is broken."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from None
    if not isinstance(document, dict):
        raise _broken(path, "it is no JSON object")
    return document


def _broken(path: Path, why: str) -> SpecError:
    return one("T746", f"`{path}` cannot be read: {why}")
