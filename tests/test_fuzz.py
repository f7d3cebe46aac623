"""Specs with random damage: each is read, or refused with diagnostics, in bounded time; nothing else comes out."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tfdsl.check import check_file
from tfdsl.language.diagnostics import Source, SpecError
from tfdsl.language.parser import parse, parse_expression

ROOT = Path(__file__).parent.parent
SPECS = sorted([*(ROOT / "specs").glob("*.tfm"), *(Path(__file__).parent / "golden" / "fmt" / "in").glob("*.tfm")])
TOKEN = re.compile(r'\s+|#[^\n]*|"[^"\n]*"|[A-Za-z_]\w*|\d[\w.]*|\*\*|//|->|\|>|[<>=!]=|\.\.\.?|.')
WORDS = [
    *"x y q heads width batch seq true false none not if then else repeat as return param require penalty".split(),
    *"linear attend rearrange split concat softmax weight embedding causal window given sqrt layer_norm".split(),
    *"block model plan initialize 0 1 2 3 7 1000000000 0.5 1e30 -1 ( ) [ ] { } , : = == + - * / //".split(),
    *"% ** @ | & |> -> .. ... ? .".split(),
    *('"b s (h d) -> b h s d"', '"', "'", "é", "\0", "#"),
]
EACH = 25
SLOWEST = 20.0  # seconds; a mutation takes milliseconds, and what bounds the work some seconds


def mutate(tokens: list[str], random_: random.Random) -> str:
    tokens = list(tokens)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        at = random_.randrange(len(tokens))
        match random_.randrange(6):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, f" {random_.choice(WORDS)} ")
            case 2:
                tokens[at] = f" {random_.choice(WORDS)} "
            case 3:
                other = random_.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 4:
                end = min(len(tokens), at + random_.randrange(1, 30))
                tokens[at:at] = tokens[at:end]
            case 5:
                del tokens[at : at + random_.randrange(1, 30)]
        if not tokens:
            return ""
    return "".join(tokens)


KEYWORDS_LEFT = re.compile("(?:model|block|param|repeat|return|require|as|if|then|else|extends|import|from|plan|for)$")
NAMES = (
    "linear attend split concat softmax weight embedding causal window gelu sum x y q none true positions cast".split()
)
NUMBERS = "0 1 2 3 7 8 12 64 768 0.5 1e-5 2.0 1000000000".split()
OPERATORS = "+ - * / // % ** @ | & == < |>".split()


def rewire(tokens: list[str], random_: random.Random) -> str:
    """Another name, number or operator in place of one: most of these parse."""
    tokens = list(tokens)
    names = [token for token in tokens if re.match(r"[A-Za-z_]", token)]
    for _ in range(random_.choice((1, 1, 2, 4))):
        at = random_.randrange(len(tokens))
        token = tokens[at]
        if re.match(r"[A-Za-z_]", token) and not KEYWORDS_LEFT.match(token):
            tokens[at] = random_.choice([*names, *NAMES])
        elif re.match(r"\d", token):
            tokens[at] = random_.choice(NUMBERS)
        elif token in OPERATORS:
            tokens[at] = random_.choice(OPERATORS)
    return "".join(tokens)


@pytest.mark.parametrize("change", [mutate, rewire], ids=lambda change: change.__name__)
@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_mutations(path: Path, change: Callable[[list[str], random.Random], str], tmp_path: Path) -> None:
    tokens = TOKEN.findall(path.read_text("utf-8"))
    random_ = random.Random(path.stem)
    for number in range(EACH):
        text = change(tokens, random_)
        file = tmp_path / f"{number}.tfm"
        file.write_text(text, "utf-8")
        started = time.process_time()
        for fault in check_file(file).faults:
            fault.render()
            fault.as_json()
        assert time.process_time() - started < SLOWEST, f"mutation {number} takes too long:\n{text}"


def test_token_soup() -> None:
    """Expressions and files of random words."""
    random_ = random.Random(0)
    for _ in range(1500):
        source = Source("soup", " ".join(random_.choices(WORDS, k=random_.randrange(1, 25))))
        for read in (parse, parse_expression):
            try:
                read(source)
            except SpecError as error:
                assert str(error)


def test_bytes(tmp_path: Path) -> None:
    random_ = random.Random(1)
    for number in range(100):
        file = tmp_path / f"{number}.tfm"
        file.write_bytes(random_.randbytes(random_.randrange(200)))
        check_file(file)
