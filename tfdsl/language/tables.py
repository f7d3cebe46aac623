"""The parser's tables, built ahead of time (`tools/parser_tables.py`): building them costs more than a command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import lark

GRAMMAR = Path(__file__).with_name("tfm.lark")
PATH = Path(__file__).with_name("tfm.tables.json")


def build() -> str:
    """The tables of today's grammar as JSON text."""
    parser = lark.Lark(
        GRAMMAR.read_text("utf-8"),
        start=["start", "value"],  # a file, and one expression by itself
        parser="lalr",
        lexer="basic",
        propagate_positions=True,
        maybe_placeholders=True,
    )
    data, memo = parser.memo_serialize([lark.lexer.TerminalDef, lark.grammar.Rule])
    return json.dumps([_stamp(), _pack(data), _pack(memo)], separators=(",", ":")) + "\n"


def load(callbacks: dict[str, Any]) -> lark.Lark:
    """The parser; slower to come where the stored tables are of another Lark."""
    stamp, data, memo = json.loads(PATH.read_text("utf-8"), object_hook=_unpack)
    if stamp != _stamp():
        data, memo = json.loads(build(), object_hook=_unpack)[1:]
    return lark.Lark._load_from_dict(data, memo, lexer_callbacks=callbacks)


def _stamp() -> list[str]:
    """What the tables depend on: Lark's version and the grammar's text."""
    return [lark.__version__, hashlib.sha256(GRAMMAR.read_bytes()).hexdigest()]


def _pack(value: Any) -> Any:
    """JSON has no integer keys: such a dictionary is kept as a list of pairs, under "@pairs"."""
    if isinstance(value, dict):
        if any(isinstance(key, int) for key in value):
            return {"@pairs": [[key, _pack(item)] for key, item in value.items()]}
        return {key: _pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_pack(item) for item in items]
    return value


def _unpack(value: dict[str, Any]) -> Any:
    pairs = value.get("@pairs")
    return dict(pairs) if pairs is not None else value
