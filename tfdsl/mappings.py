"""Mappings: how the weights and the configuration of a published checkpoint correspond to a model's.

The left side of a rule is their name (see `tfdsl.checkpoints.names`). For a weight the right side says what their tensor
is in terms of our weights: a path, in which a loop that `repeat h[depth]` makes is indexed by the name that stands in
braces on the left (`h[i].attn.weight`), or a change of layout around one or several. `if` chooses by parameters, `none` says
that there is no such tensor, and `ignored` that it has no influence. Several rules may name one weight: any of their
tensors will do, and the first is written. Rules for fields are those of `tfdsl.checkpoints.fields`.

A left side that ends with `*` takes in another mapping: `"[bert.]*" -> body(under=bert)` all its rules for weights, their
names after `bert.` and ours below `bert`; `"config.*" -> body` all its rules for fields. Rules of the mapping itself come first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tfdsl.checkpoints.fields import PREFIX, Chooses, Each, FieldRule, Holds, Target, read_field
from tfdsl.checkpoints.names import pattern
from tfdsl.checkpoints.weight_rules import NO_TENSOR, Correspondence, WeightRule
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters, declared_parameters
from tfdsl.ir.elaborate.scopes import plain_scope
from tfdsl.ir.elaborate.values import Fault, Poisoned
from tfdsl.ir.graph import Graph, Weight, weights
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Label, Span, did_you_mean
from tfdsl.language.modules import Declared, Module, base_block

DEEPEST = 10  # mappings that take in mappings


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
    depth: int = 0


class _Reader:
    def __init__(
        self, declared: Declared, faults: Collector, known: list[Weight] | None, parameters: Parameters | None
    ):
        self.names = declared_parameters(base_block(declared), Collector())
        self.faults, self.known, self.parameters = faults, known, parameters
        self.weights: list[Correspondence] = []
        self.fields: list[FieldRule] = []
        self.seen: dict[str, tuple[syntax.Mapping, Span]] = {}

    def rules(self, tree: syntax.Mapping) -> Rules:
        return Rules(tree.name.text, tree.name.span, self.weights, self.fields)

    def read(self, tree: syntax.Mapping, module: Module, place: _Included) -> None:
        for rule in sorted(tree.rules, key=lambda rule: rule.theirs.value.endswith("*")):  # its own rules come first
            try:
                if rule.theirs.value.endswith("*"):
                    self._include(rule, module, place)
                else:
                    self._rule(rule, tree, module, place)
            except Fault as fault:
                self.faults.add(fault.diagnostic)
            except Poisoned:
                continue  # a parameter is at fault, which was reported where it is declared

    def _include(self, rule: syntax.Rule, module: Module, place: _Included) -> None:
        left, tree = rule.theirs.value[:-1], rule.ours
        call = tree if isinstance(tree, syntax.Call) else None
        name = call.callee if call else tree
        found = module.find_mapping(name.text) if isinstance(name, syntax.Path) else None
        if found is None or not isinstance(name, syntax.Path):
            help_ = did_you_mean(
                name.span.text, [*module.mappings, *module.imported_mappings], '"*" -> mapping(under=path)'
            )
            raise Fault("T625", f"no mapping is called `{name.span.text}`", name.span, help=help_)
        if place.depth >= DEEPEST:
            raise Fault("T625", f"mappings take in each other more than {DEEPEST} deep", rule.span)
        under = place.under
        for argument in call.arguments if call else ():
            if argument.keyword is None or argument.keyword.text != "under" or left.startswith(PREFIX):
                raise Fault("T625", "a mapping is taken in as it is, or `under` a path of ours", argument.span)
            under = (*under, (argument.value, module))
        before = replace(place, under=under, depth=place.depth + 1)
        if left.startswith(PREFIX):
            deeper = None if place.fields is None else place.fields + left.removeprefix(PREFIX)
            self.read(*found, replace(before, fields=deeper, weights=None))
        else:
            self.read(
                *found, replace(before, weights=None if place.weights is None else place.weights + left, fields=None)
            )

    def _rule(self, rule: syntax.Rule, tree: syntax.Mapping, module: Module, place: _Included) -> None:
        is_field = rule.theirs.value.startswith(PREFIX)
        before = place.fields if is_field else place.weights
        if before is None:
            return
        name = PREFIX + before + rule.theirs.value.removeprefix(PREFIX) if is_field else before + rule.theirs.value
        key = name.removesuffix("?")
        if key in self.seen:
            mapping, span = self.seen[key]
            if mapping is not tree:
                return  # a mapping that is taken in does not change what was said here
            raise Fault("T620", f'"{key}" is mapped twice', rule.theirs.span, others=(Label(span, "first here"),))
        self.seen[key] = (tree, rule.theirs.span)
        if is_field:
            found = read_field(name, rule, module, self.names)
            check_field(found, self.parameters)
            self.fields.append(found)
            return
        try:
            theirs = pattern(name)
        except ValueError as error:
            raise Fault("T621", str(error), rule.theirs.span) from None
        reader = WeightRule(module, rule.theirs, theirs, self.known, self.parameters, place.under)
        ours = reader.read(rule.ours)
        if ours is not NO_TENSOR:
            self.weights.append(Correspondence(theirs, ours, rule.span))


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
    for tree in trees:
        evaluate(scope, tree)
