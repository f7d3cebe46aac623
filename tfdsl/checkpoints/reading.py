"""The weights of a model from the folder of a checkpoint, whose configuration must be that of the model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tfdsl.checkpoints.configuration import check_values, read_configuration, settle
from tfdsl.checkpoints.family import Family, family_of
from tfdsl.checkpoints.folder import Folder, open_folder
from tfdsl.checkpoints.json_values import same
from tfdsl.checkpoints.tensors import Checkpoint, compare
from tfdsl.language.diagnostics import Collector, Diagnostic

if TYPE_CHECKING:
    from tfdsl.model import Model

# Where a parameter was set on purpose, by whoever loads the model.
_ON_PURPOSE = ("--set", "given to load")


def read_weights(folder: str | os.PathLike[str], model: Model, mapping: str | None = None) -> Checkpoint:
    """The weights of a model from a folder, each read when it is asked for. Raises `SpecError`.

    The configuration must say of the model what is so, except for parameters that were set from outside.
    """
    opened = open_folder(folder)
    return read_folder(opened, model, family_of(model.declared, mapping, opened.config))


def read_folder(opened: Folder, model: Model, family: Family) -> Checkpoint:
    """The weights of a model from a folder of its family. Raises `SpecError` with every difference."""
    faults = Collector()
    rules = family.rules().fields
    reading = read_configuration(opened.config, rules, family.declared, faults, opened)
    faults.check()
    parameters = reading.parameters()
    settle(parameters)
    check_values(opened.config, rules, model.parameters, faults)
    for name, each in reading.given.items():
        origin, place = model.parameters.origins[name]
        if origin not in _ON_PURPOSE and not same(parameters.value(name), model.parameters.value(name)):
            message = f"`{each.rule.name}` of `{opened.path}` gives `{name}` another value than the model has"
            help_ = "`tfm import` writes the spec of a checkpoint; --set changes a parameter on purpose"
            faults.add(Diagnostic("T812", message, place, help=help_))
    layout = family.layout(model.graph, model.parameters)
    compare(opened, layout, faults)
    faults.check()
    return Checkpoint(opened, layout)
