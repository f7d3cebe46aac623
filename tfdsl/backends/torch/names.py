"""Identifiers in the emitted source: for names of the spec, classes, functions and variables, none of them taken twice."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterable

from tfdsl.backends.torch.helpers import HELPERS

# What every emitted file may use by these names.
RESERVED = frozenset(
    {
        *("self", "super", "torch", "nn", "F", "math", "Tensor", "checkpoint", "training"),
        *("range", "len", "float", "int", "bool", "str", "tuple", "min", "max", "abs", "round", "sum"),
        *("enumerate", "zip", "getattr", "setattr", "ValueError"),
        *HELPERS,
    }
)


def sanitised(name: str) -> str:
    """A name as an identifier that no keyword and nothing reserved is spelled like."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(each if f"a{each}".isidentifier() else "_" for each in text) or "x"
    if text.startswith("__"):  # a class would take such a name for its own
        text = f"_{text.strip('_') or 'x'}"
    if not text[0].isidentifier():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in RESERVED else text


def is_attribute(name: str) -> bool:
    """Whether `x.name` reaches what is called so: an identifier, which Python neither keeps nor rewrites."""
    plain = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    return plain and not keyword.iskeyword(name) and not name.startswith("__")


def class_name(name: str) -> str:
    """A name of the spec as the name of a class."""
    text = sanitised(name)
    if "_" in text and not text[0].isupper():
        return "".join(part[:1].upper() + part[1:] for part in text.split("_") if part)
    return text[:1].upper() + text[1:]


class Words:
    """Identifiers for the names of the spec: one for each, the same everywhere, and no two alike."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self._given:
            text, taken = sanitised(name), {*self._given.values()}
            while text in taken:
                text += "_"
            self._given[name] = text
        return self._given[name]


class ModuleNames:
    """The names at the top of the emitted file, and those that functions use for what is their own."""

    def __init__(self, promised: Iterable[str], inside: Iterable[str]):
        self._promised = frozenset(promised)  # likely names of classes and functions, which variables leave alone
        self._top: set[str] = set()
        self._inside = set(inside)

    def use(self, name: str) -> bool:
        """Whether a variable may have a name; if so, no class and no function is called that from now on."""
        if name in RESERVED or name in self._promised or name in self._top:
            return False
        self._inside.add(name)
        return True

    def claim(self, name: str) -> bool:
        """Whether a class or a function may have a name; if so, nothing else gets it."""
        if name in RESERVED or name in self._top or name in self._inside:
            return False
        self._top.add(name)
        return True
