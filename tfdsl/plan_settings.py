"""The settings that a plan's `train` section may have, and how each is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tfdsl.ir.elaborate.arithmetic import is_number
from tfdsl.ir.elaborate.body import Body
from tfdsl.ir.elaborate.causes import causes
from tfdsl.ir.elaborate.expressions import evaluate
from tfdsl.ir.elaborate.values import Fault, Range, kind_of
from tfdsl.language import syntax
from tfdsl.language.diagnostics import Collector, Label, did_you_mean


class Unsettled(Exception):
    """A value that depends on parameters which a model without values for them does not have."""


@dataclass(frozen=True)
class Choice:
    """One of several named things, with all its settings: `adamw(lr=6e-4)`."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """A setting of a choice: the kind of its value, and its default; `required` has none."""

    kind: str
    default: Any = None
    required: bool = False


_RATE, _COUNT, _SHARE = "a number above zero", "a whole number, zero or more", "a number, zero or more"
_DECAY = {
    "warmup": Option(_COUNT, 0),
    "steps": Option("a whole number above zero", required=True),
    "floor": Option(_SHARE, 0.0),
}
CHOICES: dict[str, dict[str, dict[str, Option]]] = {
    "loss": {"cross_entropy": {"shift": Option(_COUNT, 0)}, "mean_squared_error": {}},
    "optimizer": {
        "adamw": {
            "lr": Option(_RATE, required=True),
            "betas": Option("two numbers below one", (0.9, 0.999)),
            "decay": Option(_SHARE, 0.01),
            "eps": Option(_RATE, 1e-8),
        },
        "sgd": {"lr": Option(_RATE, required=True), "momentum": Option(_SHARE, 0.0), "decay": Option(_SHARE, 0.0)},
    },
    "schedule": {
        "constant": {},
        "cosine": _DECAY,
        "linear": _DECAY,
    },
}
DTYPE = "dtype"  # the one setting of a target that is no size
_DTYPES = ("float32", "float16", "bfloat16")
TRAIN = dict.fromkeys(("batch", "seq", "steps"), "a whole number above zero") | {"precision": '"fp32" or "bf16"'}


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_FITS: dict[str, Callable[[Any], bool]] = {
    "a whole number above zero": lambda value: _is_whole(value, 1),
    _COUNT: lambda value: _is_whole(value, 0),
    _RATE: lambda value: is_number(value) and value > 0,
    _SHARE: lambda value: is_number(value) and value >= 0,
    "two numbers below one": lambda value: (
        isinstance(value, tuple) and len(value) == 2 and all(is_number(each) and 0 <= each < 1 for each in value)
    ),
    '"fp32" or "bf16"': lambda value: value in ("fp32", "bf16"),
    DTYPE: lambda value: value in _DTYPES,
    "sizes": lambda value: _is_whole(value, 1) or (isinstance(value, Range) and value.low >= 1),
}
_SHOWN = {
    DTYPE: " or ".join(f'"{name}"' for name in _DTYPES),
    "sizes": "a size above zero or a range of them, as 1..64",
}


def read_value(scope: Body, kind: str, name: str, tree: syntax.Expression, settled: bool) -> Any:
    """The value of a setting of a kind. Raises a fault, or `Unsettled` where it needs parameters without a value."""
    if not settled and any(isinstance(node, syntax.Path) for node in tree.walk()):
        raise Unsettled
    value = evaluate(scope, tree)
    if not _FITS[kind](value):
        message = f"`{name}` is {_SHOWN.get(kind, kind)}, not {kind_of(value)}"
        raise Fault("T612", message, tree.span).because(causes(scope, tree))
    return value


def read_choice(scope: Body, name: str, tree: syntax.Expression, settled: bool, faults: Collector) -> Choice:
    """A choice with its settings; those that are not given have their defaults. Faults of settings are collected."""
    known = CHOICES[name]
    listed = ", ".join(f"{choice}(...)" if options else f"{choice}()" for choice, options in known.items())
    if not isinstance(tree, (syntax.Call, syntax.Path)):
        raise Fault("T612", f"`{name}` is one of {listed}", tree.span)
    callee = tree.callee if isinstance(tree, syntax.Call) else tree
    if callee.text not in known:
        help_ = did_you_mean(callee.text, known, f"`{name}` is one of {listed}")
        raise Fault("T611", f"there is no {name} `{callee.text}`", callee.span, help=help_)
    options = known[callee.text]
    given: dict[str, tuple[Any, syntax.Argument]] = {}
    for argument in tree.arguments if isinstance(tree, syntax.Call) else ():
        try:
            key = _option(callee.text, options, argument, given)
            given[key] = options[key].default, argument
            given[key] = read_value(scope, options[key].kind, key, argument.value, settled), argument
        except Fault as fault:
            faults.add(fault.diagnostic)
    for key, option in options.items():
        if option.required and key not in given:
            raise Fault("T612", f"`{callee.text}` needs `{key}`, {option.kind}", tree.span)
    chosen = Choice(callee.text, {key: given[key][0] if key in given else o.default for key, o in options.items()})
    _check_warmup(chosen, given)
    return chosen


def _option(choice: str, options: Mapping[str, Option], argument: syntax.Argument, given: Mapping[str, Any]) -> str:
    listed = f"{choice} takes {', '.join(options)}" if options else f"{choice} takes no settings"
    if argument.keyword is None:
        raise Fault("T612", f"the settings of `{choice}` are given by name", argument.span, help=listed)
    name = argument.keyword.text
    if name not in options:
        help_ = did_you_mean(name, options, listed)
        raise Fault("T611", f"`{choice}` has no setting `{name}`", argument.keyword.span, help=help_)
    if name in given:
        first = given[name][1].keyword.span
        raise Fault("T610", f"`{name}` is given twice", argument.keyword.span, others=(Label(first, "first here"),))
    return name


def _check_warmup(chosen: Choice, given: Mapping[str, tuple[Any, syntax.Argument]]) -> None:
    warmup, steps = chosen.settings.get("warmup"), chosen.settings.get("steps")
    if warmup is not None and steps is not None and warmup > steps:
        others = (Label(given["steps"][1].value.span, f"and there are {steps}"),)
        span = given["warmup"][1].value.span
        raise Fault("T612", f"a warm-up of {warmup:,} steps is longer than all {steps:,}", span, others=others)
