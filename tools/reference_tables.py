"""Write the generated tables of the language reference and of the zoo's index: `python tools/reference_tables.py`.

A table stands between `<!-- name -->` and `<!-- /name -->`. A test fails when one is not as the code has it.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable
from pathlib import Path

from tfdsl.checkpoints.weight_rules import CHANGES
from tfdsl.ir import masks
from tfdsl.ir.elaborate.arithmetic import LARGEST
from tfdsl.ir.elaborate.body import DEEPEST_BLOCKS, MOST_EXPERTS, MOST_STEPS, MOST_TURNS
from tfdsl.ir.elaborate.expressions import MOST_ITEMS
from tfdsl.ir.elaborate.functions import INITIALIZERS, NUMBERS
from tfdsl.ir.elaborate.nodes import LARGEST_AXIS
from tfdsl.ir.ops import OPS
from tfdsl.language import syntax
from tfdsl.language.modules import MOST_EXTENDS, MOST_FILES, STD
from tfdsl.language.parser import DEEPEST, LARGEST_FILE, parse, read
from tfdsl.passes import PASSES, signature
from tfdsl.passes.options import spell
from tfdsl.plan_settings import CHOICES, TRAIN

REFERENCE = Path(__file__).parent.parent / "specs" / "language.md"

HIDDEN = (", operands...", ", path=none")  # what elaboration fills in

INITIALIZER_MEANINGS = {
    "zeros": "0",
    "ones": "1",
    "constant": "the number",
    "normal": "normal, with the given deviation",
    "trunc_normal": "normal, with the given deviation, drawn anew beyond two deviations",
    "uniform": "uniform between minus and plus the number",
    "xavier_uniform": "uniform up to gain * sqrt(6 / (fan in + fan out))",
    "xavier_normal": "normal with deviation gain * sqrt(2 / (fan in + fan out))",
    "kaiming_uniform": "uniform up to gain * sqrt(3 / fan in)",
    "kaiming_normal": "normal with deviation gain / sqrt(fan in)",
}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def ops() -> str:
    """Every op that has a name in the language."""
    rows = []
    for op in OPS.values():
        if op.inner:
            continue
        weights = ", ".join(f"`{operand.name}`" for operand in op.operands if operand.weight)
        signature = op.signature()
        for part in HIDDEN:
            signature = signature.replace(part, "")
        rows.append((f"`{signature}`", op.summary + (f" Weights: {weights}." if weights else "")))
    return table(("op", "what it computes"), rows)


def mask_constructors() -> str:
    """Every mask."""
    rows = []
    for kind in masks.KINDS.values():
        arguments = [*kind.arguments, *([kind.operand] if kind.operand else [])]
        rows.append((f"`{kind.name}({', '.join(arguments)})`" if arguments else f"`{kind.name}`", kind.summary))
    return table(("mask", "allows"), rows)


def initializers() -> str:
    """Every initialiser with its default numbers."""
    rows = []
    for name, defaults in INITIALIZERS.items():
        inside = ", ".join("number" if each is None else f"{each:g}" for each in defaults)
        rows.append((f"`{name}({inside})`" if defaults else f"`{name}`", INITIALIZER_MEANINGS[name]))
    return (
        table(("initialiser", "values"), rows)
        + "\n\nFans are counted of a weight `[out, in, ...]`; a gain of 1 may be left out."
    )


def numbers() -> str:
    """The functions of numbers by how many they take."""
    by_count: dict[int, list[str]] = {}
    for name, (count, _) in NUMBERS.items():
        by_count.setdefault(count, []).append(f"`{name}`")
    words = {1: "one number", 2: "two numbers"}
    return table(
        ("of", "functions"),
        [(words[count], ", ".join(names)) for count, names in by_count.items()] + [("a list", "`len`")],
    )


def standard() -> str:
    """The blocks of the standard library, file by file, with their shapes and the comments above them."""
    parts = []
    for file in sorted(STD.glob("*.tfm"), key=lambda file: (file.stem != "prelude", file.stem)):
        tree = parse(read(file))
        rows = [block(item, tree.span.source.text.split("\n")) for item in tree.items if isinstance(item, syntax.Block)]
        how = "seen without an import" if file.stem == "prelude" else f'`import ... from "std/{file.name}"`'
        parts.append(f"`std/{file.name}`, {how}:\n\n" + table(("block", "from and to", "what it computes"), rows))
    return "\n\n".join(parts)


def block(item: syntax.Block, lines: list[str]) -> tuple[str, str, str]:
    """A block with its parameters, its shapes and the comment above it, without the example."""
    line, _ = item.span.source.place(item.span.start)
    comment: list[str] = []
    while line >= 2 and lines[line - 2].startswith("#"):
        line -= 1
        if not lines[line - 1].startswith("#   "):
            comment.insert(0, lines[line - 1].lstrip("# "))
    parameters = [each for each in item.body if isinstance(each, syntax.Parameter)]
    inputs = [each.name.text + ("?" if each.optional else "") for each in item.inputs]
    settings = [
        each.name.text + (f"={each.default.span.text}" if each.default is not None else "") for each in parameters
    ]
    shapes = [", ".join(f"`{shape.type.span.text}`" for shape in each) for each in (item.inputs, item.outputs)]
    return f"`{item.name.text}({', '.join(inputs + settings)})`", " to ".join(shapes), " ".join(comment)


def passes() -> str:
    """The passes of plans with the first lines of their docstrings."""
    rows = [(f"`{signature(name, each)}`", (each.__doc__ or "").partition("\n")[0]) for name, each in PASSES.items()]
    return table(("pass", "what it does"), rows)


def train() -> str:
    """The settings of `train`, and the choices that some have."""
    rows = []
    for name, choices in CHOICES.items():
        spelled = []
        for choice, options in choices.items():
            inside = [
                each if option.required else f"{each}={spell(option.default)}" for each, option in options.items()
            ]
            spelled.append(f"`{choice}({', '.join(inside)})`")
        rows.append((f"`{name}`", " or ".join(spelled)))
    rows += [(f"`{name}`", kind) for name, kind in TRAIN.items()]
    return table(("setting", "is"), rows)


def changes() -> str:
    """The changes of layout that a mapping may make."""
    rows = []
    for name, kind in CHANGES.items():
        inside = ["weight" if kind.inputs == 1 else "weight..."]
        inside += [each if each in kind.required else f"{each}=0" for each in kind.settings]
        rows.append((f"`{name}({', '.join(inside)})`", kind.summary))
    return table(("their tensor is", "of ours"), rows)


def limits() -> str:
    """How large what a spec holds may be."""
    rows = [
        ("a file", f"{LARGEST_FILE:,} bytes"),
        ("imported files", f"{MOST_FILES:,}"),
        ("variants of variants", f"{MOST_EXTENDS:,} deep"),
        ("blocks in blocks", f"{DEEPEST_BLOCKS:,} deep"),
        ("expressions in expressions", f"{DEEPEST:,} deep"),
        ("turns of a loop, times those of the loops around it", f"{MOST_TURNS:,}"),
        ("experts, those of all layers together", f"{MOST_EXPERTS:,}"),
        ("steps to read a model", f"{MOST_STEPS:,}"),
        ("whole numbers", f"{LARGEST:,}"),
        ("lists", f"{MOST_ITEMS:,} items"),
        ("axes, and the elements of a weight", f"{LARGEST_AXIS:,}"),
    ]
    return table(("of", "at most"), rows)


TABLES = {
    "limits": limits,
    "passes": passes,
    "train": train,
    "changes": changes,
    "ops": ops,
    "masks": mask_constructors,
    "initializers": initializers,
    "numbers": numbers,
    "standard": standard,
}


def filled(text: str) -> str:
    """The reference with every table as the code has it today."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"the reference has no place for the table of {name}"
        made = make()
        text = pattern.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    REFERENCE.write_text(filled(REFERENCE.read_text("utf-8")), encoding="utf-8", newline="\n")
    print(f"wrote {REFERENCE.name}")
    runpy.run_path(str(Path(__file__).parent / "zoo_index.py"), run_name="__main__")
