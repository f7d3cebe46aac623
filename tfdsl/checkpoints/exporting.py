"""From a model to a checkpoint in the naming of its family: `config.json` and `model.safetensors`."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdsl.checkpoints.configuration import (
    ABSENT,
    check_values,
    is_literal,
    read_configuration,
    settle,
    spelling,
    values_of,
)
from tfdsl.checkpoints.family import Family, family_of
from tfdsl.checkpoints.fields import Chooses, Each, FieldRule, Holds, Ignored, Labels, Sets, Target
from tfdsl.checkpoints.folder import CONFIG, WHOLE, open_folder
from tfdsl.checkpoints.json_values import NOTHING, as_json, known_settings, layer_of, same, setting
from tfdsl.checkpoints.layout import Group, Layout, leaves
from tfdsl.checkpoints.reading import read_folder
from tfdsl.checkpoints.tensors import Checkpoint, assemble
from tfdsl.files import atomic_directory
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault
from tfdsl.language.diagnostics import Collector, Diagnostic, SpecError
from tfdsl.weights import WeightFile, read
from tfdsl.weights.arrays import from_arrays
from tfdsl.weights.files import Array
from tfdsl.weights.writing import write_stored

if TYPE_CHECKING:
    from tfdsl.model import Model

_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def export(
    model: Model, weights: Any, directory: str | os.PathLike[str], mapping: str | None = None
) -> tuple[Path, ...]:
    """Write a model with its weights as a checkpoint of its family; the files that were written. Raises `SpecError`.

    `weights` is a safetensors file, arrays by path, a module, or the folder of a checkpoint of the same family. Element
    types stay; from a folder, names and fields without influence stay as they are there, too.
    """
    source: _Source
    if isinstance(weights, (str, os.PathLike)) and Path(weights).is_dir():
        opened = open_folder(weights)
        family = family_of(model.declared, mapping, opened.config)
        source = _FromFolder(read_folder(opened, model, family))
    else:
        family = family_of(model.declared, mapping)
        layout = family.layout(model.graph, model.parameters)
        if isinstance(weights, (str, os.PathLike)):
            source = _FromFile(read(weights, model.graph), layout)
        else:
            source = _FromArrays(from_arrays(weights, model.graph), layout)
    config = write_configuration(family, model.parameters, source.config, source.dtypes())
    folder = Path(directory)
    with atomic_directory(folder) as temporary:
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8", newline="\n")
        write_stored(temporary / WHOLE, source.table(), source.data)
    return folder / CONFIG, folder / WHOLE


# --- tensors ---------------------------------------------------------------------------------------------------------


class _Source:
    """Weights to be written: their configuration, if they came with one, and each of their tensors as it is stored."""

    config: Mapping[str, Any] | None = None

    def __init__(self, layout: Layout):
        self.layout = layout

    def raw(self, path: str) -> Array:
        """One of our weights as it is stored."""
        raise NotImplementedError

    def dtype(self, path: str) -> str:
        """The element type of one of our weights, as safetensors spells it."""
        raise NotImplementedError

    def names(self, group: Group) -> list[str]:
        """The names that a tensor is written under."""
        return group.names[:1]

    def dtypes(self) -> set[str]:
        return {self.dtype(path) for path in self.layout.shapes}

    def table(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Name, element type and shape of each tensor of the file."""
        for group in self.layout.groups:
            dtypes = {self.dtype(leaf.path) for leaf in leaves(group.tree)}
            if len(dtypes) > 1:
                message = f"`{group.names[0]}` would be made of {' and '.join(sorted(dtypes))}"
                raise SpecError([Diagnostic("T804", message, group.span)])
            for name in self.names(group):
                yield name, next(iter(dtypes)), group.shape

    def data(self, name: str) -> Array:
        """A tensor of the file, as it is stored."""
        return assemble(self.layout.by_name[name].tree, _Raw(self))


class _Raw(Mapping[str, Array]):
    """The weights of a source as they are stored."""

    def __init__(self, source: _Source):
        self.source = source

    def __getitem__(self, path: str) -> Array:
        return self.source.raw(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.layout.shapes)

    def __len__(self) -> int:
        return len(self.source.layout.shapes)


class _FromArrays(_Source):
    def __init__(self, arrays: Mapping[str, Array], layout: Layout):
        super().__init__(layout)
        self.arrays = arrays

    def raw(self, path: str) -> Array:
        return self.arrays[path]

    def dtype(self, path: str) -> str:
        return "F32"


class _FromFile(_Source):
    def __init__(self, file: WeightFile, layout: Layout):
        super().__init__(layout)
        self.file = file

    def raw(self, path: str) -> Array:
        return self.file.raw(path)

    def dtype(self, path: str) -> str:
        return self.file.entries[path].dtype


