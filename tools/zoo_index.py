"""Write the tables of the zoo's index, `specs/README.md`: `python tools/zoo_index.py`.

What stands between `<!-- gpt2.tfm -->` and `<!-- /gpt2.tfm -->` is made from the file: its models, their parameters to the
unit, and what they set of the models that they extend. A test fails when that is stale, or a spec is missing.
"""

from __future__ import annotations

import re
from pathlib import Path

import tfdsl
from tfdsl.language import syntax
from tfdsl.language.parser import parse, read

SPECS = Path(__file__).parent.parent / "specs"
INDEX = SPECS / "README.md"
_LONGEST = 100  # of a value that is shown
_PLACE = r"(<!-- {0} -->\n).*?(<!-- /{0} -->)"


def rows(file: Path) -> list[tuple[str, str, str]]:
    """Each model of a file: its name, its parameters, and what it is made from."""
    found = []
    for item in parse(read(file)).items:
        is_model = isinstance(item, syntax.Variant) or (isinstance(item, syntax.Block) and item.kind == "model")
        if not is_model:
            continue
        assert isinstance(item, (syntax.Block, syntax.Variant))
        total = tfdsl.load(file, item.name.text).report().parameters
        found.append((f"`{item.name.text}`", f"{total:,}", origin(item)))
    return found


def origin(item: syntax.Block | syntax.Variant) -> str:
    """What a variant sets, or what a model takes and gives."""
    if isinstance(item, syntax.Variant):
        values = [" ".join(each.value.span.text.split()) for each in item.settings]
        settings = ", ".join(
            f"{each.name.text} = {value if len(value) < _LONGEST else '...'}"
            for each, value in zip(item.settings, values, strict=True)
        )
        return f"`{item.base.text}` with `{settings}`"
    names = [", ".join(f"`{shown(each)}`" for each in side) for side in (item.inputs, item.outputs)]
    return " to ".join(names)


def shown(tensor: syntax.Input | syntax.Output) -> str:
    """An input or a result with its shape."""
    name = tensor.name.text + ": " if tensor.name else ""
    optional = "?" if isinstance(tensor, syntax.Input) and tensor.optional else ""
    return f"{name}{tensor.type.span.text}{optional}"


def table(file: Path) -> str:
    """The models of a file as a table in Markdown."""
    lines = [("model", "parameters", "from"), ("---", "---:", "---"), *rows(file)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def listed(text: str) -> list[str]:
    """The files that an index has a place for."""
    return re.findall(r"<!-- ([\w.]+\.tfm) -->", text)


def filled(text: str) -> str:
    """The index with every table as the specs have it today."""
    for name in listed(text):
        made = table(SPECS / name)
        place = re.compile(_PLACE.format(re.escape(name)), re.DOTALL)
        text = place.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    INDEX.write_text(filled(INDEX.read_text("utf-8")), encoding="utf-8", newline="\n")
    print(f"wrote {INDEX.name}")
