"""Which mapping is meant: that of a model, or, among those of the shipped specs, the one that a configuration fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.checkpoints.configuration import check_values, has_no_choice, is_literal, look_up, show, values_of
from tfdsl.checkpoints.fields import PREFIX
from tfdsl.checkpoints.layout import Layout, check_coverage, lay_out
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.graph import Graph
from tfdsl.language import modules, syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, did_you_mean, one
from tfdsl.language.modules import Declared, Module, extends, is_model
from tfdsl.mappings import Rules, read_mapping

KIND = "model_type"  # the field by which a published configuration says what it is of


@dataclass(frozen=True)
class Family:
    """A mapping with the model that it is for, and the file that it stands in."""

    tree: syntax.Mapping
    module: Module
    declared: Declared

    @property
    def name(self) -> str:
        return self.tree.name.text

    def rules(self, graph: Graph | None = None, parameters: Parameters | None = None) -> Rules:
        """The rules, for a model of given parameters if there is one. Raises `SpecError` for a mapping with faults."""
        faults = Collector()
        found = read_mapping(self.tree, self.module, self.declared, faults, graph, parameters)
        faults.check()
        return found

    def layout(self, graph: Graph, parameters: Parameters) -> Layout:
        """Where the weights of a graph lie in a checkpoint. Raises `SpecError`."""
        faults = Collector()
        rules = self.rules(graph, parameters)
        found = lay_out(rules.weights, graph, faults)
        faults.check()
        check_coverage(found, rules.span, faults)
        faults.check()
        return found

    def misfits(self, config: Mapping[str, Any]) -> list[Diagnostic]:
        """What speaks against the family: fields that must have a value whatever the parameters, and have another."""
        faults = Collector()
        rules = self.rules().fields
        check_values(config, [rule for rule in rules if is_literal(rule)], None, faults)
        for rule in rules:
            if has_no_choice(config, rule):
                faults.add(Diagnostic("T812", f"`{rule.name}` is of another family", rule.span))
        return faults.found


def families_of(declared: Declared) -> list[Family]:
    """The mappings for a model and for what it extends, the nearest first."""
    chain = extends(declared)
    files = dict.fromkeys(each.module for each in chain)
    found = [family for module in files for family in _of_module(module) if family.declared in chain]
    return sorted(found, key=lambda family: chain.index(family.declared))


def family_of(declared: Declared, name: str | None = None, config: Mapping[str, Any] | None = None) -> Family:
    """The mapping of a model: by name, or the only one that fits a configuration. Raises `SpecError`."""
    found = families_of(declared)
    if name is not None:
        chosen = [each for each in found if each.name == name]
        help_ = did_you_mean(name, [each.name for each in found], _listed(found))
    else:
        nearest = [each for each in found if each.declared is found[0].declared]
        chosen = (
            nearest if config is None or len(nearest) == 1 else [each for each in nearest if not each.misfits(config)]
        )
        chosen, help_ = chosen or nearest, _listed(found)
    if not chosen:
        what = f"no mapping `{name}`" if name else "no mapping"
        raise one("T815", f"`{declared.name}` has {what} for checkpoints", help=help_)
    if len(chosen) > 1:
        raise one("T815", f"`{declared.name}` has {len(chosen)} mappings for checkpoints", help=_listed(chosen))
    return chosen[0]


def find_family(config: Mapping[str, Any]) -> Family:
    """The family among the shipped specs that a configuration is of. Raises `SpecError`."""
    kind = look_up(config, KIND)
    known = {family: _kinds(family) for module in modules.load_zoo() for family in _of_module(module)}
    found = [family for family, kinds in known.items() if kind in kinds]
    if not found:
        kinds = sorted({each for all_ in known.values() for each in all_})
        help_ = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
        listed = "known are " + ", ".join(kinds)
        raise one("T815", f"no shipped spec is for `{KIND}` {show(kind)}", note=listed, help=help_)
    misfits = {family: family.misfits(config) for family in found}
    fitting = [family for family in found if not misfits[family]]
    if len(fitting) > 1:
        raise one("T815", f"{len(fitting)} shipped specs fit this configuration", help=_listed(fitting))
    return fitting[0] if fitting else min(found, key=lambda family: len(misfits[family]))


def _kinds(family: Family) -> list[str]:
    """What `model_type` a family is of, as its mapping says."""
    found = [rule for rule in family.rules().fields if rule.name == KIND and is_literal(rule)]
    return [str(each) for rule in found for each in values_of(rule, None)]


def _of_module(module: Module) -> Iterator[Family]:
    for tree in module.mappings.values():
        declared = module.find(tree.model.text)
        whole = any(rule.theirs.value.startswith(PREFIX) for rule in tree.rules)
        if whole and declared is not None and is_model(declared):
            yield Family(tree, module, declared)


def _listed(found: list[Family]) -> str:
    return "they are " + ", ".join(f"`{each.name}` ({each.module.tree.source.name})" for each in found) if found else ""