class _FromFolder(_Source):
    """A checkpoint of the same family: what has no influence is copied as it is."""

    def __init__(self, checkpoint: Checkpoint):
        super().__init__(checkpoint.layout)
        self.checkpoint = checkpoint
        self.config = checkpoint.folder.config

    def raw(self, path: str) -> Array:
        return self.checkpoint.raw(path)

    def dtype(self, path: str) -> str:
        return self.checkpoint.dtype(path)

    def names(self, group: Group) -> list[str]:
        return [name for name in group.names if name in self.checkpoint.folder.files]

    def table(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        yield from super().table()
        for name in self.checkpoint.folder:
            if name not in self.layout.by_name:
                entry = self.checkpoint.folder.entry(name)
                yield name, entry.dtype, entry.shape

    def data(self, name: str) -> Array:
        return super().data(name) if name in self.layout.by_name else self.checkpoint.folder.data(name)


# --- the configuration -----------------------------------------------------------------------------------------------


def write_configuration(
    family: Family, parameters: Parameters, source: Mapping[str, Any] | None, dtypes: set[str]
) -> dict[str, Any]:
    """The configuration of a model: that of `source` where it says the same, else what the mapping says.

    Raises `SpecError` for a model that a configuration of this family cannot describe.
    """
    rules, faults = family.rules().fields, Collector()
    config = copy.deepcopy(dict(source or {}))
    kept = _kept(config, rules, family, parameters) if source is not None else set()
    for rule in rules:
        goes_without_saying = source is None and rule.path.optional and is_literal(rule)
        if rule.path.text in kept or isinstance(rule.form, Ignored) or goes_without_saying:
            continue
        try:
            value = _value(rule, parameters)
        except Fault as fault:
            faults.add(fault.diagnostic)
            continue
        if value is not ABSENT:
            _put(config, spelling(config, rule, Collector())[0], value)
    if source is None and len(dtypes) == 1:
        config["torch_dtype"] = _NAMES[next(iter(dtypes))]
    faults.check()
    _check_configuration(config, rules, family, parameters)
    return config


def _kept(config: dict[str, Any], rules: list[FieldRule], family: Family, parameters: Parameters) -> set[str]:
    """The rules whose fields say of the model what is so."""
    before = read_configuration(config, rules, family.declared, Collector()).parameters()
    kept = set()
    for rule in rules:
        faults = Collector()
        if isinstance(rule.form, (Holds, Each)):
            check_values(config, [rule], parameters, faults)
            if not faults.found:
                kept.add(rule.path.text)
        elif not isinstance(rule.form, Ignored):
            name = rule.form.target.parameter
            if same(before.value(name), parameters.value(name)):
                kept.add(rule.path.text)
    return kept


def _value(rule: FieldRule, parameters: Parameters) -> Any:
    """What a field says of a model, as JSON; `ABSENT` for a setting of a layer that has none of that name."""
    form = rule.form
    if isinstance(form, (Holds, Each)):
        return values_of(rule, parameters)[0]
    assert isinstance(form, (Sets, Chooses, Labels))
    value = parameters.value(form.target.parameter)
    if form.target.setting is not None:
        layer = layer_of(value)
        if layer is None or form.target.setting not in known_settings(layer):
            return ABSENT
        value = setting(layer, form.target.setting)
    if isinstance(form, Chooses):
        return _their_choice(form, rule, parameters, value)
    try:
        if value is NOTHING:
            raise TypeError
        found = as_json(value)
    except TypeError:
        raise Fault("T816", f"`{form.target.parameter}` has a value that no field can hold", rule.span) from None
    return {str(each): f"LABEL_{each}" for each in range(found)} if isinstance(form, Labels) else found


def _their_choice(form: Chooses, rule: FieldRule, parameters: Parameters, value: Any) -> Any:
    """The value of theirs that stands for ours: of a layer, the settings that the choice names must agree."""
    scope = plain_scope(rule.module, parameters)
    for theirs, ours in form.pairs:
        if _is_choice(evaluate(scope, ours), value):
            return as_json(parameters.value(theirs.parameter) if isinstance(theirs, Target) else evaluate(scope, theirs))
    if isinstance(value, tuple):
        return [_their_choice(form, rule, parameters, each) for each in value]
    raise Fault("T816", f"`{form.target.parameter}` is something that the mapping has no word for", rule.span)


def _is_choice(choice: Any, value: Any) -> bool:
    wanted, found = layer_of(choice), layer_of(value)
    if wanted is None or found is None:
        return same(choice, value)
    kept = {name: each for name, each in found.given.items() if name in wanted.given}
    return same(wanted, type(found)(found.callee, kept, found.name, found.span))


def _put(config: dict[str, Any], name: str, value: Any) -> None:
    *above, last = name.split(".")
    for part in above:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    config[last] = value


def _check_configuration(
    config: Mapping[str, Any], rules: list[FieldRule], family: Family, parameters: Parameters
) -> None:
    """Read the configuration again: it must give the very parameters that it was made from."""
    faults = Collector()
    again = read_configuration(config, rules, family.declared, faults).parameters()
    settle(again)
    check_values(config, rules, parameters, faults)
    for name in parameters:
        if not same(again.value(name), parameters.value(name)):
            place = parameters.origins.get(name, ("", None))[1]
            message = f"no field of the configuration says what `{name}` is"
            faults.add(Diagnostic("T816", message, place, help=f"a checkpoint of `{family.name}` cannot be told this"))
    faults.check()

