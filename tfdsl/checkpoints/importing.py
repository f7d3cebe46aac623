"""From a checkpoint to a spec: the shipped model of its family, with the parameters that differ."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfdsl.checkpoints.configuration import Reading, Setting, check_values, read_configuration, settle
from tfdsl.checkpoints.family import Family, find_family
from tfdsl.checkpoints.folder import Folder, open_folder
from tfdsl.checkpoints.json_values import as_expression, as_json, same
from tfdsl.checkpoints.tensors import compare
from tfdsl.files import atomic_file
from tfdsl.ir.elaborate import elaborate
from tfdsl.ir.elaborate.blocks import overrides_of
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.elaborate.scopes import parameters_of
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Source, SpecError, one
from tfdsl.language.modules import SHIPPED, STD, Declared, Module, extends, is_model
from tfdsl.language.parser import KEYWORDS
from tfdsl.language.printer import format_source, print_expression


@dataclass(frozen=True)
class Imported:
    """A spec that was written: its file, its model, the model that this extends, and whether weights were compared."""

    path: Path
    model: str
    base: str
    settings: tuple[str, ...]
    weights: bool


def import_folder(folder: str | os.PathLike[str], output: str | os.PathLike[str], name: str | None = None) -> Imported:
    """Write the spec of a checkpoint. Raises `SpecError` with every field and every tensor that is not understood."""
    opened = open_folder(folder, weights=False)
    family = find_family(opened.config)
    reading = _read(opened, family)
    chosen, settings = _shortest(family, reading)
    text, model = _text(Path(folder), family, chosen, settings, name)
    with atomic_file(output) as temporary:
        temporary.write_text(format_source(Source(os.fspath(output), text)), encoding="utf-8", newline="\n")
        _check_written(temporary, model, reading.parameters())
    return Imported(Path(output), model, chosen.name, tuple(settings), bool(opened.files))


def _read(opened: Folder, family: Family) -> Reading:
    """What the configuration says, checked in full together with the names and shapes of the weights."""
    faults = Collector()
    rules = family.rules()
    reading = read_configuration(opened.config, rules.fields, family.declared, faults, opened)
    parameters = reading.parameters()
    check_values(opened.config, rules.fields, parameters, faults)
    try:
        settle(parameters)
        if opened.files:
            made = elaborate(family.declared, reading.overrides())
            compare(opened, family.layout(made.graph, made.parameters), faults)
    except SpecError as error:
        for diagnostic in error.diagnostics:
            faults.add(diagnostic)
    faults.check()
    return reading


# --- the shortest way to say it --------------------------------------------------------------------------------------


def _shortest(family: Family, reading: Reading) -> tuple[Declared, dict[str, Setting]]:
    """The model or variant of the family's file that needs the fewest settings, and those."""
    variants = [each for each in family.declared.module.models() if family.declared in extends(each)]
    candidates = [family.declared, *(each for each in variants if each is not family.declared)]
    found = [(each, _settings(each, family, reading)) for each in candidates]
    fitting = [(each, settings) for each, settings in found if settings is not None]
    return min(fitting, key=lambda each: len(each[1]))


def _settings(candidate: Declared, family: Family, reading: Reading) -> dict[str, Setting] | None:
    """The settings that a candidate needs, or None where one of them cannot be written."""
    wanted, given = reading.parameters(), dict(reading.given)
    for name in overrides_of(candidate, Collector()):
        if name in given or name in overrides_of(family.declared, Collector()):
            continue
        try:
            rule = next(iter(reading.given.values())).rule
            expression = as_expression(as_json(wanted.value(name)), rule.span)
        except (TypeError, StopIteration):
            return None
        if expression is None:
            return None
        given[name] = Setting(expression, None, rule)
    for name in list(given):
        fewer = {key: each for key, each in given.items() if key != name}
        if _agree(Reading(candidate, fewer).parameters(), wanted):
            given = fewer
    in_order = {name: given[name] for name in wanted if name in given}
    return in_order if _agree(Reading(candidate, given).parameters(), wanted) else None


def _agree(one_: Parameters, other: Parameters) -> bool:
    return all(same(one_.value(name), other.value(name)) for name in other)


# --- the text --------------------------------------------------------------------------------------------------------


def _text(
    folder: Path, family: Family, chosen: Declared, settings: Mapping[str, Setting], name: str | None
) -> tuple[str, str]:
    """The text of a spec, and the name of its model."""
    places: dict[str, set[str]] = {_place(chosen.module): {chosen.name}}
    for each in settings.values():
        for block in _blocks(each, chosen):
            places.setdefault(_place(block.module), set()).add(block.name)
    taken = {each for names in places.values() for each in names}
    model = _model_name(name, folder, taken)
    lines = [f'import {", ".join(sorted(names))} from "{place}"' for place, names in sorted(places.items())]
    lines += ["", f"# From a published checkpoint of the family `{family.name}`, by `tfm import`."]
    lines += [f"model {model} extends {chosen.name} {{"]
    lines += [f"  {key} = {print_expression(each.expression)}" for key, each in settings.items()]
    return "\n".join([*lines, "}"]) + "\n", model


def _blocks(each: Setting, chosen: Declared) -> list[Declared]:
    """The blocks that an expression names and that must be imported for it."""
    module = each.module or chosen.module
    names = [node.parts[0].text for node in each.expression.walk() if isinstance(node, syntax.Path)]
    found = [module.find(name) for name in names if name not in parameters_of(chosen, {})]
    return [block for block in found if block is not None and block.module.path != STD / "prelude.tfm"]


def _place(module: Module) -> str:
    """The path by which a shipped file is imported."""
    for name, folder in SHIPPED.items():
        if module.path.is_relative_to(folder):
            return f"{name}/{module.path.relative_to(folder).as_posix()}"
    raise AssertionError("families are looked for in shipped files")


def _model_name(name: str | None, folder: Path, taken: set[str]) -> str:
    if name is not None:
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in KEYWORDS or name in taken:
            raise one(
                "T901", f"`{name}` cannot be the name of the model", help="letters, digits and `_`; not one it extends"
            )
        return name
    found = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_")
    if not found or found[0].isdigit() or found in KEYWORDS:
        found = f"Model_{found}".rstrip("_")
    return f"{found}_imported" if found in taken else found


def _check_written(path: Path, model: str, wanted: Parameters) -> None:
    """Hold the text to what it was made from."""
    from tfdsl.model import load

    found = load(path, model)
    assert is_model(found.declared) and _agree(found.parameters, wanted), "the spec says something else"
