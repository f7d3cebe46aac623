"""Checking files: every fault in their text and in every model that they declare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfdsl.checkpoints.layout import check_coverage, lay_out
from tfdsl.ir.elaborate.check import ModuleCheck, check_module
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.language import modules, syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, SpecError, did_you_mean
from tfdsl.language.modules import Declared, Module, is_model
from tfdsl.mappings import read_mapping
from tfdsl.plans import read_plan


@dataclass
class Checked:
    """What a check found: faults, the models that were read, and those that lack a parameter's value, with its name."""

    faults: list[Diagnostic] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    unsettled: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line for a check that found nothing."""
        parts = [f"{len(self.models)} model{'s' if len(self.models) != 1 else ''}, no errors"]
        for name, parameter in self.unsettled.items():
            parts.append(f"{name} needs a value for `{parameter}` and was not read in full")
        return "; ".join(parts)


def check_file(path: str | os.PathLike[str]) -> Checked:
    """Every fault of a file: each model is read with its defaults, without and with all its optional inputs."""
    checked, faults = Checked(), Collector()
    try:
        module = modules.load(path)
    except SpecError as error:
        checked.faults = list(error.diagnostics)
        return checked
    read = check_module(module)
    checked.models = [each.name for each in module.models() if each.name not in read.unsettled]
    checked.unsettled = read.unsettled
    for diagnostic in read.faults:
        faults.add(diagnostic)
    _check_plans(module, read, faults)
    _check_mappings(module, read, faults)
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


def _check_plans(module: Module, read: ModuleCheck, faults: Collector) -> None:
    for plan in module.plans.values():
        declared = _model_of(module, plan.model, faults)
        if declared is not None:
            read_plan(plan, module, declared, _parameters(read, declared), faults)


def _check_mappings(module: Module, read: ModuleCheck, faults: Collector) -> None:
    for mapping in module.mappings.values():
        declared = _model_of(module, mapping.model, faults)
        if declared is not None:
            elaborated = read.models.get(declared.name)
            before = len(faults.found)
            graph, parameters = (elaborated.graph, elaborated.parameters) if elaborated else (None, None)
            rules = read_mapping(mapping, module, declared, faults, graph, parameters)
            if graph is not None and rules.fields and len(faults.found) == before:
                layout = lay_out(rules.weights, graph, faults)
                if len(faults.found) == before:
                    check_coverage(layout, rules.span, faults)


def _model_of(module: Module, name: syntax.Name, faults: Collector) -> Declared | None:
    """The model that a plan or a mapping is for."""
    found = module.find(name.text)
    if found is not None and is_model(found):
        return found
    visible = (*module.own.values(), *module.imported.values())
    known = [each.name for each in visible if is_model(each)]
    help_ = did_you_mean(name.text, known, "the models are " + ", ".join(known) if known else "")
    if found is None:
        faults.add(Diagnostic("T201", f"no model is called `{name.text}`", name.span, help=help_))
    else:
        others = (Label(found.item.name.span, "declared here"),)
        faults.add(Diagnostic("T201", f"`{name.text}` is a block, not a model", name.span, others=others, help=help_))
    return None


def _parameters(read: ModuleCheck, declared: Declared) -> Parameters | None:
    elaborated = read.models.get(declared.name)
    return elaborated.parameters if elaborated else None


def _finish(checked: Checked, faults: Collector) -> Checked:
    try:
        faults.check()
    except SpecError as error:
        checked.faults = list(error.diagnostics)
    return checked
