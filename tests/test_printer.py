"""The formatter: golden files for its style, and properties that hold for every tree and every comment."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfdsl.language import printer, syntax
from tfdsl.language.diagnostics import Source, Span, SpecError
from tfdsl.language.parser import KEYWORDS, parse, parse_expression, read
from tfdsl.language.printer import FormatterFault, format_source, print_expression, print_file

INPUTS = sorted((Path(__file__).parent / "golden/fmt/in").glob("*.tfm"))
SPECS = [read(path) for path in INPUTS]


def formatted(text: str) -> str:
    return format_source(Source("test.tfm", text))


# --- style -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.stem)
def test_golden(path: Path, golden: Callable[[str, str], None]) -> None:
    text = format_source(read(path))
    golden(f"fmt/out/{path.name}", text)
    assert formatted(text) == text
    assert max(map(len, text.split("\n"))) <= printer.WIDTH


@pytest.mark.parametrize(
    "text",
    [
        "a - (b - c)",
        "a - b - c",
        "a * (b + c) - d",
        "-x ** 2",
        "(-x) ** 2",
        "2 ** -1",
        "2 ** 3 ** 4",
        "(2 ** 3) ** 4",
        "--x",
        "-(a + b)",
        "(a / b) * c",
        "(size % patch) / 2",
        "a * b / c",
        "q @ k / s",
        "a / (b * c)",
        "a + (x |> f)",
        "f(x |> g, y=x |> h)",
        "[x |> g]",
        "x + y |> f() as h |> g",
        "if a then b else if c then d else e",
        "if a then (if b then c else d) else e",
        "(if a then b else c) |> f",
        "(if a then b else c) + 1",
        "if a then b else (x |> f)",
        "(a == b) == c",
        "(a < b) != (c < d)",
        "not a == b",
        "(not a) == b",
        "not not a & b | c",
        "a & (b | c)",
        "a & (b & c)",
        "1..64",
        "1 .. 2 * n",
        "(1..2) .. 3",
        "x[i + 1][j]",
        "f(x) as h[2]",
        "wte.weight",
        '"s" + 1e6 + 10_000 + 1.50',
        "[true, false, none, []]",
        "causal & not window(4096)",
    ],
)
def test_expression_is_its_own_text(text: str) -> None:
    assert print_expression(parse_expression(Source("", text))) == text


def test_expression_is_one_line_whatever_the_author_broke() -> None:
    text = "f(" + " + ".join(["operand"] * 40) + "\n|> g, # why\nb)"
    assert print_expression(parse_expression(Source("", text))) == "f(" + " + ".join(["operand"] * 40) + " |> g, b)"


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n", "# one\n\n# two\n"])
def test_files_without_items(text: str) -> None:
    assert formatted(text) == text.lstrip("\n")


def test_faults_in_the_source_are_its_own() -> None:
    with pytest.raises(SpecError):
        formatted("block {")


@pytest.mark.parametrize(
    ("damage", "what"),
    [("h = 2", "meaning"), ("h = 1.0", "numbers"), ("h = 1 # changed", "comments"), ("h =", "does not parse")],
)
def test_damage_is_never_written(damage: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printer, "print_file", lambda tree: f"model A extends B {{ {damage}\n}}")
    with pytest.raises(FormatterFault, match=what):
        formatted("model A extends B { h = 1 }")


@pytest.mark.parametrize(
    ("text", "word", "keyword"),
    [
        ("block A(x: [b]) -> [b] { retrun x }", "retrun", "return"),
        ("block A(x: [b]) -> [b] { y = x retrun # why\n (y) }", "retrun", "return"),
        ("block A(x: [b]) -> [b] { pram h = 3 }", "pram", "param"),
        ("block A(x: [b]) -> [b] { repaet h[3] {} }", "repaet", "repeat"),
    ],
)
def test_misspelt_statement_keywords_are_named(text: str, word: str, keyword: str) -> None:
    with pytest.raises(SpecError) as caught:
        formatted(text)
    assert caught.value.diagnostics[0].help == f"`{word}` was read as a name; did you mean `{keyword}`?"


# --- properties: comments --------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r'"[^"\n]*"|#[^\n]*|[A-Za-z_]\w*|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\|>|->|\.\.\.?|\*\*|//|[=!<>]=|\S'
)


def tokens(text: str) -> list[str]:
    """The tokens of a text, its comments among them."""
    return [token.rstrip() for token in TOKEN.findall(text)]


def landmarks(text: str) -> list[str]:
    """Names, numbers, strings and comments in their order: what no comment may pass while punctuation moves."""
    return [token for token in tokens(text) if re.match(r'[\w"#]', token) and token not in KEYWORDS]


def scattered(text: str, seed: int, density: float) -> str:
    """The same tokens with other white space between them, and with comments of all sorts instead of theirs."""
    source = random.Random(seed)
    pieces = []
    before = ""
    for number, token in enumerate(token for token in tokens(text) if token[0] != "#"):
        comment = f"# {number} ) ] }} ->{'' if number % 3 else ' '}"
        gaps = [f" {comment}\n", f"\n{comment}\n", f"\n\n\n  {comment}\n\n", f"\n{comment}\n\t#\n#{number}\n"]
        inside_path = token == "." or before == "."  # a path is one word to the printer
        remark = not inside_path and source.random() < density
        pieces += [source.choice(gaps if remark else [" ", " ", "\n", "\n \n\n"]), token]
        before = token
    return "".join(pieces)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SPECS), st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.2, 0.9]))
def test_comments_anywhere_are_kept_in_place(spec: Source, seed: int, density: float) -> None:
    source = Source("test.tfm", scattered(spec.text, seed, density))
    text = format_source(source)  # which compares trees and comments
    assert parse(source).items == parse(spec).items
    assert landmarks(text) == landmarks(source.text)
    assert formatted(text) == text
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]\n", text)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: Path(spec.name).stem)
def test_line_breaks_matter_only_where_they_are_meant_to(spec: Source) -> None:
    text = formatted(scattered(spec.text, seed=0, density=0.0))
    assert max(map(len, text.split("\n"))) <= printer.WIDTH
    assert "\n\n\n" not in text


# --- properties: trees -----------------------------------------------------------------------------------------------

HERE = {"span": Span(Source("", ""), 0, 0)}


def node(kind: type, *parts: st.SearchStrategy) -> st.SearchStrategy:
    return st.builds(lambda *values: kind(*values, **HERE), *parts)


def some(parts: st.SearchStrategy, least: int = 0, most: int = 3) -> st.SearchStrategy:
    return st.lists(parts, min_size=least, max_size=most).map(tuple)


name = node(syntax.Name, st.sampled_from(["x", "head", "a_rather_long_name", "d\u00e9j\u00e0"]))
string = node(syntax.String, st.sampled_from(["", "b s (h d) -> b h s d", "# no comment", "why\\"]))
number = st.sampled_from(["0", "10_000", "1.50", "1e6", "2E-3"]).map(
    lambda text: syntax.Number(float(text) if set(text) & set(".eE") else int(text), text, **HERE)
)
path = node(syntax.Path, some(name, 1, 2))
literal = node(syntax.Literal, st.sampled_from([True, False, None]))
expression: st.SearchStrategy = st.deferred(lambda: st.one_of(number, string, path, literal, call, larger))
argument = node(syntax.Argument, st.none() | name, expression)
call = node(syntax.Call, path, some(argument), st.none() | name)
larger = st.one_of(
    node(syntax.Index, path | call | node(syntax.Index, path, expression), expression),
    node(syntax.ListOf, some(expression)),
    node(syntax.Unary, st.sampled_from(["-", "not"]), expression),
    node(syntax.Binary, st.sampled_from("+ - * / // % @ ** == < >= & | ..".split()), expression, expression),
    node(syntax.Choice, expression, expression, expression),
    node(syntax.Pipe, expression, path | call),
)
extent: st.SearchStrategy = st.deferred(
    lambda: st.one_of(number, path, node(syntax.Binary, st.sampled_from("+*"), extent, extent))
)
tensor = node(syntax.TensorType, st.none() | name, some(extent | node(syntax.Ellipsis_)))
statement: st.SearchStrategy = st.deferred(
    lambda: st.one_of(
        node(syntax.Parameter, name, st.none() | name, st.none() | expression),
        node(syntax.Require, expression, st.none() | string),
        node(syntax.Initialize, string, expression),
        node(syntax.Penalty, name, expression),
        node(syntax.Bind, some(name, 1), expression),
        node(syntax.Return, some(expression, 1)),
        node(syntax.Repeat, name, expression, st.none() | name, some(statement)),
    )
)
setting = node(syntax.Setting, name, expression)
section = node(syntax.Section, st.sampled_from(["train", "optimize", "deploy"]), some(setting | call))
item = st.one_of(
    node(syntax.Import, some(name, 1), string),
    node(
        syntax.Block,
        st.sampled_from(["block", "model"]),
        name,
        some(node(syntax.Input, name, tensor, st.booleans())),
        some(node(syntax.Output, st.none() | name, tensor), 1),
        some(statement),
    ),
    node(syntax.Variant, name, name, some(setting)),
    node(syntax.Plan, name, name, some(section)),
    node(syntax.Mapping, name, name, some(node(syntax.Rule, string, expression))),
)
QUICK = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(expression)
def test_expressions_survive_printing(tree: syntax.Expression) -> None:
    text = print_expression(tree)
    assert "\n" not in text
    again = parse_expression(Source("", text))
    assert again == tree
    assert print_expression(again) == text


@QUICK
@given(some(item))
def test_files_survive_printing(items: tuple[syntax.Item, ...]) -> None:
    text = print_file(syntax.File(items, **HERE))
    assert parse(Source("", text)).items == items
    assert formatted(text) == text
