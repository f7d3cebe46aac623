"""A configuration and a model's parameters: what the one says of the other, through the rules of a mapping."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tfdsl.checkpoints.common_fields import COMMON
from tfdsl.checkpoints.fields import Chooses, Each, FieldRule, Holds, Ignored, Labels, Sets, Target
from tfdsl.checkpoints.folder import Folder
from tfdsl.checkpoints.json_values import as_expression, as_json, known_settings, layer_of, same
from tfdsl.ir.elaborate.body import MOST_TURNS
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Override, Parameters
from tfdsl.ir.elaborate.scopes import parameters_of, plain_scope
from tfdsl.ir.elaborate.values import Fault, Poisoned
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic
from tfdsl.language.modules import Declared, Module
from tfdsl.language.printer import print_expression

ORIGIN = "read from config.json"


class Absent:
    """Stands for a field that a configuration does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = Absent()


@dataclass(frozen=True)
class Setting:
    """What a field gives a parameter: an expression, the file whose names it uses, and the rule that it came by."""

    expression: syntax.Expression
    module: Module | None
    rule: FieldRule


@dataclass
class Reading:
    """What a configuration says about the parameters of a model."""

    declared: Declared
    given: dict[str, Setting] = field(default_factory=dict)

    def overrides(self) -> dict[str, Override]:
        return {
            name: Override(each.expression, None, each.module, each.rule.span, ORIGIN)
            for name, each in self.given.items()
        }

    def parameters(self) -> Parameters:
        """The parameters of the model with this configuration, each evaluated when it is asked for."""
        return parameters_of(self.declared, self.overrides())


# --- looking into a configuration ------------------------------------------------------------------------------------


