"""Plans: how a model is trained, optimised and deployed. Checked here; they never change what a model computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.parameters import Parameters
from tfdsl.ir.elaborate.scopes import free_sizes, plain_scope
from tfdsl.ir.elaborate.values import Fault, Range
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Diagnostic, Label, Source, Span, SpecError, did_you_mean, one
from tfdsl.language.modules import Declared, Module, base_block, extends
from tfdsl.language.parser import parse_expression
from tfdsl.passes import Request, prepare
from tfdsl.plan_settings import CHOICES, DTYPE, TRAIN, Choice, Unsettled, read_choice, read_value

TARGETS = ("torch", "onnx", "openvino")


@dataclass
class Train:
    """The `train` section: how a model is trained, with None for what the plan leaves open."""

    loss: Choice | None = None
    optimizer: Choice | None = None
    schedule: Choice | None = None
    batch: int | None = None
    seq: int | None = None
    steps: int | None = None
    precision: str = "fp32"


@dataclass
class Plan:
    """A plan with its expressions evaluated for one model.

    `deploy` has the sizes to fix or bound for each target, and `dtypes` the element type of those that were given one.
    """

    name: str
    train: Train = field(default_factory=Train)
    optimize: list[Request] = field(default_factory=list)
    deploy: dict[str, dict[str, int | Range]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)


def find_plan(module: Module, name: str, declared: Declared, parameters: Parameters) -> Plan:
    """The plan of a file for a model of given parameters. Raises `SpecError` for one that is missing or has faults."""
    tree = module.plans.get(name)
    if tree is None:
        help_ = did_you_mean(name, module.plans, "its plans are " + (", ".join(module.plans) or "none"))
        raise one("T601", f"`{module.tree.source.name}` has no plan `{name}`", help=help_)
    if tree.model.text not in [each.name for each in extends(declared)]:
        raise one(
            "T601",
            f"the plan `{name}` is for `{tree.model.text}`, and not for `{declared.name}`",
            tree.model.span,
            help=f"a plan for a model serves what extends it; `plan {name} for {declared.name}` would fit",
        )
    faults = Collector()
    plan = read_plan(tree, module, declared, parameters, faults)
    faults.check()
    return plan


def read_plan(
    tree: syntax.Plan, module: Module, declared: Declared, parameters: Parameters | None, faults: Collector
) -> Plan:
    """A plan evaluated; without parameters, what depends on them is left out. Faults are collected."""
    return _Reader(tree, module, declared, parameters, faults).read()


def parse_request(text: str, module: Module, parameters: Parameters) -> Request:
    """A pass with its options from text, as `--pass` gives it. Raises `SpecError`."""
    tree = parse_expression(Source("--pass", text))
    try:
        if not isinstance(tree, (syntax.Call, syntax.Path)):
            raise Fault("T602", "a pass is written as it is in a plan", tree.span, help='quantize("h.**", bits=8)')
        request = _request(tree, plain_scope(module, parameters), settled=True)
    except Fault as fault:
        raise SpecError([fault.diagnostic]) from None
    prepare([request])
    return request


def _request(tree: syntax.Call | syntax.Path, scope: Body, settled: bool) -> Request:
    """A call of a pass with its arguments evaluated."""
    if isinstance(tree, syntax.Path):
        return Request(tree.text, span=tree.span)
    if tree.name is not None:
        raise Fault("T602", "a pass has no name of its own", tree.name.span, help="leave out the `as`")
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    spans: dict[int | str, Span] = {}
    for argument in tree.arguments:
        if not settled and any(isinstance(node, syntax.Path) for node in argument.value.walk()):
            raise Unsettled
        value = evaluate(scope, argument.value)
        key: int | str = len(positional) if argument.keyword is None else argument.keyword.text
        if isinstance(key, int):
            positional.append(value)
        elif key in keywords:
            assert argument.keyword is not None
            raise Fault("T602", f"`{key}` is given twice", argument.keyword.span)
        else:
            keywords[key] = value
        spans[key] = argument.span
    return Request(tree.callee.text, tuple(positional), keywords, tree.span, spans)


class _Reader:
    def __init__(
        self, tree: syntax.Plan, module: Module, declared: Declared, parameters: Parameters | None, faults: Collector
    ):
        self.tree = tree
        self.declared = declared
        self.faults = faults
        self.scope = plain_scope(module, parameters)
        self.settled = parameters is not None
        self.plan = Plan(tree.name.text)

    def read(self) -> Plan:
        seen: dict[str, syntax.Section] = {}
        for section in self.tree.sections:
            if section.kind in seen:
                first = Label(seen[section.kind].kind_span, "first here")
                self._fault("T610", f"`{section.kind}` stands twice in a plan", section.kind_span, others=(first,))
                continue
            seen[section.kind] = section
            for item in _once(section, self.faults):
                try:
                    getattr(self, f"_{section.kind}")(item)
                except Fault as fault:
                    self.faults.add(fault.diagnostic)
                except Unsettled:
                    continue
        return self.plan

    def _train(self, item: syntax.Setting | syntax.Call) -> None:
        if isinstance(item, syntax.Call):
            known = next((name for name, choices in CHOICES.items() if item.callee.text in choices), None)
            help_ = f"{known} = {item.span.text}" if known else ""
            raise Fault("T610", "`train` is a list of settings, name = value", item.span, help=help_)
        name = item.name.text
        if name in CHOICES:
            setattr(self.plan.train, name, read_choice(self.scope, name, item.value, self.settled, self.faults))
        elif name in TRAIN:
            setattr(self.plan.train, name, read_value(self.scope, TRAIN[name], name, item.value, self.settled))
        else:
            known_names = (*CHOICES, *TRAIN)
            help_ = did_you_mean(name, known_names, "the settings are " + ", ".join(known_names))
            raise Fault("T611", f"`train` has no setting `{name}`", item.name.span, help=help_)

    def _optimize(self, item: syntax.Setting | syntax.Call) -> None:
        if isinstance(item, syntax.Setting):
            raise Fault(
                "T610", "`optimize` is a list of passes, name(options)", item.span, help=f"{item.name.text}(...)"
            )
        request = _request(item, self.scope, self.settled)
        try:
            prepare([request])
        except SpecError as error:
            for diagnostic in error.diagnostics:
                self.faults.add(diagnostic)
        self.plan.optimize.append(request)

    def _deploy(self, item: syntax.Setting | syntax.Call) -> None:
        if isinstance(item, syntax.Setting):
            raise Fault("T610", "`deploy` is a list of targets, name(sizes)", item.span, help=f"{item.name.text}(...)")
        target = item.callee.text
        if target not in TARGETS:
            help_ = did_you_mean(target, TARGETS, "the targets are " + ", ".join(TARGETS))
            raise Fault("T613", f"there is no target `{target}`", item.callee.span, help=help_)
        sizes: dict[str, int | Range] = {}
        known = free_sizes(self.declared)
        for argument in item.arguments:
            try:
                self._deploy_size(target, argument, known, sizes)
            except Fault as fault:
                self.faults.add(fault.diagnostic)
            except Unsettled:
                continue
        self.plan.deploy[target] = sizes

    def _deploy_size(
        self, target: str, argument: syntax.Argument, known: list[str], sizes: dict[str, int | Range]
    ) -> None:
        model = base_block(self.declared).name.text
        if argument.keyword is None:
            raise Fault("T614", f"the options of `{target}` are given by name", argument.span, help="batch=1..64")
        name = argument.keyword.text
        if name == DTYPE:
            if target in self.plan.dtypes:
                raise Fault("T610", f"`{name}` is given twice", argument.keyword.span)
            self.plan.dtypes[target] = read_value(self.scope, DTYPE, name, argument.value, self.settled)
            return
        if name not in known:
            otherwise = f"it has `{DTYPE}`, and the sizes that `{model}` leaves open: {', '.join(known) or 'none'}"
            help_ = did_you_mean(name, (*known, DTYPE), otherwise)
            raise Fault("T614", f"`{target}` has no option `{name}`", argument.keyword.span, help=help_)
        if name in sizes:
            raise Fault("T610", f"`{name}` is given twice", argument.keyword.span)
        sizes[name] = read_value(self.scope, "sizes", name, argument.value, self.settled)

    def _fault(self, code: str, message: str, span: Span, others: tuple[Label, ...] = (), help: str = "") -> None:
        self.faults.add(Diagnostic(code, message, span, others=others, help=help))


def _once(section: syntax.Section, faults: Collector) -> list[syntax.Setting | syntax.Call]:
    """The items of a section; settings and targets that stand twice are reported. Passes may run twice."""
    seen: dict[str, Span] = {}
    kept: list[syntax.Setting | syntax.Call] = []
    for item in section.items:
        name = item.name.text if isinstance(item, syntax.Setting) else item.callee.text
        place = item.name.span if isinstance(item, syntax.Setting) else item.callee.span
        if name in seen and section.kind != "optimize":
            others = (Label(seen[name], "first here"),)
            faults.add(Diagnostic("T610", f"`{name}` stands twice in `{section.kind}`", place, others=others))
            continue
        seen[name] = place
        kept.append(item)
    return kept
