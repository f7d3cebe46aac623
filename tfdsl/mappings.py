"""Mappings: how the weights and the configuration of a published checkpoint correspond to a model's.

The left side of a rule is their name (see `tfdsl.checkpoints.names`). For a weight the right side says what their tensor
is in terms of our weights: a path, in which a loop that `repeat h[depth]` makes is indexed by the name that stands in
braces on the left (`h[i].attn.weight`), or a change of layout around one or several. `if` chooses by parameters, `none` says
that there is no such tensor, and `ignored` that it has no influence. `copy(path)` is a tensor that may be there too: it must
equal the one that another rule names, and is not written. `computed(block)` is a table that a block computes: if it is there
it must hold just that, and it is not written. Rules for fields are those of `tfdsl.checkpoints.fields`.

A left side that ends with `*` stands for everything below. With a path of ours, `"[model.]layers.{i}.*" -> layers[i]`, all
weights below it have the same names on both sides; `"head.*" -> ignored` has no influence. `like` takes in another mapping:
`"[bert.]*" -> like(body, under=bert)` all its rules for weights, with their names after `bert.` and ours below `bert`, and
`"config.*" -> like(body)` all its rules for fields. Rules with names of their own come before those. A mapping without any
rules for fields is a part that others take in.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tfdsl.checkpoints.fields import IGNORED, PREFIX, Chooses, Each, FieldRule, Holds, Labels, Sets, Target, read_field
from tfdsl.checkpoints.names import Pattern, pattern
from tfdsl.checkpoints.weight_rules import NO_TENSOR, Correspondence, OurWeight, WeightRule
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters, declared_parameters
from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault, Poisoned
from tfdsl.ir.graph import Graph, Weight, weights
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Label, Span, did_you_mean
from tfdsl.language.modules import Declared, Module, base_block

MOST_TAKEN_IN = 100  # mappings in one
_LIKE = "like"


@dataclass
class Rules:
    """A mapping, read for a model."""

    name: str
    span: Span
    weights: list[Correspondence] = field(default_factory=list)
    fields: list[FieldRule] = field(default_factory=list)


def read_mapping(
    tree: syntax.Mapping,
    module: Module,
    declared: Declared,
    faults: Collector,
    graph: Graph | None = None,
    parameters: Parameters | None = None,
) -> Rules:
    """The rules of a mapping for a model, checked against its weights where there is a graph. Faults are collected."""
    reader = _Reader(declared, faults, weights(graph) if graph is not None else None, parameters)
    reader.read(tree, module, _Included())
    return reader.rules(tree)


@dataclass(frozen=True)
class _Included:
    """How a mapping was taken in: what stands before its left sides, and above its paths."""

    weights: str | None = ""  # None for a mapping of which the fields alone are taken
    fields: str | None = ""
    under: tuple[tuple[syntax.Expression, Module], ...] = ()


class _Reader:
    def __init__(
        self, declared: Declared, faults: Collector, known: list[Weight] | None, parameters: Parameters | None
    ):
        self.names = declared_parameters(base_block(declared), Collector())
        self.faults, self.known, self.parameters = faults, known, parameters
        self.weights: list[Correspondence] = []
        self.fields: list[FieldRule] = []
        self.seen: dict[str, tuple[syntax.Mapping, Span]] = {}
        self.taken_in = 0

    def rules(self, tree: syntax.Mapping) -> Rules:
        return Rules(tree.name.text, tree.name.span, self.weights, self.fields)

    def read(self, tree: syntax.Mapping, module: Module, place: _Included) -> None:
        for rule in sorted(tree.rules, key=_rank):
            try:
                if rule.theirs.value.endswith("*"):
                    self._below(rule, tree, module, place)
                else:
                    self._rule(rule, tree, module, place)
            except Fault as fault:
                self.faults.add(fault.diagnostic)
            except Poisoned:
                continue  # a parameter is at fault, which was reported where it is declared

    def _below(self, rule: syntax.Rule, tree: syntax.Mapping, module: Module, place: _Included) -> None:
        """A rule for everything below a name."""
        ours = rule.ours
        if (place.fields if rule.theirs.value.startswith(PREFIX) else place.weights) is None:
            return
        if not _takes_in(rule) and not self._is_new(f"{place.weights}{rule.theirs.value}", rule, tree):
            return
        while isinstance(ours, syntax.Choice):
            known = self.parameters is not None
            condition = evaluate(plain_scope(module, self.parameters), ours.condition) if known else True
            ours = ours.then if condition is True else ours.otherwise
        if isinstance(ours, syntax.Literal) and ours.value is None:
            return
        if isinstance(ours, syntax.Call) and _takes_in(rule):
            self._include(rule, ours, module, place)
        elif rule.theirs.value.startswith(PREFIX):
            raise Fault(
                "T625", "rules for fields name them, or take in a mapping", rule.span, help='"config.*" -> like(...)'
            )
        elif isinstance(ours, syntax.Path) and ours.text == IGNORED:
            self.weights.append(Correspondence(pattern(f"{place.weights}{rule.theirs.value}"), None, rule.span))
        else:
            self._expand(rule, ours, tree, module, place)

    def _include(self, rule: syntax.Rule, call: syntax.Call, module: Module, place: _Included) -> None:
        left = rule.theirs.value[:-1]
        named = [each for each in call.arguments if each.keyword is None]
        others = [each for each in call.arguments if each.keyword is not None]
        found = module.find_mapping(named[0].value.span.text) if len(named) == 1 else None
        if found is None:
            known = [*module.mappings, *module.imported_mappings]
            help_ = did_you_mean(named[0].value.span.text, known) if named else ""
            raise Fault("T625", f"`{_LIKE}` names a mapping of this file or an imported one", call.span, help=help_)
        self.taken_in += 1
        if self.taken_in > MOST_TAKEN_IN:
            raise Fault("T625", f"a mapping takes in more than {MOST_TAKEN_IN} others", rule.span)
        under = place.under
        for argument in others:
            if argument.keyword is None or argument.keyword.text != "under" or left.startswith(PREFIX):
                raise Fault("T625", "a mapping is taken in as it is, or `under` a path of ours", argument.span)
            under = (*under, (argument.value, module))
        before = replace(place, under=under)
        if left.startswith(PREFIX):
            deeper = None if place.fields is None else place.fields + left.removeprefix(PREFIX)
            self.read(*found, replace(before, fields=deeper, weights=None))
        else:
            longer = None if place.weights is None else place.weights + left
            self.read(*found, replace(before, weights=longer, fields=None))

    def _expand(
        self, rule: syntax.Rule, ours: syntax.Expression, tree: syntax.Mapping, module: Module, place: _Included
    ) -> None:
        """A rule for each weight below a path of ours."""
        assert place.weights is not None
        left = place.weights + rule.theirs.value[:-1]
        reader = self._reader(rule, left, module, place)
        path, indices = reader.path(ours)
        tails = [each.path[len(path) + 1 :] for each in self.known or () if each.path.startswith(f"{path}.")]
        if self.known is not None and not tails:
            known = [each.path for each in self.known]
            help_ = did_you_mean(path, known).replace(".*", "[i]") or "`tfm show` lists them"
            raise Fault("T623", f"the model has no weights below `{ours.span.text}`", ours.span, help=help_)
        reader.check_used()
        for tail in dict.fromkeys(tails):
            numbers = [f"_{place}" for place in range(tail.count("*"))]
            name = left + "{}".join(tail.split("*")).format(*(f"{{{each}}}" for each in numbers))
            theirs = pattern(name)
            keys = theirs.keys()
            if not any(key in self.seen for key in keys):
                self.seen |= dict.fromkeys(keys, (tree, rule.theirs.span))
                found = OurWeight(f"{path}.{tail}", (*indices, *numbers))
                self.weights.append(Correspondence(theirs, found, rule.span))

    def _is_new(self, name: str, rule: syntax.Rule, tree: syntax.Mapping) -> bool:
        """Whether nothing was said of a name before by a mapping that takes in this one. Raises `Fault` for one said twice."""
        keys = _parsed(name, rule, is_field=name.startswith(PREFIX)).keys()
        known = [self.seen[key] for key in keys if key in self.seen]
        for mapping, span in known:
            if mapping is tree:
                others = (Label(span, "first here"),)
                raise Fault("T620", f'"{rule.theirs.value}" is mapped twice', rule.theirs.span, others=others)
        if not known:
            self.seen |= dict.fromkeys(keys, (tree, rule.theirs.span))
        return not known

    def _reader(self, rule: syntax.Rule, name: str, module: Module, place: _Included) -> WeightRule:
        theirs = _parsed(name, rule)
        return WeightRule(module, rule.theirs, theirs, self.known, self.parameters, place.under)

    def _rule(self, rule: syntax.Rule, tree: syntax.Mapping, module: Module, place: _Included) -> None:
        is_field = rule.theirs.value.startswith(PREFIX)
        before = place.fields if is_field else place.weights
        if before is None:
            return
        name = PREFIX + before + rule.theirs.value.removeprefix(PREFIX) if is_field else before + rule.theirs.value
        if not self._is_new(name, rule, tree):
            return
        if is_field:
            found = read_field(name, rule, module, self.names)
            check_field(found, self.parameters)
            self.fields.append(found)
            return
        reader = self._reader(rule, name, module, place)
        ours = reader.read(rule.ours)
        if ours is not NO_TENSOR:
            self.weights.append(Correspondence(reader.names, ours, rule.span, reader.is_copy, reader.computed, module))


def _parsed(name: str, rule: syntax.Rule, is_field: bool = False) -> Pattern:
    try:
        return pattern(name, field=is_field)
    except ValueError as error:
        raise Fault("T621", str(error), rule.theirs.span) from None


def _takes_in(rule: syntax.Rule) -> bool:
    return isinstance(rule.ours, syntax.Call) and rule.ours.callee.text == _LIKE


def _rank(rule: syntax.Rule) -> int:
    """The order in which rules are read: those for one name, those for all below one, other mappings."""
    return 2 if _takes_in(rule) else int(rule.theirs.value.endswith("*"))


def check_field(rule: FieldRule, parameters: Parameters | None) -> None:
    """Evaluate what a rule for a field says, so that its faults are found without a checkpoint. Raises `Fault`."""
    if parameters is None:
        return
    form, trees = rule.form, list[syntax.Expression]()
    scope = plain_scope(rule.module, parameters)
    if isinstance(form, Holds):
        trees = list(form.choices)
    elif isinstance(form, Each):
        scope.env[form.index] = 0
        trees = [form.count, form.item]
    elif isinstance(form, Chooses):
        trees = [each for pair in form.pairs for each in pair if not isinstance(each, Target)]
    if isinstance(form, (Sets, Chooses, Labels)) and form.absent is not None:
        trees.append(form.absent)
    for tree in trees:
        evaluate(scope, tree)