def look_up(config: Mapping[str, Any], name: str) -> Any:
    """The value of a field by its path in dots, or `ABSENT`."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return ABSENT
        found = found[part]
    return found


def spelling(config: Mapping[str, Any], rule: FieldRule, faults: Collector) -> tuple[str, Any]:
    """The field of a rule as it stands in a configuration, and its value; several spellings must agree."""
    found = [(name, look_up(config, name)) for name in rule.path.spellings()]
    present = [each for each in found if each[1] is not ABSENT]
    for name, value in present[1:]:
        if not same(value, present[0][1]):
            message = f"`{present[0][0]}` is {show(present[0][1])}, and `{name}`, which is the same, {show(value)}"
            faults.add(Diagnostic("T812", message, rule.span))
    return present[0] if present else found[0]


def unknown_fields(config: Mapping[str, Any], rules: Sequence[FieldRule]) -> list[str]:
    """The fields that no rule names, in dots."""
    named = {name for rule in rules for name in rule.path.spellings()}
    above = {name[:place] for name in named for place in range(len(name)) if name[place] == "."}
    return [name for name in _leaves(config, "", named, above) if name not in COMMON]


def _leaves(config: Mapping[str, Any], before: str, named: set[str], above: set[str]) -> Iterator[str]:
    for key, value in config.items():
        name = before + key
        if name in named or (name in above and value is None):
            continue
        if name in above and isinstance(value, dict):
            yield from _leaves(value, f"{name}.", named, above)
        else:
            yield name


# --- from a configuration to parameters ------------------------------------------------------------------------------


def read_configuration(
    config: Mapping[str, Any],
    rules: Sequence[FieldRule],
    declared: Declared,
    faults: Collector,
    folder: Folder | None = None,
) -> Reading:
    """What a configuration says about the parameters of a model; every field that is not understood is a fault.

    Some rules ask for tensors too, those of `folder` if there is one.
    """
    unknown = unknown_fields(config, rules)
    if unknown:
        what = (
            f"{len(unknown)} fields of the configuration are" if len(unknown) > 1 else "a field of the configuration is"
        )
        note = ", ".join(f"`{name}` = {show(look_up(config, name))}" for name in unknown)
        faults.add(Diagnostic("T813", f"{what} not understood", note=note, help="no rule of the mapping names them"))
    reading, later = Reading(declared), list[tuple[Given, FieldRule, str]]()
    for rule in rules:
        name, value = spelling(config, rule, faults)
        try:
            given = _given(rule, name, value) if not _tensors_differ(rule, folder) else [_untrue(rule)]
        except Fault as fault:
            faults.add(fault.diagnostic)
            continue
        for target, expression in given:
            if target.setting is not None:
                later.append(((target, expression), rule, name))
            else:
                _give(reading, target.parameter, expression, rule, name, faults)
    for (target, expression), rule, name in later:  # when the layers are known
        _give_setting(reading, target, expression, rule, name, faults)
    return reading


Given = tuple[Target, syntax.Expression]


def _given(rule: FieldRule, name: str, value: Any) -> list[Given]:
    """What a field gives to which parameters. Raises `Fault`."""
    form = rule.form
    if isinstance(form, Each) and form.target is not None and isinstance(value, list) and value:
        return [(form.target, _plain(rule, name, value[0]))]  # that all are the same is checked later
    if isinstance(form, Each) and form.target is not None and form.single and isinstance(value, (int, float, str)):
        return [(form.target, _plain(rule, name, value))]
    if isinstance(form, (Ignored, Holds, Each)):
        return []
    if form.absent is not None and (value is ABSENT or value is None):
        return [(form.target, form.absent)]
    if isinstance(form, Chooses) and value is not ABSENT:
        return _chosen(form, rule, name, value)
    if value is ABSENT or value is None:
        if not rule.path.optional:
            what = f"the configuration has no field `{name}`" if value is ABSENT else f"`{name}` is null"
            raise Fault("T812", what, rule.span)
        return []
    if isinstance(form, Labels):
        if not isinstance(value, (list, dict)):
            raise Fault("T812", f"`{name}` names classes, and is {show(value)}", rule.span)
        value = len(value)
    return [(form.target, _plain(rule, name, value))]


def _tensors_differ(rule: FieldRule, folder: Folder | None) -> bool:
    unless = rule.form.unless if isinstance(rule.form, Sets) else None
    return unless is not None and folder is not None and folder.differ(*unless)


def _untrue(rule: FieldRule) -> Given:
    assert isinstance(rule.form, Sets)
    return rule.form.target, syntax.Literal(False, span=rule.span)


def _plain(rule: FieldRule, name: str, value: Any) -> syntax.Expression:
    expression = as_expression(value, rule.span)
    if expression is None:
        raise Fault("T812", f"`{name}` is {show(value)}, and sets a parameter", rule.span)
    return expression


def _chosen(form: Chooses, rule: FieldRule, name: str, value: Any) -> list[Given]:
    known, other = list[str](), None
    for theirs, ours in form.pairs:
        if isinstance(theirs, Target):
            other = (theirs, ours)
            continue
        each = as_json(evaluate(plain_scope(rule.module, None), theirs))
        if same(each, value):
            return [(form.target, ours)]
        known.append(show(each))
    if isinstance(value, list):
        items = [_chosen(form, rule, name, each)[0][1] for each in value]
        return [(form.target, syntax.ListOf(tuple(items), span=rule.span))]
    if value is None and rule.path.optional:
        return []
    if other is not None and value is not None:
        return [(other[0], _plain(rule, name, value)), (form.target, other[1])]
    help_ = f"the mapping knows {', '.join(known)}"
    raise Fault("T812", f"`{name}` is {show(value)}, which is not understood", rule.span, help=help_)


def _give(
    reading: Reading, parameter: str, expression: syntax.Expression, rule: FieldRule, name: str, faults: Collector
) -> None:
    default = parameters_of(reading.declared, {}).declared[parameter].default
    if isinstance(expression, syntax.Number) and isinstance(default, syntax.Number) and isinstance(default.value, int):
        expression = _whole(expression)
    before = reading.given.get(parameter)
    if before is not None and before.expression != expression:
        message = f"`{name}` gives `{parameter}` {print_expression(expression)}, and `{before.rule.name}` "
        faults.add(Diagnostic("T812", message + print_expression(before.expression), rule.span))
    reading.given.setdefault(parameter, Setting(expression, rule.module, rule))


def _whole(number: syntax.Number) -> syntax.Expression:
    """A number that is written as `8.0` where a parameter's default is written as `8`."""
    whole = int(number.value)
    return as_expression(whole, number.span) or number if whole == number.value else number


