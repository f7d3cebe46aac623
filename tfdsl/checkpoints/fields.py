"""Rules for the configuration: what a field of `config.json` says about a model's parameters.

The left side of such a rule is `config.` and the name of the field, with dots for what lies deeper; `?` after it says that the
field may be absent. The right side is one of:

- a parameter: the field sets it; with `?`, absence and `null` leave it at its default. `rotary.factor` is the setting
  `factor` of the layer that the parameter `rotary` holds;
- `set(PARAMETER, absent=OURS)`: the same, where absence and `null` mean another expression of ours than the default;
  `set(rotary.limit, otherwise=ignored)`: the field has no influence where the layer has no such setting;
  `set(tied, unless=differ("a", "b"))`: the parameter is false, whatever the field says, where there are two such tensors
  and they differ;
- `choose(PARAMETER, [THEIRS, OURS], ...)`: each of their values stands for an expression of ours, a layer for instance; a
  list of theirs is taken element by element. In `[window, causal & window(window)]` the name of a parameter stands for every
  other value, and that parameter is set to it;
- `labels(PARAMETER)`: the field names the classes, and the parameter is their number;
- an expression of the parameters, or of none: the field must have that value. `one_of(a, b)` allows several, the first of
  which is written; `each(i, count, expression)` is a list with an element for each i from 0 to count - 1, and sets a
  parameter if the expression is one; with `single=true` it may also be one value alone, which all have;
- `ignored`: the field has no influence on what is computed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tfdsl.checkpoints.names import Pattern, pattern
from tfdsl.ir.elaborate.values import Fault
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Span, did_you_mean
from tfdsl.language.modules import Module

PREFIX = "config."
IGNORED = "ignored"


@dataclass(frozen=True)
class Target:
    """What a field sets: a parameter, or a setting of the layer that a parameter holds."""

    parameter: str
    setting: str | None = None


@dataclass(frozen=True)
class Ignored:
    """The field says nothing about the model."""


@dataclass(frozen=True)
class Holds:
    """The field has one of these values."""

    choices: tuple[syntax.Expression, ...]


@dataclass(frozen=True)
class Each:
    """The field is a list of `count` values, in which `index` is a number; `target` is a parameter that they all are.

    With `single` it may also be one value that stands for all.
    """

    index: str
    count: syntax.Expression
    item: syntax.Expression
    target: Target | None = None
    single: bool = False


@dataclass(frozen=True)
class Sets:
    """The field is the value of a parameter.

    `lenient`: it has no influence on a layer without the setting that it names. `unless` are two tensors: where they are there
    and differ, the parameter is false.
    """

    target: Target
    absent: syntax.Expression | None = None
    lenient: bool = False
    unless: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chooses:
    """Values of theirs, each with what a parameter is then."""

    target: Target
    pairs: tuple[tuple[syntax.Expression | Target, syntax.Expression], ...]
    absent: syntax.Expression | None = None


@dataclass(frozen=True)
class Labels:
    """The field is an object or a list with an entry for each class."""

    target: Target
    absent: syntax.Expression | None = None


Form = Ignored | Holds | Each | Sets | Chooses | Labels


@dataclass(frozen=True)
class FieldRule:
    """A rule for a field: its path in dots, what it means, and the file whose names the right side uses."""

    path: Pattern
    form: Form
    module: Module
    span: Span

    @property
    def name(self) -> str:
        """The field in the spelling that is written."""
        return self.path.spellings()[0]


def read_field(left: str, rule: syntax.Rule, module: Module, parameters: Collection[str]) -> FieldRule:
    """The rule of a left side that begins with `config.`. Raises `Fault`."""
    try:
        path = pattern(left.removeprefix(PREFIX), field=True)
    except ValueError as error:
        raise Fault("T621", str(error), rule.theirs.span) from None
    if not path.pieces:
        raise Fault("T621", "the name of a field follows `config.`", rule.theirs.span)
    return FieldRule(path, _form(rule.ours, parameters), module, rule.span)


def _form(tree: syntax.Expression, parameters: Collection[str]) -> Form:
    if isinstance(tree, syntax.Path):
        if tree.text == IGNORED:
            return Ignored()
        if tree.parts[0].text in parameters:
            return Sets(_target(tree, parameters))
    if isinstance(tree, syntax.Call) and tree.callee.text in _READERS:
        return _READERS[tree.callee.text](tree, parameters)
    return Holds((tree,))


def _target(tree: syntax.Expression, parameters: Collection[str]) -> Target:
    if not isinstance(tree, syntax.Path) or len(tree.parts) > 2:
        raise Fault("T622", "a parameter, or a setting of one (`rotary.factor`), is needed here", tree.span)
    names = [part.text for part in tree.parts]
    if names[0] not in parameters:
        help_ = did_you_mean(names[0], parameters, "its parameters are " + ", ".join(parameters))
        raise Fault("T624", f"the model has no parameter `{names[0]}`", tree.span, help=help_)
    return Target(*names)


def _arguments(
    tree: syntax.Call, least: int, most: int | None, usage: str
) -> tuple[list[syntax.Expression], dict[str, syntax.Expression]]:
    """The arguments by position, and those by the keywords that `usage` shows."""
    plain = [each.value for each in tree.arguments if each.keyword is None]
    named = [each for each in tree.arguments if each.keyword is not None]
    if len(plain) < least or (most is not None and len(plain) > most) or tree.name is not None:
        raise Fault("T622", f"`{tree.callee.text}` takes other arguments", tree.span, help=usage)
    keywords: dict[str, syntax.Expression] = {}
    for each in named:
        assert each.keyword is not None
        if each.keyword.text in keywords or f"{each.keyword.text}=" not in usage:
            raise Fault("T622", f"`{tree.callee.text}` has no such setting", each.keyword.span, help=usage)
        keywords[each.keyword.text] = each.value
    return plain, keywords


def _set(tree: syntax.Call, parameters: Collection[str]) -> Form:
    usage = 'set(parameter, absent=ours, otherwise=ignored, unless=differ("theirs", "theirs"))'
    plain, named = _arguments(tree, 1, 1, usage)
    target, otherwise = _target(plain[0], parameters), named.get("otherwise")
    if otherwise is not None and (otherwise.span.text != IGNORED or target.setting is None):
        message = "`otherwise=ignored` is for a setting that only some layers have"
        raise Fault("T622", message, otherwise.span, help=usage)
    unless = named.get("unless")
    return Sets(target, named.get("absent"), otherwise is not None, _differ(unless, usage) if unless else None)


def _differ(tree: syntax.Expression, usage: str) -> tuple[str, str]:
    """The names of two tensors."""
    if isinstance(tree, syntax.Call) and tree.callee.text == "differ" and len(tree.arguments) == 2:
        names = [
            each.value for each in tree.arguments if each.keyword is None and isinstance(each.value, syntax.String)
        ]
        if len(names) == 2:
            return names[0].value, names[1].value
    raise Fault("T622", "`differ` takes the names of two tensors", tree.span, help=usage)


def _labels(tree: syntax.Call, parameters: Collection[str]) -> Form:
    plain, named = _arguments(tree, 1, 1, "labels(parameter, absent=ours)")
    return Labels(_target(plain[0], parameters), named.get("absent"))


def _choose(tree: syntax.Call, parameters: Collection[str]) -> Form:
    usage = "choose(parameter, [theirs, ours], ..., absent=ours)"
    plain, named = _arguments(tree, 2, None, usage)
    pairs: list[tuple[syntax.Expression | Target, syntax.Expression]] = []
    for pair in plain[1:]:
        if not isinstance(pair, syntax.ListOf) or len(pair.items) != 2:
            raise Fault("T622", "a choice is a pair, [theirs, ours]", pair.span, help=usage)
        theirs, ours = pair.items
        is_target = isinstance(theirs, syntax.Path) and theirs.parts[0].text in parameters
        pairs.append((_target(theirs, parameters) if is_target else theirs, ours))
    return Chooses(_target(plain[0], parameters), tuple(pairs), named.get("absent"))


def _one_of(tree: syntax.Call, parameters: Collection[str]) -> Form:
    return Holds(tuple(_arguments(tree, 1, None, "one_of(value, ...)")[0]))


def _each(tree: syntax.Call, parameters: Collection[str]) -> Form:
    usage = "each(i, count, expression, single=true)"
    plain, settings = _arguments(tree, 3, 3, usage)
    single = settings.get("single")
    if single is not None and not (isinstance(single, syntax.Literal) and isinstance(single.value, bool)):
        raise Fault("T622", "`single` is true or false", single.span, help=usage)
    if not isinstance(plain[0], syntax.Path) or len(plain[0].parts) > 1 or plain[0].text in parameters:
        raise Fault("T622", "the index of `each` is a name of its own", plain[0].span, help="each(i, depth, ...)")
    named = isinstance(plain[2], syntax.Path) and plain[2].parts[0].text in parameters
    target = _target(plain[2], parameters) if named else None
    return Each(plain[0].text, plain[1], plain[2], target, single is not None and single.value is True)


_READERS = {"set": _set, "labels": _labels, "choose": _choose, "one_of": _one_of, "each": _each}
