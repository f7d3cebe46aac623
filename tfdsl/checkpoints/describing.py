"""The configuration of a model in the words of its family: `config.json` for what is exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfdsl.checkpoints.configuration import (
    ABSENT,
    check_values,
    is_literal,
    read_configuration,
    settle,
    spelling,
    values_of,
)
from tfdsl.checkpoints.family import Family
from tfdsl.checkpoints.fields import Chooses, Each, FieldRule, Holds, Ignored, Labels, Sets, Target
from tfdsl.checkpoints.folder import Folder
from tfdsl.checkpoints.json_values import NOTHING, as_json, known_settings, layer_of, same, setting
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault
from tfdsl.language.diagnostics import Collector, Diagnostic

_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_configuration(
    family: Family,
    parameters: Parameters,
    source: Mapping[str, Any] | None,
    dtypes: set[str],
    folder: Folder | None = None,
) -> dict[str, Any]:
    """The configuration of a model: that of `source` where it says the same, else what the mapping says.

    Raises `SpecError` for a model that a configuration of this family cannot describe.
    """
    rules, faults = family.rules().fields, Collector()
    config = copy.deepcopy(dict(source or {}))
    kept = _kept(config, rules, family, parameters, folder) if source is not None else set()
    targets = [rule.form.target for rule in rules if isinstance(rule.form, (Sets, Chooses, Labels))]
    for rule in rules:
        goes_without_saying = source is None and rule.path.optional and is_literal(rule)
        if rule.path.text in kept or isinstance(rule.form, Ignored) or goes_without_saying:
            continue
        try:
            value = _value(rule, parameters, targets)
        except Fault as fault:
            faults.add(fault.diagnostic)
            continue
        if value is not ABSENT:
            _put(config, spelling(config, rule, Collector())[0], value)
    if source is None and len(dtypes) == 1:
        config["torch_dtype"] = _NAMES[next(iter(dtypes))]
    faults.check()
    _check_configuration(config, rules, family, parameters, folder)
    return config


def _kept(
    config: dict[str, Any], rules: list[FieldRule], family: Family, parameters: Parameters, folder: Folder | None
) -> set[str]:
    """The rules whose fields say of the model what is so."""
    before = read_configuration(config, rules, family.declared, Collector(), folder).parameters()
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


def _value(rule: FieldRule, parameters: Parameters, targets: list[Target]) -> Any:
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
        if rule.path.optional and form.absent is None and form.target.setting not in layer.given:
            return ABSENT  # its default goes without saying
        value = setting(layer, form.target.setting)
    if isinstance(form, Chooses):
        elsewhere = {target.setting for target in targets if target.parameter == form.target.parameter}
        return _their_choice(form, rule, parameters, value, elsewhere)
    try:
        if value is NOTHING:
            raise TypeError
        found = as_json(value)
    except TypeError:
        raise Fault("T816", f"`{form.target.parameter}` has a value that no field can hold", rule.span) from None
    return {str(each): f"LABEL_{each}" for each in range(found)} if isinstance(form, Labels) else found


def _their_choice(
    form: Chooses, rule: FieldRule, parameters: Parameters, value: Any, elsewhere: set[str | None]
) -> Any:
    """The value of theirs that stands for ours."""
    scope = plain_scope(rule.module, parameters)
    for theirs, ours in form.pairs:
        if _is_choice(evaluate(scope, ours), value, elsewhere):
            return as_json(
                parameters.value(theirs.parameter) if isinstance(theirs, Target) else evaluate(scope, theirs)
            )
    if isinstance(value, tuple):
        return [_their_choice(form, rule, parameters, each, elsewhere) for each in value]
    raise Fault("T816", f"`{form.target.parameter}` is something that the mapping has no word for", rule.span)


def _is_choice(choice: Any, value: Any, elsewhere: set[str | None]) -> bool:
    """Whether a value is what a choice says; settings of a layer that other fields set may differ."""
    wanted, found = layer_of(choice), layer_of(value)
    if wanted is None or found is None:
        return same(choice, value)
    kept = {name: each for name, each in found.given.items() if name not in elsewhere or name in wanted.given}
    return same(wanted, replace(found, given=kept))


def _put(config: dict[str, Any], name: str, value: Any) -> None:
    *above, last = name.split(".")
    for part in above:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    config[last] = value


def _check_configuration(
    config: Mapping[str, Any],
    rules: list[FieldRule],
    family: Family,
    parameters: Parameters,
    folder: Folder | None,
) -> None:
    """Read the configuration again: it must give the very parameters that it was made from."""
    faults = Collector()
    again = read_configuration(config, rules, family.declared, faults, folder).parameters()
    settle(again)
    check_values(config, rules, parameters, faults)
    for name in parameters:
        if not same(again.value(name), parameters.value(name)):
            place = parameters.origins.get(name, ("", None))[1]
            message = f"no field of the configuration says what `{name}` is"
            faults.add(Diagnostic("T816", message, place, help=f"a checkpoint of `{family.name}` cannot be told this"))
    faults.check()