def _give_setting(
    reading: Reading, target: Target, expression: syntax.Expression, rule: FieldRule, name: str, faults: Collector
) -> None:
    """Add a setting to the layer that a parameter holds."""
    assert target.setting is not None
    parameter = target.parameter
    try:
        parameters = reading.parameters()
        layer = layer_of(parameters.value(parameter))
    except (Fault, Poisoned):
        return  # the parameter itself is at fault, which is reported when it is settled
    if layer is None or target.setting not in known_settings(layer):
        if layer is not None and isinstance(rule.form, Sets) and rule.form.lenient:
            return
        shown = f"`{layer.label}` has no `{target.setting}`" if layer else f"`{parameter}` is no layer"
        faults.add(Diagnostic("T812", f"`{name}` is {print_expression(expression)}, and {shown}", rule.span))
        return
    known = reading.given.get(parameter) or _default(parameters, parameter, rule)
    base = known.expression if known else None
    if known is None or not isinstance(base, (syntax.Path, syntax.Call)):
        faults.add(Diagnostic("T812", f"`{name}` is a setting of `{parameter}`, which is not written out", rule.span))
        return
    call = base if isinstance(base, syntax.Call) else syntax.Call(base, (), span=base.span)
    kept = [each for each in call.arguments if each.keyword is None or each.keyword.text != target.setting]
    argument = syntax.Argument(syntax.Name(target.setting, span=rule.span), expression, span=rule.span)
    reading.given[parameter] = replace(known, expression=replace(call, arguments=(*kept, argument)))


def _default(parameters: Parameters, name: str, rule: FieldRule) -> Setting | None:
    override = parameters.overrides.get(name)
    expression = override.expression if override else parameters.declared[name].default
    module = override.module if override else parameters.body.module
    return Setting(expression, module, rule) if expression is not None else None


def check_values(
    config: Mapping[str, Any], rules: Sequence[FieldRule], parameters: Parameters | None, faults: Collector
) -> None:
    """Report the fields that must have a value, of the parameters or of none, and have another."""
    for rule in rules:
        if not isinstance(rule.form, (Holds, Each)):
            continue
        name, value = spelling(config, rule, Collector())
        missing = value is ABSENT or (value is None and rule.path.optional)
        if missing and rule.path.optional:
            continue
        try:
            wanted = values_of(rule, parameters)
        except Fault as fault:
            faults.add(fault.diagnostic)
            continue
        except Poisoned:
            continue
        if missing:
            faults.add(Diagnostic("T812", f"the configuration has no field `{name}`", rule.span))
        elif not any(same(each, value) for each in wanted):
            shown = " or ".join(show(each) for each in wanted)
            faults.add(Diagnostic("T812", f"`{name}` is {show(value)}, and must be {shown}", rule.span))


def values_of(rule: FieldRule, parameters: Parameters | None) -> list[Any]:
    """The values that a field may have, as JSON. Raises `Fault` for an expression that is at fault."""
    form, scope = rule.form, plain_scope(rule.module, parameters)
    if isinstance(form, Holds):
        return [_json(evaluate(scope, choice), choice) for choice in form.choices]
    assert isinstance(form, Each)
    count, items = evaluate(scope, form.count), []
    if not isinstance(count, int) or not 0 <= count <= MOST_TURNS:
        raise Fault("T622", f"the number of elements is a whole number up to {MOST_TURNS:,}", form.count.span)
    for index in range(count):
        scope.env[form.index] = index
        items.append(_json(evaluate(scope, form.item), form.item))
    return [items, items[0]] if form.single and items and all(same(each, items[0]) for each in items) else [items]


def _json(value: Any, tree: syntax.Expression) -> Any:
    try:
        return as_json(value)
    except TypeError:
        raise Fault("T622", "a field holds a number, a string, a boolean, none or a list", tree.span) from None


def has_no_choice(config: Mapping[str, Any], rule: FieldRule) -> bool:
    """Whether a field has a value that stands for nothing of ours, where each one that does is written out."""
    value = spelling(config, rule, Collector())[1]
    if not isinstance(rule.form, Chooses) or value is ABSENT or value is None:
        return False
    try:
        _chosen(rule.form, rule, rule.name, value)
    except Fault:
        return True
    return False


def settle(parameters: Parameters) -> None:
    """Evaluate all parameters. Raises `SpecError` with what is at fault."""
    for name in parameters:
        try:
            parameters.value(name)
        except Fault as fault:
            parameters.body.session.faults.add(fault.diagnostic)
        except Poisoned:
            continue
    parameters.body.session.faults.check()


def is_literal(rule: FieldRule) -> bool:
    """Whether a field must have a value that depends on no parameter: such fields tell one family from another."""
    form = rule.form
    return isinstance(form, Holds) and not any(
        isinstance(node, syntax.Path) for choice in form.choices for node in choice.walk()
    )


def show(value: Any) -> str:
    """A value of JSON for a message."""
    if value is ABSENT:
        return "absent"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
