"""Checking files: every fault in their text and in every model that they declare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfdsl.ir.elaborate import elaborate
from tfdsl.ir.elaborate.application import base_block
from tfdsl.ir.elaborate.blocks import overrides_of
from tfdsl.language import modules, syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError
from tfdsl.language.modules import Declared, Module


@dataclass
class Checked:
    """What a check found: faults, the models that were read, and those that lack a parameter's value, with its name."""

    faults: list[Diagnostic] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    unsettled: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line for a check that found nothing."""
        parts = [f"{len(self.models)} model{'s' if len(self.models) != 1 else ''}, no errors"]
        parts += [f"{name} needs a value for `{parameter}` and was not read" for name, parameter in self.unsettled.items()]
        return "; ".join(parts)


def check_file(path: str | os.PathLike[str]) -> Checked:
    """Every fault of a file: each model is read with its defaults, without and with all its optional inputs."""
    checked, faults = Checked(), Collector()
    try:
        module = modules.load(path)
    except SpecError as error:
        checked.faults = list(error.diagnostics)
        return checked
    for declared in module.models():
        missing = _without_value(declared)
        if missing is not None:
            checked.unsettled[declared.name] = missing
            continue
        checked.models.append(declared.name)
        _read(declared, faults)
    _check_plans(module, faults)
    return _finish(checked, faults)


def check_model(
    path: str | os.PathLike[str], name: str | None, settings: Mapping[str, str], inputs: Sequence[str]
) -> Checked:
    """Every fault of one model with parameters set and optional inputs chosen as they are given."""
    from tfdsl.model import load

    checked = Checked()
    try:
        checked.models = [load(path, name, inputs=inputs, settings=settings).name]
    except SpecError as error:
        checked.faults = list(error.diagnostics)
    return checked


def _read(declared: Declared, faults: Collector) -> None:
    optional = tuple(each.name.text for each in base_block(declared).inputs if each.optional)
    for inputs in ((), optional) if optional else ((),):
        try:
            elaborate(declared, {}, inputs)
        except SpecError as error:
            for diagnostic in error.diagnostics:
                faults.add(diagnostic)


def _without_value(declared: Declared) -> str | None:
    """A parameter that neither the model nor what it extends gives a value: such a model is there to be extended."""
    given = overrides_of(declared, Collector())
    for statement in base_block(declared).body:
        if isinstance(statement, syntax.Parameter) and statement.default is None and statement.name.text not in given:
            return statement.name.text
    return None


def _check_plans(module: Module, faults: Collector) -> None:
    """Plans and mappings are checked by the phase that runs them."""


def _finish(checked: Checked, faults: Collector) -> Checked:
    try:
        faults.check()
    except SpecError as error:
        checked.faults = list(error.diagnostics)
    return checked
